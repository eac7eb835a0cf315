//! Many readers, few calls: which reads share a call, how old an answer may be, and what a write makes stale.
//!
//! A [`Cache`] belongs to one tenant and decides for every read: give the kept answer ([`Look::Hit`]), wait for a call that is
//! already under way ([`Look::Join`]), or make one ([`Look::Fetch`]). Such a call is a *flight*. Until it leaves it waits in the line of the
//! caller for whom it began, and nobody else waits there: a reader of another caller, or of a more urgent class, begins a flight of its
//! own. The first of them to leave ([`Cache::leaves`]) takes the readers of the others along, which then need not leave. From
//! that instant it belongs to nobody: it survives its reader, and lands with an answer for all who wait for it.
//!
//! Three promises, each a property in the tests:
//! * **No answer is older than was promised.** Ages count from the instant its request left. An answer under a rule is asked for
//!   again shortly before its time is over, while somebody reads it, and left alone when nobody does.
//! * **Reads see writes.** A write through this gateway closes what it may have changed when it is sent and again when it is answered:
//!   kept answers go, and flights that are under way neither take more readers nor fill the shelf (they may have read before
//!   the write).
//! * **Nothing is shared between identities.** See [`CacheKey`].
//!
//! Where events of the upstream arrive (push), a *covered* path needs no renewal: its answers stand until an event closes them,
//! at most [`COVERED`].

mod key;
mod list;
mod look;
mod roll;
mod rule;
mod scope;
mod shelf;
mod terms;
mod trip;
mod vary;
mod wants;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header, request};

pub use self::key::CacheKey;
pub(crate) use self::list::read_lists;
pub use self::list::{ListRule, Roll, Told, Version};
pub use self::look::{Bounds, Errand, FlightId, Kept, Landed, Landing, Look, Reader, Tally};
pub use self::roll::DENIED_FOR;
pub use self::rule::{FreshRule, LONGEST, SHORTEST, read_fresh};
use self::scope::scopes;
use self::shelf::{Entry, Shelf, keys_at};
pub use self::terms::RefusesNow;
use self::terms::{Terms, conditions, renewed};
use self::trip::Trip;
pub use self::wants::Wants;
use crate::schedule::{CallerId, Class};
use crate::time::Mono;

/// How long an answer stands on events alone. Channels lose events without telling.
pub const COVERED: Duration = Duration::from_mins(5);

/// A renewal leaves at least this long before an answer's time is over.
const LEAD: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Flight<B> {
    key: CacheKey,
    class: Class,
    /// In whose line it waits; `None` for a renewal, which is in nobody's.
    caller: Option<CallerId>,
    /// When its last attempt left.
    left: Option<Mono>,
    rule: Option<usize>,
    /// Whether a write came between.
    closed: bool,
    /// Whether the request has conditions of its reader's, which ours must not replace.
    conditional: bool,
    /// Whose validators the request carries.
    base: Option<Arc<Kept<B>>>,
}

/// What is known of the answers of one tenant. `Q` is what it takes to ask again, `B` a body.
#[derive(Debug)]
pub struct Cache<Q, B> {
    rules: Arc<[FreshRule]>,
    lists: Arc<[ListRule]>,
    /// Lists that the upstream would not tell, and until when they are left alone.
    denied: BTreeMap<(usize, [u8; 32]), Mono>,
    shelf: Shelf<Q, B>,
    flights: BTreeMap<FlightId, Flight<B>>,
    /// Keys whose answers depend on the user agent: of each agent one is kept.
    by_agent: BTreeSet<CacheKey>,
    /// Flights that take readers.
    open: BTreeMap<CacheKey, Vec<FlightId>>,
    /// Paths whose events arrive, and since when.
    covers: BTreeMap<Arc<str>, Mono>,
    next: u64,
    tally: Tally,
}

