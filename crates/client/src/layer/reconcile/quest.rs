//! One call on its way to certainty: send, doubt, look, send again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, TRANSFER_ENCODING,
};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use serde_json::Value;
use tidegate_core::classify::{Delivery, is_already_deleted, is_conflict};
use tidegate_core::key::normalise;
use tidegate_core::mark::OutcomeMark;
use tidegate_core::reconcile::{Absent, Conflict, Rule, Sight, Written, read_for, reapply, see};
use tidegate_core::time::Mono;
use tower::{Service, ServiceExt};

use super::look::Look;
use super::{Further, Reconciled, copy, stays_open};
use crate::body::{RequestBody, ResponseBody};
use crate::call::{CallOptions, CallReport};
use crate::error::{Error, ErrorKind};
use crate::observe::{DoubtDone, DoubtEnd};
use crate::upstream::Upstream;

/// How often a write that was found not to have been executed is sent again. What is lost three times in a row is better
/// looked at by a person.
const MOST_RESENDS: u32 = 2;

/// What a gateway of ours marks an answer with that it has given before.
const REPLAYED: &str = "tidegate-replayed";

/// What an answer says of its body, and is not true of another one (RFC 9110 §8).
const OF_THE_BODY: [HeaderName; 7] =
    [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, TRANSFER_ENCODING, ETAG, LAST_MODIFIED];

const ALREADY_DONE: Reconciled = Reconciled { by: OutcomeMark::AlreadyDone.name() };

/// One call on its way to certainty.
pub(super) struct Quest<S> {
    pub(super) inner: S,
    pub(super) upstream: Arc<Upstream>,
    /// The write as it is to be sent next.
    pub(super) request: Request<RequestBody>,
    pub(super) options: CallOptions,
    /// Its normalised path.
    pub(super) path: String,
    began: Mono,
    /// When the latest attempt that may have been executed had ended.
    pub(super) lost_at: Option<Mono>,
    /// How long it had ended by then, if an earlier call sent it.
    earlier: Duration,
    /// Its end was seen, so that what others write from then on is seen too.
    pub(super) watched: bool,
    /// Attempts of the latest send.
    sent: u32,
    /// What all sends of this write came to.
    total: CallReport,
    /// Reads that were answered.
    pub(super) reads: u32,
}

type Answer = Result<Response<ResponseBody>, Error>;

/// How an answer is to be taken.
enum Doubt {
    /// As it is.
    None(Answer),
    /// It is unknown what became of the write.
    Lost(Answer),
    /// The upstream refuses what an earlier attempt may have done.
    Refused(Answer),
    /// There is nothing to delete, and an earlier attempt may have seen to that.
    Gone(Answer),
    /// A gateway in between says that it is done, and cannot say with which answer.
    Done(Answer),
}

