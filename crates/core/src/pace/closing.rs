//! A throttle closes the gate for everybody.
//!
//! One caller's 429 is everybody's: while the server refuses, every further attempt is wasted and some servers extend
//! the punishment. The gate closes until the hint has passed, plus a little chance so that several processes do not
//! return together, never less than the hint. Then one scout goes, and only its acceptance opens the gate.
//! Answers to attempts that left before the closing belong to the same burst: they may lengthen it, they are no news.
//!
//! A scout that kept to what it was told and was refused all the same learns that this was not the whole truth:
//! * without a known reset the hint was too short, or there was none. Then the wait grows by half each time, so that an
//!   outage of unknown length is overslept by half of it at most, and met with few attempts. From the second on it is also longer
//!   than told by as much as the told end has moved meanwhile: whoever moved it, a punished call, will move it again;
//! * with a known reset somebody else moved it: a process that shares the quota but no store came at the end of *its* wait
//!   and was punished. Two that wait as told take turns at this for ever, so each adds a growing part of its wait by
//!   chance (as Ethernet does after a collision); the reset itself is never doubled.

use std::time::Duration;

use crate::time::Mono;

/// Whether, and until when, a gate is closed by a throttle.
#[derive(Debug, Default)]
pub(super) struct Closing {
    began: Mono,
    until: Mono,
    /// When the last hint ends.
    told: Mono,
    /// Throttled scouts in a row.
    strikes: u32,
    /// Nothing was accepted since the closing.
    scouting: bool,
    /// The server said how long.
    ordered: bool,
    /// Scouts that kept to `Retry-After` were refused again and again: the reset is believed instead, from then on.
    short_hints: bool,
}

/// How long a refusal says to stay away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// `Retry-After`.
    pub(super) hint: Option<Duration>,
    /// When the window will have ended.
    pub(super) window: Option<Duration>,
    /// A reset that may only tell when *all* is back.
    pub(super) reset: Option<Duration>,
    /// Added in part, so that processes do not return together.
    pub(super) spread: Duration,
    /// Which part: a number from 0 to 1.
    pub(super) chance: f64,
}

impl Closing {
    /// Waiting without any hint starts here and grows.
    const FIRST_WAIT: Duration = Duration::from_secs(1);
    const GROWTH: f64 = 1.5;
    const LONGEST_WAIT: Duration = Duration::from_mins(1);
    /// After so many refusals in a row even a reset that may tell too much is believed.
    const DOUBTS: u32 = 2;

    /// Whether a refusal of what left at `sent` is news, not part of a known burst.
    pub(super) fn is_news(&self, sent: Mono) -> bool {
        !self.scouting || sent >= self.began
    }

    /// Closes after a refusal of what left at `sent`. True if it [is news](Self::is_news).
    pub(super) fn close(&mut self, now: Mono, sent: Mono, order: &Order) -> bool {
        let news = self.is_news(sent);
        if news {
            self.strikes = self.strikes.saturating_add(1);
            self.short_hints |= self.strikes > Self::DOUBTS && order.hint < order.reset;
            self.began = now;
            // What left while the gate was already closed takes no order back that still stands.
            self.ordered &= now < self.until;
        }
        self.ordered |= order.hint.max(order.window).is_some();
        if news || order.hint.max(order.window).is_some() {
            self.until = self.until.max(now + self.wait(sent, order) + order.spread.mul_f64(order.chance));
        }
        let told = now + order.hint.unwrap_or_default();
        self.told = if news { told } else { self.told.max(told) };
        self.scouting = true;
        news
    }

