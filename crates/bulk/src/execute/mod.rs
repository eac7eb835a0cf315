//! Carries out a planned run: sends what is pending, writes down what became of it.
//!
//! Items are taken from the journal page by page and sent with a bounded number in flight; the quota decides how
//! many of those leave. An item's intent is on disk before its first byte leaves, its outcome when it is known. An
//! item that an earlier process sent without writing its outcome is sent again only where the upstream is trusted
//! to recognise its key, or where sending it twice does no harm; otherwise it is reported as unknown.
//!
//! A run stops early, with everything in the journal, when it is told to, when the journal fails, or when the
//! upstream stays away or refuses the credential: sending the remaining thousands would not go better. Then items that
//! only waited for quota, or for another attempt, are let go at once, and attempts that have left are awaited.
//!
//! Where a rule of the recipe or the profile says how, the upstream is asked what became of an item in doubt: it is then done, or
//! sent again, and only what cannot be told is unknown.
//!
//! Items about the same thing leave in the order of the input, one after the other (`order`).
//!
//! An item stays pending, for a later pass or a resume, where it is proven not to have been executed, and also where an
//! earlier sending is in doubt but a later one can still settle that.

mod amend;
mod intent;
mod job;
mod judge;
mod order;
mod pages;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use tidegate::layer::{OnConflict, ReconcileBy, around};
use tidegate::{Class, Client, Upstream};
use tidegate_core::idempotency::age;
use tidegate_core::reconcile::Rule;
use tidegate_core::time::Wall;
use tidegate_store::{Change, Event, Journal, Pending, State};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use self::amend::Amendment;
use self::intent::{Exit, Intent};
pub use self::job::Following;
use self::job::Sink;
use self::judge::{ForTheRun, Judged};
use self::order::{Ended, Order, Turn};
use self::pages::Pages;
use crate::health::Health;

/// How a run is carried out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Calls in flight at once, at most.
    pub concurrency: usize,
    /// How long an upstream that cannot be reached is waited for before the run stops.
    pub patience: Duration,
    /// Headers every request carries, such as the class for a gateway in between.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How to find out what became of an item; the profile's rules unless said otherwise.
    pub reconcile: Option<Arc<Rule>>,
    /// How accepted items are followed, where the upstream is not done with its answer.
    pub jobs: Option<Following>,
    /// The shortest and the longest wait before jobs of an earlier process are first looked at, where other processes
    /// share the quota; `None`: at once.
    pub spread: Option<(Duration, Duration)>,
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
    /// Jobs that are being followed.
    pub jobs: AtomicU64,
    /// Items that ended by sending some of their rows again: another item goes on for them.
    pub continued: AtomicU64,
}

impl Progress {
    /// Items that have ended.
    pub fn ended(&self) -> u64 {
        [&self.ok, &self.failed, &self.unknown].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Items that came to an end of whatever kind.
    fn moved(&self) -> u64 {
        self.ended() + self.continued.load(Ordering::Relaxed)
    }

    fn count(&self, event: Event) {
        let count = match event {
            Event::Succeed => &self.ok,
            Event::Fail => &self.failed,
            Event::LoseTrack => &self.unknown,
            Event::Intend | Event::Unsent | Event::Cancel => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a run ended before all its items had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Stopped {
    /// It was told to stop.
    #[error("interrupted")]
    Interrupted,
    /// The upstream cannot be reached, or refused the credential.
    #[error("{0}")]
    Upstream(String),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] tidegate_store::Error),
    /// An item was accepted as a job, and nothing says how jobs are followed. It is never submitted again.
    #[error(
        "job `{job}` is open, and the run has no recipe that says how to follow it; nothing was sent: resume with the version of tidegate that began it"
    )]
    NoRecipe {
        /// One such job.
        job: String,
    },
    /// The file of results cannot be written.
    #[error("the file of results cannot be written: {0}")]
    Results(String),
}

/// Sends what is pending in `journal`, until all items have ended or the run has to stop. What has left when it stops
/// is awaited.
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
    let mut pages = Pages::new(&journal)?;
    let health = Arc::new(Health::default());
    let (halt, halted) = watch::channel(false);
    let intent = Intent {
        journal: Arc::clone(&journal),
        clock: *upstream.clock(),
        health: Arc::clone(&health),
        halt: halted,
    };
    if options.jobs.is_none()
        && let Some(job) = pages.open_jobs().await?.into_iter().find_map(|open| open.job)
    {
        return Err(Stopped::NoRecipe { job: job.id });
    }
    let sink = open_sink(&journal, options.jobs.as_ref()).await?;
    let open = options.jobs.as_ref().and_then(|it| it.rules.concurrent());
    let open = open.map(|most| Arc::new(Semaphore::new(most)));
    let client = Client::with_layer(upstream, around(intent));
    let reason = Mutex::new(None);
    let sender = Sender { client, journal, options, progress, halt, health, reason, sink, open };
    let stopped = sender.stopped(stop);
    tokio::pin!(stopped);
    // An item that could not be sent stays pending; it is tried again once the others have had their turn.
    loop {
        let before = progress.moved();
        let why = {
            let pass = sender.pass(&mut pages);
            tokio::pin!(pass);
            tokio::select! {
                biased;
                ended = &mut pass => {
                    ended?;
                    None
                }
                why = &mut stopped => {
                    sender.halt.send_replace(true);
                    pass.await?;
                    Some(why)
                }
            }
        };
        if pages.after(0).await?.is_empty() {
            return Ok(());
        }
        if let Some(why) = why {
            return Err(why);
        }
        if progress.moved() == before {
            let reason = sender.reason.lock().take().unwrap_or_else(|| "nothing more can be sent".to_owned());
            return Err(Stopped::Upstream(reason));
        }
    }
}

