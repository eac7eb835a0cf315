//! One writer per journal: an operating system lock on a file beside it.
//!
//! The lock lives in `<journal>.lock`, beside the file itself whatever link it was named by, so that readers (`status`,
//! `report`) can look while a run writes, and see who does. The operating system releases the lock when its holder dies,
//! however it dies; the process id inside is only there to be named in the error. The file is left in place: removing it
//! would let two processes lock two different files of the same name.
//!
//! Somebody may remove it all the same, or have a second hard link to the journal. So the journal itself is locked, too,
//! where that is of another kind than SQLite's own locks (`flock` beside POSIX locks). Closing any descriptor of an SQLite
//! file drops every POSIX lock of the process on it: this one is opened when the first lock is held, before SQLite, and
//! closed behind it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ErrorKind;

/// How often a lock that is taken is tried again, and after which time: [`held`] takes it for a moment.
const LOOKS: u32 = 5;
const A_LOOK: Duration = Duration::from_millis(10);

/// Held for as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    /// The journal itself, once there is one.
    journal: Option<File>,
}

/// The file that `journal` names, behind all links; as it is where there is none yet.
pub(crate) fn real(journal: &Path) -> PathBuf {
    let link = journal.is_symlink();
    link.then(|| std::fs::canonicalize(journal).ok()).flatten().unwrap_or_else(|| journal.to_owned())
}

/// `<journal>` with `suffix` appended to its name.
pub(crate) fn beside(journal: &Path, suffix: &str) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Lock {
    /// Locks `journal` for this process, or says who holds it.
    pub(crate) fn take(journal: &Path) -> Result<Self, ErrorKind> {
        let path = beside(journal, ".lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(
                |error| match error.kind() {
                    std::io::ErrorKind::NotFound => ErrorKind::NoFolder,
                    _ => error.into(),
                },
            )?;
        if !locked(&file)? {
            return Err(ErrorKind::Locked { pid: holder(&mut file) });
        }
        let journal = itself(journal)?;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file, journal })
    }

    /// Locks the journal itself, which was made since.
    pub(crate) fn made(self, journal: &Path) -> Result<Self, ErrorKind> {
        match self.journal {
            Some(_) => Ok(self),
            None => Ok(Self { journal: itself(journal)?, ..self }),
        }
    }
}

/// Locks a file; false if another holds it.
fn locked(file: &File) -> Result<bool, ErrorKind> {
    let mut tries = 0;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            // Somebody who only looks holds it for a moment.
            Err(TryLockError::WouldBlock) if tries < LOOKS => {
                tries += 1;
                #[expect(clippy::disallowed_methods, reason = "no runtime here, and it is a moment")]
                std::thread::sleep(A_LOOK);
            }
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

/// Locks the journal itself, if there is one.
fn itself(journal: &Path) -> Result<Option<File>, ErrorKind> {
    // Elsewhere such a lock would keep SQLite from reading.
    if !cfg!(unix) {
        return Ok(None);
    }
    let Ok(file) = File::open(journal) else { return Ok(None) };
    match locked(&file) {
        Ok(true) => Ok(Some(file)),
        Ok(false) => Err(ErrorKind::Locked { pid: None }),
        // A file system that has no such locks; on NFS they are POSIX ones, and a file open for reading cannot have this one.
        Err(_) => Ok(None),
    }
}

/// Whether a process is writing to a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// None is.
    No,
    /// One is; its id, where that can be told.
    By(Option<u32>),
}

impl Held {
    /// Whether a process is at it.
    pub const fn is_held(self) -> bool {
        matches!(self, Self::By(_))
    }

    /// The process's id, if there is one and it can be told.
    pub const fn pid(self) -> Option<u32> {
        match self {
            Self::No => None,
            Self::By(pid) => pid,
        }
    }
}

/// Whether a process holds `journal`, and its id where that can be told.
///
/// Nothing is created. The lock is taken for a moment, shared with others who look.
pub(crate) fn held(journal: &Path) -> Result<Held, ErrorKind> {
    let mut file = match File::open(beside(journal, ".lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Held::No),
        Err(error) => return Err(error.into()),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Held::No),
        Err(TryLockError::WouldBlock) => Ok(Held::By(holder(&mut file))),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Keeps writers out for as long as it lives, while somebody looks.
#[derive(Debug)]
pub(crate) struct Quiet(#[expect(dead_code, reason = "held for its lock")] Option<File>);

/// Keeps writers of `journal` out; `None` if one is at it. Nothing is created.
pub(crate) fn quiet(journal: &Path) -> Result<Option<Quiet>, ErrorKind> {
    let file = match File::open(beside(journal, ".lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(Quiet(None))),
        Err(error) => return Err(error.into()),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(Quiet(Some(file)))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// The process id in the lock file; `None` where a locked file cannot be read (Windows) or was just being written.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_the_first_ones_pid() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("run.journal");
        let first = Lock::take(&journal).unwrap();
        let refused = Lock::take(&journal).unwrap_err();
        assert_eq!(refused, ErrorKind::Locked { pid: Some(std::process::id()) });
        drop(first);
        Lock::take(&journal).unwrap();
    }

    #[test]
    fn whether_it_is_held_can_be_seen_without_taking_it() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("run.journal");
        assert_eq!(held(&journal), Ok(Held::No));
        assert!(!beside(&journal, ".lock").exists());
        let lock = Lock::take(&journal).unwrap();
        assert_eq!(held(&journal), Ok(Held::By(Some(std::process::id()))));
        drop(lock);
        assert_eq!(held(&journal), Ok(Held::No));
    }

    #[test]
    fn a_lock_file_left_by_a_dead_process_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("run.journal");
        std::fs::write(beside(&journal, ".lock"), "999999999\n").unwrap();
        Lock::take(&journal).unwrap();
        let left = std::fs::read_to_string(beside(&journal, ".lock")).unwrap();
        assert_eq!(left.trim(), std::process::id().to_string());
    }

    #[cfg(unix)]
    #[test]
    fn a_journal_has_one_writer_by_whatever_name_also_without_the_lock_file() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("run.journal");
        let link = folder.path().join("link.journal");
        let lock = Lock::take(&journal).unwrap();
        std::fs::write(&journal, "a journal").unwrap();
        let lock = lock.made(&journal).unwrap();
        std::os::unix::fs::symlink(&journal, &link).unwrap();
        assert_eq!(real(&link), std::fs::canonicalize(&journal).unwrap());
        std::fs::remove_file(beside(&journal, ".lock")).unwrap();
        let hard = folder.path().join("hard.journal");
        std::fs::hard_link(&journal, &hard).unwrap();
        for name in [&journal, &hard] {
            assert_eq!(Lock::take(name).unwrap_err(), ErrorKind::Locked { pid: None });
        }
        drop(lock);
        Lock::take(&journal).unwrap();
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Lock::take(&folder.path().join("none/run.journal")).unwrap_err();
        assert_eq!(refused, ErrorKind::NoFolder);
    }
}
