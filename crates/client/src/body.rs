//! Bodies of requests and responses.
//!
//! A request may only be sent twice if its body can be. So a [`RequestBody`] is either held in memory and cheap to
//! clone, or a stream that makes its call a single attempt. What is held in memory by all calls together is bounded
//! by a [`ByteBudget`]; each body holds of it what it is long, and no more.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::transport::UpstreamBody;

/// Any error of a body, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bodies up to this many bytes are read before the ticket, so that they can be sent again. Genesys refuses larger
/// ones with 413 (`request.bytes.max` = 512 000).
pub const REPLAY_CAP: usize = 512_000;

/// The body of a request.
pub struct RequestBody(Source);

enum Source {
    /// Held in memory; can be sent any number of times.
    Replay(Replayable),
    /// A stream; can be sent once.
    Once(UnsyncBoxBody<Bytes, BoxError>),
}

/// Bytes that can be sent again, and the share of the byte budget they hold.
#[derive(Clone)]
struct Replayable {
    bytes: Bytes,
    sent: bool,
    _held: Option<Arc<Held>>,
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
        Self(Source::Once(body.map_err(Into::into).boxed_unsync()))
    }

    /// A second copy, if the body can be sent again.
    pub fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Source::Replay(body) => Some(Self(Source::Replay(Replayable { sent: false, ..body.clone() }))),
            Source::Once(_) => None,
        }
    }

    /// The bytes, if they are held in memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Source::Replay(body) => Some(&body.bytes),
            Source::Once(_) => None,
        }
    }

    /// Whether the body can be sent again.
    pub fn is_replayable(&self) -> bool {
        matches!(self.0, Source::Replay(_))
    }

    /// Reads `body` into memory if it fits into [`REPLAY_CAP`] and into what is free of `budget`; otherwise what
    /// was read is put back in front and the whole stays a stream.
    ///
    /// The budget is taken as the bytes come (at once where the length is announced), so that neither a short body
    /// of unknown length nor a slow one holds more than its own bytes.
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
        let Some(mut held) = budget.hold(announced) else {
            return Ok(Self::once(body));
        };
        let mut read = BytesMut::with_capacity(announced);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(Into::into)?;
            match frame.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                // Trailers end a body, and the connection does not send them: they are no reason to send it only once.
                Err(_trailers) => break,
            }
            let more = read.len().saturating_sub(held.bytes());
            match budget.hold(more) {
                Some(more) if read.len() <= REPLAY_CAP => held.merge(more),
                _ => return Ok(Self::once(Resumed::new(read.freeze(), None, body))),
            }
        }
        let bytes = read.freeze();
        // A body that ended before its announced length gives the rest back.
        let held = held.split(bytes.len());
        Ok(Self(Source::Replay(Replayable { bytes, sent: false, _held: held.map(Arc::new) })))
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Replay(Replayable { bytes, sent: false, _held: None }))
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
        match &self.0 {
            Source::Replay(body) => write!(f, "Replay({} bytes)", body.bytes.len()),
            Source::Once(_) => f.write_str("Once(..)"),
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
        match &mut self.get_mut().0 {
            Source::Replay(body) if body.sent || body.bytes.is_empty() => Poll::Ready(None),
            Source::Replay(body) => {
                body.sent = true;
                Poll::Ready(Some(Ok(Frame::data(body.bytes.clone()))))
            }
            Source::Once(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Replay(body) => body.sent || body.bytes.is_empty(),
            Source::Once(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Replay(body) if body.sent => SizeHint::with_exact(0),
            Source::Replay(body) => SizeHint::with_exact(body.bytes.len() as u64),
            Source::Once(body) => body.size_hint(),
        }
    }
}

/// A stream whose beginning was already read.
#[derive(Debug)]
pub(crate) struct Resumed<B> {
    read: Option<Bytes>,
    next: Option<Frame<Bytes>>,
    rest: B,
}

impl<B> Resumed<B> {
    fn new(read: Bytes, next: Option<Frame<Bytes>>, rest: B) -> Self {
        Self { read: Some(read).filter(|read| !read.is_empty()), next, rest }
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

/// A bound on the bytes of all bodies of a kind held in memory at once.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    free: Arc<Semaphore>,
    /// What it is a part of.
    whole: Option<Arc<Semaphore>>,
}

impl ByteBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))), whole: None }
    }

    /// A part of this budget: so many `bytes` at most, and no more than the whole has left. Parts may be more than the whole
    /// together; then no one of them can take all of it if each is less.
    #[must_use]
    pub fn part(&self, bytes: usize) -> Self {
        let part = Self::new(bytes);
        Self { whole: Some(Arc::clone(&self.free)), ..part }
    }

    /// Bytes that are free now.
    pub fn free(&self) -> usize {
        let whole = self.whole.as_ref().map_or(usize::MAX, |whole| whole.available_permits());
        self.free.available_permits().min(whole)
    }

    /// Takes `bytes` until what it gives is dropped, or `None` if so much is not free.
    pub fn hold(&self, bytes: usize) -> Option<Held> {
        let bytes = u32::try_from(bytes).ok()?;
        let take = |free: &Arc<Semaphore>| Arc::clone(free).try_acquire_many_owned(bytes).ok();
        let part = take(&self.free)?;
        let whole = match &self.whole {
            Some(whole) => Some(take(whole)?),
            None => None,
        };
        Some(Held { part, whole })
    }
}

