//! A fleet, its store and a server, in virtual time, with somebody who wants it to go wrong.
//!
//! The world has one true time. Each process's clock begins somewhere else, the store's too. The adversary delays, loses and
//! repeats exchanges and their answers, cuts processes off the store, kills them and starts others.

#![allow(dead_code, reason = "each test uses its part")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "microseconds of a few minutes, and small counts"
)]

pub(crate) mod node;
pub(crate) mod server;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use fastrand::Rng;
use tidegate_core::share::{Exchange, Ledger, May, Reply, Unanswered};

use node::{Belief, Node};
use server::{Answer, Server, Us};

pub(crate) const MS: Us = 1_000;
pub(crate) const S: Us = 1_000_000;

/// What the adversary may do, as chances per exchange or per second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chaos {
    pub(crate) lose: f64,
    pub(crate) repeat: f64,
    pub(crate) late: f64,
    /// Kills per second in the whole fleet; each dead process is replaced after a second.
    pub(crate) kill: f64,
    /// Times per second that somebody is cut off the store for up to two leases.
    pub(crate) cut_off: f64,
    /// Attempts whose answer never comes.
    pub(crate) lost_attempts: f64,
    /// Times per second that the store's clock is set: see [`World::set_clock`].
    pub(crate) clock: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) seed: u64,
    pub(crate) nodes: u64,
    pub(crate) belief: Belief,
    /// What is wanted in all, in parts of the quota.
    pub(crate) demand: f64,
    /// Of all, how much of the demand the first has more than the last: Zipf's exponent.
    pub(crate) skew: f64,
    pub(crate) length: Us,
    pub(crate) chaos: Chaos,
    /// One way to the store and to the server, least and most.
    pub(crate) to_store: (Us, Us),
    pub(crate) to_server: (Us, Us),
    /// How long the server takes to answer when it has counted an attempt.
    pub(crate) answers: (Us, Us),
    /// Of the limit, what strangers draw, in bursts of up to a tenth of it.
    pub(crate) strangers: f64,
    /// Seconds by which the clocks of processes are set forward.
    pub(crate) clocks: u64,
    /// A second limit that each call passes, and what is believed of it.
    pub(crate) beside: Option<(Belief, Server)>,
}

#[derive(Clone, Debug)]
enum Event {
    Arrival(usize),
    Wake(usize),
    /// An attempt reaches the server, which answers; true: nobody hears it.
    Attempt(usize, Us, bool),
    Answered(usize, Us, Vec<Answer>),
    Lost(usize, Us),
    Store(usize, Box<Exchange>),
    Heard(usize, u64, Box<Result<Reply, Unanswered>>),
    GiveUp(usize, u64, u32),
    Kill,
    CutOff,
    SetClock,
    Stranger(u32),
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    pub(crate) calls: u64,
    pub(crate) throttled: u64,
    pub(crate) exchanges: u64,
    pub(crate) answered: u64,
    /// Accepted by the server, ours and strangers'.
    pub(crate) accepted: u64,
    pub(crate) strangers: u64,
    /// How often the store's clock was set.
    pub(crate) clocks: u64,
    pub(crate) trace: Vec<String>,
    /// Permits granted since the last [`World::remember`].
    pub(crate) granted: u64,
    /// Accepted in each window from the second on.
    pub(crate) per_window: Vec<u64>,
    /// The longest time in which calls of one process waited though it reaches the store and each limit had a quarter of its
    /// quota left, beside what others had in hand: (for how long, until when).
    pub(crate) longest_stall: (Us, Us),
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) server: Server,
    /// Of the second limit.
    beside: Option<Server>,
    /// The life of a state that was begun anew.
    life: Option<u64>,
    pub(crate) ledger: Ledger,
    pub(crate) nodes: Vec<Node>,
    pub(crate) told: Told,
    pub(crate) now: Us,
    events: BinaryHeap<Reverse<(Us, u64)>>,
    what: BTreeMap<u64, Event>,
    count: u64,
    pub(crate) rng: Rng,
    store_offset: Us,
    tracing: bool,
}

