//! The file: schema, version, and who may read and who may write it.
//!
//! SQLite's header carries two numbers for programs: `application_id` says that the file is ours, `user_version` says
//! which format it has. Reading and writing are allowed separately, so that an older binary can still report on a
//! journal that it must not continue:
//!
//! * another major version: neither, the tables mean something else;
//! * a newer minor version: read only, there are facts in it this program would not keep up;
//! * the same or an older minor version: both.
//!
//! An older minor version is brought up to date when it is opened for writing, in one commit that only adds tables. Format
//! 1.0 has items and where they stand; 1.1 adds jobs, their parts, amendments, a count of commits, and checksums of rows.
//!
//! Items are written once and never changed; where they stand is kept in a second, narrow table. A journal page then
//! holds some sixty standings instead of a dozen requests, and recording an outcome does not rewrite the body.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tidegate_core::time::Wall;

use crate::error::ErrorKind;
use crate::guard;
use crate::record::{Digest, Run, RunHeader};

/// Marks a file as a Tidegate journal: "TgJl" in ASCII.
pub const APPLICATION_ID: i32 = 0x5467_4a6c;

/// The format this program writes.
pub const CURRENT: Version = Version { major: 1, minor: 1 };

/// SQLite's page, for a log whose header does not tell.
pub(crate) const PAGE: usize = 4096;

/// How long SQLite waits for a reader that is just finishing; longer than any page of a report takes.
pub(crate) const BUSY: Duration = Duration::from_secs(10);

/// A journal format, stored in `user_version` as `1000 * major + minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Changed when old programs could not make sense of the file.
    pub major: u16,
    /// Changed when old programs can read but would lose facts by writing.
    pub minor: u16,
}

