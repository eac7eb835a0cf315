//! Idle connections, kept for the next attempt.
//!
//! A reused connection may have been closed by the upstream a moment ago, and then a write on it ends in doubt. So
//! the pool remembers the shortest time after which an idle connection was closed by the other side, and lends
//! writes only connections that have been idle for less than half of it. The memory lasts ten to twenty minutes:
//! a restart of the upstream closes young connections too, and must not cost every later write a handshake.
//!
//! Newest first, so that a falling load lets the oldest connections end.
//!
//! Pools of several transports can lie in one [`Store`], so that what a process holds is bounded however many there are. A
//! connection is lent only to the transport that opened it. Where there are too many, the fullest pool gives up its oldest;
//! and those that are too old to be used end whenever any of the pools is used, so that one which nobody uses costs nothing.

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
pub(super) const MAX_IDLE_TIME: Duration = Duration::from_secs(50);

/// Half of how long an observed close is remembered at most.
const MEMORY: Duration = Duration::from_mins(10);

/// Idle connections kept by all pools of a store.
const MAX_ALL: usize = 1024;

/// Too old connections of all pools are looked for so often at most.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// One origin's idle connections, newest last.
type Shelf = Vec<(Connection, Arc<IdleSince>)>;

/// Where the idle connections of several pools lie.
#[derive(Debug)]
pub(super) struct Store {
    idle: Mutex<Idle>,
    pools: AtomicU64,
    /// Connections that may lie in it.
    max: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self { idle: Mutex::default(), pools: AtomicU64::default(), max: MAX_ALL }
    }
}

#[derive(Debug, Default)]
struct Idle {
    /// By the pool's number.
    shelves: HashMap<u64, HashMap<Origin, Shelf>>,
    count: usize,
    swept: Mono,
}

impl Idle {
    /// Ends what cannot be used any more.
    fn sweep(&mut self, now: Mono) {
        self.swept = now;
        self.shelves.retain(|_, origins| {
            origins.retain(|_, shelf| {
                shelf.retain(|(connection, idle)| {
                    !connection.is_closed() && idle.get().is_none_or(|since| now - since < MAX_IDLE_TIME)
                });
                !shelf.is_empty()
            });
            !origins.is_empty()
        });
        self.count = self.shelves.values().flat_map(HashMap::values).map(Vec::len).sum();
    }

    /// Ends the oldest connection of the fullest shelf: who holds most gives way.
    fn drop_one(&mut self) {
        let shelves = self.shelves.values_mut().flat_map(HashMap::values_mut);
        if let Some(fullest) = shelves.max_by_key(|shelf| shelf.len()).filter(|shelf| !shelf.is_empty()) {
            fullest.remove(0);
            self.count -= 1;
        }
    }
}

/// Since when a connection is idle; zero while it is in use.
#[derive(Debug, Default)]
pub(super) struct IdleSince(AtomicU64);

impl IdleSince {
    pub(super) fn set(&self, now: Mono) {
        self.0.store(now.as_nanos().max(1), Ordering::Release);
    }

    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }

    pub(super) fn get(&self) -> Option<Mono> {
        Some(self.0.load(Ordering::Acquire)).filter(|nanos| *nanos > 0).map(Mono::from_nanos)
    }
}

/// The pool of one transport.
#[derive(Debug)]
pub(super) struct Pool {
    store: Arc<Store>,
    number: u64,
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
    /// A pool in `store`.
    pub(super) fn new(store: &Arc<Store>) -> Self {
        let number = store.pools.fetch_add(1, Ordering::Relaxed);
        Self { store: Arc::clone(store), number, patience: Mutex::default() }
    }

    /// For less than how long a connection may have been idle that a `careful` caller uses.
    pub(super) fn careful_limit(&self, now: Mono) -> Duration {
        self.patience.lock().careful_limit(now)
    }

