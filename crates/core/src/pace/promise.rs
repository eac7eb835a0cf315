//! When the server promised to give permits back, on the own clock.
//!
//! A reset in a header is never an instant: the answer was on its way, the number may be rounded up to a whole second,
//! and an absolute one is told on a clock of which only the `Date` header shows something. So every reset is read as an
//! interval. Intervals of one window are intersected, never averaged; a later promise opens a new window and voids what
//! was certified before; an earlier one is stale. Whoever uses a promise takes its late end.
//!
//! The length of a window is learnt the same way, as the promise less the opening, and by observation: an answer that
//! shows the next promise proves that the earlier window had ended by then.

mod lengths;

pub(super) use lengths::Lengths;

use crate::observe::Reset;
use crate::pace::secs::{Interval, wall};
use crate::pace::trip::Trip;
use crate::time::Wall;

/// The server's wall clock less the own monotonic clock, as an interval.
#[derive(Debug)]
pub(super) struct ClockOffset {
    range: Interval,
    at: f64,
}

impl ClockOffset {
    /// Clocks drift apart by less than this per second (RFC 5905 assumes 15e-6; cheap virtual machines are worse).
    const DRIFT: f64 = 1e-4;

    fn new() -> Self {
        Self { range: Interval::ALL, at: 0.0 }
    }

    /// `Date` is the server's clock cut to the second, at some instant between `sent` and `answered`.
    fn learn(&mut self, date: f64, sent: f64, answered: f64) {
        let drift = Self::DRIFT * (answered - self.at).max(0.0);
        let known = Interval::new(self.range.lo - drift, self.range.up + drift);
        let seen = Interval::new(date - answered, date + 1.0 - sent);
        self.range = known.and(seen, 0.0).unwrap_or(seen);
        self.at = answered;
    }
}

/// The answer a reset was told by. Times in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) sent: f64,
    pub(super) answered: f64,
    /// No more was left than before: the old window had not ended yet, if it is one.
    pub(super) stood: bool,
    /// More was left than before, for certain.
    pub(super) rose: bool,
}

/// How an answer's promise relates to the one known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// There was none.
    First,
    /// The same window.
    Same,
    /// A new window. `early`: the old promise was surely not due yet, so windows are not what refills this quota.
    Later {
        /// It moved before it was due.
        early: bool,
    },
    /// An answer of a window that has passed.
    Stale,
}

/// The promised reset of the present window.
#[derive(Debug)]
pub(super) struct Promise {
    due: Option<Interval>,
    opened: Interval,
    /// The late end of the promise when the present window was first seen: it must not creep from there.
    first_up: f64,
    longest_after: f64,
    /// The farthest absolute reset, from its answer and from its sending, on the server's clock less the own one.
    ahead: Option<Interval>,
    /// The earliest instant at which the window before can have ended.
    ended_before: f64,
    grain: f64,
    epoch: Option<f64>,
    offset: ClockOffset,
    length: Option<Interval>,
    /// No window was seen to last longer, over those opened by an own attempt.
    seen_length: f64,
    /// Seconds by which the server was caught giving back later than its coarse number said.
    rounding: f64,
    guessed_wrong: bool,
    passed: u32,
}

