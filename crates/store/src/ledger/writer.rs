//! The one thread that reads and writes a ledger.
//!
//! As in the journal, what waits is committed together and answered after the commit: under load many writes share one
//! flush of the disk. Reads go the same way, so that who asks for a key sees every entry that was acknowledged.
//!
//! What became of a write and could not be written, as on a full disk, is kept in memory, told from there, and written with
//! the next commit.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rusqlite::{Connection, OptionalExtension, Row, params};
use tidegate_core::idempotency::BodyDigest;
use tidegate_core::time::{Mono, Wall};
use tokio::sync::{mpsc, oneshot};

use super::bounds::{Bounds, KEEP};
use super::error::LedgerProblem;
use super::record::{BearerDigest, Entry, EntryId, Kept, NewEntry, Now, Scope, Standing, Tally};
use crate::fault;
use crate::guard::Guard;

/// Commands in one commit.
const GROUP: usize = 1024;

/// Bytes of answers that are kept in memory because they could not be written. Beyond it only the outcome is kept.
const MAX_OWED: usize = 64 << 20;

/// What is asked of the ledger.
#[derive(Debug)]
pub(super) enum Op {
    Find { scope: Scope, key: String, now: Mono },
    Identity(BearerDigest),
    Intend { new: NewEntry, now: Now },
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

