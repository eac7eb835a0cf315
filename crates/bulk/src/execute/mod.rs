//! Carries out a planned run: sends what is pending, writes down what became of it.
//!
//! Items are taken from the journal page by page and sent with a bounded number in flight; the quota decides how
//! many of those leave. An item's intent is on disk before its first byte leaves, its outcome when it is known. An
//! item that an earlier process sent without writing its outcome is sent again only where the upstream is trusted
//! to recognise its key, or where sending it twice does no harm; otherwise it is reported as unknown.
//!
//! A run stops early, with everything in the journal, when it is told to, when the journal fails, or when the
//! upstream cannot be reached or refuses the credential: sending the remaining thousands would not go better.

mod intent;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderName, HeaderValue, Method};
use tidegate::{CallReport, Class, Client, Error, ErrorKind, Upstream};
use tidegate_store::{Change, Event, Journal, Outcome, Pending, Reader};
use tokio::sync::watch;

use self::intent::{IntentLayer, Journalled};

/// Items read from the journal at once.
const PAGE: u32 = 512;

/// Calls in a row that could not reach the upstream before the run stops.
const MAX_UNREACHABLE: u32 = 5;

/// How much of an error's body is kept as the reason.
const MAX_REASON: usize = 16 * 1024;

/// How a run is carried out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Calls in flight at once, at most.
    pub concurrency: usize,
    /// A header every request carries, such as the class for a gateway in between.
    pub header: Option<(HeaderName, HeaderValue)>,
}

/// How far a run is, live.
#[derive(Debug, Default)]
pub struct Progress {
    /// Items confirmed.
    pub ok: AtomicU64,
    /// Items refused.
    pub failed: AtomicU64,
    /// Items whose outcome nobody knows.
    pub unknown: AtomicU64,
}

impl Progress {
    /// Items that have ended.
    pub fn ended(&self) -> u64 {
        [&self.ok, &self.failed, &self.unknown].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// Why a run ended before all its items had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Stopped {
    /// It was told to stop.
    #[error("interrupted; resume to go on")]
    Interrupted,
    /// The upstream cannot be reached, or refused the credential.
    #[error("{0}")]
    Upstream(String),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] tidegate_store::Error),
}

/// Sends what is pending in `journal`, until all items have ended or the run has to stop. What was in flight when
/// it stops is awaited.
///
/// # Errors
/// [`Stopped`] says why items are left.
pub async fn execute(
    journal: Arc<Journal>,
    upstream: Arc<Upstream>,
    options: Options,
    progress: &Progress,
    stop: watch::Receiver<bool>,
) -> Result<(), Stopped> {
    let layer = IntentLayer { journal: Arc::clone(&journal), clock: *upstream.clock() };
    let client = Client::with_layer(upstream, layer);
    let sender = Sender { client, journal, options, progress, unreachable: AtomicU32::new(0) };
    let reader = sender.journal.reader()?;
    // An item that could not be sent stays pending; it is tried again once the others have had their turn.
    loop {
        let before = progress.ended();
        sender.pass(&reader, &stop).await?;
        match reader.pending(0, 1)?.is_empty() {
            true => return Ok(()),
            false if progress.ended() > before => {}
            false => return Err(Stopped::Upstream("nothing more can be sent; resume later".to_owned())),
        }
    }
}

struct Sender<'a> {
    client: Client,
    journal: Arc<Journal>,
    options: Options,
    progress: &'a Progress,
    unreachable: AtomicU32,
}

/// What is to be written about an item, and whether the run can go on.
struct Judged {
    event: Event,
    outcome: Outcome,
    stop: Option<Stopped>,
}

