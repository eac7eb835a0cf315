//! Others' entries in a sliding log.
//!
//! What stands in the log and is not one's own is somebody else's: the quota, less what is left, less the own entries. When
//! those entries came nobody tells, so nobody knows when they leave; but they were **seen arriving** between two answers,
//! so they leave one length later between two instants as far apart. Kept is how many came in each of a few dozen bins of
//! the length: what stood before, and what has left since, says what must have come.
//!
//! Rules: the total is what the last answers say, whatever the bins add up to; a bin holds no less than nothing; answers
//! handled close together are averaged first, because the own attempts counted with each are an estimate.

use crate::pace::secs::{num, whole};

/// Averages over answers handled close together.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    count: f64,
    handled: f64,
    standing: f64,
    /// The most own attempts by which a count among them may err, as one deviation.
    blur: f64,
}

impl Sample {
    fn add(&mut self, handled: f64, standing: f64, blur: f64) {
        self.count += 1.0;
        self.handled += (handled - self.handled) / self.count;
        self.standing += (standing - self.standing) / self.count;
        self.blur = self.blur.max(blur);
    }

    /// What the average errs by.
    fn error(&self) -> f64 {
        self.blur / self.count.max(1.0).sqrt()
    }
}

/// Entries of strangers in a log. Times in seconds.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// How long entries stand.
    length: f64,
    /// Arrivals by time, as a ring that reaches back further than a length. Empty until somebody came: mostly nobody does.
    bins: Vec<f64>,
    /// The instant up to which arrivals are known, and what stood then.
    known: Option<(f64, f64)>,
    /// When the first answer was handled.
    since: f64,
    /// Answers since.
    sample: Sample,
}

impl Standing {
    /// Bins in a length. A finer one holds too few answers to average.
    const BINS: usize = 32;
    /// Bins kept beyond, so that what left of late is still known.
    const SPARE: usize = 8;
    /// Lengths that may be logs, in seconds; others are misread.
    const SHORTEST: f64 = 0.01;
    const LONGEST: f64 = 1e7;
    /// A length that changes by more than this share is another log.
    const OTHER_LOG: f64 = 0.1;
    /// Arrivals in so many of the last bins are the draw of late.
    const RECENT: [f64; 3] = [3.0, 8.0, 16.0];
    /// Fewer answers say nothing for certain.
    const FEW: f64 = 4.0;
    /// The draw of late counts where it is so many deviations more than usual.
    const SURPRISE: f64 = 3.0;

    /// An answer handled at `handled` left room for `standing` entries of others in a log of this `length`, give or take
    /// `blur`.
    /// Those handled within a `stretch` are averaged.
    pub(super) fn observe(&mut self, handled: f64, standing: f64, blur: f64, length: f64, stretch: f64) {
        if !(Self::SHORTEST..Self::LONGEST).contains(&length) {
            return;
        }
        if (length - self.length).abs() > Self::OTHER_LOG * self.length {
            *self = Self { length, since: handled, ..Self::default() };
        }
        if self.sample.count > 0.0 && handled > self.sample.handled + stretch.min(self.width()) {
            let sample = std::mem::take(&mut self.sample);
            self.close(sample.handled, sample.standing.max(0.0));
        }
        self.sample.add(handled, standing, blur);
    }

    /// Whether the last answers show entries of others beyond what counting errs by.
    pub(super) fn stands_out(&self) -> bool {
        self.sample.count >= Self::FEW && self.sample.standing > 1.0 + Self::SURPRISE * self.sample.error()
    }

    fn close(&mut self, at: f64, standing: f64) {
        let Some((before, stood)) = self.known.replace((at, standing)) else {
            self.clear(at - self.length, at);
            self.spread(at - self.length, at, standing);
            return;
        };
        if at <= before {
            return;
        }
        let came = (standing - stood + self.came(before - self.length, at - self.length)).max(0.0);
        self.clear(before, at);
        self.spread(before.max(at - self.length), at, came);
        let counted = self.came(at - self.length, at);
        if counted > 0.0 {
            for bin in &mut self.bins {
                *bin *= standing / counted;
            }
        }
    }

    fn width(&self) -> f64 {
        self.length / num(Self::BINS as u64)
    }

    /// The bins that `from..to` touches, with the share of the span that lies in each and of the bin that it covers.
    fn touched(&self, from: f64, to: f64) -> impl Iterator<Item = (usize, f64, f64)> + use<> {
        let (width, bins) = (self.width(), self.bins.len());
        let (first, last) = (whole(from / width), whole(to / width));
        (first..=last).take(bins).map(move |bin| {
            let begin = num(bin) * width;
            let part = (to.min(begin + width) - from.max(begin)).max(0.0);
            (usize::try_from(bin % bins as u64).unwrap_or(0), part / (to - from).max(1e-9), part / width)
        })
    }

