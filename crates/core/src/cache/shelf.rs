//! Kept answers: found by key, closed by path, the longest unused thrown out first.
//!
//! A table in the order of paths, because a write closes a path with everything below it. Both bounds, the number of entries
//! and their bytes, hold after every call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::key::CacheKey;
use super::trip::Trip;
use super::{Bounds, Kept};
use crate::schedule::Class;
use crate::time::Mono;

/// An answer that may be given again.
#[derive(Debug)]
pub(super) struct Entry<Q, B> {
    pub(super) kept: Arc<Kept<B>>,
    /// How old it may become.
    pub(super) lifetime: Duration,
    /// What it takes to ask again.
    pub(super) ask: Q,
    /// What that takes to keep, in bytes.
    pub(super) ask_length: usize,
    /// The index of the rule under which it is kept.
    pub(super) rule: Option<usize>,
    /// Whether its request has conditions of its reader's.
    pub(super) conditional: bool,
    /// How long asking takes.
    pub(super) trip: Trip,
    /// When it is to be asked for again, if somebody wants it.
    pub(super) renew_at: Option<Mono>,
}

impl<Q, B> Entry<Q, B> {
    /// When its time is over.
    pub(super) fn end(&self) -> Mono {
        self.kept.sent + self.life()
    }

    /// How long it holds, from the instant its request left.
    pub(super) fn life(&self) -> Duration {
        self.lifetime.saturating_sub(self.kept.initial_age)
    }

    /// What it counts against the bound of bytes.
    fn size(&self) -> usize {
        let headers = self.kept.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        self.kept.length + headers.sum::<usize>() + self.kept.vary.size() + self.ask_length + OVERHEAD
    }
}

/// About what the tables take for one entry, in bytes.
const OVERHEAD: usize = 1024;

/// An entry in its place.
#[derive(Debug)]
struct Place<Q, B> {
    entry: Entry<Q, B>,
    size: usize,
    /// Its place in the order of use.
    used: u64,
    /// The most urgent class of those to whom it was given since its request left.
    wanted: Option<Class>,
}

/// All entries of a tenant.
#[derive(Debug)]
pub(super) struct Shelf<Q, B> {
    bounds: Bounds,
    entries: BTreeMap<CacheKey, Place<Q, B>>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, CacheKey>,
    /// Wanted entries by when they are to be renewed.
    due: BTreeSet<(Mono, CacheKey)>,
    bytes: usize,
    uses: u64,
    evicted: u64,
}

impl<Q, B> Shelf<Q, B> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            due: BTreeSet::new(),
            bytes: 0,
            uses: 0,
            evicted: 0,
        }
    }

    /// How many entries there may be.
    pub(super) fn most(&self) -> usize {
        self.bounds.entries
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn get(&self, key: &CacheKey) -> Option<&Entry<Q, B>> {
        self.entries.get(key).map(|place| &place.entry)
    }

    /// The most urgent class of those to whom it was given since its request left, if it was.
    pub(super) fn wanted(&self, key: &CacheKey) -> Option<Class> {
        self.entries.get(key)?.wanted
    }

    /// Notes that an entry was given to somebody who reads as `class`.
    pub(super) fn touch(&mut self, key: &CacheKey, class: Class) {
        let Some(place) = self.entries.get_mut(key) else { return };
        self.order.remove(&place.used);
        self.uses += 1;
        place.used = self.uses;
        self.order.insert(self.uses, key.clone());
        let before = place.wanted;
        place.wanted = Some(before.map_or(class, |before| before.min(class)));
        if let Some(at) = place.entry.renew_at.filter(|_| before.is_none()) {
            self.due.insert((at, key.clone()));
        }
    }

    /// Puts an answer in the place of an older one. What is too large is not kept.
    pub(super) fn put(&mut self, key: &CacheKey, entry: Entry<Q, B>) {
        self.remove(key);
        if entry.kept.length > self.bounds.entry_bytes {
            return;
        }
        let size = entry.size();
        self.uses += 1;
        self.bytes += size;
        self.order.insert(self.uses, key.clone());
        self.entries.insert(key.clone(), Place { entry, size, used: self.uses, wanted: None });
        while self.bytes > self.bounds.bytes || self.entries.len() > self.bounds.entries {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = oldest.clone();
            self.remove(&oldest);
            self.evicted += 1;
        }
    }

    /// Takes an answer away.
    pub(super) fn remove(&mut self, key: &CacheKey) {
        let Some(place) = self.entries.remove(key) else { return };
        self.order.remove(&place.used);
        self.bytes -= place.size;
        if let Some(at) = place.entry.renew_at {
            self.due.remove(&(at, key.clone()));
        }
    }

    /// The keys at `path` and, where `below` says so, under it.
    pub(super) fn keys_at(&self, path: &str, below: bool) -> Vec<CacheKey> {
        keys_at(&self.entries, path, below)
    }

    /// The keys of all that is kept.
    pub(super) fn keys(&self) -> impl Iterator<Item = &CacheKey> {
        self.entries.keys()
    }

    /// When the first wanted entry is to be renewed.
    pub(super) fn wake(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Wanted entries whose time to be renewed has come by `until`, the first ones first.
    pub(super) fn due_by(&self, until: Mono) -> impl Iterator<Item = (Mono, &CacheKey, &Entry<Q, B>)> {
        let due = self.due.iter().take_while(move |(at, _)| *at <= until);
        due.filter_map(|(at, key)| Some((*at, key, self.get(key)?)))
    }

    /// Takes a wanted entry out of the line of those that are to be renewed; it stays on the shelf.
    pub(super) fn not_due(&mut self, key: &CacheKey) {
        let Some(place) = self.entries.get_mut(key) else { return };
        if let Some(at) = place.entry.renew_at.take() {
            self.due.remove(&(at, key.clone()));
        }
    }

    /// Takes a wanted entry whose time to be renewed has come out of the line; it stays on the shelf.
    pub(super) fn next_due(&mut self, now: Mono) -> Option<CacheKey> {
        self.due.first().filter(|(at, _)| *at <= now)?;
        let (_, key) = self.due.pop_first()?;
        if let Some(place) = self.entries.get_mut(&key) {
            place.entry.renew_at = None;
        }
        Some(key)
    }
}

/// The keys of a table at `path` and, where `below` says so, under it.
pub(super) fn keys_at<V>(table: &BTreeMap<CacheKey, V>, path: &str, below: bool) -> Vec<CacheKey> {
    let exact = table.range(CacheKey::first_of(path)..).map(|(key, _)| key);
    let mut keys: Vec<CacheKey> = exact.take_while(|key| key.path() == path).cloned().collect();
    if below {
        let under = format!("{}/", path.trim_end_matches('/'));
        let rest = table.range(CacheKey::first_of(&under)..).map(|(key, _)| key);
        keys.extend(
            rest.take_while(|key| key.path().starts_with(&under)).filter(|key| key.path() != path).cloned(),
        );
    }
    keys
}
