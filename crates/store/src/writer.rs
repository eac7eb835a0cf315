//! The one writer: a thread that commits many callers' writes together.
//!
//! A durable commit costs a disk flush whatever is in it, so a commit per item is some thirty times slower than one
//! for a hundred. The thread therefore takes every command that waits, applies them in one transaction, commits
//! once, and only then answers them all. Under load the groups grow by themselves; alone, a caller waits for one flush.
//!
//! A command that breaks a rule is undone by itself (savepoint) and its neighbours are not affected. An error of the
//! disk undoes the whole group and every caller in it is told. After an error that leaves the file's contents
//! uncertain the writer refuses everything: acknowledging on top of that could lose what callers rely on.

use rusqlite::{Connection, OptionalExtension, params};
use tidegate_core::time::Wall;
use tokio::sync::{mpsc, oneshot};

use crate::error::ErrorKind;
use crate::fault::{self, Kind};
use crate::format::{PROGRESS, to_sql};
use crate::guard::Guard;
use crate::jobs;
use crate::record::{Accepted, Change, NewItem, Outcome, Page, Part, Step};
use crate::state::{Event, State, next_state};

/// Rows in one commit before it is closed: large enough that the flush is a small part of its cost, small enough
/// that the first caller in it waits milliseconds.
const GROUP_ROWS: usize = 16_384;

/// A write.
#[derive(Debug)]
pub(crate) enum Op {
    Append(Vec<NewItem>),
    FinishPlanning(Wall),
    Intend { seqs: Vec<u64>, at: Wall },
    Record { changes: Vec<Change>, at: Wall },
    Accept { seq: u64, accepted: Accepted, at: Wall },
    Polled { seq: u64, state: String, step: Step, at: Wall },
    Fetched { seq: u64, page: Page },
    Follow { parent: u64, item: Box<NewItem>, parts: Vec<Part> },
    Amend { seq: u64, body: Option<Vec<u8>>, key: uuid::Uuid, at: Wall },
    Cancel(Wall),
}

impl Op {
    fn rows(&self) -> usize {
        match self {
            Self::Append(items) => items.len(),
            Self::Intend { seqs, .. } => seqs.len(),
            Self::Record { changes, .. } => changes.len(),
            Self::Accept { accepted, .. } => 1 + accepted.parts.len(),
            Self::Follow { parts, .. } => 1 + parts.len(),
            Self::Fetched { page, .. } => 1 + page.parts.len(),
            Self::FinishPlanning(_) | Self::Polled { .. } | Self::Amend { .. } | Self::Cancel(_) => 1,
        }
    }

    /// What it is to the fault points.
    fn kind(&self) -> Kind {
        match self {
            Self::Append(_) => Kind::Append,
            Self::FinishPlanning(_) => Kind::Planned,
            Self::Intend { .. } => Kind::Intend,
            Self::Record { changes, .. } => match changes.first().map(|change| change.event) {
                Some(Event::Succeed) => Kind::RecordOk,
                Some(Event::Fail) => Kind::RecordFailed,
                Some(Event::LoseTrack) => Kind::RecordUnknown,
                Some(Event::Intend | Event::Unsent | Event::Cancel) | None => Kind::RecordUnsent,
            },
            Self::Accept { .. } => Kind::Accept,
            Self::Polled { .. } => Kind::Polled,
            Self::Fetched { .. } => Kind::Fetched,
            Self::Follow { .. } => Kind::Follow,
            Self::Amend { .. } => Kind::Amend,
            Self::Cancel(_) => Kind::Cancel,
        }
    }
}

/// A write and who waits for it.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) op: Op,
    pub(crate) reply: oneshot::Sender<Result<(), ErrorKind>>,
}

pub(crate) struct Writer {
    connection: Connection,
    guard: Option<Guard>,
    /// Set by the first error after which the file's contents are uncertain.
    broken: Option<ErrorKind>,
}

impl Writer {
    pub(crate) fn new(connection: Connection, guard: Option<Guard>) -> Self {
        Self { connection, guard, broken: None }
    }

