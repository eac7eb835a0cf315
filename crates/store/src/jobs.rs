//! Writes about jobs, their parts, and amendments: what format 1.1 adds.
//!
//! An item that the upstream accepted as a job stays `sent` until the job has ended: no new state of an item, so that an
//! older program still reads the file. What follows from the job's row is that it is never submitted again.

use rusqlite::{Connection, OptionalExtension, params};
use tidegate_core::time::Wall;

use crate::error::ErrorKind;
use crate::format::{PROGRESS, to_sql};
use crate::record::{Accepted, NewItem, Outcome, Page, Part, PartState, Step};
use crate::state::{Event, Illegal, State};
use crate::writer::{append, change, standing};

/// The upstream accepted an item as a job. The item must have been sent and have no job yet.
pub(crate) fn accept(
    connection: &Connection,
    seq: u64,
    accepted: &Accepted,
    at: Wall,
) -> Result<(), ErrorKind> {
    let Accepted { job, state, step, http_status, attempts, parts } = accepted;
    let (standing, _, _) = standing(connection, seq)?;
    if !matches!(standing, State::Sent | State::Resent) {
        return Err(ErrorKind::Illegal { seq, illegal: Illegal { state: standing, event: Event::Succeed } });
    }
    let known: Option<String> = connection
        .prepare_cached("SELECT job FROM job WHERE seq = ?1")?
        .query_row([to_sql(seq)], |row| row.get(0))
        .optional()?;
    if let Some(job) = known {
        return Err(ErrorKind::AlreadyAccepted { seq, job });
    }
    connection
        .prepare_cached("INSERT INTO job (seq, job, state, step, submitted_ms) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![to_sql(seq), job, state, step.name(), at.unix_millis()])?;
    connection
        .prepare_cached(
            "UPDATE progress SET attempts = attempts + ?2, http_status = ?3, updated_ms = ?4 WHERE seq = ?1",
        )?
        .execute(params![to_sql(seq), attempts, http_status, at.unix_millis()])?;
    connection
        .prepare_cached(&format!("UPDATE progress SET sum = row_sum({PROGRESS}) WHERE seq = ?1"))?
        .execute([to_sql(seq)])?;
    put_parts(connection, seq, parts)
}

/// A poll saw a job in another state, or this side went on to another step.
pub(crate) fn polled(
    connection: &Connection,
    seq: u64,
    state: &str,
    step: Step,
    at: Wall,
) -> Result<(), ErrorKind> {
    let changed = connection
        .prepare_cached(
            "UPDATE job SET state = ?2, step = ?3, polls = polls + 1, polled_ms = ?4 WHERE seq = ?1",
        )?
        .execute(params![to_sql(seq), state, step.name(), at.unix_millis()])?;
    if changed == 0 { Err(ErrorKind::NoSuchItem { seq }) } else { Ok(()) }
}

/// A page of results was read.
pub(crate) fn fetched(connection: &Connection, seq: u64, page: &Page) -> Result<(), ErrorKind> {
    standing(connection, seq)?;
    let step = if page.cursor.is_some() { Step::Fetching } else { Step::Fetched };
    connection
        .prepare_cached(
            "UPDATE job SET step = ?2, cursor = ?3, fetched = fetched + ?4, bytes = max(bytes, ?5) WHERE seq = ?1",
        )?
        .execute(params![to_sql(seq), step.name(), page.cursor, to_sql(page.results), to_sql(page.bytes)])?;
    put_parts(connection, seq, &page.parts)
}

/// Sends some parts of an item again as a new item, which gets the next free number.
pub(crate) fn follow(
    connection: &Connection,
    parent: u64,
    item: &NewItem,
    parts: &[Part],
) -> Result<(), ErrorKind> {
    standing(connection, parent)?;
    let seq: i64 =
        connection.query_row("SELECT coalesce(max(seq), 0) + 1 FROM item", [], |row| row.get(0))?;
    let seq = seq.unsigned_abs();
    append(connection, &[NewItem { seq, ..item.clone() }])?;
    let mut mark = connection.prepare_cached(
        "UPDATE part SET state = 'followed' WHERE seq = ?1 AND ord = ?2 AND state = 'retry'",
    )?;
    for part in parts {
        if mark.execute(params![to_sql(parent), part.ord])? == 0 {
            // Marked already: a second item would apply the part twice.
            let illegal = Illegal { state: State::Failed, event: Event::Intend };
            return Err(ErrorKind::Illegal { seq: parent, illegal });
        }
    }
    let again = parts.iter().zip(0..).map(|(part, ord)| Part {
        ord,
        round: part.round + 1,
        state: None,
        http_status: None,
        error: None,
        ..part.clone()
    });
    put_parts(connection, seq, &again.collect::<Vec<_>>())
}

/// Puts another body and key into force. The earlier one was answered, so the item counts as not sent.
pub(crate) fn amend(
    connection: &Connection,
    seq: u64,
    body: Option<&[u8]>,
    key: uuid::Uuid,
    at: Wall,
) -> Result<(), ErrorKind> {
    connection
        .prepare_cached(
            "INSERT INTO amend (seq, rev, body, key, at_ms) VALUES (?1, 1, ?2, ?3, ?4)
             ON CONFLICT (seq) DO UPDATE SET rev = rev + 1, body = excluded.body, key = excluded.key, at_ms = excluded.at_ms",
        )?
        .execute(params![to_sql(seq), body, key.as_bytes(), at.unix_millis()])?;
    match standing(connection, seq)?.0 {
        State::Planned => Ok(()),
        // Of a resent item an earlier sending may still be in doubt, which `Unsent` keeps.
        _ => change(connection, seq, Event::Unsent, &Outcome::default(), at),
    }
}

fn put_parts(connection: &Connection, seq: u64, parts: &[Part]) -> Result<(), ErrorKind> {
    let mut put = connection.prepare_cached(
        "INSERT INTO part (seq, ord, id, line, round, state, http_status, error)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (seq, ord) DO UPDATE SET state = excluded.state, http_status = excluded.http_status,
             error = excluded.error",
    )?;
    for part in parts {
        put.execute(params![
            to_sql(seq),
            part.ord,
            part.id,
            part.line.map(to_sql),
            part.round,
            part.state.map(PartState::name),
            part.http_status,
            part.error,
        ])?;
    }
    Ok(())
}
