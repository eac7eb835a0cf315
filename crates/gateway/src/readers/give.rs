//! Kept answers as a reader gets them: with their age, and a word on where they come from (`Cache-Status`, RFC 9211).

use bytes::Bytes;
use http::header::{AGE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response};
use tidegate::ResponseBody;
use tidegate_core::cache::Kept;
use tidegate_core::time::Mono;

use crate::proxy::{ATTEMPTS, LIMIT, SERVER_TIMING, WAIT};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// How an answer came that was asked for.
pub(super) const MISS: &str = "tidegate; fwd=miss";

/// An answer from memory. `on_events`: its own time is over, and no event said that it changed.
pub(super) fn hit(kept: &Kept<Bytes>, now: Mono, on_events: bool) -> Response<ResponseBody> {
    let mut response = response(kept);
    let headers = response.headers_mut();
    // What the call went through that brought it is not what this one went through.
    for name in [LIMIT, SERVER_TIMING, RETRY_AFTER] {
        headers.remove(name);
    }
    let of_the_call: Vec<HeaderName> =
        headers.keys().filter(|name| tells_of_a_call(name.as_str())).cloned().collect();
    for name in of_the_call {
        headers.remove(name);
    }
    headers.insert(ATTEMPTS, HeaderValue::from_static("0"));
    headers.insert(WAIT, HeaderValue::from_static("0.000"));
    headers.insert(AGE, HeaderValue::from(kept.age(now).as_secs()));
    let status = if on_events { "tidegate; hit; detail=push" } else { "tidegate; hit" };
    headers.append(CACHE_STATUS, HeaderValue::from_static(status));
    response
}

/// The answer of a flight, for the reader for whom it began.
pub(super) fn shared(kept: &Kept<Bytes>, how: &'static str) -> Response<ResponseBody> {
    let mut response = response(kept);
    let age = kept.age(kept.sent).as_secs();
    if age > 0 {
        response.headers_mut().insert(AGE, HeaderValue::from(age));
    }
    response.headers_mut().append(CACHE_STATUS, HeaderValue::from_static(how));
    response
}

/// The answer of a flight, for one who joined it: its request may have left before this one came.
pub(super) fn collapsed(kept: &Kept<Bytes>, now: Mono) -> Response<ResponseBody> {
    let mut response = shared(kept, "tidegate; fwd=miss; collapsed");
    response.headers_mut().insert(AGE, HeaderValue::from(kept.age(now).as_secs()));
    response
}

/// Whether a header of an answer tells of the call that brought it: what was left of a limit then, and its id.
fn tells_of_a_call(name: &str) -> bool {
    let limit = name.contains("ratelimit") || name.contains("rate-limit");
    limit || name.ends_with("request-id") || name.ends_with("correlation-id") || name.ends_with("trace-id")
}

fn response(kept: &Kept<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::from(kept.body.clone()));
    *response.status_mut() = kept.status;
    *response.headers_mut() = kept.headers.clone();
    response
}
