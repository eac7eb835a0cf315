//! What a caller is told of its own entries: `GET /tidegate/outbox/ID`, and `DELETE` for one that still waits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use tidegate::ResponseBody;
use tidegate_core::outbox::{Full, Seq, State};
use tidegate_core::profile::ErrorShape;
use tidegate_store::ledger::Kept;
use tidegate_store::outbox::{Course, Letter, OutboxError};

use super::prefer::PREFERENCE_APPLIED;
use super::write::headers;
use super::{Asked, Outbox};
use crate::once::later::TOO_LARGE;
use crate::respond::{self, REFUSED};

/// Where an entry is looked at.
const STATUS: HeaderName = HeaderName::from_static("tidegate-status");

const PATH: &str = "/tidegate/outbox/";

/// The name of the entry that a path asks for.
pub(crate) fn id_in(path: &str) -> Option<&str> {
    path.strip_prefix(PATH)
}

impl Outbox {
    /// Answers a request about an entry of its `owner`.
    pub(crate) async fn status(
        self: &Arc<Self>,
        shape: ErrorShape,
        method: &Method,
        id: &str,
        tenant: &str,
        asked: &Asked,
    ) -> Response<ResponseBody> {
        let Some(seq) = self.seq_of(id, tenant, &asked.owner) else { return unknown(shape) };
        match *method {
            Method::GET | Method::HEAD => self.told(shape, seq, id, asked, false).await,
            Method::DELETE => self.cancel(shape, seq).await,
            _ => {
                let message = "an entry of the outbox can be looked at (GET) and called off (DELETE)";
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let mark = (REFUSED, "invalid-request");
                let mut response = respond::answer(shape, status, "bad.request", message, mark);
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, DELETE"));
                response
            }
        }
    }

    /// What is told of an entry. `accepted`: to who has just put it there.
    pub(super) async fn told(
        self: &Arc<Self>,
        shape: ErrorShape,
        seq: Seq,
        id: &str,
        asked: &Asked,
        accepted: bool,
    ) -> Response<ResponseBody> {
        let state = self.machine.lock().state(seq);
        let found = match state {
            Some(_) => self.file.load(seq).await,
            None => Ok(None),
        };
        let (letter, course) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return gone(shape),
            Err(error) => return not_stored(shape, &error),
        };
        let now = self.clock.now();
        let again = match state {
            Some(State::Waiting(at)) => Some((at - now).max(Duration::from_secs(1))),
            Some(State::Sending) => Some(Duration::from_secs(1)),
            _ => None,
        };
        let mut body = body(&letter, &course);
        // The machine knows it first.
        if let Some(state) = state {
            body["state"] = json!(name(state));
        }
        let mut response = Response::new(ResponseBody::from(Bytes::from(body.to_string())));
        let path = HeaderValue::try_from(format!("{}{PATH}{id}", asked.prefix));
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = again {
            fields.insert(RETRY_AFTER, HeaderValue::from(respond::whole_seconds(wait)));
        }
        if accepted {
            if let Ok(path) = path {
                fields.insert(LOCATION, path.clone());
                fields.insert(STATUS, path);
            }
            *response.status_mut() = StatusCode::ACCEPTED;
        }
        response
    }

    async fn cancel(self: &Arc<Self>, shape: ErrorShape, seq: Seq) -> Response<ResponseBody> {
        let (was, cancelled) = {
            let mut machine = self.machine.lock();
            (machine.state(seq), machine.cancel(seq))
        };
        if cancelled {
            self.changed();
            if let Err(error) = self.file.remove(vec![seq]).await {
                return not_stored(shape, &error);
            }
            let mut response = Response::new(ResponseBody::from(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            return response;
        }
        let Some(state) = was else { return gone(shape) };
        let message = match state {
            State::Waiting(_) => "it may have been sent already, so it cannot be called off".to_owned(),
            state => format!("it is {} and cannot be called off", name(state)),
        };
        let mark = (REFUSED, "not-waiting");
        respond::answer(shape, StatusCode::CONFLICT, "conflict", &message, mark)
    }

    /// The answer that an entry brought; `None` while there is none.
    pub(super) async fn answer(&self, shape: ErrorShape, seq: Seq) -> Option<Response<ResponseBody>> {
        let (_, course) = self.file.load(seq).await.ok()??;
        if !matches!(course.state.as_str(), "done" | "dead") {
            return None;
        }
        let Some(kept) = course.answer else {
            return Some(respond::lost(shape, course.why.as_deref() == Some("outcome-unknown")));
        };
        let fields = headers(&kept.headers)?;
        if fields.contains_key(TOO_LARGE) {
            return Some(respond::not_kept(shape));
        }
        let mut response = Response::new(ResponseBody::from(Bytes::from(kept.body)));
        *response.status_mut() = StatusCode::from_u16(kept.status).ok()?;
        *response.headers_mut() = fields;
        Some(response)
    }
}

/// The word for a state.
pub(super) const fn name(state: State) -> &'static str {
    match state {
        State::Waiting(_) => "waiting",
        State::Sending => "sending",
        State::Done(_) => "done",
        State::Dead(_) => "dead",
    }
}

