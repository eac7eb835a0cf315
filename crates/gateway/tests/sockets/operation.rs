//! What operators see: health, metrics, state, and a stop that cuts nobody off.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::stage::{Caller, FIRST, Played, play, stage_with};
use http::Method;
use tidegate::Profile;
use tidegate_gateway::Gateway;
use tidegate_sim::Faults;
use tidegate_sim::model::fault::Fault;
use tokio::time::Instant;

/// An address at which nobody listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_503_and_not_ready_but_alive() {
    let url = nobody().await;
    let stage = stage_with(&url, Profile::builtin("genesys").unwrap(), |config| {
        config.max_wait = Duration::from_secs(2);
    })
    .await;
    let answer = stage.caller.get(FIRST).await;
    assert!(answer.is_ours(503, ("tidegate-refused", "upstream-unreachable")), "{answer:?}");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&url) && message.contains("cannot connect"), "{message}");
    let login = stage.caller.login(crate::stage::LOGIN).await;
    assert!(login.is_ours(503, ("tidegate-refused", "login-unreachable")), "{login:?}");
    assert!((1..=180).contains(&answer.header("retry-after").parse::<u64>().unwrap()), "nothing was sent");
    assert_eq!(login.header("retry-after"), "5");
    let admin = Caller::new(stage.gateway.admin_addr());
    assert_eq!(admin.get("/healthz").await.status, 200);
    let ready = admin.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.starts_with(b"not ready: cannot connect to http://"), "{ready:?}");
}

#[tokio::test]
async fn a_403_passes_and_the_permission_it_names_stands_beside_it() {
    let scopes =
        "[[oauth.clients]]\nid = \"demo-client\"\nsecret = \"demo-secret\"\nscopes = [\"view:scripts\"]";
    let played = play("genesys-guide", scopes).await;
    let answer = played.caller.get(FIRST).await;
    assert_eq!((answer.status.as_u16(), answer.header("tidegate-missing")), (403, "view:users"));
    assert_eq!(answer.json()["code"], "missing.any.permissions");
    let denials = "tidegate_permission_denials_total{credential=\"demo\",tenant=\"default\"} 1";
    assert!(scrape(&played.gateway).await.contains(denials));
    let fine = played.caller.get("/api/v2/scripts").await;
    assert_eq!((fine.status.as_u16(), fine.headers.get("tidegate-missing")), (200, None));
}

