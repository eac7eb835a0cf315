//! Reading a journal: counts, pages of items, and the rows of a report.
//!
//! A reader needs no lock and may look while another process runs the job; it sees what was committed. Pages are
//! keyed by sequence number, so memory is bounded whatever the size of the run and a page costs the same at the end
//! as at the beginning.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, params};
use tidegate_core::time::Wall;
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::format::{self, Access, Version, to_sql};
use crate::record::{
    Counts, Item, ItemResult, Job, NewItem, Part, PartCounts, PartState, Pending, Run, Step,
};
use crate::state::State;
use crate::writer::state_from_sql;
use crate::{guard, lock};

/// A journal open for reading.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    connection: Connection,
    /// Whether its rows have checksums.
    has_sums: bool,
}

impl Reader {
    /// Opens the journal at `path` for reading, whether or not a run is writing to it.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::NotAJournal`], [`ErrorKind::TooNewToRead`], or what the disk said.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = &lock::real(path);
        let open = || {
            let connection = format::open(path, Access::Read)?;
            // While a process writes, its own commits are the measure.
            if let Some(_quiet) = lock::quiet(path)? {
                guard::check(path)?;
            }
            Ok(connection)
        };
        let connection = open().map_err(|kind| Error::new(path, kind))?;
        let version = format::version(&connection).map_err(|kind| Error::new(path, kind))?;
        Ok(Self { path: path.clone(), connection, has_sums: version.minor > 0 })
    }

    /// Where the journal is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format of its file.
    pub fn version(&self) -> Result<Version, Error> {
        self.named(format::version(&self.connection))
    }

    /// The run.
    pub fn run(&self) -> Result<Run, Error> {
        self.named(format::run(&self.connection))
    }

    /// Whether the run was completely planned: before that nothing of it was sent.
    ///
    /// # Errors
    /// [`ErrorKind::PlanIncomplete`], or what the disk said.
    pub fn planned(&self) -> Result<(), Error> {
        match self.run()?.planned {
            Some(_) => Ok(()),
            None => self.named(Err(ErrorKind::PlanIncomplete)),
        }
    }

    /// How many items stand where.
    pub fn counts(&self) -> Result<Counts, Error> {
        self.named(self.count())
    }

    /// Up to `limit` items with a sequence number above `after`, in order. Start with 0.
    pub fn page(&self, after: u64, limit: u32) -> Result<Vec<Item>, Error> {
        self.named(self.select("", after, limit, item))
    }

    /// Up to `limit` items that a run still has to deal with, in order, after `after`.
    ///
    /// A run walks these pages once, advancing `after`: what it has in flight itself lies behind it, so everything
    /// flagged `maybe_executed` was left open by an earlier process.
    pub fn pending(&self, after: u64, limit: u32) -> Result<Vec<Pending>, Error> {
        let unfinished = "AND (p.state IS NULL OR p.state IN ('planned', 'sent', 'resent'))";
        self.named(self.select(unfinished, after, limit, |row| {
            let (item, job) = (item(row)?, job(row)?);
            Ok(Pending { maybe_executed: item.state != State::Planned && job.is_none(), item, job })
        }))
    }

    /// The items that the upstream has accepted as jobs and not ended, in order.
    pub fn open_jobs(&self) -> Result<Vec<Pending>, Error> {
        let read = || {
            // Most runs have none, and then no item need be looked at.
            if !self.connection.query_row("SELECT EXISTS (SELECT 1 FROM job)", [], |row| row.get(0))? {
                return Ok(Vec::new());
            }
            let open = "AND j.job IS NOT NULL AND p.state IN ('sent', 'resent')";
            self.select(open, 0, u32::MAX, |row| {
                Ok(Pending { maybe_executed: false, item: item(row)?, job: job(row)? })
            })
        };
        self.named(read())
    }

    /// The parts of an item, in order; none if its upstream does not tell them apart.
    pub fn parts(&self, seq: u64) -> Result<Vec<Part>, Error> {
        let read = || -> Result<Vec<Part>, ErrorKind> {
            let mut statement = self.connection.prepare_cached(
                "SELECT ord, id, line, round, state, http_status, error FROM part WHERE seq = ?1 ORDER BY ord",
            )?;
            let mut rows = statement.query([to_sql(seq)])?;
            let mut parts = Vec::new();
            while let Some(row) = rows.next()? {
                parts.push(part(row)?);
            }
            Ok(parts)
        };
        self.named(read())
    }

    /// How many parts stand where, over all items that have some. Parts that were not told apart stand where their item does.
    pub fn part_counts(&self) -> Result<PartCounts, Error> {
        let count = || -> Result<PartCounts, ErrorKind> {
            let mut counts = PartCounts::default();
            // What is not told of a part is told by its item, once that has ended.
            let mut statement = self.connection.prepare_cached(
                "SELECT coalesce(t.state, CASE p.state WHEN 'unknown' THEN 'unknown' WHEN 'failed' THEN 'failed'
                        WHEN 'cancelled' THEN 'failed' END) AS told, count(*)
                 FROM part t LEFT JOIN progress p USING (seq) GROUP BY told",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let number = row.get::<_, i64>(1)?.unsigned_abs();
                match part_state(row.get::<_, Option<String>>(0)?.as_deref())? {
                    Some(PartState::Ok) => counts.ok += number,
                    Some(PartState::Failed) => counts.failed += number,
                    Some(PartState::Unknown) => counts.unknown += number,
                    Some(PartState::Retry) | None => counts.open += number,
                    Some(PartState::Followed) => {}
                }
            }
            Ok(counts)
        };
        self.named(count())
    }

    /// Length of the file of results after the latest page that was recorded.
    pub fn result_bytes(&self) -> Result<u64, Error> {
        let read = || -> Result<u64, ErrorKind> {
            let bytes: i64 =
                self.connection.query_row("SELECT coalesce(max(bytes), 0) FROM job", [], |row| row.get(0))?;
            Ok(bytes.unsigned_abs())
        };
        self.named(read())
    }

    /// Up to `limit` items in `state`, in order, after `after`: to reconcile unknown ones, or to run failed ones again.
    pub fn in_state(&self, state: State, after: u64, limit: u32) -> Result<Vec<Item>, Error> {
        let filter = format!("AND coalesce(p.state, 'planned') = '{}'", state.name());
        self.named(self.select(&filter, after, limit, item))
    }

    /// Calls `each` for every item in order, as of one moment, without holding them in memory.
    ///
    /// # Errors
    /// The journal's, or the first error of `each`, which ends the walk.
    pub fn results<E: From<Error>>(
        &self,
        mut each: impl FnMut(ItemResult) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |kind: ErrorKind| E::from(Error::new(&self.path, kind));
        let mut statement = self
            .connection
            .prepare(
                "SELECT i.seq, i.id, coalesce(a.key, i.key) AS key, p.state, p.attempts, p.http_status, p.error,
                        i.lines, (SELECT count(*) FROM part WHERE part.seq = i.seq) AS parts
                 FROM item i LEFT JOIN progress p USING (seq) LEFT JOIN amend a USING (seq) ORDER BY i.seq",
            )
            .map_err(|error| failed(error.into()))?;
        let mut rows = statement.query([]).map_err(|error| failed(error.into()))?;
        while let Some(row) = rows.next().map_err(|error| failed(error.into()))? {
            each(result(row).map_err(failed)?)?;
        }
        Ok(())
    }

    /// Reads the whole file and checks its structure: slow on large journals, for `doctor` and after a disk error.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] with SQLite's first findings.
    pub fn verify(&self) -> Result<(), Error> {
        let check = || {
            let tables = [("progress", format::PROGRESS), ("item", format::ITEM)];
            let tables = if self.has_sums { &tables[..] } else { &[] };
            guard::verify(&self.connection, tables)
        };
        self.named(check())
    }

    fn named<T>(&self, result: Result<T, ErrorKind>) -> Result<T, Error> {
        result.map_err(|kind| Error::new(&self.path, kind))
    }

    fn count(&self) -> Result<Counts, ErrorKind> {
        // One transaction, so that the total and its parts are of the same moment.
        let snapshot = self.connection.unchecked_transaction()?;
        let mut counts = Counts::default();
        let mut touched = 0;
        let mut statement = snapshot.prepare_cached("SELECT state, count(*) FROM progress GROUP BY state")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let state = state_from_sql(row.get::<_, Option<String>>(0)?.as_deref())?;
            let number = row.get::<_, i64>(1)?.unsigned_abs();
            *counts.slot(state) += number;
            touched += number;
        }
        let untouched = format::run(&snapshot)?.items.checked_sub(touched);
        counts.planned +=
            untouched.ok_or_else(|| ErrorKind::Corrupt("more standings than items".to_owned()))?;
        Ok(counts)
    }

    fn select<T>(
        &self,
        filter: &str,
        after: u64,
        limit: u32,
        read: impl Fn(&Row<'_>) -> Result<T, ErrorKind>,
    ) -> Result<Vec<T>, ErrorKind> {
        let intact = if self.has_sums {
            "coalesce(i.sum = row_sum(i.seq, i.id, i.method, i.target, i.body, i.key, i.tx, i.lines), 1)"
        } else {
            "1"
        };
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {intact} AS intact, i.seq AS seq, i.id AS id, i.method, i.target, i.tx, i.lines, coalesce(a.key, i.key) AS key,
                    CASE WHEN a.seq IS NULL THEN i.body ELSE a.body END AS body, coalesce(a.rev, 0) AS rev,
                    p.state AS state, p.attempts, p.http_status, p.error, p.first_sent_ms, p.updated_ms,
                    j.job, j.state AS job_state, j.step, j.cursor, j.fetched, j.bytes, j.polls, j.submitted_ms,
                    j.polled_ms
             FROM item i LEFT JOIN progress p USING (seq) LEFT JOIN amend a USING (seq) LEFT JOIN job j USING (seq)
             WHERE i.seq > ?1 {filter} ORDER BY i.seq LIMIT ?2"
        ))?;
        let mut rows = statement.query(params![to_sql(after), limit])?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            page.push(read(row)?);
        }
        Ok(page)
    }
}

