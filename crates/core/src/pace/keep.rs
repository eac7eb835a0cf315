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
//! * A state that is not the last one ([`Kept::is_final`]) says nothing of what was sent after it. So it bounds that: of each
//!   declared quota no more than a *lease* leaves before the next state is stored, and nothing later than 11 s after it
//!   ([`Bank::begin_store`], `lease.rs`); the successor counts all of it as spent at the end of its predecessor. What was in flight counts from there, too.
//! * A gate that cannot be read is lost alone, and told ([`Kept::lost`]). Where a state or a gate of a declared limit is lost, or
//!   nothing bounded what left after it ([`Bank::keep`]), everything is assumed of windows up to [`Kept::LOST`], and of longer
//!   ones four times what they give in that time.
//! * Numbers of tokens die with their process: what was spent by one token counts for all of its credential.
//! * Two processes' wall clocks may differ, so where the machine tells how long it has been up, that decides how much time
//!   has passed ([`Kept::today`]).
//! * Without any state [`BankConfig::assume_spent`](crate::pace::BankConfig::assume_spent) decides.
//!
//! What this guarantees to a server with one declared window or log and no strangers: after a clean stop, and after a crash
//! at any instant with a state that was stored and bounded, the successor's attempts and its predecessor's are together
//! never above the quota. The successor finds at least the quota less what its predecessor spent, less the lease (an eighth,
//! at least 8; all where the window is 16 s or less) and what was in flight then; each of them up to a sixteenth of a window late. A window after the end of its predecessor, which is at most
//! 13 s after the state, it finds all. Not covered: states that could not be written, and attempts that the server handles later
//! than the successor begins.

mod parts;
mod storing;
mod unseen;

pub(super) use parts::{KeptBreaker, KeptCrash, KeptFamily, KeptFleet, KeptGate, KeptLimit, KeptLimitKind};
pub(super) use storing::Storing;
use unseen::Assumed;
pub(super) use unseen::Unseen;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observe::MAX_DURATION;
use crate::pace::bank::{Bank, barriers};
use crate::pace::drift::Drift;
use crate::pace::lease::Lease;
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
    /// No more than the leases left after it.
    leased: bool,
    /// How long the machine had been up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    up: Option<Uptime>,
    /// What the upstream said that declared limits allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) named: Vec<KeptLimitKind>,
    pub(super) gates: Vec<KeptGate>,
    pub(super) families: Vec<KeptFamily>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) crashes: Vec<KeptCrash>,
    drift: Drift,
    /// Among whom quotas are divided while their store is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fleet: Option<KeptFleet>,
    /// What could not be read.
    #[serde(skip)]
    pub(super) lost: Vec<Lost>,
}

/// How long a machine has been up: the one clock that two processes on it share and nobody sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uptime {
    /// Names this start of the machine.
    pub boot: String,
    /// Milliseconds since.
    pub millis: u64,
}

/// A part of a stored state that cannot be used; the rest can.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    /// Which part, such as `gate 3 (calls)`.
    pub part: String,
    /// Why.
    pub why: String,
    /// Of which declared quotas it may have held what is spent.
    pub(super) spent_of: LostOf,
}

