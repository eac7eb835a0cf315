//! The loop of a call: send, judge, wait, send again.
//!
//! The judgement is [`Attempts`](tidegate_core::retry::Attempts)'s; this layer only carries it out. If the wait for
//! another attempt is refused, the caller gets the upstream's last answer rather than an answer of ours: after
//! something was sent there is never a refusal.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use parking_lot::Mutex;
use tidegate_core::budget::Budget;
use tidegate_core::classify::{Delivery, Facts, Failure, Outcome, is_conflict};
use tidegate_core::pace::{Refusal, RefusalReason};
use tidegate_core::retry::{Attempts, Doubt, Next, RetryPolicy};
use tidegate_core::time::Mono;
use tower::{Layer, Service};

use super::{Answered, Attempt, AttemptError, BoxFuture, Prepared, copy};
use crate::body::{BoxError, RequestBody, ResponseBody};
use crate::call::Call;
use crate::clock::Clock;
use crate::credential::Credential;
use crate::error::{Error, ErrorKind};
use crate::token::TokenError;
use crate::transport::SendError;

/// What a gateway of ours marks an answer with that it gave without sending anything.
const REFUSED: HeaderName = HeaderName::from_static("tidegate-refused");

/// Whether a gateway of ours refused a call for now: it sent nothing, and may send it later. What else it marks so (a key of
/// another write, a body it does not take) it would say again.
pub(super) fn is_held_back(status: StatusCode, headers: &HeaderMap) -> bool {
    headers.contains_key(REFUSED) && matches!(status.as_u16(), 429 | 502 | 503)
}

/// How much of an answer is kept in memory while another attempt is waited for.
const KEEP: usize = 64 * 1024;

/// How long the body of such an answer is waited for; after that it stays a stream.
const KEEP_WITHIN: Duration = Duration::from_secs(1);

/// Adds [`Retry`].
#[derive(Clone, Debug)]
pub struct RetryLayer {
    policy: Arc<RetryPolicy>,
    budget: Arc<Mutex<Budget>>,
    clock: Clock,
}

impl RetryLayer {
    /// Retries by `policy`; all calls of an upstream share one budget of extra load.
    pub fn new(policy: Arc<RetryPolicy>, budget: Arc<Mutex<Budget>>, clock: Clock) -> Self {
        Self { policy, budget, clock }
    }
}

/// Sends a call's attempts until one is to be delivered.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    layer: RetryLayer,
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner, layer: self.clone() }
    }
}

impl<S> Service<Prepared> for Retry<S>
where
    S: Service<Attempt, Response = Answered, Error = AttemptError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = BoxFuture<Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Readiness is asked for per attempt.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, prepared: Prepared) -> Self::Future {
        let inner = self.inner.clone();
        let layer = self.layer.clone();
        Box::pin(async move { Run::new(layer, &prepared).run(inner, prepared.request).await })
    }
}

/// One call's run.
struct Run {
    layer: RetryLayer,
    call: Arc<Call>,
    attempts: Attempts,
    rng: fastrand::Rng,
    /// The upstream's latest answer, to be delivered if no further attempt is possible.
    last: Option<Response<ResponseBody>>,
    /// How the latest attempt without an answer failed, to be told if no further attempt is possible.
    failure: Option<SendError>,
    /// Waits for the token endpoint so far.
    token_waits: u32,
}

/// What to do after an attempt.
enum Step {
    Done(Result<Response<ResponseBody>, Error>),
    /// Send again, not before this instant, because of this.
    Again(Mono, &'static str),
}

/// Why a call waits between its attempts, as its report tells it.
const ORDERED: &str = "ordered by the upstream";
const BACKOFF: &str = "backoff";
const TOKEN: &str = "token endpoint";

fn reason(ordered: bool) -> &'static str {
    if ordered { ORDERED } else { BACKOFF }
}

impl Run {
    fn new(layer: RetryLayer, prepared: &Prepared) -> Self {
        let call = Arc::clone(&prepared.call);
        let replayable = prepared.request.body().is_replayable();
        let facts = call.facts(replayable);
        let rng = fastrand::Rng::with_seed(layer.clock.seed());
        Self {
            attempts: Attempts::new(facts, call.started),
            layer,
            call,
            rng,
            last: None,
            failure: None,
            token_waits: 0,
        }
    }

