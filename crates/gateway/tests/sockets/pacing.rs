//! What the quota does to callers: waits they do not see, and refusals that say when to come back.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use tidegate::Profile;

use crate::stage::{Canned, FIRST, play, stage, stage_with};
use tokio::time::Instant;

#[tokio::test]
async fn callers_wait_and_no_throttle_happens_anywhere() {
    let played = play("genesys-guide", "limit = 10\nwindow = \"2s\"\nlatency = \"5ms\"").await;
    // Each asks for something else, else they would share calls.
    let calls = (0..25).map(async |n| played.caller.get(&format!("{FIRST}?n={n}")).await);
    let answers = join_all(calls).await;
    let mut waited = 0;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        let seconds: f64 = answer.header("tidegate-wait").parse().unwrap();
        waited += usize::from(seconds > 0.5);
        // A limit explains a wait; without a wait there is nothing to explain.
        assert_eq!(seconds >= 0.001, !answer.header("tidegate-limit").is_empty(), "{answer:?}");
        assert!(answer.header("server-timing").starts_with("tidegate;dur="));
    }
    assert!(waited >= 15, "{waited}");
    let stats = played.sim.stats();
    assert_eq!((stats.throttled, stats.accepted), (0, 25));
}

#[tokio::test]
async fn what_cannot_leave_in_time_is_refused_at_once_and_unsent() {
    let played = play("genesys-guide", "limit = 2\nwindow = \"60s\"").await;
    for _ in 0..2 {
        let answer = played.caller.get(FIRST).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("tidegate-limit"), "", "nothing was waited for");
    }
    let begun = Instant::now();
    let answer = played.caller.get(FIRST).await;
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert!(answer.is_ours(429, ("tidegate-refused", "cannot-meet")), "{answer:?}");
    let seconds: u64 = answer.header("retry-after").parse().expect("whole seconds");
    assert!((50..=120).contains(&seconds), "{seconds}");
    assert_eq!(answer.json()["code"], "too.many.requests.retry.after");
    let expected = format!("Rate limit exceeded the maximum. Retry the request in [{seconds}] seconds");
    assert_eq!(answer.json()["message"], expected);
    assert_eq!(
        answer.header("tidegate-limit"),
        "/api/v2/users",
        "the limit that headers without a name describe"
    );
    let metrics = crate::stage::Caller::new(played.gateway.admin_addr()).get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let counted =
        "tidegate_refusals_total{limit=\"/api/v2/users\",reason=\"cannot-meet\",tenant=\"default\"} 1";
    assert!(text.contains(counted), "{text}");
    let stats = played.sim.stats();
    assert_eq!((stats.accepted, stats.throttled), (2, 0), "nothing was sent");
}

#[tokio::test]
async fn a_refusal_has_the_shape_the_profile_names() {
    for (shape, kind, text, members) in [
        ("genesys", "application/json", "message", 6),
        ("problem", "application/problem+json", "detail", 4),
        ("message", "application/json", "message", 1),
    ] {
        let profile = format!("name = \"mine\"\n[errors]\nshape = \"{shape}\"\n");
        let profile = Profile::parse(&profile, "mine").unwrap();
        // Nobody listens there.
        let stage = stage_with("http://127.0.0.1:9", profile, |config| {
            config.max_wait = Duration::from_millis(200);
        })
        .await;
        let answer = stage.caller.get("/users").await;
        assert!(answer.status.is_client_error() || answer.status.is_server_error(), "{answer:?}");
        assert!(!answer.header("tidegate-refused").is_empty(), "{answer:?}");
        assert_eq!(answer.header("content-type"), kind, "{shape}");
        let body = answer.json();
        assert_eq!(body.as_object().unwrap().len(), members, "{body}");
        assert!(body[text].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        if shape == "problem" {
            assert_eq!(
                (&body["type"], &body["status"]),
                (&"about:blank".into(), &answer.status.as_u16().into())
            );
        }
    }
}

#[tokio::test]
async fn the_429_of_an_open_breaker_does_not_speak_of_a_rate_limit() {
    let (canned, url) = Canned::start("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await;
    let stage = stage(&url).await;
    for _ in 0..5 {
        assert_eq!(stage.caller.get("/api/v2/users").await.status, 500);
    }
    let answer = stage.caller.get("/api/v2/users").await;
    assert!(answer.is_ours(429, ("tidegate-refused", "breaker-open")), "{answer:?}");
    assert_eq!(canned.heads().len(), 5);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("The upstream keeps failing for this family of resources"), "{message}");
    let retry = format!("Retry the request in [{}] seconds", answer.header("retry-after"));
    assert!(message.ends_with(&retry), "{message}");
    assert_eq!(answer.header("tidegate-limit"), "/api/v2/users");
}

#[tokio::test]
async fn a_deadline_bounds_the_wait() {
    let played = play("genesys-guide", "limit = 1\nwindow = \"3s\"").await;
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    let begun = Instant::now();
    let hurried = played.caller.call(Method::GET, FIRST, &[("Tidegate-Deadline", "0.5")], "").await;
    assert!(hurried.is_ours(429, ("tidegate-refused", "cannot-meet")), "{hurried:?}");
    assert!(begun.elapsed() < Duration::from_millis(400));
    assert_eq!(played.caller.get(FIRST).await.status, 200, "without one it waits");
    assert_eq!(played.sim.stats().throttled, 0);
}

#[tokio::test]
async fn a_throttle_beyond_the_bound_is_delivered_as_the_upstreams() {
    let body = r#"{"message":"theirs","code":"too.many.requests","status":429}"#;
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 100\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (canned, url) = Canned::start(&answer).await;
    let answer = stage(&url).await.caller.get("/api/v2/users").await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (429, body.as_bytes()));
    assert_eq!((answer.header("retry-after"), answer.header("tidegate-refused")), ("100", ""));
    assert_eq!(canned.heads().len(), 1);
}

