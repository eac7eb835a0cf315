//! `Idempotency-Key`: joins, replays and refusals, also over a restart, and the guide's Edge Case 3.

use std::path::Path;
use std::time::Duration;

use http::Method;
use tidegate::Profile;
use tidegate_core::idempotency::BodyDigest;
use tidegate_gateway::{GatewayConfig, KeepKeys};
use tidegate_sim::{Sim, SimConfig};
use tokio::net::TcpListener;

use crate::stage::{Answer, Caller, Canned, FIRST, Stage, credential, field, play, stage_with, upstream};

const USERS: &str = "/api/v2/users";
const ANN: &str = r#"{"name":"Ann","email":"ann@example.com"}"#;
const BOB: &str = r#"{"name":"Bob","email":"bob@example.com"}"#;
const POSTS: &str = "POST /api/v2/users";
const ADDED: &str = "POST /api/v2/users/{id}/routingskills";

async fn post(caller: &Caller, key: &str, body: &str) -> Answer {
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
    caller.call(Method::POST, USERS, &headers, body.to_owned()).await
}

async fn sim(text: &str) -> Sim {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tidegate_sim::serve(listener, SimConfig::from_toml(text).unwrap()).await.unwrap()
}

/// A gateway that keeps its keys in `file`, as the one before it did.
async fn gateway(sim: &Sim, profile: &str, file: &Path) -> Stage {
    stage_with(&sim.url(), Profile::builtin(profile).unwrap(), |config: &mut GatewayConfig| {
        config.tenants[0].upstream.credential = Some(credential());
        config.tenants[0].keys = KeepKeys::In(file.to_owned());
    })
    .await
}

#[tokio::test]
async fn forty_who_send_one_write_under_one_key_make_one_call() {
    let played = play("genesys", "limit = 0\nlatency = \"300ms\"").await;
    let calls = (0..40).map(|_| post(&played.caller, "\"order-17\"", ANN));
    let answers = futures_util::future::join_all(calls).await;
    let stats = played.sim.stats();
    assert_eq!((stats.writes[POSTS], stats.duplicates), (1, 0));
    let first = answers.iter().find(|answer| answer.header("tidegate-replayed").is_empty()).unwrap();
    assert_eq!(first.header("tidegate-attempts"), "1");
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (first.status, &first.body), "{answer:?}");
    }
    let joined = answers.iter().filter(|answer| answer.header("tidegate-replayed") == "true").count();
    assert_eq!(joined, 39);
    let metrics = Caller::new(played.gateway.admin_addr()).get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("tidegate_joins_total{by=\"key\",tenant=\"default\"} 39"), "{metrics}");
}

#[tokio::test]
async fn a_finished_write_is_answered_again_byte_by_byte_and_not_sent() {
    let (canned, url) = Canned::start(
        "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nLocation: /u/1\r\nSet-Cookie: a=b\r\nContent-Length: 8\r\n\r\n{\"id\":1}",
    )
    .await;
    let stage = stage_with(&url, Profile::builtin("generic").unwrap(), |_| {}).await;
    let first = post(&stage.caller, "k1", ANN).await;
    let again = post(&stage.caller, "\"k1\"", "{\"email\":\"ann@example.com\", \"name\":\"Ann\"}").await;
    assert_eq!(canned.heads().len(), 1, "the same value in another spelling is the same write");
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!((again.header("location"), again.header("content-type")), ("/u/1", "application/json"));
    assert_eq!((first.header("tidegate-replayed"), again.header("tidegate-replayed")), ("", "true"));
    assert_eq!((again.header("set-cookie"), again.header("tidegate-attempts")), ("", ""));
    assert_eq!(post(&stage.caller, "k2", ANN).await.header("tidegate-replayed"), "");
    assert_eq!(canned.heads().len(), 2, "another key is another write");
}

