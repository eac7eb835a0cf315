//! What an exchange does to a server.

use redis::AsyncCommands;
use tidegate_core::share::{Ended, Exchange, PROTOCOL};
use tidegate_quota::{Store, StoreError};
use tidegate_quota_redis::RedisConfig;

use crate::server::Server;
use crate::support::{BANK, look, said, store, unusable, with};

#[tokio::test]
async fn one_script_is_run_for_all_limits_of_a_call() {
    let server = Server::start(&[]);
    let (store, mut look) = (store(&server), look(&server).await);
    store.exchange(BANK, &said(1, 1, 3)).await.unwrap();
    redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut look).await.unwrap();
    let reply = store.exchange(BANK, &said(1, 2, 3)).await.unwrap();
    assert_eq!((reply.limits.len(), reply.knew_seq), (3, 1));
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut look).await.unwrap();
    assert!(stats.contains("cmdstat_evalsha:calls=1,"), "{stats}");
    assert!(!stats.contains("cmdstat_eval:"), "{stats}");
}

#[tokio::test]
async fn a_flushed_script_is_loaded_again() {
    let server = Server::start(&[]);
    let (store, mut look) = (store(&server), look(&server).await);
    store.exchange(BANK, &said(1, 1, 1)).await.unwrap();
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut look).await.unwrap();
    assert_eq!(store.exchange(BANK, &said(1, 2, 1)).await.unwrap().knew_seq, 1);
}

#[tokio::test]
async fn what_is_said_again_is_answered_the_same_and_what_is_older_not_at_all() {
    let server = Server::start(&[]);
    let store = store(&server);
    let first = store.exchange(BANK, &said(1, 1, 2)).await.unwrap();
    assert!(first.grants[0].scout);
    assert_eq!(store.exchange(BANK, &said(1, 1, 2)).await.unwrap(), first);
    store.exchange(BANK, &said(1, 2, 2)).await.unwrap();
    let old = store.exchange(BANK, &said(1, 1, 2)).await;
    assert!(matches!(old, Err(StoreError::Unanswered(_))), "{old:?}");
}

#[tokio::test]
async fn a_bank_that_somebody_took_a_field_from_begins_anew() {
    let server = Server::start(&[]);
    let (store, mut look) = (store(&server), look(&server).await);
    let first = store.exchange(BANK, &said(1, 1, 1)).await.unwrap();
    let key = format!("tidegate:{{{BANK}}}:b");
    let gone: u32 = look.hdel(&key, "incarnation").await.unwrap();
    assert_eq!(gone, 1);
    let salt = 100;
    let next = Exchange { incarnation: Some(first.incarnation), salt, ..said(1, 2, 1) };
    let reply = store.exchange(BANK, &next).await.unwrap();
    assert_eq!((reply.incarnation, reply.knew_seq), (salt, 0));
}

#[tokio::test]
async fn every_key_has_an_end() {
    let server = Server::start(&[]);
    let (store, mut look) = (store(&server), look(&server).await);
    store.exchange(BANK, &said(1, 1, 3)).await.unwrap();
    let name = tidegate_quota::Name { bank: BANK, what: "token/x".to_owned() };
    store.lock(&name, tidegate_core::share::HolderId(1), std::time::Duration::from_secs(1)).await.unwrap();
    let keys: Vec<String> = look.keys("*").await.unwrap();
    assert_eq!(keys.len(), 4 + 2 * 3 + 1);
    for key in keys {
        assert!(key.starts_with("tidegate:{070707070707070707070707}:"), "{key}");
        let left: i64 = look.pttl(&key).await.unwrap();
        let longest = if key.contains(":k:") { 172_801_000 } else { 2 * 60_000 + 60_000 };
        assert!(left > 0 && left <= longest, "{key} ends in {left} ms");
    }
}

#[tokio::test]
async fn another_protocol_is_refused_with_both_named() {
    let server = Server::start(&[]);
    let (store, mut look) = (store(&server), look(&server).await);
    store.exchange(BANK, &said(1, 1, 1)).await.unwrap();
    let _: () = look.hset("tidegate:{070707070707070707070707}:b", "protocol", PROTOCOL + 1).await.unwrap();
    let problem = store.exchange(BANK, &said(1, 2, 1)).await.unwrap_err().to_string();
    assert_eq!(
        problem,
        "the shared state has protocol 4, this program speaks 3 (upgrade the older Tidegate, or give one of them another quota.prefix)"
    );
    assert!(store.view(BANK).await.is_err());
}

#[tokio::test]
async fn a_key_of_another_type_is_named_and_left_alone() {
    let server = Server::start(&[]);
    let (store, mut look) = (store(&server), look(&server).await);
    let keys = ["b", "r", "a", "l:0000000000000000", "z:0000000000000000"];
    for name in keys {
        let key = format!("tidegate:{{070707070707070707070707}}:{name}");
        let _: () = look.set(&key, "somebody else's").await.unwrap();
        let (why, hint) = unusable(store.exchange(BANK, &said(1, 1, 1)).await);
        assert!(why.contains(&format!("the key {key} is a string")), "{why}");
        assert!(hint.contains("quota.prefix"), "{hint}");
        let left: Vec<String> = look.keys("*").await.unwrap();
        assert_eq!(left, std::slice::from_ref(&key), "nothing was written beside it");
        let _: () = look.del(&key).await.unwrap();
    }
}

