//! Connections that carry many attempts at once (HTTP/2), and who may open the next one.
//!
//! HTTP/2 is spoken by the `h2` crate itself and not through hyper's client: hyper answers an attempt whose connection learns of
//! a GOAWAY while the attempt is being opened with that GOAWAY, although its stream may lie below it and be executed. Here a
//! stream's end is asked of the stream.
//!
//! Rules:
//!
//! * an attempt is opened only where the peer's `SETTINGS_MAX_CONCURRENT_STREAMS` leaves room for it at once; where no connection has
//!   room another one is opened, as with HTTP/1.1. What waited inside a connection could not be proven unsent;
//! * a connection without streams ends after as long as an idle one of HTTP/1.1;
//! * while streams are open the peer is asked by PING whether it is still there; an idle one is not asked, because some servers
//!   count that as abuse;
//! * windows are fixed. Answers here are documents and pages of lists; windows that adapt cost a PING per measurement.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use parking_lot::Mutex;
use tidegate_core::classify::Failure;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};

use super::SendError;
use super::meter::{Meter, Metered};
use super::origin::Origin;
use super::pool::{IdleSince, MAX_IDLE_TIME};
use crate::clock::Clock;

/// Streams on one connection, however many the peer allows: what a connection takes with it when it breaks is bounded. RFC 9113
/// §6.5.2 recommends that peers allow no fewer.
const MAX_STREAMS: usize = 100;

/// What of one answer may be under way unread. 100 Mbit/s over 80 ms fill one such window.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same for all answers of a connection.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The largest head of an answer, in bytes as RFC 9113 §6.5.2 counts them. CONTINUATION frames beyond it end the connection.
const MAX_HEAD: u32 = 64 * 1024;

/// How often a peer with open streams is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);

/// How long it may take to answer.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Connections to one origin that may be being opened at once, once it is known to speak HTTP/2.
const DIALS: usize = 8;

/// What is told of a connection that ends before its peer has said a word of HTTP/2.
const NOT_HTTP2: &str = "the upstream closed the connection before it answered in HTTP/2 (if it speaks HTTP/1.1 only, leave http2 at auto)";

/// What [`Many::in_use`] is once the connection takes no stream any more.
const SHUT: usize = usize::MAX;

/// A connection that carries many attempts.
#[derive(Debug)]
pub(super) struct Many {
    sender: SendRequest<Bytes>,
    pub(super) meter: Meter,
    in_use: AtomicUsize,
    /// It is to carry nothing new.
    retired: AtomicBool,
    idle: Arc<IdleSince>,
    clock: Clock,
}

