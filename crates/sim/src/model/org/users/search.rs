//! The search of users: an index that answers by the fields it is asked for.

use std::time::Duration;

use serde_json::{Value, json};

use super::{User, Users};
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

impl Users {
    /// `POST /api/v2/users/search`: users that fit every entry of `query`; active ones, unless it asks for a state. Knows the types `EXACT`, `STARTS_WITH` and
    /// `CONTAINS`; case is of no account, as in the platform's index, which learns of a user after the lag.
    pub(super) fn search(&self, now: Duration, request: &ApiRequest) -> Result<Value, ApiError> {
        let body = request.json().unwrap_or_default();
        let Some(Value::Array(query)) = body.get("query") else {
            return Err(ApiError::bad_request("the body needs a list `query`"));
        };
        let wanted = query.iter().map(Wanted::read).collect::<Result<Vec<_>, _>>()?;
        let any_state = wanted.iter().any(|wanted| wanted.fields.iter().any(|field| field == "state"));
        let fits = |user: &&User| {
            user.is_visible(now)
                && (any_state || user.text("state") == "active")
                && wanted.iter().all(|wanted| wanted.fits(user))
        };
        let found: Vec<&User> = self.list.iter().filter(fits).collect();
        let size = body["pageSize"].as_u64().unwrap_or(25).clamp(1, 100) as usize;
        let number = body["pageNumber"].as_u64().unwrap_or(1).clamp(1, 1_000_000) as usize;
        let page: Vec<Value> =
            found.iter().skip((number - 1) * size).take(size).map(|user| user.entity()).collect();
        Ok(json!({
            "total": found.len(),
            "pageCount": found.len().div_ceil(size),
            "pageSize": size,
            "pageNumber": number,
            "results": page,
        }))
    }
}

/// One entry of a search's query.
struct Wanted {
    fits: fn(&str, &str) -> bool,
    fields: Vec<String>,
    values: Vec<String>,
}

impl Wanted {
    fn read(entry: &Value) -> Result<Self, ApiError> {
        let texts = |value: &Value| match value {
            Value::String(text) => vec![text.to_lowercase()],
            Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_lowercase).collect(),
            _ => Vec::new(),
        };
        let fits: fn(&str, &str) -> bool = match entry["type"].as_str() {
            Some("EXACT") => |text, value| text == value,
            Some("STARTS_WITH") => |text, value| text.starts_with(value),
            Some("CONTAINS") => |text, value| text.contains(value),
            _ => return Err(ApiError::bad_request("type must be EXACT, STARTS_WITH or CONTAINS")),
        };
        let fields: Vec<String> = entry["fields"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let values = [texts(&entry["value"]), texts(&entry["values"])].concat();
        if fields.is_empty() || values.is_empty() {
            return Err(ApiError::bad_request("each entry of query needs fields and value or values"));
        }
        Ok(Self { fits, fields, values })
    }

    fn fits(&self, user: &User) -> bool {
        let texts = self.fields.iter().map(|field| user.text(field).to_lowercase());
        texts.into_iter().any(|text| self.values.iter().any(|value| (self.fits)(&text, value)))
    }
}
