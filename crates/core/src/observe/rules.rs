//! How a profile says its vendor's headers are to be read.

use std::time::Duration;

use http::HeaderName;

use super::Dialect;

/// The unit of a number that says when quota comes back. Texts (dates, `1m30s`) speak for themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetUnit {
    /// By size: below 10⁹ seconds from now, below 10¹² an epoch in seconds, else an epoch in milliseconds.
    #[default]
    Auto,
    /// Seconds from now; from 10⁹ on it is an epoch all the same, because no wait takes 31 years.
    DeltaSeconds,
    /// Milliseconds from now; from 10¹² on an epoch in milliseconds.
    DeltaMillis,
    /// Seconds since 1970, decimals allowed.
    EpochSeconds,
    /// Milliseconds since 1970.
    EpochMillis,
    /// A date in any form (HTTP, ISO 8601, JavaScript); numbers are refused.
    Date,
    /// A duration with units (`6m0s`); numbers are refused.
    Duration,
}

impl ResetUnit {
    /// Every unit with its name in profiles.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("auto", Self::Auto),
        ("delta-s", Self::DeltaSeconds),
        ("delta-ms", Self::DeltaMillis),
        ("epoch-s", Self::EpochSeconds),
        ("epoch-ms", Self::EpochMillis),
        ("date", Self::Date),
        ("duration", Self::Duration),
    ];
}

/// Which of the known dialects are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HeaderRead {
    /// All of them.
    #[default]
    Auto,
    /// These.
    Only(Vec<Dialect>),
    /// None; `Retry-After` and the profile's own rules are still read.
    Nothing,
}

/// How to read a vendor's headers: the known dialects, and rules for what they do not cover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// The known dialects to look for.
    pub read: HeaderRead,
    /// The unit of a reset in those dialects whose headers are used with several (`X-RateLimit-Reset` and its like).
    pub reset_unit: ResetUnit,
    /// The vendor's own headers. A rule that finds something takes precedence: the known dialects add no reading of
    /// the same name to it.
    pub declared: Vec<HeaderRule>,
    /// Where in the JSON body of a refusal a wait in seconds stands besides the known places, as a JSON pointer
    /// (RFC 6901) such as `/error/retry_in`.
    pub body_wait: Option<String>,
}

impl HeaderRules {
    /// Reads nothing but these dialects.
    pub fn only(dialects: impl Into<Vec<Dialect>>) -> Self {
        Self { read: HeaderRead::Only(dialects.into()), ..Self::default() }
    }
}

/// One limit described by headers of a vendor's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRule {
    /// The limit's name.
    pub name: Option<String>,
    /// The header that gives the limit's name; wins over `name` where it is present.
    pub name_from: Option<HeaderName>,
    /// Requests per window.
    pub limit: Option<HeaderName>,
    /// Requests left.
    pub remaining: Option<HeaderName>,
    /// Requests used.
    pub used: Option<HeaderName>,
    /// Used and limit in one value: `32/40`.
    pub ratio: Option<HeaderName>,
    /// When quota comes back, in `reset_unit`.
    pub reset: Option<HeaderName>,
    /// A wait the server asks for besides `Retry-After`, in `reset_unit`.
    pub retry_after: Option<HeaderName>,
    /// The unit of `reset` and `retry_after`.
    pub reset_unit: ResetUnit,
    /// Length of the window.
    pub window: Option<Duration>,
}
