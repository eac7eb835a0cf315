//! A file of ours in SQLite: made, opened, and told from files of others.
//!
//! Its header carries two numbers for programs: `application_id` says what it is, `user_version` which format it has.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::format::{BUSY, Version};
use crate::ledger::LedgerProblem;
use crate::{guard, lock};

/// What kind of file it is.
#[derive(Debug)]
pub(crate) struct Sort {
    /// Marks a file as one of them.
    pub(crate) application: i32,
    /// The format that this program writes.
    pub(crate) current: Version,
    /// Its tables.
    pub(crate) schema: &'static str,
}

impl Sort {
    /// Opens the file at `path`, which is made if it is not there. Only its owner may read it: it holds what people wrote.
    pub(crate) fn open(&self, path: &Path) -> Result<Connection, LedgerProblem> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => LedgerProblem::ReadOnly("its folder does not exist".to_owned()),
            std::io::ErrorKind::IsADirectory => LedgerProblem::NotALedger("a folder".to_owned()),
            _ => error.into(),
        })?;
        drop(file);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // The schema goes in before the log is switched on, so that the file's own header says what it is from then on.
        let connection = self.prepare(Connection::open_with_flags(path, flags)?)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(LedgerProblem::Io(format!("SQLite refused write-ahead logging (mode is {mode})")));
        }
        // Every commit reaches the disk before it is acknowledged: a write leaves only when its entry is there.
        crate::format::durable(&connection)?;
        Ok(connection)
    }

    /// Whether [`open`](Self::open) could succeed, without making or changing anything.
    pub(crate) fn could_be_at(&self, path: &Path) -> Result<(), LedgerProblem> {
        let there = match std::fs::metadata(path) {
            Ok(there) => there,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = std::fs::metadata(folder.unwrap_or(Path::new(".")));
                return match folder {
                    Ok(folder) if folder.is_dir() && !folder.permissions().readonly() => Ok(()),
                    Ok(_) => Err(LedgerProblem::ReadOnly("its folder is none, or read-only".to_owned())),
                    Err(_) => Err(LedgerProblem::ReadOnly("its folder does not exist".to_owned())),
                };
            }
            Err(error) => return Err(error.into()),
        };
        if there.is_dir() {
            return Err(LedgerProblem::NotALedger("a folder".to_owned()));
        }
        if there.permissions().readonly() {
            return Err(LedgerProblem::ReadOnly("the file is read-only".to_owned()));
        }
        if there.len() == 0 {
            return Ok(());
        }
        let mut header = [0; 72];
        let read = File::open(path)?.read_exact(&mut header);
        if read.is_err() || !header.starts_with(b"SQLite format 3\0") {
            return Err(LedgerProblem::NotALedger("not an SQLite file".to_owned()));
        }
        // <https://sqlite.org/fileformat.html>, "The Database Header": the version of the user at 60, the application at 68.
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        self.is_ours(word(68).cast_signed(), word(60))
    }

    /// Opens the file at `path` to look at it from outside, also while somebody writes to it: nothing is changed, and no lock is taken. `None`
    /// if there is none.
    pub(crate) fn open_to_look(&self, path: &Path) -> Result<Option<Connection>, LedgerProblem> {
        let path = &lock::real(path);
        self.could_be_at(path)?;
        if std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
            return Ok(None);
        }
        if let Some(_quiet) = lock::quiet(path)? {
            guard::check(path)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        Ok(Some(connection))
    }

    /// One that ends with the process.
    pub(crate) fn in_memory(&self) -> Result<Connection, LedgerProblem> {
        self.prepare(Connection::open_in_memory()?)
    }

    fn prepare(&self, mut connection: Connection) -> Result<Connection, LedgerProblem> {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        if (tables, application) == (0, 0) {
            let transaction = connection.transaction()?;
            transaction.execute_batch(self.schema)?;
            transaction.pragma_update(None, "application_id", self.application)?;
            transaction.pragma_update(None, "user_version", self.current.to_user_version())?;
            transaction.commit()?;
            return Ok(connection);
        }
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        self.is_ours(application, version)?;
        Ok(connection)
    }

    /// Whether it is one, of a format that this program may write.
    fn is_ours(&self, application: i32, version: u32) -> Result<(), LedgerProblem> {
        if application != self.application {
            return Err(LedgerProblem::NotALedger("an SQLite file of another program".to_owned()));
        }
        let found = Version::from_user_version(version);
        if found.major != self.current.major || found.minor > self.current.minor {
            return Err(LedgerProblem::TooNew { found, supported: self.current });
        }
        Ok(())
    }
}
