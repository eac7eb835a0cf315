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
use tidegate_quota::{Store, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::late;
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

/// What became of an exchange.
struct Answered {
    answer: Result<Reply, StoreError>,
    took: Duration,
}

impl Link {
    /// One exchange there and back, within `patience`.
    async fn exchange(&self, said: &Exchange, patience: Duration) -> Answered {
        let began = Instant::now();
        let answer = tokio::time::timeout(patience, self.store.exchange(self.bank, said)).await;
        let late = || Err(late(&*self.store, patience));
        Answered { answer: answer.unwrap_or_else(|_| late()), took: began.elapsed() }
    }

    /// Gives back what `pacer` holds, within the store's patience in all.
    pub(crate) async fn give_back(&self, pacer: &Pacer) {
        let end = Instant::now() + self.store.patience();
        while let Some(said) = pacer.last_exchange() {
            let answer = self.exchange(&said, end - Instant::now()).await;
            let last = answer.answer.is_err();
            answer.bring(pacer, &said);
            if last {
                return;
            }
        }
    }
}

impl Answered {
    /// Tells who has to know.
    fn bring(&self, pacer: &Pacer, said: &Exchange) {
        match &self.answer {
            Ok(reply) => {
                pacer.store_done(&answered(said, reply, self.took));
                pacer.end_exchange(said, Ok(reply));
            }
            Err(error) => {
                let (outcome, why) = (outcome_of(error), error.to_string());
                pacer.store_done(&StoreDone { why: Some(&why), ..failed(outcome, self.took) });
                pacer.store_failed(&why);
                pacer.end_exchange(said, Err(error.away(pacer.now())));
            }
        }
    }
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
        let said = self.said.insert(said).clone();
        let answer = self.link.exchange(&said, self.link.store.patience()).await;
        self.said = None;
        let Some(pacer) = self.pacer() else { return };
        answer.bring(&pacer, &said);
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
