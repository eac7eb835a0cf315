//! Several processes on one item.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use tidegate_core::share::{Exchange, Reply};
use tidegate_quota::{MemoryStore, Store, StoreError};

use crate::emulator::Emulator;
use crate::support::{BANK, TABLE, begin, id, look, said, store};

fn granted(reply: &Reply) -> u32 {
    reply.grants.iter().map(|grant| grant.permits).sum()
}

/// Looks by a scan, which the store never makes, so that its own requests can be counted.
async fn version(emulator: &Emulator) -> u64 {
    let items = look(emulator).scan().table_name(TABLE).send().await.unwrap().items.unwrap();
    let item = items.iter().find(|item| item["id"] == AttributeValue::S(id())).unwrap();
    item["version"].as_n().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_exchange_alone_is_one_write_and_one_among_others_reads_first() {
    let (emulator, one) = begin().await;
    one.exchange(BANK, &said(1, 1, 1)).await.unwrap();
    let first = version(&emulator).await;
    for seq in 2..=5 {
        one.exchange(BANK, &said(1, seq, 1)).await.unwrap();
    }
    assert_eq!(
        (emulator.count("GetItem"), emulator.count("PutItem")),
        (1, 5),
        "the first looks what is there"
    );
    let other = store(&emulator);
    other.exchange(BANK, &said(2, 1, 1)).await.unwrap();
    assert_eq!((emulator.count("GetItem"), emulator.count("PutItem")), (2, 6));
    one.exchange(BANK, &said(1, 6, 1)).await.unwrap();
    assert_eq!(
        (emulator.count("GetItem"), emulator.count("PutItem")),
        (2, 8),
        "its write lost once and brought the item"
    );
    one.exchange(BANK, &said(1, 7, 1)).await.unwrap();
    assert_eq!((emulator.count("GetItem"), emulator.count("PutItem")), (3, 9), "so it looks again");
    one.exchange(BANK, &said(1, 8, 1)).await.unwrap();
    assert_eq!((emulator.count("GetItem"), emulator.count("PutItem")), (3, 10), "and is alone again");
    assert_eq!(version(&emulator).await, first + 8, "each exchange counts once");
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_write_is_given_again_and_nothing_twice() {
    let (emulator, patient) = begin().await;
    let store = crate::support::with(&emulator, |_| ());
    // Until there is a connection, on a busy machine.
    while store.exchange(BANK, &said(1, 1, 40)).await.is_err() {}
    let before = version(&emulator).await;
    emulator.lose_an_answer();
    let lost = store.exchange(BANK, &said(1, 2, 40)).await.unwrap_err();
    assert!(matches!(&lost, StoreError::Away { why, .. } if why == "no answer within 250 ms"), "{lost}");
    while version(&emulator).await == before {}
    let first = patient.exchange(BANK, &said(1, 2, 40)).await.unwrap();
    let again = patient.exchange(BANK, &said(1, 2, 40)).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(first.knew_seq, 1, "the answer is the one that was lost");
    let late = patient.exchange(BANK, &said(1, 1, 40)).await;
    assert!(matches!(late, Err(StoreError::Unanswered(_))), "{late:?}");
}

/// What a holder does: asks for some, keeps all, says each exchange until it is answered.
async fn ask_often(store: Arc<dyn Store>, holder: u64, times: u64) -> u32 {
    let mut rng = fastrand::Rng::with_seed(holder);
    let (mut held, mut incarnation) = (0, None);
    for seq in 1..=times {
        let mut exchange: Exchange = Exchange { incarnation, ..said(holder, seq, rng.u32(1..20)) };
        exchange.limits[0].unspent = held;
        let reply = loop {
            match store.exchange(BANK, &exchange).await {
                Ok(reply) => break reply,
                Err(StoreError::Away { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        };
        incarnation = Some(reply.incarnation);
        held += granted(&reply);
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn holders_at_once_never_get_more_than_the_ledger_has() {
    let (emulator, one) = begin().await;
    let (holders, times) = (6, 25);
    one.exchange(BANK, &Exchange { asks: Vec::new(), ..said(99, 1, 0) }).await.unwrap();
    let first = version(&emulator).await;
    let tasks: Vec<_> = (1..=holders)
        .map(|holder| tokio::spawn(ask_often(Arc::new(store(&emulator)), holder, times)))
        .collect();
    let mut shared = 0;
    for task in tasks {
        shared += task.await.unwrap();
    }
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::at(|| 1_700_000_000_000));
    let mut alone = 0;
    for holder in 1..=holders {
        alone += ask_often(Arc::clone(&memory), holder, times).await;
    }
    assert!(shared <= 300, "{shared} of 300 were granted");
    assert!(shared > 0 && alone > 0 && alone <= 300, "{shared} shared, {alone} one after the other");
    let (writes, reads) = (emulator.count("PutItem"), emulator.count("GetItem"));
    assert_eq!(
        version(&emulator).await,
        first + holders * times,
        "each exchange changed the item once, of {writes} writes after {reads} reads"
    );
}
