//! Every write once: what its callers are told when it is sent again.
//!
//! A write of a gateway's caller runs in a task of its own and is followed to its end once it has left ([`door`]). What
//! becomes of it is told
//!
//! * to everybody who sent it under the same `Idempotency-Key` ([`key`]): those who come while it is in flight join it,
//!   later ones get its answer again for a day, also from a gateway that was killed in between (the ledger of
//!   `tidegate-store`). Another payload under the key is refused;
//! * without a key, to one caller who sends it again after nobody waits for it any more, and to all if its outcome is
//!   unknown ([`orphans`]). Equal writes of living callers are two writes.
//!
//! One lock guards what is in flight and what was left; it is held for a few lines and never over a wait. In which order
//! writes left is noted under a lock of its own ([`order`]), at the door.

mod answer;
mod door;
mod flight;
pub(crate) mod key;
pub(crate) mod later;
mod order;
mod orphans;
mod waiting;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Request, Response, Uri};
use parking_lot::Mutex;
use tidegate::{CallOptions, Class, RequestBody, ResponseBody};
use tidegate_core::idempotency::{BodyDigest, age, digest};
use tidegate_core::profile::ErrorShape;
use tidegate_store::ledger::{
    BearerDigest, EntryId, Ledger, LedgerError, NewEntry, Now, Scope, Standing, Tally,
};
use tidegate_telemetry::KnownBy;
use tokio::sync::{OnceCell, watch};

pub(crate) use self::answer::{Ended, Fate};
use self::answer::{lost, replay};
pub(crate) use self::door::{Door, Exit};
use self::flight::Flight;
use self::order::{Order, Turn};
use self::orphans::Orphans;
use self::waiting::{Place, Seat, Subject, Waiter};
use crate::merging::{ASK_AGAIN, Place as Lane, Told};
use crate::outbox::SeatHeld;
use crate::proxy::{Login, exchange, is_repeatable};
use crate::respond;
use crate::tenant::Tenant;

/// Where a gateway keeps what was written under `Idempotency-Key`s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeepKeys {
    /// In memory: they are forgotten when it ends, however it ends.
    #[default]
    InMemory,
    /// In this file.
    In(PathBuf),
    /// In this file, which nobody named: it is made with the first key that is used.
    InOnceNeeded(PathBuf),
}

/// A write as its caller sent it, with a body that is held.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) request: Request<RequestBody>,
    pub(crate) options: CallOptions,
    pub(crate) login: Login,
    /// Who sends it ([`Identity::caller`](crate::identity::Identity::caller)).
    pub(crate) caller: String,
    /// The bearer it came with, digested; `None` if it came with none or its caller has a name.
    pub(crate) bearer: Option<BearerDigest>,
    /// The caller's `Idempotency-Key`.
    pub(crate) key: Option<String>,
    /// Its place behind entries of the outbox; given back when the write is over.
    pub(crate) seat: Option<SeatHeld>,
}

impl Write {
    /// As whom it is sent: writes of others do not share a call with it.
    pub(crate) fn who(&self) -> String {
        who(&self.options, &self.login, &self.caller, self.bearer.as_ref())
    }
}

/// As whom a write is sent: caller, class, credential and token.
pub(crate) fn who(
    options: &CallOptions,
    login: &Login,
    caller: &str,
    bearer: Option<&BearerDigest>,
) -> String {
    let CallOptions { class, credential, caller: paced_as, .. } = options;
    let class = class.unwrap_or(Class::Interactive);
    let credential = credential.as_ref().map(|credential| credential.id().to_string());
    let learnt = login.digest();
    format!("{class:?}\n{credential:?}\n{learnt:?}\n{bearer:?}\n{paced_as:?}\n{caller}")
}

/// What all writes of a tenant share.
#[derive(Debug)]
pub(crate) struct Once {
    tenant: Arc<Tenant>,
    keep: KeepKeys,
    ledger: OnceCell<Arc<Ledger>>,
    /// How long who joins a write in flight waits for its end beyond what it took already.
    patience: Duration,
    table: Mutex<Table>,
    order: Arc<Order>,
    running: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Table {
    keyed: HashMap<(Scope, String), Arc<Flight>>,
    orphans: Orphans,
}

impl Once {
    /// Opens the ledger where there is one.
    pub(crate) fn new(
        tenant: Arc<Tenant>,
        keep: KeepKeys,
        max_wait: Duration,
    ) -> Result<Arc<Self>, LedgerError> {
        let patience = max_wait.saturating_add(tenant.upstream.profile().timeouts.write);
        let this = Self {
            tenant,
            keep,
            ledger: OnceCell::new(),
            patience,
            table: Mutex::default(),
            order: Arc::default(),
            running: watch::Sender::new(0),
        };
        let there = match &this.keep {
            KeepKeys::InMemory => false,
            KeepKeys::In(_) => true,
            KeepKeys::InOnceNeeded(path) => path.exists(),
        };
        if there {
            let opened = this.open()?;
            this.ledger.set(Arc::new(opened)).expect("it was just made");
        }
        Ok(Arc::new(this))
    }

