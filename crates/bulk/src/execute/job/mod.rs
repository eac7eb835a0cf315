//! Items that the upstream goes on working on after its answer.
//!
//! A submission is sent like any other write. What its answer says is written down before anything else is done with it:
//! from then on the item is never submitted again, it is followed. Following changes nothing upstream, so it may be broken
//! off and taken up at any time, also by another process:
//!
//! 1. [`poll`]: look at the job until it has ended;
//! 2. [`results`]: read its results page by page, each page and the place of the next in one write;
//! 3. [`parts`]: what they say of each row. Rows that the upstream calls retryable become a new item, written down
//!    together with the fact that they did; the others end here.

mod parts;
mod poll;
mod results;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate_core::idempotency::{BodyDigest, Transaction, Write};
use tidegate_store::{Accepted, Change, Event, Item, Job, NewItem, Outcome, Page, Part, PartState, Step};

use super::judge::Judged;
use super::{Sender, Stopped};
use crate::recipe::Jobs;

pub(super) use self::results::Sink;

/// How a run's jobs are followed.
#[derive(Clone, Debug)]
pub struct Following {
    /// What the recipe says about them.
    pub rules: Arc<Jobs>,
    /// Where results go; nowhere if absent. The file is cut to what the journal knows of it, then appended to.
    pub results: Option<PathBuf>,
}

/// How often a row is sent again because the upstream calls it retryable.
const ROUNDS: u32 = 3;

/// The wait before rows are sent again for the first time; each round doubles it.
const ROUND_WAIT: Duration = Duration::from_secs(1);

/// How a job ended, for the whole of it.
enum Ended {
    Well,
    /// Nothing of it was done.
    Failed(String),
    /// Some of it may have been done.
    Unknown(String),
    /// Nobody can say yet: it stays open.
    Open(String),
}

