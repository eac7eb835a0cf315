//! What is asked of the store beside exchanges: how many share the quota, and what tokens need.
//!
//! These questions may wait longer than an exchange, because no permit hangs on them: a store whose connection is just
//! being made is asked again for a second.

use std::time::Duration;

use tidegate_core::share::{BankKey, Exchange, LimitView, PROTOCOL};
use tidegate_quota::{About, Store, StoreError};
use tokio::time::{Instant, sleep};

use super::SharedQuota;
use crate::clock::Clock;

/// For so long a store that is away is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// After so long.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the store answers, or was away for a second.
pub(crate) async fn ask<T, F>(question: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        match question().await {
            Err(StoreError::Away { retry_after, .. }) if Instant::now() < end => {
                sleep(retry_after.unwrap_or(PAUSE).clamp(PAUSE, PATIENCE)).await;
            }
            answer => return answer,
        }
    }
}

/// A store whose answer did not come within `patience`.
pub(crate) fn late(store: &dyn Store, patience: Duration) -> StoreError {
    StoreError::Away {
        store: store.name().to_owned(),
        why: format!("no answer within {} ms", patience.as_millis()),
        retry_after: None,
    }
}

impl SharedQuota {
    /// Looks at the store for no longer than `patience`: whether all that is needed is there, and what is kept of a bank. Nothing is
    /// changed. What another program or another version left under the keys of this bank is found here, and in no other bank.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Away`] also where there was no answer in time.
    pub async fn look(
        &self,
        bank: BankKey,
        patience: Duration,
    ) -> Result<(About, Vec<LimitView>), StoreError> {
        let look = async { Ok((self.store.check().await?, self.store.view(bank).await?)) };
        let looked = tokio::time::timeout(patience, look).await;
        looked.unwrap_or_else(|_| Err(late(&*self.store, patience)))
    }

    /// What is kept of a bank, for people, by reading alone: a server that takes no writes, as a replica or one whose memory is full,
    /// tells it too. What is wrong is told as by [`SharedQuota::look`], which tries more.
    ///
    /// # Errors
    /// [`StoreError`], as there.
    pub async fn read(&self, bank: BankKey, patience: Duration) -> Result<Vec<LimitView>, StoreError> {
        let read = tokio::time::timeout(patience, self.store.view(bank)).await;
        match read.unwrap_or_else(|_| Err(late(&*self.store, patience))) {
            Ok(limits) => Ok(limits),
            Err(error @ StoreError::Unanswered(_)) => Err(error),
            Err(error) => match self.look(bank, patience).await {
                Ok((_, limits)) => Ok(limits),
                Err(StoreError::Away { .. }) => Err(error),
                Err(better) => Err(better),
            },
        }
    }

    /// Makes this process known to those that share a bank, and brings their number, this one included. Nothing is said
    /// of any limit and no permit is asked for: it is for those who want to know how many there are before their first
    /// call. An exchange that has the number zero comes before all others of its holder.
    ///
    /// # Errors
    /// [`StoreError`]; a store that is away was asked for a second.
    pub async fn hello(&self, bank: BankKey) -> Result<u32, StoreError> {
        let said = Exchange {
            protocol: PROTOCOL,
            holder: self.config.holder,
            seq: 0,
            incarnation: None,
            salt: Clock::start().seed(),
            slack: 0,
            heard: None,
            answered: 0,
            limits: Vec::new(),
            asks: Vec::new(),
            doors: Vec::new(),
            leaves: false,
        };
        ask(|| self.store.exchange(bank, &said)).await.map(|reply| reply.holders)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_core::share::{HolderId, OnStoreLoss, ShareConfig};
    use tidegate_quota::MemoryStore;

    use super::*;

    fn process(store: &Arc<MemoryStore>, holder: u64) -> SharedQuota {
        let config = ShareConfig {
            holder: HolderId(holder),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 8,
            tokens_shared: false,
        };
        SharedQuota { store: Arc::clone(store) as Arc<dyn Store>, config, token_key: None }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_hello_is_counted_by_those_who_come_later() {
        let store = Arc::new(MemoryStore::at(|| 1_000));
        let bank = BankKey::of("http://api", "acme");
        assert_eq!(process(&store, 1).hello(bank).await, Ok(1));
        assert_eq!(process(&store, 2).hello(bank).await, Ok(2));
        assert_eq!(process(&store, 2).hello(bank).await, Ok(2), "said twice it counts once");
        assert_eq!(process(&store, 3).hello(BankKey::of("http://api", "other")).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_asked_for_a_second_and_one_that_refuses_once() {
        let away = StoreError::Away { store: "s".to_owned(), why: "gone".to_owned(), retry_after: None };
        let bad = StoreError::Unusable { store: "s".to_owned(), why: "no".to_owned(), hint: "h".to_owned() };
        for (error, seconds) in [(away, 1), (bad, 0)] {
            let began = Instant::now();
            let asked = std::sync::atomic::AtomicU32::new(0);
            let answer: Result<(), _> = ask(|| {
                asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                std::future::ready(Err(error.clone()))
            })
            .await;
            assert_eq!(answer, Err(error.clone()));
            assert_eq!(began.elapsed().as_secs(), seconds);
            assert_eq!(asked.into_inner(), 1 + 20 * u32::try_from(seconds).unwrap());
        }
    }
}
