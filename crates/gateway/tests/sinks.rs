//! Events on their way to a sink: signed, tried again as the same message, kept over a restart, let go beyond a bound.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::outbox::Bounds;
use tidegate_core::push::TopicPattern;
use tidegate_core::time::Wall;
use tidegate_gateway::{
    Gateway, GatewayConfig, OutboxConfig, PushEvent, SinkConfig, SinkSecret, sink_url, start,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const KEY: [u8; 24] = *b"0123456789abcdef01234567";

/// Longer than any test has to wait for a message; reaching it is a hang.
const PATIENCE: Duration = Duration::from_mins(1);

/// A message as the sink got it.
#[derive(Debug)]
struct Message {
    head: String,
    body: String,
}

impl Message {
    fn field(&self, name: &str) -> &str {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// The signature, made from what was received.
    fn signed(&self) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&KEY).unwrap();
        let (id, at) = (self.field("webhook-id"), self.field("webhook-timestamp"));
        mac.update(format!("{id}.{at}.{}", self.body).as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// A sink that answers with these, one after the other, and then 204.
async fn sink(answers: Vec<&'static str>) -> (String, mpsc::UnboundedReceiver<Message>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (heard, messages) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                text.extend_from_slice(&buffer[..read]);
                let all = String::from_utf8_lossy(&text).into_owned();
                let Some((fields, body)) = all.split_once("\r\n\r\n") else {
                    if read == 0 {
                        break;
                    }
                    continue;
                };
                let message = Message { head: fields.to_owned(), body: body.to_owned() };
                let length = message.field("content-length").parse().unwrap_or(0);
                if body.len() >= length {
                    drop(heard.send(message));
                    break;
                }
                if read == 0 {
                    break;
                }
            }
            let status = answers.next().unwrap_or("204 No Content\r\n");
            let answer = format!("HTTP/1.1 {status}Connection: close\r\nContent-Length: 0\r\n\r\n");
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    (url, messages)
}

async fn gateway(folder: &std::path::Path, url: &str, max_entries: usize) -> Gateway {
    let secret = SinkSecret::read(&format!("whsec_{}", STANDARD.encode(KEY))).unwrap();
    let sink = SinkConfig {
        name: "desk".to_owned(),
        url: sink_url(url).unwrap(),
        topics: ["v2.users.*", "v2.scripts.7.published"]
            .map(|topic| TopicPattern::parse(topic).unwrap())
            .to_vec(),
        tenant: None,
        secret,
        max_entries,
    };
    let outbox =
        OutboxConfig { path: folder.join("outbox.db"), bounds: Bounds::default(), sinks: vec![sink] };
    let profile = Arc::new(Profile::builtin("generic").unwrap());
    let upstream = UpstreamConfig::new(profile, "http://127.0.0.1:9", "http://127.0.0.1:9");
    let config = GatewayConfig { outbox: Some(outbox), ..GatewayConfig::new(upstream) };
    let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    start(config, Vec::new(), data, admin).unwrap()
}

fn tell(gateway: &Gateway, topic: &str, id: u32) {
    let event = PushEvent {
        tenant: "default".into(),
        topic: topic.into(),
        id: format!("run-{id}").into(),
        at: Wall::from_unix_millis(1_700_000_000_000),
        body: Bytes::from(format!("{{\"id\":{id}}}")),
    };
    gateway.event_sink().unwrap().offer(&Arc::new(event));
}

async fn next(messages: &mut mpsc::UnboundedReceiver<Message>) -> Message {
    tokio::time::timeout(PATIENCE, messages.recv()).await.expect("no message came").unwrap()
}

#[tokio::test]
async fn a_message_is_signed_and_only_wanted_topics_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let (url, mut messages) = sink(Vec::new()).await;
    let gateway = gateway(folder.path(), &url, 10).await;
    tell(&gateway, "v2.queues.1", 1);
    tell(&gateway, "v2.scripts.71.published", 2);
    tell(&gateway, "v2.users.7.presence", 3);
    let message = next(&mut messages).await;
    assert_eq!(message.field("webhook-signature"), message.signed());
    let body: Value = serde_json::from_str(&message.body).unwrap();
    assert_eq!(body["type"], "v2.users.7.presence");
    assert_eq!(body["timestamp"], "2023-11-14T22:13:20Z");
    assert_eq!((&body["tenant"], &body["data"]["id"]), (&"default".into(), &3.into()));
    tell(&gateway, "v2.scripts.7.published", 4);
    assert!(next(&mut messages).await.body.contains("v2.scripts.7.published"));
    gateway.drain().await;
}

#[tokio::test]
async fn a_message_that_failed_comes_again_under_its_id_also_from_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let redirect = "302 Found\r\nLocation: http://127.0.0.1:9/\r\n";
    let (url, mut messages) = sink(vec!["500 Internal Server Error\r\n", redirect]).await;
    let first = gateway(folder.path(), &url, 10).await;
    tell(&first, "v2.users.7", 1);
    let message = next(&mut messages).await;
    first.drain().await;
    let second = gateway(folder.path(), &url, 10).await;
    // About five seconds later, as the waits say. A redirect is a failure too.
    let again = next(&mut messages).await;
    assert_eq!((again.field("webhook-id"), &again.body), (message.field("webhook-id"), &message.body));
    assert_eq!(again.field("webhook-signature"), again.signed());
    second.drain().await;
}
