//! How entries stand in the file.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tidegate_core::idempotency::BodyDigest;
use tidegate_core::outbox::Seq;
use tidegate_core::time::Wall;

use super::record::{Course, Head, Keyed, Kind, Letter, Settle};
use crate::format::Version;
use crate::ledger::{Kept, LedgerProblem, Scope};
use crate::sort::Sort;

/// Marks a file as an outbox: "TgOx" in ASCII.
pub const APPLICATION_ID: i32 = 0x5467_4f78;

/// The format this program writes.
pub const CURRENT: Version = Version { major: 1, minor: 0 };

pub(super) const SORT: Sort = Sort { application: APPLICATION_ID, current: CURRENT, schema: SCHEMA };

const SCHEMA: &str = "
CREATE TABLE secret (one INTEGER PRIMARY KEY CHECK (one = 1), bytes BLOB NOT NULL) STRICT;
INSERT INTO secret VALUES (1, randomblob(32));
CREATE TABLE last (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL) STRICT;
INSERT INTO last VALUES (1, 0);
CREATE TABLE entry (
    seq            INTEGER PRIMARY KEY,
    id             TEXT NOT NULL UNIQUE,
    kind           TEXT NOT NULL,
    tenant         TEXT NOT NULL,
    owner          TEXT NOT NULL,
    grp            TEXT NOT NULL,
    line           TEXT NOT NULL,
    mark           TEXT,
    scope          BLOB,
    key            TEXT,
    payload        BLOB,
    method         TEXT NOT NULL,
    target         TEXT NOT NULL,
    headers        BLOB NOT NULL,
    body           BLOB NOT NULL,
    class          TEXT NOT NULL,
    credential     TEXT NOT NULL,
    tx             TEXT NOT NULL,
    deadline_ms    INTEGER,
    since_ms       INTEGER NOT NULL,
    state          TEXT NOT NULL DEFAULT 'waiting',
    why            TEXT,
    doubtful       INTEGER NOT NULL DEFAULT 0,
    failed         INTEGER NOT NULL DEFAULT 0,
    attempts       INTEGER NOT NULL DEFAULT 0,
    not_before_ms  INTEGER NOT NULL,
    first_sent_ms  INTEGER,
    ended_ms       INTEGER,
    sent_key       TEXT,
    status         INTEGER,
    answer_headers BLOB,
    answer_body    BLOB
) STRICT;
CREATE UNIQUE INDEX entry_key ON entry (scope, key) WHERE key IS NOT NULL;
";

const HEAD: &str =
    "seq, id, kind, tenant, grp, line, mark, method, target, deadline_ms, since_ms, state, why, doubtful,
    failed, attempts, not_before_ms, first_sent_ms, ended_ms, sent_key, status,
    length(headers) + length(body) + coalesce(length(answer_headers) + length(answer_body), 0) AS bytes";

fn wall(row: &Row<'_>, name: &str) -> rusqlite::Result<Option<Wall>> {
    Ok(row.get::<_, Option<i64>>(name)?.map(Wall::from_unix_millis))
}

fn kind(row: &Row<'_>) -> rusqlite::Result<Kind> {
    Ok(if row.get::<_, String>("kind")? == Kind::Event.name() { Kind::Event } else { Kind::Write })
}

fn course(row: &Row<'_>, answer: Option<Kept>) -> rusqlite::Result<Course> {
    Ok(Course {
        state: row.get("state")?,
        why: row.get("why")?,
        doubtful: row.get("doubtful")?,
        failed: row.get("failed")?,
        attempts: row.get("attempts")?,
        not_before: wall(row, "not_before_ms")?.unwrap_or(Wall::from_unix_millis(0)),
        first_sent: wall(row, "first_sent_ms")?,
        ended: wall(row, "ended_ms")?,
        sent_key: row.get("sent_key")?,
        answer,
    })
}