/// Which declared quotas count as spent because a part of a state is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LostOf {
    /// None: it was no gate, or that of a limit that nobody declared.
    Nothing,
    /// That of this name, if it is declared still.
    Limit(String),
    /// All: it was a gate, and its limit could not be read.
    Anything,
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
    const VERSION: u32 = 3;
    /// The version before knew of no fleet, and says nothing else differently.
    const BEFORE: u32 = 2;
    /// How long a bank that left no state may have been at work.
    pub const LOST: Duration = Duration::from_mins(5);

    /// Of a bank that ended at `at`, of which nothing is known.
    pub fn nothing(at: Wall) -> Self {
        Self {
            version: Self::VERSION,
            at_ms: at.unix_millis(),
            last: false,
            leased: false,
            up: None,
            named: Vec::new(),
            gates: Vec::new(),
            families: Vec::new(),
            crashes: Vec::new(),
            drift: Drift::default(),
            fleet: None,
            lost: Vec::new(),
        }
    }

    /// Reads a stored state. What of it cannot be used is [`lost`](Kept::lost).
    ///
    /// # Errors
    /// What makes it unusable. A bank then begins without, and should assume that quotas are spent.
    pub fn read(text: &str) -> Result<Self, KeptProblem> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if !(Self::BEFORE..=Self::VERSION).contains(&version) {
            return Err(KeptProblem::Version { found: version });
        }
        let mut all: serde_json::Value = serde_json::from_str(text)?;
        all["version"] = Self::VERSION.into();
        let gates = all.get_mut("gates").map(serde_json::Value::take);
        all["gates"] = serde_json::Value::Array(Vec::new());
        let mut kept: Self = serde_json::from_value(all)?;
        let gates: Vec<serde_json::Value> = serde_json::from_value(gates.unwrap_or_default())?;
        for (index, gate) in gates.into_iter().enumerate() {
            kept.read_gate(index, gate);
        }
        kept.check_breakers();
        Ok(kept)
    }

    fn read_gate(&mut self, index: usize, gate: serde_json::Value) {
        let limit = gate.get("limit").and_then(|limit| KeptLimit::deserialize(limit).ok());
        let spent_of = match &limit {
            Some(KeptLimit::Declared(name)) => LostOf::Limit(name.clone()),
            Some(KeptLimit::Implicit | KeptLimit::Named(_)) => LostOf::Nothing,
            None => LostOf::Anything,
        };
        let why = match serde_json::from_value::<KeptGate>(gate) {
            Ok(gate) => match gate.gist.absurd(self.latest()) {
                None => return self.gates.push(gate),
                Some(why) => why.to_owned(),
            },
            Err(error) => error.to_string(),
        };
        let name = match &limit {
            Some(KeptLimit::Declared(name) | KeptLimit::Named(name)) => format!(" ({name})"),
            Some(KeptLimit::Implicit) | None => String::new(),
        };
        self.lost.push(Lost { part: format!("gate {}{name}", index + 1), why, spent_of });
    }

    fn check_breakers(&mut self) {
        let latest = self.latest();
        for family in &mut self.families {
            if family.breaker.is_some_and(|breaker| breaker.until > latest) {
                family.breaker = None;
                let part = format!("the breaker of {}", family.family);
                let why = "is open for more than a year".to_owned();
                self.lost.push(Lost { part, why, spent_of: LostOf::Nothing });
            }
        }
    }

    /// No instant in it can be later.
    fn latest(&self) -> f64 {
        wall(self.at()) + MAX_DURATION.as_secs_f64()
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

    /// What of it could not be used.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// The same state, taken when the machine had been up for so long.
    #[must_use]
    pub fn up(mut self, up: Option<Uptime>) -> Self {
        self.up = up;
        self
    }

    /// The time for [`restore`](Bank::restore) when the wall clock shows `wall` and the machine has been up for `up`. A wall clock may
    /// have been set since; on a machine that was not started anew its uptime tells how much time has passed.
    pub fn today(&self, wall: Wall, up: Option<&Uptime>) -> Wall {
        let passed = self.up.as_ref().zip(up).filter(|(then, up)| then.boot == up.boot);
        let passed = passed.and_then(|(then, up)| up.millis.checked_sub(then.millis));
        match passed.and_then(|passed| i64::try_from(passed).ok()) {
            Some(passed) => Wall::from_unix_millis(self.at_ms.saturating_add(passed)),
            None => wall,
        }
    }
}

impl Bank {
    /// How often a state that changed is to be stored.
    pub const STORE_EVERY: Duration = Duration::from_secs(10);

    /// Changes with every change of what [`keep`](Bank::keep) returns, but for the passing of time.
    pub fn revision(&self) -> u64 {
        self.tickets.revision() + self.quotas_told
    }

    /// Attempts that are granted or in flight.
    pub fn in_flight(&self) -> usize {
        self.tickets.len()
    }

