//! What the tests share: a gateway in front of something, a caller, and upstreams made of a few bytes.

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::Value;
use tidegate::token::ClientCredentials;
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::key::CredentialId;
use tidegate_gateway::{Gateway, GatewayConfig, start};
use tidegate_sim::{Sim, SimConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The first simulated user.
pub(crate) const FIRST: &str = "/api/v2/users/00000000-0000-4000-8000-000000000001";

/// A login form with the simulator's own client.
pub(crate) const LOGIN: &str =
    "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";

/// Longer than any test has to wait for bytes; reaching it is a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway and a caller of it.
pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) caller: Caller,
}

/// A gateway in front of a simulator.
pub(crate) struct Played {
    pub(crate) sim: Sim,
    pub(crate) gateway: Gateway,
    pub(crate) caller: Caller,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Whether it is one of the gateway's own, in the upstream's shape.
    pub(crate) fn is_ours(&self, status: u16, mark: (&str, &str)) -> bool {
        let body = self.json();
        self.status == status
            && self.header(mark.0) == mark.1
            && body["status"] == status
            && body["contextId"].as_str().is_some_and(|id| id.len() == 32)
            && ["details", "errors"].iter().all(|key| body[*key].is_array())
    }
}

/// A program that uses the gateway.
#[derive(Clone)]
pub(crate) struct Caller {
    addr: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Caller {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// One that speaks HTTP/2 and opens one connection.
    pub(crate) fn by_http2(addr: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { addr, client }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let uri = format!("http://{}{target}", self.addr);
        let request = headers.iter().fold(Request::builder().method(method).uri(uri), |request, field| {
            request.header(field.0, field.1)
        });
        let answered = async {
            let response = self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer { status: head.status, headers: head.headers, body }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("an answer in time")
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.call(Method::GET, target, &[], "").await
    }

    pub(crate) async fn post(&self, target: &str, body: &str) -> Answer {
        self.call(Method::POST, target, &[("Content-Type", "application/json")], body.to_owned()).await
    }

    pub(crate) async fn login(&self, form: &str) -> Answer {
        let media_type = ("Content-Type", "application/x-www-form-urlencoded");
        self.call(Method::POST, "/oauth/token", &[media_type], form.to_owned()).await
    }

    /// Logs in and returns the header value that an SDK would send from then on.
    pub(crate) async fn bearer(&self) -> String {
        let answer = self.login(LOGIN).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        format!("Bearer {}", answer.json()["access_token"].as_str().unwrap())
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire { stream: TcpStream::connect(self.addr).await.unwrap(), read: Vec::new() }
    }

    /// Sends text over a connection of its own and returns everything that comes back until it closes.
    pub(crate) async fn raw(&self, text: &str) -> String {
        let mut wire = self.connect().await;
        wire.write(text).await;
        wire.rest().await
    }
}

/// A connection, byte by byte.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub(crate) async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until `end` has come, and returns everything up to and with it. `None` if the other side closes before.
    pub(crate) async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = find(&self.read, end.as_bytes()) {
                let text = self.read.drain(..at + end.len()).collect();
                return Some(String::from_utf8(text).unwrap());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The head of the next message.
    pub(crate) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.expect("a whole head")
    }

    /// Exactly `count` bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.fill().await, "closed after {} of {count} bytes", self.read.len());
        }
        self.read.drain(..count).collect()
    }

    /// Everything until the other side closes, however it does.
    pub(crate) async fn rest(&mut self) -> String {
        while self.fill().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    async fn fill(&mut self) -> bool {
        let more = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        more.expect("bytes, or the end, in time").unwrap_or(0) > 0
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A gateway in front of a simulator, with the simulator's own client as its credential.
pub(crate) async fn play(profile: &str, sim: &str) -> Played {
    play_with(profile, sim, |_| {}).await
}

/// The same, with settings changed.
pub(crate) async fn play_with(profile: &str, sim: &str, change: impl FnOnce(&mut GatewayConfig)) -> Played {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sim = tidegate_sim::serve(listener, SimConfig::from_toml(sim).unwrap()).await.unwrap();
    let Stage { gateway, caller } = stage_with(&sim.url(), Profile::builtin(profile).unwrap(), |config| {
        config.tenants[0].upstream.credential = Some(credential());
        change(config);
    })
    .await;
    Played { sim, gateway, caller }
}

/// The simulator's own client.
pub(crate) fn credential() -> (CredentialId, ClientCredentials) {
    let credentials = ClientCredentials::new("demo-client", &SecretString::from("demo-secret"));
    (CredentialId::new("demo"), credentials)
}

/// A gateway without a credential in front of whatever is at `url`.
pub(crate) async fn stage(url: &str) -> Stage {
    stage_with(url, Profile::builtin("genesys-guide").unwrap(), |_| {}).await
}

/// The same, with a profile of one's own and settings changed.
pub(crate) async fn stage_with(
    url: &str,
    profile: Profile,
    change: impl FnOnce(&mut GatewayConfig),
) -> Stage {
    let mut config = GatewayConfig::new(UpstreamConfig::new(Arc::new(profile), url, url));
    // Faults that are scripted, and books that are read, are about the calls of the test.
    config.tenants[0].upstream.fetch_limits = false;
    change(&mut config);
    let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = start(config, Vec::new(), data, admin).unwrap();
    let caller = Caller::new(gateway.data_addr());
    Stage { gateway, caller }
}

/// An upstream that hands each connection, with its number from 0, to `serve`.
pub(crate) async fn upstream<F>(serve: impl Fn(Wire, usize) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(Wire { stream, read: Vec::new() }, number));
        }
    });
    url
}

/// An upstream that answers every request with the same text, and what it was sent.
#[derive(Clone, Default)]
pub(crate) struct Canned {
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One request as it arrived.
struct Seen {
    connection: usize,
    head: String,
    body: Vec<u8>,
}

impl Canned {
    pub(crate) async fn start(answer: &str) -> (Self, String) {
        let canned = Self::default();
        let (shared, answer) = (canned.clone(), answer.to_owned());
        let url =
            upstream(move |wire, number| serve_canned(wire, number, shared.clone(), answer.clone())).await;
        (canned, url)
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.seen.lock().iter().map(|seen| seen.head.clone()).collect()
    }

    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        self.seen.lock().iter().map(|seen| seen.body.clone()).collect()
    }

    /// The connections that carried at least one request.
    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().iter().map(|seen| seen.connection).collect::<HashSet<_>>().len()
    }
}

async fn serve_canned(mut wire: Wire, connection: usize, canned: Canned, answer: String) {
    while let Some(head) = wire.until("\r\n\r\n").await {
        let length = field(&head, "content-length").and_then(|length| length.parse().ok());
        let body = wire.exactly(length.unwrap_or(0)).await;
        let close = field(&answer, "connection") == Some("close");
        canned.seen.lock().push(Seen { connection, head, body });
        wire.write(&answer).await;
        if close {
            return;
        }
    }
}

/// The value of a header field in the text of a message.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).take_while(|line| !line.is_empty());
    fields
        .filter_map(|line| line.split_once(':'))
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}
