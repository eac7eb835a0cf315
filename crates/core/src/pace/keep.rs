//! What a bank leaves to its successor.
//!
//! A process that is started again has forgotten what the server has not: what was spent, what is closed and until when.
//! So a shell stores the bank's state, and a new bank begins with it. Stored are the gists of all gates, what the upstream
//! told of declared limits, the breakers and the drift statistics, with instants on the wall clock, because no other clock survives a process.
//!
//! Rules:
//! * The successor lets no more through than the bank would have done that went on.
//! * What has expired meanwhile is forgotten. Time that a rate was not used does not raise it.
//! * A wall clock that was set back cannot make anything expire: then no time has passed.
//! * A state that is not the last one ([`Kept::is_final`]) says nothing of what was sent after it. So it is written again
//!   before many more attempts have left ([`Bank::ahead`]), and that many are assumed, with what a quota gives in the time
//!   of a write. Of windows too short for that everything is.
//! * Where a state is lost ([`Kept::nothing`]), everything is assumed of windows up to [`Kept::LOST`], and of longer ones
//!   four times what they give in that time.
//! * Numbers of tokens die with their process: what was spent by one token counts for all of its credential.
//! * Without any state [`BankConfig::assume_spent`](crate::pace::BankConfig::assume_spent) decides.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observe::MAX_DURATION;
use crate::pace::bank::Bank;
use crate::pace::drift::Drift;
use crate::pace::gist::Gist;
use crate::pace::secs::{mono, num, secs, wall, whole};
use crate::pace::spec::LimitKind;
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
    /// So many attempts may have left before the next one was due; nothing is known of a state that is lost.
    ahead: Option<u64>,
    /// What the upstream said that declared limits allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) named: Vec<KeptLimitKind>,
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

/// A declared limit of which the upstream told another number than was declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptLimitKind {
    pub(super) limit: String,
    /// As it is declared. Should that change, what was told is told again.
    pub(super) declared: u64,
    pub(super) told: u64,
    /// Seconds; zero for attempts at once.
    pub(super) window: f64,
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
    /// How long a bank that left no state may have been at work.
    pub const LOST: Duration = Duration::from_mins(5);

    /// Of a bank that ended at `at`, of which nothing is known.
    pub fn nothing(at: Wall) -> Self {
        Self {
            version: Self::VERSION,
            at_ms: at.unix_millis(),
            last: false,
            ahead: None,
            named: Vec::new(),
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

    /// After so many changes of the [`revision`](Bank::revision) a stored state should be replaced at once: a sixteenth of
    /// the least declared quota, so that a crash costs no more of it. `u64::MAX` where nothing is declared.
    pub fn ahead(&self) -> u64 {
        let parts = self.config.limits.iter().filter_map(|limit| match limit.kind {
            LimitKind::Rate { quota, window } if window > Unseen::SHORT => Some((quota / 16).max(8)),
            LimitKind::Rate { .. } | LimitKind::Concurrent { .. } => None,
        });
        parts.min().unwrap_or(u64::MAX)
    }

    /// The state at `now`, which is `wall` on the wall clock, for a successor to [`restore`](Bank::restore).
    pub fn keep(&self, now: Mono, wall_now: Wall) -> Kept {
        let by = wall(wall_now) - secs(now);
        Kept {
            version: Kept::VERSION,
            at_ms: wall_now.unix_millis(),
            last: false,
            ahead: Some(self.ahead()),
            named: self.registry.keep_named(&self.config.limits),
            gates: self.registry.keep_gates(now, by),
            families: self.registry.keep_families(now, by),
            drift: self.drift.keep(now),
        }
    }

    /// Begins with what another bank left. To be called before the first ask; `uncovered` is for how long at most that
    /// bank went on after a state that is not its last: the time between two writes.
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
        let (gone_on, spent) = match (kept.last, kept.ahead) {
            (true, _) => (0.0, Assumed::Nothing),
            (false, Some(ahead)) => (uncovered.as_secs_f64(), Assumed::Ahead(ahead)),
            (false, None) => (0.0, Assumed::All),
        };
        let ended = (then + gone_on).min(today) + by;
        self.registry.restore_named(&kept.named);
        self.registry.restore_families(kept, now, by);
        self.drift.restore(now, Duration::from_secs_f64(today - then), &kept.drift);
        self.registry.restore_gates(kept, now, by, Unseen { ended, spent })
    }
}

/// The end of a bank whose last moments were not stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unseen {
    /// When it ended at the latest, seconds on the clock of its successor.
    pub(super) ended: f64,
    spent: Assumed,
}

/// What is assumed to have been spent unseen.
#[derive(Clone, Copy, Debug)]
enum Assumed {
    Nothing,
    /// So many attempts, and a little more.
    Ahead(u64),
    All,
}

impl Unseen {
    /// A window that sixteen writes do not fit into, with a second between them.
    const SHORT: Duration = Duration::from_secs(16);
    /// Seconds from the attempt that was one too many to the end of the write it caused, with a margin.
    const WRITE: f64 = 2.0;
    /// Attempts may leave so many times as fast as evenly.
    const FASTER: f64 = 4.0;

    /// Of a quota per `window` seconds, what may have been spent unseen.
    pub(super) fn of(self, quota: u64, window: f64) -> u64 {
        let even = |seconds: f64| whole((Self::FASTER * num(quota) * seconds / window).ceil());
        let spent = match self.spent {
            Assumed::Nothing => 0,
            Assumed::Ahead(_) if window <= Self::SHORT.as_secs_f64() => quota,
            Assumed::Ahead(ahead) => even(Self::WRITE).saturating_add(ahead),
            Assumed::All if window <= Kept::LOST.as_secs_f64() => quota,
            Assumed::All => even(Kept::LOST.as_secs_f64()),
        };
        spent.min(quota)
    }
}

/// An instant that was kept, on the clock of this process.
pub(super) fn instant(at: f64, by: f64) -> Mono {
    mono(at + by)
}