impl World {
    pub(crate) fn new(config: Config, server: Server) -> Self {
        let mut rng = Rng::with_seed(config.seed);
        let store_offset = 1_700_000_000_000_000 + rng.u64(0..1_000_000);
        let mut world = Self {
            ledger: Ledger::new(store_offset / 1_000, 1),
            server,
            beside: config.beside.as_ref().map(|(_, server)| server.clone()),
            life: None,
            nodes: Vec::new(),
            told: Told::default(),
            now: 0,
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            count: 0,
            rng,
            store_offset,
            tracing: false,
            config,
        };
        for index in 0..world.config.nodes {
            world.start(index);
        }
        let chaos = world.config.chaos;
        for (chance, event) in
            [(chaos.kill, Event::Kill), (chaos.cut_off, Event::CutOff), (chaos.clock, Event::SetClock)]
        {
            if chance > 0.0 {
                let at = world.exponential(chance);
                world.at(at, event);
            }
        }
        if world.config.strangers > 0.0 {
            world.next_stranger();
        }
        world
    }

    fn next_stranger(&mut self) {
        let most = (self.server.limit / 10).max(1);
        let burst = self.rng.u32(1..=most);
        let per_second =
            self.config.strangers * f64::from(self.server.limit) / (self.server.window as f64 / 1e6);
        let wait = self.exponential(per_second / (f64::from(most + 1) / 2.0));
        self.at(self.now + wait, Event::Stranger(burst));
    }

    fn start(&mut self, place: u64) {
        let skew = |index: u64| 1.0 / ((index + 1) as f64).powf(self.config.skew);
        let all: f64 = (0..self.config.nodes).map(skew).sum();
        let per_second =
            self.config.demand * f64::from(self.server.limit) / (self.server.window as f64 / 1e6);
        let rate = per_second * skew(place) / all;
        let offset = self.rng.u64(0..1_000) * S + self.config.clocks * (place + 1) * S;
        let id = self.rng.u64(..);
        let mut limits = vec![(self.server.limit, self.server.window, self.config.belief)];
        limits
            .extend(self.config.beside.as_ref().map(|(belief, other)| (other.limit, other.window, *belief)));
        let node = Node::new(id, rate, &limits, offset);
        self.nodes.push(node);
        let wait = self.exponential(rate);
        self.at(self.now + wait, Event::Arrival(self.nodes.len() - 1));
    }

    fn exponential(&mut self, per_second: f64) -> Us {
        let chance = self.rng.f64().max(1e-12);
        ((-chance.ln() / per_second) * 1e6) as Us
    }

    fn between(&mut self, (least, most): (Us, Us)) -> Us {
        self.rng.u64(least..=most)
    }

    pub(crate) fn store_time(&self) -> u64 {
        (self.now + self.store_offset) / 1_000
    }