    fn wait(&self, sent: Mono, order: &Order) -> Duration {
        let refused = self.strikes.saturating_sub(1);
        let reset = if self.short_hints { order.window.max(order.reset) } else { order.window };
        let hint = order.hint.max(reset);
        match hint {
            Some(hint) if refused == 0 => hint,
            Some(hint) if reset.is_some() => {
                // At most the whole wait once more.
                let part = 1.0 - 0.5_f64.powi(refused.min(16).cast_signed());
                hint + hint.mul_f64(part * order.chance)
            }
            Some(hint) if refused >= Self::DOUBTS => {
                // What moved the end since the last scout will move it again.
                let moved = (sent + hint) - self.told.min(sent + hint);
                self.guess().max(hint + moved.min(Self::LONGEST_WAIT))
            }
            hint => self.guess().max(hint.unwrap_or_default()),
        }
    }

    fn guess(&self) -> Duration {
        let times = self.strikes.saturating_sub(1).min(32).cast_signed();
        Self::FIRST_WAIT.mul_f64(Self::GROWTH.powi(times)).min(Self::LONGEST_WAIT)
    }

    /// An attempt that left at `sent` was accepted. True if that opened the gate.
    pub(super) fn accepted(&mut self, now: Mono, sent: Mono) -> bool {
        if !self.scouting || sent < self.began || now < self.until {
            return false;
        }
        self.scouting = false;
        self.strikes = 0;
        true
    }

    /// Whether the server said how long to stay away.
    pub(super) fn ordered(&self) -> bool {
        self.scouting && self.ordered
    }

    /// Seconds for which the server ordered the last closing; none if it did not say.
    pub(super) fn ordered_for(&self) -> f64 {
        if self.ordered { (self.until - self.began).as_secs_f64() } else { 0.0 }
    }

    /// Nobody ordered this closing, and the server has shown that it accepts.
    pub(super) fn reopen(&mut self) {
        self.scouting = false;
        self.strikes = 0;
        self.until = self.began;
    }

    /// The end of the closing, if it lies ahead.
    pub(super) fn closed_until(&self, now: Mono) -> Option<Mono> {
        (now < self.until).then_some(self.until)
    }

    /// Whether only one attempt at a time may go.
    pub(super) fn scouting(&self) -> bool {
        self.scouting
    }

    /// What is worth keeping. Who ordered the closing is not: only what is in flight may still end it early.
    pub(super) fn keep(&self, now: Mono) -> Shut {
        let &Self { began: _, until: _, told: _, strikes, scouting, ordered: _, short_hints } = self;
        Shut { opens: self.closed_until(now), scout: scouting, strikes, short_hints }
    }

    /// As it was kept: closed until then, and after that for all but a scout.
    pub(super) fn restore(now: Mono, kept: Shut) -> Self {
        let Shut { opens, scout, strikes, short_hints } = kept;
        if !scout {
            return Self { short_hints, ..Self::default() };
        }
        let until = opens.unwrap_or(now);
        Self { began: now, until, told: until, strikes, scouting: true, ordered: true, short_hints }
    }
}