/// Bytes of a [`ByteBudget`] that are taken; of the whole as many, where it is a part. Dropped, they are free again.
#[derive(Debug)]
pub struct Held {
    part: OwnedSemaphorePermit,
    whole: Option<OwnedSemaphorePermit>,
}

impl Held {
    fn bytes(&self) -> usize {
        self.part.num_permits()
    }

    fn merge(&mut self, more: Self) {
        self.part.merge(more.part);
        if let (Some(whole), Some(more)) = (&mut self.whole, more.whole) {
            whole.merge(more);
        }
    }

    /// `bytes` of it.
    fn split(mut self, bytes: usize) -> Option<Self> {
        let part = self.part.split(bytes)?;
        let whole = match &mut self.whole {
            Some(whole) => Some(whole.split(bytes)?),
            None => None,
        };
        Some(Self { part, whole })
    }
}

/// The body of a response: the upstream's, streamed as it arrives, or bytes held in memory.
///
/// Read it to its end: only then its connection can carry another call. Dropped before, it closes the connection.
#[derive(Debug)]
pub struct ResponseBody(Arriving);

#[derive(Debug)]
enum Arriving {
    /// As it arrives from the upstream.
    Upstream(UpstreamBody),
    /// Held in memory.
    Held(Option<Bytes>),
    /// As it arrives, behind a beginning that was looked at.
    Resumed(Box<Resumed<UpstreamBody>>),
    /// A beginning, and the error that cut the rest.
    Cut(Option<Bytes>, Option<BoxError>),
    /// Made here, piece by piece.
    Made(BoxBody<Bytes, BoxError>),
}

impl ResponseBody {
    /// A body that is made while it is read, such as a stream of events.
    pub fn made(body: impl Body<Data = Bytes, Error = BoxError> + Send + Sync + 'static) -> Self {
        Self(Arriving::Made(body.boxed()))
    }

    /// Reads the beginning, to look into an error's body. Returns what was read and the body as if it had not been
    /// touched: held in memory if it ended within `cap` bytes and in time, otherwise still a stream. An error of the
    /// body is kept for whoever reads it.
    pub async fn peek(self, cap: usize, within: Duration) -> (Bytes, Self) {
        match self.0 {
            Arriving::Upstream(body) => Self::read_on(BytesMut::new(), body, cap, within).await,
            Arriving::Held(Some(bytes)) => (bytes.clone(), Self::from(bytes)),
            other => (Bytes::new(), Self(other)),
        }
    }

    /// Reads on to the end, if that comes within `cap` bytes; a longer body stays a stream. What has not ended in
    /// time is cut: see [`is_cut`](Self::is_cut).
    pub(crate) async fn complete(self, cap: usize, within: Duration) -> Self {
        let (read, body) = match self.0 {
            Arriving::Upstream(body) => (BytesMut::new(), body),
            // With a next frame it is at its trailers.
            Arriving::Resumed(resumed) if resumed.next.is_none() => {
                (resumed.read.unwrap_or_default().into(), resumed.rest)
            }
            other => return Self(other),
        };
        let (read, body) = Self::read_on(read, body, cap, within).await;
        match &body.0 {
            Arriving::Resumed(resumed) if resumed.next.is_none() && read.len() <= cap => {
                let why = format!("the answer's body did not end within {within:?}");
                Self(Arriving::Cut(Some(read), Some(why.into())))
            }
            _ => body,
        }
    }

    /// Whether the body is known to have been cut: it holds a beginning, and reading it ends with an error.
    pub fn is_cut(&self) -> bool {
        matches!(self.0, Arriving::Cut(_, Some(_)))
    }

    /// All of its bytes, if they are held in memory and none was read yet.
    pub fn held(&self) -> Option<&Bytes> {
        match &self.0 {
            Arriving::Held(bytes) => bytes.as_ref(),
            _ => None,
        }
    }

    async fn read_on(
        mut read: BytesMut,
        mut body: UpstreamBody,
        cap: usize,
        within: Duration,
    ) -> (Bytes, Self) {
        let mut late = std::pin::pin!(tokio::time::sleep(within));
        loop {
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = &mut late => return Self::peeked(read, None, body),
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => {
                    let read = read.freeze();
                    return (read.clone(), Self::from(read));
                }
                Some(Ok(Ok(data))) => read.extend_from_slice(&data),
                Some(Ok(Err(trailers))) => return Self::peeked(read, Some(trailers), body),
                Some(Err(error)) => {
                    let read = read.freeze();
                    return (read.clone(), Self(Arriving::Cut(Some(read), Some(error))));
                }
            }
            if read.len() > cap {
                return Self::peeked(read, None, body);
            }
        }
    }

    fn peeked(read: BytesMut, next: Option<Frame<Bytes>>, rest: UpstreamBody) -> (Bytes, Self) {
        let read = read.freeze();
        (read.clone(), Self(Arriving::Resumed(Box::new(Resumed::new(read, next, rest)))))
    }

    /// Reads the whole body, up to `cap` bytes.
    ///
    /// # Errors
    /// The body's own error while reading, or that it is longer than `cap`.
    pub async fn bytes(self, cap: usize) -> Result<Bytes, BoxError> {
        Ok(http_body_util::Limited::new(self, cap).collect().await?.to_bytes())
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self(Arriving::Held(Some(bytes)))
    }
}

