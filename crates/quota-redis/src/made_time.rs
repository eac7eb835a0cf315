//! The suite of `tidegate-quota` in time that the test makes: windows that pass, holders that fall silent and states that
//! expire are reached within a second, and clocks are set back. The scripts are the same but for where they read the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tidegate_core::share::At;
use tidegate_quota::conformance::{Clock, Depth, Met, Subject, check};

use crate::server::Server;
use crate::{RedisConfig, RedisStore};

struct Made {
    store: RedisStore,
    clock: AtomicU64,
    connection: MultiplexedConnection,
}

impl Made {
    async fn new(server: &Server) -> Self {
        let config = RedisConfig { timeout: Duration::from_secs(5), ..RedisConfig::new(server.url()) };
        let client = redis::Client::open(server.url()).unwrap();
        // As patient as the store: a loaded machine is no difference.
        let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(5)));
        // The server ends keys in its own time, which must stay behind.
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_hours(1);
        Self {
            store: RedisStore::new(config).unwrap().in_made_time(),
            clock: AtomicU64::new(u64::try_from(real.as_millis()).unwrap()),
            connection: client.get_multiplexed_async_connection_with_config(&patient).await.unwrap(),
        }
    }

    async fn set(&self) {
        let now = self.clock.load(Ordering::Relaxed);
        let mut connection = self.connection.clone();
        redis::cmd("SET").arg("now").arg(now).exec_async(&mut connection).await.unwrap();
    }
}

impl Subject for Made {
    type Store = RedisStore;

    const CLOCK: Clock = Clock::Made;

    fn store(&self) -> &RedisStore {
        &self.store
    }

    async fn now(&self) -> At {
        self.clock.load(Ordering::Relaxed)
    }

    async fn pass(&self, time: Duration) {
        self.clock.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
        self.set().await;
    }

    async fn set_back(&self, time: Duration) {
        self.clock.fetch_sub(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
        self.set().await;
    }

    async fn empty(&self) {
        redis::cmd("FLUSHALL").exec_async(&mut self.connection.clone()).await.unwrap();
        self.set().await;
    }
}

/// So many histories, unless `TIDEGATE_TEST_RUNS` asks for more.
async fn conforms(seed: u64, wait: Duration, usual: u32) -> Met {
    let server = Server::start(&[]);
    let asked = std::env::var("TIDEGATE_TEST_RUNS").map(|text| text.parse().expect("a number of runs"));
    let runs = asked.unwrap_or(usual).max(usual);
    check(&Made::new(&server).await, Depth { seed, runs, steps: 400, wait }).await
}

#[tokio::test]
async fn histories_of_milliseconds_are_answered_as_the_ledger_does() {
    conforms(1, Duration::from_millis(800), 8).await;
}

#[tokio::test]
async fn histories_of_windows_are_answered_as_the_ledger_does() {
    conforms(2, Duration::from_secs(15), 8).await;
}

/// Twice, side by side: so many histories take a while.
async fn silence(seed: u64) {
    let met = conforms(seed, Duration::from_secs(150), 20).await;
    assert!(met.least() >= 5, "{met:?}");
}

#[tokio::test]
async fn histories_of_silence_are_answered_as_the_ledger_does() {
    silence(3).await;
}

#[tokio::test]
async fn other_histories_of_silence_are_answered_as_the_ledger_does() {
    silence(4).await;
}