#[tokio::test]
async fn prefixes_keep_fleets_apart() {
    let server = Server::start(&[]);
    let blue = with(RedisConfig { prefix: "blue".to_owned(), ..RedisConfig::new(server.url()) });
    store(&server).exchange(BANK, &said(1, 1, 1)).await.unwrap();
    assert_eq!(blue.exchange(BANK, &said(2, 1, 1)).await.unwrap().holders, 1);
    assert_eq!(store(&server).exchange(BANK, &said(3, 1, 1)).await.unwrap().holders, 2);
    for prefix in ["", "a{b}", "a b"] {
        let config = RedisConfig { prefix: prefix.to_owned(), ..RedisConfig::new(server.url()) };
        unusable(tidegate_quota_redis::RedisStore::new(config));
    }
}

#[tokio::test]
async fn a_bank_is_shown_without_being_changed() {
    let server = Server::start(&[]);
    let (store, mut look) = (store(&server), look(&server).await);
    let bank = "tidegate:{070707070707070707070707}:b";
    assert_eq!(store.view(BANK).await.unwrap(), []);
    store.exchange(BANK, &said(1, 1, 2)).await.unwrap();
    let before: Vec<String> = look.hgetall(bank).await.unwrap();
    let view = store.view(BANK).await.unwrap();
    assert_eq!(view.len(), 2);
    assert_eq!((view[1].name.as_str(), view[1].quota, view[1].out), ("limit 1", Some(300), 1));
    let after: Vec<String> = look.hgetall(bank).await.unwrap();
    assert_eq!(before, after);
}

const STEM: &str = "tidegate:{070707070707070707070707}";

#[tokio::test]
async fn what_an_exchange_does_not_name_is_not_read() {
    let server = Server::start(&[]);
    let (store, mut look) = (store(&server), look(&server).await);
    store.exchange(BANK, &said(1, 1, 1)).await.unwrap();
    let long = "x".repeat(1 << 16);
    // What would break a script that read it, and has its time before it.
    for limit in 0..1_000 {
        let field = format!("l:{limit:016x}");
        let _: () = look.hset(format!("{STEM}:b"), &field, &long).await.unwrap();
        let _: () = look.zadd(format!("{STEM}:e"), &field, 4_000_000_000_000_u64).await.unwrap();
    }
    redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut look).await.unwrap();
    store.exchange(BANK, &said(1, 2, 1)).await.unwrap();
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut look).await.unwrap();
    assert!(!stats.contains("cmdstat_hgetall") && !stats.contains("cmdstat_hkeys"), "{stats}");
}

#[tokio::test]
async fn any_number_of_limits_that_ended_together_is_dropped_in_slices() {
    let server = Server::start(&[]);
    let (store, mut look) = (store(&server), look(&server).await);
    store.exchange(BANK, &said(1, 1, 1)).await.unwrap();
    let bank = format!("{STEM}:b");
    for part in 0..9 {
        let fields: Vec<(String, u8)> =
            (0..1_000).map(|limit| (format!("l:{:016x}", 1_000 * part + limit + 1), 1)).collect();
        let ends: Vec<(u8, String)> = fields.iter().map(|(field, _)| (1, field.clone())).collect();
        let _: () = look.hset_multiple(&bank, &fields).await.unwrap();
        let _: () = look.zadd_multiple(format!("{STEM}:e"), &ends).await.unwrap();
    }
    let before: usize = look.hlen(&bank).await.unwrap();
    assert!(before > 9_000, "{before}");
    for seq in 2..152 {
        store.exchange(BANK, &said(1, seq, 1)).await.unwrap();
    }
    let after: usize = look.hlen(&bank).await.unwrap();
    assert!(after < 20, "{after} fields");
}

/// A server that evicts keys may take the list of a limit's holders and leave the limit.
#[tokio::test]
async fn a_limit_whose_holders_were_evicted_is_taken_for_lost() {
    let server = Server::start(&[]);
    let (store, mut look) = (store(&server), look(&server).await);
    let mut told = [0; 9];
    let mut say = async |holder: u8, seq: u64, wanted: u32, all: u64| {
        let mut said = said(u64::from(holder), seq, 1);
        let told = &mut told[usize::from(holder)];
        said.asks[0].now[0] = wanted;
        (said.limits[0].told, said.limits[0].told_unseen) = (*told, *told);
        said.limits[0].ended = vec![Ended { age: 0, all, unseen: all }];
        said.limits[0].scouted = (all > *told).then_some(0);
        *told = all;
        store.exchange(BANK, &said).await.unwrap()
    };
    say(1, 1, 1, 0).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    for holder in 1..9 {
        say(holder, 2, 300, u64::from(holder == 1)).await;
    }
    let out = store.view(BANK).await.unwrap()[0].out;
    assert!(out > 50, "{out} are out");
    let _: () = look.del(format!("{STEM}:z:0000000000000000")).await.unwrap();
    let reply = say(1, 3, 0, 1).await;
    assert!(reply.limits[0].recall, "what it knows is asked for");
    let out = store.view(BANK).await.unwrap()[0].out;
    assert_eq!(out, 0, "nobody is left who could give them back");
}
