//! Webhooks that come in, on real sockets: signed by the simulator, and by hand where it would not.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Method;
use secrecy::SecretString;
use serde_json::json;
use sha2::Sha256;
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::cache::FreshRule;
use tidegate_core::glob::PathGlob;
use tidegate_core::key::Tenant;
use tidegate_gateway::{
    Encoding, GatewayConfig, HookConfig, HookTemplate, KeepKeys, KeepState, Scheme, Signed, TenantConfig,
    start,
};
use tidegate_sim::{Sim, SimConfig};
use tokio::net::TcpListener;

use crate::stage::{Answer, Caller, FIRST, Played, play_with};

const SECRET: &str = "a secret of both";

fn hook(scheme: Scheme, topic: &str, closes: &[&str]) -> HookConfig {
    HookConfig {
        name: "other".to_owned(),
        tenant: None,
        secret: SecretString::from(SECRET),
        scheme,
        tolerance: HookConfig::TOLERANCE,
        max_body: 10_000,
        topic: HookTemplate::parse(topic).unwrap(),
        closes: closes.iter().map(|path| HookTemplate::parse(path).unwrap()).collect(),
    }
}

/// `X-Signature: HEX` over `X-Time` and the body.
fn dated() -> Scheme {
    Scheme {
        header: "x-signature".parse().unwrap(),
        prefix: String::new(),
        encoding: Encoding::Hex,
        signed: Signed::Dated("x-time".parse().unwrap()),
        whsec: false,
    }
}

async fn play_hook(hook: HookConfig) -> Played {
    play_with("genesys", "limit = 0", |config: &mut GatewayConfig| {
        config.hooks.push(hook);
        let path = PathGlob::parse("/api/v2/scripts/*").unwrap();
        config.fresh.push(FreshRule { path, max_age: Duration::from_mins(1) });
    })
    .await
}