#[tokio::test]
async fn a_key_names_one_write_of_one_caller() {
    let played = play("genesys", "limit = 0").await;
    assert_eq!(post(&played.caller, "k", ANN).await.status, 200);
    let other = post(&played.caller, "k", BOB).await;
    assert!(other.is_ours(422, ("tidegate-refused", "key-reused")), "{other:?}");
    assert_eq!(played.sim.stats().writes[POSTS], 1);
    let headers =
        [("Content-Type", "application/json"), ("Idempotency-Key", "k"), ("Tidegate-Caller", "crm")];
    let another = played.caller.call(Method::POST, USERS, &headers, BOB).await;
    assert_eq!((another.status.as_u16(), another.header("tidegate-replayed")), (200, ""));
    assert_eq!(played.sim.stats().writes[POSTS], 2, "another caller's key is another key");
}

#[tokio::test]
async fn another_payload_under_a_key_in_flight_is_a_conflict() {
    let played = play("genesys", "limit = 0\nlatency = \"500ms\"").await;
    let first = {
        let caller = played.caller.clone();
        tokio::spawn(async move { post(&caller, "k", ANN).await })
    };
    tokio::time::sleep(Duration::from_millis(150)).await;
    let other = post(&played.caller, "k", BOB).await;
    assert!(other.is_ours(409, ("tidegate-refused", "key-in-flight")), "{other:?}");
    assert!(!other.headers.contains_key("retry-after"));
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(played.sim.stats().writes[POSTS], 1);
}

