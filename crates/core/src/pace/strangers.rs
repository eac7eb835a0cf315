//! Others who draw from the same quota.
//!
//! Within a window the drop in remaining that own attempts cannot explain is somebody else's draw. Only what is missing
//! **for certain** counts: the most that may have been left at an earlier answer, less the most that own attempts may
//! have taken since. The rate is smoothed; the margin is what they may take while a certificate and the next attempt
//! travel. Every throttle adds a few permits to it, which fade as answers are accepted: what throttles teach no header says.

/// The draw of strangers on one limit.
#[derive(Debug)]
pub(super) struct Strangers {
    /// Permits per second.
    rate: f64,
    /// The answer since which the present stretch is measured: (answered, remaining plus own attempts surely counted).
    from: Option<(f64, f64)>,
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

    pub(super) fn new() -> Self {
        Self { rate: 0.0, from: None, pad: 0.0, met: false, told: 0.0 }
    }

    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// A new window: what was left before says nothing about it.
    pub(super) fn new_window(&mut self) {
        self.from = None;
    }

    /// An answer at `answered` with `remaining + own attempts counted` between `least` and `most`, in a window where
    /// nothing comes back. Stretches shorter than `stretch` say nothing.
    pub(super) fn observe(&mut self, answered: f64, least: f64, most: f64, stretch: f64) {
        match self.from {
            Some((at, before)) if least < before => {
                if answered - at > stretch {
                    let rate = ((before - most) / (answered - at)).max(0.0);
                    self.rate += 0.2 * (rate - self.rate);
                }
            }
            _ => self.from = Some((answered, least)),
        }
    }

    /// Where permits come back at any time the rate is not seen in a drop: it is what refill or standing entries show.
    pub(super) fn is_known(&mut self, rate: f64) {
        self.rate = rate.max(0.0);
    }

    /// An own attempt ended without an answer that says anything: whether it was counted nobody knows, so what is missing
    /// of it is not missing for certain.
    pub(super) fn ended_unseen(&mut self) {
        if let Some((_, before)) = &mut self.from {
            *before -= 1.0;
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

    /// Permits to leave, given a `trip` that is only rarely exceeded.
    pub(super) fn margin(&self, trip: f64) -> f64 {
        let draw = self.rate * trip;
        if draw > 0.05 { draw + Self::DEVIATIONS * draw.sqrt() + self.pad } else { self.pad }
    }

    /// The same where `net` permits per second come back on balance: only chance can take more than they bring.
    pub(super) fn margin_of_flow(&self, trip: f64, net: f64) -> f64 {
        let chance = Self::DEVIATIONS * (self.rate * trip).sqrt();
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

    /// Strangers as they were known before: their rate, and whether a throttle was ever due to them.
    pub(super) fn restore(rate: f64, met: bool) -> Self {
        Self { rate, met, ..Self::new() }
    }

    /// The rate, if it is worth reporting: more than a twentieth of the quota and twice what was reported last.
    pub(super) fn news(&mut self, quota_rate: f64) -> Option<f64> {
        if self.rate > 0.05 * quota_rate && self.rate > 2.0 * self.told {
            self.told = self.rate;
            return Some(self.rate);
        }
        if self.rate < 0.01 * quota_rate {
            self.told = 0.0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_attempts_in_flight_are_nobody_elses() {
        let mut strangers = Strangers::new();
        for step in 0..50_u32 {
            let at = f64::from(step) * 0.1;
            // 100 at the start, own attempts explain everything between the two bounds.
            strangers.observe(at, 95.0, 100.0, 0.05);
        }
        assert!(strangers.rate() <= 0.0);
    }

    #[test]
    fn own_attempts_that_were_cut_off_are_nobody_elses() {
        let mut strangers = Strangers::new();
        for step in 0..50_u32 {
            let at = f64::from(step) * 0.1;
            let left = 100.0 - f64::from(step / 10);
            if step > 0 && step.is_multiple_of(10) {
                strangers.ended_unseen();
            }
            strangers.observe(at, left, left, 0.05);
        }
        assert!(strangers.rate() <= 0.0, "{}", strangers.rate());
    }

    #[test]
    fn a_steady_draw_is_found_and_reported_once() {
        let mut strangers = Strangers::new();
        for step in 0..50_u32 {
            let at = f64::from(step) * 0.1;
            let left = 300.0 - 20.0 * at;
            strangers.observe(at, left, left, 0.05);
        }
        assert!((strangers.rate() - 20.0).abs() < 1.0, "{}", strangers.rate());
        assert!(strangers.margin(0.1) > 2.0);
        assert!(strangers.news(60.0).is_some());
        assert!(strangers.news(60.0).is_none());
    }
}
