//! What can go wrong with a ledger, in words that say what to do.

use std::path::{Path, PathBuf};

use crate::error::ErrorKind;
use crate::format::Version;

/// A ledger operation that failed, and which file it was about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ledger {}: {problem}", path.display())]
pub struct LedgerError {
    path: PathBuf,
    problem: LedgerProblem,
}

impl LedgerError {
    pub(super) fn new(path: &Path, problem: impl Into<LedgerProblem>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }

    /// Which ledger.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What went wrong.
    pub fn problem(&self) -> &LedgerProblem {
        &self.problem
    }
}

/// What went wrong. Errors of the disk are kept as text: one failed commit is told to every caller whose write was in
/// it, so it must be copyable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerProblem {
    /// Another process writes to it.
    #[error("is in use by {}; stop that gateway, or give this one another file with --state", holder(*.0))]
    Locked(Option<u32>),
    /// It is some other file.
    #[error("is no ledger of a gateway ({0}); check the path")]
    NotALedger(String),
    /// It was written by a newer version.
    #[error(
        "has format {found}, this version writes {supported}; use the version of tidegate that wrote it, or newer"
    )]
    TooNew {
        /// The file's format.
        found: Version,
        /// This program's format.
        supported: Version,
    },
    /// The file is damaged.
    #[error(
        "is damaged ({0}); move it away to start without it: writes that were in flight are then forgotten"
    )]
    Corrupt(String),
    /// No space left.
    #[error("the disk is full; free some space")]
    DiskFull,
    /// The file or its folder cannot be written.
    #[error("cannot be written ({0}); check the permissions of the file and its folder")]
    ReadOnly(String),
    /// The writer has stopped.
    #[error(
        "is closed, its writer has ended: the error before this one says why; start the gateway again when that is mended"
    )]
    Closed,
    /// Any other error of the disk or of SQLite.
    #[error("the disk or SQLite failed ({0}); check the disk, then start the gateway again")]
    Io(String),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl LedgerProblem {
    /// Whether what is on disk is now uncertain: after a failed flush the kernel may have dropped pages and report
    /// success on the next one.
    pub(crate) fn is_uncertain(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Corrupt(_))
    }
}

impl From<ErrorKind> for LedgerProblem {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Locked { pid } => Self::Locked(pid),
            ErrorKind::NotAJournal { why } => Self::NotALedger(why),
            ErrorKind::Corrupt(why) => Self::Corrupt(why),
            ErrorKind::DiskFull => Self::DiskFull,
            ErrorKind::ReadOnly(why) => Self::ReadOnly(why),
            ErrorKind::NoFolder => Self::ReadOnly("its folder does not exist".to_owned()),
            ErrorKind::Closed => Self::Closed,
            ErrorKind::Io(why) => Self::Io(why),
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<rusqlite::Error> for LedgerProblem {
    fn from(error: rusqlite::Error) -> Self {
        ErrorKind::from(error).into()
    }
}

impl From<std::io::Error> for LedgerProblem {
    fn from(error: std::io::Error) -> Self {
        ErrorKind::from(error).into()
    }
}
