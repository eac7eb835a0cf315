//! Asking the upstream what became of a write.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use serde_json::Value;
use tidegate_core::reconcile::{Finding, ReadRequest, Sight, judge, read_for, see};
use tidegate_core::time::Mono;
use tower::Service;

use super::Reconciled;
use super::quest::{Quest, is_final};
use crate::body::{RequestBody, ResponseBody};
use crate::call::{CallOptions, CallReport, called_off};
use crate::error::{Error, ErrorKind};

/// The wait before the second read; each further one is [`PAUSE_FACTOR`] times as long, so that half a minute costs four
/// reads.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 3;

/// The largest answer to a read that is looked at: a page of a hundred entities has about 200 KB.
const MAX_ANSWER: usize = 4 << 20;

/// What starts with this is said to a gateway of ours in between, and holds for the reads too.
const OURS: &str = "tidegate-";

const BY_READ: Reconciled = Reconciled { by: "confirmed-by-read" };

/// What a look at the upstream comes to.
pub(super) enum Look {
    /// The write was executed; this shows it.
    Applied(Option<Value>, Reconciled),
    /// It was not, and may be sent again.
    Resend,
    /// The answer that came back is the upstream's word on it.
    Stands,
    /// It is not known. `settles`: a later look may tell.
    Unknown { why: String, settles: bool },
}

impl<S> Quest<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>, Error = Error>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    /// Looks until it is known what became of the write, or until looking is no use. `refused`: the upstream refused a
    /// further attempt.
    pub(super) async fn look(&mut self, refused: bool) -> Look {
        let Some(rule) = self.rule() else { return unknown("there is no rule to find it out by", false) };
        let written = self.written();
        let read = match read_for(&rule, &written) {
            Ok(read) => read,
            Err(unfit) => return unknown(&unfit.to_string(), false),
        };
        let signal = self.options.called_off.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let now = self.upstream.clock().now();
            let quiet = now - self.lost_at.unwrap_or(now);
            if self.end().is_some_and(|end| now >= end) {
                return unknown("the time to find it out is over", true);
            }
            let seen = tokio::select! {
                biased;
                () = called_off(signal.clone()) => return unknown("it was called off before it was found out", true),
                seen = self.read(&read) => seen,
            };
            let (status, body) = match seen {
                Ok(seen) => seen,
                Err(error) => {
                    // Asking again would bring the same.
                    let settles = !matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unreadable);
                    return unknown(&format!("it could not be found out: {error}"), settles);
                }
            };
            self.reads += 1;
            let sight = see(&rule, &written, status, body.as_ref());
            let finding = judge(&rule, &written, sight, quiet);
            let settled = quiet >= rule.settle;
            let wait = match finding {
                Finding::Applied => break Look::Applied(shown(sight), BY_READ),
                Finding::Superseded if refused => break Look::Stands,
                Finding::NotApplied if refused && settled => break Look::Stands,
                // Of a write that was overtaken the upstream itself is to say so.
                Finding::Superseded => break Look::Resend,
                Finding::NotApplied if !refused => break Look::Resend,
                Finding::CannotTell => break unknown(&told(sight, status), false),
                Finding::NotApplied | Finding::TooEarly => pause.min(rule.settle.saturating_sub(quiet)),
            };
            pause = pause.saturating_mul(PAUSE_FACTOR);
            let end = self.end().unwrap_or(Mono::MAX);
            tokio::select! {
                () = tokio::time::sleep_until(self.upstream.clock().instant((now + wait).min(end))) => {}
                () = called_off(signal.clone()) => return unknown("it was called off before it was found out", true),
            }
        }
    }

    /// Asks once; the answer's status and JSON.
    pub(super) async fn read(&mut self, read: &ReadRequest) -> Result<(u16, Option<Value>), Error> {
        let invalid = |why: String| {
            Error::new(ErrorKind::Invalid, &read.method, &self.path, CallReport::default()).with_source(why)
        };
        let uri = read.target.parse().map_err(|_| invalid(format!("`{}` is no target", read.target)))?;
        let body =
            read.body.clone().map_or_else(RequestBody::empty, |body| RequestBody::from(Bytes::from(body)));
        let mut request = Request::new(body);
        *request.method_mut() = read.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.extend(
            self.request
                .headers()
                .iter()
                .filter(|(name, _)| name.as_str().starts_with(OURS))
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if read.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let left = self.end().map(|end| end - self.upstream.clock().now());
        request.extensions_mut().insert(CallOptions {
            class: self.options.class,
            caller: self.options.caller,
            credential: self.options.credential.clone(),
            deadline: left,
            max_wait: left,
            idempotent: Some(true),
            ..CallOptions::default()
        });
        let response = self.call(request).await?;
        if !is_final(&response) {
            let why = format!("the read was answered {}", response.status());
            let report = response.extensions().get::<CallReport>().cloned().unwrap_or_default();
            return Err(Error::new(ErrorKind::NoAnswer, &read.method, &self.path, report).with_source(why));
        }
        let status = response.status().as_u16();
        let body = response.into_body().bytes(MAX_ANSWER).await.ok();
        Ok((status, body.and_then(|body| serde_json::from_slice(&body).ok())))
    }
}

fn unknown(why: &str, settles: bool) -> Look {
    Look::Unknown { why: why.to_owned(), settles }
}

fn told(sight: Sight<'_>, status: u16) -> String {
    match sight {
        Sight::Unclear(why) => format!("a read cannot tell: {why} ({status})"),
        Sight::Absent => "a read cannot tell: there is no such entity".to_owned(),
        Sight::Found(_) => "a read cannot tell: the entity is not as it was written".to_owned(),
    }
}

fn shown(sight: Sight<'_>) -> Option<Value> {
    match sight {
        Sight::Found(entity) => Some(entity.clone()),
        Sight::Absent | Sight::Unclear(_) => None,
    }
}
