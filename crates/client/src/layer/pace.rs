//! Holds each attempt until every limit has room for it, and tells the gates what every answer said.
//!
//! Every answer counts, the last attempt's and the failed ones' too: a limiter that is fed only by retries never
//! learns that it has overshot.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use tidegate_core::observe::{Observation, observe, observe_body};
use tidegate_core::pace::{Answer, AnswerKind, Ask};
use tidegate_core::profile::Profile;
use tower::{Layer, Service};

use super::{Answered, Attempt, AttemptError, BoxFuture, peek};
use crate::clock::Clock;
use crate::pacer::Pacer;
use crate::transport::SendError;

/// How much of a throttle's body is looked into for the limit it names.
const PEEK: usize = 64 * 1024;

/// Adds [`Pace`].
#[derive(Clone, Debug)]
pub struct PaceLayer {
    pacer: Pacer,
    profile: Arc<Profile>,
    clock: Clock,
}

impl PaceLayer {
    /// Paces by the gates of `pacer` and reads answers by the rules of `profile`.
    pub fn new(pacer: Pacer, profile: Arc<Profile>, clock: Clock) -> Self {
        Self { pacer, profile, clock }
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
        let PaceLayer { pacer, profile, clock } = self.layer.clone();
        Box::pin(async move {
            let call = Arc::clone(&attempt.call);
            let asked_at = clock.now();
            let credential = call.credential.id();
            let ticket = pacer
                .acquire(&Ask {
                    method: &call.method,
                    path: &call.path,
                    family: &call.family,
                    credential: &credential,
                    token: call.credential.token_slot(),
                    class: call.class,
                    deadline: call.deadline,
                    give_up_at: call.give_up_at,
                })
                .await
                .map_err(AttemptError::Refused)?;
            call.add_wait(clock.now() - asked_at, || ticket.limit());
            attempt.departure = Some(ticket.departure());
            match inner.call(attempt).await {
                Ok(answered) => {
                    let answered = read(&profile, &clock, answered).await;
                    let kind = kind_of(answered.response.status(), answered.throttled);
                    let answer = Answer { kind, observation: &answered.seen };
                    ticket.answered(&answer, &call.family, Some(answered.took));
                    Ok(answered)
                }
                Err(AttemptError::Send(error)) => {
                    let nothing = Observation::default();
                    let answer = Answer { kind: AnswerKind::HardFailure, observation: &nothing };
                    ticket.answered(&answer, &call.family, None);
                    Err(AttemptError::Send(error))
                }
                // Nothing was sent: the ticket's drop gives it back.
                Err(error) => Err(error),
            }
        })
    }
}

/// Reads what an answer says about limits; a throttle's body is looked into as well.
async fn read(profile: &Profile, clock: &Clock, answered: Answered) -> Answered {
    let Answered { response, took, .. } = answered;
    let status = response.status();
    let mut seen = observe(&profile.headers, status, response.headers(), clock.wall());
    let (read, response) = if profile.throttle.needs_body(status.as_u16()) {
        peek(response, PEEK).await
    } else {
        (Bytes::new(), response)
    };
    if !read.is_empty() {
        observe_body(&profile.headers, status, &read, &mut seen);
    }
    let throttled = profile.throttle.applies(status.as_u16(), &seen, &read);
    Answered { response, seen, throttled, took }
}

fn kind_of(status: StatusCode, throttled: bool) -> AnswerKind {
    if throttled {
        AnswerKind::Throttled
    } else if status == StatusCode::UNAUTHORIZED {
        AnswerKind::Unauthorized
    } else if status == StatusCode::NOT_FOUND {
        AnswerKind::NotFound
    } else if status.is_server_error() {
        AnswerKind::HardFailure
    } else {
        AnswerKind::Accepted
    }
}

impl From<SendError> for AttemptError {
    fn from(error: SendError) -> Self {
        Self::Send(error)
    }
}
