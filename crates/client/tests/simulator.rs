//! The client against the simulator, which keeps the books: what was executed, throttled, renewed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tidegate::{Client, ErrorKind, Profile};
use tidegate_sim::{Sim, SimConfig};

/// Longer than anything here takes on a busy machine.
const AMPLE: Duration = Duration::from_mins(2);
const USER: &str = "/api/v2/users/00000000-0000-4000-8000-000000000001";

async fn simulate(toml: &str) -> Sim {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    tidegate_sim::serve(listener, SimConfig::from_toml(toml).unwrap()).await.unwrap()
}

fn client(sim: &Sim, profile: &str) -> Client {
    let profile = Profile::builtin(profile).unwrap();
    let builder = Client::builder(profile, sim.url(), sim.url());
    builder.credential("tests", "demo-client", "demo-secret").build().unwrap()
}

async fn status(call: tidegate::client::CallBuilder<'_>) -> Result<StatusCode, tidegate::Error> {
    let response = tokio::time::timeout(AMPLE, call.send()).await.expect("nothing may hang")?;
    let status = response.status();
    response.into_body().bytes(1 << 20).await.unwrap();
    Ok(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_tasks_through_a_tight_quota_and_short_tokens_see_neither() {
    let sim =
        simulate("limit = 60\nwindow = \"2s\"\nlatency = \"5ms..15ms\"\n[oauth]\ntoken_ttl = \"2s\"").await;
    let client = client(&sim, "genesys-guide");
    let tasks: Vec<_> = (0..40)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for call in 0..6 {
                    let target = format!("/api/v2/users?pageSize=1&pageNumber={}", 1 + task * 6 + call);
                    assert_eq!(status(client.get(&target)).await.unwrap(), 200);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = sim.stats();
    assert_eq!(stats.statuses.get(&200).copied(), Some(240), "{:?}", stats.statuses);
    assert_eq!(stats.oauth.overlap_max, 1, "one login at a time");
    assert!(stats.oauth.calls >= 2, "tokens of two seconds do not last for 240 calls at 30 a second");
    sim.shutdown().await;
}

fn create(client: &Client) -> tidegate::client::CallBuilder<'_> {
    client.request(Method::POST, "/api/v2/users").json(r#"{"name":"Ann","email":"ann@example.com"}"#)
}

#[tokio::test]
async fn a_post_lost_after_its_commit_is_unknown_without_deduplication() {
    let sim = simulate("[faults]\nscript = [\"drop-after\"]").await;
    let error = status(create(&client(&sim, "genesys"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    let stats = sim.stats();
    assert_eq!((stats.writes.values().sum::<u64>(), stats.duplicates, stats.retried), (1, 0, 0));
    sim.shutdown().await;
}

#[tokio::test]
async fn a_post_lost_after_its_commit_succeeds_once_with_deduplication() {
    let sim = simulate("dedup = \"24h\"\n[faults]\nscript = [\"drop-after\"]").await;
    let answer = status(create(&client(&sim, "genesys-guide"))).await.unwrap();
    assert!(answer.is_success(), "{answer}");
    let stats = sim.stats();
    assert_eq!((stats.writes.values().sum::<u64>(), stats.duplicates, stats.replayed), (1, 0, 1));
    sim.shutdown().await;
}

#[tokio::test]
async fn a_put_lost_after_its_commit_is_sent_again() {
    let sim = simulate("[faults]\nscript = [\"drop-after\"]").await;
    let client = client(&sim, "genesys");
    let skills = r#"[{"id":"10000000-0000-4000-8000-000000000001","proficiency":3}]"#;
    let put = client.request(Method::PUT, &format!("{USER}/routingskills/bulk")).json(skills);
    assert_eq!(status(put).await.unwrap(), 200);
    let stats = sim.stats();
    assert_eq!((stats.repeats, stats.duplicates), (1, 0));
    sim.shutdown().await;
}

#[tokio::test]
async fn a_post_lost_before_its_commit_is_unknown_too_and_was_not_executed() {
    let sim = simulate("[faults]\nscript = [\"drop-before\"]").await;
    let error = status(create(&client(&sim, "genesys"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "nobody can tell it from the other");
    assert_eq!(sim.stats().writes.values().sum::<u64>(), 0);
    sim.shutdown().await;
}

#[tokio::test]
async fn a_write_whose_caller_hangs_up_is_executed_once_and_in_the_books_of_the_gates() {
    let sim = simulate("latency = \"400ms\"").await;
    let client = client(&sim, "genesys-guide");
    // The token and the family's first answer are there, so that the write leaves at once.
    assert_eq!(status(client.get("/api/v2/users?pageSize=1")).await.unwrap(), 200);
    tokio::time::timeout(Duration::from_millis(100), create(&client).send()).await.expect_err("hangs up");
    let pacer = client.upstream().pacer();
    tokio::time::timeout(AMPLE, async {
        while pacer.snapshot().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("settled");
    let stats = sim.stats();
    assert_eq!((stats.writes.values().sum::<u64>(), stats.duplicates), (1, 0));
    let accepted: u64 = pacer.snapshot().gates.iter().map(|gate| gate.accepted).max().unwrap();
    assert_eq!(accepted, 2, "its answer was counted");
    sim.shutdown().await;
}

#[tokio::test]
async fn a_wrong_secret_is_told_by_the_credentials_name() {
    let sim = simulate("").await;
    let profile = Profile::builtin("genesys").unwrap();
    let builder = Client::builder(profile, sim.url(), sim.url());
    let client = builder.credential("skills-sync", "demo-client", "hunter2").build().unwrap();
    let error = status(client.get("/api/v2/users")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Token);
    let text = error.to_string();
    assert!(text.contains("skills-sync") && !text.contains("hunter2"), "{text}");
    sim.shutdown().await;
}

#[tokio::test]
async fn check_says_what_is_missing() {
    let sim = simulate("").await;
    let good = client(&sim, "genesys");
    good.upstream().check().await.unwrap();
    let upstream = Arc::clone(good.upstream());
    let url = sim.url();
    sim.shutdown().await;
    // The pooled connection was closed by the simulator; a new one is refused.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let why = upstream.check().await.unwrap_err();
    assert!(why.to_string().contains(&url), "{why}");
}
