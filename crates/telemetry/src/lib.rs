//! Turns what Tidegate observes into metrics.
//!
//! One list of names ([`Metric`]) and one place that counts ([`Metrics`], with an
//! [`Observer`](tidegate::observe::Observer) for each tenant: [`TenantMetrics`]), rendered in the text format that Prometheus
//! scrapes.

pub mod cache;
pub mod name;
mod push;
pub mod registry;
pub mod tenant;

pub use self::name::Metric;
pub use self::registry::{KnownBy, Metrics};
pub use self::tenant::{OTHER, TenantMetrics};
