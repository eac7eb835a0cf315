//! Bulk jobs (`/api/v2/bulk/{kind}`): an array of items, each with an outcome of its own. Kind `users` creates users.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{Jobs, Progress};
use crate::model::org::Done;
use crate::model::org::users::Users;
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

impl Jobs {
    /// Answers `/api/v2/bulk/...`; `path` is what follows.
    pub(in crate::model::org) fn handle_bulk(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        path: &[&str],
        users: &mut Users,
        rng: &mut fastrand::Rng,
    ) -> Option<Done> {
        let of_kind = path.first().map(|kind| format!("bulk-{kind}")).unwrap_or_default();
        Some(match (&request.method, path) {
            (&Method::POST, [kind]) => self.submit_bulk(now, request, kind, &of_kind, users, rng),
            (&Method::GET, [_, id]) => {
                Done::of("GET /api/v2/bulk/{kind}/{id}", self.bulk_state(now, &request.path, &of_kind, id))
            }
            (&Method::GET, [_, id, "results"]) => {
                let results = self.finished(now, &of_kind, id).map(|job| {
                    json!({
                        "results": job.results,
                        "errorCount": job.failed.len(),
                        "errorIndexes": job.failed,
                    })
                });
                Done::of("GET /api/v2/bulk/{kind}/{id}/results", results)
            }
            _ => return None,
        })
    }

    fn submit_bulk(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        kind: &str,
        of_kind: &str,
        users: &mut Users,
        rng: &mut fastrand::Rng,
    ) -> Done {
        const ENDPOINT: &str = "POST /api/v2/bulk/{kind}";
        let Some(Value::Array(items)) = request.json() else {
            return Done::error(ENDPOINT, ApiError::bad_request("the body must be a JSON array of items"));
        };
        let mut duplicate_emails = 0;
        let applied = self.apply(items, rng, |item, rng| {
            if kind != "users" {
                return Ok(item);
            }
            let done = users.create(now, Some(item), rng);
            duplicate_emails += done.duplicate_emails;
            done.result.map(|success| success.body.unwrap_or_default())
        });
        let id = self.submit(now, of_kind, request, false, applied, rng);
        let uri = format!("{}/{id}", request.path);
        let body = json!({ "id": id, "state": "Queued", "selfUri": uri });
        Done { duplicate_emails, ..Done::status(ENDPOINT, 202, Some(body)) }
    }

    fn bulk_state(&mut self, now: Duration, path: &str, kind: &str, id: &str) -> Result<Value, ApiError> {
        let (job, progress) = self.look(now, kind, id)?;
        let state = match progress {
            Progress::Queued | Progress::Ready => "Queued",
            Progress::Running => "Running",
            Progress::Failed => "Failed",
            Progress::Cancelled => "Cancelled",
            Progress::Done | Progress::Expired => "Succeeded",
        };
        let (total, failed) = (job.results.len(), job.failed.len());
        let mut body = json!({ "id": id, "state": state, "totalCount": total });
        if progress == Progress::Done {
            body["successfulCount"] = json!(total - failed);
            body["failedCount"] = json!(failed);
            body["resultsUri"] = json!(format!("{path}/results"));
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{JobConfig, SimConfig};

    #[test]
    fn a_bulk_job_reports_each_item_and_duplicates() {
        let mut jobs = Jobs::new(JobConfig::default());
        let mut users = Users::seeded(&SimConfig { users: 1, ..SimConfig::default() });
        let mut rng = fastrand::Rng::with_seed(1);
        let mut request = ApiRequest::new(Method::POST, "/api/v2/bulk/users");
        request.body = json!([{"name": "A", "email": "a@x"}, {"name": "B"}, {"name": "A", "email": "a@x"}])
            .to_string()
            .into_bytes();
        let done = jobs.handle_bulk(Duration::ZERO, &request, &["users"], &mut users, &mut rng).unwrap();
        assert_eq!(done.duplicate_emails, 1);
        let id = done.result.unwrap().body.unwrap()["id"].as_str().unwrap().to_owned();
        let state = jobs.bulk_state(Duration::from_secs(5), "/x", "bulk-users", &id).unwrap();
        assert_eq!((&state["state"], &state["failedCount"]), (&json!("Succeeded"), &json!(1)));
        assert_eq!(jobs.find("bulk-messages", &id).unwrap_err().status, 404);
    }
}
