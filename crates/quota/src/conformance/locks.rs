//! Locks, fences and kept values.

use std::time::Duration;

use tidegate_core::share::{BankKey, HolderId};

use super::{Clock, Subject};
use crate::store::{Lock, Name, Store};

const LIFE: Duration = Duration::from_millis(300);
const ONE: HolderId = HolderId(1);
const OTHER: HolderId = HolderId(2);

/// Everything that [`Store`] promises of them.
pub(super) async fn check(subject: &impl Subject) {
    subject.empty().await;
    one_holds_a_lock_at_a_time(subject).await;
    a_lock_that_ran_out_cannot_write(subject).await;
    a_value_ends_with_its_life(subject).await;
    an_unlocked_lock_is_free_and_its_fence_is_spent(subject).await;
    names_are_apart(subject).await;
    what_began_by_a_clock_that_was_set_back_is_over(subject).await;
}

fn name(what: &str) -> Name {
    Name { bank: BankKey([0xcc; 12]), what: what.to_owned() }
}

async fn lock(subject: &impl Subject, name: &Name, who: HolderId) -> Lock {
    subject.store().lock(name, who, LIFE).await.expect("the store is there")
}

async fn yours(subject: &impl Subject, name: &Name, who: HolderId) -> u64 {
    match lock(subject, name, who).await {
        Lock::Yours { fence } => fence,
        Lock::Held { fence, left } => {
            panic!("the lock is free, but was held for {left:?} with fence {fence}")
        }
    }
}

async fn put(subject: &impl Subject, name: &Name, fence: u64, bytes: &[u8]) -> bool {
    subject.store().put(name, fence, bytes, LIFE).await.expect("the store is there")
}

async fn value(subject: &impl Subject, name: &Name) -> Option<Vec<u8>> {
    subject.store().get(name).await.expect("the store is there").map(|kept| kept.bytes)
}

async fn one_holds_a_lock_at_a_time(subject: &impl Subject) {
    let name = name("token/one");
    let fence = yours(subject, &name, ONE).await;
    assert!(fence > 0, "fences count from one");
    match lock(subject, &name, OTHER).await {
        Lock::Held { fence: held, left } => {
            assert_eq!(held, fence, "the fence of who holds it");
            assert!(left <= LIFE && !left.is_zero(), "{left:?} of {LIFE:?} are left");
        }
        Lock::Yours { .. } => panic!("somebody else holds it"),
    }
    assert_eq!(yours(subject, &name, ONE).await, fence, "asked again by the same, the same fence");
}

async fn a_lock_that_ran_out_cannot_write(subject: &impl Subject) {
    let name = name("token/late");
    let late = yours(subject, &name, ONE).await;
    subject.pass(2 * LIFE).await;
    let next = yours(subject, &name, OTHER).await;
    assert!(next > late, "fences only rise: {next} after {late}");
    assert!(!put(subject, &name, late, b"late").await, "the lock with fence {late} ran out");
    assert_eq!(value(subject, &name).await, None);
    assert!(put(subject, &name, next, b"in time").await);
    assert_eq!(value(subject, &name).await.as_deref(), Some(&b"in time"[..]));
    assert!(yours(subject, &name, ONE).await > next, "a value that is put ends its lock");
}

async fn a_value_ends_with_its_life(subject: &impl Subject) {
    let name = name("token/value");
    let fence = yours(subject, &name, ONE).await;
    let bytes: Vec<u8> = (0..=255).collect();
    assert!(put(subject, &name, fence, &bytes).await);
    let kept = subject.store().get(&name).await.expect("the store is there").expect("it was just put");
    assert_eq!((kept.fence, kept.bytes), (fence, bytes), "any bytes come back as they were");
    assert!(kept.left <= LIFE && !kept.left.is_zero());
    subject.pass(2 * LIFE).await;
    assert_eq!(value(subject, &name).await, None);
    assert!(yours(subject, &name, ONE).await > fence, "its fence outlives it");
}

async fn an_unlocked_lock_is_free_and_its_fence_is_spent(subject: &impl Subject) {
    let name = name("token/unlocked");
    let first = yours(subject, &name, ONE).await;
    subject.store().unlock(&name, first).await.expect("the store is there");
    let second = yours(subject, &name, OTHER).await;
    assert!(second > first);
    subject.store().unlock(&name, first).await.expect("the store is there");
    assert!(matches!(lock(subject, &name, ONE).await, Lock::Held { .. }), "another's lock is left alone");
}

async fn names_are_apart(subject: &impl Subject) {
    let (one, other) = (name("token/a"), Name { bank: BankKey([0xdd; 12]), what: "token/a".to_owned() });
    let fence = yours(subject, &one, ONE).await;
    assert!(put(subject, &one, fence, b"mine").await);
    assert_eq!(value(subject, &other).await, None, "of another bank");
    assert_eq!(value(subject, &name("token/b")).await, None, "of another name");
}

async fn what_began_by_a_clock_that_was_set_back_is_over<S: Subject>(subject: &S) {
    if S::CLOCK == Clock::Real {
        return;
    }
    let name = name("token/clock");
    let kept = yours(subject, &name, ONE).await;
    assert!(put(subject, &name, kept, b"kept").await);
    let late = yours(subject, &name, ONE).await;
    subject.set_back(10 * LIFE).await;
    assert_eq!(value(subject, &name).await, None, "it would be kept for eleven lives");
    let next = yours(subject, &name, OTHER).await;
    assert!(next > late, "who held it has held it for long enough: {next} after {late}");
    subject.pass(10 * LIFE).await;
}
