//! What can go wrong with a journal, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::state::Illegal;

/// A journal operation that failed, and which file it was about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal {}: {kind}", path.display())]
pub struct Error {
    path: PathBuf,
    kind: ErrorKind,
}

impl Error {
    pub(crate) fn new(path: &Path, kind: ErrorKind) -> Self {
        Self { path: path.to_owned(), kind }
    }

    /// The journal's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }
}

/// What went wrong.
///
/// Operating system and SQLite errors are kept as text: one failed commit is told to every caller whose write was
/// in it, so the error must be copyable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such file.
    #[error("does not exist; start a run with `tidegate bulk run`")]
    Missing,
    /// A new run was asked for where a journal already is.
    #[error("already exists; continue it with `tidegate bulk resume`, or choose another --journal")]
    Exists,
    /// Another process writes to it.
    #[error("is in use by {}; wait until it ends, or stop it with Ctrl-C", holder(*pid))]
    Locked {
        /// The holder's process id, where the lock file tells.
        pid: Option<u32>,
    },
    /// It is some other file.
    #[error("is not a Tidegate journal ({why}); check the path")]
    NotAJournal {
        /// What shows it.
        why: String,
    },
    /// It was written by a newer version, in a format this one cannot read at all.
    #[error(
        "has format {found}, this version reads {supported}; use the version of tidegate that wrote it, or newer"
    )]
    TooNewToRead {
        /// The file's format.
        found: crate::format::Version,
        /// This program's format.
        supported: crate::format::Version,
    },
    /// It was written by a newer version; this one may read it but must not write to it.
    #[error(
        "has format {found}, this version writes {supported} and may only report on it; resume with a newer tidegate"
    )]
    TooNewToWrite {
        /// The file's format.
        found: crate::format::Version,
        /// This program's format.
        supported: crate::format::Version,
    },
    /// The file is damaged.
    #[error(
        "is damaged ({0}); nothing was sent on its word: compare the upstream with the input before running again. \
         An older copy does not know what was done since"
    )]
    Corrupt(String),
    /// No space left.
    #[error("the disk is full; nothing unjournaled was sent: free some space and resume")]
    DiskFull,
    /// There is no folder for it.
    #[error("cannot be written (its folder does not exist); make the folder, or name another one")]
    NoFolder,
    /// The file or its folder cannot be written.
    #[error("cannot be written ({0}); check the permissions of the file and its folder")]
    ReadOnly(String),
    /// Planning was interrupted, so the items are incomplete and none may be sent.
    #[error("was left while it was being planned and nothing was sent; delete it and run again")]
    PlanIncomplete,
    /// Items were appended to a run whose planning had ended.
    #[error("is already planned; items cannot be added to it")]
    PlanComplete,
    /// An item was planned twice.
    #[error("item {seq} is planned twice")]
    DuplicateItem {
        /// The item's sequence number.
        seq: u64,
    },
    /// No such item.
    #[error("there is no item {seq}")]
    NoSuchItem {
        /// The sequence number asked for.
        seq: u64,
    },
    /// An item that the upstream has accepted as one job was told to be another one.
    #[error("item {seq} is already job `{job}`")]
    AlreadyAccepted {
        /// The item's sequence number.
        seq: u64,
        /// The job it is.
        job: String,
    },
    /// The event cannot follow the item's state.
    #[error("item {seq}: {illegal}")]
    Illegal {
        /// The item's sequence number.
        seq: u64,
        /// The refused transition.
        illegal: Illegal,
    },
    /// The writer has stopped.
    #[error(
        "is closed, its writer has ended: the error before this one says why; resume when that is mended"
    )]
    Closed,
    /// Any other error of the disk or of SQLite.
    #[error(
        "the disk or SQLite failed ({0}); check the disk, then resume: what was not written down was not sent"
    )]
    Io(String),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl ErrorKind {
    /// Whether the request itself was wrong, so that the writes around it are not affected.
    pub(crate) fn is_rule(&self) -> bool {
        matches!(
            self,
            Self::PlanIncomplete
                | Self::PlanComplete
                | Self::DuplicateItem { .. }
                | Self::NoSuchItem { .. }
                | Self::AlreadyAccepted { .. }
                | Self::Illegal { .. }
        )
    }

    /// Whether what is on disk is now uncertain.
    ///
    /// After a failed fsync the kernel may have dropped the dirty pages and report success on the next one, so a
    /// writer that goes on would acknowledge what was never stored.
    pub(crate) fn is_uncertain(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Corrupt(_))
    }
}

impl From<rusqlite::Error> for ErrorKind {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let text = error.to_string();
        match error {
            rusqlite::Error::SqliteFailure(inner, _) => match inner.code {
                Code::DiskFull => Self::DiskFull,
                Code::ReadOnly | Code::PermissionDenied | Code::CannotOpen => Self::ReadOnly(text),
                Code::DatabaseCorrupt => Self::Corrupt(text),
                Code::NotADatabase => Self::NotAJournal { why: "not an SQLite file".to_owned() },
                _ => Self::Io(text),
            },
            // A stored value of the wrong type or out of range.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..) => Self::Corrupt(text),
            _ => Self::Io(text),
        }
    }
}

impl From<io::Error> for ErrorKind {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::StorageFull => Self::DiskFull,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly(error.to_string())
            }
            _ => Self::Io(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    fn kind(code: std::ffi::c_int) -> ErrorKind {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into()
    }

    #[test]
    fn sqlite_codes_become_words_that_help() {
        assert_eq!(kind(ffi::SQLITE_FULL), ErrorKind::DiskFull);
        assert!(matches!(kind(ffi::SQLITE_READONLY), ErrorKind::ReadOnly(_)));
        assert!(matches!(kind(ffi::SQLITE_CANTOPEN), ErrorKind::ReadOnly(_)));
        assert!(matches!(kind(ffi::SQLITE_CORRUPT), ErrorKind::Corrupt(_)));
        assert!(matches!(kind(ffi::SQLITE_NOTADB), ErrorKind::NotAJournal { .. }));
        assert!(matches!(kind(ffi::SQLITE_IOERR_FSYNC), ErrorKind::Io(_)));
        assert!(kind(ffi::SQLITE_IOERR_FSYNC).is_uncertain());
        assert!(!ErrorKind::DiskFull.is_uncertain(), "a full disk is certain: the commit was rolled back");
    }

    #[test]
    fn messages_name_the_file_the_fault_and_the_remedy() {
        let error = Error::new(Path::new("night.journal"), ErrorKind::Locked { pid: Some(4711) });
        assert_eq!(
            error.to_string(),
            "journal night.journal: is in use by process 4711; wait until it ends, or stop it with Ctrl-C"
        );
        let full = Error::new(Path::new("night.journal"), ErrorKind::DiskFull);
        assert!(full.to_string().contains("the disk is full"), "{full}");
    }
}
