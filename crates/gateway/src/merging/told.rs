//! What a bulk call was answered, told to each whose rows it carried.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tidegate::ResponseBody;
use tidegate_core::mark::OUTCOME;
use tidegate_core::merge::{Item, Verdict, split};

use super::group::Carried;
use super::{Held, Merging};
use crate::once::{Ended, Fate};
use crate::respond::{self, REFUSED};
use crate::tenant::Tenant;

/// How many writes the call carried whose answer this is.
pub(crate) const MERGED: HeaderName = HeaderName::from_static("tidegate-merged");

/// What became of one write of a group.
#[derive(Debug)]
pub(crate) enum Told {
    /// This.
    Ended(Ended),
    /// Nothing that is its own: it is sent alone, while what stands behind the group waits.
    Alone(Arc<Held>),
}

/// Tells all of them the same.
pub(super) fn all(carried: Carried, ended: &Ended) {
    for (holder, _) in carried {
        // Who has gone does not hear it.
        drop(holder.tell.send(Told::Ended(ended.clone())));
    }
}

/// Tells each its own.
pub(super) fn each(
    merging: &Merging,
    tenant: &Tenant,
    rule: usize,
    carried: Carried,
    (mut response, fate): (Response<ResponseBody>, Fate),
    held: &Arc<Held>,
) {
    response.headers_mut().insert(MERGED, HeaderValue::from(carried.len()));
    let is_ours = response.headers().contains_key(REFUSED);
    let is_refusal = fate == Fate::Unsent && (is_ours || response.status() != StatusCode::FORBIDDEN);
    if fate == Fate::Unknown || is_refusal {
        return all(carried, &Ended::new(fate, response));
    }
    // Its answer was lost behind its status: done, and nothing to tell of it.
    let is_cut = response.headers().contains_key(OUTCOME);
    let (status, body) = match response.body().held() {
        Some(body) if !is_cut => (response.status(), body.clone()),
        _ => (StatusCode::OK, Bytes::new()),
    };
    let seats: Vec<(usize, &[Item])> =
        carried.iter().map(|(holder, rows)| (holder.single, rows.as_slice())).collect();
    let verdicts = split(&merging.rules[rule], &seats, status.as_u16(), &body);
    let headers = own_headers(response.headers());
    let whole = Ended::new(Fate::Done, response);
    for ((holder, _), verdict) in carried.into_iter().zip(verdicts) {
        let told = match verdict {
            Verdict::Whole => Told::Ended(whole.clone()),
            Verdict::Answer { status, body } => Told::Ended(own_answer(&headers, status, body)),
            Verdict::Lost if is_cut => Told::Ended(whole.clone()),
            Verdict::Lost => Told::Ended(Ended::new(Fate::Done, respond::not_kept(tenant.shape()))),
            Verdict::Again => {
                merging.fell_back(rule);
                Told::Alone(Arc::clone(held))
            }
        };
        drop(holder.tell.send(told));
    }
}

/// What of the call's header is true of each single answer: not what describes the body it came with.
fn own_headers(headers: &HeaderMap) -> HeaderMap {
    let mut own = headers.clone();
    for name in [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION] {
        own.remove(name);
    }
    own.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    own
}

fn own_answer(headers: &HeaderMap, status: u16, body: Vec<u8>) -> Ended {
    let mut response = Response::new(ResponseBody::from(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response.headers_mut().clone_from(headers);
    Ended::new(Fate::Done, response)
}
