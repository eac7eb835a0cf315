//! A world in virtual time: closed-loop callers, one bank, one server, strangers; and the ideal to compare with.
#![expect(clippy::disallowed_types, reason = "the books of a test decide nothing")]
#![allow(dead_code, reason = "each test binary uses a part of the world")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test world: a panic is a failure, and its numbers are small"
)]

pub(crate) mod server;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use http::Method;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::{Dialect, Observation, Reading, Reset};
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, CallerId, Class, ClassPolicy, TicketId, TokenSlot,
    WaiterId, Woken,
};
use tidegate_core::time::{Mono, Wall};

pub(crate) use server::{Rule, Server};

/// How a server tells its reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Seconds left, exactly.
    Exact,
    /// Seconds left, rounded up.
    Whole,
    /// Epoch second, rounded up, with a `Date`.
    Epoch,
    /// Nothing is told but a 429 and its `Retry-After`.
    Silent,
}

/// Who else draws from the quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Who {
    Nobody,
    /// A share of the quota, Poisson.
    Steady(f64),
    /// The same, from this second on.
    From(f64, f64),
    /// A share of the quota on average, each second window ten times as dense for a tenth of two windows.
    Bursts(f64),
}

impl Who {
    /// The same company after two windows of `window` seconds instead of two of five.
    pub(crate) fn scaled(self, window: f64) -> Self {
        match self {
            Self::From(share, from) => Self::From(share, from * window / 5.0),
            other => other,
        }
    }

    /// When the next of them comes after `now`, for a quota of `rate` per second and `window` seconds.
    fn next(self, rng: &mut fastrand::Rng, now: f64, rate: f64, window: f64) -> Option<f64> {
        match self {
            Self::Nobody => None,
            Self::Steady(share) => Some(now + exponential(rng, share * rate)),
            Self::From(share, from) => Some(now.max(from) + exponential(rng, share * rate)),
            Self::Bursts(share) => {
                // Time that passes in bursts only, unfolded.
                let (cycle, burst) = (2.0 * window, 0.2 * window);
                let inner = (now / cycle).floor() * burst + (now % cycle).min(burst);
                let inner = inner + exponential(rng, 10.0 * share * rate);
                Some((inner / burst).floor() * cycle + inner % burst)
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) form: Form,
    pub(crate) who: Who,
    pub(crate) callers: usize,
    pub(crate) requests: usize,
    pub(crate) trip: f64,
    /// Seconds by which a way may be longer, mostly by far less: a machine with too much to do.
    pub(crate) stall: f64,
    pub(crate) seed: u64,
    pub(crate) class: Class,
    /// Attempts the server handles at once; the rest is throttled though quota is left.
    pub(crate) cap: Option<u32>,
    /// Tell every throttle.
    pub(crate) trace: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) makespan: f64,
    pub(crate) accepted: usize,
    pub(crate) throttled: usize,
    /// When answers came back, and whether they were accepted.
    pub(crate) answers: Vec<(f64, bool)>,
    pub(crate) stranger_times: Vec<f64>,
    pub(crate) stranger_throttled: usize,
    /// The highest draw of strangers that was ever believed, requests per second.
    pub(crate) strangers: f64,
    /// When attempts left.
    pub(crate) sends: Vec<f64>,
    pub(crate) states: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Stranger,
    Arrive(usize, u64),
    Answer(usize, u64),
    Handled,
    Wake,
}

#[derive(Clone, Copy, Debug)]
struct Due(f64, u64, What);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

/// Events in order of time.
#[derive(Debug, Default)]
struct Agenda {
    heap: BinaryHeap<Reverse<Due>>,
    count: u64,
}

impl Agenda {
    fn push(&mut self, at: f64, what: What) {
        self.count += 1;
        self.heap.push(Reverse(Due(at, self.count, what)));
    }