impl<Q: Clone, B: Clone> Cache<Q, B> {
    /// An empty one. Of the rules, the first that matches decides.
    pub fn new(rules: Arc<[FreshRule]>, bounds: Bounds) -> Self {
        Self {
            rules,
            lists: Arc::default(),
            denied: BTreeMap::new(),
            shelf: Shelf::new(bounds),
            flights: BTreeMap::new(),
            by_agent: BTreeSet::new(),
            open: BTreeMap::new(),
            covers: BTreeMap::new(),
            next: 0,
            tally: Tally::default(),
        }
    }

    /// The same, with lists that tell versions. Of those too the first that matches decides.
    #[must_use]
    pub fn with_lists(mut self, lists: Arc<[ListRule]>) -> Self {
        self.lists = lists;
        self
    }

    /// Decides about a read.
    pub fn look(&mut self, key: &CacheKey, reader: &Reader, request: &request::Parts, now: Mono) -> Look<B> {
        let own = self.by_agent.contains(key).then(|| key.for_agent(&request.headers));
        let key = own.as_ref().unwrap_or(key);
        if let Some(kept) = self.fresh(key, reader, request, now) {
            self.shelf.touch(key, reader.class);
            self.tally.hits += 1;
            return Look::Hit(kept);
        }
        if reader.wants.only_if_cached {
            return Look::Nothing;
        }
        // A flight under way may have read before this reader asked; who wants the present does not join it.
        if !reader.wants.is_strict()
            && let Some(flight) = self.joinable(key, reader, now)
        {
            self.tally.joins += 1;
            return Look::Join(flight);
        }
        self.tally.fetches += 1;
        let base = self.base(key, reader.conditional).filter(|base| base.serves(request));
        let line = Line { class: reader.class, caller: reader.caller };
        Look::Fetch(self.depart(key, line, reader.conditional, base, None))
    }

    fn fresh(
        &self,
        key: &CacheKey,
        reader: &Reader,
        request: &request::Parts,
        now: Mono,
    ) -> Option<Arc<Kept<B>>> {
        let entry = self.shelf.get(key)?;
        let age = entry.kept.age(now);
        let lifetime = self.lifetime(key, entry);
        let takes = age < lifetime
            && reader.wants.takes(age, lifetime.saturating_sub(age))
            && entry.kept.serves(request);
        takes.then(|| Arc::clone(&entry.kept))
    }

    /// How old an entry may become.
    fn lifetime(&self, key: &CacheKey, entry: &Entry<Q, B>) -> Duration {
        let since = self.covers.get(key.path());
        // What was asked for before the events began may be older than the first of them.
        let covered = since.is_some_and(|since| *since <= entry.kept.sent);
        if covered && entry.rule.is_some() { entry.lifetime.max(COVERED) } else { entry.lifetime }
    }

    fn joinable(&self, key: &CacheKey, reader: &Reader, now: Mono) -> Option<FlightId> {
        let open = self.open.get(key)?;
        let serves = |flight: &Flight<B>| match flight.left {
            // What it brings shows how things were when it left, or later.
            Some(left) => {
                let rule = flight.rule.and_then(|rule| self.rules.get(rule));
                let most = rule.map_or(Duration::MAX, |rule| rule.max_age);
                now.since(left) <= reader.wants.max_age.map_or(most, |wanted| wanted.min(most))
            }
            None => flight.caller == reader.caller && flight.class <= reader.class,
        };
        open.iter().copied().find(|id| self.flights.get(id).is_some_and(serves))
    }

    /// An attempt of a flight is about to leave. Gives the flights for the same answer that have not left, and need not any more: they are
    /// gone, and who waits for them waits for this one. `None` where this one is gone itself, and must not leave.
    pub fn leaves(&mut self, id: FlightId, now: Mono) -> Option<Vec<FlightId>> {
        let flight = self.flights.get_mut(&id)?;
        flight.left = Some(now);
        let key = flight.key.clone();
        let open = self.open.get(&key).filter(|open| open.contains(&id)).cloned().unwrap_or_default();
        let waits = |id: &FlightId| self.flights.get(id).is_some_and(|flight| flight.left.is_none());
        let folded: Vec<FlightId> = open.into_iter().filter(waits).collect();
        for id in &folded {
            self.leave(*id);
        }
        Some(folded)
    }

