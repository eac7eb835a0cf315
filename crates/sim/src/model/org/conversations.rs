//! Messages that are sent once per call (and twice if the call is repeated), and interactions to page through.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{Done, paging};
use crate::model::uuid_text;
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// Most interactions on one cursor page.
const CURSOR_PAGE: usize = 50;

#[derive(Debug)]
struct Message {
    id: String,
    conversation: String,
    body: Value,
    created: Duration,
}

impl Message {
    fn entity(&self) -> Value {
        json!({
            "id": self.id,
            "conversationId": self.conversation,
            "textBody": self.body.get("textBody").cloned().unwrap_or_default(),
            "toAddress": self.body.get("toAddress").cloned().unwrap_or_default(),
            "direction": "outbound",
            "messageStatus": "sent",
            "selfUri": format!("/api/v2/conversations/messages/{}", self.id),
        })
    }
}

/// All messages sent so far.
#[derive(Debug)]
pub struct Conversations {
    messages: Vec<Message>,
    lag: Duration,
}

impl Conversations {
    /// Nothing sent yet; messages can be read after `lag`.
    pub fn new(lag: Duration) -> Self {
        Self { messages: Vec::new(), lag }
    }

    /// Answers `/api/v2/conversations...` and `/api/v2/interactions`; `path` starts with that segment.
    pub(super) fn handle(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        path: &[&str],
        rng: &mut fastrand::Rng,
    ) -> Option<Done> {
        const POST: &str = "POST /api/v2/conversations/messages";
        Some(match (&request.method, path) {
            (&Method::POST, ["conversations", "messages"]) => {
                Done::of(POST, self.send(now, request, None, rng))
            }
            (&Method::POST, ["conversations", "messages", "agentless"]) => self.agentless(now, request, rng),
            (&Method::POST, ["conversations", "messages", conversation, "communications", _, "messages"]) => {
                Done::of(
                    "POST /api/v2/conversations/messages/{id}/communications/{id}/messages",
                    self.send(now, request, Some(conversation), rng),
                )
            }
            (&Method::GET, ["conversations", "messages"]) => {
                let seen: Vec<&Message> =
                    self.messages.iter().filter(|message| self.is_visible(now, message)).collect();
                Done::ok(
                    "GET /api/v2/conversations/messages",
                    paging::page(request, &seen, |message| message.entity()),
                )
            }
            (&Method::GET, ["conversations", "messages", id]) => {
                Done::of("GET /api/v2/conversations/messages/{id}", self.read(now, id))
            }
            (&Method::GET, ["interactions"]) => Done::of("GET /api/v2/interactions", interactions(request)),
            _ => return None,
        })
    }

    fn is_visible(&self, now: Duration, message: &Message) -> bool {
        self.lag.is_zero() || message.created + self.lag <= now
    }

    fn send(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        conversation: Option<&str>,
        rng: &mut fastrand::Rng,
    ) -> Result<Value, ApiError> {
        let body = request
            .json()
            .filter(Value::is_object)
            .ok_or_else(|| ApiError::bad_request("the body must be a JSON object"))?;
        let message = Message {
            id: uuid_text(rng),
            conversation: conversation.map_or_else(|| uuid_text(rng), str::to_owned),
            body,
            created: now,
        };
        let entity = message.entity();
        self.messages.push(message);
        Ok(entity)
    }

    fn agentless(&mut self, now: Duration, request: &ApiRequest, rng: &mut fastrand::Rng) -> Done {
        const ENDPOINT: &str = "POST /api/v2/conversations/messages/agentless";
        let body = request.json().unwrap_or_default();
        let missing: Vec<&str> = ["fromAddress", "toAddress", "textBody"]
            .into_iter()
            .filter(|field| body.get(*field).and_then(Value::as_str).is_none_or(str::is_empty))
            .collect();
        if !missing.is_empty() {
            return Done::error(ENDPOINT, ApiError::bad_request(format!("missing: {}", missing.join(", "))));
        }
        match self.send(now, request, None, rng) {
            Ok(entity) => Done::status(ENDPOINT, 202, Some(entity)),
            Err(error) => Done::error(ENDPOINT, error),
        }
    }

    fn read(&self, now: Duration, id: &str) -> Result<Value, ApiError> {
        self.messages
            .iter()
            .find(|message| message.id == id && self.is_visible(now, message))
            .map(Message::entity)
            .ok_or_else(|| ApiError::not_found(id))
    }
}

fn interaction(index: usize) -> Value {
    let id = format!("30000000-0000-4000-8000-{:012x}", index + 1);
    json!({
        "id": id,
        "state": "connected",
        "mediaType": "interaction",
        "selfUri": format!("/api/v2/conversations/interaction/{id}"),
    })
}

fn interactions(request: &ApiRequest) -> Result<Value, ApiError> {
    let all: Vec<usize> = (0..CURSOR_PAGE * 5).collect();
    let (slice, next) = paging::cursor(request, &all, CURSOR_PAGE)?;
    Ok(json!({
        "entities": slice.iter().map(|index| interaction(*index)).collect::<Vec<_>>(),
        "cursor": next,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_send_sends_twice() {
        let mut conversations = Conversations::new(Duration::from_secs(1));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut request = ApiRequest::new(Method::POST, "/api/v2/conversations/messages/agentless");
        request.body =
            json!({"fromAddress": "+1", "toAddress": "+2", "textBody": "hi"}).to_string().into_bytes();
        let path = ["conversations", "messages", "agentless"];
        let mut send = |at| conversations.handle(Duration::from_secs(at), &request, &path, &mut rng).unwrap();
        let first = send(0).result.unwrap();
        assert_eq!(first.status, 202);
        send(0);
        assert_eq!(conversations.messages.len(), 2);
        let id = first.body.unwrap()["id"].as_str().unwrap().to_owned();
        assert!(conversations.read(Duration::ZERO, &id).is_err(), "not found before the lag is over");
        assert!(conversations.read(Duration::from_secs(1), &id).is_ok());
    }
}
