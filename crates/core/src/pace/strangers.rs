//! Others who draw from the same quota.
//!
//! Within a window the drop in remaining that own attempts cannot explain is somebody else's draw. How many own attempts
//! an answer includes is known between two bounds only, which lie as far apart as attempts are in flight: a draw would
//! hide between them for as long as the gate is busy. So the draw is **estimated** with every attempt counted half a
//! trip after it left, from averages over short bins; and **believed** where it stands out of what such a count can err by.
//! Where nothing is in flight the count is exact and takes the place of the estimate, and one permit is believed.
//!
//! A machine with too much to do sends late and reads late, in batches and in any order, and that is nobody else's draw:
//! * what ended before another left was counted before it, and nothing is forgotten as long as it is under way;
//! * what is overdue may have arrived at any instant until now, and all that is may be on one side;
//! * remaining and own attempts never add up to more than they may have before: a count that does was too high, and its
//!   fall is no draw.
//!
//! Rules: arrivals are taken for Poisson at a rate that is itself uncertain, so the margin is that of a negative
//! binomial: draw, and deviations of the draw and of its rate. A bin, or a few, far above or below the rate replace what
//! was known: a burst is met by its first evidence and forgotten by its first lull, not by its average. Every throttle adds a few permits
//! to the margin, which fade as answers are accepted: what throttles teach no header says.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::pace::secs::num;

/// Averages over answers handled close together.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: f64,
    handled: f64,
    /// Remaining and the own attempts counted: it falls by what others take.
    ledger: f64,
    /// Deviations by which one count may err, each by chance of its own.
    blur: f64,
    /// By how much all may err together.
    bias: f64,
}

impl Bin {
    fn add(&mut self, handled: f64, ledger: f64, counted: &Counted) {
        self.count += 1.0;
        self.blur = self.blur.max(Strangers::MISPLACED * counted.doubtful);
        self.bias = self.bias.max(counted.loose);
        self.handled += (handled - self.handled) / self.count;
        self.ledger += (ledger - self.ledger) / self.count;
    }
}

/// An own attempt whose order still matters.
#[derive(Clone, Copy, Debug)]
struct Own {
    sent: f64,
    /// When it was answered or lost; infinite while it is under way.
    ended: f64,
}

impl Own {
    fn is_under_way(&self) -> bool {
        self.ended.is_infinite()
    }
}

/// Own attempts that an answer includes.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// As an estimate.
    arrived: f64,
    /// Of these it is not sure.
    doubtful: f64,
    /// Among them those that are overdue, or told of by an answer that is: they may all be on one side.
    loose: f64,
}

/// The draw of strangers on one limit.
#[derive(Debug)]
pub(super) struct Strangers {
    /// Permits seen to go, and the seconds in which they went; both fade.
    draw: f64,
    over: f64,
    /// The same of late.
    recent: (f64, f64),
    /// The same on average, bursts and lulls alike.
    average: (f64, f64),
    /// Permits per second where it is not seen in a drop.
    known: f64,
    /// Own attempts of late by when they left, and how many before those.
    sends: VecDeque<Own>,
    before: u64,
    bin: Bin,
    /// The last complete bin of this window.
    last: Option<Bin>,
    /// The last answer with nothing in flight: what it left is exact, so is what went since the one before.
    exact: Option<Bin>,
    /// No count of this window can be higher.
    highest: f64,
    /// Something was counted in this window, so what is known is not from one that has passed.
    counted: bool,
    /// The draw and its average as they were known then.
    then: [(f64, f64); 2],
    /// Others were certainly there, within memory.
    believed: bool,
    /// Extra permits, taught by throttles.
    pad: f64,
    /// A throttle was taken.
    met: bool,
    /// The rate last reported.
    told: f64,
}

impl Strangers {
    /// Margin in standard deviations of a Poisson draw.
    pub(super) const DEVIATIONS: f64 = 2.5;
    /// A drop is believed beyond so many deviations of what was expected.
    const SURPRISE: f64 = 3.0;
    /// Of the memory so much is of late.
    const RECENT: f64 = 0.125;
    /// Of the attempts in doubt so many are counted on the wrong side of an answer, as one deviation.
    pub(super) const MISPLACED: f64 = 0.2;
    /// Own attempts under way at most whose order matters.
    const UNDER_WAY: usize = 4096;

    pub(super) fn new() -> Self {
        Self {
            draw: 0.0,
            over: 0.0,
            recent: (0.0, 0.0),
            average: (0.0, 0.0),
            known: 0.0,
            sends: VecDeque::new(),
            before: 0,
            bin: Bin::default(),
            last: None,
            exact: None,
            highest: f64::INFINITY,
            counted: false,
            then: [(0.0, 0.0); 2],
            believed: false,
            pad: 0.0,
            met: false,
            told: 0.0,
        }
    }

