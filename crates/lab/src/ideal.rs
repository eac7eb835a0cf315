//! The best that anybody could have done: the same callers against a server that lets early calls wait at its door.
//!
//! Full knowledge of the server's rules, caps and brown-outs stands in for pacing: a call that would be refused is admitted at
//! the very instant at which it first can be. Nobody is faster at the same latencies, and nothing here knows the core.
//!
//! Rules:
//! * a greedy class leaves strangers nothing by its own will: they get what they took in the run that is being judged, at their
//!   own times or, where the ideal has taken the last unit by then, before anybody else as soon as there is one;
//! * a fair class, and a reserve, leave what [`crate::leave`] says; the strangers then make all the calls that they made in the
//!   run, at their own times, whether they were admitted there or not;
//! * chance faults are left out: the ideal is what the quota allows, and what they cost is part of what is measured;
//! * calls are admitted in the order in which they came, whatever their class. With several loads a strategy that lets the
//!   others wait can therefore finish the job before the ideal does.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tidegate_sim::model::concurrency::{Caps, Held};
use tidegate_sim::model::limits::Limits;
use tidegate_sim::model::route::{Caller, Per};

use crate::feed::Feed;
use crate::leave::{Leave, fair_share};
use crate::network::Network;
use crate::outage::{Latency, Outage, outages};
use crate::plan::{Plan, Stream};
use crate::queue::Queue;
use crate::tape::{Tape, Visit};

/// What was possible.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ideal {
    /// Calls answered until the horizon.
    pub(crate) succeeded: u64,
    /// The part of them answered since [`Fleet::settle`](crate::fleet::Fleet::settle).
    pub(crate) settled: u64,
    /// When each call of the jobs was answered, counted from their begin, in order.
    pub(crate) job_times: Vec<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Callers {
        instance: usize,
        load: usize,
    },
    Arrival {
        instance: usize,
        load: usize,
    },
    /// A call is where the server decides.
    Decide(usize),
    /// The first of a lane may pass.
    Pass(usize),
    /// The server is done with a call.
    Free(usize),
    /// The client has the answer.
    Done(usize),
    /// A stranger calls.
    Stranger(usize),
}

/// A call under way.
#[derive(Debug)]
struct Flight {
    instance: usize,
    load: usize,
    lane: usize,
    /// From the decision to its end.
    after: Duration,
    held: Option<Held>,
}

/// Calls that any limit treats alike, waiting at the server's door.
#[derive(Debug)]
struct Lane {
    caller: Caller,
    stranger: bool,
    leave: Leave,
    parked: VecDeque<usize>,
    /// The wake-up in the queue.
    wake: Option<Duration>,
    /// Its first waits for a place under a cap.
    capped: bool,
}

struct Best<'p, 's> {
    plan: &'p Plan<'s>,
    now: Duration,
    queue: Queue<Event>,
    limits: Limits,
    caps: Caps,
    outages: Vec<Outage>,
    latency: Latency,
    network: Network,
    rng: fastrand::Rng,
    feeds: Vec<Vec<Feed>>,
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    lanes: Vec<Lane>,
    lane_of: HashMap<(usize, usize, usize), usize>,
    strangers: usize,
    /// Whether some limit tells tokens apart, so that instances cannot share a lane.
    per_token: bool,
    leaves: &'p [Leave],
    /// The strangers' calls: where a class is fair all of them, else those that were admitted.
    visits: Vec<Visit>,
    /// Those still to come that a fair class leaves a unit.
    due: VecDeque<Visit>,
    open: usize,
    /// Which loads can still give calls, and how many.
    live: Vec<Vec<bool>>,
    alive: usize,
    /// Lanes whose first waits for a place under a cap.
    capped: Vec<usize>,
    found: Ideal,
}

/// The ideal of a run: the plan, what each of its loads leaves to others, and what the strangers did in it.
pub(crate) fn ideal(plan: &Plan<'_>, leaves: &[Leave], tape: &Tape) -> Ideal {
    let mut best = Best::new(plan, leaves, tape);
    best.start();
    while best.alive > 0 || best.open > 0 {
        let Some((at, event)) = best.queue.pop() else { break };
        if at > plan.horizon {
            break;
        }
        best.now = at;
        best.handle(event);
    }
    best.found
}

