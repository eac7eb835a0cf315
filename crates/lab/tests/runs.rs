//! Properties of runs, whatever the scenario.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use tidegate_lab::measure::Measures;
use tidegate_lab::{Options, Report, Scenario, StrategyName, run};

const SMALL: &str = r#"
name = "small <&> \"quoted\""
about = "Everything at once: strangers, faults, a brown-out, tokens that die, two clients, an open and a closed load."
[server]
limit = 40
window = "2s"
headers = "guide"
latency = "5ms..25ms"
[server.oauth]
token_ttl = "4s"
latency = "50ms"
clients = [{ id = "a", secret = "x" }, { id = "b", secret = "x" }]
[[server.strangers]]
rate = 6.0
irregular = true
credential = "a"
[server.faults]
unavailable = 0.01
drop_after = 0.01
[[server.faults.brown_outs]]
from = "3s"
to = "4s"
[fleet]
instances = 3
start = "0s..500ms"
rtt = "10ms..30ms"
credentials = ["a", "b"]
[[fleet.load]]
calls = ["GET /api/v2/users/{user}", "PATCH /api/v2/users/{user}"]
callers = 6
requests = 80
[[fleet.load]]
class = "interactive"
rate = 3.0
irregular = true
requests = 20
deadline = "4s"
"#;

fn report(text: &str, seed: Option<u64>) -> Report {
    run(&Scenario::from_toml(text).unwrap(), &Options { seed, ..Options::default() }).unwrap()
}

fn find(report: &Report, name: StrategyName) -> &Measures {
    report.measures().find(|measures| measures.strategy == name.name()).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let (one, same, other) = (report(SMALL, Some(5)), report(SMALL, Some(5)), report(SMALL, Some(6)));
    assert_eq!(one.json(), same.json());
    assert_eq!(one.svg(), same.svg());
    for (one, other) in one.measures().zip(other.measures()) {
        assert_ne!(one.trace, other.trace, "{}", one.strategy);
    }
}

#[test]
fn every_call_is_accounted_for_under_every_strategy() {
    for seed in 1..4 {
        let report = report(SMALL, Some(seed));
        for measures in report.measures() {
            assert_eq!(
                measures.succeeded + measures.failed + measures.unfinished,
                300,
                "{} with seed {seed}:\n{}",
                measures.strategy,
                report.table()
            );
            assert!(measures.attempts >= measures.succeeded + measures.throttles, "{}", measures.strategy);
        }
    }
}

/// Of several loads the ideal serves whoever comes first; a strategy that lets the others wait can finish the job before
/// it. So the claim is about a job alone, and a greedy one: a fair class that leaves strangers less than it should beats the ideal that
/// keeps its policy.
#[test]
fn the_ideal_is_not_beaten() {
    let (alone, _) = SMALL.rsplit_once("[[fleet.load]]").unwrap();
    let alone = format!("{alone}[fleet.class.bulk]\npolicy = \"greedy\"\n");
    for seed in 1..6 {
        let report = report(&alone, Some(seed));
        for measures in report.measures() {
            // Latencies are drawn anew for the ideal; that is worth a round trip or two.
            assert!(measures.efficiency < 1.02, "{}", report.table());
        }
    }
}

fn rule() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["fixed", "fixed-aligned", "sliding-log", "sliding-counter", "token-bucket"])
}

fn strangers() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        1 => (1_u32..30).prop_map(|rate| format!("[[server.strangers]]\nirregular = true\nrate = {rate}.0\n")),
        1 => (1_u32..40).prop_map(|burst| format!("[[server.strangers]]\nrate = 5.0\nburst = {burst}\n")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Latencies are constant here, so that the ideal has no luck of its own and nothing excuses being faster than it. The class is
    /// greedy: whoever leaves strangers less than the policy says beats the ideal that keeps it.
    #[test]
    fn no_strategy_beats_the_ideal(
        rule in rule(),
        strangers in strangers(),
        (limit, window, phase) in (5_u32..60, 500_u32..4000, 0_u32..4000),
        (callers, requests) in (1_u32..30, 10_u32..120),
        (rtt, latency, decide_at) in (0_u32..200, 0_u32..100, 0..=4_u32),
        headers in prop::sample::select(vec!["guide", "xratelimit", "ietf", "none"]),
        seed in 1_u64..1000,
    ) {
        let text = format!(
            "duration = \"10m\"\n[server]\nrule = \"{rule}\"\nlimit = {limit}\nwindow = \"{window}ms\"\nphase = \"{phase}ms\"\nheaders = \"{headers}\"\nlatency = \"{latency}ms\"\ndecide_at = {:?}\n{strangers}[fleet]\nrtt = \"{rtt}ms\"\n[fleet.class.bulk]\npolicy = \"greedy\"\n[[fleet.load]]\ncallers = {callers}\nrequests = {requests}\n",
            f64::from(decide_at) / 4.0,
        );
        let report = report(&text, Some(seed));
        for measures in report.measures() {
            prop_assert!(measures.efficiency <= 1.0 + 1e-6, "{}\n{}", text, report.table());
        }
    }
}

