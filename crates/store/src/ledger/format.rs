//! The ledger's file: schema, version, and how it is opened.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::LedgerProblem;
use crate::format::Version;

/// Marks a file as a ledger: "TgLg" in ASCII.
pub const APPLICATION_ID: i32 = 0x5467_4c67;

/// The format this program writes.
pub const CURRENT: Version = Version { major: 1, minor: 0 };

const SCHEMA: &str = "
CREATE TABLE entry (
    id            INTEGER PRIMARY KEY,
    scope         BLOB NOT NULL,
    key           TEXT NOT NULL,
    payload       BLOB NOT NULL,
    sent_key      TEXT NOT NULL,
    state         TEXT NOT NULL,
    method        TEXT NOT NULL,
    path          TEXT NOT NULL,
    first_sent_ms INTEGER NOT NULL,
    ended_ms      INTEGER,
    status        INTEGER,
    headers       BLOB,
    body          BLOB,
    UNIQUE (scope, key)
) STRICT;
CREATE INDEX entry_first_sent ON entry (first_sent_ms);
CREATE TABLE login (
    digest   BLOB PRIMARY KEY,
    identity TEXT NOT NULL,
    seen_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Opens the ledger at `path`, which is made if it is not there. Only its owner may read it: it holds answers.
pub(super) fn open(path: &Path) -> Result<Connection, LedgerProblem> {
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
    let connection = prepare(Connection::open_with_flags(path, flags)?)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(LedgerProblem::Io(format!("SQLite refused write-ahead logging (mode is {mode})")));
    }
    // Every commit reaches the disk before it is acknowledged: a write leaves only when its entry is there.
    crate::format::durable(&connection)?;
    Ok(connection)
}

/// Whether [`open`] could succeed, without making or changing anything.
pub(super) fn could_be_at(path: &Path) -> Result<(), LedgerProblem> {
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
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    is_ours(word(68).cast_signed(), word(60))
}

/// A ledger that ends with the process.
pub(super) fn in_memory() -> Result<Connection, LedgerProblem> {
    prepare(Connection::open_in_memory()?)
}

fn prepare(mut connection: Connection) -> Result<Connection, LedgerProblem> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if (tables, application) == (0, 0) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", CURRENT.to_user_version())?;
        transaction.commit()?;
        return Ok(connection);
    }
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    is_ours(application, version)?;
    Ok(connection)
}

/// Whether it is a ledger of a format that this program may write.
fn is_ours(application: i32, version: u32) -> Result<(), LedgerProblem> {
    if application != APPLICATION_ID {
        return Err(LedgerProblem::NotALedger("an SQLite file of another program".to_owned()));
    }
    let found = Version::from_user_version(version);
    if found.major != CURRENT.major || found.minor > CURRENT.minor {
        return Err(LedgerProblem::TooNew { found, supported: CURRENT });
    }
    Ok(())
}
