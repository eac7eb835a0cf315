//! The event loop: callers, network, tokens, server, and a strategy in each instance.
//!
//! One call has at most one attempt under way. An attempt goes: *leave* (token attached) → *arrive* (the server draws its
//! latency) → *decide* (the server counts and executes) → *deliver* (the server is done with it) → *answer* (the strategy
//! hears of it). The server's clock is the run's clock; what differs between strategies is only when attempts leave.

mod attempt;
mod login;

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::time::Mono;
use tidegate_sim::model::world::World;

use crate::call::{CallId, CallInfo, End};
use crate::error::LabError;
use crate::feed::Feed;
use crate::headline::Headline;
use crate::measure::Outcome;
use crate::network::Network;
use crate::outage::outages;
use crate::plan::{Plan, Stream};
use crate::queue::Queue;
use crate::store::FleetStore;
use crate::strategy::{Briefing, Order, Orders, Strategy, StrategyName};
use crate::tape::Tape;
use crate::wallet::Purse;
use attempt::Open;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The callers of a closed loop begin.
    Callers { instance: usize, load: usize },
    /// A call arrives by itself.
    Arrival { instance: usize, load: usize },
    /// A strategy asked to be woken.
    Wake { instance: usize },
    /// An attempt arrives at the server.
    Arrive(CallId),
    /// The server decides it.
    Decide(CallId),
    /// The server is done with it.
    Deliver(CallId),
    /// The client has its answer.
    Answer(CallId),
    /// The next step of a login.
    Login { instance: usize, purse: usize, step: login::Step },
}

/// One process.
struct Instance {
    strategy: Box<dyn Strategy>,
    feeds: Vec<Feed>,
    /// Which loads can still give calls.
    live: Vec<bool>,
    purses: Vec<Purse>,
    /// Which purse a load uses.
    purse_of: Vec<usize>,
    /// The wake-up that is in the queue.
    due: Duration,
    /// Wake-ups in a row that led to nothing.
    idle_wakes: u32,
}

/// A run under way.
struct Engine<'p, 's> {
    plan: &'p Plan<'s>,
    name: StrategyName,
    now: Duration,
    queue: Queue<Event>,
    world: World,
    network: Network,
    instances: Vec<Instance>,
    calls: Vec<Option<Open>>,
    free: Vec<CallId>,
    open: usize,
    /// Loads that can still give calls, over all instances.
    live: usize,
    /// Calls begun, which names each for the whole run.
    begun: u64,
    orders: Orders,
    outcome: Outcome,
    /// When the last brown-out ends.
    recovers: Option<Duration>,
}

/// Idle wake-ups in a row after which a strategy is taken for stuck.
const MOST_IDLE_WAKES: u32 = 1_000_000;
/// A wake-up asked for at its own instant comes this much later, so that time passes.
const GRAIN: Duration = Duration::from_micros(1);

/// Plays a plan under one strategy to its end.
pub(crate) fn play(plan: &Plan<'_>, name: StrategyName) -> Result<Outcome, LabError> {
    let mut engine = Engine::new(plan, name);
    engine.start();
    while engine.live > 0 || engine.open > 0 {
        let Some((at, event)) = engine.queue.pop() else { break };
        if at > plan.horizon {
            engine.now = plan.horizon;
            break;
        }
        engine.now = at;
        engine.handle(event)?;
    }
    Ok(engine.finish())
}

/// An instant of the run as the core writes it.
fn mono(at: Duration) -> Mono {
    Mono::ZERO + at
}

impl<'p, 's> Engine<'p, 's> {
    fn new(plan: &'p Plan<'s>, name: StrategyName) -> Self {
        let fleet = plan.fleet();
        let store = fleet.quota.is_shared().then(|| Arc::new(FleetStore::new(&fleet.quota)));
        let instances = (0..fleet.instances as usize)
            .map(|index| Self::instance(plan, name, index, store.as_ref()))
            .collect();
        Self {
            plan,
            name,
            now: Duration::ZERO,
            queue: Queue::new(),
            world: World::new(plan.server.clone(), plan.wall),
            network: Network::new(fleet.rtt, plan.rng(Stream::Network, 0)),
            instances,
            calls: Vec::new(),
            free: Vec::new(),
            open: 0,
            live: fleet.instances as usize * fleet.load.len(),
            begun: 0,
            orders: Orders::default(),
            outcome: Outcome::new(name, Tape::new(Headline::of(plan)), fleet.settle),
            recovers: outages(&plan.server).iter().map(|outage| outage.to).max(),
        }
    }

