//! Asynchronous jobs: accepted at once, finished later, polled in between.
//!
//! A job lives on the simulator's clock from the call that submits it, whoever polls it and whether or not its submitter is
//! still there. There is no common state machine on the platform; each family has its own states, and its own place for
//! results. What they share stands here: how a job ages, whether it fails, and the books.
//!
//! | family | states |
//! | --- | --- |
//! | [`analytics`] | `QUEUED`, `PENDING`, then `FULFILLED`, `FAILED` or `CANCELLED`; later `EXPIRED` |
//! | [`recording`] | jobs: `PENDING`, `READY`, when started `PROCESSING`, then `FULFILLED`, `FAILED` or `CANCELLED`; batch requests: `InProgress`, `Completed` |
//! | [`outbound`] | `InProgress`, then `Complete` or `Failed` |
//! | [`bulk`] | `Queued`, `Running`, then `Succeeded` or `Failed` |
//! | [`external`] | none: its answer has the results |
//!
//! Items of jobs are applied when the job is accepted, so submitting one twice applies everything twice: that is the mistake a
//! client must not make, and `duplicates` in the books counts it.

pub mod analytics;
pub mod bulk;
pub mod external;
pub mod outbound;
pub mod recording;

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::JobConfig;
use crate::model::uuid_text;
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// The books on one kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobStats {
    /// Jobs accepted.
    pub submitted: u64,
    /// Jobs accepted with the path and content of an earlier one.
    pub duplicates: u64,
    /// Looks at the state of one.
    pub polls: u64,
    /// The most that were open at once.
    pub at_once: u64,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Queued,
    /// It waits for its submitter to start it.
    Ready,
    Running,
    Done,
    Failed,
    Cancelled,
    /// It ended well, and its results are gone.
    Expired,
}

impl Progress {
    fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Ready | Self::Running)
    }
}

#[derive(Debug)]
struct Job {
    kind: String,
    created: Duration,
    /// When its submitter started it; `None` also for families that start by themselves.
    started: Option<Duration>,
    /// Whether it waits to be started.
    waits: bool,
    cancelled: bool,
    fails: bool,
    /// What it was asked to do.
    request: Value,
    results: Vec<Value>,
    /// Places of results that are errors.
    failed: Vec<usize>,
}

/// All jobs of the organisation.
#[derive(Debug)]
pub struct Jobs {
    config: JobConfig,
    all: BTreeMap<String, Job>,
    contents: HashSet<u64>,
    stats: BTreeMap<String, JobStats>,
}

impl Jobs {
    /// No jobs yet.
    pub fn new(config: JobConfig) -> Self {
        Self { config, all: BTreeMap::new(), contents: HashSet::new(), stats: BTreeMap::new() }
    }

    /// The books, by kind of job.
    pub fn stats(&self) -> &BTreeMap<String, JobStats> {
        &self.stats
    }

    fn progress(&self, now: Duration, job: &Job) -> Progress {
        if job.cancelled {
            return Progress::Cancelled;
        }
        let prepared = job.created + self.config.queued;
        if now < prepared {
            return Progress::Queued;
        }
        let begun = match job.started {
            None if job.waits => return Progress::Ready,
            None => prepared,
            Some(started) => started.max(prepared),
        };
        let ended = begun + self.config.running;
        match self.config.expire {
            _ if now < ended => Progress::Running,
            _ if job.fails => Progress::Failed,
            Some(expire) if now >= ended + expire => Progress::Expired,
            _ => Progress::Done,
        }
    }

    /// The share of its work that a job has done, in percent.
    fn percent(&self, now: Duration, job: &Job) -> u32 {
        match self.progress(now, job) {
            Progress::Queued | Progress::Ready => 0,
            Progress::Running => {
                let begun = job.started.unwrap_or(job.created).max(job.created + self.config.queued);
                let share = now.saturating_sub(begun).as_secs_f64() / self.config.running.as_secs_f64();
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 99")]
                let percent = (share * 100.0).clamp(0.0, 99.0) as u32;
                percent
            }
            _ => 100,
        }
    }

