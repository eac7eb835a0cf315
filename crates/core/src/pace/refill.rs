//! What rule gives permits back: learnt, not assumed.
//!
//! Two hypotheses, each unproven, proven or refuted. *Step*: everything comes back at the promise (fixed windows, aligned
//! or opened by the first request). *Log*: each own attempt comes back one window after it was counted (sliding log).
//! If both are refuted the refill is continuous (token bucket, sliding counter) and only its net rate is of interest.
//!
//! Rules: evidence is what is **certain** under every order of overlapping attempts. The hypotheses never spend
//! anything: they only say when a scout has something to find, so a wrong one costs one attempt, not a herd.

use serde::{Deserialize, Serialize};

use crate::pace::flow::{Flow, Point};
use crate::pace::own::Own;
use crate::pace::promise::Change;
use crate::pace::secs::Interval;

/// What is known of a hypothesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Belief {
    Unproven,
    Proven,
    Refuted,
}

/// The rule to schedule scouts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// All at the promise.
    Step,
    /// Each attempt one window later.
    Log,
    /// A little at any time.
    Continuous,
}

/// An accepted answer, with what was known when its attempt left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    pub(super) sent: f64,
    pub(super) answered: f64,
    pub(super) limit: f64,
    pub(super) remaining: f64,
    pub(super) change: Change,
    /// The certified level at sending, if the attempt left with nothing else in flight.
    pub(super) level_alone: Option<f64>,
    /// The promise at sending.
    pub(super) promised: Option<Interval>,
    /// When a scout for that promise was to leave.
    pub(super) send_at: Option<f64>,
    /// Own attempts in flight now, without this one.
    pub(super) in_flight: f64,
    pub(super) one_way: f64,
    pub(super) trip: f64,
    /// When the present window opened.
    pub(super) opened: Interval,
    /// The promise after this answer.
    pub(super) due: Interval,
    /// The longest window seen.
    pub(super) length: Interval,
    /// The length of a window, were it a log.
    pub(super) log_length: Interval,
}

/// The hypotheses and the measurements behind them.
#[derive(Debug)]
pub(super) struct Refill {
    step: Belief,
    log: Belief,
    again: u8,
    own: Own,
    /// Standing entries of strangers, were it a log.
    strangers: f64,
    /// At the last answer some entry was surely a stranger's.
    company: bool,
    /// No log can be longer that gave back what came back.
    shown: f64,
    weighed_at: f64,
    flow: Flow,
    /// The promise names the second next edge of a counter, not when as much as is used has come back.
    counter: bool,
}

impl Refill {
    /// A refuted step must restore so many windows in a row to return.
    const COMEBACK: u8 = 3;
    /// A log that others fill to this share while it is unproven is none.
    const MOSTLY_OTHERS: f64 = 0.5;
    /// A promise that lies farther ahead than a bucket needs for what is used, by this share of its length, is a counter's.
    const FARTHER: f64 = 0.3;

    pub(super) fn new() -> Self {
        Self {
            step: Belief::Unproven,
            log: Belief::Unproven,
            again: 0,
            own: Own::default(),
            strangers: 0.0,
            company: false,
            shown: f64::INFINITY,
            weighed_at: 0.0,
            flow: Flow::default(),
            counter: false,
        }
    }

    pub(super) fn rule(&self) -> Rule {
        match (self.step, self.log) {
            (Belief::Refuted, Belief::Refuted) => Rule::Continuous,
            (Belief::Refuted, _) => Rule::Log,
            _ => Rule::Step,
        }
    }

    /// What is worth keeping: the hypotheses. A log is kept as unproven, because the own attempts in it are not.
    pub(super) fn keep(&self) -> (Belief, Belief) {
        let &Self {
            step,
            log,
            again: _,
            own: _,
            strangers: _,
            company: _,
            shown: _,
            weighed_at: _,
            flow: _,
            counter: _,
        } = self;
        (step, if log == Belief::Proven { Belief::Unproven } else { log })
    }

    /// Hypotheses that were kept.
    pub(super) fn restore((step, log): (Belief, Belief)) -> Self {
        Self { step, log, ..Self::new() }
    }

    /// Whether nothing more is to be learnt about the rule.
    pub(super) fn settled(&self) -> bool {
        match self.rule() {
            Rule::Step => self.step == Belief::Proven,
            Rule::Log => self.log == Belief::Proven,
            Rule::Continuous => true,
        }
    }

    pub(super) fn is_proven_step(&self) -> bool {
        self.rule() == Rule::Step && self.step == Belief::Proven
    }

    /// Net permits per second, zero while unknown.
    pub(super) fn rate(&self) -> f64 {
        self.flow.rate()
    }