    pub(super) fn rate(&self) -> f64 {
        if self.believed && self.over > 0.0 { self.draw / self.over } else { self.known }
    }

    /// The rate over a window: nobody takes more than `quota_rate`, all that there is.
    pub(super) fn overall(&self, quota_rate: f64) -> f64 {
        self.rate().min(quota_rate)
    }

    /// Nothing of this window was counted yet: what is known is of windows that have passed.
    pub(super) fn is_hearsay(&self) -> bool {
        self.believed && !self.counted
    }

    /// For how many seconds the draw was seen that is taken for their rate; none where none was.
    pub(super) fn seen_for(&self) -> Option<f64> {
        (self.believed && self.draw > 0.0).then_some(self.over)
    }

    /// For how many seconds `permits` last if others take what they take on average, whatever chance does.
    pub(super) fn lasts(&self, permits: f64) -> f64 {
        let (draw, over) = self.average;
        // draws + deviations × √draws = permits, solved for √draws.
        let root = (Self::DEVIATIONS.mul_add(Self::DEVIATIONS, 4.0 * permits.max(0.0)).sqrt()
            - Self::DEVIATIONS)
            / 2.0;
        root * root * over / draw.max(1e-9)
    }

    /// A new window: what was left before says nothing about it.
    pub(super) fn new_window(&mut self) {
        self.bin = Bin::default();
        self.last = None;
        self.exact = None;
        self.highest = f64::INFINITY;
        self.counted = false;
    }

    /// An own attempt left.
    pub(super) fn sent(&mut self, now: f64) {
        self.sends.push_back(Own { sent: now, ended: f64::INFINITY });
        if self.sends.len() > Self::UNDER_WAY {
            self.forget(1);
        }
    }

    /// Own attempts that have left, ever.
    fn left(&self) -> f64 {
        num(self.before + self.sends.len() as u64)
    }

    fn under_way_since(&self, sent: f64) -> Option<usize> {
        let first = self.sends.partition_point(|own| own.sent < sent);
        let same = self.sends.range(first..).take_while(|own| own.sent <= sent);
        same.zip(first..).find(|(own, _)| own.is_under_way()).map(|(_, at)| at)
    }

    /// An own attempt that had left was surely not counted.
    pub(super) fn not_counted(&mut self, sent: f64) {
        match self.under_way_since(sent) {
            Some(at) => drop(self.sends.remove(at)),
            None => self.before = self.before.saturating_sub(1),
        }
    }

    /// An own attempt that left at `sent` is no longer under way.
    pub(super) fn ended(&mut self, sent: f64, now: f64) {
        if let Some(at) = self.under_way_since(sent) {
            self.sends[at].ended = now;
        }
        // What ended before the oldest under way had left is counted by every answer to come, and by the present one.
        let oldest = self.sends.iter().find(|own| own.is_under_way()).map_or(sent, |own| own.sent.min(sent));
        let old = self.sends.iter().take_while(|own| own.ended <= oldest).count();
        self.forget(old);
    }

    fn forget(&mut self, count: usize) {
        self.before += self.sends.drain(..count).len() as u64;
    }

    /// An answer in a window where nothing comes back.
    pub(super) fn observe(&mut self, seen: &Seen) {
        let handled = f64::midpoint(seen.sent, seen.answered);
        if let Some(level) = seen.settled {
            self.settle(handled, level + self.left(), seen);
            return;
        }
        if self.bin.count > 0.0 && handled > self.bin.handled + seen.stretch {
            self.close(seen);
        }
        let counted = self.counted(handled, seen);
        self.highest = self.highest.min(seen.remaining + self.left());
        self.bin.add(handled, (seen.remaining + counted.arrived).min(self.highest), &counted);
    }

    /// Own attempts that had left but not arrived by the instant `handled`, as an estimate; and how many are in doubt.
    pub(super) fn under_way(&self, handled: f64, seen: &Seen) -> (f64, f64) {
        let counted = self.counted(handled, seen);
        (self.left() - counted.arrived, counted.doubtful)
    }

    /// The extra permits that throttles taught to leave.
    pub(super) fn pad(&self) -> f64 {
        self.pad
    }

