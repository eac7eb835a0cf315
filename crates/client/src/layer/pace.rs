//! Holds each attempt until every limit has room for it.
//!
//! The ticket travels with the attempt, and [`Send`](super::Send) settles it with what the answer said: at the place
//! that outlives the caller of a write, so that an answer nobody waits for any more still teaches the gates.

use std::sync::Arc;
use std::task::{Context, Poll};

use tidegate_core::pace::Ask;
use tower::{Layer, Service};

use super::{Answered, Attempt, AttemptError, BoxFuture};
use crate::pacer::Pacer;

/// Adds [`Pace`].
#[derive(Clone, Debug)]
pub struct PaceLayer {
    pacer: Pacer,
}

impl PaceLayer {
    /// Paces by the gates of `pacer`.
    pub fn new(pacer: Pacer) -> Self {
        Self { pacer }
    }
}

/// Gives each attempt a ticket before it leaves.
#[derive(Clone, Debug)]
pub struct Pace<S> {
    inner: S,
    layer: PaceLayer,
}

impl<S> Layer<S> for PaceLayer {
    type Service = Pace<S>;

    fn layer(&self, inner: S) -> Pace<S> {
        Pace { inner, layer: self.clone() }
    }
}

impl<S> Service<Attempt> for Pace<S>
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

    fn call(&mut self, mut attempt: Attempt) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let PaceLayer { pacer } = self.layer.clone();
        Box::pin(async move {
            let call = Arc::clone(&attempt.call);
            let credential = call.credential.id();
            let ask = Ask {
                method: &call.method,
                path: &call.path,
                family: &call.family,
                credential: &credential,
                token: call.credential.token_slot(),
                class: call.class,
                caller: call.caller,
                deadline: call.deadline,
                give_up_at: attempt.send_by,
            };
            let ticket = pacer.acquire(&ask).await.map_err(AttemptError::Refused)?;
            call.add_wait(ticket.waited(), || ticket.limit());
            attempt.ticket = Some(ticket);
            inner.call(attempt).await
        })
    }
}
