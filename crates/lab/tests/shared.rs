//! Fleets that share a quota through a store, in virtual time.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use tidegate_lab::sharing::Sharing;
use tidegate_lab::{LabError, Options, Report, Scenario, StrategyName, run, sockets};

/// Six processes that want half as much again as one quota gives, for half a minute.
fn fleet(quota: &str) -> String {
    format!(
        "name = \"six\"\nduration = \"30s\"\n[server]\nlimit = 60\nwindow = \"2s\"\nlatency = \"5ms..15ms\"\n[fleet]\ninstances = 6\nrtt = \"10ms..20ms\"\nstrategies = [\"tidegate\"]\n{quota}\n[[fleet.load]]\nrate = 7.5\nskew = 0.8\nirregular = true\n"
    )
}

/// The same where no answer tells anything and the quota is declared, so that each knows how long a window is.
fn declared(limit: u32, quota: &str, seed: u64) -> Report {
    let text = fleet(&format!("declared = true\n{quota}"));
    let text = text.replace("limit = 60", &format!("limit = {limit}\nheaders = \"none\""));
    let scenario = Scenario::from_toml(&text).unwrap_or_else(|error| panic!("{error}"));
    run(&scenario, &Options { seed: Some(seed), ..Options::default() }).unwrap()
}

const SHARED: &str = "[fleet.quota]\nstore = \"shared\"";

fn played(quota: &str, seed: u64) -> Report {
    let scenario = Scenario::from_toml(&fleet(quota)).unwrap_or_else(|error| panic!("{error}"));
    run(&scenario, &Options { seed: Some(seed), ..Options::default() }).unwrap()
}

fn sharing(report: &Report) -> Sharing {
    report.measures().next().unwrap().sharing.expect("the fleet has a store")
}

