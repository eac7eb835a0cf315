//! Classes: how important a call is.

use std::str::FromStr;

/// How important a call is, and what it may do to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody is waiting for it.
    Interactive,
    /// Has a deadline; earliest first.
    Sync,
    /// As much as possible, any time.
    Bulk,
    /// Repeats by itself; the first to give way.
    Poll,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// All classes, most important first.
    pub const ALL: [Self; Self::COUNT] = [Self::Interactive, Self::Sync, Self::Bulk, Self::Poll];

    /// Its name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Sync => "sync",
            Self::Bulk => "bulk",
            Self::Poll => "poll",
        }
    }

    /// Its share of what several waiting classes compete for: 64 : 16 : 4 : 1.
    pub const fn weight(self) -> u32 {
        match self {
            Self::Interactive => 64,
            Self::Sync => 16,
            Self::Bulk => 4,
            Self::Poll => 1,
        }
    }

    /// Whether, of those whose turn it is between callers, the earliest deadline goes first.
    pub const fn by_deadline(self) -> bool {
        matches!(self, Self::Sync)
    }

    /// Whether somebody or something waits for its answer. The others take what is left.
    pub const fn is_urgent(self) -> bool {
        matches!(self, Self::Interactive | Self::Sync)
    }

    /// Its place in [`Class::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A word that names no class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a class (write interactive, sync, bulk or poll)")]
pub struct UnknownClass;

impl FromStr for Class {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        Self::ALL.into_iter().find(|class| class.name().eq_ignore_ascii_case(text)).ok_or(UnknownClass)
    }
}
