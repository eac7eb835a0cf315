//! Planned requests into a journal.

use std::io::Read;
use std::sync::mpsc::{self, SendError, SyncSender};
use std::thread;

use tidegate_core::time::Wall;
use tidegate_store::{Journal, NewItem};
use uuid::Uuid;

use super::{Lookups, PlanError, PlannedRequest, Planner, Summary, Survey};

/// Items per commit: the flush is then a small part of its cost.
const BATCH: usize = 4_096;

/// Bytes of bodies per commit, so that large bodies do not pile up in memory.
const BATCH_BYTES: usize = 4 << 20;

/// Why an input did not get into a journal.
pub type LoadError = PlanError<tidegate_store::Error>;

/// Plans `input` into `journal` and declares the plan complete.
///
/// `key_for` gives each request its idempotency key. Until this has returned, the journal refuses to send anything, so
/// a failure or a crash in here leaves a file that can simply be deleted.
///
/// # Errors
/// As [`Planner::plan`], with the journal as the sink.
pub fn load(
    planner: &Planner<'_>,
    input: impl Read,
    survey: &Survey,
    lookups: &Lookups,
    journal: &Journal,
    now: Wall,
    key_for: impl Fn(&PlannedRequest) -> Uuid,
) -> Result<Summary, LoadError> {
    // One batch is rendered while the one before it is being committed: half of this work is waiting for the disk.
    let summary = thread::scope(|scope| {
        let (batches, queue) = mpsc::sync_channel::<Vec<NewItem>>(1);
        let commit =
            scope.spawn(move || queue.into_iter().try_for_each(|batch| journal.append_blocking(batch)));
        let filled = fill(planner, input, survey, lookups, &batches, key_for);
        drop(batches);
        let committed = commit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // If the journal failed, planning ended because nobody took its batches any more.
        committed.map_err(PlanError::Sink)?;
        filled.map_err(|error| match error {
            PlanError::Read { file, source } => PlanError::Read { file, source },
            PlanError::Problems(problems) => PlanError::Problems(problems),
            PlanError::Sink(_) => {
                unreachable!("the journal takes batches until it fails, which was told above")
            }
        })
    })?;
    journal.finish_planning_blocking(now).map_err(PlanError::Sink)?;
    Ok(summary)
}

/// Plans `input` into batches for the journal.
fn fill(
    planner: &Planner<'_>,
    input: impl Read,
    survey: &Survey,
    lookups: &Lookups,
    batches: &SyncSender<Vec<NewItem>>,
    key_for: impl Fn(&PlannedRequest) -> Uuid,
) -> Result<Summary, PlanError<SendError<Vec<NewItem>>>> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut bytes = 0;
    let summary = planner.plan(input, survey, lookups, |request| {
        bytes += request.body.as_ref().map_or(0, Vec::len);
        let key = key_for(&request);
        batch.push(item(request, key));
        if batch.len() < BATCH && bytes < BATCH_BYTES {
            return Ok(());
        }
        bytes = 0;
        batches.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)))
    })?;
    batches.send(batch).map_err(PlanError::Sink)?;
    Ok(summary)
}

fn item(request: PlannedRequest, key: Uuid) -> NewItem {
    NewItem {
        seq: request.seq,
        id: request.id,
        method: request.method.as_str().to_owned(),
        target: request.target,
        body: request.body,
        key,
        transaction: request.transaction,
        lines: request.lines,
    }
}
