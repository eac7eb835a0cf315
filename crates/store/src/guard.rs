//! Whether a file knows all that was acknowledged on its word.
//!
//! SQLite notices neither a byte that has changed in the middle of its log nor a log that is missing: it opens the file as it
//! was some commits ago. What was acknowledged since would be done a second time. Three marks stand against that:
//!
//! * the table `mark` counts commits, within each of them;
//! * a small file beside the database (`.mark`) holds the count of the latest commit that was acknowledged. A database that
//!   knows fewer has forgotten some. It is written after the commit and not synced: a kill does not touch it, and after a power
//!   cut it may lag, never lead;
//! * while a process writes, `mark` says "not closed" in the database itself, so that a copy of that one file is seen to lack
//!   its log.
//!
//! Where the count is lost or lags, the log's own frames tell of damage in its middle ([`crate::wal`]).

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::path::Path;

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use sha2::{Digest as _, Sha256};

use crate::error::ErrorKind;
use crate::format::BUSY;
use crate::lock::beside;
use crate::wal;

/// What follows the database's name.
pub(crate) const SUFFIX: &str = ".mark";

/// A file that nobody has written to yet counts as closed. `id` tells the file of this database from that of another one which had its name before.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS mark (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    id      INTEGER NOT NULL,
    commits INTEGER NOT NULL,
    closed  INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO mark (one, id, commits, closed) VALUES (1, random(), 0, 1);
";

/// Counts the commits of one database while this process writes to it.
#[derive(Debug)]
pub(crate) struct Guard {
    file: File,
    mark: Mark,
}

/// How far a database had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    id: i64,
    commits: i64,
}

impl Mark {
    /// As the file has it: a line of a fixed length, with a check of its own.
    fn line(self) -> String {
        let Self { id, commits } = self;
        let told = format!("{id:+020} {commits:020}");
        let check = sum(told.as_bytes());
        format!("{told} {check:+020}\n")
    }

    /// `None` for what is no whole line: it was never synced, so a power cut may leave anything.
    fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(beside(path, SUFFIX)).ok()?;
        let mut words = text.split_whitespace().map(str::parse::<i64>);
        let mark = Self { id: words.next()?.ok()?, commits: words.next()?.ok()? };
        (mark.line() == text).then_some(mark)
    }
}

impl Guard {
    /// Begins to write: from here on the database counts as not closed. The caller holds its lock and has [checked](check) it.
    pub(crate) fn begin(connection: &Connection, path: &Path) -> Result<Self, ErrorKind> {
        connection.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT"))?;
        let mark = connection.query_row(
            "UPDATE mark SET commits = commits + 1, closed = 0 RETURNING id, commits",
            [],
            |row| Ok(Mark { id: row.get(0)?, commits: row.get(1)? }),
        )?;
        // Into the database itself: a copy of it alone must say so.
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let mut guard = Self { file: options.open(beside(path, SUFFIX))?, mark };
        guard.file.set_len(mark.line().len() as u64)?;
        guard.note();
        Ok(guard)
    }

    /// Counts the commit that is about to be made, within it.
    pub(crate) fn count(connection: &Connection) -> Result<(), rusqlite::Error> {
        connection.prepare_cached("UPDATE mark SET commits = commits + 1")?.execute([]).map(drop)
    }

    /// It is on disk. To be called before anybody is told.
    pub(crate) fn committed(&mut self) {
        self.mark.commits += 1;
        self.note();
    }

    /// The end of writing, before the log is folded into the database.
    pub(crate) fn end(mut self, connection: &Connection) -> Result<(), rusqlite::Error> {
        connection.execute("UPDATE mark SET commits = commits + 1, closed = 1", [])?;
        self.committed();
        Ok(())
    }

    fn note(&mut self) {
        // A mark that lags makes the check weaker, never wrong: not worth failing a commit that is on disk.
        let _lags = self.file.rewind().and_then(|()| self.file.write_all(self.mark.line().as_bytes()));
    }
}

/// Whether the database at `path` knows all that was acknowledged. Nobody may be writing to it; nothing is changed.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if it does not, or what the disk said.
pub(crate) fn check(path: &Path) -> Result<(), ErrorKind> {
    let log = wal::walk(path)?;
    // One that is to be made, or was being made.
    if std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    let known: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'mark'",
        [],
        |row| row.get(0),
    )?;
    let found = if known == 0 {
        None
    } else {
        let read = "SELECT id, commits, closed FROM mark";
        let row = |row: &rusqlite::Row<'_>| {
            Ok((Mark { id: row.get(0)?, commits: row.get(1)? }, row.get::<_, bool>(2)?))
        };
        let row = connection.query_row(read, [], row).optional()?;
        Some(row.ok_or_else(|| ErrorKind::Corrupt("its count of commits is missing".to_owned()))?)
    };
    let noted = Mark::read(path).filter(|noted| found.is_some_and(|(mark, _)| mark.id == noted.id));
    judge(found, noted, log).map_err(ErrorKind::Corrupt)
}

