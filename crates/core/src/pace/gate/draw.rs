//! How much the classes draw on one limit.
//!
//! What `fair` classes leave to more important ones is a forecast of what those will ask for. Every ask counts, served or
//! not. The rate is an exponentially weighted average over a window of the limit, from zero, corrected for the time it has
//! run; its peak is held and fades over eight windows, because calls that come in bursts (all agents at once, each five
//! seconds) would otherwise be forgotten just before they come again. A forecast that was too high costs little: what is left
//! for nothing is taken before the window ends.
//!
//! Before a limit was watched for one of its windows little is known, and a job that begins together with the calls of
//! more important classes would take all of the first window. So something is **presumed** of these: a fifth of the quota.
//! It ends as soon as it had to show: after the time of four such calls without one (by chance that happens once in
//! fifty), an eighth of a window at most and five seconds at most. Of a quota whose fifth is less than what chance does to
//! it nothing is presumed. It fades over the second half of that time, so that what it held leaves one by one, each answer a
//! look at what strangers did meanwhile, and not in one crowd by what was known before. Once one was seen, the presumption counts as four calls in that time, among those
//! that are seen: the mean of a Gamma distribution that begins with it. It is never more than the fifth.

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

/// What is presumed of the more important classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Presumed {
    /// Asks per second.
    pub(super) rate: f64,
    /// Until when, if nothing happens before.
    pub(super) until: f64,
    /// When the limit will have been watched for a window.
    pub(super) watched: f64,
}

/// The draw of all classes that others may have to leave something to. Times in seconds.
#[derive(Debug, Default)]
pub(super) struct Draw {
    /// When somebody asked first.
    since: Option<f64>,
    last: f64,
    rates: [Rate; Class::COUNT],
}

impl Draw {
    /// A peak fades over so many windows.
    const MEMORY: f64 = 8.0;
    /// Less than a window is taken for one (1 − 1/e of what is averaged): a first burst says nothing about when the next comes.
    const FIRST: f32 = 0.632;

    /// Nobody looks more often than once in a millisecond, and never at its own instant again.
    const GRAIN: f64 = 1e-3;
    /// The share of a quota that is presumed.
    const PRESUMED_SHARE: f64 = 0.2;
    /// What is presumed is worth so many asks.
    const PRESUMED_ASKS: f64 = 4.0;
    /// It is given up after so much of a window in which nobody asked, or so many seconds.
    const PRESUMED_WINDOWS: f64 = 0.125;
    const PRESUMED_SECONDS: f64 = 5.0;

    /// One of `class` asks.
    pub(super) fn asked(&mut self, now: f64, class: Class, window: f64) {
        self.since.get_or_insert(now);
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
        let rate = &mut self.rates[class.index()];
        rate.count += 1.0;
        let run = rate.run.max(Self::FIRST);
        rate.peak = rate.peak.max(rate.count / (run * narrow(window)));
    }

    /// Asks of `class` per second.
    pub(super) fn rate(&self, now: f64, class: Class, window: f64) -> f64 {
        let peak = self.rates[class.index()].peak;
        f64::from(peak) * (-(now - self.last).max(0.0) / (Self::MEMORY * window)).exp()
    }

    /// Asks per second of those that may not be kept waiting.
    pub(super) fn urgent(&self, now: f64, below: Class, window: f64) -> f64 {
        let urgent = Class::ALL.into_iter().filter(|&class| class.is_urgent() && class < below);
        urgent.map(|class| self.rate(now, class, window)).sum()
    }

    /// When somebody asked first.
    pub(super) fn since(&self) -> Option<f64> {
        self.since
    }

    /// What is presumed of those that may not be kept waiting, at a limit of so many permits per window.
    pub(super) fn presumed(&self, now: f64, below: Class, window: f64, quota: f64) -> Option<Presumed> {
        let since = self.since?;
        let watched = since + window;
        if now + Self::GRAIN >= watched {
            return None;
        }
        let rate = Self::PRESUMED_SHARE * quota / window;
        if rate * window < DEVIATIONS * DEVIATIONS {
            return None;
        }
        let worth = (Self::PRESUMED_ASKS / rate).min(Self::PRESUMED_WINDOWS * window);
        let worth = worth.min(Self::PRESUMED_SECONDS);
        let urgent = Class::ALL.into_iter().filter(|&class| class.is_urgent() && class < below);
        let seen: f64 = urgent.map(|class| f64::from(self.rates[class.index()].count)).sum();
        if seen <= 0.0 {
            let ends = since + worth;
            if now + Self::GRAIN >= ends {
                return None;
            }
            let left = (2.0 * (ends - now) / worth).min(1.0);
            // The next look when it has begun to fade, or when it has faded by one permit.
            let fades = (ends - 0.5 * worth).max(now + 0.5 * worth / (rate * window)).max(now + Self::GRAIN);
            return Some(Presumed { rate: rate * left, until: fades.min(ends), watched });
        }
        let seen = seen * (-(now - self.last) / window).exp();
        // What was seen is faded by its age, so the time in which it was is, too.
        let run = window * -(-(now - since) / window).exp_m1();
        let mean = (seen + rate * worth) / (run + worth);
        Some(Presumed { rate: rate.min(mean), until: watched, watched })
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
    fn a_fifth_is_presumed_until_it_should_have_shown() {
        let mut draw = Draw::default();
        let presumed = |draw: &Draw, now| draw.presumed(now, Class::Bulk, 60.0, 300.0);
        assert_eq!(presumed(&draw, 0.0), None, "nobody asked");
        draw.asked(10.0, Class::Bulk, 60.0);
        assert_eq!(presumed(&draw, 10.0), Some(Presumed { rate: 1.0, until: 12.0, watched: 70.0 }));
        let fading = presumed(&draw, 13.0).unwrap();
        assert!(
            (fading.rate - 0.5).abs() < 1e-9 && (fading.until - 13.0 - 2.0 / 60.0).abs() < 1e-9,
            "{fading:?}"
        );
        assert_eq!(presumed(&draw, 14.0), None, "four of them should have come");
        let lasts = |window, quota| {
            let presumed = |now| draw.presumed(now, Class::Bulk, window, quota).is_some();
            (presumed(14.9), presumed(15.0))
        };
        assert_eq!(lasts(40.0, 100.0), (true, false), "an eighth of the window");
        assert_eq!(lasts(86400.0, 300.0), (true, false), "five seconds");
        assert_eq!(lasts(60.0, 31.0), (false, false), "chance is more than a fifth of it");
    }

    #[test]
    fn what_is_presumed_gives_way_to_what_is_seen() {
        let presumed =
            |draw: &Draw, now| draw.presumed(now, Class::Bulk, 60.0, 300.0).map(|found| found.rate);
        let mut few = Draw::default();
        few.asked(0.0, Class::Interactive, 60.0);
        assert_eq!(presumed(&few, 0.0), Some(1.0), "never more than the fifth");
        assert!((0.07..0.13).contains(&presumed(&few, 59.0).unwrap()), "{few:?}");
        assert_eq!(presumed(&few, 60.0), None, "watched for a window");
        let mut many = Draw::default();
        for second in 0..50 {
            many.asked(num(second), Class::Sync, 60.0);
            assert!(presumed(&many, num(second)).is_some_and(|rate| rate > 0.97), "{second} {many:?}");
        }
        let below = many.presumed(49.0, Class::Interactive, 60.0, 300.0);
        assert_eq!(below, None, "nobody is more important than those behind whom a person waits");
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
