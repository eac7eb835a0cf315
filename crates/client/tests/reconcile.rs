//! Finding out what became of writes, over a wire without sockets in paused time, and against the simulator.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidegate::body::BoxError;
use tidegate::client::CallBuilder;
use tidegate::layer::{Amend, BoxFuture, OnConflict, ReconcileBy, Reconciled};
use tidegate::observe::{DoubtDone, Observer, Observers};
use tidegate::{CallReport, Client, Error, ErrorKind, Profile, ResponseBody, Upstream};
use tidegate_core::classify::Failure;
use tidegate_sim::SimConfig;
use tokio::sync::watch;
use tokio::time::Instant;

use self::support::{Act, Fake, answer, client, fail};

const S: Duration = Duration::from_secs(1);
const USERS: &str = "/api/v2/users";
const USER: &str = "/api/v2/users/7";
const SEARCH: &str = "/api/v2/users/search";
const ANN: &str = r#"{"email":"ann@x","name":"Ann"}"#;

const INACTIVE: &str = r#"{"email":"bob@x","name":"Bob","state":"inactive","title":"Lead"}"#;

fn shows(value: &Value) -> Act {
    answer(200).header("content-type", "application/json").body(value.to_string())
}

fn found(users: &Value) -> Act {
    shows(&json!({"results": users, "total": users.as_array().unwrap().len()}))
}

fn lost() -> Act {
    fail(Failure::Interrupted { whole: true })
}

fn create(client: &Client) -> CallBuilder<'_> {
    client.request(Method::POST, USERS).json(ANN).reconcile(ReconcileBy::default())
}

fn update(client: &Client) -> CallBuilder<'_> {
    let body = r#"{"title":"Lead","version":4}"#;
    client.request(Method::PATCH, USER).json(body).reconcile(ReconcileBy::default())
}

fn delete(client: &Client) -> CallBuilder<'_> {
    client.request(Method::DELETE, "/api/v2/whatever/7").reconcile(ReconcileBy::default())
}

fn user(title: &str, version: u64) -> Act {
    shows(&json!({"title": title, "version": version}))
}

/// What the wire saw: method, target, seconds.
fn calls(wire: &Fake) -> Vec<(String, u64)> {
    wire.seen().iter().map(|seen| (format!("{} {}", seen.method, seen.target), seen.at.as_secs())).collect()
}

fn report(response: &http::Response<ResponseBody>) -> CallReport {
    response.extensions().get::<CallReport>().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_lost_write_that_a_read_shows_is_done_and_its_answer_is_the_entity() {
    let ann = json!({"id": "7", "email": "ann@x", "name": "Ann", "version": 1});
    let wire = Fake::new([lost(), found(&json!([ann]))]);
    let response = create(&client(&wire, "genesys")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.extensions().get::<Reconciled>().unwrap().by, "confirmed-by-read");
    let report = report(&response);
    assert_eq!((report.attempts, report.key.as_ref()), (1, wire.seen()[0].key.as_ref()));
    let body: Value = serde_json::from_slice(&response.into_body().bytes(1000).await.unwrap()).unwrap();
    assert_eq!(body, ann);
    assert_eq!(calls(&wire), [(format!("POST {USERS}"), 0), (format!("POST {SEARCH}"), 0)]);
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_believed_after_settle_and_the_write_sent_again_with_its_key() {
    let wire = Fake::new([lost()]);
    wire.then_all((0..5).map(|_| found(&json!([]))));
    wire.then_all([answer(201)]);
    let response = create(&client(&wire, "genesys")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), report(&response).attempts), (201, 2));
    let seen = wire.seen();
    let writes: Vec<_> = seen.iter().filter(|seen| seen.target == USERS).collect();
    assert_eq!(writes.len(), 2);
    assert!(writes[0].key.is_some() && writes[0].key == writes[1].key && writes[0].body == writes[1].body);
    assert!(writes[1].at >= 30 * S, "{:?}", calls(&wire));
    assert_eq!(seen.len() - writes.len(), 5, "four waits, each three times as long: {:?}", calls(&wire));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_has_not_moved_needs_no_wait() {
    let wire = Fake::new([lost(), user("Agent", 4), answer(200)]);
    let response = update(&client(&wire, "genesys")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), report(&response).attempts), (200, 2));
    assert_eq!(
        calls(&wire),
        [(format!("PATCH {USER}"), 0), (format!("GET {USER}"), 0), (format!("PATCH {USER}"), 0)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_conflict_after_a_loss_may_be_the_lost_attempts_own() {
    let wire = Fake::new([lost(), user("Agent", 4), answer(409), user("Lead", 5)]);
    let response = update(&client(&wire, "genesys")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), report(&response).attempts), (200, 2));
    assert!(response.extensions().get::<Reconciled>().is_some());
    // Somebody else's: the upstream's own word is delivered.
    let wire = Fake::new([lost(), user("Boss", 5), answer(409).body("stale"), user("Boss", 5)]);
    let response = update(&client(&wire, "genesys")).send().await.unwrap();
    assert_eq!(response.status(), 409);
    assert_eq!(response.into_body().bytes(100).await.unwrap(), "stale");
    // A read that still shows the old version may only be late.
    let wire = Fake::new([
        lost(),
        user("Agent", 4),
        answer(409),
        user("Agent", 4),
        user("Agent", 4),
        user("Lead", 5),
    ]);
    let response = update(&client(&wire, "genesys")).send().await.unwrap();
    assert_eq!(response.status(), 200, "{:?}", calls(&wire));
}

