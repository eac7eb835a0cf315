//! What the tests say and ask.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use tidegate_core::share::{
    BankKey, Exchange, HolderId, Kind, LimitKey, LimitSide, PROTOCOL, Refill, Terms, Want,
};
use tidegate_quota::StoreError;
use tidegate_quota_dynamodb::{DynamoConfig, DynamoStore};

use crate::emulator::Emulator;

pub(crate) const BANK: BankKey = BankKey([7; 12]);
pub(crate) const TABLE: &str = "quota";

/// Credentials of nobody.
pub(crate) fn aws() -> SdkConfig {
    let nobody = Credentials::new("test", "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(nobody))
        .build()
}

/// A store on a table, patient enough for a busy machine.
pub(crate) fn store(emulator: &Emulator) -> DynamoStore {
    with(emulator, |config| config.timeout = Duration::from_secs(5))
}

pub(crate) fn with(emulator: &Emulator, change: impl FnOnce(&mut DynamoConfig)) -> DynamoStore {
    let mut config = DynamoConfig::parse(&emulator.url(TABLE)).unwrap();
    change(&mut config);
    DynamoStore::with_aws(config, aws()).unwrap()
}

/// An emulator with the table, and a store on it.
pub(crate) async fn begin() -> (Emulator, DynamoStore) {
    let emulator = Emulator::start();
    let store = store(&emulator);
    store.init(false).await.unwrap();
    (emulator, store)
}

/// A client to look with.
pub(crate) fn look(emulator: &Emulator) -> Client {
    Client::from_conf(
        aws_sdk_dynamodb::config::Builder::from(&aws()).endpoint_url(emulator.endpoint()).build(),
    )
}

/// The id of the bank's item.
pub(crate) fn id() -> String {
    format!("tidegate:b:{BANK}")
}

/// One call waits for a declared limit of 300 per minute.
pub(crate) fn said(holder: u64, seq: u64, wanted: u32) -> Exchange {
    let side = LimitSide {
        key: LimitKey([1; 8]),
        name: "users".to_owned(),
        partition: String::new(),
        terms: Terms {
            kind: Kind::Rate { quota: 300, window: 60_000, told: false },
            rule: Refill::Log,
            proven: false,
            pinned: false,
            assumed: false,
        },
        generation: 0,
        unspent: 0,
        in_flight: 0,
        told: 0,
        told_unseen: 0,
        ended: Vec::new(),
        seen: None,
        refused: None,
        scouted: None,
        recall: None,
    };
    let want =
        Want { limits: vec![0], now: [wanted, 0, 0, 0], soon: [0; 4], leave: [0; 4], fair: [false; 4] };
    Exchange {
        protocol: PROTOCOL,
        holder: HolderId(holder),
        seq,
        incarnation: None,
        salt: 99,
        slack: 2,
        heard: None,
        answered: 0,
        limits: vec![side],
        asks: vec![want],
        doors: Vec::new(),
        leaves: false,
    }
}

/// Why a store cannot be used, and what to do about it.
#[track_caller]
pub(crate) fn unusable<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> (String, String) {
    match answer {
        Err(StoreError::Unusable { why, hint, .. }) => (why, hint),
        other => panic!("{other:?} is usable"),
    }
}
