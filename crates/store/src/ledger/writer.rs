//! The one thread that reads and writes a ledger, and what is thrown out of it.
//!
//! As in the journal, what waits is committed together and answered after the commit: under load many writes share one
//! flush of the disk. Reads go the same way, so that who asks for a key sees every entry that was acknowledged.
//!
//! A ledger is bounded in age, entries and bytes. The bounds are kept when entries are made; an entry that is thrown out
//! early is one whose key nobody has asked for again for longest.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use tidegate_core::idempotency::BodyDigest;
use tidegate_core::time::Wall;
use tokio::sync::{mpsc, oneshot};

use super::error::LedgerProblem;
use super::record::{BearerDigest, Entry, EntryId, Kept, NewEntry, Scope, Standing, Tally};
use crate::fault;
use crate::guard::Guard;

/// For how long a key is remembered. The draft of the header leaves it to the server; a day is what payment APIs keep,
/// and what the upstreams' own keys last.
pub const KEEP: Duration = Duration::from_hours(24);

/// What a ledger holds at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Entries.
    pub(super) entries: u64,
    /// Bytes of kept bodies.
    pub(super) bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 100_000, bytes: 512 << 20 }
    }
}

/// Commands in one commit.
const GROUP: usize = 1024;

/// What is asked of the ledger.
#[derive(Debug)]
pub(super) enum Op {
    Find { scope: Scope, key: String },
    Identity(BearerDigest),
    Intend { new: NewEntry, at: Wall },
    Finish { id: EntryId, standing: Standing, at: Wall },
    Withdraw(EntryId),
    Tally,
}

impl Op {
    /// Its name among the [fault points](crate::fault); `None` for a question.
    const fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Intend { .. } => Some("ledger.intend"),
            Self::Finish { standing: Standing::Done(_), .. } => Some("ledger.done"),
            Self::Finish { .. } => Some("ledger.unknown"),
            Self::Withdraw(_) => Some("ledger.withdraw"),
            Self::Find { .. } | Self::Identity(_) | Self::Tally => None,
        }
    }
}

/// What comes back.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Entry(Option<Box<Entry>>),
    Identity(Option<String>),
    Id(EntryId),
    Tally(Tally),
    Nothing,
}

/// A question and who waits for its answer.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) op: Op,
    pub(super) reply: oneshot::Sender<Result<Reply, LedgerProblem>>,
}

pub(super) struct Writer {
    connection: Connection,
    bounds: Bounds,
    /// Bytes of kept bodies now.
    bytes: u64,
    entries: u64,
    broken: Option<LedgerProblem>,
    /// None for a ledger in memory.
    guard: Option<Guard>,
}

impl Writer {
    pub(super) fn new(connection: Connection, bounds: Bounds, now: Wall) -> Result<Self, LedgerProblem> {
        let mut this = Self { connection, bounds, bytes: 0, entries: 0, broken: None, guard: None };
        let sums = "SELECT count(*), coalesce(sum(length(body)), 0) FROM entry";
        let (entries, bytes) =
            this.connection.query_row(sums, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        (this.entries, this.bytes) = (entries.unsigned_abs(), bytes.unsigned_abs());
        this.prune(now)?;
        Ok(this)
    }

    /// Counts its commits by `guard`.
    pub(super) fn guarded(self, guard: Guard) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Serves until every sender is gone, then folds the write-ahead log into the file.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(next) = commands.try_recv()
            {
                group.push(next);
            }
            self.serve(group);
        }
        // What stays in the log is read from there at the next opening.
        if let (None, Some(guard)) = (&self.broken, self.guard) {
            drop(guard.end(&self.connection));
        }
        drop(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    }

    fn serve(&mut self, group: Vec<Command>) {
        let (ops, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|it| (it.op, it.reply)).unzip();
        let count = ops.len();
        let before = (self.entries, self.bytes);
        let faults: Vec<_> = ops.iter().filter_map(Op::fault).collect();
        pass(&faults, "before");
        let results = self.commit(ops).map_or_else(
            |problem| {
                (self.entries, self.bytes) = before;
                if problem.is_uncertain() && self.broken.is_none() {
                    self.broken = Some(problem.clone());
                }
                vec![Err(problem); count]
            },
            |results| results.into_iter().map(Ok).collect(),
        );
        pass(&faults, "after");
        for (reply, result) in replies.into_iter().zip(results) {
            // Who asked may have stopped waiting; what was asked for is done all the same.
            drop(reply.send(result));
        }
    }

