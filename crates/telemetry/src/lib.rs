//! Turns what Tidegate observes into metrics.
//!
//! One list of names ([`Metric`]) and one place that counts ([`Metrics`], an
//! [`Observer`](tidegate::observe::Observer)), rendered in the text format that Prometheus scrapes.

pub mod name;
pub mod registry;

pub use self::name::Metric;
pub use self::registry::{KnownBy, Metrics};
