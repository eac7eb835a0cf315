//! How much of a quota a class leaves to others: a named policy per class, never an accident.

use std::str::FromStr;

use crate::schedule::Class;

/// Whether a class takes what is there or looks ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// Takes what is there.
    Greedy,
    /// Leaves what strangers and more important classes are expected to draw until permits come back. Where nobody else draws
    /// that is nothing.
    Fair,
}

impl Taking {
    /// Every way with its name in configurations.
    pub const NAMES: [(&'static str, Self); 2] = [("greedy", Self::Greedy), ("fair", Self::Fair)];
}

/// A word that names no way of taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a policy (write greedy or fair)")]
pub struct UnknownTaking;

impl FromStr for Taking {
    type Err = UnknownTaking;

    fn from_str(text: &str) -> Result<Self, UnknownTaking> {
        let known = Self::NAMES.into_iter().find(|(name, _)| *name == text);
        known.map(|(_, taking)| taking).ok_or(UnknownTaking)
    }
}

/// What a class leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassPolicy {
    /// Whether it looks ahead.
    pub taking: Taking,
    /// Permits that are always left, beside that; never more than half of a quota.
    pub reserve: u64,
}

impl ClassPolicy {
    /// Takes what is there, to the last permit.
    pub const GREEDY: Self = Self { taking: Taking::Greedy, reserve: 0 };

    /// What a class does unless the configuration says otherwise: `interactive` and `sync` take what is there, `bulk` and
    /// `poll` are fair, `poll` always leaves ten (the pacing guides of vendors pause polling there).
    pub const fn of(class: Class) -> Self {
        match class {
            Class::Interactive | Class::Sync => Self::GREEDY,
            Class::Bulk => Self { taking: Taking::Fair, reserve: 0 },
            Class::Poll => Self { taking: Taking::Fair, reserve: 10 },
        }
    }
}