    fn at(&mut self, at: Us, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count)));
        self.what.insert(self.count, event);
    }

    fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.tracing {
            let line = format!("{:>10.3} ms {}", self.now as f64 / 1e3, what(self));
            self.told.trace.push(line);
        }
    }

    /// Runs to the end of the configuration's length.
    pub(crate) fn run(&mut self) {
        self.run_to(self.config.length);
    }

    pub(crate) fn run_to(&mut self, end: Us) {
        while let Some(&Reverse((at, id))) = self.events.peek() {
            if at > end {
                break;
            }
            self.events.pop();
            self.now = at;
            let event = self.what.remove(&id).expect("each event has something to do");
            self.look_for_stalls();
            self.happen(event);
        }
        self.now = end;
    }

    /// Which processes could send and do not, and for how long.
    fn look_for_stalls(&mut self) {
        let now = self.now;
        let in_hand = |nodes: &[Node], limit| nodes.iter().map(|node| node.unspent(now, limit)).sum::<u32>();
        let servers = std::iter::once(&mut self.server).chain(&mut self.beside).enumerate();
        let mut left = servers.map(|(limit, server)| {
            server.room(now) >= in_hand(&self.nodes, limit) + server.limit.div_ceil(4)
        });
        let roomy = left.all(|left| left) && self.all_have_told();
        for node in &mut self.nodes {
            let could = roomy && node.alive && node.cut_off <= now && !node.waiting.is_empty();
            node.could_since = if could { node.could_since.or(Some(now)) } else { None };
            let stall = node.could_since.map_or(0, |since| now - since);
            self.told.longest_stall = self.told.longest_stall.max((stall, now));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(node) => {
                if self.nodes[node].alive {
                    self.nodes[node].arrive(self.now);
                    let wait = self.exponential(self.nodes[node].rate);
                    self.at(self.now + wait, Event::Arrival(node));
                    self.look(node);
                }
            }
            Event::Wake(node) => {
                if self.nodes[node].wake <= self.now {
                    self.nodes[node].wake = Us::MAX;
                    self.look(node);
                }
            }
            Event::Attempt(node, sent, lost) => self.attempt(node, sent, lost),
            Event::Answered(node, sent, answers) => {
                if self.nodes[node].alive {
                    self.told.answered += 1;
                    self.nodes[node].answered(self.now, sent, &answers);
                    self.note(|_| format!("node {node} hears {answers:?}"));
                    self.look(node);
                }
            }
            Event::Lost(node, sent) => {
                if self.nodes[node].alive {
                    self.nodes[node].lost(self.now, sent);
                    self.look(node);
                }
            }
            Event::Store(node, said) => self.store(node, &said),
            Event::Heard(node, seq, reply) => self.heard(node, seq, *reply),
            Event::GiveUp(node, seq, copy) => self.give_up(node, seq, copy),
            Event::Kill => self.kill(),
            Event::CutOff => {
                let node = self.rng.usize(0..self.nodes.len());
                self.nodes[node].cut_off = self.now + self.rng.u64(0..2 * self.server.window / 8);
                let wait = self.exponential(self.config.chaos.cut_off);
                self.at(self.now + wait, Event::CutOff);
            }
            Event::SetClock => {
                self.set_clock();
                let wait = self.exponential(self.config.chaos.clock);
                self.at(self.now + wait, Event::SetClock);
            }
            Event::Stranger(burst) => {
                for _ in 0..burst {
                    if self.server.handle(self.now).accepted {
                        self.told.strangers += 1;
                        self.count_accepted();
                    }
                }
                self.note(|_| format!("strangers took up to {burst}"));
                self.next_stranger();
            }
        }
    }

    fn count_accepted(&mut self) {
        self.told.accepted += 1;
        let window = usize::try_from(self.now / self.server.window).unwrap();
        if self.told.per_window.len() <= window {
            self.told.per_window.resize(window + 1, 0);
        }
        self.told.per_window[window] += 1;
    }

    /// A process is gone, with all that it has.
    pub(crate) fn dies(&mut self, node: usize) {
        self.nodes[node].alive = false;
        self.note(|_| format!("node {node} dies"));
    }

    /// Back by more than a second, or ahead by more than a store can be stopped for.
    pub(crate) fn set_clock(&mut self) {
        let far = if self.rng.bool() { 60 * S } else { 3_600 * S };
        if self.rng.bool() {
            self.store_offset -= self.rng.u64(1_100 * MS..far);
        } else {
            self.store_offset += self.rng.u64(20 * S..far);
        }
        self.told.clocks += 1;
        self.note(|_| "the store's clock is set".to_owned());
    }

    fn kill(&mut self) {
        let alive: Vec<usize> = (0..self.nodes.len()).filter(|&node| self.nodes[node].alive).collect();
        if let Some(&node) = alive.get(self.rng.usize(0..alive.len().max(1))) {
            self.dies(node);
            self.start(u64::try_from(node).unwrap() % self.config.nodes);
        }
        let wait = self.exponential(self.config.chaos.kill);
        self.at(self.now + wait, Event::Kill);
    }

    fn attempt(&mut self, node: usize, sent: Us, lost: bool) {
        let now = self.now;
        let room = self.server.room(now) > 0 && self.beside.as_mut().is_none_or(|other| other.room(now) > 0);
        let mut answers = vec![self.server.handle_if(now, room)];
        answers.extend(self.beside.as_mut().map(|other| other.handle_if(now, room)));
        if room {
            self.count_accepted();
        } else {
            self.told.throttled += 1;
            self.note(|world| format!("THROTTLED node {node}: {:?}", world.ledger.view(world.store_time())));
        }
        self.note(|_| format!("server handles node {node}: {answers:?}"));
        let back = self.between(self.config.to_server) + self.between(self.config.answers);
        if !lost {
            self.at(self.now + back, Event::Answered(node, sent, answers));
        }
    }

    /// Sends what may leave, begins the exchange that is due, and sets the alarm for the rest.
    pub(crate) fn look(&mut self, node: usize) {
        if !self.nodes[node].alive {
            return;
        }
        let mut wake = Us::MAX;
        loop {
            match self.nodes[node].may(self.now) {
                May::Now => self.send(node),
                May::At(at) => {
                    wake = self.nodes[node].us(at).max(self.now + 1);
                    break;
                }
                May::Event => break,
            }
        }
        if self.nodes[node].under_way.is_none() {
            match self.nodes[node].due(self.now) {
                Some(at) if at <= self.now => self.exchange(node),
                Some(at) => wake = wake.min(at),
                None => {}
            }
        }
        if wake < self.nodes[node].wake {
            self.nodes[node].wake = wake;
            self.at(wake, Event::Wake(node));
        }
    }

    fn send(&mut self, node: usize) {
        self.nodes[node].leave(self.now);
        self.told.calls += 1;
        let there = self.between(self.config.to_server);
        let lost = self.rng.f64() < self.config.chaos.lost_attempts;
        if lost {
            // Not before the server has handled it.
            let patience = (2 * self.config.to_server.1).max(300 * MS);
            self.at(self.now + patience, Event::Lost(node, self.now));
            if self.rng.bool() {
                return;
            }
        }
        self.at(self.now + there, Event::Attempt(node, self.now, lost));
    }

    fn exchange(&mut self, node: usize) {
        let said = self.nodes[node].say(self.now);
        self.note(|_| format!("node {node} says {:?} {:?}", said.limits, said.asks[0]));
        self.told.exchanges += 1;
        self.nodes[node].under_way = Some((said.clone(), self.now, 0));
        self.transmit(node, &said, 0);
    }

    fn transmit(&mut self, node: usize, said: &Exchange, copy: u32) {
        let seq = said.seq;
        let copies = if self.rng.f64() < self.config.chaos.repeat { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.f64() >= self.config.chaos.lose {
                let mut wait = self.between(self.config.to_store);
                if self.rng.f64() < self.config.chaos.late {
                    wait += self.rng.u64(0..2 * S);
                }
                self.at(self.now + wait, Event::Store(node, Box::new(said.clone())));
            }
        }
        self.at(self.now + 50 * MS, Event::GiveUp(node, seq, copy));
    }

    fn store(&mut self, node: usize, said: &Exchange) {
        let reply = self.ledger.exchange(self.store_time(), said);
        if let Ok(reply) = &reply {
            self.told.granted += u64::from(reply.grants[0].permits);
        }
        self.note(|world| {
            format!(
                "store answers node {node} seq {}: {reply:?} {:?}",
                said.seq,
                world.ledger.view(world.store_time())
            )
        });
        if self.rng.f64() >= self.config.chaos.lose {
            let mut wait = self.between(self.config.to_store);
            if self.rng.f64() < self.config.chaos.late {
                wait += self.rng.u64(0..2 * S);
            }
            self.at(self.now + wait, Event::Heard(node, said.seq, Box::new(reply)));
        }
    }

    fn heard(&mut self, node: usize, seq: u64, reply: Result<Reply, Unanswered>) {
        let awaited = self.nodes[node].under_way.as_ref().is_some_and(|(said, ..)| said.seq == seq);
        if !self.nodes[node].alive || !awaited {
            return;
        }
        let Ok(reply) = reply else { return };
        self.nodes[node].hear(self.now, &reply);
        self.look(node);
    }

    fn give_up(&mut self, node: usize, seq: u64, copy: u32) {
        let alive = self.nodes[node].alive;
        let Some((said, _, latest)) = &mut self.nodes[node].under_way else { return };
        if said.seq != seq || *latest != copy || !alive {
            return;
        }
        *latest += 1;
        let (said, copy) = (said.clone(), *latest);
        if self.nodes[node].cut_off > self.now {
            self.at(self.nodes[node].cut_off, Event::GiveUp(node, seq, copy));
        } else {
            self.transmit(node, &said, copy);
        }
    }

    /// The store's state now, to be restored later.
    pub(crate) fn remember(&mut self) -> Ledger {
        self.told.granted = 0;
        self.ledger.clone()
    }

    /// The store comes back with nothing.
    pub(crate) fn forget(&mut self) {
        let life = 99;
        self.ledger = Ledger::new(self.store_time(), life);
        self.life = Some(life);
    }

    /// All that had spoken to a state that is lost have told what they know: before, more than a part of what is there may be
    /// theirs.
    fn all_have_told(&self) -> bool {
        let owes = |node: &Node| node.alive && node.incarnation.is_some() && node.incarnation != self.life;
        self.life.is_none() || !self.nodes.iter().any(owes)
    }

    /// Part of what the server could give in the windows that are complete, the first left out.
    pub(crate) fn use_of_quota(&self) -> f64 {
        let complete = usize::try_from(self.now / self.server.window).unwrap();
        let windows = &self.told.per_window[1.min(complete)..complete.min(self.told.per_window.len())];
        let used: u64 = windows.iter().sum();
        used as f64 / (complete.max(2) - 1) as f64 / f64::from(self.server.limit)
    }
}
