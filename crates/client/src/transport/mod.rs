//! Sends one attempt and says exactly how far it got.
//!
//! Everything above decides by [`Failure`]: whether no byte can have reached the upstream, or whether it may have
//! executed the request. A pool of hyper connections is kept here instead of a ready-made client because that
//! knowledge lives at the connection: which one carried the attempt, whether it was reused, and how many bytes it
//! had written.

mod connect;
mod meter;
mod pool;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tidegate_core::classify::Failure;
use tokio::time::error::Elapsed;

use self::connect::{Connection, Connector};
use self::pool::{IdleSince, Pool};
use crate::body::{BoxError, RequestBody};
use crate::clock::Clock;

/// A pooled connection that is not ready for another request within this time is busy with its last one.
const READY_TIMEOUT: Duration = Duration::from_millis(50);

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

impl std::error::Error for SendError {}

impl SendError {
    fn new(failure: Failure, source: impl Into<BoxError>) -> Self {
        Self { failure, source: source.into() }
    }
}

/// How one attempt is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// From the first byte sent to the answer's headers. A body that is streamed from its source takes as long as
    /// the source does, so for those it is the longest time without a byte in either direction.
    pub timeout: Duration,
    /// Whether a second execution would do harm: such an attempt gets only a connection that is surely open.
    pub careful: bool,
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

impl Transport {
    /// A transport whose connections must open within `connect_timeout`.
    pub fn new(clock: Clock, connect_timeout: Duration) -> Self {
        let connector = Connector::new(connect_timeout);
        Self { shared: Arc::new(Shared { connector, pool: Pool::default(), clock }) }
    }

    /// Sends `request`, whose URI must be absolute, and returns the answer once its headers are here.
    ///
    /// # Errors
    /// [`SendError`] says how far the attempt got.
    pub async fn send(
        &self,
        mut request: Request<RequestBody>,
        options: SendOptions,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let origin = to_origin_form(&mut request)?;
        let streamed = !request.body().is_replayable();
        let mut lease = self.lease(&origin, options.careful).await?;
        let before = lease.connection.meter.written();
        let sent = exchange(&mut lease.connection, request, options.timeout, streamed).await;
        match sent {
            Ok(Ok(response)) => {
                lease.reusable = !streamed && keeps_alive(&response);
                Ok(response.map(|body| UpstreamBody { body, lease: Some(lease) }))
            }
            Ok(Err(mut error)) => {
                let unsent = error.take_message().is_some();
                let written = lease.connection.meter.written() > before;
                let error = error.into_error();
                Err(SendError::new(failure_of(&error, unsent || !written), explain(&error)))
            }
            Err(_elapsed) => {
                let meter = lease.connection.meter.clone();
                lease.connection.stop().await;
                let failure = Failure::TimedOut { wrote: meter.written() > before };
                Err(SendError::new(failure, format!("no answer within {:?}", options.timeout)))
            }
        }
    }

    /// Whether the origin of `uri` accepts connections; the one that proves it is kept for the next attempt.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn check(&self, uri: &Uri) -> Result<(), SendError> {
        self.lease(uri, false).await?.give_back();
        Ok(())
    }

    async fn lease(&self, origin: &Uri, careful: bool) -> Result<Lease, SendError> {
        let shared = &self.shared;
        let name = origin.to_string();
        while let Some((mut connection, idle)) = shared.pool.take(&name, shared.clock.now(), careful) {
            // Ready at once, unless the other side has closed it, or answered without reading all that it was sent:
            // then the next one is asked.
            if let Ok(Ok(())) = tokio::time::timeout(READY_TIMEOUT, connection.sender.ready()).await {
                return Ok(self.lend(connection, idle, name));
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
        let connection = shared
            .connector
            .connect(origin, ended)
            .await
            .map_err(|error| SendError::new(error.failure, error.source))?;
        Ok(self.lend(connection, idle, name))
    }

    fn lend(&self, connection: Connection, idle: Arc<IdleSince>, origin: String) -> Lease {
        Lease { connection, idle, origin, reusable: true, shared: Arc::clone(&self.shared) }
    }
}

/// Sends on an open connection and waits for the answer's headers.
async fn exchange(
    connection: &mut Connection,
    request: Request<RequestBody>,
    timeout: Duration,
    streamed: bool,
) -> Result<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>, Elapsed> {
    let mut exchange = std::pin::pin!(connection.sender.try_send_request(request));
    let mut written = connection.meter.written();
    loop {
        let sent = tokio::time::timeout(timeout, exchange.as_mut()).await;
        let now_written = connection.meter.written();
        if sent.is_ok() || !streamed || now_written == written {
            return sent;
        }
        written = now_written;
    }
}

/// Whether the connection of this answer serves another request (RFC 9112 §9.3).
fn keeps_alive(response: &Response<Incoming>) -> bool {
    let closes = |value: &HeaderValue| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    response.version() == Version::HTTP_11 && !response.headers().get_all(CONNECTION).iter().any(closes)
}

/// A connection lent to one attempt.
#[derive(Debug)]
struct Lease {
    connection: Connection,
    idle: Arc<IdleSince>,
    origin: String,
    /// Whether another attempt may follow on it.
    reusable: bool,
    shared: Arc<Shared>,
}

impl Lease {
    /// Returns the connection to the pool. One that is closing is dropped: the pool would take its end for a sign of
    /// the upstream's impatience with idle connections.
    fn give_back(self) {
        if !self.reusable {
            return;
        }
        let now = self.shared.clock.now();
        self.shared.pool.put(&self.origin, now, self.connection, self.idle);
    }
}

/// Splits the origin off, leaving the target in origin form with a `Host` that names it.
fn to_origin_form(request: &mut Request<RequestBody>) -> Result<Uri, SendError> {
    let uri = std::mem::take(request.uri_mut()).into_parts();
    let (Some(scheme), Some(authority)) = (uri.scheme, uri.authority) else {
        return Err(SendError::new(Failure::ConnectFailed, "the target is not an absolute URL"));
    };
    let host = HeaderValue::from_str(authority.as_str())
        .map_err(|error| SendError::new(Failure::ConnectFailed, error))?;
    request.headers_mut().insert(HOST, host);
    let target = uri.path_and_query.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query("/")
        .build()
        .map_err(|error| SendError::new(Failure::ConnectFailed, error))
}

fn failure_of(error: &hyper::Error, unsent: bool) -> Failure {
    if unsent {
        Failure::ZeroBytesWritten
    } else if error.is_parse() {
        Failure::AnswerUnreadable
    } else {
        Failure::Interrupted
    }
}

fn explain(error: &hyper::Error) -> String {
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
    text
}

/// The body of an upstream's answer. Read to its end it gives its connection back for the next attempt; dropped
/// before, it closes it.
#[derive(Debug)]
pub struct UpstreamBody {
    body: Incoming,
    lease: Option<Lease>,
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            None => this.finish(),
            Some(Ok(_)) if this.body.is_end_stream() => this.finish(),
            Some(Ok(_)) => {}
            Some(Err(_)) => drop(this.lease.take()),
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

impl UpstreamBody {
    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        // An answer without a body is at its end before anybody polls it.
        if self.body.is_end_stream() {
            self.finish();
        }
    }
}
