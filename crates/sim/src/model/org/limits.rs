//! The limits API: what an organisation may ask about its own quotas.
//!
//! The platform names its rate limits per minute, so under such a key quotas of other windows are scaled to a minute,
//! rounded down; 429 bodies show the same number.

use http::Method;
use serde_json::{Value, json};

use super::Done;
use crate::config::SimConfig;
use crate::model::limits::LimitRule;
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// One limit as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitEntry {
    key: String,
    namespace: String,
    value: u32,
    /// What holds where the organisation was granted nothing else.
    default: u32,
}

/// The entries of a configuration: its visible limits and the body bound.
pub fn entries(config: &SimConfig, rules: &[LimitRule]) -> Vec<LimitEntry> {
    let mut entries: Vec<LimitEntry> = rules
        .iter()
        .filter(|rule| !rule.hidden)
        .map(|rule| LimitEntry {
            key: public_key(config, &rule.key),
            namespace: rule.namespace.clone(),
            value: rule.value,
            default: config.limit_default.filter(|_| rule.key == MAIN).unwrap_or(rule.value),
        })
        .collect();
    entries.extend(config.cap_rules().into_iter().map(|cap| LimitEntry {
        key: cap.key,
        namespace: cap.namespace,
        value: cap.limit,
        default: cap.limit,
    }));
    let body = u32::try_from(config.max_body).unwrap_or(u32::MAX);
    entries.push(LimitEntry {
        key: "request.bytes.max".to_owned(),
        namespace: "platform.api".to_owned(),
        value: body,
        default: body,
    });
    entries
}

/// What headers and books call the main limit.
const MAIN: &str = "default";

/// The main limit is "default" in headers but has its platform name in bodies.
pub(crate) fn public_key(config: &SimConfig, key: &str) -> String {
    if key == MAIN { config.key.clone() } else { key.to_owned() }
}

pub(super) fn handle(entries: &[LimitEntry], request: &ApiRequest, path: &[&str]) -> Option<Done> {
    let ["limits", "namespaces", rest @ ..] = path else { return None };
    if request.method != Method::GET {
        return None;
    }
    match rest {
        [] => {
            let mut names: Vec<&str> = entries.iter().map(|entry| entry.namespace.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let entities: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
            let endpoint = "GET /api/v2/organizations/limits/namespaces";
            Some(Done::ok(endpoint, json!({ "total": entities.len(), "entities": entities })))
        }
        [namespace] => Some(Done::of(
            "GET /api/v2/organizations/limits/namespaces/{ns}",
            listing(entries, namespace, |entry| entry.value),
        )),
        [namespace, "defaults"] => {
            let endpoint = "GET /api/v2/organizations/limits/namespaces/{ns}/defaults";
            Some(Done::of(endpoint, listing(entries, namespace, |entry| entry.default)))
        }
        _ => None,
    }
}

fn listing(
    entries: &[LimitEntry],
    namespace: &str,
    value: fn(&LimitEntry) -> u32,
) -> Result<Value, ApiError> {
    let entities: Vec<Value> = entries
        .iter()
        .filter(|entry| entry.namespace == namespace)
        .map(|entry| json!({ "key": entry.key, "namespace": entry.namespace, "value": value(entry) }))
        .collect();
    if entities.is_empty() {
        Err(ApiError::not_found(namespace))
    } else {
        Ok(json!({ "entities": entities }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_defaults_may_be_other_numbers_than_the_organisations() {
        let config = SimConfig { limit: 600, limit_default: Some(300), ..SimConfig::default() };
        let entries = entries(&config, &config.limit_rules());
        let value = |path: &[&str]| {
            let done = handle(&entries, &ApiRequest::new(Method::GET, "/x"), path).unwrap();
            done.result.unwrap().body.unwrap()["entities"][0]["value"].clone()
        };
        assert_eq!(value(&["limits", "namespaces", "platform.api"]), 600);
        assert_eq!(value(&["limits", "namespaces", "platform.api", "defaults"]), 300);
    }

    #[test]
    fn quotas_are_scaled_to_a_minute() {
        let config = SimConfig { limit: 25, window: Duration::from_secs(5), ..SimConfig::default() };
        let entries = entries(&config, &config.limit_rules());
        let request = ApiRequest::new(Method::GET, "/x");
        let done = handle(&entries, &request, &["limits", "namespaces", "platform.api"]).unwrap();
        let body = done.result.unwrap().body.unwrap();
        assert_eq!(body["entities"][0]["value"], 300);
        assert_eq!(body["entities"][0]["key"], "client.credentials.token.rate.per.minute");
        assert!(handle(&entries, &request, &["limits", "namespaces", "nope"]).unwrap().result.is_err());
    }
}
