//! Sends one attempt and says exactly how far it got.
//!
//! Everything above decides by [`Failure`]: whether no byte can have reached the upstream, or whether it may have
//! executed the request. A pool of hyper connections is kept here instead of a ready-made client because that
//! knowledge lives at the connection: which one carried the attempt, whether it was reused, and how many bytes it
//! had written.
//!
//! Where the other side agrees to HTTP/2 ([`Http2`]), attempts are streams of few connections: `streams` keeps those, `stream` sends
//! one attempt. What follows about connections of one attempt each is about HTTP/1.1.
//!
//! Rules:
//!
//! * a connection is used again only after the answer was read to its end *and* the request was written to its end;
//!   every other end of an exchange (time-out, dropped future, half-read body, early answer) closes it;
//! * a reused connection that turns out to be closed before a byte was written is replaced at once: nothing happened;
//! * an attempt that timed out is stopped before its outcome is told, so that it cannot leave afterwards;
//! * an answer's body that falls silent for as long as its headers were allowed to take ends with an error.

mod connect;
mod dial;
mod meter;
mod origin;
mod pool;
mod stream;
mod streams;

use std::collections::HashMap;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tidegate_core::classify::{Failure, Wrote};
use tokio::time::Sleep;

use self::connect::{Connection, Connector, Opened, Speak};
pub use self::dial::dial;
use self::meter::{Meter, Outgoing};
use self::origin::Origin;
use self::pool::{IdleSince, MAX_IDLE_TIME, Pool, Store};
use self::stream::{StreamBody, Went};
use self::streams::{Hub, Hubs, Slot, Spoken};
use crate::body::{BoxError, RequestBody, ResponseBody};
use crate::clock::Clock;
use crate::layer::BoxFuture;

/// How long a pooled connection may take to be ready. It is ready at once unless its task was not scheduled yet;
/// one that is not ready by now is not worth waiting for.
const READY_WITHIN: Duration = Duration::from_millis(100);

/// Why an attempt brought no answer.
#[derive(Debug)]
pub struct SendError {
    /// How far it got.
    pub failure: Failure,
    /// What happened.
    pub source: BoxError,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The text above is the source's own.
        self.source.source()
    }
}

impl SendError {
    pub(crate) fn new(failure: Failure, source: impl Into<BoxError>) -> Self {
        Self { failure, source: source.into() }
    }
}

/// How one attempt is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// From the request's last byte to the answer's headers; then the longest silence in the answer's body. While a
    /// streamed request makes progress the time starts over.
    pub timeout: Duration,
    /// Whether a second execution would do harm: such an attempt gets only a connection that is surely open.
    pub careful: bool,
}

/// What attempts are sent over: [`Transport`], or a stand-in under which a program is tested without sockets.
pub trait Wire: fmt::Debug + Send + Sync {
    /// Sends `request`, whose URI is absolute, and returns the answer once its headers are here.
    ///
    /// A future that is dropped must not send anything afterwards.
    ///
    /// # Errors
    /// [`SendError`] says how far the attempt got.
    fn send(
        &self,
        request: Request<RequestBody>,
        options: SendOptions,
    ) -> BoxFuture<Result<Response<ResponseBody>, SendError>>;

    /// Whether the origin of `uri` accepts connections.
    ///
    /// # Errors
    /// Why it does not.
    fn check(&self, uri: &Uri) -> BoxFuture<Result<(), SendError>>;
}

impl Wire for Transport {
    fn send(
        &self,
        request: Request<RequestBody>,
        options: SendOptions,
    ) -> BoxFuture<Result<Response<ResponseBody>, SendError>> {
        let this = self.clone();
        Box::pin(async move { Ok(this.exchange(request, options).await?.map(ResponseBody::from)) })
    }

    fn check(&self, uri: &Uri) -> BoxFuture<Result<(), SendError>> {
        let (this, uri) = (self.clone(), uri.clone());
        Box::pin(async move {
            let (origin, _) = Origin::of(uri)?;
            if let Way::Alone(lease) = this.way(&origin, false).await? {
                lease.give_back();
            }
            Ok(())
        })
    }
}

/// Whether HTTP/2 is spoken to upstreams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http2 {
    /// Where the upstream chooses it in the TLS handshake (ALPN); to `http://` addresses HTTP/1.1.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always, without asking (RFC 9113 §3.3): for an upstream behind a proxy of one's own that speaks it without TLS.
    PriorKnowledge,
}

