//! The rules of `crates/core/tests/rules.rs` that need a whole client.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use http::Method;
use tidegate::{Client, ErrorKind, Profile, Upstream};
use tidegate_core::glob::PathGlob;
use tidegate_core::pace::{LimitKind, LimitSpec, Observes, Partition};
use tokio::time::Instant;

use self::support::{Act, Fake, answer, client, config};

const S: Duration = Duration::from_secs(1);
const USERS: &str = "/api/v2/users";

fn throttle(after: u64) -> Act {
    answer(429).header("retry-after", &after)
}

/// An answer of the guide's server that has nothing left for a minute.
fn used_up(status: u16) -> Act {
    let reset = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 60;
    answer(status)
        .header("x-rate-limit-limit", "300")
        .header("x-rate-limit-remaining", "0")
        .header("x-rate-limit-reset", &reset)
}

/// ingestr#648, ferrumio/pydynox#439: only the answers that were going to be retried reached the limiter.
#[tokio::test(start_paused = true)]
async fn r6_every_answer_teaches_the_gate() {
    // The last attempt of a call, an answer that is never retried, a HEAD, a write.
    let cases = [
        (Method::GET, 200),
        (Method::GET, 404),
        (Method::HEAD, 200),
        (Method::POST, 201),
        (Method::POST, 409),
        (Method::DELETE, 500),
    ];
    for (method, status) in cases {
        let wire = Fake::new([used_up(status)]);
        let client = client(&wire, "genesys-guide");
        client.request(method.clone(), USERS).send().await.unwrap();
        client.get(USERS).send().await.unwrap();
        let seen = wire.seen();
        let waited = seen[1].at.saturating_sub(seen[0].at);
        assert!(waited >= 50 * S, "{method} {status}: the next call came {waited:?} later");
    }
}

/// PostHog/terraform#157: the wait that the server ordered ran into the time-out of the attempt.
#[tokio::test(start_paused = true)]
async fn r9_an_attempts_time_out_is_not_the_calls() {
    let limit = Profile::builtin("genesys").unwrap().timeouts.read;
    let almost = limit.saturating_sub(S);
    let wire = Fake::new([throttle(120), answer(200).after(almost)]);
    let began = Instant::now();
    assert_eq!(client(&wire, "genesys").get(USERS).send().await.unwrap().status(), 200);
    assert!(began.elapsed() >= 120 * S + almost, "a wait of many time-outs, and then an attempt's whole");
    // An attempt that hangs ends at its own time-out, and the call goes on.
    let wire = Fake::new([answer(200).after(3600 * S)]);
    assert_eq!(client(&wire, "genesys").get(USERS).send().await.unwrap().status(), 200);
    let seen = wire.seen();
    assert!(seen.len() == 2 && seen[1].at >= seen[0].at + limit, "{seen:?}");
}

/// friggframework/frigg#636: five calls that met a 401 together made three refreshes, two of which were refused; openfga/js-sdk#332.
#[tokio::test(start_paused = true)]
async fn r11_calls_that_meet_a_401_together_share_one_refresh_and_a_second_401_is_the_answer() {
    let wire = Fake::new([]);
    let client = client(&wire, "genesys-guide");
    let at_once = |count: u32| {
        let calls: Vec<_> = (0..count)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.get(USERS).send().await.unwrap().status() })
            })
            .collect();
        async move {
            for call in calls {
                assert_eq!(call.await.unwrap(), 200);
            }
        }
    };
    // An upstream that says nothing about limits is opened up step by step: five are to be under way together.
    for count in [1, 2, 4, 8] {
        at_once(count).await;
    }
    assert_eq!((wire.login_count(), wire.seen().len()), (1, 15));
    wire.then_all((0..5).map(|_| answer(401).after(S)));
    at_once(5).await;
    assert_eq!((wire.login_count(), wire.seen().len()), (2, 25), "one refresh for all five");

    let wire = Fake::new([answer(401), answer(401), answer(401)]);
    let response = support::client(&wire, "genesys").get(USERS).send().await.unwrap();
    assert_eq!((response.status().as_u16(), wire.seen().len()), (401, 2), "it does not loop");
}

/// axum#2634, axum#3682: a limiter that is cloned with its service limits each clone for itself.
#[tokio::test(start_paused = true)]
async fn r13_clones_of_a_client_share_one_budget() {
    let wire = Fake::new([]);
    let mut config = config("generic");
    config.limits = vec![LimitSpec {
        key: "ten-a-minute".to_owned(),
        aliases: Vec::new(),
        method: None,
        path: PathGlob::parse("/**").unwrap(),
        kind: LimitKind::Rate { quota: 10, window: 60 * S },
        per: vec![Partition::Credential],
        pin: false,
        assumed: false,
        observes: Observes::OwnName,
    }];
    let upstream = Upstream::with_wire(config, std::sync::Arc::new(wire.clone())).unwrap();
    let client = Client::over(upstream);
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get(USERS).deadline(30 * S).send().await.map_err(|e| e.kind()) })
        })
        .collect();
    let mut served = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(response) => {
                assert_eq!(response.status(), 200);
                served += 1;
            }
            Err(kind) => assert_eq!(kind, ErrorKind::Refused),
        }
    }
    assert_eq!((served, wire.seen().len()), (10, 10), "forty clones, ten permits");
}
