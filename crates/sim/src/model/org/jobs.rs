//! Asynchronous jobs: accepted at once, finished later, polled in between.
//!
//! Bulk jobs (`/api/v2/bulk/{kind}`) take an array and go Queued, Running, Succeeded (the platform's names for bulk jobs). Their
//! items are applied when the job is accepted, so submitting one twice applies everything twice: that is the mistake a client
//! must not make. Analytics details jobs go QUEUED, PENDING, FULFILLED and give results by cursor.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{Done, paging, users::Users};
use crate::config::JobConfig;
use crate::model::uuid_text;
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// Conversations every analytics job finds.
const FOUND: usize = 250;

#[derive(Debug)]
struct Job {
    kind: String,
    created: Duration,
    results: Vec<Value>,
    failed: Vec<usize>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Queued,
    Running,
    Done,
}

/// All jobs of the organisation.
#[derive(Debug)]
pub struct Jobs {
    config: JobConfig,
    jobs: BTreeMap<String, Job>,
}

impl Jobs {
    /// No jobs yet.
    pub fn new(config: JobConfig) -> Self {
        Self { config, jobs: BTreeMap::new() }
    }

    fn progress(&self, now: Duration, job: &Job) -> Progress {
        let age = now.saturating_sub(job.created);
        if age < self.config.queued {
            Progress::Queued
        } else if age < self.config.queued + self.config.running {
            Progress::Running
        } else {
            Progress::Done
        }
    }

    fn find(&self, kind: &str, id: &str) -> Result<&Job, ApiError> {
        self.jobs.get(id).filter(|job| job.kind == kind).ok_or_else(|| ApiError::not_found(id))
    }

    fn finished(&self, now: Duration, kind: &str, id: &str) -> Result<&Job, ApiError> {
        let job = self.find(kind, id)?;
        match self.progress(now, job) {
            Progress::Done => Ok(job),
            _ => Err(ApiError::bad_request(format!("job {id} has not finished; poll its state first"))),
        }
    }