impl Http2 {
    /// All, by their names in configurations.
    pub const ALL: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("off", Self::Off), ("prior-knowledge", Self::PriorKnowledge)];
}

/// Sends attempts over a pool of connections.
#[derive(Clone, Debug)]
pub struct Transport {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connector: Connector,
    pool: Pool,
    hubs: Hubs,
    http2: Http2,
    clock: Clock,
}

/// What the transports of several upstreams in one process have together: the roots that servers are verified by, and the
/// bound on idle connections (1,024 in all). Connections themselves are not shared: each is used by the upstream that opened it.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Common>);

#[derive(Debug)]
struct Common {
    /// Ages of idle connections of all transports are compared, so they are told by one clock.
    clock: Clock,
    /// By the longest time for a connection.
    connectors: Mutex<HashMap<Duration, Connector>>,
    store: Arc<Store>,
}

impl Connections {
    /// Nothing is open yet.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Common { clock, connectors: Mutex::default(), store: Arc::default() }))
    }
}

impl Transport {
    /// A transport whose connections must open within `connect_timeout`.
    pub fn new(clock: Clock, connect_timeout: Duration) -> Self {
        Self::among(&Connections::new(clock), connect_timeout, Http2::default())
    }

    /// The same, one of several in a process, which speaks HTTP/2 where `http2` says so.
    pub fn among(Connections(common): &Connections, connect_timeout: Duration, http2: Http2) -> Self {
        let mut connectors = common.connectors.lock();
        let connector =
            connectors.entry(connect_timeout).or_insert_with(|| Connector::new(connect_timeout)).clone();
        let (pool, hubs) = (Pool::new(&common.store), Hubs::default());
        let shared = Shared { connector, pool, hubs, http2, clock: common.clock };
        Self { shared: Arc::new(shared) }
    }

    async fn exchange(
        &self,
        mut request: Request<RequestBody>,
        options: SendOptions,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let origin = Origin::split_off(&mut request)?;
        loop {
            let sent = match self.way(&origin, options.careful).await? {
                Way::Alone(lease) => self.alone(lease, request, options.timeout).await?,
                Way::Stream(hub, slot) => {
                    match stream::exchange(slot, &origin, request, options.timeout).await {
                        Went::Answered(response) => {
                            Ok(response.map(|body| UpstreamBody::of_stream(body, options.timeout)))
                        }
                        Went::NotOpened(back) => Err(back),
                        Went::Failed { error, http1 } => {
                            if http1 {
                                hub.learn(Spoken::OnlyHttp1);
                            }
                            return Err(error);
                        }
                    }
                }
            };
            match sent {
                Ok(response) => return Ok(response),
                // Nothing happened to it: the connection was closed before.
                Err(back) => request = back,
            }
        }
    }

    /// Sends `request` on a connection that carries nothing else meanwhile. The inner error is the request itself, where its
    /// connection turned out to be closed before a byte was written.
    async fn alone(
        &self,
        mut lease: Lease,
        request: Request<RequestBody>,
        timeout: Duration,
    ) -> Result<Result<Response<UpstreamBody>, Request<RequestBody>>, SendError> {
        let keeps_open = !request.headers().contains_key(CONNECTION);
        let reused = lease.reused;
        let meter = lease.connection.meter.clone();
        let (written, read) = (meter.written(), meter.read());
        let outgoing = request.map(|body| Outgoing::new(body, meter.clone()));
        let sending = lease.connection.sender.try_send_request(outgoing);
        let Some(sent) = within(timeout, &meter, sending).await else {
            lease.connection.stop().await;
            let failure = Failure::TimedOut { wrote: meter.wrote_of_request(meter.written() == written) };
            return Err(SendError::new(failure, format!("no answer within {timeout:?}")));
        };
        let mut error = match sent {
            Ok(response) => {
                lease.reusable = keeps_open && stays_open(&response);
                return Ok(Ok(response.map(|body| UpstreamBody::new(body, lease, timeout))));
            }
            Err(error) => error,
        };
        // Nothing can be written any more when the counters are read.
        lease.connection.stop().await;
        let unsent = error.take_message();
        let error = error.into_error();
        match unsent {
            Some(back) if reused => Ok(Err(back.map(Outgoing::take_back))),
            unsent => {
                let zero = unsent.is_some() || meter.written() == written;
                Err(failed(&error, meter.wrote_of_request(zero), meter.read() > read))
            }
        }
    }

