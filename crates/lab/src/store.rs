//! The store of a fleet in virtual time: the store in memory, whose clock is the run's, and which is away at times.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tidegate_core::share::{BankKey, Exchange, Reply};
use tidegate_quota::{MemoryStore, Store, StoreError};

use crate::quota::{Quota, StoreOutage};

/// See the module.
pub(crate) struct FleetStore {
    memory: MemoryStore,
    /// Its clock, milliseconds.
    clock: Arc<AtomicU64>,
    bank: BankKey,
    outages: Vec<StoreOutage>,
    /// Outages that are over and done with.
    past: AtomicUsize,
}

/// The store's clock at the start of a run: none of an instance's clock.
const EPOCH: u64 = 1_700_000_000_000;

impl FleetStore {
    /// An empty store.
    pub(crate) fn new(quota: &Quota) -> Self {
        let clock = Arc::new(AtomicU64::new(EPOCH));
        let shown = Arc::clone(&clock);
        Self {
            memory: MemoryStore::at(move || shown.load(Ordering::Relaxed)),
            clock,
            bank: BankKey::of("https://api.sim.example", "lab"),
            outages: quota.outages.clone(),
            past: AtomicUsize::new(0),
        }
    }

    /// An exchange arrives; `None`: the store is away. `now` never decreases.
    pub(crate) fn exchange(&self, now: Duration, said: &Exchange) -> Option<Result<Reply, StoreError>> {
        if self.outages.iter().any(|outage| outage.from <= now && now < outage.to) {
            return None;
        }
        let past = self.outages.partition_point(|outage| outage.to <= now);
        let before = self.past.swap(past, Ordering::Relaxed);
        if self.outages[before..past].iter().any(|outage| !outage.keeps) {
            self.memory.forget();
        }
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - EPOCH);
        self.clock.store(EPOCH + millis, Ordering::Relaxed);
        let answer = self.memory.exchange(self.bank, said).now_or_never();
        Some(answer.expect("a store in memory waits for nothing"))
    }
}

impl fmt::Debug for FleetStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetStore").field("outages", &self.outages).finish_non_exhaustive()
    }
}
