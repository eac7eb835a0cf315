//! The journal of one run, open for writing.
//!
//! Every write returns when it is on disk, not before. The `_blocking` forms are for plain threads (planning), the
//! async forms for tasks (executing); both go through the same bounded queue to one writer thread, which commits
//! what waits together. No runtime is needed. Inside a task of a runtime the `_blocking` forms panic.
//!
//! * Dropping a write's future after it was queued does not undo it: the write happens, nobody hears of it.
//! * One process at a time: see [`ErrorKind::Locked`]. Readers are not kept out.
//! * Dropping the journal waits until what is queued is on disk; [`Journal::close`] also tells whether it worked.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use tidegate_core::time::Wall;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::format::{self, Access};
use crate::guard::{self, Guard};
use crate::lock::{self, Held, Lock, beside};
use crate::reader::Reader;
use crate::record::{Accepted, Change, NewItem, Page, Part, Run, RunHeader, Step};
use crate::writer::{Command, Op, Writer};

/// Commands that may wait for the writer. As many senders as a run has in flight can each have one queued; more
/// would only move the waiting from the sender into memory.
const QUEUE: usize = 256;

/// A run's journal, open for writing by this process alone.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    run: Run,
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<Result<(), ErrorKind>>>,
    /// Released last, when the writer has ended.
    _lock: Lock,
}

impl Journal {
    /// Creates a journal at `path`, which must not exist yet.
    ///
    /// The file appears under its name only when it is complete, so a crash in here leaves nothing to be confused by.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`], [`ErrorKind::Locked`], or what the disk said.
    pub fn create(path: &Path, header: &RunHeader) -> Result<Self, Error> {
        let path = &lock::real(path);
        let create = || {
            let lock = Lock::take(path)?;
            if path.try_exists()? {
                return Err(ErrorKind::Exists);
            }
            let draft = beside(path, ".new");
            // A log left by a journal that was deleted after a crash would be read as the new journal's own
            // (https://www.sqlite.org/wal.html, "The WAL File"): the new run would begin with the old one's items.
            for stale in [&draft, &beside(path, "-wal"), &beside(path, "-shm"), &beside(path, guard::SUFFIX)]
            {
                match fs::remove_file(stale) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            format::build(&draft, header)?;
            fs::rename(&draft, path)?;
            sync_folder(path)?;
            Self::start(path, lock.made(path)?)
        };
        create().map_err(|kind| Error::new(path, kind))
    }

    /// Whether a journal can be created at `path`: to be asked before the work that only a new journal justifies.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] if a run is writing to the one that is there, [`ErrorKind::PlanIncomplete`] if it may be
    /// deleted, otherwise [`ErrorKind::Exists`].
    pub fn vacant(path: &Path) -> Result<(), Error> {
        let path = &lock::real(path);
        let look = || {
            if !path.try_exists()? {
                return Ok(());
            }
            let Ok(connection) = format::open(path, Access::Read) else { return Err(ErrorKind::Exists) };
            let planned = format::run(&connection)?.planned.is_some();
            drop(connection);
            drop(Lock::take(path)?);
            Err(if planned { ErrorKind::Exists } else { ErrorKind::PlanIncomplete })
        };
        look().map_err(|kind| Error::new(path, kind))
    }

    /// Whether a process is writing to the journal at `path`, and its id where that can be told.
    ///
    /// # Errors
    /// What the disk said.
    pub fn holder(path: &Path) -> Result<Held, Error> {
        lock::held(&lock::real(path)).map_err(|kind| Error::new(path, kind))
    }

    /// Opens an existing journal to continue its run.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Locked`], [`ErrorKind::NotAJournal`], [`ErrorKind::TooNewToRead`],
    /// [`ErrorKind::TooNewToWrite`], [`ErrorKind::Corrupt`] if it does not know all that was acknowledged, or what the disk said.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = &lock::real(path);
        let open = || {
            // Looked at first, so that a mistyped name leaves no lock file beside somebody else's file.
            drop(format::open(path, Access::Read)?);
            let lock = Lock::take(path)?;
            // Before SQLite may write: it would throw away what it takes for the end of its log.
            guard::check(path)?;
            let journal = Self::start(path, lock)?;
            let reader = format::open(path, Access::Read)?;
            guard::verify(&reader, &[("progress", format::PROGRESS)])?;
            Ok(journal)
        };
        open().map_err(|kind| Error::new(path, kind))
    }

    fn start(path: &Path, lock: Lock) -> Result<Self, ErrorKind> {
        let connection = format::open(path, Access::Write)?;
        let run = format::run(&connection)?;
        let guard = Guard::begin(&connection, path)?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("tidegate-journal".to_owned())
            .spawn(move || Writer::new(connection, Some(guard)).run(queue))?;
        Ok(Self { path: path.to_owned(), run, commands: Some(commands), writer: Some(writer), _lock: lock })
    }

    /// The run as it stood when the journal was opened.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Whether the run was completely planned: before that nothing of it was sent, and nothing may be.
    ///
    /// # Errors
    /// [`ErrorKind::PlanIncomplete`].
    pub fn planned(&self) -> Result<(), Error> {
        match self.run.planned {
            Some(_) => Ok(()),
            None => Err(Error::new(&self.path, ErrorKind::PlanIncomplete)),
        }
    }

    /// Where the journal is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A reader of the same file; it sees every write that has returned.
    pub fn reader(&self) -> Result<Reader, Error> {
        Reader::open(&self.path)
    }

