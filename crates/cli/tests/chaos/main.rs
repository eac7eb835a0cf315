//! The real program, killed at random moments and at every kind of journal record, against an upstream that loses
//! answers. Afterwards every single write is compared with what the simulator executed.
//!
//! The short forms run with all tests. The long ones are `cargo xtask chaos`; see docs/chaos.md.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a panic is how a test fails; real processes take real time; a long test tells how it went"
)]
#![cfg(unix)]

mod away;
mod bulk;
mod cancelled;
#[path = "../common/mod.rs"]
mod common;
mod conflict;
mod export;
mod jobs;
mod judge;
mod kill;
mod mix;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bulk::{Bulk, CONCURRENCY};
use common::World;
use judge::{Upstream, Verdict, judge};
use kill::{Campaign, Seen};
use tidegate_core::profile::Profile;
use tidegate_store::fault::{Kind, PLACES};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) seed: u64,
    pub(crate) writes: usize,
    pub(crate) kills: usize,
}

impl Size {
    /// What fits into a minute beside other tests.
    const SHORT: Self = Self { seed: 1, writes: 300, kills: 4 };

    /// What the environment asks for; by default what the project promises.
    fn long() -> Self {
        let number = |name: &str, default| {
            std::env::var(name)
                .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
        };
        let kills = number("TIDEGATE_CHAOS_KILLS", 100);
        Self { seed: number("TIDEGATE_CHAOS_SEED", 1), writes: 2_000, kills: usize::try_from(kills).unwrap() }
    }

    /// Tells how a mode went, and fails with everything that is wrong and how to see it again.
    pub(crate) fn conclude(self, mode: &str, begun: Instant, world: &World, seen: &Seen, verdict: Verdict) {
        let stats = world.sim.stats();
        let problems: Vec<String> = seen.problems.iter().cloned().chain(verdict.problems).collect();
        eprintln!(
            "{mode}: seed {}, {:.0} s, {} kills, {} fault points, {} duplicates, {} lost, {} unknown; \
             faults {:?}, {} retried, {} replayed, {} in doubt at a kill",
            self.seed,
            begun.elapsed().as_secs_f64(),
            seen.kills,
            seen.points,
            verdict.duplicates,
            verdict.lost,
            verdict.unknown,
            stats.faults,
            stats.retried,
            stats.replayed,
            seen.cut.len(),
        );
        assert!(
            problems.is_empty(),
            "{} problems; again: cargo xtask chaos --mode {mode} --seed {} --kills {}\n{}",
            problems.len(),
            self.seed,
            self.kills,
            problems.join("\n")
        );
    }
}

/// Every hundredth call is refused for now and every hundredth answered too late; of as many again the connection is closed
/// before, and after.
const FAULTS: &str = "[faults]\ndrop_after = 0.02\ndrop_before = 0.02\nunavailable = 0.01\nunavailable_hint = \"1s\"\n\
                      timeout_after = 0.01\n";

/// Where it is asked what it holds, some writes are executed after it was asked.
const LATE: &str = "late = 0.01\nlate_by = \"100ms..800ms\"\n";

/// Writes that one launch may do beyond those it is to be killed at: what is in flight, and some milliseconds more of it.
const RESERVE: u64 = 4 * CONCURRENCY as u64;

/// The simulator for a mixture of writes; tokens live for two seconds.
fn upstream(size: Size, kind: Upstream) -> String {
    let keys = if kind == Upstream::Recognises { "24h" } else { "none" };
    let late = if kind == Upstream::Shows { LATE } else { "" };
    format!(
        "users = {}\nseed = {}\nlimit = 0\nlatency = \"2ms..20ms\"\nlag = \"200ms\"\ndedup = \"{keys}\"\n\
         [oauth]\ntoken_ttl = \"2s\"\n{FAULTS}{late}",
        size.writes, size.seed
    )
}

/// The points of planning.
const FIRST: [&str; 4] =
    ["journal.append.before", "journal.append.after", "journal.planned.before", "journal.planned.after"];

/// The points that every run passes.
const POINTS: [&str; 10] = [
    "journal.intend.before",
    "journal.intend.before:9",
    "journal.intend.after",
    "journal.intend.after:9",
    "journal.record-ok.before:2",
    "journal.record-ok.after:2",
    "journal.record-failed.before",
    "journal.record-failed.after",
    "bulk.sent:5",
    "bulk.answered:5",
];

/// The points that a run passes besides, where some things cannot be known.
const UNKNOWN: [&str; 2] = ["journal.record-unknown.before", "journal.record-unknown.after"];

/// The guide's profile with waits that a test can afford, and with what is known about `kind`.
fn profile(world: &World, kind: Upstream) -> String {
    let name = world.quick_profile("genesys-guide");
    let mut text = std::fs::read_to_string(world.path(&name)).unwrap();
    if kind != Upstream::Recognises {
        let forgetful = text.replace("dedup = { for = \"24h\" }", "dedup = \"none\"");
        assert_ne!(forgetful, text);
        text = forgetful;
    }
    if kind == Upstream::Shows {
        let genesys = Profile::builtin_text("genesys").unwrap();
        let from = genesys.find("[[reconcile]]").unwrap();
        let to = from + genesys[from..].find("[[merge]]").unwrap();
        // Longer than the simulator takes to execute late, and to show what it holds.
        let rules = genesys[from..to].replace("settle = \"30s\"", "settle = \"2s\"");
        let rules = rules.replace("settle = \"10s\"", "settle = \"2s\"");
        // The word of who knows that nobody else writes: also what a killed process sent is sent again.
        let vouched = rules.replace("absent = \"unchanged\"", "absent = \"not-applied\"");
        assert_ne!(vouched, rules);
        text = text + "\n" + &vouched;
    }
    world.write(&name, text);
    name
}

