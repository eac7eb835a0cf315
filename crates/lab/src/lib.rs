//! The lab: what would so many programs do to this quota, and what would the quota do to them?
//!
//! # Why
//!
//! Pacing goes wrong in seconds that nobody watches: at the edge of a window, after a hint that was too short, when forty
//! workers wake together. On sockets such a second takes a second and never comes back the same. Here it takes
//! microseconds and always comes back the same: the core's machines, the very ones that run in the gateway, meet the
//! simulator's models of a server in virtual time, beside the strategies they are meant to replace.
//!
//! # Shape
//!
//! | module | idea |
//! | --- | --- |
//! | [`scenario`], [`fleet`], [`quota`], [`expect`] | what a scenario file says, read strictly |
//! | [`builtin`] | the files of `scenarios/`, compiled in |
//! | [`run`](mod@run) | one scenario, all its strategies, one report |
//! | `engine` | the event loop: callers, network, tokens, server |
//! | [`strategy`] | who decides when an attempt leaves; one file each |
//! | `store`, [`sharing`] | where instances share their quotas, and what came of it |
//! | `ideal` | the best that anybody could have done, with full knowledge of the server |
//! | [`measure`] | from what happened to numbers |
//! | [`report`] | table, JSON, picture |
//! | [`sockets`] | the same scenario in real time, on real sockets |
//!
//! # Rules
//!
//! The same scenario and seed give the same run, event by event ([`measure::Measures::trace`] is the proof). Outside of [`sockets`]
//! there is no clock, no socket, no task, no randomness of the system. Header text goes through the core's real parser. The lab knows
//! nothing about the inside of a gate, and the ideal knows nothing about the core at all.
//!
//! ```
//! use tidegate_lab::{Options, Scenario, run};
//!
//! let scenario = Scenario::from_toml(r#"
//!     name = "small"
//!     [server]
//!     limit = 20
//!     window = "1s"
//!     headers = "xratelimit"
//!     [fleet]
//!     rtt = "20ms"
//!     strategies = ["tidegate", "reactive"]
//!     [[fleet.load]]
//!     callers = 8
//!     requests = 60
//!     [expect.tidegate]
//!     throttles = 0
//! "#)?;
//! let report = run(&scenario, &Options::default())?;
//! assert!(report.violations().is_empty(), "{}", report.table());
//! # Ok::<(), tidegate_lab::LabError>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic is how a test fails"))]

pub mod builtin;
pub mod call;
pub mod classes;
pub mod error;
pub mod expect;
pub mod fleet;
pub mod measure;
pub mod picture;
pub mod quota;
pub mod report;
pub mod run;
pub mod scenario;
pub mod sharing;
pub mod sockets;
pub mod strategy;

mod calendar;
mod engine;
mod feed;
mod headline;
mod ideal;
mod leave;
mod network;
mod outage;
mod place;
mod plan;
mod queue;
mod store;
mod tape;
mod text;
mod wallet;

pub use error::LabError;
pub use report::Report;
pub use run::{Options, run};
pub use scenario::Scenario;
pub use strategy::StrategyName;