    /// Whether a flight will answer no later than one that begins now in `line`.
    fn is_ahead(&self, id: FlightId, line: Line) -> bool {
        self.flights.get(&id).is_some_and(|flight| flight.left.is_some() || flight.class <= line.class)
    }

    /// Nobody waits for a flight any more. Whether it is gone with that: one that has left is not, its answer is on its way.
    pub fn forsake(&mut self, id: FlightId) -> bool {
        let waits = self.flights.get(&id).is_none_or(|flight| flight.left.is_none());
        if waits {
            self.leave(id);
        }
        waits
    }

    /// What is kept already, with whose validators a call for `key` may ask whether it changed.
    fn base(&self, key: &CacheKey, conditional: bool) -> Option<Arc<Kept<B>>> {
        let kept = &self.shelf.get(key).filter(|_| !conditional)?.kept;
        Some(Arc::clone(kept))
    }

    fn depart(
        &mut self,
        key: &CacheKey,
        line: Line,
        conditional: bool,
        base: Option<Arc<Kept<B>>>,
        by: Option<Mono>,
    ) -> Errand {
        self.next += 1;
        let flight = FlightId(self.next);
        let rule = self.rules.iter().position(|rule| rule.path.matches(key.path()));
        let conditions = base.as_ref().map(|kept| conditions(&kept.headers)).unwrap_or_default();
        let base = base.filter(|_| !conditions.is_empty());
        self.open.entry(key.clone()).or_default().push(flight);
        let Line { class, caller } = line;
        let (key, closed, left) = (key.clone(), false, None);
        let new = Flight { key, class, caller, left, rule, closed, conditional, base };
        self.flights.insert(flight, new);
        Errand { flight, class, conditions, by }
    }

    /// A flight is answered. `ask` is what it takes to ask again.
    pub fn land(&mut self, id: FlightId, landing: Landing<'_, B>, ask: Q, now: Mono) -> Landed<B> {
        let flight = self.leave(id);
        let rule = flight.as_ref().and_then(|flight| flight.rule);
        let law = rule.and_then(|rule| self.rules.get(rule));
        let Landing { request, response, body, length, sent, sent_wall, mut version, ask_length } = landing;
        let unchanged = response.status == StatusCode::NOT_MODIFIED;
        let base = flight.as_ref().and_then(|flight| flight.base.as_ref()).filter(|_| unchanged);
        let (head, body, length) = if let Some(old) = base {
            let Some(head) = renewed((old.status, &old.headers), response, sent_wall) else {
                let flight = flight.expect("a base is of a flight");
                return Landed::Again(self.depart_again(id, flight));
            };
            self.tally.unchanged += 1;
            version.clone_from(&old.version);
            (head, old.body.clone(), old.length)
        } else {
            (response, body, length)
        };
        let Terms { vary, is_own, lifetime, initial_age } = Terms::of(law, request, &head, sent_wall);
        let mut headers = head.headers;
        headers.remove(header::AGE);
        let kept = Kept { status: head.status, headers, body, length, sent, initial_age, version, vary };
        let kept = Arc::new(kept);
        if let Some(flight) = flight.filter(|flight| !flight.closed) {
            let flight = self.told_by_agent(flight, &kept, request);
            self.keep(flight, Arc::clone(&kept), lifetime, (ask, ask_length), now);
        }
        if is_own { Landed::Own(kept) } else { Landed::Answer(kept) }
    }

    fn depart_again(&mut self, id: FlightId, mut flight: Flight<B>) -> Errand {
        flight.base = None;
        flight.left = None;
        let class = flight.class;
        if !flight.closed {
            self.open.entry(flight.key.clone()).or_default().push(id);
        }
        self.flights.insert(id, flight);
        Errand { flight: id, class, conditions: Vec::new(), by: None }
    }