    /// Own attempts counted by the instant `handled`, each half a trip after it left, give or take `seen.doubt` and what it or
    /// the answer is overdue.
    fn counted(&self, handled: f64, seen: &Seen) -> Counted {
        let middle = handled - seen.trip / 2.0;
        let late = |took: f64| ((took - seen.trip) / 2.0 - seen.doubt).max(0.0);
        let answer = late(seen.answered - seen.sent);
        let mut counted = Counted { arrived: num(self.before), ..Counted::default() };
        for own in &self.sends {
            if own.ended <= seen.sent {
                counted.arrived += 1.0;
                continue;
            }
            let overdue = late(own.ended.min(seen.answered) - own.sent);
            let doubt = (seen.doubt + answer + overdue).max(1e-9);
            let sure = (middle - own.sent - overdue) / doubt;
            if sure > -1.0 {
                counted.arrived += f64::midpoint(1.0, sure).min(1.0);
            }
            if sure.abs() < 1.0 {
                counted.doubtful += 1.0;
                counted.loose += if answer + overdue > 0.0 { 1.0 } else { 0.0 };
            }
        }
        counted
    }

    /// Nothing is in flight: `ledger` is exact, and takes the place of what was estimated since the last that was.
    fn settle(&mut self, handled: f64, ledger: f64, seen: &Seen) {
        let now = Bin { count: 1.0, handled, ledger, ..Bin::default() };
        self.bin = Bin::default();
        self.last = Some(now);
        self.highest = ledger;
        if let Some(exact) = self.exact.replace(now) {
            let gone = (exact.ledger - now.ledger).max(0.0);
            [(self.draw, self.over), self.average] = self.then;
            self.count(gone, (now.handled - exact.handled).max(0.0), 0.0, seen.memory);
            self.believed = (self.believed || gone >= 0.5) && self.draw >= 0.5;
        }
        self.then = [(self.draw, self.over), self.average];
    }

    fn close(&mut self, seen: &Seen) {
        let bin = std::mem::take(&mut self.bin);
        let Some(last) = self.last.replace(bin) else { return };
        let chance = Self::SURPRISE * (bin.blur + last.blur) / bin.count.min(last.count).max(1.0).sqrt();
        let errs = chance + bin.bias + last.bias;
        let surprised =
            self.count(last.ledger - bin.ledger, (bin.handled - last.handled).max(0.0), errs, seen.memory);
        let gone = self.exact.map_or(0.0, |exact| exact.ledger - bin.ledger);
        self.believed |= surprised || gone > 0.9 + errs;
    }

    /// `drop` permits went within `took` seconds, give or take `errs`. True if the draw has changed and the past is void.
    fn count(&mut self, drop: f64, took: f64, errs: f64, memory: f64) -> bool {
        self.counted = true;
        let fade = |pair: (f64, f64), memory: f64| {
            let keep = (-took / memory).exp();
            ((pair.0 * keep + drop).max(0.0), pair.1 * keep + took)
        };
        let rate = self.draw / self.over.max(1e-9);
        let differs = |(draw, over): (f64, f64)| {
            let expected = rate * over;
            (draw - expected).abs() > Self::SURPRISE * (expected + 1.0).sqrt() + 1.0 + errs
        };
        self.average = fade(self.average, memory);
        let now = (drop.max(0.0), took);
        self.recent = fade(self.recent, memory * Self::RECENT);
        let changed = [now, self.recent].into_iter().find(|&seen| self.over > 0.0 && differs(seen));
        if let Some(changed) = changed {
            (self.draw, self.over) = changed;
            self.recent = changed;
        } else {
            (self.draw, self.over) = fade((self.draw, self.over), memory);
        }
        changed.is_some_and(|(draw, over)| draw > rate * over)
    }

    /// Where permits come back at any time the rate is not seen in a drop: it is what refill or standing entries show.
    pub(super) fn is_known(&mut self, rate: f64) {
        self.known = rate.max(0.0);
        self.believed = false;
    }

    /// An accepted answer: what throttles taught fades.
    pub(super) fn accepted(&mut self) {
        self.pad *= 0.998;
        if self.pad < 0.3 {
            self.pad = 0.0;
        }
    }

    /// A throttle, once per burst.
    pub(super) fn throttled(&mut self, limit: f64) {
        self.pad = (self.pad + 2.0).min(0.1 * limit);
    }

    /// Permits to leave for what may be drawn within `span` seconds.
    pub(super) fn margin(&self, span: f64) -> f64 {
        let draw = self.rate() * span;
        if draw <= 0.05 {
            return self.pad;
        }
        let uncertain = if self.believed { span / self.over.max(span / 4.0) } else { 0.0 };
        draw + Self::DEVIATIONS * (draw * (1.0 + uncertain)).sqrt() + self.pad
    }

