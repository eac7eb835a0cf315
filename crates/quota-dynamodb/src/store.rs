//! The store: each operation is a change of one item.

use std::time::Duration;

use aws_config::SdkConfig;
use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tidegate_core::share::{BankKey, Exchange, HolderId, Ledger, LimitView, Reply};
use tidegate_quota::{About, Kept, Lock, Name, Slot, Store, StoreError};
use tokio::time::Instant;

use crate::change::{Act, Items};
use crate::config::DynamoConfig;
use crate::fault::Fault;
use crate::item;
use crate::table::{self, Ends, Failed};
use crate::wire::Until;

/// A store in a DynamoDB table.
#[derive(Debug)]
pub struct DynamoStore {
    name: String,
    items: Items,
    /// A table that fits, as it was last described, and when.
    described: Mutex<Option<(Instant, Ends)>>,
}

/// A check looks at three things, and the first of them may need a connection and credentials.
const CHECK: Duration = Duration::from_millis(1_500);

/// A table that was found to fit is not described anew for so long. Descriptions are few per second and account
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html>: requests of the control plane), and a
/// fleet's dashboards ask each gateway for its state every few seconds. A table that is gone or does not answer shows at once
/// all the same, because an item is read each time.
const DESCRIBED: Duration = Duration::from_secs(30);

impl DynamoStore {
    /// A store that connects when it is first asked.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] where the configuration is wrong; nothing is asked of DynamoDB yet.
    pub fn new(config: DynamoConfig) -> Result<Self, StoreError> {
        config.check_prefix()?;
        Ok(Self::of(Items::new(config, None)))
    }

    /// The same with an AWS configuration of the caller's own, where the usual chain does not find what it should: other
    /// credentials, another TLS client. Region and endpoint of `config` go before those in `aws`; retries and time-outs are
    /// the store's.
    ///
    /// # Errors
    /// As [`DynamoStore::new`].
    pub fn with_aws(config: DynamoConfig, aws: SdkConfig) -> Result<Self, StoreError> {
        config.check_prefix()?;
        Ok(Self::of(Items::new(config, Some(aws))))
    }

    /// Makes the table if it is missing and switches its time to live on; says what was done, one sentence for each step.
    /// What is there already is left alone. With `dry_run` nothing is changed.
    ///
    /// # Errors
    /// [`StoreError`]; a table with another key is refused.
    pub async fn init(&self, dry_run: bool) -> Result<Vec<String>, StoreError> {
        let steps = table::init(&self.items.wire, &self.items.config.table, dry_run).await;
        steps.map_err(|failed| self.told(failed))
    }

    pub(crate) fn of(items: Items) -> Self {
        Self { name: items.config.name(), items, described: Mutex::default() }
    }

    fn told(&self, (fault, retry_after): Failed) -> StoreError {
        fault.told(&self.name, retry_after)
    }

    async fn exchange_now(&self, bank: BankKey, said: &Exchange) -> Result<Reply, StoreError> {
        let id = item::of_bank(&self.items.config.prefix, bank);
        self.items
            .change(&id, |ledger: Option<Ledger>, time| {
                // DynamoDB deletes what has ended within days, not at once.
                let ledger = ledger.filter(|ledger| ledger.expires() > time.now);
                let mut ledger = ledger.unwrap_or_else(|| Ledger::new(time.now, said.salt));
                let reply = if time.doubt == 0 {
                    ledger.exchange(time.now, said)?
                } else {
                    // Another process's idea of the time may differ by so much.
                    let said = Exchange { slack: said.slack.saturating_add(time.doubt), ..said.clone() };
                    ledger.exchange(time.now, &said)?
                };
                let expires = ledger.expires();
                Ok(Act::Write(ledger, expires, reply))
            })
            .await
    }

    async fn view_now(&self, bank: BankKey) -> Result<Vec<LimitView>, StoreError> {
        let id = item::of_bank(&self.items.config.prefix, bank);
        let viewed = async {
            let Some(seen) = self.items.read(&id, Until::after(CHECK)).await? else {
                return Ok(Vec::new());
            };
            let time = self.items.time(&id, Some(&seen))?;
            let ledger: Ledger = seen.state().map_err(|strange| (Fault::of_item(&id, strange), None))?;
            Ok(if ledger.expires() > time.now { ledger.view(time.now) } else { Vec::new() })
        };
        match viewed.await {
            Ok(limits) => Ok(limits),
            Err(failed) => Err(self.items.told(failed).await),
        }
    }