    fn find(&self, kind: &str, id: &str) -> Result<&Job, ApiError> {
        self.all.get(id).filter(|job| job.kind == kind).ok_or_else(|| ApiError::not_found(id))
    }

    /// A look at a job's state.
    fn look(&mut self, now: Duration, kind: &str, id: &str) -> Result<(&Job, Progress), ApiError> {
        self.stats.entry(kind.to_owned()).or_default().polls += 1;
        let job = self.find(kind, id)?;
        Ok((job, self.progress(now, job)))
    }

    /// A job whose results may be read.
    fn finished(&self, now: Duration, kind: &str, id: &str) -> Result<&Job, ApiError> {
        let job = self.find(kind, id)?;
        match self.progress(now, job) {
            Progress::Done => Ok(job),
            Progress::Expired => Err(ApiError::not_found(id)),
            _ => Err(ApiError::bad_request(format!("job {id} has not finished; poll its state first"))),
        }
    }

    /// How many jobs of a kind have not ended.
    fn open(&self, now: Duration, kind: &str) -> u64 {
        let open = |job: &&Job| job.kind == kind && self.progress(now, job).is_open();
        self.all.values().filter(open).count() as u64
    }

    /// Accepts a job.
    fn submit(
        &mut self,
        now: Duration,
        kind: &str,
        request: &ApiRequest,
        waits: bool,
        applied: (Vec<Value>, Vec<usize>),
        rng: &mut fastrand::Rng,
    ) -> String {
        let mut hasher = DefaultHasher::new();
        (request.path.as_str(), &request.body).hash(&mut hasher);
        let again = !self.contents.insert(hasher.finish());
        let at_once = self.open(now, kind) + 1;
        let stats = self.stats.entry(kind.to_owned()).or_default();
        stats.submitted += 1;
        stats.duplicates += u64::from(again);
        stats.at_once = stats.at_once.max(at_once);
        let id = uuid_text(rng);
        let job = Job {
            kind: kind.to_owned(),
            created: now,
            started: None,
            waits,
            cancelled: false,
            fails: happens(self.config.fail, rng),
            request: request.json().unwrap_or_default(),
            results: applied.0,
            failed: applied.1,
        };
        self.all.insert(id.clone(), job);
        id
    }

    /// Ends a job before its time.
    fn cancel(&mut self, now: Duration, kind: &str, id: &str) -> Result<Value, ApiError> {
        let progress = self.progress(now, self.find(kind, id)?);
        if let Some(job) = self.all.get_mut(id)
            && progress.is_open()
        {
            job.cancelled = true;
        }
        Ok(json!({}))
    }

    /// Applies items one by one: those that chance refuses for now are told as retryable.
    fn apply(
        &self,
        items: Vec<Value>,
        rng: &mut fastrand::Rng,
        mut apply: impl FnMut(Value, &mut fastrand::Rng) -> Result<Value, ApiError>,
    ) -> (Vec<Value>, Vec<usize>) {
        let (mut results, mut failed) = (Vec::new(), Vec::new());
        for (index, item) in items.into_iter().enumerate() {
            let busy = happens(self.config.retryable, rng);
            let applied = if busy {
                Err(ApiError::new(503, "service.unavailable", "The item could not be processed now."))
            } else {
                apply(item, rng)
            };
            if applied.is_err() {
                failed.push(index);
            }
            results.push(item_result(applied, busy));
        }
        (results, failed)
    }
}

/// Whether something of that probability happens. Nothing is drawn for what never does, so that configurations without it
/// keep their runs.
fn happens(probability: f64, rng: &mut fastrand::Rng) -> bool {
    probability > 0.0 && rng.f64() < probability
}

