//! Writes without a key: what nobody waits for any more is adopted by an identical request, and a cut answer is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tidegate::Profile;

use crate::stage::{Answer, Caller, Canned, FIRST, Played, Wire, field, play, stage, stage_with, upstream};

const USERS: &str = "/api/v2/users";
const ANN: &str = r#"{"name":"Ann","email":"ann@example.com"}"#;
const BOB: &str = r#"{"name":"Bob","email":"bob@example.com"}"#;
const POSTS: &str = "POST /api/v2/users";
/// The simulator decides after this time; a caller hangs up before.
const SLOW: &str = "limit = 0\nlatency = \"600ms\"\ndecide_at = 1.0";

/// Sends a write, which has left when this returns.
async fn send(caller: &Caller, method: &str, target: &str, body: &str) -> Wire {
    let mut wire = caller.connect().await;
    wire.write(&format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    wire
}

async fn hang_up(wire: Wire) {
    drop(wire);
    // The gateway has to notice.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Sends a write and hangs up when it has left.
async fn leave_behind(played: &Played, method: &str, target: &str, body: &str) {
    // The token is fetched first, so that the write leaves at once.
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    hang_up(send(&played.caller, method, target, body).await).await;
}

#[tokio::test]
async fn an_identical_write_adopts_what_its_caller_left_behind() {
    let played = play("genesys", SLOW).await;
    leave_behind(&played, "POST", USERS, ANN).await;
    let adopted = played.caller.post(USERS, ANN).await;
    assert_eq!((adopted.status.as_u16(), adopted.header("tidegate-replayed")), (200, "true"), "{adopted:?}");
    assert_eq!(adopted.json()["name"], "Ann");
    assert_eq!(played.sim.stats().writes[POSTS], 1);
    // It was told to somebody: the next one is another write.
    let next = played.caller.post(USERS, ANN).await;
    assert_eq!(next.header("tidegate-replayed"), "");
    assert_eq!(played.sim.stats().writes[POSTS], 2);
}

#[tokio::test]
async fn an_answer_that_came_after_its_caller_had_gone_is_kept_for_it() {
    let played = play("genesys", SLOW).await;
    leave_behind(&played, "POST", USERS, ANN).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let adopted = played.caller.post(USERS, ANN).await;
    assert_eq!((adopted.status.as_u16(), adopted.header("tidegate-replayed")), (200, "true"), "{adopted:?}");
    assert_eq!(played.sim.stats().writes[POSTS], 1);
}

#[tokio::test]
async fn what_is_not_identical_is_another_write() {
    let played = play("genesys", SLOW).await;
    leave_behind(&played, "POST", USERS, ANN).await;
    let json = ("Content-Type", "application/json");
    let other_caller = [json, ("Tidegate-Caller", "crm")];
    let other_name = [json, ("X-Genesys-Request-Id", "b")];
    for (headers, body) in [(&other_caller[..], ANN), (&other_name, ANN), (&[json], BOB)] {
        let answer = played.caller.call(Method::POST, USERS, headers, body).await;
        assert_eq!((answer.status.as_u16(), answer.header("tidegate-replayed")), (200, ""), "{answer:?}");
    }
    assert_eq!(played.sim.stats().writes[POSTS], 4);
}

#[tokio::test]
async fn equal_writes_of_living_callers_are_both_sent() {
    let played = play("genesys", SLOW).await;
    let (one, other) = tokio::join!(played.caller.post(USERS, ANN), played.caller.post(USERS, ANN));
    assert_eq!((one.header("tidegate-replayed"), other.header("tidegate-replayed")), ("", ""));
    assert_eq!(played.sim.stats().writes[POSTS], 2);
}

#[tokio::test]
async fn a_patch_is_adopted_only_while_it_is_the_last_write_to_its_target() {
    let target = format!("{FIRST}/routingskills/bulk");
    let played = play("genesys", SLOW).await;
    leave_behind(&played, "PATCH", &target, &skill(2)).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    for level in [5, 2] {
        assert_sent(&played, &target, level).await;
    }
}

fn skill(level: u8) -> String {
    format!("[{{\"id\":\"10000000-0000-4000-8000-000000000001\",\"proficiency\":{level}}}]")
}

/// Asserts that a PATCH is sent, and not answered by what became of an equal one.
async fn assert_sent(played: &Played, target: &str, level: u8) {
    let json = [("Content-Type", "application/json")];
    let answer = played.caller.call(Method::PATCH, target, &json, skill(level)).await;
    assert_eq!((answer.status.as_u16(), answer.header("tidegate-replayed")), (200, ""), "{answer:?}");
    assert_eq!(answer.json()["entities"][0]["proficiency"].as_f64(), Some(f64::from(level)));
}

#[tokio::test]
async fn a_patch_that_was_overtaken_while_its_caller_still_waited_is_not_adopted() {
    let target = format!("{FIRST}/routingskills/bulk");
    let played = play("genesys", SLOW).await;
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    let first = send(&played.caller, "PATCH", &target, &skill(2)).await;
    let second = send(&played.caller, "PATCH", &target, &skill(5)).await;
    hang_up(first).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    drop(second);
    assert_sent(&played, &target, 2).await;
}

#[tokio::test]
async fn a_patch_is_overtaken_by_a_write_to_another_spelling_of_its_target() {
    let target = format!("{FIRST}/routingskills/bulk");
    let played = play("genesys", SLOW).await;
    let json = [("Content-Type", "application/json")];
    for other in
        [format!("{target}?pageSize=5"), target.replace("routing", "%72outing"), format!("{target}/")]
    {
        leave_behind(&played, "PATCH", &target, &skill(2)).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        // Whatever the upstream says to it.
        played.caller.call(Method::PUT, &other, &json, "[]").await;
        assert_sent(&played, &target, 2).await;
    }
}

#[tokio::test]
async fn a_lost_write_is_looked_for_although_its_caller_hung_up() {
    let sim = format!("{SLOW}\n[faults]\nmatch = \"{POSTS}\"\nscript = [\"drop-after\", \"drop-after\"]");
    let played = play("genesys", &sim).await;
    // Who sends it again while it is in flight waits for it.
    leave_behind(&played, "POST", USERS, ANN).await;
    let adopted = played.caller.post(USERS, ANN).await;
    assert_eq!(
        (adopted.status.as_u16(), adopted.header("tidegate-outcome"), adopted.header("tidegate-replayed")),
        (200, "confirmed-by-read", "true"),
        "{adopted:?}"
    );
    // Nobody does, and it is looked for all the same.
    leave_behind(&played, "POST", USERS, BOB).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let adopted = played.caller.post(USERS, BOB).await;
    assert_eq!((adopted.status.as_u16(), adopted.header("tidegate-outcome")), (200, "confirmed-by-read"));
    assert_eq!(played.sim.stats().writes[POSTS], 2);
}

#[tokio::test]
async fn an_answer_that_cannot_be_given_again_is_told_to_all_and_nothing_is_sent() {
    let (writes, long) = (Arc::new(AtomicUsize::new(0)), 3 << 20);
    let seen = Arc::clone(&writes);
    let url = upstream(move |mut wire, _| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(head) = wire.until("\r\n\r\n").await {
                wire.exactly(field(&head, "content-length").map_or(0, |length| length.parse().unwrap()))
                    .await;
                seen.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(500)).await;
                wire.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {long}\r\n\r\n{}", "x".repeat(long)))
                    .await;
            }
        }
    })
    .await;
    let stage = stage(&url).await;
    hang_up(send(&stage.caller, "POST", USERS, ANN).await).await;
    // The first comes while it is in flight, the others when it has ended.
    for _ in 0..3 {
        let answer = stage.caller.post(USERS, ANN).await;
        assert!(answer.is_ours(409, ("tidegate-outcome", "answer-not-kept")), "{answer:?}");
        assert_eq!((answer.header("tidegate-refused"), writes.load(Ordering::Relaxed)), ("", 1));
    }
}

