//! Tokens and permissions through the whole stack, in paused time.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tidegate::token::{ClientCredentials, TokenManager};
use tidegate::{CallReport, Class};
use tidegate_core::key::CredentialId;
use tokio::time::Instant;

use self::support::{Fake, answer, client, upstream};

const USERS: &str = "/api/v2/users";

/// The wire answers a call after this.
const ANSWER: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_token_of_two_seconds_whose_endpoint_takes_300_ms() {
    let grant = |n: usize| {
        let token = format!(r#"{{"access_token":"t{n}","expires_in":2}}"#);
        answer(200).body(token).after(Duration::from_millis(300))
    };
    let wire = Fake::new([]).logins((0..30).map(grant));
    let client = client(&wire, "genesys-guide");
    client.upstream().check().await.unwrap();
    // The gates send one call ahead before they know of no limit; its answer is waited for by all.
    let warm = Instant::now() + Duration::from_secs(1);
    let end = warm + Duration::from_secs(20);
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let client = client.clone();
        workers.spawn(async move {
            let mut longest = Duration::ZERO;
            while Instant::now() < end {
                let began = Instant::now();
                let response = client.get(USERS).send().await.unwrap();
                assert_eq!(response.status(), 200);
                if began > warm {
                    longest = longest.max(began.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            longest
        });
    }
    let longest = workers.join_all().await.into_iter().max().unwrap();
    assert!(longest < 2 * ANSWER, "a call took {longest:?}");
    let logins = wire.login_count();
    assert!((10..=18).contains(&logins), "a token serves 1.4 s of its 2: {logins} logins in 21 s");
}

#[tokio::test(start_paused = true)]
async fn ten_lines_of_one_client_meet_its_throttle_once() {
    let throttled = answer(400).header("retry-after", "5").body(r#"{"error":"rate limit exceeded"}"#);
    let wire = Fake::new([]).logins([throttled]);
    let upstream = upstream(&wire, "genesys");
    let line = |client: &str| {
        let credentials = ClientCredentials::new(client, &"secret".to_owned().into());
        upstream.manager(CredentialId::new(client), credentials)
    };
    let lines: Vec<_> = (0..10).map(|_| line("crm")).collect();
    for line in &lines {
        let error = line.lend().await.unwrap_err();
        assert!(error.throttled && error.retry_after <= Some(Duration::from_secs(5)), "{error:?}");
    }
    assert_eq!(wire.login_count(), 1);
    line("wfm").lend().await.unwrap();
    assert_eq!(wire.login_count(), 2, "another client is not held up");
    tokio::time::sleep(Duration::from_secs(5)).await;
    // One goes first; the others are told to come back, and do.
    let ask = |line: &Arc<TokenManager>| {
        let line = Arc::clone(line);
        async move {
            while let Err(error) = line.lend().await {
                tokio::time::sleep(error.retry_after.unwrap()).await;
            }
        }
    };
    let began = Instant::now();
    futures_util::future::join_all(lines.iter().map(ask)).await;
    assert_eq!((wire.login_count(), began.elapsed() <= Duration::from_millis(1_100)), (12, true));
}

#[tokio::test(start_paused = true)]
async fn a_403_names_what_is_missing_and_passes_as_it_is() {
    const BODY: &str = r#"{"code":"missing.any.permissions","message":"You are missing: a","messageParams":{"permissions":["routing:skill:manage","routing:queue:view"]}}"#;
    for (method, class) in [(Method::GET, Class::Interactive), (Method::POST, Class::Bulk)] {
        let wire = Fake::new([answer(403).body(BODY), answer(403).body(r#"{"code":"forbidden"}"#)]);
        let client = client(&wire, "genesys");
        let mut told = Vec::new();
        for _ in 0..3 {
            let mut response = client.request(method.clone(), USERS).class(class).send().await.unwrap();
            let report = response.extensions_mut().remove::<CallReport>().unwrap();
            let status = response.status().as_u16();
            told.push((status, report.missing, response.into_body().bytes(1 << 20).await.unwrap()));
        }
        let names = "routing:skill:manage, routing:queue:view";
        assert_eq!((told[0].0, told[0].1.as_deref()), (403, Some(names)));
        assert_eq!(told[0].2, BODY);
        assert_eq!(
            (told[1].0, told[1].1.as_deref()),
            (403, None),
            "any other 403 says nothing of permissions"
        );
        assert_eq!((told[2].0, told[2].1.as_deref()), (200, None));
        assert_eq!(wire.seen().len(), 3, "none of them is repeated");
    }
}
