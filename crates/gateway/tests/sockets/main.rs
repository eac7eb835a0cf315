//! The gateway on real sockets: against the simulator, whose books are the judge, and against small upstreams that
//! misbehave in ways the simulator does not.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bodies;
mod calendar;
mod door;
mod doubt;
mod fleet;
mod frames;
mod framing;
mod hooks;
mod http2;
mod keys;
mod listing;
mod logins;
mod merging;
mod operation;
mod orphans;
mod pacing;
mod push;
mod readers;
mod stage;
mod tenants;
