//! Intent before send: the layer that makes an item's intent durable when its attempt is about to leave.
//!
//! It sits behind the wait for quota and token, so that an item that was only waiting when the process died is
//! known not to have been sent. Only the first attempt writes: later ones are covered by the same intent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tidegate::clock::Clock;
use tidegate::layer::{Answered, Attempt, AttemptError, BoxFuture};
use tidegate_store::Journal;
use tower::{Layer, Service};

/// Names the item an attempt belongs to, in the extensions of its request.
#[derive(Clone, Debug)]
pub(super) struct Journalled {
    pub(super) seq: u64,
    /// Set once the intent is on disk.
    pub(super) intended: Arc<AtomicBool>,
}

/// Adds [`Intent`].
#[derive(Clone, Debug)]
pub(super) struct IntentLayer {
    pub(super) journal: Arc<Journal>,
    pub(super) clock: Clock,
}

/// Writes the intent before an item's first attempt leaves.
#[derive(Clone, Debug)]
pub(super) struct Intent<S> {
    inner: S,
    layer: IntentLayer,
}

impl<S> Layer<S> for IntentLayer {
    type Service = Intent<S>;

    fn layer(&self, inner: S) -> Intent<S> {
        Intent { inner, layer: self.clone() }
    }
}

impl<S> Service<Attempt> for Intent<S>
where
    S: Service<Attempt, Response = Answered, Error = AttemptError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Answered;
    type Error = AttemptError;
    type Future = BoxFuture<Result<Answered, AttemptError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AttemptError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let IntentLayer { journal, clock } = self.layer.clone();
        Box::pin(async move {
            let item = attempt.request.extensions().get::<Journalled>().cloned();
            if let Some(item) = item.filter(|item| !item.intended.load(Ordering::Acquire)) {
                let intended = journal.intend(vec![item.seq], clock.wall()).await;
                intended.map_err(|error| AttemptError::Stopped(Box::new(error)))?;
                item.intended.store(true, Ordering::Release);
            }
            inner.call(attempt).await
        })
    }
}
