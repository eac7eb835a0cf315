//! Many readers and few calls, on real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tidegate_core::cache::FreshRule;
use tidegate_core::glob::PathGlob;
use tidegate_gateway::GatewayConfig;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::stage::{Answer, Caller, Canned, FIRST, Stage, play_with, stage_with, upstream};

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

#[tokio::test]
async fn many_answers_are_renewed_by_one_list_and_what_changed_is_seen() {
    let played =
        play_with("genesys", "latency = \"5ms\"", |config| fresh(config, "/api/v2/scripts/published/*", 400))
            .await;
    let script = |n: usize| format!("/api/v2/scripts/published/20000000-0000-4000-8000-{n:012x}");
    let stage = Stage { gateway: played.gateway, caller: played.caller };
    let rounds = async |count| {
        let mut last = Vec::new();
        for _ in 0..count {
            last.clear();
            for n in 1..=8 {
                let answer = stage.caller.get(&script(n)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                last.push(answer.json()["version"].as_u64().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        last
    };
    assert_eq!(rounds(60).await, [1; 8]);
    assert!(tally(&stage, "lists").await >= 2);
    assert!(tally(&stage, "listed").await >= 16, "eight by each list");
    // Somebody else publishes, past the gateway.
    let upstream = Caller::new(played.sim.url().strip_prefix("http://").unwrap().parse().unwrap());
    let bearer = upstream.bearer().await;
    let body = r#"{"scriptId": "20000000-0000-4000-8000-000000000003"}"#;
    let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let published = upstream.call(Method::POST, "/api/v2/scripts/published", &fields, body).await;
    assert_eq!(published.status, 200, "{published:?}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(rounds(1).await, [1, 1, 2, 1, 1, 1, 1, 1]);
    let text = Caller::new(stage.gateway.admin_addr()).get("/metrics").await;
    let text = String::from_utf8(text.body.to_vec()).unwrap();
    for line in [
        "tidegate_cache_calls_total{reason=\"list\"",
        "tidegate_cache_unchanged_total{by=\"list\"",
        "tidegate_cache_saved_ratio{",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
}

/// Two callers of one path at once, the second of them a bot: what each is answered by an upstream that writes `answer` with the number
/// of the call, as soon as both wait or have been sent.
async fn two_at_once(answer: &'static str) -> (Vec<String>, u64) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let url = upstream(move |mut wire, _| {
        let gate = Arc::clone(&gate);
        async move {
            while let Some(head) = wire.until("\r\n\r\n").await {
                gate.acquire().await.unwrap().forget();
                let who = if head.to_ascii_lowercase().contains("user-agent: bot") { "bot" } else { "man" };
                wire.write(&answer.replace("WHO", who)).await;
            }
        }
    })
    .await;
    let stage = stage_with(&url, guide(), |_| {}).await;
    let mut reads = Vec::new();
    for agent in ["man", "bot"] {
        let caller = stage.caller.clone();
        reads.push(tokio::spawn(async move {
            caller.call(Method::GET, "/api/v2/scripts/7", &[("User-Agent", agent)], "").await
        }));
        while tally(&stage, "fetches").await + tally(&stage, "joins").await < reads.len() as u64 {
            tokio::task::yield_now().await;
        }
    }
    opened.add_permits(8);
    let mut bodies = Vec::new();
    for read in reads {
        bodies.push(String::from_utf8(read.await.unwrap().body.to_vec()).unwrap());
    }
    (bodies, tally(&stage, "joins").await)
}

#[tokio::test]
async fn who_joined_is_not_given_what_varies_by_a_header_it_has_otherwise() {
    let varies = "HTTP/1.1 200 OK\r\nVary: User-Agent\r\nContent-Length: 3\r\n\r\nWHO";
    assert_eq!(two_at_once(varies).await, (vec!["man".to_owned(), "bot".to_owned()], 1));
}

#[tokio::test]
async fn who_joined_is_not_given_the_cookie_of_another() {
    let cookie = "HTTP/1.1 200 OK\r\nSet-Cookie: who=WHO\r\nContent-Length: 3\r\n\r\nWHO";
    assert_eq!(two_at_once(cookie).await, (vec!["man".to_owned(), "bot".to_owned()], 1));
}

#[tokio::test]
async fn a_header_nobody_knows_separates_the_answers_of_two_callers() {
    let (canned, url) =
        Canned::start("HTTP/1.1 200 OK\r\nCache-Control: max-age=30\r\nContent-Length: 2\r\n\r\nok").await;
    let stage = stage_with(&url, guide(), |_| {}).await;
    for shop in ["a", "b", "a"] {
        stage.caller.call(Method::GET, "/admin/orders", &[("X-Shopify-Access-Token", shop)], "").await;
    }
    stage.caller.get("/admin/orders").await;
    assert_eq!(canned.heads().len(), 3, "two shops and somebody without a token");
}

/// An upstream that answers one call for each permit, and how many calls have come.
async fn gated() -> (Arc<Semaphore>, Arc<AtomicUsize>, String) {
    let (gate, came) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opened, count) = (Arc::clone(&gate), Arc::clone(&came));
    let url = upstream(move |mut wire, _| {
        let (gate, came) = (Arc::clone(&gate), Arc::clone(&came));
        async move {
            while wire.until("\r\n\r\n").await.is_some() {
                came.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                wire.write(OK).await;
            }
        }
    })
    .await;
    (opened, count, url)
}

fn read(stage: &Stage, headers: &'static [(&'static str, &'static str)]) -> JoinHandle<Answer> {
    let caller = stage.caller.clone();
    tokio::spawn(async move { caller.call(Method::GET, "/api/v2/scripts/7", headers, "").await })
}

#[tokio::test]
async fn the_deadline_of_one_reader_is_not_that_of_another() {
    let (gate, came, url) = gated().await;
    let stage = stage_with(&url, guide(), |_| {}).await;
    let hasty = read(&stage, &[("Tidegate-Deadline", "0.4")]);
    while came.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let patient = read(&stage, &[]);
    let hastier = read(&stage, &[("Tidegate-Deadline", "0.1")]);
    while tally(&stage, "joins").await < 2 {
        tokio::task::yield_now().await;
    }
    let late = hastier.await.unwrap();
    assert!(late.is_ours(504, ("tidegate-outcome", "no-answer")), "{late:?}");
    assert!(!hasty.is_finished(), "it has more time than the one that joined it");
    let late = hasty.await.unwrap();
    assert!(late.is_ours(504, ("tidegate-outcome", "no-answer")), "{late:?}");
    gate.add_permits(2);
    let answer = patient.await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn reads_whose_callers_hung_up_take_nothing_from_the_quota() {
    let played = play_with("genesys-guide", "limit = 4\nwindow = \"2s\"", |_| {}).await;
    for n in 0..4 {
        assert_eq!(played.caller.get(&format!("{FIRST}?n={n}")).await.status, 200);
    }
    let state = Caller::new(played.gateway.admin_addr());
    let under_way =
        async || state.get("/api/state").await.json()["tenants"][0]["calls"]["under_way"].as_u64().unwrap();
    let mut wires = Vec::new();
    for n in 10..20 {
        let mut wire = played.caller.connect().await;
        wire.write(&format!("GET {FIRST}?n={n} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        wires.push(wire);
    }
    while under_way().await < 10 {
        tokio::task::yield_now().await;
    }
    drop(wires);
    while under_way().await > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(played.caller.get(&format!("{FIRST}?n=30")).await.status, 200);
    assert_eq!(played.sim.stats().accepted, 5, "nobody waits for the others");
}

#[tokio::test]
async fn callers_who_wait_in_their_own_lines_for_one_answer_cost_one_call() {
    let played = play_with("genesys-guide", "limit = 2\nwindow = \"2s\"", |_| {}).await;
    for n in 0..2 {
        assert_eq!(played.caller.get(&format!("{FIRST}?n={n}")).await.status, 200);
    }
    let reads = ["anna", "berta", "carla"].map(|name| {
        let caller = played.caller.clone();
        tokio::spawn(async move { caller.call(Method::GET, FIRST, &[("Tidegate-Caller", name)], "").await })
    });
    for read in reads {
        assert_eq!(read.await.unwrap().status, 200);
    }
    assert_eq!(played.sim.stats().accepted, 3);
}

#[tokio::test]
async fn a_search_by_post_closes_nothing_and_a_hit_tells_nothing_of_the_call_that_brought_it() {
    let answer =
        "HTTP/1.1 200 OK\r\ninin-ratelimit-count: 5\r\nInin-Correlation-Id: a\r\nContent-Length: 2\r\n\r\nok";
    let (canned, url) = Canned::start(answer).await;
    let profile = tidegate::Profile::builtin("genesys").unwrap();
    let stage = stage_with(&url, profile, |config| fresh(config, "/api/v2/users/*", 60_000)).await;
    let first = stage.caller.get("/api/v2/users/7").await;
    assert_eq!(first.header("inin-ratelimit-count"), "5");
    assert_eq!(stage.caller.post("/api/v2/users/search", "{}").await.status, 200);
    let hit = stage.caller.get("/api/v2/users/7").await;
    assert_eq!(hit.header("cache-status"), "tidegate; hit");
    assert_eq!((hit.header("inin-ratelimit-count"), hit.header("inin-correlation-id")), ("", ""));
    stage.caller.post("/api/v2/users", "{}").await;
    stage.caller.get("/api/v2/users/7").await;
    assert_eq!(canned.heads().len(), 4, "any other write closes");
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_comes_and_any_other_answer_is_read_to_its_end() {
    for (kind, length) in [("application/x-ndjson; charset=utf-8", ""), ("application/json", "2")] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let (_, url) = Canned::start(&format!("{head}2\r\nok\r\n0\r\n\r\n")).await;
        let stage = stage_with(&url, guide(), |_| {}).await;
        let answer = stage.caller.get("/api/v2/groups/7").await;
        assert_eq!((&answer.body[..], answer.header("content-length")), (&b"ok"[..], length), "{kind}");
    }
}

#[tokio::test]
async fn what_was_read_with_a_login_ends_with_it() {
    let played = play_with("genesys-guide", "", |config| fresh(config, "/api/v2/users/*", 60_000)).await;
    let bearer = played.caller.bearer().await;
    let shown = [("Authorization", bearer.as_str())];
    let read = async || played.caller.call(Method::GET, FIRST, &shown, "").await;
    assert_eq!(read().await.status, 200);
    assert_eq!(read().await.header("cache-status"), "tidegate; hit");
    played.caller.call(Method::DELETE, "/api/v2/tokens/me", &shown, "").await;
    let after = read().await;
    assert_ne!(after.header("cache-status"), "tidegate; hit", "{after:?}");
}
