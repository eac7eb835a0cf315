//! An end to request bodies that do not come.
//!
//! A caller's body is read before its call waits for quota, and nothing else bounds that time: the call's own bounds
//! begin when it is whole. So a caller that has crashed or been cut off in the middle of its body would hold its
//! connection, and what of the body is in memory, for ever. What counts is silence and not the whole time, because a
//! large body over a slow connection is no fault.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tidegate::body::BoxError;
use tokio::time::Sleep;

/// The longest silence in a request's body: as long as its head may take.
pub(crate) const BODY_SILENCE: Duration = crate::serve::HEAD_TIMEOUT;

/// A body that ends with an error once nothing of it has come for [`BODY_SILENCE`].
#[derive(Debug)]
pub(crate) struct Heard<B> {
    body: B,
    silent: Option<Pin<Box<Sleep>>>,
}

impl<B> Heard<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body, silent: None }
    }
}

impl<B> Body for Heard<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.silent = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let silent = this.silent.get_or_insert_with(|| Box::pin(tokio::time::sleep(BODY_SILENCE)));
        ready!(silent.as_mut().poll(cx));
        Poll::Ready(Some(Err(format!("nothing of it came for {BODY_SILENCE:?}").into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// A body whose parts come after these seconds each, and which then never ends.
    fn after(seconds: &'static [u64]) -> Heard<impl Body<Data = Bytes, Error = BoxError> + Unpin> {
        let parts = futures_util::stream::iter(seconds).then(|seconds| async move {
            tokio::time::sleep(Duration::from_secs(*seconds)).await;
            Ok(Frame::data(Bytes::from_static(b"x")))
        });
        Heard::new(StreamBody::new(Box::pin(parts.chain(futures_util::stream::pending()))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_is_read_and_a_silent_one_ends() {
        let mut body = after(&[70, 70, 70]);
        for _ in 0..3 {
            assert!(body.frame().await.expect("a part").is_ok());
        }
        let begun = tokio::time::Instant::now();
        let error = body.frame().await.expect("an end").expect_err("silence");
        assert_eq!(error.to_string(), "nothing of it came for 75s");
        assert_eq!(begun.elapsed().as_secs(), 75);
    }
}