    /// Bytes of the answer it carries.
    fn size(&self) -> usize {
        match self {
            Self::Finish { standing: Standing::Done(Some(kept)), .. } => kept.body.len() + kept.headers.len(),
            _ => 0,
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
    pub(super) connection: Connection,
    pub(super) bounds: Bounds,
    /// Bytes of kept bodies now.
    pub(super) bytes: u64,
    pub(super) entries: u64,
    broken: Option<LedgerProblem>,
    /// When each entry is too old, soonest first. What has gone before is here in vain.
    pub(super) ends: VecDeque<(Mono, i64)>,
    /// How many of `ends` are carried out by the transaction that runs.
    pub(super) due: usize,
    /// The next entry's name; none is used twice.
    next: i64,
    /// When each login was last used, and when they were looked through.
    pub(super) logins: HashMap<BearerDigest, Mono>,
    pub(super) logins_at: Mono,
    /// What became of entries and could not be written.
    owed: BTreeMap<i64, Op>,
    /// It was told that unknown outcomes are thrown out.
    pub(super) warned: bool,
    /// None for a ledger in memory.
    guard: Option<Guard>,
}

impl Writer {
    pub(super) fn new(connection: Connection, bounds: Bounds, now: Now) -> Result<Self, LedgerProblem> {
        let oldest =
            now.wall.unix_millis().saturating_sub(i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX));
        connection.execute("DELETE FROM entry WHERE first_sent_ms < ?1", [oldest])?;
        connection.execute("DELETE FROM login WHERE seen_ms < ?1", [oldest])?;
        // What an earlier process left in flight has ended with it.
        let ended = "UPDATE entry SET ended_ms = ?1 WHERE state = 'sent' AND ended_ms IS NULL";
        connection.execute(ended, [now.wall.unix_millis()])?;
        let sums = "SELECT count(*), coalesce(sum(length(body)), 0), coalesce(max(id), 0) FROM entry";
        let (entries, bytes, last) = connection.query_row(sums, [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        let left =
            |at: i64| KEEP.saturating_sub(now.wall.since(Wall::from_unix_millis(at)).unwrap_or_default());
        let ends = connection
            .prepare("SELECT first_sent_ms, id FROM entry ORDER BY first_sent_ms")?
            .query_map([], |row| Ok((now.mono + left(row.get(0)?), row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let logins = connection
            .prepare("SELECT digest FROM login")?
            .query_map([], |row| Ok((row.get(0)?, now.mono)))?
            .collect::<Result<_, _>>()?;
        Ok(Self {
            connection,
            bounds,
            bytes: bytes.unsigned_abs(),
            entries: entries.unsigned_abs(),
            broken: None,
            ends,
            due: 0,
            next: last.saturating_add(1),
            logins,
            logins_at: now.mono,
            owed: BTreeMap::new(),
            warned: false,
            guard: None,
        })
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
        self.settle();
        // What stays in the log is read from there at the next opening.
        if let (None, Some(guard)) = (&self.broken, self.guard) {
            drop(guard.end(&self.connection));
        }
        drop(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    }

    fn serve(&mut self, group: Vec<Command>) {
        self.settle();
        let (ops, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|it| (it.op, it.reply)).unzip();
        let count = ops.len();
        let faults: Vec<_> = ops.iter().filter_map(Op::fault).collect();
        pass(&faults, "before");
        let results = match self.commit(&ops) {
            Ok(results) => results.into_iter().map(Ok).collect(),
            Err(problem) => {
                self.owe(ops);
                vec![Err(problem); count]
            }
        };
        pass(&faults, "after");
        for (reply, result) in replies.into_iter().zip(results) {
            // Who asked may have stopped waiting; what was asked for is done all the same.
            drop(reply.send(result));
        }
    }

    /// Writes down what could not be written before, if that can be done now.
    fn settle(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        let ops: Vec<Op> = std::mem::take(&mut self.owed).into_values().collect();
        if self.commit(&ops).is_err() {
            self.owe(ops);
        }
    }

    /// Keeps in memory what became of entries: their callers were told, and whoever asks again is told the same.
    fn owe(&mut self, ops: Vec<Op>) {
        let mut bytes: usize = self.owed.values().map(Op::size).sum();
        for mut op in ops {
            let (Op::Finish { id, .. } | Op::Withdraw(id)) = &op else { continue };
            let id = id.0;
            bytes += op.size();
            if bytes > MAX_OWED
                && let Op::Finish { standing: Standing::Done(kept), .. } = &mut op
            {
                *kept = None;
            }
            self.owed.insert(id, op);
        }
    }

    /// Carries out all of `ops` in one transaction, or none.
    fn commit(&mut self, ops: &[Op]) -> Result<Vec<Reply>, LedgerProblem> {
        let (entries, bytes, ends) = (self.entries, self.bytes, self.ends.len());
        let committed = self.transact(ops);
        match &committed {
            Ok(_) => drop(self.ends.drain(..self.due)),
            Err(problem) => {
                (self.entries, self.bytes) = (entries, bytes);
                self.ends.truncate(ends);
                if problem.is_uncertain() && self.broken.is_none() {
                    self.broken = Some(problem.clone());
                }
            }
        }
        self.due = 0;
        committed
    }

    fn transact(&mut self, ops: &[Op]) -> Result<Vec<Reply>, LedgerProblem> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let writes = self.guard.is_some() && ops.iter().any(|op| op.fault().is_some());
        self.connection.execute_batch("BEGIN")?;
        let carried_out = ops.iter().map(|op| self.carry_out(op)).collect::<Result<Vec<_>, _>>();
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

    fn carry_out(&mut self, op: &Op) -> Result<Reply, LedgerProblem> {
        if let Some(name) = op.fault() {
            fault::failing(name)?;
        }
        self.apply(op)
    }

    fn apply(&mut self, op: &Op) -> Result<Reply, LedgerProblem> {
        Ok(match op {
            Op::Find { scope, key, now } => Reply::Entry(self.find(*scope, key, *now)?.map(Box::new)),
            Op::Identity(digest) => {
                let find = "SELECT identity FROM login WHERE digest = ?1";
                let found = self.connection.prepare_cached(find)?.query_row([digest], |row| row.get(0));
                Reply::Identity(found.optional()?)
            }
            Op::Intend { new, now } => {
                self.prune(now.mono)?;
                Reply::Id(self.intend(new, *now)?)
            }
            Op::Finish { id, standing, at } => {
                self.owed.remove(&id.0);
                self.finish(*id, standing, *at)?;
                Reply::Nothing
            }
            Op::Withdraw(id) => {
                self.owed.remove(&id.0);
                self.drop_entry(id.0)?;
                Reply::Nothing
            }
            Op::Tally => {
                let count = "SELECT count(*) FROM entry WHERE state <> 'done'";
                let unknown: i64 = self.connection.prepare_cached(count)?.query_row([], |row| row.get(0))?;
                Reply::Tally(Tally { entries: self.entries, unknown: unknown.unsigned_abs() })
            }
        })
    }

    fn find(&self, scope: Scope, key: &str, now: Mono) -> Result<Option<Entry>, LedgerProblem> {
        let find = "SELECT id, payload, sent_key, state, first_sent_ms, ended_ms, status, headers, body
                    FROM entry WHERE scope = ?1 AND key = ?2";
        let found = self.connection.prepare_cached(find)?.query_row(params![scope, key], entry).optional()?;
        let Some((entry, state)) = found else { return Ok(None) };
        let id = entry.id.0;
        // It goes when the next entry is made; until then it is of no account.
        let mut over = self.ends.iter().take_while(|(end, _)| *end < now);
        if over.any(|(_, old)| *old == id) {
            return Ok(None);
        }
        let standing = match self.owed.get(&id) {
            Some(Op::Withdraw(_)) => return Ok(None),
            Some(Op::Finish { standing, .. }) => Some(standing.clone()),
            _ => state,
        };
        match standing {
            Some(standing) => Ok(Some(Entry { standing, ..entry })),
            None => Err(LedgerProblem::Corrupt("an entry has a state of another version".to_owned())),
        }
    }

    /// A write that is sent again keeps the time of its first sending: the upstream's memory of its key counts from there.
    fn intend(&mut self, new: &NewEntry, now: Now) -> Result<EntryId, LedgerProblem> {
        let at = now.wall.unix_millis();
        if let Some((digest, identity)) = &new.login {
            self.logins.insert(*digest, now.mono);
            let remember = "INSERT INTO login (digest, identity, seen_ms) VALUES (?1, ?2, ?3)
                            ON CONFLICT (digest) DO UPDATE SET seen_ms = excluded.seen_ms";
            self.connection.prepare_cached(remember)?.execute(params![digest, identity, at])?;
        }
        let again =
            "UPDATE entry SET state = 'sent', ended_ms = NULL WHERE scope = ?1 AND key = ?2 RETURNING id";
        let again = self
            .connection
            .prepare_cached(again)?
            .query_row(params![new.scope, new.key], |row| row.get(0))
            .optional()?;
        if let Some(id) = again {
            // What became of the sending before is over.
            self.owed.remove(&id);
            return Ok(EntryId(id));
        }
        let id = self.next;
        let insert =
            "INSERT INTO entry (id, scope, key, payload, sent_key, state, method, path, first_sent_ms)
                      VALUES (?1, ?2, ?3, ?4, ?5, 'sent', ?6, ?7, ?8)";
        let NewEntry { scope, key, payload, sent_key, method, path, .. } = new;
        let values = params![id, scope, key, payload.as_bytes(), sent_key, method, path, at];
        self.connection.prepare_cached(insert)?.execute(values)?;
        self.next = id.saturating_add(1);
        self.entries += 1;
        self.ends.push_back((now.mono + KEEP, id));
        Ok(EntryId(id))
    }

    fn finish(&mut self, id: EntryId, standing: &Standing, at: Wall) -> Result<(), LedgerProblem> {
        let (state, kept) = match standing {
            Standing::Sent => ("sent", None),
            Standing::Unknown => ("unknown", None),
            Standing::Done(kept) => ("done", kept.as_ref()),
        };
        let bytes = kept.map_or(0, |kept| kept.body.len() as u64);
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
        ended: row.get::<_, Option<i64>>("ended_ms")?.map(Wall::from_unix_millis),
        standing: Standing::Sent,
    };
    Ok((entry, standing))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::bounds::LOGINS_EVERY;
    use super::*;
    use crate::ledger::format;

    const NOW: Now = Now { wall: Wall::from_unix_millis(1_700_000_000_000), mono: Mono::ZERO };

    fn later(by: Duration) -> Now {
        let millis = i64::try_from(by.as_millis()).unwrap();
        Now { wall: Wall::from_unix_millis(NOW.wall.unix_millis() + millis), mono: NOW.mono + by }
    }

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
        intend_at(writer, number, later(Duration::from_millis(number.into())))
    }

    fn intend_at(writer: &mut Writer, number: u8, now: Now) -> Result<EntryId, LedgerProblem> {
        let new = NewEntry {
            scope: [0; 32],
            key: format!("k{number}"),
            payload: BodyDigest::raw(&[number]),
            sent_key: String::new(),
            method: "POST".into(),
            path: "/".into(),
            login: Some(([number; 32], format!("login {number}"))),
        };
        match serve(writer, vec![Op::Intend { new, now }]).remove(0)? {
            Reply::Id(id) => Ok(id),
            other => panic!("{other:?}"),
        }
    }

    fn finish(writer: &mut Writer, id: EntryId, body: usize) {
        let kept = Kept { status: 200, headers: Vec::new(), body: vec![b'x'; body] };
        let op = Op::Finish { id, standing: Standing::Done(Some(kept)), at: NOW.wall };
        serve(writer, vec![op]).remove(0).unwrap();
    }

    fn standing(writer: &mut Writer, number: u8) -> Option<Standing> {
        standing_at(writer, number, NOW.mono)
    }

    fn standing_at(writer: &mut Writer, number: u8, now: Mono) -> Option<Standing> {
        let op = Op::Find { scope: [0; 32], key: format!("k{number}"), now };
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
        let too_much = Op::Finish { id: first, standing: Standing::Done(Some(kept)), at: NOW.wall };
        let results = serve(&mut writer, vec![Op::Withdraw(second), too_much]);
        for result in results {
            assert_eq!(result.unwrap_err(), LedgerProblem::DiskFull);
        }
        let sent = "SELECT count(*) FROM entry WHERE state = 'sent'";
        let sent: i64 = writer.connection.query_row(sent, [], |row| row.get(0)).unwrap();
        assert_eq!(sent, 2, "the first of the group is undone too");
        assert_eq!((writer.entries, writer.bytes), (2, 0));
        // What could not be written is known all the same.
        let told = standing(&mut writer, 1);
        assert!(matches!(told, Some(Standing::Done(Some(kept))) if kept.body.len() == 1 << 20));
        assert_eq!(standing(&mut writer, 2), None);
        writer.connection.pragma_update(None, "max_page_count", 100_000).unwrap();
        finish(&mut writer, first, 1 << 20);
        assert!(matches!(standing(&mut writer, 1), Some(Standing::Done(Some(_)))));
    }

    #[test]
    fn what_could_not_be_written_is_written_with_the_next_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.db");
        let mut writer = Writer::new(format::open(&path).unwrap(), Bounds::default(), NOW).unwrap();
        let [done, withdrawn, again] = [1, 2, 3].map(|number| intend(&mut writer, number).unwrap());
        writer.connection.pragma_update(None, "max_page_count", 12).unwrap();
        let kept = Kept { status: 201, headers: Vec::new(), body: vec![b'x'; 1 << 20] };
        let finish = Op::Finish { id: done, standing: Standing::Done(Some(kept)), at: NOW.wall };
        for result in serve(&mut writer, vec![finish, Op::Withdraw(withdrawn), Op::Withdraw(again)]) {
            result.unwrap_err();
        }
        // The third is sent again meanwhile: what became of it before is over.
        assert_eq!(intend(&mut writer, 3).unwrap(), again);
        writer.connection.pragma_update(None, "max_page_count", 100_000).unwrap();
        serve(&mut writer, vec![Op::Tally]).remove(0).unwrap();
        drop(writer);
        let mut writer = Writer::new(format::open(&path).unwrap(), Bounds::default(), NOW).unwrap();
        assert!(matches!(standing(&mut writer, 1), Some(Standing::Done(Some(kept))) if kept.status == 201));
        assert_eq!((standing(&mut writer, 2), standing(&mut writer, 3)), (None, Some(Standing::Sent)));
    }

    fn knows_login(writer: &mut Writer, number: u8) -> bool {
        match serve(writer, vec![Op::Identity([number; 32])]).remove(0).unwrap() {
            Reply::Identity(found) => found.is_some(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_step_of_the_wall_clock_forgets_nothing_and_a_day_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.db");
        let mut writer = Writer::new(format::open(&path).unwrap(), Bounds::default(), NOW).unwrap();
        intend(&mut writer, 1).unwrap();
        // The clock is set right, by a year.
        let year = Duration::from_hours(24 * 365);
        let stepped = |by: Duration| Now { wall: later(year + by).wall, mono: later(by).mono };
        intend_at(&mut writer, 2, stepped(2 * LOGINS_EVERY)).unwrap();
        assert_eq!(standing_at(&mut writer, 1, NOW.mono + KEEP), Some(Standing::Sent));
        assert!(knows_login(&mut writer, 1));
        let over = KEEP + Duration::from_secs(1);
        assert_eq!(standing_at(&mut writer, 1, NOW.mono + over), None, "of no account before it goes");
        intend_at(&mut writer, 3, stepped(over)).unwrap();
        assert_eq!(
            (writer.entries, knows_login(&mut writer, 1), knows_login(&mut writer, 2)),
            (2, false, true)
        );
        // Another process has only the wall clock to tell by, and goes on from there.
        drop(writer);
        let mut writer = Writer::new(format::open(&path).unwrap(), Bounds::default(), stepped(over)).unwrap();
        assert_eq!(standing_at(&mut writer, 2, stepped(over).mono), Some(Standing::Sent));
        assert_eq!(standing_at(&mut writer, 2, stepped(KEEP + 3 * LOGINS_EVERY).mono), None);
    }

    #[test]
    fn an_unknown_outcome_is_forgotten_after_every_answer() {
        let mut writer = writer(Bounds { entries: 3, bytes: 1 << 20 });
        for number in 0..2 {
            let id = intend(&mut writer, number).unwrap();
            let unknown = Op::Finish { id, standing: Standing::Unknown, at: NOW.wall };
            serve(&mut writer, vec![unknown]).remove(0).unwrap();
        }
        for number in 2..5 {
            let id = intend(&mut writer, number).unwrap();
            finish(&mut writer, id, 1);
        }
        let kept = |writer: &mut Writer| -> Vec<u8> {
            (0..7).filter(|number| standing(writer, *number).is_some()).collect()
        };
        assert_eq!(kept(&mut writer), [0, 1, 4]);
        // One in flight takes the place of the answer, the next one that of the older unknown.
        intend(&mut writer, 5).unwrap();
        assert_eq!((kept(&mut writer), writer.warned), (vec![0, 1, 5], false));
        intend(&mut writer, 6).unwrap();
        assert_eq!((kept(&mut writer), writer.warned), (vec![1, 5, 6], true));
    }
}
