//! The same scenarios on real sockets.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use tidegate_lab::{LabError, Options, Scenario, StrategyName, builtin, sockets};

/// A few seconds of everything that goes another way on sockets: two clients with tokens of their own, writes, a load that
/// arrives by itself, deadlines, strangers.
const SHORT: &str = r#"
name = "short"
duration = "8s"
[server]
limit = 40
window = "1s"
headers = "xratelimit"
latency = "2ms..6ms"
[[server.oauth.clients]]
id = "a"
secret = "x"
[[server.oauth.clients]]
id = "b"
secret = "y"
[[server.strangers]]
rate = 5.0
credential = "b"
[fleet]
instances = 2
rtt = "4ms..8ms"
credentials = ["a", "b"]
[[fleet.load]]
calls = ["GET /api/v2/users/{user}", "PATCH /api/v2/users/{user}"]
callers = 6
requests = 60
[[fleet.load]]
class = "sync"
rate = 4.0
requests = 6
deadline = "3s"
"#;

fn forecast(text: &str, max_wall: u64) -> Result<sockets::Forecast, LabError> {
    let scenario = Scenario::from_toml(text).unwrap();
    sockets::forecast(&scenario, &Options::default(), Duration::from_secs(max_wall))
}

#[test]
fn what_would_take_too_long_is_refused_before_it_begins() {
    let error = forecast(builtin::text("publish-window").unwrap(), 60).unwrap_err().to_string();
    assert!(error.contains("60 s are allowed") && error.contains("--max-wall"), "{error}");
    assert!(forecast(SHORT, 60).unwrap().wall <= Duration::from_secs(8));
}

#[test]
fn what_is_too_wide_for_one_process_is_refused() {
    let error = forecast(builtin::text("fleet-10000").unwrap(), 1_000_000).unwrap_err().to_string();
    assert!(error.contains("10000 instances"), "{error}");
    let wide = "[server]\nlimit = 0\nlatency = \"1s\"\n[fleet]\nstrategies = [\"reactive\"]\n[[fleet.load]]\ncallers = 500\nrequests = 600\n";
    let error = forecast(wide, 60).unwrap_err().to_string();
    assert!(error.contains("500 calls in progress at once"), "{error}");
}

/// In real time, and therefore alone; see `.config/nextest.toml`.
mod real_time {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_strategy_plays_a_scenario_to_its_end() {
        let scenario = Scenario::from_toml(SHORT).unwrap();
        let options = Options::default();
        let forecast = sockets::forecast(&scenario, &options, Duration::from_mins(1)).unwrap();
        let progress = std::sync::Arc::default();
        let report = sockets::run(&scenario, &options, &forecast, &progress).await.unwrap();
        let table = report.table();
        assert!(table.contains("on sockets"), "{table}");
        assert_eq!(report.json()["played_in"], "sockets");
        let names: Vec<&str> = report.measures().map(|measures| measures.strategy).collect();
        let usual: Vec<&str> = StrategyName::usual().into_iter().map(StrategyName::name).collect();
        assert_eq!(names, usual);
        let mut ended = 0;
        for measures in report.measures() {
            assert_eq!(measures.succeeded + measures.failed + measures.unfinished, 132, "{table}");
            assert!(measures.attempts >= measures.succeeded + measures.throttles, "{table}");
            assert!(measures.strangers > 0, "the witness saw them\n{table}");
            assert!(measures.ideal_makespan.is_some() && measures.efficiency < 1.02, "{table}");
            ended += measures.succeeded + measures.failed;
        }
        assert_eq!(progress.ended(), ended);
        let tidegate = report.measures().next().unwrap();
        assert_eq!((tidegate.succeeded, tidegate.late), (132, 0), "{table}");
        let reactive = report.measures().find(|measures| measures.strategy == "reactive").unwrap();
        assert!(reactive.throttles > 3 * tidegate.throttles, "{table}");
        assert!(
            (1..=reactive.throttles).contains(&reactive.closings),
            "the witness saw the refusals\n{table}"
        );
        assert!(report.svg().contains("tidegate"));
    }
}
