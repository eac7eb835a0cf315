//! The routing skills of a user: one at a time, merged, or replaced as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::{Done, paging, skills};
use super::{User, Users};
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

impl User {
    fn skill(&self, id: &str, proficiency: f64) -> Value {
        json!({
            "id": id,
            "name": skills::name(id),
            "proficiency": proficiency,
            "state": "active",
            "skillUri": format!("/api/v2/routing/skills/{id}"),
            "selfUri": format!("/api/v2/users/{}/routingskills/{id}", self.id),
        })
    }

    fn skills_page(&self, request: &ApiRequest) -> Value {
        let list: Vec<(&String, &f64)> = self.skills.iter().collect();
        paging::page(request, &list, |(id, proficiency)| self.skill(id, **proficiency))
    }

    /// What the bulk calls answer: they have no paging parameters.
    fn all_skills(&self, request: &ApiRequest) -> Value {
        let list: Vec<(&String, &f64)> = self.skills.iter().collect();
        paging::whole(request, &list, |(id, proficiency)| self.skill(id, **proficiency))
    }
}

impl Users {
    pub(super) fn handle_skills(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        id: &str,
        rest: &[&str],
    ) -> Option<Done> {
        let (endpoint, change): (_, SkillChange) = match (request.method.as_str(), rest) {
            ("GET", []) => {
                ("GET /api/v2/users/{id}/routingskills", |user, request, _| Ok(user.skills_page(request)))
            }
            ("POST", []) => ("POST /api/v2/users/{id}/routingskills", add_skill),
            ("PATCH", ["bulk"]) => ("PATCH /api/v2/users/{id}/routingskills/bulk", merge_skills),
            ("PUT", ["bulk"]) => ("PUT /api/v2/users/{id}/routingskills/bulk", replace_skills),
            ("PUT", [_]) => ("PUT /api/v2/users/{id}/routingskills/{skillId}", put_skill),
            ("DELETE", [_]) => ("DELETE /api/v2/users/{id}/routingskills/{skillId}", delete_skill),
            _ => return None,
        };
        let skill = rest.first().copied().unwrap_or_default();
        let result = self.find(now, id).and_then(|user| change(user, request, skill));
        Some(Done::of(endpoint, result))
    }
}

/// What a call does to one user's skills; the text is the skill id of the path, if it has one.
type SkillChange = fn(&mut User, &ApiRequest, &str) -> Result<Value, ApiError>;

/// One `{id, proficiency}`; proficiency is 0 to 5.
fn skill_item(item: &Value, id: Option<&str>) -> Result<(String, f64), ApiError> {
    let id =
        id.or_else(|| item["id"].as_str()).ok_or_else(|| ApiError::bad_request("each skill needs an id"))?;
    if skills::name(id).is_none() {
        return Err(ApiError::bad_request(format!("skill {id} does not exist")));
    }
    let proficiency = item["proficiency"].as_f64().unwrap_or(-1.0);
    if !(0.0..=5.0).contains(&proficiency) {
        return Err(ApiError::bad_request(format!("proficiency of skill {id} must be 0 to 5")));
    }
    Ok((id.to_owned(), proficiency))
}

fn skill_list(request: &ApiRequest) -> Result<BTreeMap<String, f64>, ApiError> {
    let Some(Value::Array(items)) = request.json() else {
        return Err(ApiError::bad_request("the body must be a JSON array of {id, proficiency}"));
    };
    items.iter().map(|item| skill_item(item, None)).collect()
}

fn merge_skills(user: &mut User, request: &ApiRequest, _: &str) -> Result<Value, ApiError> {
    user.skills.extend(skill_list(request)?);
    Ok(user.all_skills(request))
}

fn replace_skills(user: &mut User, request: &ApiRequest, _: &str) -> Result<Value, ApiError> {
    user.skills = skill_list(request)?;
    Ok(user.all_skills(request))
}

fn add_skill(user: &mut User, request: &ApiRequest, _: &str) -> Result<Value, ApiError> {
    let (id, proficiency) = skill_item(&request.json().unwrap_or_default(), None)?;
    user.skills.insert(id.clone(), proficiency);
    Ok(user.skill(&id, proficiency))
}

fn put_skill(user: &mut User, request: &ApiRequest, skill: &str) -> Result<Value, ApiError> {
    let (id, proficiency) = skill_item(&request.json().unwrap_or_default(), Some(skill))?;
    user.skills.insert(id.clone(), proficiency);
    Ok(user.skill(&id, proficiency))
}

fn delete_skill(user: &mut User, _: &ApiRequest, skill: &str) -> Result<Value, ApiError> {
    user.skills.remove(skill).map(|_| json!({})).ok_or_else(|| ApiError::not_found(skill))
}
