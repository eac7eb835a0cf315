//! Routing skills: a fixed catalogue, and what callers added to it. Added skills can be read and deleted; users are given
//! those of the catalogue only.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::{Done, paging};
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// The skills every simulated organisation has, in this order.
pub const NAMES: [&str; 20] = [
    "Support",
    "Billing",
    "Sales",
    "Retention",
    "Spanish",
    "French",
    "German",
    "Technical",
    "Onboarding",
    "Collections",
    "Fraud",
    "VIP",
    "Chat",
    "Email",
    "Voice",
    "Returns",
    "Shipping",
    "Warranty",
    "Escalations",
    "Backoffice",
];

/// The id of the n-th skill (from 0).
pub fn id(index: usize) -> String {
    format!("10000000-0000-4000-8000-{:012x}", index + 1)
}

/// The name of a skill, if the id is known.
pub fn name(skill: &str) -> Option<&'static str> {
    (0..NAMES.len()).find(|index| id(*index) == skill).map(|index| NAMES[index])
}

fn entity(id: &str, name: &str) -> Value {
    json!({
        "id": id,
        "name": name,
        "state": "active",
        "version": "1",
        "selfUri": format!("/api/v2/routing/skills/{id}"),
    })
}

/// The skills of an organisation.
#[derive(Debug, Default)]
pub struct Skills {
    /// Added ones, by id.
    added: BTreeMap<String, String>,
    made: u64,
}

impl Skills {
    pub(super) fn handle(&mut self, request: &ApiRequest, path: &[&str]) -> Option<Done> {
        match (&request.method, path) {
            (&Method::GET, ["skills"]) => {
                let wanted = request.query("name").map(str::to_lowercase);
                let all = self.all();
                let matching: Vec<_> = all
                    .iter()
                    .filter(|(_, name)| wanted.as_ref().is_none_or(|part| name.to_lowercase().contains(part)))
                    .collect();
                let page = paging::page(request, &matching, |(id, name)| entity(id, name));
                Some(Done::ok("GET /api/v2/routing/skills", page))
            }
            (&Method::POST, ["skills"]) => {
                Some(Done::of("POST /api/v2/routing/skills", self.add(&request.body)))
            }
            (&Method::GET, ["skills", wanted]) => {
                let all = self.all();
                let found = all.iter().find(|(id, _)| id == wanted);
                let result =
                    found.map(|(id, name)| entity(id, name)).ok_or_else(|| ApiError::not_found(wanted));
                Some(Done::of("GET /api/v2/routing/skills/{id}", result))
            }
            (&Method::DELETE, ["skills", wanted]) => {
                const ENDPOINT: &str = "DELETE /api/v2/routing/skills/{id}";
                Some(match self.added.remove(*wanted) {
                    Some(_) => Done::status(ENDPOINT, 204, None),
                    None if name(wanted).is_some() => {
                        let text = "a skill of the catalogue is in use and cannot be deleted";
                        Done::error(ENDPOINT, ApiError::new(409, "general.conflict", text))
                    }
                    None => Done::error(ENDPOINT, ApiError::not_found(wanted)),
                })
            }
            _ => None,
        }
    }

    /// Id and name of each.
    fn all(&self) -> Vec<(String, &str)> {
        let catalogue = NAMES.iter().enumerate().map(|(index, name)| (id(index), *name));
        catalogue.chain(self.added.iter().map(|(id, name)| (id.clone(), name.as_str()))).collect()
    }

    fn add(&mut self, body: &[u8]) -> Result<Value, ApiError> {
        let body: Value =
            serde_json::from_slice(body).map_err(|_| ApiError::bad_request("the body is not JSON"))?;
        let wanted = body["name"].as_str().filter(|name| !name.is_empty());
        let wanted = wanted.ok_or_else(|| ApiError::bad_request("a skill needs a name"))?;
        if self.all().iter().any(|(_, name)| name.eq_ignore_ascii_case(wanted)) {
            return Err(ApiError::new(409, "general.conflict", format!("a skill named {wanted} exists")));
        }
        self.made += 1;
        let id = format!("20000000-0000-4000-8000-{:012x}", self.made);
        self.added.insert(id.clone(), wanted.to_owned());
        Ok(entity(&id, wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skill_is_found_by_name_in_any_case() {
        let request = ApiRequest::new(Method::GET, "/api/v2/routing/skills?name=vip");
        let done = Skills::default().handle(&request, &["skills"]).unwrap();
        let body = done.result.unwrap().body.unwrap();
        assert_eq!(body["total"], 1);
        assert_eq!(name(body["entities"][0]["id"].as_str().unwrap()), Some("VIP"));
    }

    #[test]
    fn an_added_skill_is_read_and_deleted_and_a_catalogued_one_stays() {
        let mut skills = Skills::default();
        let post = |name: &str| ApiRequest {
            body: format!(r#"{{"name":"{name}"}}"#).into_bytes(),
            ..ApiRequest::new(Method::POST, "/api/v2/routing/skills")
        };
        let made = skills.handle(&post("Probe"), &["skills"]).unwrap().result.unwrap().body.unwrap();
        let added = made["id"].as_str().unwrap();
        assert_eq!(skills.handle(&post("probe"), &["skills"]).unwrap().result.unwrap_err().status, 409);
        let mut status = |method: Method, id: &str| {
            let request = ApiRequest::new(method, "/api/v2/routing/skills/x");
            skills.handle(&request, &["skills", id]).unwrap().result.map(|done| done.status)
        };
        assert_eq!(status(Method::GET, added), Ok(200));
        assert_eq!(status(Method::DELETE, added), Ok(204));
        assert_eq!(status(Method::GET, added).unwrap_err().status, 404);
        assert_eq!(status(Method::DELETE, added).unwrap_err().status, 404);
        assert_eq!(status(Method::DELETE, &id(0)).unwrap_err().status, 409);
    }
}
