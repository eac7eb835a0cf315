//! SCIM users (RFC 7644): another paging style and another error shape over the same users.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::Done;
use super::users::{User, Users};
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// The page size if the caller names none; the platform warns that larger ones "may exceed internal resource limits".
const DEFAULT_COUNT: usize = 25;

/// The largest page anyone gets.
const MAX_COUNT: usize = 100;

fn resource(user: &User) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": user.id(),
        "userName": user.email(),
        "displayName": user.name(),
        "active": true,
        "meta": {
            "resourceType": "User",
            "version": format!("\"{}\"", user.version()),
            "location": format!("/api/v2/scim/v2/users/{}", user.id()),
        },
    })
}

/// The name a filter asks for, in lower case. Of RFC 7644 §3.4.2.2 only `userName eq "…"` is understood; attribute and
/// operator are of either case there, and so is a user name.
fn user_name(filter: &str) -> Result<String, ApiError> {
    let mut words = filter.splitn(3, ' ');
    match (words.next(), words.next(), words.next().map(serde_json::from_str::<String>)) {
        (Some(attribute), Some(operator), Some(Ok(name)))
            if attribute.eq_ignore_ascii_case("userName") && operator.eq_ignore_ascii_case("eq") =>
        {
            Ok(name.to_lowercase())
        }
        _ => Err(ApiError::bad_request("only the filter userName eq \"...\" is known")),
    }
}

pub(super) fn handle(users: &Users, now: Duration, request: &ApiRequest, path: &[&str]) -> Option<Done> {
    if request.method != Method::GET {
        return None;
    }
    match path {
        ["v2", "users" | "Users"] => {
            const ENDPOINT: &str = "GET /api/v2/scim/v2/users";
            let wanted = match request.query("filter").map(user_name).transpose() {
                Ok(wanted) => wanted,
                Err(error) => return Some(Done::error(ENDPOINT, error)),
            };
            let fits = |user: &User| wanted.as_ref().is_none_or(|name| user.email().to_lowercase() == *name);
            let visible: Vec<&User> =
                users.iter().filter(|user| user.is_visible(now) && fits(user)).collect();
            let start = request.number("startIndex", 1);
            let count = request.number("count", DEFAULT_COUNT).min(MAX_COUNT);
            let page: Vec<Value> =
                visible.iter().skip(start - 1).take(count).map(|user| resource(user)).collect();
            let body = json!({
                "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
                "totalResults": visible.len(),
                "startIndex": start,
                "itemsPerPage": page.len(),
                "Resources": page,
            });
            Some(Done::ok(ENDPOINT, body))
        }
        ["v2", "users" | "Users", id] => {
            const ENDPOINT: &str = "GET /api/v2/scim/v2/users/{id}";
            Some(match users.iter().find(|user| user.id() == *id && user.is_visible(now)) {
                Some(user) => {
                    Done::ok(ENDPOINT, resource(user)).with("ETag", format!("\"{}\"", user.version()))
                }
                None => Done::error(ENDPOINT, ApiError::not_found(id)),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SimConfig;

    #[test]
    fn start_index_counts_from_one() {
        let users = Users::seeded(&SimConfig { users: 30, ..SimConfig::default() });
        let request = ApiRequest::new(Method::GET, "/api/v2/scim/v2/users?startIndex=29&count=10");
        let done = handle(&users, Duration::ZERO, &request, &["v2", "users"]).unwrap();
        let body = done.result.unwrap().body.unwrap();
        assert_eq!((&body["totalResults"], &body["itemsPerPage"]), (&json!(30), &json!(2)));
        assert_eq!(body["Resources"][0]["displayName"], "Agent 00029");
    }

    #[test]
    fn a_filter_finds_a_user_by_name_alone() {
        let users = Users::seeded(&SimConfig { users: 30, ..SimConfig::default() });
        let found = |filter: &str| {
            let request = ApiRequest::new(Method::GET, &format!("/api/v2/scim/v2/users?filter={filter}"));
            handle(&users, Duration::ZERO, &request, &["v2", "users"])
                .unwrap()
                .result
                .map(|found| found.body.unwrap())
        };
        let one = found("userName%20eq%20%22Agent00007@example.com%22").unwrap();
        assert_eq!(
            (&one["totalResults"], &one["Resources"][0]["displayName"]),
            (&json!(1), &json!("Agent 00007"))
        );
        assert_eq!(found("userName%20EQ%20%22nobody%22").unwrap()["totalResults"], 0);
        for filter in ["userName", "userName%20co%20%22a%22", "title%20eq%20%22a%22", "userName%20eq%20a"] {
            assert_eq!(found(filter).unwrap_err().status, 400, "{filter}");
        }
    }
}