    /// Carries out all of `ops` in one transaction, or none.
    fn commit(&mut self, ops: Vec<Op>) -> Result<Vec<Reply>, LedgerProblem> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let writes = self.guard.is_some() && ops.iter().any(|op| op.fault().is_some());
        self.connection.execute_batch("BEGIN")?;
        let carried_out = ops.into_iter().map(|op| self.carry_out(op)).collect::<Result<Vec<_>, _>>();
        let committed = carried_out.and_then(|replies| {
            if writes {
                Guard::count(&self.connection)?;
            }
            self.connection.execute_batch("COMMIT")?;
            Ok(replies)
        });
        if let (Ok(_), true, Some(guard)) = (&committed, writes, &mut self.guard) {
            guard.committed();
        }
        if committed.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        committed
    }

    fn carry_out(&mut self, op: Op) -> Result<Reply, LedgerProblem> {
        if let Some(name) = op.fault() {
            fault::failing(name)?;
        }
        self.apply(op)
    }

    fn apply(&mut self, op: Op) -> Result<Reply, LedgerProblem> {
        Ok(match op {
            Op::Find { scope, key } => Reply::Entry(self.find(scope, &key)?.map(Box::new)),
            Op::Identity(digest) => {
                let find = "SELECT identity FROM login WHERE digest = ?1";
                let found = self.connection.prepare_cached(find)?.query_row([digest], |row| row.get(0));
                Reply::Identity(found.optional()?)
            }
            Op::Intend { new, at } => {
                self.prune(at)?;
                Reply::Id(self.intend(&new, at)?)
            }
            Op::Finish { id, standing, at } => {
                self.finish(id, standing, at)?;
                Reply::Nothing
            }
            Op::Withdraw(id) => {
                let gone =
                    self.connection.prepare_cached("DELETE FROM entry WHERE id = ?1")?.execute([id.0])?;
                self.entries = self.entries.saturating_sub(gone as u64);
                Reply::Nothing
            }
            Op::Tally => {
                let count = "SELECT count(*) FROM entry WHERE state <> 'done'";
                let unknown: i64 = self.connection.prepare_cached(count)?.query_row([], |row| row.get(0))?;
                Reply::Tally(Tally { entries: self.entries, unknown: unknown.unsigned_abs() })
            }
        })
    }

    fn find(&self, scope: Scope, key: &str) -> Result<Option<Entry>, LedgerProblem> {
        let find = "SELECT id, payload, sent_key, state, first_sent_ms, status, headers, body
                    FROM entry WHERE scope = ?1 AND key = ?2";
        let found = self.connection.prepare_cached(find)?.query_row(params![scope, key], entry).optional()?;
        found
            .map(|(entry, state)| match state {
                Some(standing) => Ok(Entry { standing, ..entry }),
                None => Err(LedgerProblem::Corrupt("an entry has a state of another version".to_owned())),
            })
            .transpose()
    }

    /// A write that is sent again keeps the time of its first sending: the upstream's memory of its key counts from there.
    fn intend(&mut self, new: &NewEntry, at: Wall) -> Result<EntryId, LedgerProblem> {
        let at = at.unix_millis();
        if let Some((digest, identity)) = &new.login {
            let remember = "INSERT INTO login (digest, identity, seen_ms) VALUES (?1, ?2, ?3)
                            ON CONFLICT (digest) DO UPDATE SET seen_ms = excluded.seen_ms";
            self.connection.prepare_cached(remember)?.execute(params![digest, identity, at])?;
        }
        let again = "UPDATE entry SET state = 'sent' WHERE scope = ?1 AND key = ?2 RETURNING id";
        let again = self
            .connection
            .prepare_cached(again)?
            .query_row(params![new.scope, new.key], |row| row.get(0))
            .optional()?;
        if let Some(id) = again {
            return Ok(EntryId(id));
        }
        let insert = "INSERT INTO entry (scope, key, payload, sent_key, state, method, path, first_sent_ms)
                      VALUES (?1, ?2, ?3, ?4, 'sent', ?5, ?6, ?7)";
        let NewEntry { scope, key, payload, sent_key, method, path, .. } = new;
        let values = params![scope, key, payload.as_bytes(), sent_key, method, path, at];
        self.connection.prepare_cached(insert)?.execute(values)?;
        self.entries += 1;
        Ok(EntryId(self.connection.last_insert_rowid()))
    }

    fn finish(&mut self, id: EntryId, standing: Standing, at: Wall) -> Result<(), LedgerProblem> {
        let (state, kept) = match standing {
            Standing::Sent => ("sent", None),
            Standing::Unknown => ("unknown", None),
            Standing::Done(kept) => ("done", kept),
        };
        let bytes = kept.as_ref().map_or(0, |kept| kept.body.len() as u64);
        let (status, headers, body) = match kept {
            Some(Kept { status, headers, body }) => (Some(status), Some(headers), Some(body)),
            None => (None, None, None),
        };
        let update =
            "UPDATE entry SET state = ?2, ended_ms = ?3, status = ?4, headers = ?5, body = ?6 WHERE id = ?1";
        let values = params![id.0, state, at.unix_millis(), status, headers, body];
        // An entry that had to make room meanwhile is gone.
        if self.connection.prepare_cached(update)?.execute(values)? > 0 {
            self.bytes += bytes;
        }
        self.make_room()
    }

    /// Drops what is too old, and the oldest of what is too much.
    fn prune(&mut self, now: Wall) -> Result<(), LedgerProblem> {
        let oldest = now.unix_millis().saturating_sub(i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX));
        let mut gone = self.drop_where("first_sent_ms < ?1", oldest)?;
        if self.entries.saturating_sub(gone) >= self.bounds.entries {
            let excess = (self.entries - gone + 1).saturating_sub(self.bounds.entries);
            gone += self.drop_where(
                "id IN (SELECT id FROM entry WHERE state <> 'sent' ORDER BY first_sent_ms LIMIT ?1)",
                i64::try_from(excess).unwrap_or(i64::MAX),
            )?;
        }
        self.entries = self.entries.saturating_sub(gone);
        self.connection.prepare_cached("DELETE FROM login WHERE seen_ms < ?1")?.execute([oldest])?;
        Ok(())
    }

    fn drop_where(&mut self, which: &str, value: i64) -> Result<u64, LedgerProblem> {
        let delete = format!("DELETE FROM entry WHERE {which} RETURNING coalesce(length(body), 0)");
        let mut statement = self.connection.prepare_cached(&delete)?;
        let lengths = statement.query_map([value], |row| row.get::<_, i64>(0))?;
        let mut gone = 0;
        for length in lengths {
            self.bytes = self.bytes.saturating_sub(length?.unsigned_abs());
            gone += 1;
        }
        Ok(gone)
    }

    /// Drops the answers of the oldest entries where bodies take too much room. The entries stay: their writes are done.
    fn make_room(&mut self) -> Result<(), LedgerProblem> {
        while self.bytes > self.bounds.bytes {
            let oldest =
                "SELECT id, length(body) FROM entry WHERE length(body) > 0 ORDER BY first_sent_ms LIMIT 1";
            let oldest = self
                .connection
                .prepare_cached(oldest)?
                .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
                .optional()?;
            let Some((id, length)) = oldest else {
                self.bytes = 0;
                return Ok(());
            };
            let forget = "UPDATE entry SET status = NULL, headers = NULL, body = NULL WHERE id = ?1";
            self.connection.prepare_cached(forget)?.execute([id])?;
            self.bytes = self.bytes.saturating_sub(length.unsigned_abs());
        }
        Ok(())
    }
}