/// `found` is what the database says, `noted` what the file beside it says of it.
fn judge(found: Option<(Mark, bool)>, noted: Option<Mark>, log: wal::Log) -> Result<(), String> {
    if let (Some((mark, _)), Some(noted)) = (found, noted)
        && mark.commits < noted.commits
    {
        let lost = noted.commits - mark.commits;
        let log = if log.exists { "damaged" } else { "missing" };
        let how = format!("its log (-wal) is {log}, or it is an older copy");
        return Err(format!("it does not know its latest {lost} commits: {how}"));
    }
    // Everything acknowledged is there, and what follows is the one commit that was being written.
    let complete = noted.is_some_and(|noted| found.is_some_and(|(mark, _)| mark.commits == noted.commits));
    if log.stranded > u32::from(complete) {
        return Err(format!("{} commits lie behind a damaged place in its log", log.stranded));
    }
    if let (Some((_, false)), None, false) = (found, noted, log.exists) {
        return Err("it was not closed, and its log (-wal) is missing".to_owned());
    }
    Ok(())
}

/// Reads the whole file and checks its structure, and the rows of `tables`, given with the columns of their checksums.
///
/// # Errors
/// [`ErrorKind::Corrupt`] with what was found first, or what the disk said.
pub(crate) fn verify(connection: &Connection, tables: &[(&str, &str)]) -> Result<(), ErrorKind> {
    let mut statement = connection.prepare("PRAGMA quick_check(3)")?;
    let found: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if found != ["ok"] {
        return Err(ErrorKind::Corrupt(found.join("; ")));
    }
    for (table, columns) in tables {
        let changed = format!("SELECT seq FROM {table} WHERE sum <> row_sum({columns}) LIMIT 1");
        let changed = connection.query_row(&changed, [], |row| row.get::<_, i64>(0)).optional()?;
        if let Some(seq) = changed {
            return Err(ErrorKind::Corrupt(format!("row {seq} of {table} has changed")));
        }
    }
    Ok(())
}

/// Teaches a connection `row_sum(...)`: the checksum of a row's values.
pub(crate) fn teach(connection: &Connection) -> Result<(), rusqlite::Error> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("row_sum", -1, flags, |row| {
        let mut digest = Sha256::new();
        for at in 0..row.len() {
            // A tag and the length, so that no two rows look the same in a line.
            let (tag, bytes): (u8, &[u8]) = match row.get_raw(at) {
                ValueRef::Null => (0, &[]),
                ValueRef::Integer(number) => {
                    digest.update([1]);
                    digest.update(number.to_be_bytes());
                    continue;
                }
                ValueRef::Real(number) => {
                    digest.update([2]);
                    digest.update(number.to_be_bytes());
                    continue;
                }
                ValueRef::Text(text) => (3, text),
                ValueRef::Blob(blob) => (4, blob),
            };
            digest.update([tag]);
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        }
        Ok(first(&digest.finalize()))
    })
}

fn sum(bytes: &[u8]) -> i64 {
    first(&Sha256::digest(bytes))
}

fn first(digest: &[u8]) -> i64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mark(commits: i64) -> Mark {
        Mark { id: -7, commits }
    }

    const WHOLE: wal::Log = wal::Log { exists: true, stranded: 0 };

    #[test]
    fn a_database_that_knows_less_than_was_acknowledged_is_damaged() {
        let judged = |commits, noted| judge(Some((mark(commits), false)), Some(mark(noted)), WHOLE);
        assert_eq!(judged(5, 5), Ok(()));
        assert_eq!(judged(6, 5), Ok(()), "killed before it could be noted, or noted before a power cut");
        assert!(judged(4, 5).unwrap_err().contains("latest 1 commits"));
    }

    #[test]
    fn one_commit_behind_a_bad_frame_is_a_torn_tail_only_where_all_that_was_acknowledged_is_before_it() {
        let judged = |noted: Option<i64>, stranded| {
            judge(Some((mark(5), false)), noted.map(mark), wal::Log { exists: true, stranded }).is_ok()
        };
        assert!(judged(Some(5), 1));
        assert!(!judged(Some(5), 2));
        assert!(!judged(Some(4), 1), "the note lags, so nobody can tell");
        assert!(!judged(None, 1));
    }

    #[test]
    fn a_copy_without_its_log_is_seen_by_the_database_alone() {
        let gone = wal::Log::default();
        assert!(judge(Some((mark(5), false)), None, gone).is_err());
        assert_eq!(judge(Some((mark(5), true)), None, gone), Ok(()), "it was closed");
        assert_eq!(judge(Some((mark(5), false)), Some(mark(5)), gone), Ok(()), "somebody has folded it in");
        assert_eq!(judge(None, None, gone), Ok(()), "an older format");
    }

    #[test]
    fn a_mark_that_is_not_whole_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let line = mark(17).line();
        let read = |text: &str| {
            std::fs::write(beside(&path, SUFFIX), text).unwrap();
            Mark::read(&path)
        };
        assert_eq!(read(&line), Some(mark(17)));
        assert_eq!(Mark { id: i64::MIN, commits: i64::MAX }.line().len(), line.len());
        assert_eq!(read(&line[..line.len() - 1]), None);
        assert_eq!(read(&line.replacen("17", "16", 1)), None);
        assert_eq!(read(&"\0".repeat(line.len())), None);
    }
}