    /// Takes an idle connection to `origin`. A `careful` caller gets only one that is surely still open.
    pub(super) fn take(
        &self,
        origin: &Origin,
        now: Mono,
        careful: bool,
    ) -> Option<(Connection, Arc<IdleSince>)> {
        let limit = if careful { self.careful_limit(now) } else { MAX_IDLE_TIME };
        let mut all = self.store.idle.lock();
        let Idle { shelves, count, .. } = &mut *all;
        let idlers = shelves.get_mut(&self.number)?.get_mut(origin)?;
        while let Some((connection, idle)) = idlers.pop() {
            *count -= 1;
            if connection.is_closed() {
                continue;
            }
            let since = idle.get().unwrap_or(Mono::ZERO);
            if now - since >= MAX_IDLE_TIME {
                // The rest is older still.
                *count -= idlers.len();
                idlers.clear();
                return None;
            }
            if now - since >= limit {
                idlers.push((connection, idle));
                *count += 1;
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
        let mut all = self.store.idle.lock();
        if now - all.swept >= SWEEP_EVERY {
            all.sweep(now);
        }
        let held = |all: &Idle| all.shelves.get(&self.number)?.get(origin).map(Vec::len);
        if held(&all).is_some_and(|held| held >= MAX_IDLE) {
            all.sweep(now);
            if held(&all).is_some_and(|held| held >= MAX_IDLE) {
                return;
            }
        }
        if all.count >= self.store.max {
            all.drop_one();
        }
        let origins = all.shelves.entry(self.number).or_default();
        if !origins.contains_key(origin) {
            origins.insert(origin.clone(), Shelf::new());
        }
        let Some(idlers) = origins.get_mut(origin) else { return };
        idle.set(now);
        idlers.push((connection, idle));
        all.count += 1;
    }

    /// Notes that a connection ended; only one that was idle says something about the other side's patience.
    pub(super) fn ended(&self, idle: &IdleSince, now: Mono) {
        if let Some(since) = idle.get() {
            self.patience.lock().closed_after(now, now - since);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut all = self.store.idle.lock();
        let shelves = all.shelves.remove(&self.number).unwrap_or_default();
        all.count -= shelves.values().map(Vec::len).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::super::connect::{Opened, Speak};
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

    /// A server that holds its connections, and as many connections to it as are asked for.
    async fn opened(count: usize) -> (Origin, Vec<Connection>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let (origin, _) = Origin::of(uri).unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        let connector = super::super::connect::Connector::new(Duration::from_secs(5));
        let mut connections = Vec::new();
        for _ in 0..count {
            let (clock, idle) = (crate::clock::Clock::start(), Arc::default());
            let opened = connector.connect(&origin, Speak::Http1, (clock, &idle), || ()).await.unwrap();
            let Opened::One(connection) = opened else { panic!("{opened:?}") };
            connections.push(connection);
        }
        (origin, connections)
    }

    fn held(pool: &Pool) -> usize {
        let all = pool.store.idle.lock();
        all.shelves.get(&pool.number).map_or(0, |origins| origins.values().map(Vec::len).sum())
    }

    #[tokio::test]
    async fn pools_of_one_store_are_bounded_together_and_lend_nothing_to_each_other() {
        let (origin, connections) = opened(7).await;
        let store = Arc::new(Store { max: 4, ..Store::default() });
        let [greedy, modest] = [(); 2].map(|()| Pool::new(&store));
        let put = |pool: &Pool, now, connection| pool.put(&origin, now, connection, Arc::default());
        let mut connections = connections.into_iter();
        connections.by_ref().take(4).for_each(|connection| put(&greedy, at(1), connection));
        assert!(modest.take(&origin, at(1), false).is_none(), "what another opened");
        put(&modest, at(2), connections.next().unwrap());
        assert_eq!((held(&greedy), held(&modest)), (3, 1), "the fullest gave way");
        assert!(modest.take(&origin, at(2), false).is_some());
        put(&modest, at(60), connections.next().unwrap());
        assert_eq!((held(&greedy), held(&modest)), (0, 1), "what nobody uses any more has ended");
        drop(modest);
        assert_eq!(store.idle.lock().count, 0);
        put(&greedy, at(61), connections.next().unwrap());
        assert_eq!(store.idle.lock().count, 1);
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
