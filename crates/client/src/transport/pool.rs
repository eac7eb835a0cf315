//! Idle connections, kept for the next attempt.
//!
//! A reused connection may have been closed by the upstream a moment ago, and then a write on it ends in doubt. So
//! the pool remembers the shortest time after which an idle connection was closed by the other side, and lends
//! writes only connections that have been idle for less than half of it. The memory lasts ten to twenty minutes:
//! a restart of the upstream closes young connections too, and must not cost every later write a handshake.
//!
//! Newest first, so that a falling load lets the oldest connections end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_core::time::Mono;

use super::connect::Connection;
use super::origin::Origin;

/// Idle connections kept per origin. More would only be idle sockets at the upstream: the pool serves as many
/// attempts at once as are in flight, and keeps what a burst of this width needs again.
const MAX_IDLE: usize = 256;

/// An idle connection is not used after this time: below the 60 s that load balancers commonly allow.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);

/// Half of how long an observed close is remembered at most.
const MEMORY: Duration = Duration::from_mins(10);

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
    origins: Mutex<HashMap<Origin, Shelf>>,
    patience: Mutex<Patience>,
}

/// The shortest time after which the other side closed an idle connection, in this period and in the one before.
#[derive(Debug, Default)]
struct Patience {
    began: Mono,
    now: Option<Duration>,
    before: Option<Duration>,
}

impl Patience {
    fn turn(&mut self, now: Mono) {
        if now - self.began >= MEMORY {
            let recent = now - self.began < MEMORY * 2;
            self.before = self.now.take().filter(|_| recent);
            self.began = now;
        }
    }

    fn closed_after(&mut self, now: Mono, idle: Duration) {
        self.turn(now);
        self.now = Some(self.now.map_or(idle, |shortest| shortest.min(idle)));
    }

    fn careful_limit(&mut self, now: Mono) -> Duration {
        self.turn(now);
        let shortest = self.now.into_iter().chain(self.before).min();
        shortest.map_or(MAX_IDLE_TIME, |shortest| (shortest / 2).min(MAX_IDLE_TIME))
    }
}

impl Pool {
    /// Takes an idle connection to `origin`. A `careful` caller gets only one that is surely still open.
    pub(super) fn take(
        &self,
        origin: &Origin,
        now: Mono,
        careful: bool,
    ) -> Option<(Connection, Arc<IdleSince>)> {
        let limit = if careful { self.patience.lock().careful_limit(now) } else { MAX_IDLE_TIME };
        let mut origins = self.origins.lock();
        let idlers = origins.get_mut(origin)?;
        while let Some((connection, idle)) = idlers.pop() {
            if connection.is_closed() {
                continue;
            }
            let since = idle.get().unwrap_or(Mono::ZERO);
            if now - since >= MAX_IDLE_TIME {
                // The rest is older still.
                idlers.clear();
                return None;
            }
            if now - since >= limit {
                idlers.push((connection, idle));
                return None;
            }
            idle.clear();
            return Some((connection, idle));
        }
        None
    }

    /// Puts a connection back for later.
    pub(super) fn put(&self, origin: &Origin, now: Mono, connection: Connection, idle: Arc<IdleSince>) {
        if connection.is_closed() {
            return;
        }
        let mut origins = self.origins.lock();
        if !origins.contains_key(origin) {
            origins.insert(origin.clone(), Shelf::new());
        }
        let Some(idlers) = origins.get_mut(origin) else { return };
        if idlers.len() >= MAX_IDLE {
            idlers.retain(|(connection, idle)| {
                !connection.is_closed() && idle.get().is_none_or(|since| now - since < MAX_IDLE_TIME)
            });
        }
        if idlers.len() < MAX_IDLE {
            idle.set(now);
            idlers.push((connection, idle));
        }
    }

    /// Notes that a connection ended; only one that was idle says something about the other side's patience.
    pub(super) fn ended(&self, idle: &IdleSince, now: Mono) {
        if let Some(since) = idle.get() {
            self.patience.lock().closed_after(now, now - since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn writes_get_connections_idle_for_less_than_half_of_the_shortest_close() {
        let mut patience = Patience::default();
        assert_eq!(patience.careful_limit(at(0)), MAX_IDLE_TIME);
        patience.closed_after(at(1), Duration::from_secs(20));
        patience.closed_after(at(2), Duration::from_secs(30));
        assert_eq!(patience.careful_limit(at(3)), Duration::from_secs(10));
    }

    #[test]
    fn a_close_is_forgotten_after_two_periods_without_another() {
        let mut patience = Patience::default();
        patience.closed_after(at(1), Duration::from_millis(2));
        assert_eq!(patience.careful_limit(at(599)), Duration::from_millis(1));
        assert_eq!(patience.careful_limit(at(601)), Duration::from_millis(1), "the period before counts");
        assert_eq!(patience.careful_limit(at(1_202)), MAX_IDLE_TIME);
    }

    #[test]
    fn a_close_of_a_period_long_past_is_not_taken_for_the_period_before() {
        let mut patience = Patience::default();
        patience.closed_after(at(1), Duration::from_millis(2));
        assert_eq!(patience.careful_limit(at(5_000)), MAX_IDLE_TIME);
    }
}
