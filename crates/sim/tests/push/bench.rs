//! A simulator with a client and sockets.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tidegate_sim::{Sim, SimConfig, Stats, serve};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

pub(crate) fn presence(user: usize) -> String {
    format!("/api/v2/users/00000000-0000-4000-8000-{user:012x}/presences/purecloud")
}

pub(crate) fn script(number: usize) -> String {
    format!("v2.scripts.20000000-0000-4000-8000-{number:012x}.published")
}

pub(crate) fn conversation(number: usize) -> String {
    format!("30000000-0000-4000-8000-{number:012x}")
}

/// A simulator on a free port, without a limit, a client and its token.
pub(crate) struct Bench {
    pub(crate) sim: Sim,
    client: Client<HttpConnector, Full<Bytes>>,
    token: String,
}

impl Bench {
    pub(crate) async fn new(toml: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = SimConfig::from_toml(&format!("limit = 0\n{toml}")).unwrap();
        let sim = serve(listener, config).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
        let mut bench = Self { sim, client, token: String::new() };
        let form = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";
        let (_, body) = bench.send("POST", "/oauth/token", form.to_owned()).await;
        body["access_token"].as_str().unwrap().clone_into(&mut bench.token);
        bench
    }

    async fn send(&self, method: &str, target: &str, body: String) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.sim.url()))
            .header("Authorization", format!("Bearer {}", self.token))
            .body(Full::from(body))
            .unwrap();
        let response = self.client.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    pub(crate) async fn call(&self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, target, body).await
    }

    /// Creates a channel; its `connectUri`.
    pub(crate) async fn channel(&self) -> String {
        let (status, body) = self.call("POST", "/api/v2/notifications/channels", &json!({})).await;
        assert_eq!(status, 200);
        body["connectUri"].as_str().unwrap().to_owned()
    }

    /// Creates a channel with topics and opens its socket.
    pub(crate) async fn listen(&self, topics: &[&str]) -> (String, Line) {
        let uri = self.channel().await;
        let target =
            format!("/api/v2/notifications/channels/{}/subscriptions", uri.rsplit('/').next().unwrap());
        let topics: Vec<Value> = topics.iter().map(|topic| json!({ "id": topic })).collect();
        let (status, answer) = self.call("PUT", &target, &json!(topics)).await;
        assert_eq!(status, 200, "{answer}");
        let line = Line::open(&uri).await.unwrap();
        (uri, line)
    }

    /// Waits until the books say so.
    pub(crate) async fn until(&self, there: impl Fn(&Stats) -> bool) {
        while !there(&self.sim.stats()) {
            tokio::task::yield_now().await;
        }
    }
}

/// An open WebSocket.
pub(crate) struct Line(WebSocketStream<TcpStream>);

impl Line {
    /// Opens a socket, or says with which status that was refused.
    pub(crate) async fn open(uri: &str) -> Result<Self, u16> {
        let authority = uri.strip_prefix("ws://").unwrap().split('/').next().unwrap();
        let stream = TcpStream::connect(authority).await.unwrap();
        match client_async(uri, stream).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// The next text; none if the socket has ended.
    pub(crate) async fn message(&mut self) -> Option<Value> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.0.next()).await;
            match next.expect("something comes in ten seconds") {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Value {
        self.message().await.expect("the socket is open")
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }
}
