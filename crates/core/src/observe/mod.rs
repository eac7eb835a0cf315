//! What one response said about limits, in relative durations.

use std::time::Duration;

use crate::time::Wall;

/// What one response said about limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// One per limit the response describes.
    pub readings: Vec<Reading>,
    /// How long to wait, from `Retry-After` or a body that says so.
    pub retry_after: Option<Duration>,
    /// The limit a 429 body names.
    pub hit: Option<HitLimit>,
    /// The response's own `Date`.
    pub date: Option<Wall>,
    /// Fields that could not be read.
    pub ignored: Vec<Ignored>,
}

/// What a response said about one limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The limit's name, where the header gives one.
    pub name: Option<String>,
    /// The quota.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// When it comes back.
    pub reset: Option<Reset>,
    /// The length of its window.
    pub window: Option<Duration>,
    /// The dialect it was read from.
    pub dialect: Dialect,
}

/// When a quota comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reset {
    /// Time left.
    pub after: Duration,
    /// How coarse the number is; zero is exact.
    pub grain: Duration,
    /// The instant, if the header was absolute.
    pub at: Option<Wall>,
}

/// The limit a 429 body names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HitLimit {
    /// Its key.
    pub key: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its value.
    pub value: Option<u64>,
}

/// A field that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The field.
    pub field: String,
    /// Why.
    pub why: &'static str,
}

/// The dialect a reading came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `X-Rate-Limit-*`.
    Guide,
    /// The IETF drafts.
    Ietf,
}