/// One item's outcome as the platform's bulk endpoints tell it.
fn item_result(applied: Result<Value, ApiError>, retryable: bool) -> Value {
    match applied {
        Ok(entity) => json!({ "id": entity.get("id"), "success": true, "status": 200, "entity": entity }),
        Err(error) => json!({
            "success": false,
            "status": error.status,
            "error": {
                "code": error.code,
                "message": error.message,
                "status": error.status,
                "retryable": retryable,
                "details": [],
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn submitted(jobs: &mut Jobs, at: u64, waits: bool, content: &str) -> String {
        let mut request = ApiRequest::new(Method::POST, "/api/v2/x");
        request.body = content.as_bytes().to_vec();
        let mut rng = fastrand::Rng::with_seed(at + 1);
        jobs.submit(ms(at), "x", &request, waits, (Vec::new(), Vec::new()), &mut rng)
    }

    fn progress(jobs: &Jobs, at: u64, id: &str) -> Progress {
        jobs.progress(ms(at), jobs.find("x", id).unwrap())
    }

    #[test]
    fn a_job_ages_by_itself_and_one_that_waits_only_when_it_was_started() {
        let config = JobConfig { expire: Some(ms(5000)), ..JobConfig::default() };
        let mut jobs = Jobs::new(config);
        let id = submitted(&mut jobs, 0, false, "a");
        let seen = [0, 200, 999, 1000, 6000].map(|at| progress(&jobs, at, &id));
        let expected =
            [Progress::Queued, Progress::Running, Progress::Running, Progress::Done, Progress::Expired];
        assert_eq!(seen, expected);
        let waits = submitted(&mut jobs, 0, true, "b");
        assert_eq!(progress(&jobs, 60_000, &waits), Progress::Ready);
        jobs.all.get_mut(&waits).unwrap().started = Some(ms(60_000));
        assert_eq!(progress(&jobs, 60_500, &waits), Progress::Running);
        assert_eq!(progress(&jobs, 60_800, &waits), Progress::Done);
    }

    #[test]
    fn the_books_count_what_was_submitted_twice_and_how_many_were_open() {
        let mut jobs = Jobs::new(JobConfig::default());
        for (at, content) in [(0, "a"), (1, "b"), (2, "a"), (5000, "c")] {
            submitted(&mut jobs, at, false, content);
        }
        let stats = jobs.stats()["x"];
        assert_eq!(stats, JobStats { submitted: 4, duplicates: 1, polls: 0, at_once: 3 });
    }

    #[test]
    fn a_job_that_fails_does_so_at_its_end_and_a_cancelled_one_at_once() {
        let mut jobs = Jobs::new(JobConfig { fail: 1.0, ..JobConfig::default() });
        let id = submitted(&mut jobs, 0, false, "a");
        assert_eq!(
            (progress(&jobs, 999, &id), progress(&jobs, 1000, &id)),
            (Progress::Running, Progress::Failed)
        );
        let id = submitted(&mut jobs, 2000, false, "b");
        jobs.cancel(ms(2100), "x", &id).unwrap();
        assert_eq!(progress(&jobs, 2100, &id), Progress::Cancelled);
    }

    #[test]
    fn items_that_chance_refuses_may_be_sent_again_and_others_not() {
        let mut jobs = Jobs::new(JobConfig { retryable: 0.5, ..JobConfig::default() });
        let mut rng = fastrand::Rng::with_seed(3);
        let items = (0..100).map(|n| json!({ "n": n })).collect();
        let refuse_some = |item: Value, _: &mut fastrand::Rng| match item["n"].as_u64() {
            Some(n) if n % 10 == 0 => Err(ApiError::bad_request("no")),
            _ => Ok(item),
        };
        let (results, failed) = jobs.apply(items, &mut rng, refuse_some);
        let retryable = results.iter().filter(|it| it["error"]["retryable"] == true).count();
        let refused = results.iter().filter(|it| it["error"]["retryable"] == false).count();
        assert!(retryable > 30 && refused > 0, "{retryable} and {refused}");
        assert_eq!(failed.len(), retryable + refused);
        jobs.config.retryable = 0.0;
        let before = rng.clone().u64(..);
        jobs.apply(vec![json!({})], &mut rng, |item, _| Ok(item));
        assert_eq!(rng.u64(..), before, "what never happens draws nothing");
    }
}
