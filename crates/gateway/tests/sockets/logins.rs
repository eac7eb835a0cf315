//! Who calls are made as: logins that pass through, tokens that never expire for their callers, borrowed credentials.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Method;

use crate::stage::{Caller, Canned, FIRST, LOGIN, field, play, play_with, stage, upstream};
use tokio::time::Instant;

#[tokio::test]
async fn a_login_through_the_gateway_brings_a_token_that_works() {
    let played = play("genesys-guide", "limit = 0").await;
    let bearer = played.caller.bearer().await;
    let answer = played.caller.call(Method::GET, FIRST, &[("Authorization", &bearer)], "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(played.sim.stats().oauth.calls, 1, "the caller's own login, and none of ours");
}

#[tokio::test]
async fn a_login_by_basic_works_as_well() {
    let played = play("genesys-guide", "limit = 0").await;
    let basic = format!("Basic {}", BASE64_STANDARD.encode("demo-client:demo-secret"));
    let headers = [("Authorization", &*basic), ("Content-Type", "application/x-www-form-urlencoded")];
    let answer =
        played.caller.call(Method::POST, "/oauth/token", &headers, "grant_type=client_credentials").await;
    assert_eq!(answer.status, 200);
    assert!(answer.json()["access_token"].is_string());
}

#[tokio::test]
async fn an_expiring_token_never_reaches_the_caller_and_is_renewed_by_one_login_at_a_time() {
    let sim = "limit = 0\nlatency = \"5ms\"\n[oauth]\ntoken_ttl = \"2s\"\nlatency = \"80ms\"";
    let played = play("genesys-guide", sim).await;
    let bearer = played.caller.bearer().await;
    let end = Instant::now() + Duration::from_millis(5500);
    let callers = (0..16).map(|_| {
        let (caller, bearer) = (played.caller.clone(), bearer.clone());
        tokio::spawn(async move {
            while Instant::now() < end {
                let answer = caller.call(Method::GET, FIRST, &[("Authorization", &bearer)], "").await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        })
    });
    futures_util::future::try_join_all(callers).await.unwrap();
    let oauth = played.sim.stats().oauth;
    assert_eq!(oauth.overlap_max, 1);
    assert!((3..=5).contains(&oauth.calls), "a life of 2 s in 5.5 s: {oauth:?}");
}

#[tokio::test]
async fn tokens_that_the_upstream_kills_early_are_renewed_by_one_login() {
    let played = play("genesys-guide", "limit = 0\n[oauth]\nlatency = \"80ms\"").await;
    let bearer = played.caller.bearer().await;
    // Everything starts afresh at the upstream: the token is dead although its life is not over.
    played.sim.reset("").unwrap();
    let headers = [("Authorization", &*bearer)];
    let calls = (0..16).map(|_| played.caller.call(Method::GET, FIRST, &headers, ""));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let oauth = played.sim.stats().oauth;
    assert_eq!((oauth.calls, oauth.overlap_max), (1, 1));
}

#[tokio::test]
async fn a_throttled_login_waits_and_succeeds() {
    let throttle = "[oauth]\nthrottle = \"1 per 2s\"\nthrottle_hint = true";
    let played = play("genesys-guide", &format!("limit = 0\n{throttle}")).await;
    played.caller.bearer().await;
    let begun = Instant::now();
    played.caller.bearer().await;
    assert!(begun.elapsed() > Duration::from_secs(1), "it waited");
    assert_eq!(played.sim.stats().oauth.throttled, 1);
}

#[tokio::test]
async fn a_login_throttled_beyond_the_bound_is_a_429_at_once() {
    let throttle = "[oauth]\nthrottle = \"1 per 60s\"\nthrottle_hint = true";
    let played = play("genesys-guide", &format!("limit = 0\n{throttle}")).await;
    played.caller.bearer().await;
    let begun = Instant::now();
    let answer = played.caller.login(LOGIN).await;
    assert!(answer.is_ours(429, ("tidegate-refused", "login-throttled")), "{answer:?}");
    assert!((55..=62).contains(&answer.header("retry-after").parse::<u64>().unwrap()));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_wrong_secret_brings_the_upstreams_own_answer() {
    let played = play("genesys-guide", "").await;
    let answer = played.caller.login(&LOGIN.replace("demo-secret", "wrong")).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json()["error"], "invalid_client");
    assert_eq!(answer.header("tidegate-refused"), "");
}

#[tokio::test]
async fn other_grants_pass_through() {
    let played = play("genesys-guide", "").await;
    let form = "grant_type=password&client_id=demo-client&client_secret=demo-secret";
    let answer = played.caller.login(form).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (400, &"unsupported_grant_type".into()));
}

#[tokio::test]
async fn the_configured_credential_is_lent_only_where_authorization_is_absent() {
    let played = play("genesys-guide", "limit = 0").await;
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    for foreign in ["Bearer not-ours", "Basic eDp5", ""] {
        let answer = played.caller.call(Method::GET, FIRST, &[("Authorization", foreign)], "").await;
        assert_eq!(answer.status, 401, "{foreign:?}");
        assert_eq!(answer.header("tidegate-attempts"), "1", "nothing of ours to renew");
    }
    assert_eq!(played.sim.stats().oauth.calls, 1);
}

#[tokio::test]
async fn a_wrong_configured_secret_names_the_credential_and_not_the_secret() {
    let sim = "[oauth]\nclients = [{ id = \"demo-client\", secret = \"another\" }]";
    let played = play("genesys-guide", sim).await;
    let answer = played.caller.get(FIRST).await;
    assert!(answer.is_ours(502, ("tidegate-refused", "no-token")), "{answer:?}");
    assert!((1..=180).contains(&answer.header("retry-after").parse::<u64>().unwrap()));
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("credential demo") && !message.contains("demo-secret"), "{message}");
    assert_eq!(played.sim.stats().accepted, 0);
}

