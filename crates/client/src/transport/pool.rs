//! Idle connections, kept for the next attempt.
//!
//! A reused connection may have been closed by the upstream a moment ago, and then a write on it ends in doubt. So
//! the pool remembers the shortest time after which an idle connection was closed by the other side, and lends
//! writes only connections that have been idle for less than half of it. Newest first, so that a falling load lets
//! the oldest connections end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_core::time::Mono;

use super::connect::Connection;

/// Idle connections kept per origin. More would only be idle sockets at the upstream: the pool serves as many
/// attempts at once as are in flight, and keeps what a burst of this width needs again.
const MAX_IDLE: usize = 256;

/// An idle connection is closed after this time: below the 60 s that load balancers commonly allow.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);

/// One origin's idle connections, newest last.
type Shelf = Vec<(Connection, Arc<IdleSince>)>;

/// Since when a connection is idle; zero while it is in use.
#[derive(Debug, Default)]
pub(super) struct IdleSince(AtomicU64);

impl IdleSince {
    fn set(&self, now: Mono) {
        self.0.store(now.as_nanos().max(1), Ordering::Release);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }

    fn get(&self) -> Option<Mono> {
        Some(self.0.load(Ordering::Acquire)).filter(|nanos| *nanos > 0).map(Mono::from_nanos)
    }
}

/// The pool of one transport.
#[derive(Debug, Default)]
pub(super) struct Pool {
    shelves: Mutex<HashMap<String, Shelf>>,
    shortest_close: ShortestClose,
}

/// The shortest time after which the other side closed an idle connection, in nanoseconds.
#[derive(Debug)]
struct ShortestClose(AtomicU64);

impl Default for ShortestClose {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Pool {
    /// Takes an idle connection to `origin`. A `careful` caller gets only one that is surely still open.
    pub(super) fn take(
        &self,
        origin: &str,
        now: Mono,
        careful: bool,
    ) -> Option<(Connection, Arc<IdleSince>)> {
        let limit = if careful { self.careful_limit() } else { MAX_IDLE_TIME };
        let mut shelves = self.shelves.lock();
        let kept = shelves.get_mut(origin)?;
        kept.retain(|(connection, _)| !connection.sender.is_closed());
        let newest = kept.last()?.1.get().unwrap_or(Mono::ZERO);
        if now - newest >= limit {
            return None;
        }
        let (connection, idle) = kept.pop()?;
        idle.clear();
        Some((connection, idle))
    }

    /// Puts a connection back for later.
    pub(super) fn put(&self, origin: &str, now: Mono, connection: Connection, idle: Arc<IdleSince>) {
        if connection.sender.is_closed() {
            return;
        }
        let mut shelves = self.shelves.lock();
        let kept = shelves.entry(origin.to_owned()).or_default();
        kept.retain(|(connection, idle)| {
            !connection.sender.is_closed() && idle.get().is_none_or(|since| now - since < MAX_IDLE_TIME)
        });
        if kept.len() < MAX_IDLE {
            idle.set(now);
            kept.push((connection, idle));
        }
    }

    /// Notes that a connection ended; only one that was idle says something about the other side's patience.
    pub(super) fn ended(&self, idle: &IdleSince, now: Mono) {
        if let Some(since) = idle.get() {
            let after = u64::try_from((now - since).as_nanos()).unwrap_or(u64::MAX);
            self.shortest_close.0.fetch_min(after, Ordering::AcqRel);
        }
    }

    fn careful_limit(&self) -> Duration {
        Duration::from_nanos(self.shortest_close.0.load(Ordering::Acquire) / 2).min(MAX_IDLE_TIME)
    }
}
