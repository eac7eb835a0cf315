//! Many readers, few calls: the reads of one tenant on their way through its [`Cache`].
//!
//! The cache decides, under a lock that is never held across an await. Here its decisions are carried out: an answer is given
//! from memory, a reader waits for a flight, or a flight is sent. A flight runs in a task of its own, so it survives the
//! reader for whom it began; its end is told through one channel to everybody who waits. One task renews what
//! is read, alive only while something is.
//!
//! What cannot be shared is not: an answer that is too long to be held, that never ends, or that was cut goes to the reader for
//! whom it was asked, as it comes, and the others ask for themselves.

mod flight;
mod give;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, request};
use parking_lot::Mutex;
use tidegate::clock::Clock;
use tidegate::{CallOptions, Class, RequestBody, ResponseBody};
use tidegate_core::cache::{Bounds, Cache, CacheKey, FlightId, FreshRule, Kept, Look, Reader, Tally};
use tidegate_core::key::normalise;
use tidegate_core::time::Mono;
use tokio::sync::{Notify, oneshot, watch};

use self::flight::Flight;
use crate::proxy::{self, Login};
use crate::respond::{self, REFUSED};
use crate::tenant::Tenant;

/// The reads of one tenant.
#[derive(Debug)]
pub(crate) struct Readers {
    state: Mutex<State>,
    clock: Clock,
    bounds: Bounds,
    /// An earlier renewal is due than the one the task sleeps for.
    sooner: Notify,
}

#[derive(Debug)]
struct State {
    cache: Cache<Arc<Ask>, Bytes>,
    ends: BTreeMap<FlightId, watch::Sender<Option<End>>>,
    /// Until when the task that renews sleeps; `None` while there is none.
    asleep: Option<Mono>,
}

/// What it takes to make a read again.
#[derive(Debug)]
struct Ask {
    key: CacheKey,
    request: request::Parts,
    options: CallOptions,
    login: Login,
}

/// How a flight ended, as those who wait for it are told.
#[derive(Clone, Debug)]
enum End {
    /// With an answer for all.
    Answer(Arc<Kept<Bytes>>),
    /// With nothing that can be shared.
    Alone,
}

/// How reads are treated.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) fresh: Arc<[FreshRule]>,
    pub(crate) bounds: Bounds,
}

impl Reading {
    /// The part of one of so many tenants: they keep no more together than one alone would, but for a minimum.
    pub(crate) fn part_of(&self, tenants: usize) -> Self {
        let tenants = tenants.max(1);
        let Bounds { bytes, entries, entry_bytes } = self.bounds;
        let bytes = (bytes / tenants).max(LEAST_BYTES.min(bytes));
        let entries = (entries / tenants).max(LEAST_ENTRIES.min(entries));
        Self { fresh: Arc::clone(&self.fresh), bounds: Bounds { bytes, entries, entry_bytes } }
    }
}

/// How often a reader waits for calls of others that are refused before it makes its own.
const LOOKS: usize = 3;

/// What a tenant may keep however many there are: less would keep nothing long enough to be read twice.
const LEAST_BYTES: usize = 1 << 20;
const LEAST_ENTRIES: usize = 256;

impl Readers {
    pub(crate) fn new(reading: Reading, clock: Clock) -> Self {
        let Reading { fresh, bounds } = reading;
        let cache = Cache::new(fresh, bounds);
        let state = State { cache, ends: BTreeMap::new(), asleep: None };
        Self { state: Mutex::new(state), clock, bounds, sooner: Notify::new() }
    }

    /// What the cache did so far, and how many answers of how many bytes it holds.
    pub(crate) fn tally(&self) -> (Tally, (usize, usize)) {
        let state = self.state.lock();
        (state.cache.tally(), state.cache.held())
    }

    /// Marks the time in which a write changes what it changes: begins now, ends when the value is dropped.
    pub(crate) fn writing(self: &Arc<Self>, path: &str) -> Option<Writing> {
        let path = normalise(path).ok()?.into_owned();
        self.state.lock().cache.wrote(&path);
        Some(Writing { readers: Arc::clone(self), path })
    }

