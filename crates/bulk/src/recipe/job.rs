//! Recipes whose upstream does not end its work with the answer: jobs, and answers that tell each item's outcome.
//!
//! `kind = "job"`: the request is a submission, and the answer names a job. It is written down before it is first polled, so
//! it is submitted once, whatever happens to this process.
//!
//! ```toml
//! kind = "job"
//! method = "POST"
//! path = "/api/v2/recording/jobs"
//!
//! [job]
//! id = "/id"                                    # JSON pointer into the answer to the submission
//! poll = "/api/v2/recording/jobs/{job}"         # the path's own placeholders may be used too
//! state = "/state"                              # JSON pointer into the answer to a poll
//! waiting = ["PENDING", "PROCESSING"]
//! done = ["FULFILLED"]
//! failed = ["CANCELLED"]                        # ended, and nothing was changed
//! unknown = ["FAILED"]                          # ended, and some of it may have been done
//! why = "/errorMessage"
//! progress = "/percentComplete"                 # 0 to 100
//! expected = "30s"                              # how long it commonly takes; the first look is at half of that
//! concurrent = 2                                # jobs open at once, at most
//!
//! [job.start]                                   # for jobs that wait to be started
//! when = ["READY"]
//! method = "PUT"
//! path = "/api/v2/recording/jobs/{job}"
//! body = { state = "PROCESSING" }
//!
//! [results]                                     # read when the job is done, page by page
//! path = "/api/v2/recording/jobs/{job}/failedrecordings"
//! items = "/entities"
//! next = "/nextUri"                             # or cursor = "/cursor": sent back as the parameter `cursor`
//!
//! [item]                                        # what one result says of the row that stands at its place
//! ok = "/success"                               # absent: good is what has no message
//! status = "/status"
//! code = "/error/code"
//! message = "/error/message"
//! retryable = "/error/retryable"                # true: that row is sent again
//! id = "/id"                                    # JSON pointer into the item sent: its name in the report
//! ```
//!
//! `kind = "items"` is for answers that hold the results themselves: `[results]` has no `path`, and there is no `[job]`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::poll::PollPlan;
use tidegate_core::profile::parse_duration;

use super::node::{Node, Values};
use super::read::{read_body, read_method, read_strings};
use super::slot::Slot;
use super::target::{JOB, Target};
use super::view::{Document, Table};

/// What follows an accepted submission.
#[derive(Clone, Debug)]
pub struct Jobs {
    /// The submission's target: its values fill the other targets.
    pub(crate) target: Target,
    /// JSON pointer to the merged items in a submission's body.
    pub(crate) into: Option<String>,
    /// The job; `None` where the answer holds the results.
    pub(crate) job: Option<JobRules>,
    pub(crate) results: Option<Results>,
    pub(crate) item: Option<ItemRules>,
}

impl Jobs {
    /// How many jobs may be open at once.
    pub fn concurrent(&self) -> Option<usize> {
        self.job.as_ref()?.concurrent
    }

    /// Whether there is something to put into a file of results.
    pub fn has_results(&self) -> bool {
        self.job.is_some() && self.results.is_some()
    }
}

/// How a job is followed.
#[derive(Clone, Debug)]
pub(crate) struct JobRules {
    pub(crate) id: String,
    pub(crate) poll: Target,
    pub(crate) state: String,
    pub(crate) waiting: Vec<String>,
    pub(crate) done: Vec<String>,
    pub(crate) failed: Vec<String>,
    pub(crate) unknown: Vec<String>,
    pub(crate) why: Option<String>,
    pub(crate) progress: Option<String>,
    pub(crate) plan: PollPlan,
    pub(crate) concurrent: Option<usize>,
    pub(crate) start: Option<Start>,
}

/// How a job that waits is started.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) when: Vec<String>,
    pub(crate) method: http::Method,
    pub(crate) path: Target,
    pub(crate) body: Option<Vec<u8>>,
}

/// Where results stand.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    pub(crate) path: Option<Target>,
    pub(crate) items: String,
    pub(crate) next: Option<Next>,
}

/// What a page says of the next one.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// A value for the parameter `cursor`.
    Cursor(String),
    /// A path and query.
    Uri(String),
}

impl Next {
    /// Where it stands on a page.
    pub(crate) fn pointer(&self) -> &str {
        match self {
            Self::Cursor(pointer) | Self::Uri(pointer) => pointer,
        }
    }
}

