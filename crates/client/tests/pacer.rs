//! The pacer under many tasks at once, in real time: no wake-up is lost and nothing is held for ever.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use http::Method;
use tidegate::clock::Clock;
use tidegate::observe::Observers;
use tidegate::pacer::{Pacer, Ticket};
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, BankConfig, CallerId, Class, LimitKind, LimitSpec, Observes, Partition, Refusal,
    TokenSlot,
};

/// Longer than anything here takes on a busy machine; a lost wake-up takes for ever.
const AMPLE: Duration = Duration::from_mins(1);
const TASKS: u64 = 48;
const TURNS: u64 = 60;

fn pacer(limits: Vec<LimitSpec>) -> Pacer {
    let config = BankConfig { limits, seed: 7, ..BankConfig::default() };
    Pacer::new(config, Clock::start(), Observers::default()).unwrap()
}

async fn acquire(pacer: &Pacer, class: Class) -> Result<Ticket, Refusal> {
    let ask = Ask {
        method: &Method::GET,
        path: "/api/v2/users/7",
        family: &Family::new("/api/v2/users"),
        credential: &CredentialId::new("tests"),
        token: TokenSlot(0),
        class,
        caller: CallerId::ANYBODY,
        deadline: None,
        give_up_at: None,
    };
    pacer.acquire(&ask).await
}

/// Ends a ticket in one of the ways a ticket can end.
async fn end(mut ticket: Ticket, way: u8) {
    if way == 0 {
        return;
    }
    ticket.leave();
    tokio::task::yield_now().await;
    if way == 1 {
        return;
    }
    let answer = Answer { kind: AnswerKind::Accepted, observation: &Observation::default() };
    ticket.answered(&answer, &Family::new("/api/v2/users"), Some(Duration::from_micros(50)));
}

/// One task: takes tickets, ends them in every way, and gives up some waits after a moment.
async fn take_turns(pacer: Pacer, task: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(task);
    let mut served = 0;
    for _ in 0..TURNS {
        let class = Class::ALL[rng.usize(0..4)];
        let taken = if rng.u8(0..4) == 0 {
            let patience = Duration::from_micros(rng.u64(0..3_000));
            tokio::time::timeout(patience, acquire(&pacer, class)).await.ok()
        } else {
            Some(acquire(&pacer, class).await)
        };
        if let Some(ticket) = taken {
            served += 1;
            end(ticket.unwrap(), rng.u8(0..10)).await;
        }
    }
    served
}

async fn everybody_is_served(pacer: Pacer) {
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(take_turns(pacer.clone(), task))).collect();
    let mut served = 0;
    for task in tasks {
        served += tokio::time::timeout(AMPLE, task).await.expect("no wake-up is lost").unwrap();
    }
    assert!(served >= TASKS * TURNS / 2, "{served}");
    let left = pacer.snapshot();
    assert_eq!((left.in_flight, left.waiting.total()), (0, 0), "nothing is held");
    // And the pacer still serves: neither a permit nor the timer went astray.
    drop(tokio::time::timeout(AMPLE, acquire(&pacer, Class::Interactive)).await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_waiter_of_an_unknown_limit_is_served() {
    everybody_is_served(pacer(Vec::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_waiter_of_a_concurrency_cap_is_served() {
    let cap = LimitSpec {
        key: "cap".to_owned(),
        aliases: Vec::new(),
        method: None,
        path: tidegate_core::glob::PathGlob::parse("/**").unwrap(),
        kind: LimitKind::Concurrent { cap: 3 },
        per: vec![Partition::Credential],
        pin: false,
        assumed: false,
        observes: Observes::default(),
    };
    everybody_is_served(pacer(vec![cap])).await;
}