#[tokio::test]
async fn who_joins_what_its_first_caller_gave_up_gets_its_answer_and_not_a_throttle() {
    let url = upstream(|mut wire, number| async move {
        let mut number = number;
        while let Some(head) = wire.until("\r\n\r\n").await {
            wire.exactly(field(&head, "content-length").map_or(0, |length| length.parse().unwrap())).await;
            if number == 0 {
                tokio::time::sleep(Duration::from_millis(800)).await;
                wire.write("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
                    .await;
            } else {
                wire.write("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}").await;
            }
            number += 1;
        }
    })
    .await;
    let stage = stage_with(&url, Profile::builtin("genesys").unwrap(), |_| {}).await;
    let first = {
        let caller = stage.caller.clone();
        tokio::spawn(async move { post(&caller, "k", ANN).await })
    };
    tokio::time::sleep(Duration::from_millis(250)).await;
    first.abort();
    tokio::time::sleep(Duration::from_millis(150)).await;
    let joined = post(&stage.caller, "k", ANN).await;
    assert_eq!((joined.status.as_u16(), joined.header("tidegate-replayed")), (201, "true"), "{joined:?}");
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_refused_before_anything_is_sent() {
    let played = play("genesys", "limit = 0").await;
    for key in ["", "a b", "\"open", "a,b"] {
        let answer = post(&played.caller, key, ANN).await;
        assert!(answer.is_ours(400, ("tidegate-refused", "invalid-key")), "{key}: {answer:?}");
    }
    let large = format!("\"{}\"", "x".repeat(600_000));
    let answer = post(&played.caller, "k", &large).await;
    assert!(answer.is_ours(413, ("tidegate-refused", "body")), "{answer:?}");
    assert!(!played.sim.stats().writes.contains_key(POSTS));
}

#[tokio::test]
async fn a_body_that_finds_no_room_now_may_come_again() {
    let played = play("genesys", "limit = 0").await;
    let mut held = Vec::new();
    // 64 MiB, announced and not sent.
    for _ in 0..132 {
        let mut wire = played.caller.connect().await;
        wire.write(&format!("POST {USERS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 512000\r\n\r\n"))
            .await;
        held.push(wire);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let body = format!(r#"{{"name":"Ann","email":"ann@example.com","title":"{}"}}"#, "x".repeat(300_000));
    let full = post(&played.caller, "k", &body).await;
    assert!(full.is_ours(503, ("tidegate-refused", "no-room")), "{full:?}");
    assert_eq!(full.header("retry-after"), "5");
    drop(held);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(post(&played.caller, "k", &body).await.status, 200);
}

#[tokio::test]
async fn what_was_refused_leaves_its_key_free() {
    let sim = "limit = 1\nwindow = \"60s\"";
    let played = play("genesys-guide", sim).await;
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    let refused = post(&played.caller, "k", ANN).await;
    assert_eq!((refused.status.as_u16(), refused.header("tidegate-refused")), (429, "cannot-meet"));
    let again = post(&played.caller, "k", BOB).await;
    assert_eq!((again.status.as_u16(), again.header("tidegate-refused")), (429, "cannot-meet"), "no 422");
}

#[tokio::test]
async fn an_unknown_outcome_is_told_again_and_nothing_is_sent() {
    // A write of which no rule says how to find out what became of it.
    let target = format!("{FIRST}/routingskills");
    let skill = r#"{"id":"10000000-0000-4000-8000-000000000001","proficiency":3}"#;
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    let played = play("genesys", "limit = 0\n[faults]\nscript = [\"drop-after\"]").await;
    for attempts in ["1", "0"] {
        let answer = played.caller.call(Method::POST, &target, &headers, skill).await;
        assert!(answer.is_ours(424, ("tidegate-outcome", "unknown")), "{answer:?}");
        assert_eq!(answer.header("tidegate-attempts"), attempts);
    }
    assert_eq!(played.sim.stats().writes[ADDED], 1);
}

#[tokio::test]
async fn a_gateway_that_was_started_again_answers_from_its_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.db");
    let sim = sim("limit = 0").await;
    let first = gateway(&sim, "genesys", &file).await;
    let bearer = first.caller.bearer().await;
    let headers =
        [("Content-Type", "application/json"), ("Idempotency-Key", "k"), ("Authorization", &bearer)];
    let one = first.caller.call(Method::POST, USERS, &headers, ANN).await;
    assert_eq!(one.status, 200, "{one:?}");
    first.gateway.drain().await;
    let second = gateway(&sim, "genesys", &file).await;
    // The login is forgotten, its bearer is not taken for somebody else's.
    let again = second.caller.call(Method::POST, USERS, &headers, ANN).await;
    assert_eq!((again.status, &again.body), (one.status, &one.body));
    assert_eq!(again.header("tidegate-replayed"), "true");
    let other = second.caller.call(Method::POST, USERS, &headers, BOB).await;
    assert!(other.is_ours(422, ("tidegate-refused", "key-reused")), "{other:?}");
    assert_eq!(sim.stats().writes[POSTS], 1);
    let text = std::fs::read(&file).unwrap();
    let secret = bearer.strip_prefix("Bearer ").unwrap().as_bytes();
    assert!(!text.windows(secret.len()).any(|bytes| bytes == secret), "tokens are not written down");
}

/// What a gateway leaves that is killed when a write has left.
async fn killed_while_sent(sim: &Sim, profile: &str, file: &Path) -> Answer {
    // No rule says how to find out what became of it.
    let target = format!("{FIRST}/routingskills");
    let skill = r#"{"id":"10000000-0000-4000-8000-000000000001","proficiency":3}"#;
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    let first = gateway(sim, profile, file).await;
    let unknown = first.caller.call(Method::POST, &target, &headers, skill).await;
    assert_eq!(unknown.status, 424, "{unknown:?}");
    first.gateway.drain().await;
    let connection = rusqlite::Connection::open(file).unwrap();
    assert_eq!(connection.execute("UPDATE entry SET state = 'sent', ended_ms = NULL", []).unwrap(), 1);
    drop(connection);
    let second = gateway(sim, profile, file).await;
    second.caller.call(Method::POST, &target, &headers, skill).await
}

#[tokio::test]
async fn a_write_that_was_in_flight_at_a_crash_is_sent_again_only_where_its_key_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    // Its answers are lost for longer than it is tried.
    let lost = ["\"timeout-after\""; 6].join(", ");
    let text = format!("limit = 0\ndedup = \"24h\"\n[faults]\nmatch = \"POST /api/**\"\nscript = [{lost}]");
    let recognising = sim(&text).await;
    let again = killed_while_sent(&recognising, "genesys-guide", &folder.path().join("guide.db")).await;
    assert_eq!((again.status.as_u16(), again.header("tidegate-replayed")), (200, ""), "{again:?}");
    let stats = recognising.stats();
    assert_eq!((stats.writes[ADDED], stats.duplicates), (1, 0));

    let forgetting = sim("limit = 0\n[faults]\nmatch = \"POST /api/**\"\nscript = [\"timeout-after\"]").await;
    let again = killed_while_sent(&forgetting, "genesys", &folder.path().join("plain.db")).await;
    assert!(again.is_ours(424, ("tidegate-outcome", "unknown")), "{again:?}");
    assert_eq!(forgetting.stats().writes[ADDED], 1);
}

#[tokio::test]
async fn a_write_that_a_read_has_shown_is_not_sent_again_under_its_key_whatever_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.db");
    let sim = sim("limit = 0").await;
    let target = format!("{FIRST}/routingskills/bulk");
    let skill =
        |level: u8| format!("[{{\"id\":\"10000000-0000-4000-8000-000000000001\",\"proficiency\":{level}}}]");
    let json = ("Content-Type", "application/json");
    let keyed = [json, ("Idempotency-Key", "k")];
    let first = gateway(&sim, "genesys", &file).await;
    assert_eq!(first.caller.call(Method::PATCH, &target, &keyed, skill(5)).await.status, 200);
    first.gateway.drain().await;
    // As if it had been killed before it heard of that.
    let connection = rusqlite::Connection::open(&file).unwrap();
    let forget =
        "UPDATE entry SET state = 'sent', ended_ms = NULL, status = NULL, headers = NULL, body = NULL";
    assert_eq!(connection.execute(forget, []).unwrap(), 1);
    drop(connection);
    let second = gateway(&sim, "genesys", &file).await;
    let found = second.caller.call(Method::PATCH, &target, &keyed, skill(5)).await;
    assert_eq!(
        (found.status.as_u16(), found.header("tidegate-outcome")),
        (200, "confirmed-by-read"),
        "{found:?}"
    );
    assert_eq!(second.caller.call(Method::PATCH, &target, &[json], skill(2)).await.status, 200);
    let third = second.caller.call(Method::PATCH, &target, &keyed, skill(5)).await;
    assert_eq!((third.status, &third.body), (found.status, &found.body));
    assert_eq!(third.header("tidegate-replayed"), "true");
    let seen = second.caller.get(&format!("{FIRST}/routingskills")).await;
    assert_eq!(seen.json()["entities"][0]["proficiency"].as_f64(), Some(2.0), "what others set stays");
}

#[tokio::test]
async fn doubt_about_a_key_ends_however_often_it_is_asked_for() {
    let mut profile = Profile::builtin("genesys").unwrap();
    for rule in &mut profile.reconcile {
        rule.settle = Duration::from_secs(3);
    }
    let sim = sim("limit = 0\n[faults]\nmatch = \"POST /api/v2/users\"\nscript = [\"drop-before\"]").await;
    let stage = stage_with(&sim.url(), profile, |config: &mut GatewayConfig| {
        config.tenants[0].upstream.credential = Some(credential());
        config.max_wait = Duration::from_secs(1);
    })
    .await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        let answer = post(&stage.caller, "k", ANN).await;
        answers.push(answer.status.as_u16());
        if answer.status == 200 {
            break;
        }
        assert!(answer.is_ours(424, ("tidegate-outcome", "unknown")), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(
        answers.last(),
        Some(&200),
        "each call looks for a second, and all of them for three: {answers:?}"
    );
    assert_eq!(sim.stats().writes[POSTS], 1);
}

#[tokio::test]
async fn who_is_given_the_permission_is_not_told_the_old_refusal() {
    let (canned, url) = Canned::start(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 37\r\n\r\n{\"code\":\"missing.any.permissions\"    }",
    )
    .await;
    let stage = stage_with(&url, Profile::builtin("genesys").unwrap(), |_| {}).await;
    for sent in 1..=2 {
        let answer = post(&stage.caller, "k", ANN).await;
        assert_eq!((answer.status.as_u16(), answer.header("tidegate-replayed")), (403, ""), "{answer:?}");
        assert_eq!(canned.heads().len(), sent);
    }
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.db");
    let sim = sim("limit = 0").await;
    let stage = gateway(&sim, "genesys", &file).await;
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute_batch("DROP TABLE entry").unwrap();
    let answer = post(&stage.caller, "k", ANN).await;
    assert!(answer.is_ours(503, ("tidegate-refused", "ledger")), "{answer:?}");
    assert!(!sim.stats().writes.contains_key(POSTS));
    assert_eq!(stage.caller.post(USERS, BOB).await.status, 200, "calls without a key do not touch it");
}

#[tokio::test]
async fn calls_without_keys_make_no_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.db");
    let sim = sim("limit = 0").await;
    let stage = stage_with(&sim.url(), Profile::builtin("genesys").unwrap(), |config| {
        config.tenants[0].upstream.credential = Some(credential());
        config.tenants[0].keys = KeepKeys::InOnceNeeded(file.clone());
    })
    .await;
    assert_eq!(stage.caller.post(USERS, ANN).await.status, 200);
    assert!(!file.exists());
    assert_eq!(post(&stage.caller, "k", BOB).await.status, 200);
    assert!(file.exists());
}

#[tokio::test]
async fn a_changed_payload_under_the_callers_own_id_is_sent_under_a_new_key_and_takes_effect() {
    let target = format!("{FIRST}/routingskills/bulk");
    let skill =
        |level: u8| format!("[{{\"id\":\"10000000-0000-4000-8000-000000000001\",\"proficiency\":{level}}}]");
    let own_id = ("X-Genesys-Request-Id", "11111111-1111-4111-8111-111111111111");
    let json = ("Content-Type", "application/json");
    let proficiency = |answer: &Answer| answer.json()["entities"][0]["proficiency"].as_f64();

    // Straight at the platform the second one is answered with the first one's result and ignored.
    let played = play("genesys-guide", "limit = 0\ndedup = \"24h\"").await;
    let straight = Caller::new(played.sim.local_addr());
    let bearer = straight.bearer().await;
    for level in [2, 5] {
        let headers = [own_id, json, ("Authorization", &bearer)];
        let answer = straight.call(Method::PATCH, &target, &headers, skill(level)).await;
        assert_eq!((answer.status.as_u16(), proficiency(&answer)), (200, Some(2.0)), "{answer:?}");
    }
    assert_eq!(played.sim.stats().replayed, 1);

    let played = play("genesys-guide", "limit = 0\ndedup = \"24h\"").await;
    for level in [2, 5] {
        let answer = played.caller.call(Method::PATCH, &target, &[own_id, json], skill(level)).await;
        assert_eq!(
            (answer.status.as_u16(), proficiency(&answer)),
            (200, Some(f64::from(level))),
            "{answer:?}"
        );
    }
    assert_eq!(played.sim.stats().replayed, 0);
    // Who names the write by an Idempotency-Key is told instead.
    let key = ("Idempotency-Key", "shift-7");
    for (level, status) in [(3, 200), (4, 422)] {
        let answer = played.caller.call(Method::PATCH, &target, &[key, json], skill(level)).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn the_upstream_is_sent_one_name_for_one_key() {
    let (canned, url) = Canned::start("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    let stage = stage_with(&url, Profile::builtin("genesys").unwrap(), |_| {}).await;
    for body in [ANN, ANN, BOB] {
        // A 401 is proven not to have been executed, so the key stays free.
        assert_eq!(post(&stage.caller, "k", body).await.status, 401);
    }
    let heads = canned.heads();
    let sent: Vec<_> = heads.iter().map(|head| field(head, "x-genesys-request-id").unwrap()).collect();
    assert_eq!(sent[0], sent[1]);
    assert_ne!(sent[0], sent[2], "another payload has another name");
    assert_ne!(BodyDigest::json(ANN.as_bytes()), BodyDigest::json(BOB.as_bytes()));
}
