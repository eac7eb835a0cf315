//! The routing languages of a user: one at a time, or merged by up to fifty.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::{Done, languages, paging};
use super::{User, Users};
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// Most languages one bulk call may name (SDK documentation of the operation).
const BULK_MAX: usize = 50;

impl User {
    fn language(&self, id: &str, proficiency: f64) -> Value {
        json!({
            "id": id,
            "name": languages::name(id),
            "proficiency": proficiency,
            "state": "active",
            "languageUri": format!("/api/v2/routing/languages/{id}"),
            "selfUri": format!("/api/v2/users/{}/routinglanguages/{id}", self.id),
        })
    }
}

impl Users {
    pub(super) fn handle_languages(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        id: &str,
        rest: &[&str],
    ) -> Option<Done> {
        let (endpoint, change): (_, Change) = match (request.method.as_str(), rest) {
            ("GET", []) => ("GET /api/v2/users/{id}/routinglanguages", |user, request, _| {
                let list: Vec<(&String, &f64)> = user.languages.iter().collect();
                Ok(paging::page(request, &list, |(id, proficiency)| user.language(id, **proficiency)))
            }),
            ("POST", []) => ("POST /api/v2/users/{id}/routinglanguages", |user, request, _| {
                let (id, proficiency) = item(&request.json().unwrap_or_default(), None)?;
                user.languages.insert(id.clone(), proficiency);
                Ok(user.language(&id, proficiency))
            }),
            ("PATCH", ["bulk"]) => ("PATCH /api/v2/users/{id}/routinglanguages/bulk", merge),
            ("PATCH", [_]) => {
                ("PATCH /api/v2/users/{id}/routinglanguages/{languageId}", |user, request, language| {
                    let (id, proficiency) = item(&request.json().unwrap_or_default(), Some(language))?;
                    let held = user.languages.get_mut(&id).ok_or_else(|| ApiError::not_found(language))?;
                    *held = proficiency;
                    Ok(user.language(&id, proficiency))
                })
            }
            ("DELETE", [_]) => {
                ("DELETE /api/v2/users/{id}/routinglanguages/{languageId}", |user, _, language| {
                    let held = user.languages.remove(language);
                    held.map(|_| json!({})).ok_or_else(|| ApiError::not_found(language))
                })
            }
            _ => return None,
        };
        let language = rest.first().copied().unwrap_or_default();
        Some(Done::of(endpoint, self.find(now, id).and_then(|user| change(user, request, language))))
    }
}

/// What a call does to one user's languages; the text is the language id of the path, if it has one.
type Change = fn(&mut User, &ApiRequest, &str) -> Result<Value, ApiError>;

/// One `{id, proficiency}`; proficiency is 0 to 5.
fn item(item: &Value, id: Option<&str>) -> Result<(String, f64), ApiError> {
    let id = id
        .or_else(|| item["id"].as_str())
        .ok_or_else(|| ApiError::bad_request("each language needs an id"))?;
    if languages::name(id).is_none() {
        return Err(ApiError::bad_request(format!("language {id} does not exist")));
    }
    let proficiency = item["proficiency"].as_f64().unwrap_or(-1.0);
    if !(0.0..=5.0).contains(&proficiency) {
        return Err(ApiError::bad_request(format!("proficiency of language {id} must be 0 to 5")));
    }
    Ok((id.to_owned(), proficiency))
}

/// All of them or none.
fn merge(user: &mut User, request: &ApiRequest, _: &str) -> Result<Value, ApiError> {
    let Some(Value::Array(items)) = request.json() else {
        return Err(ApiError::bad_request("the body must be a JSON array of {id, proficiency}"));
    };
    if items.len() > BULK_MAX {
        return Err(ApiError::bad_request(format!("at most {BULK_MAX} languages, got {}", items.len())));
    }
    let new: Result<Vec<_>, ApiError> = items.iter().map(|one| item(one, None)).collect();
    user.languages.extend(new?);
    let list: Vec<(&String, &f64)> = user.languages.iter().collect();
    Ok(paging::whole(request, &list, |(id, proficiency)| user.language(id, **proficiency)))
}
