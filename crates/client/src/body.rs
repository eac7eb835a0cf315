//! Bodies of requests and responses.
//!
//! A request may only be sent twice if its body can be. So a body is either [`RequestBody::Replay`], held in memory
//! and cheap to clone, or [`RequestBody::Once`], a stream that makes its call a single attempt. What is held in
//! memory by all calls together is bounded by a [`ByteBudget`].

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::transport::UpstreamBody;

/// Any error of a body, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bodies up to this many bytes are read before the ticket, so that they can be sent again. Genesys refuses larger
/// ones with 413 (`request.bytes.max` = 512 000).
pub const REPLAY_CAP: usize = 512_000;

/// The body of a request.
pub enum RequestBody {
    /// Held in memory; can be sent any number of times.
    Replay(Replayable),
    /// A stream; can be sent once.
    Once(UnsyncBoxBody<Bytes, BoxError>),
}

/// Bytes that can be sent again, and the share of the byte budget they hold.
#[derive(Clone)]
pub struct Replayable {
    bytes: Bytes,
    sent: bool,
    _held: Option<Arc<OwnedSemaphorePermit>>,
}

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        Self::from(Bytes::new())
    }

    /// A body that can be sent once.
    pub fn once<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::Once(body.map_err(Into::into).boxed_unsync())
    }

    /// A second copy, if the body can be sent again.
    pub fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Replay(body) => Some(Self::Replay(Replayable { sent: false, ..body.clone() })),
            Self::Once(_) => None,
        }
    }

    /// The bytes, if they are held in memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Replay(body) => Some(&body.bytes),
            Self::Once(_) => None,
        }
    }

    /// Whether the body can be sent again.
    pub fn is_replayable(&self) -> bool {
        matches!(self, Self::Replay(_))
    }

    /// Reads `body` into memory if it fits into [`REPLAY_CAP`] and into what is free of `budget`; otherwise what
    /// was read is put back in front and the whole stays a stream.
    ///
    /// # Errors
    /// The body's own error while reading.
    pub async fn buffer<B>(mut body: B, budget: &ByteBudget) -> Result<Self, BoxError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Ok(Self::empty());
        }
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > REPLAY_CAP {
            return Ok(Self::once(body));
        }
        let Some(held) = budget.hold(body.size_hint().upper().map_or(REPLAY_CAP, clamp)) else {
            return Ok(Self::once(body));
        };
        let mut read = BytesMut::with_capacity(announced);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(Into::into)?;
            match frame.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                // Trailers cannot be replayed with the bytes, so the rest goes through as a stream.
                Err(trailers) => return Ok(Self::once(Resumed::new(read.freeze(), Some(trailers), body))),
            }
            if read.len() > REPLAY_CAP {
                return Ok(Self::once(Resumed::new(read.freeze(), None, body)));
            }
        }
        Ok(Self::Replay(Replayable { bytes: read.freeze(), sent: false, _held: Some(Arc::new(held)) }))
    }
}

fn clamp(bytes: u64) -> usize {
    usize::try_from(bytes).map_or(REPLAY_CAP, |bytes| bytes.min(REPLAY_CAP))
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self::Replay(Replayable { bytes, sent: false, _held: None })
    }
}

impl From<Vec<u8>> for RequestBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl From<String> for RequestBody {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<&'static str> for RequestBody {
    fn from(text: &'static str) -> Self {
        Self::from(Bytes::from_static(text.as_bytes()))
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies never appear in logs; their size may.
        match self {
            Self::Replay(body) => write!(f, "Replay({} bytes)", body.bytes.len()),
            Self::Once(_) => f.write_str("Once(..)"),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Replay(body) if body.sent || body.bytes.is_empty() => Poll::Ready(None),
            Self::Replay(body) => {
                body.sent = true;
                Poll::Ready(Some(Ok(Frame::data(body.bytes.clone()))))
            }
            Self::Once(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Replay(body) => body.sent || body.bytes.is_empty(),
            Self::Once(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Replay(body) if body.sent => SizeHint::with_exact(0),
            Self::Replay(body) => SizeHint::with_exact(body.bytes.len() as u64),
            Self::Once(body) => body.size_hint(),
        }
    }
}

/// A stream whose beginning was already read.
#[derive(Debug)]
pub struct Resumed<B> {
    read: Option<Bytes>,
    next: Option<Frame<Bytes>>,
    rest: B,
}

impl<B> Resumed<B> {
    fn new(read: Bytes, next: Option<Frame<Bytes>>, rest: B) -> Self {
        Self { read: Some(read), next, rest }
    }
}

impl<B> Body for Resumed<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(read) = self.read.take() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(Ok(next)));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        let pending = self.read.as_ref().map_or(0, Bytes::len) as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + pending);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + pending);
        }
        hint
    }
}