/// An entry as JSON.
pub(super) fn body(letter: &Letter, course: &Course) -> Value {
    json!({
        "id": letter.id,
        "state": course.state,
        "why": course.why,
        "attempts": course.attempts,
        "since": letter.since.rfc3339(),
        "method": letter.method,
        "target": letter.target,
        "answer": course.answer.as_ref().map(answer_body),
    })
}

fn answer_body(kept: &Kept) -> Value {
    let fields = headers(&kept.headers).unwrap_or_default();
    let too_large = fields.contains_key(TOO_LARGE);
    let mut all = serde_json::Map::new();
    for (name, value) in fields.iter().filter(|(name, _)| name.as_str() != TOO_LARGE) {
        let text = String::from_utf8_lossy(value.as_bytes());
        match all.get_mut(name.as_str()) {
            Some(Value::String(known)) => {
                known.push_str(", ");
                known.push_str(&text);
            }
            _ => drop(all.insert(name.to_string(), Value::String(text.into_owned()))),
        }
    }
    // JSON as it is, text as text, anything else as base64.
    let (body, encoding) = match serde_json::from_slice(&kept.body) {
        _ if kept.body.is_empty() => (Value::Null, None),
        Ok(json) => (json, None),
        Err(_) => match std::str::from_utf8(&kept.body) {
            Ok(text) => (Value::String(text.to_owned()), None),
            Err(_) => (Value::String(STANDARD.encode(&kept.body)), Some("base64")),
        },
    };
    json!({
        "status": kept.status, "headers": all, "body": body, "encoding": encoding, "too_large": too_large
    })
}

/// Header fields as they are written down, without those that say how the message was carried.
pub(super) fn as_text(headers: &HeaderMap) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in headers {
        if matches!(name.as_str(), "host" | "content-length" | "transfer-encoding") {
            continue;
        }
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// Says which preferences were honoured (RFC 7240, section 3).
pub(super) fn preference_applied(
    mut response: Response<ResponseBody>,
    later: bool,
    wait: Option<Duration>,
) -> Response<ResponseBody> {
    let later = later.then(|| "respond-async".to_owned());
    let wait = wait.map(|wait| format!("wait={}", wait.as_secs()));
    let applied: Vec<String> = later.into_iter().chain(wait).collect();
    if let Ok(value) = HeaderValue::try_from(applied.join(", ")) {
        response.headers_mut().insert(PREFERENCE_APPLIED, value);
    }
    response
}

/// There is no such entry, or it is somebody else's: which of both is nobody's business.
fn unknown(shape: ErrorShape) -> Response<ResponseBody> {
    let message = "there is no such entry in the outbox";
    let mark = (REFUSED, "unknown-entry");
    respond::answer(shape, StatusCode::NOT_FOUND, "not.found", message, mark)
}

/// It was there.
fn gone(shape: ErrorShape) -> Response<ResponseBody> {
    let message = "this entry of the outbox is gone: it was called off, or kept long enough";
    let mark = (REFUSED, "entry-gone");
    respond::answer(shape, StatusCode::GONE, "gone", message, mark)
}

/// The outbox is full of what is not delivered.
pub(super) fn full(shape: ErrorShape, full: Full, path: &Path) -> Response<ResponseBody> {
    tracing::warn!(target: "tidegate", "the outbox {} is full: {full}", path.display());
    let message =
        format!("not accepted, the outbox is full: {full}; send it without Prefer, or ask again later");
    let mark = (REFUSED, "outbox-full");
    let answer =
        respond::answer(shape, StatusCode::SERVICE_UNAVAILABLE, "service.unavailable", &message, mark);
    respond::later(answer, Some(Duration::from_secs(30)))
}

/// The outbox cannot be read or written.
pub(super) fn not_stored(shape: ErrorShape, error: &OutboxError) -> Response<ResponseBody> {
    tracing::warn!(target: "tidegate", "the outbox cannot be used: {error}");
    let message = format!("not accepted, the outbox cannot be used: {error}");
    let mark = (REFUSED, "outbox");
    let answer =
        respond::answer(shape, StatusCode::SERVICE_UNAVAILABLE, "service.unavailable", &message, mark);
    respond::later(answer, None)
}