/// What a result says of its row.
#[derive(Clone, Debug, Default)]
pub(crate) struct ItemRules {
    pub(crate) ok: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) retryable: Option<String>,
    pub(crate) id: Option<String>,
}

/// The kinds of template recipes by name; no kind is `request`.
const KINDS: [&str; 3] = ["request", "items", "job"];

/// Reads what belongs to the recipe's kind. `target` is the submission's.
pub(super) fn read<'t>(
    document: &mut Document<'t>,
    table: &Table<'_, 't>,
    target: Option<&Target>,
) -> Option<Arc<Jobs>> {
    let kind = document.string(table, "kind").unwrap_or_else(|| ("request".to_owned(), 1));
    let has = |document: &Document<'t>, key: &str| document.get(table, key).map(|place| place.line);
    if !KINDS.contains(&kind.0.as_str()) {
        let hint = crate::near::hint(&kind.0, KINDS);
        document.problem(kind.1, format!("unknown kind `{}`; use {}{hint}", kind.0, KINDS.join(", ")));
        return None;
    }
    let belongs = [("job", kind.0 == "job"), ("results", kind.0 != "request"), ("item", kind.0 != "request")];
    for (key, fits) in belongs {
        if let (Some(line), false) = (has(document, key), fits) {
            document.problem(line, format!("`{key}` has no meaning in a recipe of kind `{}`", kind.0));
        }
    }
    if kind.0 == "request" {
        return None;
    }
    let is_job = kind.0 == "job";
    for (key, needed) in [("job", is_job), ("results", !is_job), ("item", !is_job)] {
        if needed && has(document, key).is_none() {
            document.problem(kind.1, format!("a recipe of kind `{}` needs `{key}`", kind.0));
        }
    }
    let job = read_job(document, table, target);
    let results = read_results(document, table, target, is_job);
    let item = read_item(document, table);
    let into =
        document.table(table, "merge").and_then(|merge| document.string(&merge, "into")).map(|it| it.0);
    if let (Some(line), None) = (has(document, "item"), &into) {
        document
            .problem(line, "`item` tells apart what `merge` puts into one request, and there is no `merge`");
    }
    if let (Some(line), None) = (has(document, "item"), &results) {
        document.problem(line, "`item` says how results are read, and there is no `results`");
    }
    Some(Arc::new(Jobs { target: target?.clone(), into, job, results, item }))
}

fn read_job<'t>(
    document: &mut Document<'t>,
    table: &Table<'_, 't>,
    target: Option<&Target>,
) -> Option<JobRules> {
    let inner = document.table(table, "job")?;
    let known = [
        "id",
        "poll",
        "state",
        "waiting",
        "done",
        "failed",
        "unknown",
        "why",
        "progress",
        "expected",
        "concurrent",
        "start",
    ];
    document.known(&inner, &known);
    let id = required_pointer(document, &inner, "id");
    let poll = read_target(document, &inner, "poll", target);
    let state = required_pointer(document, &inner, "state");
    let why = pointer(document, &inner, "why");
    let progress = pointer(document, &inner, "progress");
    let [waiting, done, failed, unknown] =
        ["waiting", "done", "failed", "unknown"].map(|key| read_strings(document, &inner, key));
    if done.is_empty() {
        document.problem(inner.line(), "`job.done` is missing: the states in which it has ended well");
    }
    let expected = document.string(&inner, "expected").and_then(|(text, line)| {
        parse_duration(&text).map_err(|error| document.problem(line, format!("`job.expected`: {error}"))).ok()
    });
    let plan = PollPlan { expected: expected.unwrap_or(Duration::ZERO), ..PollPlan::default() };
    let concurrent = document.count(&inner, "concurrent");
    let start = read_start(document, &inner, target);
    Some(JobRules {
        id: id?,
        poll: poll?,
        state: state?,
        waiting,
        done,
        failed,
        unknown,
        why,
        progress,
        plan,
        concurrent,
        start,
    })
}