#[tokio::test]
async fn a_throttle_within_the_bound_is_waited_out() {
    let played = play("genesys-guide", "limit = 0\n[faults]\nscript = [\"throttle\"]").await;
    let answer = played.caller.get(FIRST).await;
    assert_eq!((answer.status.as_u16(), answer.header("tidegate-attempts")), (200, "2"));
    assert!(answer.header("tidegate-wait").parse::<f64>().unwrap() >= 1.0);
    assert_eq!(played.sim.stats().throttled, 1);
}

#[tokio::test]
async fn every_retry_after_is_whole_seconds_or_absent() {
    for (theirs, ours) in [("120.5", "121"), ("3600", "180"), ("7", "7"), ("next week", ""), ("-5", "")] {
        for status in ["404 Not Found", "503 Service Unavailable"] {
            // A final answer and one that is waited for if there is time: with -5 or garbage there may be.
            if status.starts_with("503") && (ours.is_empty() || ours == "7") {
                continue;
            }
            let answer = format!("HTTP/1.1 {status}\r\nRetry-After: {theirs}\r\nContent-Length: 0\r\n\r\n");
            let (_canned, url) = Canned::start(&answer).await;
            let answer = stage(&url).await.caller.get("/api/v2/users").await;
            assert_eq!(answer.header("retry-after"), ours, "{status}: {theirs}");
        }
    }
}

#[tokio::test]
async fn the_class_is_read_whatever_its_case() {
    let played = play("genesys-guide", "limit = 0").await;
    for class in ["bulk", "Bulk", "POLL"] {
        let answer = played.caller.call(Method::GET, FIRST, &[("Tidegate-Class", class)], "").await;
        assert_eq!(answer.status, 200);
    }
    let metrics = crate::stage::Caller::new(played.gateway.admin_addr()).get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(
        text.contains("tidegate_calls_total{class=\"bulk\",outcome=\"200\",tenant=\"default\"} 2"),
        "{text}"
    );
    assert!(
        text.contains("tidegate_calls_total{class=\"poll\",outcome=\"200\",tenant=\"default\"} 1"),
        "{text}"
    );
}

#[tokio::test]
async fn a_caller_with_many_workers_does_not_starve_one_with_few() {
    let played = play("genesys-guide", "limit = 20\nwindow = \"2s\"\nlatency = \"5ms\"").await;
    let made = Cell::new(0);
    let call = async |name: &str| {
        let headers = [("Tidegate-Class", "bulk"), ("Tidegate-Caller", name)];
        // Each asks for something else, else they would share calls.
        let target = format!("{FIRST}?n={}", made.replace(made.get() + 1));
        let answer = played.caller.call(Method::GET, &target, &headers, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let served = Cell::new(0);
    let crowd = (0..40).map(async |_| {
        loop {
            call("crowd").await;
            served.set(served.get() + 1);
        }
    });
    let pair = (0..2).map(async |_| {
        for _ in 0..6 {
            call("pair").await;
        }
    });
    tokio::select! {
        _ = join_all(crowd) => {}
        _ = join_all(pair) => {}
    }
    // A window before the pair came, as much as the pair got, and a window for chance; by workers it would be 20 times as much.
    assert!(served.get() <= 20 + 12 + 20, "{}", served.get());
}
