//! The memory store at the other end of a wire that can be cut.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tidegate::share::{BankKey, HolderId, MemoryStore, Store, StoreError};
use tidegate_core::share::{Exchange, LimitView, Reply};
use tidegate_quota::{About, Kept, Lock, Name};
use tokio::time::{Instant, sleep};

#[derive(Debug)]
pub(crate) struct Wired {
    pub(crate) memory: MemoryStore,
    pub(crate) one_way: Duration,
    /// Nothing gets through.
    pub(crate) cut: AtomicBool,
    /// Somebody has to change something.
    pub(crate) unusable: AtomicBool,
    /// Holders up to this one are dead: nothing of them gets through.
    pub(crate) dead: AtomicU64,
    pub(crate) exchanges: AtomicU64,
}

impl Wired {
    pub(crate) fn new(one_way: Duration) -> Self {
        let origin = Instant::now();
        let clock = move || 1_700_000_000_000 + u64::try_from(origin.elapsed().as_millis()).unwrap();
        Self {
            memory: MemoryStore::at(clock),
            one_way,
            cut: AtomicBool::new(false),
            unusable: AtomicBool::new(false),
            dead: AtomicU64::new(0),
            exchanges: AtomicU64::new(0),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }
}

impl Store for Wired {
    fn exchange<'a>(&'a self, bank: BankKey, said: &'a Exchange) -> BoxFuture<'a, Result<Reply, StoreError>> {
        async move {
            sleep(self.one_way).await;
            if self.unusable.load(Ordering::Relaxed) {
                let (store, why, hint) =
                    ("wired".to_owned(), "no permission".to_owned(), "allow it".to_owned());
                return Err(StoreError::Unusable { store, why, hint });
            }
            if self.cut.load(Ordering::Relaxed) || said.holder.0 <= self.dead.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            self.exchanges.fetch_add(1, Ordering::Relaxed);
            let reply = self.memory.exchange(bank, said).await;
            sleep(self.one_way).await;
            reply
        }
        .boxed()
    }

    fn lock<'a>(
        &'a self,
        name: &'a Name,
        who: HolderId,
        life: Duration,
    ) -> BoxFuture<'a, Result<Lock, StoreError>> {
        self.memory.lock(name, who, life)
    }

    fn put<'a>(
        &'a self,
        name: &'a Name,
        fence: u64,
        bytes: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.memory.put(name, fence, bytes, life)
    }

    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Kept>, StoreError>> {
        self.memory.get(name)
    }

    fn unlock<'a>(&'a self, name: &'a Name, fence: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.memory.unlock(name, fence)
    }

    fn view(&self, bank: BankKey) -> BoxFuture<'_, Result<Vec<LimitView>, StoreError>> {
        self.memory.view(bank)
    }

    fn check(&self) -> BoxFuture<'_, Result<About, StoreError>> {
        self.memory.check()
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(50)
    }
}
