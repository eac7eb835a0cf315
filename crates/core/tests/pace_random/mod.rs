//! Random worlds: a server of any rule, callers, latencies that reorder, losses on every leg, strangers; and one bank that
//! is driven by nothing but its own `next_wake`.
//!
//! The shell keeps books of its own and checks them at every step; what a property asks beyond that it finds in the
//! [`Story`]. Times are seconds from the origin.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::struct_excessive_bools,
    reason = "a test world: a panic is a failure, its numbers are small, and its switches are independent"
)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::{HitLimit, Observation};
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, BankSnapshot, CallerId, Class, ClassPolicy, LimitKind,
    LimitSpec, Observes, TicketId, WaiterId, Woken,
};

use crate::pace_parts;
use crate::pace_world::{Form, Rule, Server, mono, observe};

/// What the bank is told of the server's limit before the first answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    /// Quota and window, as they are.
    Rate,
    /// The same, and a bound on attempts at once.
    RateAndCap(u32),
}

/// A world, but for the chance within it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rule: Rule,
    pub(crate) form: Form,
    pub(crate) quota: u32,
    pub(crate) window: f64,
    pub(crate) phase: f64,
    /// The longest time one leg takes.
    pub(crate) leg: f64,
    /// The share of it by which a leg can be shorter.
    pub(crate) jitter: f64,
    /// The longest time between a permit and the sending.
    pub(crate) dawdle: f64,
    pub(crate) told: Told,
    /// Whether a refusal says when to come back.
    pub(crate) hints: bool,
    pub(crate) callers: usize,
    pub(crate) requests: usize,
    pub(crate) families: usize,
    /// Callers of all classes, else of `bulk`.
    pub(crate) mixed: bool,
    /// Share of the attempts that are lost in one way or another.
    pub(crate) losses: f64,
    /// Share of the quota that strangers draw.
    pub(crate) strangers: f64,
    pub(crate) spread: bool,
    /// The default reserves of the classes, else none.
    pub(crate) reserves: bool,
    pub(crate) seed: u64,
    /// How many the server works on at once, and for how long; more are refused.
    pub(crate) cap: Option<(u32, f64)>,
    /// Whether the body of a refusal names the limit that was met.
    pub(crate) names: bool,
}

pub(crate) const RULES: [Rule; 7] = [
    Rule::Fixed,
    Rule::Aligned,
    Rule::LogOldest,
    Rule::LogNewest,
    Rule::Counter,
    Rule::BucketFull,
    Rule::BucketNext,
];

pub(crate) const FORMS: [Form; 4] = [Form::Exact, Form::Whole, Form::Epoch, Form::Silent];

prop_compose! {
    /// Any world. Properties that need less narrow it.
    pub(crate) fn plan()(
        rule in proptest::sample::select(RULES.to_vec()),
        form in proptest::sample::select(FORMS.to_vec()),
        told in prop_oneof![3 => Just(Told::Nothing), 2 => Just(Told::Rate), 1 => (1..6_u32).prop_map(Told::RateAndCap)],
        (quota, window) in (1..40_u32, 0.5..8.0_f64),
        (phase, seed) in (0.0..10.0_f64, any::<u64>()),
        (leg, jitter, dawdle) in (0.001..0.4_f64, 0.0..0.95_f64, prop_oneof![Just(0.0), 0.0..0.2_f64]),
        (callers, requests) in (1..14_usize, 1..90_usize),
        (families, mixed, hints, spread) in (1..3_usize, any::<bool>(), prop_oneof![4 => Just(true), 1 => Just(false)], any::<bool>()),
        losses in prop_oneof![2 => Just(0.0), 1 => 0.0..0.3_f64],
        strangers in prop_oneof![2 => Just(0.0), 1 => 0.1..0.6_f64],
    ) -> Plan {
        Plan { rule, form, quota, window, phase, leg, jitter, dawdle, told, hints, callers, requests, families, mixed, losses, strangers, spread, reserves: true, seed, cap: None, names: false }
    }
}

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) accepted: usize,
    pub(crate) throttled: usize,
    /// The part of them that met the cap.
    pub(crate) capped: usize,
    pub(crate) refused: usize,
    /// When it ended.
    pub(crate) end: f64,
    /// The longest a waiter waited, by class.
    pub(crate) longest: [f64; 4],
    /// Tickets that were probed and given back.
    pub(crate) probed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Ask(usize),
    Leave(usize),
    Arrive(u64),
    /// The server is done with it.
    Done(u64),
    Ends(u64),
    /// The caller hangs up.
    Abort(u64),
    Stranger,
    Wake,
}

