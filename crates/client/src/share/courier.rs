//! Carries exchanges between a pacer and the store of its shared quota.
//!
//! The bank decides when something is to be said and what; this file waits until then, waits for the answer no longer than
//! the store's patience, and brings it back. Nothing a caller waits for happens here under a lock, and no caller waits for a
//! store that does not answer: permits in hand are spent without it.
//!
//! The task lives while something is due or under way, and keeps nothing alive: a pacer that nobody has any more ends it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tidegate_core::share::{Away, BankKey, Exchange, Reply};
use tidegate_core::time::Mono;
use tidegate_quota::{Store, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::observe::StoreDone;
use crate::pacer::{Pacer, Shared};

/// The store, and who the bank is there.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bank: BankKey,
    /// What is due has changed.
    pub(crate) changed: Arc<Notify>,
}

/// Makes exchanges for as long as any is due.
pub(crate) struct Courier {
    pacer: Weak<Shared>,
    link: Link,
    /// It ended because nothing is due any more; another may run by now.
    ended: bool,
    /// What is under way.
    said: Option<Exchange>,
}

impl Courier {
    pub(crate) fn new(pacer: Weak<Shared>, link: Link) -> Self {
        Self { pacer, link, ended: false, said: None }
    }

    pub(crate) async fn run(mut self) {
        while let Some(due) = self.due() {
            let changed = self.link.changed.notified();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => {}
                () = changed => continue,
            }
            let Some(pacer) = self.pacer() else { return };
            let Some(said) = pacer.begin_exchange() else { continue };
            drop(pacer);
            self.carry(said).await;
        }
    }

    /// When the next exchange is due; `None` if none is, and then this courier has ended.
    fn due(&mut self) -> Option<Instant> {
        let pacer = self.pacer()?;
        let due = pacer.exchange_due();
        self.ended = due.is_none();
        due
    }

    /// One exchange there and back.
    async fn carry(&mut self, said: Exchange) {
        let began = Instant::now();
        let said = self.said.insert(said).clone();
        let patience = self.link.store.patience();
        let answer = tokio::time::timeout(patience, self.link.store.exchange(self.link.bank, &said)).await;
        self.said = None;
        let Some(pacer) = self.pacer() else { return };
        let took = began.elapsed();
        match answer {
            Ok(Ok(reply)) => {
                pacer.store_done(&answered(&said, &reply, took));
                pacer.end_exchange(&said, Ok(&reply));
            }
            Ok(Err(error)) => {
                let (outcome, why) = (outcome_of(&error), error.to_string());
                pacer.store_done(&StoreDone { why: Some(&why), ..failed(outcome, took) });
                pacer.end_exchange(&said, Err(away(&error, pacer.now())));
            }
            Err(_) => {
                let why = format!("no answer within {} ms", patience.as_millis());
                pacer.store_done(&StoreDone { why: Some(&why), ..failed("away", took) });
                pacer.end_exchange(&said, Err(Away::Until(None)));
            }
        }
    }

    fn pacer(&self) -> Option<Pacer> {
        self.pacer.upgrade().map(Pacer::of)
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The runtime ended. What is under way is lost; who comes next on another runtime starts another courier.
        let Some(pacer) = self.pacer() else { return };
        pacer.courier_is_gone();
        if let Some(said) = self.said.take() {
            pacer.end_exchange(&said, Err(Away::Until(None)));
        }
    }
}

fn away(error: &StoreError, now: Mono) -> Away {
    match error {
        StoreError::Away { retry_after, .. } => Away::Until(retry_after.map(|after| now + after)),
        StoreError::Unusable { .. }
        | StoreError::Unanswered(tidegate_core::share::Unanswered::Protocol { .. }) => Away::Unusable,
        StoreError::Unanswered(tidegate_core::share::Unanswered::Stale) => Away::Until(None),
    }
}

/// How an exchange that brought no answer is called in metrics.
fn outcome_of(error: &StoreError) -> &'static str {
    match error {
        StoreError::Away { .. } => "away",
        StoreError::Unusable { .. } => "unusable",
        StoreError::Unanswered(_) => "refused",
    }
}

fn failed<'a>(outcome: &'static str, took: Duration) -> StoreDone<'a> {
    StoreDone { outcome, why: None, took, holders: None, granted: Vec::new() }
}

fn answered<'a>(said: &'a Exchange, reply: &Reply, took: Duration) -> StoreDone<'a> {
    let mut granted: Vec<(&str, u32)> = Vec::new();
    for (want, grant) in said.asks.iter().zip(&reply.grants).filter(|(_, grant)| grant.permits > 0) {
        for side in want.limits.iter().filter_map(|&place| said.limits.get(usize::from(place))) {
            match granted.iter_mut().find(|(name, _)| *name == side.name) {
                Some((_, permits)) => *permits += grant.permits,
                None => granted.push((&side.name, grant.permits)),
            }
        }
    }
    StoreDone { outcome: "answered", why: None, took, holders: Some(reply.holders), granted }
}
