//! Answers that are given to more than one caller, now or later.

use std::sync::Arc;

use bytes::Bytes;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use tidegate::ResponseBody;
use tidegate_store::ledger::Kept;

use crate::proxy::{ATTEMPTS, LIMIT, SERVER_TIMING, WAIT};
use crate::respond::{self, REPLAYED};
use tidegate_core::profile::ErrorShape;

/// What is known of a write when its call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The upstream's word on it is here.
    Done,
    /// It may have been executed.
    Unknown,
    /// It is proven not to have been executed.
    Unsent,
}

/// How a write ended, for everybody who waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(super) fate: Fate,
    answer: Answer,
}

#[derive(Clone, Debug)]
enum Answer {
    Whole(Arc<Told>),
    /// Too long to be held: the first who takes it has it.
    Stream(Arc<Mutex<Option<Response<ResponseBody>>>>),
}

/// An answer as it is given to callers, held in memory.
#[derive(Debug)]
pub(super) struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Ended {
    /// `response` is what a caller is given.
    pub(crate) fn new(fate: Fate, response: Response<ResponseBody>) -> Self {
        let Some(body) = response.body().held().cloned() else {
            return Self { fate, answer: Answer::Stream(Arc::new(Mutex::new(Some(response)))) };
        };
        let (parts, _) = response.into_parts();
        let told = Told { status: parts.status, headers: parts.headers, body };
        Self { fate, answer: Answer::Whole(Arc::new(told)) }
    }

    /// The answer for the caller who made the call.
    pub(super) fn first(&self, shape: ErrorShape) -> Response<ResponseBody> {
        match &self.answer {
            Answer::Whole(told) => told.response(),
            Answer::Stream(stream) => stream.lock().take().unwrap_or_else(|| respond::not_kept(shape)),
        }
    }

    /// The answer for another caller, marked as one that was given before.
    pub(super) fn again(&self, shape: ErrorShape) -> Response<ResponseBody> {
        let mut response = match &self.answer {
            Answer::Whole(told) => told.response(),
            Answer::Stream(_) => return respond::not_kept(shape),
        };
        let headers = response.headers_mut();
        remove_marks_of_call(headers);
        // What is proven unsent was not given before: it is refused now, to all who wait for it.
        if self.fate != Fate::Unsent {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }

    /// Whether everybody who sends the write again is told of it, as nobody can be told more: its outcome is unknown, or
    /// its answer cannot be given again.
    pub(super) fn is_for_all(&self) -> bool {
        match self.fate {
            Fate::Unknown => true,
            Fate::Done => matches!(self.answer, Answer::Stream(_)),
            Fate::Unsent => false,
        }
    }

    /// Nobody waits for the answer: one that is still arriving is dropped, and its connection with it.
    pub(super) fn forget_stream(&self) {
        if let Answer::Stream(stream) = &self.answer {
            drop(stream.lock().take());
        }
    }

    /// What is written down of it.
    pub(super) fn kept(&self) -> Option<Kept> {
        match &self.answer {
            Answer::Whole(told) => Some(told.to_kept()),
            Answer::Stream(_) => None,
        }
    }

    /// Bytes it holds.
    pub(super) fn size(&self) -> usize {
        match &self.answer {
            Answer::Whole(told) => told.body.len(),
            Answer::Stream(_) => 0,
        }
    }
}

/// The marks that say what a call went through: they are not true of another one.
fn remove_marks_of_call(headers: &mut HeaderMap) {
    for name in [ATTEMPTS, WAIT, LIMIT, SERVER_TIMING] {
        headers.remove(name);
    }
}

impl Told {
    fn response(&self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::from(self.body.clone()));
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.headers);
        response
    }

    fn to_kept(&self) -> Kept {
        let mut headers = self.headers.clone();
        remove_marks_of_call(&mut headers);
        // A session is not for everybody who knows the key.
        headers.remove(SET_COOKIE);
        let mut text = Vec::new();
        for (name, value) in &headers {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        Kept { status: self.status.as_u16(), headers: text, body: self.body.to_vec() }
    }
}

/// A kept answer, to be given again. `None` if it is none that we wrote.
pub(super) fn replay(kept: Kept) -> Option<Response<ResponseBody>> {
    let mut response = Response::new(ResponseBody::from(Bytes::from(kept.body)));
    *response.status_mut() = StatusCode::from_u16(kept.status).ok()?;
    let mut rest = kept.headers.as_slice();
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let line = &rest[..end];
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line.get(colon + 2..)?).ok()?;
        response.headers_mut().append(name, value);
        rest = &rest[end + 2..];
    }
    Some(response)
}

/// An answer of the gateway that says what became of a write it lost sight of.
pub(super) fn lost(shape: ErrorShape, may_have_left: bool) -> Ended {
    let fate = if may_have_left { Fate::Unknown } else { Fate::Unsent };
    Ended::new(fate, respond::lost(shape, may_have_left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_given_again_byte_by_byte() {
        let mut response = Response::new(ResponseBody::from(Bytes::from_static(b"{\"id\":1}")));
        *response.status_mut() = StatusCode::CREATED;
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.append("link", HeaderValue::from_static("<a>"));
        headers.append("link", HeaderValue::from_bytes(b"\xfc: x").expect("obs-text"));
        headers.insert("x-empty", HeaderValue::from_static(""));
        headers.insert("set-cookie", HeaderValue::from_static("session=1"));
        headers.insert("tidegate-attempts", HeaderValue::from_static("3"));
        let ended = Ended::new(Fate::Done, response);
        let again = replay(ended.kept().expect("held")).expect("ours");
        assert_eq!(again.status(), 201);
        assert_eq!(again.body().held().map(AsRef::as_ref), Some(&b"{\"id\":1}"[..]));
        let links: Vec<&[u8]> = again.headers().get_all("link").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(links, [&b"<a>"[..], b"\xfc: x"]);
        assert_eq!(again.headers()["x-empty"], "");
        for gone in ["set-cookie", "tidegate-attempts"] {
            assert!(!again.headers().contains_key(gone), "{gone}");
        }
    }
}