    /// The flight with the key under which its answer is kept.
    fn told_by_agent(
        &mut self,
        mut flight: Flight<B>,
        kept: &Kept<B>,
        request: &request::Parts,
    ) -> Flight<B> {
        if !kept.vary.names_agent() {
            return flight;
        }
        let key = flight.key.for_all();
        flight.key = key.for_agent(&request.headers);
        self.shelf.remove(&key);
        self.by_agent.insert(key);
        while self.by_agent.len() > self.shelf.most() {
            self.by_agent.pop_first();
        }
        flight
    }

    fn keep(
        &mut self,
        flight: Flight<B>,
        kept: Arc<Kept<B>>,
        lifetime: Duration,
        (ask, ask_length): (Q, usize),
        now: Mono,
    ) {
        let key = flight.key;
        if self.shelf.get(&key).is_some_and(|entry| entry.kept.sent > kept.sent) {
            // A flight that left later landed earlier.
            return;
        }
        if lifetime.is_zero() {
            // What is kept holds until its time is over, also where a renewal failed. But an answer that says something about
            // the resource, such as that this caller may not see it any more, ends what was kept.
            if !is_failure(kept.status) {
                self.shelf.remove(&key);
            }
            return;
        }
        // The way there and back. What a call waits for its quota first says nothing about the next one, which is a `sync` call and goes
        // by its deadline.
        let took = now.since(kept.sent);
        let before = self.shelf.get(&key).map(|entry| entry.trip);
        let trip = before.map_or_else(|| Trip::first(took), |before| before.and(took));
        let renews = flight.rule.is_some() && !self.covers.contains_key(key.path());
        let renew_at = renews.then(|| renewal(&kept, lifetime, trip.expected()));
        let Flight { rule, conditional, .. } = flight;
        let entry = Entry { kept, lifetime, ask, ask_length, rule, conditional, trip, renew_at };
        self.shelf.put(&key, entry);
    }

    /// A flight came to nothing, or to something that cannot be shared. What was kept stays.
    pub fn fail(&mut self, id: FlightId) {
        self.leave(id);
    }

    fn leave(&mut self, id: FlightId) -> Option<Flight<B>> {
        let flight = self.flights.remove(&id)?;
        if let Some(open) = self.open.get_mut(&flight.key) {
            open.retain(|open| *open != id);
            if open.is_empty() {
                self.open.remove(&flight.key);
            }
        }
        Some(flight)
    }

    /// A write to `path` (normalised) is being sent, or was answered: what it may have changed is closed. To be called at both
    /// instants.
    pub fn wrote(&mut self, path: &str) {
        for scope in scopes(path) {
            self.close(scope.path, scope.below);
        }
    }

    fn close(&mut self, path: &str, below: bool) {
        for key in self.shelf.keys_at(path, below) {
            self.shelf.remove(&key);
            self.tally.closed += 1;
        }
        for key in keys_at(&self.open, path, below) {
            for id in self.open.remove(&key).unwrap_or_default() {
                if let Some(flight) = self.flights.get_mut(&id) {
                    flight.closed = true;
                }
            }
        }
    }

    /// The login of `who` (as in [`CacheKey::of`]) has ended: what was read with it is given to nobody any more.
    pub fn forget(&mut self, who: &str) {
        let kept: Vec<CacheKey> = self.shelf.keys().filter(|key| key.is_of(who)).cloned().collect();
        for key in kept {
            self.shelf.remove(&key);
            self.tally.closed += 1;
        }
        self.open.retain(|key, _| !key.is_of(who));
        for flight in self.flights.values_mut().filter(|flight| flight.key.is_of(who)) {
            flight.closed = true;
        }
    }

    /// Events about `path` (normalised) arrive from `now` on.
    pub fn cover(&mut self, path: &str, now: Mono) {
        self.covers.entry(Arc::from(path)).or_insert(now);
    }

    /// Events about `path` arrive no more. What is kept there is as old as it is.
    pub fn uncover(&mut self, path: &str) {
        self.covers.remove(path);
    }

    /// Whether events about `path` arrive.
    pub fn is_covered(&self, path: &str) -> bool {
        self.covers.contains_key(path)
    }