    /// Changes the lock and the value of a name.
    async fn slot<R>(
        &self,
        name: &Name,
        mut act: impl FnMut(&mut Slot, u64) -> (bool, R),
    ) -> Result<R, StoreError> {
        let id = item::of_slot(&self.items.config.prefix, name);
        self.items
            .change(&id, |slot: Option<Slot>, time| {
                let mut slot = slot.filter(|slot| slot.expires() > time.now).unwrap_or_default();
                let (changed, answer) = act(&mut slot, time.now);
                let expires = slot.expires();
                Ok(if changed { Act::Write(slot, expires, answer) } else { Act::Leave(answer) })
            })
            .await
    }

    async fn get_now(&self, name: &Name) -> Result<Option<Kept>, StoreError> {
        let id = item::of_slot(&self.items.config.prefix, name);
        let read = async {
            let Some(seen) = self.items.read(&id, Until::after(self.items.config.timeout)).await? else {
                return Ok(None);
            };
            let time = self.items.time(&id, Some(&seen))?;
            let slot: Slot = seen.state().map_err(|strange| (Fault::of_item(&id, strange), None))?;
            Ok(slot.get(time.now))
        };
        match read.await {
            Ok(kept) => Ok(kept),
            Err(failed) => Err(self.items.told(failed).await),
        }
    }

    /// Whether items end by themselves, in a table that fits.
    async fn described(&self, until: Until) -> Result<Ends, Failed> {
        let known = self.described.lock().clone();
        if let Some((_, ends)) = known.filter(|(at, _)| at.elapsed() < DESCRIBED) {
            return Ok(ends);
        }
        let (wire, table) = (&self.items.wire, &self.items.config.table);
        table::look(wire, table, until).await?.fits().map_err(|fault| (fault, None))?;
        let ends = table::ends(wire, table, until).await?;
        *self.described.lock() = Some((Instant::now(), ends.clone()));
        Ok(ends)
    }

    async fn check_now(&self) -> Result<About, StoreError> {
        let until = Until::after(CHECK);
        let looked = async {
            let ends = self.described(until).await?;
            // Permissions and the answer's date: an item like any other, which nobody writes.
            let id = item::of_bank(&self.items.config.prefix, BankKey::of("tidegate", "check"));
            let seen = self.items.read(&id, until).await?;
            self.items.time(&id, seen.as_ref())?;
            Ok(ends)
        };
        let ends = looked.await.map_err(|failed| self.told(failed))?;
        let off = match ends {
            Ends::Yes | Ends::Unknown => None,
            Ends::No => {
                Some("whose time to live is off, so nothing in it ends (`tidegate quota init`)".to_owned())
            }
            Ends::By(other) => {
                Some(format!("whose time to live is by `{other}`, so nothing of ours in it ends"))
            }
        };
        let parts = [Some(self.name.clone()), off, self.items.wire.wrong_clock()];
        let what = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        Ok(About { what, protocol: None })
    }
}

impl Store for DynamoStore {
    fn exchange<'a>(&'a self, bank: BankKey, said: &'a Exchange) -> BoxFuture<'a, Result<Reply, StoreError>> {
        self.exchange_now(bank, said).boxed()
    }

