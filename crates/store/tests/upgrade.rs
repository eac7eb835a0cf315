//! Journals of format 1.0: read as they are, brought up to date when a run goes on.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};

use tidegate_core::time::Wall;
use tidegate_store::{Change, Counts, ErrorKind, Event, Journal, Outcome, PartCounts, Reader, State};

/// The statements with which the first release made its files, byte for byte.
const SCHEMA_1_0: &str = "
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
PRAGMA application_id = 0x54674a6c;
PRAGMA user_version = 1000;
";

fn at(ms: i64) -> Wall {
    Wall::from_unix_millis(ms)
}

/// A run of three items as the first release left it: one done, one in doubt, one planned.
fn old(folder: &Path) -> PathBuf {
    let path = folder.join("old.journal");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(SCHEMA_1_0).unwrap();
    file.execute_batch(
        "INSERT INTO run VALUES (1, 'requests', zeroblob(32), 'a.ndjson', zeroblob(32), 'acme', 'genesys', '{}',
             1, 2, NULL, 3);
         INSERT INTO item VALUES (1, 'a', 'PATCH', '/a', x'7b7d', zeroblob(16), zeroblob(16), '1'),
             (2, 'b', 'PATCH', '/b', NULL, zeroblob(16), zeroblob(16), '2'),
             (3, 'c', 'PATCH', '/c', NULL, zeroblob(16), zeroblob(16), '3,4');
         INSERT INTO progress VALUES (1, 'ok', 1, 200, NULL, 5, 6), (2, 'sent', 0, NULL, NULL, 7, 7);",
    )
    .unwrap();
    path
}

fn version(path: &Path) -> u32 {
    let file = rusqlite::Connection::open(path).unwrap();
    file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

const STANDING: Counts = Counts { planned: 1, sent: 1, ok: 1, failed: 0, unknown: 0, cancelled: 0 };

#[test]
fn an_old_journal_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = old(folder.path());
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.counts().unwrap(), STANDING);
    let pending = reader.pending(0, 10).unwrap();
    let seen: Vec<_> = pending.iter().map(|it| (it.item.request.seq, it.maybe_executed)).collect();
    assert_eq!(seen, [(2, true), (3, false)]);
    assert!(pending.iter().all(|it| it.job.is_none() && it.item.rev == 0));
    assert_eq!(reader.part_counts().unwrap(), PartCounts::default());
    assert!(reader.open_jobs().unwrap().is_empty() && reader.parts(1).unwrap().is_empty());
    let mut rows = 0;
    reader
        .results(|row| {
            rows += 1;
            assert_eq!(row.parts, 0);
            Ok::<_, tidegate_store::Error>(())
        })
        .unwrap();
    assert_eq!(rows, 3);
    assert_eq!(version(&path), 1000, "looking changes nothing");
}

#[test]
fn an_old_run_goes_on_and_its_file_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = old(folder.path());
    let journal = Journal::open(&path).unwrap();
    assert_eq!(version(&path), 1001);
    let reader = journal.reader().unwrap();
    assert_eq!(reader.counts().unwrap(), STANDING);
    let page = reader.page(0, 10).unwrap();
    assert_eq!(page[0].request.body.as_deref(), Some(&b"{}"[..]));
    assert_eq!((page[2].request.lines.clone(), page[1].first_sent), (vec![3, 4], Some(at(7))));
    journal.intend_blocking(vec![2, 3], at(20)).unwrap();
    let done = |seq| Change { seq, event: Event::Succeed, outcome: Outcome::default() };
    journal.record_blocking(vec![done(2), done(3)], at(21)).unwrap();
    assert_eq!(reader.counts().unwrap().ok, 3);
    journal.close().unwrap();
    let again = Journal::open(&path).unwrap();
    assert_eq!(again.reader().unwrap().page(1, 1).unwrap()[0].state, State::Ok);
}

#[test]
fn a_journal_of_this_format_is_refused_by_a_writer_of_the_one_before() {
    // The rule of the first release, applied to the number that this one writes.
    let folder = tempfile::tempdir().unwrap();
    let path = old(folder.path());
    drop(Journal::open(&path).unwrap());
    let number = version(&path);
    assert_eq!(number / 1000, 1, "it may still be read");
    assert!(!number.is_multiple_of(1000), "it may not be written");
}

#[test]
fn an_upgrade_that_fails_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = old(folder.path());
    // A table of the new format that is already there makes its creation fail.
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch("CREATE TABLE amend (x)").unwrap();
    drop(file);
    let failed = Journal::open(&path).unwrap_err();
    assert!(matches!(failed.kind(), ErrorKind::Io(_)), "{failed}");
    assert_eq!(version(&path), 1000);
    let file = rusqlite::Connection::open(&path).unwrap();
    let tables: i64 = file
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name IN ('job', 'part')", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 0, "all of it or nothing");
}
