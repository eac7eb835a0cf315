//! The organisation behind the API: its objects, and what each endpoint does with them.
//!
//! Each submodule owns one kind of object and answers the calls about it. A handler gets the path split into segments behind
//! `/api/v2`, and answers `None` for a path it does not know, which becomes a 404.

pub mod changes;
pub mod contacts;
pub mod conversations;
pub mod jobs;
pub mod languages;
pub mod limits;
pub mod paging;
pub mod presence;
pub mod scim;
pub mod scripts;
pub mod skills;
pub mod users;

mod live;

use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::config::SimConfig;
use crate::model::Stream;
use crate::model::limits::LimitRule;
use crate::wire::errors::ApiError;
use crate::wire::form;
use crate::wire::message::{ApiRequest, USER_SEARCH};

pub use changes::Change;

/// What an endpoint answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The endpoint's template, such as `PATCH /api/v2/users/{id}`.
    pub endpoint: &'static str,
    /// The answer.
    pub result: Result<Success, ApiError>,
    /// How many users this call created with an email that another user has.
    pub duplicate_emails: u32,
}

/// A successful answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Success {
    /// 2xx, or 304.
    pub status: u16,
    /// JSON; absent for answers without a body.
    pub body: Option<Value>,
    /// Extra headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Done {
    /// 200 with a body.
    pub fn ok(endpoint: &'static str, body: Value) -> Self {
        Self::status(endpoint, 200, Some(body))
    }

    /// Another status.
    pub fn status(endpoint: &'static str, status: u16, body: Option<Value>) -> Self {
        let result = Ok(Success { status, body, headers: Vec::new() });
        Self { endpoint, result, duplicate_emails: 0 }
    }

    /// An error.
    pub fn error(endpoint: &'static str, error: ApiError) -> Self {
        Self { endpoint, result: Err(error), duplicate_emails: 0 }
    }

    /// A result, 200 if good.
    pub fn of(endpoint: &'static str, result: Result<Value, ApiError>) -> Self {
        match result {
            Ok(body) => Self::ok(endpoint, body),
            Err(error) => Self::error(endpoint, error),
        }
    }

    /// Adds a header to a success.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: String) -> Self {
        if let Ok(success) = &mut self.result {
            success.headers.push((name, value));
        }
        self
    }
}

/// The objects of one organisation.
#[derive(Debug)]
pub struct Org {
    users: users::Users,
    skills: skills::Skills,
    scripts: scripts::Scripts,
    contacts: contacts::Contacts,
    conversations: conversations::Conversations,
    presences: presence::Presences,
    jobs: jobs::Jobs,
    limits: Vec<limits::LimitEntry>,
    live: live::Live,
    /// What changed and was not taken yet.
    changes: Vec<Change>,
    rng: fastrand::Rng,
}

impl Org {
    /// The organisation a configuration describes.
    pub fn new(config: &SimConfig, rules: &[LimitRule]) -> Self {
        Self {
            users: users::Users::seeded(config),
            skills: skills::Skills::default(),
            scripts: scripts::Scripts::seeded(config.scripts),
            contacts: contacts::Contacts::new(config.live.conversations, config.users),
            conversations: conversations::Conversations::new(config.lag),
            presences: presence::Presences::default(),
            jobs: jobs::Jobs::new(config.jobs.clone()),
            limits: limits::entries(config, rules),
            live: live::Live::new(config),
            changes: Vec::new(),
            rng: Stream::Org.rng(config.seed),
        }
    }

    /// The users, for the judge.
    pub fn users(&self) -> &users::Users {
        &self.users
    }

    /// The jobs, for the judge.
    pub fn jobs(&self) -> &jobs::Jobs {
        &self.jobs
    }