impl<'p, 's> Best<'p, 's> {
    fn new(plan: &'p Plan<'s>, leaves: &'p [Leave], tape: &Tape) -> Self {
        let rules = plan.server.limit_rules();
        let caps = plan.server.cap_rules();
        let mut by_token = rules.iter().map(|rule| &rule.per).chain(caps.iter().map(|rule| &rule.per));
        let per_token = by_token.any(|per| per.contains(&Per::Token));
        let fleet = plan.fleet();
        let instances = fleet.instances as usize;
        let feeds =
            (0..instances).map(|one| (0..fleet.load.len()).map(|load| plan.feed(one, load)).collect());
        let strangers = tape.callers.iter().map(|caller| Lane::new(caller.clone(), None)).collect::<Vec<_>>();
        let fair = leaves.iter().any(|leave| leave.fair);
        let due = if fair { fair_share(&plan.server, tape) } else { Vec::new() };
        Self {
            plan,
            now: Duration::ZERO,
            queue: Queue::new(),
            per_token,
            limits: Limits::new(rules, None),
            caps: Caps::new(caps),
            outages: outages(&plan.server),
            latency: Latency::of(&plan.server),
            network: Network::new(fleet.rtt, plan.rng(Stream::Ideal, 0)),
            rng: plan.rng(Stream::Ideal, 1),
            feeds: feeds.collect(),
            flights: Vec::new(),
            free: Vec::new(),
            strangers: strangers.len(),
            lanes: strangers,
            lane_of: HashMap::new(),
            leaves,
            visits: tape.visits.iter().filter(|visit| fair || visit.admitted).copied().collect(),
            due: due.into(),
            open: 0,
            live: vec![vec![true; fleet.load.len()]; instances],
            alive: instances * fleet.load.len(),
            capped: Vec::new(),
            found: Ideal::default(),
        }
    }

    fn start(&mut self) {
        if let Some(visit) = self.visits.first() {
            self.queue.push(visit.at, Event::Stranger(0));
        }
        for instance in 0..self.feeds.len() {
            for load in 0..self.feeds[instance].len() {
                if self.plan.load(load).rate.is_some() {
                    self.await_arrival(instance, load);
                } else {
                    self.queue.push(self.feeds[instance][load].from(), Event::Callers { instance, load });
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Callers { instance, load } => {
                // Every caller begins one call, and each of these its next when it is done.
                let mut idle = self.plan.load(load).callers;
                while idle > 0 && self.begin(instance, load) {
                    idle -= 1;
                }
            }
            Event::Arrival { instance, load } => {
                self.begin(instance, load);
                self.await_arrival(instance, load);
            }
            Event::Decide(flight) => {
                let lane = self.flight(flight).lane;
                self.lanes[lane].parked.push_back(flight);
                self.serve(lane);
            }
            Event::Pass(lane) => {
                if self.lanes[lane].wake == Some(self.now) {
                    self.lanes[lane].wake = None;
                    self.serve(lane);
                }
            }
            Event::Free(flight) => self.freed(flight),
            Event::Done(flight) => self.done(flight),
            Event::Stranger(index) => self.visited(index),
        }
    }

    /// A stranger calls: it takes a unit if there is one. Of greedy classes it gets one later, if it got one in the run.
    fn visited(&mut self, index: usize) {
        let visit = self.visits[index];
        if self.leaves.iter().any(|leave| leave.fair) {
            self.limits.admit(self.now, &self.lanes[visit.caller].caller);
            let this = |due: &Visit| (due.at, due.caller) == (visit.at, visit.caller);
            if self.due.front().is_some_and(this) {
                self.due.pop_front();
            }
        } else {
            self.lanes[visit.caller].parked.push_back(index);
            self.pass(visit.caller);
        }
        if let Some(next) = self.visits.get(index + 1) {
            self.queue.push(next.at, Event::Stranger(index + 1));
        }
    }

    fn flight(&mut self, flight: usize) -> &mut Flight {
        self.flights[flight].as_mut().expect("events of a flight come while it is under way")
    }

    fn await_arrival(&mut self, instance: usize, load: usize) {
        match self.feeds[instance][load].next_arrival() {
            Some(at) => self.queue.push(at, Event::Arrival { instance, load }),
            None => self.exhausted(instance, load),
        }
    }

    fn exhausted(&mut self, instance: usize, load: usize) {
        if std::mem::take(&mut self.live[instance][load]) {
            self.alive -= 1;
        }
    }

    /// Begins the next call of a load; false if there is none.
    fn begin(&mut self, instance: usize, load: usize) -> bool {
        let Some(n) = self.feeds[instance][load].take(self.now) else {
            self.exhausted(instance, load);
            return false;
        };
        let total = self.latency.at(self.now).draw(&mut self.rng);
        let before = total.mul_f64(self.plan.server.decide_at);
        let lane = self.lane(instance, load, n);
        let flight = Flight { instance, load, lane, after: total.saturating_sub(before), held: None };
        let id = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() - 1
        });
        self.flights[id] = Some(flight);
        self.open += 1;
        let way = self.network.one_way();
        self.queue.push(self.now + way + before, Event::Decide(id));
        true
    }

