//! Attaches the token, after the wait for the ticket, so that it cannot age in the queue.
//!
//! A 401 is told to the token's manager by generation: it ends that token and no newer one. So the attempt carries
//! which token it was lent; [`Send`](super::Send) tells, because it hears the answer even if the caller has gone. Whether
//! the attempt is sent again is the retry layer's decision.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use tower::{Layer, Service};

use super::{Answered, Attempt, AttemptError, BoxFuture};
use crate::credential::Credential;

/// Adds [`Auth`].
#[derive(Clone, Copy, Debug, Default)]
pub struct AuthLayer;

/// Attaches the call's credential to each attempt.
#[derive(Clone, Debug)]
pub struct Auth<S> {
    inner: S,
}

impl<S> Layer<S> for AuthLayer {
    type Service = Auth<S>;

    fn layer(&self, inner: S) -> Auth<S> {
        Auth { inner }
    }
}

impl<S> Service<Attempt> for Auth<S>
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
        Box::pin(async move {
            let headers = attempt.request.headers_mut();
            match &attempt.call.credential {
                Credential::Managed(manager) => {
                    let lent = manager.lend_by(attempt.send_by).await.map_err(AttemptError::Token)?;
                    headers.insert(AUTHORIZATION, lent.value);
                    attempt.lent = Some((Arc::clone(manager), lent.generation));
                }
                Credential::Bearer(bearer) => {
                    headers.insert(AUTHORIZATION, bearer.value());
                }
                Credential::Anonymous => {}
            }
            inner.call(attempt).await
        })
    }
}