fn head(row: &Row<'_>) -> rusqlite::Result<Head> {
    let status: Option<u16> = row.get("status")?;
    Ok(Head {
        seq: row.get::<_, i64>("seq")?.unsigned_abs(),
        id: row.get("id")?,
        kind: kind(row)?,
        tenant: row.get("tenant")?,
        group: row.get("grp")?,
        line: row.get("line")?,
        mark: row.get("mark")?,
        method: row.get("method")?,
        target: row.get("target")?,
        bytes: row.get::<_, i64>("bytes")?.unsigned_abs(),
        deadline: wall(row, "deadline_ms")?,
        since: wall(row, "since_ms")?.unwrap_or(Wall::from_unix_millis(0)),
        course: course(row, status.map(|status| Kept { status, ..Kept::default() }))?,
    })
}

fn whole(row: &Row<'_>) -> rusqlite::Result<(Letter, Course)> {
    let keyed = match (row.get("scope")?, row.get("key")?, row.get::<_, Option<[u8; 32]>>("payload")?) {
        (Some(scope), Some(key), Some(payload)) => {
            Some(Keyed { scope, key, payload: BodyDigest::from_bytes(payload) })
        }
        _ => None,
    };
    let letter = Letter {
        seq: row.get::<_, i64>("seq")?.unsigned_abs(),
        id: row.get("id")?,
        kind: kind(row)?,
        tenant: row.get("tenant")?,
        owner: row.get("owner")?,
        group: row.get("grp")?,
        line: row.get("line")?,
        mark: row.get("mark")?,
        keyed,
        method: row.get("method")?,
        target: row.get("target")?,
        headers: row.get("headers")?,
        body: row.get("body")?,
        class: row.get("class")?,
        credential: row.get("credential")?,
        transaction: row.get("tx")?,
        deadline: wall(row, "deadline_ms")?,
        since: wall(row, "since_ms")?.unwrap_or(Wall::from_unix_millis(0)),
    };
    let answer = match row.get::<_, Option<u16>>("status")? {
        Some(status) => Some(Kept {
            status,
            headers: row.get::<_, Option<Vec<u8>>>("answer_headers")?.unwrap_or_default(),
            body: row.get::<_, Option<Vec<u8>>>("answer_body")?.unwrap_or_default(),
        }),
        None => None,
    };
    Ok((letter, course(row, answer)?))
}

/// The number of an entry as SQLite has it.
fn number(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

pub(super) fn put(connection: &Connection, letter: &Letter) -> Result<(), LedgerProblem> {
    let insert = "INSERT INTO entry (seq, id, kind, tenant, owner, grp, line, mark, scope, key, payload, method, target,
                    headers, body, class, credential, tx, deadline_ms, since_ms, not_before_ms)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?20)";
    let keyed = letter.keyed.as_ref();
    connection.prepare_cached(insert)?.execute(params![
        number(letter.seq),
        letter.id,
        letter.kind.name(),
        letter.tenant,
        letter.owner,
        letter.group,
        letter.line,
        letter.mark,
        keyed.map(|keyed| keyed.scope),
        keyed.map(|keyed| &keyed.key),
        keyed.map(|keyed| *keyed.payload.as_bytes()),
        letter.method,
        letter.target,
        letter.headers,
        letter.body,
        letter.class,
        letter.credential,
        letter.transaction,
        letter.deadline.map(Wall::unix_millis),
        letter.since.unix_millis(),
    ])?;
    // A number is never used twice: status URLs are made of them.
    connection.prepare_cached("UPDATE last SET seq = max(seq, ?1)")?.execute([number(letter.seq)])?;
    Ok(())
}

pub(super) fn intend(connection: &Connection, seq: Seq, key: &str, at: Wall) -> Result<(), LedgerProblem> {
    let update = "UPDATE entry SET state = 'sending', sent_key = ?2, first_sent_ms = coalesce(first_sent_ms, ?3) WHERE seq = ?1";
    connection.prepare_cached(update)?.execute(params![number(seq), key, at.unix_millis()])?;
    Ok(())
}