    /// Answers `/api/v2/bulk/...`; `path` is what follows.
    pub(super) fn handle_bulk(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        path: &[&str],
        users: &mut Users,
        rng: &mut fastrand::Rng,
    ) -> Option<Done> {
        Some(match (&request.method, path) {
            (&Method::POST, [kind]) => self.submit(now, request, kind, users, rng),
            (&Method::GET, [kind, id]) => Done::of("GET /api/v2/bulk/{kind}/{id}", self.state(now, kind, id)),
            (&Method::GET, [kind, id, "results"]) => {
                let results = self.finished(now, kind, id).map(|job| {
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

    fn submit(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        kind: &str,
        users: &mut Users,
        rng: &mut fastrand::Rng,
    ) -> Done {
        const ENDPOINT: &str = "POST /api/v2/bulk/{kind}";
        let Some(Value::Array(items)) = request.json() else {
            return Done::error(ENDPOINT, ApiError::bad_request("the body must be a JSON array of items"));
        };
        let mut job = Job { kind: kind.to_owned(), created: now, results: Vec::new(), failed: Vec::new() };
        let mut duplicate_emails = 0;
        for (index, item) in items.into_iter().enumerate() {
            let applied = if kind == "users" {
                let done = users.create(now, Some(item), rng);
                duplicate_emails += done.duplicate_emails;
                done.result.map(|success| success.body.unwrap_or_default())
            } else {
                Ok(item)
            };
            job.add(index, applied);
        }
        let id = uuid_text(rng);
        let uri = format!("/api/v2/bulk/{kind}/{id}");
        self.jobs.insert(id.clone(), job);
        let body = json!({ "id": id, "state": "Queued", "selfUri": uri });
        Done { duplicate_emails, ..Done::status(ENDPOINT, 202, Some(body)) }
    }

    fn state(&self, now: Duration, kind: &str, id: &str) -> Result<Value, ApiError> {
        let job = self.find(kind, id)?;
        let progress = self.progress(now, job);
        let state = match progress {
            Progress::Queued => "Queued",
            Progress::Running => "Running",
            Progress::Done => "Succeeded",
        };
        let (total, failed) = (job.results.len(), job.failed.len());
        let mut body = json!({ "id": id, "state": state, "totalCount": total });
        if progress == Progress::Done {
            body["successfulCount"] = json!(total - failed);
            body["failedCount"] = json!(failed);
            body["resultsUri"] = json!(format!("/api/v2/bulk/{kind}/{id}/results"));
        }
        Ok(body)
    }

    /// Answers `/api/v2/analytics/...`; `path` is what follows.
    pub(super) fn handle_analytics(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        path: &[&str],
        rng: &mut fastrand::Rng,
    ) -> Option<Done> {
        const KIND: &str = "analytics conversations details";
        let ["conversations", "details", "jobs", rest @ ..] = path else { return None };
        Some(match (&request.method, rest) {
            (&Method::POST, []) => {
                let id = uuid_text(rng);
                let results = (0..FOUND).map(found_conversation).collect();
                let job = Job { kind: KIND.to_owned(), created: now, results, failed: Vec::new() };
                self.jobs.insert(id.clone(), job);
                let endpoint = "POST /api/v2/analytics/conversations/details/jobs";
                Done::status(endpoint, 202, Some(json!({ "jobId": id })))
            }
            (&Method::GET, [id]) => {
                let state = self.find(KIND, id).map(|job| match self.progress(now, job) {
                    Progress::Queued => "QUEUED",
                    Progress::Running => "PENDING",
                    Progress::Done => "FULFILLED",
                });
                Done::of(
                    "GET /api/v2/analytics/conversations/details/jobs/{id}",
                    state.map(|state| json!({ "state": state })),
                )
            }
            (&Method::GET, [id, "results"]) => Done::of(
                "GET /api/v2/analytics/conversations/details/jobs/{id}/results",
                self.analytics_results(now, request, KIND, id),
            ),
            _ => return None,
        })
    }

    fn analytics_results(
        &self,
        now: Duration,
        request: &ApiRequest,
        kind: &str,
        id: &str,
    ) -> Result<Value, ApiError> {
        let job = self.finished(now, kind, id)?;
        let (slice, next) = paging::cursor(request, &job.results, self.config.page as usize)?;
        let mut body = json!({ "conversations": slice });
        if let Some(next) = next {
            body["cursor"] = json!(next);
        }
        Ok(body)
    }
}

impl Job {
    fn add(&mut self, index: usize, applied: Result<Value, ApiError>) {
        let result = match applied {
            Ok(entity) => json!({ "id": entity.get("id"), "success": true, "status": 200, "entity": entity }),
            Err(error) => {
                self.failed.push(index);
                json!({
                    "success": false,
                    "status": error.status,
                    "error": {
                        "code": error.code,
                        "message": error.message,
                        "status": error.status,
                        "retryable": false,
                        "details": [],
                    },
                })
            }
        };
        self.results.push(result);
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
    use crate::config::SimConfig;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn a_job_passes_through_its_states_and_then_has_results() {
        let mut jobs = Jobs::new(JobConfig { page: 100, ..JobConfig::default() });
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
        for at in [0, 200, 1000] {
            states.push(get(at, "/x", &[&id]).unwrap().body.unwrap()["state"].clone());
        }
        assert_eq!(states, ["QUEUED", "PENDING", "FULFILLED"]);
        assert_eq!(get(999, "/x", &[&id, "results"]).unwrap_err().status, 400);
        let mut target = "/x".to_owned();
        let mut seen = 0;
        loop {
            let body = get(1000, &target, &[&id, "results"]).unwrap().body.unwrap();
            seen += body["conversations"].as_array().unwrap().len();
            let Some(next) = body["cursor"].as_str() else { break };
            target = format!("/x?cursor={next}");
        }
        assert_eq!(seen, FOUND);
    }

    #[test]
    fn a_bulk_job_reports_each_item_and_duplicates() {
        let mut jobs = Jobs::new(JobConfig::default());
        let mut users = Users::seeded(&SimConfig { users: 1, ..SimConfig::default() });
        let mut rng = fastrand::Rng::with_seed(1);
        let mut request = ApiRequest::new(Method::POST, "/api/v2/bulk/users");
        request.body = json!([{"name": "A", "email": "a@x"}, {"name": "B"}, {"name": "A", "email": "a@x"}])
            .to_string()
            .into_bytes();
        let done = jobs.handle_bulk(ms(0), &request, &["users"], &mut users, &mut rng).unwrap();
        assert_eq!(done.duplicate_emails, 1);
        let id = done.result.unwrap().body.unwrap()["id"].as_str().unwrap().to_owned();
        let state = jobs.state(ms(5000), "users", &id).unwrap();
        assert_eq!((&state["state"], &state["failedCount"]), (&json!("Succeeded"), &json!(1)));
        assert_eq!(jobs.find("messages", &id).unwrap_err().status, 404);
    }
}