/// A bound on the bytes of all request bodies held in memory at once.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    free: Arc<Semaphore>,
}

impl ByteBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))) }
    }

    /// Takes `bytes` until the permit is dropped, or `None` if so much is not free.
    fn hold(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        Arc::clone(&self.free).try_acquire_many_owned(bytes).ok()
    }
}

/// The body of a response: the upstream's, streamed as it arrives, or bytes held in memory.
#[derive(Debug)]
pub enum ResponseBody {
    /// As it arrives from the upstream.
    Upstream(UpstreamBody),
    /// Held in memory.
    Held(Option<Bytes>),
    /// As it arrives, behind a beginning that was looked at.
    Resumed(Box<Resumed<UpstreamBody>>),
}

impl ResponseBody {
    /// Reads the beginning, to look into an error's body. Returns what was read and the body as if it had not been
    /// touched: held in memory if it ended within `cap` bytes, otherwise still a stream.
    ///
    /// # Errors
    /// The body's own error while reading.
    pub async fn peek(self, cap: usize) -> Result<(Bytes, Self), BoxError> {
        let mut body = match self {
            Self::Upstream(body) => body,
            Self::Held(bytes) => return Ok((bytes.clone().unwrap_or_default(), Self::Held(bytes))),
            Self::Resumed(body) => return Ok((Bytes::new(), Self::Resumed(body))),
        };
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                Err(trailers) => {
                    let read = read.freeze();
                    return Ok((read.clone(), Self::resumed(read, Some(trailers), body)));
                }
            }
            if read.len() > cap {
                let read = read.freeze();
                return Ok((read.clone(), Self::resumed(read, None, body)));
            }
        }
        let read = read.freeze();
        Ok((read.clone(), Self::from(read)))
    }

    /// Reads the whole body, up to `cap` bytes.
    ///
    /// # Errors
    /// The body's own error while reading, or that it is longer than `cap`.
    pub async fn bytes(self, cap: usize) -> Result<Bytes, BoxError> {
        Ok(http_body_util::Limited::new(self, cap).collect().await?.to_bytes())
    }

    fn resumed(read: Bytes, next: Option<Frame<Bytes>>, rest: UpstreamBody) -> Self {
        Self::Resumed(Box::new(Resumed::new(read, next, rest)))
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self::Held(Some(bytes))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            Self::Resumed(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Held(bytes) => {
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream(body) => body.is_end_stream(),
            Self::Resumed(_) => false,
            Self::Held(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(body) => body.size_hint(),
            Self::Resumed(body) => body.size_hint(),
            Self::Held(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn chunks(
        sizes: &[usize],
    ) -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static {
        let frames: Vec<_> = sizes.iter().map(|n| Ok(Frame::data(Bytes::from(vec![b'x'; *n])))).collect();
        StreamBody::new(futures_util::stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_within_the_cap_is_replayable_and_sends_the_same_bytes_twice() {
        let body =
            RequestBody::buffer(Full::new(Bytes::from_static(b"hello")), &ByteBudget::new(1 << 20)).await;
        let body = body.expect("buffered");
        let again = body.try_clone().expect("replayable");
        assert_eq!(body.collect().await.expect("first").to_bytes(), "hello");
        assert_eq!(again.collect().await.expect("second").to_bytes(), "hello");
    }

    #[tokio::test]
    async fn a_body_over_the_cap_is_streamed_whole() {
        let sizes = [300_000, 300_000, 5];
        let body = RequestBody::buffer(chunks(&sizes), &ByteBudget::new(1 << 20)).await.expect("streamed");
        assert!(!body.is_replayable());
        let sent = body.collect().await.expect("whole").to_bytes();
        assert_eq!(sent.len(), sizes.iter().sum::<usize>());
    }

    #[tokio::test]
    async fn a_body_beyond_the_byte_budget_is_streamed() {
        let budget = ByteBudget::new(8);
        let first =
            RequestBody::buffer(Full::new(Bytes::from_static(b"12345678")), &budget).await.expect("held");
        let second =
            RequestBody::buffer(Full::new(Bytes::from_static(b"9")), &budget).await.expect("streamed");
        assert!(first.is_replayable());
        assert!(!second.is_replayable());
        drop(first);
        let third = RequestBody::buffer(Full::new(Bytes::from_static(b"9")), &budget).await.expect("held");
        assert!(third.is_replayable());
    }
}