impl Sender<'_> {
    /// Walks all pending items once.
    async fn pass(&self, reader: &Reader, stop: &watch::Receiver<bool>) -> Result<(), Stopped> {
        let mut after = 0;
        let mut in_flight = FuturesUnordered::new();
        let mut ended = None;
        while ended.is_none() {
            let page = reader.pending(after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.item.request.seq;
            for pending in page {
                while in_flight.len() >= self.options.concurrency && ended.is_none() {
                    ended = in_flight.next().await.and_then(Result::err);
                }
                if ended.is_none() && *stop.borrow() {
                    ended = Some(Stopped::Interrupted);
                }
                if ended.is_some() {
                    break;
                }
                in_flight.push(self.send(pending));
            }
        }
        while let Some(result) = in_flight.next().await {
            ended = ended.or(result.err());
        }
        ended.map_or(Ok(()), Err)
    }

    async fn send(&self, pending: Pending) -> Result<(), Stopped> {
        let seq = pending.item.request.seq;
        let intended = Arc::new(AtomicBool::new(false));
        let judged = self.call(&pending, Journalled { seq, intended: Arc::clone(&intended) }).await;
        match judged.event {
            Event::Succeed => self.progress.ok.fetch_add(1, Ordering::Relaxed),
            Event::Fail => self.progress.failed.fetch_add(1, Ordering::Relaxed),
            Event::LoseTrack => self.progress.unknown.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        let written = judged.event != Event::Unsent || intended.load(Ordering::Acquire);
        if written {
            let change = Change { seq, event: judged.event, outcome: judged.outcome };
            self.journal.record(vec![change], self.client.upstream().clock().wall()).await?;
        }
        judged.stop.map_or(Ok(()), Err)
    }

    async fn call(&self, pending: &Pending, journalled: Journalled) -> Judged {
        let item = &pending.item;
        let Ok(method) = item.request.method.parse::<Method>() else {
            return Judged::failed(format!("`{}` is not a method", item.request.method));
        };
        let now = self.client.upstream().clock().wall();
        let doubtful_since = item.first_sent.filter(|_| pending.maybe_executed);
        let mut call = self
            .client
            .request(method, &item.request.target)
            .class(Class::Bulk)
            .key(item.request.key.to_string())
            .sent_before(doubtful_since.map(|first| now.since(first).unwrap_or_default()))
            .extension(journalled);
        if let Some(body) = &item.request.body {
            call = call.json(body.clone());
        }
        if let Some((name, value)) = &self.options.header {
            call = call.header(name.clone(), value.clone());
        }
        match call.send().await {
            Ok(response) => {
                self.unreachable.store(0, Ordering::Relaxed);
                judge_answer(response).await
            }
            Err(error) => self.judge_error(&error),
        }
    }

    fn judge_error(&self, error: &Error) -> Judged {
        let event = match error.kind() {
            ErrorKind::OutcomeUnknown => Event::LoseTrack,
            ErrorKind::NoAnswer | ErrorKind::Unreadable | ErrorKind::Invalid => Event::Fail,
            _ => Event::Unsent,
        };
        let stop = match error.kind() {
            ErrorKind::Token => Some(Stopped::Upstream(error.to_string())),
            ErrorKind::Unreachable => {
                let in_a_row = self.unreachable.fetch_add(1, Ordering::Relaxed) + 1;
                (in_a_row >= MAX_UNREACHABLE).then(|| Stopped::Upstream(error.to_string()))
            }
            _ => None,
        };
        let reason = Some(error.to_string());
        Judged { event, outcome: outcome(error.report(), None, reason), stop }
    }
}

impl Judged {
    fn failed(reason: String) -> Self {
        Self { event: Event::Fail, outcome: outcome(&CallReport::default(), None, Some(reason)), stop: None }
    }
}

fn outcome(report: &CallReport, http_status: Option<u16>, error: Option<String>) -> Outcome {
    Outcome { attempts: report.attempts, http_status, error }
}

async fn judge_answer(mut response: http::Response<tidegate::ResponseBody>) -> Judged {
    let report = response.extensions_mut().remove::<CallReport>().unwrap_or_default();
    let status = response.status();
    let unknown = response.headers().get("tidegate-outcome").is_some_and(|outcome| outcome == "unknown");
    // The body is read in every case, so that its connection can carry the next call.
    let body = response.into_body().bytes(MAX_REASON).await.unwrap_or_default();
    let event = match () {
        () if unknown => Event::LoseTrack,
        () if status.is_success() => Event::Succeed,
        () => Event::Fail,
    };
    let error = (event != Event::Succeed).then(|| reason(&body).unwrap_or_else(|| status.to_string()));
    let stop = (status == http::StatusCode::UNAUTHORIZED).then(|| {
        Stopped::Upstream(format!(
            "the upstream refused the credential: {}",
            reason(&body).unwrap_or_default()
        ))
    });
    let event = if stop.is_some() { Event::Unsent } else { event };
    Judged { event, outcome: outcome(&report, Some(status.as_u16()), error), stop }
}

/// The message of the upstream's error, if its body holds one.
fn reason(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct ErrorBody {
        message: Option<String>,
        code: Option<String>,
    }
    let body: ErrorBody = serde_json::from_slice(body).ok()?;
    match (body.code, body.message) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (one, other) => one.or(other),
    }
}
