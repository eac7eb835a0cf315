//! What a profile takes for usual, among processes that know what this tenant was granted.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;
mod share_words;

use std::time::Duration;

use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{Answer, AnswerKind, Ask, Asked, Bank, BankConfig, Class, LimitSpec, Named, Woken};
use tidegate_core::share::{HolderId, Kind, Ledger, LimitReply, Ms, OnStoreLoss, Refill, ShareConfig, Terms};
use tidegate_core::time::Mono;

use share_words::{exchange, side};

const T: u64 = 1_700_000_000_000;

fn at(ms: u64) -> Mono {
    Mono::from_nanos(ms * 1_000_000)
}

fn terms(quota: u32, assumed: bool) -> Terms {
    let kind = Kind::Rate { quota, window: 60_000, told: false };
    Terms { kind, rule: Refill::Log, proven: false, pinned: false, assumed }
}

/// What the fleet goes by after a holder said `terms`.
fn hear(ledger: &mut Ledger, now: Ms, holder: u64, seq: u64, terms: Terms) -> LimitReply {
    let said = exchange(holder, seq, side(terms), None);
    ledger.exchange(now, &said).unwrap().limits[0]
}

#[test]
fn what_is_usual_undercuts_nobody_and_gives_way_to_whoever_knows() {
    let (usual, granted, told) =
        (terms(3_000, true), terms(9_000, false), Kind::Rate { quota: 600, window: 60_000, told: true });
    let mut ledger = Ledger::new(T, 1);
    assert_eq!(hear(&mut ledger, T, 1, 1, usual).terms, usual, "nobody knows better");
    let reply = hear(&mut ledger, T + 10, 2, 1, granted);
    assert_eq!((reply.terms, reply.other), (granted, None), "a larger number, and no difference");
    for (step, smaller) in [3_000, 1].into_iter().enumerate() {
        let step = step as u64;
        let reply = hear(&mut ledger, T + 20 + step, 3 + step, 1, terms(smaller, true));
        assert_eq!((reply.terms, reply.other), (granted, None));
    }
    // An operator's smaller number holds for all, as among those who know.
    assert_eq!(hear(&mut ledger, T + 30, 5, 1, terms(1_000, false)).terms, terms(1_000, false));
    assert_eq!(hear(&mut ledger, T + 40, 1, 2, usual).terms, terms(1_000, false));
    let told = Terms { kind: told, rule: Refill::Step, ..granted };
    assert_eq!(hear(&mut ledger, T + 50, 6, 1, told).terms.kind, told.kind);
    assert_eq!(hear(&mut ledger, T + 60, 1, 3, usual).terms.kind, told.kind);
}

#[test]
fn what_nobody_stands_by_any_more_is_what_is_usual_again() {
    let (usual, granted) = (terms(3_000, true), terms(100, false));
    let mut ledger = Ledger::new(T, 1);
    hear(&mut ledger, T, 1, 1, granted);
    for step in 1..130 {
        // The same number from a profile keeps nothing in force.
        let parrot =
            hear(&mut ledger, T + step * 1_000, 2, step, if step < 100 { terms(100, true) } else { usual });
        let expected = if step < 120 { granted } else { usual };
        assert_eq!(parrot.terms, expected, "after {step} s");
    }
}

#[test]
fn two_profiles_that_differ_are_told_of() {
    let mut ledger = Ledger::new(T, 1);
    hear(&mut ledger, T, 1, 1, terms(3_000, true));
    let reply = hear(&mut ledger, T + 10, 2, 1, terms(2_000, true));
    assert_eq!(reply.terms, terms(2_000, true));
    assert_eq!(reply.other, Some(terms(3_000, true).kind));
}

/// One process whose calls take 50 ms, on a limit that its profile takes to be 60 per minute.
struct Process {
    bank: Bank,
    flying: Vec<(u64, tidegate_core::pace::TicketId)>,
    waiting: usize,
    sent: usize,
}

const KEY: &str = "org.rate.per.minute";

