//! Processes that log in as one credential and meet in a store, in paused time.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate::credential::Credential;
use tidegate::share::{HolderId, MemoryStore, OnStoreLoss, ShareConfig, SharedQuota, Store, TokenKey};
use tidegate::token::TokenManager;
use tidegate::{Upstream, UpstreamConfig};
use tidegate_core::pace::TokenSlot;
use tokio::time::Instant;

use self::support::{Fake, answer, config};

fn memory() -> Arc<dyn Store> {
    let began = Instant::now();
    Arc::new(MemoryStore::at(move || 1_000_000 + u64::try_from(began.elapsed().as_millis()).unwrap()))
}

/// A process of the fleet, with its own connections to the same endpoint.
fn process(wire: &Fake, store: &Arc<dyn Store>, holder: u64, key: Option<&[u8]>) -> Arc<TokenManager> {
    let quota = SharedQuota {
        store: Arc::clone(store),
        config: ShareConfig {
            holder: HolderId(holder),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 8,
            tokens_shared: key.is_some(),
        },
        token_key: key.map(|secret| TokenKey::from_secret(secret).unwrap()),
    };
    let config = UpstreamConfig { quota: Some(quota), ..config("genesys") };
    let upstream = Upstream::with_wire(config, Arc::new(wire.clone())).unwrap();
    let Credential::Managed(manager) = upstream.credential() else { panic!("it has one") };
    Arc::clone(manager)
}

fn logins(life: u64) -> impl Iterator<Item = support::Act> {
    (0..200).map(move |n| {
        let token = format!(r#"{{"access_token":"t{n}","expires_in":{life}}}"#);
        answer(200).body(token).after(Duration::from_millis(300))
    })
}

#[tokio::test(start_paused = true)]
async fn a_fleet_fetches_one_token_per_life() {
    let (wire, store) = (Fake::new([]).logins(logins(100)), memory());
    let fleet: Vec<_> = (1..=8).map(|holder| process(&wire, &store, holder, Some(&[7; 32]))).collect();
    let mut held = BTreeSet::new();
    for _ in 0..1_000 {
        for lent in futures_util::future::join_all(fleet.iter().map(TokenManager::lend)).await {
            held.insert(lent.unwrap().value.to_str().unwrap().to_owned());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // A token is due after 80 to 90 of its 100 seconds, the earliest of eight draws counts.
    let logins = wire.login_count();
    assert!((11..=13).contains(&logins), "{logins} logins in 1000 s");
    assert_eq!(held.len() as u64, logins, "each was everybody's");
}

#[tokio::test(start_paused = true)]
async fn without_a_key_each_process_fetches_its_own_one_after_the_other() {
    let (wire, store) = (Fake::new([]).logins(logins(86_400)), memory());
    let fleet: Vec<_> = (1..=8).map(|holder| process(&wire, &store, holder, None)).collect();
    let began = Instant::now();
    let lent = futures_util::future::join_all(fleet.iter().map(TokenManager::lend)).await;
    let held: BTreeSet<_> =
        lent.into_iter().map(|lent| lent.unwrap().value.to_str().unwrap().to_owned()).collect();
    assert_eq!((held.len(), wire.login_count()), (8, 8));
    assert!(began.elapsed() >= 8 * Duration::from_millis(300), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_process_with_another_key_is_counted_for_its_own_token_until_it_has_the_fleets() {
    let (wire, store) = (Fake::new([]).logins(logins(100)), memory());
    let ours = process(&wire, &store, 1, Some(&[7; 32]));
    let other = process(&wire, &store, 2, Some(&[8; 32]));
    let fleets = TokenSlot::FLEET.0;
    assert_eq!((ours.slot(), other.slot()), (fleets, fleets), "both may get it");
    ours.lend().await.unwrap();
    let lent = other.lend().await.unwrap();
    assert_eq!((ours.slot(), lent.value.to_str().unwrap()), (fleets, "Bearer t1"));
    let own = other.slot();
    assert_ne!(own, fleets, "the fleet's token is not what its calls are counted in");
    assert_eq!(process(&wire, &store, 3, Some(&[8; 32])).slot(), fleets);
    // The fleet's is over, and this process is the first to renew it: what it put there is the fleet's.
    tokio::time::sleep(Duration::from_secs(101)).await;
    other.lend().await.unwrap();
    assert_eq!(other.slot(), fleets);
    ours.lend().await.unwrap();
    assert_ne!(ours.slot(), fleets);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_once_for_all() {
    let (wire, store) = (Fake::new([]).logins(logins(86_400)), memory());
    let fleet: Vec<_> = (1..=4).map(|holder| process(&wire, &store, holder, Some(&[7; 32]))).collect();
    for manager in &fleet {
        let lent = manager.lend().await.unwrap();
        assert_eq!(lent.value, "Bearer t0");
    }
    for manager in &fleet {
        let generation = manager.lend().await.unwrap().generation;
        manager.rejected(generation);
        assert_eq!(manager.lend().await.unwrap().value, "Bearer t1");
    }
    assert_eq!(wire.login_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn upstreams_of_one_program_are_two_processes_in_the_store() {
    let store = memory();
    let share = ShareConfig {
        holder: HolderId(1),
        on_store_loss: OnStoreLoss::Share,
        max_instances: 8,
        tokens_shared: false,
    };
    let quota = SharedQuota { store, config: share, token_key: None };
    let upstream = || {
        let config = UpstreamConfig { quota: Some(quota.clone()), ..config("genesys") };
        Upstream::with_wire(config, Arc::new(Fake::new([]))).unwrap()
    };
    let (one, other) = (upstream(), upstream());
    for (upstream, known) in [(&one, 1), (&other, 2)] {
        let hello = upstream.quota().unwrap().hello(upstream.bank()).await;
        assert_eq!(hello, Ok(known));
    }
}
