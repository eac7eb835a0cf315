//! Kept answers as a reader gets them: with their age, and a word on where they come from (`Cache-Status`, RFC 9211).

use bytes::Bytes;
use http::header::AGE;
use http::{HeaderName, HeaderValue, Response};
use tidegate::ResponseBody;
use tidegate_core::cache::Kept;
use tidegate_core::time::Mono;

use crate::proxy::{ATTEMPTS, LIMIT, SERVER_TIMING, WAIT};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// An answer from memory.
pub(super) fn hit(kept: &Kept<Bytes>, now: Mono) -> Response<ResponseBody> {
    let mut response = response(kept);
    let headers = response.headers_mut();
    // What the call went through that brought it is not what this one went through.
    for name in [LIMIT, SERVER_TIMING] {
        headers.remove(name);
    }
    headers.insert(ATTEMPTS, HeaderValue::from_static("0"));
    headers.insert(WAIT, HeaderValue::from_static("0.000"));
    headers.insert(AGE, HeaderValue::from(kept.age(now).as_secs()));
    headers.append(CACHE_STATUS, HeaderValue::from_static("tidegate; hit"));
    response
}

/// The answer of a flight.
pub(super) fn shared(kept: &Kept<Bytes>, how: &str) -> Response<ResponseBody> {
    let mut response = response(kept);
    let age = kept.age(kept.sent).as_secs();
    if age > 0 {
        response.headers_mut().insert(AGE, HeaderValue::from(age));
    }
    if let Ok(status) = HeaderValue::try_from(format!("tidegate; {how}")) {
        response.headers_mut().append(CACHE_STATUS, status);
    }
    response
}

fn response(kept: &Kept<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::from(kept.body.clone()));
    *response.status_mut() = kept.status;
    *response.headers_mut() = kept.headers.clone();
    response
}
