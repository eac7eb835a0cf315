//! The outbox: what a gateway was given to send later, and what became of it.
//!
//! What was accepted is on disk before its caller is told so. Then the rule is the journal's: the *intent* is on disk before the
//! first byte leaves, the *outcome* when it is known. What stands as `sending` when an outbox is opened was under way when its
//! process ended, and nobody knows whether it was executed. The order, the tries and the bounds are decided by
//! [`tidegate_core::outbox`]; this is where it is written down.
//!
//! No secret is in it: a credential is there by its name. What people wrote is, so only its owner may read the file.
//!
//! ```
//! use tidegate_store::outbox::OutboxFile;
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("outbox.db");
//! let file = OutboxFile::open(&path)?;
//! assert!(file.heads_blocking()?.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod record;
mod rows;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tidegate_core::idempotency::BodyDigest;
use tidegate_core::outbox::Seq;
use tidegate_core::time::Wall;
use tokio::sync::{mpsc, oneshot};

pub use self::record::{Course, Head, Keyed, Kind, Letter, Settle};
use self::rows::SORT;
pub use self::rows::{APPLICATION_ID, CURRENT};
use self::writer::{Job, Work, Writer};
use crate::guard::{self, Guard};
use crate::ledger::{LedgerProblem, Scope};
use crate::lock::{self, Held, Lock};

/// Questions that may wait for the writer.
const QUEUE: usize = 1024;

/// An operation that failed, and which file it was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxError {
    path: PathBuf,
    problem: LedgerProblem,
}

impl OutboxError {
    fn new(path: &Path, problem: LedgerProblem) -> Self {
        Self { path: path.to_owned(), problem }
    }

    /// Which outbox.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What went wrong.
    pub fn problem(&self) -> &LedgerProblem {
        &self.problem
    }
}