impl Promise {
    /// Lengths of windows that are usually aligned to the clock, in seconds.
    const ALIGNED: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86_400.0];

    /// Differences below this are noise of the server's arithmetic (headers with two decimals exist).
    const NOISE: f64 = 0.005;

    /// A longest reset seen that falls short of a whole second by less than this share belongs to it.
    const SHORT_OF: f64 = 0.05;

    pub(super) fn new() -> Self {
        Self {
            due: None,
            opened: Interval::ALL,
            first_up: f64::INFINITY,
            longest_after: 0.0,
            ahead: None,
            ended_before: f64::INFINITY,
            grain: 0.0,
            epoch: None,
            offset: ClockOffset::new(),
            length: None,
            seen_length: f64::INFINITY,
            rounding: 0.0,
            guessed_wrong: false,
            passed: 0,
        }
    }

    /// The interval in which the promised reset lies.
    pub(super) fn due(&self) -> Option<Interval> {
        self.due
    }

    /// When the present window opened.
    pub(super) fn opened(&self) -> Interval {
        self.opened
    }

    /// The length of the longest window seen.
    pub(super) fn length(&self) -> Option<Interval> {
        self.length
    }

    /// The length of a sliding log, which is never shorter than a reset told. A server that tells whole seconds has
    /// windows of whole seconds: a length left is rounded up to it, and the second of an absolute reset lies less than
    /// one after it. Of several whole seconds the only usual one is taken, until a throttle shows that it was not. `shown`: a
    /// bound that what came back has shown.
    pub(super) fn log_length(&self, shown: f64) -> Option<Interval> {
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

    /// Windows that ended when they were promised to.
    pub(super) fn passed(&self) -> u32 {
        self.passed
    }

    /// Takes a reset told by an answer. `windows`: promises stand still within a window, as far as one knows.
    pub(super) fn tell(&mut self, reset: &Reset, date: Option<Wall>, told: &Told, windows: bool) -> Change {
        let &Told { sent, answered, .. } = told;
        let (seen, epoch) = self.read(reset, date, sent, answered);
        let Some(due) = self.due else {
            self.due = Some(seen);
            self.first_up = seen.up;
            self.opened = Interval::new(sent, answered);
            self.epoch = epoch;
            self.learn_length();
            return Change::First;
        };
        let change = self.compare(due, seen, epoch, answered, windows);
        match change {
            Change::Stale => return change,
            Change::Later { early } => self.next_window(seen, sent, answered, early),
            Change::First | Change::Same => self.same_window(due, seen, told, windows),
        }
        self.epoch = epoch.or(self.epoch);
        if windows {
            self.learn_length();
        } else {
            self.raise_length();
        }
        change
    }

    fn read(
        &mut self,
        reset: &Reset,
        date: Option<Wall>,
        sent: f64,
        answered: f64,
    ) -> (Interval, Option<f64>) {
        self.grain = reset.grain.as_secs_f64();
        if let (Some(at), Some(date)) = (reset.at, date) {
            self.offset.learn(wall(date), sent, answered);
            let at = wall(at);
            let offset = self.offset.range;
            let ahead = self.ahead.unwrap_or(Interval::new(f64::NEG_INFINITY, f64::NEG_INFINITY));
            self.ahead = Some(Interval::new(ahead.lo.max(at - answered), ahead.up.max(at - sent)));
            return (Interval::new(at - self.grain - offset.up, at - offset.lo + self.rounding), Some(at));
        }
        let after = reset.after.as_secs_f64();
        self.longest_after = self.longest_after.max(after);
        (Interval::new(sent + after - self.grain, answered + after + self.rounding), None)
    }

    fn compare(
        &self,
        due: Interval,
        seen: Interval,
        epoch: Option<f64>,
        answered: f64,
        windows: bool,
    ) -> Change {
        let early = answered < due.lo;
        if let (Some(old), Some(new)) = (self.epoch, epoch) {
            return if new > old + 1e-3 {
                Change::Later { early }
            } else if new < old - 1e-3 {
                Change::Stale
            } else {
                Change::Same
            };
        }
        let shift = self.length.map_or(0.0, |length| 0.005 * length.lo).max(Self::NOISE);
        let latest = if windows { due.up.min(self.first_up) } else { due.up };
        if seen.lo > latest + shift {
            Change::Later { early }
        } else if seen.up < due.lo - shift {
            Change::Stale
        } else {
            Change::Same
        }
    }

    fn next_window(&mut self, seen: Interval, sent: f64, answered: f64, early: bool) {
        if !early {
            // The first window may have been under way when it was first seen, which says nothing about the next.
            // And an aligned one began at the reset, not when it was entered.
            if self.passed > 0 {
                self.seen_length = self.seen_length.min(answered - self.opened.lo.min(self.ended_before));
            }
            self.ended_before = self.due.map_or(f64::INFINITY, |due| due.lo);
            self.passed = self.passed.saturating_add(1);
        }
        self.due = Some(seen);
        self.first_up = seen.up;
        self.opened = Interval::new(sent, answered);
    }

    fn same_window(&mut self, due: Interval, seen: Interval, told: &Told, windows: bool) {
        let &Told { sent, answered, stood, rose } = told;
        let mut both = due.and(seen, 0.0).unwrap_or(seen);
        if !windows {
            // It creeps, and never back.
            both = Interval::new(both.lo, due.up.max(seen.up));
        }
        if stood {
            // Handled after `sent`, and the old window had not ended.
            both.lo = both.lo.max(sent.min(both.up));
        }
        self.due = Some(both);
        self.opened = if windows && !rose {
            Interval::new(self.opened.lo.min(sent), self.opened.up.min(answered))
        } else {
            Interval::new(sent, answered)
        };
    }

    fn learn_length(&mut self) {
        let Some(due) = self.due else { return };
        if self.grain <= 0.0 && self.epoch.is_none() {
            self.length =
                Some(Interval::new(self.longest_after - Self::NOISE, self.longest_after + Self::NOISE));
            return;
        }
        let seen = Interval::new(due.lo - self.opened.up, due.up - self.opened.lo);
        let Some(known) = self.length else {
            self.length = Some(seen);
            return;
        };
        if let Some(both) = known.and(seen, 0.0) {
            self.length = Some(both);
        } else if seen.lo > known.up {
            self.length = Some(seen);
            self.seen_length = f64::INFINITY;
        }
    }

    /// A promise that creeps says only that nothing comes back later than it did before.
    fn raise_length(&mut self) {
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

    /// The answer shows more than the old window can have had left, though its coarse promise looks the same. True if a
    /// new window explains it.
    pub(super) fn renewed(&mut self, sent: f64, answered: f64) -> bool {
        let (Some(length), Some(due)) = (self.length, self.due) else { return false };
        let next = Interval::new(sent + length.lo, answered + length.up);
        let plausible = due.up >= next.lo;
        if plausible {
            self.next_window(next, sent, answered, false);
        }
        plausible
    }

    /// An attempt was refused although it arrived after the promise: the coarse number was rounded down.
    pub(super) fn came_late(&mut self) {
        if self.grain > 0.0 && self.rounding <= 0.0 {
            self.rounding = self.grain;
            if let Some(due) = &mut self.due {
                due.up += self.grain;
            }
        }
    }

    /// When to send a scout so that it arrives just after the reset. `windows`: windows are proven to be the rule, so
    /// the lengths seen so far bound this one too.
    pub(super) fn send_at(&self, trip: &Trip, windows: bool) -> Option<f64> {
        let due = self.due?;
        let mut up = due.up;
        let by_length = self.opened.up + self.seen_length;
        if windows && self.grain > 0.0 && by_length >= due.lo {
            up = up.min(by_length);
        }
        if let Some(guess) = self.guess(due) {
            up = up.min(guess);
        }
        Some((up - trip.lead()).max(due.lo.min(up)))
    }

    /// Where an absolute whole second hides the instant of the reset: the end of the shortest window of whole seconds
    /// that fits. A server that tells whole seconds has windows of whole seconds; one that an own attempt opened ends so
    /// much later. Not so where windows are aligned: then the told second itself is the reset.
    fn guess(&self, due: Interval) -> Option<f64> {
        let epoch = self.epoch.filter(|_| self.grain >= 1.0 && !self.guessed_wrong)?;
        let longest = due.up - self.opened.lo;
        // If the told second is the reset itself, the window began no earlier than its usual length before.
        let whole = due.lo + self.grain - self.opened.up;
        let aligned = Self::ALIGNED.iter().any(|&length| whole <= length && epoch % length < 1e-3);
        let shortest = self.length.map_or(f64::NEG_INFINITY, |known| known.lo).max(due.lo - self.opened.up);
        let first = (shortest / self.grain).floor().mul_add(self.grain, self.grain);
        // Where two lengths fit, the longer if it alone is usual, else the one that fits less narrowly.
        let depth = |length: f64| (length - shortest).min(longest - length);
        let usual = |length: f64| Self::ALIGNED.iter().any(|other| (length - other).abs() < 1e-3);
        let second = first + self.grain;
        let longer = depth(second) > depth(first) || second < longest && usual(second) && !usual(first);
        let length = if longer { second } else { first };
        (!aligned && length < longest).then_some(self.opened.up + length)
    }

    /// A scout sent by the guess was refused.
    pub(super) fn guessed_wrong(&mut self) {
        self.guessed_wrong = true;
    }

    /// When the window would end in whose place a sliding counter names the end of the next, where all is back: one length
    /// before the promise. The length is the one `named`, or the least usual one that fits twice; a longer one ends earlier.
    pub(super) fn hidden_edge(&self, named: Option<f64>) -> Option<f64> {
        let due = self.due?;
        let (shortest, longest) = (due.lo - self.opened.up, due.up - self.opened.lo);
        let fits = |&length: &f64| length < longest && shortest <= 2.0 * length;
        let length = named.filter(fits).or_else(|| Self::ALIGNED.into_iter().find(fits))?;
        Some(due.up - length)
    }

    /// How much of the phase of the server's seconds is unknown: more answers at the right instants would tell.
    pub(super) fn blur(&self) -> f64 {
        match (self.epoch, self.due) {
            (Some(_), _) => self.offset.range.width(),
            (None, Some(due)) if self.grain > 0.0 => due.width(),
            _ => 0.0,
        }
    }

    /// The first window seen may have been opened by the own first attempt: it would have a usual length. If it has not, it
    /// was under way already, as aligned windows are.
    pub(super) fn began_with_us(&self) -> bool {
        let Some(due) = self.due else { return false };
        let seen = Interval::new(due.lo - self.opened.up, due.up - self.opened.lo);
        self.passed == 0
            && Self::ALIGNED
                .iter()
                .any(|&length| seen.lo - Self::NOISE <= length && length <= seen.up + Self::NOISE)
    }

    /// The next instant at which an attempt's answer would halve the blur.
    pub(super) fn halving(&self, now: f64, trip: &Trip) -> Option<f64> {
        let due = self.due?;
        let arrival = now + trip.mean() / 2.0;
        if self.epoch.is_some() {
            // The server's second changes where its clock is a whole number.
            let clock = arrival + self.offset.range.mid();
            return Some(now + clock.ceil() - clock);
        }
        let left = (due.mid() - arrival) / self.grain;
        (self.grain > 0.0 && left > 0.0).then(|| now + (left - left.floor()) * self.grain)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn exact(after: f64) -> Reset {
        Reset { after: Duration::from_secs_f64(after), grain: Duration::ZERO, at: None }
    }

    fn told(sent: f64, answered: f64) -> Told {
        Told { sent, answered, stood: true, rose: false }
    }

    fn whole(after: u64) -> Reset {
        Reset { after: Duration::from_secs(after), grain: Duration::from_secs(1), at: None }
    }

    fn epoch(at: i64) -> Reset {
        Reset {
            after: Duration::ZERO,
            grain: Duration::from_secs(1),
            at: Some(Wall::from_unix_millis(at * 1000)),
        }
    }

    #[test]
    fn whole_seconds_of_several_answers_are_intersected() {
        let mut promise = Promise::new();
        // The reset is at 5.3 and numbers are rounded up.
        promise.tell(&whole(6), None, &told(0.0, 0.02), true);
        promise.tell(&whole(5), None, &told(0.31, 0.33), true);
        promise.tell(&whole(5), None, &told(0.80, 0.82), true);
        let due = promise.due().unwrap();
        assert!(due.lo <= 5.3 && 5.3 <= due.up, "{due:?}");
        assert!(due.width() < 0.6, "{due:?}");
    }

    #[test]
    fn an_attempt_at_the_halving_instant_halves_the_blur() {
        let mut promise = Promise::new();
        let mut trip = Trip::new();
        trip.observe(0.002);
        let reset = 5.3;
        let mut now = 0.0;
        promise.tell(&whole(6), None, &told(now, now + 0.002), true);
        for _ in 0..4 {
            now = promise.halving(now + 0.01, &trip).unwrap();
            let handled = now + 0.001;
            let before = promise.blur();
            let left = (reset - handled).ceil();
            promise.tell(&exact_whole(left), None, &told(now, now + 0.002), true);
            assert!(promise.blur() < 0.6 * before, "{} after {before}", promise.blur());
        }
        let due = promise.due().unwrap();
        assert!(due.lo <= reset && reset <= due.up);
    }

    fn exact_whole(after: f64) -> Reset {
        Reset { after: Duration::from_secs_f64(after), grain: Duration::from_secs(1), at: None }
    }

    #[test]
    fn dates_bound_the_clock_and_with_it_an_epoch() {
        let mut promise = Promise::new();
        // The server's clock reads 1000.7 at the origin; its window ends at 1005.7, told as 1006.
        let dates = [(0.0, 1000), (0.31, 1001), (1.29, 1001), (1.32, 1002)];
        for (sent, date) in dates {
            promise.tell(
                &epoch(1006),
                Some(Wall::from_unix_millis(date * 1000)),
                &told(sent, sent + 0.01),
                true,
            );
        }
        assert!(promise.blur() < 0.1, "{}", promise.blur());
        let due = promise.due().unwrap();
        assert!(due.lo <= 5.0 && 5.0 <= due.up, "{due:?}");
    }

    #[test]
    fn a_promise_may_hide_the_edge_of_a_counter_one_usual_length_before() {
        let mut promise = Promise::new();
        promise.tell(&exact(7.3), None, &told(0.0, 0.02), true);
        let edge = |named| promise.hidden_edge(named).unwrap();
        assert!((edge(None) - 2.32).abs() < 1e-6, "five of 7.3 seconds: {}", edge(None));
        assert!((edge(Some(6.0)) - 1.32).abs() < 1e-6, "{}", edge(Some(6.0)));
        assert!(
            (edge(Some(60.0)) - 2.32).abs() < 1e-6,
            "a window is no longer than its reset: {}",
            edge(Some(60.0))
        );
    }

    #[test]
    fn a_later_promise_is_a_new_window_and_an_earlier_one_is_stale() {
        let mut promise = Promise::new();
        assert_eq!(promise.tell(&exact(5.0), None, &told(0.0, 0.02), true), Change::First);
        assert_eq!(promise.tell(&exact(4.0), None, &told(1.0, 1.02), true), Change::Same);
        assert_eq!(promise.tell(&exact(5.0), None, &told(5.01, 5.03), true), Change::Later { early: false });
        assert_eq!(
            promise.tell(&exact(0.5), None, &told(4.51, 5.04), true),
            Change::Stale,
            "a late answer of the old window"
        );
        assert_eq!(promise.tell(&exact(5.0), None, &told(7.0, 7.02), true), Change::Later { early: true });
    }

    #[test]
    fn a_scout_never_leaves_before_the_earliest_possible_reset() {
        let mut promise = Promise::new();
        let mut trip = Trip::new();
        trip.observe(0.02);
        promise.tell(&exact(5.0), None, &told(0.0, 0.02), true);
        let at = promise.send_at(&trip, false).unwrap();
        assert!((5.0..5.02).contains(&at), "{at}");
    }
}
