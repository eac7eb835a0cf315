//! Conversations as pollers see them: customers who call, are answered, and go.
//!
//! Each conversation has a place of its own: when one is over, the next contact takes its id, so that a program may watch the same
//! ids for as long as it likes (the platform gives every contact another id). It belongs to one agent and one queue.

use http::Method;
use serde_json::{Value, json};

use super::{Done, paging, users};
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// How many queues the conversations are spread over.
const QUEUES: usize = 4;

/// The id of the n-th conversation (from 0).
pub fn id(index: usize) -> String {
    format!("30000000-0000-4000-8000-{:012x}", index + 1)
}

/// The id of the n-th queue (from 0).
pub fn queue(index: usize) -> String {
    format!("50000000-0000-4000-8000-{:012x}", index + 1)
}

/// Where a conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It rings.
    Alerting,
    /// Customer and agent talk.
    Connected,
    /// It is over.
    Disconnected,
}

impl State {
    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alerting => "alerting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Alerting, Self::Connected, Self::Disconnected].into_iter().find(|state| state.name() == name)
    }

    fn next(self) -> Self {
        match self {
            Self::Alerting => Self::Connected,
            Self::Connected => Self::Disconnected,
            Self::Disconnected => Self::Alerting,
        }
    }
}

/// All conversations, in the order of their ids.
#[derive(Debug)]
pub struct Contacts {
    states: Vec<(State, u64)>,
    users: usize,
}

impl Contacts {
    /// `count` conversations, all connected and at version 1, spread over `users` agents.
    pub fn new(count: u32, users: u32) -> Self {
        Self { states: vec![(State::Connected, 1); count as usize], users: users.max(1) as usize }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    fn entity(&self, index: usize) -> Value {
        let (state, version) = self.states[index];
        let id = id(index);
        json!({
            "id": id,
            "state": state.name(),
            "mediaType": "webchat",
            "participants": [{
                "purpose": "agent",
                "state": state.name(),
                "userId": users::id(index % self.users),
                "queueId": queue(index % QUEUES),
            }],
            "version": version,
            "selfUri": format!("/api/v2/conversations/{id}"),
        })
    }

    /// Moves a conversation on, to `state` or else the next; what it is then.
    pub(super) fn turn(&mut self, index: usize, state: Option<State>) -> Value {
        let (now, version) = &mut self.states[index];
        *now = state.unwrap_or(now.next());
        *version += 1;
        self.entity(index)
    }

    /// The index of a conversation.
    pub(super) fn find(&self, wanted: &str) -> Result<usize, ApiError> {
        let index = wanted.rsplit('-').next().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        index
            .and_then(|number| number.checked_sub(1))
            .filter(|index| *index < self.states.len() && id(*index) == wanted)
            .ok_or_else(|| ApiError::not_found(wanted))
    }

    /// Answers `/api/v2/conversations...`; `path` is what follows. None if the path is about something else.
    pub(super) fn handle(&mut self, request: &ApiRequest, path: &[&str]) -> Option<Done> {
        let page = |wanted: &dyn Fn(State) -> bool| {
            let all = self.states.iter().enumerate().filter(|(_, (state, _))| wanted(*state));
            let all: Vec<usize> = all.map(|(index, _)| index).collect();
            paging::page(request, &all, |index| self.entity(*index))
        };
        Some(match (&request.method, path) {
            (&Method::GET, []) => {
                Done::ok("GET /api/v2/conversations", page(&|state| state != State::Disconnected))
            }
            (&Method::GET, ["webchat"]) => Done::ok("GET /api/v2/conversations/webchat", page(&|_| true)),
            (_, ["messages"]) => return None,
            (&Method::GET, [id]) => {
                Done::of("GET /api/v2/conversations/{id}", self.find(id).map(|index| self.entity(index)))
            }
            (&Method::POST, [id, "disconnect"]) => Done::of(
                "POST /api/v2/conversations/{id}/disconnect",
                self.find(id).map(|index| self.turn(index, Some(State::Disconnected))),
            ),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_turns_round_and_counts_its_versions() {
        let mut contacts = Contacts::new(2, 500);
        let seen: Vec<(Value, Value)> = (0..4)
            .map(|_| contacts.turn(1, None))
            .map(|entity| (entity["state"].clone(), entity["version"].clone()))
            .collect();
        let expected = [("disconnected", 2), ("alerting", 3), ("connected", 4), ("disconnected", 5)];
        assert_eq!(seen, expected.map(|(state, version)| (json!(state), json!(version))));
        assert_eq!(contacts.entity(0)["version"], 1);
    }

    #[test]
    fn only_its_own_ids_are_found() {
        let contacts = Contacts::new(2, 1);
        assert_eq!(contacts.find(&id(1)).unwrap(), 1);
        for wrong in [id(2), id(1).replace('3', "4"), "x".to_owned(), String::new()] {
            assert!(contacts.find(&wrong).is_err(), "{wrong}");
        }
    }
}
