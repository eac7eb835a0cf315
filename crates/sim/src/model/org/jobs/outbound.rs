//! Contacts of outbound lists: changed by jobs that tell only how they ended as a whole.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{Jobs, Progress};
use crate::model::org::Done;
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// The kind of job, in the books too.
const KIND: &str = "outbound-contacts";

impl Jobs {
    /// Answers `/api/v2/outbound/...`; `path` is what follows.
    pub(in crate::model::org) fn handle_outbound(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        path: &[&str],
        rng: &mut fastrand::Rng,
    ) -> Option<Done> {
        let ["contactlists", _, "contacts", "bulk", rest @ ..] = path else { return None };
        Some(match (&request.method, rest) {
            (&Method::POST, ["update"]) => self.submit_outbound(
                now,
                request,
                "POST /api/v2/outbound/contactlists/{id}/contacts/bulk/update",
                rng,
            ),
            (&Method::POST, ["remove"]) => self.submit_outbound(
                now,
                request,
                "POST /api/v2/outbound/contactlists/{id}/contacts/bulk/remove",
                rng,
            ),
            (&Method::GET, ["jobs", id]) => Done::of(
                "GET /api/v2/outbound/contactlists/{id}/contacts/bulk/jobs/{jobId}",
                self.outbound_state(now, id),
            ),
            _ => return None,
        })
    }

    fn submit_outbound(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        endpoint: &'static str,
        rng: &mut fastrand::Rng,
    ) -> Done {
        let contacts = request.json().and_then(|body| match body.get("contacts") {
            Some(Value::Array(contacts)) => Some(contacts.clone()),
            _ => None,
        });
        let Some(contacts) = contacts else {
            return Done::error(endpoint, ApiError::bad_request("`contacts` must be an array"));
        };
        let total = contacts.len();
        let id = self.submit(now, KIND, request, false, (contacts, Vec::new()), rng);
        let kind = if endpoint.ends_with("remove") { "BulkDelete" } else { "BulkEdit" };
        let body = json!({ "id": id, "state": "InProgress", "type": kind, "totalRecords": total });
        Done::status(endpoint, 202, Some(body))
    }

    fn outbound_state(&mut self, now: Duration, id: &str) -> Result<Value, ApiError> {
        let (job, progress) = self.look(now, KIND, id)?;
        let total = job.results.len();
        let percent = self.percent(now, self.find(KIND, id)?);
        let (state, percent, why) = match progress {
            Progress::Failed | Progress::Cancelled => ("Failed", 50, Some("The list was changed meanwhile.")),
            Progress::Done | Progress::Expired => ("Complete", 100, None),
            _ => ("InProgress", percent, None),
        };
        let mut body = json!({
            "id": id,
            "state": state,
            "totalRecords": total,
            "completedRecords": total * percent as usize / 100,
            "percentComplete": percent,
        });
        if let Some(why) = why {
            body["failureReason"] = json!(why);
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JobConfig;

    #[test]
    fn a_job_tells_how_far_it_is_and_why_it_failed() {
        for (fail, last) in [(0.0, "Complete"), (1.0, "Failed")] {
            let mut jobs = Jobs::new(JobConfig { fail, ..JobConfig::default() });
            let mut rng = fastrand::Rng::with_seed(1);
            let mut post = ApiRequest::new(Method::POST, "/x");
            post.body = json!({ "contacts": [{ "id": "1" }, { "id": "2" }] }).to_string().into_bytes();
            let path = ["contactlists", "l", "contacts", "bulk", "update"];
            let done = jobs.handle_outbound(Duration::ZERO, &post, &path, &mut rng).unwrap();
            let accepted = done.result.unwrap();
            assert_eq!(accepted.status, 202);
            let id = accepted.body.unwrap()["id"].as_str().unwrap().to_owned();
            let half = jobs.outbound_state(Duration::from_millis(600), &id).unwrap();
            assert_eq!((&half["state"], &half["percentComplete"]), (&json!("InProgress"), &json!(50)));
            let end = jobs.outbound_state(Duration::from_secs(1), &id).unwrap();
            assert_eq!((end["state"].as_str(), end["failureReason"].is_string()), (Some(last), fail > 0.0));
        }
    }
}
