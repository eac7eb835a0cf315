//! The gateway's own answers.
//!
//! They are shaped like the upstream's errors, so that an SDK reads them as it reads any other, and marked, so that
//! a person can tell whose they are. A `Retry-After` of ours is always a whole number from 1 to 180: the Python SDK
//! crashes on fractions, the Go SDK does not wait longer than 180 s.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tidegate::transport::SendError;
use tidegate::{Error, ErrorKind, ResponseBody, Upstream};
use tidegate_core::classify::{Delivery, Failure};
use tidegate_core::mark::{OUTCOME, OutcomeMark};
use tidegate_core::observe::observe;
use tidegate_core::pace::RefusalReason;
use tidegate_core::profile::ErrorShape;

use crate::hygiene::{Refused, clean_response};
use crate::shape::error_body;

/// Marks an answer as the gateway's, with the reason nothing was sent.
pub(crate) const REFUSED: HeaderName = HeaderName::from_static("tidegate-refused");

/// Marks an answer that was given before, to an earlier or another sending of the same write.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("tidegate-replayed");

/// The longest wait we name; the caller asks again after it.
const MAX_RETRY_AFTER: u64 = 180;

/// When to ask again where nothing tells when the upstream can be reached: soon enough for a restart, and no storm.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Whole seconds, at least 1 and at most 180, never less than `wait` within that.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    let whole = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    whole.clamp(1, MAX_RETRY_AFTER)
}

/// The upstream's own answer, in terms that every SDK can read.
pub(crate) fn of_upstream(
    upstream: &Upstream,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let status = response.status();
    let headers = response.headers_mut();
    clean_response(headers);
    if headers.contains_key(RETRY_AFTER) {
        let seen = observe(&upstream.profile().headers, status, headers, upstream.clock().wall());
        // A fraction or garbage makes the Python SDK crash. A whole number, rounded up, is obeyed by all; one above
        // 180 s says less than the upstream did, and the caller that comes back then is told the rest.
        match seen.retry_after {
            Some(wait) => headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait))),
            None => headers.remove(RETRY_AFTER),
        };
    }
    response
}

