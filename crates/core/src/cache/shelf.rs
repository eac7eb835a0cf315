//! Kept answers: found by key, closed by path, the longest unused thrown out first.
//!
//! A table in the order of paths, because a write closes a path with everything below it. Both bounds, the number of entries
//! and their bytes, hold after every call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::key::CacheKey;
use super::terms::Terms;
use super::{Bounds, Kept};
use crate::time::Mono;

/// An answer that may be given again.
#[derive(Debug)]
pub(super) struct Entry<Q, B> {
    pub(super) kept: Arc<Kept<B>>,
    pub(super) terms: Terms,
    /// What it takes to ask again.
    pub(super) ask: Q,
    /// The index of the rule under which it is kept.
    pub(super) rule: Option<usize>,
    /// Whether its request has conditions of its reader's.
    pub(super) conditional: bool,
    /// How long asking takes.
    pub(super) took: Duration,
    /// When it is to be asked for again, if somebody wants it.
    pub(super) renew_at: Option<Mono>,
}

impl<Q, B> Entry<Q, B> {
    /// What it counts against the bound of bytes.
    fn size(&self) -> usize {
        let headers = self.kept.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        // Headers are kept twice: as they are given, and for the rules of caching.
        self.kept.length + 2 * headers.sum::<usize>() + OVERHEAD
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
    /// Whether it was given to anybody since its request left.
    wanted: bool,
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

    /// Whether it was given to anybody since its request left.
    pub(super) fn is_wanted(&self, key: &CacheKey) -> bool {
        self.entries.get(key).is_some_and(|place| place.wanted)
    }

    /// Notes that an entry was given to somebody.
    pub(super) fn touch(&mut self, key: &CacheKey) {
        let Some(place) = self.entries.get_mut(key) else { return };
        self.order.remove(&place.used);
        self.uses += 1;
        place.used = self.uses;
        self.order.insert(self.uses, key.clone());
        let was_wanted = std::mem::replace(&mut place.wanted, true);
        if let Some(at) = place.entry.renew_at.filter(|_| !was_wanted) {
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
        self.entries.insert(key.clone(), Place { entry, size, used: self.uses, wanted: false });
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

    /// When the first wanted entry is to be renewed.
    pub(super) fn wake(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
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
