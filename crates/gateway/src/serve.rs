//! The data port: accepts connections, speaks HTTP/1.1, drains.
//!
//! Header names are written in title case because one SDK looks `Retry-After` up in a case-sensitive map. HTTP does
//! not carry the upstream's own spelling through, so `ININ-Correlation-Id` arrives as `Inin-Correlation-Id`. Slow and
//! oversized heads are cut off by hyper's own bounds, connections beyond [`MAX_CONNECTIONS`] wait in the kernel's
//! backlog, and a response whose upstream breaks off resets its caller, so that half an answer is never taken for a
//! whole one.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::proxy::Proxy;

/// Connections served at once. A local gateway serves the programs of one machine; what exceeds this waits.
pub(crate) const MAX_CONNECTIONS: usize = 8192;

/// Connections are kept after an answer while there is room for so many more.
const SCARCE: usize = MAX_CONNECTIONS / 8;

/// A caller must have sent its request's head within this time, and a kept-alive one its next request's.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// The largest head of a request, in bytes. Tokens and cookies fit, abuse does not.
const MAX_HEAD: usize = 64 * 1024;

/// After a failed accept (mostly: out of file descriptors) the listener rests instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `listener` until `stop` says so, then waits for the calls in flight, up to `grace`.
pub(crate) async fn serve(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
            Ok((stream, peer)) => serve_connection(stream, peer.ip(), &proxy, &graceful, &room, place),
            Err(error) => {
                tracing::warn!(target: "tidegate", "cannot accept connections: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let end = Instant::now() + grace;
    if tokio::time::timeout_at(end, graceful.shutdown()).await.is_err() {
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

fn serve_connection(
    stream: TcpStream,
    peer: IpAddr,
    proxy: &Arc<Proxy>,
    graceful: &GracefulShutdown,
    room: &Arc<Semaphore>,
    place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(target: "tidegate", "cannot set TCP_NODELAY: {error}");
    }
    let (proxy, room) = (Arc::clone(proxy), Arc::clone(room));
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, room) = (Arc::clone(&proxy), Arc::clone(&room));
        async move {
            let mut response = proxy.handle(request, peer).await;
            // Where places are scarce they go round: who calls again connects again, behind those who wait for one.
            if room.available_permits() < SCARCE {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    // hyper's own bound of 100 header fields stays: parsed within it, a head needs no allocation of 8 kB.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(target: "tidegate", "connection ended: {error}");
        }
        drop(place);
    });
}