    /// Serves commands until every sender is gone, then folds the write-ahead log into the file.
    pub(crate) fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), ErrorKind> {
        while let Some(first) = commands.blocking_recv() {
            let mut rows = first.op.rows();
            let mut group = vec![first];
            while rows < GROUP_ROWS
                && let Ok(next) = commands.try_recv()
            {
                rows += next.op.rows();
                group.push(next);
            }
            self.serve(group);
        }
        self.close()
    }

    fn close(self) -> Result<(), ErrorKind> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        if let Some(guard) = self.guard {
            guard.end(&self.connection)?;
        }
        // A reader in the middle of a page may keep the log from being emptied; the next opening does it then.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        self.connection.close().map_err(|(_, error)| error.into())
    }

    fn serve(&mut self, group: Vec<Command>) {
        let (ops, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|it| (it.op, it.reply)).unzip();
        pass(&ops, "before");
        let committed = self.commit(&ops);
        pass(&ops, "after");
        let results = match committed {
            Ok(results) => results,
            Err(error) => {
                if error.is_uncertain() && self.broken.is_none() {
                    self.broken = Some(error.clone());
                }
                vec![Err(error); ops.len()]
            }
        };
        for (reply, result) in replies.into_iter().zip(results) {
            // The caller may have stopped waiting; what it asked for is done all the same.
            drop(reply.send(result));
        }
    }

    /// Applies all of `ops` in one transaction. The outer error means that none was applied.
    fn commit(&mut self, ops: &[Op]) -> Result<Vec<Result<(), ErrorKind>>, ErrorKind> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let mut transaction = self.connection.transaction()?;
        let mut results = Vec::with_capacity(ops.len());
        for op in ops {
            let savepoint = transaction.savepoint()?;
            match apply(&savepoint, op) {
                Ok(()) => {
                    savepoint.commit()?;
                    results.push(Ok(()));
                }
                Err(error) if error.is_rule() => {
                    drop(savepoint); // rolls back to where this op began
                    results.push(Err(error));
                }
                Err(error) => return Err(error),
            }
        }
        fault::failing("journal.commit")?;
        ops.iter().try_for_each(|op| fault::failing(op.kind().point()))?;
        if self.guard.is_some() {
            Guard::count(&transaction)?;
        }
        transaction.commit()?;
        if let Some(guard) = &mut self.guard {
            guard.committed();
        }
        Ok(results)
    }
}

/// Passes the fault points of a group.
fn pass(ops: &[Op], side: &str) {
    if cfg!(any(debug_assertions, feature = "fault-points")) {
        for op in ops {
            fault::point(&format!("{}.{side}", op.kind().point()));
        }
    }
}

fn apply(connection: &Connection, op: &Op) -> Result<(), ErrorKind> {
    let planned = connection
        .prepare_cached("SELECT planned_ms IS NOT NULL FROM run")?
        .query_row([], |row| row.get::<_, bool>(0))?;
    match (op, planned) {
        (Op::Append(_) | Op::FinishPlanning(_), true) => Err(ErrorKind::PlanComplete),
        (
            Op::Intend { .. }
            | Op::Record { .. }
            | Op::Accept { .. }
            | Op::Polled { .. }
            | Op::Fetched { .. }
            | Op::Follow { .. }
            | Op::Amend { .. },
            false,
        ) => Err(ErrorKind::PlanIncomplete),
        (Op::Append(items), false) => append(connection, items),
        (Op::FinishPlanning(at), false) => {
            connection.execute("UPDATE run SET planned_ms = ?1", [at.unix_millis()])?;
            Ok(())
        }
        (Op::Intend { seqs, at }, true) => {
            seqs.iter().try_for_each(|&seq| change(connection, seq, Event::Intend, &Outcome::default(), *at))
        }
        (Op::Record { changes, at }, true) => {
            changes.iter().try_for_each(|it| change(connection, it.seq, it.event, &it.outcome, *at))
        }
        (Op::Accept { seq, accepted, at }, true) => jobs::accept(connection, *seq, accepted, *at),
        (Op::Polled { seq, state, step, at }, true) => jobs::polled(connection, *seq, state, *step, *at),
        (Op::Fetched { seq, page }, true) => jobs::fetched(connection, *seq, page),
        (Op::Follow { parent, item, parts }, true) => jobs::follow(connection, *parent, item, parts),
        (Op::Amend { seq, body, key, at }, true) => jobs::amend(connection, *seq, body.as_deref(), *key, *at),
        (Op::Cancel(at), _) => cancel(connection, *at),
    }
}

pub(crate) fn append(connection: &Connection, items: &[NewItem]) -> Result<(), ErrorKind> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO item (seq, id, method, target, body, key, tx, lines, sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, row_sum(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8))",
    )?;
    for item in items {
        let inserted = insert.execute(params![
            to_sql(item.seq),
            item.id,
            item.method,
            item.target,
            item.body,
            item.key.as_bytes(),
            item.transaction.as_bytes(),
            lines_to_text(&item.lines),
        ]);
        match inserted.map_err(|error| (error.sqlite_error_code(), error)) {
            Ok(_) => {}
            Err((Some(rusqlite::ErrorCode::ConstraintViolation), _)) => {
                return Err(ErrorKind::DuplicateItem { seq: item.seq });
            }
            Err((_, error)) => return Err(error.into()),
        }
    }
    let added = to_sql(items.len() as u64);
    connection.prepare_cached("UPDATE run SET items = items + ?1")?.execute([added])?;
    Ok(())
}