    fn open(&self) -> Result<Ledger, LedgerError> {
        let now = now(&self.tenant);
        match &self.keep {
            KeepKeys::InMemory => Ledger::in_memory(now),
            KeepKeys::In(path) | KeepKeys::InOnceNeeded(path) => Ledger::open(path, now),
        }
    }

    async fn ledger(self: &Arc<Self>) -> Result<Arc<Ledger>, LedgerError> {
        let this = Arc::clone(self);
        let open = || async move {
            let opened = tokio::task::spawn_blocking(move || this.open()).await;
            opened.expect("opening a ledger does not panic").map(Arc::new)
        };
        self.ledger.get_or_try_init(open).await.map(Arc::clone)
    }

    /// Where the ledger lies and what it holds; `None` before the first key was used.
    ///
    /// # Errors
    /// What the disk said.
    pub(crate) async fn tally(&self) -> Result<Option<(String, Tally)>, LedgerError> {
        let Some(ledger) = self.ledger.get() else { return Ok(None) };
        let tally = ledger.tally().await?;
        Ok(Some((ledger.path().display().to_string(), tally)))
    }

    /// The way out of a write to `uri` that is not followed from here: others are overtaken by it all the same.
    pub(crate) fn way_past(&self, uri: &Uri) -> Exit {
        Exit::new(Turn::new(&self.order, uri.path(), None))
    }

    /// Writes that can be adopted.
    pub(crate) fn orphans(&self) -> usize {
        self.table.lock().orphans.len()
    }

    /// Waits until every write that runs has ended and is noted.
    pub(crate) async fn idle(&self) {
        let mut running = self.running.subscribe();
        // It cannot fail: the sender is ours.
        drop(running.wait_for(|running| *running == 0).await);
    }

    fn shape(&self) -> ErrorShape {
        self.tenant.shape()
    }

    /// Answers a write. There is always an answer.
    pub(crate) async fn write(self: &Arc<Self>, mut write: Write) -> Response<ResponseBody> {
        match write.key.take() {
            Some(key) => self.keyed(write, key).await,
            None => self.plain(write).await,
        }
    }