    /// The same where `net` permits per second come back on balance: only chance can take more than they bring.
    pub(super) fn margin_of_flow(&self, trip: f64, net: f64) -> f64 {
        let chance = Self::DEVIATIONS * (self.rate() * trip).sqrt();
        (chance - 0.25 * net * trip).max(0.0) + self.pad
    }

    /// How long until `wanted` permits have come back at `net` permits per second on balance, whatever chance takes on
    /// the way and within a `trip`.
    pub(super) fn wait_for(&self, wanted: f64, net: f64, trip: f64) -> f64 {
        // net × wait − deviations × √(rate × (wait + trip)) = wanted, solved for √(wait + trip).
        let chance = Self::DEVIATIONS * self.rate().sqrt();
        let square = chance.mul_add(chance, 4.0 * net * net.mul_add(trip, wanted)).max(0.0);
        let root = (chance + square.sqrt()) / (2.0 * net);
        (root * root - trip).max(0.0)
    }

    /// A throttle, whatever attempt met it: others are there, or refill is slower than it seems.
    pub(super) fn meet(&mut self) {
        self.met = true;
    }

    /// Whether a throttle was ever taken that others must have caused.
    pub(super) fn met(&self) -> bool {
        self.met
    }

    /// What is worth keeping. What was seen and sent belongs to windows that have passed.
    pub(super) fn keep(&self) -> Company {
        let &Self {
            pad,
            met,
            draw: _,
            over: _,
            recent: _,
            average: _,
            known: _,
            sends: _,
            before: _,
            bin: _,
            last: _,
            exact: _,
            highest: _,
            counted: _,
            then: _,
            believed: _,
            told: _,
        } = self;
        Company { rate: self.rate(), pad, met }
    }

    /// Strangers as they were known before.
    pub(super) fn restore(Company { rate, pad, met }: Company) -> Self {
        Self { known: rate, pad, met, ..Self::new() }
    }

    /// The rate, if it is worth reporting: more than a twentieth of the quota and twice what was reported last.
    pub(super) fn news(&mut self, quota_rate: f64) -> Option<f64> {
        let rate = self.overall(quota_rate);
        if rate > 0.05 * quota_rate && rate > 2.0 * self.told {
            self.told = rate;
            return Some(rate);
        }
        if rate < 0.01 * quota_rate {
            self.told = 0.0;
        }
        None
    }
}

/// What is known of strangers when nothing was seen of them for long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Company {
    /// Permits per second.
    rate: f64,
    /// Extra permits, taught by throttles.
    #[serde(default)]
    pad: f64,
    /// A throttle was ever due to them.
    met: bool,
}