    fn pop(&mut self) -> Option<(f64, What)> {
        self.heap.pop().map(|Reverse(Due(at, _, what))| (at, what))
    }
}

pub(crate) fn mono(at: f64) -> Mono {
    Mono::from_nanos((at * 1e9).round() as u64)
}

fn one_way(rng: &mut fastrand::Rng, trip: f64) -> f64 {
    trip / 2.0 * (0.7 + 0.6 * rng.f64())
}

fn exponential(rng: &mut fastrand::Rng, rate: f64) -> f64 {
    -(1.0 - rng.f64()).ln() / rate
}

/// What a response of `server` at `now` says.
pub(crate) fn observe(server: &mut Server, now: f64, form: Form) -> Observation {
    let reset = server.reset_at(now);
    let clock = server.phase;
    let wall = |secs: f64| Wall::from_unix_millis((secs * 1e3).round() as i64);
    let second = Duration::from_secs(1);
    let after = |secs: f64| Duration::from_secs_f64(secs.max(0.0));
    let date = wall((now + clock).floor());
    let reset = match form {
        Form::Silent => return Observation { date: Some(date), ..Observation::default() },
        Form::Exact => Reset { after: after(reset - now), grain: Duration::ZERO, at: None },
        Form::Whole => Reset { after: after((reset - now - 1e-7).ceil()), grain: second, at: None },
        Form::Epoch => {
            let epoch = (reset + clock - 1e-7).ceil();
            Reset { after: after(epoch - (now + clock).floor()), grain: second, at: Some(wall(epoch)) }
        }
    };
    let reading = Reading {
        name: None,
        limit: Some(server.quota as u64),
        remaining: Some(server.remaining(now) as u64),
        reset: Some(reset),
        window: None,
        dialect: Dialect::Guide,
    };
    Observation { readings: vec![reading], date: Some(date), ..Observation::default() }
}

/// One caller's attempts against the bank.
struct Play<'w> {
    world: &'w World,
    server: Server,
    bank: Bank,
    agenda: Agenda,
    rng: fastrand::Rng,
    todo: usize,
    out: Outcome,
    waiting: HashMap<WaiterId, usize>,
    tickets: HashMap<u64, TicketId>,
    answers: HashMap<u64, (bool, Observation)>,
    /// Attempts the server is handling.
    busy: u32,
    names: u64,
    woke: f64,
    family: Family,
    credential: CredentialId,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a switch for a person who looks into one world")]
    pub(crate) fn new(rule: Rule, form: Form, phase: f64, seed: u64) -> Self {
        Self {
            server: Server::new(rule, 300, 5.0, 1_000_000.0 + phase),
            form,
            who: Who::Nobody,
            callers: 40,
            requests: 1500,
            trip: 0.02,
            stall: 0.0,
            seed,
            class: Class::Bulk,
            cap: None,
            trace: std::env::var_os("PACE_TRACE").is_some(),
        }
    }

    /// Callers are greedy, as the ideal is that they are compared with: what a fair class leaves to others is judged in the lab.
    pub(crate) fn play(&self, config: BankConfig) -> Outcome {
        let config = BankConfig { policies: [ClassPolicy::GREEDY; 4], ..config };
        let mut play = Play {
            world: self,
            server: self.server.clone(),
            bank: Bank::new(config).unwrap(),
            agenda: Agenda::default(),
            rng: fastrand::Rng::with_seed(self.seed),
            todo: self.requests,
            out: Outcome::default(),
            waiting: HashMap::new(),
            tickets: HashMap::new(),
            answers: HashMap::new(),
            busy: 0,
            names: 0,
            woke: f64::INFINITY,
            family: Family::new("/api/v2/users"),
            credential: CredentialId::new("one"),
        };
        play.run();
        play.out
    }

    /// The same callers against a server that parks early requests instead of refusing them, charged with what the
    /// strangers really took: nobody can finish sooner.
    pub(crate) fn ideal(&self, strangers: &[f64]) -> f64 {
        let mut server = self.server.clone();
        let mut rng = fastrand::Rng::with_seed(self.seed + 7);
        let mut agenda = Agenda::default();
        let (mut todo, mut done, mut parked, mut now) = (self.requests, 0, 0_u32, 0.0);
        let mut woke = f64::INFINITY;
        for &at in strangers {
            agenda.push(at, What::Stranger);
        }
        for _ in 0..self.callers.min(todo) {
            todo -= 1;
            agenda.push(one_way(&mut rng, self.trip), What::Arrive(0, 0));
        }
        while done < self.requests {
            assert!(agenda.count < 1_000_000, "spinning ideal");
            let what;
            (now, what) = agenda.pop().expect("somebody is under way");
            match what {
                What::Stranger => server.charge(now),
                What::Arrive(..) => parked += 1,
                What::Handled => {}
                What::Wake => woke = f64::INFINITY,
                What::Answer(..) => {
                    done += 1;
                    if todo > 0 {
                        todo -= 1;
                        agenda.push(now + one_way(&mut rng, self.trip), What::Arrive(0, 0));
                    }
                }
            }
            while parked > 0 && server.fits(now) {
                server.charge(now);
                parked -= 1;
                agenda.push(now + one_way(&mut rng, self.trip), What::Answer(0, 0));
            }
            if parked > 0 {
                let at = server.retry_at(now).max(now + 1e-6);
                if at < woke {
                    woke = at;
                    agenda.push(at, What::Wake);
                }
            }
        }
        now
    }
}

