//! The store in this process's memory: the ledger itself behind a lock.
//!
//! For parts of one program that pace one quota, for tests, and for worlds in virtual time. It is also what every other
//! store is compared with.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;
use tidegate_core::share::{At, BankKey, Exchange, HolderId, Ledger, LimitView, PROTOCOL, Reply};

use crate::error::StoreError;
use crate::slot::Slot;
use crate::store::{About, Kept, Lock, Name, Store};

/// A store in this process's memory.
pub struct MemoryStore {
    clock: Box<dyn Fn() -> At + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    banks: BTreeMap<BankKey, Ledger>,
    slots: BTreeMap<Name, Slot>,
}

impl MemoryStore {
    /// An empty store whose time is `clock`, in milliseconds.
    pub fn at(clock: impl Fn() -> At + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), state: Mutex::default() }
    }

    /// Forgets everything, as a store that is started again without its data.
    pub fn forget(&self) {
        *self.state.lock() = State::default();
    }

    fn exchange_now(&self, bank: BankKey, said: &Exchange) -> Result<Reply, StoreError> {
        let now = (self.clock)();
        let mut state = self.state.lock();
        // What nobody needs any more is gone: the stores that expire their keys behave alike.
        if state.banks.get(&bank).is_some_and(|ledger| ledger.expires() <= now) {
            state.banks.remove(&bank);
        }
        let ledger = state.banks.entry(bank).or_insert_with(|| Ledger::new(now, said.salt));
        Ok(ledger.exchange(now, said)?)
    }

    fn lock_now(&self, name: &Name, who: HolderId, life: Duration) -> Lock {
        let now = (self.clock)();
        let mut state = self.state.lock();
        state.slots.entry(name.clone()).or_default().lock(now, who, life)
    }

    fn put_now(&self, name: &Name, fence: u64, bytes: &[u8], life: Duration) -> bool {
        let now = (self.clock)();
        self.state.lock().slots.get_mut(name).is_some_and(|slot| slot.put(now, fence, bytes, life))
    }

    fn get_now(&self, name: &Name) -> Option<Kept> {
        let now = (self.clock)();
        self.state.lock().slots.get(name).and_then(|slot| slot.get(now))
    }

    fn unlock_now(&self, name: &Name, fence: u64) {
        if let Some(slot) = self.state.lock().slots.get_mut(name) {
            slot.unlock(fence);
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn exchange<'a>(&'a self, bank: BankKey, said: &'a Exchange) -> BoxFuture<'a, Result<Reply, StoreError>> {
        async move { self.exchange_now(bank, said) }.boxed()
    }

    fn lock<'a>(
        &'a self,
        name: &'a Name,
        who: HolderId,
        life: Duration,
    ) -> BoxFuture<'a, Result<Lock, StoreError>> {
        async move { Ok(self.lock_now(name, who, life)) }.boxed()
    }

    fn put<'a>(
        &'a self,
        name: &'a Name,
        fence: u64,
        bytes: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move { Ok(self.put_now(name, fence, bytes, life)) }.boxed()
    }

    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Kept>, StoreError>> {
        async move { Ok(self.get_now(name)) }.boxed()
    }

    fn unlock<'a>(&'a self, name: &'a Name, fence: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.unlock_now(name, fence);
            Ok(())
        }
        .boxed()
    }

    fn view(&self, bank: BankKey) -> BoxFuture<'_, Result<Vec<LimitView>, StoreError>> {
        async move {
            let now = (self.clock)();
            Ok(self.state.lock().banks.get(&bank).map(|ledger| ledger.view(now)).unwrap_or_default())
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<About, StoreError>> {
        ready(Ok(About { what: "this process's memory".to_owned(), protocol: Some(PROTOCOL) })).boxed()
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(50)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const LIFE: Duration = Duration::from_millis(100);

    fn store() -> (Arc<AtomicU64>, MemoryStore, Name) {
        let now = Arc::new(AtomicU64::new(1_000));
        let clock = Arc::clone(&now);
        let name = Name { bank: BankKey([1; 12]), what: "token/reporting".to_owned() };
        (now, MemoryStore::at(move || clock.load(Ordering::Relaxed)), name)
    }

    #[test]
    fn a_lock_that_ran_out_cannot_write() {
        let (now, store, name) = store();
        assert_eq!(store.lock_now(&name, HolderId(1), LIFE), Lock::Yours { fence: 1 });
        assert_eq!(
            store.lock_now(&name, HolderId(2), LIFE),
            Lock::Held { fence: 1, left: Duration::from_millis(100) }
        );
        now.store(1_100, Ordering::Relaxed);
        assert_eq!(store.lock_now(&name, HolderId(2), LIFE), Lock::Yours { fence: 2 });
        assert!(!store.put_now(&name, 1, b"late", LIFE));
        assert!(store.put_now(&name, 2, b"in time", LIFE));
        assert_eq!(store.get_now(&name).unwrap().bytes, b"in time");
    }

    #[test]
    fn fences_only_rise() {
        let (now, store, name) = store();
        let mut highest = 0;
        for step in 0..200_u64 {
            now.fetch_add(step % 70, Ordering::Relaxed);
            match store.lock_now(&name, HolderId(step % 5), LIFE) {
                Lock::Yours { fence } => {
                    assert!(fence >= highest);
                    highest = fence;
                    if step % 3 == 0 {
                        store.unlock_now(&name, fence);
                    }
                }
                Lock::Held { fence, .. } => assert_eq!(fence, highest),
            }
        }
        assert!(highest > 20);
    }

    #[test]
    fn asking_twice_for_a_lock_gives_the_same_fence() {
        let (_, store, name) = store();
        assert_eq!(store.lock_now(&name, HolderId(1), LIFE), Lock::Yours { fence: 1 });
        assert_eq!(store.lock_now(&name, HolderId(1), LIFE), Lock::Yours { fence: 1 });
    }

    #[test]
    fn a_value_ends_with_its_life() {
        let (now, store, name) = store();
        store.lock_now(&name, HolderId(1), LIFE);
        assert!(store.put_now(&name, 1, b"token", LIFE));
        now.store(1_099, Ordering::Relaxed);
        let kept = store.get_now(&name).unwrap();
        assert_eq!((kept.fence, kept.left), (1, Duration::from_millis(1)));
        now.store(1_100, Ordering::Relaxed);
        assert_eq!(store.get_now(&name), None);
    }

    #[test]
    fn a_value_is_never_shown() {
        let kept = Kept { fence: 1, bytes: b"secret".to_vec(), left: LIFE };
        assert!(!format!("{kept:?}").contains("115"), "not even as numbers");
    }
}
