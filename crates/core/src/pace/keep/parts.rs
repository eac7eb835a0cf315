//! The parts of a stored state, as they are written.

use serde::{Deserialize, Serialize};

use crate::pace::gist::Gist;

/// One gate. Instants in seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pace) struct KeptGate {
    pub(in crate::pace) limit: KeptLimit,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::pace) family: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::pace) credential: Option<String>,
    /// Instead: those share it for whom there is no room.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::pace) crowd: bool,
    /// It has a count per token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::pace) token: bool,
    pub(in crate::pace) gist: Gist,
}

/// Which limit a gate paces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::pace) enum KeptLimit {
    Declared(String),
    Implicit,
    Named(String),
}

/// The end of a process that may have spent what no state holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pace) struct KeptCrash {
    /// Seconds since the Unix epoch.
    pub(in crate::pace) ended: f64,
    /// Nothing bounded what it spent.
    pub(in crate::pace) all: bool,
    /// Only of this declared limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::pace) limit: Option<String>,
}

/// A declared limit of which the upstream told another number than was declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pace) struct KeptLimitKind {
    pub(in crate::pace) limit: String,
    /// As it is declared. Should that change, what was told is told again.
    pub(in crate::pace) declared: u64,
    pub(in crate::pace) told: u64,
    /// Seconds; zero for attempts at once.
    pub(in crate::pace) window: f64,
}

/// The fleet that a process was part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pace) struct KeptFleet {
    /// Processes, as last heard.
    pub(in crate::pace) holders: u32,
    /// The least share of a quota that the fleet used of a limit, in thousandths.
    pub(in crate::pace) share: u32,
}

/// A family that proved to exist, with its breaker if that is not closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pace) struct KeptFamily {
    pub(in crate::pace) family: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::pace) breaker: Option<KeptBreaker>,
}

/// An open breaker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pace) struct KeptBreaker {
    pub(in crate::pace) until: f64,
    pub(in crate::pace) openings: u32,
}
