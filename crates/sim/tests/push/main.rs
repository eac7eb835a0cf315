//! What the simulator tells, on real sockets.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bench;
mod lines;
mod webhooks;