#[tokio::test]
async fn a_write_that_timed_out_after_the_longest_wait_is_looked_for_all_the_same() {
    let (writes, seen) = (Arc::new(AtomicUsize::new(0)), json!({"id": "1", "title": "Lead", "version": 5}));
    let (count, shown) = (Arc::clone(&writes), seen.to_string());
    let url = upstream(move |mut wire, _| {
        let (count, shown) = (Arc::clone(&count), shown.clone());
        async move {
            while let Some(head) = wire.until("\r\n\r\n").await {
                wire.exactly(field(&head, "content-length").map_or(0, |length| length.parse().unwrap())).await;
                if head.starts_with("PATCH") {
                    count.fetch_add(1, Ordering::Relaxed);
                    std::future::pending::<()>().await;
                }
                let length = shown.len();
                wire.write(&format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{shown}"
                ))
                .await;
            }
        }
    })
    .await;
    let mut profile = Profile::builtin("genesys").unwrap();
    profile.timeouts.write = Duration::from_secs(2);
    let stage = stage_with(&url, profile, |config| config.max_wait = Duration::from_secs(1)).await;
    let headers = [("Content-Type", "application/json")];
    let answer = stage.caller.call(Method::PATCH, FIRST, &headers, r#"{"title":"Lead","version":4}"#).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("tidegate-outcome")),
        (200, "confirmed-by-read"),
        "{answer:?}"
    );
    assert_eq!((answer.json(), writes.load(Ordering::Relaxed)), (seen, 1));
}