impl Sender<'_> {
    /// Takes the upstream's acceptance of a submission, and follows it.
    pub(super) async fn accepted(&self, item: &Item, judged: Judged, rules: &Jobs) -> Result<(), Stopped> {
        let status = judged.outcome.http_status;
        let answer: Value = serde_json::from_slice(&judged.body).unwrap_or_default();
        let rows = parts::rows(item, rules);
        let attempts = judged.outcome.attempts;
        let accepted = if let Some(job) = &rules.job {
            let Some(id) = text_at(&answer, &job.id) else {
                let why = format!("accepted, but the answer names no job at `{}`", job.id);
                return self.lost(item, judged, why).await;
            };
            let state = text_at(&answer, &job.state).unwrap_or_default();
            Accepted { job: id, state, step: Step::Polling, http_status: status, attempts, parts: rows }
        } else {
            // All results are in the answer.
            let told =
                rules.results.as_ref().and_then(|it| answer.pointer(&it.items)).and_then(Value::as_array);
            let Some(told) = told.filter(|told| told.len() == rows.len()) else {
                let why = "accepted, but the answer does not tell each item's outcome".to_owned();
                return self.lost(item, judged, why).await;
            };
            let item_rules = rules.item.clone().unwrap_or_default();
            let names = parts::names(item, rules);
            let parts = rows
                .into_iter()
                .zip(names)
                .zip(told)
                .map(|((row, name), told)| parts::told(row, name.as_deref(), told, &item_rules));
            let (job, state) = ("answer".to_owned(), "answered".to_owned());
            Accepted {
                job,
                state,
                step: Step::Fetched,
                http_status: status,
                attempts,
                parts: parts.collect(),
            }
        };
        let now = self.wall();
        let job = Job {
            id: accepted.job.clone(),
            state: accepted.state.clone(),
            step: accepted.step,
            cursor: None,
            fetched: 0,
            bytes: 0,
            polls: 0,
            submitted: now,
            polled: None,
        };
        self.journal.accept(item.request.seq, accepted, now).await?;
        let item = Item { http_status: status, ..item.clone() };
        self.follow(&item, job, rules).await
    }

    /// Writes down the names of a submission's rows, so that a report can tell each of them when nobody knows what became
    /// of the whole.
    pub(super) async fn name_rows(&self, item: &Item) -> Result<(), Stopped> {
        let Some(rules) = self.options.jobs.as_ref().map(|it| &it.rules) else { return Ok(()) };
        if rules.item.is_none() || !self.parts_of(item.request.seq).await?.is_empty() {
            return Ok(());
        }
        let page = Page { parts: parts::rows(item, rules), ..Page::default() };
        Ok(self.journal.fetched(item.request.seq, page).await?)
    }

    /// Writes that a submission was accepted and cannot be followed.
    async fn lost(&self, item: &Item, judged: Judged, why: String) -> Result<(), Stopped> {
        let outcome = Outcome { error: Some(why), ..judged.outcome };
        self.name_rows(item).await?;
        let change = Change { seq: item.request.seq, event: Event::LoseTrack, outcome };
        self.journal.record(vec![change], self.wall()).await?;
        self.progress.count(Event::LoseTrack);
        Ok(())
    }

    /// Follows a job to its end, or until nothing more is to leave.
    pub(super) async fn follow(&self, item: &Item, job: Job, rules: &Jobs) -> Result<(), Stopped> {
        let _open = Open::new(&self.progress.jobs);
        let halted = async { super::told(&mut self.halt.subscribe()).await };
        tokio::select! {
            biased;
            () = halted => Ok(()),
            ended = self.follow_on(item, job, rules) => ended,
        }
    }

    async fn follow_on(&self, item: &Item, mut job: Job, rules: &Jobs) -> Result<(), Stopped> {
        let mut ended = Ended::Well;
        if matches!(job.step, Step::Polling | Step::Started)
            && let Some(job_rules) = &rules.job
        {
            ended = self.poll(item, &mut job, rules, job_rules).await?;
        }
        if matches!(ended, Ended::Well) && job.step != Step::Fetched && rules.results.is_some() {
            ended = self.fetch(item, &mut job, rules).await?;
        }
        if matches!(ended, Ended::Well)
            && job.step == Step::Fetched
            && rules.job.is_some()
            && rules.item.is_some()
        {
            ended = self.in_place(item, &job).await?;
        }
        if let Ended::Open(why) = ended {
            *self.reason.lock() = Some(why);
            return Ok(());
        }
        self.settle(item, ended).await
    }

    /// Ends an item by what is known of its rows, and sends those again that may be.
    async fn settle(&self, item: &Item, ended: Ended) -> Result<(), Stopped> {
        let seq = item.request.seq;
        let mut rows = self.parts_of(seq).await?;
        let apart = self.options.jobs.as_ref().is_some_and(|it| it.rules.item.is_some());
        let mut closed = Vec::new();
        for row in &mut rows {
            let state = match (row.state, &ended) {
                // A job that ended well, and whose upstream does not tell rows apart, has applied them all.
                (None, Ended::Well) if !apart => PartState::Ok,
                (None, Ended::Failed(_)) => PartState::Failed,
                (None, _) => PartState::Unknown,
                (Some(PartState::Retry), _) if row.round >= ROUNDS => PartState::Failed,
                _ => continue,
            };
            row.state = Some(state);
            if let (None, Ended::Failed(why) | Ended::Unknown(why)) = (&row.error, &ended) {
                row.error = Some(why.clone());
            }
            closed.push(row.clone());
        }
        if !closed.is_empty() {
            self.journal.fetched(seq, Page { parts: closed, ..Page::default() }).await?;
        }
        let again: Vec<Part> =
            rows.iter().filter(|row| row.state == Some(PartState::Retry)).cloned().collect();
        if let Some(first) = again.first() {
            tokio::time::sleep(ROUND_WAIT * 2_u32.saturating_pow(first.round)).await;
            let next = self.again(item, &again)?;
            self.journal.follow(seq, next, again.clone()).await?;
        }
        let (event, error) = verdict(&rows, ended);
        let outcome = Outcome { attempts: 0, http_status: item.http_status, error };
        let change = Change { seq, event, outcome };
        self.journal.record(vec![change], self.wall()).await?;
        if again.is_empty() {
            self.progress.count(event);
        } else {
            self.progress.continued.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The item that sends some rows of another one again.
    fn again(&self, item: &Item, rows: &[Part]) -> Result<NewItem, Stopped> {
        let request = &item.request;
        let rules = self.options.jobs.as_ref().map(|it| &it.rules);
        let into = rules.and_then(|it| it.into.as_deref()).unwrap_or_default();
        let body = request.body.as_deref().unwrap_or_default();
        let body = parts::some_of(body, into, rows).ok_or_else(|| {
            Stopped::Upstream(format!("item {}: its rows are not found in its own body", request.seq))
        })?;
        let transaction = parts::transaction(request.transaction, rows);
        let upstream = self.client.upstream();
        let method = request.method.parse().unwrap_or(http::Method::POST);
        let text = transaction.to_string();
        let write = Write {
            tenant: upstream.tenant(),
            transaction: Transaction::Given(&text),
            method: &method,
            target: &request.target,
            body: &BodyDigest::json(&body),
        };
        let round = rows.first().map_or(0, |row| row.round) + 1;
        let name = request.id.split('~').next().unwrap_or(&request.id);
        Ok(NewItem {
            seq: 0,
            id: format!("{name}~{round}"),
            method: request.method.clone(),
            target: request.target.clone(),
            key: write.key(upstream.profile().idempotency.stamp),
            transaction,
            lines: rows.iter().filter_map(|row| row.line).collect(),
            body: Some(body),
        })
    }

    async fn parts_of(&self, seq: u64) -> Result<Vec<Part>, Stopped> {
        let journal = Arc::clone(&self.journal);
        let read = tokio::task::spawn_blocking(move || journal.reader()?.parts(seq));
        Ok(read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?)
    }
}

/// Counts a job as open while it lives.
struct Open<'p>(&'p AtomicU64);

impl<'p> Open<'p> {
    fn new(count: &'p AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an item came to, by its rows where they are known apart.
fn verdict(rows: &[Part], ended: Ended) -> (Event, Option<String>) {
    let count = |state| rows.iter().filter(|row| row.state == Some(state)).count();
    let (failed, unknown) = (count(PartState::Failed), count(PartState::Unknown));
    let of = |number: usize, what: &str| Some(format!("{number} of {} rows {what}", rows.len()));
    match ended {
        Ended::Failed(why) => (Event::Fail, Some(why)),
        Ended::Unknown(why) | Ended::Open(why) => (Event::LoseTrack, Some(why)),
        Ended::Well if unknown > 0 => (Event::LoseTrack, of(unknown, "have no known outcome")),
        Ended::Well if failed > 0 => (Event::Fail, of(failed, "failed")),
        Ended::Well => (Event::Succeed, None),
    }
}

/// Text, or a number as text, at a JSON pointer.
fn text_at(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