    async fn run<S>(
        mut self,
        mut inner: S,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Error>
    where
        S: Service<Attempt, Response = Answered, Error = AttemptError>,
    {
        // A write whose earlier sending may have been executed is not sent again where that could do harm.
        if let Err(doubt) = self.attempts.may_start(self.layer.clock.now()) {
            return Err(self.error(ErrorKind::OutcomeUnknown).with_source(doubt.name()));
        }
        let mut next = Some(request);
        loop {
            let Some(request) = next.take() else {
                unreachable!("only a replayable request is sent again");
            };
            next = copy(&request);
            let send_by = self.attempts.send_by();
            let attempt =
                Attempt { call: Arc::clone(&self.call), request, ticket: None, send_by, lent: None };
            let sent = match std::future::poll_fn(|cx| inner.poll_ready(cx)).await {
                Ok(()) => self.unless_called_off(inner.call(attempt)).await,
                Err(error) => Some(Err(error)),
            };
            let Some(sent) = sent else { return self.called_off() };
            let (at, why) = match self.judge(sent, next.is_some()).await {
                Step::Done(result) => return result,
                Step::Again(at, why) => (at, why),
            };
            let now = self.layer.clock.now();
            if at > now {
                self.call.add_wait(at - now, || Arc::from(why));
                tokio::select! {
                    () = tokio::time::sleep_until(self.layer.clock.instant(at)) => {}
                    () = self.call.called_off() => return self.called_off(),
                }
            }
        }
    }

    /// Carries out an attempt; `None` if it is a further one and was called off before it left.
    async fn unless_called_off<T>(&self, attempt: impl Future<Output = T>) -> Option<T> {
        let before = self.call.attempts();
        tokio::pin!(attempt);
        if before > 0 || self.call.further {
            tokio::select! {
                biased;
                sent = &mut attempt => return Some(sent),
                () = self.call.called_off() => {}
            }
            if self.call.attempts() == before {
                return None;
            }
        }
        Some(attempt.await)
    }

    fn called_off(&mut self) -> Result<Response<ResponseBody>, Error> {
        self.ended(|run| run.error(ErrorKind::Stopped).with_source("no further attempt was wanted"))
    }

    async fn judge(&mut self, sent: Result<Answered, AttemptError>, replayable: bool) -> Step {
        match sent {
            Ok(answered) => self.judge_answer(answered, replayable).await,
            Err(AttemptError::Refused(refusal)) => Step::Done(self.refused(&refusal)),
            Err(AttemptError::Token(error)) => self.without_token(error),
            Err(AttemptError::TooLate) => Step::Done(self.too_late()),
            Err(AttemptError::Stopped(why)) => Step::Done(Err(self.stopped(why))),
            Err(AttemptError::Send(error)) => self.judge_failure(error, replayable),
        }
    }

    fn judge_failure(&mut self, error: SendError, replayable: bool) -> Step {
        let retry_at = match self.next(&Outcome::Failed(error.failure)) {
            Next::Retry { at, ordered, .. } if replayable => {
                self.failure = Some(error);
                return Step::Again(at, reason(ordered));
            }
            Next::Unknown { .. } => {
                let unsent = error.failure.delivery() == Delivery::NotSent;
                return Step::Done(Err(self.unknown(unsent).with_source(error)));
            }
            Next::GiveUp { retry_at, .. } => retry_at,
            _ => None,
        };
        let retry_after = retry_at.map(|at| at - self.layer.clock.now());
        Step::Done(Err(self.failed(error).with_retry_after(retry_after)))
    }

    fn failed(&self, error: SendError) -> Error {
        let kind = match (error.failure, error.failure.delivery()) {
            (Failure::AnswerUnreadable, _) => ErrorKind::Unreadable,
            (_, Delivery::NotSent) => ErrorKind::Unreachable,
            _ => ErrorKind::NoAnswer,
        };
        self.error(kind).with_source(error)
    }

    async fn judge_answer(&mut self, answered: Answered, replayable: bool) -> Step {
        let Answered { response, seen, throttled, .. } = answered;
        let status = response.status();
        self.call.note_status(status);
        // A gateway of ours that holds a call back has not sent anything, whatever the status would say otherwise.
        let throttled = throttled || is_held_back(status, response.headers());
        let outcome = Outcome::Answered { status, hint: seen.retry_after, throttled };
        let next = self.next(&outcome);
        if self.attempts.in_doubt() {
            self.call.note_doubtful();
            if is_conflict(status) && matches!(next, Next::Deliver { .. }) {
                self.call.note_settled();
            }
        }
        match next {
            Next::Retry { at, ordered, .. } if replayable => {
                self.keep(response).await;
                Step::Again(at, reason(ordered))
            }
            Next::RefreshToken if replayable => {
                self.keep(response).await;
                Step::Again(self.layer.clock.now(), TOKEN)
            }
            // Who finds out needs the answer itself: it may stand.
            Next::Unknown { why: Doubt::Conflict, .. } if self.call.looked_after => Step::Done(Ok(response)),
            Next::Unknown { .. } => {
                let refused = self.layer.policy.matrix.delivery(&outcome) == Delivery::Refused;
                let why = format!("the upstream answered {status}, which does not tell");
                Step::Done(Err(self.unknown(refused || status == StatusCode::UNAUTHORIZED).with_source(why)))
            }
            Next::Deliver { unauthorized: true } => {
                self.tell_unauthorized();
                Step::Done(Ok(response))
            }
            _ => Step::Done(Ok(super::denied::note(&self.call, response).await)),
        }
    }

    /// The 401 is the answer. A caller's own token is the caller's business, so it is no warning.
    fn tell_unauthorized(&self) {
        let Call { credential, family, .. } = &*self.call;
        self.call.note_unauthorized();
        if matches!(credential, Credential::Managed(_)) {
            tracing::warn!(
                target: "tidegate",
                credential = %credential.id(),
                %family,
                "the upstream rejects the credential's token (401); another one did not help, or could not be tried"
            );
        } else {
            tracing::debug!(target: "tidegate", credential = %credential.id(), %family, "the upstream rejects the token (401)");
        }
    }

    fn next(&mut self, outcome: &Outcome) -> Next {
        let delivery = match outcome.status() {
            Some(StatusCode::UNAUTHORIZED) => Delivery::Refused,
            _ => self.layer.policy.matrix.delivery(outcome),
        };
        self.call.note_delivery(delivery);
        let now = self.layer.clock.now();
        let mut budget = self.layer.budget.lock();
        self.attempts.next(now, outcome, &mut budget, &self.layer.policy, &mut self.rng)
    }

    /// Keeps an answer for the case that no further attempt is possible, off its connection.
    async fn keep(&mut self, response: Response<ResponseBody>) {
        let (parts, body) = response.into_parts();
        let (_, body) = body.peek(KEEP, KEEP_WITHIN).await;
        self.last = Some(Response::from_parts(parts, body));
    }

    /// Waits for the token endpoint where that can help in time.
    fn without_token(&mut self, error: TokenError) -> Step {
        let now = self.layer.clock.now();
        let again = error.retry_after.filter(|_| !error.refused).map(|after| now + after);
        let in_time = again.filter(|at| {
            self.attempts.send_by().map_or(*at - now <= self.layer.policy.hint_ceiling, |end| *at < end)
        });
        // A login host that is away did not order the wait: it is tried as often as an API that is away.
        let policy = &self.layer.policy;
        let most = if error.throttled { policy.max_ordered_waits } else { policy.max_retries };
        match in_time {
            Some(at) if self.token_waits < most => {
                self.token_waits += 1;
                Step::Again(at, TOKEN)
            }
            _ => {
                if error.refused
                    && self.last.as_ref().is_some_and(|last| last.status() == StatusCode::UNAUTHORIZED)
                {
                    // The bare 401 of a token of ours tells the caller nothing; what its endpoint says names the cause.
                    self.last = None;
                    self.failure = None;
                }
                Step::Done(self.ended(|run| run.error(ErrorKind::Token).with_token(error)))
            }
        }
    }

    fn refused(&mut self, refusal: &Refusal) -> Result<Response<ResponseBody>, Error> {
        self.call.note_refusal(refusal.clone());
        self.ended(|run| {
            run.error(ErrorKind::Refused)
                .with_retry_after(Some(refusal.retry_after))
                .with_refusal(refusal.reason)
        })
    }

    /// The time in which an attempt may leave ended while it waited.
    fn too_late(&mut self) -> Result<Response<ResponseBody>, Error> {
        let reason = RefusalReason::CannotMeet { forecast: Duration::ZERO };
        let limit = self.call.report().limit.unwrap_or_else(|| Arc::from(self.call.family.as_str()));
        self.call.note_refusal(Refusal { reason, retry_after: Duration::ZERO, limit });
        self.ended(|run| run.error(ErrorKind::Refused).with_refusal(reason))
    }

    /// A layer of somebody else's stopped the attempt. Its word goes before the upstream's last one, but not before
    /// a doubt.
    fn stopped(&self, why: BoxError) -> Error {
        let stopped =
            if self.attempts.in_doubt() { self.unknown(true) } else { self.error(ErrorKind::Stopped) };
        stopped.with_source(why)
    }

    /// No further attempt is possible: doubt if there is any, else the upstream's last answer, else how the last
    /// attempt failed, else `error`. Only a call that sent nothing is refused.
    fn ended(&mut self, error: impl FnOnce(&Self) -> Error) -> Result<Response<ResponseBody>, Error> {
        if self.attempts.in_doubt() {
            let why = error(self).to_string();
            return Err(self.unknown(true).with_source(why));
        }
        if let Some(last) = self.last.take() {
            return Ok(last);
        }
        let refused = error(self);
        match self.failure.take() {
            Some(failure) => Err(self.failed(failure).with_retry_after(refused.retry_after())),
            None => Err(refused),
        }
    }

    /// The end in doubt. `unsent`: the last attempt is proven not to have been executed, so that only an earlier one
    /// leaves the doubt, and sending again later may settle it.
    fn unknown(&self, unsent: bool) -> Error {
        let settles = unsent && self.attempts.may_start(self.layer.clock.now()).is_ok();
        self.error(ErrorKind::OutcomeUnknown).with_settles(settles)
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, &self.call.method, &self.call.path, self.call.report())
    }
}

impl Call {
    fn facts(&self, replayable: bool) -> Facts {
        let mut facts = Facts::new(self.method.clone());
        facts.idempotent = self.idempotent;
        facts.safe = self.safe;
        facts.dedup = self.key.as_ref().and(self.dedup);
        facts.sent_before = self.sent_before;
        facts.replayable = replayable;
        facts.fresh_for = self.fresh_for;
        facts.refreshable = matches!(self.credential, Credential::Managed(_));
        facts.give_up_at = match (self.give_up_at, self.deadline) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        facts
    }
}