fn item(row: &Row<'_>) -> Result<Item, ErrorKind> {
    if !row.get::<_, bool>("intact")? {
        let seq: i64 = row.get("seq")?;
        return Err(ErrorKind::Corrupt(format!("row {seq} of item has changed")));
    }
    let request = NewItem {
        seq: row.get::<_, i64>("seq")?.unsigned_abs(),
        id: row.get("id")?,
        method: row.get("method")?,
        target: row.get("target")?,
        body: row.get("body")?,
        key: Uuid::from_bytes(row.get("key")?),
        transaction: Uuid::from_bytes(row.get("tx")?),
        lines: lines_from_text(&row.get::<_, String>("lines")?)?,
    };
    Ok(Item {
        request,
        rev: row.get("rev")?,
        state: state_from_sql(row.get::<_, Option<String>>("state")?.as_deref())?,
        attempts: row.get::<_, Option<u32>>("attempts")?.unwrap_or(0),
        http_status: row.get("http_status")?,
        error: row.get("error")?,
        first_sent: row.get::<_, Option<i64>>("first_sent_ms")?.map(Wall::from_unix_millis),
        updated: row.get::<_, Option<i64>>("updated_ms")?.map(Wall::from_unix_millis),
    })
}

fn job(row: &Row<'_>) -> Result<Option<Job>, ErrorKind> {
    let Some(id) = row.get::<_, Option<String>>("job")? else { return Ok(None) };
    let step: String = row.get("step")?;
    let step = Step::from_name(&step).ok_or_else(|| ErrorKind::Corrupt(format!("unknown step `{step}`")))?;
    Ok(Some(Job {
        id,
        state: row.get("job_state")?,
        step,
        cursor: row.get("cursor")?,
        fetched: row.get::<_, i64>("fetched")?.unsigned_abs(),
        bytes: row.get::<_, i64>("bytes")?.unsigned_abs(),
        polls: row.get("polls")?,
        submitted: Wall::from_unix_millis(row.get("submitted_ms")?),
        polled: row.get::<_, Option<i64>>("polled_ms")?.map(Wall::from_unix_millis),
    }))
}

