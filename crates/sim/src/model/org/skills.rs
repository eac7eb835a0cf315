//! Routing skills: a fixed catalogue.

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

fn entity(index: usize) -> Value {
    let id = id(index);
    json!({
        "id": id,
        "name": NAMES[index],
        "state": "active",
        "version": "1",
        "selfUri": format!("/api/v2/routing/skills/{id}"),
    })
}

pub(super) fn handle(request: &ApiRequest, path: &[&str]) -> Option<Done> {
    match (&request.method, path) {
        (&Method::GET, ["skills"]) => {
            let wanted = request.query("name").map(str::to_lowercase);
            let matching: Vec<usize> = (0..NAMES.len())
                .filter(|index| {
                    wanted.as_ref().is_none_or(|wanted| NAMES[*index].to_lowercase().contains(wanted))
                })
                .collect();
            Some(Done::ok(
                "GET /api/v2/routing/skills",
                paging::page(request, &matching, |index| entity(*index)),
            ))
        }
        (&Method::GET, ["skills", wanted]) => {
            let found = (0..NAMES.len()).find(|index| id(*index) == *wanted);
            let result = found.map(entity).ok_or_else(|| ApiError::not_found(wanted));
            Some(Done::of("GET /api/v2/routing/skills/{id}", result))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skill_is_found_by_name_in_any_case() {
        let request = ApiRequest::new(Method::GET, "/api/v2/routing/skills?name=vip");
        let done = handle(&request, &["skills"]).unwrap();
        let body = done.result.unwrap().body.unwrap();
        assert_eq!(body["total"], 1);
        assert_eq!(name(body["entities"][0]["id"].as_str().unwrap()), Some("VIP"));
    }
}
