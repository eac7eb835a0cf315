//! What a bank says last, however many limits it holds something of.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::collections::BTreeSet;
use std::time::Duration;

use pace_parts::{asking, limit, rate};
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{Answer, AnswerKind, Asked, Bank, BankConfig, LimitSpec, TicketId, Woken};
use tidegate_core::share::{Away, Exchange, HolderId, Ledger, OnStoreLoss, ShareConfig};
use tidegate_core::time::Mono;

const LIMITS: usize = 20;

fn at(millis: u64) -> Mono {
    Mono::from_nanos(millis * 1_000_000)
}

/// A bank and the ledger it speaks to, an instant away.
struct World {
    bank: Bank,
    ledger: Ledger,
    now: u64,
}

impl World {
    /// A bank with a limit for each family.
    fn new() -> Self {
        let own = |number| LimitSpec {
            path: PathGlob::parse(&format!("/api/v2/f{number}/**")).unwrap(),
            ..limit(&format!("limit {number}"), rate(100, Duration::from_mins(1)), &[])
        };
        let limits = (0..LIMITS).map(own).collect();
        let mut bank = Bank::new(BankConfig { limits, ..BankConfig::default() }).unwrap();
        bank.share(ShareConfig {
            holder: HolderId(7),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 8,
            tokens_shared: false,
        });
        Self { bank, ledger: Ledger::new(0, 1), now: 1_000 }
    }

    /// Carries an exchange there and back.
    fn carry(&mut self, said: &Exchange) {
        let reply = self.ledger.exchange(self.now, said).unwrap();
        self.bank.end_exchange(at(self.now), said, Ok(&reply));
        self.bank.advance(at(self.now), &mut Vec::new());
    }

    /// A ticket for a call of a family.
    fn ticket(&mut self, number: usize) -> TicketId {
        let family = Family::new(format!("/api/v2/f{number}/x"));
        let credential = CredentialId::new("one");
        let mut woken = Vec::new();
        match self.bank.ask(at(self.now), &asking(&family, &credential)) {
            Asked::Granted(ticket) => return ticket,
            Asked::Queued(_) => {}
            Asked::Refused(refusal) => panic!("{refusal:?}"),
        }
        for _ in 0..100 {
            self.now += 5;
            if let Some(said) = self.bank.begin_exchange(at(self.now)) {
                let reply = self.ledger.exchange(self.now, &said).unwrap();
                self.bank.end_exchange(at(self.now), &said, Ok(&reply));
            }
            self.bank.advance(at(self.now), &mut woken);
            if let Some((_, Woken::Granted(ticket))) = woken.pop() {
                return ticket;
            }
        }
        panic!("nothing is granted")
    }

    fn call(&mut self, number: usize) {
        let ticket = self.ticket(number);
        self.bank.sent(at(self.now), ticket);
        self.now += 1;
        let nothing = Observation::default();
        let answer = Answer { kind: AnswerKind::Accepted, observation: &nothing };
        self.bank.answered(at(self.now), ticket, &answer);
        let mut woken = Vec::new();
        self.bank.advance(at(self.now), &mut woken);
    }

    fn out(&self) -> u32 {
        self.ledger.view(self.now).iter().map(|limit| limit.out).sum()
    }
}

#[test]
fn more_limits_than_fit_are_given_back_in_several_exchanges_and_then_there_is_nothing_to_say() {
    let mut world = World::new();
    for number in 0..LIMITS {
        for _ in 0..3 {
            world.call(number);
        }
    }
    assert!(world.out() > 0);
    let mut told = BTreeSet::new();
    let (mut exchanges, mut goes) = (0, false);
    while let Some(said) = world.bank.last_exchange(at(world.now)) {
        assert!(said.limits.len() <= Exchange::MAX_LIMITS && said.asks.is_empty(), "{said:?}");
        for side in &said.limits {
            assert_eq!((side.unspent, side.in_flight), (0, 0), "{}", side.name);
            assert!(told.insert(side.key), "{} twice", side.name);
        }
        assert!(!goes, "nothing is said after the last word");
        goes = said.leaves;
        world.carry(&said);
        exchanges += 1;
    }
    assert!(goes, "the others hear of it");
    assert!(exchanges >= 2, "{exchanges} for {} limits", told.len());
    assert!(told.len() >= LIMITS, "{}", told.len());
    assert_eq!(world.out(), 0);
    assert_eq!(world.bank.exchange_due(at(world.now)), None, "nor is anything due");
}

#[test]
fn attempts_in_flight_stay_told_as_such() {
    let mut world = World::new();
    world.call(0);
    let ticket = world.ticket(0);
    world.bank.sent(at(world.now), ticket);
    while let Some(said) = world.bank.last_exchange(at(world.now)) {
        assert!(said.limits.iter().all(|side| side.unspent == 0));
        world.carry(&said);
    }
    let views = world.ledger.view(world.now);
    let own = views.iter().find(|limit| limit.name == "limit 0").unwrap();
    assert_eq!(own.out, 1, "nobody will hear of its end, and it may be counted");
}

#[test]
fn a_store_that_is_away_is_not_asked_at_the_end() {
    let mut world = World::new();
    for _ in 0..3 {
        world.call(0);
    }
    let said = world.bank.last_exchange(at(world.now)).expect("something is held");
    world.bank.end_exchange(at(world.now), &said, Err(Away::Until(None)));
    assert_eq!(world.bank.last_exchange(at(world.now)), None);
}

#[test]
fn who_holds_nothing_says_that_it_goes_and_who_was_never_heard_of_does_not() {
    let mut world = World::new();
    assert_eq!(world.bank.last_exchange(at(world.now)), None);
    world.now = 20_000;
    let hello = world.bank.begin_exchange(at(world.now)).expect("it makes itself known");
    world.carry(&hello);
    let said = world.bank.last_exchange(at(world.now)).expect("it is one of the fleet");
    assert!(said.leaves && said.limits.is_empty(), "{said:?}");
    world.carry(&said);
    assert_eq!(world.bank.last_exchange(at(world.now)), None);
    world.call(0);
    assert!(world.bank.last_exchange(at(world.now)).is_some_and(|said| said.leaves), "it came back");
}

#[test]
fn a_process_without_calls_is_heard_of_twice_at_its_beginning_and_then_every_half_minute() {
    let mut world = World::new();
    let mut words = Vec::new();
    while world.now < 240_000 {
        world.now += 100;
        if world.bank.exchange_due(at(world.now)).is_some_and(|due| due <= at(world.now)) {
            let said = world.bank.begin_exchange(at(world.now)).expect("something is due");
            assert!(said.limits.is_empty() && said.asks.is_empty(), "{said:?}");
            world.carry(&said);
            words.push(world.now);
        }
    }
    assert!((5_000..=15_100).contains(&words[0]) && (15_000..=30_100).contains(&words[1]), "{words:?}");
    let pauses: Vec<u64> = words[1..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| (22_500..=30_100).contains(pause)), "{pauses:?}");
    assert!(pauses.len() >= 3, "{words:?}");
}