fn part(row: &Row<'_>) -> Result<Part, ErrorKind> {
    Ok(Part {
        ord: row.get("ord")?,
        id: row.get("id")?,
        line: row.get::<_, Option<i64>>("line")?.map(i64::unsigned_abs),
        round: row.get("round")?,
        state: part_state(row.get::<_, Option<String>>("state")?.as_deref())?,
        http_status: row.get("http_status")?,
        error: row.get("error")?,
    })
}

fn part_state(name: Option<&str>) -> Result<Option<PartState>, ErrorKind> {
    let read = |name: &str| {
        PartState::from_name(name)
            .ok_or_else(|| ErrorKind::Corrupt(format!("unknown state `{name}` of a part")))
    };
    name.map(read).transpose()
}

fn result(row: &Row<'_>) -> Result<ItemResult, ErrorKind> {
    Ok(ItemResult {
        seq: row.get::<_, i64>("seq")?.unsigned_abs(),
        id: row.get("id")?,
        state: state_from_sql(row.get::<_, Option<String>>("state")?.as_deref())?,
        http_status: row.get("http_status")?,
        attempts: row.get::<_, Option<u32>>("attempts")?.unwrap_or(0),
        key: Uuid::from_bytes(row.get("key")?),
        error: row.get("error")?,
        lines: lines_from_text(&row.get::<_, String>("lines")?)?,
        parts: row.get("parts")?,
    })
}

fn lines_from_text(text: &str) -> Result<Vec<u64>, ErrorKind> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|line| line.parse().map_err(|_| ErrorKind::Corrupt(format!("`{line}` is no line number"))))
        .collect()
}
