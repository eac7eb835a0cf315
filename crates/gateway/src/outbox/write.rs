//! One write on its way.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tidegate::layer::ReconcileBy;
use tidegate::{CallOptions, CallerId, Class, Credential, RequestBody};
use tidegate_core::idempotency::age;
use tidegate_core::outbox::{Ended, Seq};
use tidegate_store::outbox::{Course, Letter, OutboxError};

use super::Outbox;
use super::run::Outcome;
use crate::once::Fate;
use crate::once::key::IDEMPOTENCY_KEY;
use crate::once::later::{Delivered, Intent, is_ordered};
use crate::tenants::Started;

/// A write waits for so long in its tenant's queue; what cannot leave by then comes back when the forecast says. So what waits
/// long waits here, on disk, and not there.
const IN_QUEUE: Duration = Duration::from_mins(1);

/// How soon a write comes back that could not be begun.
const SOON: Duration = Duration::from_secs(5);

/// Notes an entry's intent.
#[derive(Debug)]
struct Noted {
    outbox: Arc<Outbox>,
    seq: Seq,
    failed: OnceLock<OutboxError>,
}

impl Intent for Noted {
    fn intend(&self, key: String) -> BoxFuture<'_, Result<(), OutboxError>> {
        Box::pin(async move {
            let noted = self.outbox.file.intend(self.seq, key, self.outbox.clock.wall()).await;
            noted.inspect_err(|error| drop(self.failed.set(error.clone())))
        })
    }
}

impl Outbox {
    /// Sends a write in a task that can be stopped as long as it has not left.
    pub(super) async fn write(self: &Arc<Self>, letter: Letter, course: &Course) -> Outcome {
        let soon = || Outcome::unsent(Ended::Unsent { retry_after: Some(SOON), ordered: false });
        let Some(index) = self.tenants.find(&letter.tenant) else {
            tracing::warn!(target: "tidegate", "the outbox holds a write for {}, which is no tenant", letter.tenant);
            return Outcome::unsent(Ended::Refused);
        };
        let Ok(served) = self.tenants.start(index).await else { return soon() };
        let Some((request, options)) = self.call(&served, &letter, course) else {
            tracing::warn!(
                target: "tidegate",
                "the outbox holds a write that cannot be sent any more: its credential {} is not configured, or it cannot be read",
                letter.credential
            );
            return Outcome::unsent(Ended::Refused);
        };
        let noted = Arc::new(Noted { outbox: Arc::clone(self), seq: letter.seq, failed: OnceLock::new() });
        let later = served.once.later(request.uri().path(), Arc::clone(&noted) as Arc<dyn Intent>);
        self.under_way.lock().insert(letter.seq, later.clone());
        let sending = {
            let later = later.clone();
            async move { served.once.send_later(&later, request, options).await }
        };
        let task = tokio::spawn(sending);
        later.runs_in(task.abort_handle());
        if self.is_stopping() {
            later.call_off();
        }
        match task.await {
            Ok(_) if noted.failed.get().is_some() => {
                let error = noted.failed.get().expect("it was looked at");
                tracing::warn!(target: "tidegate", "a write of the outbox is not sent: {error}");
                Outcome::unsent(Ended::Unsent { retry_after: Some(SOON), ordered: true })
            }
            Ok(delivered) => outcome(delivered),
            // It was stopped before it left.
            Err(error) if error.is_cancelled() => {
                Outcome::unsent(Ended::Unsent { retry_after: None, ordered: true })
            }
            Err(error) => {
                tracing::error!(target: "tidegate", "a delivery ended badly: {error}");
                Outcome::unsent(Ended::Unknown)
            }
        }
    }

    /// The call that a stored write is; `None` if it cannot be made any more.
    fn call(
        &self,
        served: &Started,
        letter: &Letter,
        course: &Course,
    ) -> Option<(Request<RequestBody>, CallOptions)> {
        let upstream = &served.tenant.upstream;
        let class: Class = letter.class.parse().ok()?;
        let of_classes = Class::ALL.map(|class| upstream.credential_for(class));
        let mut candidates = [upstream.credential_for(class)].into_iter().chain(of_classes);
        let credential = candidates.find(|credential| match credential {
            Credential::Managed(manager) => manager.id().as_str() == letter.credential,
            _ => false,
        })?;
        let headers = headers(&letter.headers)?;
        let now = self.clock.wall();
        let id_header = &upstream.profile().idempotency.header;
        let unnamed = *id_header == IDEMPOTENCY_KEY || !headers.contains_key(id_header);
        let mut options = CallOptions {
            class: Some(class),
            caller: Some(self.caller_of(letter)),
            deadline: letter.deadline.map(|deadline| deadline.since(now).unwrap_or_default()),
            max_wait: Some(IN_QUEUE),
            transaction: unnamed.then(|| letter.transaction.clone()),
            reconcile: Some(ReconcileBy { rule: None, within: Some(IN_QUEUE) }),
            credential: Some(credential.clone()),
            ..CallOptions::default()
        };
        if self.machine.lock().is_doubtful(letter.seq)
            && let Some(first_sent) = course.first_sent
        {
            options.key = course.sent_key.clone().filter(|key| !key.is_empty());
            options.sent_before = Some(age(first_sent, now));
            // What an earlier process left under way had ended when this one opened the file.
            options.lost_before = now.since(course.ended.unwrap_or(self.opened));
        }
        let mut request = Request::new(RequestBody::from(letter.body.clone()));
        *request.method_mut() = letter.method.parse().ok()?;
        *request.uri_mut() = letter.target.parse().ok()?;
        *request.headers_mut() = headers;
        Some((request, options))
    }

    /// Whose share of the quota a write takes: its caller's.
    fn caller_of(&self, letter: &Letter) -> CallerId {
        let with_key = letter.owner.strip_prefix("\nkey ");
        let known = with_key.and_then(|name| self.callers.iter().find(|caller| caller.config.name == name));
        match known {
            Some(caller) => caller.id,
            None if letter.owner.is_empty() => CallerId::named(("outbox", &letter.tenant)),
            None => CallerId::named(letter.owner.as_str()),
        }
    }
}

/// What the end of a call means for its entry.
fn outcome(delivered: Delivered) -> Outcome {
    let Delivered { fate, answer, refused, retry_after, attempts } = delivered;
    let ended = match fate {
        Fate::Done => Ended::Answered,
        Fate::Unknown => Ended::Unknown,
        Fate::Unsent => match (answer.status, refused.as_deref()) {
            // Nothing but a person changes what a credential may do, or what the request is.
            (400 | 401 | 403, None) | (_, Some("invalid-request")) => Ended::Refused,
            (status, refused) => Ended::Unsent { retry_after, ordered: is_ordered(status, refused) },
        },
    };
    Outcome { ended, answer: Some(answer), attempts }
}

/// Header fields as they were written down.
pub(super) fn headers(text: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line.get(colon + 2..)?).ok()?);
    }
    Some(headers)
}
