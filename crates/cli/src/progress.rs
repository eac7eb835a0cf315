//! Progress of long work on a terminal: how far, how fast, what went wrong, how long yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate::observe::{AttemptDone, Observer};
use tidegate_bulk::execute::Progress;
use tidegate_core::event::Event;
use tokio::task::JoinHandle;

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(200);

/// Counts what a person wants to see beside the items.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    throttles: std::sync::atomic::AtomicU64,
    attempts: std::sync::atomic::AtomicU64,
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
}

impl Observer for Watch {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Throttled { .. }) {
            self.throttles.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn attempt(&self, _attempt: &AttemptDone<'_>) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }
}

/// A progress line that follows a run until it is finished.
pub(crate) struct Line {
    bar: ProgressBar,
    follow: JoinHandle<()>,
}

impl Line {
    /// Starts to draw. `already` items had ended before this process began; a quiet line draws nothing.
    pub(crate) fn start(
        total: u64,
        already: u64,
        progress: Arc<Progress>,
        watch: Arc<Watch>,
        quiet: bool,
    ) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = ProgressStyle::with_template(
            "{bar:30} {pos}/{len} items  {per_sec}  {msg}  {elapsed} elapsed, {eta} left",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏░"));
        bar.set_position(already);
        bar.reset_eta();
        let follow = tokio::spawn({
            let bar = bar.clone();
            async move {
                loop {
                    bar.set_position(already + progress.ended());
                    bar.set_message(message(&progress, &watch));
                    tokio::time::sleep(TICK).await;
                }
            }
        });
        Self { bar, follow }
    }

    /// Takes the line away, so that what follows stands alone.
    pub(crate) fn finish(self) {
        self.follow.abort();
        self.bar.finish_and_clear();
    }
}

fn message(progress: &Progress, watch: &Watch) -> String {
    let failed = progress.failed.load(Ordering::Relaxed);
    let unknown = progress.unknown.load(Ordering::Relaxed);
    let mut message = format!("{} throttles", watch.throttles());
    if failed > 0 {
        message.push_str(&format!(", {failed} failed"));
    }
    if unknown > 0 {
        message.push_str(&format!(", {unknown} unknown"));
    }
    message
}
