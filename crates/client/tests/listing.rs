//! The upstream's listing of its limits, fetched behind the calls' back: over a wire without sockets, in paused time.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate::observe::{Observer, Observers};
use tidegate::{Client, Upstream};
use tidegate_core::event::{Event, Level};
use tokio::time::{Instant, sleep};

use self::support::{Act, Fake, answer, config};

const S: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);
const USERS: &str = "/api/v2/users";
const LISTING: &str = "/api/v2/organizations/limits/namespaces/platform.api";
const DEFAULTS: &str = "/api/v2/organizations/limits/namespaces/platform.api/defaults";

/// Keeps the events.
#[derive(Default)]
struct Kept(Mutex<Vec<Event>>);

impl Observer for Kept {
    fn event(&self, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

impl Kept {
    /// Those about the listing, in words, with their level.
    fn told(&self) -> Vec<(Level, String)> {
        let events = self.0.lock();
        let about = events.iter().filter(|event| {
            matches!(
                event,
                Event::LimitsListed { .. } | Event::LimitsDenied { .. } | Event::LimitsUnread { .. }
            )
        });
        about.map(|event| (event.level(), event.to_string())).collect()
    }
}

fn fetching(script: impl IntoIterator<Item = Act>) -> (Fake, Client, Arc<Kept>) {
    let wire = Fake::new(script);
    let kept = Arc::new(Kept::default());
    let mut config = config("genesys");
    config.fetch_limits = true;
    config.observers = Observers::new([Arc::clone(&kept) as Arc<dyn Observer>]);
    let client = Client::over(Upstream::with_wire(config, Arc::new(wire.clone())).unwrap());
    (wire, client, kept)
}

fn listing(entries: &[(&str, u64)]) -> Act {
    let entries: Vec<String> = entries
        .iter()
        .map(|(key, value)| format!(r#"{{"key":"{key}","namespace":"platform.api","value":{value}}}"#))
        .collect();
    answer(200).body(format!(r#"{{"entities":[{}]}}"#, entries.join(",")))
}

/// The limit of a token in the profile; `token.rate.per.minute` is another name of it.
const TOKEN: &str = "client.credentials.token.rate.per.minute";

async fn call(client: &Client) {
    assert_eq!(client.get(USERS).send().await.unwrap().status(), 200);
}

fn targets(wire: &Fake) -> Vec<String> {
    wire.seen().into_iter().map(|seen| seen.target).collect()
}

fn quota(client: &Client, key: &str) -> Option<u64> {
    let gates = client.upstream().pacer().snapshot().gates;
    gates.iter().find(|gate| gate.name == key).and_then(|gate| gate.quota)
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_for_the_listing_and_the_defaults_fill_what_it_lacks() {
    let org = listing(&[("token.rate.per.minute", 450)]).after(10 * S);
    let defaults =
        listing(&[("token.rate.per.minute", 300), ("org.app.user.rate.per.minute", 6000), ("new", 1)]);
    let (wire, client, kept) = fetching([answer(200), org]);
    let begun = Instant::now();
    call(&client).await;
    sleep(S).await;
    for _ in 0..20 {
        call(&client).await;
    }
    assert!(begun.elapsed() < 2 * S, "{:?}", begun.elapsed());
    assert_eq!(quota(&client, TOKEN), Some(300), "not yet");
    assert_eq!(targets(&wire)[..3], [USERS, LISTING, USERS]);
    wire.then_all([defaults]);
    sleep(15 * S).await;
    assert_eq!(targets(&wire).last().unwrap(), DEFAULTS);
    assert_eq!(quota(&client, TOKEN), Some(450), "the first path decides");
    assert_eq!(quota(&client, "org.app.user.rate.per.minute"), Some(6000));
    let told = "the upstream listed its limits to credential tests: 2 taken over, 1 shown only";
    assert_eq!(kept.told(), [(Level::Notice, told.to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_for_again_at_the_first_use_a_day_later_and_not_before() {
    let all = |value| [listing(&[("token.rate.per.minute", value)]), listing(&[])];
    let (wire, client, _) = fetching([answer(200)].into_iter().chain(all(400)));
    call(&client).await;
    for _ in 0..21 {
        sleep(Duration::from_hours(1)).await;
        call(&client).await;
    }
    assert_eq!(targets(&wire).iter().filter(|target| *target == LISTING).count(), 1);
    sleep(Duration::from_hours(4)).await;
    assert_eq!(targets(&wire).iter().filter(|target| *target == LISTING).count(), 1, "nobody uses it");
    wire.then_all([answer(200)].into_iter().chain(all(500)));
    call(&client).await;
    sleep(S).await;
    assert_eq!(targets(&wire).iter().filter(|target| *target == LISTING).count(), 2);
    assert_eq!(quota(&client, TOKEN), Some(500));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_once_and_remembered_for_a_day() {
    let body = r#"{"message":"You are missing the following permission(s): limits:view","status":403}"#;
    let denied = || answer(403).body(body);
    let (wire, client, kept) = fetching([answer(200), denied(), denied()]);
    for _ in 0..20 {
        call(&client).await;
        sleep(Duration::from_hours(1)).await;
    }
    assert_eq!(wire.seen().len(), 22);
    let told = "credential tests may not read the upstream's limits (403: You are missing the following permission(s): \
                limits:view): the declared ones hold";
    assert_eq!(kept.told(), [(Level::Notice, told.to_owned())]);
    sleep(DAY).await;
    wire.then_all([answer(200), denied(), denied()]);
    call(&client).await;
    sleep(S).await;
    assert_eq!(wire.seen().len(), 25, "it was asked again after a day");
    assert_eq!(kept.told()[1].0, Level::Info, "and that it is still so is no news");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_without_a_listing_is_left_alone() {
    let (wire, client, kept) = fetching([answer(200), answer(404), answer(404)]);
    for _ in 0..5 {
        call(&client).await;
        sleep(Duration::from_hours(1)).await;
    }
    assert_eq!(wire.seen().len(), 7);
    assert_eq!(client.upstream().listing().unwrap().state, "denied");
    assert_eq!(
        kept.told()[0].1,
        "credential tests may not read the upstream's limits (404): the declared ones hold"
    );
}

#[tokio::test(start_paused = true)]
async fn half_a_listing_changes_nothing_and_is_asked_for_again_later() {
    let org = || listing(&[("token.rate.per.minute", 450)]);
    let (wire, client, kept) = fetching([answer(200), org(), answer(500)]);
    call(&client).await;
    sleep(S).await;
    assert_eq!(quota(&client, TOKEN), Some(300));
    assert_eq!(client.upstream().listing().unwrap().state, "failed");
    call(&client).await;
    sleep(S).await;
    assert_eq!(wire.seen().len(), 4, "not at once");
    sleep(30 * S).await;
    wire.then_all([answer(200), answer(200).body("<html>")]);
    call(&client).await;
    sleep(S).await;
    sleep(60 * S).await;
    wire.then_all([answer(200), org(), listing(&[])]);
    call(&client).await;
    sleep(S).await;
    assert_eq!(quota(&client, TOKEN), Some(450));
    let told: Vec<String> = kept.told().into_iter().map(|(_, text)| text).collect();
    assert_eq!(
        told[..2],
        [
            format!(
                "the upstream's limits could not be read as credential tests: {DEFAULTS} was answered 500 Internal Server Error; again in 30 s"
            ),
            format!(
                "the upstream's limits could not be read as credential tests: {LISTING}: the answer is not JSON; again in 60 s"
            ),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_fetch_is_retried_like_any_other_call() {
    let throttled = answer(429).header("retry-after", &3);
    let (wire, client, _) =
        fetching([answer(200), throttled, listing(&[("token.rate.per.minute", 450)]), listing(&[])]);
    call(&client).await;
    sleep(S).await;
    assert_eq!(targets(&wire), [USERS, LISTING]);
    sleep(10 * S).await;
    assert_eq!(targets(&wire), [USERS, LISTING, LISTING, DEFAULTS]);
    assert_eq!(quota(&client, TOKEN), Some(450));
}
