//! Push on real sockets, with the simulator as the judge: channels, listeners, and what is asked for because of events.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tidegate_core::cache::FreshRule;
use tidegate_core::glob::PathGlob;
use tidegate_core::push::FollowPace;
use tidegate_gateway::{GatewayConfig, PushConfig};
use tidegate_sim::Faults;
use tidegate_sim::model::push::books::PushStats;
use tidegate_sim::model::push::faults::{MessageFault, PushFaults, SocketFault};

use crate::stage::{Caller, Played, Wire, play_with};

/// The simulator's notifications with heartbeats that tests can wait for.
const LIVELY: &str = "[notifications]\nheartbeat = \"200ms\"\nclosing_notice = \"300ms\"\n";

fn conversation(number: usize) -> String {
    format!("/api/v2/conversations/30000000-0000-4000-8000-{number:012x}")
}

fn user(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn presence(number: usize) -> String {
    format!("v2.users.{}.presence", user(number))
}

fn presence_path(number: usize) -> String {
    format!("/api/v2/users/{}/presences/purecloud", user(number))
}

/// A gateway that follows what is read twice, and keeps what it reads for a moment of its own.
fn follow(config: &mut GatewayConfig) {
    let pace = FollowPace { reads: 2, ..FollowPace::default() };
    push(config, PushConfig { follow: Some(pace), ..PushConfig::default() });
    let path = PathGlob::parse("/api/v2/**").unwrap();
    config.fresh.push(FreshRule { path, max_age: Duration::from_millis(100) });
}

fn always(config: &mut GatewayConfig, topics: impl Iterator<Item = String>) {
    push(config, PushConfig { topics: topics.map(Arc::from).collect(), ..PushConfig::default() });
}

fn push(config: &mut GatewayConfig, push: PushConfig) {
    let upstream = &mut config.tenants[0].upstream;
    let mut profile = (*upstream.profile).clone();
    let rules = profile.push.as_mut().expect("the profile has rules for push");
    rules.heartbeat = Duration::from_millis(200);
    upstream.profile = Arc::new(profile);
    config.push.push((upstream.tenant.as_str().to_owned(), push));
}

/// What `/api/state` says of push.
async fn state(played: &Played) -> Value {
    let told = Caller::new(played.gateway.admin_addr()).get("/api/state").await.json();
    told["tenants"][0]["push"].clone()
}

/// Waits until `/api/state` says so.
async fn until(played: &Played, what: &str, is: impl Fn(u64) -> bool) -> Value {
    for _ in 0..2000 {
        let told = state(played).await;
        if told[what].as_u64().is_some_and(&is) {
            return told;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} never came to be: {}", state(played).await);
}

/// Reads until the version is there, and says how many reads of it had to be made.
async fn until_version(played: &Played, path: &str, version: u64) {
    for _ in 0..1000 {
        let read = played.caller.get(path).await.json();
        if read["version"].as_u64() >= Some(version) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("version {version} of {path} never came");
}

fn fault(sim: &tidegate_sim::Sim, push: PushFaults) {
    sim.set_faults(Faults { push, ..Faults::default() }).unwrap();
}

fn books(played: &Played) -> PushStats {
    played.sim.stats().push
}

fn accepted(played: &Played) -> u64 {
    played.sim.stats().accepted
}

/// A program that listens.
struct Listener(Wire);

impl Listener {
    async fn to(played: &Played, query: &str, headers: &str) -> Self {
        let mut wire = played.caller.connect().await;
        let head = format!("GET /tidegate/events?{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        wire.write(&head).await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{head}");
        wire.until(": listening\n").await.expect("it begins at once");
        Self(wire)
    }

    /// The next event: its id, its name, what it says.
    async fn next(&mut self) -> (String, String, Value) {
        loop {
            let text = self.0.until("\n\n").await.expect("an event");
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.split_once(&format!("{name}: ")));
                line.map(|(_, value)| value.to_owned()).unwrap_or_default()
            };
            if text.contains("data: ") {
                let data = serde_json::from_str(&field("data")).unwrap();
                return (field("id"), field("event"), data);
            }
        }
    }
}

#[tokio::test]
async fn what_is_polled_is_answered_from_memory_until_an_event_says_that_it_changed() {
    let played = play_with("genesys", &format!("limit = 0\n{LIVELY}"), follow).await;
    let path = conversation(1);
    for _ in 0..2 {
        played.caller.get(&path).await;
    }
    until(&played, "topics_covered", |covered| covered == 1).await;
    let first = played.caller.get(&path).await.json()["version"].as_u64().unwrap();
    // Beyond its own 100 ms it stands on events.
    let before = accepted(&played);
    let saved = until_saved(&played, &path).await;
    assert_eq!(saved, "tidegate; hit; detail=push");
    for _ in 0..50 {
        assert_eq!(played.caller.get(&path).await.json()["version"], first);
    }
    assert!(accepted(&played) <= before + 1, "fifty reads and no call");
    played.sim.change(&path, None).unwrap();
    until_version(&played, &path, first + 1).await;
    let told = state(&played).await;
    assert_eq!((&told["events"], &told["channels_open"]), (&json!(1), &json!(1)), "{told}");
    assert!(told["reads_saved"].as_u64() >= Some(50), "{told}");
    let metrics = Caller::new(played.gateway.admin_addr()).get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("tidegate_push_reads_total{answer=\"events\""), "{text}");
}