    /// Executes a call; `None` if no such endpoint exists. HEAD is GET; the shell leaves the body out.
    pub fn execute(&mut self, now: Duration, request: &ApiRequest) -> Option<Done> {
        if request.method == Method::HEAD {
            let request = ApiRequest { method: Method::GET, ..request.clone() };
            return self.execute(now, &request);
        }
        let done = self.dispatch(now, request)?;
        if request.is_write()
            && let Ok(Success { body: Some(body), .. }) = &done.result
        {
            self.changes.extend(Change::told(now, body));
        }
        Some(done)
    }

    /// Changes what the GET of `path` shows, to a value by name or to the next one, as the judge orders. What it shows then.
    pub fn change(&mut self, now: Duration, path: &str, to: Option<&str>) -> Result<Value, ApiError> {
        let parts: Vec<&str> = path.split('/').skip(3).collect();
        let body = match *parts {
            ["scripts", id] if to.is_none() => self.scripts.publish(id)?,
            ["conversations", id] => {
                let state = to.map(|to| {
                    contacts::State::named(to)
                        .ok_or_else(|| ApiError::bad_request(format!("there is no state {to}")))
                });
                self.contacts.turn(self.contacts.find(id)?, state.transpose()?)
            }
            ["users", id, "presences", "purecloud"] if self.users.exists(now, id) => {
                self.presences.turn_presence(id, to)?
            }
            ["users", id, "routingstatus"] if self.users.exists(now, id) => {
                self.presences.turn_routing(id, to)?
            }
            _ => return Err(ApiError::not_found(path)),
        };
        self.changes.extend(Change::told(now, &body));
        Ok(body)
    }

    /// Takes what has changed since this was last asked.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn dispatch(&mut self, now: Duration, request: &ApiRequest) -> Option<Done> {
        let rest = request.path.strip_prefix("/api/v2/")?;
        let decoded: Vec<String> =
            rest.split('/').filter(|part| !part.is_empty()).map(form::decode_segment).collect();
        let path: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let (area, rest) = path.split_first()?;
        match *area {
            "users" => match rest {
                [id, "presences" | "routingstatus", ..] if self.users.exists(now, id) => {
                    self.presences.handle(request, id, &rest[1..])
                }
                _ => self.users.handle(now, request, rest, &mut self.rng),
            },
            "routing" => self.skills.handle(request, rest),
            "scripts" => self.scripts.handle(request, rest),
            "agent-scripting" => self.scripts.handle_agent(request, rest),
            "conversations" => self
                .contacts
                .handle(request, rest)
                .or_else(|| self.conversations.handle(now, request, &path, &mut self.rng)),
            "interactions" => self.conversations.handle(now, request, &path, &mut self.rng),
            "analytics" => self.jobs.handle_analytics(now, request, rest, &mut self.rng),
            "bulk" => self.jobs.handle_bulk(now, request, rest, &mut self.users, &mut self.rng),
            "recording" => self.jobs.handle_recording(now, request, rest, &mut self.rng),
            "outbound" => self.jobs.handle_outbound(now, request, rest, &mut self.rng),
            "externalcontacts" => self.jobs.handle_external(request, rest, &mut self.rng),
            "organizations" => limits::handle(&self.limits, request, rest),
            "scim" => scim::handle(&self.users, now, request, rest),
            _ => None,
        }
    }
}

/// The scope a call needs: "view:users", "edit:users". Searches by POST only view.
pub fn scope(method: &Method, path: &str) -> String {
    let area = match path.split('/').nth(3).unwrap_or_default() {
        "scim" => "users",
        "agent-scripting" => "scripts",
        "interactions" => "conversations",
        area => area,
    };
    let views = matches!(*method, Method::GET | Method::HEAD) || area == "analytics" || path == USER_SEARCH;
    format!("{}:{area}", if views { "view" } else { "edit" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_follow_method_and_area() {
        assert_eq!(scope(&Method::GET, "/api/v2/scim/v2/users"), "view:users");
        assert_eq!(scope(&Method::PATCH, "/api/v2/users/1"), "edit:users");
        assert_eq!(scope(&Method::POST, "/api/v2/analytics/conversations/details/jobs"), "view:analytics");
    }
}