impl Version {
    pub(crate) const fn from_user_version(number: u32) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a number that large is refused as another major"
        )]
        Self { major: (number / 1000) as u16, minor: (number % 1000) as u16 }
    }

    pub(crate) const fn to_user_version(self) -> u32 {
        self.major as u32 * 1000 + self.minor as u32
    }

    /// Whether this program may read a file of that version.
    ///
    /// # Errors
    /// [`ErrorKind::TooNewToRead`].
    pub fn check_readable(self) -> Result<(), ErrorKind> {
        if self.major == CURRENT.major {
            return Ok(());
        }
        Err(ErrorKind::TooNewToRead { found: self, supported: CURRENT })
    }

    /// Whether this program may write to a file of that version.
    ///
    /// # Errors
    /// [`ErrorKind::TooNewToRead`] or [`ErrorKind::TooNewToWrite`].
    pub fn check_writable(self) -> Result<(), ErrorKind> {
        self.check_readable()?;
        if (0..=CURRENT.minor).contains(&self.minor) {
            return Ok(());
        }
        Err(ErrorKind::TooNewToWrite { found: self, supported: CURRENT })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Format 1.0.
const SCHEMA: &str = "
CREATE TABLE run (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    recipe        TEXT NOT NULL,
    recipe_digest BLOB NOT NULL,
    input_name    TEXT NOT NULL,
    input_digest  BLOB NOT NULL,
    tenant        TEXT NOT NULL,
    profile       TEXT NOT NULL,
    options       TEXT NOT NULL,
    created_ms    INTEGER NOT NULL,
    planned_ms    INTEGER,
    cancelled_ms  INTEGER,
    items         INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE item (
    seq    INTEGER PRIMARY KEY,
    id     TEXT NOT NULL,
    method TEXT NOT NULL,
    target TEXT NOT NULL,
    body   BLOB,
    key    BLOB NOT NULL,
    tx     BLOB NOT NULL,
    lines  TEXT NOT NULL
) STRICT;
-- No row here means planned, so that planning writes each item once.
CREATE TABLE progress (
    seq           INTEGER PRIMARY KEY,
    state         TEXT NOT NULL,
    attempts      INTEGER NOT NULL,
    http_status   INTEGER,
    error         TEXT,
    first_sent_ms INTEGER,
    updated_ms    INTEGER NOT NULL
) STRICT;
-- For people who look with the sqlite3 shell.
CREATE VIEW report AS
    SELECT seq, id, coalesce(state, 'planned') AS state, http_status, coalesce(attempts, 0) AS attempts,
           lower(hex(key)) AS key, error, method, target, CAST(body AS TEXT) AS body, lines
    FROM item LEFT JOIN progress USING (seq);
";

/// What format 1.1 adds.
const SCHEMA_1_1: &str = "
-- An item that the upstream accepted and works on. The item stays sent until its job has ended.
CREATE TABLE job (
    seq          INTEGER PRIMARY KEY,
    job          TEXT NOT NULL,
    state        TEXT NOT NULL,
    step         TEXT NOT NULL,
    cursor       TEXT,
    fetched      INTEGER NOT NULL DEFAULT 0,
    bytes        INTEGER NOT NULL DEFAULT 0,
    polls        INTEGER NOT NULL DEFAULT 0,
    submitted_ms INTEGER NOT NULL,
    polled_ms    INTEGER
) STRICT;
-- The rows of an item whose upstream tells each one's outcome. No state means: not told yet.
CREATE TABLE part (
    seq         INTEGER NOT NULL,
    ord         INTEGER NOT NULL,
    id          TEXT NOT NULL,
    line        INTEGER,
    round       INTEGER NOT NULL DEFAULT 0,
    state       TEXT,
    http_status INTEGER,
    error       TEXT,
    PRIMARY KEY (seq, ord)
) STRICT, WITHOUT ROWID;
-- The same write on another version of its entity: body and key in force.
CREATE TABLE amend (
    seq   INTEGER PRIMARY KEY,
    rev   INTEGER NOT NULL,
    body  BLOB,
    key   BLOB NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
-- SQLite has no checksums of its own outside of the log. Rows of an older format have none.
ALTER TABLE item ADD COLUMN sum INTEGER;
ALTER TABLE progress ADD COLUMN sum INTEGER;
-- With the body and key in force.
DROP VIEW report;
CREATE VIEW report AS
    SELECT seq, id, coalesce(state, 'planned') AS state, http_status, coalesce(attempts, 0) AS attempts,
           lower(hex(coalesce(a.key, i.key))) AS key, error, method, target,
           CAST(CASE WHEN a.seq IS NULL THEN i.body ELSE a.body END AS TEXT) AS body, lines
    FROM item i LEFT JOIN progress USING (seq) LEFT JOIN amend a USING (seq);
";

/// What the checksum of an item is made of.
pub(crate) const ITEM: &str = "seq, id, method, target, body, key, tx, lines";

/// What the checksum of a standing is made of.
pub(crate) const PROGRESS: &str = "seq, state, attempts, http_status, error, first_sent_ms, updated_ms";

/// Stands in for the tables that a journal of an older format lacks, for readers: they read the file as it is.
const ABSENT_1_1: &str = "
PRAGMA temp_store = MEMORY;
CREATE TEMP TABLE job (
    seq INTEGER PRIMARY KEY, job TEXT, state TEXT, step TEXT, cursor TEXT, fetched INTEGER, bytes INTEGER,
    polls INTEGER, submitted_ms INTEGER, polled_ms INTEGER
);
CREATE TEMP TABLE part (
    seq INTEGER, ord INTEGER, id TEXT, line INTEGER, round INTEGER, state TEXT, http_status INTEGER, error TEXT,
    PRIMARY KEY (seq, ord)
) WITHOUT ROWID;
CREATE TEMP TABLE amend (seq INTEGER PRIMARY KEY, rev INTEGER, body BLOB, key BLOB, at_ms INTEGER);
";

/// Whether a connection may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Writes a complete, empty journal to `path`, which must not exist; used under a temporary name.
pub(crate) fn build(path: &Path, header: &RunHeader) -> Result<(), ErrorKind> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    let transaction = connection.transaction()?;
    // First, so that its page is the first after the schema's: what is damaged behind it does not hide it.
    transaction.execute_batch(guard::SCHEMA)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute_batch(SCHEMA_1_1)?;
    transaction.execute(
        "INSERT INTO run (one, recipe, recipe_digest, input_name, input_digest, tenant, profile, options, created_ms)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            header.recipe,
            header.recipe_digest.0,
            header.input_name,
            header.input_digest.0,
            header.tenant,
            header.profile,
            header.options,
            header.created.unix_millis(),
        ],
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", CURRENT.to_user_version())?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// Opens an existing journal after checking that it is one and that this program may use it so.
pub(crate) fn open(path: &Path, access: Access) -> Result<Connection, ErrorKind> {
    // SQLite's own error for a missing file does not say that it is missing.
    if std::fs::metadata(path)?.is_dir() {
        return Err(ErrorKind::NotAJournal { why: "a folder".to_owned() });
    }
    let mode = match access {
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let mut connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    guard::teach(&connection)?;
    let version = version(&connection)?;
    match access {
        Access::Read => {
            version.check_readable()?;
            if version.minor < 1 {
                connection.execute_batch(ABSENT_1_1)?;
            }
        }
        Access::Write => {
            version.check_writable()?;
            prepare_for_writing(&connection)?;
            if version != CURRENT {
                upgrade(&mut connection)?;
            }
        }
    }
    Ok(connection)
}

/// Brings an older minor format up to date. The caller holds the journal's lock.
fn upgrade(connection: &mut Connection) -> Result<(), ErrorKind> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA_1_1)?;
    transaction.pragma_update(None, "user_version", CURRENT.to_user_version())?;
    transaction.commit()?;
    Ok(())
}

pub(crate) fn version(connection: &Connection) -> Result<Version, ErrorKind> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        let why = "an SQLite file of another program, or empty".to_owned();
        return Err(ErrorKind::NotAJournal { why });
    }
    let number: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(Version::from_user_version(number))
}

