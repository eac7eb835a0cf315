//! Sends one attempt and says exactly how far it got.
//!
//! Everything above decides by [`Failure`]: whether no byte can have reached the upstream, or whether it may have
//! executed the request. A pool of hyper connections is kept here instead of a ready-made client because that
//! knowledge lives at the connection: which one carried the attempt, whether it was reused, and how many bytes it
//! had written.
//!
//! Rules:
//!
//! * a connection is used again only after the answer was read to its end *and* the request was written to its end;
//!   every other end of an exchange (time-out, dropped future, half-read body, early answer) closes it;
//! * a reused connection that turns out to be closed before a byte was written is replaced at once: nothing happened;
//! * an attempt that timed out is stopped before its outcome is told, so that it cannot leave afterwards;
//! * an answer's body that falls silent for as long as its headers were allowed to take ends with an error.

mod connect;
mod meter;
mod origin;
mod pool;

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

use self::connect::{Connection, Connector};
use self::meter::{Meter, Outgoing};
use self::origin::Origin;
use self::pool::{IdleSince, Pool, Store};
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
            this.lease(&origin, false).await?.give_back();
            Ok(())
        })
    }
}

/// Sends attempts over a pool of HTTP/1.1 connections.
#[derive(Clone, Debug)]
pub struct Transport {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connector: Connector,
    pool: Pool,
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
        Self::among(&Connections::new(clock), connect_timeout)
    }

    /// The same, one of several in a process.
    pub fn among(Connections(common): &Connections, connect_timeout: Duration) -> Self {
        let mut connectors = common.connectors.lock();
        let connector =
            connectors.entry(connect_timeout).or_insert_with(|| Connector::new(connect_timeout)).clone();
        let shared = Shared { connector, pool: Pool::new(&common.store), clock: common.clock };
        Self { shared: Arc::new(shared) }
    }

    async fn exchange(
        &self,
        mut request: Request<RequestBody>,
        options: SendOptions,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let origin = Origin::split_off(&mut request)?;
        let keeps_open = !request.headers().contains_key(CONNECTION);
        loop {
            let mut lease = self.lease(&origin, options.careful).await?;
            let reused = lease.reused;
            let meter = lease.connection.meter.clone();
            let (written, read) = (meter.written(), meter.read());
            let outgoing = request.map(|body| Outgoing::new(body, meter.clone()));
            let sending = lease.connection.sender.try_send_request(outgoing);
            let Some(sent) = within(options.timeout, &meter, sending).await else {
                lease.connection.stop().await;
                let failure = Failure::TimedOut { wrote: meter.wrote_of_request(meter.written() == written) };
                return Err(SendError::new(failure, format!("no answer within {:?}", options.timeout)));
            };
            let mut error = match sent {
                Ok(response) => {
                    lease.reusable = keeps_open && stays_open(&response);
                    return Ok(response.map(|body| UpstreamBody::new(body, lease, options.timeout)));
                }
                Err(error) => error,
            };
            // Nothing can be written any more when the counters are read.
            lease.connection.stop().await;
            let unsent = error.take_message();
            let error = error.into_error();
            request = match unsent {
                Some(back) if reused => back.map(Outgoing::take_back),
                unsent => {
                    let zero = unsent.is_some() || meter.written() == written;
                    return Err(failed(&error, meter.wrote_of_request(zero), meter.read() > read));
                }
            };
        }
    }

    async fn lease(&self, origin: &Origin, careful: bool) -> Result<Lease, SendError> {
        let shared = &self.shared;
        while let Some((mut connection, idle)) = shared.pool.take(origin, shared.clock.now(), careful) {
            let ready = tokio::time::timeout(READY_WITHIN, connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                return Ok(Lease::new(connection, idle, origin, shared, true));
            }
        }
        let idle = Arc::new(IdleSince::default());
        let ended = {
            let (shared, idle) = (Arc::downgrade(shared), Arc::clone(&idle));
            move || {
                if let Some(shared) = shared.upgrade() {
                    shared.pool.ended(&idle, shared.clock.now());
                }
            }
        };
        let connection = shared.connector.connect(origin, ended).await?;
        Ok(Lease::new(connection, idle, origin, shared, false))
    }
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
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
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
    body: Incoming,
    lease: Option<Lease>,
    /// The longest silence.
    patience: Duration,
    silence: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").field("open", &self.lease.is_some()).finish_non_exhaustive()
    }
}

impl UpstreamBody {
    fn new(body: Incoming, lease: Lease, patience: Duration) -> Self {
        let mut this = Self { body, lease: Some(lease), patience, silence: None };
        // An answer without a body (HEAD, 204, 304) is at its end before anybody polls it.
        if this.body.is_end_stream() {
            this.finish();
        }
        this
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
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
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let patience = this.patience;
            let silence = this.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            std::task::ready!(silence.as_mut().poll(cx));
            this.lease = None;
            let why = format!("the answer's body fell silent for {patience:?}");
            return Poll::Ready(Some(Err(why.into())));
        };
        this.silence = None;
        match &frame {
            None => this.finish(),
            Some(Ok(_)) if this.body.is_end_stream() => this.finish(),
            Some(Ok(_)) => {}
            Some(Err(_)) => this.lease = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
