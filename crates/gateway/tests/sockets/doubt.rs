//! Writes whose answer is lost: sent again where that is safe, told as unknown where it is not, never cut short.

use std::time::Duration;

use http::Method;
use tidegate_sim::Faults;
use tidegate_sim::model::fault::Fault;

use crate::stage::{FIRST, play};

const USERS: &str = "/api/v2/users";
const ANN: &str = r#"{"name":"Ann","email":"ann@example.com"}"#;
/// A write of which no rule says how to find out what became of it.
const SKILL: &str = r#"{"id":"10000000-0000-4000-8000-000000000001","proficiency":3}"#;
const ADDED: &str = "POST /api/v2/users/{id}/routingskills";

#[tokio::test]
async fn a_write_dropped_after_its_commit_is_unknown_and_not_sent_again() {
    let played = play("genesys", "limit = 0\n[faults]\nscript = [\"drop-after\"]").await;
    let answer = played.caller.post(&format!("{FIRST}/routingskills"), SKILL).await;
    assert!(answer.is_ours(424, ("tidegate-outcome", "unknown")), "{answer:?}");
    assert!(!answer.headers.contains_key("retry-after"), "an SDK would send it again");
    assert_eq!((answer.header("tidegate-refused"), answer.header("tidegate-attempts")), ("", "1"));
    let stats = played.sim.stats();
    assert_eq!((stats.writes[ADDED], stats.retried), (1, 0));
}

#[tokio::test]
async fn with_deduplication_it_is_sent_again_under_the_same_key_and_done_once() {
    let sim = "limit = 0\ndedup = \"24h\"\n[faults]\nscript = [\"drop-after\", \"timeout-after\"]";
    let played = play("genesys-guide", sim).await;
    let answer = played.caller.post(USERS, ANN).await;
    assert_eq!((answer.status.as_u16(), answer.header("tidegate-attempts")), (200, "3"), "{answer:?}");
    let stats = played.sim.stats();
    assert_eq!(stats.writes["POST /api/v2/users"], 1);
    assert_eq!((stats.duplicates, stats.retried, stats.replayed), (0, 2, 2));
}

#[tokio::test]
async fn a_504_after_a_write_is_unknown_without_deduplication() {
    let played = play("genesys", "limit = 0\n[faults]\nscript = [\"timeout-after\"]").await;
    let answer = played.caller.post(&format!("{FIRST}/routingskills"), SKILL).await;
    assert!(answer.is_ours(424, ("tidegate-outcome", "unknown")), "{answer:?}");
    assert_eq!(played.sim.stats().writes[ADDED], 1);
}

#[tokio::test]
async fn a_lost_write_that_a_read_shows_is_told_as_done() {
    let played =
        play("genesys", "limit = 0\n[faults]\nmatch = \"POST /api/v2/users\"\nscript = [\"drop-after\"]")
            .await;
    let answer = played.caller.post(USERS, ANN).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("tidegate-outcome")),
        (200, "confirmed-by-read"),
        "{answer:?}"
    );
    assert_eq!(
        (&answer.json()["email"], answer.header("tidegate-attempts")),
        (&"ann@example.com".into(), "1")
    );
    assert_eq!(played.sim.stats().writes["POST /api/v2/users"], 1);
    // An update that was not executed: its version has not moved, so it is sent again.
    let lost = Faults { script: vec![Fault::DropBefore], ..Faults::default() };
    played.sim.set_faults(lost).unwrap();
    let headers = [("Content-Type", "application/json")];
    let update = played.caller.call(Method::PATCH, FIRST, &headers, r#"{"title":"Lead","version":1}"#).await;
    assert_eq!((update.status.as_u16(), update.header("tidegate-attempts")), (200, "2"), "{update:?}");
    assert_eq!(update.header("tidegate-outcome"), "", "it is the upstream's own answer");
    assert_eq!(played.sim.stats().duplicates, 0);
    // A deletion that was executed: sent again it finds nothing.
    played.sim.set_faults(Faults { script: vec![Fault::DropAfter], ..Faults::default() }).unwrap();
    let gone = played.caller.call(Method::DELETE, FIRST, &[], "").await;
    assert_eq!((gone.status.as_u16(), gone.header("tidegate-outcome")), (204, "already-done"), "{gone:?}");
}

#[tokio::test]
async fn reads_and_idempotent_writes_are_sent_again() {
    let played =
        play("genesys", "limit = 0\n[faults]\nscript = [\"drop-before\", \"none\", \"drop-after\"]").await;
    let read = played.caller.get(FIRST).await;
    assert_eq!((read.status.as_u16(), read.header("tidegate-attempts")), (200, "2"));
    let target = format!("{FIRST}/routingskills/bulk");
    let put = played.caller.call(Method::PUT, &target, &[("Content-Type", "application/json")], "[]").await;
    assert_eq!((put.status.as_u16(), put.header("tidegate-attempts")), (200, "2"), "{put:?}");
    assert_eq!(played.sim.stats().duplicates, 0);
}

#[tokio::test]
async fn a_write_that_may_be_done_twice_and_is_never_answered_is_no_secret() {
    let lost = ["\"drop-before\""; 12].join(", ");
    let played = play("genesys", &format!("limit = 0\n[faults]\nscript = [{lost}]")).await;
    let skill = format!("{FIRST}/routingskills/10000000-0000-4000-8000-000000000001");
    let json = [("Content-Type", "application/json")];
    let put = played.caller.call(Method::PUT, &skill, &json, r#"{"proficiency":3}"#).await;
    assert!(put.is_ours(504, ("tidegate-outcome", "no-answer")), "{put:?}");
}

#[tokio::test]
async fn a_refused_write_is_sent_again_without_doubt() {
    let sim = "limit = 0\n[faults]\nunavailable_hint = \"1s\"\nscript = [\"unavailable\"]";
    let played = play("genesys", sim).await;
    let answer = played.caller.post(USERS, ANN).await;
    assert_eq!((answer.status.as_u16(), answer.header("tidegate-attempts")), (200, "2"), "{answer:?}");
    assert_eq!(played.sim.stats().writes["POST /api/v2/users"], 1);
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_cut_a_write_that_has_left() {
    let played = play("genesys", "limit = 0\nlatency = \"600ms\"\ndecide_at = 1.0").await;
    // The token is fetched first, so that the write below leaves at once.
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    let mut wire = played.caller.connect().await;
    wire.write(&format!(
        "POST {USERS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{ANN}",
        ANN.len()
    ))
    .await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    drop(wire);
    tokio::time::sleep(Duration::from_millis(700)).await;
    // The simulator abandons a call whose connection is cut before it is decided.
    assert_eq!(played.sim.stats().writes.get("POST /api/v2/users"), Some(&1));
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_waiting_takes_nothing_from_the_quota() {
    let played = play("genesys-guide", "limit = 1\nwindow = \"2s\"").await;
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    let mut wire = played.caller.connect().await;
    wire.write(&format!("GET {FIRST} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(wire);
    let answer = played.caller.get(FIRST).await;
    assert_eq!(answer.status, 200);
    let stats = played.sim.stats();
    assert_eq!((stats.accepted, stats.throttled), (2, 0), "the one that was given up never left");
}

#[tokio::test]
async fn a_500_is_the_upstreams_word() {
    let played = play("genesys", "limit = 0").await;
    played.sim.set_faults(Faults { internal_error: 1.0, ..Faults::default() }).unwrap();
    let answer = played.caller.post(USERS, ANN).await;
    assert_eq!((answer.status.as_u16(), answer.header("tidegate-attempts")), (500, "1"));
    assert_eq!(answer.header("tidegate-outcome"), "");
}