fn prepare_for_writing(connection: &Connection) -> Result<(), ErrorKind> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(ErrorKind::Io(format!("SQLite refused write-ahead logging (mode is {mode})")));
    }
    durable(connection)?;
    // 16 MB between checkpoints: bulk appends then write mostly sequentially.
    connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
    // 8 MB of page cache, enough for the hot end of both tables.
    connection.pragma_update(None, "cache_size", -8192)?;
    Ok(())
}

/// Every commit reaches the disk before it is acknowledged: that is what "intent before send" stands on.
///
/// On macOS `fsync` leaves data in the drive's cache; the `fullfsync` pragmas ask for `F_FULLFSYNC`, and do nothing elsewhere
/// (<https://sqlite.org/pragma.html#pragma_fullfsync>).
pub(crate) fn durable(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)
}

/// Reads the run's row.
pub(crate) fn run(connection: &Connection) -> Result<Run, ErrorKind> {
    let run = connection
        .query_row("SELECT * FROM run", [], |row| {
            Ok(Run {
                header: RunHeader {
                    recipe: row.get("recipe")?,
                    recipe_digest: Digest(row.get("recipe_digest")?),
                    input_name: row.get("input_name")?,
                    input_digest: Digest(row.get("input_digest")?),
                    tenant: row.get("tenant")?,
                    profile: row.get("profile")?,
                    options: row.get("options")?,
                    created: Wall::from_unix_millis(row.get("created_ms")?),
                },
                planned: row.get::<_, Option<i64>>("planned_ms")?.map(Wall::from_unix_millis),
                cancelled: row.get::<_, Option<i64>>("cancelled_ms")?.map(Wall::from_unix_millis),
                items: row.get::<_, i64>("items")?.unsigned_abs(),
            })
        })
        .optional()?;
    run.ok_or_else(|| ErrorKind::Corrupt("its header is missing".to_owned()))
}

/// A sequence number as SQLite stores it.
pub(crate) fn to_sql(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_allow_reading_and_writing_separately() {
        let same = Version::from_user_version(CURRENT.to_user_version());
        assert_eq!(same, CURRENT);
        assert_eq!((same.check_readable(), same.check_writable()), (Ok(()), Ok(())));
        let newer = Version { minor: CURRENT.minor + 1, ..CURRENT };
        assert_eq!(newer.check_readable(), Ok(()));
        let refused = ErrorKind::TooNewToWrite { found: newer, supported: CURRENT };
        assert_eq!(newer.check_writable(), Err(refused));
        let other = Version { major: CURRENT.major + 1, minor: 0 };
        let refused = ErrorKind::TooNewToRead { found: other, supported: CURRENT };
        assert_eq!(other.check_readable(), Err(refused.clone()));
        assert_eq!(other.check_writable(), Err(refused));
    }
}
