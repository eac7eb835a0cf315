//! Channels and their web sockets.

use std::time::Duration;

use crate::bench::{Bench, Line, conversation, presence, script};
use serde_json::{Value, json};
use tidegate_sim::Faults;
use tidegate_sim::model::push::faults::{MessageFault, PushFaults, SocketFault};

fn push(faults: PushFaults) -> Faults {
    Faults { push: faults, ..Faults::default() }
}

#[tokio::test]
async fn a_subscriber_hears_of_a_clients_write_with_what_a_read_shows() {
    let bench = Bench::new("").await;
    let (channel, mut line) = bench.listen(&["v2.users.00000000-0000-4000-8000-000000000001.presence"]).await;
    let body = json!({ "presenceDefinition": { "systemPresence": "Meal" } });
    assert_eq!(bench.call("PATCH", &presence(1), &body).await.0, 200);
    let event = line.event().await;
    let (_, read) = bench.call("GET", &presence(1), &Value::Null).await;
    assert_eq!(event["topicName"], "v2.users.00000000-0000-4000-8000-000000000001.presence");
    assert_eq!((&event["version"], &event["eventBody"]), (&json!("2"), &read));
    assert_eq!(read["presenceDefinition"]["systemPresence"], "Meal");
    assert_eq!(event["metadata"]["CorrelationId"].as_str().unwrap().len(), 36);
    // Another user's presence is not this one's.
    bench.call("PATCH", &presence(2), &body).await;
    bench.call("PATCH", &presence(1), &body).await;
    assert_eq!(line.event().await["eventBody"]["version"], 3);
    let books = bench.sim.stats().push;
    let book = books.topics["v2.users.{id}.presence"];
    assert_eq!((book.emitted, book.sent, book.dropped, book.unheard), (3, 2, 0, 0));
    assert_eq!((books.channels_created, books.sockets_open, books.subscriptions), (1, 1, 1));
    drop(channel);
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn a_ping_is_answered_and_heartbeats_come_unasked() {
    let bench = Bench::new("[notifications]\nheartbeat = \"40ms\"").await;
    let (_, mut line) = bench.listen(&[]).await;
    line.say(r#"{"message":"ping"}"#).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let message = line.message().await.unwrap();
        assert_eq!(message["topicName"], "channel.metadata");
        seen.push(message["eventBody"]["message"].as_str().unwrap().to_owned());
    }
    assert!(
        seen.contains(&"pong".to_owned()) && seen.contains(&"WebSocket Heartbeat".to_owned()),
        "{seen:?}"
    );
    bench.sim.set_faults(push(PushFaults { silent: true, ..PushFaults::default() })).unwrap();
    line.say(r#"{"message":"ping"}"#).await;
    let silence = tokio::time::timeout(Duration::from_millis(200), async {
        // What was written before the silence may still be on its way.
        while line.message().await.is_some() {}
    });
    assert!(silence.await.is_err(), "the socket stays open and says nothing");
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn a_second_socket_replaces_the_first() {
    let bench = Bench::new("").await;
    let (channel, mut first) = bench.listen(&[&script(1)]).await;
    let mut second = Line::open(&channel).await.unwrap();
    assert_eq!(first.message().await, None, "closed");
    bench.sim.change("/api/v2/scripts/20000000-0000-4000-8000-000000000001", None).unwrap();
    assert_eq!(second.event().await["eventBody"]["version"], 2);
    let books = bench.sim.stats().push;
    assert_eq!((books.sockets_opened, books.sockets_replaced, books.sockets_open), (2, 1, 1));
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn what_happens_without_a_socket_is_lost() {
    let bench = Bench::new("").await;
    let (channel, mut line) = bench.listen(&[&script(1)]).await;
    assert_eq!(bench.sim.act(SocketFault::Kill, None), 1);
    assert_eq!(line.message().await, None);
    bench.until(|stats| stats.push.sockets_open == 0).await;
    let path = "/api/v2/scripts/20000000-0000-4000-8000-000000000001";
    bench.sim.change(path, None).unwrap();
    let mut line = Line::open(&channel).await.unwrap();
    bench.sim.change(path, None).unwrap();
    assert_eq!(line.event().await["eventBody"]["version"], 3, "version 2 was never told");
    let books = bench.sim.stats().push;
    assert_eq!((books.topics["v2.scripts.{id}.published"].unheard, books.sockets_killed), (1, 1));
    assert_eq!(bench.sim.changes(Some(path)).len(), 2);
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn one_socket_can_be_cut_and_the_other_stays() {
    let bench = Bench::new("").await;
    let (_, mut stays) = bench.listen(&[&script(1)]).await;
    let (channel, mut goes) = bench.listen(&[&script(1)]).await;
    let id = channel.rsplit('/').next().unwrap();
    let body = json!({ "do": "kill", "channel": id });
    assert_eq!(bench.call("POST", "/sim/sockets", &body).await, (200, json!({ "sockets": 1 })));
    assert_eq!(goes.message().await, None);
    bench.sim.change("/api/v2/scripts/20000000-0000-4000-8000-000000000001", None).unwrap();
    assert_eq!(stays.event().await["eventBody"]["version"], 2);
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn a_closing_is_announced_before_it_happens() {
    let bench = Bench::new("[notifications]\nclosing_notice = \"50ms\"").await;
    let (_, mut line) = bench.listen(&[]).await;
    bench.sim.act(SocketFault::Closing, None);
    assert_eq!(line.message().await.unwrap()["topicName"], "v2.system.socket_closing");
    assert_eq!(line.message().await, None);
    assert_eq!(bench.sim.stats().push.sockets_closing, 1);
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn scripted_faults_meet_the_next_messages() {
    let bench = Bench::new("").await;
    let (_, mut line) = bench.listen(&[&script(1)]).await;
    let fates = ["drop", "drop", "duplicate", "reorder", "none"];
    let script: Vec<MessageFault> = fates.map(|fate| serde_json::from_value(json!(fate)).unwrap()).to_vec();
    bench.sim.set_faults(push(PushFaults { script, ..PushFaults::default() })).unwrap();
    for _ in 0..5 {
        bench.sim.change("/api/v2/scripts/20000000-0000-4000-8000-000000000001", None).unwrap();
    }
    let mut versions = Vec::new();
    for _ in 0..4 {
        versions.push(line.event().await["eventBody"]["version"].as_u64().unwrap());
    }
    assert_eq!(versions, [4, 4, 6, 5], "2 and 3 dropped, 4 twice, 5 after 6");
    let books = bench.sim.stats().push;
    let book = books.topics["v2.scripts.{id}.published"];
    assert_eq!((book.emitted, book.sent, book.dropped), (5, 4, 2));
    assert_eq!((books.faults["drop"], books.faults["duplicate"], books.faults["reorder"]), (2, 1, 1));
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn an_upgrade_can_be_refused_and_needs_a_channel_that_exists() {
    let bench = Bench::new("").await;
    let channel = bench.channel().await;
    assert_eq!(Line::open(&format!("{channel}x")).await.err(), Some(404));
    bench.sim.set_faults(push(PushFaults { refuse_upgrade: true, ..PushFaults::default() })).unwrap();
    assert_eq!(Line::open(&channel).await.err(), Some(503));
    bench.sim.set_faults(Faults::default()).unwrap();
    assert!(Line::open(&channel).await.is_ok());
    assert_eq!(bench.sim.stats().push.upgrades_refused, 2);
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn a_scenario_cuts_sockets_at_its_time_and_a_restart_cuts_all() {
    let toml = "[[events]]\nat = \"150ms\"\nfaults = { push = { sockets = \"kill\" } }";
    let bench = Bench::new(toml).await;
    let (channel, mut line) = bench.listen(&[]).await;
    assert_eq!(line.message().await, None, "nobody calls, and yet it is cut in time");
    assert!(bench.sim.now() >= Duration::from_millis(150));
    let mut line = Line::open(&channel).await.unwrap();
    bench.sim.reset("{\"events\": []}").unwrap();
    assert_eq!(line.message().await, None);
    assert_eq!(Line::open(&channel).await.err(), Some(404));
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn conversations_move_by_themselves_and_are_told_as_they_are_read() {
    let bench = Bench::new("[live]\nconversations = 3\ndwell = \"30ms..60ms\"").await;
    let topic =
        format!("v2.detail.events.conversation.{}?customer.start&user.start&user.end", conversation(2));
    let (_, mut line) = bench.listen(&[&topic]).await;
    let mut versions = Vec::new();
    for _ in 0..4 {
        let event = line.event().await;
        versions.push((event["eventBody"]["version"].as_u64().unwrap(), event["eventBody"]["state"].clone()));
    }
    let path = format!("/api/v2/conversations/{}", conversation(2));
    let log = bench.sim.changes(Some(&path));
    let told: Vec<(u64, Value)> =
        log.iter().map(|change| (change.version, change.body["state"].clone())).collect();
    assert!(told.windows(4).any(|window| window == versions), "{versions:?} in {told:?}");
    let (_, read) = bench.call("GET", &path, &Value::Null).await;
    assert!(read["version"].as_u64().unwrap() >= versions[3].0);
    assert!(bench.sim.outdated(&path, versions[0].0, None) > Duration::ZERO);
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn an_event_can_be_told_without_a_change() {
    let bench = Bench::new("").await;
    let (_, mut line) = bench.listen(&[&script(1)]).await;
    let order = json!({ "topic": script(1), "body": { "anything": 7 } });
    assert_eq!(bench.call("POST", "/sim/emit", &order).await.0, 200);
    assert_eq!(line.event().await["eventBody"], json!({ "anything": 7 }));
    assert_eq!(bench.sim.changes(None), []);
    let path = presence(1);
    let (status, now) = bench.call("POST", "/sim/emit", &json!({ "path": path, "to": "Busy" })).await;
    assert_eq!((status, &now["version"]), (200, &json!(2)));
    let (_, age) = bench.call("GET", &format!("/sim/age?path={path}&version=1"), &Value::Null).await;
    assert!(age["outdated"].as_f64().unwrap() > 0.0);
    let (_, age) = bench.call("GET", &format!("/sim/age?path={path}&version=2"), &Value::Null).await;
    assert_eq!(age["outdated"], 0.0);
    for wrong in
        [json!({}), json!({ "path": path, "to": "Asleep" }), json!({ "path": "/x" }), json!({ "pth": 1 })]
    {
        assert_eq!(bench.call("POST", "/sim/emit", &wrong).await.0, 400, "{wrong}");
    }
    bench.sim.shutdown().await;
}
