//! The ledger's file: schema, version, and how it is opened.

use std::path::Path;

use rusqlite::Connection;

use super::error::LedgerProblem;
use crate::format::Version;
use crate::sort::Sort;

/// Marks a file as a ledger: "TgLg" in ASCII.
pub const APPLICATION_ID: i32 = 0x5467_4c67;

/// The format this program writes.
pub const CURRENT: Version = Version { major: 1, minor: 0 };

const SORT: Sort = Sort { application: APPLICATION_ID, current: CURRENT, schema: SCHEMA };

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

/// Opens the ledger at `path`, which is made if it is not there.
pub(super) fn open(path: &Path) -> Result<Connection, LedgerProblem> {
    SORT.open(path)
}

/// Whether [`open`] could succeed, without making or changing anything.
pub(super) fn could_be_at(path: &Path) -> Result<(), LedgerProblem> {
    SORT.could_be_at(path)
}

/// See [`Sort::open_to_look`].
pub(super) fn open_to_look(path: &Path) -> Result<Option<Connection>, LedgerProblem> {
    SORT.open_to_look(path)
}

/// A ledger that ends with the process.
pub(super) fn in_memory() -> Result<Connection, LedgerProblem> {
    SORT.in_memory()
}
