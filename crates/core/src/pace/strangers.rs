//! Others who draw from the same quota.
//!
//! Within a window the drop in remaining that own attempts cannot explain is somebody else's draw. How many own attempts
//! an answer includes is known between two bounds only, which lie as far apart as attempts are in flight: a draw would
//! hide between them for as long as the gate is busy. So the draw is **estimated** with every attempt counted at the
//! middle of its trip, from averages over short bins, once all that overlapped has been answered; and **believed** where
//! it stands out of what such a count can err by. Where nothing overlapped the count is exact, and one permit is believed.
//!
//! Rules: arrivals are taken for Poisson at a rate that is itself uncertain, so the margin is that of a negative
//! binomial: draw, and deviations of the draw and of its rate. A bin, or a few, far above or below the rate replace what
//! was known: a burst is met by its first evidence and forgotten by its first lull, not by its average. Every throttle adds a few permits
//! to the margin, which fade as answers are accepted: what throttles teach no header says.

use std::collections::VecDeque;

use crate::pace::own::Own;

/// An answer whose own attempts are not all known yet. Times in seconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The middle of its trip.
    handled: f64,
    remaining: f64,
    /// Own attempts by which counting at the middle of the trip may err.
    blur: f64,
}

/// Averages over answers handled close together.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: f64,
    handled: f64,
    /// Remaining and the own attempts counted: it falls by what others take.
    ledger: f64,
    blur: f64,
}

impl Bin {
    fn add(&mut self, handled: f64, ledger: f64, blur: f64) {
        self.count += 1.0;
        self.blur = self.blur.max(blur);
        self.handled += (handled - self.handled) / self.count;
        self.ledger += (ledger - self.ledger) / self.count;
    }
}

/// The draw of strangers on one limit.
#[derive(Debug)]
pub(super) struct Strangers {
    /// Permits seen to go, and the seconds in which they went; both fade.
    draw: f64,
    over: f64,
    /// The same of late.
    recent: (f64, f64),
    /// Permits per second where it is not seen in a drop.
    known: f64,
    samples: VecDeque<Sample>,
    bin: Bin,
    /// The last complete bin of this window.
    last: Option<Bin>,
    /// The last answer with nothing in flight: what it left is exact, so is what went since the one before.
    exact: Option<Bin>,
    /// The draw and its seconds as they were known then.
    then: (f64, f64),
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
    const DEVIATIONS: f64 = 2.5;
    /// A drop is believed beyond so many deviations of what was expected.
    const SURPRISE: f64 = 3.0;
    /// Of the memory so much is of late.
    const RECENT: f64 = 0.125;
    /// Answers that wait for those that overlap them.
    const PENDING: usize = 64;

    pub(super) fn new() -> Self {
        Self {
            draw: 0.0,
            over: 0.0,
            recent: (0.0, 0.0),
            known: 0.0,
            samples: VecDeque::new(),
            bin: Bin::default(),
            last: None,
            exact: None,
            then: (0.0, 0.0),
            believed: false,
            pad: 0.0,
            met: false,
            told: 0.0,
        }
    }

    pub(super) fn rate(&self) -> f64 {
        if self.believed && self.over > 0.0 { self.draw / self.over } else { self.known }
    }

    /// A new window: what was left before says nothing about it.
    pub(super) fn new_window(&mut self) {
        self.samples.clear();
        self.bin = Bin::default();
        self.last = None;
        self.exact = None;
    }

    /// An answer in a window where nothing comes back.
    pub(super) fn observe(&mut self, seen: &Seen<'_>) {
        let handled = f64::midpoint(seen.sent, seen.answered);
        let crowded = self.samples.back().is_some_and(|last| handled < last.handled + seen.stretch / 16.0);
        if !crowded {
            self.samples.push_back(Sample { handled, remaining: seen.remaining, blur: seen.blur });
        }
        let overlap = seen.own.longest().min(2.0 * seen.trip);
        while self.samples.front().is_some_and(|sample| seen.answered >= sample.handled + overlap)
            || self.samples.len() > Self::PENDING
        {
            let Some(sample) = self.samples.pop_front() else { break };
            let ledger = sample.remaining + seen.own.handled_by(sample.handled);
            if self.bin.count > 0.0 && sample.handled > self.bin.handled + seen.stretch {
                self.close(seen);
            }
            self.bin.add(sample.handled, ledger, sample.blur);
        }
        if let Some(level) = seen.settled {
            self.settle(handled, level + seen.own.accepted(), seen);
        }
    }

    /// Nothing is in flight: `ledger` is exact, and takes the place of what was estimated since the last that was.
    fn settle(&mut self, handled: f64, ledger: f64, seen: &Seen<'_>) {
        let now = Bin { count: 1.0, handled, ledger, blur: 0.0 };
        self.samples.clear();
        self.bin = Bin::default();
        self.last = Some(now);
        if let Some(exact) = self.exact.replace(now) {
            let gone = (exact.ledger - now.ledger).max(0.0);
            (self.draw, self.over) = self.then;
            self.count(gone, (now.handled - exact.handled).max(0.0), 0.0, seen.memory);
            self.believed = (self.believed || gone >= 0.5) && self.draw >= 0.5;
        }
        self.then = (self.draw, self.over);
    }

    fn close(&mut self, seen: &Seen<'_>) {
        let bin = std::mem::take(&mut self.bin);
        let Some(last) = self.last.replace(bin) else { return };
        let errs = Self::SURPRISE * (bin.blur + last.blur);
        let surprised =
            self.count(last.ledger - bin.ledger, (bin.handled - last.handled).max(0.0), errs, seen.memory);
        let gone = self.exact.map_or(0.0, |exact| exact.ledger - bin.ledger);
        self.believed |= surprised || gone > 0.9 + errs;
    }