impl Play<'_> {
    fn run(&mut self) {
        self.next_stranger(0.0);
        let mut now = 0.0;
        for caller in 0..self.world.callers.min(self.todo) {
            self.todo -= 1;
            self.ask(now, caller);
        }
        self.advance(now);
        while self.out.accepted < self.world.requests {
            let Some((at, what)) = self.agenda.pop() else {
                panic!(
                    "lost wake-up at {now} after {} of {:?}",
                    self.out.accepted,
                    self.bank.snapshot(mono(now))
                )
            };
            now = at;
            assert!(self.agenda.count < 300_000, "spinning at {now}: {:?}", self.bank.snapshot(mono(now)));
            assert!(now < 1e4, "no progress: {:?}", self.bank.snapshot(mono(now)));
            match what {
                What::Stranger => self.stranger(now),
                What::Arrive(caller, name) => self.arrive(now, caller, name),
                What::Answer(caller, name) => self.answer(now, caller, name),
                What::Handled => self.busy -= 1,
                What::Wake => self.woke = f64::INFINITY,
            }
            self.advance(now);
        }
        self.out.makespan = now;
        self.out.states = self.bank.snapshot(mono(now)).gates.iter().map(|gate| gate.state).collect();
    }

    fn stranger(&mut self, now: f64) {
        if self.server.fits(now) {
            self.server.charge(now);
            self.out.stranger_times.push(now);
        } else {
            self.out.stranger_throttled += 1;
        }
        self.next_stranger(now);
    }

    fn next_stranger(&mut self, now: f64) {
        let (rate, window) = (self.server.quota / self.server.window, self.server.window);
        if let Some(at) = self.world.who.next(&mut self.rng, now, rate, window) {
            self.agenda.push(at, What::Stranger);
        }
    }

    fn ask(&mut self, now: f64, caller: usize) {
        let ask = Ask {
            method: &Method::GET,
            path: "/api/v2/users/7",
            family: &self.family,
            credential: &self.credential,
            token: TokenSlot(0),
            class: self.world.class,
            caller: CallerId::named(caller),
            deadline: None,
            give_up_at: None,
        };
        match self.bank.ask(mono(now), &ask) {
            Asked::Granted(ticket) => self.send(now, caller, ticket),
            Asked::Queued(waiter) => {
                self.waiting.insert(waiter, caller);
            }
            Asked::Refused(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    fn send(&mut self, now: f64, caller: usize, ticket: TicketId) {
        self.bank.sent(mono(now), ticket);
        self.out.sends.push(now);
        self.names += 1;
        self.tickets.insert(self.names, ticket);
        let at = self.way(now);
        self.agenda.push(at, What::Arrive(caller, self.names));
    }

    fn arrive(&mut self, now: f64, caller: usize, name: u64) {
        let room = self.world.cap.is_none_or(|cap| self.busy < cap);
        let left = self.server.fits(now);
        let fits = room && left;
        if fits {
            self.server.charge(now);
            self.busy += 1;
        }
        let mut observation = observe(&mut self.server, now, self.world.form);
        if !left {
            let wait = (self.server.retry_at(now) - now).ceil().max(1.0);
            observation.retry_after = Some(Duration::from_secs_f64(wait));
        }
        self.answers.insert(name, (fits, observation));
        // A server with a cap takes time to handle what it accepts.
        let handling = if fits && self.world.cap.is_some() {
            4.0 * self.world.trip * (0.5 + self.rng.f64())
        } else {
            0.0
        };
        let at = now + handling;
        if handling > 0.0 {
            self.agenda.push(at, What::Handled);
        }
        let at = self.way(at);
        self.agenda.push(at, What::Answer(caller, name));
    }

    /// When what leaves at `now` is there. Where it stalls, a machine comes to nothing for a part of each turn, none of some,
    /// and what it comes to is late in any order.
    fn way(&mut self, now: f64) -> f64 {
        let at = now + one_way(&mut self.rng, self.world.trip);
        let turn = self.world.stall;
        if turn <= 0.0 {
            return at;
        }
        let busy = |at: f64| {
            let seed = self.world.seed.wrapping_mul(1000).wrapping_add((at / turn) as u64);
            (fastrand::Rng::with_seed(seed).f64() * 1.6 - 0.6).max(0.0)
        };
        let at = at + busy(at) * turn * self.rng.f64().powi(3);
        at.max(((at / turn).floor() + busy(at)) * turn)
    }

    fn answer(&mut self, now: f64, caller: usize, name: u64) {
        let ticket = self.tickets.remove(&name).unwrap();
        let (fits, observation) = self.answers.remove(&name).unwrap();
        let kind = if fits { AnswerKind::Accepted } else { AnswerKind::Throttled };
        self.bank.answered(mono(now), ticket, &Answer { kind, observation: &observation });
        self.out.answers.push((now, fits));
        for gate in self.bank.snapshot(mono(now)).gates {
            self.out.strangers = self.out.strangers.max(gate.strangers_per_second);
        }
        if fits {
            self.out.accepted += 1;
            if self.todo == 0 {
                return;
            }
            self.todo -= 1;
        } else {
            self.out.throttled += 1;
            if self.world.trace {
                let gates = self.bank.snapshot(mono(now)).gates;
                let states: Vec<_> = gates.iter().map(|gate| (gate.state, gate.closed_for_ms)).collect();
                eprintln!("throttled at {now:.4} after {}: {states:?} {observation:?}", self.out.accepted);
            }
        }
        self.ask(now, caller);
    }

    fn advance(&mut self, now: f64) {
        let mut woken = Vec::new();
        self.bank.advance(mono(now), &mut woken);
        for (waiter, woken) in woken {
            let caller = self.waiting.remove(&waiter).unwrap();
            match woken {
                Woken::Granted(ticket) => self.send(now, caller, ticket),
                Woken::Refused(refusal) => panic!("refused: {refusal:?}"),
            }
        }
        if let Some(wake) = self.bank.next_wake(mono(now)) {
            let at = wake.as_secs_f64();
            if at < self.woke {
                self.woke = at;
                self.agenda.push(at.max(now), What::Wake);
            }
        }
    }
}

/// A server that handles 50 at once, each for two to six round trips, 200 callers and more quota than they can use: the share of the cap
/// in use, and throttles per 100 accepted.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
pub(crate) fn capped(form: Form, trip: f64, requests: usize) -> (f64, f64) {
    let mut world = World::new(Rule::BucketFull, form, 0.0, 5);
    world.server = Server::new(Rule::BucketFull, 1_000_000, 5.0, 0.0);
    (world.cap, world.callers, world.trip, world.requests) = (Some(50), 200, trip, requests);
    let outcome = world.play(BankConfig::default());
    let fastest = requests as f64 * 4.0 * trip / 50.0;
    (fastest / outcome.makespan, 100.0 * outcome.throttled as f64 / outcome.accepted as f64)
}

/// Phases of the wall second that a cell is played at.
pub(crate) const PHASES: [f64; 5] = [0.0, 0.2, 0.4, 0.6, 0.8];

/// One rule, form, company, window and trip, over all phases.
#[derive(Debug)]
pub(crate) struct Cell {
    /// The median efficiency, and the lowest.
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    /// Throttles per 100 accepted, over all phases.
    pub(crate) throttles: f64,
}

impl Cell {
    /// 300 per `window` seconds, `trip` seconds away.
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    pub(crate) fn play(rule: Rule, form: Form, who: Who, (window, trip): (f64, f64)) -> Self {
        let mut efficiencies = Vec::new();
        let (mut accepted, mut refused) = (0, 0);
        for (seed, phase) in (1..).zip(PHASES) {
            let mut world = World::new(rule, form, phase, seed);
            world.server = Server::new(rule, 300, window, world.server.phase);
            (world.trip, world.who) = (trip, who.scaled(window));
            let outcome = world.play(BankConfig::default());
            efficiencies.push(world.ideal(&outcome.stranger_times) / outcome.makespan);
            accepted += outcome.accepted;
            refused += outcome.throttled;
        }
        efficiencies.sort_by(f64::total_cmp);
        let throttles = 100.0 * refused as f64 / accepted as f64;
        Self { median: efficiencies[PHASES.len() / 2], lowest: efficiencies[0], throttles }
    }
}
