//! Clusters: of one node, which refuses keys of two slots as a large one does, and of several.

use std::time::Duration;

use tidegate_core::share::{BankKey, Exchange, Reply};
use tidegate_quota::{Store, StoreError};
use tidegate_quota_redis::{RedisConfig, RedisStore};
use tokio::time::Instant;

use crate::nodes::{in_step, masters, place, replica, slot, url};
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

/// Asks until there is an answer: a cluster in which something has just changed may need a moment.
async fn answered(store: &RedisStore, bank: BankKey, said: &Exchange) -> Reply {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match store.exchange(bank, said).await {
            Ok(reply) => return reply,
            Err(error @ StoreError::Away { .. }) => assert!(Instant::now() < end, "{error}"),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn banks() -> Vec<BankKey> {
    (0..12).map(|tenant: u8| BankKey::of("https://api", &format!("tenant {tenant}"))).collect()
}

#[tokio::test]
async fn banks_spread_over_the_nodes_and_each_lies_on_one() {
    let mut nodes = masters(3).await;
    // One node is enough to find the others.
    let store = with(RedisConfig::new(url(&nodes[..1])));
    for bank in banks() {
        for seq in 1..3 {
            let reply = answered(&store, bank, &said(1, seq, 3)).await;
            assert_eq!(reply.knew_seq, seq - 1, "the node that was asked first knows");
        }
    }
    let mut all = Vec::new();
    for node in &mut nodes {
        all.push(node.keys().await);
    }
    assert!(all.iter().all(|keys| !keys.is_empty()), "{all:?}");
    for bank in banks() {
        let of_bank = |keys: &&String| keys.contains(&format!("{{{bank}}}"));
        let counts: Vec<usize> = all.iter().map(|keys| keys.iter().filter(of_bank).count()).collect();
        assert_eq!(counts.iter().filter(|&&count| count > 0).count(), 1, "{bank}: {counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 4 + 2 * 3, "{bank}: the bank's four keys and two per limit");
        assert_eq!(store.view(bank).await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn a_bank_that_moves_to_another_node_is_followed() {
    let mut nodes = masters(3).await;
    let store = with(RedisConfig::new(url(&nodes)));
    answered(&store, BANK, &said(1, 1, 2)).await;
    let (slot, from) = (slot(&mut nodes, BANK).await, place(&mut nodes, 3, BANK).await);
    let to = (from + 1) % 3;
    let (source, target) = (nodes[from].id.clone(), nodes[to].id.clone());
    let () = nodes[to].cluster(&format!("SETSLOT {slot} IMPORTING {source}")).await;
    let () = nodes[from].cluster(&format!("SETSLOT {slot} MIGRATING {target}")).await;
    let keys = nodes[from].keys().await;
    assert!(!keys.is_empty());
    let mut migrate = redis::cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(nodes[to].server.port).arg("").arg(0).arg(5_000).arg("KEYS").arg(&keys);
    migrate.exec_async(&mut nodes[from].look).await.unwrap();
    for place in [to, from, (from + 2) % 3] {
        let () = nodes[place].cluster(&format!("SETSLOT {slot} NODE {target}")).await;
    }
    let reply = answered(&store, BANK, &said(1, 2, 2)).await;
    assert_eq!(reply.knew_seq, 1, "what was known moved along");
    assert!(nodes[from].keys().await.is_empty() && !nodes[to].keys().await.is_empty());
}

#[tokio::test]
async fn a_replica_that_lacks_the_last_writes_grants_no_more_twice_than_was_lost() {
    let mut nodes = masters(3).await;
    let master = place(&mut nodes, 3, BANK).await;
    let spare = replica(&mut nodes, master).await;
    let store = with(RedisConfig::new(url(&nodes)));
    let granted = |reply: &Reply| reply.grants.iter().map(|grant| u64::from(grant.permits)).sum::<u64>();
    // The first holder's scout is back: the quota of 300 is there.
    let mut one = said(1, 1, 1);
    assert!(answered(&store, BANK, &one).await.grants[0].scout);
    (one.seq, one.incarnation) = (2, Some(99));
    one.limits[0].ended = vec![tidegate_core::share::Ended { age: 0, all: 1, unseen: 1 }];
    one.limits[0].scouted = Some(0);
    let mut hers = granted(&answered(&store, BANK, &one).await);
    // In the first second of a state no more than a tenth is granted.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    in_step(&mut nodes[master]).await;

    // From here on the replica hears nothing.
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg("requirepass").arg("s3cret").exec_async(&mut nodes[master].look).await.unwrap();
    redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("replica")
        .exec_async(&mut nodes[master].look)
        .await
        .unwrap();
    let mut two = said(2, 1, 1);
    two.asks[0].now = [40, 0, 0, 0];
    let lost = granted(&answered(&store, BANK, &two).await);
    assert!(lost >= 40, "{lost}");

    nodes[master].server.kill();
    let () = nodes[spare].cluster("FAILOVER TAKEOVER").await;
    nodes[spare].until("NODES", |nodes| nodes.lines().any(|node| node.contains("myself,master"))).await;
    // The first holder takes all it can get, before the second is heard of.
    let mut third = one.clone();
    // On a busy machine she may have been silent for so long that she was given up, and is asked what she remembers.
    let mut given_up = false;
    for seq in 3..200 {
        third.seq = seq;
        third.limits[0].unspent = u32::try_from(hers).unwrap();
        third.limits[0].told = 1;
        third.limits[0].told_unseen = 1;
        third.limits[0].ended.clear();
        third.asks[0].now = [400, 0, 0, 0];
        let reply = answered(&store, BANK, &third).await;
        assert_eq!(reply.incarnation, 99, "it is the state that was replicated, and not an empty one");
        given_up |= reply.limits[0].recall;
        let more = granted(&reply);
        if more == 0 {
            break;
        }
        hers += more;
    }
    let spent = 1;
    assert!(hers + spent <= 300, "{hers}: to those it knows of it grants no more than there is");
    assert!(
        given_up || hers + spent + lost > 300,
        "{hers} and {lost}: this is what the documentation warns of"
    );
    // The second is heard of: from now on what it has counts, and nothing more is granted.
    (two.seq, two.incarnation) = (2, Some(99));
    two.limits[0].unspent = u32::try_from(lost).unwrap();
    let reply = answered(&store, BANK, &two).await;
    assert_eq!(reply.knew_seq, 0, "it finds out that it was forgotten");
    assert!(given_up || granted(&reply) == 0, "{reply:?}");
    let view = &store.view(BANK).await.unwrap()[0];
    assert_eq!(u64::from(view.out), hers + lost + granted(&reply));
}
