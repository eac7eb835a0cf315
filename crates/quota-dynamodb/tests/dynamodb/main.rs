//! The store against an emulator, each test with one of its own. The arithmetic is compared with the ledger beside the store;
//! here is what only a table can show.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod contention;
mod emulator;
mod failures;
mod shapes;
mod support;