/// How an attempt comes to its end, as its caller sees it.
#[derive(Debug)]
enum End {
    Answered(bool, Observation),
    TimedOut,
    NotSent,
}

#[derive(Debug)]
struct Attempt {
    caller: usize,
    ticket: TicketId,
    /// The request, or its answer, does not arrive.
    request_lost: bool,
    answer_lost: bool,
    end: End,
}

/// An attempt that was not answered by then is given up. Longer than two legs, so nothing arrives after it.
const TIME_OUT: f64 = 2.0;
/// Steps of a world; reaching it is spinning.
const STEPS: u64 = 60_000;

struct Play<'p> {
    plan: &'p Plan,
    bank: Bank,
    server: Server,
    rng: fastrand::Rng,
    agenda: BinaryHeap<Reverse<(u64, u64, What)>>,
    steps: u64,
    families: Vec<Family>,
    credential: CredentialId,
    todo: usize,
    waiting: BTreeMap<WaiterId, (usize, f64)>,
    holding: BTreeMap<usize, TicketId>,
    attempts: BTreeMap<u64, Attempt>,
    names: u64,
    woke: Option<u64>,
    /// How many the server works on.
    working: u32,
    /// Until when a hint that is known keeps each family's callers away.
    closed_until: Vec<f64>,
    story: Story,
}

impl Plan {
    pub(crate) fn play(&self) -> Story {
        let kind = pace_parts::rate(u64::from(self.quota), Duration::from_secs_f64(self.window));
        let rate = LimitSpec { observes: Observes::Unnamed, ..pace_parts::limit("all", kind, &[]) };
        let limits = match self.told {
            Told::Nothing => Vec::new(),
            Told::Rate => vec![rate],
            Told::RateAndCap(cap) => {
                let kind = LimitKind::Concurrent { cap };
                vec![
                    rate.clone(),
                    LimitSpec { key: "cap".to_owned(), kind, observes: Observes::OwnName, ..rate },
                ]
            }
        };
        let spread = if self.spread { Duration::from_millis(100) } else { Duration::ZERO };
        let mut config = BankConfig { limits, spread, seed: self.seed, ..BankConfig::default() };
        if !self.reserves {
            config.policies = [ClassPolicy::GREEDY; 4];
        }
        let mut play = Play {
            plan: self,
            bank: Bank::new(config).unwrap(),
            server: Server::new(self.rule, self.quota, self.window, self.phase),
            rng: fastrand::Rng::with_seed(self.seed),
            agenda: BinaryHeap::new(),
            steps: 0,
            families: (0..self.families)
                .map(|family| Family::new(format!("/api/v2/family-{family}")))
                .collect(),
            credential: CredentialId::new("one"),
            todo: self.requests,
            waiting: BTreeMap::new(),
            holding: BTreeMap::new(),
            attempts: BTreeMap::new(),
            names: 0,
            woke: None,
            working: 0,
            closed_until: vec![0.0; self.families],
            story: Story::default(),
        };
        play.run();
        play.story
    }

    /// Requests per second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(self.quota) / self.window
    }

    fn class(&self, caller: usize) -> Class {
        if self.mixed { Class::ALL[caller % 4] } else { Class::Bulk }
    }
}