    fn lane(&mut self, instance: usize, load: usize, n: u64) -> usize {
        let plan = self.plan;
        let kind = usize::try_from(n % plan.routes[load].len() as u64).unwrap_or(0);
        let clients = plan.fleet().credentials.len();
        let who = if self.per_token { instance } else { instance % clients };
        *self.lane_of.entry((who, load, kind)).or_insert_with(|| {
            let route = &plan.routes[load][kind];
            let token = format!("instance-{who}");
            let credential = plan.credential(instance, load);
            let caller = Caller::new(&token, credential, route.method.as_str(), &route.path(0));
            self.lanes.push(Lane::new(caller, Some(self.leaves[load])));
            self.lanes.len() - 1
        })
    }

    /// Strangers first, then the lane.
    fn serve(&mut self, lane: usize) {
        for stranger in 0..self.strangers {
            self.pass(stranger);
        }
        self.pass(lane);
    }

    /// Lets pass who can.
    fn pass(&mut self, lane: usize) {
        while let Some(&first) = self.lanes[lane].parked.front() {
            match self.admit(lane) {
                Ok(held) => {
                    self.lanes[lane].parked.pop_front();
                    if !self.lanes[lane].stranger {
                        let flight = self.flight(first);
                        flight.held = Some(held);
                        let end = flight.after;
                        self.queue.push(self.now + end, Event::Free(first));
                    }
                }
                Err(Some(at)) => return self.wake(lane, at),
                Err(None) => {
                    if !std::mem::replace(&mut self.lanes[lane].capped, true) {
                        self.capped.push(lane);
                    }
                    return;
                }
            }
        }
    }

    /// Admits the first of a lane, or says when that is possible; `None`: when a place is free.
    fn admit(&mut self, lane: usize) -> Result<Held, Option<Duration>> {
        let Lane { caller, stranger, .. } = &self.lanes[lane];
        let held = if *stranger {
            Held::default()
        } else {
            let shut = |outage: &&Outage| {
                outage.from <= self.now
                    && self.now < outage.to
                    && outage.route.matches(&caller.method, &caller.path)
            };
            if let Some(outage) = self.outages.iter().find(shut) {
                return Err(Some(outage.to));
            }
            self.caps.acquire(caller).map_err(|_| None)?
        };
        let wait = match self.must_leave(lane) {
            Some(wait) => wait,
            None => match self.limits.admit(self.now, &self.lanes[lane].caller).refusal {
                None => return Ok(held),
                Some(refusal) => refusal.retry_after.max(Duration::from_nanos(1)),
            },
        };
        self.caps.release(held);
        Err(Some(self.now + wait))
    }

    /// How long the first of a lane looks away, if its class leaves the next unit to others.
    fn must_leave(&mut self, lane: usize) -> Option<Duration> {
        let Lane { caller, leave, .. } = &self.lanes[lane];
        let callers = |visit: &Visit| &self.lanes[visit.caller].caller;
        leave.must_wait(self.now, &mut self.limits, caller, &self.due, callers)
    }

