//! Both runs in a small world: sixty rows, a second's quota, and faults at calls that are known beforehand.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;

/// Answers are lost after the work was done: those of the third and the tenth call.
const SMALL: &str = r#"
limit = 30
window = "1s"
latency = "5ms..10ms"
dedup = "24h"
[oauth]
token_ttl = "2s"
[faults]
script = ["none", "none", "drop-after", "none", "none", "none", "none", "none", "none", "drop-after"]
"#;

fn small_job() -> String {
    world::CSV.lines().take(61).fold(String::new(), |text, line| text + line + "\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_naive_client_writes_twice_what_tidegate_writes_once() {
    let csv = small_job();
    let rows = world::rows(&csv).unwrap();
    let agents = world::agents(&rows);
    let sim = world::start(SMALL).await.unwrap();
    let wanted = world::expected(&world::skills_of(sim.stats_with_users()), &rows);
    let naive = naive_run(&sim, &profile().unwrap(), rows, &wanted).await.unwrap();
    assert_eq!((naive.writes, naive.stats.repeated_content, naive.wrong), (60, 2, 0));
    assert!(naive.saw_429 > 0 && naive.saw_429 == naive.stats.throttled, "{naive:?}");

    sim.reset("").unwrap();
    let gateway = start_gateway(&sim, &profile().unwrap()).await.unwrap();
    let tidegate = tidegate_run(&sim, &gateway, profile().unwrap(), &csv, &wanted).await.unwrap();
    assert_eq!(tidegate.faults(), Vec::<String>::new(), "{tidegate:?}");
    assert_eq!((tidegate.writes, tidegate.stats.writes.values().sum::<u64>()), (agents, agents));
    assert_eq!(tidegate.stats.replayed, 2, "both lost answers were asked for again under their keys");
    gateway.drain().await;
    sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_writes_is_told_as_faults_of_the_run() {
    let csv = small_job();
    let rows = world::rows(&csv).unwrap();
    let sim = world::start("[[oauth.clients]]\nid = \"demo-client\"\nsecret = \"demo-secret\"\nscopes = [\"view:users\", \"view:routing\"]")
        .await
        .unwrap();
    let wanted = world::expected(&world::skills_of(sim.stats_with_users()), &rows);
    let gateway = start_gateway(&sim, &profile().unwrap()).await.unwrap();
    let ended = tidegate_run(&sim, &gateway, profile().unwrap(), &csv, &wanted).await;
    let agents = world::agents(&rows);
    let faults = [format!("{agents} writes lost or in doubt"), format!("{agents} agents with wrong skills")];
    assert_eq!(ended.unwrap().faults(), faults);
    gateway.drain().await;
    sim.shutdown().await;
}