#[tokio::test]
async fn a_put_is_sent_again_because_that_does_no_harm() {
    let target = format!("{FIRST}/routingskills/bulk");
    let played = play("genesys", SLOW).await;
    leave_behind(&played, "PUT", &target, "[]").await;
    let again = played.caller.call(Method::PUT, &target, &[("Content-Type", "application/json")], "[]").await;
    assert_eq!((again.status.as_u16(), again.header("tidegate-replayed")), (200, ""), "{again:?}");
}

#[tokio::test]
async fn an_unknown_outcome_is_told_to_all_who_send_the_write_again() {
    // A write of which no rule says how to find out what became of it.
    let target = format!("{FIRST}/routingskills");
    let skill = r#"{"id":"10000000-0000-4000-8000-000000000001","proficiency":3}"#;
    let played = play("genesys", "limit = 0\n[faults]\nscript = [\"drop-after\"]").await;
    for replayed in ["", "true", "true"] {
        let answer = played.caller.post(&target, skill).await;
        assert!(answer.is_ours(424, ("tidegate-outcome", "unknown")), "{answer:?}");
        assert_eq!(answer.header("tidegate-replayed"), replayed);
    }
    assert_eq!(played.sim.stats().writes["POST /api/v2/users/{id}/routingskills"], 1);
    assert_eq!(played.caller.post(USERS, BOB).await.status, 200);
}

#[tokio::test]
async fn a_write_that_waits_is_not_sent_when_its_caller_hangs_up() {
    let played = play("genesys-guide", "limit = 1\nwindow = \"2s\"").await;
    leave_behind(&played, "POST", USERS, ANN).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(played.sim.stats().writes.get(POSTS), None);
    assert_eq!(
        played.caller.post(USERS, ANN).await.header("tidegate-replayed"),
        "",
        "nothing was left behind"
    );
    assert_eq!(played.sim.stats().writes[POSTS], 1);
}

const CUT: [&str; 2] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{\"id\":1,",
    "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n8\r\n{\"id\":1,\r\n",
];

#[tokio::test]
async fn a_writes_answer_cut_in_its_body_is_told_and_its_caller_is_not_reset() {
    for text in CUT {
        let (canned, url) = Canned::start(text).await;
        let stage = stage(&url).await;
        for method in [Method::POST, Method::PATCH, Method::PUT, Method::DELETE] {
            let answer = stage.caller.call(method.clone(), USERS, &[], "{}").await;
            assert!(answer.is_ours(424, ("tidegate-outcome", "answer-lost")), "{method}: {answer:?}");
            assert_eq!(answer.header("tidegate-attempts"), "1");
            assert!(!answer.headers.contains_key("retry-after"));
        }
        assert_eq!(canned.heads().len(), 4, "what was executed is not sent again");
    }
}

/// An upstream that cuts the answer of every write, and answers reads with `shown`. The profile knows how its writes are read back.
async fn cut_and_read_back(method: Method, target: &str, body: &str, shown: &str) -> (Answer, usize) {
    let shown = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{shown}",
        shown.len()
    );
    let (writes, write) = (Arc::new(AtomicUsize::new(0)), format!("{method} {target} "));
    let seen = Arc::clone(&writes);
    let url = upstream(move |mut wire, _| {
        let (shown, seen, write) = (shown.clone(), Arc::clone(&seen), write.clone());
        async move {
            while let Some(head) = wire.until("\r\n\r\n").await {
                wire.exactly(field(&head, "content-length").map_or(0, |length| length.parse().unwrap())).await;
                if head.starts_with(&write) {
                    seen.fetch_add(1, Ordering::Relaxed);
                    wire.write(
                        "HTTP/1.1 202 Accepted\r\nContent-Type: text/plain\r\nETag: \"half\"\r\nX-Trace: 7\r\n\
                         Content-Length: 100\r\n\r\n{\"id\":",
                    )
                    .await;
                    return;
                }
                wire.write(&shown).await;
            }
        }
    })
    .await;
    let stage = stage_with(&url, Profile::builtin("genesys").unwrap(), |config| {
        config.max_wait = Duration::from_secs(2);
    })
    .await;
    let headers = [("Content-Type", "application/json")];
    let answer = stage.caller.call(method, target, &headers, body.to_owned()).await;
    (answer, writes.load(Ordering::Relaxed))
}

