//! Many readers, few calls: which reads share a call, how old an answer may be, and what a write makes stale.
//!
//! A [`Cache`] belongs to one tenant and decides for every read: give the kept answer ([`Look::Hit`]), wait for a call that is
//! already under way ([`Look::Join`]), or make one ([`Look::Fetch`]). Such a call is a *flight*; it belongs to nobody, so it survives the
//! reader for whom it began, and it lands with an answer for all who wait for it.
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
mod look;
mod rule;
mod scope;
mod shelf;
mod terms;
mod wants;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header, request};

pub use self::key::CacheKey;
pub use self::look::{Bounds, Errand, FlightId, Kept, Landed, Landing, Look, Reader, Tally};
pub use self::rule::{FreshRule, LONGEST, SHORTEST, read_fresh};
use self::scope::scopes;
use self::shelf::{Entry, Shelf, keys_at};
use self::terms::{Terms, conditions};
pub use self::wants::Wants;
use crate::schedule::Class;
use crate::time::Mono;

/// How long an answer stands on events alone. Channels lose events without telling.
pub const COVERED: Duration = Duration::from_mins(5);

/// A renewal leaves at least this long before an answer's time is over.
const LEAD: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Flight<B> {
    key: CacheKey,
    class: Class,
    rule: Option<usize>,
    /// Whether a write came between.
    closed: bool,
    /// Whether the request has conditions of its reader's, which ours must not replace.
    conditional: bool,
    /// Whose validators the request carries.
    base: Option<(Arc<Kept<B>>, Terms)>,
}

