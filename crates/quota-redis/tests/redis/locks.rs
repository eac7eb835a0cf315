//! Locks and the values under them.

use std::time::Duration;

use tidegate_core::share::HolderId;
use tidegate_quota::{Lock, Name, Store};

use crate::server::Server;
use crate::support::{BANK, store};

const LIFE: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(1);

fn name() -> Name {
    Name { bank: BANK, what: "token/reporting".to_owned() }
}

/// Asks until the lock is given: lives are the server's time.
async fn wait_for(store: &impl Store, who: u64, life: Duration) -> u64 {
    loop {
        if let Lock::Yours { fence } = store.lock(&name(), HolderId(who), life).await.unwrap() {
            return fence;
        }
    }
}

#[tokio::test]
async fn a_lock_is_one_holders_until_it_ends() {
    let server = Server::start(&[]);
    let store = store(&server);
    assert_eq!(wait_for(&store, 1, LIFE).await, 1);
    assert_eq!(wait_for(&store, 1, LIFE).await, 1, "asked again by the same");
    let other = store.lock(&name(), HolderId(2), LIFE).await.unwrap();
    assert!(matches!(other, Lock::Held { fence: 1, left } if left <= LIFE && left > LIFE / 2), "{other:?}");
    store.unlock(&name(), 7).await.unwrap();
    assert!(
        matches!(store.lock(&name(), HolderId(2), LIFE).await.unwrap(), Lock::Held { .. }),
        "not its fence"
    );
    store.unlock(&name(), 1).await.unwrap();
    assert_eq!(wait_for(&store, 2, LIFE).await, 2);
}

#[tokio::test]
async fn a_lock_that_ran_out_cannot_write() {
    let server = Server::start(&[]);
    let store = store(&server);
    let old = wait_for(&store, 1, SHORT).await;
    let new = wait_for(&store, 2, LIFE).await;
    assert!(new > old);
    assert!(!store.put(&name(), old, b"late", LIFE).await.unwrap());
    assert_eq!(store.get(&name()).await.unwrap(), None);
    assert!(store.put(&name(), new, b"\0in \xfftime", LIFE).await.unwrap());
    let kept = store.get(&name()).await.unwrap().unwrap();
    assert_eq!((kept.fence, kept.bytes.as_slice()), (new, b"\0in \xfftime".as_slice()));
    assert!(kept.left <= LIFE && kept.left > LIFE / 2);
    assert_eq!(wait_for(&store, 3, LIFE).await, new + 1, "writing ended the lock");
}

#[tokio::test]
async fn a_value_ends_with_its_life() {
    let server = Server::start(&[]);
    let store = store(&server);
    let fence = wait_for(&store, 1, LIFE).await;
    assert!(store.put(&name(), fence, b"token", SHORT).await.unwrap());
    while store.get(&name()).await.unwrap().is_some() {}
    assert_eq!(wait_for(&store, 2, LIFE).await, fence + 1, "fences go on");
}
