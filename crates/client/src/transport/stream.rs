//! One attempt on a stream of an HTTP/2 connection.
//!
//! What the end of a stream proves is decided in the core ([`StreamEnd`]); here the wire is read for it. A stream whose time is over
//! is reset, which tells the peer to stop and leaves the connection to the others; its outcome is *maybe executed* however
//! little of it was written, because what is queued in a connection cannot be called back with certainty.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use tidegate_core::classify::{Failure, StreamEnd, Wrote};

use super::origin::Origin;
use super::streams::Slot;
use super::{SendError, chain};
use crate::body::{BoxError, RequestBody};

/// Fields of HTTP/1.1 connections, which make a message of HTTP/2 malformed (RFC 9113 §8.2.2), and `Host`, which `:authority`
/// stands for.
const NOT_SENT: [HeaderName; 7] = [
    CONNECTION,
    HOST,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// How an attempt on a stream went.
pub(super) enum Went {
    /// The answer's headers came.
    Answered(Response<StreamBody>),
    /// The connection took no stream: the request is as it was.
    NotOpened(Request<RequestBody>),
    /// It ended without an answer. `http1`: the peer asked for HTTP/1.1.
    Failed { error: SendError, http1: bool },
}

/// Sends `request`, whose target is in origin form, on the stream of `slot`.
pub(super) async fn exchange(
    slot: Slot,
    origin: &Origin,
    request: Request<RequestBody>,
    timeout: Duration,
) -> Went {
    let written = slot.meter().written();
    let Some(mut sender) = slot.sender().await else { return Went::NotOpened(request) };
    let head = head(origin, &request);
    let Ok((answer, outgoing)) = sender.send_request(head, request.body().is_end_stream()) else {
        slot.retire();
        return Went::NotOpened(request);
    };
    drop(sender);
    let mut answer = pin!(answer);
    let mut upload = Upload { outgoing, sent: 0 };
    let mut uploaded = request.body().is_end_stream();
    let mut body = request.into_body();
    loop {
        let before = upload.sent;
        let step = {
            let sending = upload.send(&mut body);
            tokio::time::timeout(timeout, async {
                tokio::select! {
                    biased;
                    answered = &mut answer => Step::Answered(answered),
                    sent = sending, if !uploaded => Step::Uploaded(sent),
                }
            })
            .await
        };
        let error = match step {
            Ok(Step::Answered(Ok(response))) => return Went::Answered(arriving(response, slot)),
            Ok(Step::Answered(Err(error))) => {
                let wrote = wrote(&slot, written, uploaded);
                return ended(&slot, &error, wrote);
            }
            Ok(Step::Uploaded(Ok(()))) => {
                uploaded = true;
                continue;
            }
            Ok(Step::Uploaded(Err(error))) => {
                let error = format!("the request's body could not be read: {error}");
                SendError::new(Failure::Interrupted { whole: false }, error)
            }
            // While a streamed request makes progress the time starts over.
            Err(_) if !uploaded && upload.sent > before => continue,
            Err(_) => {
                let wrote = if uploaded { Wrote::Whole } else { Wrote::Part };
                SendError::new(Failure::TimedOut { wrote }, format!("no answer within {timeout:?}"))
            }
        };
        upload.outgoing.send_reset(Reason::CANCEL);
        return Went::Failed { error, http1: false };
    }
}

enum Step {
    Answered(Result<Response<RecvStream>, h2::Error>),
    Uploaded(Result<(), BoxError>),
}

/// The head of a request as HTTP/2 has it.
fn head(origin: &Origin, request: &Request<RequestBody>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.version_mut() = Version::HTTP_2;
    *head.uri_mut() = origin.uri_of(request.uri());
    let mut headers = request.headers().clone();
    for name in &NOT_SENT {
        headers.remove(name);
    }
    let length = request.body().size_hint().exact();
    if let Some(length) = length.filter(|length| *length > 0 || !request.method().is_safe()) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *head.headers_mut() = headers;
    head
}

/// How much of the request was written. Nothing only if the connection is gone and has written nothing since.
fn wrote(slot: &Slot, before: u64, uploaded: bool) -> Wrote {
    match (slot.meter().is_gone() && slot.meter().written() == before, uploaded) {
        (true, _) => Wrote::Nothing,
        (false, true) => Wrote::Whole,
        (false, false) => Wrote::Part,
    }
}

/// Reads the end of a stream that brought no answer.
fn ended(slot: &Slot, error: &h2::Error, wrote: Wrote) -> Went {
    let end = match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => StreamEnd::Reset(reason.into()),
        // A stream is told of the peer's GOAWAY only if it lies above its last one.
        Some(_) if error.is_go_away() && error.is_remote() => StreamEnd::AboveGoAway,
        Some(_) if error.is_reset() => StreamEnd::Malformed,
        _ => StreamEnd::Lost,
    };
    if end.retires_connection() {
        slot.retire();
    }
    Went::Failed { error: SendError::new(end.failure(wrote), chain(error)), http1: end.wants_http1() }
}

/// A request's body on its way out.
struct Upload {
    outgoing: SendStream<Bytes>,
    /// Bytes that the peer's windows had room for.
    sent: u64,
}

impl Upload {
    /// Sends the rest of `body`. Trailers are not sent, as over HTTP/1.1: what may be sent twice has none.
    ///
    /// A stream that ends meanwhile is no error here: its answer tells how.
    async fn send(&mut self, body: &mut RequestBody) -> Result<(), BoxError> {
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose()?;
            let Some(Ok(mut data)) = frame.map(Frame::into_data) else { break };
            let is_last = body.is_end_stream();
            while !data.is_empty() {
                self.outgoing.reserve_capacity(data.len());
                let Some(Ok(room)) = poll_fn(|cx| self.outgoing.poll_capacity(cx)).await else {
                    return Ok(());
                };
                let part = data.split_to(room.min(data.len()));
                self.sent += part.len() as u64;
                if self.outgoing.send_data(part, is_last && data.is_empty()).is_err() {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
        // Its end is all that is left to tell; a stream that has ended does not want it.
        drop(self.outgoing.send_data(Bytes::new(), true));
        Ok(())
    }
}

fn arriving(response: Response<RecvStream>, slot: Slot) -> Response<StreamBody> {
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    response.map(|stream| {
        // The answer to a HEAD says how long another one would be.
        let left = if stream.is_end_stream() { Some(0) } else { length };
        StreamBody { stream, left, slot: Some(slot) }
    })
}

/// The body of an answer on a stream. Dropped before its end, it resets the stream.
#[derive(Debug)]
pub(super) struct StreamBody {
    stream: RecvStream,
    /// Bytes that are still to come, where they were announced.
    left: Option<u64>,
    slot: Option<Slot>,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        match std::task::ready!(this.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                // What was read is no longer ours to hold back. A connection that has ended needs no such word.
                drop(this.stream.flow_control().release_capacity(data.len()));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => {
                this.slot = None;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                let trailers = std::task::ready!(this.stream.poll_trailers(cx)).transpose();
                this.slot = None;
                Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