struct Sender<'a> {
    client: Client,
    journal: Arc<Journal>,
    options: Options,
    progress: &'a Progress,
    /// Given when nothing more is to leave.
    halt: watch::Sender<bool>,
    health: Arc<Health>,
    /// Why the latest item that stays pending does.
    reason: Mutex<Option<String>>,
    /// Where results of jobs go.
    sink: Arc<tokio::sync::Mutex<Sink>>,
    /// Jobs that may be open at once, where the upstream bounds that.
    open: Option<Arc<Semaphore>>,
}

/// Opens the file of results as the journal knows it.
async fn open_sink(
    journal: &Arc<Journal>,
    jobs: Option<&Following>,
) -> Result<Arc<tokio::sync::Mutex<Sink>>, Stopped> {
    let (journal, path) = (Arc::clone(journal), jobs.and_then(|it| it.results.clone()));
    let open = tokio::task::spawn_blocking(move || {
        let length = journal.reader()?.result_bytes()?;
        Sink::open(path.as_deref(), length).map_err(|error| Stopped::Results(error.to_string()))
    });
    open.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

impl Sender<'_> {
    /// Returns when the run is told to stop, or the upstream has been away for too long.
    async fn stopped(&self, mut stop: watch::Receiver<bool>) -> Stopped {
        let clock = self.client.upstream().clock();
        tokio::select! {
            () = told(&mut stop) => Stopped::Interrupted,
            why = self.health.lost(clock, self.options.patience) => Stopped::Upstream(why),
        }
    }

    /// Walks all pending items once, or until nothing more is to leave; awaits what has left.
    async fn pass(&self, pages: &mut Pages) -> Result<(), Stopped> {
        let mut after = 0;
        let mut in_flight = FuturesUnordered::new();
        let mut order = Order::default();
        let mut ended = Ok(());
        // Jobs that an earlier process left open come first: they count to those the upstream allows at once.
        for pending in pages.open_jobs().await? {
            let permit = self.open.as_ref().and_then(|open| Arc::clone(open).try_acquire_owned().ok());
            in_flight.push(self.in_turn(pending, permit, Turn::default()));
        }
        'pages: loop {
            let page = pages.after(after).await?;
            let Some(last) = page.last() else { break };
            after = last.item.request.seq;
            for pending in page {
                if pending.job.is_some() {
                    continue;
                }
                while in_flight.len() >= self.options.concurrency && ended.is_ok() {
                    ended = taken(in_flight.next().await, &mut order);
                }
                if ended.is_err() || *self.halt.borrow() {
                    break 'pages;
                }
                let turn = self.turn(&mut order, &pending);
                in_flight.push(self.in_turn(pending, None, turn));
            }
        }
        loop {
            if ended.is_err() {
                self.halt.send_replace(true);
            }
            let Some(result) = in_flight.next().await else { return ended };
            ended = ended.and(taken(Some(result), &mut order));
        }
    }

    /// The place of an item among those about the same thing. Submissions of jobs are about nothing that is there yet.
    fn turn(&self, order: &mut Order, pending: &Pending) -> Turn {
        if self.options.jobs.is_some() { Turn::default() } else { order.turn(&pending.item) }
    }

    /// Deals with one item when the one before it about the same thing has ended. Returns what has ended, if it did.
    async fn in_turn(
        &self,
        pending: Pending,
        permit: Option<OwnedSemaphorePermit>,
        mut turn: Turn,
    ) -> Result<Option<Ended>, Stopped> {
        let mut halt = self.halt.subscribe();
        let comes = tokio::select! {
            biased;
            () = told(&mut halt) => false,
            comes = turn.comes() => comes,
        };
        // A job that is open goes on by itself; it is let go where it is followed.
        if !comes && pending.job.is_none() {
            return Ok(None);
        }
        Ok(self.send(pending, permit).await?.then(|| turn.end()))
    }

    /// Deals with one item; true if it has ended. `permit` is that of a job which is open already.
    async fn send(&self, pending: Pending, permit: Option<OwnedSemaphorePermit>) -> Result<bool, Stopped> {
        let rules = self.options.jobs.as_ref().map(|it| Arc::clone(&it.rules));
        if let Some(job) = &pending.job {
            let Some(rules) = &rules else { return Err(Stopped::NoRecipe { job: job.id.clone() }) };
            let followed = self.follow(&pending.item, job.clone(), rules).await;
            drop(permit);
            return followed.map(|()| false);
        }
        let exit = Exit::new(pending.item.request.seq);
        let (judged, _permit) = tokio::select! {
            biased;
            // It has not left and never will: it is what the journal says it is. Asked first: the place of a job that is let go
            // is free at once, and none that waits for one may take it after the stop.
            () = self.held(&exit) => return Ok(false),
            judged = async {
                let permit = self.permit().await;
                (self.call(&pending, &exit).await, permit)
            } => judged,
        };
        if let Some(error) = exit.failure() {
            return Err(Stopped::Journal(error));
        }
        let seen = self.consider(&judged);
        if let (Some(Event::Succeed), Some(rules)) = (judged.event, &rules) {
            return self.accepted(&pending.item, judged, rules).await.map(|()| true);
        }
        let ends = matches!(judged.event, Some(Event::Succeed | Event::Fail | Event::LoseTrack));
        if let Some(event) = judged.event {
            self.write(&pending, &exit, event, judged).await?;
            self.progress.count(event);
        }
        seen.map(|()| ends)
    }

    /// Leave to have one more job open, where the upstream bounds them.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(self.open.as_ref()?).acquire_owned().await.ok()
    }

    fn wall(&self) -> Wall {
        self.client.upstream().clock().wall()
    }

    /// Writes what became of an item.
    async fn write(
        &self,
        pending: &Pending,
        exit: &Exit,
        event: Event,
        judged: Judged,
    ) -> Result<(), Stopped> {
        let seq = pending.item.request.seq;
        if !exit.is_intended() {
            if event == Event::Unsent {
                return Ok(());
            }
            if pending.item.state == State::Planned {
                // An end is told of an intent, also where the request turned out to be one that cannot be sent.
                self.journal.intend(vec![seq], self.wall()).await?;
            }
        }
        if event == Event::LoseTrack {
            self.name_rows(&pending.item).await?;
        }
        let change = Change { seq, event, outcome: judged.outcome };
        Ok(self.journal.record(vec![change], self.wall()).await?)
    }

    /// What an item's end means for the run.
    fn consider(&self, judged: &Judged) -> Result<(), Stopped> {
        let reason = || judged.outcome.error.clone().unwrap_or_default();
        match judged.run {
            ForTheRun::Nothing => {}
            ForTheRun::Stop => return Err(Stopped::Upstream(reason())),
            ForTheRun::Unserved => {
                self.health.away(self.client.upstream().clock().now(), reason());
                *self.reason.lock() = Some(reason());
            }
        }
        Ok(())
    }

    /// Returns when the run is to end and the item could be kept from leaving.
    async fn held(&self, exit: &Exit) {
        told(&mut self.halt.subscribe()).await;
        if !exit.hold() {
            std::future::pending::<()>().await;
        }
    }

    async fn call(&self, pending: &Pending, exit: &Exit) -> Judged {
        let item = &pending.item;
        let upstream = self.client.upstream();
        let Ok(method) = item.request.method.parse::<Method>() else {
            return Judged::invalid(format!("`{}` is not a method", item.request.method));
        };
        let now = upstream.clock().wall();
        let doubtful_since = item.first_sent.filter(|_| pending.maybe_executed);
        let mut call = self
            .client
            .request(method.clone(), &item.request.target)
            .class(Class::Bulk)
            .key(item.request.key.to_string())
            .sent_before(doubtful_since.map(|first| age(first, now)))
            .asks_first(true)
            .called_off_by(self.halt.subscribe())
            .reconcile(ReconcileBy { rule: self.options.reconcile.clone(), within: None })
            .extension(exit.clone());
        if self.options.reconcile.as_ref().is_some_and(|rule| rule.conflict.is_some()) {
            let amend = Amendment {
                journal: Arc::clone(&self.journal),
                upstream: Arc::clone(upstream),
                exit: exit.clone(),
                method: method.clone(),
                request: item.request.clone(),
            };
            call = call.on_conflict(OnConflict { conflict: None, amend: Some(Arc::new(amend)) });
        }
        if let Some(body) = &item.request.body {
            call = call.json(body.clone());
        }
        for (name, value) in &self.options.headers {
            call = call.header(name.clone(), value.clone());
        }
        match call.send().await {
            Ok(response) => Judged::answer(response).await,
            Err(error) => Judged::error(&error),
        }
    }
}

/// Takes what became of an item.
fn taken(ended: Option<Result<Option<Ended>, Stopped>>, order: &mut Order) -> Result<(), Stopped> {
    if let Some(ended) = ended.transpose()?.flatten() {
        order.forget(ended);
    }
    Ok(())
}

/// Returns when `signal` is given; never if nobody can give it any more.
async fn told(signal: &mut watch::Receiver<bool>) {
    if signal.wait_for(|told| *told).await.is_err() {
        std::future::pending::<()>().await;
    }
}