    /// Answers a read. `who` differs wherever the upstream sees another person.
    pub(crate) async fn read(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        who: &str,
        request: Request<RequestBody>,
        options: CallOptions,
        login: Login,
    ) -> Response<ResponseBody> {
        let held = request.body().bytes().is_some_and(Bytes::is_empty) && !login.ends();
        let key =
            held.then(|| CacheKey::of(who, request.method(), request.uri(), request.headers())).flatten();
        let Some(key) = key else { return alone(tenant, request, options, login).await };
        let (parts, _) = request.into_parts();
        let reader = Reader::of(&parts.headers, options.class.unwrap_or(Class::Interactive));
        let ask = Arc::new(Ask { key, request: parts, options, login });
        for _ in 0..LOOKS {
            match self.look(&ask, &reader) {
                Decided::Hit(kept) => {
                    self.wake_renewal(tenant);
                    return give::hit(&kept, self.clock.now());
                }
                Decided::Nothing => return respond::not_cached(tenant.shape()),
                Decided::Join(end) => match ended(end).await {
                    // It was not sent, for want of time that this reader may have: a renewal has to be there soon.
                    End::Answer(kept) if kept.headers.contains_key(REFUSED) => {}
                    End::Answer(kept) => return give::shared(&kept, "fwd=miss; collapsed"),
                    End::Alone => break,
                },
                Decided::Fetch(flight, end) => return self.lead(tenant, &ask, flight, end).await,
            }
        }
        ask.alone(tenant).await
    }

    /// Sends a flight and waits for it.
    async fn lead(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        ask: &Arc<Ask>,
        flight: Flight,
        end: watch::Receiver<Option<End>>,
    ) -> Response<ResponseBody> {
        let (leader, own) = oneshot::channel();
        flight.depart(tenant, ask, Some(leader));
        match ended(end).await {
            End::Answer(kept) => give::shared(&kept, "fwd=miss"),
            // The flight is gone only if the process is ending.
            End::Alone => match own.await {
                Ok(response) => response,
                Err(_) => ask.alone(tenant).await,
            },
        }
    }

    fn look(self: &Arc<Self>, ask: &Ask, reader: &Reader) -> Decided {
        let mut state = self.state.lock();
        match state.cache.look(&ask.key, reader, &ask.request, self.clock.now()) {
            Look::Hit(kept) => Decided::Hit(kept),
            Look::Nothing => Decided::Nothing,
            Look::Join(id) => {
                let end = state.ends.get(&id).map(watch::Sender::subscribe);
                Decided::Join(end.expect("a flight that takes readers has not ended"))
            }
            Look::Fetch(errand) => {
                let (sender, end) = watch::channel(None);
                state.ends.insert(errand.flight, sender);
                Decided::Fetch(Flight::new(Arc::clone(self), errand), end)
            }
        }
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
            for (errand, ask) in self.renewals(now) {
                let ask = Arc::new(ask.as_renewal(errand.by, now));
                Flight::new(Arc::clone(&self), errand).depart(&tenant, &ask, None);
            }
        }
    }

    fn renewals(&self, now: Mono) -> Vec<(tidegate_core::cache::Errand, Arc<Ask>)> {
        let mut state = self.state.lock();
        let due = state.cache.due(now);
        for (errand, _) in &due {
            state.ends.insert(errand.flight, watch::Sender::new(None));
        }
        due
    }
}

/// A decision, with what it takes to carry it out.
enum Decided {
    Hit(Arc<Kept<Bytes>>),
    Nothing,
    Join(watch::Receiver<Option<End>>),
    Fetch(Flight, watch::Receiver<Option<End>>),
}

/// Waits for the end of a flight.
async fn ended(mut end: watch::Receiver<Option<End>>) -> End {
    match end.wait_for(Option::is_some).await {
        Ok(end) => end.clone().unwrap_or(End::Alone),
        Err(_) => End::Alone,
    }
}

impl Ask {
    /// The same read as a renewal: needed by an instant, for nobody in particular.
    fn as_renewal(&self, by: Option<Mono>, now: Mono) -> Self {
        let within = by.map(|by| by - now);
        let options = CallOptions {
            class: Some(Class::Sync),
            deadline: within,
            max_wait: within,
            ..self.options.clone()
        };
        Self { key: self.key.clone(), request: self.request.clone(), options, login: self.login.clone() }
    }

    fn request(&self) -> Request<RequestBody> {
        Request::from_parts(self.request.clone(), RequestBody::empty())
    }

    /// Makes the read for its own reader only.
    async fn alone(&self, tenant: &Tenant) -> Response<ResponseBody> {
        alone(tenant, self.request(), self.options.clone(), self.login.clone()).await
    }
}

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
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.readers.state.lock().cache.wrote(&self.path);
    }
}
