//! `GET /tidegate/events?topic=…`: the events of a tenant as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! A listener is told of what it names, each event with an id. If it comes back with the last one (`Last-Event-ID`) it is given what it missed
//! as far as that is remembered, and told of the rest as a `gap`, like of events that the upstream may have sent while nothing was
//! heard of it. Comments keep the connection alive. The stream ends when the gateway stops or the listener is too slow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;
use tidegate::ResponseBody;
use tidegate::body::BoxError;
use tidegate_core::push::{TopicPattern, parts};
use tokio::sync::watch;

use super::Listened;
use super::feed::{Ear, Kind, Slow, Told, topic_of};
use crate::hygiene::Refused;
use crate::respond;
use crate::tenants::Started;

/// Where events are told.
pub(crate) const EVENTS: &str = "/tidegate/events";

/// Topics and patterns of one listener.
const MAX_TOPICS: usize = 1000;

/// So often something is sent where nothing happens: proxies close what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The name of the header with the last id. Source: the specification.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Begins to tell a listener.
pub(crate) fn listen(
    served: &Started,
    request: &Parts,
    stop: watch::Receiver<bool>,
    slow: Arc<Slow>,
) -> Response<ResponseBody> {
    let shape = served.tenant.shape();
    if request.method != Method::GET {
        let what = refused(StatusCode::METHOD_NOT_ALLOWED, "method", "events are listened to by GET");
        return respond::refused(shape, &what);
    }
    let mut patterns = match patterns(request.uri.query().unwrap_or_default()) {
        Ok(patterns) => patterns,
        Err(what) => {
            return respond::refused(shape, &refused(StatusCode::BAD_REQUEST, "invalid-request", &what));
        }
    };
    let exact: Vec<Arc<str>> = patterns.iter().filter_map(TopicPattern::exact).map(Arc::from).collect();
    // Events of topics that are subscribed to as one bear the name of each.
    let joint = exact.iter().filter(|topic| topic.contains('?')).flat_map(|topic| parts(topic));
    patterns.extend(joint.filter_map(|part| TopicPattern::parse(&part).ok()));
    let last = request.headers.get(LAST_EVENT_ID).and_then(|last| last.to_str().ok());
    let Some(ear) = served.feed.listen(patterns, last, slow) else {
        let what = "so many listen to this tenant's events already that there is no room for another";
        return respond::refused(
            shape,
            &refused(StatusCode::SERVICE_UNAVAILABLE, "too-many-listeners", what),
        );
    };
    let listened = served.push.as_ref().map(|push| push.listened(exact.into_iter()));
    let body = StreamBody::new(events(ear, listened, stop));
    let mut response = Response::new(ResponseBody::made(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The topics that a query names.
fn patterns(query: &str) -> Result<Vec<TopicPattern>, String> {
    let mut patterns = Vec::new();
    for (name, value) in crate::login::pairs(query) {
        match name.as_str() {
            "topic" => patterns.push(TopicPattern::parse(&value).map_err(|what| format!("topic: {what}"))?),
            other => return Err(format!("`{}` is not known (write topic=...)", other.escape_default())),
        }
    }
    match patterns.len() {
        0 => Err("no topic is named (write ?topic=v2.users.7.presence, or topic=* for all)".to_owned()),
        1..=MAX_TOPICS => Ok(patterns),
        _ => Err(format!("names more than {MAX_TOPICS} topics (listen with several connections, or to `*`)")),
    }
}

fn refused(status: StatusCode, reason: &'static str, message: &str) -> Refused {
    Refused { status, reason, message: message.to_owned() }
}

struct Telling {
    ear: Ear,
    /// Keeps what is listened to subscribed.
    _listened: Option<Listened>,
    stop: watch::Receiver<bool>,
    begun: bool,
}

fn events(
    ear: Ear,
    listened: Option<Listened>,
    stop: watch::Receiver<bool>,
) -> impl stream::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + Sync {
    let telling = Telling { ear, _listened: listened, stop, begun: false };
    stream::unfold(telling, async |mut telling| {
        let text = telling.next().await?;
        Some((Ok(Frame::data(Bytes::from(text))), telling))
    })
}

impl Telling {
    async fn next(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.begun, true) {
            // The beginning goes out at once, so that who listens knows that it does.
            let mut begin = ": listening\nretry: 1000\n\n".to_owned();
            if self.ear.gap {
                begin.push_str("event: gap\ndata: {\"topic\":\"*\"}\n\n");
            }
            return Some(begin);
        }
        if let Some(told) = self.ear.missed.pop_front() {
            return Some(text_of(&told));
        }
        tokio::select! {
            told = self.ear.line.recv() => told.as_ref().map(text_of),
            () = tokio::time::sleep(KEEP_ALIVE) => Some(": still here\n\n".to_owned()),
            _ = self.stop.wait_for(|stop| *stop) => None,
        }
    }
}

/// An event as it is written.
fn text_of(told: &Told) -> String {
    let event = &told.event;
    let body = std::str::from_utf8(&event.body).unwrap_or("null");
    let topic = json!(topic_of(told));
    let at = event.at.unix_millis();
    // JSON of one line: what it says cannot end the field.
    match told.kind {
        Kind::Event { late } => format!(
            "id: {}\ndata: {{\"topic\":{topic},\"at\":{at},\"late\":{late},\"body\":{body}}}\n\n",
            event.id
        ),
        Kind::Gap => format!("id: {}\nevent: gap\ndata: {body}\n\n", event.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_topics_and_nothing_else() {
        let named = patterns("topic=v2.users.%2A&topic=a").unwrap();
        assert!(named[0].matches("v2.users.7") && named[1].exact() == Some("a"));
        for bad in ["", "topic=", "topic=a*b", "topics=a", "topic=a&x=1"] {
            assert!(patterns(bad).is_err(), "{bad}");
        }
        assert!(patterns(&"topic=a&".repeat(MAX_TOPICS + 1)).is_err());
    }
}