    /// A connection of its own for an attempt, or a stream on one that others use too.
    async fn way(&self, origin: &Origin, careful: bool) -> Result<Way, SendError> {
        let shared = &self.shared;
        let may = match shared.http2 {
            Http2::Auto => origin.is_tls(),
            Http2::Off => false,
            Http2::PriorKnowledge => true,
        };
        if !may {
            return self.one_way(origin, Speak::Http1, None, careful).await;
        }
        let hub = shared.hubs.of(origin);
        let prior = shared.http2 == Http2::PriorKnowledge;
        loop {
            match hub.spoken() {
                Spoken::OnlyHttp1 => return self.one_way(origin, Speak::Http1, None, careful).await,
                Spoken::Http1 => return self.one_way(origin, Speak::Agreed, Some(&hub), careful).await,
                Spoken::Unknown | Spoken::Http2 => {}
            }
            if let Some(slot) = self.slot(&hub, careful) {
                return Ok(Way::Stream(hub, slot));
            }
            let dialling = tokio::time::timeout(shared.connector.timeout(), hub.dials.acquire()).await;
            let Ok(_dialling) = dialling else { return Err(shared.connector.too_late(origin)) };
            // Who dialled before may have brought what is looked for, or learnt that there is none.
            if let Some(slot) = self.slot(&hub, careful) {
                return Ok(Way::Stream(Arc::clone(&hub), slot));
            }
            if matches!(hub.spoken(), Spoken::Unknown | Spoken::Http2) {
                let speak = if prior { Speak::Http2 } else { Speak::Agreed };
                return self.dial(origin, speak, Some(&hub)).await;
            }
        }
    }

    fn slot(&self, hub: &Hub, careful: bool) -> Option<Slot> {
        let now = self.shared.clock.now();
        let limit = if careful { self.shared.pool.careful_limit(now) } else { MAX_IDLE_TIME };
        hub.slot(|idle| idle.get().is_none_or(|since| now - since < limit))
    }

    /// An idle connection of one's own, or a new one.
    async fn one_way(
        &self,
        origin: &Origin,
        speak: Speak,
        hub: Option<&Arc<Hub>>,
        careful: bool,
    ) -> Result<Way, SendError> {
        let shared = &self.shared;
        while let Some((mut connection, idle)) = shared.pool.take(origin, shared.clock.now(), careful) {
            let ready = tokio::time::timeout(READY_WITHIN, connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                return Ok(Way::Alone(Lease::new(connection, idle, origin, shared, true)));
            }
        }
        self.dial(origin, speak, hub).await
    }

    /// Opens a connection, and tells `hub` what it speaks.
    async fn dial(&self, origin: &Origin, speak: Speak, hub: Option<&Arc<Hub>>) -> Result<Way, SendError> {
        let shared = &self.shared;
        let idle = Arc::new(IdleSince::default());
        let ended = {
            let (shared, idle) = (Arc::downgrade(shared), Arc::clone(&idle));
            move || {
                if let Some(shared) = shared.upgrade() {
                    shared.pool.ended(&idle, shared.clock.now());
                }
            }
        };
        let opened = shared.connector.connect(origin, speak, (shared.clock, &idle), ended).await?;
        match (opened, hub) {
            (Opened::One(connection), hub) => {
                if let Some(hub) = hub {
                    hub.learn(Spoken::Http1);
                }
                Ok(Way::Alone(Lease::new(connection, idle, origin, shared, false)))
            }
            (Opened::Many(many), Some(hub)) => match hub.add(&many) {
                Some(slot) => Ok(Way::Stream(Arc::clone(hub), slot)),
                None => Err(SendError::new(Failure::ConnectFailed, "the upstream allows no HTTP/2 stream")),
            },
            (Opened::Many(_), None) => Err(SendError::new(
                Failure::ConnectFailed,
                "the upstream chose HTTP/2, which was not offered",
            )),
        }
    }
}

/// How an attempt travels.
#[derive(Debug)]
enum Way {
    /// On a connection of its own.
    Alone(Lease),
    /// On a stream beside others.
    Stream(Arc<Hub>, Slot),
}

/// What an error says, with what caused it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Awaits `sending` for as long as `timeout`, starting over while a body is being sent and bytes of it leave.
async fn within<F: Future>(timeout: Duration, meter: &Meter, sending: F) -> Option<F::Output> {
    let mut sending = pin!(sending);
    let mut written = meter.written();
    loop {
        if let Ok(sent) = tokio::time::timeout(timeout, &mut sending).await {
            return Some(sent);
        }
        let before = std::mem::replace(&mut written, meter.written());
        if !meter.is_uploading() || written == before {
            return None;
        }
    }
}

