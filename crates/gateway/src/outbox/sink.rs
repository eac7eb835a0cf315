//! Events told to others: signed webhooks, by the Standard Webhooks specification.
//!
//! An event is written down for each sink that wants its topic and is posted there until the sink says 2xx, by the waits of
//! [`Waits::of_webhooks`]; then it is a dead letter. A sink may get one twice (its answer can be lost) and later ones before it: a
//! sink that is down for an hour would otherwise have everything held up by its first event. `webhook-id` tells repetitions, the
//! time in the body tells order.
//!
//! Whoever tells an event never waits: what comes faster than it can be written down is let go, counted and told.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use sha2::Sha256;
use tidegate::RequestBody;
use tidegate::transport::{SendOptions, Wire as _};
use tidegate_core::outbox::Ended;
use tidegate_core::push::TopicPattern;
use tidegate_core::time::Wall;
use tidegate_store::ledger::Kept;
use tidegate_store::outbox::{Kind, Letter};
use tidegate_telemetry::Metrics;
use tokio::sync::mpsc;

use super::Outbox;
use super::run::Outcome;
use crate::push::{EventSink, PushEvent};

/// Events that wait to be written down. More would only move the waiting into memory.
const QUEUE: usize = 4096;

/// A sink has so long to answer. The specification recommends 15 to 30 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// The longest wait that a sink's `Retry-After` is followed for.
const LONGEST: Duration = Duration::from_hours(24);

/// Where events are told.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Stands for it in messages and metrics.
    pub name: String,
    /// Where they are posted.
    pub url: Uri,
    /// Topics it wants; with `*` at its end one stands for all that begin so.
    pub topics: Vec<TopicPattern>,
    /// The tenant whose events it wants; `None`: of all.
    pub tenant: Option<String>,
    /// What they are signed with.
    pub secret: SinkSecret,
    /// Events that may be undelivered at once; beyond it new ones are let go.
    pub max_entries: usize,
}

/// The secret that a sink and the gateway share.
#[derive(Clone)]
pub struct SinkSecret(Arc<[u8]>);

impl fmt::Debug for SinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SinkSecret")
    }
}

impl SinkSecret {
    /// Reads `whsec_` and 24 to 64 bytes in base64, as the specification has it.
    ///
    /// ```
    /// use tidegate_gateway::SinkSecret;
    ///
    /// assert!(SinkSecret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_ok());
    /// assert!(SinkSecret::read("secret").is_err());
    /// ```
    ///
    /// # Errors
    /// What is wrong with it, without saying it.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "is no secret of a webhook (write whsec_ and 24 to 64 random bytes in base64)";
        let encoded = text.trim().strip_prefix("whsec_").ok_or(WANTED)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| WANTED)?;
        if (24..=64).contains(&bytes.len()) { Ok(Self(bytes.into())) } else { Err(WANTED) }
    }

    /// The signature of a message: `v1,` and the HMAC-SHA-256 of id, time and body.
    fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// Whether events may be posted there: by TLS, or to this machine.
///
/// # Errors
/// Why not, and what to write.
pub fn sink_url(text: &str) -> Result<Uri, String> {
    let uri: Uri =
        text.parse().map_err(|_| format!("`{text}` is no URL (write it like https://example.com/hook)"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if is_here => Ok(uri),
        Some("http") => {
            Err(format!("`{text}` would send events unencrypted to another machine (write https)"))
        }
        _ => Err(format!("`{text}` is no URL (write it like https://example.com/hook)")),
    }
}

impl SinkConfig {
    fn wants(&self, event: &PushEvent) -> bool {
        self.tenant.as_deref().is_none_or(|tenant| tenant == &*event.tenant)
            && self.topics.iter().any(|wanted| wanted.matches(&event.topic))
    }

    /// Its entries of one tenant.
    pub(super) fn group(&self, tenant: &str) -> String {
        format!("sink {} {tenant}", self.name)
    }
}

/// All sinks, as those see them who tell of events.
#[derive(Debug)]
pub(crate) struct Sinks {
    pub(super) all: Vec<SinkConfig>,
    queue: mpsc::Sender<Arc<PushEvent>>,
    /// It was told that events are lost.
    warned: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Events to be written down.
pub(crate) type Events = mpsc::Receiver<Arc<PushEvent>>;

impl Sinks {
    pub(crate) fn new(all: Vec<SinkConfig>, metrics: Arc<Metrics>) -> (Arc<Self>, Events) {
        let (queue, events) = mpsc::channel(QUEUE);
        (Arc::new(Self { all, queue, warned: AtomicBool::new(false), metrics }), events)
    }

    fn lost(&self, sink: &SinkConfig, tenant: &str) {
        self.metrics.tenant(tenant).sink_ended(&sink.name, "lost");
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "tidegate",
                "events for sink {} are lost, and counted from here on: too many of them are not delivered",
                sink.name
            );
        }
    }
}

