//! The ledger of keyed writes: what a gateway's callers wrote under an `Idempotency-Key`, and what came of it.
//!
//! A caller that sends a write again under its key wants the outcome, not a second execution, also when the gateway was
//! killed in between. So the rule is the journal's: the *intent* is on disk before the first byte leaves, the *outcome*
//! when it is known. What stands as [`Standing::Sent`] when a ledger is opened was in flight when its process ended, and
//! nobody knows whether it was executed. What never left has no entry at all.
//!
//! Entries are kept for [`KEEP`], 100 000 of them at most, with 512 MiB of answers; the oldest go first, what is answered
//! before what is unknown.
//!
//! ```
//! use tidegate_core::idempotency::BodyDigest;
//! use tidegate_core::time::{Mono, Wall};
//! use tidegate_store::ledger::{Ledger, NewEntry, Now, Standing};
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let now = Now { wall: Wall::from_unix_millis(1_700_000_000_000), mono: Mono::ZERO };
//! let ledger = Ledger::in_memory(now)?;
//! let new = NewEntry {
//!     scope: [1; 32],
//!     key: "order-17".into(),
//!     payload: BodyDigest::json(b"{}"),
//!     sent_key: String::new(),
//!     method: "POST".into(),
//!     path: "/api/v2/users".into(),
//!     login: None,
//! };
//! let id = ledger.intend(new, now).await?; // on disk: now it may be sent
//! ledger.finish(id, Standing::Unknown, now.wall).await?;
//! let entry = ledger.find([1; 32], "order-17", now.mono).await?.expect("it was intended");
//! assert_eq!(entry.standing, Standing::Unknown);
//! # Ok::<(), tidegate_store::ledger::LedgerError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bounds;
mod error;
mod format;
mod look;
mod record;
mod writer;

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use tidegate_core::time::{Mono, Wall};
use tokio::sync::{mpsc, oneshot};

use self::bounds::Bounds;
pub use self::bounds::KEEP;
pub use self::error::{LedgerError, LedgerProblem};
pub use self::format::{APPLICATION_ID, CURRENT};
pub use self::look::Look;
pub use self::record::{BearerDigest, Entry, EntryId, Kept, NewEntry, Now, Scope, Standing, Tally};
use self::writer::{Command, Op, Reply, Writer};
use crate::guard::{self, Guard};
use crate::lock::{self, Lock};

/// Questions that may wait for the writer. More would only move the waiting from who asks into memory.
const QUEUE: usize = 1024;

/// A ledger, open for this process alone.
///
/// Dropping it waits until what was asked of it is on disk.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
    /// Released last, when the writer has ended.
    _lock: Option<Lock>,
}

impl Ledger {
    /// Opens the ledger at `path`, or makes it. What is too old at `now` is dropped.
    ///
    /// # Errors
    /// [`LedgerProblem::Locked`] with the holder's process id, [`LedgerProblem::NotALedger`],
    /// [`LedgerProblem::TooNew`], or what the disk said.
    pub fn open(path: &Path, now: Now) -> Result<Self, LedgerError> {
        let path = &lock::real(path);
        let open = || {
            // Looked at first, so that a mistyped name leaves no lock file beside somebody else's file.
            format::could_be_at(path)?;
            let lock = Lock::take(path)?;
            // Before SQLite may write: it would throw away what it takes for the end of its log.
            guard::check(path)?;
            let connection = format::open(path)?;
            let lock = lock.made(path)?;
            let guard = Guard::begin(&connection, path)?;
            let writer = Writer::new(connection, Bounds::default(), now)?.guarded(guard);
            Self::start(path, writer, Some(lock))
        };
        open().map_err(|problem: LedgerProblem| LedgerError::new(path, problem))
    }

    /// Whether a ledger could be opened or made at `path`. Nothing is made or changed, and one in use is none the worse.
    ///
    /// # Errors
    /// Why not.
    pub fn could_be_at(path: &Path) -> Result<(), LedgerError> {
        format::could_be_at(path).map_err(|problem| LedgerError::new(path, problem))
    }

    /// A ledger that ends with the process.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn in_memory(now: Now) -> Result<Self, LedgerError> {
        let path = Path::new("(in memory)");
        let open = || Self::start(path, Writer::new(format::in_memory()?, Bounds::default(), now)?, None);
        open().map_err(|problem: LedgerProblem| LedgerError::new(path, problem))
    }

    fn start(path: &Path, writer: Writer, lock: Option<Lock>) -> Result<Self, LedgerProblem> {
        let (commands, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("tidegate-ledger".to_owned())
            .spawn(move || writer.run(queue))?;
        Ok(Self { path: path.to_owned(), commands: Some(commands), writer: Some(thread), _lock: lock })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of `key` within `scope` at `now`.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn find(&self, scope: Scope, key: &str, now: Mono) -> Result<Option<Entry>, LedgerError> {
        match self.ask(Op::Find { scope, key: key.to_owned(), now }).await? {
            Reply::Entry(entry) => Ok(entry.map(|entry| *entry)),
            _ => Err(self.closed()),
        }
    }

    /// Who the program is that calls with this bearer, if it wrote under a key as a login of an earlier process.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn identity(&self, bearer: BearerDigest) -> Result<Option<String>, LedgerError> {
        match self.ask(Op::Identity(bearer)).await? {
            Reply::Identity(identity) => Ok(identity),
            _ => Err(self.closed()),
        }
    }

    /// Notes that a write is about to leave. It may when this has returned. An entry that is there is sent again and
    /// keeps the time of its first sending.
    ///
    /// # Errors
    /// It must not leave: what the disk said.
    pub async fn intend(&self, new: NewEntry, now: Now) -> Result<EntryId, LedgerError> {
        match self.ask(Op::Intend { new, now }).await? {
            Reply::Id(id) => Ok(id),
            _ => Err(self.closed()),
        }
    }

    /// Notes what became of it.
    ///
    /// # Errors
    /// What the disk said. What became of it is then known from memory, and written with the next commit that succeeds; if
    /// the process ends before, the entry stands as before, and its outcome as unknown.
    pub async fn finish(&self, id: EntryId, standing: Standing, at: Wall) -> Result<(), LedgerError> {
        self.ask(Op::Finish { id, standing, at }).await.map(drop)
    }

    /// Takes an entry out: its write is proven not to have been executed, and its key may be used as if it never was.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn withdraw(&self, id: EntryId) -> Result<(), LedgerError> {
        self.ask(Op::Withdraw(id)).await.map(drop)
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn tally(&self) -> Result<Tally, LedgerError> {
        match self.ask(Op::Tally).await? {
            Reply::Tally(tally) => Ok(tally),
            _ => Err(self.closed()),
        }
    }

    async fn ask(&self, op: Op) -> Result<Reply, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or_else(|| self.closed())?;
        commands.send(Command { op, reply }).await.map_err(|_| self.closed())?;
        let answered = answer.await.map_err(|_| self.closed())?;
        answered.map_err(|problem| LedgerError::new(&self.path, problem))
    }

    fn closed(&self) -> LedgerError {
        LedgerError::new(&self.path, LedgerProblem::Closed)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has told everybody that it is closed.
            drop(writer.join());
        }
    }
}
