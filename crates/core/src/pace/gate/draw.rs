//! How much the classes draw on one limit.
//!
//! What `fair` classes leave to more important ones is a forecast of what those will ask for. Every ask counts, served or
//! not. The rate is an exponentially weighted average over a window of the limit, from zero, corrected for the time it has
//! run; its peak is held and fades over eight windows, because calls that come in bursts (all agents at once, each five
//! seconds) would otherwise be forgotten just before they come again. A forecast that was too high costs little: what is left
//! for nothing is taken before the window ends.

use crate::schedule::Class;

/// One class. Single precision, because every gate has some: seven digits are more than an estimate has.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// Asks, faded.
    count: f32,
    /// How much of a window the count covers, faded likewise.
    run: f32,
    /// The highest rate, faded more slowly.
    peak: f32,
}

/// The draw of all classes that others may have to leave something to. Times in seconds.
#[derive(Debug, Default)]
pub(super) struct Draw {
    last: f64,
    rates: [Rate; Self::HIGHER],
}

impl Draw {
    /// All but the last: nobody leaves anything to `poll`.
    const HIGHER: usize = Class::COUNT - 1;
    /// A peak fades over so many windows.
    const MEMORY: f64 = 8.0;
    /// Less than a window is taken for one (1 − 1/e of what is averaged): a first burst says nothing about when the next comes.
    const FIRST: f32 = 0.632;

    /// One of `class` asks.
    pub(super) fn asked(&mut self, now: f64, class: Class, window: f64) {
        let age = (now - self.last).max(0.0) / window;
        self.last = now;
        if age > 0.0 {
            let (fade, slow) = (narrow((-age).exp()), narrow((-age / Self::MEMORY).exp()));
            for rate in &mut self.rates {
                rate.count *= fade;
                rate.peak *= slow;
                if rate.peak > 0.0 {
                    rate.run = 1.0 - (1.0 - rate.run) * fade;
                }
            }
        }
        let Some(rate) = self.rates.get_mut(class.index()) else { return };
        rate.count += 1.0;
        let run = rate.run.max(Self::FIRST);
        rate.peak = rate.peak.max(rate.count / (run * narrow(window)));
    }

    /// Asks of `class` per second.
    pub(super) fn rate(&self, now: f64, class: Class, window: f64) -> f64 {
        let Some(rate) = self.rates.get(class.index()).filter(|rate| rate.peak > 0.0) else { return 0.0 };
        f64::from(rate.peak) * (-(now - self.last).max(0.0) / (Self::MEMORY * window)).exp()
    }

    /// Asks per second of those that may not be kept waiting.
    pub(super) fn urgent(&self, now: f64, below: Class, window: f64) -> f64 {
        let urgent = Class::ALL.into_iter().filter(|&class| class.is_urgent() && class < below);
        urgent.map(|class| self.rate(now, class, window)).sum()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "see `Rate`")]
fn narrow(number: f64) -> f32 {
    number as f32
}

/// What to leave where so many draws are expected: these, and chance (2.5 standard deviations of a Poisson process).
pub(super) fn with_chance(draws: f64) -> f64 {
    draws + DEVIATIONS * draws.max(0.0).sqrt()
}

/// How many draws may be expected so that no more than `permits` have to be left: its inverse.
pub(super) fn covered(permits: f64) -> f64 {
    let root = ((DEVIATIONS * DEVIATIONS + 4.0 * permits.max(0.0)).sqrt() - DEVIATIONS) / 2.0;
    root * root
}

/// As for strangers' margin.
pub(super) const DEVIATIONS: f64 = 2.5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::secs::num;

    #[test]
    fn a_steady_draw_is_known_after_a_window_and_forgotten_after_some() {
        let mut draw = Draw::default();
        assert!(draw.rate(0.0, Class::Interactive, 60.0) <= 0.0, "it starts from nothing");
        for second in 0..60 {
            draw.asked(num(second), Class::Interactive, 60.0);
        }
        let known = draw.rate(60.0, Class::Interactive, 60.0);
        assert!((0.9..5.0).contains(&known), "{known}");
        for second in 60..1800 {
            draw.asked(num(second), Class::Interactive, 60.0);
        }
        let settled = draw.rate(1800.0, Class::Interactive, 60.0);
        assert!((0.95..1.15).contains(&settled), "{settled}");
        assert!(draw.rate(1800.0 + 60.0 * 40.0, Class::Interactive, 60.0) < 0.01);
        assert!(draw.rate(1800.0, Class::Sync, 60.0) <= 0.0, "others are others");
    }

    #[test]
    fn bursts_are_remembered_until_the_next() {
        let mut draw = Draw::default();
        for burst in 0..10 {
            for _ in 0..500 {
                draw.asked(5.0 * num(burst), Class::Sync, 5.0);
            }
        }
        let before_the_next = draw.rate(49.99, Class::Sync, 5.0);
        assert!(before_the_next * 5.0 >= 500.0, "{before_the_next}");
    }

    #[test]
    fn what_covers_is_the_inverse_of_what_is_left() {
        for permits in [0.0, 0.01, 1.0, 80.0, 3000.0] {
            assert!((with_chance(covered(permits)) - permits).abs() < 1e-6, "{permits}");
        }
    }
}