impl fmt::Display for OutboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outbox {}: ", self.path.display())?;
        match &self.problem {
            LedgerProblem::Locked(pid) => {
                let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                write!(f, "is in use by {holder}; stop that gateway, or name another file with outbox.path")
            }
            LedgerProblem::NotALedger(why) => write!(f, "is no outbox ({why}); check the path"),
            LedgerProblem::Corrupt(why) => write!(
                f,
                "is damaged ({why}); move it away to start without it: what it held is then not sent, and what was under way is \
                 forgotten"
            ),
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for OutboxError {}

/// An outbox's file, open for this process alone.
///
/// Dropping it waits until what was asked of it is on disk.
#[derive(Debug)]
pub struct OutboxFile {
    path: PathBuf,
    queue: Option<mpsc::Sender<Box<dyn Work>>>,
    writer: Option<JoinHandle<()>>,
    secret: [u8; 32],
    last: Seq,
    /// Released last, when the writer has ended.
    _lock: Lock,
}

impl fmt::Debug for dyn Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

impl OutboxFile {
    /// Opens the outbox at `path`, or makes it.
    ///
    /// # Errors
    /// Another process has it, it is some other file, or what the disk said.
    pub fn open(path: &Path) -> Result<Self, OutboxError> {
        let path = &lock::real(path);
        let open = || {
            // Looked at first, so that a mistyped name leaves no lock file beside somebody else's file.
            SORT.could_be_at(path)?;
            let lock = Lock::take(path)?;
            // Before SQLite may write: it would throw away what it takes for the end of its log.
            guard::check(path)?;
            let connection = SORT.open(path)?;
            let lock = lock.made(path)?;
            let guard = Guard::begin(&connection, path)?;
            let (secret, last) = (rows::secret(&connection)?, rows::last(&connection)?);
            let writer = Writer { connection, guard, broken: None };
            let (queue, works) = mpsc::channel(QUEUE);
            let thread = std::thread::Builder::new()
                .name("tidegate-outbox".to_owned())
                .spawn(move || writer.run(works))?;
            let (path, queue, writer) = (path.to_owned(), Some(queue), Some(thread));
            Ok(Self { path, queue, writer, secret, last, _lock: lock })
        };
        open().map_err(|problem: LedgerProblem| OutboxError::new(path, problem))
    }

    /// Whether an outbox could be opened or made at `path`. Nothing is made or changed, and one in use is none the worse.
    ///
    /// # Errors
    /// Why not.
    pub fn could_be_at(path: &Path) -> Result<(), OutboxError> {
        SORT.could_be_at(path).map_err(|problem| OutboxError::new(path, problem))
    }

    /// Which process has the outbox at `path` open.
    ///
    /// # Errors
    /// What the system said.
    pub fn held(path: &Path) -> Result<Held, OutboxError> {
        let path = &lock::real(path);
        lock::held(path).map_err(|kind| OutboxError::new(path, kind.into()))
    }

    /// Looks into the outbox at `path`, also while a gateway writes to it: all entries without what was sent and answered. `None` if
    /// there is no file.
    ///
    /// # Errors
    /// What the disk said.
    pub fn look(path: &Path) -> Result<Option<Vec<Head>>, OutboxError> {
        Self::looking(path, rows::heads)
    }

    /// The whole of one entry in the outbox at `path`, likewise.
    ///
    /// # Errors
    /// What the disk said.
    pub fn look_at(path: &Path, id: &str) -> Result<Option<(Letter, Course)>, OutboxError> {
        Ok(Self::looking(path, |connection| rows::load(connection, id))?.flatten())
    }

    fn looking<T>(
        path: &Path,
        look: impl FnOnce(&Connection) -> Result<T, LedgerProblem>,
    ) -> Result<Option<T>, OutboxError> {
        let look = || SORT.open_to_look(path)?.map(|connection| look(&connection)).transpose();
        look().map_err(|problem: LedgerProblem| OutboxError::new(path, problem))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Random bytes that were made with the file: names made with them can be told from guessed ones.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The largest number that an entry had when it was opened. None is used twice.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// All entries without what was sent and answered.
    ///
    /// # Errors
    /// What the disk said.
    pub fn heads_blocking(&self) -> Result<Vec<Head>, OutboxError> {
        let (work, answer) = job(None, rows::heads);
        let queue = self.queue.as_ref().ok_or_else(|| self.closed())?;
        queue.blocking_send(work).map_err(|_| self.closed())?;
        let answered = answer.blocking_recv().map_err(|_| self.closed())?;
        answered.map_err(|problem| OutboxError::new(&self.path, problem))
    }

    /// Takes an entry in, and delivered ones out that make room for it. It is accepted when this has returned.
    ///
    /// # Errors
    /// It is not accepted: what the disk said.
    pub async fn put(&self, letter: Letter, gone: Vec<Seq>) -> Result<(), OutboxError> {
        let put = move |connection: &Connection| {
            rows::remove(connection, &gone)?;
            rows::put(connection, &letter)
        };
        self.ask(Some("outbox.accept"), put).await
    }

    /// Notes that an entry is about to leave, under this key of the upstream's. It may when this has returned.
    ///
    /// # Errors
    /// It must not leave: what the disk said.
    pub async fn intend(&self, seq: Seq, key: String, at: Wall) -> Result<(), OutboxError> {
        self.ask(Some("outbox.intend"), move |connection| rows::intend(connection, seq, &key, at)).await
    }

    /// Notes what became of a sending, of which `attempts` left.
    ///
    /// # Errors
    /// What the disk said. The entry stands as before then.
    pub async fn settle(&self, seq: Seq, settle: Settle, attempts: u32, at: Wall) -> Result<(), OutboxError> {
        let note = move |connection: &Connection| rows::settle(connection, seq, &settle, attempts, at);
        self.ask(Some("outbox.settle"), note).await
    }

    /// Takes entries out.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn remove(&self, seqs: Vec<Seq>) -> Result<(), OutboxError> {
        self.ask(Some("outbox.remove"), move |connection| rows::remove(connection, &seqs)).await
    }

    /// Notes that a dead letter is sent again, because a person said so.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn replay(&self, seq: Seq, at: Wall) -> Result<(), OutboxError> {
        self.ask(Some("outbox.replay"), move |connection| rows::replay(connection, seq, at)).await
    }

    /// The whole of an entry.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn load(&self, seq: Seq) -> Result<Option<(Letter, Course)>, OutboxError> {
        self.ask(None, move |connection| rows::load_seq(connection, seq)).await
    }

    /// The entry of a caller's key: its number, its name, and what it writes.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn find_key(
        &self,
        scope: Scope,
        key: String,
    ) -> Result<Option<(Seq, String, BodyDigest)>, OutboxError> {
        self.ask(None, move |connection| rows::find_key(connection, scope, &key)).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        fault: Option<&'static str>,
        run: impl FnOnce(&Connection) -> Result<T, LedgerProblem> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let (work, answer) = job(fault, run);
        let queue = self.queue.as_ref().ok_or_else(|| self.closed())?;
        queue.send(work).await.map_err(|_| self.closed())?;
        let answered = answer.await.map_err(|_| self.closed())?;
        answered.map_err(|problem| OutboxError::new(&self.path, problem))
    }

    fn closed(&self) -> OutboxError {
        OutboxError::new(&self.path, LedgerProblem::Closed)
    }
}

fn job<T: Send + 'static>(
    fault: Option<&'static str>,
    run: impl FnOnce(&Connection) -> Result<T, LedgerProblem> + Send + 'static,
) -> (Box<dyn Work>, oneshot::Receiver<Result<T, LedgerProblem>>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(Job { fault, run: Some(run), found: None, reply }), answer)
}

impl Drop for OutboxFile {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has told everybody that it is closed.
            drop(writer.join());
        }
    }
}
