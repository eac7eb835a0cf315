//! What users are up to: their presence, which they set, and their routing status, which says whether work reaches them.

use std::collections::HashMap;

use http::Method;
use serde_json::{Value, json};

use super::Done;
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// The system presences of the platform, in the order of their simulated definitions.
pub const PRESENCES: [&str; 6] = ["Available", "Away", "Break", "Busy", "Meal", "Meeting"];

/// The routing statuses of the platform.
pub const STATUSES: [&str; 5] = ["OFF_QUEUE", "IDLE", "INTERACTING", "NOT_RESPONDING", "COMMUNICATING"];

/// A value out of a list, and how often it has been set.
#[derive(Debug, Clone, Copy)]
struct Held {
    index: usize,
    version: u64,
}

const START: Held = Held { index: 0, version: 1 };

/// Everybody's presence and routing status; who was never set is available and off queue.
#[derive(Debug, Default)]
pub struct Presences {
    presence: HashMap<String, Held>,
    routing: HashMap<String, Held>,
}

impl Presences {
    fn presence(&self, user: &str) -> Value {
        let held = self.presence.get(user).copied().unwrap_or(START);
        json!({
            "id": user,
            "source": "PURECLOUD",
            "primary": true,
            "presenceDefinition": {
                "id": format!("40000000-0000-4000-8000-{:012x}", held.index + 1),
                "systemPresence": PRESENCES[held.index],
            },
            "message": "",
            "version": held.version,
            "selfUri": format!("/api/v2/users/{user}/presences/purecloud"),
        })
    }

    fn routing(&self, user: &str) -> Value {
        let held = self.routing.get(user).copied().unwrap_or(START);
        json!({
            "id": user,
            "userId": user,
            "status": STATUSES[held.index],
            "version": held.version,
            "selfUri": format!("/api/v2/users/{user}/routingstatus"),
        })
    }

    /// Sets a presence by its name, or moves on to the next; what it is then.
    pub(super) fn turn_presence(&mut self, user: &str, name: Option<&str>) -> Result<Value, ApiError> {
        turn(&mut self.presence, user, &PRESENCES, name)?;
        Ok(self.presence(user))
    }

    /// Sets a routing status by its name, or moves on to the next; what it is then.
    pub(super) fn turn_routing(&mut self, user: &str, name: Option<&str>) -> Result<Value, ApiError> {
        turn(&mut self.routing, user, &STATUSES, name)?;
        Ok(self.routing(user))
    }

    /// Answers `/api/v2/users/{id}/presences/purecloud` and `/routingstatus` of a user that exists; `path` is what follows the id.
    pub(super) fn handle(&mut self, request: &ApiRequest, user: &str, path: &[&str]) -> Option<Done> {
        let body = request.json().unwrap_or_default();
        Some(match (&request.method, path) {
            (&Method::GET, ["presences", "purecloud"]) => {
                Done::ok("GET /api/v2/users/{id}/presences/purecloud", self.presence(user))
            }
            (&Method::PATCH, ["presences", "purecloud"]) => {
                const ENDPOINT: &str = "PATCH /api/v2/users/{id}/presences/purecloud";
                let name = body["presenceDefinition"]["systemPresence"].as_str().unwrap_or_default();
                Done::of(ENDPOINT, self.turn_presence(user, Some(name)))
            }
            (&Method::GET, ["routingstatus"]) => {
                Done::ok("GET /api/v2/users/{id}/routingstatus", self.routing(user))
            }
            (&Method::PUT, ["routingstatus"]) => {
                const ENDPOINT: &str = "PUT /api/v2/users/{id}/routingstatus";
                let name = body["status"].as_str().unwrap_or_default();
                Done::of(ENDPOINT, self.turn_routing(user, Some(name)))
            }
            _ => return None,
        })
    }
}

fn turn(
    all: &mut HashMap<String, Held>,
    user: &str,
    names: &[&str],
    name: Option<&str>,
) -> Result<(), ApiError> {
    let held = all.get(user).copied().unwrap_or(START);
    let index = match name {
        None => (held.index + 1) % names.len(),
        Some(name) => names
            .iter()
            .position(|known| known.eq_ignore_ascii_case(name))
            .ok_or_else(|| ApiError::bad_request(format!("\"{name}\" is not one of {}", names.join(", "))))?,
    };
    all.insert(user.to_owned(), Held { index, version: held.version + 1 });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_and_routing_status_have_versions_of_their_own() {
        let mut presences = Presences::default();
        assert_eq!(presences.presence("a")["presenceDefinition"]["systemPresence"], "Available");
        let set = presences.turn_presence("a", Some("Meal")).unwrap();
        assert_eq!(
            (&set["version"], &set["presenceDefinition"]["systemPresence"]),
            (&json!(2), &json!("Meal"))
        );
        assert_eq!(
            presences.turn_presence("a", None).unwrap()["presenceDefinition"]["systemPresence"],
            "Meeting"
        );
        assert_eq!(presences.routing("a")["version"], 1);
        assert_eq!(presences.turn_routing("a", Some("idle")).unwrap()["status"], "IDLE");
        assert_eq!(presences.turn_routing("a", Some("asleep")).unwrap_err().status, 400);
        assert_eq!(presences.routing("a")["version"], 2);
    }
}
