//! Many readers, few calls: the reads of one tenant on their way through its [`Cache`].
//!
//! The cache decides, under a lock that is never held across an await. Here its decisions are carried out: an answer is given
//! from memory, a reader waits for a flight, or a flight is sent. A flight runs in a task of its own, so once it has left it survives the
//! reader for whom it began; before, it ends with the last who waits for it. Its end is told through one channel to everybody
//! who waits. One task renews what is read, alive only while something is.
//!
//! What cannot be shared is not: an answer that is too long to be held, that never ends, or that was cut goes to the reader for
//! whom it was asked, as it comes, and the others ask for themselves.

mod flight;
mod give;
mod list;
mod wait;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use parking_lot::Mutex;
use tidegate::body::ByteBudget;
use tidegate::clock::Clock;
use tidegate::{CallOptions, Class, Profile, RequestBody, ResponseBody};
use tidegate_core::cache::{
    Bounds, Cache, CacheKey, Errand, FlightId, FreshRule, Kept, ListRule, Look, Reader, Tally,
};
use tidegate_core::key::normalise;
use tidegate_core::mark::OUTCOME;
use tidegate_core::time::Mono;
use tokio::sync::{Notify, oneshot};

pub(crate) use self::flight::Start;
use self::flight::{Flight, Leader};
use self::wait::{End, Ended, Ending, Patience, Waiting};
use crate::places::Held;
use crate::proxy::{self, Login};
use crate::push::{CoveredReads, Told};
use crate::respond::{self, REFUSED};
use crate::tenant::Tenant;

/// The reads of one tenant.
#[derive(Debug)]
pub(crate) struct Readers {
    state: Mutex<State>,
    lists: Arc<[ListRule]>,
    clock: Clock,
    bounds: Bounds,
    answers: ByteBudget,
    /// An earlier renewal is due than the one the task sleeps for.
    sooner: Notify,
    covered: Covered,
}

/// Counts of reads of paths whose events arrive.
#[derive(Debug, Default)]
struct Covered {
    saved: AtomicU64,
    fresh: AtomicU64,
    asked: AtomicU64,
}

#[derive(Debug)]
struct State {
    cache: Cache<Arc<Ask>, Bytes>,
    ends: BTreeMap<FlightId, Ending>,
    /// Until when the task that renews sleeps; `None` while there is none.
    asleep: Option<Mono>,
}

/// What it takes to make a read again.
#[derive(Debug)]
struct Ask {
    key: CacheKey,
    request: Parts,
    options: CallOptions,
    login: Login,
}

/// How reads are treated.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) fresh: Arc<[FreshRule]>,
    pub(crate) bounds: Bounds,
    /// Memory for answers that are read to their end before they are given.
    pub(crate) answers: ByteBudget,
}

/// Bytes of answers that are read at once before they are given, by all tenants together: 64 of the largest that are shared.
pub(crate) const ANSWER_BUDGET: usize = 64 << 20;

impl Reading {
    /// The part of one of so many tenants: they keep no more together than one alone would, but for a minimum.
    pub(crate) fn part_of(&self, tenants: usize) -> Self {
        let tenants = tenants.max(1);
        let Bounds { bytes, entries, entry_bytes } = self.bounds;
        let bytes = (bytes / tenants).max(LEAST_BYTES.min(bytes));
        let entries = (entries / tenants).max(LEAST_ENTRIES.min(entries));
        let answers = if tenants == 1 { self.answers.clone() } else { self.answers.part(ANSWER_BUDGET / 2) };
        Self { fresh: Arc::clone(&self.fresh), bounds: Bounds { bytes, entries, entry_bytes }, answers }
    }
}

/// How often a reader waits for calls of others that are refused before it makes its own.
const LOOKS: usize = 3;

/// What a tenant may keep however many there are: less would keep nothing long enough to be read twice.
const LEAST_BYTES: usize = 1 << 20;
const LEAST_ENTRIES: usize = 256;