impl Process {
    fn new(holder: u64) -> Self {
        let limit = LimitSpec {
            assumed: true,
            ..pace_parts::limit(KEY, pace_parts::rate(60, Duration::from_mins(1)), &[])
        };
        let limits = vec![limit];
        let config = BankConfig { limits, seed: holder, spread: Duration::ZERO, ..BankConfig::default() };
        let mut bank = Bank::new(config).unwrap();
        bank.share(ShareConfig {
            holder: HolderId(holder * 7_919),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 8,
            tokens_shared: false,
        });
        Self { bank, flying: Vec::new(), waiting: 0, sent: 0 }
    }

    fn send(&mut self, now: u64, ticket: tidegate_core::pace::TicketId) {
        self.bank.sent(at(now), ticket);
        self.flying.push((now + 50, ticket));
        self.sent += 1;
    }

    /// One more call, and whatever is due.
    fn step(&mut self, now: u64, ledger: &mut Ledger, calls: bool) {
        let observation = Observation::default();
        for (_, ticket) in self.flying.extract_if(.., |(back, _)| *back <= now) {
            let answer = Answer { kind: AnswerKind::Accepted, observation: &observation };
            self.bank.answered(at(now), ticket, &answer);
        }
        if calls && self.waiting < 5 {
            let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("one"));
            let ask = Ask { class: Class::Bulk, ..pace_parts::asking(&family, &credential) };
            match self.bank.ask(at(now), &ask) {
                Asked::Granted(ticket) => self.send(now, ticket),
                Asked::Queued(_) => self.waiting += 1,
                Asked::Refused(refusal) => panic!("{refusal:?}"),
            }
        }
        let due = self.bank.exchange_due(at(now)).is_some_and(|due| due <= at(now));
        if due && let Some(said) = self.bank.begin_exchange(at(now)) {
            let reply = ledger.exchange(T + now, &said).unwrap();
            self.bank.end_exchange(at(now), &said, Ok(&reply));
        }
        let mut woken = Vec::new();
        self.bank.advance(at(now), &mut woken);
        for (_, outcome) in woken {
            self.waiting -= 1;
            match outcome {
                Woken::Granted(ticket) => self.send(now, ticket),
                Woken::Refused(refusal) => panic!("{refusal:?}"),
            }
        }
    }

    fn quota(&self, now: u64) -> Option<u64> {
        self.bank.snapshot(at(now)).gates.iter().find(|gate| &*gate.name == KEY)?.quota
    }

    /// What was said of numbers, without what the bank says of itself.
    fn words(&mut self) -> Vec<String> {
        let events = self.bank.drain_events();
        events.iter().map(ToString::to_string).filter(|word| word.contains("holds for all")).collect()
    }
}

#[test]
fn a_newcomer_that_has_not_read_the_listing_neither_stops_the_fleet_nor_warns() {
    let mut ledger = Ledger::new(T, 1);
    let mut fleet: Vec<Process> = (1..4).map(Process::new).collect();
    let mut told = false;
    for now in (0..20_000).step_by(10) {
        if now == 500 {
            // The upstream's listing says ten times as much.
            for process in &mut fleet[..2] {
                assert_eq!(process.bank.set_quota(KEY, 600), Named::Used);
            }
        }
        for (place, process) in fleet.iter_mut().enumerate() {
            if place < 2 || now >= 10_000 {
                process.step(now, &mut ledger, now % 100 == 0);
            }
        }
        let spent: usize = fleet.iter().map(|process| process.sent).sum();
        if now == 9_990 {
            assert!(spent > 150, "{spent} of 600 in ten seconds, more than is usual");
            fleet[0].sent = 0;
            fleet[1].sent = 0;
        }
        told |= fleet[2].quota(now).is_some_and(|quota| quota == 600);
    }
    let sent: Vec<usize> = fleet.iter().map(|process| process.sent).collect();
    assert!(sent.iter().all(|&sent| sent > 80), "all go on: {sent:?}");
    assert!(told, "it goes by what the fleet knows");
    for process in &mut fleet {
        assert_eq!(process.words(), Vec::<String>::new());
    }
}