/// What is known of the answers of one tenant. `Q` is what it takes to ask again, `B` a body.
#[derive(Debug)]
pub struct Cache<Q, B> {
    rules: Arc<[FreshRule]>,
    shelf: Shelf<Q, B>,
    flights: BTreeMap<FlightId, Flight<B>>,
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
            shelf: Shelf::new(bounds),
            flights: BTreeMap::new(),
            open: BTreeMap::new(),
            covers: BTreeMap::new(),
            next: 0,
            tally: Tally::default(),
        }
    }

    /// Decides about a read.
    pub fn look(&mut self, key: &CacheKey, reader: &Reader, request: &request::Parts, now: Mono) -> Look<B> {
        if let Some(kept) = self.fresh(key, reader, request, now) {
            self.shelf.touch(key);
            self.tally.hits += 1;
            return Look::Hit(kept);
        }
        if reader.wants.only_if_cached {
            return Look::Nothing;
        }
        // A flight under way may have read before this reader asked; who wants the present does not join it.
        if !reader.wants.is_strict()
            && let Some(flight) = self.joinable(key, reader.class)
        {
            self.tally.joins += 1;
            return Look::Join(flight);
        }
        self.tally.fetches += 1;
        Look::Fetch(self.depart(key, reader.class, reader.conditional, None))
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
            && entry.terms.fits(request);
        takes.then(|| Arc::clone(&entry.kept))
    }

    /// How old an entry may become.
    fn lifetime(&self, key: &CacheKey, entry: &Entry<Q, B>) -> Duration {
        let since = self.covers.get(key.path());
        // What was asked for before the events began may be older than the first of them.
        let covered = since.is_some_and(|since| *since <= entry.kept.sent);
        if covered && entry.rule.is_some() { entry.terms.lifetime.max(COVERED) } else { entry.terms.lifetime }
    }

    fn joinable(&self, key: &CacheKey, class: Class) -> Option<FlightId> {
        // A flight waits in the line of its own class: an urgent reader must not wait there.
        let open = self.open.get(key)?;
        let serves = |flight: &Flight<B>| flight.class.is_urgent() || flight.class <= class;
        open.iter().copied().find(|id| self.flights.get(id).is_some_and(serves))
    }

    fn depart(&mut self, key: &CacheKey, class: Class, conditional: bool, by: Option<Mono>) -> Errand {
        self.next += 1;
        let flight = FlightId(self.next);
        let rule = self.rules.iter().position(|rule| rule.path.matches(key.path()));
        let old = self.shelf.get(key).filter(|_| !conditional);
        let base = old.map(|entry| (Arc::clone(&entry.kept), entry.terms.clone()));
        let conditions = base.as_ref().map(|(kept, _)| conditions(&kept.headers)).unwrap_or_default();
        let base = base.filter(|_| !conditions.is_empty());
        self.open.entry(key.clone()).or_default().push(flight);
        self.flights
            .insert(flight, Flight { key: key.clone(), class, rule, closed: false, conditional, base });
        Errand { flight, conditions, by }
    }

    /// A flight is answered. `ask` is what it takes to ask again.
    pub fn land(&mut self, id: FlightId, landing: Landing<'_, B>, ask: Q, now: Mono) -> Landed<B> {
        let flight = self.leave(id);
        let rule = flight.as_ref().and_then(|flight| flight.rule);
        let law = rule.and_then(|rule| self.rules.get(rule));
        let Landing { request, response, body, length, sent, sent_wall } = landing;
        let unchanged = response.status == StatusCode::NOT_MODIFIED;
        let base = flight.as_ref().and_then(|flight| flight.base.as_ref()).filter(|_| unchanged);
        let (terms, head, body, length) = if let Some((old, terms)) = base {
            let Some((terms, head)) = terms.renewed(law, request, &response, sent_wall) else {
                let flight = flight.expect("a base is of a flight");
                return Landed::Again(self.depart_again(id, flight));
            };
            (terms, head, old.body.clone(), old.length)
        } else {
            (Terms::of(law, request, &response, sent_wall), response, body, length)
        };
        let mut headers = head.headers;
        headers.remove(header::AGE);
        let kept = Kept { status: head.status, headers, body, length, sent, initial_age: terms.initial_age };
        let kept = Arc::new(kept);
        if let Some(flight) = flight.filter(|flight| !flight.closed) {
            self.keep(flight, Arc::clone(&kept), terms, ask, now);
        }
        Landed::Answer(kept)
    }

    fn depart_again(&mut self, id: FlightId, mut flight: Flight<B>) -> Errand {
        flight.base = None;
        if !flight.closed {
            self.open.entry(flight.key.clone()).or_default().push(id);
        }
        self.flights.insert(id, flight);
        Errand { flight: id, conditions: Vec::new(), by: None }
    }

    fn keep(&mut self, flight: Flight<B>, kept: Arc<Kept<B>>, terms: Terms, ask: Q, now: Mono) {
        let key = flight.key;
        if self.shelf.get(&key).is_some_and(|entry| entry.kept.sent > kept.sent) {
            // A flight that left later landed earlier.
            return;
        }
        if terms.lifetime.is_zero() {
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
        let before = self.shelf.get(&key).map(|entry| entry.took);
        // The slower of the last and the usual: a renewal that comes late costs every reader a wait.
        let took = before.map_or(took, |before| took.max((before * 3 + took) / 4));
        let renews = flight.rule.is_some() && !self.covers.contains_key(key.path());
        let renew_at = renews.then(|| renewal(&kept, &terms, took));
        let entry =
            Entry { kept, terms, ask, rule: flight.rule, conditional: flight.conditional, took, renew_at };
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

    /// Events about `path` (normalised) arrive from `now` on.
    pub fn cover(&mut self, path: &str, now: Mono) {
        self.covers.entry(Arc::from(path)).or_insert(now);
    }

    /// Events about `path` arrive no more. What is kept there is as old as it is.
    pub fn uncover(&mut self, path: &str) {
        self.covers.remove(path);
    }

    /// An event says that `path` changed. Gives the calls that bring what readers wanted before up to date, with what it takes
    /// to make each.
    pub fn event(&mut self, path: &str, now: Mono) -> Vec<(Errand, Q)> {
        let mut wanted = Vec::new();
        for key in self.shelf.keys_at(path, true) {
            let Some(entry) = self.shelf.get(&key).filter(|_| self.shelf.is_wanted(&key)) else { continue };
            wanted.push((entry.ask.clone(), entry.rule, entry.conditional, key));
        }
        self.close(path, true);
        let mut errands = Vec::new();
        for (ask, rule, conditional, key) in wanted {
            let by = rule.and_then(|rule| self.rules.get(rule)).map(|rule| now + rule.max_age);
            self.tally.renewals += 1;
            errands.push((self.depart(&key, Class::Sync, conditional, by), ask));
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
            // Somebody is asking already.
            if self.open.contains_key(&key) {
                continue;
            }
            let (ask, conditional) = (entry.ask.clone(), entry.conditional);
            let by = entry.kept.sent + entry.terms.lifetime.saturating_sub(entry.terms.initial_age);
            self.tally.renewals += 1;
            errands.push((self.depart(&key, Class::Sync, conditional, Some(by)), ask));
        }
        errands
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

/// When an answer is to be asked for again: twice the time that takes before its end, so that a slow answer is in time too, but
/// not in the first half of its life.
fn renewal<B>(kept: &Kept<B>, terms: &Terms, took: Duration) -> Mono {
    let life = terms.lifetime.saturating_sub(terms.initial_age);
    let lead = (took * 2).max(LEAD).min(life / 2);
    kept.sent + life.saturating_sub(lead)
}

/// Whether an answer says something about the moment and nothing about the resource.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

#[cfg(test)]
mod tests;
