//! Merged writes on real sockets: one call for many, an answer for each.
//!
//! Groups are filled to their last row, so that nothing depends on how fast a test runs: a full group does not wait.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidegate::Profile;
use tidegate_core::cache::FreshRule;
use tidegate_core::glob::PathGlob;
use tidegate_core::merge::Bounds;
use tidegate_gateway::{Gateway, GatewayConfig, MergeConfig};
use tokio::sync::Semaphore;

use crate::stage::{Answer, Caller, FIRST, Played, Stage, field, play_with, stage_with, upstream};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// The rule for skills, with calls of so many rows.
fn merging(max: usize) -> MergeConfig {
    let mut rules = Profile::builtin("genesys").unwrap().merge;
    rules.retain(|rule| rule.name == "user-skills");
    rules[0].max = max;
    let bounds = Bounds { window: Duration::from_secs(1), ..Bounds::default() };
    MergeConfig { bounds, rules, ..MergeConfig::default() }
}

fn switch_on(max: usize) -> impl FnOnce(&mut GatewayConfig) {
    move |config| config.merging = Some(merging(max))
}

async fn played(max: usize) -> Played {
    play_with("genesys", "", switch_on(max)).await
}

fn skill(number: u32) -> String {
    format!("10000000-0000-4000-8000-{number:012x}")
}

/// One write of a skill: by its own path, by that of all, or as the only row of a bulk call.
async fn put(caller: &Caller, number: u32, value: u32) -> Answer {
    let body = json!({ "proficiency": value }).to_string();
    caller.call(Method::PUT, &format!("{FIRST}/routingskills/{}", skill(number)), &[JSON], body).await
}

async fn post(caller: &Caller, number: u32, value: u32) -> Answer {
    let body = json!({ "id": skill(number), "proficiency": value }).to_string();
    caller.post(&format!("{FIRST}/routingskills"), &body).await
}

async fn patch(caller: &Caller, number: u32, value: u32) -> Answer {
    let body = json!([{ "id": skill(number), "proficiency": value }]).to_string();
    caller.call(Method::PATCH, &format!("{FIRST}/routingskills/bulk"), &[JSON], body).await
}

async fn tenant(gateway: &Gateway) -> Value {
    Caller::new(gateway.admin_addr()).get("/api/state").await.json()["tenants"][0].clone()
}

async fn until(gateway: &Gateway, part: &str, what: &str, count: u64) {
    while tenant(gateway).await[part][what] != count {
        tokio::task::yield_now().await;
    }
}

/// The skills of the first user, as the simulator has them.
async fn skills(played: &Played) -> Value {
    let answer = played.caller.get(&format!("{FIRST}/routingskills?pageSize=100")).await.json();
    let entities = answer["entities"].as_array().unwrap().iter();
    entities.map(|item| json!([item["id"], item["proficiency"]])).collect()
}

