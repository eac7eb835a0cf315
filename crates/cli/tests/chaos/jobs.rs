//! Asynchronous jobs whose process is killed: submitted once, followed by whichever process is there, and what they call
//! retryable sent again exactly once each time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tidegate_sim::model::ledger::WriteBook;
use tidegate_store::{ItemResult, State};

use crate::bulk::{Bulk, CONCURRENCY, books, is_silent};
use crate::common::by_status;
use crate::judge::{Upstream, Verdict};
use crate::kill::Campaign;
use crate::{FAULTS, Size, profile};

/// Users that one job creates: the recipe's bound.
const PER_JOB: usize = 100;

/// The points of planning.
const FIRST: [&str; 1] = ["journal.planned.after"];

/// The points that a run of jobs passes besides the ordinary ones.
pub(crate) const POINTS: [&str; 15] = [
    "journal.intend.before:2",
    "journal.intend.after",
    "bulk.sent",
    "bulk.answered",
    "bulk.page",
    "journal.accept.before",
    "journal.accept.after",
    "journal.polled.before",
    "journal.polled.after",
    "journal.fetched.before",
    "journal.fetched.after",
    "journal.follow.before",
    "journal.follow.after",
    "journal.record-ok.before",
    "journal.record-ok.after",
];

/// Jobs that create users, a fiftieth of which is refused as retryable at each try.
pub(crate) fn jobs(size: Size, kind: Upstream, name: &str) {
    let begun = Instant::now();
    // Each launch sees some end, so the more kills, the more jobs. Some launches end just when all they have submitted is in
    // doubt, and where keys are not recognised, that is the end of those jobs.
    let kills = size.kills.min(30);
    let doubtful = if kind == Upstream::Forgets { 4 * CONCURRENCY } else { 0 };
    let jobs = 16 + 2 * kills + doubtful;
    let users = jobs * PER_JOB;
    let keys = if kind == Upstream::Recognises { "24h" } else { "none" };
    let mut bulk = Bulk::new(&format!(
        "users = 5\nseed = {}\nlimit = 0\nbulk_allocation = \"100000 per 1m\"\nlatency = \"2ms..20ms\"\ndedup = \"{keys}\"\n\
         [oauth]\ntoken_ttl = \"2s\"\n[jobs]\nqueued = \"100ms\"\nrunning = \"400ms\"\nretryable = 0.02\n{FAULTS}",
        size.seed
    ));
    let profile = profile(&bulk.world, kind);
    let mut csv = "name,email\n".to_owned();
    for user in 1..=users {
        writeln!(csv, "Agent {user},job{user}@example.com").unwrap();
    }
    bulk.apply("u.csv", &csv, jobs, "bulk-users", &profile);
    let campaign = Campaign {
        victim: &bulk,
        kills,
        reserve: 0,
        // Most of a job's life is polling.
        patience: Duration::from_millis(600),
        first: FIRST.to_vec(),
        points: POINTS.to_vec(),
        last: Vec::new(),
        seed: size.seed,
    };
    let seen = campaign.carry_out();
    let verdict = judge(&bulk, kind, users, &seen.cut);
    size.conclude(name, begun, &bulk.world, &seen, verdict);
}

/// Submission by submission, as the journal tells them, against what the simulator accepted; then row by row.
fn judge(bulk: &Bulk, kind: Upstream, users: usize, cut: &BTreeSet<String>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut items = Vec::new();
    let read = |item| {
        items.push(item);
        Ok::<(), tidegate_store::Error>(())
    };
    bulk.reader().unwrap().results(read).unwrap();
    let mut books = books(&bulk.world);
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (status, found) in by_status(&std::fs::read_to_string(bulk.world.path("out.csv")).unwrap()) {
        for row in found {
            rows.entry(row[4].clone()).or_default().push(status.clone());
        }
    }
    let (mut ok, mut unknown) = (0, 0);
    for item in &items {
        let book = books.remove(&item.key.to_string());
        let told = rows.remove(&item.key.to_string()).unwrap_or_default();
        let status = if item.state == State::Unknown { "unknown" } else { item.state.name() };
        let wrong = submission(item, kind, book.as_ref(), &told, cut.contains(&item.id));
        let wrong = wrong.into_iter().map(|what| format!("{what}; {book:?}"));
        verdict.of(status, book.as_ref().map_or(0, |book| book.executed), &item.id, wrong);
        ok += told.iter().filter(|status| *status == "ok").count();
        // The rows of a submission that nobody has accepted are told as one.
        let whole = item.state == State::Unknown && item.parts == 0;
        unknown += if whole { PER_JOB } else { told.iter().filter(|status| *status == "unknown").count() };
    }
    verdict.problems.extend(books.values().map(|book| format!("a write nobody asked for: {book:?}")));
    verdict.problems.extend(rows.keys().map(|key| format!("a row of no submission: {key}")));
    if ok + unknown != users {
        verdict.problems.push(format!("{ok} rows are `ok` and {unknown} unknown, of {users}"));
    }
    let there = usize::try_from(bulk.world.sim.stats().users_total).unwrap() - 5;
    if !(ok..=ok + unknown).contains(&there) {
        verdict.problems.push(format!("{there} users exist, {ok} rows are `ok`, {unknown} unknown"));
    }
    // The same job again would be the same emails again. (That a job has the content of another one proves nothing here: what is
    // refused as retryable twice is sent alone twice, and rightly.)
    verdict.count(&bulk.world);
    verdict
}

/// What is wrong with one submission, whose rows are told to be `told`.
fn submission(
    item: &ItemResult,
    kind: Upstream,
    book: Option<&WriteBook>,
    told: &[String],
    cut: bool,
) -> Vec<&'static str> {
    let executed = book.map_or(0, |book| book.executed);
    let silent = book.and_then(|book| book.attempts.last()).is_some_and(is_silent);
    let doubt = kind == Upstream::Forgets && (silent || cut);
    let unknown = item.state == State::Unknown;
    let rules = [
        (executed > 1, "submitted more than once"),
        (item.state == State::Ok && executed == 0, "never submitted"),
        (!matches!(item.state, State::Ok | State::Unknown), "neither done nor unknown"),
        (unknown && !doubt, "it can be known"),
        (!unknown && doubt, "nobody can know this"),
        (unknown && told.iter().any(|status| status != "unknown"), "a row of it is told otherwise"),
        (!unknown && told.iter().any(|status| status != "ok"), "a row of it is not `ok`"),
    ];
    rules.into_iter().filter_map(|(broken, what)| broken.then_some(what)).collect()
}