impl From<UpstreamBody> for ResponseBody {
    fn from(body: UpstreamBody) -> Self {
        Self(Arriving::Upstream(body))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let held = |bytes: &mut Option<Bytes>| bytes.take().filter(|bytes| !bytes.is_empty());
        match &mut self.get_mut().0 {
            Arriving::Upstream(body) => Pin::new(body).poll_frame(cx),
            Arriving::Resumed(body) => Pin::new(&mut **body).poll_frame(cx),
            Arriving::Held(bytes) => Poll::Ready(held(bytes).map(|bytes| Ok(Frame::data(bytes)))),
            Arriving::Cut(bytes, error) => Poll::Ready(match held(bytes) {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => error.take().map(Err),
            }),
            Arriving::Made(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Arriving::Upstream(body) => body.is_end_stream(),
            Arriving::Resumed(_) => false,
            Arriving::Held(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Arriving::Cut(_, error) => error.is_none(),
            Arriving::Made(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Arriving::Upstream(body) => body.size_hint(),
            Arriving::Resumed(body) => body.size_hint(),
            Arriving::Held(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            // The upstream announced more than came, and nobody knows how much.
            Arriving::Cut(..) => SizeHint::default(),
            Arriving::Made(body) => body.size_hint(),
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

    #[tokio::test]
    async fn a_short_body_of_unknown_length_holds_only_its_own_bytes() {
        let budget = ByteBudget::new(REPLAY_CAP);
        let first = RequestBody::buffer(chunks(&[10, 20]), &budget).await.expect("held");
        assert!(first.is_replayable());
        assert_eq!(budget.free(), REPLAY_CAP - 30);
        drop(first);
        assert_eq!(budget.free(), REPLAY_CAP, "and gives them back");
    }

    #[tokio::test]
    async fn a_part_of_a_budget_takes_no_more_than_its_bound_and_never_the_whole() {
        let whole = ByteBudget::new(100);
        let parts = [whole.part(60), whole.part(60)];
        let body = async |size: usize, part: &ByteBudget| RequestBody::buffer(chunks(&[size]), part).await;
        let first = body(60, &parts[0]).await.expect("held");
        assert!(!body(1, &parts[0]).await.expect("streamed").is_replayable(), "its part is full");
        assert_eq!((whole.free(), parts[1].free()), (40, 40));
        let second = body(40, &parts[1]).await.expect("held");
        assert!(first.is_replayable() && second.is_replayable());
        assert!(!body(1, &parts[1]).await.expect("streamed").is_replayable(), "the whole is full");
        drop((first, second));
        assert_eq!((whole.free(), parts[0].free(), parts[1].free()), (100, 60, 60));
    }

    #[tokio::test]
    async fn a_copy_holds_the_bytes_of_its_original_once() {
        let budget = ByteBudget::new(100);
        let first = RequestBody::buffer(chunks(&[40]), &budget).await.expect("held");
        let copy = first.try_clone().expect("replayable");
        assert_eq!(budget.free(), 60);
        drop(first);
        assert_eq!(budget.free(), 60);
        drop(copy);
        assert_eq!(budget.free(), 100);
    }

    #[tokio::test]
    async fn a_body_that_outgrows_the_budget_while_it_is_read_is_streamed_whole_and_holds_nothing() {
        let budget = ByteBudget::new(25);
        let body = RequestBody::buffer(chunks(&[10, 10, 10]), &budget).await.expect("streamed");
        assert!(!body.is_replayable());
        assert_eq!(budget.free(), 25);
        assert_eq!(body.collect().await.expect("whole").to_bytes().len(), 30);
    }

    #[tokio::test]
    async fn an_error_in_a_body_is_told_and_gives_the_budget_back() {
        let budget = ByteBudget::new(100);
        let frames: [Result<_, &str>; 2] = [Ok(Frame::data(Bytes::from_static(b"half"))), Err("cut")];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let error = RequestBody::buffer(body, &budget).await.expect_err("cut");
        assert_eq!(error.to_string(), "cut");
        assert_eq!(budget.free(), 100);
    }

    #[tokio::test]
    async fn a_body_with_trailers_can_be_sent_again_without_them() {
        let mut fields = http::HeaderMap::new();
        fields.insert("x-sum", http::HeaderValue::from_static("7"));
        let frames: [Result<_, std::convert::Infallible>; 2] =
            [Ok(Frame::data(Bytes::from_static(b"data"))), Ok(Frame::trailers(fields))];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let body = RequestBody::buffer(body, &ByteBudget::new(100)).await.expect("held");
        assert_eq!(body.bytes().expect("held"), "data");
    }
}
