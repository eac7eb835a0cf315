//! Counts what a connection wrote and read.
//!
//! Whether a failed write may be sent again depends on whether a single byte of it can have reached the upstream.
//! hyper does not tell, so the connection's stream is wrapped and every accepted byte is counted. The count is
//! taken above TLS: bytes that the TLS layer holds back are counted as written, which errs to the safe side.
//!
//! An upstream may answer before it has read the whole request (413 to an upload). So the meter also knows whether
//! the request is wholly out: only then may its connection carry another one.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tidegate_core::classify::Wrote;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::{BoxError, RequestBody};

/// What one connection moved so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    read: AtomicU64,
    /// Bytes were written after the last complete flush.
    unflushed: AtomicBool,
    /// The body of the current request is not wholly handed over.
    uploading: AtomicBool,
    /// The body of the current request was given up before its end.
    cut: AtomicBool,
    /// The stream is dropped.
    gone: AtomicBool,
}

impl Meter {
    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.0.written.load(Ordering::Acquire)
    }

    /// Bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.0.read.load(Ordering::Acquire)
    }

    /// Whether the connection's stream is dropped, so that nothing more can be written.
    pub(super) fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Acquire)
    }

    /// Whether the request in progress still has a body to hand over.
    pub(super) fn is_uploading(&self) -> bool {
        self.0.uploading.load(Ordering::Acquire)
    }

    /// Whether the request is out, to its last byte.
    pub(super) fn request_is_out(&self) -> bool {
        !self.is_uploading() && !self.0.unflushed.load(Ordering::Acquire)
    }

    /// How much of the request in progress was written, if `zero` tells whether anything was. Exact only once the
    /// connection has stopped.
    pub(super) fn wrote_of_request(&self, zero: bool) -> Wrote {
        match (zero, self.request_is_out() && !self.0.cut.load(Ordering::Acquire)) {
            (true, _) => Wrote::Nothing,
            (false, true) => Wrote::Whole,
            (false, false) => Wrote::Part,
        }
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.0.unflushed.store(true, Ordering::Release);
            self.0.written.fetch_add(*bytes as u64, Ordering::Release);
        }
    }
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(super) struct Metered<T> {
    stream: T,
    meter: Meter,
}

impl<T> Metered<T> {
    /// Wraps `stream`.
    pub(super) fn new(stream: T) -> (Self, Meter) {
        let meter = Meter::default();
        (Self { stream, meter: meter.clone() }, meter)
    }
}

impl<T> Drop for Metered<T> {
    fn drop(&mut self) {
        self.meter.0.gone.store(true, Ordering::Release);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.meter.0.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Release);
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.meter.wrote(&outcome);
        outcome
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        // hyper flushes the stream only when its own buffer is empty, so this speaks of everything it was given.
        if matches!(outcome, Poll::Ready(Ok(()))) {
            this.meter.0.unflushed.store(false, Ordering::Release);
        }
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.meter.wrote(&outcome);
        outcome
    }
}

/// A request's body on its way out. hyper drops it as soon as it has taken all of it, and holds it for as long as
/// something is left: its drop is what ends the upload. A connection that breaks drops it too; whether its end had been
/// reached by then tells the one from the other.
pub(super) struct Outgoing {
    body: RequestBody,
    meter: Meter,
    ended: bool,
}

impl Outgoing {
    /// `body`, on the connection of `meter`.
    pub(super) fn new(body: RequestBody, meter: Meter) -> Self {
        meter.0.uploading.store(!body.is_end_stream(), Ordering::Release);
        meter.0.cut.store(false, Ordering::Release);
        Self { body, meter, ended: false }
    }

    /// The body, which was not touched.
    pub(super) fn take_back(mut self) -> RequestBody {
        std::mem::replace(&mut self.body, RequestBody::empty())
    }

    /// Whether all of it was taken. hyper stops asking where the announced length is reached.
    fn is_whole(&self) -> bool {
        self.ended || self.body.is_end_stream() || self.body.size_hint().upper() == Some(0)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.meter.0.cut.store(!self.is_whole(), Ordering::Release);
        self.meter.0.uploading.store(false, Ordering::Release);
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body.fmt(f)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        this.ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