#[test]
fn whoever_gives_calls_up_is_compared_with_an_ideal_that_has_fewer_to_make() {
    let report = report(
        "duration = \"10m\"\n[server]\nlimit = 20\nwindow = \"20s\"\nretry_after = \"none\"\n[fleet]\nstrategies = [\"reactive\", \"tidegate\"]\nrtt = \"20ms\"\n[[fleet.load]]\ncallers = 30\nrequests = 100\n",
        None,
    );
    let (reactive, tidegate) = (find(&report, StrategyName::Reactive), find(&report, StrategyName::Tidegate));
    assert!(reactive.failed > 0 && tidegate.failed == 0, "{}", report.table());
    for measures in [reactive, tidegate] {
        let (ideal, took) = (measures.ideal_makespan.unwrap(), measures.makespan.unwrap());
        assert!(
            (measures.efficiency - ideal / took).abs() < 1e-9,
            "the row explains itself\n{}",
            report.table()
        );
    }
    assert!(reactive.ideal_makespan < tidegate.ideal_makespan, "{}", report.table());
}

#[test]
fn the_time_of_learning_is_not_judged() {
    let report = report(
        "duration = \"40s\"\n[server]\nlimit = 50\nwindow = \"2s\"\nheaders = \"none\"\n[fleet]\nstrategies = [\"reactive\", \"fixed-rate\"]\nrtt = \"20ms\"\nsettle = \"10s\"\n[[fleet.load]]\ncallers = 10\n",
        None,
    );
    let settled = find(&report, StrategyName::FixedRate).settled.unwrap();
    assert!((0.95..1.05).contains(&settled.efficiency), "{}", report.table());
    assert!(settled.throttles_per_100 < 1.0, "{}", report.table());
    let reactive = find(&report, StrategyName::Reactive);
    assert!(
        reactive.settled.unwrap().throttles_per_100 > 10.0 && reactive.closings >= 15,
        "{}",
        report.table()
    );
}

#[test]
fn whoever_is_told_the_truth_and_is_alone_is_not_throttled() {
    let told = report(
        "[server]\nrule = \"token-bucket\"\nlimit = 50\nburst = 5\nwindow = \"5s\"\n[fleet]\nstrategies = [\"fixed-rate\"]\n[[fleet.load]]\ncallers = 9\nrequests = 200\n",
        None,
    );
    let fixed = find(&told, StrategyName::FixedRate);
    assert_eq!(fixed.throttles, 0);
    assert!(fixed.efficiency > 0.95, "{}", told.table());
}

#[test]
fn the_guide_pauses_before_the_quota_is_gone_and_the_naive_do_not() {
    let alone = report(
        "[server]\nlimit = 100\nwindow = \"5s\"\n[fleet]\n[[fleet.load]]\ncallers = 10\nrequests = 400\n",
        None,
    );
    assert_eq!(find(&alone, StrategyName::Guide).throttles, 0);
    assert!(find(&alone, StrategyName::Reactive).throttles >= 10, "{}", alone.table());
    assert!(find(&alone, StrategyName::Aimd).throttles >= 3, "{}", alone.table());
}

#[test]
fn concurrency_is_found_by_aimd() {
    let capped = report(
        "[server]\nlimit = 0\nconcurrency = 10\nlatency = \"100ms\"\n[fleet]\nstrategies = [\"aimd\", \"reactive\"]\n[[fleet.load]]\ncallers = 50\nrequests = 1000\n",
        None,
    );
    let (aimd, reactive) = (find(&capped, StrategyName::Aimd), find(&capped, StrategyName::Reactive));
    assert!(aimd.throttles < reactive.throttles, "{}", capped.table());
    assert!(reactive.max_in_flight > 10, "the refused are in progress for a moment too");
}

#[test]
fn a_scenario_that_never_recovers_ends_at_its_duration() {
    let report = report(
        "duration = \"20s\"\n[server]\nlimit = 5\nwindow = \"2s\"\npenalty = \"3s\"\nretry_after = \"none\"\n[fleet]\nstrategies = [\"reactive\"]\n[[fleet.load]]\ncallers = 20\nrequests = 100\n",
        None,
    );
    let reactive = find(&report, StrategyName::Reactive);
    assert!(
        reactive.ended_at <= 20.0 && reactive.unfinished > 0 && reactive.makespan.is_none(),
        "{}",
        report.table()
    );
}

#[test]
fn the_picture_is_well_formed() {
    let svg = report(SMALL, None).svg();
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg.as_str();
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        assert!(!tag.contains('<'), "a tag in a tag: {tag}");
        assert_eq!(tag.matches('"').count() % 2, 0, "an open quote in {tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    for part in ["<title>", "prefers-color-scheme: dark", "small &lt;&amp;&gt;", "tidegate", "aimd"] {
        assert!(svg.contains(part), "{part} is missing");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "a coordinate is no number");
    assert!(
        !svg.contains("http") || svg.matches("http").count() == 1,
        "nothing from elsewhere but the namespace"
    );
}
