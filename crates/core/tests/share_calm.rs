//! However a shared quota is drawn from, a bank speaks to its store for a reason: never for ever at one instant, and not again and
//! again where nothing has changed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, Class, ClassPolicy, LimitSpec, TicketId, Woken,
};
use tidegate_core::share::{Exchange, HolderId, Ledger, OnStoreLoss, Reply, ShareConfig};
use tidegate_core::time::Mono;

const T: u64 = 1_700_000_000_000;
const SECONDS: u64 = 40;

fn at(now: u64) -> Mono {
    Mono::from_nanos(now * 1_000_000)
}

/// A fleet, its store and its upstream; times in milliseconds.
#[derive(Clone, Debug)]
struct Plan {
    processes: usize,
    quota: u64,
    window: u64,
    /// Answers tell what is left; else the limit is declared.
    tells: bool,
    /// All comes back at once; else one by one.
    stepped: bool,
    /// Calls per second of all, as a multiple of what the quota allows.
    demand: f64,
    /// What strangers take of a window, at moments of their own.
    strangers: f64,
    urgent: f64,
    /// What bulk calls always leave.
    reserve: u64,
    leg: u64,
    trip: u64,
    lost: f64,
    seed: u64,
}

prop_compose! {
    fn plans()(
        processes in 1_usize..6,
        quota in 5_u64..200,
        window in 1_000_u64..12_000,
        (tells, stepped) in any::<(bool, bool)>(),
        demand in 0.2..2.5_f64,
        strangers in prop_oneof![Just(0.0), 0.05..0.9_f64],
        urgent in prop_oneof![Just(0.0), 0.0..0.6_f64],
        reserve in prop_oneof![Just(0), 1_u64..100],
        (leg, trip) in (1_u64..30, 1_u64..8),
        lost in prop_oneof![3 => Just(0.0), 1 => 0.0..0.1_f64],
        seed in any::<u64>(),
    ) -> Plan {
        Plan { processes, quota, window, tells, stepped, demand, strangers, urgent, reserve, leg, trip, lost, seed }
    }
}

/// Counts what it let through.
struct Upstream {
    plan: Plan,
    phase: u64,
    taken: Vec<u64>,
}

impl Upstream {
    fn used(&self, now: u64) -> u64 {
        let (window, phase) = (self.plan.window, self.phase);
        let now = now + phase + window;
        let since = if self.plan.stepped { now / window * window } else { now + 1 - window };
        self.taken.iter().filter(|&&at| at + phase + window >= since).count() as u64
    }

    fn takes(&mut self, now: u64) -> bool {
        let room = self.used(now) < self.plan.quota;
        if room {
            self.taken.push(now);
        }
        room
    }

    fn tells(&self, now: u64) -> Observation {
        if !self.plan.tells {
            return Observation::default();
        }
        let reset = self.plan.window - (now + self.phase) % self.plan.window;
        let left = self.plan.quota.saturating_sub(self.used(now));
        pace_parts::reading(None, self.plan.quota, left, Duration::from_millis(reset))
    }
}

#[derive(Default)]
struct Count {
    exchanges: u64,
    /// Something was due, and there was nothing to say.
    empty: u64,
    ended: u64,
}

struct Process {
    bank: Bank,
    /// When an attempt arrives, and when its answer is back.
    leaving: Vec<(u64, TicketId)>,
    coming: Vec<(u64, TicketId, bool, Observation)>,
    /// An exchange on its way there, or its answer on its way back.
    there: Option<(u64, Exchange)>,
    back: Option<(u64, Exchange, Option<Reply>)>,
    waiting: usize,
    count: Count,
}

impl Process {
    fn new(plan: &Plan, id: u64) -> Self {
        let window = Duration::from_millis(plan.window);
        let users = pace_parts::limit("users", pace_parts::rate(plan.quota, window), &[]);
        let limits: Vec<LimitSpec> = if plan.tells { Vec::new() } else { vec![users] };
        let mut policies = Class::ALL.map(ClassPolicy::of);
        policies[Class::Bulk.index()].reserve = plan.reserve;
        let seed = plan.seed ^ id;
        let config = BankConfig { limits, policies, seed, spread: Duration::ZERO, ..BankConfig::default() };
        let mut bank = Bank::new(config).unwrap();
        bank.share(ShareConfig {
            holder: HolderId(id * 7_919),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 8,
            tokens_shared: false,
        });
        Self {
            bank,
            leaving: Vec::new(),
            coming: Vec::new(),
            there: None,
            back: None,
            waiting: 0,
            count: Count::default(),
        }
    }

    fn send(&mut self, now: u64, ticket: TicketId, plan: &Plan) {
        self.bank.sent(at(now), ticket);
        self.leaving.push((now + plan.leg, ticket));
    }