    /// Adds items to a run that is being planned; a thousand or more at a time is fast.
    ///
    /// # Errors
    /// [`ErrorKind::DuplicateItem`] (then none of `items` is added), [`ErrorKind::PlanComplete`], or what the disk said.
    pub fn append_blocking(&self, items: Vec<NewItem>) -> Result<(), Error> {
        self.call_blocking(Op::Append(items))
    }

    /// Declares the run completely planned. Before this nothing may be sent; after it nothing may be added.
    pub fn finish_planning_blocking(&self, at: Wall) -> Result<(), Error> {
        self.call_blocking(Op::FinishPlanning(at))
    }

    /// Records that `seqs` are about to be sent. They may be sent once this has returned, not earlier.
    ///
    /// # Errors
    /// [`ErrorKind::Illegal`] or [`ErrorKind::NoSuchItem`] (then none is intended), [`ErrorKind::PlanIncomplete`],
    /// or what the disk said.
    pub async fn intend(&self, seqs: Vec<u64>, at: Wall) -> Result<(), Error> {
        self.call(Op::Intend { seqs, at }).await
    }

    /// [`Journal::intend`] for a plain thread.
    pub fn intend_blocking(&self, seqs: Vec<u64>, at: Wall) -> Result<(), Error> {
        self.call_blocking(Op::Intend { seqs, at })
    }

    /// Records what became of items.
    ///
    /// # Errors
    /// As [`Journal::intend`].
    pub async fn record(&self, changes: Vec<Change>, at: Wall) -> Result<(), Error> {
        self.call(Op::Record { changes, at }).await
    }

    /// [`Journal::record`] for a plain thread.
    pub fn record_blocking(&self, changes: Vec<Change>, at: Wall) -> Result<(), Error> {
        self.call_blocking(Op::Record { changes, at })
    }

    /// Records that the upstream accepted a sent item as a job. Only then may the job be polled: a crash before this leaves
    /// the item in doubt, a crash after it leaves a job to go on with.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyAccepted`], [`ErrorKind::Illegal`] if it was not sent, or what the disk said.
    pub async fn accept(&self, seq: u64, accepted: Accepted, at: Wall) -> Result<(), Error> {
        self.call(Op::Accept { seq, accepted, at }).await
    }

    /// Records that a poll saw a job in another state, or that this side is at another step with it.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchItem`] if the item is no job, or what the disk said.
    pub async fn polled(&self, seq: u64, state: String, step: Step, at: Wall) -> Result<(), Error> {
        self.call(Op::Polled { seq, state, step, at }).await
    }

    /// Records a page of an item's results together with the place where the next one begins.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchItem`], or what the disk said.
    pub async fn fetched(&self, seq: u64, page: Page) -> Result<(), Error> {
        self.call(Op::Fetched { seq, page }).await
    }

    /// Adds an item that sends `parts` of `parent` again; the journal gives it the next free sequence number. The only way
    /// to add items to a planned run, and each part can go this way once.
    ///
    /// # Errors
    /// [`ErrorKind::Illegal`] if a part is not to be sent again, or what the disk said.
    pub async fn follow(&self, parent: u64, item: NewItem, parts: Vec<Part>) -> Result<(), Error> {
        self.call(Op::Follow { parent, item: Box::new(item), parts }).await
    }

    /// Puts another body and its key into force, before the item is sent with them: the same change on another version of
    /// its entity. The sending before it must have been answered.
    ///
    /// # Errors
    /// [`ErrorKind::Illegal`] if the item has ended, [`ErrorKind::NoSuchItem`], or what the disk said.
    pub async fn amend(&self, seq: u64, body: Option<Vec<u8>>, key: Uuid, at: Wall) -> Result<(), Error> {
        self.call(Op::Amend { seq, body, key, at }).await
    }

    /// Ends the run: unsent items are cancelled, items without an outcome become unknown.
    pub fn cancel_blocking(&self, at: Wall) -> Result<(), Error> {
        self.call_blocking(Op::Cancel(at))
    }

    /// Waits for queued writes, folds the write-ahead log into the file and closes it.
    pub fn close(mut self) -> Result<(), Error> {
        self.stop().map_err(|kind| Error::new(&self.path, kind))
    }

    fn stop(&mut self) -> Result<(), ErrorKind> {
        self.commands = None;
        match self.writer.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_panic)) => Err(ErrorKind::Closed),
        }
    }

    async fn call(&self, op: Op) -> Result<(), Error> {
        let attempt = async {
            let commands = self.commands.as_ref().ok_or(ErrorKind::Closed)?;
            let (reply, answer) = oneshot::channel();
            commands.send(Command { op, reply }).await.map_err(|_| ErrorKind::Closed)?;
            answer.await.map_err(|_| ErrorKind::Closed)?
        };
        attempt.await.map_err(|kind| Error::new(&self.path, kind))
    }

    fn call_blocking(&self, op: Op) -> Result<(), Error> {
        let attempt = || {
            let commands = self.commands.as_ref().ok_or(ErrorKind::Closed)?;
            let (reply, answer) = oneshot::channel();
            commands.blocking_send(Command { op, reply }).map_err(|_| ErrorKind::Closed)?;
            answer.blocking_recv().map_err(|_| ErrorKind::Closed)?
        };
        attempt().map_err(|kind| Error::new(&self.path, kind))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Whoever needs to know whether the last commit worked has awaited it, or calls `close`.
        drop(self.stop());
    }
}

/// Makes the file's name durable, not only its contents.
fn sync_folder(path: &Path) -> Result<(), ErrorKind> {
    // Only Unix can open a folder as a file; elsewhere the rename itself is journaled by the file system.
    if cfg!(unix) {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}