/// Folds one event into one item's standing.
pub(crate) fn change(
    connection: &Connection,
    seq: u64,
    event: Event,
    outcome: &Outcome,
    at: Wall,
) -> Result<(), ErrorKind> {
    let (state, attempts, first_sent) = standing(connection, seq)?;
    let next = next_state(state, event).map_err(|illegal| ErrorKind::Illegal { seq, illegal })?;
    let first_sent = match next {
        // Proven unsent: a later sending is the first.
        State::Planned => None,
        _ => first_sent.or((event == Event::Intend).then(|| at.unix_millis())),
    };
    connection
        .prepare_cached(
            "INSERT INTO progress (seq, state, attempts, http_status, error, first_sent_ms, updated_ms, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, row_sum(?1, ?2, ?3, ?4, ?5, ?6, ?7))
             ON CONFLICT (seq) DO UPDATE SET state = excluded.state, attempts = excluded.attempts,
                 http_status = excluded.http_status, error = excluded.error,
                 first_sent_ms = excluded.first_sent_ms, updated_ms = excluded.updated_ms, sum = excluded.sum",
        )?
        .execute(params![
            to_sql(seq),
            next.name(),
            attempts.saturating_add(outcome.attempts),
            outcome.http_status,
            outcome.error,
            first_sent,
            at.unix_millis(),
        ])?;
    Ok(())
}

/// State, attempts so far and first sending of an item.
pub(crate) fn standing(connection: &Connection, seq: u64) -> Result<(State, u32, Option<i64>), ErrorKind> {
    let stored = connection
        .prepare_cached(
            "SELECT state, attempts, first_sent_ms FROM item LEFT JOIN progress USING (seq) WHERE item.seq = ?1",
        )?
        .query_row([to_sql(seq)], |row| {
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<u32>>(1)?, row.get(2)?))
        })
        .optional()?
        .ok_or(ErrorKind::NoSuchItem { seq })?;
    let state = state_from_sql(stored.0.as_deref())?;
    Ok((state, stored.1.unwrap_or(0), stored.2))
}

/// The state a column holds; no row in `progress` means planned.
pub(crate) fn state_from_sql(name: Option<&str>) -> Result<State, ErrorKind> {
    let Some(name) = name else { return Ok(State::Planned) };
    State::from_name(name).ok_or_else(|| ErrorKind::Corrupt(format!("unknown state `{name}`")))
}

/// Ends a run: what was not sent is cancelled, what is in doubt becomes unknown.
fn cancel(connection: &Connection, at: Wall) -> Result<(), ErrorKind> {
    let at = at.unix_millis();
    connection.execute(
        "INSERT INTO progress (seq, state, attempts, updated_ms)
         SELECT seq, 'planned', 0, ?1 FROM item WHERE NOT EXISTS (SELECT 1 FROM progress p WHERE p.seq = item.seq)",
        [at],
    )?;
    let endings = [
        (State::Planned, Event::Cancel, None),
        (State::Sent, Event::LoseTrack, Some("the run was cancelled before its answer arrived")),
        (State::Resent, Event::LoseTrack, Some("the run was cancelled before its answer arrived")),
    ];
    // A job goes on upstream, and its name is what a person needs to look for it.
    connection.execute(
        "UPDATE progress SET error = 'the run was cancelled; job ' || (SELECT job FROM job WHERE job.seq = progress.seq)
             || ' goes on upstream, if it has not ended'
         WHERE state IN ('sent', 'resent') AND seq IN (SELECT seq FROM job)",
        [],
    )?;
    connection.execute(
        "UPDATE part SET state = 'unknown' WHERE (state IS NULL OR state = 'retry')
         AND seq IN (SELECT seq FROM progress WHERE state IN ('sent', 'resent'))",
        [],
    )?;
    for (state, event, error) in endings {
        let next = next_state(state, event).map_err(|illegal| ErrorKind::Illegal { seq: 0, illegal })?;
        connection.execute(
            "UPDATE progress SET state = ?1, error = coalesce(error, ?2), updated_ms = ?3 WHERE state = ?4",
            params![next.name(), error, at, state.name()],
        )?;
    }
    connection
        .execute(&format!("UPDATE progress SET sum = row_sum({PROGRESS}) WHERE updated_ms = ?1"), [at])?;
    connection.execute("UPDATE run SET cancelled_ms = coalesce(cancelled_ms, ?1)", [at])?;
    Ok(())
}

