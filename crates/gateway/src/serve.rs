//! The data port: accepts connections, speaks HTTP/1.1 or HTTP/2, drains.
//!
//! HTTP/2 is spoken to whoever begins with its preface (RFC 9113 §3.3). Its bounds are against two floods: streams that are opened and
//! reset at once (CVE-2023-44487) cost their maker the connection, and so do heads that never end (CONTINUATION).
//!
//! Header names are written in title case because one SDK looks `Retry-After` up in a case-sensitive map. HTTP does
//! not carry the upstream's own spelling through, so `ININ-Correlation-Id` arrives as `Inin-Correlation-Id`. Slow and
//! oversized heads are cut off by hyper's own bounds, connections beyond [`MAX_CONNECTIONS`] wait in the kernel's
//! backlog, and a response whose upstream breaks off resets its caller, so that half an answer is never taken for a
//! whole one.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::http2::Outgoing;
use crate::proxy::Proxy;
use crate::push::Slow;

/// Connections served at once. A local gateway serves the programs of one machine; what exceeds this waits.
pub(crate) const MAX_CONNECTIONS: usize = 8192;

/// Connections are kept after an answer while there is room for so many more.
const SCARCE: usize = MAX_CONNECTIONS / 8;

/// A caller must have sent its request's head within this time, and a kept-alive one its next request's.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// The largest head of a request, in bytes. Tokens and cookies fit, abuse does not.
const MAX_HEAD: usize = 64 * 1024;

/// Calls under way on one connection of HTTP/2. What all connections carry together is bounded by the places of tenants.
const MAX_STREAMS: u32 = 256;

/// Streams that were reset before they were looked at; with more the connection ends (RFC 9113 §10.5).
const MAX_EARLY_RESETS: usize = 20;

/// Streams that were reset for an error of the caller's, over a connection's life.
const MAX_ERROR_RESETS: usize = 256;

/// What of a request's body may come before it is read, and what of an answer waits for its reader. Callers are on this machine.
const STREAM_WINDOW: u32 = 128 * 1024;

/// How often a caller that speaks HTTP/2 is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);

/// After a failed accept (mostly: out of file descriptors) the listener rests instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection is served with.
#[derive(Clone)]
struct Serving {
    builder: auto::Builder<TokioExecutor>,
    proxy: Arc<Proxy>,
    room: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

/// Serves `listener` until `stop` says so, then waits for the calls in flight, up to `grace`.
pub(crate) async fn serve(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let serving = Serving {
        builder: builder(),
        proxy: Arc::clone(&proxy),
        room: Arc::clone(&room),
        stop: stop.clone(),
    };
    loop {
        let place = tokio::select! {
            place = Arc::clone(&room).acquire_owned() => place.expect("the semaphore is never closed"),
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match stream {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(target: "tidegate", "cannot set TCP_NODELAY: {error}");
                }
                serve_connection(stream, peer.ip(), &serving, place);
            }
            Err(error) => {
                tracing::warn!(target: "tidegate", "cannot accept connections: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let end = Instant::now() + grace;
    // Each connection holds a place until it has ended.
    let all = u32::try_from(MAX_CONNECTIONS).expect("a few thousand");
    if tokio::time::timeout_at(end, room.acquire_many(all)).await.is_err() {
        tracing::warn!(target: "tidegate", "calls still in flight after {grace:?} were cut off");
    }
    // A write whose caller hung up has no connection that is waited for.
    let idle = async {
        for (_, served) in proxy.tenants.started() {
            tokio::join!(served.tenant.upstream.idle(), served.once.idle());
        }
    };
    if tokio::time::timeout_at(end, idle).await.is_err() {
        let cut: usize =
            proxy.tenants.started().map(|(_, served)| served.tenant.upstream.writes_in_flight()).sum();
        tracing::warn!(target: "tidegate", "writes not answered within {grace:?}, their outcome is unknown: {cut}");
    }
}

/// Serves one connection, over TLS or not. Which of the two protocols it speaks its first bytes tell.
fn serve_connection<S>(stream: S, peer: IpAddr, serving: &Serving, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Serving { builder, proxy, room, mut stop } = serving.clone();
    let use_of = Arc::new(UseOf::new());
    let noted = Arc::clone(&use_of);
    let slow = Arc::new(Slow::default());
    let too_slow = Arc::clone(&slow);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (proxy, room, noted) = (Arc::clone(&proxy), Arc::clone(&room), Arc::clone(&noted));
        request.extensions_mut().insert(Arc::clone(&slow));
        async move {
            let is_http2 = request.version() == Version::HTTP_2;
            let _call = noted.call(is_http2);
            let mut response = proxy.handle(request, peer).await;
            // Where places are scarce they go round: who calls again connects again, behind those who wait for one.
            if room.available_permits() < SCARCE {
                if is_http2 {
                    noted.leave.notify_one();
                } else {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
            Ok::<_, Infallible>(response.map(Outgoing))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        let mut leaving = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(target: "tidegate", "connection ended: {error}");
                    }
                    break;
                }
                // Who does not read does not let go of it either.
                () = too_slow.told() => {
                    tracing::warn!(target: "tidegate", "a listener that did not read its events was cut off");
                    break;
                }
                _ = stop.wait_for(|stop| *stop), if !leaving => {}
                () = use_of.leave.notified(), if !leaving => {}
                () = use_of.over(), if !leaving => {
                    if !use_of.was_used() {
                        break;
                    }
                }
            }
            connection.as_mut().graceful_shutdown();
            leaving = true;
        }
        drop(place);
    });
}

/// What speaks with callers, by either protocol.
fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).title_case_headers(true);
    // hyper's own bound of 100 header fields stays: parsed within it, a head needs no allocation of 8 kB.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_EARLY_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(2 * STREAM_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    builder
}

/// How a connection is used. One of HTTP/1.1 that is idle ends by hyper's own time for heads; HTTP/2 has none.
#[derive(Debug)]
struct UseOf {
    state: Mutex<Use>,
    /// It is to carry nothing new.
    leave: Notify,
}

#[derive(Debug)]
struct Use {
    /// The protocol, once a request has come.
    is_http2: Option<bool>,
    calls: usize,
    since: Instant,
}

impl UseOf {
    fn new() -> Self {
        let state = Use { is_http2: None, calls: 0, since: Instant::now() };
        Self { state: Mutex::new(state), leave: Notify::new() }
    }

    /// Notes a call until it is dropped.
    fn call(self: &Arc<Self>, is_http2: bool) -> impl Drop + use<> {
        let mut state = self.state.lock();
        state.is_http2 = Some(is_http2);
        state.calls += 1;
        Call(Arc::clone(self))
    }

    fn was_used(&self) -> bool {
        self.state.lock().is_http2.is_some()
    }

    /// Ends once nothing was asked for long enough: of a connection that never asked, or of one of HTTP/2.
    async fn over(&self) {
        loop {
            let wait = {
                let state = self.state.lock();
                match (state.is_http2, state.calls) {
                    (Some(false), _) => None,
                    (_, 0) => Some(state.since + HEAD_TIMEOUT),
                    (_, _) => Some(Instant::now() + HEAD_TIMEOUT),
                }
            };
            let Some(end) = wait else { return std::future::pending().await };
            tokio::time::sleep_until(end).await;
            let state = self.state.lock();
            if state.calls == 0 && state.is_http2 != Some(false) && state.since.elapsed() >= HEAD_TIMEOUT {
                return;
            }
        }
    }
}

/// A call under way.
struct Call(Arc<UseOf>);

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.calls -= 1;
        state.since = Instant::now();
    }
}