fn lines(quota: &str) -> Vec<String> {
    match Scenario::from_toml(&fleet(quota)) {
        Err(LabError::Invalid(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fleet_that_shares_is_hardly_throttled_where_one_that_does_not_is() {
    let (shared, alone) = (played(SHARED, 1), played("", 1));
    let throttles = |report: &Report| report.measures().next().unwrap().throttles_per_100;
    assert!(throttles(&shared) <= 1.0 && throttles(&alone) >= 3.0, "{}{}", shared.table(), alone.table());
    assert!(alone.measures().next().unwrap().sharing.is_none());
    assert!(shared.table().contains("fleet: 6 instances, sharing through a store 1ms away"));
    assert!(alone.table().contains("fleet: 6 instances, each on its own"));
}

#[test]
fn a_window_told_in_whole_seconds_is_used_wherever_in_a_second_it_ends() {
    let mut scenario = Scenario::from_toml(tidegate_lab::builtin::text("fleet-8").unwrap())
        .unwrap_or_else(|error| panic!("{error}"));
    // The clock of the server reads another part of a second with each seed, and so does each window that opens.
    for (dialect, seeds) in
        [("guide", [1, 5, 8, 10]), ("guide", [11, 12, 22, 14]), ("xratelimit", [1, 2, 3, 4])]
    {
        scenario.server.headers = dialect.parse().unwrap();
        for seed in seeds {
            let report = run(&scenario, &Options { seed: Some(seed), ..Options::default() }).unwrap();
            assert!(report.violations().is_empty(), "{dialect}\n{}", report.table());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_shared_run_and_another_seed_another() {
    let quota =
        format!("{SHARED}\nrtt = \"1ms..9ms\"\noutages = [{{ from = \"8s\", to = \"14s\", keeps = false }}]");
    let (one, same, other) = (played(&quota, 5), played(&quota, 5), played(&quota, 6));
    assert_eq!(one.json(), same.json());
    let trace = |report: &Report| report.measures().next().unwrap().trace.clone();
    assert_ne!(trace(&one), trace(&other));
}

#[test]
fn an_unknown_key_of_the_shared_quota_is_refused_and_the_known_one_is_named() {
    let problems = lines("[fleet.quota]\nstore = \"shared\"\non_store_lost = \"share\"");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("line 13: fleet.quota.on_store_lost: unknown field"), "{problems:?}");
    assert!(problems[0].contains("did you mean `on_store_loss`?"), "{problems:?}");
}

#[test]
fn all_that_is_wrong_with_a_shared_quota_is_told_at_once() {
    let problems = lines(
        "[fleet.quota]\nstore = \"redis\"\non_store_loss = \"wait\"\ntimeout = \"0s\"\nmax_instances = 0\noutages = [{ from = \"9s\", to = \"8s\" }, { from = \"3s\", to = \"4s\" }]",
    );
    let all = problems.join("\n");
    for part in [
        "fleet.quota.store: \"redis\" is not a store",
        "fleet.quota.on_store_loss: \"wait\" is none of",
        "fleet.quota.timeout: must be above 0s",
        "fleet.quota.max_instances: 0 is not between 1 and 10000",
        "fleet.quota.outages[0].to: must be later than `from`",
        "fleet.quota.outages[1].from: must not be before the end",
    ] {
        assert!(all.contains(part), "{part} is missing in:\n{all}");
    }
}

#[test]
fn an_outage_of_a_store_that_is_not_there_is_refused() {
    let problems = lines("[fleet.quota]\noutages = [{ from = \"1s\", to = \"2s\" }]");
    assert!(problems[0].contains("there is no store"), "{problems:?}");
}

#[test]
fn a_skew_needs_a_rate() {
    let text = fleet("").replace("rate = 7.5", "callers = 3");
    let error = Scenario::from_toml(&text).unwrap_err().to_string();
    assert!(error.contains("fleet.load[0].skew: only a load with a rate"), "{error}");
}

#[test]
fn each_instance_says_once_that_the_store_is_away_and_once_that_it_is_back() {
    for seed in 1..4 {
        let report = played(&format!("{SHARED}\noutages = [{{ from = \"8s\", to = \"18s\" }}]"), seed);
        let found = sharing(&report);
        assert_eq!((found.store_away, found.store_back), (6, 6), "{}", report.table());
        assert_eq!(found.store_forgot, 0, "it came back with what it knew");
        assert!(found.shared_again.is_some_and(|again| again <= 2.0), "{}", report.table());
        assert_eq!(report.measures().next().unwrap().failed, 0, "{}", report.table());
    }
}

#[test]
fn a_store_that_comes_back_empty_has_forgotten_for_every_instance() {
    let report =
        played(&format!("{SHARED}\noutages = [{{ from = \"8s\", to = \"18s\", keeps = false }}]"), 1);
    assert_eq!(sharing(&report).store_forgot, 6, "{}", report.table());
}

/// 60 per window among six: nine tenths of ten.
#[test]
fn without_the_store_no_instance_exceeds_its_part_and_all_stay_below_the_quota() {
    for seed in 1..6 {
        let report = declared(60, &format!("{SHARED}\noutages = [{{ from = \"8s\", to = \"28s\" }}]"), seed);
        let found = sharing(&report);
        assert!(found.alone_most.is_some_and(|most| most <= 9), "{}", report.table());
        assert!(found.alone_together.is_some_and(|most| most <= 54), "{}", report.table());
    }
}

#[test]
fn a_process_that_starts_without_the_store_keeps_to_its_part_as_soon_as_it_is_told_the_quota() {
    for seed in 1..6 {
        let late = fleet(&format!(
            "start = \"1s..15s\"\n{SHARED}\nmax_instances = 6\noutages = [{{ from = \"0s\", to = \"28s\" }}]"
        ));
        let scenario = Scenario::from_toml(&late).unwrap();
        let report = run(&scenario, &Options { seed: Some(seed), ..Options::default() }).unwrap();
        // A reset in whole seconds leaves open how long a window of two seconds is: a part of nine may be sent twice in it, and
        // what was sent before anything was told.
        assert!(sharing(&report).alone_most.is_some_and(|most| most <= 19), "{}", report.table());
    }
}

/// Three per window among six: each has less than half a permit. One per window and process would be 57 in the 19 seconds alone.
#[test]
fn parts_below_one_permit_take_turns() {
    for seed in 1..6 {
        let report = declared(3, &format!("{SHARED}\noutages = [{{ from = \"8s\", to = \"28s\" }}]"), seed);
        assert_eq!(sharing(&report).alone_most, Some(1), "{}", report.table());
        let all = report.measures().next().unwrap().attempts;
        assert!(all <= 50, "15 of them while the store is there\n{}", report.table());
    }
}

#[test]
fn not_even_the_first_attempt_of_a_process_leaves_unasked() {
    let quota =
        format!("{SHARED}\non_store_loss = \"closed\"\noutages = [{{ from = \"0s\", to = \"40s\" }}]");
    let report = played(&quota, 1);
    assert_eq!(report.measures().next().unwrap().attempts, 0, "{}", report.table());
}

#[test]
fn what_is_done_without_the_store_is_what_was_chosen() {
    let with = |choice: &str| {
        let outage = "outages = [{ from = \"8s\", to = \"20s\" }]";
        played(&format!("{SHARED}\n{outage}\non_store_loss = \"{choice}\""), 1)
    };
    let [share, closed, open] = ["share", "closed", "open"].map(with);
    assert_eq!(sharing(&closed).alone_together, Some(0), "{}", closed.table());
    let throttles = |report: &Report| report.measures().next().unwrap().throttles;
    assert!(throttles(&open) > throttles(&share), "{}{}", open.table(), share.table());
}

#[test]
fn an_answer_that_comes_after_the_time_out_counts_for_nothing() {
    let found = sharing(&played(&format!("{SHARED}\nrtt = \"120ms\"\ntimeout = \"50ms\""), 1));
    assert!(found.exchanges > 60);
    assert!(found.exchanges - found.unanswered <= 6, "one of each may be under way at the end: {found:?}");
    let patient = sharing(&played(&format!("{SHARED}\nrtt = \"120ms\"\ntimeout = \"200ms\""), 1));
    assert_eq!(patient.unanswered, 0);
}

#[test]
fn instances_that_share_are_not_played_on_sockets() {
    let scenario = Scenario::from_toml(&fleet(SHARED)).unwrap();
    let error = sockets::forecast(&scenario, &Options::default(), Duration::from_mins(5)).unwrap_err();
    assert!(error.to_string().contains("in virtual time only"), "{error}");
    let others = Options { strategies: vec![StrategyName::FixedRate], ..Options::default() };
    assert!(sockets::forecast(&scenario, &others, Duration::from_mins(5)).is_ok());
}