/// Whether the upstream leaves the connection open behind this answer, as far as its head tells. What is cut here
/// must not be pooled: its close would be taken for the upstream's patience with idle connections.
fn stays_open(response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    let framed = response.body().is_end_stream()
        || response.body().size_hint().exact().is_some()
        || headers.contains_key(TRANSFER_ENCODING);
    framed
        && response.version() == Version::HTTP_11
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
        && !says_close(headers)
}

fn says_close(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("close"))
}

fn failed(error: &hyper::Error, wrote: Wrote, answered: bool) -> SendError {
    let failure = if wrote == Wrote::Nothing {
        Failure::ZeroBytesWritten
    } else if error.is_parse() {
        Failure::AnswerUnreadable
    } else if answered {
        Failure::AnswerTruncated
    } else {
        Failure::Interrupted { whole: wrote == Wrote::Whole }
    };
    let mut text = chain(error);
    if error.is_parse() {
        text.push_str(
            " (the upstream's answer is not HTTP/1.1 within our bounds; if it speaks TLS on this port, use https://)",
        );
    }
    SendError::new(failure, text)
}

/// A connection lent to one attempt. Dropped, it is closed.
#[derive(Debug)]
struct Lease {
    connection: Connection,
    idle: Arc<IdleSince>,
    origin: Origin,
    shared: Arc<Shared>,
    reused: bool,
    reusable: bool,
}

impl Lease {
    fn new(
        connection: Connection,
        idle: Arc<IdleSince>,
        origin: &Origin,
        shared: &Arc<Shared>,
        reused: bool,
    ) -> Self {
        Self { connection, idle, origin: origin.clone(), shared: Arc::clone(shared), reused, reusable: true }
    }

    fn give_back(self) {
        if self.reusable && self.connection.meter.request_is_out() {
            let now = self.shared.clock.now();
            self.shared.pool.put(&self.origin, now, self.connection, self.idle);
        }
    }
}

/// The body of an upstream's answer. Read to its end it gives its connection back for the next attempt; dropped
/// before, it closes it.
pub(crate) struct UpstreamBody {
    from: Source,
    /// The longest silence.
    patience: Duration,
    silence: Option<Pin<Box<Sleep>>>,
}

/// Where the body of an answer comes from.
enum Source {
    /// A connection of its own, until it is given back.
    Alone(Incoming, Option<Box<Lease>>),
    /// A stream; `None` once it is given up.
    Stream(Option<StreamBody>),
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = matches!(self.from, Source::Alone(_, Some(_)) | Source::Stream(Some(_)));
        f.debug_struct("UpstreamBody").field("open", &open).finish_non_exhaustive()
    }
}

impl UpstreamBody {
    fn new(body: Incoming, lease: Lease, patience: Duration) -> Self {
        let mut from = Source::Alone(body, Some(Box::new(lease)));
        // An answer without a body (HEAD, 204, 304) is at its end before anybody polls it.
        from.give_back_at_end();
        Self { from, patience, silence: None }
    }

    fn of_stream(body: StreamBody, patience: Duration) -> Self {
        Self { from: Source::Stream(Some(body)), patience, silence: None }
    }
}

impl Source {
    fn give_back_at_end(&mut self) {
        if let Self::Alone(body, lease) = self
            && body.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
    }

    /// Ends what nothing more is wanted of.
    fn give_up(&mut self) {
        match self {
            Self::Alone(_, lease) => *lease = None,
            Self::Stream(body) => *body = None,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Alone(body, lease) => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                if frame.is_none()
                    && let Some(lease) = lease.take()
                {
                    lease.give_back();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Stream(Some(body)) => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Stream(None) => Poll::Ready(None),
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = this.from.poll_frame(cx) else {
            let patience = this.patience;
            let silence = this.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            std::task::ready!(silence.as_mut().poll(cx));
            this.from.give_up();
            let why = format!("the answer's body fell silent for {patience:?}");
            return Poll::Ready(Some(Err(why.into())));
        };
        this.silence = None;
        match &frame {
            Some(Err(_)) => this.from.give_up(),
            Some(Ok(_)) | None => this.from.give_back_at_end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            Source::Alone(body, _) => body.is_end_stream(),
            Source::Stream(body) => body.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            Source::Alone(body, _) => body.size_hint(),
            Source::Stream(body) => body.as_ref().map_or_else(SizeHint::default, Body::size_hint),
        }
    }
}
