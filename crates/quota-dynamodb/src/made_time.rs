//! The suite of `tidegate-quota` against the emulator, in time that the test makes: windows that pass, holders that fall
//! silent and states that expire are reached within a second. Only the clock is another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use tidegate_core::share::At;
use tidegate_quota::Store;
use tidegate_quota::conformance::{Depth, Subject, check};

use crate::change::Items;
use crate::clock::Clock;
use crate::emulator::Emulator;
use crate::item::KEY;
use crate::wire::Wire;
use crate::{DynamoConfig, DynamoStore};

const TABLE: &str = "quota";

fn aws() -> SdkConfig {
    let nobody = Credentials::new("test", "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(nobody))
        .build()
}

fn store(emulator: &Emulator, change: impl FnOnce(Wire) -> Wire) -> DynamoStore {
    let mut config = DynamoConfig::parse(&emulator.url(TABLE)).unwrap();
    config.timeout = Duration::from_secs(10);
    let mut items = Items::new(config, Some(aws()));
    items.wire = change(items.wire);
    DynamoStore::of(items)
}

struct Made {
    store: DynamoStore,
    clock: Arc<AtomicU64>,
    client: Client,
}

impl Made {
    async fn new(emulator: &Emulator) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let clock = Arc::new(AtomicU64::new(u64::try_from(now.as_millis()).unwrap()));
        let store = store(emulator, |wire| wire.with_clock(Clock::made(Arc::clone(&clock))));
        store.init(false).await.unwrap();
        let client = aws_sdk_dynamodb::config::Builder::from(&aws()).endpoint_url(emulator.endpoint());
        Self { store, clock, client: Client::from_conf(client.build()) }
    }
}

impl Subject for Made {
    type Store = DynamoStore;

    fn store(&self) -> &DynamoStore {
        &self.store
    }

    async fn now(&self) -> At {
        self.clock.load(Ordering::Relaxed)
    }

    async fn pass(&self, time: Duration) {
        self.clock.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    async fn empty(&self) {
        let items = self.client.scan().table_name(TABLE).send().await.unwrap();
        for item in items.items() {
            let key = item[KEY].clone();
            self.client.delete_item().table_name(TABLE).key(KEY, key).send().await.unwrap();
        }
    }
}

async fn conforms(seed: u64, wait: Duration) {
    let emulator = Emulator::start();
    let runs = std::env::var("TIDEGATE_TEST_RUNS").map_or(2, |text| text.parse().expect("a number of runs"));
    check(&Made::new(&emulator).await, Depth { seed, runs, steps: 200, wait }).await;
}

#[tokio::test]
async fn histories_of_milliseconds_are_answered_as_the_ledger_does() {
    conforms(1, Duration::from_millis(800)).await;
}

#[tokio::test]
async fn histories_of_windows_are_answered_as_the_ledger_does() {
    conforms(2, Duration::from_secs(15)).await;
}

#[tokio::test]
async fn histories_of_silence_are_answered_as_the_ledger_does() {
    conforms(3, Duration::from_secs(150)).await;
}

#[tokio::test]
async fn a_machine_whose_clock_is_an_hour_behind_is_told_so_and_shares_all_the_same() {
    let emulator = Emulator::start();
    let good = store(&emulator, |wire| wire);
    good.init(false).await.unwrap();
    assert!(!good.check().await.unwrap().what.contains("clock"));
    let behind = || SystemTime::now().checked_sub(Duration::from_hours(1)).expect("there were hours before");
    let store = store(&emulator, |wire| wire.with_wall(behind));
    let told = store.check().await.unwrap().what;
    assert!(
        told.contains("this machine's clock is 60 min behind DynamoDB's") || told.contains("59 min behind"),
        "{told}"
    );
    let name = tidegate_quota::Name { bank: tidegate_core::share::BankKey([1; 12]), what: "a".to_owned() };
    let life = Duration::from_mins(1);
    for store in [&good, &store] {
        let lock = store.lock(&name, tidegate_core::share::HolderId(1), life).await.unwrap();
        assert_eq!(lock, tidegate_quota::Lock::Yours { fence: 1 }, "an hour has not passed for either");
    }
}
