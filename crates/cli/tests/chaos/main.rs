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
#[path = "../common/mod.rs"]
mod common;
mod jobs;
mod judge;
mod kill;
mod mix;

use std::time::{Duration, Instant};

use common::World;
use judge::{Upstream, judge};
use kill::{Campaign, Seen};
use tidegate_core::profile::Profile;

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
    pub(crate) fn conclude(
        self,
        mode: &str,
        begun: Instant,
        world: &World,
        seen: &Seen,
        problems: &[String],
    ) {
        let stats = world.stats();
        eprintln!(
            "{mode}: seed {}, {} kills, {} fault points, faults {:?}, {} retried, {} replayed, {} in doubt at a kill, {:.0} s",
            self.seed,
            seen.kills,
            seen.points,
            stats.faults,
            stats.retried,
            stats.replayed,
            seen.cut.len(),
            begun.elapsed().as_secs_f64(),
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

/// Every hundredth answer is lost in each of four ways, one of them twice as often; tokens live for two seconds.
fn upstream(size: Size, kind: Upstream) -> String {
    let keys = if kind == Upstream::Recognises { "24h" } else { "none" };
    // Where it is asked what it holds, some writes are executed after it was asked.
    let late = if kind == Upstream::Shows { "late = 0.01\nlate_by = \"100ms..800ms\"\n" } else { "" };
    format!(
        "users = {}\nseed = {}\nlimit = 0\nlatency = \"2ms..20ms\"\nlag = \"200ms\"\ndedup = \"{keys}\"\n\
         [oauth]\ntoken_ttl = \"2s\"\n\
         [faults]\ndrop_after = 0.02\ndrop_before = 0.02\nunavailable = 0.01\nunavailable_hint = \"1s\"\n\
         timeout_after = 0.01\n{late}",
        size.writes, size.seed
    )
}

/// The points that every run passes.
const POINTS: [&str; 14] = [
    "journal.append.before",
    "journal.append.after",
    "journal.planned.before",
    "journal.planned.after",
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
        let to = from + genesys[from..].find("[oauth]").unwrap();
        // Longer than the simulator takes to execute late, and to show what it holds.
        let rules = genesys[from..to].replace("settle = \"30s\"", "settle = \"2s\"");
        text = text + "\n" + &rules.replace("settle = \"10s\"", "settle = \"2s\"");
    }
    world.write(&name, text);
    name
}

fn mixed_writes(size: Size, kind: Upstream, name: &str, more: &[&str]) {
    let begun = Instant::now();
    let world = World::new(&upstream(size, kind));
    let profile = profile(&world, kind);
    let writes = mix::mix(size.seed, size.writes);
    world.write("w.ndjson", mix::ndjson(&writes));
    let campaign = Campaign {
        world: &world,
        run: vec!["w.ndjson", "--recipe", "requests", "--profile", &profile],
        input: "w.ndjson",
        writes: size.writes as u64,
        kills: size.kills,
        patience: Duration::from_secs(3),
        points: POINTS.iter().chain(more).copied().collect(),
        seed: size.seed,
    };
    let seen = campaign.carry_out();
    let mut problems = seen.problems.clone();
    problems.extend(judge(&world, kind, &writes, &seen.cut));
    let code = seen.last.as_ref().and_then(|ran| ran.code);
    let expected = if kind == Upstream::Forgets { 3 } else { 1 };
    if code != Some(expected) {
        problems.push(format!("the last resume ended with {code:?}: {:#?}", seen.last));
    }
    size.conclude(name, begun, &world, &seen, &problems);
}

fn dedup(size: Size) {
    mixed_writes(size, Upstream::Recognises, "dedup", &[]);
}

fn reconcile(size: Size) {
    mixed_writes(size, Upstream::Shows, "reconcile", &[]);
}

fn plain(size: Size) {
    mixed_writes(
        size,
        Upstream::Forgets,
        "plain",
        &["journal.record-unknown.before", "journal.record-unknown.after"],
    );
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
    jobs::jobs(Size::SHORT);
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
    jobs::jobs(Size::long());
}
