//! The server on real sockets: what only the wire can show.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tidegate_sim::{Faults, Sim, SimConfig, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const FIRST: &str = "/api/v2/users/00000000-0000-4000-8000-000000000001";

/// A simulator on a free port, a client, and a token.
struct Bench {
    sim: Sim,
    client: Client<HttpConnector, Full<Bytes>>,
    token: String,
}

type Answer = Option<(StatusCode, HeaderMap, Bytes)>;

impl Bench {
    async fn new(toml: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = serve(listener, SimConfig::from_toml(toml).unwrap()).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
        let mut bench = Self { sim, client, token: String::new() };
        bench.login().await;
        bench
    }

    async fn login(&mut self) {
        let form = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";
        let (status, _, body) = self.send("POST", "/oauth/token", &[], form).await.unwrap();
        assert_eq!(status, 200);
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["access_token"].as_str().unwrap().clone_into(&mut self.token);
    }

    /// `None` if the connection was closed without an answer.
    async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.sim.url()))
            .header("Authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::from(body.to_owned())).unwrap()).await.ok()?;
        let (head, body) = response.into_parts();
        Some((head.status, head.headers, body.collect().await.ok()?.to_bytes()))
    }

    /// One request over a connection of its own; everything that came back, as text.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.sim.local_addr()).await.unwrap();
        let request = request.replace("TOKEN", &self.token);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }
}

