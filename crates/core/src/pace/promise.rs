//! When the server promised to give permits back, on the own clock.
//!
//! A reset in a header is never an instant: the answer was on its way, the number may be rounded up to a whole second,
//! and an absolute one is told on a clock of which only the `Date` header shows something. So every reset is read as an
//! interval. Intervals of one window are intersected, never averaged; a later promise opens a new window and voids what
//! was certified before; an earlier one is stale. Whoever uses a promise takes its late end.
//!
//! The length of a window is learnt the same way, as the promise less the opening, and by observation: an answer that
//! shows the next promise proves that the earlier window had ended by then.

mod instants;
mod lengths;
mod offset;

pub(super) use lengths::Lengths;
use offset::ClockOffset;

use crate::observe::Reset;
use crate::pace::secs::{Interval, wall};
use crate::time::Wall;

/// The answer a reset was told by. Times in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) sent: f64,
    pub(super) answered: f64,
    /// No more was left than before: the old window had not ended yet, if it is one.
    pub(super) stood: bool,
    /// More was left than before, for certain.
    pub(super) rose: bool,
    /// As far as one knows, nobody else had drawn from its window before it: if it is a new one, this attempt opened it.
    pub(super) first: bool,
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
    /// An own attempt opened the present window, as far as one knows, and did not only come to it.
    ours: bool,
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
    /// The length is that of windows that others had opened, and may be longer.
    glimpsed: bool,
    /// No window was seen to last longer, over those opened by an own attempt.
    seen_length: f64,
    /// Seconds by which the server was caught giving back later than its coarse number said.
    rounding: f64,
    guessed_wrong: bool,
    passed: u32,
}

impl Promise {
    /// Differences below this are noise of the server's arithmetic (headers with two decimals exist).
    const NOISE: f64 = 0.005;

    pub(super) fn new() -> Self {
        Self {
            due: None,
            opened: Interval::ALL,
            ours: false,
            first_up: f64::INFINITY,
            longest_after: 0.0,
            ahead: None,
            ended_before: f64::INFINITY,
            grain: 0.0,
            epoch: None,
            offset: ClockOffset::new(),
            length: None,
            glimpsed: false,
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
            self.ours = told.first;
            self.epoch = epoch;
            self.learn_length();
            return Change::First;
        };
        let change = self.compare(due, seen, epoch, answered, windows);
        match change {
            Change::Stale => return change,
            Change::Later { early } => self.next_window(seen, told, early),
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

    fn next_window(&mut self, seen: Interval, told: &Told, early: bool) {
        let &Told { sent, answered, first, .. } = told;
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
        self.ours = first;
    }

    fn same_window(&mut self, due: Interval, seen: Interval, told: &Told, windows: bool) {
        let &Told { sent, answered, stood, rose, first } = told;
        self.ours |= first;
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

    /// The answer shows more than the old window can have had left, though its coarse promise looks the same. True if a
    /// new window explains it.
    pub(super) fn renewed(&mut self, told: &Told) -> bool {
        let (Some(length), Some(due)) = (self.length, self.due) else { return false };
        let next = Interval::new(told.sent + length.lo, told.answered + length.up);
        let plausible = due.up >= next.lo;
        if plausible {
            self.next_window(next, told, false);
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
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pace::trip::Trip;

    fn exact(after: f64) -> Reset {
        Reset { after: Duration::from_secs_f64(after), grain: Duration::ZERO, at: None }
    }

    fn told(sent: f64, answered: f64) -> Told {
        Told { sent, answered, stood: true, rose: false, first: true }
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

    /// A window of five seconds that ends at `ends`, of a server whose clock reads 1000.7 at the origin, as attempts see it that
    /// leave at these times; the first of them opened it, or somebody else did before.
    fn see_window(promise: &mut Promise, ends: f64, sent: &[f64], first: bool) {
        #[expect(clippy::cast_possible_truncation, reason = "a few thousand seconds")]
        let clock = |at: f64| (1000.7 + at) as i64;
        for (place, &sent) in sent.iter().enumerate() {
            let told = Told { first: first && place == 0, ..told(sent, sent + 0.01) };
            let date = Wall::from_unix_millis(clock(sent + 0.005) * 1000);
            promise.tell(&epoch(clock(ends) + 1), Some(date), &told, true);
        }
    }

    #[test]
    fn who_comes_to_a_window_of_unknown_length_does_not_guess_when_it_began() {
        let (mut promise, trip) = (Promise::new(), Trip::new());
        // Its end is at 5.0, and three seconds from the first attempt would fit what is told.
        see_window(&mut promise, 5.0, &[1.35, 1.36, 2.28, 2.31], false);
        let at = promise.send_at(&trip, true).unwrap();
        assert!((5.0..=promise.due().unwrap().up).contains(&at), "{at}");
    }

    #[test]
    fn who_opened_a_window_knows_its_end_and_later_that_of_others_windows_within_its_delay() {
        let (mut promise, trip) = (Promise::new(), Trip::new());
        see_window(&mut promise, 5.0, &[0.0, 0.28, 0.31, 1.28, 1.31], true);
        let at = promise.send_at(&trip, true).unwrap();
        assert!((5.0..5.02).contains(&at), "{at}");
        // This one opened at 5.2.
        see_window(&mut promise, 10.2, &[5.25, 5.3, 6.4], false);
        let at = promise.send_at(&trip, true).unwrap();
        assert!((10.2..10.27).contains(&at), "{at}");
    }

    #[test]
    fn a_window_that_others_opened_does_not_make_windows_shorter() {
        let mut promise = Promise::new();
        see_window(&mut promise, 5.0, &[2.0, 2.28, 2.31], false);
        let glimpsed = promise.length().unwrap();
        assert!(glimpsed.up < 5.0, "it came late: {glimpsed:?}");
        assert_eq!(promise.keep(), Promise::new().keep(), "what may be far too short is not worth keeping");
        see_window(&mut promise, 10.2, &[5.2, 5.28, 5.31], true);
        for (opened, comes) in [(10.3, 12.9), (15.6, 15.7)] {
            see_window(&mut promise, opened + 5.0, &[comes, comes + 0.2], false);
            let known = promise.length().unwrap();
            assert!(known.lo <= 5.0 && 5.0 <= known.up, "{known:?}");
        }
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