impl Readers {
    /// `lists` are those of the tenant's profile.
    pub(crate) fn new(reading: Reading, lists: &Arc<[ListRule]>, clock: Clock) -> Self {
        let Reading { fresh, bounds, answers } = reading;
        let cache = Cache::new(fresh, bounds).with_lists(Arc::clone(lists));
        let state = State { cache, ends: BTreeMap::new(), asleep: None };
        let (lists, covered) = (Arc::clone(lists), Covered::default());
        Self { state: Mutex::new(state), lists, clock, bounds, answers, sooner: Notify::new(), covered }
    }

    /// What the cache did so far, and how many answers of how many bytes it holds.
    pub(crate) fn tally(&self) -> (Tally, (usize, usize)) {
        let state = self.state.lock();
        (state.cache.tally(), state.cache.held())
    }

    /// Reads of paths whose events arrive.
    pub(crate) fn covered_reads(&self) -> CoveredReads {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Covered { saved, fresh, asked } = &self.covered;
        CoveredReads { saved: count(saved), fresh: count(fresh), asked: count(asked) }
    }

    /// Events about `path` (normalised) arrive from `now` on.
    pub(crate) fn cover(&self, path: &str, now: Mono) {
        self.state.lock().cache.cover(path, now);
    }

    /// Events about `path` arrive no more.
    pub(crate) fn uncover(&self, path: &str) {
        self.state.lock().cache.uncover(path);
    }

    /// What an event that carries a path says about which events arrive.
    pub(crate) fn covers(&self, told: &Told, now: Mono) {
        let mut state = self.state.lock();
        for path in &told.uncover {
            state.cache.uncover(path);
        }
        if let Some(path) = &told.cover {
            state.cache.cover(path, now);
        }
    }

    /// An event says that `path` changed: what is kept of it is closed, and what was read of it is asked for again.
    pub(crate) fn event(self: &Arc<Self>, tenant: &Arc<Tenant>, path: &str) {
        let flights = {
            let mut state = self.state.lock();
            let errands = state.cache.event(path, self.clock.now());
            self.renewals(&mut state, errands)
        };
        depart(tenant, flights);
    }

    /// How much it may hold.
    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Marks the time in which a write changes what it changes: begins now, ends when the value is dropped. `None` where it changes
    /// nothing although its method could, as a search by POST.
    pub(crate) fn writing(
        self: &Arc<Self>,
        profile: &Profile,
        method: &Method,
        path: &str,
    ) -> Option<Writing> {
        let path = normalise(path).ok()?.into_owned();
        if profile.is_safe(method, &path) {
            return None;
        }
        self.state.lock().cache.wrote(&path);
        Some(Writing { readers: Arc::clone(self), path, changed: true })
    }

    /// The login of `who` has ended: what was read with it is given to nobody any more.
    pub(crate) fn forget(&self, who: &str) {
        self.state.lock().cache.forget(who);
    }

    /// Answers a read. `who` differs wherever the upstream sees another person.
    pub(crate) async fn read(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        who: &str,
        request: Request<RequestBody>,
        options: CallOptions,
        login: Login,
        place: &Held,
    ) -> Response<ResponseBody> {
        let held = request.body().bytes().is_some_and(Bytes::is_empty) && !login.ends();
        let key =
            held.then(|| CacheKey::of(who, request.method(), request.uri(), request.headers())).flatten();
        let Some(key) = key else { return alone(tenant, request, options, login).await };
        let (parts, _) = request.into_parts();
        let patience = Patience::of(&options, self.clock.now());
        let reader = Reader::of(&parts.headers, options.class.unwrap_or(Class::Interactive))
            .by(options.caller.unwrap_or_default());
        let ask = Arc::new(Ask { key, request: parts, options, login });
        self.answer(tenant, &ask, reader, patience, place).await
    }

