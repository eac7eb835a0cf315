//! What the report says, item by item, against what the simulator executed.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_sim::model::ledger::WriteBook;

use crate::bulk::{books, is_silent};
use crate::common::{World, by_status};
use crate::mix::{Kind, Write};

/// How an upstream helps to find out what became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// It recognises writes it has executed by their keys: nothing may be left unknown.
    Recognises,
    /// It does not, but shows what it holds: nothing may be left unknown.
    Shows,
    /// It does neither: what nobody can know is unknown, and nothing else.
    Forgets,
}

/// What a mode came to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Everything that is wrong.
    pub(crate) problems: Vec<String>,
    /// Writes that were executed more than once and must not be.
    pub(crate) duplicates: u64,
    /// Writes that are called done and are not, or of which nothing is told.
    pub(crate) lost: u64,
    /// Writes that are told to be unknown.
    pub(crate) unknown: u64,
}

impl Verdict {
    /// Takes over what is wrong with one write that is told to be `status` and was executed so often.
    pub(crate) fn of(
        &mut self,
        status: &str,
        executed: u64,
        name: &str,
        wrong: impl IntoIterator<Item = String>,
    ) {
        self.lost += u64::from((status == "ok" && executed == 0) || status == "pending");
        self.unknown += u64::from(status == "unknown");
        self.problems.extend(wrong.into_iter().map(|what| format!("{name} (`{status}`): {what}")));
    }

    /// Adds what the simulator has counted in the whole.
    pub(crate) fn count(&mut self, world: &World) {
        let stats = world.sim.stats();
        self.duplicates += stats.duplicates;
        if stats.duplicates + stats.key_reuse > 0 {
            self.problems.push(format!(
                "{} duplicates, {} of them emails, {} keys used for other content",
                stats.duplicates, stats.duplicate_emails, stats.key_reuse
            ));
        }
    }
}

/// One row of the result.
struct Row {
    status: String,
    key: String,
}

/// What is to be said of the result in `out.csv`; `cut` are the items under way when a process was killed.
pub(crate) fn judge(world: &World, upstream: Upstream, writes: &[Write], cut: &BTreeSet<String>) -> Verdict {
    let rows = rows(world);
    let mut books = books(world);
    let mut verdict = Verdict::default();
    for write in writes {
        let Some(row) = rows.get(&write.id) else {
            verdict.lost += 1;
            verdict.problems.push(format!("{} is missing in the result", write.id));
            continue;
        };
        let keyed = write.kind != Kind::Delete;
        let book = books.remove(if keyed { &row.key } else { &write.path });
        let executed = book.as_ref().map_or(0, |book| book.executed);
        let told = one(upstream, write, row, book.as_ref(), cut.contains(&write.id));
        let told = told.into_iter().map(|what| format!("{what}; {:?}, {book:?}", write.kind));
        verdict.of(&row.status, executed, &write.id, told);
    }
    verdict.problems.extend(books.values().map(|book| format!("a write nobody asked for: {book:?}")));
    if rows.len() != writes.len() {
        verdict.problems.push(format!("{} rows for {} writes", rows.len(), writes.len()));
    }
    verdict.count(world);
    verdict.problems.extend(entities(writes, &rows, &world.stats().users.unwrap_or_default()));
    verdict
}

fn rows(world: &World) -> BTreeMap<String, Row> {
    let csv = std::fs::read_to_string(world.path("out.csv")).unwrap();
    let mut rows = BTreeMap::new();
    for (status, found) in by_status(&csv) {
        for fields in found {
            let row = Row { status: status.clone(), key: fields[4].clone() };
            assert!(rows.insert(fields[0].clone(), row).is_none(), "{} stands there twice", fields[0]);
        }
    }
    rows
}

/// What is wrong with one row.
fn one(
    upstream: Upstream,
    write: &Write,
    row: &Row,
    book: Option<&WriteBook>,
    cut: bool,
) -> Vec<&'static str> {
    let executed = book.map_or(0, |book| book.executed);
    let once = upstream == Upstream::Recognises || !matches!(write.kind, Kind::Replace);
    // The last attempt decides: an earlier one that left doubt was followed by another only where that does no harm.
    let silent = book.and_then(|book| book.attempts.last()).is_some_and(is_silent);
    let doubt = upstream == Upstream::Forgets && !write.kind.is_repeatable() && (silent || cut);
    let rules = [
        (once && executed > 1, "executed more than once"),
        (row.status == "ok" && executed == 0, "never executed"),
        (row.status == "failed" && executed > 0, "executed all the same"),
        (row.status == "failed" && write.kind != Kind::Stale, "nothing is wrong with it"),
        (row.status == "ok" && write.kind == Kind::Stale, "its version is wrong"),
        (row.status == "pending", "the run has ended"),
        (row.status == "unknown" && !doubt, "it can be known"),
        (row.status != "unknown" && doubt, "nobody can know this"),
    ];
    rules.into_iter().filter_map(|(broken, what)| broken.then_some(what)).collect()
}

/// What is wrong with the users that were written: the state itself, whatever the books say.
fn entities(
    writes: &[Write],
    rows: &BTreeMap<String, Row>,
    users: &BTreeMap<String, BTreeMap<String, f64>>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for write in writes {
        let Some(user) = &write.user else { continue };
        if rows.get(&write.id).is_none_or(|row| row.status != "ok") {
            continue;
        }
        let there = users.get(user);
        let right = match write.kind {
            Kind::Delete => there.is_none(),
            Kind::Merge | Kind::Replace => there.is_some_and(|skills| skills.len() == 2),
            Kind::Create | Kind::Rename | Kind::Stale => there.is_some(),
        };
        if !right {
            problems.push(format!("{} ({:?}) is `ok`, but its user is {there:?}", write.id, write.kind));
        }
    }
    problems
}