fn mixed_writes(size: Size, kind: Upstream, name: &str, more: &[&str]) {
    let begun = Instant::now();
    let mut bulk = Bulk::new(&upstream(size, kind));
    let profile = profile(&bulk.world, kind);
    let writes = mix::mix(size.seed, size.writes);
    bulk.apply("w.ndjson", &mix::ndjson(&writes), writes.len(), "requests", &profile);
    let campaign = Campaign {
        victim: &bulk,
        kills: size.kills,
        reserve: RESERVE,
        patience: Duration::from_secs(3),
        first: FIRST.to_vec(),
        points: POINTS.iter().chain(more).copied().collect(),
        last: Vec::new(),
        seed: size.seed,
    };
    let seen = campaign.carry_out();
    let mut verdict = judge(&bulk.world, kind, &writes, &seen.cut);
    let code = seen.last.as_ref().and_then(|ran| ran.code);
    let expected = if kind == Upstream::Forgets { 3 } else { 1 };
    if code != Some(expected) {
        verdict.problems.push(format!("the last resume ended with {code:?}: {:#?}", seen.last));
    }
    size.conclude(name, begun, &bulk.world, &seen, verdict);
}

fn dedup(size: Size) {
    mixed_writes(size, Upstream::Recognises, "dedup", &[]);
}

fn reconcile(size: Size) {
    mixed_writes(size, Upstream::Shows, "reconcile", &[]);
}

fn plain(size: Size) {
    mixed_writes(size, Upstream::Forgets, "plain", &UNKNOWN);
}

fn jobs(size: Size) {
    jobs::jobs(size, Upstream::Recognises, "jobs");
}

fn jobs_plain(size: Size) {
    jobs::jobs(size, Upstream::Forgets, "jobs-plain");
}

#[test]
fn every_kind_of_record_and_every_other_point_ends_a_process_in_one_of_these_tests() {
    let lists: [&[&str]; 8] = [
        &FIRST,
        &POINTS,
        &UNKNOWN,
        &away::POINTS,
        &cancelled::POINTS,
        &conflict::POINTS,
        &jobs::POINTS,
        &export::points().collect::<Vec<_>>(),
    ];
    let passage = |point: &&str| point.split(':').next().unwrap_or_default().to_owned();
    let visited: BTreeSet<String> = lists.concat().iter().map(passage).collect();
    let sides = |kind: &Kind| ["before", "after"].map(|side| format!("{}.{side}", kind.point()));
    let all: BTreeSet<String> = Kind::ALL.iter().flat_map(sides).chain(PLACES.map(str::to_owned)).collect();
    assert_eq!(visited, all);
}

#[test]
fn killed_anywhere_every_write_is_done_once_where_keys_are_recognised() {
    dedup(Size::SHORT);
}

#[test]
fn killed_anywhere_only_what_nobody_can_know_is_unknown_where_keys_are_not_recognised() {
    plain(Size::SHORT);
}

#[test]
fn killed_anywhere_every_write_is_done_once_where_what_became_of_it_can_be_read() {
    reconcile(Size::SHORT);
}

#[test]
fn killed_anywhere_jobs_are_submitted_once_and_followed_to_their_end() {
    jobs(Size::SHORT);
}

#[test]
fn killed_anywhere_jobs_are_submitted_once_or_unknown_where_keys_are_not_recognised() {
    jobs_plain(Size::SHORT);
}

#[test]
fn killed_anywhere_a_change_is_applied_anew_once_where_its_entity_had_changed() {
    conflict::conflicts(Size::SHORT);
}

#[test]
fn killed_while_it_is_cancelled_what_has_left_is_told_and_the_rest_is_never_sent() {
    cancelled::cancel(Size::SHORT);
}

#[test]
fn killed_anywhere_an_export_has_each_entity_once() {
    export::export(Size::SHORT);
}

#[test]
#[ignore = "minutes; cargo xtask chaos"]
fn long_dedup() {
    dedup(Size::long());
}

#[test]
#[ignore = "minutes; cargo xtask chaos"]
fn long_plain() {
    plain(Size::long());
}

#[test]
#[ignore = "minutes; cargo xtask chaos"]
fn long_reconcile() {
    reconcile(Size::long());
}

#[test]
#[ignore = "minutes; cargo xtask chaos"]
fn long_jobs() {
    jobs(Size::long());
}

#[test]
#[ignore = "minutes; cargo xtask chaos"]
fn long_jobs_plain() {
    jobs_plain(Size::long());
}

#[test]
#[ignore = "minutes; cargo xtask chaos"]
fn long_conflict() {
    conflict::conflicts(Size::long());
}

#[test]
#[ignore = "minutes; cargo xtask chaos"]
fn long_cancel() {
    cancelled::cancel(Size::long());
}

#[test]
#[ignore = "minutes; cargo xtask chaos"]
fn long_export() {
    export::export(Size::long());
}
