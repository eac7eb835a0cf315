//! Looking at a ledger from outside: for `doctor`, also while a gateway writes to it.

use std::path::Path;

use tidegate_core::time::Wall;

use super::error::{LedgerError, LedgerProblem};
use super::{Ledger, Tally, format};
use crate::format::Version;

/// What a ledger holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The format of its file.
    pub version: Version,
    /// How many entries there are.
    pub tally: Tally,
    /// When the oldest of them was sent first; `None` if there are none.
    pub oldest: Option<Wall>,
}

impl Ledger {
    /// Reads all of the ledger at `path` and checks its structure. Nothing is changed, no lock is taken; `None` if there is no file.
    ///
    /// # Errors
    /// [`LedgerProblem::NotALedger`], [`LedgerProblem::TooNew`], [`LedgerProblem::Corrupt`] with SQLite's first findings,
    /// [`LedgerProblem::ReadOnly`] if a gateway could not write there, or what the disk said.
    pub fn look(path: &Path) -> Result<Option<Look>, LedgerError> {
        look(path).map_err(|problem| LedgerError::new(path, problem))
    }
}

fn look(path: &Path) -> Result<Option<Look>, LedgerProblem> {
    let Some(connection) = format::open_to_look(path)? else { return Ok(None) };
    let found: Vec<String> = connection
        .prepare("PRAGMA quick_check(3)")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if found != ["ok"] {
        return Err(LedgerProblem::Corrupt(found.join("; ")));
    }
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // One statement, so that it is of one moment.
    let count = "SELECT count(*), count(*) FILTER (WHERE state <> 'done'), min(first_sent_ms) FROM entry";
    let (entries, unknown, oldest) = connection.query_row(count, [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?))
    })?;
    Ok(Some(Look {
        version: Version::from_user_version(version),
        tally: Tally { entries: entries.unsigned_abs(), unknown: unknown.unsigned_abs() },
        oldest: oldest.map(Wall::from_unix_millis),
    }))
}

#[cfg(test)]
mod tests {
    use tidegate_core::idempotency::BodyDigest;
    use tidegate_core::time::Mono;

    use super::super::{CURRENT, NewEntry, Now, Standing};
    use super::*;

    fn new(key: &str) -> NewEntry {
        NewEntry {
            scope: [1; 32],
            key: key.to_owned(),
            payload: BodyDigest::json(b"{}"),
            sent_key: String::new(),
            method: "POST".to_owned(),
            path: "/a".to_owned(),
            login: None,
        }
    }

    #[tokio::test]
    async fn a_ledger_in_use_can_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        assert_eq!(Ledger::look(&path).unwrap(), None);
        assert!(!path.exists(), "looking makes nothing");
        let at = Wall::from_unix_millis;
        let now = |millis| Now { wall: at(millis), mono: Mono::ZERO };
        let ledger = Ledger::open(&path, now(1_000)).unwrap();
        let first = ledger.intend(new("a"), now(1_000)).await.unwrap();
        ledger.intend(new("b"), now(2_000)).await.unwrap();
        ledger.finish(first, Standing::Done(None), at(3_000)).await.unwrap();
        let tally = Tally { entries: 2, unknown: 1 };
        let expected = Look { version: CURRENT, tally, oldest: Some(at(1_000)) };
        assert_eq!(Ledger::look(&path).unwrap(), Some(expected));
        ledger.intend(new("c"), now(4_000)).await.expect("it is none the worse");
    }

    #[tokio::test]
    async fn damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        let at = Now { wall: Wall::from_unix_millis(1_000), mono: Mono::ZERO };
        let ledger = Ledger::open(&path, at).unwrap();
        for key in 0..200 {
            ledger.intend(new(&format!("{key:0100}")), at).await.unwrap();
        }
        drop(ledger);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        let error = Ledger::look(&path).unwrap_err();
        assert!(matches!(error.problem(), LedgerProblem::Corrupt(_)), "{error}");
        std::fs::write(
            &path,
            b"something else, and long enough to have a header of its own, if it were a database",
        )
        .unwrap();
        assert!(matches!(Ledger::look(&path).unwrap_err().problem(), LedgerProblem::NotALedger(_)));
    }
}
