//! What a bank leaves to its successor.
//!
//! A process that is started again has forgotten what the server has not: what was spent, what is closed and until when.
//! So a shell stores the bank's state, and a new bank begins with it. Stored are the gists of all gates, the breakers and
//! the drift statistics, with instants on the wall clock, because no other clock survives a process.
//!
//! Rules:
//! * The successor lets no more through than the bank would have done that went on.
//! * What has expired meanwhile is forgotten. Time that a rate was not used does not raise it.
//! * A wall clock that was set back cannot make anything expire: then no time has passed.
//! * A state that is not the last one ([`Kept::is_final`]) says nothing of what was sent after it. That much is assumed:
//!   of windows up to [`Kept::SHORT`] all, of longer ones four times their even share of the time not covered.
//! * Numbers of tokens die with their process: what was spent by one token counts for all of its credential.
//! * Without any state [`BankConfig::assume_spent`](crate::pace::BankConfig::assume_spent) decides.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observe::MAX_DURATION;
use crate::pace::bank::Bank;
use crate::pace::drift::Drift;
use crate::pace::gist::Gist;
use crate::pace::secs::{mono, secs, wall};
use crate::time::{Mono, Wall};

/// The state of a bank, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    version: u32,
    /// Milliseconds since the Unix epoch.
    at_ms: i64,
    /// Nothing was sent after it.
    last: bool,
    pub(super) gates: Vec<KeptGate>,
    pub(super) families: Vec<KeptFamily>,
    drift: Drift,
}

/// One gate. Instants in seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptGate {
    pub(super) limit: KeptLimit,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) family: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<String>,
    /// It has a count per token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) token: bool,
    pub(super) gist: Gist,
}

/// Which limit a gate paces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum KeptLimit {
    Declared(String),
    Implicit,
    Named(String),
}

/// A family that proved to exist, with its breaker if that is not closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptFamily {
    pub(super) family: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) breaker: Option<KeptBreaker>,
}

/// An open breaker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptBreaker {
    pub(super) until: f64,
    pub(super) openings: u32,
}

/// A stored state that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptProblem {
    /// Cut off, or written by something else.
    #[error("is not a state of this program: {0}")]
    Damaged(#[from] serde_json::Error),
    /// Written by another version.
    #[error("has version {found}, this program reads {known}", known = Kept::VERSION)]
    Version {
        /// Its version.
        found: u32,
    },
    /// A number that no bank can have written.
    #[error("holds a number that cannot be: {0}")]
    Absurd(&'static str),
}

/// What became of a stored state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Gates that go on.
    pub gates: usize,
    /// Gates whose limit is no longer declared, or for which there is no room.
    pub forgotten: usize,
}

impl Kept {
    const VERSION: u32 = 1;
    /// Of windows up to this all is assumed to be spent in the time that a state does not cover.
    pub const SHORT: Duration = Duration::from_mins(5);

    /// Of a bank that ended at `at`, of which nothing is known.
    pub fn nothing(at: Wall) -> Self {
        Self {
            version: Self::VERSION,
            at_ms: at.unix_millis(),
            last: false,
            gates: Vec::new(),
            families: Vec::new(),
            drift: Drift::default(),
        }
    }

    /// Reads a stored state.
    ///
    /// # Errors
    /// What makes it unusable. A bank then begins without, and should assume that quotas are spent.
    pub fn read(text: &str) -> Result<Self, KeptProblem> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if version != Self::VERSION {
            return Err(KeptProblem::Version { found: version });
        }
        let kept: Self = serde_json::from_str(text)?;
        kept.check().map_or(Ok(kept), |what| Err(KeptProblem::Absurd(what)))
    }

    /// As it is stored: JSON.
    pub fn write(&self) -> String {
        serde_json::to_string(self).expect("names and finite numbers are JSON")
    }

    /// The same state, known to be the last: nothing was sent after it.
    #[must_use]
    pub fn last(mut self) -> Self {
        self.last = true;
        self
    }

    /// Whether nothing was sent after it.
    pub fn is_final(&self) -> bool {
        self.last
    }

    /// When it was taken.
    pub fn at(&self) -> Wall {
        Wall::from_unix_millis(self.at_ms)
    }

    /// The first thing about it that no bank can have written.
    fn check(&self) -> Option<&'static str> {
        let latest = wall(self.at()) + MAX_DURATION.as_secs_f64();
        let breakers = self.families.iter().filter_map(|family| family.breaker);
        if breakers.into_iter().any(|breaker| breaker.until > latest) {
            return Some("a breaker that is open for more than a year");
        }
        self.gates.iter().find_map(|gate| gate.gist.absurd(latest))
    }
}

impl Bank {
    /// Changes with every change of what [`keep`](Bank::keep) returns, but for the passing of time.
    pub fn revision(&self) -> u64 {
        self.tickets.revision()
    }

    /// The state at `now`, which is `wall` on the wall clock, for a successor to [`restore`](Bank::restore).
    pub fn keep(&self, now: Mono, wall_now: Wall) -> Kept {
        let by = wall(wall_now) - secs(now);
        Kept {
            version: Kept::VERSION,
            at_ms: wall_now.unix_millis(),
            last: false,
            gates: self.registry.keep_gates(now, by),
            families: self.registry.keep_families(now, by),
            drift: self.drift.keep(now),
        }
    }

    /// Begins with what another bank left. To be called before the first ask; `uncovered` is for how long at most that
    /// bank went on after a state that is not final: the time between two writes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::pace::{Bank, BankConfig, Kept};
    /// use tidegate_core::time::{Mono, Wall};
    ///
    /// let wall = Wall::from_unix_millis(1_700_000_000_000);
    /// let first = Bank::new(BankConfig::default()).expect("nothing is declared");
    /// let stored = first.keep(Mono::ZERO, wall).last().write();
    /// let mut second = Bank::new(BankConfig::default()).expect("nothing is declared");
    /// let kept = Kept::read(&stored).expect("just written");
    /// second.restore(Mono::ZERO, wall, &kept, Duration::from_secs(30));
    /// ```
    pub fn restore(&mut self, now: Mono, wall_now: Wall, kept: &Kept, uncovered: Duration) -> Restored {
        let then = wall(kept.at());
        // Set back, the clock does not say how much time has passed: none, for certain.
        let today = wall(wall_now).max(then);
        let by = secs(now) - today;
        let gone_on = if kept.last { 0.0 } else { uncovered.as_secs_f64() };
        let ended = (then + gone_on).min(today) + by;
        self.registry.restore_families(kept, now, by);
        self.drift.restore(now, Duration::from_secs_f64(today - then), &kept.drift);
        self.registry.restore_gates(kept, now, by, Unseen { ended, length: gone_on })
    }
}

/// The end of a bank whose last moments were not stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unseen {
    /// When it ended at the latest, seconds on the clock of its successor.
    pub(super) ended: f64,
    /// For how long it went on unseen, seconds.
    pub(super) length: f64,
}

impl Unseen {
    /// Of a quota with this window, what may have been spent unseen.
    pub(super) fn share(self, window: f64) -> f64 {
        if self.length <= 0.0 {
            0.0
        } else if window <= Kept::SHORT.as_secs_f64() {
            1.0
        } else {
            (4.0 * self.length / window).min(1.0)
        }
    }
}

/// An instant that was kept, on the clock of this process.
pub(super) fn instant(at: f64, by: f64) -> Mono {
    mono(at + by)
}