    async fn plain(self: &Arc<Self>, write: Write) -> Response<ResponseBody> {
        let subject = Arc::new(self.subject(&write));
        if let Some(waiter) = self.adopt(&subject) {
            let ended_before = waiter.flight.ended().is_some();
            match tokio::time::timeout(self.patience, waiter.flight.end_of()).await {
                // It turned out not to have been executed, so this one is sent.
                Ok(ended) if ended.fate == Fate::Unsent => {}
                Ok(ended) => {
                    if ended_before {
                        self.tenant.metrics.replayed(KnownBy::Likeness);
                    } else {
                        self.tenant.metrics.joined(KnownBy::Likeness);
                    }
                    return ended.again(self.shape());
                }
                Err(_) => return respond::in_flight(self.shape()),
            }
        }
        let exit = Exit::new(subject.turn(&self.order, write.request.uri().path()));
        let lane = self.lane(&write, &exit);
        let flight = Arc::new(Flight::new(None, exit));
        let waiter = Waiter::new(self, &flight, Place::Plain(subject));
        let landing = waiter.landing();
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let ended = this.send(write, &landing.flight, lane).await;
            landing.end(ended);
        });
        flight.runs_in(task.abort_handle());
        flight.end_of().await.first(self.shape())
    }

    /// Adopts what an identical write left behind.
    fn adopt(self: &Arc<Self>, subject: &Arc<Subject>) -> Option<Waiter> {
        if !subject.can_be_adopted {
            return None;
        }
        let now = self.tenant.upstream.clock().now();
        let mut table = self.table.lock();
        let flight = table.orphans.adopt(|| subject.print(), now)?;
        Some(Waiter::new(self, &flight, Place::Plain(Arc::clone(subject))))
    }

    async fn keyed(self: &Arc<Self>, write: Write, key: String) -> Response<ResponseBody> {
        let ledger = match self.ledger().await {
            Ok(ledger) => ledger,
            Err(error) => return respond::ledger_failed(self.shape(), &error),
        };
        // A program may go on with the bearer of a login of an earlier process: it is still the same caller.
        let earlier = match write.bearer.filter(|_| !write.login.is_learnt()) {
            Some(bearer) => ledger.identity(bearer).await,
            None => Ok(None),
        };
        let caller = match earlier {
            Ok(identity) => identity.unwrap_or_else(|| write.caller.clone()),
            Err(error) => return respond::ledger_failed(self.shape(), &error),
        };
        let new = self.entry(&write, caller, key);
        match self.seat(write, ledger, new) {
            Seat::First(waiter) => waiter.flight.end_of().await.first(self.shape()),
            Seat::Joined(waiter) => {
                self.tenant.metrics.joined(KnownBy::Key);
                match tokio::time::timeout(self.patience, waiter.flight.end_of()).await {
                    Ok(ended) => ended.again(self.shape()),
                    Err(_) => respond::in_flight(self.shape()),
                }
            }
            Seat::Another => respond::key_in_flight(self.shape()),
        }
    }

    /// A write as it is noted before it leaves.
    pub(crate) fn entry(&self, write: &Write, caller: String, key: String) -> NewEntry {
        let request = &write.request;
        let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let tenant = self.tenant.upstream.tenant();
        let parts = [tenant.as_str(), &caller, request.method().as_str(), target_of(request)];
        NewEntry {
            scope: digest("tidegate key scope 1", &parts.map(str::as_bytes)),
            key,
            payload: BodyDigest::of(media_type, request.body().bytes().map_or(&[], AsRef::as_ref)),
            sent_key: String::new(),
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            login: write.bearer.filter(|_| write.login.is_learnt()).map(|bearer| (bearer, caller)),
        }
    }

    /// Joins the write in flight with this key, or begins it.
    fn seat(self: &Arc<Self>, write: Write, ledger: Arc<Ledger>, new: NewEntry) -> Seat {
        let place = Place::Keyed(new.scope, new.key.clone());
        let mut table = self.table.lock();
        if let Some(flight) = place.find(&table) {
            return if flight.payload == Some(new.payload) {
                Seat::Joined(Waiter::new(self, flight, place.clone()))
            } else {
                Seat::Another
            };
        }
        let turn = Turn::new(&self.order, write.request.uri().path(), None);
        let exit = Exit::noted(turn, Arc::clone(&ledger), new.clone());
        let lane = self.lane(&write, &exit);
        let flight = Arc::new(Flight::new(Some(new.payload), exit));
        place.insert(&mut table, &flight);
        let waiter = Waiter::new(self, &flight, place);
        let landing = waiter.landing();
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let ended = this.run_keyed(write, &landing.flight, (&ledger, &new), lane).await;
            landing.end(ended);
        });
        flight.runs_in(task.abort_handle());
        Seat::First(waiter)
    }

    /// What the ledger knows of the write decides; what it does not know is sent.
    async fn run_keyed(
        self: &Arc<Self>,
        mut write: Write,
        flight: &Arc<Flight>,
        (ledger, new): (&Ledger, &NewEntry),
        lane: Lane,
    ) -> Ended {
        let refused = |response| Ended::new(Fate::Unsent, response);
        let now = now(&self.tenant);
        let entry = match ledger.find(new.scope, &new.key, now.mono).await {
            Ok(entry) => entry,
            Err(error) => return refused(respond::ledger_failed(self.shape(), &error)),
        };
        // One key, one write: its name at the upstream follows from the key, also after a restart.
        let named = transaction_of(new);
        let header = &self.tenant.upstream.profile().idempotency.header;
        if *header == key::IDEMPOTENCY_KEY || !write.request.headers().contains_key(header) {
            write.options.transaction = Some(named);
        }
        let found = entry.as_ref().map(|entry| entry.id);
        match entry {
            Some(entry) if entry.payload != new.payload => return refused(respond::key_reused(self.shape())),
            Some(entry) => match entry.standing {
                Standing::Done(kept) => {
                    let response = kept.and_then(replay).unwrap_or_else(|| respond::not_kept(self.shape()));
                    self.tenant.metrics.replayed(KnownBy::Key);
                    // The first who asks is told as well that this is no new answer.
                    return refused(respond::replayed(response));
                }
                Standing::Sent | Standing::Unknown => {
                    write.options.key = Some(entry.sent_key).filter(|key| !key.is_empty());
                    write.options.sent_before = Some(age(entry.first_sent, now.wall));
                    write.options.lost_before = entry.ended.and_then(|ended| now.wall.since(ended));
                }
            },
            None => {}
        }
        let ended = self.send(write, flight, lane).await;
        self.note(ledger, &flight.exit, found, ended).await
    }

    /// Writes down how a keyed write ended. `found`: an earlier call had sent it, and its outcome was not known.
    async fn note(&self, ledger: &Ledger, exit: &Exit, found: Option<EntryId>, ended: Ended) -> Ended {
        let id = match (exit.entry(), found) {
            (Some(Ok(id)), _) => id,
            (Some(Err(error)), _) if ended.fate == Fate::Unsent => {
                return Ended::new(Fate::Unsent, respond::ledger_failed(self.shape(), &error));
            }
            // Nothing left, and a read has shown what became of the earlier sending: that is its key's outcome.
            (None, Some(id)) if ended.fate == Fate::Done => id,
            // Nothing left, so nothing is new: the doubt goes on from where it began.
            (Some(Err(_)) | None, _) => return ended,
        };
        let now = self.tenant.upstream.clock().wall();
        let noted = match ended.fate {
            Fate::Done => ledger.finish(id, Standing::Done(ended.kept()), now).await,
            Fate::Unknown => ledger.finish(id, Standing::Unknown, now).await,
            // What left before is as unknown as it was.
            Fate::Unsent if found.is_some() => ledger.finish(id, Standing::Unknown, now).await,
            Fate::Unsent => ledger.withdraw(id).await,
        };
        if let Err(error) = noted {
            // It is known from memory until it can be noted. Who asks after a restart before that is told that nobody knows.
            tracing::warn!(target: "tidegate", "what became of a write is not noted yet: {error}");
        }
        ended
    }

    /// The place of a write among those that are merged. Asked for when it arrives, before anything is awaited that others may
    /// overtake it in.
    fn lane(&self, write: &Write, exit: &Exit) -> Lane {
        let merging = self.tenant.merging.as_ref();
        merging.map_or(Lane::Free, |merging| merging.place(&self.tenant, write, exit))
    }

    /// Sends a write when its place says so, alone or as a row of another call.
    async fn send(&self, mut write: Write, flight: &Flight, lane: Lane) -> Ended {
        // Until it has ended, whatever call it is a row of.
        let _writing = if matches!(lane, Lane::Free) {
            None
        } else {
            let (method, path) = (write.request.method(), write.request.uri().path());
            self.tenant.readers.writing(self.tenant.upstream.profile(), method, path)
        };
        match lane {
            Lane::Free => self.send_alone(write, flight).await,
            Lane::Alone(turn) => {
                if !turn.come(&mut write.options).await {
                    let refused = respond::too_many_requests(self.shape(), ASK_AGAIN, "cannot-meet");
                    return Ended::new(Fate::Unsent, refused);
                }
                self.send_alone(write, flight).await
            }
            Lane::In(mut seat) => match seat.told().await {
                Some(Told::Ended(ended)) => ended,
                Some(Told::Alone(_held)) => self.send_alone(write, flight).await,
                None => lost(self.shape(), flight.exit.may_have_left()),
            },
        }
    }

    async fn send_alone(&self, write: Write, flight: &Flight) -> Ended {
        let (response, fate) = self.exchange(write, flight).await;
        Ended::new(fate, response)
    }

    async fn exchange(&self, write: Write, flight: &Flight) -> (Response<ResponseBody>, Fate) {
        let Write { mut request, mut options, login, seat: _seat, .. } = write;
        options.called_off = Some(flight.called_off());
        request.extensions_mut().insert(options);
        request.extensions_mut().insert(flight.exit.clone());
        exchange(&self.tenant, request, login).await
    }

    /// Whether something is known of a write under this key: it is under way, or in the ledger.
    ///
    /// # Errors
    /// What the disk said.
    pub(crate) async fn knows(self: &Arc<Self>, new: &NewEntry) -> Result<bool, LedgerError> {
        if self.table.lock().keyed.contains_key(&(new.scope, new.key.clone())) {
            return Ok(true);
        }
        let Some(ledger) = self.ledger.get() else { return Ok(false) };
        let now = now(&self.tenant).mono;
        Ok(ledger.find(new.scope, &new.key, now).await?.is_some())
    }

    fn subject(&self, write: &Write) -> Subject {
        let request = &write.request;
        let profile = self.tenant.upstream.profile();
        Subject {
            can_be_adopted: !is_repeatable(profile, request),
            method: request.method().clone(),
            target: target_of(request).to_owned(),
            caller: write.caller.clone(),
            named: request.headers().get(&profile.idempotency.header).cloned(),
            body: request.body().bytes().cloned().unwrap_or_default(),
        }
    }
}

/// The transaction of a write under a key: one key, one write.
pub(crate) fn transaction_of(new: &NewEntry) -> String {
    format!("{}:{}", BodyDigest::from_bytes(new.scope), new.key)
}

/// The present, for the ledger.
fn now(tenant: &Tenant) -> Now {
    let clock = tenant.upstream.clock();
    Now { wall: clock.wall(), mono: clock.now() }
}

/// Path and query, as the caller wrote them.
fn target_of(request: &Request<RequestBody>) -> &str {
    request.uri().path_and_query().map_or("/", |target| target.as_str())
}