impl<S> Quest<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>, Error = Error>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    pub(super) fn new(inner: S, upstream: Arc<Upstream>, mut request: Request<RequestBody>) -> Self {
        let options = request.extensions_mut().remove::<CallOptions>().unwrap_or_default();
        let path = request.uri().path();
        // What cannot be normalised is refused below, before anything is sent.
        let path = normalise(path).map_or_else(|_| path.to_owned(), std::borrow::Cow::into_owned);
        let began = upstream.clock().now();
        let total = CallReport::default();
        Self {
            inner,
            upstream,
            request,
            options,
            path,
            began,
            lost_at: None,
            earlier: Duration::ZERO,
            watched: false,
            sent: 0,
            total,
            reads: 0,
        }
    }

    pub(super) async fn run(mut self) -> Answer {
        let (mut resends, mut reapplied) = (0, 0);
        let mut asks = self.asks_first();
        loop {
            let doubt = if std::mem::take(&mut asks) {
                self.lose(false);
                Doubt::Lost(Err(self.error(ErrorKind::OutcomeUnknown)))
            } else {
                let answer = self.send().await;
                self.doubt(answer)
            };
            let (answer, look) = match doubt {
                Doubt::None(answer) => (self.whole(answer).await, Look::Stands),
                Doubt::Gone(answer) => (answer, Look::Applied(None, ALREADY_DONE)),
                Doubt::Lost(answer) => (answer, self.look(false).await),
                Doubt::Refused(answer) => (answer, self.look(true).await),
                Doubt::Done(answer) => (answer, self.look_for_done().await),
            };
            match look {
                Look::Applied(entity, by) => {
                    self.doubt_ends(DoubtEnd::Confirmed, None);
                    return self.tell(Ok(self.confirmed(entity.as_ref(), by)));
                }
                Look::Resend if self.is_called_off() => {
                    let why = "it was not executed when a read was made, and no further attempt was wanted"
                        .to_owned();
                    return self.give_up(answer, why, true);
                }
                Look::Resend if resends < MOST_RESENDS => {
                    self.doubt_ends(DoubtEnd::Resent, None);
                    resends += 1;
                    // What an earlier process sent was not executed, so this send is the first.
                    self.options.sent_before = None;
                }
                Look::Resend => {
                    let why = "it was sent three times, and lost and not executed each time".to_owned();
                    return self.give_up(answer, why, true);
                }
                Look::Stands => {
                    if !self.conflict(&answer, reapplied) || !self.apply_anew().await? {
                        return self.tell(answer);
                    }
                    reapplied += 1;
                }
                // It was executed: that is more than a read tells that does not show it.
                Look::Unknown { .. } if answer.as_ref().is_ok_and(is_answer_lost) => {
                    return self.tell(answer);
                }
                Look::Unknown { why, settles } => return self.give_up(answer, why, settles),
            }
        }
    }

    /// Whether what an earlier process sent is looked for before it is sent again, though that would do no harm by itself:
    /// others may have written since. Only where its rule believes what it has watched; a deletion, for one, does nothing to what
    /// is gone and never meets another entity.
    fn asks_first(&self) -> bool {
        let wanted = self.options.asks_first && self.options.sent_before.is_some();
        wanted && self.rule().is_some_and(|rule| rule.absent == Absent::Unchanged)
    }

    /// It is unknown what became of the write. `watched`: its last attempt has just ended.
    fn lose(&mut self, watched: bool) {
        if self.sent > 0 {
            (self.lost_at, self.earlier) = (Some(self.upstream.clock().now()), Duration::ZERO);
            self.watched = watched;
        } else if self.lost_at.is_none() {
            // Nothing has left: what is looked for is what earlier calls sent.
            (self.lost_at, self.earlier) = (Some(self.began), self.options.lost_before.unwrap_or_default());
            self.watched = false;
        }
    }

    /// How long ago the last attempt that may have been executed had ended, at least.
    pub(super) fn quiet(&self, now: Mono) -> Duration {
        (now - self.lost_at.unwrap_or(now)).saturating_add(self.earlier)
    }

    /// Looks for a write that is done, perhaps with a refusal: whatever is seen, it is not sent again.
    async fn look_for_done(&mut self) -> Look {
        match self.look(true).await {
            Look::Stands | Look::Resend => {
                let why = "it is done, and a read does not show what it made".to_owned();
                Look::Unknown { why, settles: false }
            }
            look => look,
        }
    }

    /// An answer that says "done", with the entity in place of a body that was cut. As it came where no read shows the entity
    /// as it was written: others may have changed it since.
    async fn whole(&mut self, answer: Answer) -> Answer {
        let response = answer?;
        let cut = response.status().is_success() && response.body().is_cut();
        if !cut || self.options.reconcile.is_none() || self.rule().is_none() {
            return Ok(response);
        }
        // It is certain that it was executed; what a read shows may be late as after a loss.
        self.lose(true);
        let look = self.look(true).await;
        self.lost_at = None;
        let Look::Applied(entity, by) = look else { return Ok(response) };
        let (method, path) = (self.request.method(), &self.path);
        tracing::info!(target: "tidegate", %method, path, "the answer of a write was cut, and completed by a read");
        let mut whole = self.confirmed(entity.as_ref(), by);
        if entity.is_some() {
            *whole.status_mut() = response.status();
        }
        let (mut head, _) = response.into_parts();
        for name in OF_THE_BODY {
            head.headers.remove(name);
        }
        head.headers.extend(std::mem::take(whole.headers_mut()));
        *whole.headers_mut() = head.headers;
        Ok(whole)
    }

    /// Sends the write, all its attempts.
    async fn send(&mut self) -> Answer {
        let mut request = copy(&self.request).expect("only a body in memory gets here");
        request.extensions_mut().insert(self.remaining(&self.options));
        if self.lost_at.is_some() {
            request.extensions_mut().insert(Further);
        }
        let answer = self.call(request).await;
        let report = match &answer {
            Ok(response) => response.extensions().get::<CallReport>().cloned().unwrap_or_default(),
            Err(error) => error.report().clone(),
        };
        self.sent = report.attempts;
        // A further send carries the key of the first.
        self.options.key = report.key.clone().or(self.options.key.take());
        let (attempts, waited) = (self.total.attempts, self.total.waited);
        self.total = report;
        self.total.attempts = self.total.attempts.saturating_add(attempts);
        self.total.waited += waited;
        answer
    }

    pub(super) async fn call(&mut self, request: Request<RequestBody>) -> Answer {
        self.inner.ready().await?.call(request).await
    }

    /// What of the call's own bounds is left.
    fn remaining(&self, options: &CallOptions) -> CallOptions {
        let elapsed = self.upstream.clock().now() - self.began;
        let left = |bound: Option<Duration>| bound.map(|bound| bound.saturating_sub(elapsed));
        // What was lost late is sent again within the time in which it is looked for.
        let looked = self.lost_at.and(self.end()).map(|end| end - self.upstream.clock().now());
        let max_wait = left(options.max_wait).map(|left| left.max(looked.unwrap_or_default()));
        CallOptions { deadline: left(options.deadline), max_wait, ..options.clone() }
    }

    /// Whether an answer leaves doubt, or is one to doubt.
    fn doubt(&mut self, answer: Answer) -> Doubt {
        let response = match answer {
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                self.lose(true);
                return Doubt::Lost(Err(error));
            }
            // Not sent, or stopped: what was lost before is as unknown as it was.
            Err(error) if self.lost_at.is_some() => return Doubt::Lost(Err(error)),
            Err(error) => return Doubt::None(Err(error)),
            Ok(response) => response,
        };
        let status = response.status();
        let (unknown, done) = (is_unknown(&response), is_done_unseen(&response));
        if unknown || done || self.total.doubtful {
            // A gateway in between may tell again what it found out some time ago.
            self.lose(!response.headers().contains_key(REPLAYED));
        }
        if self.lost_at.is_none() {
            Doubt::None(Ok(response))
        } else if done {
            Doubt::Done(Ok(response))
        } else if unknown || !is_final(&response) {
            Doubt::Lost(Ok(response))
        } else if is_already_deleted(self.request.method(), status, self.lost_at.is_some()) {
            Doubt::Gone(Ok(response))
        } else if self.total.settled {
            self.lost_at = None;
            Doubt::None(Ok(response))
        } else if is_conflict(status) || self.conflict_rule().statuses.contains(&status.as_u16()) {
            Doubt::Refused(Ok(response))
        } else {
            self.lost_at = None;
            Doubt::None(Ok(response))
        }
    }

    /// The write as it was sent last, read anew each time: hardly any call needs it.
    pub(super) fn written(&self) -> Written {
        let body = self.request.body().bytes().cloned().unwrap_or_default();
        Written::new(self.request.method().clone(), &*self.path, &body)
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.request.method(), &self.path, self.total.clone())
    }

    /// How long to look for a write that was lost.
    pub(super) fn within(&self) -> Option<Duration> {
        self.options.reconcile.as_ref()?.within
    }

    /// When to stop looking. An attempt may take longer to be lost than anybody waits for quota, so the time to look
    /// counts from the loss.
    pub(super) fn end(&self) -> Option<Mono> {
        let looked = self.within().map(|within| self.lost_at.unwrap_or(self.began) + within);
        let worth = self.options.deadline.map(|deadline| self.began + deadline);
        looked.into_iter().chain(worth).min()
    }

    fn is_called_off(&self) -> bool {
        self.options.called_off.as_ref().is_some_and(|off| *off.borrow())
    }

    pub(super) fn rule(&self) -> Option<Arc<Rule>> {
        let own = self.options.reconcile.as_ref().and_then(|by| by.rule.clone());
        let (method, path) = (self.request.method(), &*self.path);
        own.filter(|rule| rule.applies(method, path))
            .or_else(|| self.upstream.profile().reconcile_rule(method, path).cloned().map(Arc::new))
    }

    /// Which answers are conflicts, and how often the change is applied anew at most.
    fn conflict_rule(&self) -> Conflict {
        let wanted = self.options.conflict.as_ref().and_then(|on| on.conflict.clone());
        wanted.or_else(|| self.rule()?.conflict.clone()).unwrap_or_default()
    }

    /// Whether the change is to be applied anew after this answer.
    fn conflict(&self, answer: &Answer, reapplied: u32) -> bool {
        let (Ok(response), Some(_)) = (answer, &self.options.conflict) else { return false };
        let conflict = self.conflict_rule();
        reapplied < conflict.most && conflict.statuses.contains(&response.status().as_u16())
    }

    /// Puts the change on what the entity is now; false where that cannot be done and the refusal stands.
    async fn apply_anew(&mut self) -> Result<bool, Error> {
        let Some(rule) = self.rule() else { return Ok(false) };
        let written = self.written();
        let Ok(read) = read_for(&rule, &written) else { return Ok(false) };
        let Ok((status, Some(entity))) = self.read(&read).await else { return Ok(false) };
        let Sight::Found(current) = see(&rule, &written, status, Some(&entity)) else {
            return Ok(false);
        };
        let body = self.request.body().bytes().cloned().unwrap_or_default();
        let Some(body) = reapply(&rule, &body, current).map(Bytes::from) else { return Ok(false) };
        let amend = self.options.conflict.as_ref().and_then(|on| on.amend.clone());
        self.options.key = match amend {
            Some(amend) => Some(
                amend
                    .amend(body.clone())
                    .await
                    .map_err(|why| self.error(ErrorKind::Stopped).with_source(why))?,
            ),
            None => None,
        };
        // What was sent under the old body was refused: the new one has no history.
        self.options.sent_before = None;
        self.lost_at = None;
        *self.request.body_mut() = RequestBody::from(body);
        let (method, path) = (self.request.method(), &self.path);
        tracing::info!(target: "tidegate", %method, path, "an entity has changed; the change is applied to its current version");
        Ok(true)
    }

    /// The answer to a write that was found to have been executed: the entity, or nothing where it is gone.
    fn confirmed(&self, entity: Option<&Value>, by: Reconciled) -> Response<ResponseBody> {
        let body = entity.map(Value::to_string).unwrap_or_default();
        let mut response = Response::new(ResponseBody::from(Bytes::from(body)));
        if entity.is_some() {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        } else {
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        let delivery = Some(Delivery::Answered);
        response.extensions_mut().insert(CallReport { delivery, ..self.total.clone() });
        response.extensions_mut().insert(by);
        response
    }

    /// Tells an end, with everything the call went through.
    fn tell(&self, mut answer: Answer) -> Answer {
        let report = match &mut answer {
            Ok(response) => response.extensions_mut().get_mut::<CallReport>(),
            Err(error) => Some(error.report_mut()),
        };
        if let Some(report) = report {
            report.attempts = self.total.attempts;
            report.waited = self.total.waited;
        }
        answer
    }

    fn doubt_ends(&self, ending: DoubtEnd, why: Option<&str>) {
        let (method, reads) = (self.request.method(), self.reads);
        self.upstream.observers().doubt(&DoubtDone { method, path: &self.path, ending, reads, why });
    }

    /// The end in doubt.
    fn give_up(&self, answer: Answer, why: String, settles: bool) -> Answer {
        let answer = self.unknown(answer, why, settles);
        if !answer.as_ref().is_err_and(|error| stays_open(self.options.sent_before, error)) {
            let why = answer.as_ref().err().and_then(Error::source_text);
            self.doubt_ends(DoubtEnd::Unknown, why.as_deref());
        }
        answer
    }

    fn unknown(&self, answer: Answer, why: String, settles: bool) -> Answer {
        let settles = settles && self.rule().is_some();
        let error = match answer {
            // A gateway in between has found out as much, and there is no more to it.
            Ok(response) if mark(&response) == Some(OutcomeMark::Unknown) && !settles => {
                return self.tell(Ok(response));
            }
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                let settles = settles || error.can_settle();
                let why = match error.source_text() {
                    Some(source) => format!("{source}; {why}"),
                    None => why,
                };
                error.with_settles(settles).with_source(why)
            }
            other => {
                let last = match other {
                    Ok(response) => format!("the upstream answered {}", response.status()),
                    Err(error) => error.to_string(),
                };
                let unknown = self.error(ErrorKind::OutcomeUnknown);
                unknown.with_settles(settles).with_source(format!("{why}; {last}"))
            }
        };
        self.tell(Err(error))
    }
}

