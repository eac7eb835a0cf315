//! Many readers and few calls, on real sockets.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tidegate_core::cache::FreshRule;
use tidegate_core::glob::PathGlob;
use tidegate_gateway::GatewayConfig;
use tokio::sync::Semaphore;

use crate::stage::{Caller, Canned, FIRST, Stage, play_with, stage_with, upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn fresh(config: &mut GatewayConfig, path: &str, millis: u64) {
    let path = PathGlob::parse(path).unwrap();
    config.fresh.push(FreshRule { path, max_age: Duration::from_millis(millis) });
}

fn guide() -> tidegate::Profile {
    tidegate::Profile::builtin("genesys-guide").unwrap()
}

/// What `/api/state` counts of the cache.
async fn tally(stage: &Stage, what: &str) -> u64 {
    let told = Caller::new(stage.gateway.admin_addr()).get("/api/state").await.json();
    told["tenants"][0]["cache"][what].as_u64().unwrap_or_else(|| panic!("no {what}: {told}"))
}

#[tokio::test]
async fn identical_reads_in_flight_share_one_call() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let url = upstream(move |mut wire, _| {
        let gate = Arc::clone(&gate);
        async move {
            while wire.until("\r\n\r\n").await.is_some() {
                gate.acquire().await.unwrap().forget();
                wire.write(OK).await;
            }
        }
    })
    .await;
    let stage = stage_with(&url, guide(), |_| {}).await;
    let reads: Vec<_> = (0..20)
        .map(|_| {
            let caller = stage.caller.clone();
            tokio::spawn(async move { caller.get("/api/v2/scripts/7").await })
        })
        .collect();
    while tally(&stage, "joins").await < 19 {
        tokio::task::yield_now().await;
    }
    opened.add_permits(1);
    for read in reads {
        let answer = read.await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok"[..]));
    }
    assert_eq!(tally(&stage, "fetches").await, 1);
}

#[tokio::test]
async fn an_answer_within_its_age_comes_from_memory_and_says_so() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage_with(&url, guide(), |config| fresh(config, "/api/v2/scripts/*", 60_000)).await;
    let first = stage.caller.get("/api/v2/scripts/7").await;
    assert_eq!(
        (first.header("cache-status"), first.header("tidegate-attempts")),
        ("tidegate; fwd=miss", "1")
    );
    let second = stage.caller.get("/api/v2/scripts/7").await;
    assert_eq!((second.header("cache-status"), second.header("age")), ("tidegate; hit", "0"));
    assert_eq!(second.header("tidegate-attempts"), "0");
    assert_eq!(second.body, first.body);
    let present = [("Cache-Control", "no-cache")];
    let third = stage.caller.call(Method::GET, "/api/v2/scripts/7", &present, "").await;
    assert_eq!(third.header("tidegate-attempts"), "1", "who wants the present gets it");
    stage.caller.get("/api/v2/groups/7").await;
    stage.caller.get("/api/v2/groups/7").await;
    assert_eq!(canned.heads().len(), 4, "without a rule and without a word of the upstream nothing is kept");
    let kept = [("Cache-Control", "only-if-cached")];
    let none = stage.caller.call(Method::GET, "/api/v2/groups/7", &kept, "").await;
    assert!(none.is_ours(504, ("tidegate-refused", "not-cached")), "{none:?}");
}

#[tokio::test]
async fn a_read_after_a_write_sees_it() {
    let played = play_with("genesys-guide", "", |config| fresh(config, "/api/v2/users/*", 60_000)).await;
    let before = played.caller.get(FIRST).await.json();
    assert_eq!(played.caller.get(FIRST).await.header("cache-status"), "tidegate; hit");
    let change = format!(r#"{{"version": {}, "title": "pilot"}}"#, before["version"]);
    let headers = [("Content-Type", "application/json")];
    let written = played.caller.call(Method::PATCH, FIRST, &headers, change).await;
    assert_eq!(written.status, 200, "{written:?}");
    let after = played.caller.get(FIRST).await;
    assert_eq!(after.json()["title"], "pilot", "{after:?}");
}

#[tokio::test]
async fn nothing_is_shared_between_tokens() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage_with(&url, guide(), |config| fresh(config, "/api/v2/scripts/*", 60_000)).await;
    for token in ["Bearer anna", "Bearer berta", "Bearer anna"] {
        let answer =
            stage.caller.call(Method::GET, "/api/v2/scripts/7", &[("Authorization", token)], "").await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(canned.heads().len(), 2);
}

#[tokio::test]
async fn what_is_too_long_to_be_held_is_given_as_it_comes() {
    let long = "x".repeat(5000);
    let (canned, url) =
        Canned::start(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}", long.len())).await;
    let stage = stage_with(&url, guide(), |config| {
        fresh(config, "/api/v2/scripts/*", 60_000);
        config.cache.entry_bytes = 1000;
    })
    .await;
    for _ in 0..2 {
        let answer = stage.caller.get("/api/v2/scripts/7").await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 5000));
    }
    assert_eq!(canned.heads().len(), 2);
}

#[tokio::test]
async fn what_is_read_is_renewed_before_its_time_is_over() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage_with(&url, guide(), |config| fresh(config, "/api/v2/scripts/*", 300)).await;
    // Somebody reads all the time; of what was sent not all was fetched for it.
    loop {
        stage.caller.get("/api/v2/scripts/7").await;
        let fetched = tally(&stage, "fetches").await;
        if canned.heads().len() as u64 > fetched {
            break;
        }
    }
}