    async fn answer(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        ask: &Arc<Ask>,
        reader: Reader,
        patience: Patience,
        place: &Held,
    ) -> Response<ResponseBody> {
        for _ in 0..LOOKS {
            let (waiting, own) = match self.look(ask, &reader, patience) {
                Decided::Hit(kept, on) => {
                    self.wake_renewal(tenant);
                    self.count(tenant, on);
                    return give::hit(&kept, self.clock.now(), on == Some(Stand::Events));
                }
                Decided::Nothing => return respond::not_cached(tenant.shape()),
                Decided::Join(waiting, on) => {
                    self.count(tenant, on);
                    (waiting, None)
                }
                Decided::Fetch(flight, waiting, on) => {
                    self.count(tenant, on);
                    let (sender, own) = oneshot::channel();
                    flight.depart(tenant, ask, Some(Leader { own: sender, place: Arc::clone(place) }));
                    (waiting, Some(own))
                }
            };
            let Some(ended) = waiting.ended(own.is_some(), &patience, &self.clock).await else {
                return respond::no_answer(tenant.shape());
            };
            let Ended { end, moved, deadline } = ended;
            match (end, own.filter(|_| !moved)) {
                (End::Answer(kept), Some(_)) => return give::shared(&kept, give::MISS),
                (End::Answer(kept), None) => {
                    // It depends on what this reader has otherwise, or was not sent, or had less time than this reader has.
                    let is_others = !kept.serves(&ask.request)
                        || kept.headers.contains_key(REFUSED)
                        || kept.headers.contains_key(OUTCOME) && patience.outlasts(deadline);
                    if !is_others {
                        return give::collapsed(&kept, self.clock.now());
                    }
                }
                (End::Alone | End::Folded(_), Some(own)) => match own.await {
                    Ok(response) => return response,
                    // The flight is gone only if the process is ending.
                    Err(_) => break,
                },
                (End::Alone | End::Folded(_), None) => break,
            }
        }
        let options = patience.left(&ask.options, self.clock.now());
        alone(tenant, ask.request(), options, ask.login.clone()).await
    }

