//! Channels in virtual time: limits, lives and who may hear what.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_sim::SimConfig;
use tidegate_sim::model::push::NoSocket;
use tidegate_sim::model::push::sockets::End;
use tidegate_sim::model::world::{Reply, TOKEN_PATH, World};
use tidegate_sim::wire::message::ApiRequest;

const CHANNELS: &str = "/api/v2/notifications/channels";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn topic(user: usize) -> String {
    format!("v2.users.{user}.presence")
}

/// A world and a client's token.
struct Bench {
    world: World,
    token: String,
}

impl Bench {
    fn new(toml: &str) -> Self {
        let config = SimConfig::from_toml(&format!("limit = 0\n{toml}")).unwrap();
        let mut world = World::new(config, s(1_700_000_000));
        world.set_origin("ws://127.0.0.1:8790");
        let mut bench = Self { world, token: String::new() };
        bench.login("demo-client");
        bench
    }

    fn login(&mut self, client: &str) {
        let mut request = ApiRequest::new(http::Method::POST, TOKEN_PATH);
        let form = format!("grant_type=client_credentials&client_id={client}&client_secret=demo-secret");
        request.body = form.into_bytes();
        let (_, body) = self.answer(0, &request);
        body["access_token"].as_str().unwrap().clone_into(&mut self.token);
    }

