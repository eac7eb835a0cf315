//! What the report says, item by item, against what the simulator executed.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_sim::model::ledger::WriteBook;

use crate::common::{World, by_status};
use crate::kill::books;
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

/// One row of the result.
struct Row {
    status: String,
    key: String,
}

/// Everything that is wrong with the result in `out.csv`; `cut` are the items under way when a process was killed.
pub(crate) fn judge(
    world: &World,
    upstream: Upstream,
    writes: &[Write],
    cut: &BTreeSet<String>,
) -> Vec<String> {
    let rows = rows(world);
    let mut books = books(world);
    let mut problems = Vec::new();
    for write in writes {
        let Some(row) = rows.get(&write.id) else {
            problems.push(format!("{} is missing in the result", write.id));
            continue;
        };
        let keyed = write.kind != Kind::Delete;
        let book = books.remove(if keyed { &row.key } else { &write.path });
        let told = one(upstream, write, row, book.as_ref(), cut.contains(&write.id));
        problems.extend(
            told.into_iter()
                .map(|what| format!("{} ({:?}, `{}`): {what}; {book:?}", write.id, write.kind, row.status)),
        );
    }
    problems.extend(books.values().map(|book| format!("a write nobody asked for: {book:?}")));
    if rows.len() != writes.len() {
        problems.push(format!("{} rows for {} writes", rows.len(), writes.len()));
    }
    let stats = world.stats();
    if stats.duplicates + stats.key_reuse > 0 {
        let told =
            format!("{} duplicates, {} keys used for other content", stats.duplicates, stats.key_reuse);
        problems.push(told);
    }
    problems.extend(entities(writes, &rows, &stats.users.unwrap_or_default()));
    problems
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
    let silent = book.and_then(|book| book.attempts.last()).is_some_and(|attempt| {
        matches!(attempt.fault.as_deref(), Some("drop-before" | "drop-after" | "timeout-after"))
    });
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