/// Passes the fault points of a group.
fn pass(faults: &[&str], side: &str) {
    if cfg!(any(debug_assertions, feature = "fault-points")) {
        for name in faults {
            fault::point(&format!("{name}.{side}"));
        }
    }
}

/// An entry, and what its state says; `None` if that is no word of ours.
fn entry(row: &Row<'_>) -> rusqlite::Result<(Entry, Option<Standing>)> {
    let state: String = row.get("state")?;
    let kept = match row.get::<_, Option<u16>>("status")? {
        Some(status) => Some(Kept {
            status,
            headers: row.get::<_, Option<Vec<u8>>>("headers")?.unwrap_or_default(),
            body: row.get::<_, Option<Vec<u8>>>("body")?.unwrap_or_default(),
        }),
        None => None,
    };
    let standing = match state.as_str() {
        "sent" => Some(Standing::Sent),
        "unknown" => Some(Standing::Unknown),
        "done" => Some(Standing::Done(kept)),
        _ => None,
    };
    let entry = Entry {
        id: EntryId(row.get("id")?),
        payload: BodyDigest::from_bytes(row.get("payload")?),
        sent_key: row.get("sent_key")?,
        first_sent: Wall::from_unix_millis(row.get("first_sent_ms")?),
        standing: Standing::Sent,
    };
    Ok((entry, standing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::format;

    const NOW: Wall = Wall::from_unix_millis(1_700_000_000_000);

    fn writer(bounds: Bounds) -> Writer {
        Writer::new(format::in_memory().unwrap(), bounds, NOW).unwrap()
    }

    fn serve(writer: &mut Writer, ops: Vec<Op>) -> Vec<Result<Reply, LedgerProblem>> {
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

    fn intend(writer: &mut Writer, number: u8) -> Result<EntryId, LedgerProblem> {
        let new = NewEntry {
            scope: [0; 32],
            key: format!("k{number}"),
            payload: BodyDigest::raw(&[number]),
            sent_key: String::new(),
            method: "POST".into(),
            path: "/".into(),
            login: None,
        };
        let at = Wall::from_unix_millis(NOW.unix_millis() + i64::from(number));
        match serve(writer, vec![Op::Intend { new, at }]).remove(0)? {
            Reply::Id(id) => Ok(id),
            other => panic!("{other:?}"),
        }
    }

    fn finish(writer: &mut Writer, id: EntryId, body: usize) {
        let kept = Kept { status: 200, headers: Vec::new(), body: vec![b'x'; body] };
        let op = Op::Finish { id, standing: Standing::Done(Some(kept)), at: NOW };
        serve(writer, vec![op]).remove(0).unwrap();
    }

    fn standing(writer: &mut Writer, number: u8) -> Option<Standing> {
        let op = Op::Find { scope: [0; 32], key: format!("k{number}") };
        match serve(writer, vec![op]).remove(0).unwrap() {
            Reply::Entry(entry) => entry.map(|entry| entry.standing),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_oldest_finished_entries_make_room_and_those_in_flight_stay() {
        let mut writer = writer(Bounds { entries: 3, bytes: 1 << 20 });
        intend(&mut writer, 0).unwrap();
        for number in 1..6 {
            let id = intend(&mut writer, number).unwrap();
            finish(&mut writer, id, 1);
        }
        let kept: Vec<u8> = (0..6).filter(|number| standing(&mut writer, *number).is_some()).collect();
        assert_eq!(kept, [0, 4, 5]);
        assert_eq!((writer.entries, writer.bytes), (3, 2));
    }

    #[test]
    fn the_oldest_bodies_make_room_and_their_writes_stay_done() {
        let mut writer = writer(Bounds { entries: 10, bytes: 100 });
        for number in 0..3 {
            let id = intend(&mut writer, number).unwrap();
            finish(&mut writer, id, 40);
        }
        assert_eq!(standing(&mut writer, 0), Some(Standing::Done(None)));
        assert!(matches!(standing(&mut writer, 1), Some(Standing::Done(Some(_)))));
        assert_eq!(writer.bytes, 80);
    }

    #[test]
    fn a_full_disk_undoes_the_group_tells_everybody_and_heals() {
        let folder = tempfile::tempdir().unwrap();
        let connection = format::open(&folder.path().join("gateway.db")).unwrap();
        let mut writer = Writer::new(connection, Bounds::default(), NOW).unwrap();
        let [first, second] = [1, 2].map(|number| intend(&mut writer, number).unwrap());
        writer.connection.pragma_update(None, "max_page_count", 12).unwrap();
        let kept = Kept { status: 200, headers: Vec::new(), body: vec![b'x'; 1 << 20] };
        let too_much = Op::Finish { id: first, standing: Standing::Done(Some(kept)), at: NOW };
        let results = serve(&mut writer, vec![Op::Withdraw(second), too_much]);
        for result in results {
            assert_eq!(result.unwrap_err(), LedgerProblem::DiskFull);
        }
        assert_eq!(standing(&mut writer, 2), Some(Standing::Sent), "the first of the group is undone too");
        assert_eq!((writer.entries, writer.bytes), (2, 0));
        writer.connection.pragma_update(None, "max_page_count", 100_000).unwrap();
        finish(&mut writer, first, 1 << 20);
        assert!(matches!(standing(&mut writer, 1), Some(Standing::Done(Some(_)))));
    }
}