    fn lock<'a>(
        &'a self,
        name: &'a Name,
        who: HolderId,
        life: Duration,
    ) -> BoxFuture<'a, Result<Lock, StoreError>> {
        self.slot(name, move |slot, now| {
            let lock = slot.lock(now, who, life);
            (matches!(lock, Lock::Yours { .. }), lock)
        })
        .boxed()
    }

    fn put<'a>(
        &'a self,
        name: &'a Name,
        fence: u64,
        bytes: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.slot(name, move |slot, now| {
            let put = slot.put(now, fence, bytes, life);
            (put, put)
        })
        .boxed()
    }

    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Kept>, StoreError>> {
        self.get_now(name).boxed()
    }

    fn unlock<'a>(&'a self, name: &'a Name, fence: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.slot(name, move |slot, _| (slot.unlock(fence), ())).boxed()
    }

    fn view(&self, bank: BankKey) -> BoxFuture<'_, Result<Vec<LimitView>, StoreError>> {
        self.view_now(bank).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<About, StoreError>> {
        self.check_now().boxed()
    }

    fn patience(&self) -> Duration {
        self.items.config.timeout
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::share::{Ended, Kind, LimitKey, LimitSide, PROTOCOL, Refill, Sight, Terms, Want};

    use super::*;
    use crate::item::{LARGEST, Seen, Strange};

    const START: u64 = 1_700_000_000_000;

    fn side(limit: u64, told: u64) -> LimitSide {
        let kind = Kind::Rate { quota: 3_000, window: 60_000, told: true };
        LimitSide {
            key: LimitKey(limit.to_be_bytes()),
            name: format!("resource family {limit}"),
            partition: format!("credential=client 5f1c2d3e family=/api/v2/{limit}"),
            terms: Terms { kind, rule: Refill::Step, proven: false, pinned: false, assumed: false },
            generation: 0,
            unspent: 2,
            in_flight: 3,
            told,
            told_unseen: 0,
            ended: vec![Ended { age: 40, all: told + 5, unseen: 0 }],
            seen: Some(Sight {
                latest_sent: 60,
                left: vec![(40, 900)],
                ends: Some((9_000, 9_500)),
                scout_in: None,
            }),
            refused: None,
            scouted: None,
            recall: None,
        }
    }

    /// Bytes of the item of a busy bank: each process has spoken of each limit for a window.
    fn size(processes: u64, limits: u64) -> Result<usize, Strange> {
        let mut rng = fastrand::Rng::with_seed(1);
        let holders: Vec<HolderId> = (0..processes).map(|_| HolderId(rng.u64(..))).collect();
        let mut ledger = Ledger::new(START, rng.u64(..));
        let turns = (64 / processes).max(2);
        for turn in 0..turns {
            for (place, &holder) in (0_u64..).zip(&holders) {
                // An exchange speaks of so many at most.
                let all: Vec<u64> = (0..limits).collect();
                for (part, limits) in (1_u64..).zip(all.chunks(Exchange::MAX_LIMITS)) {
                    let want = Want {
                        limits: vec![0],
                        now: [3, 0, 0, 0],
                        soon: [0; 4],
                        leave: [0; 4],
                        fair: [false; 4],
                    };
                    let said = Exchange {
                        protocol: PROTOCOL,
                        holder,
                        seq: 1_000 * turn + part,
                        incarnation: None,
                        salt: 0,
                        slack: 12,
                        heard: None,
                        answered: 0,
                        limits: limits.iter().map(|&limit| side(limit, 5 * turn)).collect(),
                        asks: vec![want],
                        doors: Vec::new(),
                        leaves: false,
                    };
                    let now =
                        START + 60_000 * (turn * processes + place) / (turns * processes) + rng.u64(0..100);
                    ledger.exchange(now, &said).unwrap();
                }
            }
        }
        let attributes =
            Seen::next(None, START, &ledger)?.attributes("tidegate:b:0123456789abcdef01234567", START);
        Ok(attributes.iter().map(|(name, value)| name.len() + bytes(value)).sum())
    }

    fn bytes(value: &aws_sdk_dynamodb::types::AttributeValue) -> usize {
        use aws_sdk_dynamodb::types::AttributeValue::{B, N, S};
        match value {
            B(bytes) => bytes.as_ref().len(),
            N(text) | S(text) => text.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_item_holds_a_thousand_processes() {
        for (processes, limits) in
            [(1, 1), (8, 1), (32, 1), (100, 1), (1_000, 1), (8, 8), (32, 8), (100, 8), (8, 100)]
        {
            let size = size(processes, limits).unwrap();
            assert!(size < LARGEST, "{processes} processes, {limits} limits: {size} bytes");
        }
    }
}
