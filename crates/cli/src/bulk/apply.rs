//! Sends what is pending in a journal, and reports.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate::Upstream;
use tidegate::state::{StateFile, StateKeeper};
use tidegate_bulk::execute::{Following, Options, Progress, Stopped, execute};
use tidegate_bulk::exit::exit;
use tidegate_bulk::{Ending, Exit};
use tidegate_core::reconcile::Rule;
use tidegate_store::{Counts, Journal};
use tokio::sync::watch;
use tokio::task::block_in_place;

use super::link::Link;
use super::look::ResultFile;
use super::{cancel, look};
use crate::args::BulkCommon;
use crate::failure::Failure;
use crate::output;
use crate::progress::{self, Line, Watch};
use crate::signals::interrupted;

/// How often it is looked whether the run is to be cancelled.
const LOOK: Duration = Duration::from_millis(200);

/// Sends what is pending and reports.
pub(super) async fn carry_out(
    journal: Journal,
    link: Link,
    common: &BulkCommon,
    reconcile: Option<Arc<Rule>>,
    jobs: Option<Following>,
    result: Option<ResultFile>,
) -> Result<(), Failure> {
    let journal = Arc::new(journal);
    let marker = cancel::request(journal.path());
    // Of an earlier process: whoever asks now asks again.
    cancel::take_away(&marker);
    let reader = journal.reader().map_err(Failure::internal)?;
    let before = reader.counts().map_err(Failure::internal)?;
    let progress = Arc::new(Progress::default());
    let already = before.total() - before.pending();
    let look = progress::of_run(already, &link.upstream, Arc::clone(&progress), Arc::clone(&link.watch));
    let shown = Line::start("items", before.total(), common.quiet, look);
    let (stop, stopping) = watch::channel(false);
    let cancel = tokio::spawn(cancel_asked(marker.clone(), stop.clone()));
    let asked = interrupted();
    let listen = tokio::spawn(async move {
        asked.await;
        output::talk(
            "stopping: calls that have left are awaited; Ctrl-C again ends at once, and can be resumed as well",
        );
        stop.send_replace(true);
        interrupted().await;
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
    let spread = link.spread();
    let options = Options {
        spread,
        concurrency: usize::from(common.concurrency),
        patience: common.patience,
        headers: link.headers,
        reconcile,
        jobs,
    };
    let state = pacing(&journal, &link.upstream);
    let began = link.upstream.clock().now();
    let ended = execute(Arc::clone(&journal), Arc::clone(&link.upstream), options, &progress, stopping).await;
    let took = link.upstream.clock().now() - began;
    shown.finish();
    listen.abort();
    cancel.abort();
    link.upstream.give_back().await;
    if let Some(state) = state {
        state.end().await;
    }
    let cancelled = marker.exists();
    if cancelled {
        block_in_place(|| journal.cancel_blocking(link.upstream.clock().wall()))
            .map_err(Failure::internal)?;
        cancel::take_away(&marker);
        output::talk("cancelled: what was not sent never will be");
    }
    let counts = reader.counts().map_err(Failure::internal)?;
    output::talk(&summary(&counts, &link.watch, took));
    if let Some(parts) = look::parts_summary(&reader)? {
        output::talk(&parts);
    }
    if let Some(result) = result {
        block_in_place(|| result.write(&reader, journal.path()))?;
    }
    conclude(ended, &counts, journal.path())
}

/// Stops the run when somebody asks for its end through a file.
async fn cancel_asked(marker: PathBuf, stop: watch::Sender<bool>) {
    while !tokio::fs::try_exists(&marker).await.unwrap_or(false) {
        tokio::time::sleep(LOOK).await;
    }
    output::talk("the run is being cancelled: calls that have left are awaited");
    stop.send_replace(true);
}

/// What pacing learns stands beside the journal, so that a resume does not ask what is closed. A run goes on without.
fn pacing(journal: &Journal, upstream: &Upstream) -> Option<StateKeeper> {
    match StateFile::at(journal.path().with_added_extension("pacing.json")) {
        Ok(file) => Some(StateKeeper::start(file, upstream)),
        Err(error) => {
            output::talk(&format!("tidegate: {error}; a resume will begin carefully"));
            None
        }
    }
}

fn conclude(ended: Result<(), Stopped>, counts: &Counts, journal: &Path) -> Result<(), Failure> {
    let (ending, why) = match ended {
        Ok(()) => (Ending::Finished, None),
        // The last item ended while the run was stopping.
        Err(Stopped::Interrupted) if counts.pending() == 0 => (Ending::Finished, None),
        Err(why @ Stopped::Interrupted) => (Ending::Interrupted, Some(why)),
        Err(why @ Stopped::Upstream(_)) => (Ending::UpstreamRefused, Some(why)),
        Err(why @ (Stopped::Journal(_) | Stopped::Results(_) | Stopped::NoRecipe { .. })) => {
            (Ending::Internal, Some(why))
        }
    };
    if let Some(why) = why {
        output::talk(&format!("tidegate: {why}"));
    }
    if counts.pending() > 0 {
        output::talk(&format!("go on with: tidegate bulk resume --journal {}", journal.display()));
    }
    match exit(ending, counts) {
        Exit::Done => Ok(()),
        code => Err(Failure::told(code)),
    }
}

fn summary(counts: &Counts, watch: &Watch, took: Duration) -> String {
    format!(
        "{}; {} attempts, {} throttles, {:.1} s",
        look::summary_of(counts),
        watch.attempts(),
        watch.throttles(),
        took.as_secs_f64()
    )
}