fn hmac(text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

async fn deliver(played: &Played, fields: &[(&str, &str)], body: &str) -> Answer {
    played.caller.call(Method::POST, "/tidegate/hooks/other", fields, body.to_owned()).await
}

/// What `/metrics` counts of the hook.
async fn counted(played: &Played, outcome: &str) -> bool {
    let text = Caller::new(played.gateway.admin_addr()).get("/metrics").await.body;
    let line = format!("tidegate_hooks_total{{hook=\"other\",outcome=\"{outcome}\",tenant=\"default\"}}");
    String::from_utf8_lossy(&text).contains(&line)
}

#[tokio::test]
async fn a_delivery_is_taken_once_and_closes_what_is_kept() {
    let played = play_hook(hook(dated(), "scripts.{/kind}", &["/api/v2/scripts/{/id}"])).await;
    let path = "/api/v2/scripts/20000000-0000-4000-8000-000000000001";
    let before = played.caller.get(path).await.json();
    played.sim.change(path, None).unwrap();
    assert_eq!(played.caller.get(path).await.json()["version"], before["version"], "nobody told the gateway");
    let body = json!({ "kind": "published", "id": before["id"] }).to_string();
    let at = now().to_string();
    let signature = hex(&hmac(&format!("{at}.{body}")));
    let sent = [("X-Time", at.as_str()), ("X-Signature", &signature)];
    assert_eq!(deliver(&played, &sent, &body).await.status, 204);
    let after = played.caller.get(path).await.json();
    assert_eq!(after["version"].as_u64(), before["version"].as_u64().map(|version| version + 1));
    let again = deliver(&played, &sent, &body).await;
    assert!(again.is_ours(409, ("tidegate-refused", "replayed")), "{again:?}");
    let told = Caller::new(played.gateway.admin_addr()).get("/api/state").await.json();
    assert_eq!(told["tenants"][0]["cache"]["closed"], 1, "{told}");
    assert!(counted(&played, "taken").await && counted(&played, "replayed").await);
}

#[tokio::test]
async fn a_delivery_of_somebody_else_or_of_another_time_is_refused() {
    let played = play_hook(hook(dated(), "users.{/kind}", &[])).await;
    let body = json!({ "kind": "changed" }).to_string();
    let signed = |at: u64, text: &str| (at.to_string(), hex(&hmac(&format!("{at}.{text}"))));
    let (old, old_signature) = signed(now() - 600, &body);
    let (at, other_signature) = signed(now(), "another body");
    let (_, right) = signed(at.parse().unwrap(), &body);
    for (time, signature, body, status, mark) in [
        (&at, other_signature.as_str(), body.as_str(), 401, "bad-signature"),
        (&at, "", &body, 401, "bad-signature"),
        (&old, &old_signature, &body, 401, "stale"),
        (&old, &right, &body, 401, "bad-signature"),
        (&at, &right, &"x".repeat(10_001), 413, "body"),
        (&at, &hex(&hmac(&format!("{at}.no json"))), "no json", 400, "no-json"),
        (&at, &hex(&hmac(&format!("{at}.{{}}"))), "{}", 422, "no-topic"),
    ] {
        let sent = [("X-Time", time.as_str()), ("X-Signature", signature)];
        let answer = deliver(&played, &sent, body).await;
        assert!(answer.is_ours(status, ("tidegate-refused", mark)), "{mark}: {answer:?}");
    }
    assert_eq!(deliver(&played, &[], &body).await.status, 401);
    let unknown = played.caller.call(Method::POST, "/tidegate/hooks/none", &[], "{}").await;
    assert!(unknown.is_ours(404, ("tidegate-refused", "unknown-hook")), "{unknown:?}");
    assert_eq!(played.caller.get("/tidegate/hooks/other").await.status, 405);
    let sent = [("X-Time", at.as_str()), ("X-Signature", right.as_str())];
    assert_eq!(deliver(&played, &sent, &body).await.status, 204, "what was refused is not in its way");
    assert!(counted(&played, "bad-signature").await && counted(&played, "stale").await);
}

#[tokio::test]
async fn the_scheme_of_open_messaging_is_base64_over_the_body() {
    let played = play_hook(hook(Scheme::named("genesys").unwrap(), "messages", &[])).await;
    let body = json!({ "text": "hello" }).to_string();
    let signature = format!("sha256={}", STANDARD.encode(hmac(&body)));
    let answer = deliver(&played, &[("X-Hub-Signature-256", &signature)], &body).await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

#[tokio::test]
async fn nobody_hears_the_events_of_another_tenant() {
    let tenants = ["a", "b"].map(|name| {
        let profile = std::sync::Arc::new(Profile::builtin("genesys").unwrap());
        let mut upstream = UpstreamConfig::new(profile, "http://127.0.0.1:9", "http://127.0.0.1:9");
        upstream.tenant = Tenant::new(name);
        upstream.fetch_limits = false;
        TenantConfig { upstream, state: KeepState::Nowhere, keys: KeepKeys::InMemory }
    });
    let hooks = ["a", "b"].map(|name| HookConfig {
        name: name.to_owned(),
        tenant: Some(name.to_owned()),
        ..hook(Scheme::named("github").unwrap(), "said", &[])
    });
    let config =
        GatewayConfig { tenants_by_path: true, hooks: hooks.into(), ..GatewayConfig::of(tenants.into()) };
    let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = start(config, Vec::new(), data, admin).unwrap();
    let caller = Caller::new(gateway.data_addr());
    let mut listening = Vec::new();
    for name in ["a", "b"] {
        let mut wire = caller.connect().await;
        wire.write(&format!("GET /t/{name}/tidegate/events?topic=* HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await;
        wire.until(": listening\n").await.unwrap();
        listening.push(wire);
    }
    for (name, says) in [("a", "first"), ("b", "second")] {
        let body = json!({ "says": says }).to_string();
        let signature = format!("sha256={}", hex(&hmac(&body)));
        let sent = [("X-Hub-Signature-256", signature.as_str())];
        let answer = caller.call(Method::POST, &format!("/tidegate/hooks/{name}"), &sent, body).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    for (wire, says) in listening.iter_mut().zip(["first", "second"]) {
        let first = wire.until("\"body\":").await.unwrap();
        assert!(first.contains("\"topic\":\"said\""), "{first}");
        let body = wire.until("\n").await.unwrap();
        assert_eq!(
            body.trim_end_matches(['}', '\n']),
            format!("{{\"says\":\"{says}\""),
            "its own is the first"
        );
    }
}

/// The simulator signs as GitHub does, and delivers what goes wrong on the way too.
#[tokio::test]
async fn deliveries_of_the_simulator_are_taken_and_its_faults_are_refused() {
    let played = play_hook(hook(Scheme::named("github").unwrap(), "{X-GitHub-Event}", &[])).await;
    let url = format!("http://{}/tidegate/hooks/other", played.gateway.data_addr());
    let config = format!(
        "limit = 0\n[[webhooks]]\nurl = \"{url}\"\nsecret = \"{SECRET}\"\nscheme = \"github\"\ntopics = [\"v2.users.*\"]"
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sender: Sim = tidegate_sim::serve(listener, SimConfig::from_toml(&config).unwrap()).await.unwrap();
    let script = r#"{"hooks": {"script": ["none", "bad-signature", "replay"]}}"#;
    Caller::new(sender.local_addr()).post("/sim/faults", script).await;
    let path = format!("{FIRST}/presences/purecloud");
    for _ in 0..3 {
        sender.change(&path, None).unwrap();
    }
    let answers = loop {
        let answers = sender.stats().hooks.answers;
        if answers.values().sum::<u64>() >= 4 {
            break answers;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let told: Vec<(String, u64)> =
        answers.into_iter().map(|(status, count)| (status.to_string(), count)).collect();
    let expected = [("204", 2), ("401", 1), ("409", 1)].map(|(status, count)| (status.to_owned(), count));
    assert_eq!(told, expected);
}