impl EventSink for Sinks {
    fn offer(&self, event: &Arc<PushEvent>) {
        let wanted = self.all.iter().any(|sink| sink.wants(event));
        if wanted && self.queue.try_send(Arc::clone(event)).is_err() {
            for sink in self.all.iter().filter(|sink| sink.wants(event)) {
                self.lost(sink, &event.tenant);
            }
        }
    }
}

impl Outbox {
    /// Writes events down, each for every sink that wants it, until nobody tells any.
    pub(super) async fn keep_events(self: Arc<Self>, mut events: Events) {
        let mut stopping = self.stopping.subscribe();
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = stopping.wait_for(|stopping| *stopping) => events.try_recv().ok(),
            };
            let Some(event) = event else { return };
            let wanted = self.sinks.all.iter().filter(|sink| sink.wants(&event));
            let stored = wanted.map(async |sink| {
                let own = Some((sink.group(&event.tenant), sink.max_entries));
                if self.store(letter(sink, &event, self.clock.wall()), own).await.is_err() {
                    self.sinks.lost(sink, &event.tenant);
                }
            });
            futures_util::future::join_all(stored).await;
        }
    }

    /// Posts an event to its sink.
    pub(super) async fn post(&self, letter: &Letter) -> Outcome {
        let Some(sink) = self.sinks.all.iter().find(|sink| sink.name == letter.target) else {
            tracing::warn!(target: "tidegate", "the outbox holds an event for {}, which is no sink", letter.target);
            return Outcome::unsent(Ended::Refused);
        };
        let seconds = self.clock.wall().unix_millis() / 1000;
        let request = Request::builder()
            .method(Method::POST)
            .uri(sink.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", letter.id.as_str())
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", sink.secret.sign(&letter.id, seconds, &letter.body))
            .body(RequestBody::from(Bytes::from(letter.body.clone())));
        let Ok(request) = request else { return Outcome::unsent(Ended::Refused) };
        let options = SendOptions { timeout: PATIENCE, careful: false };
        let failed = |retry_after| Ended::Unsent { retry_after, ordered: false };
        match self.transport.send(request, options).await {
            Err(error) => {
                tracing::debug!(target: "tidegate", "sink {}: {error}", sink.name);
                Outcome { ended: failed(None), answer: None, attempts: 1 }
            }
            Ok(response) => {
                let status = response.status();
                let ended = match status.as_u16() {
                    200..=299 => Ended::Answered,
                    // "The endpoint is gone": the specification asks to stop.
                    410 => Ended::Refused,
                    _ => failed(seconds_of(response.headers().get(RETRY_AFTER))),
                };
                let answer = Some(Kept { status: status.as_u16(), ..Kept::default() });
                Outcome { ended, answer, attempts: 1 }
            }
        }
    }
}

/// A `Retry-After` in seconds. A date is passed over: our own waits are as good.
fn seconds_of(value: Option<&HeaderValue>) -> Option<Duration> {
    let seconds = value?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// An event as it is posted: type, time and data, as the specification recommends, and whose it is.
fn letter(sink: &SinkConfig, event: &PushEvent, since: Wall) -> Letter {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let data = std::str::from_utf8(&event.body).unwrap_or("null");
    let body = format!(
        "{{\"type\":{},\"timestamp\":{},\"tenant\":{},\"data\":{data}}}",
        quoted(&event.topic),
        quoted(&event.at.rfc3339()),
        quoted(&event.tenant)
    );
    Letter {
        seq: 0,
        id: String::new(),
        kind: Kind::Event,
        tenant: event.tenant.to_string(),
        owner: format!("\nsink {}", sink.name),
        group: sink.group(&event.tenant),
        line: format!("event {} {} {}", sink.name, event.tenant, event.id),
        mark: None,
        keyed: None,
        method: "POST".to_owned(),
        target: sink.name.clone(),
        headers: Vec::new(),
        body: body.into_bytes(),
        class: String::new(),
        credential: String::new(),
        transaction: String::new(),
        deadline: None,
        since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_signed_as_the_specifications_libraries_do() {
        // The example of the reference libraries' tests (standard-webhooks/libraries).
        let secret = SinkSecret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn events_go_to_other_machines_by_tls_only() {
        for good in
            ["https://example.com/hook", "http://127.0.0.1:80/x", "http://localhost/x", "http://[::1]:9/"]
        {
            assert!(sink_url(good).is_ok(), "{good}");
        }
        for bad in
            ["http://example.com/", "ftp://localhost/", "/hook", "https://", "localhost", "http://10.0.0.1/"]
        {
            assert!(sink_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_of_a_length_that_cannot_be_guessed() {
        for bad in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%"] {
            assert!(SinkSecret::read(bad).is_err(), "{bad}");
        }
    }
}