    /// Forgets what the bins that begin in `from..to` held a ring ago.
    fn clear(&mut self, from: f64, to: f64) {
        let (first, last) = (whole(from / self.width()).saturating_add(1), whole(to / self.width()));
        let count = self.bins.len() as u64;
        for bin in (first..=last).take(self.bins.len()) {
            self.bins[usize::try_from(bin % count).unwrap_or(0)] = 0.0;
        }
    }

    fn spread(&mut self, from: f64, to: f64, came: f64) {
        if came <= 0.0 {
            return;
        }
        self.bins.resize(Self::BINS + Self::SPARE, 0.0);
        for (bin, share, _) in self.touched(from, to) {
            self.bins[bin] += came * share;
        }
    }

    /// How many came in `from..to`.
    fn came(&self, from: f64, to: f64) -> f64 {
        if self.bins.is_empty() || to <= from {
            return 0.0;
        }
        self.touched(from, to).map(|(bin, _, covered)| self.bins[bin] * covered).sum()
    }

    /// When the last answers were handled, what stood then, and what came since the bins were last filled.
    fn latest(&self) -> Option<(f64, f64, f64)> {
        let (known, stood) = self.known?;
        let Sample { count, handled: at, standing, .. } = self.sample;
        if count < 1.0 || at <= known {
            return Some((known, stood, 0.0));
        }
        let standing = standing.max(0.0);
        let left = self.came(known - self.length, at - self.length);
        Some((at, standing, (standing - stood + left).max(0.0)))
    }

    /// Permits per second that others draw: of late, if that is far more than usual.
    pub(super) fn rate(&self) -> f64 {
        let (Some((known, _)), Some((at, standing, came))) = (self.known, self.latest()) else { return 0.0 };
        let usual = standing / self.length;
        let of_late = Self::RECENT.into_iter().filter_map(|bins| {
            let since = known - bins * self.width();
            let recent = self.came(since, known) + came;
            let expected = usual * (at - since);
            let surprising = recent > expected + Self::SURPRISE * (expected + 1.0).sqrt() + 1.0;
            surprising.then(|| recent / (at - since))
        });
        of_late.fold(usual, f64::max)
    }

    /// Entries of others that may stand when an attempt arrives at `at`: those known, less what left since, and what
    /// comes meanwhile, with so many `deviations`. `None` until a whole length was watched.
    pub(super) fn at(&self, at: f64, deviations: f64) -> Option<f64> {
        let (known, standing, _) = self.latest()?;
        if known < self.since + self.length {
            return None;
        }
        let span = (at - known).clamp(0.0, self.length);
        let left = self.came(known - self.length, known - self.length + span);
        let comes = self.rate() * span;
        let error = self.sample.error();
        let chance =
            if standing + comes < 0.5 { 0.0 } else { deviations * (comes + 1.0 + error * error).sqrt() };
        Some((standing - left).max(0.0) + comes + chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands of entries that came at `times`, in a log of five seconds.
    fn stands(times: &[f64], at: f64) -> f64 {
        num(times.iter().filter(|&&came| came <= at && came > at - 5.0).count() as u64)
    }

    fn watch(times: &[f64], until: f64) -> Standing {
        let mut standing = Standing::default();
        for step in 0..1_000_u32 {
            let at = 0.02 * f64::from(step);
            if at <= until {
                standing.observe(at, stands(times, at), 0.0, 5.0, 1.0);
            }
        }
        standing
    }

    #[test]
    fn a_burst_leaves_one_length_after_it_came() {
        let times: Vec<f64> = (0..60).map(|index| 7.0 + 0.01 * f64::from(index)).collect();
        let standing = watch(&times, 10.0);
        assert!(standing.at(11.5, 0.0).is_some_and(|left| left > 55.0), "{:?}", standing.at(11.5, 0.0));
        let left = standing.at(13.0, 0.0).unwrap_or(f64::NAN) - 3.0 * standing.rate();
        assert!(left < 5.0, "{left}");
    }

    #[test]
    fn a_steady_draw_neither_grows_nor_shrinks_while_nobody_looks() {
        let times: Vec<f64> = (0..500).map(|index| 0.05 * f64::from(index)).collect();
        let standing = watch(&times, 15.0);
        assert!((standing.rate() - 20.0).abs() < 1.0, "{}", standing.rate());
        for at in [15.0, 17.0, 19.0] {
            let stands = standing.at(at, 0.0).unwrap_or(f64::NAN);
            assert!((stands - 100.0).abs() < 6.0, "{stands} at {at}");
        }
    }

    #[test]
    fn a_draw_that_began_of_late_only_grows() {
        let times: Vec<f64> = (0..500).map(|index| 12.0 + 0.05 * f64::from(index)).collect();
        let standing = watch(&times, 14.0);
        let stands = standing.at(16.0, 0.0).unwrap_or(f64::NAN);
        assert!(stands > 70.0, "{stands}, though nothing of it can have left");
    }

    #[test]
    fn nobody_stands_where_own_entries_explain_everything() {
        let standing = watch(&[], 15.0);
        assert_eq!(standing.at(18.0, 2.5), Some(0.0));
    }
}