fn lines_to_text(lines: &[u64]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(lines.len() * 7);
    for line in lines {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{comma}{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{self, Access};
    use crate::record::RunHeader;

    const NOW: Wall = Wall::from_unix_millis(1_000);

    fn connection(folder: &tempfile::TempDir) -> Connection {
        let path = folder.path().join("run.journal");
        format::build(&path, &RunHeader::default()).unwrap();
        format::open(&path, Access::Write).unwrap()
    }

    fn items(seqs: std::ops::Range<u64>, body: usize) -> Vec<NewItem> {
        seqs.map(|seq| NewItem { seq, body: Some(vec![b'x'; body]), ..NewItem::default() }).collect()
    }

    fn send(writer: &mut Writer, ops: Vec<Op>) -> Vec<Result<(), ErrorKind>> {
        let (group, answers): (Vec<_>, Vec<_>) = ops
            .into_iter()
            .map(|op| {
                let (reply, answer) = oneshot::channel();
                (Command { op, reply }, answer)
            })
            .unzip();
        writer.serve(group);
        answers.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect()
    }

    #[test]
    fn a_broken_rule_undoes_its_own_command_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(connection(&folder), None);
        let results = send(
            &mut writer,
            vec![
                Op::Append(items(1..3, 1)),
                Op::Append(items(2..5, 1)),
                Op::Append(items(3..4, 1)),
                Op::FinishPlanning(NOW),
                Op::Intend { seqs: vec![1, 9], at: NOW },
                Op::Intend { seqs: vec![3], at: NOW },
            ],
        );
        let expected = [
            Ok(()),
            Err(ErrorKind::DuplicateItem { seq: 2 }),
            Ok(()),
            Ok(()),
            Err(ErrorKind::NoSuchItem { seq: 9 }),
            Ok(()),
        ];
        assert_eq!(results, expected);
        assert_eq!(standing(&writer.connection, 1).unwrap(), (State::Planned, 0, None));
        assert_eq!(standing(&writer.connection, 3).unwrap(), (State::Sent, 0, Some(1_000)));
        assert_eq!(format::run(&writer.connection).unwrap().items, 3);
    }

    #[test]
    fn a_full_disk_undoes_the_group_tells_every_caller_and_heals_when_space_returns() {
        let folder = tempfile::tempdir().unwrap();
        let connection = connection(&folder);
        connection.pragma_update(None, "max_page_count", 12).unwrap();
        let mut writer = Writer::new(connection, None);
        let too_much = vec![Op::Append(items(1..3, 10)), Op::Append(items(10..60, 4_000))];
        assert_eq!(send(&mut writer, too_much), [Err(ErrorKind::DiskFull), Err(ErrorKind::DiskFull)]);
        assert_eq!(format::run(&writer.connection).unwrap().items, 0, "the first command is undone too");

        writer.connection.pragma_update(None, "max_page_count", 100_000).unwrap();
        assert_eq!(send(&mut writer, vec![Op::Append(items(1..3, 10))]), [Ok(())]);
    }

    #[test]
    fn a_read_only_file_is_named_so() {
        let folder = tempfile::tempdir().unwrap();
        drop(connection(&folder));
        let read_only = format::open(&folder.path().join("run.journal"), Access::Read).unwrap();
        let results = send(&mut Writer::new(read_only, None), vec![Op::Append(items(1..2, 1))]);
        assert!(matches!(results[0], Err(ErrorKind::ReadOnly(_))), "{results:?}");
    }

    #[test]
    fn after_an_uncertain_error_nothing_is_acknowledged_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(connection(&folder), None);
        writer.connection.execute_batch("DROP TABLE item").unwrap();
        let first = send(&mut writer, vec![Op::Append(items(1..2, 1))]);
        assert!(matches!(first[0], Err(ErrorKind::Io(_))), "{first:?}");
        writer.connection.execute_batch("CREATE TABLE item (seq INTEGER)").unwrap();
        assert_eq!(send(&mut writer, vec![Op::FinishPlanning(NOW)]), first);
        assert!(writer.close().is_err());
    }

    #[test]
    fn lines_are_kept_as_a_comma_separated_list() {
        assert_eq!(lines_to_text(&[2, 3, 17]), "2,3,17");
        assert_eq!(lines_to_text(&[]), "");
    }
}