fn nanos(at: f64) -> u64 {
    mono(at).as_nanos()
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl Play<'_> {
    fn at(&mut self, at: f64, what: What) {
        self.steps += 1;
        self.agenda.push(Reverse((nanos(at), self.steps, what)));
    }

    fn leg(&mut self) -> f64 {
        self.plan.leg * (1.0 - self.plan.jitter * self.rng.f64())
    }

    fn run(&mut self) {
        for caller in 0..self.plan.callers {
            let at = 0.2 * self.rng.f64();
            self.at(at, What::Ask(caller));
        }
        if self.plan.strangers > 0.0 {
            self.at(0.0, What::Stranger);
        }
        while self.story.accepted < self.plan.requests {
            let Some(Reverse((at, _, what))) = self.agenda.pop() else {
                panic!("lost wake-up: {:?}", self.bank.snapshot(mono(self.story.end)))
            };
            let now = seconds(at);
            self.story.end = now;
            assert!(self.steps < STEPS, "spinning at {now}: {:?}", self.bank.snapshot(mono(now)));
            match what {
                What::Ask(caller) => self.ask(now, caller),
                What::Leave(caller) => self.leave(now, caller),
                What::Arrive(name) => self.arrive(now, name),
                What::Done(name) => self.done(now, name),
                What::Ends(name) => self.ends(now, name),
                What::Abort(name) => self.abort(now, name),
                What::Stranger => self.stranger(now),
                // The shell has one timer: what it was set to before counts no more.
                What::Wake if self.woke != Some(at) => continue,
                What::Wake => self.woke = None,
            }
            self.advance(now);
        }
    }

    fn stranger(&mut self, now: f64) {
        if self.server.fits(now) {
            self.server.charge(now);
        }
        let next = -(1.0 - self.rng.f64()).ln() / (self.plan.strangers * self.plan.rate());
        self.at(now + next, What::Stranger);
    }

    fn ask(&mut self, now: f64, caller: usize) {
        if self.todo == 0 {
            return;
        }
        self.probe(now, caller);
        let asked = self.put(now, caller, self.plan.class(caller));
        self.todo -= 1;
        match asked {
            Asked::Granted(ticket) => self.granted(now, caller, ticket),
            Asked::Queued(waiter) => {
                self.waiting.insert(waiter, (caller, now));
            }
            Asked::Refused(refusal) => self.refused(now, caller, refusal.retry_after),
        }
    }

    fn put(&mut self, now: f64, caller: usize, class: Class) -> Asked {
        let family = &self.families[caller % self.families.len()];
        let caller = CallerId::named(caller);
        let ask = Ask { class, caller, ..pace_parts::asking(family, &self.credential) };
        self.bank.ask(mono(now), &ask)
    }

    /// All or none: a permit that is given back leaves every gate as it was, and another one can be had at once; who
    /// has to wait or is refused takes nothing. Tried by a greedy class: what a fair one leaves moves with every ask.
    fn probe(&mut self, now: f64, caller: usize) {
        if self.rng.f64() > 0.1 || !self.waiting.is_empty() {
            return;
        }
        // Makes the lane and its gates, which the first look at a family does.
        let before = match self.put(now, caller, Class::Interactive) {
            Asked::Granted(ticket) => {
                self.bank.dropped(mono(now), ticket);
                books(&self.bank.snapshot(mono(now)))
            }
            Asked::Queued(waiter) => {
                self.bank.abandon(mono(now), waiter);
                return;
            }
            Asked::Refused(_) => return,
        };
        let ticket = match self.put(now, caller, Class::Interactive) {
            Asked::Granted(ticket) => ticket,
            // Only the spreading of a release may hold up the next one for a moment.
            Asked::Queued(waiter) if self.plan.spread => {
                self.bank.abandon(mono(now), waiter);
                return;
            }
            other => {
                panic!("a permit that was given back is gone: {other:?} {:?}", self.bank.snapshot(mono(now)))
            }
        };
        let taken = books(&self.bank.snapshot(mono(now)));
        assert!(taken != before, "a permit takes from something");
        assert_eq!(taken.len(), before.len());
        for (taken, before) in taken.iter().zip(&before) {
            assert!(taken.1 <= before.1 + 1, "{taken:?} after {before:?}");
        }
        self.bank.dropped(mono(now), ticket);
        assert_eq!(
            books(&self.bank.snapshot(mono(now))),
            before,
            "what was not sent comes back to every gate"
        );
        self.story.probed += 1;
    }

    fn refused(&mut self, now: f64, caller: usize, retry_after: Duration) {
        self.story.refused += 1;
        self.todo += 1;
        self.at(now + retry_after.as_secs_f64().max(0.001), What::Ask(caller));
    }

    fn granted(&mut self, now: f64, caller: usize, ticket: TicketId) {
        let family = caller % self.families.len();
        assert!(
            now + 1e-6 >= self.closed_until[family],
            "granted at {now}, but a hint said to stay away until {}: {:?}",
            self.closed_until[family],
            self.bank.snapshot(mono(now))
        );
        if let Told::RateAndCap(cap) = self.plan.told {
            let out = self.holding.len() + self.attempts.len();
            assert!(out < cap as usize, "{out} of {cap} were out when another was granted");
        }
        self.holding.insert(caller, ticket);
        let dawdle = self.plan.dawdle * self.rng.f64();
        self.at(now + dawdle, What::Leave(caller));
    }

    /// The ticket's attempt leaves, or its caller has gone.
    fn leave(&mut self, now: f64, caller: usize) {
        let ticket = self.holding.remove(&caller).unwrap();
        let lost = self.rng.f64() < self.plan.losses;
        let kind = if lost { self.rng.u8(0..5) } else { u8::MAX };
        if kind == 0 {
            self.bank.dropped(mono(now), ticket);
            self.again(now, caller);
            return;
        }
        self.bank.sent(mono(now), ticket);
        self.names += 1;
        let name = self.names;
        let end = if kind == 1 { End::NotSent } else { End::TimedOut };
        let attempt = Attempt { caller, ticket, request_lost: kind <= 2, answer_lost: kind == 3, end };
        self.attempts.insert(name, attempt);
        let leg = self.leg();
        match kind {
            1 => self.at(now + leg, What::Ends(name)),
            2 => self.at(now + TIME_OUT, What::Ends(name)),
            _ => self.at(now + leg, What::Arrive(name)),
        }
        if kind == 4 {
            // The caller hangs up when its request has arrived, and before the answer does.
            self.at(now + leg + 1e-6, What::Abort(name));
        }
    }

    fn arrive(&mut self, now: f64, name: u64) {
        if !self.attempts.contains_key(&name) {
            return;
        }
        let full = self.plan.cap.is_some_and(|(cap, _)| self.working >= cap);
        let fits = !full && self.server.fits(now);
        if fits {
            self.server.charge(now);
        } else {
            self.story.throttled += 1;
            self.story.capped += usize::from(full);
        }
        let mut observation = observe(&mut self.server, now, self.plan.form);
        if !fits && self.plan.hints {
            let wait = if full { 1.0 } else { (self.server.retry_at(now) - now).ceil().max(1.0) };
            observation.retry_after = Some(Duration::from_secs_f64(wait));
        }
        if !fits && self.plan.names {
            let key = if full { "concurrent.calls" } else { "all" };
            let value = if full {
                self.plan.cap.map(|(cap, _)| u64::from(cap))
            } else {
                Some(u64::from(self.plan.quota))
            };
            observation.hit = Some(HitLimit { key: Some(key.to_owned()), namespace: None, value });
        }
        let attempt = self.attempts.get_mut(&name).unwrap();
        if !attempt.answer_lost {
            attempt.end = End::Answered(fits, observation);
        }
        match self.plan.cap {
            Some((_, work)) if fits => {
                self.working += 1;
                self.at(now + work, What::Done(name));
            }
            _ => self.answer(now, name),
        }
    }

    fn done(&mut self, now: f64, name: u64) {
        self.working -= 1;
        if self.attempts.contains_key(&name) {
            self.answer(now, name);
        }
    }

    /// The answer leaves the server.
    fn answer(&mut self, now: f64, name: u64) {
        let leg = self.leg();
        let lost = self.attempts[&name].answer_lost;
        self.at(if lost { now + TIME_OUT } else { now + leg }, What::Ends(name));
    }

    fn ends(&mut self, now: f64, name: u64) {
        let Some(Attempt { caller, ticket, end, request_lost, .. }) = self.attempts.remove(&name) else {
            return;
        };
        let nothing = Observation::default();
        let (kind, observation) = match &end {
            End::Answered(true, observation) => (AnswerKind::Accepted, observation),
            End::Answered(false, observation) => (AnswerKind::Throttled, observation),
            End::TimedOut => (AnswerKind::HardFailure, &nothing),
            End::NotSent => (AnswerKind::NotSent, &nothing),
        };
        assert!(!request_lost || kind != AnswerKind::Accepted);
        self.bank.answered(mono(now), ticket, &Answer { kind, observation });
        if kind == AnswerKind::Throttled
            && let Some(hint) = observation.retry_after
        {
            // A limit that is named counts every family, if it was declared.
            let named = observation.hit.as_ref().is_some_and(|hit| hit.key.as_deref() == Some("all"));
            let everybody = named && self.plan.told != Told::Nothing;
            for (family, closed) in self.closed_until.iter_mut().enumerate() {
                if everybody || family == caller % self.plan.families {
                    *closed = closed.max(now + hint.as_secs_f64());
                }
            }
        }
        if kind == AnswerKind::Accepted {
            self.story.accepted += 1;
            self.at(now, What::Ask(caller));
        } else {
            self.again(now, caller);
        }
    }

    fn abort(&mut self, now: f64, name: u64) {
        let attempt = self.attempts.remove(&name).unwrap();
        self.bank.dropped(mono(now), attempt.ticket);
        self.again(now, attempt.caller);
    }

    /// The caller's request is still to be done.
    fn again(&mut self, now: f64, caller: usize) {
        self.todo += 1;
        let pause = 0.1 * self.rng.f64();
        self.at(now + pause, What::Ask(caller));
    }

    fn advance(&mut self, now: f64) {
        let mut woken = Vec::new();
        self.bank.advance(mono(now), &mut woken);
        for (waiter, woken) in woken {
            let (caller, since) = self.waiting.remove(&waiter).expect("a waiter ends once");
            let longest = &mut self.story.longest[self.plan.class(caller) as usize];
            *longest = longest.max(now - since);
            match woken {
                Woken::Granted(ticket) => self.granted(now, caller, ticket),
                Woken::Refused(refusal) => self.refused(now, caller, refusal.retry_after),
            }
        }
        let wake = self.bank.next_wake(mono(now));
        if !self.waiting.is_empty() && self.holding.is_empty() && self.attempts.is_empty() {
            assert!(wake.is_some(), "nothing is under way and nobody will wake {:?}", self.waiting);
        }
        // The one timer of the shell.
        if let Some(wake) = wake.map(|wake| wake.as_nanos().max(nanos(now)))
            && self.woke.is_none_or(|planned| wake < planned)
        {
            assert!(wake > nanos(now), "asked to be woken at once after advancing at {now}");
            self.woke = Some(wake);
            self.steps += 1;
            self.agenda.push(Reverse((wake, self.steps, What::Wake)));
        }
    }
}

/// What each gate counts: name, attempts in flight, what may be sent, who waits.
fn books(snapshot: &BankSnapshot) -> Vec<(String, u32, Option<f64>, u32)> {
    let gates = snapshot.gates.iter();
    gates.map(|gate| (gate.name.clone(), gate.in_flight, gate.remaining, gate.waiting)).collect()
}