    fn instance(
        plan: &Plan<'_>,
        name: StrategyName,
        index: usize,
        store: Option<&Arc<FleetStore>>,
    ) -> Instance {
        let loads = 0..plan.fleet().load.len();
        let mut purses: Vec<Purse> = Vec::new();
        let mut purse_of = Vec::new();
        for load in loads.clone() {
            let id = plan.credential(index, load);
            let purse = purses.iter().position(|purse| purse.id() == id).unwrap_or_else(|| {
                let clients = &plan.server.oauth.clients;
                let client = clients.iter().find(|client| client.id == id).cloned().unwrap_or_default();
                purses.push(Purse::new(client));
                purses.len() - 1
            });
            purse_of.push(purse);
        }
        Instance {
            strategy: name.build(&Briefing { plan, instance: index, store }),
            feeds: loads.clone().map(|load| plan.feed(index, load)).collect(),
            live: loads.map(|_| true).collect(),
            purses,
            purse_of,
            due: Duration::MAX,
            idle_wakes: 0,
        }
    }

    fn start(&mut self) {
        for instance in 0..self.instances.len() {
            for purse in 0..self.instances[instance].purses.len() {
                self.login_before_the_start(instance, purse);
            }
            for load in 0..self.instances[instance].feeds.len() {
                if self.plan.load(load).rate.is_some() {
                    self.await_arrival(instance, load);
                } else {
                    let from = self.instances[instance].feeds[load].from();
                    self.queue.push(from, Event::Callers { instance, load });
                }
            }
            // One that has no call for long makes itself known to the others all the same.
            self.rearm(instance);
        }
    }

    /// Lets the strangers do what was due, and writes it down. Goes before every decision of the server, which would let them
    /// do it unseen.
    fn catch_up(&mut self) {
        let tape = &mut self.outcome.tape;
        self.world.catch_up(self.now, |at, caller, admitted| tape.stranger(at, caller, admitted));
    }

    fn handle(&mut self, event: Event) -> Result<(), LabError> {
        match event {
            Event::Callers { instance, load } => {
                for _ in 0..self.plan.load(load).callers {
                    self.next_call(instance, load);
                }
                self.carry_out(instance);
            }
            Event::Arrival { instance, load } => {
                self.next_call(instance, load);
                self.await_arrival(instance, load);
                self.carry_out(instance);
            }
            Event::Wake { instance } => self.wake(instance)?,
            Event::Arrive(call) => self.arrive(call),
            Event::Decide(call) => self.decide(call),
            Event::Deliver(call) => self.deliver(call),
            Event::Answer(call) => self.answer(call),
            Event::Login { instance, purse, step } => self.login(instance, purse, step),
        }
        Ok(())
    }

    fn await_arrival(&mut self, instance: usize, load: usize) {
        match self.instances[instance].feeds[load].next_arrival() {
            Some(at) => self.queue.push(at, Event::Arrival { instance, load }),
            None => self.exhausted(instance, load),
        }
    }

    fn exhausted(&mut self, instance: usize, load: usize) {
        if std::mem::take(&mut self.instances[instance].live[load]) {
            self.live -= 1;
        }
    }

    /// Begins the next call of a load, if there is one. The strategy's orders are carried out by the caller.
    fn next_call(&mut self, instance: usize, load: usize) {
        let Some(n) = self.instances[instance].feeds[load].take(self.now) else {
            self.exhausted(instance, load);
            return;
        };
        let route = self.plan.route(load, n);
        let spec = self.plan.load(load);
        let id = self.free.pop().unwrap_or_else(|| {
            self.calls.push(None);
            CallId(u32::try_from(self.calls.len() - 1).unwrap_or(u32::MAX))
        });
        let info = CallInfo {
            id,
            path: route.path(self.plan.user(instance, n)).into(),
            route: Arc::clone(route),
            credential: tidegate_core::key::CredentialId::new(self.plan.credential(instance, load)),
            class: spec.class,
            caller: tidegate_core::pace::CallerId::named(load),
            deadline: spec.deadline.map(|deadline| mono(self.now + deadline)),
        };
        self.begun += 1;
        self.open += 1;
        self.outcome.calls += 1;
        let open = Open::new(info, instance, load, self.now, self.begun);
        self.instances[instance].strategy.begin(mono(self.now), &open.info, &mut self.orders);
        self.calls[id.0 as usize] = Some(open);
    }

