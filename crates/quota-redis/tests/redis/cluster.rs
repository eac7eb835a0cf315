//! A cluster of one node: it refuses keys of two slots as a large one does.

use std::time::Duration;

use tidegate_quota::Store;
use tidegate_quota_redis::RedisConfig;
use tokio::time::Instant;

use crate::permissions::{do_all, login, set_user};
use crate::server::Server;
use crate::support::{BANK, look, said, unusable, with};

/// A node that has all slots.
async fn node() -> Server {
    let server = Server::start(&["--cluster-enabled", "yes"]);
    let mut look = look(&server).await;
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("ADDSLOTS");
    for slot in 0..16_384 {
        slots.arg(slot);
    }
    slots.exec_async(&mut look).await.unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut look).await.unwrap();
        if info.contains("cluster_state:ok") {
            return server;
        }
        assert!(Instant::now() < end, "{info}");
    }
}

#[tokio::test]
async fn a_cluster_answers_from_one_slot() {
    let server = node().await;
    let store = with(RedisConfig::new(format!("redis+cluster://127.0.0.1:{}", server.port)));
    assert!(store.check().await.unwrap().what.contains(" cluster at 127.0.0.1:"));
    let reply = store.exchange(BANK, &said(1, 1, 3)).await.unwrap();
    assert!(reply.grants[0].scout);
    assert_eq!(store.view(BANK).await.unwrap().len(), 3);
    // The same server refuses what would not lie together.
    let mut look = look(&server).await;
    let apart: redis::RedisResult<i64> =
        redis::cmd("EVAL").arg("return 1").arg(2).arg("a").arg("b").query_async(&mut look).await;
    assert!(apart.unwrap_err().to_string().to_lowercase().contains("crossslot"));
}

#[tokio::test]
async fn the_documented_user_of_a_cluster_may_do_all_that_is_needed() {
    let server = node().await;
    set_user(&mut look(&server).await, "+cluster|slots").await;
    let url = format!("redis+cluster://127.0.0.1:{}", server.port);
    do_all(&with(RedisConfig { url, ..login(&server, Some("tidegate"), "s3cret") })).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_no_cluster_is_told() {
    let server = Server::start(&[]);
    let store = with(RedisConfig::new(format!("redis+cluster://127.0.0.1:{}", server.port)));
    let (_, hint) = unusable(store.exchange(BANK, &said(1, 1, 1)).await);
    assert!(hint.contains("redis://HOST"), "{hint}");
}
