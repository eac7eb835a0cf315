//! Recording jobs, which wait until their submitter starts them, and batch requests for download addresses.
//!
//! The platform allows two recording jobs of an organisation that are pending or processing. How it refuses a third is not
//! documented; here it is a 400. Jobs that are ready count too.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{Job, Jobs, Progress};
use crate::model::org::{Done, paging};
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// The kinds of job, in the books too.
const JOB: &str = "recording-jobs";
const BATCH: &str = "recording-batch";

/// Entries of one batch request, at most.
const MAX_BATCH: usize = 100;

impl Jobs {
    /// Answers `/api/v2/recording/...`; `path` is what follows.
    pub(in crate::model::org) fn handle_recording(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        path: &[&str],
        rng: &mut fastrand::Rng,
    ) -> Option<Done> {
        Some(match (&request.method, path) {
            (&Method::POST, ["jobs"]) => self.submit_recording(now, request, rng),
            (&Method::GET, ["jobs"]) => {
                Done::ok("GET /api/v2/recording/jobs", self.list_recordings(now, request))
            }
            (&Method::GET, ["jobs", id]) => {
                Done::of("GET /api/v2/recording/jobs/{id}", self.recording_state(now, id))
            }
            (&Method::PUT, ["jobs", id]) => {
                Done::of("PUT /api/v2/recording/jobs/{id}", self.start_recording(now, request, id))
            }
            (&Method::DELETE, ["jobs", id]) => {
                Done::of("DELETE /api/v2/recording/jobs/{id}", self.cancel(now, JOB, id))
            }
            (&Method::GET, ["jobs", id, "failedrecordings"]) => {
                let failed = self.finished(now, JOB, id).map(|_| paging::page(request, &[], Value::clone));
                Done::of("GET /api/v2/recording/jobs/{id}/failedrecordings", failed)
            }
            (&Method::POST, ["batchrequests"]) => self.submit_batch(now, request, rng),
            (&Method::GET, ["batchrequests", id]) => {
                Done::of("GET /api/v2/recording/batchrequests/{id}", self.batch_state(now, id))
            }
            _ => return None,
        })
    }

    fn submit_recording(&mut self, now: Duration, request: &ApiRequest, rng: &mut fastrand::Rng) -> Done {
        const ENDPOINT: &str = "POST /api/v2/recording/jobs";
        let action = request.json().and_then(|body| body.get("action")?.as_str().map(str::to_owned));
        if !action.is_some_and(|it| matches!(it.as_str(), "EXPORT" | "DELETE" | "ARCHIVE")) {
            let message = "action must be EXPORT, DELETE or ARCHIVE";
            return Done::error(ENDPOINT, ApiError::bad_request(message));
        }
        let most = u64::from(self.config.concurrent);
        if self.open(now, JOB) >= most {
            let message = format!("There are already {most} recording jobs pending or processing.");
            return Done::error(ENDPOINT, ApiError::bad_request(message));
        }
        let id = self.submit(now, JOB, request, true, (Vec::new(), Vec::new()), rng);
        Done::status(ENDPOINT, 202, Some(json!({ "id": id, "state": "PENDING" })))
    }

    fn recording_state(&mut self, now: Duration, id: &str) -> Result<Value, ApiError> {
        self.look(now, JOB, id)?;
        Ok(self.shown(now, id, self.find(JOB, id)?))
    }

    /// All jobs, the newest first.
    fn list_recordings(&self, now: Duration, request: &ApiRequest) -> Value {
        let mut jobs: Vec<_> = self.all.iter().filter(|(_, job)| job.kind == JOB).collect();
        jobs.sort_by_key(|(id, job)| (std::cmp::Reverse(job.created), *id));
        paging::page(request, &jobs, |(id, job)| self.shown(now, id, job))
    }

    fn shown(&self, now: Duration, id: &str, job: &Job) -> Value {
        let progress = self.progress(now, job);
        let state = match progress {
            Progress::Queued => "PENDING",
            Progress::Ready => "READY",
            Progress::Running => "PROCESSING",
            Progress::Done | Progress::Expired => "FULFILLED",
            Progress::Failed => "FAILED",
            Progress::Cancelled => "CANCELLED",
        };
        let mut body = json!({
            "id": id,
            "state": state,
            "recordingJobsQuery": job.request.clone(),
            "percentProgress": self.percent(now, job),
        });
        if progress == Progress::Failed {
            body["errorMessage"] = json!("The recordings could not be processed.");
        }
        body
    }

    fn start_recording(&mut self, now: Duration, request: &ApiRequest, id: &str) -> Result<Value, ApiError> {
        let progress = self.progress(now, self.find(JOB, id)?);
        let asked = request.json().and_then(|body| body.get("state")?.as_str().map(str::to_owned));
        match (asked.as_deref(), progress) {
            (Some("PROCESSING"), Progress::Ready) => {
                if let Some(job) = self.all.get_mut(id) {
                    job.started = Some(now);
                }
            }
            // Told twice is told once.
            (Some("PROCESSING"), Progress::Running | Progress::Done) => {}
            (Some("PROCESSING"), _) => {
                return Err(ApiError::bad_request(format!("job {id} is not ready to be executed")));
            }
            _ => return Err(ApiError::bad_request("state must be PROCESSING")),
        }
        Ok(json!({ "id": id, "state": "PROCESSING" }))
    }