    /// Own attempts as a log would hold them.
    pub(super) fn own(&self) -> &Own {
        &self.own
    }

    /// A log of the own attempts explains everything, and all of it is remembered: each comes back on its own.
    pub(super) fn is_proven_log(&self) -> bool {
        self.rule() == Rule::Log && self.log == Belief::Proven && self.own.is_whole()
    }

    /// The greatest length of a log that explains what came back.
    pub(super) fn shown(&self) -> f64 {
        self.shown
    }

    /// Whether the last answer showed an entry of a stranger for certain, were it a log.
    pub(super) fn company(&self) -> bool {
        self.company
    }

    /// The promise stood still while own attempts were counted, then moved by a length before it was due: no window does that,
    /// nor a log, whose reset moves with an entry or at its expiry.
    pub(super) fn is_counter(&mut self) {
        self.step = Belief::Refuted;
        self.log = Belief::Refuted;
        self.counter = true;
        self.flow.interrupt(true);
    }

    /// Whether the promise of a continuous refill is a counter's.
    pub(super) fn promises_an_edge(&self) -> bool {
        self.counter && self.rule() == Rule::Continuous
    }

    /// Takes an accepted answer.
    pub(super) fn weigh(&mut self, seen: &Evidence) {
        self.remember(seen);
        let used = (seen.limit - seen.remaining) / seen.limit.max(1.0);
        let ahead = (seen.due.lo - seen.answered) / seen.length.up.max(1e-3);
        self.counter |= self.rule() == Rule::Continuous && ahead > used + Self::FARTHER;
        let point = Point {
            sent: seen.sent,
            answered: seen.answered,
            least: seen.remaining + self.own.answered_before(seen.sent) + 1.0,
            most: seen.remaining + self.own.accepted() + seen.in_flight,
        };
        if seen.change != Change::Stale {
            let before = self.rule();
            self.weigh_step(seen);
            self.weigh_log(seen, point);
            self.weigh_flow(seen, point);
            if self.rule() != before {
                self.flow.interrupt(true);
            } else if seen.remaining + seen.in_flight + 2.0 >= seen.limit {
                self.flow.interrupt(false);
            }
        }
    }

    fn remember(&mut self, seen: &Evidence) {
        let gone = seen.answered - 2.0 * seen.length.up.max(1.0);
        self.own.remember(seen.sent, seen.answered, gone);
    }

    fn vote(&mut self, belief: Belief) {
        if belief == Belief::Proven && self.step == Belief::Refuted {
            self.again += 1;
            if self.again < Self::COMEBACK {
                return;
            }
        }
        self.again = 0;
        self.step = belief;
    }

    fn weigh_step(&mut self, seen: &Evidence) {
        if seen.change == (Change::Later { early: true }) {
            self.vote(Belief::Refuted);
            return;
        }
        let Some(promised) = seen.promised else { return };
        if let Some(level) = seen.level_alone {
            let came_back = seen.remaining - (level - 1.0).max(0.0);
            if came_back > 1.0 && seen.answered < promised.lo {
                self.vote(Belief::Refuted);
                return;
            }
            let was_used = seen.limit - level;
            if matches!(seen.change, Change::Later { .. })
                && was_used >= 0.3 * seen.limit
                && came_back >= 0.7 * was_used
            {
                self.vote(Belief::Proven);
                return;
            }
        }
        if matches!(seen.change, Change::Later { .. }) && seen.send_at.is_some_and(|at| seen.sent >= at) {
            let own_since = self.own.answered_after(promised.lo) + seen.in_flight;
            if seen.remaining < 0.5 * (seen.limit - own_since) {
                self.vote(Belief::Refuted);
            }
        }
    }