#[tokio::test]
async fn a_gateway_is_ready_when_its_credential_has_a_token() {
    let played = play("genesys-guide", "").await;
    let admin = Caller::new(played.gateway.admin_addr());
    assert_eq!(admin.get("/readyz").await.status, 200);
    played.sim.shutdown().await;
    assert_eq!(admin.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn the_metrics_are_openmetrics_and_count() {
    let played = play("genesys-guide", "limit = 100\n[faults]\nscript = [\"throttle\"]").await;
    for _ in 0..3 {
        assert_eq!(played.caller.get(FIRST).await.status, 200);
    }
    let answer = Caller::new(played.gateway.admin_addr()).get("/metrics").await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(lines.peek().is_none(), "nothing after the end");
        } else if let Some(comment) = line.strip_prefix("# ") {
            let kind = comment.split(' ').next().unwrap();
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').expect(line);
            assert!(name.starts_with("tidegate_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(text.ends_with("# EOF\n"));
    for expected in [
        "tidegate_calls_total{class=\"interactive\",outcome=\"200\",tenant=\"default\"} 3",
        "tidegate_attempts_total{family=\"/api/v2/users\",status=\"200\",tenant=\"default\"} 3",
        "tidegate_attempts_total{family=\"/api/v2/users\",status=\"429\",tenant=\"default\"} 1",
        "tidegate_token_requests_total{credential=\"demo\",outcome=\"granted\",tenant=\"default\"} 1",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert!(text.contains("tidegate_throttles_total{"), "{text}");
}

async fn scrape(gateway: &Gateway) -> String {
    let answer = Caller::new(gateway.admin_addr()).get("/metrics").await;
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn what_became_of_writes_is_counted() {
    let lost = |fault| Faults { script: vec![fault], ..Faults::default() };
    let played = play("genesys", "limit = 0").await;
    let text = scrape(&played.gateway).await;
    assert!(!text.contains("tidegate_ledger_entries{"), "there is none before the first key: {text}");

    // A read shows the new user; that an update's version has not moved; of a skill that is added no rule knows.
    let ann = r#"{"name":"Ann","email":"ann@example.com"}"#;
    played.sim.set_faults(lost(Fault::DropAfter)).unwrap();
    assert_eq!(played.caller.post("/api/v2/users", ann).await.status, 200);
    played.sim.set_faults(lost(Fault::DropBefore)).unwrap();
    let headers = [("Content-Type", "application/json")];
    let update = r#"{"title":"Lead","version":1}"#;
    assert_eq!(played.caller.call(Method::PATCH, FIRST, &headers, update).await.status, 200);
    played.sim.set_faults(lost(Fault::DropAfter)).unwrap();
    let (skills, skill) = (
        format!("{FIRST}/routingskills"),
        r#"{"id":"10000000-0000-4000-8000-000000000001","proficiency":3}"#,
    );
    for _ in 0..2 {
        assert_eq!(played.caller.post(&skills, skill).await.status, 424);
    }
    let keyed = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    for _ in 0..3 {
        let bob = r#"{"name":"Bob","email":"bob@example.com"}"#;
        assert_eq!(played.caller.call(Method::POST, "/api/v2/users", &keyed, bob).await.status, 200);
    }
    let text = scrape(&played.gateway).await;
    for expected in [
        "tidegate_writes_in_doubt_total{ending=\"confirmed\",tenant=\"default\"} 1",
        "tidegate_writes_in_doubt_total{ending=\"not-applied-and-resent\",tenant=\"default\"} 1",
        "tidegate_writes_in_doubt_total{ending=\"unknown\",tenant=\"default\"} 1",
        "tidegate_replays_total{by=\"likeness\",tenant=\"default\"} 1",
        "tidegate_replays_total{by=\"key\",tenant=\"default\"} 2",
        "tidegate_ledger_entries{state=\"answered\",tenant=\"default\"} 1",
        "tidegate_ledger_entries{state=\"unknown\",tenant=\"default\"} 0",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
}

#[tokio::test]
async fn the_state_shows_the_gates_and_no_secret() {
    let played = play("genesys-guide", "limit = 100").await;
    let bearer = played.caller.bearer().await;
    let headers = [("Authorization", &*bearer)];
    played.caller.call(Method::GET, FIRST, &headers, "").await;
    let answer = Caller::new(played.gateway.admin_addr()).get("/api/state").await;
    let state = answer.json();
    assert_eq!(state["profile"], "genesys-guide");
    let tenant = &state["tenants"][0];
    assert_eq!((&tenant["name"], &tenant["learnt_logins"]), (&"default".into(), &1.into()));
    let gates = tenant["gates"].as_array().unwrap();
    assert!(gates.iter().any(|gate| gate["quota"] == 100), "{state}");
    let token = bearer.trim_start_matches("Bearer ");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(!text.contains(token) && !text.contains("demo-secret"), "{text}");
}

#[tokio::test]
async fn a_drain_finishes_calls_in_flight_and_takes_no_new_ones() {
    let Played { sim, gateway, caller } = play("genesys-guide", "limit = 0\nlatency = \"500ms\"").await;
    let addr = gateway.data_addr();
    let mut idle = caller.connect().await;
    let in_flight = tokio::spawn(async move { caller.get(FIRST).await.status });
    while sim.stats().max_in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    let drained = tokio::spawn(gateway.drain());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
    assert_eq!(idle.rest().await, "", "an idle connection is closed");
    assert_eq!(in_flight.await.unwrap(), 200);
    drained.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "and the drain ends with its last call");
}

#[tokio::test]
async fn a_drain_ends_when_its_grace_is_over() {
    let Played { sim, gateway, caller } =
        crate::stage::play_with("genesys-guide", "limit = 0\nlatency = \"8s\"", |config| {
            config.grace = Duration::from_millis(300);
        })
        .await;
    let mut wire = caller.connect().await;
    wire.write(&format!("GET {FIRST} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    while sim.stats().max_in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    gateway.drain().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_drain_follows_writes_whose_callers_have_gone() {
    let Played { sim, gateway, caller } =
        play("genesys", "limit = 0\nlatency = \"800ms\"\ndecide_at = 1.0").await;
    assert_eq!(caller.get(FIRST).await.status, 200);
    let before = sim.stats().accepted;
    let mut wire = caller.connect().await;
    let body = r#"{"name":"Ann","email":"ann@example.com"}"#;
    let length = body.len();
    wire.write(&format!(
        "POST /api/v2/users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
    .await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    drop(wire);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(sim.stats().accepted, before, "it is still on its way");
    gateway.drain().await;
    assert_eq!(sim.stats().writes.get("POST /api/v2/users"), Some(&1), "it was not cut");
}

#[tokio::test]
async fn half_a_head_on_the_admin_port_holds_up_no_drain() {
    let Played { gateway, .. } = crate::stage::play_with("genesys-guide", "", |config| {
        config.grace = Duration::from_millis(300);
    })
    .await;
    let mut half = Caller::new(gateway.admin_addr()).connect().await;
    half.write("GET /healthz HTTP/1.1\r\nHost: loc").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    tokio::time::timeout(Duration::from_secs(5), gateway.drain()).await.expect("an end");
    assert!(begun.elapsed() < Duration::from_secs(2));
}
