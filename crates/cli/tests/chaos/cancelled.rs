//! Runs that are cancelled after a kill, and cancellations that are killed themselves: what was not sent never will be, and
//! nothing that may have been done is called cancelled.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidegate_sim::model::ledger::WriteBook;

use crate::bulk::{Bulk, books, has_left, is_silent};
use crate::common::{Ran, by_status, ran};
use crate::judge::{Upstream, Verdict};
use crate::kill::{Seen, Victim, start};
use crate::mix::{self, Kind, Write};
use crate::{Size, profile, upstream};

/// Writes of one run: more than it applies until it has heard that it is to be cancelled, which takes up to a third of a second.
const WRITES: usize = 160;

/// So many of them are executed at most before something happens.
const STEP: u64 = 20;

/// How long that may take, whatever the upstream does.
const PATIENCE: Duration = Duration::from_mins(1);

/// Around the one record of a cancellation.
pub(crate) const POINTS: [&str; 2] = ["journal.cancel.before", "journal.cancel.after"];

/// How a run is ended. Each way ends some processes before their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The run is killed, then the cancellation at each of its points.
    AtPoints,
    /// The running process is asked, and ends itself before or after it has written that.
    Asked(&'static str),
    /// The run is killed, then the cancellation at a moment that the seed says.
    Twice,
    /// The run is killed, then the cancellation before its record: the run is resumed as if nobody had asked.
    Resumed,
}

const WAYS: [Way; 5] =
    [Way::AtPoints, Way::Asked(POINTS[0]), Way::Twice, Way::Asked(POINTS[1]), Way::Resumed];

/// One run after another, each ended in one of the ways.
pub(crate) fn cancel(size: Size) {
    let begun = Instant::now();
    // Each of the ways costs one kill, about.
    let rounds = size.kills.clamp(WAYS.len(), 40);
    let writes = mix::mix(size.seed, rounds * WRITES);
    let slow = upstream(Size { writes: writes.len(), ..size }, Upstream::Recognises)
        .replace("latency = \"2ms..20ms\"", "latency = \"20ms..60ms\"");
    let mut bulk = Bulk::new(&slow);
    let profile = profile(&bulk.world, Upstream::Recognises);
    let mut rng = fastrand::Rng::with_seed(size.seed ^ 0x6361_6e63);
    let (mut seen, mut verdict) = (Seen::default(), Verdict::default());
    for (round, (writes, way)) in writes.chunks(WRITES).zip(WAYS.into_iter().cycle()).enumerate() {
        bulk.apply(&format!("c{round}.ndjson"), &mix::ndjson(writes), WRITES, "requests", &profile);
        let cut = end(&bulk, way, &mut rng, &mut seen);
        judge(&bulk, way, writes, &cut, &mut verdict);
        seen.cut.extend(cut);
    }
    let known: usize = books(&bulk.world).len();
    if known > writes.len() {
        verdict.problems.push(format!("{known} writes were seen, and {} asked for", writes.len()));
    }
    verdict.count(&bulk.world);
    size.conclude("cancel", begun, &bulk.world, &seen, verdict);
}

fn cancellation(bulk: &Bulk) -> std::process::Command {
    bulk.world.bulk(&["cancel", "--journal", &bulk.journal(), "--yes"])
}

/// Begins a run, and waits until it has done something.
fn begin(bulk: &Bulk, point: Option<&str>, rng: &mut fastrand::Rng) -> crate::common::Running {
    let before = bulk.progress();
    let mut command = bulk.command();
    if let Some(point) = point {
        command.env("TIDEGATE_FAULT_POINT", point);
    }
    let run = start(command);
    let (spawned, step) = (Instant::now(), rng.u64(1..=STEP));
    while bulk.progress() < before + step {
        assert!(spawned.elapsed() < PATIENCE, "nothing is executed");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(rng.u64(0..=15)));
    run
}