    /// The state at `now`, to be stored. Of each declared quota no more than a lease will leave until it [is](Bank::stored),
    /// once one was, and nothing later than 11 s after that. One state can be stored at a time.
    pub fn begin_store(&mut self, now: Mono, wall_now: Wall) -> Kept {
        self.storing.begin(now, self.revision());
        self.registry.leases(Lease::writing);
        Kept { leased: true, ..self.keep(now, wall_now) }
    }

    /// The state of the last [`begin_store`](Bank::begin_store) is stored, and will be found after a crash. May change the next wake-up.
    pub fn stored(&mut self) {
        let until = self.storing.stored();
        self.registry.leases(|lease| {
            lease.stored();
            lease.bind(until);
        });
        self.registry.leased_until = until;
        // More may have left since that state was taken, if leases did not hold for a while.
        self.storing.due |= self.registry.gates.iter().any(|(_, gate)| gate.wants_store());
        self.touch_all_gates();
    }

    /// It could not be stored. Attempts leave as if none ever was: a crash will have been worse, a standstill is certain. May
    /// change the next wake-up.
    pub fn not_stored(&mut self) {
        self.storing.not_stored();
        self.registry.leases(|lease| lease.bind(f64::INFINITY));
        self.registry.leased_until = f64::INFINITY;
        self.touch_all_gates();
    }

    /// Whether a state should be stored at once: half of a lease was used since the last [`begin_store`](Bank::begin_store), or
    /// somebody asked [`STORE_EVERY`](Bank::STORE_EVERY) after it or later, who may have to wait for it.
    pub fn is_store_due(&self) -> bool {
        self.storing.due
    }

    /// Whether the stored state says less than a new one would, or somebody waits, who could leave only while a stored state is
    /// fresh. Then, and only then, one should be stored [`STORE_EVERY`](Bank::STORE_EVERY) after it was last looked.
    pub fn has_unstored(&self) -> bool {
        // What is in flight may be handled, and then lost by a crash, without any change here.
        self.storing.due
            || !self.storing.holds(self.revision())
            || self.in_flight() > 0
            || !self.schedule.is_empty()
    }

    fn touch_all_gates(&mut self) {
        for (gate, _) in self.registry.gates.iter() {
            self.schedule.touch(barriers::gate(gate));
        }
    }

    /// The state at `now`, which is `wall` on the wall clock, for a successor to [`restore`](Bank::restore). Nothing bounds what
    /// leaves after it: unless it is made the [last](Kept::last), a successor counts all of each declared quota as spent.
    pub fn keep(&self, now: Mono, wall_now: Wall) -> Kept {
        let by = wall(wall_now) - secs(now);
        Kept {
            version: Kept::VERSION,
            at_ms: wall_now.unix_millis(),
            last: false,
            leased: false,
            up: None,
            lost: Vec::new(),
            named: self.registry.keep_named(&self.config.limits),
            gates: self.registry.keep_gates(now, by),
            families: self.registry.keep_families(now, by),
            crashes: self.registry.keep_crashes(now, by),
            drift: self.drift.keep(now),
            fleet: self.keep_fleet(),
        }
    }

    /// Begins with what another bank left. To be called before the first ask; `uncovered` is for how long at most that
    /// bank went on after a state that neither is its last nor was made by [`begin_store`](Bank::begin_store): the time between two
    /// writes.
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
        let spent = match (kept.last, kept.leased) {
            (true, _) => Assumed::Nothing,
            (false, true) => Assumed::Lease,
            (false, false) => Assumed::All,
        };
        // What was in flight may have been handled later than the last state was taken, too.
        let uncovered = if kept.leased { Lease::ENDED } else { uncovered };
        let ended = (then + uncovered.as_secs_f64()).min(today) + by;
        self.registry.restore_named(&kept.named);
        self.restore_fleet(kept.fleet);
        self.registry.restore_families(kept, now, by);
        self.drift.restore(now, Duration::from_secs_f64(today - then), &kept.drift);
        self.registry.restore_gates(kept, now, by, Unseen { ended, spent })
    }
}

/// An instant that was kept, on the clock of this process.
pub(super) fn instant(at: f64, by: f64) -> Mono {
    mono(at + by)
}