/// What closes a gate, without how that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shut {
    /// Nothing may leave before.
    pub(super) opens: Option<Mono>,
    /// Then one attempt alone goes first.
    pub(super) scout: bool,
    /// Throttled scouts in a row.
    pub(super) strikes: u32,
    /// Hints proved too short.
    pub(super) short_hints: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    fn hint(secs: u64) -> Order {
        Order { hint: Some(Duration::from_secs(secs)), ..NOTHING }
    }

    const NOTHING: Order =
        Order { hint: None, window: None, reset: None, spread: Duration::ZERO, chance: 0.0 };

    /// Milliseconds between scouts that are all refused.
    fn waits(order: &Order, scouts: usize) -> Vec<u128> {
        let mut closing = Closing::default();
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..scouts {
            closing.close(now, now, order);
            let until = closing.closed_until(now).unwrap();
            waits.push((until - now).as_millis());
            now = until;
        }
        waits
    }

    #[test]
    fn scouts_refused_after_the_hint_wait_longer_and_longer() {
        assert_eq!(waits(&hint(1), 5), [1000, 1500, 2500, 3500, 5062]);
        assert_eq!(waits(&hint(3), 4), [3000, 3000, 6000, 9000], "the told end moves by 3, 3, 6 s");
    }

    /// A server that tells four seconds too little and punishes each early call by five more.
    fn punishing(end: &mut u64, now: u64) -> Option<Order> {
        (now < *end).then(|| {
            *end += 5000;
            hint((*end - now).saturating_sub(4000) / 1000)
        })
    }

    #[test]
    fn two_that_are_told_too_little_do_not_punish_each_other_for_ever() {
        let mut end = 14_000;
        let mut closings = [Closing::default(), Closing::default()];
        let mut next = [0, 5000];
        for scouts in 0.. {
            assert!(scouts < 12, "closed until {end}, next at {next:?}");
            let who = usize::from(next[1] < next[0]);
            let now = next[who];
            let Some(order) = punishing(&mut end, now) else { break };
            closings[who].close(at(now), at(now), &order);
            let until = closings[who].closed_until(at(now)).unwrap_or(at(now + 1));
            next[who] = now + u64::try_from((until - at(now)).as_millis()).unwrap();
        }
    }

    #[test]
    fn a_refusal_without_a_hint_takes_no_standing_order_back() {
        let mut closing = Closing::default();
        closing.close(at(0), at(0), &hint(5));
        closing.close(at(1000), at(500), &NOTHING);
        assert!(closing.ordered(), "five seconds were ordered, one has passed");
        closing.close(at(6000), at(6000), &NOTHING);
        assert!(!closing.ordered(), "that order has ended");
    }

    #[test]
    fn without_a_hint_the_wait_grows_by_half_to_a_minute() {
        assert_eq!(waits(&NOTHING, 4), [1000, 1500, 2250, 3375]);
        assert_eq!(waits(&NOTHING, 20).last(), Some(&60_000));
    }

    #[test]
    fn a_known_reset_is_never_doubled_but_missed_by_chance() {
        let known = Order { window: Some(Duration::from_secs(10)), ..hint(6) };
        assert_eq!(waits(&known, 6), [10_000; 6]);
        let unlucky = Order { chance: 1.0, ..known };
        assert_eq!(waits(&unlucky, 4), [10_000, 15_000, 17_500, 18_750]);
    }

    #[test]
    fn a_reset_that_may_tell_too_much_is_believed_after_two_refused_scouts() {
        let full = Order { reset: Some(Duration::from_secs(10)), ..hint(1) };
        assert_eq!(waits(&full, 4), [1000, 1500, 10_000, 10_000]);
    }

    #[test]
    fn hints_that_proved_too_short_are_never_trusted_again() {
        let mut closing = Closing::default();
        let short = Order { reset: Some(Duration::from_secs(10)), ..hint(6) };
        for round in 0..3 {
            closing.close(at(7000 * round), at(7000 * round), &short);
        }
        assert_eq!(closing.closed_until(at(14_000)), Some(at(24_000)));
        assert!(closing.accepted(at(24_100), at(24_000)));
        closing.close(at(30_000), at(29_900), &short);
        assert_eq!(closing.closed_until(at(30_000)), Some(at(40_000)), "at the first refusal");
    }

    #[test]
    fn a_burst_of_throttles_is_one_closing() {
        let mut closing = Closing::default();
        assert!(closing.close(at(100), at(50), &hint(2)));
        for late in 101..140 {
            assert!(!closing.close(at(late), at(60), &hint(2)));
        }
        assert_eq!(closing.closed_until(at(150)), Some(at(2139)), "the latest hint of the burst holds");
        assert_eq!(closing.closed_until(at(2139)), None);
    }

    #[test]
    fn only_an_attempt_sent_after_the_closing_opens_it() {
        let mut closing = Closing::default();
        closing.close(at(100), at(50), &hint(1));
        assert!(!closing.accepted(at(110), at(60)), "it overtook the throttle");
        assert!(closing.scouting());
        assert!(closing.accepted(at(1120), at(1100)));
        assert!(!closing.scouting());
    }
}