pub(super) fn settle(
    connection: &Connection,
    seq: Seq,
    settle: &Settle,
    attempts: u32,
    at: Wall,
) -> Result<(), LedgerProblem> {
    let (seq, at) = (number(seq), at.unix_millis());
    let (state, why, kept) = match settle {
        Settle::Again { at: again, failed, doubtful } => {
            // What is proven unsent was never sent: the upstream's memory of its key does not count from here.
            let update = "UPDATE entry SET state = 'waiting', not_before_ms = ?2, failed = ?3, doubtful = ?4, ended_ms = ?5,
                            attempts = attempts + ?6, first_sent_ms = CASE WHEN ?4 THEN first_sent_ms END WHERE seq = ?1";
            let values = params![seq, again.unix_millis(), failed, doubtful, at, attempts];
            connection.prepare_cached(update)?.execute(values)?;
            return Ok(());
        }
        Settle::Done(kept) => ("done", None, Some(kept)),
        Settle::Dead(why, kept) => ("dead", Some(why.name()), kept.as_ref()),
    };
    let update =
        "UPDATE entry SET state = ?2, why = ?3, ended_ms = ?4, attempts = attempts + ?5, status = ?6,
                    answer_headers = ?7, answer_body = ?8 WHERE seq = ?1";
    let values = params![
        seq,
        state,
        why,
        at,
        attempts,
        kept.map(|kept| kept.status),
        kept.map(|kept| &kept.headers),
        kept.map(|kept| &kept.body),
    ];
    connection.prepare_cached(update)?.execute(values)?;
    // What is delivered need not be sent again: its body goes, which may be what is most of it.
    if state == "done" {
        let empty = "UPDATE entry SET body = x'', headers = x'' WHERE seq = ?1";
        connection.prepare_cached(empty)?.execute([seq])?;
    }
    Ok(())
}

pub(super) fn remove(connection: &Connection, seqs: &[Seq]) -> Result<(), LedgerProblem> {
    let mut delete = connection.prepare_cached("DELETE FROM entry WHERE seq = ?1")?;
    for seq in seqs {
        delete.execute([number(*seq)])?;
    }
    Ok(())
}

/// A dead letter waits again, as if it had never been sent.
pub(super) fn replay(connection: &Connection, seq: Seq, at: Wall) -> Result<(), LedgerProblem> {
    let update = "UPDATE entry SET state = 'waiting', why = NULL, doubtful = 0, failed = 0, not_before_ms = ?2,
                    deadline_ms = NULL, first_sent_ms = NULL, status = NULL, answer_headers = NULL, answer_body = NULL
                  WHERE seq = ?1 AND state = 'dead'";
    connection.prepare_cached(update)?.execute(params![number(seq), at.unix_millis()])?;
    Ok(())
}

pub(super) fn load(connection: &Connection, id: &str) -> Result<Option<(Letter, Course)>, LedgerProblem> {
    let find = "SELECT * FROM entry WHERE id = ?1";
    Ok(connection.prepare_cached(find)?.query_row([id], whole).optional()?)
}

pub(super) fn load_seq(connection: &Connection, seq: Seq) -> Result<Option<(Letter, Course)>, LedgerProblem> {
    let find = "SELECT * FROM entry WHERE seq = ?1";
    Ok(connection.prepare_cached(find)?.query_row([number(seq)], whole).optional()?)
}

pub(super) fn find_key(
    connection: &Connection,
    scope: Scope,
    key: &str,
) -> Result<Option<(Seq, String, BodyDigest)>, LedgerProblem> {
    let find = "SELECT seq, id, payload FROM entry WHERE scope = ?1 AND key = ?2";
    let found = connection.prepare_cached(find)?.query_row(params![scope, key], |row| {
        Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?, BodyDigest::from_bytes(row.get(2)?)))
    });
    Ok(found.optional()?)
}

pub(super) fn heads(connection: &Connection) -> Result<Vec<Head>, LedgerProblem> {
    let mut select = connection.prepare(&format!("SELECT {HEAD} FROM entry ORDER BY seq"))?;
    Ok(select.query_map([], head)?.collect::<Result<_, _>>()?)
}

pub(super) fn secret(connection: &Connection) -> Result<[u8; 32], LedgerProblem> {
    Ok(connection.query_row("SELECT bytes FROM secret", [], |row| row.get(0))?)
}

pub(super) fn last(connection: &Connection) -> Result<Seq, LedgerProblem> {
    Ok(connection.query_row("SELECT seq FROM last", [], |row| row.get::<_, i64>(0))?.unsigned_abs())
}
