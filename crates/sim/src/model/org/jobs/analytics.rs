//! Queries of conversation details: a job per query, results by cursor.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{Jobs, Progress};
use crate::model::org::{Done, paging};
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// Conversations every job finds.
const FOUND: usize = 250;

/// The kind of job, in the books too.
const KIND: &str = "analytics-conversations";

impl Jobs {
    /// Answers `/api/v2/analytics/...`; `path` is what follows.
    pub(in crate::model::org) fn handle_analytics(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        path: &[&str],
        rng: &mut fastrand::Rng,
    ) -> Option<Done> {
        const ONE: &str = "GET /api/v2/analytics/conversations/details/jobs/{id}";
        let ["conversations", "details", "jobs", rest @ ..] = path else { return None };
        Some(match (&request.method, rest) {
            (&Method::POST, []) => {
                let results = (0..FOUND).map(found_conversation).collect();
                let id = self.submit(now, KIND, request, false, (results, Vec::new()), rng);
                let endpoint = "POST /api/v2/analytics/conversations/details/jobs";
                Done::status(endpoint, 202, Some(json!({ "jobId": id })))
            }
            (&Method::GET, [id]) => {
                let state = self.look(now, KIND, id).map(|(_, progress)| match progress {
                    Progress::Queued | Progress::Ready => json!({ "state": "QUEUED" }),
                    Progress::Running => json!({ "state": "PENDING" }),
                    Progress::Done => json!({ "state": "FULFILLED" }),
                    Progress::Failed => {
                        json!({ "state": "FAILED", "errorMessage": "The query could not be completed." })
                    }
                    Progress::Cancelled => json!({ "state": "CANCELLED" }),
                    Progress::Expired => json!({ "state": "EXPIRED" }),
                });
                Done::of(ONE, state)
            }
            (&Method::DELETE, [id]) => Done::of(
                "DELETE /api/v2/analytics/conversations/details/jobs/{id}",
                self.cancel(now, KIND, id),
            ),
            (&Method::GET, [id, "results"]) => Done::of(
                "GET /api/v2/analytics/conversations/details/jobs/{id}/results",
                self.analytics_results(now, request, id),
            ),
            _ => return None,
        })
    }

    fn analytics_results(&self, now: Duration, request: &ApiRequest, id: &str) -> Result<Value, ApiError> {
        let job = self.finished(now, KIND, id)?;
        let (slice, next) = paging::cursor(request, &job.results, self.config.page as usize)?;
        let mut body = json!({ "conversations": slice });
        if let Some(next) = next {
            body["cursor"] = json!(next);
        }
        Ok(body)
    }
}

fn found_conversation(index: usize) -> Value {
    json!({
        "conversationId": format!("40000000-0000-4000-8000-{:012x}", index + 1),
        "participants": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JobConfig;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn a_job_passes_through_its_states_and_then_has_results() {
        let expire = Some(Duration::from_mins(1));
        let mut jobs = Jobs::new(JobConfig { page: 100, expire, ..JobConfig::default() });
        let mut rng = fastrand::Rng::with_seed(1);
        let base = ["conversations", "details", "jobs"];
        let post = ApiRequest::new(Method::POST, "/api/v2/analytics/conversations/details/jobs");
        let posted = jobs.handle_analytics(ms(0), &post, &base, &mut rng).unwrap().result.unwrap();
        let id = posted.body.unwrap()["jobId"].as_str().unwrap().to_owned();
        let mut get = |at, target: &str, rest: &[&str]| {
            let path = [&base, rest].concat();
            let request = ApiRequest::new(Method::GET, target);
            jobs.handle_analytics(ms(at), &request, &path, &mut rng).unwrap().result
        };
        let mut states = Vec::new();
        for at in [0, 200, 1000, 61_000] {
            states.push(get(at, "/x", &[&id]).unwrap().body.unwrap()["state"].clone());
        }
        assert_eq!(states, ["QUEUED", "PENDING", "FULFILLED", "EXPIRED"]);
        assert_eq!(get(999, "/x", &[&id, "results"]).unwrap_err().status, 400);
        assert_eq!(get(61_000, "/x", &[&id, "results"]).unwrap_err().status, 404);
        let mut target = "/x".to_owned();
        let mut seen = 0;
        loop {
            let body = get(1000, &target, &[&id, "results"]).unwrap().body.unwrap();
            seen += body["conversations"].as_array().unwrap().len();
            let Some(next) = body["cursor"].as_str() else { break };
            target = format!("/x?cursor={next}");
        }
        assert_eq!(seen, FOUND);
        assert_eq!(jobs.stats()[KIND].polls, 4);
    }
}
