//! How long windows are: learnt from the promise less the opening, and what is known of it when nothing is known of the present
//! window.
//!
//! Only who opened a window knows when it began. Whoever comes to one that others opened sees less of it, so that such a window
//! says how long windows are at least, and never at most.

use serde::{Deserialize, Serialize};

use super::Promise;
use crate::pace::secs::Interval;

/// How long windows are, and what the server's numbers were caught at. Seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pace) struct Lengths {
    length: Option<(f64, f64)>,
    /// By so much the server gives back later than its coarse number says.
    #[serde(default)]
    rounding: f64,
    /// The length of its windows was once guessed wrong.
    #[serde(default)]
    guessed_wrong: bool,
}

impl Promise {
    /// Lengths of windows that are usually aligned to the clock, in seconds.
    pub(super) const ALIGNED: [f64; 12] =
        [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86_400.0];

    /// A longest reset seen that falls short of a whole second by less than this share belongs to it.
    const SHORT_OF: f64 = 0.05;

    /// The length of the longest window seen.
    pub(in crate::pace) fn length(&self) -> Option<Interval> {
        self.length
    }

    /// The length of a sliding log, which is never shorter than a reset told. A server that tells whole seconds has
    /// windows of whole seconds: a length left is rounded up to it, and the second of an absolute reset lies less than
    /// one after it. Of several whole seconds the only usual one is taken, until a throttle shows that it was not. `shown`: a
    /// bound that what came back has shown.
    pub(in crate::pace) fn log_length(&self, shown: f64) -> Option<Interval> {
        let known = self.length?;
        if self.grain < 1.0 {
            // The log may never have been empty: lengths just below a whole second are that second.
            let second = known.lo.ceil();
            let up =
                if second - known.lo <= Self::SHORT_OF * second { second.max(known.up) } else { known.up };
            return Some(Interval::new(known.lo, up));
        }
        let told = match self.ahead {
            Some(ahead) => {
                Interval::new(ahead.lo - self.grain - self.offset.range.up, ahead.up - self.offset.range.lo)
            }
            None => Interval::new(self.longest_after - self.grain, self.longest_after),
        };
        let told = Interval::new(told.lo, told.up.min(shown.max(told.lo)));
        let longest = told.up.floor();
        if self.guessed_wrong || longest <= told.lo {
            return Some(told);
        }
        let mut usual = Self::ALIGNED.into_iter().filter(|&length| told.lo < length && length <= longest);
        if let (Some(only), None) = (usual.next(), usual.next()) {
            return Some(Interval::new(only, only));
        }
        let lo = if longest - 1.0 <= told.lo { longest } else { told.lo };
        Some(Interval::new(lo, longest))
    }

    pub(super) fn learn_length(&mut self) {
        let Some(due) = self.due else { return };
        if self.grain <= 0.0 && self.epoch.is_none() {
            self.length =
                Some(Interval::new(self.longest_after - Self::NOISE, self.longest_after + Self::NOISE));
            return;
        }
        let seen = Interval::new(due.lo - self.opened.up, due.up - self.opened.lo);
        let Some(known) = self.length else {
            (self.length, self.glimpsed) = (Some(seen), !self.ours);
            return;
        };
        if seen.lo > known.up {
            (self.length, self.glimpsed) = (Some(seen), !self.ours);
            self.seen_length = f64::INFINITY;
            return;
        }
        // A window that was open already when it was first seen is longer than it seems by nobody knows how much.
        let up = match (self.ours, self.glimpsed) {
            (true, true) => seen.up,
            (true, false) => known.up.min(seen.up),
            (false, true) => known.up.max(seen.up),
            (false, false) => known.up,
        };
        let lo = known.lo.max(seen.lo);
        if lo <= up {
            (self.length, self.glimpsed) = (Some(Interval::new(lo, up)), self.glimpsed && !self.ours);
        }
    }

    /// A promise that creeps says only that nothing comes back later than it did before.
    pub(super) fn raise_length(&mut self) {
        let (Some(due), Some(known)) = (self.due, self.length) else { return };
        if self.grain <= 0.0 && self.epoch.is_none() {
            self.learn_length();
            return;
        }
        let seen = Interval::new(due.lo - self.opened.up, due.up - self.opened.lo);
        if seen.lo > known.up {
            self.length = Some(seen);
        }
    }

    /// What is worth keeping: how long windows are, and what this server's numbers were caught at. Of the phase nothing
    /// is, nor of what the first answer tells again.
    pub(in crate::pace) fn keep(&self) -> Lengths {
        let &Self {
            length,
            rounding,
            guessed_wrong,
            due: _,
            opened: _,
            ours: _,
            glimpsed,
            first_up: _,
            longest_after: _,
            ahead: _,
            ended_before: _,
            grain: _,
            epoch: _,
            offset: _,
            seen_length: _,
            passed: _,
        } = self;
        let length = length.filter(|length| !glimpsed && length.lo.is_finite() && length.up.is_finite());
        Lengths { length: length.map(|length| (length.lo, length.up)), rounding, guessed_wrong }
    }

    /// Promises of windows whose length is known from before.
    pub(in crate::pace) fn restore(Lengths { length, rounding, guessed_wrong }: Lengths) -> Self {
        let length = length.map(|(lo, up)| Interval::new(lo, up));
        Self { length, rounding, guessed_wrong, ..Self::new() }
    }
}