    fn submit_batch(&mut self, now: Duration, request: &ApiRequest, rng: &mut fastrand::Rng) -> Done {
        const ENDPOINT: &str = "POST /api/v2/recording/batchrequests";
        let list = request.json().and_then(|body| body.get("batchDownloadRequestList")?.as_array().cloned());
        let Some(list) = list.filter(|list| (1..=MAX_BATCH).contains(&list.len())) else {
            let message = format!("batchDownloadRequestList must have 1 to {MAX_BATCH} entries");
            return Done::error(ENDPOINT, ApiError::bad_request(message));
        };
        let (applied, failed) = self.apply(list, rng, |entry, _| match entry.get("conversationId") {
            Some(Value::String(_)) => Ok(entry),
            _ => Err(ApiError::bad_request("missing: conversationId")),
        });
        let results = applied.iter().map(download).collect();
        let id = self.submit(now, BATCH, request, false, (results, failed), rng);
        Done::status(ENDPOINT, 202, Some(json!({ "id": id })))
    }

    fn batch_state(&mut self, now: Duration, id: &str) -> Result<Value, ApiError> {
        let (job, progress) = self.look(now, BATCH, id)?;
        let done = !progress.is_open();
        let results: &[Value] = if done { &job.results } else { &[] };
        Ok(json!({
            "id": id,
            "state": if done { "Completed" } else { "InProgress" },
            "expectedResultCount": job.results.len(),
            "resultCount": results.len(),
            "errorCount": if done { job.failed.len() } else { 0 },
            "results": results,
        }))
    }
}

/// An entry of a batch's results: an address, or why there is none.
fn download(applied: &Value) -> Value {
    if applied["success"] == true {
        let entry = &applied["entity"];
        let conversation = entry["conversationId"].as_str().unwrap_or_default();
        json!({
            "conversationId": conversation,
            "recordingId": entry.get("recordingId"),
            "resultUrl": format!("https://recordings.invalid/{conversation}"),
            "contentType": "audio/ogg",
        })
    } else {
        json!({ "errorMsg": applied["error"]["message"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JobConfig;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn call(
        jobs: &mut Jobs,
        ms: u64,
        method: Method,
        path: &[&str],
        body: &Value,
    ) -> Result<Value, ApiError> {
        let mut request = ApiRequest::new(method, "/x");
        request.body = body.to_string().into_bytes();
        let mut rng = fastrand::Rng::with_seed(ms + 1);
        let done = jobs.handle_recording(at(ms), &request, path, &mut rng).unwrap();
        done.result.map(|success| success.body.unwrap())
    }

    #[test]
    fn a_job_waits_to_be_started_and_a_third_is_refused() {
        let mut jobs = Jobs::new(JobConfig::default());
        let body = |n: u32| json!({ "action": "EXPORT", "n": n });
        let first = call(&mut jobs, 0, Method::POST, &["jobs"], &body(1)).unwrap();
        call(&mut jobs, 1, Method::POST, &["jobs"], &body(2)).unwrap();
        let third = call(&mut jobs, 2, Method::POST, &["jobs"], &body(3)).unwrap_err();
        assert_eq!(third.status, 400);
        let id = first["id"].as_str().unwrap();
        let path = ["jobs", id];
        let mut states = Vec::new();
        let start = json!({ "state": "PROCESSING" });
        assert_eq!(call(&mut jobs, 100, Method::PUT, &path, &start).unwrap_err().status, 400, "not ready");
        for ms in [100, 10_000, 10_100, 10_900] {
            if ms == 10_100 {
                call(&mut jobs, 10_050, Method::PUT, &path, &start).unwrap();
            }
            states.push(call(&mut jobs, ms, Method::GET, &path, &json!({})).unwrap()["state"].clone());
        }
        assert_eq!(states, ["PENDING", "READY", "PROCESSING", "FULFILLED"]);
        call(&mut jobs, 11_000, Method::POST, &["jobs"], &body(3)).unwrap();
        assert_eq!(jobs.stats()[JOB].at_once, 2);
        let polls = jobs.stats()[JOB].polls;
        let listed = call(&mut jobs, 11_000, Method::GET, &["jobs"], &json!({})).unwrap();
        let shown =
            |n: usize| (&listed["entities"][n]["recordingJobsQuery"]["n"], &listed["entities"][n]["state"]);
        assert_eq!(listed["total"], 3);
        assert_eq!(
            [shown(0), shown(1), shown(2)],
            [(&json!(3), &json!("PENDING")), (&json!(2), &json!("READY")), (&json!(1), &json!("FULFILLED"))]
        );
        assert_eq!(jobs.stats()[JOB].polls, polls, "a listing is no poll");
    }

    #[test]
    fn a_batch_tells_addresses_when_it_is_complete() {
        let mut jobs = Jobs::new(JobConfig::default());
        let list = json!({ "batchDownloadRequestList": [{ "conversationId": "c1" }, {}] });
        let id = call(&mut jobs, 0, Method::POST, &["batchrequests"], &list).unwrap()["id"].clone();
        let path = ["batchrequests", id.as_str().unwrap()];
        let early = call(&mut jobs, 500, Method::GET, &path, &json!({})).unwrap();
        assert_eq!((&early["state"], &early["resultCount"]), (&json!("InProgress"), &json!(0)));
        let late = call(&mut jobs, 1000, Method::GET, &path, &json!({})).unwrap();
        assert_eq!((&late["state"], &late["errorCount"]), (&json!("Completed"), &json!(1)));
        assert!(late["results"][0]["resultUrl"].is_string());
        assert_eq!(late["results"][1]["errorMsg"], "missing: conversationId");
    }
}