    fn answer(&mut self, at: u64, request: &ApiRequest) -> (u16, Value) {
        let id = self.world.arrive(request).id;
        let Reply::Answer(response) = self.world.decide(s(at), id, request).reply else { panic!("closed") };
        self.world.depart(id);
        (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
    }

    fn call(&mut self, at: u64, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let mut request = ApiRequest::new(method.parse().unwrap(), target);
        request.headers.insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        request.body = body.to_string().into_bytes();
        self.answer(at, &request)
    }

    /// Creates a channel; its id.
    fn channel(&mut self, at: u64) -> String {
        let (status, body) = self.call(at, "POST", CHANNELS, &json!({}));
        assert_eq!(status, 200, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    fn subscribe(&mut self, at: u64, method: &str, channel: &str, topics: &[String]) -> (u16, Value) {
        let topics: Vec<Value> = topics.iter().map(|topic| json!({ "id": topic })).collect();
        self.call(at, method, &format!("{CHANNELS}/{channel}/subscriptions"), &json!(topics))
    }

    fn subscribed(&mut self, at: u64, channel: &str) -> usize {
        let (_, body) = self.call(at, "GET", &format!("{CHANNELS}/{channel}/subscriptions"), &Value::Null);
        body["entities"].as_array().unwrap().len()
    }
}

#[test]
fn a_channel_says_where_to_connect_and_when_it_expires() {
    let mut bench = Bench::new("");
    let (_, body) = bench.call(0, "POST", CHANNELS, &json!({}));
    let id = body["id"].as_str().unwrap();
    assert_eq!(body["connectUri"], format!("ws://127.0.0.1:8790/channels/{id}"));
    assert_eq!(body["expires"], "2023-11-15T22:13:20.000Z", "a day after the start");
    let (_, list) = bench.call(60, "GET", CHANNELS, &Value::Null);
    assert_eq!(list["entities"], json!([body]), "the same later");
    assert_eq!(bench.call(0, "HEAD", &format!("{CHANNELS}/{id}"), &Value::Null).0, 200);
    assert_eq!(bench.call(0, "HEAD", &format!("{CHANNELS}/other"), &Value::Null).0, 404);
}

#[test]
fn post_adds_topics_put_replaces_them_and_delete_removes_them() {
    let mut bench = Bench::new("");
    let channel = bench.channel(0);
    let (status, body) = bench.subscribe(0, "POST", &channel, &[topic(1), topic(2), topic(1)]);
    assert_eq!((status, body["entities"].as_array().unwrap().len()), (200, 3));
    assert_eq!(body["entities"][0], json!({ "id": topic(1), "state": "Permitted" }));
    bench.subscribe(0, "POST", &channel, &[topic(3)]);
    assert_eq!(bench.subscribed(0, &channel), 3);
    bench.subscribe(0, "PUT", &channel, &[topic(4)]);
    assert_eq!(bench.subscribed(0, &channel), 1);
    bench.call(0, "DELETE", &format!("{CHANNELS}/{channel}/subscriptions"), &Value::Null);
    assert_eq!(bench.subscribed(0, &channel), 0);
}

#[test]
fn a_channel_takes_a_thousand_topics_and_not_one_more() {
    let mut bench = Bench::new("");
    let channel = bench.channel(0);
    let thousand: Vec<String> = (0..1000).map(topic).collect();
    assert_eq!(bench.subscribe(0, "PUT", &channel, &thousand).0, 200);
    assert_eq!(bench.subscribe(0, "POST", &channel, &[topic(7)]).0, 200, "it has that one already");
    assert_eq!(bench.subscribe(0, "POST", &channel, &[topic(1000)]).0, 400);
    assert_eq!(bench.subscribe(0, "PUT", &channel, &[thousand, vec![topic(1000)]].concat()).0, 400);
    assert_eq!(bench.subscribed(0, &channel), 1000, "a refusal changes nothing");
    assert_eq!(bench.world.stats(s(0), false).push.subscriptions_max, 1000);
}

#[test]
fn one_rejected_topic_spoils_the_call_unless_errors_are_ignored() {
    let mut bench = Bench::new("[faults.push]\nrefuse_topics = [\"v2.users.9.*\"]");
    let channel = bench.channel(0);
    let topics = [topic(1), topic(9), "v2.weather".to_owned()];
    assert_eq!(bench.subscribe(0, "PUT", &channel, &topics).0, 403);
    assert_eq!(bench.subscribed(0, &channel), 0);
    let target = format!("{CHANNELS}/{channel}/subscriptions?ignoreErrors=true");
    let (status, body) = bench.call(0, "PUT", &target, &json!(topics.map(|topic| json!({ "id": topic }))));
    let told: Vec<&str> =
        body["entities"].as_array().unwrap().iter().map(|topic| topic["state"].as_str().unwrap()).collect();
    assert_eq!((status, told), (200, vec!["Permitted", "Rejected", "Rejected"]));
    assert!(body["entities"][1]["rejectionReason"].as_str().unwrap().contains("v2.users.9.presence"));
    assert_eq!(bench.subscribed(0, &channel), 1);
}

#[test]
fn topics_need_permissions_and_channels_do_not() {
    let mut bench = Bench::new(
        "[[oauth.clients]]\nid = \"agent\"\nsecret = \"demo-secret\"\nscopes = [\"view:users\"]\n[[oauth.clients]]",
    );
    bench.login("agent");
    let channel = bench.channel(0);
    assert_eq!(bench.subscribe(0, "PUT", &channel, &[topic(1)]).0, 200);
    let (status, body) = bench.subscribe(0, "PUT", &channel, &["v2.scripts.1.published".to_owned()]);
    assert_eq!(status, 403);
    assert!(body["message"].as_str().unwrap().contains("view:scripts"));
    bench.login("demo-client");
    assert_eq!(bench.subscribe(0, "PUT", &channel, &[topic(1)]).0, 404, "others' channels are not found");
}

#[test]
fn the_twenty_first_channel_evicts_the_oldest_without_a_socket() {
    let mut bench = Bench::new("");
    let channels: Vec<String> = (0..20).map(|_| bench.channel(0)).collect();
    bench.world.connect(s(0), &channels[0]).unwrap();
    bench.channel(0);
    assert_eq!(bench.subscribe(0, "PUT", &channels[0], &[]).0, 200, "it has a socket");
    assert_eq!(bench.subscribe(0, "PUT", &channels[1], &[]).0, 404, "the oldest without one");
    let push = bench.world.stats(s(0), false).push;
    assert_eq!((push.channels_created, push.channels_evicted, push.channels_open), (21, 1, 20));
}

#[test]
fn where_every_channel_has_a_socket_no_other_is_created() {
    let mut bench = Bench::new("[notifications]\nmax_channels = 2");
    for _ in 0..2 {
        let channel = bench.channel(0);
        bench.world.connect(s(0), &channel).unwrap();
    }
    assert_eq!(bench.call(0, "POST", CHANNELS, &json!({})).0, 400);
}

#[test]
fn creating_channels_can_be_throttled() {
    let limit = "[[limits]]\nkey = \"channels\"\nmatch = \"POST /api/v2/notifications/channels\"\nquota = 2\nwindow = \"10s\"";
    let mut bench = Bench::new(limit);
    bench.channel(0);
    let channel = bench.channel(0);
    assert_eq!(bench.call(0, "POST", CHANNELS, &json!({})).0, 429);
    assert_eq!(bench.subscribe(0, "POST", &channel, &[topic(1)]).0, 200, "only creation is limited");
    bench.channel(10);
}

#[test]
fn a_channel_lives_a_day_from_when_its_topics_were_last_put_and_announces_its_end() {
    let mut bench = Bench::new("");
    let (day, hour) = (24 * 3600, 3600);
    let channel = bench.channel(0);
    let socket = bench.world.connect(s(0), &channel).unwrap();
    bench.subscribe(hour, "PUT", &channel, &[topic(1)]);
    let mut closing = |at: u64| {
        let due = bench.world.due(s(at), socket);
        (due.texts.iter().any(|text| text.contains("v2.system.socket_closing")), due.end)
    };
    assert_eq!(closing(day), (false, None), "an hour is left");
    assert_eq!(closing(day + hour - 31), (false, None));
    assert_eq!(closing(day + hour - 30), (true, None));
    assert_eq!(closing(day + hour - 1), (false, None), "told once");
    assert_eq!(closing(day + hour), (false, Some(End::Over)));
    assert_eq!(bench.world.connect(s(day + hour), &channel), Err(NoSocket::Unknown));
    assert_eq!(bench.world.stats(s(day + hour), false).push.channels_expired, 1);
}

#[test]
fn topics_put_again_after_the_announcement_keep_the_channel_alive() {
    let mut bench = Bench::new("[notifications]\nttl = \"100s\"");
    let channel = bench.channel(0);
    let socket = bench.world.connect(s(0), &channel).unwrap();
    let told = |due: tidegate_sim::model::push::sockets::Due| {
        (due.texts.iter().filter(|text| text.contains("socket_closing")).count(), due.end)
    };
    assert_eq!(told(bench.world.due(s(70), socket)), (1, None));
    bench.subscribe(80, "POST", &channel, &[]);
    assert_eq!(told(bench.world.due(s(140), socket)), (0, None));
    assert_eq!(told(bench.world.due(s(150), socket)), (1, None), "announced anew");
    assert_eq!(told(bench.world.due(s(180), socket)), (0, Some(End::Over)));
}

#[test]
fn heartbeats_have_their_interval_and_the_next_one_its_time() {
    let mut bench = Bench::new("");
    let channel = bench.channel(0);
    let socket = bench.world.connect(s(5), &channel).unwrap();
    let first = bench.world.due(s(5), socket);
    assert_eq!((first.texts.len(), first.next), (0, Some(s(35))));
    let later = bench.world.due(s(100), socket);
    assert_eq!((later.texts.len(), later.next), (3, Some(s(125))), "of 35, 65 and 95");
}

#[test]
fn an_unknown_socket_is_cut() {
    let mut bench = Bench::new("");
    assert_eq!(bench.world.due(s(0), 99).end, Some(End::Cut));
}

#[test]
fn the_course_of_conversations_is_that_of_the_seed_whoever_asks_when() {
    let course = |asked: &[u64]| {
        let mut bench =
            Bench::new("[live]\nconversations = 5\ndwell = \"1s..9s\"\npresence_dwell = \"5s..50s\"");
        for at in asked {
            bench.call(*at, "GET", "/api/v2/conversations", &Value::Null);
        }
        bench.world.changes(s(300), None)
    };
    let all = course(&[]);
    assert!(all.len() > 300, "{}", all.len());
    assert_eq!(all, course(&[1, 17, 18, 250]));
    assert!(all.is_sorted_by_key(|change| change.at));
}

#[test]
fn what_a_client_does_to_one_conversation_leaves_the_others_their_course() {
    let course = |meddle: bool| {
        let mut bench = Bench::new("[live]\nconversations = 3\ndwell = \"1s..9s\"");
        let target = "/api/v2/conversations/30000000-0000-4000-8000-000000000001";
        if meddle {
            assert_eq!(bench.call(3, "POST", &format!("{target}/disconnect"), &Value::Null).0, 200);
        }
        let mut all = bench.world.changes(s(100), None);
        all.retain(|change| change.path != target);
        all
    };
    assert_eq!(course(false), course(true));
}