/// Notes how doubts end.
#[derive(Default)]
struct Doubts(Mutex<Vec<(&'static str, u32)>>);

impl Observer for Doubts {
    fn doubt(&self, doubt: &DoubtDone<'_>) {
        self.0.lock().push((doubt.ending.name(), doubt.reads));
    }
}

#[tokio::test(start_paused = true)]
async fn every_doubt_is_told_once_with_its_end() {
    let doubts = Arc::new(Doubts::default());
    let told = |wire: &Fake| {
        let mut config = support::config("genesys");
        config.observers = Observers::new([Arc::clone(&doubts) as Arc<dyn Observer>]);
        Client::over(Upstream::with_wire(config, Arc::new(wire.clone())).unwrap())
    };
    let wire = Fake::new([lost(), user("Agent", 4), lost(), user("Lead", 5)]);
    assert_eq!(update(&told(&wire)).send().await.unwrap().status(), 200);
    assert_eq!(std::mem::take(&mut *doubts.0.lock()), [("not-applied-and-resent", 1), ("confirmed", 2)]);
    // Without a rule, and without anybody who asks for reads.
    let skills = "/api/v2/users/7/routingskills";
    let wire = Fake::new([lost(), lost(), answer(200)]);
    let client = told(&wire);
    let add = || client.request(Method::POST, skills).json("{}");
    add().reconcile(ReconcileBy::default()).send().await.unwrap_err();
    add().send().await.unwrap_err();
    add().send().await.unwrap();
    assert_eq!(std::mem::take(&mut *doubts.0.lock()), [("unknown", 0), ("unknown", 0)]);
    // A doubt of an earlier call, while nobody can be asked.
    let wire = Fake::new((0..20).map(|_| fail(Failure::ConnectFailed)));
    let open = update(&told(&wire)).sent_before(Some(S)).send().await.unwrap_err();
    assert!(open.kind() == ErrorKind::OutcomeUnknown && open.can_settle(), "{open}");
    assert!(doubts.0.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_tell_stays_unknown() {
    let twice = json!([{"email": "ann@x", "name": "Ann"}, {"email": "ann@x", "name": "Ann"}]);
    let wire = Fake::new([lost()]);
    wire.then_all((0..5).map(|_| found(&twice)));
    let error = create(&client(&wire, "genesys")).send().await.unwrap_err();
    assert_eq!((error.kind(), error.can_settle()), (ErrorKind::OutcomeUnknown, false));
    assert!(error.to_string().contains("several entities have this key"), "{error}");
    assert_eq!(error.report().attempts, 1);
    // No rule: as ever, and nothing is asked.
    let wire = Fake::new([lost()]);
    let client = client(&wire, "genesys");
    let call = client
        .request(Method::POST, "/api/v2/conversations/calls")
        .json("{}")
        .reconcile(ReconcileBy::default());
    let error = call.send().await.unwrap_err();
    assert_eq!((error.kind(), error.can_settle(), wire.seen().len()), (ErrorKind::OutcomeUnknown, false, 1));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_lost_time_and_again_is_sent_three_times() {
    let wire = Fake::new([lost(), user("a", 4), lost(), user("a", 4), lost(), user("a", 4)]);
    let error = update(&client(&wire, "genesys")).send().await.unwrap_err();
    assert_eq!((error.kind(), error.can_settle()), (ErrorKind::OutcomeUnknown, true));
    assert_eq!((error.report().attempts, wire.seen().len()), (3, 6));
}

#[tokio::test(start_paused = true)]
async fn a_further_attempt_that_cannot_be_sent_leaves_the_doubt() {
    let wire = Fake::new([lost(), user("a", 4)]);
    wire.then_all((0..40).map(|_| fail(Failure::ConnectFailed)));
    let error = update(&client(&wire, "genesys")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.can_settle()),
        (ErrorKind::OutcomeUnknown, true),
        "not `unreachable`: {error}"
    );
}

#[tokio::test(start_paused = true)]
async fn there_is_no_looking_beyond_the_time_that_was_given() {
    let wire = Fake::new([lost()]);
    wire.then_all((0..9).map(|_| found(&json!([]))));
    let began = Instant::now();
    let by = ReconcileBy { within: Some(5 * S), ..ReconcileBy::default() };
    let error = create(&client(&wire, "genesys")).reconcile(by).send().await.unwrap_err();
    assert_eq!((error.kind(), error.can_settle()), (ErrorKind::OutcomeUnknown, true));
    // It is lost after 10 ms, and the time counts from there.
    let most = 5 * S + Duration::from_millis(20);
    assert!(began.elapsed() >= 4 * S && began.elapsed() <= most, "{:?}", began.elapsed());
    assert_eq!(wire.seen().iter().filter(|seen| seen.target == USERS).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_lost_late_is_looked_for_as_long_as_one_that_is_lost_early() {
    // The profile gives a write 30 s, a gateway 14 s to wait and to look.
    let late = || answer(200).after(60 * S);
    let by = || ReconcileBy { within: Some(14 * S), ..ReconcileBy::default() };
    let wire = Fake::new([late(), user("Lead", 5)]);
    let response = update(&client(&wire, "genesys")).reconcile(by()).max_wait(14 * S).send().await.unwrap();
    assert_eq!(response.extensions().get::<Reconciled>().unwrap().by, "confirmed-by-read");
    assert_eq!(calls(&wire), [(format!("PATCH {USER}"), 0), (format!("GET {USER}"), 30)]);
    // What was not executed is sent again within that time.
    let wire = Fake::new([late(), user("Agent", 4), answer(200)]);
    let response = update(&client(&wire, "genesys")).reconcile(by()).max_wait(14 * S).send().await.unwrap();
    assert_eq!((response.status().as_u16(), report(&response).attempts), (200, 2));
    // One read in any case, also when the answer is worthless to its caller.
    let wire = Fake::new([late(), user("Lead", 5)]);
    let response = update(&client(&wire, "genesys")).reconcile(by()).deadline(S).send().await.unwrap();
    assert!(response.extensions().get::<Reconciled>().is_some());
    // And no further ones after the end.
    let wire = Fake::new([late()]);
    wire.then_all((0..9).map(|_| found(&json!([]))));
    let began = Instant::now();
    let error = create(&client(&wire, "genesys")).reconcile(by()).send().await.unwrap_err();
    assert_eq!((error.kind(), error.can_settle()), (ErrorKind::OutcomeUnknown, true));
    let most = 44 * S + Duration::from_millis(20);
    assert!(began.elapsed() >= 43 * S && began.elapsed() <= most, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_bounded_look_goes_on_when_the_call_is_called_off_and_nothing_is_sent_again() {
    let by = || ReconcileBy { within: Some(14 * S), ..ReconcileBy::default() };
    let stale = |version: u64| user("Agent", version);
    for (seen, confirmed) in [(user("Lead", 5), true), (stale(4), false)] {
        let wire = Fake::new([lost(), seen]);
        let (off, signal) = watch::channel(false);
        let client = client(&wire, "genesys");
        let call = update(&client).reconcile(by()).called_off_by(signal).send();
        let stop = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            off.send_replace(true);
        };
        let (ended, ()) = tokio::join!(call, stop);
        match ended {
            Ok(response) => assert!(confirmed && response.extensions().get::<Reconciled>().is_some()),
            Err(error) => {
                assert_eq!((error.kind(), error.can_settle()), (ErrorKind::OutcomeUnknown, true));
                assert!(!confirmed && error.to_string().contains("no further attempt was wanted"), "{error}");
            }
        }
        assert_eq!(wire.seen().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_gateway_says_is_done_or_in_flight_is_looked_for_and_never_sent_again() {
    let marked = |status, mark: &str| answer(status).header("tidegate-outcome", mark);
    let ann = json!([{"email": "ann@x", "name": "Ann", "version": 1}]);
    for (status, mark) in [(409, "answer-not-kept"), (424, "answer-lost"), (409, "in-flight")] {
        let wire = Fake::new([marked(status, mark), found(&ann)]);
        let response = create(&client(&wire, "genesys")).send().await.unwrap();
        assert_eq!(response.extensions().get::<Reconciled>().unwrap().by, "confirmed-by-read", "{mark}");
        // Where nothing tells how, it is not known, and a 409 is not taken for a conflict.
        let wire = Fake::new([marked(status, mark)]);
        let client = client(&wire, "genesys");
        let call = client.request(Method::POST, "/api/v2/conversations/calls").json("{}");
        let call = call.reconcile(ReconcileBy::default()).on_conflict(OnConflict::default());
        let ended = call.send().await;
        assert_eq!(wire.seen().len(), 1, "{mark}");
        // Of a lost answer it is known that the write was executed.
        match (mark, ended) {
            ("answer-lost", ended) => assert_eq!(ended.unwrap().headers()["tidegate-outcome"], mark),
            (_, ended) => assert_eq!(ended.unwrap_err().kind(), ErrorKind::OutcomeUnknown, "{mark}"),
        }
    }
    // It is done, whatever the read says: what was made may have been deleted since.
    let wire = Fake::new([marked(409, "answer-not-kept")]);
    wire.then_all((0..9).map(|_| found(&json!([]))));
    let error = create(&client(&wire, "genesys")).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(wire.seen().iter().filter(|seen| seen.target == USERS).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn being_called_off_leaves_the_doubt_to_a_later_look() {
    let wire = Fake::new([lost(), found(&json!([]))]);
    let (off, signal) = watch::channel(false);
    let client = client(&wire, "genesys");
    let call = create(&client).called_off_by(signal).send();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        off.send_replace(true);
    };
    let began = Instant::now();
    let (ended, ()) = tokio::join!(call, stop);
    let error = ended.unwrap_err();
    assert_eq!((error.kind(), error.can_settle()), (ErrorKind::OutcomeUnknown, true));
    assert_eq!((began.elapsed(), wire.seen().len()), (Duration::from_millis(500), 2));
}

#[tokio::test(start_paused = true)]
async fn a_write_of_an_earlier_process_is_looked_for_before_anything_is_sent() {
    let wire = Fake::new([user("Lead", 5)]);
    let call = client(&wire, "genesys");
    let response = update(&call).sent_before(Some(Duration::from_hours(30))).key("k").send().await.unwrap();
    assert_eq!((response.status().as_u16(), report(&response).attempts), (200, 0));
    assert_eq!(calls(&wire), [(format!("GET {USER}"), 0)]);
    let wire = Fake::new([user("Agent", 4), answer(200)]);
    let call = client(&wire, "genesys");
    update(&call).sent_before(Some(Duration::from_hours(30))).key("k").send().await.unwrap();
    assert_eq!(wire.seen()[1].key.as_deref(), Some("k"));
}

/// Skills have no version.
fn set_skill(client: &Client, method: Method) -> CallBuilder<'_> {
    let body = r#"[{"id":"s","proficiency":5}]"#;
    client.request(method, "/api/v2/users/7/routingskills/bulk").json(body).reconcile(ReconcileBy::default())
}

fn skill(proficiency: f64) -> Act {
    shows(&json!({"entities": [{"id": "s", "proficiency": proficiency, "state": "active"}], "total": 1}))
}

fn writes(wire: &Fake) -> usize {
    wire.seen().iter().filter(|seen| seen.method != "GET").count()
}

#[tokio::test(start_paused = true)]
async fn an_unversioned_write_is_sent_again_only_if_nothing_changed_since_its_loss() {
    let wire = Fake::new([lost()]);
    wire.then_all((0..4).map(|_| skill(2.0)));
    wire.then_all([answer(200)]);
    let response = set_skill(&client(&wire, "genesys"), Method::PATCH).send().await.unwrap();
    assert_eq!((response.status().as_u16(), writes(&wire)), (200, 2));
    assert!(wire.seen()[5].at >= 10 * S, "{:?}", calls(&wire));
    // Somebody sets it while it is looked for: perhaps after our own was executed.
    let wire = Fake::new([lost(), skill(2.0), skill(3.0), skill(3.0), skill(3.0)]);
    let error = set_skill(&client(&wire, "genesys"), Method::PATCH).send().await.unwrap_err();
    assert_eq!((error.kind(), writes(&wire)), (ErrorKind::OutcomeUnknown, 1), "{error}");
    // What a gateway tells again is some time old.
    let told = || answer(424).header("tidegate-outcome", "unknown");
    for (again, sent) in [(false, 2), (true, 1)] {
        let wire = Fake::new([if again { told().header("tidegate-replayed", "true") } else { told() }]);
        wire.then_all((0..4).map(|_| skill(2.0)));
        wire.then_all([answer(200)]);
        set_skill(&client(&wire, "genesys"), Method::PATCH).send().await.unwrap();
        assert_eq!(writes(&wire), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_wrote_since_a_crash_is_not_reverted() {
    for method in [Method::PATCH, Method::PUT] {
        let resumed = |wire: &Fake| {
            let client = client(wire, "genesys");
            let method = method.clone();
            async move {
                let call = set_skill(&client, method).sent_before(Some(Duration::from_hours(2)));
                call.asks_first(true).send().await
            }
        };
        let wire = Fake::new((0..4).map(|_| skill(2.0)));
        let error = resumed(&wire).await.unwrap_err();
        assert_eq!((error.kind(), writes(&wire)), (ErrorKind::OutcomeUnknown, 0), "{method}: {error}");
        assert!(error.to_string().contains("the entity is not as it was written"), "{error}");
        let wire = Fake::new([skill(5.0)]);
        let response = resumed(&wire).await.unwrap();
        assert_eq!((response.status().as_u16(), writes(&wire)), (200, 0), "{method}");
    }
    // What was sent a moment ago, by who asks for it himself, is sent again: doing it twice does no harm.
    let wire = Fake::new([answer(200)]);
    let call = client(&wire, "genesys");
    set_skill(&call, Method::PUT).sent_before(Some(S)).send().await.unwrap();
    // A deletion does nothing to what is gone.
    let wire = Fake::new([answer(404)]);
    let call = client(&wire, "genesys");
    let delete = call.request(Method::DELETE, USER).reconcile(ReconcileBy::default()).asks_first(true);
    assert_eq!(delete.sent_before(Some(Duration::from_hours(2))).send().await.unwrap().status(), 204);
}

#[tokio::test(start_paused = true)]
async fn the_time_since_an_earlier_call_counts() {
    let later = |client: &Client, lost_before| {
        let mut request = http::Request::post(USERS).body(tidegate::RequestBody::from(ANN)).unwrap();
        request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        request.extensions_mut().insert(tidegate::CallOptions {
            sent_before: Some(40 * S),
            lost_before,
            max_wait: Some(14 * S),
            reconcile: Some(ReconcileBy { within: Some(14 * S), ..ReconcileBy::default() }),
            ..tidegate::CallOptions::default()
        });
        let client = client.clone();
        async move { client.call(request).await }
    };
    let wire = Fake::new([found(&json!([])), answer(201)]);
    let response = later(&client(&wire, "genesys"), Some(36 * S)).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(calls(&wire), [(format!("POST {SEARCH}"), 0), (format!("POST {USERS}"), 0)]);
    // Without it each call would wait as long as the first.
    let wire = Fake::new((0..9).map(|_| found(&json!([]))));
    let error = later(&client(&wire, "genesys"), None).await.unwrap_err();
    assert_eq!((error.kind(), error.can_settle()), (ErrorKind::OutcomeUnknown, true));
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_finds_nothing_after_a_loss_is_done() {
    let wire = Fake::new([lost(), answer(404)]);
    let response = delete(&client(&wire, "generic")).send().await.unwrap();
    assert_eq!(response.status(), 204);
    assert_eq!(response.extensions().get::<Reconciled>().unwrap().by, "already-done");
    let wire = Fake::new([answer(404)]);
    assert_eq!(
        delete(&client(&wire, "generic")).send().await.unwrap().status(),
        404,
        "without a loss it is news"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gateway_in_between_that_could_not_tell_is_not_the_last_word() {
    let unknown = || answer(424).header("tidegate-outcome", "unknown");
    let wire = Fake::new([unknown(), user("Lead", 5)]);
    let call = client(&wire, "genesys");
    let class = (http::HeaderName::from_static("tidegate-class"), http::HeaderValue::from_static("bulk"));
    let response = update(&call).header(class.0, class.1).send().await.unwrap();
    assert_eq!(response.extensions().get::<Reconciled>().unwrap().by, "confirmed-by-read");
    // Nothing more can be found out: the gateway's own words.
    let wire = Fake::new([unknown().body("its words"), user("Boss", 9)]);
    let response = update(&client(&wire, "genesys")).send().await.unwrap();
    assert_eq!(response.status(), 424);
    assert_eq!(response.into_body().bytes(100).await.unwrap(), "its words");
    // Somebody may be asked later: so may the item be kept.
    let wire = Fake::new([unknown()]);
    wire.then_all((0..40).map(|_| fail(Failure::ConnectFailed)));
    let error = update(&client(&wire, "genesys")).send().await.unwrap_err();
    assert_eq!((error.kind(), error.can_settle()), (ErrorKind::OutcomeUnknown, true));
}

#[tokio::test(start_paused = true)]
async fn a_search_by_post_is_a_read() {
    let wire = Fake::new([lost(), answer(200)]);
    let response = client(&wire, "genesys").request(Method::POST, SEARCH).json("{}").send().await.unwrap();
    assert_eq!((response.status().as_u16(), wire.seen().len()), (200, 2));
    // It has the time of a read, and a search without an answer is no write that may have been executed.
    let wire = Fake::new((0..9).map(|_| answer(200).after(60 * S)));
    let error = client(&wire, "genesys")
        .request(Method::POST, SEARCH)
        .json("{}")
        .deadline(25 * S)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoAnswer, "{error}");
    assert!(wire.seen()[1].at < 15 * S, "{:?}", calls(&wire));
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_rule_has_the_time_of_a_read_whatever_its_route() {
    // The profile says nothing of this route, and the rule's reads go there by POST.
    let text = r#"name = "x"
[timeouts]
read = "2s"
write = "30s"
[[reconcile]]
match = "POST /things"
read = "POST /find"
body = '{"id": "{/id}"}'
items = "/found"
key = "/id"
same = "body"
"#;
    let wire = Fake::new([lost(), answer(200).after(60 * S), shows(&json!({"found": [{"id": 7}]}))]);
    let mut config = support::config("generic");
    config.profile = Arc::new(Profile::parse(text, "x").unwrap());
    let client = Client::over(Upstream::with_wire(config, Arc::new(wire.clone())).unwrap());
    let call = client.request(Method::POST, "/things").json(r#"{"id":7}"#).reconcile(ReconcileBy::default());
    assert!(call.send().await.unwrap().extensions().get::<Reconciled>().is_some());
    assert!((2 * S..6 * S).contains(&wire.seen()[2].at), "{:?}", calls(&wire));
}

/// Keeps what it was told.
#[derive(Debug, Default)]
struct Notes {
    told: Mutex<Vec<Bytes>>,
    fails: bool,
}

impl Amend for Notes {
    fn amend(&self, body: Bytes) -> BoxFuture<Result<String, BoxError>> {
        self.told.lock().push(body);
        let key = format!("key-{}", self.told.lock().len());
        let result = if self.fails { Err("disk full".into()) } else { Ok(key) };
        Box::pin(async move { result })
    }
}

async fn conflicting(wire: &Fake, notes: &Arc<Notes>) -> Result<http::Response<ResponseBody>, Error> {
    let amend: Arc<dyn Amend> = Arc::clone(notes) as Arc<dyn Amend>;
    let on = OnConflict { amend: Some(amend), ..OnConflict::default() };
    update(&client(wire, "genesys")).key("key-0").on_conflict(on).send().await
}

#[tokio::test(start_paused = true)]
async fn a_stale_version_is_read_again_and_applied_at_most_three_times() {
    let notes = Arc::new(Notes::default());
    let wire = Fake::new([answer(409), user("Boss", 9), answer(200)]);
    let response = conflicting(&wire, &notes).await.unwrap();
    assert_eq!((response.status().as_u16(), report(&response).attempts), (200, 2));
    let seen = wire.seen();
    assert_eq!((seen[0].key.as_deref(), seen[2].key.as_deref()), (Some("key-0"), Some("key-1")));
    assert_eq!(
        serde_json::from_slice::<Value>(&seen[2].body).unwrap(),
        json!({"title": "Lead", "version": 9})
    );
    assert_eq!(*notes.told.lock(), [seen[2].body.clone()]);

    let notes = Arc::new(Notes::default());
    let wire = Fake::new((0..9).flat_map(|round| [answer(409), user("Boss", 9 + round)]));
    let response = conflicting(&wire, &notes).await.unwrap();
    assert_eq!((response.status().as_u16(), report(&response).attempts), (409, 4));
    assert_eq!(notes.told.lock().len(), 3);

    // The entity has the version that was sent: the refusal is about something else.
    let notes = Arc::new(Notes::default());
    let wire = Fake::new([answer(409), user("Boss", 4)]);
    assert_eq!(conflicting(&wire, &notes).await.unwrap().status(), 409);
    assert_eq!(notes.told.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_body_that_cannot_be_written_down_is_not_sent() {
    let notes = Arc::new(Notes { fails: true, ..Notes::default() });
    let wire = Fake::new([answer(409), user("Boss", 9)]);
    let error = conflicting(&wire, &notes).await.unwrap_err();
    assert_eq!((error.kind(), wire.seen().len()), (ErrorKind::Stopped, 2));
    assert!(error.to_string().contains("disk full"));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_lost_on_its_new_version_is_looked_for_there() {
    let notes = Arc::new(Notes::default());
    let wire = Fake::new([answer(409), user("Boss", 9), lost(), user("Lead", 10)]);
    let response = conflicting(&wire, &notes).await.unwrap();
    assert_eq!((response.status().as_u16(), report(&response).attempts), (200, 2));
    assert!(response.extensions().get::<Reconciled>().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_just_created_is_asked_for_again_and_what_is_old_is_not() {
    let wire = Fake::new([shows(&json!({"id": "7"})), answer(404), answer(404), shows(&json!({}))]);
    let client = client(&wire, "genesys");
    client.request(Method::POST, USERS).json(ANN).send().await.unwrap();
    assert_eq!(client.get(USER).send().await.unwrap().status(), 200);
    assert_eq!(wire.seen().len(), 4);
    wire.then_all([answer(404), answer(404), answer(200)]);
    assert_eq!(client.get("/api/v2/users/70").send().await.unwrap().status(), 404, "an old one");
    assert_eq!(
        client.get("/api/v2/users/7/routingskills").send().await.unwrap().status(),
        200,
        "below a new one"
    );
    wire.then_all([answer(404)]);
    assert_eq!(client.request(Method::DELETE, USER).send().await.unwrap().status(), 404, "has what it wants");
    // Deleted: from now on its absence is no delay.
    wire.then_all([answer(200), answer(404)]);
    client.request(Method::DELETE, USER).send().await.unwrap();
    assert_eq!(client.get(USER).send().await.unwrap().status(), 404);
}

#[tokio::test(start_paused = true)]
async fn a_search_creates_nothing_whatever_its_answer_links_to() {
    for (path, status, sent) in [("/api/v2/users/search", 404, 2), (USERS, 200, 3)] {
        let wire = Fake::new([shows(&json!({"id": "x", "selfUri": USER})), answer(404), shows(&json!({}))]);
        let client = client(&wire, "genesys");
        client.request(Method::POST, path).json(ANN).send().await.unwrap();
        assert_eq!(client.get(USER).send().await.unwrap().status(), status, "after POST {path}");
        assert_eq!(wire.seen().len(), sent, "POST {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_after_the_window_is_missing() {
    let wire = Fake::new([shows(&json!({"id": "7"}))]);
    let client = client(&wire, "genesys");
    client.request(Method::POST, USERS).json(ANN).send().await.unwrap();
    tokio::time::sleep(61 * S).await;
    wire.then_all([answer(404)]);
    assert_eq!(client.get(USER).send().await.unwrap().status(), 404);
    assert_eq!(wire.seen().len(), 2);
}

/// One fate of one write, against a simulator of its own: the status, and what its books say.
async fn fate(fault: &str, method: Method, target: &str, body: &str, lag: &str) -> (u16, u64, u64) {
    let toml =
        format!("limit = 0\nlag = \"{lag}\"\n[faults]\nscript = [\"{fault}\"]\nlate_by = \"100ms..300ms\"\n");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sim = tidegate_sim::serve(listener, SimConfig::from_toml(&toml).unwrap()).await.unwrap();
    let mut profile = Profile::builtin("genesys").unwrap();
    for rule in &mut profile.reconcile {
        rule.settle = 3 * S;
    }
    profile.limits_source = None;
    let builder = Client::builder(profile, sim.url(), sim.url());
    let client = builder.credential("tests", "demo-client", "demo-secret").build().unwrap();
    let call = client.request(method, target).json(body.to_owned()).reconcile(ReconcileBy::default());
    let status =
        match tokio::time::timeout(Duration::from_mins(2), call.send()).await.expect("nothing may hang") {
            Ok(response) => response.status().as_u16(),
            Err(error) => panic!("{fault} {target}: {error}"),
        };
    let books = sim.stats();
    sim.shutdown().await;
    (status, books.writes.values().sum(), books.duplicates)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_leaves_a_write_of_the_genesys_rules_unknown_or_doubled() {
    let one = "/api/v2/users/00000000-0000-4000-8000-000000000001";
    let (merge, replace) = (format!("{one}/routingskills/bulk"), format!("{one}/routingskills/bulk"));
    let skills = r#"[{"id":"10000000-0000-4000-8000-000000000001","proficiency":3}]"#;
    let writes = [
        (Method::POST, USERS, ANN, "1s"),
        (Method::PATCH, one, r#"{"title":"Lead","version":1}"#, "0s"),
        (Method::PATCH, &merge, skills, "0s"),
        (Method::PUT, &replace, skills, "0s"),
        (Method::POST, USERS, INACTIVE, "1s"),
        (Method::DELETE, one, "", "0s"),
    ];
    let faults =
        ["throttle", "unavailable", "drop-before", "drop-after", "late", "timeout-after", "internal-error"];
    let all = faults.iter().flat_map(|fault| {
        writes.iter().map(move |(method, target, body, lag)| async move {
            let (status, executed, duplicates) = fate(fault, method.clone(), target, body, lag).await;
            let what = format!("{method} {target} with {fault}: {status}, executed {executed}");
            assert_eq!(duplicates, 0, "{what}");
            if *fault == "internal-error" {
                assert_eq!((status, executed), (500, 0), "{what}");
            } else {
                assert!((200..300).contains(&status), "{what}");
                // Replacing and deleting may be repeated; what is deleted already is not deleted again.
                assert!(executed == 1 || *method == Method::PUT && executed == 2, "{what}");
            }
        })
    });
    join_all(all).await;
}
