//! The store against real servers, each test with one of its own. The arithmetic is compared with the ledger beside the
//! script; here is what only a server can show.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cluster;
mod conformance;
mod failures;
mod locks;
mod nodes;
mod permissions;
mod proxy;
mod server;
mod support;
mod tls;
mod whole;