#[tokio::test]
async fn a_throttle_on_the_wire_has_title_case_names_and_the_documented_body() {
    let bench = Bench::new("limit = 1\nwindow = \"42s\"").await;
    let get = format!(
        "GET {FIRST} HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n"
    );
    assert!(bench.raw(&get).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let throttled = bench.raw(&get).await;
    assert!(throttled.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{throttled}");
    for line in [
        "\r\nRetry-After: 42\r\n",
        "\r\nX-Rate-Limit-Remaining: 0\r\n",
        "\r\nContent-Type: application/json\r\n",
    ] {
        assert!(throttled.contains(line), "{line:?} is missing in {throttled}");
    }
    let id = throttled.split("Inin-Correlation-Id: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let expected = format!(
        "{{\"message\":\"Rate limit exceeded the maximum. Retry the request in [42] seconds\",\
         \"code\":\"too.many.requests.retry.after\",\"status\":429,\"contextId\":\"{id}\",\"details\":[],\"errors\":[]}}"
    );
    assert_eq!(throttled.split("\r\n\r\n").nth(1).unwrap(), expected);
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn a_drop_after_commit_closes_the_connection_and_applies_the_write() {
    let bench = Bench::new("").await;
    let body = json!([{ "id": tidegate_sim::model::org::skills::id(3), "proficiency": 4 }]).to_string();
    let target = format!("{FIRST}/routingskills/bulk");
    bench.sim.set_faults(Faults { drop_before: 1.0, ..Faults::default() }).unwrap();
    assert!(bench.send("PATCH", &target, &[("X-Genesys-Request-Id", "a")], &body).await.is_none());
    assert!(bench.sim.stats().writes.is_empty());
    bench.sim.set_faults(Faults { drop_after: 1.0, ..Faults::default() }).unwrap();
    assert!(bench.send("PATCH", &target, &[("X-Genesys-Request-Id", "b")], &body).await.is_none());
    let stats = bench.sim.stats_with_users();
    assert_eq!(stats.users.unwrap()["00000000-0000-4000-8000-000000000001"].len(), 1);
    assert_eq!(stats.lost, 1, "only the call dropped before the commit");
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn two_runs_of_one_seed_answer_alike() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let bench =
            Bench::new("seed = 11\n[faults]\nunavailable = 0.3\ndrop_before = 0.1\ntimeout_after = 0.1")
                .await;
        let mut answers = Vec::new();
        for number in 0..60 {
            let user = json!({ "name": "Ann", "email": format!("ann{number}@example.com") }).to_string();
            let answer = bench.send("POST", "/api/v2/users", &[], &user).await;
            answers.push(
                answer.map(|(status, headers, body)| (status, headers["inin-correlation-id"].clone(), body)),
            );
        }
        assert!(answers.iter().any(Option::is_none));
        runs.push((bench.token.clone(), answers, bench.sim.stats().users_hash));
        bench.sim.shutdown().await;
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn a_body_above_the_bound_is_a_413_that_can_be_read() {
    let bench = Bench::new("").await;
    let fits = format!("[{}]", " ".repeat(512_000 - 2));
    let (status, ..) = bench.send("PATCH", "/api/v2/users/bulk", &[], &fits).await.unwrap();
    assert_eq!(status, 200);
    let (status, _, body) =
        bench.send("PATCH", "/api/v2/users/bulk", &[], &format!("{fits} ")).await.unwrap();
    assert_eq!(status, 413);
    assert!(body.starts_with(b"{\"message\":\"The request is over the size limit. Maximum bytes: 512000\""));
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn the_judge_is_reached_without_token_or_quota() {
    let mut bench = Bench::new("limit = 1\nwindow = \"1h\"").await;
    bench.token = "none".to_owned();
    for target in ["/", "/sim/config", "/sim/stats?users=1", "/sim/writes"] {
        let (status, headers, body) = bench.send("GET", target, &[], "").await.unwrap();
        assert_eq!(status, 200, "{target}");
        assert!(!headers.contains_key("x-rate-limit-limit"));
        assert!(serde_json::from_slice::<Value>(&body).is_ok());
    }
    let (status, _, body) =
        bench.send("POST", "/sim/faults", &[], r#"{"drop":1,"drop_after":"x"}"#).await.unwrap();
    assert_eq!(status, 400);
    let error = String::from_utf8(body.to_vec()).unwrap();
    assert!(error.contains("2 problems") && error.contains("drop: unknown field"), "{error}");
    assert_eq!(bench.sim.stats().accepted, 0);
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn a_reset_starts_afresh_with_overrides() {
    let mut bench = Bench::new("users = 5").await;
    bench.send("DELETE", FIRST, &[], "").await.unwrap();
    assert_eq!(bench.sim.stats().users_total, 4);
    let (status, ..) =
        bench.send("POST", "/sim/reset", &[], r#"{"users":7,"oauth":{"token_ttl":"9s"}}"#).await.unwrap();
    assert_eq!(status, 200);
    let (status, ..) = bench.send("GET", FIRST, &[], "").await.unwrap();
    assert_eq!(status, 401, "tokens of the time before are dead");
    bench.login().await;
    let (status, ..) = bench.send("GET", FIRST, &[], "").await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(bench.sim.stats().users_total, 7);
    let (status, ..) = bench.send("POST", "/sim/reset", &[], r#"{"user":7}"#).await.unwrap();
    assert_eq!(status, 400);
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn overlapping_token_calls_are_seen() {
    let bench = Bench::new("[oauth]\nlatency = \"60ms\"").await;
    let form = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";
    let (one, two) = tokio::join!(
        bench.send("POST", "/oauth/token", &[], form),
        bench.send("POST", "/oauth/token", &[], form)
    );
    assert!(one.is_some() && two.is_some());
    let oauth = bench.sim.stats().oauth;
    assert_eq!((oauth.calls, oauth.overlap_max), (3, 2));
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_its_place() {
    let bench = Bench::new("concurrency = 1\nlatency = \"30s\"\ndecide_at = 0.0").await;
    let hanging = tokio::time::timeout(Duration::from_millis(100), bench.send("GET", FIRST, &[], ""));
    assert!(hanging.await.is_err(), "the call was given up");
    bench.sim.set_faults(Faults { latency: Some("0s".parse().unwrap()), ..Faults::default() }).unwrap();
    let mut status = StatusCode::TOO_MANY_REQUESTS;
    for _ in 0..50 {
        status = bench.send("GET", FIRST, &[], "").await.unwrap().0;
        if status == 200 {
            break;
        }
    }
    assert_eq!(status, 200, "the server notices the closed connection and frees the place");
    bench.sim.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_lets_calls_in_progress_finish() {
    let bench = Bench::new("latency = \"100ms\"").await;
    let request = bench.raw_get();
    let answer = tokio::spawn(request);
    while bench.sim.stats().max_in_flight == 0 {
        tokio::task::yield_now().await;
    }
    bench.sim.shutdown().await;
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
}

impl Bench {
    /// A GET over a connection of its own, as a future that does not borrow.
    fn raw_get(&self) -> impl Future<Output = String> + use<> {
        let (addr, token) = (self.sim.local_addr(), self.token.clone());
        async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let request =
                format!("GET {FIRST} HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer {token}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        }
    }
}