/// Asserts that a cut answer is whole: the upstream's status, and what was read as its body.
fn assert_completed((answer, writes): (Answer, usize), entity: &Value) {
    assert_eq!(
        (answer.status.as_u16(), answer.header("tidegate-outcome"), writes),
        (202, "confirmed-by-read", 1),
        "{answer:?}"
    );
    assert_eq!(answer.json(), *entity);
    assert_eq!((answer.header("content-type"), answer.header("x-trace")), ("application/json", "7"));
    assert_eq!((answer.header("etag"), answer.header("tidegate-attempts")), ("", "1"));
}

#[tokio::test]
async fn a_cut_answer_of_a_create_is_completed_by_the_entity_that_is_found() {
    let ann = json!({"id": "1", "name": "Ann", "email": "ann@example.com", "version": 1});
    let shown = json!({"results": [ann], "total": 1}).to_string();
    assert_completed(cut_and_read_back(Method::POST, USERS, ANN, &shown).await, &ann);
}

#[tokio::test]
async fn a_cut_answer_of_an_update_is_completed_by_the_entity_of_the_next_version() {
    let update = r#"{"title":"Lead","version":4}"#;
    let user = json!({"id": "1", "title": "Lead", "version": 5});
    assert_completed(cut_and_read_back(Method::PATCH, FIRST, update, &user.to_string()).await, &user);
    let since = json!({"id": "1", "title": "Boss", "version": 6}).to_string();
    let (answer, writes) = cut_and_read_back(Method::PATCH, FIRST, update, &since).await;
    assert!(answer.is_ours(424, ("tidegate-outcome", "answer-lost")), "others have changed it: {answer:?}");
    assert_eq!(writes, 1);
}

#[tokio::test]
async fn a_cut_answer_of_a_replacement_is_completed_by_what_is_there_now() {
    let target = format!("{FIRST}/routingskills/bulk");
    let skills = json!({"entities": [{"id": "a", "proficiency": 3}], "total": 1});
    let body = r#"[{"id":"a","proficiency":3.0}]"#;
    assert_completed(cut_and_read_back(Method::PUT, &target, body, &skills.to_string()).await, &skills);
}

#[tokio::test]
async fn an_error_of_a_write_that_is_cut_keeps_its_status_and_its_fields() {
    let text = "HTTP/1.1 409 Conflict\r\nContent-Type: text/plain\r\nContent-Length: 100\r\nETag: \"v2\"\r\n\
                Connection: close\r\n\r\nthe vers";
    let (_canned, url) = Canned::start(text).await;
    let answer = stage(&url).await.caller.post(USERS, ANN).await;
    assert!(answer.is_ours(409, ("tidegate-outcome", "answer-lost")), "{answer:?}");
    assert_eq!((answer.header("etag"), answer.header("content-type")), ("\"v2\"", "application/json"));
}

#[tokio::test]
async fn a_writes_answer_beyond_the_bound_is_passed_on_as_it_comes() {
    let long = 3 << 20;
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {long}\r\n\r\n{}", "x".repeat(long));
    let (canned, url) = Canned::start(&text).await;
    let stage = stage_with(&url, Profile::builtin("genesys").unwrap(), |_| {}).await;
    assert_eq!(stage.caller.post(USERS, ANN).await.body.len(), long);
    let headers = [("Idempotency-Key", "k")];
    assert_eq!(stage.caller.call(Method::POST, USERS, &headers, BOB).await.body.len(), long);
    let again = stage.caller.call(Method::POST, USERS, &headers, BOB).await;
    assert!(again.is_ours(409, ("tidegate-outcome", "answer-not-kept")), "{again:?}");
    assert_eq!(canned.heads().len(), 2);
}

#[tokio::test]
async fn a_stream_of_events_is_not_waited_for() {
    let url = upstream(|mut wire, _| async move {
        wire.head().await;
        wire.exactly(2).await;
        wire.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
        wire.write("9\r\ndata: 1\n\n\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let stage = stage(&url).await;
    let mut wire = stage.caller.connect().await;
    wire.write("POST /api/v2/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}").await;
    wire.until("data: 1\n\n").await.expect("the first event, while the stream goes on");
}

#[tokio::test]
async fn a_delete_that_finds_nothing_after_doubt_is_done() {
    let url = upstream(|mut wire, number| async move {
        while wire.until("\r\n\r\n").await.is_some() {
            if number == 0 {
                return;
            }
            wire.write("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}").await;
        }
    })
    .await;
    let stage = stage(&url).await;
    let delete = || stage.caller.call(Method::DELETE, FIRST, &[], "");
    let answer = delete().await;
    assert_eq!((answer.status.as_u16(), answer.header("tidegate-outcome")), (204, "already-done"));
    assert_eq!(answer.header("tidegate-attempts"), "2");
    let answer = delete().await;
    assert_eq!((answer.status.as_u16(), answer.header("tidegate-outcome")), (404, ""));
}
