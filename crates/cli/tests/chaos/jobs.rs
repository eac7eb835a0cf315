//! Asynchronous jobs whose process is killed: submitted once, followed by whichever process is there, and what they call
//! retryable sent again exactly once each time.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::Size;
use crate::common::{World, by_status};
use crate::kill::Campaign;

/// Users that one job creates: the recipe's bound.
const PER_JOB: usize = 100;

/// The points that a run of jobs passes besides the ordinary ones.
const POINTS: [&str; 14] = [
    "journal.planned.after",
    "journal.intend.before:2",
    "journal.intend.after",
    "bulk.sent",
    "bulk.answered",
    "journal.accept.before",
    "journal.accept.after",
    "journal.polled.before",
    "journal.polled.after",
    "journal.fetched.before",
    "journal.fetched.after",
    "journal.follow.before",
    "journal.follow.after",
    "journal.record-ok.before",
];

/// Jobs that create users, a fiftieth of which is refused as retryable at each try.
pub(crate) fn jobs(size: Size) {
    let begun = Instant::now();
    // Each launch sees some end, so the more kills, the more jobs.
    let kills = size.kills.min(30);
    let jobs = 14 + 2 * kills;
    let users = jobs * PER_JOB;
    let world = World::new(&format!(
        "users = 5\nseed = {}\nlimit = 0\nbulk_allocation = \"100000 per 1m\"\nlatency = \"2ms..20ms\"\ndedup = \"24h\"\n\
         [oauth]\ntoken_ttl = \"2s\"\n[jobs]\nqueued = \"100ms\"\nrunning = \"400ms\"\nretryable = 0.02\n\
         [faults]\ndrop_after = 0.02\ndrop_before = 0.02\nunavailable = 0.01\nunavailable_hint = \"1s\"\n\
         timeout_after = 0.01\n",
        size.seed
    ));
    let profile = world.quick_profile("genesys-guide");
    let mut csv = "name,email\n".to_owned();
    for user in 1..=users {
        writeln!(csv, "Agent {user},job{user}@example.com").unwrap();
    }
    world.write("u.csv", csv);
    let campaign = Campaign {
        world: &world,
        run: vec!["u.csv", "--recipe", "bulk-users", "--profile", &profile],
        input: "u.csv",
        // A submission is one write.
        writes: jobs as u64,
        kills,
        // Most of a job's life is polling.
        patience: Duration::from_millis(600),
        points: POINTS.to_vec(),
        seed: size.seed,
    };
    let seen = campaign.carry_out();
    let mut problems = seen.problems.clone();
    let rows = by_status(&std::fs::read_to_string(world.path("out.csv")).unwrap());
    let stats = world.stats();
    let counts: Vec<(&String, usize)> = rows.iter().map(|(status, rows)| (status, rows.len())).collect();
    if counts != [(&"ok".to_owned(), users)] {
        problems.push(format!("statuses of {users} users: {counts:?}"));
    }
    if stats.users_total != users as u64 + 5 {
        problems.push(format!("{} users exist", stats.users_total));
    }
    // The same jobs again would be the same emails again. (That a job has the content of another one proves nothing here:
    // what is refused as retryable twice is sent alone twice, and rightly.)
    if stats.duplicates + stats.duplicate_emails > 0 {
        problems.push(format!("{} duplicates, {} of them emails", stats.duplicates, stats.duplicate_emails));
    }
    size.conclude("jobs", begun, &world, &seen, &problems);
}