/// Whether an answer is the upstream's word on a call, and not on its token, its haste or on nothing.
pub(super) fn is_final(response: &Response<ResponseBody>) -> bool {
    let report = response.extensions().get::<CallReport>();
    report.is_some_and(|report| report.delivery == Some(Delivery::Answered))
}

/// What a gateway of ours in between says of an outcome.
fn mark(response: &Response<ResponseBody>) -> Option<OutcomeMark> {
    OutcomeMark::of(response.headers())
}

/// Whether a gateway of ours in between could not find it out, or not yet.
pub(super) fn is_unknown(response: &Response<ResponseBody>) -> bool {
    matches!(mark(response), Some(OutcomeMark::Unknown | OutcomeMark::InFlight))
}

/// Whether a gateway of ours in between knows that it is done, and not what was answered.
fn is_done_unseen(response: &Response<ResponseBody>) -> bool {
    is_answer_lost(response) || mark(response) == Some(OutcomeMark::AnswerNotKept)
}

/// Whether a gateway of ours in between says that the upstream executed it, and that the rest of its answer was cut.
fn is_answer_lost(response: &Response<ResponseBody>) -> bool {
    response.status() == StatusCode::FAILED_DEPENDENCY && mark(response) == Some(OutcomeMark::AnswerLost)
}
