//! The gateway on real sockets: against the simulator, whose books are the judge, and against small upstreams that
//! misbehave in ways the simulator does not.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bodies;
mod calendar;
mod door;
mod doubt;
mod fleet;
mod framing;
mod keys;
mod listing;
mod logins;
mod operation;
mod orphans;
mod pacing;
mod readers;
mod stage;
mod tenants;