fn read_start<'t>(
    document: &mut Document<'t>,
    job: &Table<'_, 't>,
    target: Option<&Target>,
) -> Option<Start> {
    let inner = document.table(job, "start")?;
    document.known(&inner, &["when", "method", "path", "body"]);
    let when = read_strings(document, &inner, "when");
    let method = read_method(document, &inner);
    if let Some(method) = &method
        && !method.is_idempotent()
    {
        // After a crash nobody knows whether it was sent.
        document
            .problem(inner.line(), format!("`job.start.method` is {method}: it may be sent twice, use PUT"));
    }
    let path = read_target(document, &inner, "path", target);
    let place = document.get(&inner, "body");
    let body = place.and_then(|place| {
        let node = read_body(document, place)?;
        let mut slots = Vec::new();
        node.slots(&mut slots);
        if !slots.is_empty() {
            document.problem(place.line, "`job.start.body` cannot hold placeholders");
        }
        Some(render(&node))
    });
    Some(Start { when, method: method?, path: path?, body })
}

fn render(node: &Node) -> Vec<u8> {
    struct Nothing;
    impl Values for Nothing {
        fn value(&mut self, _: &Slot) -> Option<std::borrow::Cow<'_, str>> {
            None
        }
    }
    let mut body = Vec::new();
    node.render(&mut Nothing, &[], &mut body);
    body
}

fn read_results<'t>(
    document: &mut Document<'t>,
    table: &Table<'_, 't>,
    target: Option<&Target>,
    is_job: bool,
) -> Option<Results> {
    let inner = document.table(table, "results")?;
    document.known(&inner, if is_job { &["path", "items", "cursor", "next"][..] } else { &["items"][..] });
    let path = if is_job { read_target(document, &inner, "path", target) } else { None };
    let items = required_pointer(document, &inner, "items");
    let cursor = pointer(document, &inner, "cursor");
    let next = pointer(document, &inner, "next");
    if cursor.is_some() && next.is_some() {
        document.problem(
            inner.line(),
            "`results` has both `cursor` and `next`; pages name the next one in one way",
        );
    }
    let next = cursor.map(Next::Cursor).or_else(|| next.map(Next::Uri));
    Some(Results { path, items: items?, next })
}

fn read_item<'t>(document: &mut Document<'t>, table: &Table<'_, 't>) -> Option<ItemRules> {
    let inner = document.table(table, "item")?;
    document.known(&inner, &["ok", "status", "code", "message", "retryable", "id"]);
    let mut field = |key: &str| pointer(document, &inner, key);
    let (ok, status, code) = (field("ok"), field("status"), field("code"));
    let (message, retryable, id) = (field("message"), field("retryable"), field("id"));
    if ok.is_none() && message.is_none() {
        document.problem(inner.line(), "`item` needs `ok`, or `message` whose absence means good");
    }
    Some(ItemRules { ok, status, code, message, retryable, id })
}

/// A target that may use the submission's placeholders and `{job}`.
fn read_target<'t>(
    document: &mut Document<'t>,
    table: &Table<'_, 't>,
    key: &str,
    submission: Option<&Target>,
) -> Option<Target> {
    let (text, line) = document.required(table, key)?;
    let target = match Target::parse(&text) {
        Ok(target) => target,
        Err(message) => {
            document.problem(line, message);
            return None;
        }
    };
    let submission = submission?;
    let others: Vec<&str> = target.columns().filter(|column| *column != JOB).collect();
    if let Some(column) = others.iter().find(|column| !submission.columns().any(|it| it == **column)) {
        document.problem(
            line,
            format!(
                "`{}`: `{{{column}}}` is not among the placeholders of `path`; use those and `{{job}}`",
                table.path(key)
            ),
        );
    }
    if !others.is_empty() && !submission.is_reversible() {
        document.problem(
            line,
            format!(
                "`{}` uses values of `path`, so each placeholder there must be a whole segment or parameter",
                table.path(key)
            ),
        );
    }
    Some(target)
}

fn pointer<'t>(document: &mut Document<'t>, table: &Table<'_, 't>, key: &str) -> Option<String> {
    let (text, line) = document.string(table, key)?;
    if !text.is_empty() && !text.starts_with('/') {
        let place = table.path(key);
        document.problem(line, format!("`{place}`: `{text}` is not a JSON pointer; write \"/{text}\""));
    }
    Some(text)
}

fn required_pointer<'t>(document: &mut Document<'t>, table: &Table<'_, 't>, key: &str) -> Option<String> {
    document.required(table, key)?;
    pointer(document, table, key)
}
