//! A limit that is declared and that answers tell of: while it is unknown to answers the declared number holds, and from the first
//! answer on it is learnt like one that nobody declared.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Asked, Bank, BankConfig, LimitSpec, Observes, TicketId, WaiterId, Woken,
};
use tidegate_core::share::{Exchange, HolderId, Ledger, OnStoreLoss, ShareConfig};
use tidegate_core::time::Mono;

const T: u64 = 1_700_000_000_000;
const QUOTA: u64 = 300;
const WINDOW: u64 = 20_000;
/// One way to the server, and to the store and back, ms.
const LEG: u64 = 15;
const TRIP: u64 = 2;

fn at(now: u64) -> Mono {
    Mono::from_nanos(now * 1_000_000)
}

/// All of it comes back at once, and each answer tells what is left and until when.
#[derive(Default)]
struct Server {
    window: u64,
    taken: u64,
}

impl Server {
    fn answer(&mut self, now: u64) -> (AnswerKind, Observation) {
        if now / WINDOW != self.window {
            (self.window, self.taken) = (now / WINDOW, 0);
        }
        let accepted = self.taken < QUOTA;
        self.taken += u64::from(accepted);
        let reset = Duration::from_millis(WINDOW - now % WINDOW);
        let told = pace_parts::reading(None, QUOTA, QUOTA - self.taken, reset);
        (if accepted { AnswerKind::Accepted } else { AnswerKind::Throttled }, told)
    }
}

struct Process {
    bank: Bank,
    flying: Vec<(u64, TicketId)>,
    coming: Vec<(u64, TicketId, AnswerKind, Observation)>,
    said: Option<(u64, Exchange)>,
    waiting: BTreeMap<WaiterId, u64>,
    /// When each call was made, and for how long it waited.
    waits: Vec<(u64, u64)>,
}

impl Process {
    fn new(id: u64) -> Self {
        let users = pace_parts::limit("users", pace_parts::rate(QUOTA, Duration::from_millis(WINDOW)), &[]);
        let users = LimitSpec { observes: Observes::Unnamed, ..users };
        let config =
            BankConfig { limits: vec![users], seed: id, spread: Duration::ZERO, ..BankConfig::default() };
        let mut bank = Bank::new(config).unwrap();
        bank.share(ShareConfig {
            holder: HolderId(id * 7_919),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 8,
            tokens_shared: false,
        });
        Self {
            bank,
            flying: Vec::new(),
            coming: Vec::new(),
            said: None,
            waiting: BTreeMap::new(),
            waits: Vec::new(),
        }
    }

    fn call(&mut self, now: u64) {
        let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("one"));
        match self.bank.ask(at(now), &pace_parts::asking(&family, &credential)) {
            Asked::Granted(ticket) => self.send(now, now, ticket),
            Asked::Queued(waiter) => _ = self.waiting.insert(waiter, now),
            Asked::Refused(why) => panic!("{why:?}"),
        }
    }

    fn send(&mut self, now: u64, made: u64, ticket: TicketId) {
        self.bank.sent(at(now), ticket);
        self.waits.push((made, now - made));
        self.flying.push((now + LEG, ticket));
    }

    fn step(&mut self, now: u64, server: &mut Server, ledger: &mut Ledger) {
        for (_, ticket) in self.flying.extract_if(.., |(then, _)| *then <= now).collect::<Vec<_>>() {
            let (kind, told) = server.answer(now);
            self.coming.push((now + LEG, ticket, kind, told));
        }
        for (_, ticket, kind, observation) in
            self.coming.extract_if(.., |(then, ..)| *then <= now).collect::<Vec<_>>()
        {
            self.bank.answered(at(now), ticket, &Answer { kind, observation: &observation });
        }
        if let Some((_, said)) = self.said.take_if(|(then, _)| *then <= now) {
            let reply = ledger.exchange(T + now, &said).unwrap();
            self.bank.end_exchange(at(now), &said, Ok(&reply));
        }
        let mut woken = Vec::new();
        self.bank.advance(at(now), &mut woken);
        for (waiter, outcome) in woken {
            let made = self.waiting.remove(&waiter).unwrap();
            if let Woken::Granted(ticket) = outcome {
                self.send(now, made, ticket);
            }
        }
        if self.said.is_none() && self.bank.exchange_due(at(now)).is_some_and(|due| due <= at(now)) {
            self.said = self.bank.begin_exchange(at(now)).map(|said| (now + TRIP, said));
        }
    }
}

#[test]
fn of_a_declared_limit_that_is_told_it_is_learnt_that_all_comes_back_at_once() {
    let (mut server, mut ledger) = (Server::default(), Ledger::new(T, 1));
    let mut fleet = [Process::new(1), Process::new(2)];
    for now in 0..6 * WINDOW {
        // Most of a window is drawn late in it, and a third of the next as soon as it has begun.
        let of_window = now % WINDOW;
        let late = (WINDOW * 7 / 10..WINDOW * 9 / 10).contains(&of_window) && now % 16 == 0;
        let early = now > WINDOW && of_window == 1_500;
        for place in 0..if early { 100 } else { u64::from(late) } {
            fleet[((place + now / 16) % 2) as usize].call(now);
        }
        for process in &mut fleet {
            process.step(now, &mut server, &mut ledger);
        }
    }
    let burst = 5 * WINDOW + 1_500;
    let at_once = |process: &Process| {
        process.waits.iter().filter(|&&(made, waited)| made == burst && waited < 1_000).count()
    };
    let left: usize = fleet.iter().map(at_once).sum();
    assert!(left >= 95, "{left} of 100 left within a second though 300 were there");
}
