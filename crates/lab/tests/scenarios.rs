//! Every scenario file runs and meets what it expects.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;

use tidegate_lab::{Options, Scenario, builtin, run};

fn built_in(name: &str) -> Scenario {
    let scenario =
        Scenario::from_toml(builtin::text(name).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(scenario.name, name, "the name in the file is the file's name");
    scenario
}

fn meets_its_expectations(name: &str) {
    let scenario = built_in(name);
    let report = run(&scenario, &Options::default()).unwrap();
    assert!(report.violations().is_empty(), "\n{}", report.table());
}

/// One test per file, so that they run side by side and a slow one is seen by its name.
macro_rules! scenarios {
    ($($(#[$attribute:meta])* $test:ident = $name:literal),+ $(,)?) => {
        const TESTED: &[&str] = &[$($name),+];

        $(
            $(#[$attribute])*
            #[test]
            fn $test() {
                meets_its_expectations($name);
            }
        )+
    };
}

scenarios! {
    brown_out_hinted = "brown-out-hinted",
    brown_out_silent = "brown-out-silent",
    brown_out_unavailable = "brown-out-unavailable",
    concurrency_cap = "concurrency-cap",
    #[cfg_attr(debug_assertions, ignore = "minutes without optimisation; run with --release")]
    fleet_10000 = "fleet-10000",
    #[cfg_attr(debug_assertions, ignore = "minutes without optimisation; run with --release")]
    fleet_1000 = "fleet-1000",
    #[cfg_attr(debug_assertions, ignore = "a minute without optimisation; run with --release")]
    fleet_1000_alone = "fleet-1000-alone",
    fleet_1000_scarce = "fleet-1000-scarce",
    fleet_1000_scarce_alone = "fleet-1000-scarce-alone",
    fleet_32 = "fleet-32",
    fleet_32_alone = "fleet-32-alone",
    fleet_8 = "fleet-8",
    four_processes = "four-processes",
    late_or_never = "late-or-never",
    late_or_never_beside_bulk = "late-or-never-beside-bulk",
    no_headers_declared = "no-headers-declared",
    no_headers_undeclared = "no-headers-undeclared",
    publish_window = "publish-window",
    retry_after_mismatch = "retry-after-mismatch",
    share_mode = "share-mode",
    #[cfg_attr(debug_assertions, ignore = "minutes without optimisation; run with --release")]
    share_mode_1000 = "share-mode-1000",
    share_mode_turns = "share-mode-turns",
    silent_bucket_shift = "silent-bucket-shift",
    steady_fixed = "steady-fixed",
    steady_fixed_aligned = "steady-fixed-aligned",
    steady_sliding_counter = "steady-sliding-counter",
    steady_sliding_log = "steady-sliding-log",
    steady_token_bucket = "steady-token-bucket",
    store_lost_empty = "store-lost-empty",
    store_lost_kept = "store-lost-kept",
    thundering_herd = "thundering-herd",
    token_expiry = "token-expiry",
    weekly_publish = "weekly-publish",
}

/// One of the hundred clients with its hundred processes, for all of the ten minutes.
#[test]
fn a_hundredth_of_the_fleet_meets_what_the_fleet_is_expected_to() {
    let mut scenario = built_in("fleet-10000");
    scenario.fleet.instances /= 100;
    scenario.fleet.credentials.truncate(1);
    let report = run(&scenario, &Options::default()).unwrap();
    assert!(report.violations().is_empty(), "\n{}", report.table());
    let tidegate = report.measures().next().unwrap();
    assert!(tidegate.attempts >= 3_000, "{} attempts", tidegate.attempts);
}

/// A tenth of the processes on a tenth of the quota, for all of the six minutes.
#[test]
fn a_tenth_of_the_thousand_is_throttled_as_little_as_the_thousand() {
    let mut scenario = built_in("fleet-1000");
    scenario.fleet.instances /= 10;
    scenario.server.limit /= 10;
    // Each of a hundred says a word as often as one of eight: every 22 to 30 s, in 360 s 14 words for 18 calls.
    scenario.expect.tidegate.exchanges_per_call = Some("<= 2.7".parse().unwrap());
    let report = run(&scenario, &Options::default()).unwrap();
    assert!(report.violations().is_empty(), "\n{}", report.table());
}

#[test]
fn every_file_is_compiled_in_and_tested() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().unwrap().strip_suffix(".toml").map(str::to_owned)
        })
        .collect();
    let compiled: BTreeSet<String> = builtin::names().map(str::to_owned).collect();
    let tested: BTreeSet<String> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(files, compiled);
    assert_eq!(files, tested);
}

#[test]
fn the_example_of_the_documentation_is_a_scenario() {
    let text = include_str!("../../../docs/lab.md");
    let (_, rest) = text.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let scenario = Scenario::from_toml(example).unwrap();
    assert_eq!(scenario.fleet.load.len(), 2);
    run(&scenario, &Options::default()).unwrap();
}
