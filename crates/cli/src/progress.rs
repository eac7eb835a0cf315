//! Progress of long work: how far, how fast, what went wrong, how long yet.
//!
//! On a terminal this is one line that is drawn again and again; elsewhere (a file, a pipe, a log) a plain line at every
//! tenth of the work and after every silent minute. Nothing is said by colour.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate::observe::{AttemptDone, Observer};
use tidegate::{Class, Upstream};
use tidegate_bulk::execute;
use tidegate_core::event::Event;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::output;

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(200);

/// The stretch over which the rate is measured: longer than the minute most quotas count in, so that the pause between
/// two windows does not look like a standstill.
const SPAN: Duration = Duration::from_secs(90);

/// The longest silence where milestones are written instead of a line.
const SILENCE: Duration = Duration::from_mins(1);

/// Columns from which on a terminal has room for a bar worth looking at beside the words.
const ROOMY: usize = 90;

/// Counts what a person wants to see beside the items.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    throttles: AtomicU64,
    attempts: AtomicU64,
    too_many: AtomicU64,
}

impl Watch {
    /// Gate closings so far.
    pub(crate) fn throttles(&self) -> u64 {
        self.throttles.load(Ordering::Relaxed)
    }

    /// Attempts sent so far.
    pub(crate) fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Attempts answered 429 so far.
    pub(crate) fn too_many(&self) -> u64 {
        self.too_many.load(Ordering::Relaxed)
    }
}

impl Observer for Watch {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Throttled { .. }) {
            self.throttles.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn attempt(&self, attempt: &AttemptDone<'_>) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if attempt.status == Some(429) {
            self.too_many.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Work at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// How much of it has ended.
    pub(crate) ended: u64,
    /// What else is to be told, with its count; the first always, the others once they have happened.
    pub(crate) notes: Vec<(u64, &'static str)>,
    /// Why nothing leaves now, if it is for a window of the calendar.
    pub(crate) held: Option<String>,
}

/// Why nothing leaves to an upstream now, if it is for a window of the calendar.
pub(crate) fn held(upstream: &Upstream) -> Option<String> {
    upstream.pacer().held(Class::Bulk).map(|(words, _)| words)
}

/// Looks at a bulk run of which `already` items had ended before this process began.
pub(crate) fn of_run(
    already: u64,
    upstream: &Arc<Upstream>,
    progress: Arc<execute::Progress>,
    watch: Arc<Watch>,
) -> impl Fn() -> Sample + Send + 'static {
    let upstream = Arc::clone(upstream);
    move || Sample {
        held: held(&upstream),
        ended: already + progress.ended(),
        notes: vec![
            (watch.throttles(), "throttles"),
            (progress.failed.load(Ordering::Relaxed), "failed"),
            (progress.unknown.load(Ordering::Relaxed), "unknown"),
            (progress.jobs.load(Ordering::Relaxed), "jobs open"),
        ],
    }
}

/// Progress that is shown until it is finished.
pub(crate) struct Line {
    bar: ProgressBar,
    follow: JoinHandle<()>,
}

impl Line {
    /// Starts to show the progress of `total` `unit`s that `look` sees; 0 if nobody knows how many. A quiet line shows nothing.
    pub(crate) fn start(
        unit: &'static str,
        total: u64,
        quiet: bool,
        look: impl Fn() -> Sample + Send + 'static,
    ) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        // The message takes the room that is left and is cut where the terminal ends.
        let template = if output::talk_width().is_some_and(|width| width < ROOMY) {
            "{bar:8} {wide_msg}"
        } else {
            "{bar:20} {wide_msg}"
        };
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏░"));
        let teller =
            Teller { unit, total, pace: Pace::default(), told: 0, told_at: Duration::ZERO, held: false };
        let milestones = bar.is_hidden() && !quiet;
        output::show((!bar.is_hidden()).then(|| bar.clone()));
        let follow = tokio::spawn(follow(bar.clone(), milestones, teller, look));
        Self { bar, follow }
    }

    /// Takes the line away, so that what follows stands alone.
    pub(crate) fn finish(self) {
        drop(self);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.follow.abort();
        output::show(None);
        self.bar.finish_and_clear();
    }
}