    /// `drop` permits went within `took` seconds, give or take `errs`. True if the draw has changed and the past is void.
    fn count(&mut self, drop: f64, took: f64, errs: f64, memory: f64) -> bool {
        let fade = |pair: (f64, f64), memory: f64| {
            let keep = (-took / memory).exp();
            ((pair.0 * keep + drop).max(0.0), pair.1 * keep + took)
        };
        let rate = self.draw / self.over.max(1e-9);
        let differs = |(draw, over): (f64, f64)| {
            let expected = rate * over;
            (draw - expected).abs() > Self::SURPRISE * (expected + 1.0).sqrt() + 1.0 + errs
        };
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

    /// An own attempt ended without an answer that says anything: whether it was counted nobody knows, so what is missing
    /// of it is not missing for certain.
    pub(super) fn ended_unseen(&mut self) {
        for bin in [&mut self.last, &mut self.exact].into_iter().flatten() {
            bin.ledger -= 1.0;
        }
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

    /// A throttle, whatever attempt met it: others are there, or refill is slower than it seems.
    pub(super) fn meet(&mut self) {
        self.met = true;
    }

    /// Whether a throttle was ever taken that others must have caused.
    pub(super) fn met(&self) -> bool {
        self.met
    }

    /// The rate, if it is worth reporting: more than a twentieth of the quota and twice what was reported last.
    pub(super) fn news(&mut self, quota_rate: f64) -> Option<f64> {
        let rate = self.rate();
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

/// An answer, as the draw is estimated from it. Times in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'o> {
    pub(super) sent: f64,
    pub(super) answered: f64,
    pub(super) remaining: f64,
    /// What is left, if nothing is in flight now.
    pub(super) settled: Option<f64>,
    pub(super) own: &'o Own,
    /// The usual round trip.
    pub(super) trip: f64,
    /// Own attempts by which counting at the middle of the trip may err.
    pub(super) blur: f64,
    /// The length of a bin.
    pub(super) stretch: f64,
    /// What was seen so long ago counts for a third.
    pub(super) memory: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts a tenth of a second apart, each alone; `left` tells what the answer at an instant says.
    fn watch(strangers: &mut Strangers, own: &mut Own, from: u32, steps: u32, left: impl Fn(f64) -> f64) {
        for step in from..from + steps {
            let at = f64::from(step) * 0.1;
            own.remember(at - 0.01, at + 0.01, 0.0);
            strangers.observe(&Seen {
                sent: at - 0.01,
                answered: at + 0.01,
                remaining: left(at) - own.accepted(),
                settled: Some(left(at) - own.accepted()),
                own,
                trip: 0.02,
                blur: 0.0,
                stretch: 0.05,
                memory: 5.0,
            });
        }
    }

    #[test]
    fn own_attempts_are_nobody_elses() {
        let (mut strangers, mut own) = (Strangers::new(), Own::default());
        watch(&mut strangers, &mut own, 0, 50, |_| 300.0);
        assert!(strangers.rate() <= 0.0);
        assert!(strangers.margin(10.0) <= 0.0);
    }

    #[test]
    fn own_attempts_that_were_cut_off_are_nobody_elses() {
        let (mut strangers, mut own) = (Strangers::new(), Own::default());
        for round in 0..5 {
            if round > 0 {
                strangers.ended_unseen();
            }
            watch(&mut strangers, &mut own, 10 * round, 10, |_| 300.0 - f64::from(round));
        }
        assert!(strangers.rate() <= 0.0, "{}", strangers.rate());
    }

    #[test]
    fn a_steady_draw_is_found_and_reported_once() {
        let (mut strangers, mut own) = (Strangers::new(), Own::default());
        watch(&mut strangers, &mut own, 0, 50, |at| 300.0 - (20.0 * at).floor());
        assert!((strangers.rate() - 20.0).abs() < 1.0, "{}", strangers.rate());
        assert!(strangers.margin(0.1) > 2.0);
        assert!(strangers.news(60.0).is_some());
        assert!(strangers.news(60.0).is_none());
    }

    #[test]
    fn a_burst_counts_from_its_first_evidence() {
        let (mut strangers, mut own) = (Strangers::new(), Own::default());
        watch(&mut strangers, &mut own, 0, 50, |_| 600.0);
        watch(&mut strangers, &mut own, 50, 2, |at| 600.0 - 120.0 * (at - 4.9));
        assert!(strangers.rate() > 100.0, "{}", strangers.rate());
    }

    #[test]
    fn a_draw_hidden_by_own_attempts_in_flight_is_estimated() {
        // Two hundred own attempts a second with forty in flight, and somebody draws twenty-five.
        let (mut strangers, mut own) = (Strangers::new(), Own::default());
        for step in 0..200_u32 {
            let handled = 0.1 + f64::from(step) * 0.005;
            own.remember(handled - 0.1, handled + 0.1, 0.0);
            strangers.observe(&Seen {
                sent: handled - 0.1,
                answered: handled + 0.1,
                remaining: 300.0 - f64::from(step + 1) - (25.0 * (handled - 0.1)).floor(),
                settled: (step == 0).then_some(299.0),
                own: &own,
                trip: 0.2,
                blur: 2.0,
                stretch: 0.1,
                memory: 5.0,
            });
        }
        assert!((strangers.rate() - 25.0).abs() < 4.0, "{}", strangers.rate());
    }
}