/// Ends a run that way. What was under way when it was killed, by id.
fn end(bulk: &Bulk, way: Way, rng: &mut fastrand::Rng, seen: &mut Seen) -> BTreeSet<String> {
    if let Way::Asked(point) = way {
        let run = begin(bulk, Some(point), rng);
        let asked = start(cancellation(bulk));
        let run = run.end();
        assert_eq!(run.code, None, "{point} was not reached: {run:#?}");
        seen.points += 1;
        assert_cancelled(&asked.end());
        return BTreeSet::new();
    }
    let run = seen.kill(begin(bulk, None, rng));
    assert_eq!(run.code, None, "the run ended before it was killed, give it more writes: {run:#?}");
    let cut = bulk.in_doubt();
    match way {
        Way::AtPoints => {
            for (point, cancelled) in POINTS.into_iter().zip([false, true]) {
                seen.at_point(cancellation(bulk), point);
                assert_eq!(is_cancelled(bulk), cancelled, "{point}");
            }
            let again = ran(cancellation(bulk));
            assert!(again.err.contains("was cancelled before"), "{again:#?}");
        }
        Way::Twice => {
            let asked = start(cancellation(bulk));
            std::thread::sleep(Duration::from_millis(rng.u64(0..=40)));
            seen.kill(asked);
            assert_cancelled(&ran(cancellation(bulk)));
        }
        Way::Resumed | Way::Asked(_) => seen.at_point(cancellation(bulk), POINTS[0]),
    }
    cut
}

fn is_cancelled(bulk: &Bulk) -> bool {
    bulk.reader().unwrap().run().unwrap().cancelled.is_some()
}

#[track_caller]
fn assert_cancelled(asked: &Ran) {
    // Some were not sent; or something may have been done.
    assert!(matches!(asked.code, Some(1 | 3)), "{asked:#?}");
}

/// Compares the report of a run with what was executed, and tries to go on with it.
fn judge(bulk: &Bulk, way: Way, writes: &[Write], cut: &BTreeSet<String>, verdict: &mut Verdict) {
    let before = bulk.progress();
    let resumed = ran(bulk.command());
    if way == Way::Resumed {
        assert!(matches!(resumed.code, Some(0 | 1)), "{resumed:#?}");
    } else {
        assert!(resumed.err.contains("was cancelled; nothing is left to do"), "{resumed:#?}");
        assert_eq!(bulk.progress(), before, "something was sent after the end");
    }
    let report = ran(bulk.world.bulk(&["report", "--journal", &bulk.journal()]));
    let rows: Vec<Vec<String>> = by_status(&report.out).into_values().flatten().collect();
    if rows.len() != writes.len() {
        verdict.problems.push(format!("{way:?}: {} rows for {} writes", rows.len(), writes.len()));
    }
    let books = books(&bulk.world);
    for write in writes {
        let Some(row) = rows.iter().find(|row| row[0] == write.id) else {
            verdict.lost += 1;
            verdict.problems.push(format!("{} is missing in the result", write.id));
            continue;
        };
        let book = books.get(if write.kind == Kind::Delete { &write.path } else { &row[4] });
        let wrong = one(way, write, row, book, cut.contains(&write.id));
        let wrong = wrong
            .into_iter()
            .map(|what| format!("{what}; {way:?}, {:?}, `{}`, {book:?}", write.kind, row[5]));
        verdict.of(&row[1], book.map_or(0, |book| book.executed), &write.id, wrong);
    }
}

/// What is wrong with one row.
fn one(way: Way, write: &Write, row: &[String], book: Option<&WriteBook>, cut: bool) -> Vec<&'static str> {
    let (status, error) = (row[1].as_str(), row[5].as_str());
    let executed = book.map_or(0, |book| book.executed);
    let attempts = book.map(|book| book.attempts.as_slice()).unwrap_or_default();
    let cancelled = status == "failed" && error.contains("cancelled before it was sent");
    let goes_on = way == Way::Resumed;
    // An answer was lost, or nobody was left to hear it.
    let doubt = cut || attempts.iter().any(is_silent);
    let rules = [
        (executed > 1, "executed more than once"),
        (status == "ok" && executed == 0, "never executed"),
        (status == "failed" && executed > 0, "executed all the same"),
        (cancelled && attempts.iter().any(has_left), "cancelled, and it has left"),
        (cancelled && goes_on, "the run was not cancelled"),
        (status == "failed" && !cancelled && write.kind != Kind::Stale, "nothing is wrong with it"),
        (status == "ok" && write.kind == Kind::Stale, "its version is wrong"),
        (status == "pending", "the run has ended"),
        (status == "unknown" && (goes_on || !doubt), "it can be known"),
        (status != "unknown" && !goes_on && cut, "nobody can know this any more"),
    ];
    rules.into_iter().filter_map(|(broken, what)| broken.then_some(what)).collect()
}
