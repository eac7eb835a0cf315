//! The whole stack over a wire without sockets, in paused time.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Method};
use parking_lot::Mutex;
use tidegate::layer::{Answered, Attempt, AttemptError, BoxFuture};
use tidegate::observe::{CallDone, Observer, Observers, Outcome};
use tidegate::{Client, ErrorKind, Upstream};
use tidegate_core::classify::{Failure, Wrote};
use tidegate_core::glob::PathGlob;
use tidegate_core::pace::{LimitKind, LimitSpec, Observes};
use tokio::time::Instant;
use tower::Service;

use self::support::{Fake, answer, client, config, fail, upstream};

const S: Duration = Duration::from_secs(1);
const USERS: &str = "/api/v2/users";
const INTERRUPTED: Failure = Failure::Interrupted { whole: true };

fn throttle(after: u64) -> support::Act {
    answer(429).header("retry-after", &after).body(r#"{"status":429,"code":"too.many.requests"}"#)
}

#[tokio::test(start_paused = true)]
async fn a_throttle_is_waited_out_and_never_seen() {
    let wire = Fake::new([throttle(3)]);
    let response = client(&wire, "genesys").get(USERS).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let report = response.extensions().get::<tidegate::CallReport>().unwrap();
    assert_eq!(report.attempts, 2);
    let seen = wire.seen();
    assert!(seen[1].at >= seen[0].at + 3 * S, "never earlier than the hint: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn of_what_a_gateway_refuses_only_what_may_pass_is_sent_again() {
    for (status, again) in [
        (429, true),
        (502, true),
        (503, true),
        (400, false),
        (401, false),
        (403, false),
        (409, false),
        (413, false),
        (421, false),
        (422, false),
        (501, false),
    ] {
        let wire = Fake::new([answer(status).header("tidegate-refused", "why")]);
        let client = client(&wire, "genesys");
        // A 401 is about the token, which is renewed once.
        let response = client.request(Method::POST, "/api/v2/users").json("{}").send().await.unwrap();
        let expected = if again || status == 401 { (200, 2) } else { (status, 1) };
        assert_eq!((response.status().as_u16(), wire.seen().len()), expected, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_beyond_the_deadline_delivers_the_throttle_itself() {
    let wire = Fake::new([throttle(60)]);
    let began = Instant::now();
    let response = client(&wire, "genesys").get(USERS).deadline(5 * S).send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "60");
    assert!(response.into_body().bytes(1000).await.unwrap().starts_with(br#"{"status":429"#));
    assert!(began.elapsed() < S, "there is nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_is_kept_for_a_call_that_is_refused_its_next_attempt() {
    // The second call's throttle closes the gate for longer than the first one, on its backoff, can wait.
    let wire = Fake::new([answer(200), answer(503).body("busy"), throttle(100)]);
    let client = client(&wire, "genesys");
    client.get(USERS).send().await.unwrap();
    let first = client.get(USERS).deadline(20 * S).send();
    let second = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.get(USERS).deadline(20 * S).send().await
    };
    let (first, second) = tokio::join!(first, second);
    let first = first.unwrap();
    assert_eq!(second.unwrap().status(), 429);
    assert_eq!(first.status(), 503, "not an answer of ours, once something was sent");
    assert_eq!(first.into_body().bytes(10).await.unwrap(), "busy");
}

#[tokio::test(start_paused = true)]
async fn a_post_that_may_have_been_executed_is_not_sent_twice() {
    for failure in [INTERRUPTED, Failure::AnswerTruncated, Failure::TimedOut { wrote: Wrote::Whole }] {
        let wire = Fake::new([fail(failure)]);
        let error =
            client(&wire, "genesys").request(Method::POST, USERS).json("{}").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{failure:?}");
        assert_eq!(wire.seen().len(), 1, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_that_was_not_sent_is_sent_again() {
    for failure in
        [Failure::ConnectFailed, Failure::ZeroBytesWritten, Failure::TimedOut { wrote: Wrote::Nothing }]
    {
        let wire = Fake::new([fail(failure)]);
        let response = client(&wire, "genesys").request(Method::POST, USERS).json("{}").send().await.unwrap();
        assert_eq!(response.status(), 200, "{failure:?}");
        assert_eq!(wire.seen().len(), 2, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_knows_keys_gets_the_same_one_again() {
    let wire = Fake::new([fail(INTERRUPTED)]);
    let response =
        client(&wire, "genesys-guide").request(Method::POST, USERS).json("{}").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = wire.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].key.is_some());
    assert_eq!(seen[0].key, seen[1].key);
}

#[tokio::test(start_paused = true)]
async fn a_put_is_sent_again_and_a_put_that_its_caller_calls_harmful_is_not() {
    let wire = Fake::new([fail(INTERRUPTED)]);
    let response = client(&wire, "genesys").request(Method::PUT, USERS).json("{}").send().await.unwrap();
    assert_eq!((response.status().as_u16(), wire.seen().len()), (200, 2));

    let wire = Fake::new([fail(INTERRUPTED)]);
    let call = client(&wire, "genesys");
    let error = call.request(Method::PUT, USERS).idempotent(false).json("{}").send().await.unwrap_err();
    assert_eq!((error.kind(), wire.seen().len()), (ErrorKind::OutcomeUnknown, 1));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_stays_away_is_unreachable_and_named_so() {
    let wire = Fake::new((0..50).map(|_| fail(Failure::ConnectFailed)));
    let mut config = config("genesys");
    config.max_retries = 2;
    let client = Client::over(Upstream::with_wire(config, Arc::new(wire.clone())).unwrap());
    let error = client.get(USERS).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!(wire.seen().len(), 3, "one attempt and two retries");
}

#[tokio::test(start_paused = true)]
async fn a_dead_port_uses_up_no_quota() {
    let wire = Fake::new((0..4).map(|_| fail(Failure::ConnectFailed)));
    let mut config = config("genesys");
    config.max_retries = 1;
    config.limits = vec![LimitSpec {
        key: "all".to_owned(),
        aliases: Vec::new(),
        method: None,
        path: PathGlob::parse("/**").unwrap(),
        kind: LimitKind::Rate { quota: 4, window: 60 * S },
        per: Vec::new(),
        pin: true,
        assumed: false,
        observes: Observes::OwnName,
    }];
    let client = Client::over(Upstream::with_wire(config, Arc::new(wire.clone())).unwrap());
    for _ in 0..2 {
        assert_eq!(client.get(USERS).send().await.unwrap_err().kind(), ErrorKind::Unreachable);
    }
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(client.get(USERS).send().await.unwrap().status(), 200);
    }
    assert!(began.elapsed() < S, "all four permits are left: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_sent_is_never_called_refused() {
    // The breaker opens on the fifth failure and refuses the sixth attempt.
    let wire = Fake::new((0..50).map(|_| fail(INTERRUPTED)));
    let mut config = config("genesys");
    config.max_retries = 50;
    let client = Client::over(Upstream::with_wire(config, Arc::new(wire.clone())).unwrap());
    let error = client.get(USERS).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoAnswer, "{error}");
    let sent = wire.seen().len();
    let error = client.get(USERS).send().await.unwrap_err();
    assert_eq!((error.kind(), wire.seen().len()), (ErrorKind::Refused, sent), "but one that was not sent is");
}

#[tokio::test(start_paused = true)]
async fn a_write_with_doubt_from_a_journal_is_not_sent_where_nothing_recognises_its_key() {
    let wire = Fake::new([]);
    let call = client(&wire, "genesys");
    let error = call.request(Method::POST, USERS).sent_before(Some(S)).json("{}").send().await.unwrap_err();
    assert_eq!((error.kind(), wire.seen().len()), (ErrorKind::OutcomeUnknown, 0));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_becomes_too_old_while_it_waits_is_not_sent() {
    // 23 h of the 24 h less ten seconds have passed; a throttle on the family holds the write for a minute.
    let wire = Fake::new([throttle(60)]);
    let call = client(&wire, "genesys-guide");
    let throttled = call.get(USERS).send();
    let late = async {
        tokio::time::sleep(S).await;
        let ago = Duration::from_hours(23).saturating_sub(10 * S);
        call.request(Method::POST, USERS).sent_before(Some(ago)).json("{}").send().await
    };
    let (read, late) = tokio::join!(throttled, late);
    assert_eq!(read.unwrap().status(), 200);
    assert_eq!(late.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert!(wire.seen().iter().all(|seen| seen.method == Method::GET));
}

#[tokio::test(start_paused = true)]
async fn a_401_renews_the_token_once_and_is_never_seen() {
    let wire = Fake::new([answer(401)]);
    let response = client(&wire, "genesys").request(Method::POST, USERS).json("{}").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let tokens: Vec<_> = wire.seen().into_iter().map(|seen| seen.authorization.unwrap()).collect();
    assert_eq!(tokens, ["Bearer t1", "Bearer t2"]);
    assert_eq!(wire.login_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_second_401_is_the_answer_and_reported_as_one_of_the_credential() {
    let wire = Fake::new([answer(401), answer(401)]);
    let client = client(&wire, "genesys");
    let response = client.get(USERS).send().await.unwrap();
    assert_eq!((response.status().as_u16(), wire.seen().len()), (401, 2));
    assert!(response.extensions().get::<tidegate::CallReport>().unwrap().unauthorized);

    let wire = Fake::new([answer(401)]);
    let response = support::client(&wire, "genesys").get(USERS).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let report = response.extensions().get::<tidegate::CallReport>().unwrap();
    assert!(!report.unauthorized, "the refresh helped");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_refused_after_a_401_names_the_credential() {
    for before in [None, Some(fail(Failure::ConnectFailed))] {
        let sends = 1 + usize::from(before.is_some());
        let first = answer(200).body(r#"{"access_token":"t1","expires_in":86400}"#);
        let refused = answer(401).body(r#"{"error":"invalid_client","description":"wrong secret"}"#);
        let wire = Fake::new(before.into_iter().chain([answer(401)])).logins([first, refused]);
        let error = client(&wire, "genesys").get(USERS).send().await.unwrap_err();
        assert_eq!((error.kind(), wire.seen().len()), (ErrorKind::Token, sends), "{error}");
        let text = error.to_string();
        assert!(text.contains("tests") && text.contains("wrong secret"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn forty_callers_log_in_once() {
    let wire = Fake::new([]);
    let client = client(&wire, "genesys");
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get(USERS).send().await.unwrap().status() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(wire.login_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_login_is_waited_out() {
    let busy = answer(400)
        .header("retry-after", &5)
        .body(r#"{"error":"invalid_request","description":"Rate limit exceeded"}"#);
    let wire = Fake::new([]).logins([busy]);
    let began = Instant::now();
    let response = client(&wire, "genesys").get(USERS).send().await.unwrap();
    assert_eq!((response.status().as_u16(), wire.login_count()), (200, 2));
    assert!(began.elapsed() >= 5 * S);
}

#[tokio::test(start_paused = true)]
async fn a_refused_secret_is_told_at_once_and_the_endpoint_left_alone() {
    let refused = || answer(401).body(r#"{"error":"invalid_client","description":"wrong secret"}"#);
    let wire = Fake::new([]).logins([refused(), refused()]);
    let client = client(&wire, "genesys");
    for _ in 0..3 {
        let error = client.get(USERS).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Token);
        let text = error.to_string();
        assert!(text.contains("tests") && text.contains("wrong secret"), "{text}");
    }
    assert_eq!((wire.login_count(), wire.seen().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_does_not_answer_holds_a_call_no_longer_than_its_deadline() {
    let wire = Fake::new([]).logins([answer(200).after(3600 * S)]);
    let began = Instant::now();
    let error = client(&wire, "genesys").get(USERS).deadline(4 * S).send().await.unwrap_err();
    assert_eq!((error.kind(), wire.seen().len()), (ErrorKind::Token, 0));
    assert!(began.elapsed() <= 5 * S, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn those_in_a_hurry_open_no_breaker_for_the_others() {
    let wire = Fake::new((0..12).map(|_| answer(200).after(5 * S)));
    let client = client(&wire, "genesys");
    for _ in 0..12 {
        client.get(USERS).deadline(S).send().await.unwrap_err();
    }
    assert_eq!(client.get(USERS).send().await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_due_token_serves_while_its_successor_is_fetched() {
    let first = answer(200).body(r#"{"access_token":"t1","expires_in":100}"#);
    let slow = answer(200).body(r#"{"access_token":"t2","expires_in":100}"#).after(2 * S);
    let wire = Fake::new([]).logins([first, slow]);
    let client = client(&wire, "genesys");
    client.get(USERS).send().await.unwrap();
    tokio::time::sleep(91 * S).await;
    let began = Instant::now();
    client.get(USERS).send().await.unwrap();
    assert!(began.elapsed() < S, "the call did not wait for the refresh");
    tokio::time::sleep(3 * S).await;
    client.get(USERS).send().await.unwrap();
    let tokens: Vec<_> = wire.seen().into_iter().map(|seen| seen.authorization.unwrap()).collect();
    assert_eq!(tokens, ["Bearer t1", "Bearer t1", "Bearer t2"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_has_left_outlives_its_caller_and_its_answer_teaches_the_gates() {
    let wire = Fake::new([answer(200), throttle(30).after(2 * S)]);
    let client = client(&wire, "genesys");
    client.get(USERS).send().await.unwrap();
    let write = client.request(Method::POST, USERS).json("{}").send();
    tokio::time::timeout(S, write).await.expect_err("the caller hangs up");
    tokio::time::sleep(2 * S).await;
    assert_eq!(wire.ended(), 2, "the write was awaited to its end");
    client.get(USERS).send().await.unwrap();
    let seen = wire.seen();
    assert!(seen[2].at >= seen[1].at + 32 * S, "the throttle of the orphan holds the others: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_401_to_a_write_whose_caller_has_gone_ends_the_token() {
    let wire = Fake::new([answer(200), answer(401).after(2 * S)]);
    let client = client(&wire, "genesys");
    client.get(USERS).send().await.unwrap();
    let write = client.request(Method::POST, USERS).json("{}").send();
    tokio::time::timeout(S, write).await.expect_err("the caller hangs up");
    tokio::time::sleep(2 * S).await;
    client.get(USERS).send().await.unwrap();
    let tokens: Vec<_> = wire.seen().into_iter().map(|seen| seen.authorization.unwrap()).collect();
    assert_eq!(tokens, ["Bearer t1", "Bearer t1", "Bearer t2"], "the next call does not try the dead one");
}

#[tokio::test(start_paused = true)]
async fn a_read_ends_with_its_caller_and_frees_its_place() {
    let wire = Fake::new([answer(200).after(20 * S)]);
    let client = client(&wire, "genesys");
    tokio::time::timeout(S, client.get(USERS).send()).await.expect_err("the caller hangs up");
    assert_eq!(client.upstream().pacer().snapshot().in_flight, 0);
    tokio::time::sleep(30 * S).await;
    assert_eq!(wire.ended(), 0);
    client.get(USERS).send().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_the_queue_leaves_nothing_behind() {
    let wire = Fake::new([answer(200).after(10 * S)]);
    let client = client(&wire, "genesys");
    let scout = client.get(USERS).send();
    let gone = tokio::time::timeout(3 * S, client.get(USERS).send());
    let behind = async {
        tokio::time::sleep(S).await;
        client.get(USERS).send().await
    };
    let (scout, gone, behind) = tokio::join!(scout, gone, behind);
    assert_eq!(scout.unwrap().status(), 200);
    assert!(gone.is_err());
    assert_eq!(behind.unwrap().status(), 200);
    let left = client.upstream().pacer().snapshot();
    assert_eq!((left.waiting.total(), left.in_flight, wire.seen().len()), (0, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn the_same_transaction_and_payload_have_the_same_key_and_other_payloads_another() {
    let wire = Fake::new([]);
    let client = client(&wire, "genesys");
    let name = http::HeaderName::from_static("x-genesys-request-id");
    for body in [r#"{"a":1,"b":2}"#, r#"{ "b": 2, "a": 1 }"#, r#"{"a":1,"b":3}"#] {
        client.request(Method::POST, USERS).transaction("order-17").json(body).send().await.unwrap();
    }
    let header = HeaderValue::from_static("order-17");
    let call = client.request(Method::POST, USERS).header(name, header);
    call.json(r#"{"a":1,"b":2}"#).send().await.unwrap();
    client.request(Method::POST, USERS).json(r#"{"a":1,"b":2}"#).send().await.unwrap();
    client.get(USERS).send().await.unwrap();
    let keys: Vec<_> = wire.seen().into_iter().map(|seen| seen.key).collect();
    assert!(keys[0].is_some());
    assert_eq!(keys[0], keys[1], "the payload is the same, however it is written");
    assert_ne!(keys[0], keys[2], "a changed payload is another write");
    assert_eq!(keys[0], keys[3], "a caller's header names the transaction");
    assert_ne!(keys[0], keys[4], "without a name every call is its own transaction");
    assert_eq!(keys[5], None, "reads carry none");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_no_header_can_carry_is_refused() {
    let wire = Fake::new([]);
    let call = client(&wire, "genesys-guide");
    let error = call.request(Method::POST, USERS).key("a\nb").json("{}").send().await.unwrap_err();
    assert_eq!((error.kind(), wire.seen().len()), (ErrorKind::Invalid, 0));
}

#[tokio::test(start_paused = true)]
async fn targets_are_normalised_but_query_and_last_slash_stay() {
    let wire = Fake::new([]);
    let client = client(&wire, "genesys");
    for (asked, sent) in [
        ("/api/v2//users/./7", "/api/v2/users/7"),
        ("/api/v2/users/", "/api/v2/users/"),
        ("/api/v2/users?b=%2F&a=..", "/api/v2/users?b=%2F&a=.."),
        ("/api/v2/x/../users/?", "/api/v2/users/?"),
        ("/", "/"),
    ] {
        client.get(asked).send().await.unwrap();
        assert_eq!(wire.seen().last().unwrap().target, sent, "{asked}");
    }
    for asked in ["api/v2/users", "users", "/a%2fb", "/a b", ""] {
        let error = client.get(asked).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{asked}");
    }
    assert_eq!(wire.seen().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_was_slow_is_still_asked_by_callers_in_a_hurry() {
    let wire = Fake::new((0..70).map(|_| answer(200).after(8 * S)));
    let client = client(&wire, "genesys");
    for _ in 0..70 {
        client.get(USERS).send().await.unwrap();
    }
    let response = client.get(USERS).max_wait(6 * S).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

/// Who is told, and how calls ended.
#[derive(Default)]
struct Ends(Mutex<Vec<Outcome>>);

impl Observer for Ends {
    fn call(&self, call: &CallDone<'_>) {
        self.0.lock().push(call.outcome);
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_is_reported_once_the_abandoned_too() {
    let wire = Fake::new([answer(404), answer(200).after(5 * S)]);
    let ends = Arc::new(Ends::default());
    let mut config = config("genesys");
    config.observers = Observers::new([Arc::clone(&ends) as Arc<dyn Observer>]);
    let client = Client::over(Upstream::with_wire(config, Arc::new(wire)).unwrap());
    client.get(USERS).send().await.unwrap();
    tokio::time::timeout(S, client.get(USERS).send()).await.expect_err("the caller hangs up");
    assert_eq!(*ends.0.lock(), [Outcome::Status(404), Outcome::Failed("abandoned")]);
}

/// A layer that stops the attempts it is told to, and notes what it saw of the others' answers.
#[derive(Clone, Default)]
struct Gatekeeper {
    stop: Arc<AtomicU32>,
    knows_the_limit: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Guarded<S>(S, Gatekeeper);

impl<S> tower::Layer<S> for Gatekeeper {
    type Service = Guarded<S>;
    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded(inner, self.clone())
    }
}

impl<S> Service<Attempt> for Guarded<S>
where
    S: Service<Attempt, Response = Answered, Error = AttemptError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Answered;
    type Error = AttemptError;
    type Future = BoxFuture<Result<Answered, AttemptError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AttemptError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let Self(mut inner, keeper) = self.clone();
        Box::pin(async move {
            if attempt.number() == keeper.stop.load(Ordering::Relaxed) {
                return Err(AttemptError::Stopped("the disk is full".into()));
            }
            let answered = inner.call(attempt).await?;
            let named = answered.throttled && answered.seen != tidegate_core::observe::Observation::default();
            keeper.knows_the_limit.fetch_or(named, Ordering::Relaxed);
            Ok(answered)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_before_it_leaves_was_not_sent_and_gives_its_ticket_back() {
    let wire = Fake::new([]);
    let keeper = Gatekeeper::default();
    let client = Client::with_layer(upstream(&wire, "genesys"), keeper.clone());
    keeper.stop.store(1, Ordering::Relaxed);
    let error = client.request(Method::POST, USERS).json("{}").send().await.unwrap_err();
    assert_eq!((error.kind(), wire.seen().len()), (ErrorKind::Stopped, 0));
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(client.upstream().pacer().snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_after_a_doubtful_attempt_leaves_the_doubt() {
    let wire = Fake::new([fail(INTERRUPTED)]);
    let keeper = Gatekeeper::default();
    let client = Client::with_layer(upstream(&wire, "genesys-guide"), keeper.clone());
    keeper.stop.store(2, Ordering::Relaxed);
    let error = client.request(Method::POST, USERS).json("{}").send().await.unwrap_err();
    assert_eq!((error.kind(), wire.seen().len()), (ErrorKind::OutcomeUnknown, 1));
}

#[tokio::test(start_paused = true)]
async fn a_throttles_body_is_read_for_the_limit_it_names() {
    let body = r#"{"status":429,"code":"too.many.requests","limit":{"key":"users.write","namespace":"x","value":60}}"#;
    let wire = Fake::new([answer(429).body(body)]);
    let keeper = Gatekeeper::default();
    let client = Client::with_layer(upstream(&wire, "genesys"), keeper.clone());
    let response = client.get(USERS).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(keeper.knows_the_limit.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_can_be_sent_once_is_sent_once() {
    let wire = Fake::new([throttle(1)]);
    let stream = http_body_util::Full::new(bytes::Bytes::from_static(b"{}"));
    let mut request = http::Request::new(tidegate::RequestBody::once(stream));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = USERS.parse().unwrap();
    let response = client(&wire, "genesys").call(request).await.unwrap();
    assert_eq!((response.status().as_u16(), wire.seen().len()), (429, 1));
}

#[test]
fn the_end_of_one_runtime_does_not_stop_the_timer_or_the_token_for_another() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let wire = Fake::new([answer(200).after(3600 * S)])
        .logins([answer(200).after(3600 * S), answer(200).body(r#"{"access_token":"t","expires_in":100}"#)]);
    let client = client(&wire, "genesys");
    first.block_on(async {
        // One holds the scout's ticket and waits for a token, one waits for a ticket; neither gets anywhere.
        let calls = async { tokio::join!(client.get(USERS).send(), client.get(USERS).send()) };
        let mut calls = pin!(calls);
        tokio::time::timeout(S / 10, &mut calls).await.expect_err("nothing answers");
    });
    // A refresh was spawned there and ends with it.
    drop(first);
    second.block_on(async {
        // The first answer of the API never comes either: its read is cut, and the next one succeeds.
        let hung = tokio::time::timeout(S, client.get(USERS).send()).await;
        assert!(hung.is_err());
        let (one, two) = tokio::join!(client.get(USERS).send(), client.get(USERS).send());
        assert_eq!((one.unwrap().status().as_u16(), two.unwrap().status().as_u16()), (200, 200));
    });
}