    /// Does what an instance's strategy ordered, and what comes of that, until it orders nothing more.
    fn carry_out(&mut self, instance: usize) {
        while let Some(order) = self.orders.pop() {
            self.instances[instance].idle_wakes = 0;
            match order {
                Order::Send(call) => self.leave(call),
                Order::End(call, end) => self.end(call, end),
            }
        }
        self.rearm(instance);
    }

    fn end(&mut self, id: CallId, end: End) {
        let Some(call) = self.calls[id.0 as usize].take() else { return };
        self.free.push(id);
        self.open -= 1;
        let spec = self.plan.load(call.load);
        self.outcome.ended(self.now, &call.summary(), end, spec.is_job());
        if spec.rate.is_none() {
            self.next_call(call.instance, call.load);
        }
    }

    fn rearm(&mut self, instance: usize) {
        let state = &mut self.instances[instance];
        let Some(at) = state.strategy.next_wake(mono(self.now)) else { return };
        let mut at = Duration::from_nanos(at.as_nanos());
        if at <= self.now {
            at = self.now + GRAIN;
        }
        if at < state.due {
            state.due = at;
            self.queue.push(at, Event::Wake { instance });
        }
    }

    fn wake(&mut self, instance: usize) -> Result<(), LabError> {
        let state = &mut self.instances[instance];
        if state.due != self.now {
            return Ok(());
        }
        state.due = Duration::MAX;
        state.idle_wakes += 1;
        if state.idle_wakes > MOST_IDLE_WAKES {
            return Err(LabError::Stuck { strategy: self.name.name(), at: self.now });
        }
        state.strategy.wake(mono(self.now), &mut self.orders);
        self.carry_out(instance);
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        self.catch_up();
        let untaken: u64 = self.instances.iter().flat_map(|one| &one.feeds).map(Feed::left).sum();
        let mismatches = self.instances.iter().map(|one| one.strategy.hint_mismatches()).sum();
        let jobs = self.plan.fleet().load.iter().enumerate().filter(|(_, load)| load.is_job());
        let job_left = jobs.map(|(index, _)| {
            let of_load = self.calls.iter().flatten().filter(|call| call.load == index).count() as u64;
            of_load + self.instances.iter().map(|one| one.feeds[index].left()).sum::<u64>()
        });
        self.outcome.job_left = job_left.sum();
        self.outcome.unfinished = self.open as u64 + untaken;
        let late = |call: &&Open| call.info.deadline.is_some_and(|deadline| deadline < mono(self.now));
        self.outcome.late += self.calls.iter().flatten().filter(late).count() as u64;
        self.outcome.hint_mismatches = mismatches;
        self.outcome.records =
            self.instances.iter().filter_map(|one| one.strategy.record().cloned()).collect();
        self.outcome.ended_at = self.now;
        self.outcome.judge(&self.world.stats(self.now, false));
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ideal::ideal;
    use crate::scenario::Scenario;
    use crate::tape::Kind;

    /// The lab's own record and the simulator's books are kept apart; they must agree.
    #[test]
    fn the_record_agrees_with_the_judge() {
        let scenario = Scenario::from_toml(
            "duration = \"30s\"\n[server]\nlimit = 30\nwindow = \"3s\"\nlatency = \"10ms..40ms\"\n[[server.strangers]]\nrate = 4.0\nburst = 9\nirregular = true\n[fleet]\ninstances = 2\nrtt = \"10ms..30ms\"\n[[fleet.load]]\ncallers = 5\n",
        )
        .unwrap();
        let plan = Plan::new(&scenario, None).unwrap();
        for name in StrategyName::ALL {
            let outcome = play(&plan, name).unwrap();
            let count = |kind| outcome.tape.marks.iter().filter(|mark| mark.kind == kind).count() as u64;
            let measures = outcome.measures(&plan, &ideal(&plan, &plan.leaves(name), &outcome.tape));
            assert_eq!(count(Kind::OwnThrottled), measures.throttles, "{name}");
            assert_eq!(count(Kind::StrangerThrottled), measures.strangers_throttled, "{name}");
            assert_eq!(count(Kind::Stranger), measures.strangers, "{name}");
            assert!(outcome.tape.marks.is_sorted_by_key(|mark| mark.at), "{name}");
        }
    }
}