#[tokio::test]
async fn three_writes_of_one_user_share_a_call_and_each_hears_its_own() {
    let played = played(3).await;
    let caller = &played.caller;
    let (put, post, patch) = tokio::join!(put(caller, 1, 2), post(caller, 2, 3), patch(caller, 3, 4));
    for answer in [&put, &post, &patch] {
        assert_eq!((answer.status.as_u16(), answer.header("tidegate-merged")), (200, "3"), "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    let of = |answer: &Answer| (answer.json()["id"].clone(), answer.json()["proficiency"].as_f64());
    assert_eq!(of(&put), (json!(skill(1)), Some(2.0)));
    assert_eq!(of(&post), (json!(skill(2)), Some(3.0)));
    assert_eq!(patch.json()["total"], 3);
    let writes = played.sim.stats().writes;
    assert_eq!(
        writes.into_iter().collect::<Vec<_>>(),
        [("PATCH /api/v2/users/{id}/routingskills/bulk".into(), 1)]
    );
    assert_eq!(skills(&played).await, json!([[skill(1), 2.0], [skill(2), 3.0], [skill(3), 4.0]]));
    let metrics = Caller::new(played.gateway.admin_addr()).get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in [
        "tidegate_merges_total{rule=\"user-skills\",tenant=\"default\"} 1",
        "tidegate_merged_writes_total{rule=\"user-skills\",tenant=\"default\"} 3",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn one_that_is_refused_spoils_nothing_for_the_others() {
    let played = played(3).await;
    let caller = &played.caller;
    let (good, bad, also) = tokio::join!(put(caller, 1, 2), put(caller, 2, 9), patch(caller, 3, 4));
    assert_eq!([&good, &bad, &also].map(|answer| answer.status.as_u16()), [200, 400, 200], "{bad:?}");
    assert!(
        bad.json()["message"].as_str().unwrap().contains("proficiency"),
        "the upstream's own word: {bad:?}"
    );
    for answer in [&good, &bad, &also] {
        assert_eq!(answer.header("tidegate-merged"), "", "each was sent alone");
    }
    assert_eq!(skills(&played).await, json!([[skill(1), 2.0], [skill(3), 4.0]]));
    assert_eq!(tenant(&played.gateway).await["merging"]["fallbacks"], 3);
}

#[tokio::test]
async fn who_hangs_up_before_the_call_leaves_is_not_in_it() {
    let played = played(2).await;
    let mut gone = played.caller.connect().await;
    let body = r#"{"proficiency":5}"#;
    let target = format!("{FIRST}/routingskills/{}", skill(9));
    gone.write(&format!(
        "PUT {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    until(&played.gateway, "merging", "entries", 1).await;
    drop(gone);
    until(&played.gateway, "merging", "entries", 0).await;
    let (one, two) = tokio::join!(put(&played.caller, 1, 1), put(&played.caller, 2, 2));
    assert_eq!((one.header("tidegate-merged"), two.header("tidegate-merged")), ("2", "2"), "{one:?} {two:?}");
    assert_eq!(skills(&played).await, json!([[skill(1), 1.0], [skill(2), 2.0]]));
}

#[tokio::test]
async fn what_is_more_than_its_row_is_not_merged() {
    let played = played(2).await;
    let target = format!("{FIRST}/routingskills/{}", skill(1));
    let fields = [
        ("Idempotency-Key", "k1"),
        ("X-Genesys-Request-Id", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("Prefer", "return=minimal"),
        ("If-Match", "\"7\""),
        ("Tidegate-Deadline", "9"),
    ];
    let body = r#"{"proficiency":2}"#;
    for header in fields {
        let answer = played.caller.call(Method::PUT, &target, &[JSON, header], body).await;
        assert_eq!((answer.status.as_u16(), answer.header("tidegate-merged")), (200, ""), "{header:?}");
    }
    let more = played.caller.call(Method::PUT, &target, &[JSON], r#"{"proficiency":2,"x":1}"#).await;
    assert_eq!((more.status.as_u16(), more.header("tidegate-merged")), (200, ""));
    let asked = played.caller.call(Method::PUT, &format!("{target}?x=1"), &[JSON], body).await;
    assert_eq!((asked.status.as_u16(), asked.header("tidegate-merged")), (200, ""));
    let state = tenant(&played.gateway).await["merging"].clone();
    assert_eq!((&state["groups"], &state["alone"], &state["entries"]), (&json!(0), &json!(7), &json!(0)));
}

#[tokio::test]
async fn classes_and_tokens_do_not_share_a_call() {
    let played = played(2).await;
    let caller = &played.caller;
    let bearer = caller.bearer().await;
    let target = |number| format!("{FIRST}/routingskills/{}", skill(number));
    let body = r#"{"proficiency":2}"#;
    let (as_bulk, as_token) =
        ([JSON, ("Tidegate-Class", "bulk")], [JSON, ("Authorization", bearer.as_str())]);
    let targets = [1, 2, 3].map(target);
    let answers = tokio::join!(
        caller.call(Method::PUT, &targets[0], &[JSON], body),
        caller.call(Method::PUT, &targets[1], &as_bulk, body),
        caller.call(Method::PUT, &targets[2], &as_token, body),
    );
    for answer in [answers.0, answers.1, answers.2] {
        assert_eq!((answer.status.as_u16(), answer.header("tidegate-merged")), (200, "1"), "{answer:?}");
    }
}

/// An upstream that answers as often as it is let, and what it was sent.
async fn gated(answer: &'static str) -> (String, Arc<Semaphore>, Arc<Mutex<Vec<String>>>) {
    let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let shared = (Arc::clone(&gate), Arc::clone(&seen));
    let url = upstream(move |mut wire, _| {
        let (gate, seen) = shared.clone();
        async move {
            while let Some(head) = wire.until("\r\n\r\n").await {
                let length = field(&head, "content-length").and_then(|length| length.parse().ok());
                let body = String::from_utf8(wire.exactly(length.unwrap_or(0)).await).unwrap();
                let method = head.split(' ').next().unwrap_or_default();
                seen.lock().push(format!("{method} {body}"));
                gate.acquire().await.unwrap().forget();
                if answer.is_empty() {
                    return;
                }
                wire.write(answer).await;
            }
        }
    })
    .await;
    (url, gate, seen)
}

const DONE: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"entities\":[]}";

#[tokio::test]
async fn a_replacement_between_two_changes_keeps_its_place() {
    let (url, gate, seen) = gated(DONE).await;
    let stage = stage_with(&url, Profile::builtin("genesys").unwrap(), switch_on(9)).await;
    let bulk = "/api/v2/users/7/routingskills/bulk";
    let row = |id: &str| format!(r#"[{{"id":"{id}","proficiency":1}}]"#);
    let mut sent = Vec::new();
    let asks = [(Method::PATCH, "a"), (Method::PUT, "b"), (Method::PATCH, "c"), (Method::PATCH, "d")];
    for (number, (method, id)) in asks.into_iter().enumerate() {
        let (caller, body) = (stage.caller.clone(), row(id));
        sent.push(tokio::spawn(async move { caller.call(method, bulk, &[JSON], body).await }));
        // The last of them joins the one before.
        until(&stage.gateway, "merging", "entries", (number as u64 + 1).min(3)).await;
        until(&stage.gateway, "calls", "under_way", number as u64 + 1).await;
    }
    gate.add_permits(3);
    let mut merged = Vec::new();
    for task in sent {
        let answer = task.await.unwrap();
        assert_eq!(answer.status, 200);
        merged.push(answer.header("tidegate-merged").to_owned());
    }
    assert_eq!(&merged[..2], ["1", ""]);
    let seen = seen.lock().clone();
    assert_eq!(seen[..2], [format!("PATCH {}", row("a")), format!("PUT {}", row("b"))]);
    let (c, d) = (row("c"), row("d"));
    let both = format!("{},{}", &c[..c.len() - 1], &d[1..]);
    assert_eq!(seen[2..], [format!("PATCH {both}")]);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_only_where_that_changes_nothing() {
    for idempotent in [true, false] {
        let (url, gate, seen) = gated("").await;
        gate.add_permits(99);
        let mut config = merging(2);
        config.rules[0].idempotent = idempotent;
        let change = |gateway: &mut GatewayConfig| {
            gateway.merging = Some(config);
            gateway.max_wait = Duration::from_secs(10);
            gateway.tenants[0].upstream.max_retries = 1;
        };
        let stage = stage_with(&url, Profile::builtin("genesys").unwrap(), change).await;
        let (one, two) = tokio::join!(put(&stage.caller, 1, 1), put(&stage.caller, 2, 2));
        for answer in [&one, &two] {
            assert_eq!(
                (answer.status.as_u16(), answer.header("tidegate-outcome")),
                (424, "unknown"),
                "{answer:?}"
            );
        }
        let seen = seen.lock().clone();
        assert_eq!(seen.len(), if idempotent { 2 } else { 1 }, "{seen:?}");
        assert!(seen.iter().all(|sent| *sent == seen[0]), "each attempt carries the same rows: {seen:?}");
    }
}

#[tokio::test]
async fn reads_see_merged_writes() {
    let played = play_with("genesys", "", |config| {
        config.merging = Some(merging(2));
        let path = PathGlob::parse("/api/v2/users/*/routingskills").unwrap();
        config.fresh.push(FreshRule { path, max_age: Duration::from_mins(1) });
    })
    .await;
    let target = format!("{FIRST}/routingskills");
    let read = || async { played.caller.get(&target).await };
    read().await;
    assert_eq!(read().await.header("cache-status"), "tidegate; hit");
    tokio::join!(put(&played.caller, 1, 1), put(&played.caller, 2, 2));
    assert_eq!(read().await.json()["total"], 2);
}

#[tokio::test]
async fn nothing_is_merged_unless_it_is_switched_on() {
    let played: Stage = {
        let played = play_with("genesys", "", |_| {}).await;
        let answers = tokio::join!(put(&played.caller, 1, 1), put(&played.caller, 2, 2));
        assert_eq!((answers.0.header("tidegate-merged"), answers.1.header("tidegate-merged")), ("", ""));
        Stage { gateway: played.gateway, caller: played.caller }
    };
    assert_eq!(tenant(&played.gateway).await["merging"], Value::Null);
}
