//! Webhooks as a receiver sees them.

use std::time::Duration;

use crate::bench::{Bench, presence};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tidegate_sim::Faults;
use tidegate_sim::model::push::faults::{HookFaults, MessageFault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const SCRIPT: &str = "/api/v2/scripts/20000000-0000-4000-8000-000000000001";

/// Takes webhooks on a free port.
struct Receiver(TcpListener);

/// One delivery: its head as text, in lower case, and its body.
type Delivery = (String, String);

impl Receiver {
    async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn configured(&self, more: &str) -> String {
        format!(
            "[[webhooks]]\nurl = \"http://{}/hook\"\nsecret = \"s3cret\"\n{more}",
            self.0.local_addr().unwrap()
        )
    }

    /// The next delivery, answered with `status` over a connection that then closes.
    async fn next(&self, status: u16) -> Delivery {
        let take = async {
            let (mut stream, _) = self.0.accept().await.unwrap();
            let mut text = Vec::new();
            loop {
                let read = stream.read_buf(&mut text).await.unwrap();
                assert!(read > 0, "a whole request comes");
                let so_far = String::from_utf8_lossy(&text).into_owned();
                let Some((head, body)) = so_far.split_once("\r\n\r\n") else { continue };
                let head = head.to_lowercase();
                let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
                if body.len() == length.parse::<usize>().unwrap() {
                    let answer =
                        format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    return (head, body.to_owned());
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), take).await.expect("a delivery comes in ten seconds")
    }
}

fn header<'a>(delivery: &'a Delivery, name: &str) -> &'a str {
    delivery.0.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap()
}

/// Whether `signature` is `sha256=` and the HMAC of `text` in hex.
fn signed(text: &str, signature: &str) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
    mac.update(text.as_bytes());
    let hex: Vec<String> = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    signature == format!("sha256={}", hex.concat())
}

fn hooks(script: &[MessageFault]) -> Faults {
    Faults { hooks: HookFaults { script: script.to_vec(), ..HookFaults::default() }, ..Faults::default() }
}

#[tokio::test]
async fn a_timestamped_delivery_is_signed_over_timestamp_and_body() {
    let receiver = Receiver::new().await;
    let bench = Bench::new(&receiver.configured("topics = [\"v2.users.*\"]")).await;
    bench.sim.change(SCRIPT, None).unwrap();
    let body = json!({ "presenceDefinition": { "systemPresence": "Busy" } });
    bench.call("PATCH", &presence(1), &body).await;
    let delivery = receiver.next(204).await;
    assert!(delivery.0.starts_with("post /hook http/1.1\r\n"), "{}", delivery.0);
    let timestamp = header(&delivery, "x-webhook-timestamp");
    assert!(signed(&format!("{timestamp}.{}", delivery.1), header(&delivery, "x-webhook-signature")));
    let event: Value = serde_json::from_str(&delivery.1).unwrap();
    assert_eq!(event["eventBody"]["presenceDefinition"]["systemPresence"], "Busy");
    bench.until(|stats| stats.hooks.answers.get(&204) == Some(&1)).await;
    assert_eq!(bench.sim.stats().hooks.sent, 1, "scripts are not among its topics");
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn faults_forge_replay_and_repeat_deliveries() {
    let receiver = Receiver::new().await;
    let bench = Bench::new(&receiver.configured("scheme = \"github\"")).await;
    let script =
        [MessageFault::BadSignature, MessageFault::Replay, MessageFault::Duplicate, MessageFault::Drop];
    bench.sim.set_faults(hooks(&script)).unwrap();
    for _ in 0..5 {
        bench.sim.change(SCRIPT, None).unwrap();
    }
    let mut seen = Vec::new();
    for _ in 0..6 {
        let delivery = receiver.next(200).await;
        let event: Value = serde_json::from_str(&delivery.1).unwrap();
        assert_eq!(event["topicName"], header(&delivery, "x-github-event"));
        let good = signed(&delivery.1, header(&delivery, "x-hub-signature-256"));
        seen.push((
            event["eventBody"]["version"].as_u64().unwrap(),
            good,
            header(&delivery, "x-github-delivery").to_owned(),
        ));
    }
    let told: Vec<(u64, bool)> = seen.iter().map(|(version, good, _)| (*version, *good)).collect();
    assert_eq!(told, [(2, false), (3, true), (3, true), (4, true), (4, true), (6, true)]);
    assert_eq!(seen[1].2, seen[2].2, "a replay has the same id");
    assert_ne!(seen[3].2, seen[4].2, "a duplicate has another");
    bench.until(|stats| stats.hooks.answers.get(&200) == Some(&6)).await;
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_counted_and_nothing_is_tried_again() {
    let receiver = Receiver::new().await;
    let toml = receiver.configured("");
    drop(receiver);
    let bench = Bench::new(&toml).await;
    bench.sim.change(SCRIPT, None).unwrap();
    bench.sim.change(SCRIPT, None).unwrap();
    bench.until(|stats| stats.hooks.unanswered == 2).await;
    assert_eq!(bench.sim.stats().hooks.sent, 2);
    bench.sim.shutdown().await;
}