async fn follow(bar: ProgressBar, milestones: bool, mut teller: Teller, look: impl Fn() -> Sample) {
    let start = Instant::now();
    loop {
        let sample = look();
        let now = start.elapsed();
        teller.pace.note(now, sample.ended);
        if milestones {
            if let Some(line) = teller.milestone(now, &sample) {
                output::talk(&line);
            }
        } else {
            bar.set_position(sample.ended);
            bar.set_message(teller.line(&sample));
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Puts progress into words.
struct Teller {
    unit: &'static str,
    total: u64,
    pace: Pace,
    /// Tenths told as milestones, and when the last was told.
    told: u64,
    told_at: Duration,
    /// The last one told that nothing leaves.
    held: bool,
}

impl Teller {
    /// "120/500 items, 30/s, 13 s left, 2 throttles"
    fn line(&self, sample: &Sample) -> String {
        let mut line = if self.total > 0 {
            format!("{}/{} {}", sample.ended, self.total, self.unit)
        } else {
            format!("{} {}", sample.ended, self.unit)
        };
        if let Some(rate) = self.pace.per_second() {
            let digits = usize::from(rate < 9.95);
            write!(line, ", {rate:.digits$}/s").expect("a string takes everything");
            if let Some(left) = self.pace.left(self.total).filter(|_| self.total > 0) {
                write!(line, ", {} left", spell(left)).expect("a string takes everything");
            }
        }
        for (index, (count, what)) in sample.notes.iter().enumerate() {
            if index == 0 || *count > 0 {
                write!(line, ", {count} {what}").expect("a string takes everything");
            }
        }
        if let Some(held) = &sample.held {
            write!(line, ", {held}").expect("a string takes everything");
        }
        line
    }

    /// The line, if it is time for one.
    fn milestone(&mut self, now: Duration, sample: &Sample) -> Option<String> {
        let tenths = sample.ended.saturating_mul(10) / self.total.max(1);
        let changed = self.held != sample.held.is_some();
        if tenths <= self.told && now.saturating_sub(self.told_at) < SILENCE && !changed {
            return None;
        }
        (self.told, self.told_at, self.held) = (tenths, now, sample.held.is_some());
        Some(self.line(sample))
    }
}

/// How fast the work went lately.
#[derive(Debug, Default)]
struct Pace(VecDeque<(Duration, u64)>);

impl Pace {
    fn note(&mut self, now: Duration, ended: u64) {
        self.0.push_back((now, ended));
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= SPAN) {
            self.0.pop_front();
        }
    }

    /// Items per second, once a second has been seen and something has ended in it.
    fn per_second(&self) -> Option<f64> {
        let ((from, before), (to, after)) = (self.0.front()?, self.0.back()?);
        let time = to.saturating_sub(*from);
        let ended = after.saturating_sub(*before);
        #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
        (time >= Duration::from_secs(1) && ended > 0).then(|| ended as f64 / time.as_secs_f64())
    }

    /// How long the rest takes if it goes on like this.
    fn left(&self, total: u64) -> Option<Duration> {
        let (_, ended) = self.0.back()?;
        #[expect(clippy::cast_precision_loss, reason = "a forecast for the eye")]
        Duration::try_from_secs_f64(total.saturating_sub(*ended) as f64 / self.per_second()?).ok()
    }
}

/// A duration in the two units that matter.
pub(crate) fn spell(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn teller(total: u64) -> Teller {
        Teller { unit: "items", total, pace: Pace::default(), told: 0, told_at: Duration::ZERO, held: false }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_pause_between_two_windows_is_no_standstill() {
        let mut pace = Pace::default();
        for second in 0..=120 {
            // 300 in the first second of every minute, nothing in the rest of it.
            pace.note(seconds(second), 300 * second.div_ceil(60));
        }
        let rate = pace.per_second().unwrap();
        assert!((3.0..=7.0).contains(&rate), "{rate}");
    }

    #[test]
    fn the_forecast_counts_only_what_this_process_did() {
        let mut pace = Pace::default();
        pace.note(seconds(0), 4_000);
        pace.note(seconds(10), 4_100);
        assert_eq!(pace.left(4_600), Some(seconds(50)));
    }

    #[test]
    fn nothing_is_foretold_from_nothing() {
        let mut pace = Pace::default();
        assert_eq!(pace.left(10), None);
        pace.note(seconds(0), 0);
        pace.note(seconds(30), 0);
        assert_eq!((pace.per_second(), pace.left(10)), (None, None));
    }

    #[test]
    fn what_has_not_happened_is_not_told_except_the_first() {
        let notes = vec![(0, "throttles"), (0, "failed"), (2, "unknown")];
        let sample = Sample { ended: 3, notes, held: None };
        assert_eq!(teller(10).line(&sample), "3/10 items, 0 throttles, 2 unknown");
    }

    #[test]
    fn milestones_come_at_tenths_and_after_a_silent_minute() {
        let mut teller = teller(100);
        let mut at = |second, ended| {
            teller.milestone(seconds(second), &Sample { ended, ..Sample::default() }).is_some()
        };
        let told = [at(0, 0), at(1, 9), at(2, 10), at(3, 15), at(4, 42), at(5, 49), at(65, 49), at(66, 49)];
        assert_eq!(told, [false, false, true, false, true, false, true, false]);
    }

    #[test]
    fn a_window_that_begins_to_hold_and_ends_is_told_at_once() {
        let mut teller = teller(100);
        let mut at = |second, held: Option<&str>| {
            let held = held.map(str::to_owned);
            teller.milestone(seconds(second), &Sample { ended: 3, held, ..Sample::default() })
        };
        let words = "held by window \"night\" until 06:20 CDT";
        assert_eq!(at(1, None), None);
        assert_eq!(
            at(2, Some(words)).as_deref(),
            Some("3/100 items, held by window \"night\" until 06:20 CDT")
        );
        assert_eq!(at(3, Some(words)), None);
        assert_eq!(at(4, None).as_deref(), Some("3/100 items"));
    }

    #[test]
    fn durations_are_spelt_in_two_units() {
        assert_eq!(
            [0, 59, 61, 7_260].map(|it| spell(seconds(it))),
            ["0 s", "59 s", "1 min 1 s", "2 h 1 min"]
        );
    }
}
