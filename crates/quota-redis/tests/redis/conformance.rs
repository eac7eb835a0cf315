//! The suite of `tidegate-quota` in the server's own time. Longer times are tried beside the script, in time that is made.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tidegate_core::share::At;
use tidegate_quota::conformance::{Depth, Subject, check};
use tidegate_quota_redis::RedisStore;

use crate::server::Server;
use crate::support::{look, store};

struct Real {
    store: RedisStore,
    connection: MultiplexedConnection,
}

impl Subject for Real {
    type Store = RedisStore;

    fn store(&self) -> &RedisStore {
        &self.store
    }

    /// A bank says when it was spoken to last; where none was, it is now.
    async fn now(&self) -> At {
        let mut connection = self.connection.clone();
        let mut latest = None;
        let banks: Vec<String> =
            redis::cmd("KEYS").arg("tidegate:{*}:b").query_async(&mut connection).await.unwrap();
        for bank in banks {
            let at: Option<At> =
                redis::cmd("HGET").arg(bank).arg("at").query_async(&mut connection).await.unwrap();
            latest = latest.max(at);
        }
        if let Some(latest) = latest {
            return latest;
        }
        let (seconds, micros): (At, At) = redis::cmd("TIME").query_async(&mut connection).await.unwrap();
        1_000 * seconds + micros / 1_000
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn empty(&self) {
        redis::cmd("FLUSHALL").exec_async(&mut self.connection.clone()).await.unwrap();
    }
}

#[tokio::test]
async fn conformance_on_this_server() {
    let server = Server::start(&[]);
    let subject = Real { store: store(&server), connection: look(&server).await };
    check(&subject, Depth { seed: 4, runs: 3, steps: 150, wait: Duration::from_millis(64) }).await;
}