/// Reads until an answer stands on events alone; says what it says of where it comes from.
async fn until_saved(played: &Played, path: &str) -> String {
    for _ in 0..1000 {
        let answer = played.caller.get(path).await;
        if answer.header("cache-status").contains("detail=push") {
            return answer.header("cache-status").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{path} never stood on events");
}

#[tokio::test]
async fn a_channel_that_is_cut_is_opened_again_and_its_gap_is_filled_and_told() {
    let played = play_with("genesys", &format!("limit = 0\n{LIVELY}"), follow).await;
    let path = conversation(1);
    let topic = format!("v2.detail.events.conversation.{}", path.rsplit('/').next().unwrap());
    for _ in 0..2 {
        played.caller.get(&path).await;
    }
    until(&played, "topics_covered", |covered| covered == 1).await;
    let mut listener = Listener::to(&played, &format!("topic={topic}*"), "").await;
    played.caller.get(&path).await;
    until_saved(&played, &path).await;
    // What changes while nothing is heard is told by nobody.
    fault(&played.sim, PushFaults { refuse_upgrade: true, ..PushFaults::default() });
    assert_eq!(played.sim.act(SocketFault::Kill, None), 1);
    until(&played, "losses", |losses| losses == 1).await;
    let changed = played.sim.change(&path, None).unwrap();
    fault(&played.sim, PushFaults::default());
    until(&played, "gaps", |gaps| gaps == 1).await;
    let (_, name, told) = listener.next().await;
    assert_eq!((name.as_str(), &told["topic"]), ("gap", &json!(format!("{topic}.customer.start"))));
    assert!(told["from"].as_i64() < told["to"].as_i64(), "{told}");
    drop(changed);
    let current = played.sim.changes(Some(&path)).last().unwrap().version;
    until_version(&played, &path, current).await;
    until_saved(&played, &path).await;
    assert_eq!(books(&played).sockets_killed, 1);
}

#[tokio::test]
async fn a_closing_that_is_announced_leaves_no_gap() {
    let topics = (1..=3).map(presence);
    let played = play_with("genesys", &format!("limit = 0\n{LIVELY}"), |config| always(config, topics)).await;
    until(&played, "topics_covered", |covered| covered == 3).await;
    let mut listener = Listener::to(&played, "topic=v2.users.*", "").await;
    played.sim.act(SocketFault::Closing, None);
    let told = until(&played, "channels_made", |made| made == 2).await;
    assert_eq!(told["topics_covered"], 3);
    while books(&played).sockets_open != 1 || state(&played).await["channels_open"] != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    played.sim.change(&presence_path(2), None).unwrap();
    let (_, name, event) = listener.next().await;
    assert_eq!((name.as_str(), &event["topic"]), ("", &json!(presence(2))));
    let told = state(&played).await;
    assert_eq!((&told["gaps"], &told["losses"]), (&json!(0), &json!(0)), "{told}");
}

#[tokio::test]
async fn a_socket_that_falls_silent_is_given_up() {
    let played = play_with("genesys", &format!("limit = 0\n{LIVELY}"), |config| {
        always(config, std::iter::once(presence(1)));
    })
    .await;
    until(&played, "topics_covered", |covered| covered == 1).await;
    fault(&played.sim, PushFaults { silent: true, ..PushFaults::default() });
    until(&played, "losses", |losses| losses >= 1).await;
    fault(&played.sim, PushFaults::default());
    until(&played, "topics_covered", |covered| covered == 1).await;
    let mut listener = Listener::to(&played, "topic=*", "").await;
    played.sim.change(&presence_path(1), None).unwrap();
    loop {
        let (_, name, event) = listener.next().await;
        if name.is_empty() {
            assert_eq!(event["topic"], presence(1));
            break;
        }
    }
}

#[tokio::test]
async fn events_that_come_twice_are_told_once_and_late_ones_are_marked() {
    let played = play_with("genesys", &format!("limit = 0\n{LIVELY}"), |config| {
        always(config, std::iter::once(presence(1)));
    })
    .await;
    until(&played, "topics_covered", |covered| covered == 1).await;
    let mut listener = Listener::to(&played, &format!("topic={}", presence(1)), "").await;
    let script = ["duplicate", "drop", "reorder", "none"];
    let script: Vec<MessageFault> = script.map(|fate| serde_json::from_value(json!(fate)).unwrap()).to_vec();
    fault(&played.sim, PushFaults { script, ..PushFaults::default() });
    for _ in 0..4 {
        played.sim.change(&presence_path(1), None).unwrap();
    }
    let mut heard = Vec::new();
    for _ in 0..3 {
        let (_, _, event) = listener.next().await;
        heard.push((event["body"]["version"].as_u64().unwrap(), event["late"].as_bool().unwrap()));
    }
    assert_eq!(heard, [(2, false), (5, false), (4, true)], "3 was lost");
    assert_eq!(state(&played).await["duplicates"], 1);
}

#[tokio::test]
async fn more_topics_than_a_channel_takes_go_on_several_that_are_opened_one_after_the_other() {
    let topics = (1..=1200).map(presence);
    let played = play_with("genesys", "limit = 0\nusers = 1300", |config| always(config, topics)).await;
    let told = until(&played, "topics_covered", |covered| covered == 1200).await;
    assert_eq!((&told["channels_open"], &told["channels_made"]), (&json!(2), &json!(2)), "{told}");
    let books = books(&played);
    assert_eq!((books.channels_created, books.subscriptions, books.subscriptions_max), (2, 1200, 1000));
    let mut listener = Listener::to(&played, &format!("topic={}", presence(1199)), "").await;
    played.sim.change(&presence_path(1199), None).unwrap();
    assert_eq!(listener.next().await.2["topic"], presence(1199));
}

#[tokio::test]
async fn a_topic_that_is_rejected_is_told_and_the_others_are_covered() {
    let topics = [presence(1), "v2.users.nobody.shoeSize".to_owned(), presence(2)];
    let topics = topics.into_iter();
    let played = play_with("genesys", &format!("limit = 0\n{LIVELY}"), |config| always(config, topics)).await;
    let told = until(&played, "topics_covered", |covered| covered == 2).await;
    let why = told["topics_rejected"]["v2.users.nobody.shoeSize"].as_str();
    assert!(why.is_some_and(|why| why.contains("shoeSize")), "{told}");
}

#[tokio::test]
async fn an_event_carries_the_conversation_it_is_about() {
    let topic = format!("v2.users.{}.conversations", user(1));
    let played = play_with("genesys", &format!("limit = 0\n{LIVELY}"), |config| {
        always(config, std::iter::once(topic));
        let path = PathGlob::parse("/api/v2/conversations/*").unwrap();
        config.fresh.push(FreshRule { path, max_age: Duration::from_mins(1) });
    })
    .await;
    until(&played, "topics_covered", |covered| covered == 1).await;
    let path = conversation(1);
    let first = played.caller.get(&path).await.json()["version"].as_u64().unwrap();
    assert_eq!(played.caller.get(&path).await.header("cache-status"), "tidegate; hit");
    played.sim.change(&path, None).unwrap();
    until_version(&played, &path, first + 1).await;
}

#[tokio::test]
async fn who_comes_back_is_given_what_it_missed() {
    let played = play_with("genesys", &format!("limit = 0\n{LIVELY}"), |config| {
        always(config, std::iter::once(presence(1)));
    })
    .await;
    until(&played, "topics_covered", |covered| covered == 1).await;
    let mut first = Listener::to(&played, "topic=v2.*", "").await;
    played.sim.change(&presence_path(1), None).unwrap();
    let (id, ..) = first.next().await;
    drop(first);
    for _ in 0..3 {
        played.sim.change(&presence_path(1), None).unwrap();
    }
    until(&played, "events", |events| events == 4).await;
    let mut again = Listener::to(&played, "topic=v2.*", &format!("Last-Event-ID: {id}\r\n")).await;
    for version in 3..=5 {
        assert_eq!(again.next().await.2["body"]["version"], version);
    }
    let mut stranger = Listener::to(&played, "topic=v2.*", "Last-Event-ID: of-yesterday\r\n").await;
    assert_eq!(stranger.next().await.1, "gap");
}

#[tokio::test]
async fn a_listener_that_never_reads_is_cut_off() {
    let played = play_with("genesys", &format!("limit = 0\n{LIVELY}"), |config| {
        always(config, std::iter::once(presence(1)));
    })
    .await;
    until(&played, "topics_covered", |covered| covered == 1).await;
    let mut deaf = Listener::to(&played, "topic=*", "").await;
    assert_eq!(state(&played).await["subscribers"], 1);
    // More than the kernel's buffers and the listener's line take.
    let padding = "x".repeat(20_000);
    for number in 0..20_000 {
        played.sim.emit(&presence(1), &json!({ "number": number, "padding": padding }));
        if number % 50 == 0 && state(&played).await["subscribers_cut"] == 1 {
            break;
        }
    }
    let told = until(&played, "subscribers_cut", |cut| cut == 1).await;
    assert_eq!(told["subscribers"], 0);
    deaf.0.rest().await;
}

#[tokio::test]
async fn the_stream_of_a_listener_ends_when_the_gateway_stops() {
    let played = play_with("genesys", "limit = 0", follow).await;
    let mut listener = Listener::to(&played, "topic=*", "").await;
    let began = tokio::time::Instant::now();
    played.gateway.drain().await;
    listener.0.rest().await;
    assert!(began.elapsed() < Duration::from_secs(10), "it does not wait for its grace");
}

#[tokio::test]
async fn what_somebody_listens_to_is_subscribed_as_long_as_it_does() {
    let played = play_with("genesys", &format!("limit = 0\n{LIVELY}"), follow).await;
    let mut listener = Listener::to(&played, &format!("topic={}", presence(1)), "").await;
    until(&played, "topics_covered", |covered| covered == 1).await;
    played.sim.change(&presence_path(1), None).unwrap();
    assert_eq!(listener.next().await.2["topic"], presence(1));
    drop(listener);
    until(&played, "topics_wanted", |wanted| wanted == 0).await;
}

#[tokio::test]
async fn a_request_for_events_that_cannot_be_meant_is_refused() {
    let played = play_with("genesys", "limit = 0", follow).await;
    for (method, target, status) in [
        (Method::GET, "/tidegate/events", 400),
        (Method::GET, "/tidegate/events?topic=v2.*.presence", 400),
        (Method::GET, "/tidegate/events?topics=a", 400),
        (Method::POST, "/tidegate/events?topic=a", 405),
    ] {
        let answer = played.caller.call(method, target, &[], "").await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
}