#[tokio::test]
async fn an_unknown_bearer_passes_unchanged() {
    let (canned, url) = Canned::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let stage = stage(&url).await;
    stage.caller.call(Method::GET, "/api/v2/users", &[("Authorization", "Bearer of-theirs")], "").await;
    stage.caller.get("/api/v2/users").await;
    let heads = canned.heads();
    assert_eq!(field(&heads[0], "authorization"), Some("Bearer of-theirs"));
    assert_eq!(field(&heads[1], "authorization"), None);
}

#[tokio::test]
async fn a_deleted_token_is_not_renewed_however_its_path_is_spelt() {
    for path in ["/api/v2/tokens/me", "/api/v2//tokens/x/../me", "/api/v2/tokens/%6De"] {
        let played = play("genesys-guide", "limit = 0").await;
        let bearer = played.caller.bearer().await;
        let headers = [("Authorization", &*bearer)];
        assert_eq!(played.caller.call(Method::DELETE, path, &headers, "").await.status, 200, "{path}");
        let answer = played.caller.call(Method::GET, FIRST, &headers, "").await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(played.sim.stats().oauth.calls, 1, "{path}: no login behind the caller's back");
    }
}

#[tokio::test]
async fn a_login_that_the_upstream_ends_is_a_401_and_then_forgotten() {
    let played =
        play_with("genesys-guide", "limit = 0", |config| config.tenants[0].upstream.credential = None).await;
    let bearer = played.caller.bearer().await;
    played.sim.reset(r#"{"oauth": {"clients": [{"id": "demo-client", "secret": "changed"}]}}"#).unwrap();
    let headers = [("Authorization", &*bearer)];
    let answer = played.caller.call(Method::GET, FIRST, &headers, "").await;
    assert_eq!(answer.status, 401, "{answer:?}");
    let logins = played.sim.stats().oauth.calls;
    assert_eq!(played.caller.call(Method::GET, FIRST, &headers, "").await.status, 401);
    assert_eq!(played.sim.stats().oauth.calls, logins, "not tried again");
}

#[tokio::test]
async fn an_unusual_spelling_of_the_token_path_is_a_login_too() {
    let played = play("genesys-guide", "").await;
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let answer = played.caller.call(Method::POST, "//oauth/token/", &headers, LOGIN).await;
    assert_eq!(answer.status, 200);
    assert!(answer.json()["access_token"].is_string());
}

/// A token endpoint, and everything else, that answers with a token of this life.
async fn grants(life: f64, headers: &str) -> (Canned, String) {
    let token = format!(r#"{{"access_token":"t","token_type":"bearer","expires_in":{life}}}"#);
    let length = token.len();
    Canned::start(&format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {length}\r\n\r\n{token}")).await
}

#[tokio::test]
async fn a_login_never_gets_more_than_it_asked_for_nor_does_its_renewal() {
    for basic in [false, true] {
        let (canned, url) = grants(1.0, "").await;
        let stage = stage(&url).await;
        let scope = "scope=users%3Areadonly&audience=a+b";
        let header = format!("Basic {}", BASE64_STANDARD.encode("demo-client:demo-secret"));
        let answer = if basic {
            let form = format!("grant_type=client_credentials&{scope}");
            stage.caller.call(Method::POST, "/oauth/token", &[("Authorization", &header)], form).await
        } else {
            stage.caller.login(&format!("{LOGIN}&{scope}")).await
        };
        assert_eq!(answer.status, 200, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        stage.caller.call(Method::GET, FIRST, &[("Authorization", "Bearer t")], "").await;
        let expected = format!("grant_type=client_credentials&{scope}");
        let logins: Vec<_> = canned.heads().into_iter().zip(canned.bodies()).collect();
        for (head, body) in &logins[..2] {
            assert!(head.starts_with("POST /oauth/token "), "{head}");
            assert_eq!(field(head, "authorization"), Some(&*header));
            assert_eq!(String::from_utf8_lossy(body), expected);
        }
    }
}

#[tokio::test]
async fn a_login_with_a_query_passes_with_it() {
    let (canned, url) = grants(60.0, "").await;
    let form = LOGIN.as_bytes().to_vec();
    let stage = stage(&url).await;
    let answer = stage.caller.call(Method::POST, "/oauth/token?scope=less", &[], form).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(canned.heads()[0].starts_with("POST /oauth/token?scope=less HTTP/1.1\r\n"));
    assert_eq!(canned.bodies(), [LOGIN.as_bytes()]);
}

#[tokio::test]
async fn the_answer_to_a_login_keeps_its_headers() {
    let (_canned, url) = grants(60.0, "ININ-Correlation-Id: abc\r\nCache-Control: no-store\r\n").await;
    let answer = stage(&url).await.caller.login(LOGIN).await;
    assert_eq!((answer.header("inin-correlation-id"), answer.header("cache-control")), ("abc", "no-store"));
    let broken =
        "HTTP/1.1 500 Oops\r\nRetry-After: 1.5\r\nININ-Correlation-Id: def\r\nContent-Length: 4\r\n\r\noops";
    let (_canned, url) = Canned::start(broken).await;
    let answer = stage(&url).await.caller.login(LOGIN).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (500, &b"oops"[..]), "the upstream's own word");
    assert_eq!((answer.header("inin-correlation-id"), answer.header("retry-after")), ("def", "2"));
    assert_eq!(answer.header("tidegate-refused"), "");
}

#[tokio::test]
async fn a_login_that_was_sent_and_not_answered_is_not_said_to_be_unsent() {
    let url = upstream(|mut wire, _| async move {
        wire.until("\r\n\r\n").await;
    })
    .await;
    let stage = stage(&url).await;
    let answer = stage.caller.login(LOGIN).await;
    assert!(answer.is_ours(504, ("tidegate-outcome", "no-answer")), "{answer:?}");
    // A code can be used once: what the upstream made of it nobody can tell.
    let answer = stage.caller.login("grant_type=authorization_code&code=c").await;
    assert!(answer.is_ours(424, ("tidegate-outcome", "unknown")), "{answer:?}");
    assert_eq!(answer.header("tidegate-refused"), "");
}

/// Logins that the gateway remembers.
async fn remembered(admin: &Caller) -> u64 {
    admin.get("/api/state").await.json()["tenants"][0]["learnt_logins"].as_u64().unwrap()
}

#[tokio::test]
async fn one_client_has_one_count_however_it_logs_in() {
    let played = play("genesys-guide", "limit = 100").await;
    let bearer = played.caller.bearer().await;
    assert_eq!(played.caller.call(Method::GET, FIRST, &[("Authorization", &bearer)], "").await.status, 200);
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    let admin = Caller::new(played.gateway.admin_addr());
    let state = admin.get("/api/state").await.json();
    let counts = state["tenants"][0]["gates"].as_array().unwrap().iter();
    let counts: Vec<_> = counts
        .map(|gate| gate["partition"].as_str().unwrap())
        .filter(|partition| partition.contains("credential="))
        .collect();
    assert!(!counts.is_empty() && counts.iter().all(|count| count.contains("demo")), "{counts:?}");
}

#[tokio::test]
async fn a_logout_is_never_undone_by_a_lost_answer() {
    for (answer, left) in [
        ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", 0),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 0),
        ("nonsense\r\n\r\n", 0),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 1),
    ] {
        let url = upstream(move |mut wire, _| async move {
            while let Some(head) = wire.until("\r\n\r\n").await {
                let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
                wire.exactly(length).await;
                let token = r#"{"access_token":"t","expires_in":600}"#;
                let granted = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{token}", token.len());
                wire.write(if head.starts_with("POST") { &granted } else { answer }).await;
            }
        })
        .await;
        let stage = stage(&url).await;
        let admin = Caller::new(stage.gateway.admin_addr());
        let bearer = stage.caller.bearer().await;
        assert_eq!(remembered(&admin).await, 1);
        stage.caller.call(Method::DELETE, "/api/v2/tokens/me", &[("Authorization", &bearer)], "").await;
        assert_eq!(remembered(&admin).await, left, "{answer}");
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_it_logs_out_is_logged_out() {
    let played = play("genesys-guide", "limit = 0\nlatency = \"400ms\"").await;
    let admin = Caller::new(played.gateway.admin_addr());
    let bearer = played.caller.bearer().await;
    let mut wire = played.caller.connect().await;
    wire.write(&format!(
        "DELETE /api/v2/tokens/me HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n\r\n"
    ))
    .await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    drop(wire);
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(remembered(&admin).await, 0);
}
