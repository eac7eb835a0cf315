//! The one thread that reads and writes an outbox. What waits is carried out in one transaction and told after the commit, as in
//! the ledger: under load many entries share one flush of the disk.

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::fault;
use crate::guard::Guard;
use crate::ledger::LedgerProblem;

/// Pieces of work in one commit.
const GROUP: usize = 1024;

/// A piece of work: runs inside of a transaction, and is told how that ended.
pub(super) trait Work: Send {
    /// Its name among the [fault points](crate::fault); `None` for a question.
    fn fault(&self) -> Option<&'static str>;
    fn run(&mut self, connection: &Connection) -> Result<(), LedgerProblem>;
    fn end(self: Box<Self>, ended: Result<(), LedgerProblem>);
}

/// A closure as such a piece.
pub(super) struct Job<T, F> {
    pub(super) fault: Option<&'static str>,
    pub(super) run: Option<F>,
    pub(super) found: Option<T>,
    pub(super) reply: oneshot::Sender<Result<T, LedgerProblem>>,
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T, LedgerProblem> + Send> Work for Job<T, F> {
    fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    fn run(&mut self, connection: &Connection) -> Result<(), LedgerProblem> {
        if let Some(run) = self.run.take() {
            self.found = Some(run(connection)?);
        }
        Ok(())
    }

    fn end(self: Box<Self>, ended: Result<(), LedgerProblem>) {
        let Self { found, reply, .. } = *self;
        let told = ended.and_then(|()| found.ok_or(LedgerProblem::Closed));
        // Who asked may have stopped waiting; what was asked for is done all the same.
        drop(reply.send(told));
    }
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) guard: Guard,
    pub(super) broken: Option<LedgerProblem>,
}

impl Writer {
    /// Serves until every sender is gone, then folds the write-ahead log into the file.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Box<dyn Work>>) {
        while let Some(first) = queue.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(next) = queue.try_recv()
            {
                group.push(next);
            }
            self.serve(group);
        }
        if self.broken.is_none() {
            drop(self.guard.end(&self.connection));
        }
        drop(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    }

    fn serve(&mut self, mut group: Vec<Box<dyn Work>>) {
        let faults: Vec<_> = group.iter().filter_map(|work| work.fault()).collect();
        pass(&faults, "before");
        let ended = self.commit(&mut group);
        pass(&faults, "after");
        if let Err(problem) = &ended
            && problem.is_uncertain()
        {
            self.broken.get_or_insert_with(|| problem.clone());
        }
        for work in group {
            work.end(ended.clone());
        }
    }

    fn commit(&mut self, group: &mut [Box<dyn Work>]) -> Result<(), LedgerProblem> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let writes = group.iter().any(|work| work.fault().is_some());
        self.connection.execute_batch("BEGIN")?;
        let done = group.iter_mut().try_for_each(|work| {
            if let Some(name) = work.fault() {
                fault::failing(name)?;
            }
            work.run(&self.connection)
        });
        let done = done.and_then(|()| {
            if writes {
                Guard::count(&self.connection)?;
            }
            Ok(self.connection.execute_batch("COMMIT")?)
        });
        if done.is_ok() && writes {
            self.guard.committed();
        }
        if done.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        done
    }
}

/// Passes the fault points of a group.
fn pass(faults: &[&str], side: &str) {
    if cfg!(any(debug_assertions, feature = "fault-points")) {
        for name in faults {
            fault::point(&format!("{name}.{side}"));
        }
    }
}
