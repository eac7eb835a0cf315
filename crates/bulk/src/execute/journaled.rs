//! The journal as the executor's tasks see it: write, and go on when it is on disk.
//!
//! Many tasks write at once, and every write must be durable before its task goes on. One task collects what is
//! waiting and hands it over as one batch; while that batch is being committed the next one gathers. So the number
//! of commits depends on the disk, not on the number of items.

use std::sync::Arc;

use tidegate_core::time::Wall;
use tidegate_store::{Change, Error, Journal};
use tokio::sync::{mpsc, oneshot};

/// Writes gathered into one commit at most; also the bound of the queue in front of it. More than the calls in
/// flight can never wait.
const MAX_BATCH: usize = 1024;

/// A journal error, shared by all tasks whose writes were in the failed batch.
pub(super) type JournalError = Arc<Error>;

enum Write {
    Intent(u64),
    Change(Change),
}

struct Waiting {
    write: Write,
    done: oneshot::Sender<Result<(), JournalError>>,
}

/// A handle to the gathering task. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Journaled {
    queue: mpsc::Sender<Waiting>,
}

impl Journaled {
    /// Starts gathering for `journal`; ends when the last handle is dropped.
    pub(super) fn start(journal: Arc<Journal>, wall: impl Fn() -> Wall + Send + 'static) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_BATCH);
        tokio::spawn(gather(journal, waiting, wall));
        Self { queue }
    }

    /// Returns when the intent to send `seq` is on disk.
    pub(super) async fn intend(&self, seq: u64) -> Result<(), JournalError> {
        self.write(Write::Intent(seq)).await
    }

    /// Returns when `change` is on disk.
    pub(super) async fn record(&self, change: Change) -> Result<(), JournalError> {
        self.write(Write::Change(change)).await
    }

    async fn write(&self, write: Write) -> Result<(), JournalError> {
        let (done, committed) = oneshot::channel();
        let sent = self.queue.send(Waiting { write, done }).await;
        assert!(sent.is_ok(), "the gathering task outlives its handles");
        committed.await.expect("the gathering task answers every write")
    }
}

async fn gather(journal: Arc<Journal>, mut waiting: mpsc::Receiver<Waiting>, wall: impl Fn() -> Wall) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while waiting.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let mut intents = Vec::new();
        let mut changes = Vec::new();
        let mut told = Vec::with_capacity(batch.len());
        for Waiting { write, done } in batch.drain(..) {
            told.push(done);
            match write {
                Write::Intent(seq) => intents.push(seq),
                Write::Change(change) => changes.push(change),
            }
        }
        let now = wall();
        let journal = Arc::clone(&journal);
        let committed = tokio::task::spawn_blocking(move || commit(&journal, intents, changes, now)).await;
        let result = committed.expect("committing does not panic").map_err(Arc::new);
        for done in told {
            // A task that was dropped no longer wants to know.
            drop(done.send(result.clone()));
        }
    }
}

/// Outcomes first: they belong to earlier sends than the intents of the same batch.
fn commit(journal: &Journal, intents: Vec<u64>, changes: Vec<Change>, now: Wall) -> Result<(), Error> {
    if !changes.is_empty() {
        journal.record_blocking(changes, now)?;
    }
    if !intents.is_empty() {
        journal.intend_blocking(intents, now)?;
    }
    Ok(())
}
