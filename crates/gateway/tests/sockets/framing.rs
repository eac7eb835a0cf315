//! Messages on the wire: names, lengths, connections, and upstreams that do not keep to them.

use std::time::Duration;

use http::Method;
use tidegate::Profile;

use crate::stage::{Canned, FIRST, field, play, stage, stage_with, upstream};
use tokio::time::Instant;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn field_names_are_in_title_case_on_the_wire() {
    let played = play("genesys-guide", "limit = 1\nwindow = \"60s\"").await;
    let get = format!("GET {FIRST} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let answer = played.caller.raw(&get).await;
    for name in ["Tidegate-Attempts: 1", "Content-Type: ", "Content-Length: ", "X-Rate-Limit-Remaining: 0"] {
        assert!(answer.contains(&format!("\r\n{name}")), "{name} is missing in {answer}");
    }
    assert!(answer.contains("\r\nInin-Correlation-Id: "), "HTTP does not carry the spelling: {answer}");
    let refused = played.caller.raw(&get).await;
    assert!(refused.contains("\r\nRetry-After: ") && refused.contains("\r\nTidegate-Refused: "), "{refused}");
}

#[tokio::test]
async fn one_connection_of_a_caller_and_one_of_the_upstream_serve_many_calls() {
    for (name, answer) in [
        ("a body", OK),
        ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("an empty body", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let (canned, url) = Canned::start(answer).await;
        let stage = stage(&url).await;
        let mut wire = stage.caller.connect().await;
        for method in ["GET", "POST", "DELETE", "GET", "POST"] {
            wire.write(&format!(
                "{method} /api/v2/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
            let head = wire.head().await;
            assert_eq!(head[..12], answer[..12], "{name}: {head}");
            match field(&head, "content-length") {
                Some(length) => drop(wire.exactly(length.parse().unwrap()).await),
                None if answer.contains("chunked") => drop(wire.until("0\r\n\r\n").await.unwrap()),
                None => {}
            }
        }
        assert_eq!((canned.heads().len(), canned.connections()), (5, 1), "{name}");
    }
}

#[tokio::test]
async fn an_upstream_that_closes_after_each_answer_costs_no_call() {
    let (canned, url) =
        Canned::start("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    let stage = stage(&url).await;
    for _ in 0..5 {
        let answer = stage.caller.post("/api/v2/users", "{}").await;
        assert_eq!((answer.status.as_u16(), answer.header("tidegate-attempts")), (200, "1"));
    }
    assert_eq!(canned.connections(), 5);
}

#[tokio::test]
async fn one_answer_that_closes_does_not_keep_later_writes_from_sharing_a_connection() {
    let url = upstream(|mut wire, number| async move {
        while let Some(head) = wire.until("\r\n\r\n").await {
            let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            wire.exactly(length).await;
            if number == 0 {
                return wire
                    .write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n0")
                    .await;
            }
            wire.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
        }
    })
    .await;
    let stage = stage(&url).await;
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(stage.caller.post("/api/v2/users", "{}").await.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(connections, ["0", "1", "1", "1"]);
}

#[tokio::test]
async fn answers_without_a_body_have_none_and_leave_the_connection_usable() {
    for (method, answer, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", Some("1234")),
        (
            "HEAD",
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 90\r\nContent-Length: 99\r\n\r\n",
            Some("99"),
        ),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 1234\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", None),
        ("OPTIONS", "HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n", None),
    ] {
        let (canned, url) = Canned::start(answer).await;
        let stage = stage(&url).await;
        let mut wire = stage.caller.connect().await;
        let request = format!("{method} /api/v2/users HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wire.write(&request).await;
        let head = wire.head().await;
        assert_eq!(head[..12], answer[..12], "{method}");
        if let Some(length) = length {
            assert_eq!(field(&head, "content-length"), Some(length), "{method}: {head}");
        }
        if !answer.contains(" 429 ") {
            // If there were a body, it would be taken for the head of the next answer.
            wire.write(&request).await;
            assert_eq!(wire.head().await[..12], answer[..12], "{method}");
            assert_eq!(canned.connections(), 1, "{method}");
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let url = upstream(|mut wire, _| async move {
        while let Some(head) = wire.until("\r\n\r\n").await {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            // The first takes longest, so that order is not by luck.
            tokio::time::sleep(Duration::from_millis(if path.ends_with('0') { 150 } else { 0 })).await;
            wire.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
        }
    })
    .await;
    let stage = stage(&url).await;
    let request = |n: u32| format!("GET /api/v2/users/{n} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut wire = stage.caller.connect().await;
    wire.write(&(0..3).map(request).collect::<String>()).await;
    for n in 0..3 {
        let head = wire.head().await;
        let length = field(&head, "content-length").unwrap().parse().unwrap();
        assert_eq!(wire.exactly(length).await, format!("/api/v2/users/{n}").into_bytes());
    }
}

#[tokio::test]
async fn the_gateway_says_continue() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    let mut wire = stage.caller.connect().await;
    wire.write(
        "POST /api/v2/users HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    )
    .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 100 "));
    wire.write("hello").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(canned.bodies(), [b"hello"]);
}

/// Answers of which only a beginning comes.
const CUT: [&str; 2] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n0123456789",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\na\r\n0123456789\r\n",
];

#[tokio::test]
async fn a_read_whose_answer_is_cut_is_told_so() {
    for answer in CUT {
        let (_canned, url) = Canned::start(answer).await;
        let answer = stage(&url).await.caller.get("/api/v2/users").await;
        assert!(answer.is_ours(502, ("tidegate-outcome", "unreadable-answer")), "{answer:?}");
    }
}

#[tokio::test]
async fn a_long_answer_that_is_cut_resets_its_caller() {
    for answer in CUT {
        let (_canned, url) = Canned::start(answer).await;
        // It is longer than what is held before it is given.
        let profile = Profile::builtin("genesys-guide").unwrap();
        let stage = stage_with(&url, profile, |config| config.cache.entry_bytes = 5).await;
        let mut wire = stage.caller.connect().await;
        wire.write("GET /api/v2/users HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        // How much of its beginning comes before the reset is a matter of chance.
        let came = wire.rest().await;
        assert!(came.is_empty() || came.starts_with("HTTP/1.1 200 "), "{came}");
        assert!(!came.ends_with("0\r\n\r\n"), "half an answer is not ended like a whole one: {came}");
    }
}

#[tokio::test]
async fn an_error_that_is_cut_while_it_is_looked_into_keeps_its_status() {
    let answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{\"mess";
    let (_canned, url) = Canned::start(answer).await;
    let text = Profile::builtin_text("genesys").unwrap();
    let rule = "[[throttle.text]]\nstatus = 400\ncontains = \"rate limit exceeded\"\n";
    let profile = Profile::parse(&format!("{text}\n{rule}"), "test.toml").unwrap();
    let stage = stage_with(&url, profile, |_| {}).await;
    let answer = stage.caller.get("/api/v2/users").await;
    assert!(answer.is_ours(400, ("tidegate-outcome", "answer-lost")), "{answer:?}");
}

#[tokio::test]
async fn an_answer_of_ten_thousand_fields_is_a_502_at_once_and_doubt_for_a_write() {
    let fields = "X-Field: 1\r\n".repeat(10_000);
    let (canned, url) = Canned::start(&format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n")).await;
    let stage = stage(&url).await;
    let begun = Instant::now();
    let answer = stage.caller.get("/api/v2/users").await;
    assert!(answer.is_ours(502, ("tidegate-outcome", "unreadable-answer")), "{answer:?}");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("not HTTP/1.1 within our bounds"), "{message}");
    let answer = stage.caller.post("/api/v2/users", "{}").await;
    assert!(answer.is_ours(424, ("tidegate-outcome", "unknown")), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(canned.heads().len(), 2, "asking again would bring the same");
}

#[tokio::test]
async fn tls_on_a_plain_port_is_named_as_such() {
    let url = upstream(|mut wire, _| async move {
        wire.until("\r\n\r\n").await;
        // What TLS servers say to anything that is no handshake: alert, protocol version 1.2, fatal, decode error.
        tokio::io::AsyncWriteExt::write_all(&mut wire.stream, &[21, 3, 3, 0, 2, 2, 50]).await.unwrap();
    })
    .await;
    let answer = stage(&url).await.caller.get("/api/v2/users").await;
    assert!(answer.is_ours(502, ("tidegate-outcome", "unreadable-answer")), "{answer:?}");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("if it speaks TLS on this port, use https://"), "{message}");
}

#[tokio::test]
async fn a_plain_port_addressed_by_tls_is_named_as_such() {
    let url = upstream(|mut wire, _| async move {
        wire.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        wire.rest().await;
    })
    .await;
    let profile = Profile::builtin("genesys").unwrap();
    let stage = stage_with(&url.replace("http:", "https:"), profile, |config| {
        config.max_wait = Duration::from_secs(2);
    })
    .await;
    let answer = stage.caller.get("/api/v2/users").await;
    assert!(answer.is_ours(503, ("tidegate-refused", "upstream-unreachable")), "{answer:?}");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("does not speak TLS on this port"), "{message}");
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_a_504_for_reads() {
    let url = upstream(|mut wire, _| async move {
        wire.rest().await;
    })
    .await;
    let mut profile = Profile::builtin("genesys").unwrap();
    profile.timeouts.read = Duration::from_millis(300);
    let stage = stage_with(&url, profile, |config| config.max_wait = Duration::from_millis(1500)).await;
    let begun = Instant::now();
    let answer = stage.caller.call(Method::GET, "/api/v2/users", &[], "").await;
    assert!(answer.is_ours(504, ("tidegate-outcome", "no-answer")), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}
