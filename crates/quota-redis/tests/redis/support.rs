//! What the tests say and ask.

use std::time::Duration;

use tidegate_core::share::{
    BankKey, Exchange, HolderId, Kind, LimitKey, LimitSide, PROTOCOL, Refill, Terms, Want,
};
use tidegate_quota::StoreError;
use tidegate_quota_redis::{RedisConfig, RedisStore};

use crate::server::Server;

pub(crate) const BANK: BankKey = BankKey([7; 12]);

/// A store for a server, patient enough for a busy machine.
pub(crate) fn store(server: &Server) -> RedisStore {
    with(RedisConfig::new(server.url()))
}

pub(crate) fn with(config: RedisConfig) -> RedisStore {
    RedisStore::new(RedisConfig { timeout: Duration::from_secs(2), ..config }).unwrap()
}

/// A connection to look with.
pub(crate) async fn look(server: &Server) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// One call waits for so many declared limits.
pub(crate) fn said(holder: u64, seq: u64, limits: u8) -> Exchange {
    let side = |limit: u8| LimitSide {
        key: LimitKey([limit; 8]),
        name: format!("limit {limit}"),
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
    let want = Want {
        limits: (0..limits).collect(),
        now: [3, 0, 0, 0],
        soon: [0; 4],
        leave: [0; 4],
        fair: [false; 4],
    };
    Exchange {
        protocol: PROTOCOL,
        holder: HolderId(holder),
        seq,
        incarnation: None,
        salt: 99,
        slack: 2,
        heard: None,
        answered: 0,
        limits: (0..limits).map(side).collect(),
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
