//! Callers of one class at one limit, in virtual time: a noisy one, and those beside it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, CallerId, Class, LimitKind, LimitSpec, Observes,
    Partition, TicketId, TokenSlot, WaiterId, Woken,
};
use tidegate_core::time::Mono;

const STEP: Duration = Duration::from_millis(10);
const WINDOW: Duration = Duration::from_secs(1);
const QUOTA: u64 = 10;

/// Somebody who keeps so many calls waiting, or makes one now and then.
#[derive(Clone, Copy)]
enum Habit {
    Waiting(usize),
    Every(Duration),
}

/// What became of one caller's calls.
#[derive(Debug, Default)]
struct Got {
    served: u32,
    refused: u32,
    longest: Duration,
}

/// Plays callers at a limit of 10 per second for `seconds`. `patience`: how long each call may wait.
fn play(callers: &[(CallerId, Habit)], class: Class, patience: Option<Duration>, seconds: u64) -> Vec<Got> {
    let limit = LimitSpec {
        key: "users".to_owned(),
        aliases: Vec::new(),
        method: None,
        path: PathGlob::parse("/**").unwrap(),
        kind: LimitKind::Rate { quota: QUOTA, window: WINDOW },
        per: vec![Partition::Tenant],
        pin: true,
        observes: Observes::OwnName,
        assumed: false,
    };
    let mut bank = Bank::new(BankConfig { limits: vec![limit], ..BankConfig::default() }).unwrap();
    let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("c"));
    let mut got: Vec<Got> = callers.iter().map(|_| Got::default()).collect();
    let mut waiting: BTreeMap<WaiterId, (usize, Mono)> = BTreeMap::new();
    let mut woken = Vec::new();
    let mut now = Mono::ZERO;
    let serve = |bank: &mut Bank, now: Mono, ticket: TicketId| {
        bank.sent(now, ticket);
        let nothing = Observation::default();
        bank.answered(now, ticket, &Answer { kind: AnswerKind::Accepted, observation: &nothing });
    };
    for step in 0..seconds * 100 {
        now += STEP;
        for (index, &(caller, habit)) in callers.iter().enumerate() {
            let own = waiting.values().filter(|(of, _)| *of == index).count();
            let asks = match habit {
                Habit::Waiting(many) => many.saturating_sub(own),
                Habit::Every(pause) => {
                    usize::from(u128::from(step) % (pause.as_millis() / STEP.as_millis()) == 0)
                }
            };
            for _ in 0..asks {
                let ask = Ask {
                    method: &Method::GET,
                    path: "/api/v2/users/7",
                    family: &family,
                    credential: &credential,
                    token: TokenSlot(0),
                    class,
                    caller,
                    deadline: None,
                    give_up_at: patience.map(|patience| now + patience),
                };
                match bank.ask(now, &ask) {
                    Asked::Granted(ticket) => {
                        serve(&mut bank, now, ticket);
                        got[index].served += 1;
                    }
                    Asked::Queued(waiter) => drop(waiting.insert(waiter, (index, now))),
                    Asked::Refused(_) => got[index].refused += 1,
                }
            }
        }
        bank.advance(now, &mut woken);
        for (waiter, woke) in woken.drain(..) {
            let (index, since) = waiting.remove(&waiter).unwrap();
            match woke {
                Woken::Granted(ticket) => {
                    serve(&mut bank, now, ticket);
                    got[index].served += 1;
                    got[index].longest = got[index].longest.max(now - since);
                }
                Woken::Refused(_) => got[index].refused += 1,
            }
        }
    }
    got
}

#[test]
fn a_noisy_caller_keeps_nobody_waiting_for_longer_than_a_window() {
    let [noisy, quiet] = ["noisy", "quiet"].map(CallerId::named);
    for class in [Class::Interactive, Class::Bulk] {
        let callers = [(noisy, Habit::Waiting(400)), (quiet, Habit::Every(Duration::from_millis(500)))];
        let [loud, calm] = play(&callers, class, None, 60).try_into().unwrap();
        assert!(calm.served >= 119 && calm.longest <= WINDOW + STEP * 2, "{class:?}: {calm:?}");
        // What the quiet one leaves is the noisy one's: nothing is wasted to be fair.
        assert!(loud.served >= 10 * 60 - calm.served - 10, "{class:?}: {loud:?} beside {calm:?}");
    }
}

#[test]
fn who_offers_ten_times_its_share_is_refused_and_others_are_not() {
    let [noisy, quiet] = ["noisy", "quiet"].map(CallerId::named);
    let tenfold = Habit::Every(STEP);
    let callers = [(noisy, tenfold), (quiet, Habit::Every(Duration::from_millis(400)))];
    let [loud, calm] =
        play(&callers, Class::Interactive, Some(Duration::from_secs(5)), 60).try_into().unwrap();
    assert!(loud.refused > 5_000, "{loud:?}");
    assert_eq!(calm.refused, 0, "{calm:?}");
    assert!(calm.served >= 149 && calm.longest <= WINDOW + STEP * 2, "{calm:?}");
}

#[test]
fn permits_follow_the_weights_of_those_who_always_wait() {
    let callers = [("a", 5, 30), ("b", 3, 300), ("c", 2, 3)]
        .map(|(name, weight, waiting)| (CallerId::named(name).weighing(weight), Habit::Waiting(waiting)));
    let [a, b, c] = play(&callers, Class::Bulk, None, 100).try_into().unwrap();
    let all = a.served + b.served + c.served;
    for (got, share) in [(&a, 5), (&b, 3), (&c, 2)] {
        let due = all * share / 10;
        // What there is at the very start goes to whoever asks first.
        assert!(u64::from(got.served.abs_diff(due)) <= QUOTA, "{due} due: {got:?} of {all}");
    }
}