    fn wake(&mut self, lane: usize, at: Duration) {
        let wake = &mut self.lanes[lane].wake;
        if wake.is_none_or(|wake| at < wake) {
            *wake = Some(at);
            self.queue.push(at, Event::Pass(lane));
        }
    }

    fn freed(&mut self, flight: usize) {
        let way = self.network.one_way();
        if let Some(held) = self.flight(flight).held.take() {
            self.caps.release(held);
        }
        self.queue.push(self.now + way, Event::Done(flight));
        for lane in std::mem::take(&mut self.capped) {
            self.lanes[lane].capped = false;
            self.serve(lane);
        }
    }

    fn done(&mut self, id: usize) {
        let Some(flight) = self.flights[id].take() else { return };
        self.free.push(id);
        self.open -= 1;
        self.found.succeeded += 1;
        self.found.settled += u64::from(self.plan.fleet().settle.is_some_and(|since| self.now >= since));
        let spec = self.plan.load(flight.load);
        if spec.is_job() {
            let since = self.now.saturating_sub(self.plan.jobs_begin().unwrap_or_default());
            self.found.job_times.push(since);
        }
        if spec.rate.is_none() {
            self.begin(flight.instance, flight.load);
        }
    }
}

impl Lane {
    /// `leave` is what one of ours leaves to others, nothing for a stranger's.
    fn new(caller: Caller, leave: Option<Leave>) -> Self {
        let (stranger, leave) = (leave.is_none(), leave.unwrap_or_default());
        Self { caller, stranger, leave, parked: VecDeque::new(), wake: None, capped: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_sim::model::quota::{QuotaModel, QuotaRule, Rule};

    use super::*;
    use crate::headline::Headline;
    use crate::scenario::Scenario;
    use crate::strategy::StrategyName;

    const TICK: Duration = Duration::from_millis(10);

    /// The shortest makespan by trying every schedule on a grid. A call takes a tick to the decision and one back, so with
    /// `callers` callers the n-th decision comes two ticks after the (n - callers)-th at the earliest.
    fn tried(quota: &QuotaModel, callers: usize, decided: &mut Vec<u32>, calls: usize, best: &mut u32) {
        let last = decided.last().copied().unwrap_or(0);
        if decided.len() == calls {
            *best = (*best).min(last + 1);
            return;
        }
        let free = if decided.len() < callers { 1 } else { decided[decided.len() - callers] + 2 };
        for at in free.max(last)..*best {
            let mut quota = quota.clone();
            if quota.admit(TICK * at, 1).ok {
                decided.push(at);
                tried(&quota, callers, decided, calls, best);
                decided.pop();
            }
        }
    }

    fn scenario(rule: &str, limit: u32, window: u32, callers: usize, calls: usize) -> Scenario {
        let window = window * 10;
        Scenario::from_toml(&format!(
            "[server]\nrule = \"{rule}\"\nlimit = {limit}\nwindow = \"{window}ms\"\nlatency = \"20ms\"\n[fleet.class.bulk]\npolicy = \"greedy\"\n[[fleet.load]]\ncallers = {callers}\nrequests = {calls}\n"
        ))
        .unwrap()
    }

    fn best(scenario: &Scenario, change: impl FnOnce(&mut Tape)) -> Ideal {
        let plan = Plan::new(scenario, None).unwrap();
        let mut tape = Tape::new(Headline::of(&plan));
        change(&mut tape);
        ideal(&plan, &plan.leaves(StrategyName::Tidegate), &tape)
    }

    impl Ideal {
        fn makespan(&self) -> Duration {
            *self.job_times.last().unwrap()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn no_schedule_on_a_grid_is_shorter(
            rule in 0_usize..5,
            limit in 1_u32..4,
            windows in 1_u32..4,
            callers in 1_usize..4,
            calls in 1_usize..6,
        ) {
            let names = ["fixed", "fixed-aligned", "sliding-log", "sliding-counter", "token-bucket"];
            // Windows of whole ticks per unit, so that refills lie on the grid.
            let window = limit * windows;
            let rule_of = QuotaRule {
                rule: names[rule].parse::<Rule>().unwrap(),
                limit,
                window: TICK * window,
                phase: Duration::ZERO,
                burst: None,
            };
            let mut shortest = 60;
            tried(&QuotaModel::new(rule_of), callers, &mut Vec::new(), calls, &mut shortest);
            let tried = TICK * shortest;
            let found = best(&scenario(names[rule], limit, window, callers, calls), |_| {}).makespan();
            // A sliding counter gives back between the lines of the grid; each such wait may be a tick shorter.
            let slack = if rule == 3 { TICK * u32::try_from(calls).unwrap() } else { Duration::ZERO };
            prop_assert!(found <= tried && found + slack >= tried, "{found:?} against {tried:?}");
        }
    }

    #[test]
    fn what_strangers_took_is_not_ours_to_take() {
        let scenario = scenario("fixed", 10, 100, 20, 20);
        let alone = best(&scenario, |_| {}).makespan();
        let beside = best(&scenario, |tape| {
            let caller = Caller::new("stranger-0", "demo-client", "GET", "/api/v2/users");
            for _ in 0..5 {
                tape.stranger(Duration::ZERO, &caller, true);
            }
        });
        let second = Duration::from_secs(1);
        assert!(alone < second + TICK * 3, "two windows: {alone:?}");
        assert!(beside.makespan() >= second * 2, "three windows: {:?}", beside.makespan());
        assert_eq!(beside.job_times.len(), 20);
    }

    #[test]
    fn a_cap_is_used_to_the_full() {
        let scenario = Scenario::from_toml(
            "[server]\nlimit = 0\nconcurrency = 5\nlatency = \"100ms\"\ndecide_at = 0.0\n[fleet]\n[[fleet.load]]\ncallers = 50\nrequests = 100\n",
        )
        .unwrap();
        assert_eq!(best(&scenario, |_| {}).makespan(), Duration::from_secs(2));
    }

    #[test]
    fn a_brown_out_is_waited_out_to_the_instant() {
        let scenario = Scenario::from_toml(
            "[server]\nlimit = 100\n[[server.faults.brown_outs]]\nfrom = \"0s\"\nto = \"7s\"\n[fleet]\n[[fleet.load]]\ncallers = 5\nrequests = 10\n",
        )
        .unwrap();
        assert_eq!(best(&scenario, |_| {}).makespan(), Duration::from_secs(7));
    }

    /// 10 per second, a job of 20 by 20 callers, and a stranger who calls at these tenths of a second.
    fn beside(leave: &str, tenths: &[u64]) -> Ideal {
        let text = format!(
            "[server]\nlimit = 10\nwindow = \"1s\"\nlatency = \"20ms\"\n[fleet.class.bulk]\n{leave}\n[[fleet.load]]\ncallers = 20\nrequests = 20\n"
        );
        let scenario = Scenario::from_toml(&text).unwrap();
        best(&scenario, |tape| {
            let caller = Caller::new("stranger-0", "demo-client", "GET", "/api/v2/users");
            for tenth in tenths {
                tape.stranger(Duration::from_millis(tenth * 100), &caller, false);
            }
        })
    }

    #[test]
    fn a_fair_ideal_leaves_strangers_what_they_ask_up_to_half() {
        let windows = |ideal: &Ideal| ideal.makespan().as_secs() + 1;
        let rarely = [3, 6, 9];
        assert_eq!(
            windows(&beside("policy = \"greedy\"", &rarely)),
            2,
            "who was refused is no loss to the greedy"
        );
        let fair = beside("policy = \"fair\"", &rarely);
        assert_eq!(windows(&fair), 3, "seven, ten, three");
        let first = fair.job_times.iter().filter(|time| **time < Duration::from_millis(500)).count();
        assert_eq!(first, 7, "the others are left for who comes later");
        let much = beside("policy = \"fair\"", &[1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 9]);
        let first = much.job_times.iter().filter(|time| **time < Duration::from_millis(500)).count();
        assert_eq!(first, 5, "an equal share and no more");
    }

    #[test]
    fn a_reserve_is_never_taken() {
        let ideal = beside("policy = \"greedy\"\nreserve = 4", &[]);
        let first = ideal.job_times.iter().filter(|time| **time < Duration::from_millis(500)).count();
        assert_eq!(first, 6);
    }
}
