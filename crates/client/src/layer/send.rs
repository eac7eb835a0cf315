//! The innermost service: one attempt over the wire, within its own time-out.
//!
//! A write that has left outlives its caller: it runs in a task of its own, so that a caller that hangs up cannot
//! cut it in half and leave its outcome unknown. Its ticket is settled in that task too.
//!
//! The answer of a write is read to its end before anything of it is handed on: a caller whose connection is reset in
//! the middle of an answer sends the write again, and what it asked for is done twice. So a cut is found here, where it
//! can still be told (see [`ResponseBody::is_cut`]). Quota and latency are settled by the headers and do not wait for
//! the body.
//!
//! Every answer is told to the gates, the last attempt's and the failed ones' too: a limiter that is fed only by
//! retries never learns that it has overshot. A 401 is told to the token's manager here for the same reason.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use tidegate_core::classify::{Delivery, Failure};
use tidegate_core::observe::{Observation, observe, observe_body, observe_told};
use tidegate_core::pace::{Answer, AnswerKind, Class};
use tidegate_core::profile::Profile;
use tower::Service;

use super::fresh::is_json;
use super::{Answered, Attempt, AttemptError, BoxFuture};
use crate::body::ResponseBody;
use crate::call::Call;
use crate::clock::Clock;
use crate::observe::{AttemptDone, Observers};
use crate::pacer::Ticket;
use crate::transport::{SendError, SendOptions, Wire};

/// How much of a throttle's body is looked into for the limit it names.
const PEEK: usize = 64 * 1024;

/// How much of a write's answer is read before it is handed on. Answers to writes are an entity or a list of outcomes;
/// what is longer is passed on as it comes.
const ANSWER_CAP: usize = 1 << 20;

/// How long a throttle's body is waited for. The gates stay open until it is here, so the wait is short: without it
/// the headers decide.
const PEEK_WITHIN: Duration = Duration::from_secs(1);

/// Sends attempts.
#[derive(Clone, Debug)]
pub struct Send {
    wire: Arc<dyn Wire>,
    profile: Arc<Profile>,
    clock: Clock,
    observers: Observers,
}

impl Send {
    /// A service that sends over `wire` with the time-outs of `profile`, and reads answers by its rules.
    pub fn new(wire: Arc<dyn Wire>, profile: Arc<Profile>, clock: Clock, observers: Observers) -> Self {
        Self { wire, profile, clock, observers }
    }

    /// How long an upstream may take to answer a call.
    fn patience(&self, call: &Call) -> Duration {
        let timeouts = &self.profile.timeouts;
        match (call.class, call.is_read()) {
            (_, false) => timeouts.write,
            (Class::Bulk, true) => timeouts.bulk,
            (_, true) => timeouts.read,
        }
    }

    fn options(&self, call: &Call) -> SendOptions {
        // A read whose answer comes after its deadline is worthless; a write that has left is awaited to its end.
        let left = call.deadline.filter(|_| call.is_read()).map(|deadline| deadline - self.clock.now());
        let timeout = self.patience(call).min(left.unwrap_or(Duration::MAX));
        SendOptions { timeout, careful: !call.is_read() }
    }

    /// Sends, and tells everybody how it ended.
    async fn exchange(self, attempt: Attempt) -> Result<Answered, AttemptError> {
        let Attempt { call, request, ticket, lent, .. } = attempt;
        let left_at = self.clock.now();
        let options = self.options(&call);
        let sent = self.wire.send(request, options).await;
        let took = self.clock.now() - left_at;
        self.observers.attempt(&AttemptDone {
            family: &call.family,
            status: sent.as_ref().ok().map(|response| response.status().as_u16()),
            took,
            failure: sent.as_ref().err().map(|error| error.failure.name()),
        });
        match sent {
            Ok(response) => {
                match (lent, response.status()) {
                    (Some((manager, generation)), StatusCode::UNAUTHORIZED) => manager.rejected(generation),
                    (Some((manager, generation)), status) if status.is_success() => {
                        manager.accepted(generation);
                    }
                    _ => {}
                }
                let (response, seen, throttled) = self.read(&call, response).await;
                if let Some(ticket) = ticket {
                    let answer = Answer { kind: kind_of(response.status(), throttled), observation: &seen };
                    ticket.answered(&answer, &call.family, Some(took));
                }
                Ok(Answered { response, seen, throttled, took })
            }
            // That somebody was in a hurry says nothing of the upstream: what it may have counted stays spent, and that is all.
            Err(error)
                if matches!(error.failure, Failure::TimedOut { .. })
                    && options.timeout < self.patience(&call) =>
            {
                drop(ticket);
                Err(AttemptError::Send(error))
            }
            Err(error) => {
                if let Some(ticket) = ticket {
                    let nothing = Observation::default();
                    let answer = Answer { kind: failure_kind(error.failure), observation: &nothing };
                    ticket.answered(&answer, &call.family, None);
                }
                Err(AttemptError::Send(error))
            }
        }
    }