    /// Whether what is kept under `key` is given although its own time is over, because no event said that it changed.
    pub fn stands_on_events(&self, key: &CacheKey, now: Mono) -> bool {
        let entry = self.shelf.get(key).filter(|_| self.is_covered(key.path()));
        entry.is_some_and(|entry| entry.kept.age(now) >= entry.lifetime)
    }

    /// An event says that `path` changed. Gives the calls that bring what readers wanted before up to date, with what it takes
    /// to make each.
    pub fn event(&mut self, path: &str, now: Mono) -> Vec<(Errand, Q)> {
        let mut wanted = Vec::new();
        for key in self.shelf.keys_at(path, true) {
            let (Some(entry), Some(reader)) = (self.shelf.get(&key), self.shelf.wanted(&key)) else {
                continue;
            };
            wanted.push((entry.ask.clone(), entry.rule, entry.conditional, Line::of_renewal(reader), key));
        }
        self.close(path, true);
        let mut errands = Vec::new();
        for (ask, rule, conditional, line, key) in wanted {
            let by = rule.and_then(|rule| self.rules.get(rule)).map(|rule| now + rule.max_age);
            self.tally.renewals += 1;
            // What an event closed is gone, so nothing is left to ask about whether it changed.
            errands.push((self.depart(&key, line, conditional, None, by), ask));
        }
        errands
    }

    /// When [`Cache::due`] has something to say.
    pub fn wake(&self) -> Option<Mono> {
        self.shelf.wake()
    }

    /// The answers to ask for again now: those that were read since their request left and whose time is nearly over.
    pub fn due(&mut self, now: Mono) -> Vec<(Errand, Q)> {
        let mut errands = Vec::new();
        while let Some(key) = self.shelf.next_due(now) {
            let Some(entry) = self.shelf.get(&key) else { continue };
            let (ask, conditional) = (entry.ask.clone(), entry.conditional);
            let by = entry.end();
            let line = Line::of_renewal(self.shelf.wanted(&key).unwrap_or(Class::Sync));
            // Somebody is asking already, and not in a slower line.
            if self.open.get(&key).is_some_and(|open| open.iter().any(|id| self.is_ahead(*id, line))) {
                continue;
            }
            errands.push(self.renew(&key, ask, conditional, by));
        }
        errands
    }

    fn renew(&mut self, key: &CacheKey, ask: Q, conditional: bool, by: Mono) -> (Errand, Q) {
        self.tally.renewals += 1;
        let base = self.base(key, conditional);
        let line = Line::of_renewal(self.shelf.wanted(key).unwrap_or(Class::Sync));
        (self.depart(key, line, conditional, base, Some(by)), ask)
    }

    /// What it did so far.
    pub fn tally(&self) -> Tally {
        Tally { evicted: self.shelf.evicted(), ..self.tally }
    }

    /// How many answers are kept, and their bytes.
    pub fn held(&self) -> (usize, usize) {
        (self.shelf.len(), self.shelf.bytes())
    }
}

/// Where a flight waits until it leaves.
#[derive(Clone, Copy, Debug)]
struct Line {
    class: Class,
    caller: Option<CallerId>,
}

impl Line {
    /// Of the renewal of what was read as `reader`: a call that must be there in time, but no more urgent than its readers. What the
    /// calendar or a reserve holds for them it holds for their renewals.
    fn of_renewal(reader: Class) -> Self {
        Self { class: reader.max(Class::Sync), caller: None }
    }
}

/// When an answer is to be asked for again: twice the time that takes before its end, so that a slow answer is in time too, but
/// not in the first half of its life.
fn renewal<B>(kept: &Kept<B>, lifetime: Duration, took: Duration) -> Mono {
    let life = lifetime.saturating_sub(kept.initial_age);
    let lead = (took * 2).max(LEAD).min(life / 2);
    kept.sent + life.saturating_sub(lead)
}

/// Whether an answer says something about the moment and nothing about the resource.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

#[cfg(test)]
mod tests;
