//! External contacts in bulk: no job, the answer has each item's outcome.

use http::Method;
use serde_json::{Value, json};

use super::{JobStats, Jobs};
use crate::model::org::Done;
use crate::model::uuid_text;
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// What is written down under.
const KIND: &str = "external-contacts";

impl Jobs {
    /// Answers `/api/v2/externalcontacts/...`; `path` is what follows.
    pub(in crate::model::org) fn handle_external(
        &mut self,
        request: &ApiRequest,
        path: &[&str],
        rng: &mut fastrand::Rng,
    ) -> Option<Done> {
        let endpoint = match (&request.method, path) {
            (&Method::POST, ["bulk", "contacts"]) => "POST /api/v2/externalcontacts/bulk/contacts",
            (&Method::POST, ["bulk", "contacts", "add"]) => "POST /api/v2/externalcontacts/bulk/contacts/add",
            (&Method::POST, ["bulk", "contacts", "update"]) => {
                "POST /api/v2/externalcontacts/bulk/contacts/update"
            }
            (&Method::POST, ["bulk", "contacts", "remove"]) => {
                "POST /api/v2/externalcontacts/bulk/contacts/remove"
            }
            _ => return None,
        };
        let Some(Value::Array(items)) = request.json() else {
            return Some(Done::error(
                endpoint,
                ApiError::bad_request("the body must be a JSON array of items"),
            ));
        };
        let adds = path.last() == Some(&"add");
        let (results, failed) = self.apply(items, rng, |mut item, rng| {
            if !item.is_object() {
                return Err(ApiError::bad_request("an item must be an object"));
            }
            if adds {
                if item.get("lastName").and_then(Value::as_str).is_none_or(str::is_empty) {
                    return Err(ApiError::bad_request("missing: lastName"));
                }
                item["id"] = json!(uuid_text(rng));
            } else if item.get("id").is_none() {
                return Err(ApiError::bad_request("missing: id"));
            }
            Ok(item)
        });
        // Not a job, so none is ever open; what was sent twice is seen in the books of writes.
        let stats: &mut JobStats = self.stats.entry(KIND.to_owned()).or_default();
        stats.submitted += 1;
        let body = json!({ "results": results, "errorCount": failed.len(), "errorIndexes": failed });
        Some(Done::ok(endpoint, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JobConfig;

    #[test]
    fn every_item_has_its_outcome_at_its_place() {
        let mut jobs = Jobs::new(JobConfig::default());
        let mut request = ApiRequest::new(Method::POST, "/x");
        request.body = json!([{"lastName": "A"}, {"firstName": "B"}, 7]).to_string().into_bytes();
        let mut rng = fastrand::Rng::with_seed(1);
        let done = jobs.handle_external(&request, &["bulk", "contacts", "add"], &mut rng).unwrap();
        let body = done.result.unwrap().body.unwrap();
        assert_eq!((&body["errorCount"], &body["errorIndexes"]), (&json!(2), &json!([1, 2])));
        let results = &body["results"];
        assert!(results[0]["entity"]["id"].is_string() && results[0]["success"] == true);
        assert_eq!(results[1]["error"]["message"], "missing: lastName");
        assert_eq!(results[2]["error"]["retryable"], false);
    }
}