    fn call(&mut self, now: u64, class: Class, plan: &Plan) {
        let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("one"));
        match self.bank.ask(at(now), &Ask { class, ..pace_parts::asking(&family, &credential) }) {
            Asked::Granted(ticket) => self.send(now, ticket, plan),
            Asked::Queued(_) => self.waiting += 1,
            Asked::Refused(_) => {}
        }
    }

    fn answers(&mut self, now: u64, upstream: &mut Upstream) {
        for (_, ticket) in self.leaving.extract_if(.., |(then, _)| *then <= now).collect::<Vec<_>>() {
            let accepted = upstream.takes(now);
            self.coming.push((now + upstream.plan.leg, ticket, accepted, upstream.tells(now)));
        }
        for (_, ticket, accepted, observation) in
            self.coming.extract_if(.., |(then, ..)| *then <= now).collect::<Vec<_>>()
        {
            let kind = if accepted { AnswerKind::Accepted } else { AnswerKind::Throttled };
            self.bank.answered(at(now), ticket, &Answer { kind, observation: &observation });
            self.count.ended += 1;
        }
    }

    fn exchanges(&mut self, now: u64, ledger: &mut Ledger, plan: &Plan, rng: &mut fastrand::Rng) {
        if let Some((then, said)) = self.there.take() {
            if then <= now {
                let lost = rng.f64() < plan.lost;
                let reply = (!lost).then(|| ledger.exchange(T + now, &said).unwrap());
                self.back = Some((now + if lost { 500 } else { plan.trip }, said, reply));
            } else {
                self.there = Some((then, said));
            }
        }
        if let Some((_, said, reply)) = self.back.take_if(|(then, ..)| *then <= now) {
            let answer = reply.as_ref().ok_or(tidegate_core::share::Away::Until(None));
            self.bank.end_exchange(at(now), &said, answer);
            self.advance(now, plan);
        }
    }

    fn advance(&mut self, now: u64, plan: &Plan) {
        let mut woken = Vec::new();
        self.bank.advance(at(now), &mut woken);
        for (_, outcome) in woken {
            self.waiting -= 1;
            if let Woken::Granted(ticket) = outcome {
                self.send(now, ticket, plan);
            }
        }
    }

    /// Says what is due, as a shell does: until nothing is due at this instant or something is under way.
    fn speak(&mut self, now: u64, plan: &Plan) {
        let mut in_a_row = 0;
        while self.bank.exchange_due(at(now)).is_some_and(|due| due <= at(now)) {
            in_a_row += 1;
            assert!(in_a_row < 3, "due at one instant for ever: {plan:?}");
            if let Some(said) = self.bank.begin_exchange(at(now)) {
                self.there = Some((now + plan.trip, said));
                self.count.exchanges += 1;
            } else {
                self.count.empty += 1;
            }
            self.advance(now, plan);
        }
    }
}

fn run(plan: &Plan) -> Vec<Process> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut ledger = Ledger::new(T, 1);
    let mut upstream = Upstream { plan: plan.clone(), phase: rng.u64(0..plan.window), taken: Vec::new() };
    let mut fleet: Vec<Process> = (1..=plan.processes as u64).map(|id| Process::new(plan, id)).collect();
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let per_ms = plan.quota as f64 / plan.window as f64;
    let mut burst = 0;
    for now in 0..SECONDS * 1_000 {
        if now % plan.window == 0 {
            burst = now + rng.u64(0..plan.window);
        }
        if now == burst {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "the numbers are small"
            )]
            let many = (plan.quota as f64 * plan.strangers) as u64;
            (0..many).for_each(|_| _ = upstream.takes(now));
        }
        if now % plan.window == 0 {
            let old = now.saturating_sub(2 * plan.window);
            upstream.taken.retain(|&then| then >= old);
        }
        if rng.f64() < plan.demand * per_ms {
            let process = rng.usize(0..plan.processes);
            let class = if rng.f64() < plan.urgent { Class::Interactive } else { Class::Bulk };
            if fleet[process].waiting < 50 {
                fleet[process].call(now, class, plan);
            }
        }
        for process in &mut fleet {
            process.answers(now, &mut upstream);
            process.advance(now, plan);
            process.exchanges(now, &mut ledger, plan, &mut rng);
            process.speak(now, plan);
        }
    }
    fleet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_bank_speaks_for_a_reason(plan in plans()) {
        for process in run(&plan) {
            let Count { exchanges, empty, ended, .. } = process.count;
            prop_assert!(empty <= 5, "{empty} times nothing was said, {exchanges} exchanges");
            prop_assert!(exchanges <= 2 * ended + 8 * SECONDS, "{exchanges} exchanges for {ended} calls");
        }
    }
}

/// A stranger took what permits in hand were good for, and as many calls wait as there are permits.
#[test]
fn permits_that_the_server_does_not_cover_any_more_are_asked_for_anew() {
    let plan = Plan {
        processes: 2,
        quota: 140,
        window: 7_285,
        tells: true,
        stepped: true,
        demand: 0.549_350_384_493_604_8,
        strangers: 0.588_318_563_100_243_4,
        urgent: 0.0,
        reserve: 0,
        leg: 3,
        trip: 6,
        lost: 0.0,
        seed: 13_574_905_004_469_022_399,
    };
    for process in run(&plan) {
        assert_eq!(process.count.empty, 0, "something was due, and nothing was said");
    }
}

/// Bulk calls wait for what the reserve, and what is left to strangers, keep from them, although something is there.
#[test]
fn who_is_stopped_by_its_class_looks_again_no_more_often_than_twice_in_a_lease() {
    for (reserve, strangers) in [(20, 0.0), (20, 0.4), (0, 0.4)] {
        let plan = Plan {
            processes: 5,
            quota: 60,
            window: 12_000,
            tells: true,
            stepped: true,
            demand: 2.0,
            strangers,
            urgent: 0.0,
            reserve,
            leg: 3,
            trip: 2,
            lost: 0.0,
            seed: 1,
        };
        let lease = plan.window / 8;
        for process in run(&plan) {
            let Count { exchanges, ended, .. } = process.count;
            assert!(ended >= 10, "{ended} calls: the reserve is for a while, not for ever");
            let most = ended + 2 * SECONDS * 1_000 / lease;
            assert!(exchanges <= most, "{exchanges} exchanges for {ended} calls: {plan:?}");
        }
    }
}