    /// Reads what an answer says about limits; the body is looked into where it decides whether the answer is a
    /// throttle, where it can name the limit of one, and where the profile says that it describes a limit.
    async fn read(
        &self,
        call: &Call,
        response: Response<ResponseBody>,
    ) -> (Response<ResponseBody>, Observation, bool) {
        let (parts, body) = response.into_parts();
        let Profile { headers, throttle, .. } = &*self.profile;
        let status = parts.status.as_u16();
        let mut seen = observe(headers, parts.status, &parts.headers, self.clock.wall());
        let throttled = throttle.applies(status, &seen, &[]);
        let told = self.profile.body_rule(&call.method, &call.path);
        // Of what was asked for, only JSON can say such things: a download is not held up for it.
        let decides = told.is_some() || throttle.needs_body(status);
        let refused = parts.status.is_client_error() || parts.status.is_server_error();
        if !throttled && !(decides && (refused || is_json(&parts.headers))) {
            return (Response::from_parts(parts, body), seen, false);
        }
        let (read, body) = body.peek(PEEK, PEEK_WITHIN).await;
        if !read.is_empty() {
            observe_body(headers, parts.status, &read, &mut seen);
        }
        let throttled = throttled || throttle.applies(status, &seen, &read);
        if let Some(rule) = told {
            observe_told(rule, &read, throttled, &mut seen);
        }
        if throttled {
            seen.retry_after = seen.retry_after.or_else(|| throttle.wait(status, &seen, &read));
        }
        (Response::from_parts(parts, body), seen, throttled)
    }
}

impl Service<Attempt> for Send {
    type Response = Answered;
    type Error = AttemptError;
    type Future = BoxFuture<Result<Answered, AttemptError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AttemptError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut attempt: Attempt) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if attempt.send_by.is_some_and(|end| this.clock.now() >= end) {
                return Err(AttemptError::TooLate);
            }
            if let Some(ticket) = &mut attempt.ticket {
                ticket.leave();
            }
            attempt.call.count_attempt(this.clock.now());
            if attempt.call.is_read() {
                return this.exchange(attempt).await;
            }
            let counted = attempt.ticket.as_ref().map(Ticket::outlive);
            let within = this.options(&attempt.call).timeout;
            let exchange = this.exchange(attempt);
            outlive_caller(async move {
                let sent = exchange.await;
                let sent = match sent {
                    Ok(answered) => Ok(complete(answered, within).await),
                    Err(error) => Err(error),
                };
                drop(counted);
                sent
            })
            .await
        })
    }
}

/// Reads the answer of a write to its end. One that is a stream by its nature (server-sent events, WHATWG HTML §9.2)
/// has none to wait for.
async fn complete(mut answered: Answered, within: Duration) -> Answered {
    let is_stream = |value: &HeaderValue| value.as_bytes().starts_with(b"text/event-stream");
    if !answered.response.headers().get(CONTENT_TYPE).is_some_and(is_stream) {
        let (parts, body) = answered.response.into_parts();
        answered.response = Response::from_parts(parts, body.complete(ANSWER_CAP, within).await);
    }
    answered
}

async fn outlive_caller(
    exchange: impl Future<Output = Result<Answered, AttemptError>> + std::marker::Send + 'static,
) -> Result<Answered, AttemptError> {
    match tokio::spawn(exchange).await {
        Ok(sent) => sent,
        Err(stopped) => {
            Err(AttemptError::Send(SendError::new(Failure::Interrupted { whole: false }, stopped)))
        }
    }
}

/// What never left costs no quota; what may have left does.
fn failure_kind(failure: Failure) -> AnswerKind {
    if failure.delivery() == Delivery::NotSent { AnswerKind::NotSent } else { AnswerKind::HardFailure }
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
