//! Carries an instance's exchanges to the store and back, in virtual time, as the client's courier does in real time.
//!
//! The bank decides when something is said, and what; the ledger behind the store answers. What is between them is here: the way
//! there and back, and the time after which nobody waits for an answer any more. An answer that comes later than that is not
//! heard, though the store did what it was told; the bank says the same again then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::pace::Bank;
use tidegate_core::share::{Away, Exchange, Reply};
use tidegate_core::time::Mono;
use tidegate_quota::StoreError;

use crate::network::Network;
use crate::sharing::Record;
use crate::store::FleetStore;

/// What happens on the way. An exchange that is said again is another try.
#[derive(Debug)]
enum Step {
    /// It reaches the store.
    Arrive { attempt: u64, said: Box<Exchange> },
    /// The answer is here.
    Answer { attempt: u64, answer: Box<Result<Reply, StoreError>> },
    /// Nobody waits any more.
    GiveUp { attempt: u64 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Courier {
    store: Arc<FleetStore>,
    network: Network,
    timeout: Duration,
    /// What is to happen, in the order of time and of its making.
    steps: BTreeMap<(Mono, u64), Step>,
    made: u64,
    attempts: u64,
    /// The try that is waited for, and what was said.
    awaited: Option<(u64, Exchange)>,
    pub(super) record: Record,
}

impl Courier {
    pub(super) fn new(store: Arc<FleetStore>, network: Network, timeout: Duration) -> Self {
        Self {
            store,
            network,
            timeout,
            steps: BTreeMap::new(),
            made: 0,
            attempts: 0,
            awaited: None,
            record: Record::default(),
        }
    }

    /// Begins an exchange if one is due.
    pub(super) fn begin(&mut self, now: Mono, bank: &mut Bank) -> bool {
        if self.awaited.is_some() || bank.exchange_due(now).is_none_or(|due| due > now) {
            return false;
        }
        let Some(said) = bank.begin_exchange(now) else { return false };
        self.record.begins(now - Mono::ZERO);
        self.attempts += 1;
        let attempt = self.attempts;
        let way = self.network.one_way();
        self.push(now + way, Step::Arrive { attempt, said: Box::new(said.clone()) });
        self.push(now + self.timeout, Step::GiveUp { attempt });
        self.awaited = Some((attempt, said));
        true
    }

    /// Does what is due on the way. Changes the bank where something is heard.
    pub(super) fn advance(&mut self, now: Mono, bank: &mut Bank) {
        while let Some(step) = self.steps.first_entry().filter(|step| step.key().0 <= now) {
            match step.remove() {
                Step::Arrive { attempt, said } => self.arrive(now, attempt, &said),
                Step::Answer { attempt, answer } => {
                    let answer = answer.as_ref().as_ref().map_err(|error| error.away(now));
                    self.end(now, bank, attempt, answer);
                }
                Step::GiveUp { attempt } => self.end(now, bank, attempt, Err(Away::Until(None))),
            }
        }
    }

    /// When something happens on the way.
    pub(super) fn next(&self) -> Option<Mono> {
        self.steps.first_key_value().map(|((at, _), _)| *at)
    }

    /// When an exchange is to begin; never while one is under way.
    pub(super) fn due(&self, now: Mono, bank: &Bank) -> Option<Mono> {
        bank.exchange_due(now).filter(|_| self.awaited.is_none())
    }

    fn arrive(&mut self, now: Mono, attempt: u64, said: &Exchange) {
        let Some(answer) = self.store.exchange(now - Mono::ZERO, said) else { return };
        let way = self.network.one_way();
        self.push(now + way, Step::Answer { attempt, answer: Box::new(answer) });
    }

    fn end(&mut self, now: Mono, bank: &mut Bank, attempt: u64, answer: Result<&Reply, Away>) {
        let Some((_, said)) = self.awaited.take_if(|(awaited, _)| *awaited == attempt) else { return };
        self.record.unanswered += u64::from(answer.is_err());
        bank.end_exchange(now, &said, answer);
    }

    fn push(&mut self, at: Mono, step: Step) {
        self.made += 1;
        self.steps.insert((at, self.made), step);
    }
}