pub(crate) fn answer(
    shape: ErrorShape,
    status: StatusCode,
    code: &str,
    message: &str,
    mark: (HeaderName, &'static str),
) -> Response<ResponseBody> {
    let (body, kind) = error_body(shape, status, code, message);
    let mut response = Response::new(ResponseBody::from(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(mark.0, HeaderValue::from_static(mark.1));
    response
}

/// Marks an answer as the gateway's where something was sent.
const fn told(mark: OutcomeMark) -> (HeaderName, &'static str) {
    (OUTCOME, mark.name())
}

/// Answers a request that was refused at the door.
pub(crate) fn refused(shape: ErrorShape, refused: &Refused) -> Response<ResponseBody> {
    answer(shape, refused.status, "bad.request", &refused.message, (REFUSED, refused.reason))
}

/// The early 429 of a call that could not leave in time. Nothing was sent.
pub(crate) fn too_many_requests(
    shape: ErrorShape,
    retry_after: Duration,
    reason: &'static str,
) -> Response<ResponseBody> {
    early(shape, retry_after, reason, sentence(reason))
}

fn early(
    shape: ErrorShape,
    retry_after: Duration,
    reason: &'static str,
    told: &str,
) -> Response<ResponseBody> {
    let seconds = whole_seconds(retry_after);
    let message = format!("{told}. Retry the request in [{seconds}] seconds");
    let mut response = answer(
        shape,
        StatusCode::TOO_MANY_REQUESTS,
        "too.many.requests.retry.after",
        &message,
        (REFUSED, reason),
    );
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// What an early 429 says. The platform's own words where a limit is the reason, because people and programs know them.
fn sentence(reason: &'static str) -> &'static str {
    match reason {
        "breaker-open" => "The upstream keeps failing for this family of resources, nothing was sent",
        "quota-store" => "The store of the shared quota is away, nothing was sent",
        "queue-full" => "Too many calls wait for their turn already, nothing was sent",
        "behind-outbox" => "Earlier writes to this target wait in the outbox, nothing was sent",
        "login-throttled" => "The token endpoint throttles logins, nothing was sent",
        _ => "Rate limit exceeded the maximum",
    }
}

/// Names the time to ask again. SDKs obey it for writes too, so only what was provably not executed may carry it.
pub(crate) fn later(mut response: Response<ResponseBody>, wait: Option<Duration>) -> Response<ResponseBody> {
    let seconds = whole_seconds(wait.unwrap_or(ASK_AGAIN));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Answers a call that brought no answer of the upstream. `is_repeatable`: executing it twice would do no harm.
pub(crate) fn failed(shape: ErrorShape, error: &Error, is_repeatable: bool) -> Response<ResponseBody> {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::Refused => {
            let reason = error.refusal().map_or("quota", RefusalReason::name);
            let wait = error.retry_after().unwrap_or(Duration::from_secs(1));
            match (error.refusal(), &error.report().limit) {
                (Some(RefusalReason::Window { .. }), Some(window)) => {
                    let told = format!("The calls of this class are held by {window}, nothing was sent");
                    early(shape, wait, reason, &told)
                }
                _ => too_many_requests(shape, wait, reason),
            }
        }
        ErrorKind::Token => later(
            answer(shape, StatusCode::BAD_GATEWAY, "bad.gateway", &message, (REFUSED, "no-token")),
            error.retry_after(),
        ),
        ErrorKind::Unreachable => {
            let mark = (REFUSED, "upstream-unreachable");
            let answer =
                answer(shape, StatusCode::SERVICE_UNAVAILABLE, "service.unavailable", &message, mark);
            later(answer, error.retry_after())
        }
        ErrorKind::Invalid => {
            answer(shape, StatusCode::BAD_REQUEST, "bad.request", &message, (REFUSED, "invalid-request"))
        }
        ErrorKind::Unreadable => answer(
            shape,
            StatusCode::BAD_GATEWAY,
            "bad.gateway",
            &message,
            told(OutcomeMark::UnreadableAnswer),
        ),
        ErrorKind::OutcomeUnknown if !is_repeatable => answer(
            shape,
            StatusCode::FAILED_DEPENDENCY,
            "outcome.unknown",
            &message,
            told(OutcomeMark::Unknown),
        ),
        _ => answer(
            shape,
            StatusCode::GATEWAY_TIMEOUT,
            "request.timeout",
            &message,
            told(OutcomeMark::NoAnswer),
        ),
    }
}

/// The answer of a read that others wait for too did not come before this reader's deadline.
pub(crate) fn no_answer(shape: ErrorShape) -> Response<ResponseBody> {
    let message = "the call that brings the answer did not end before the deadline";
    answer(shape, StatusCode::GATEWAY_TIMEOUT, "request.timeout", message, told(OutcomeMark::NoAnswer))
}

/// A login that brought no answer. `harmless` says that a second one would do no harm, which is not true of grants
/// whose code or refresh token can be used once.
pub(crate) fn login_failed(shape: ErrorShape, error: &SendError, harmless: bool) -> Response<ResponseBody> {
    let message = format!("the login was not answered: {error}");
    match error.failure {
        failure if failure.delivery() == Delivery::NotSent => {
            let mark = (REFUSED, "login-unreachable");
            later(answer(shape, StatusCode::SERVICE_UNAVAILABLE, "service.unavailable", &message, mark), None)
        }
        _ if !harmless => answer(
            shape,
            StatusCode::FAILED_DEPENDENCY,
            "outcome.unknown",
            &message,
            told(OutcomeMark::Unknown),
        ),
        Failure::AnswerUnreadable => login_unreadable(shape, error),
        _ => answer(
            shape,
            StatusCode::GATEWAY_TIMEOUT,
            "request.timeout",
            &message,
            told(OutcomeMark::NoAnswer),
        ),
    }
}

/// The upstream's answer to a write, of which only a beginning came. A 2xx is its word that the write was executed; what
/// it answered is lost. Any other status is the answer, without its body.
pub(crate) fn cut(shape: ErrorShape, response: Response<ResponseBody>) -> Response<ResponseBody> {
    let status = response.status();
    let mark = told(OutcomeMark::AnswerLost);
    if status.is_success() {
        let message = format!("executed with status {status}; the answer was cut and is lost");
        return answer(shape, StatusCode::FAILED_DEPENDENCY, "answer.lost", &message, mark);
    }
    let message = format!("the upstream answered {status}; the rest of its answer was cut");
    let mut ours = answer(shape, status, "answer.lost", &message, mark);
    let (mut head, _) = response.into_parts();
    for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE] {
        head.headers.remove(name);
    }
    // Its other fields are whole: when to ask again, for one.
    head.headers.extend(std::mem::take(ours.headers_mut()));
    *ours.headers_mut() = head.headers;
    ours
}

/// The upstream's answer to a read, of which only a beginning came. Nothing of it was given yet, so its reader need not find out by a
/// reset. A status other than success is the answer, without its body.
pub(crate) fn cut_read(shape: ErrorShape, response: Response<ResponseBody>) -> Response<ResponseBody> {
    if !response.status().is_success() {
        return cut(shape, response);
    }
    let message = format!("the upstream answered {}; the rest of its answer was cut", response.status());
    let mark = told(OutcomeMark::UnreadableAnswer);
    let mut ours = answer(shape, StatusCode::BAD_GATEWAY, "bad.gateway", &message, mark);
    *ours.extensions_mut() = response.into_parts().0.extensions;
    ours
}

/// A write that nobody follows any more: what followed it failed.
pub(crate) fn lost(shape: ErrorShape, may_have_left: bool) -> Response<ResponseBody> {
    if may_have_left {
        let message = "outcome unknown, the upstream may have executed it: the gateway lost sight of it";
        let mark = told(OutcomeMark::Unknown);
        return answer(shape, StatusCode::FAILED_DEPENDENCY, "outcome.unknown", message, mark);
    }
    let message = "not sent: it was given up while it waited";
    let mark = (REFUSED, "stopped");
    later(answer(shape, StatusCode::SERVICE_UNAVAILABLE, "service.unavailable", message, mark), None)
}

/// This write was sent, and is not answered for longer than anybody waits. Never a 5xx: SDKs send those again.
pub(crate) fn in_flight(shape: ErrorShape) -> Response<ResponseBody> {
    let message = "this write was sent before and is in flight: ask again when it has ended";
    answer(shape, StatusCode::CONFLICT, "write.in.flight", message, told(OutcomeMark::InFlight))
}

/// Another write is under way with this key.
pub(crate) fn key_in_flight(shape: ErrorShape) -> Response<ResponseBody> {
    let message = "another write with this Idempotency-Key is in flight: a new write needs a new key";
    answer(shape, StatusCode::CONFLICT, "key.in.flight", message, (REFUSED, "key-in-flight"))
}

/// The key belongs to another write.
pub(crate) fn key_reused(shape: ErrorShape) -> Response<ResponseBody> {
    let message = "this Idempotency-Key was used for a write with another body: a new write needs a new key";
    answer(shape, StatusCode::UNPROCESSABLE_ENTITY, "key.reused", message, (REFUSED, "key-reused"))
}

/// The write is done, and its answer cannot be given again.
pub(crate) fn not_kept(shape: ErrorShape) -> Response<ResponseBody> {
    let message = "this write was sent before and is done; its answer was too large to be kept";
    answer(shape, StatusCode::CONFLICT, "answer.not.kept", message, told(OutcomeMark::AnswerNotKept))
}

/// A keyed write cannot be noted, so it is not sent.
pub(crate) fn ledger_failed(shape: ErrorShape, error: &dyn std::fmt::Display) -> Response<ResponseBody> {
    tracing::warn!(target: "tidegate", "a write with an Idempotency-Key is not sent: {error}");
    let message = format!("not sent, the key cannot be noted: {error}");
    let mark = (REFUSED, "ledger");
    later(answer(shape, StatusCode::SERVICE_UNAVAILABLE, "service.unavailable", &message, mark), None)
}

/// How long a caller is told that its key lives as a token: it is asked for again after that.
const KEY_LIFE: Duration = Duration::from_hours(24);

/// Answers the login of a caller that has a key (RFC 6749 §5.1): its key is its token.
pub(crate) fn key_for_token(key: &str) -> Response<ResponseBody> {
    let body = serde_json::json!({
        "access_token": key, "token_type": "bearer", "expires_in": KEY_LIFE.as_secs()
    });
    let mut response = Response::new(ResponseBody::from(Bytes::from(body.to_string())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers the logout of such a caller: there is nothing to delete.
pub(crate) fn logged_out() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::from(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The tenant of a call cannot be started now.
pub(crate) fn not_started(shape: ErrorShape, why: &dyn std::fmt::Display) -> Response<ResponseBody> {
    let message = format!("not sent, the tenant cannot be started: {why}");
    let mark = (REFUSED, "tenant-unavailable");
    later(answer(shape, StatusCode::SERVICE_UNAVAILABLE, "service.unavailable", &message, mark), None)
}

/// A body cannot be held for its `Idempotency-Key` now, because others are.
pub(crate) fn no_room(shape: ErrorShape) -> Response<ResponseBody> {
    let message =
        "not sent: the bodies of other calls take all the memory there is for them; ask again later";
    let mark = (REFUSED, "no-room");
    later(answer(shape, StatusCode::SERVICE_UNAVAILABLE, "service.unavailable", message, mark), None)
}

/// A reader wants what is kept or nothing, and nothing is (RFC 9111, section 5.2.1.7).
pub(crate) fn not_cached(shape: ErrorShape) -> Response<ResponseBody> {
    let message = "nothing is kept of this, and the request says only-if-cached";
    answer(shape, StatusCode::GATEWAY_TIMEOUT, "not.cached", message, (REFUSED, "not-cached"))
}

/// Says that an answer was given before.
pub(crate) fn replayed(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// The token endpoint's answer did not come to its end.
pub(crate) fn login_unreadable(shape: ErrorShape, error: &dyn std::fmt::Display) -> Response<ResponseBody> {
    let message = format!("the login's answer cannot be read: {error}");
    answer(shape, StatusCode::BAD_GATEWAY, "bad.gateway", &message, told(OutcomeMark::UnreadableAnswer))
}

/// The upstream no longer renews the login that a token came from.
pub(crate) fn login_ended(shape: ErrorShape) -> Response<ResponseBody> {
    let message = "Invalid login credentials. (the upstream refused to renew this login: log in again)";
    answer(shape, StatusCode::UNAUTHORIZED, "bad.credentials", message, (REFUSED, "login-ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_whole_and_within_what_sdks_obey() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(42)), 42);
        assert_eq!(whole_seconds(Duration::MAX), 180);
    }

    #[tokio::test]
    async fn the_early_429_has_the_upstreams_shape_and_our_mark() {
        let response = too_many_requests(ErrorShape::Genesys, Duration::from_millis(3_200), "cannot-meet");
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "4");
        assert_eq!(response.headers()["tidegate-refused"], "cannot-meet");
        let body = response.into_body().bytes(1 << 16).await.expect("held");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("json");
        assert_eq!(body["message"], "Rate limit exceeded the maximum. Retry the request in [4] seconds");
        assert_eq!(body["code"], "too.many.requests.retry.after");
        assert_eq!(body["status"], 429);
        assert_eq!(body["details"], serde_json::json!([]));
        assert!(body["contextId"].as_str().is_some_and(|id| id.len() == 32));
    }
}
