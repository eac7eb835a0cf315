//! A faithful simulator of a quota-limited Platform API, to develop and test against.
//!
//! # Why
//!
//! A client that paces itself can only be trusted if somebody else counts. This crate is that somebody: it
//! implements the server's side of the contract (quota rules, header dialects, OAuth, versions, asynchronous
//! jobs, faults) from public descriptions of the platform, and it keeps the books on what really happened: what was
//! accepted, what was throttled, which write was applied twice. It shares no code with the rest of Tidegate, so that an
//! error of understanding there cannot hide here.
//!
//! # Shape
//!
//! * [`model`] is pure: every method takes `now` (time since the start of the simulation) and randomness comes from one
//!   seed. The quota models can be used without a server, in virtual time.
//! * [`wire`] turns decisions into header text and bodies.
//! * [`server`] is a thin shell of sockets around [`model::world::World`].
//! * [`config`] and [`scenario`] say what to simulate; every knob is documented there.
//!
//! # Rules
//!
//! The same seed and the same order of calls give the same decisions. Times are durations since the start (or since the last
//! `POST /sim/reset`); only the shell knows a clock.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let config = tidegate_sim::SimConfig::from_toml("limit = 60\nwindow = \"5s\"\nheaders = \"ietf\"").unwrap();
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
//! let sim = tidegate_sim::serve(listener, config).await.unwrap();
//! println!("simulating on http://{}", sim.local_addr());
//! assert_eq!(sim.stats().accepted, 0);
//! sim.shutdown().await;
//! # });
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic is how a test fails"))]

pub mod config;
pub mod error;
pub mod model;
pub mod scenario;
pub mod server;
pub mod strict;
pub mod text;
pub mod wire;
pub mod witness;

mod clock;
mod control;
mod hooks;
mod sockets;

pub use config::SimConfig;
pub use error::SimError;
pub use model::fault::Faults;
pub use model::ledger::Stats;
pub use scenario::Scenario;
pub use server::{Sim, serve, serve_before};
pub use witness::Witness;