/// An answer, as the draw is estimated from it. Times in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) sent: f64,
    pub(super) answered: f64,
    pub(super) remaining: f64,
    /// What is left, if nothing is in flight now.
    pub(super) settled: Option<f64>,
    /// The usual round trip.
    pub(super) trip: f64,
    /// By how much the way there may be longer or shorter than half a trip.
    pub(super) doubt: f64,
    /// The length of a bin.
    pub(super) stretch: f64,
    /// What was seen so long ago counts for a third.
    pub(super) memory: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sent: f64, answered: f64, remaining: f64, settled: bool) -> Seen {
        let settled = settled.then_some(remaining);
        let trip = answered - sent;
        Seen {
            sent,
            answered,
            remaining,
            settled,
            trip,
            doubt: 0.15 * trip,
            stretch: trip / 2.0,
            memory: 5.0,
        }
    }

    /// Attempts a tenth of a second apart, each alone; `left` tells what was left of the quota without them.
    fn watch(strangers: &mut Strangers, from: u32, steps: u32, left: impl Fn(f64) -> f64) {
        for step in from..from + steps {
            let at = f64::from(step) * 0.1;
            strangers.sent(at - 0.01);
            strangers.ended(at - 0.01, at + 0.01);
            strangers.observe(&seen(at - 0.01, at + 0.01, left(at) - f64::from(step + 1), true));
        }
    }

    #[test]
    fn own_attempts_are_nobody_elses() {
        let mut strangers = Strangers::new();
        watch(&mut strangers, 0, 50, |_| 300.0);
        assert!(strangers.rate() <= 0.0);
        assert!(strangers.margin(10.0) <= 0.0);
    }

    #[test]
    fn own_attempts_that_were_cut_off_are_nobody_elses() {
        let mut strangers = Strangers::new();
        for round in 0..5 {
            if round > 0 {
                strangers.sent(f64::from(round) - 0.05);
            }
            watch(&mut strangers, 10 * round, 10, |_| 300.0 - f64::from(round));
        }
        assert!(strangers.rate() <= 0.0, "{}", strangers.rate());
    }

    #[test]
    fn a_steady_draw_is_found_and_reported_once() {
        let mut strangers = Strangers::new();
        watch(&mut strangers, 0, 50, |at| 300.0 - (20.0 * at).floor());
        assert!((strangers.rate() - 20.0).abs() < 1.0, "{}", strangers.rate());
        assert!(strangers.margin(0.1) > 2.0);
        assert!(strangers.news(60.0).is_some());
        assert!(strangers.news(60.0).is_none());
    }

    #[test]
    fn a_burst_counts_from_its_first_evidence_and_ends_with_its_first_lull() {
        let mut strangers = Strangers::new();
        watch(&mut strangers, 0, 50, |_| 600.0);
        watch(&mut strangers, 50, 2, |at| 600.0 - 120.0 * (at - 4.9));
        assert!(strangers.rate() > 100.0, "{}", strangers.rate());
        watch(&mut strangers, 52, 3, |_| 576.0);
        assert!(strangers.rate() < 10.0, "{}", strangers.rate());
    }

    #[test]
    fn a_draw_hidden_by_own_attempts_in_flight_is_estimated() {
        // Two hundred own attempts a second with forty in flight, and somebody draws twenty-five.
        let mut strangers = Strangers::new();
        let handled = |step: u32| 0.1 + f64::from(step) * 0.005;
        for step in 0..240_u32 {
            strangers.sent(handled(step) - 0.1);
            let Some(step) = step.checked_sub(40) else { continue };
            let at = handled(step);
            let left = 300.0 - f64::from(step + 1) - (25.0 * (at - 0.1)).floor();
            strangers.ended(at - 0.1, at + 0.1);
            strangers.observe(&seen(at - 0.1, at + 0.1, left, step == 0));
        }
        assert!((strangers.rate() - 25.0).abs() < 4.0, "{}", strangers.rate());
    }

    #[test]
    fn a_burst_that_is_read_late_is_nobody_elses() {
        // As a loaded machine gave it: after a scout of a millisecond ten attempts at once take a tenth of a second and more.
        let sends = [1.1209, 1.1214, 1.1386, 1.1392, 1.1398, 1.1402, 1.1407, 1.1421, 1.1426, 1.1431];
        // Answered, sent, remaining; the usual trip and the doubt as they were known then.
        let answers = [
            (1.2385, 1.1214, 98.0, 0.0128, 0.0178),
            (1.2390, 1.1431, 97.0, 0.0211, 0.0285),
            (1.2395, 1.1209, 96.0, 0.0309, 0.0402),
            (1.2399, 1.1421, 95.0, 0.0376, 0.0462),
            (1.2403, 1.1426, 94.0, 0.0436, 0.0506),
            (1.2408, 1.1392, 93.0, 0.0494, 0.0543),
            (1.2513, 1.1407, 89.0, 0.0555, 0.0580),
            (1.2520, 1.1386, 92.0, 0.0613, 0.0609),
            (1.2525, 1.1398, 91.0, 0.0664, 0.0625),
            (1.6377, 1.2377, 88.0, 0.1040, 0.1062),
        ];
        let mut strangers = Strangers::new();
        strangers.sent(0.9330);
        strangers.ended(0.9330, 0.9342);
        strangers.observe(&seen(0.9330, 0.9342, 99.0, true));
        for sent in sends {
            strangers.sent(sent);
        }
        for (answered, sent, remaining, trip, doubt) in answers {
            if sent > 1.2 {
                strangers.sent(sent);
            }
            strangers.ended(sent, answered);
            let seen = seen(sent, answered, remaining, false);
            strangers.observe(&Seen { trip, doubt, stretch: (trip / 2.0).max(0.0065), memory: 1.3, ..seen });
            assert!(strangers.rate() <= 0.0, "{} per second after {remaining}", strangers.rate());
        }
    }

    #[test]
    fn nobody_draws_more_than_there_is_and_what_was_seen_in_another_window_is_hearsay() {
        let mut strangers = Strangers::new();
        watch(&mut strangers, 0, 50, |_| 600.0);
        watch(&mut strangers, 50, 2, |at| 600.0 - 120.0 * (at - 4.9));
        assert!(strangers.rate() > 100.0 && !strangers.is_hearsay());
        assert!(strangers.overall(60.0) <= 60.0);
        strangers.new_window();
        assert!(strangers.is_hearsay());
        watch(&mut strangers, 60, 2, |at| 1200.0 - 120.0 * (at - 5.0));
        assert!(!strangers.is_hearsay());
    }
}