    /// Does a log of the own attempts explain what is left? The bounds are of own entries in its window.
    fn weigh_log(&mut self, seen: &Evidence, point: Point) {
        if self.log == Belief::Refuted {
            return;
        }
        let (least_length, most_length) = (seen.log_length.lo.max(0.0), seen.log_length.up.max(1e-3));
        let most = seen.in_flight + self.own.answered_after(seen.sent + 2.0 * seen.one_way - most_length);
        let surely_handled = self.own.answered_before(seen.sent);
        let maybe_expired =
            self.own.answered_before(seen.answered - 2.0 * seen.one_way - least_length + 2.0 * seen.trip);
        let least = (surely_handled - maybe_expired).max(0.0) + 1.0;
        let others = seen.limit - seen.remaining - most;
        if seen.remaining > seen.limit - least + 0.5 || others - self.strangers > (0.3 * seen.limit).max(8.0)
        {
            self.log = Belief::Refuted;
            return;
        }
        self.company = others >= 0.5;
        // Strangers come at some rate: what they hold changes over a window, not from one answer to the next.
        let weight = ((seen.answered - self.weighed_at) / (0.5 * most_length)).clamp(0.0, 1.0);
        self.weighed_at = seen.answered;
        self.strangers = (self.strangers + (others - self.strangers) * weight).max(0.0);
        if self.log == Belief::Unproven && self.strangers > Self::MOSTLY_OTHERS * seen.limit {
            // Rather is the length wrong: a bucket may tell its next permit alone.
            self.log = Belief::Refuted;
            return;
        }
        let shown = self.own.length_shown(point.least - seen.limit, seen.answered, seen.one_way);
        self.shown = self.shown.min(shown);
        // Bursts that come back as bursts: neither a counter nor a bucket does that.
        let evenly = seen.limit / least_length.max(1e-3);
        if self.step == Belief::Refuted && self.log == Belief::Unproven && self.flow.outruns(point, evenly) {
            self.log = Belief::Proven;
        }
    }

    fn weigh_flow(&mut self, seen: &Evidence, point: Point) {
        let (from, gain) = self.flow.record(point, seen.trip);
        if gain >= 3.0 && seen.answered < seen.due.lo && from.sent > seen.opened.up {
            self.vote(Belief::Refuted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lone attempt handled at `at`, in a world of one-millisecond trips and five-second windows.
    fn lone(at: f64, level: f64, remaining: f64, change: Change, promised: f64) -> Evidence {
        Evidence {
            sent: at - 0.0005,
            answered: at + 0.0005,
            limit: 300.0,
            remaining,
            change,
            level_alone: Some(level),
            promised: Some(Interval::new(promised, promised + 0.001)),
            send_at: Some(promised),
            in_flight: 0.0,
            one_way: 0.0004,
            trip: 0.001,
            opened: Interval::new(0.0, 0.001),
            due: Interval::new(promised + 5.0, promised + 5.001),
            length: Interval::new(4.999, 5.001),
            log_length: Interval::new(4.999, 5.001),
        }
    }

    #[test]
    fn everything_back_at_the_promise_proves_a_step() {
        let mut refill = Refill::new();
        refill.weigh(&lone(5.01, 0.0, 299.0, Change::Later { early: false }, 5.0));
        assert_eq!(refill.rule(), Rule::Step);
        assert!(refill.settled());
    }

    #[test]
    fn a_length_gained_before_the_promise_is_neither_a_window_nor_a_log() {
        let mut refill = Refill::new();
        refill.weigh(&lone(0.5, 300.0, 299.0, Change::Same, 9.0));
        assert_eq!(refill.rule(), Rule::Step);
        refill.is_counter();
        assert_eq!(refill.rule(), Rule::Continuous);
        assert!(refill.settled());
    }

    #[test]
    fn only_a_promise_that_lies_farther_than_what_is_used_is_an_edge() {
        let of = |remaining: f64| {
            let mut refill = Refill::restore((Belief::Refuted, Belief::Refuted));
            // 4 s of 5 s ahead.
            refill.weigh(&lone(1.0, 300.0, remaining, Change::Same, 0.0));
            refill.promises_an_edge()
        };
        assert!(!of(60.0), "a bucket of which four fifths are used tells the same");
        assert!(of(200.0), "a third is used, and a bucket needs a third of the length for it");
    }

    #[test]
    fn little_back_at_the_promise_refutes_a_step_but_not_a_log() {
        let mut refill = Refill::new();
        for index in 0..297_u32 {
            let at = f64::from(index) * 0.0005;
            let mut seen = lone(at, 300.0 - f64::from(index), 299.0 - f64::from(index), Change::Same, 5.0);
            seen.level_alone = None;
            refill.weigh(&seen);
        }
        refill.weigh(&lone(5.01, 3.0, 12.0, Change::Later { early: false }, 5.0));
        assert_eq!(refill.rule(), Rule::Log);
    }

    #[test]
    fn a_rise_before_the_promise_that_no_own_entry_explains_is_continuous() {
        let mut refill = Refill::new();
        for index in 0..297_u32 {
            let at = f64::from(index) * 0.0005;
            let mut seen = lone(at, 300.0 - f64::from(index), 299.0 - f64::from(index), Change::Same, 5.0);
            seen.level_alone = None;
            refill.weigh(&seen);
        }
        refill.weigh(&lone(0.5, 3.0, 23.0, Change::Same, 5.0));
        assert_eq!(refill.rule(), Rule::Continuous);
    }
}