    /// Counts a read of a path whose events arrive.
    fn count(&self, tenant: &Tenant, on: Option<Stand>) {
        let (counter, answer) = match on {
            None => return,
            Some(Stand::Events) => (&self.covered.saved, "events"),
            Some(Stand::Age) => (&self.covered.fresh, "age"),
            Some(Stand::Call) => (&self.covered.asked, "call"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tenant.metrics.push_read(answer);
    }

    fn look(self: &Arc<Self>, ask: &Ask, reader: &Reader, patience: Patience) -> Decided {
        let mut state = self.state.lock();
        let now = self.clock.now();
        let covered = state.cache.is_covered(ask.key.path());
        let called = covered.then_some(Stand::Call);
        match state.cache.look(&ask.key, reader, &ask.request, now) {
            Look::Hit(kept) => {
                let on = if state.cache.stands_on_events(&ask.key, now) { Stand::Events } else { Stand::Age };
                Decided::Hit(kept, covered.then_some(on))
            }
            Look::Nothing => Decided::Nothing,
            Look::Join(id) => {
                let waiting = state.ends.get(&id).map(Ending::waiting);
                Decided::Join(waiting.expect("a flight that takes readers has not ended"), called)
            }
            Look::Fetch(errand) => {
                let ending = Ending::new(patience.deadline);
                let waiting = ending.waiting();
                let flight = Flight::new(Arc::clone(self), errand, patience, &ending);
                state.ends.insert(flight.id(), ending);
                Decided::Fetch(flight, waiting, called)
            }
        }
    }

    /// A flight is about to leave: those that wait for the same need not. Whether it may.
    fn leaves(&self, flight: FlightId) -> bool {
        let mut state = self.state.lock();
        let Some(folded) = state.cache.leaves(flight, self.clock.now()) else { return false };
        for id in folded {
            let (Some(other), Some(ending)) = (state.ends.remove(&id), state.ends.get(&flight)) else {
                continue;
            };
            other.sender.send_replace(Some(End::Folded(ending.waiting())));
            other.folded.notify_one();
        }
        true
    }

    /// Sees to it that what is read is renewed in time.
    fn wake_renewal(self: &Arc<Self>, tenant: &Arc<Tenant>) {
        let mut state = self.state.lock();
        let Some(wake) = state.cache.wake() else { return };
        match state.asleep {
            Some(until) if until <= wake => {}
            Some(_) => self.sooner.notify_one(),
            None => {
                state.asleep = Some(wake);
                tokio::spawn(Arc::clone(self).renew(Arc::clone(tenant)));
            }
        }
    }

    /// Renews answers until none is to be renewed.
    async fn renew(self: Arc<Self>, tenant: Arc<Tenant>) {
        loop {
            let wake = {
                let mut state = self.state.lock();
                state.asleep = state.cache.wake();
                state.asleep
            };
            let Some(wake) = wake else { return };
            tokio::select! {
                () = tokio::time::sleep_until(self.clock.instant(wake)) => {}
                () = self.sooner.notified() => continue,
            }
            let now = self.clock.now();
            let (rolls, flights) = {
                let mut state = self.state.lock();
                let rolls = state.cache.rolls(now);
                let due = state.cache.due(now);
                (rolls, self.renewals(&mut state, due))
            };
            for roll in rolls {
                tokio::spawn(list::ask(Arc::clone(&self), Arc::clone(&tenant), roll));
            }
            depart(&tenant, flights);
        }
    }

    /// The flights of renewals.
    fn renewals(
        self: &Arc<Self>,
        state: &mut State,
        due: Vec<(Errand, Arc<Ask>)>,
    ) -> Vec<(Flight, Arc<Ask>)> {
        due.into_iter().map(|(errand, ask)| (self.renewal(state, errand), ask)).collect()
    }

    /// The flight of a renewal: for nobody in particular, and with no other time than until it is needed.
    fn renewal(self: &Arc<Self>, state: &mut State, errand: Errand) -> Flight {
        let patience = Patience::until(errand.by);
        let ending = Ending::new(patience.deadline);
        let flight = Flight::new(Arc::clone(self), errand, patience, &ending);
        state.ends.insert(flight.id(), ending);
        flight
    }
}

/// Sends renewals.
fn depart(tenant: &Arc<Tenant>, flights: Vec<(Flight, Arc<Ask>)>) {
    for (flight, ask) in flights {
        flight.depart(tenant, &ask, None);
    }
}

/// On what the answer to a read of a covered path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// On events: its own time is over.
    Events,
    /// On its age.
    Age,
    /// On a call.
    Call,
}

/// A decision, with what it takes to carry it out.
enum Decided {
    Hit(Arc<Kept<Bytes>>, Option<Stand>),
    Nothing,
    Join(Waiting, Option<Stand>),
    Fetch(Flight, Waiting, Option<Stand>),
}

impl Ask {
    /// About what it takes to keep this, in bytes.
    fn length(&self) -> usize {
        let Parts { headers, uri, .. } = &self.request;
        let headers = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD);
        headers.sum::<usize>() + uri.path_and_query().map_or(0, |target| target.as_str().len())
    }

    fn request(&self) -> Request<RequestBody> {
        Request::from_parts(self.request.clone(), RequestBody::empty())
    }
}

/// About what a table of headers takes for one of them, in bytes.
const FIELD: usize = 100;

async fn alone(
    tenant: &Tenant,
    mut request: Request<RequestBody>,
    options: CallOptions,
    login: Login,
) -> Response<ResponseBody> {
    request.extensions_mut().insert(options);
    proxy::exchange(tenant, request, login).await.0
}

/// The time in which a write changes things. What was kept of them, or read meanwhile, is closed at its end too.
#[derive(Debug)]
pub(crate) struct Writing {
    readers: Arc<Readers>,
    path: String,
    changed: bool,
}

impl Writing {
    /// It ended and changed nothing: it was not sent, or refused (RFC 9111, section 4.4).
    pub(crate) fn undo(mut self) {
        self.changed = false;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.changed {
            self.readers.state.lock().cache.wrote(&self.path);
        }
    }
}
