//! The store in memory passes the suite, and the suite finds stores that do not.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tidegate_core::share::{BankKey, Exchange, HolderId, LimitView, Reply};
use tidegate_quota::conformance::{Clock, Depth, Subject, check};
use tidegate_quota::{About, Kept, Lock, MemoryStore, Name, Store, StoreError};

/// A store in memory with a made clock, and something wrong with its answers.
#[derive(Debug)]
struct Faulty {
    store: MemoryStore,
    wrong: fn(&mut Exchange, &mut Result<Reply, StoreError>),
    fence: u64,
}

struct Made<S> {
    store: S,
    clock: Arc<AtomicU64>,
}

fn memory() -> (MemoryStore, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
    let time = Arc::clone(&clock);
    (MemoryStore::at(move || time.load(Ordering::Relaxed)), clock)
}

trait Forget: Store {
    fn forget(&self);
}

impl Forget for MemoryStore {
    fn forget(&self) {
        Self::forget(self);
    }
}

impl Forget for Faulty {
    fn forget(&self) {
        self.store.forget();
    }
}

impl<S: Forget> Subject for Made<S> {
    type Store = S;

    const CLOCK: Clock = Clock::Made;

    fn store(&self) -> &S {
        &self.store
    }

    async fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    async fn pass(&self, time: Duration) {
        self.clock.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    async fn set_back(&self, time: Duration) {
        self.clock.fetch_sub(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    async fn empty(&self) {
        self.store.forget();
    }
}

impl Store for Faulty {
    fn exchange<'a>(&'a self, bank: BankKey, said: &'a Exchange) -> BoxFuture<'a, Result<Reply, StoreError>> {
        async move {
            let mut said = said.clone();
            (self.wrong)(
                &mut said,
                &mut Err(StoreError::Away { store: String::new(), why: String::new(), retry_after: None }),
            );
            let mut answer = self.store.exchange(bank, &said).await;
            (self.wrong)(&mut said, &mut answer);
            answer
        }
        .boxed()
    }

    fn lock<'a>(
        &'a self,
        name: &'a Name,
        who: HolderId,
        life: Duration,
    ) -> BoxFuture<'a, Result<Lock, StoreError>> {
        self.store.lock(name, who, life)
    }

    fn put<'a>(
        &'a self,
        name: &'a Name,
        fence: u64,
        bytes: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.store.put(name, fence + self.fence, bytes, life)
    }

    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Kept>, StoreError>> {
        self.store.get(name)
    }

    fn unlock<'a>(&'a self, name: &'a Name, fence: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.store.unlock(name, fence)
    }

    fn view(&self, bank: BankKey) -> BoxFuture<'_, Result<Vec<LimitView>, StoreError>> {
        self.store.view(bank)
    }

    fn check(&self) -> BoxFuture<'_, Result<About, StoreError>> {
        self.store.check()
    }

    fn patience(&self) -> Duration {
        self.store.patience()
    }
}

const DEPTH: Depth = Depth { seed: 7, runs: 200, steps: 200, wait: Duration::from_secs(20) };

#[tokio::test]
async fn the_memory_store_is_the_model() {
    let (store, clock) = memory();
    check(&Made { store, clock }, DEPTH).await;
}

#[tokio::test]
async fn long_histories_meet_all_that_matters() {
    let (store, clock) = memory();
    let depth = Depth { seed: 1, runs: 40, steps: 400, wait: Duration::from_secs(150) };
    let met = check(&Made { store, clock }, depth).await;
    assert!(met.least() >= 10, "{met:?}");
}

/// The message of the panic with which the suite refuses a store.
async fn refused(wrong: fn(&mut Exchange, &mut Result<Reply, StoreError>), fence: u64) -> String {
    let (store, clock) = memory();
    let subject = Made { store: Faulty { store, wrong, fence }, clock };
    let tried = tokio::spawn(async move { check(&subject, Depth { runs: 20, ..DEPTH }).await }).await;
    let panic = tried.expect_err("the store is wrong").into_panic();
    panic
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
}

#[tokio::test]
async fn a_store_that_forgets_what_it_answered_is_found_by_a_short_history() {
    // What is said again gets a number of its own.
    let told = refused(|said, _| said.holder = HolderId(said.holder.0 ^ said.salt), 0).await;
    assert!(told.contains("the model"), "{told}");
    let told = refused(
        |_, answer| {
            if let Ok(reply) = answer {
                reply.limits.iter_mut().for_each(|limit| limit.pause /= 2);
            }
        },
        0,
    )
    .await;
    let steps: u32 = told.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(steps <= 3, "{told}");
}

#[tokio::test]
async fn a_store_that_takes_any_fence_is_found() {
    let told = refused(|_, _| {}, 1).await;
    assert!(told.contains("ran out") || told.contains("assertion"), "{told}");
}