impl Many {
    /// Speaks HTTP/2 over `stream`. `on_end` runs when the connection ends.
    pub(super) async fn open<T>(
        stream: T,
        clock: Clock,
        idle: Arc<IdleSince>,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Arc<Self>, SendError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, meter) = Metered::new(stream);
        let (sender, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            // Until the peer has said how many it allows. The standard lets a client guess; a wrong guess waits unseen.
            .initial_max_send_streams(0)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|error| SendError::new(Failure::ConnectFailed, error))?;
        let pings = connection.ping_pong();
        let many = Arc::new(Self {
            sender,
            meter,
            in_use: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            idle,
            clock,
        });
        let weak = Arc::downgrade(&many);
        let (allows, allowed) = oneshot::channel();
        tokio::spawn(async move {
            let mut allows = Some(allows);
            let driven = std::future::poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                if connection.max_concurrent_send_streams() > 0 {
                    // Nobody waits for it where the time for the connection is over.
                    allows.take().map(|allows| allows.send(()));
                }
                polled
            });
            let watched = async {
                let Some(mut pings) = pings else { return std::future::pending().await };
                loop {
                    tokio::time::sleep(PING_EVERY).await;
                    // Nobody holds it any more, so it has no streams: h2 itself does not notice until a byte comes.
                    let Some(many) = weak.upgrade() else { return };
                    let over = many.is_over(&mut pings).await;
                    if over {
                        return;
                    }
                }
            };
            tokio::select! {
                // Its error reaches the attempts in flight through their streams; here it only means "ended".
                ended = driven => drop(ended),
                () = watched => {}
            }
            if let Some(many) = weak.upgrade() {
                many.retired.store(true, Ordering::Release);
            }
            on_end();
        });
        match allowed.await {
            Ok(()) => Ok(many),
            Err(_ended) => Err(SendError::new(Failure::ConnectFailed, NOT_HTTP2)),
        }
    }

    /// Whether the connection is to end: nobody needed it for long enough, or the peer is not there.
    async fn is_over(&self, pings: &mut PingPong) -> bool {
        if self.in_use.load(Ordering::Acquire) > 0 {
            return !matches!(tokio::time::timeout(PONG_WITHIN, pings.ping(Ping::opaque())).await, Ok(Ok(_)));
        }
        let now = self.clock.now();
        self.idle.get().is_some_and(|since| now - since >= MAX_IDLE_TIME)
            && self.in_use.compare_exchange(0, SHUT, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes the place of one stream.
    fn slot(self: &Arc<Self>) -> Option<Slot> {
        if self.retired.load(Ordering::Acquire) {
            return None;
        }
        let room = self.sender.current_max_send_streams().min(MAX_STREAMS);
        let more = |used: usize| (used < room).then(|| used + 1);
        self.in_use.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        self.idle.clear();
        Some(Slot(Arc::clone(self)))
    }

    fn is_gone(&self) -> bool {
        self.retired.load(Ordering::Acquire) || self.in_use.load(Ordering::Acquire) == SHUT
    }
}

/// The place of one stream on a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Many>);

impl Slot {
    /// What opens the stream; `None` if the connection takes none any more.
    pub(super) async fn sender(&self) -> Option<SendRequest<Bytes>> {
        let mut sender = self.0.sender.clone();
        // Ready at once: what it would wait for is a stream of its own that found no room.
        let ready = std::future::poll_fn(|cx| match sender.poll_ready(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(true),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(false),
        })
        .await;
        if !ready {
            self.retire();
        }
        ready.then_some(sender)
    }

    /// What the connection moved.
    pub(super) fn meter(&self) -> &Meter {
        &self.0.meter
    }

    /// Nothing new is opened on this connection; what is open goes on.
    pub(super) fn retire(&self) {
        self.0.retired.store(true, Ordering::Release);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.0.in_use.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.set(self.0.clock.now());
        }
    }
}

/// What is known of the origins of one transport that may speak HTTP/2.
#[derive(Debug, Default)]
pub(super) struct Hubs(Mutex<HashMap<Origin, Arc<Hub>>>);

impl Hubs {
    /// What is known of `origin`.
    pub(super) fn of(&self, origin: &Origin) -> Arc<Hub> {
        let mut hubs = self.0.lock();
        if let Some(hub) = hubs.get(origin) {
            return Arc::clone(hub);
        }
        Arc::clone(hubs.entry(origin.clone()).or_default())
    }
}

/// What an origin was found to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Spoken {
    /// Nobody has asked.
    #[default]
    Unknown,
    /// HTTP/1.1 when it was last asked.
    Http1,
    /// HTTP/2 when it was last asked.
    Http2,
    /// It asked for HTTP/1.1.
    OnlyHttp1,
}

/// One origin: the connections to it that carry many attempts, and who may open another.
#[derive(Debug)]
pub(super) struct Hub {
    open: Mutex<(Spoken, Vec<Arc<Many>>)>,
    /// One until it is known what the origin speaks: a herd at the start would open a connection each, for one that carries all.
    pub(super) dials: Semaphore,
}

impl Default for Hub {
    fn default() -> Self {
        Self { open: Mutex::default(), dials: Semaphore::new(1) }
    }
}

impl Hub {
    pub(super) fn spoken(&self) -> Spoken {
        self.open.lock().0
    }

    /// Notes what the origin speaks.
    pub(super) fn learn(&self, spoken: Spoken) {
        let mut open = self.open.lock();
        if open.0 == Spoken::Unknown {
            self.dials.add_permits(DIALS - 1);
        }
        if open.0 != Spoken::OnlyHttp1 {
            open.0 = spoken;
        }
    }

    /// The place of a stream on an open connection: the oldest that has room, so that the others can end. `usable` says by since
    /// when it is idle whether a connection may be used.
    pub(super) fn slot(&self, usable: impl Fn(&IdleSince) -> bool) -> Option<Slot> {
        let mut open = self.open.lock();
        open.1.retain(|many| !many.is_gone());
        open.1.iter().filter(|many| usable(&many.idle)).find_map(Many::slot)
    }

    /// Adds a connection that was opened, and takes the first place on it.
    pub(super) fn add(&self, many: &Arc<Many>) -> Option<Slot> {
        self.learn(Spoken::Http2);
        let slot = many.slot();
        self.open.lock().1.push(Arc::clone(many));
        slot
    }
}
