//! Random sequences of events against a schedule, judged by a plain list of who waits.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::schedule::{Barriers, CallerId, Class, Demand, Entry, Opens, Schedule};
use tidegate_core::time::Mono;

const BARRIERS: usize = 4;
const LANES: usize = 6;

/// What stops waiters: so many permits, nothing before an instant, and some classes not at all.
#[derive(Clone, Debug, Default)]
struct Door {
    permits: u32,
    opens_at: Mono,
    shut: [bool; Class::COUNT],
}

#[derive(Clone, Debug)]
struct Doors(Vec<Door>);

impl Barriers for Doors {
    fn opens(&self, now: Mono, barrier: usize, class: Class, _: &Demand) -> Opens {
        let door = &self.0[barrier];
        if door.permits == 0 || door.shut[class.index()] {
            Opens::Event
        } else if door.opens_at > now {
            Opens::At(door.opens_at)
        } else {
            Opens::Now
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter { lane: usize, class: usize, caller: u8, deadline: Option<u16> },
    Leave(prop::sample::Index),
    Fill { barrier: usize, permits: u32 },
    Close { barrier: usize, millis: u16 },
    Shut { barrier: usize, class: usize },
    Rewire { lane: usize, needs: u8 },
    Wait(u16),
    WaitForWake,
    Serve(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..LANES, 0..Class::COUNT, 0..3_u8, prop::option::of(0..20_u16))
            .prop_map(|(lane, class, caller, deadline)| Step::Enter { lane, class, caller, deadline }),
        2 => any::<prop::sample::Index>().prop_map(Step::Leave),
        5 => (0..BARRIERS, 0..4_u32).prop_map(|(barrier, permits)| Step::Fill { barrier, permits }),
        1 => (0..BARRIERS, 0..200_u16).prop_map(|(barrier, millis)| Step::Close { barrier, millis }),
        1 => (0..BARRIERS, 0..Class::COUNT).prop_map(|(barrier, class)| Step::Shut { barrier, class }),
        1 => (0..LANES, any::<u8>()).prop_map(|(lane, needs)| Step::Rewire { lane, needs }),
        1 => (0..100_u16).prop_map(Step::Wait),
        1 => Just(Step::WaitForWake),
        4 => (1..6_u8).prop_map(Step::Serve),
    ]
}

/// The schedule, and a list of who waits.
struct World {
    schedule: Schedule<u64>,
    doors: Doors,
    now: Mono,
    needs: Vec<Vec<usize>>,
    waiting: BTreeMap<u64, Entry<u64>>,
    next_id: u64,
}

impl World {
    fn new() -> Self {
        Self {
            schedule: Schedule::default(),
            doors: Doors(vec![Door::default(); BARRIERS]),
            now: Mono::ZERO,
            needs: (0..LANES).map(|lane| needs_of(u8::try_from(lane * 5 + 1).unwrap())).collect(),
            waiting: BTreeMap::new(),
            next_id: 0,
        }
    }

    fn enter(&mut self, lane: usize, class: Class, caller: u8, deadline: Option<Mono>) {
        self.enter_as(lane, class, CallerId::named(caller), deadline);
    }

    fn enter_as(&mut self, lane: usize, class: Class, caller: CallerId, deadline: Option<Mono>) {
        self.next_id += 1;
        let payload = 7 * self.next_id;
        let entry = Entry { lane, class, caller, deadline, payload };
        self.schedule.enter(self.now, self.next_id, self.needs[lane].iter().copied(), entry);
        self.waiting.insert(self.next_id, entry);
    }

    /// When a waiter could go, by asking every one of its doors.
    fn free_at(&self, waiter: &Entry<u64>) -> Option<Mono> {
        let demand = Demand::of_nobody();
        let mut at = self.now;
        for &need in &self.needs[waiter.lane] {
            match self.doors.opens(self.now, need, waiter.class, &demand) {
                Opens::Now => {}
                Opens::At(opens) => at = at.max(opens),
                Opens::Event => return None,
            }
        }
        Some(at)
    }

    fn can_go(&self, waiter: &Entry<u64>) -> bool {
        self.free_at(waiter) == Some(self.now)
    }

    /// Serves one, and checks that it was the right one as far as a list can tell.
    fn serve(&mut self) -> Option<u64> {
        let Some((id, entry)) = self.schedule.next(self.now, &self.doors) else {
            let able = self.waiting.iter().find(|(_, waiter)| self.can_go(waiter));
            assert!(able.is_none(), "nobody was served though {able:?} could go");
            let wake = self.schedule.next_wake(self.now);
            let due = self.waiting.values().filter_map(|waiter| self.free_at(waiter)).min();
            assert!(
                due.is_none_or(|due| wake.is_some_and(|wake| wake <= due)),
                "{due:?} is slept through until {wake:?}"
            );
            assert!(wake.is_none_or(|wake| wake > self.now), "a wake-up finds its own instant ahead");
            return None;
        };
        assert_eq!(self.waiting.remove(&id), Some(entry), "{id} was served twice or never waited");
        assert!(self.can_go(&entry), "{entry:?} went through a closed door");
        if entry.class.by_deadline() {
            let sooner = self.waiting.values().find(|other| {
                (other.class, other.lane, other.caller) == (entry.class, entry.lane, entry.caller)
                    && urgency(other) < urgency(&entry)
            });
            assert_eq!(sooner, None, "an earlier deadline of its own was passed over");
        }
        let of_the_same = self.waiting.iter().filter(|(_, other)| {
            (other.lane, other.class, other.caller) == (entry.lane, entry.class, entry.caller)
                && urgency(other) == urgency(&entry)
        });
        assert!(
            of_the_same.into_iter().all(|(&other, _)| other > id),
            "a caller's own calls keep their order"
        );
        for &need in &self.needs[entry.lane] {
            self.doors.0[need].permits -= 1;
        }
        Some(id)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Enter { lane, class, caller, deadline } => {
                let deadline = deadline.map(|at| Mono::from_nanos(u64::from(at) * 1_000_000_000));
                self.enter(lane, Class::ALL[class], caller, deadline);
            }
            Step::Leave(which) if !self.waiting.is_empty() => {
                let id = *which.get(&self.waiting.keys().copied().collect::<Vec<_>>());
                assert_eq!(self.schedule.leave(id), self.waiting.remove(&id));
                assert_eq!(self.schedule.leave(id), None, "who is gone is gone");
            }
            Step::Leave(_) => {}
            Step::Fill { barrier, permits } => {
                self.doors.0[barrier].permits = permits;
                self.schedule.touch(barrier);
            }
            Step::Close { barrier, millis } => {
                self.doors.0[barrier].opens_at = self.now + Duration::from_millis(u64::from(millis));
                self.schedule.touch(barrier);
            }
            Step::Shut { barrier, class } => {
                let shut = &mut self.doors.0[barrier].shut[class];
                *shut = !*shut;
                self.schedule.touch(barrier);
            }
            Step::Rewire { lane, needs } => {
                self.needs[lane] = needs_of(needs);
                self.schedule.rewire(self.now, lane, self.needs[lane].iter().copied());
            }
            Step::Wait(millis) => self.now += Duration::from_millis(u64::from(millis)),
            Step::WaitForWake => {
                if let Some(wake) = self.schedule.next_wake(self.now) {
                    self.now = self.now.max(wake);
                }
            }
            Step::Serve(count) => {
                for _ in 0..count {
                    if self.serve().is_none() {
                        break;
                    }
                }
            }
        }
        self.check_books();
    }

    fn check_books(&self) {
        assert_eq!(self.schedule.len(), self.waiting.len());
        for class in Class::ALL {
            let waiting = self.waiting.values().filter(|waiter| waiter.class == class);
            assert_eq!(self.schedule.waiting()[class.index()], waiting.clone().count());
            for barrier in 0..BARRIERS {
                let needing = waiting.clone().filter(|waiter| self.needs[waiter.lane].contains(&barrier));
                let counted = self.schedule.waiting_for(barrier)[class.index()];
                assert_eq!(usize::try_from(counted).unwrap(), needing.count(), "{class:?} at {barrier}");
            }
        }
    }
}

/// Some of the barriers, at least one.
fn needs_of(bits: u8) -> Vec<usize> {
    let some: Vec<usize> = (0..BARRIERS).filter(|barrier| bits & (1 << barrier) != 0).collect();
    if some.is_empty() { vec![0] } else { some }
}

fn urgency(waiter: &Entry<u64>) -> Mono {
    if waiter.class.by_deadline() { waiter.deadline.unwrap_or(Mono::MAX) } else { Mono::ZERO }
}

/// A world with one barrier that everybody has to pass, always open.
fn one_door() -> World {
    let mut world = World::new();
    world.needs = vec![vec![0]; LANES];
    world.doors.0[0].permits = u32::MAX;
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Nobody is lost, doubled, passed over while it could go, or slept through, whatever opens, closes and leaves.
    #[test]
    fn whoever_can_go_goes_and_nobody_else(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        for barrier in 0..BARRIERS {
            world.doors.0[barrier] = Door { permits: u32::MAX, ..Door::default() };
            world.schedule.touch(barrier);
        }
        while world.serve().is_some() {
            world.check_books();
        }
        prop_assert!(world.waiting.is_empty());
        prop_assert!(world.schedule.is_empty());
    }

    /// With everybody behind one door `sync` of one caller goes by deadline, across lanes, and so do callers who have one waiting each.
    #[test]
    fn the_earliest_deadline_goes_first(entries in prop::collection::vec((0..LANES, prop::option::of(0..50_u16)), 1..60), many: bool) {
        let mut world = one_door();
        for (index, &(lane, deadline)) in entries.iter().enumerate() {
            let caller = if many { u8::try_from(index).unwrap() } else { 0 };
            world.enter(lane, Class::Sync, caller, deadline.map(|at| Mono::from_nanos(u64::from(at))));
        }
        let all = world.waiting.clone();
        let mut served = Vec::new();
        while let Some(id) = world.serve() {
            served.push(urgency(&all[&id]));
        }
        prop_assert!(served.is_sorted(), "{served:?}");
    }

    /// Whatever deadlines others name, and in however many lanes: who asks for one thing after the other in `sync`, without a deadline
    /// or with a late one, is served after at most one permit and the present one of each other caller.
    #[test]
    fn no_deadline_of_another_keeps_a_caller_from_its_share(
        others in 1..4_u8,
        backlog in 1..30_u16,
        deadline in prop::option::of(50..60_u16),
        asks in 1..20_u32,
    ) {
        let mut world = one_door();
        let secs = |at: u16| Mono::from_nanos(u64::from(at) * 1_000_000_000);
        for _ in 0..asks {
            world.enter(0, Class::Sync, 0, deadline.map(secs));
            let own = world.next_id;
            let mut before = 0;
            loop {
                for caller in 1..=others {
                    let waits = world.waiting.values().filter(|waiter| waiter.caller == CallerId::named(caller)).count();
                    for more in waits..usize::from(backlog) {
                        world.enter(more % LANES, Class::Sync, caller, Some(secs(1)));
                    }
                }
                if world.serve() == Some(own) {
                    break;
                }
                before += 1;
            }
            prop_assert!(before <= 2 * u32::from(others), "{before} of others went before");
        }
    }

    /// Callers of `sync` that always wait get equal shares, however many lanes and deadlines they use.
    #[test]
    fn callers_of_sync_get_equal_shares(
        backlogs in prop::collection::vec((1..40_usize, 1..LANES, 0..50_u16), 2..6),
        count in 1..200_usize,
    ) {
        let mut world = one_door();
        let mut got = vec![0_usize; backlogs.len()];
        for _ in 0..count {
            for (caller, &(backlog, lanes, deadline)) in backlogs.iter().enumerate() {
                let name = u8::try_from(caller).unwrap();
                let waits = world.waiting.values().filter(|waiter| waiter.caller == CallerId::named(name)).count();
                let deadline = Mono::from_nanos(u64::from(deadline));
                (waits..backlog).for_each(|which| world.enter(which % lanes, Class::Sync, name, Some(deadline)));
            }
            let all = world.waiting.clone();
            let id = world.serve().unwrap();
            let served = (0..backlogs.len()).find(|&caller| all[&id].caller == CallerId::named(u8::try_from(caller).unwrap()));
            got[served.unwrap()] += 1;
        }
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{got:?}");
    }

    /// Classes that always have somebody waiting get what their weights say, give or take a turn of each.
    #[test]
    fn weights_are_respected(present in 1..16_u8, count in 1..600_u32, lanes in 1..LANES) {
        let mut world = one_door();
        let classes: Vec<Class> = Class::ALL.into_iter().filter(|class| present & (1 << class.index()) != 0).collect();
        let weights: u32 = classes.iter().map(|class| class.weight()).sum();
        let mut got = [0_u32; Class::COUNT];
        for turn in 0..count {
            for &class in &classes {
                for lane in 0..lanes {
                    let filled = world.waiting.values().any(|waiter| (waiter.class, waiter.lane) == (class, lane));
                    if !filled {
                        world.enter(lane, class, u8::try_from(turn % 3).unwrap(), None);
                    }
                }
            }
            let all = world.waiting.clone();
            let id = world.serve().unwrap();
            got[all[&id].class.index()] += 1;
        }
        for &class in &classes {
            let due = f64::from(count) * f64::from(class.weight()) / f64::from(weights);
            let off = (f64::from(got[class.index()]) - due).abs();
            prop_assert!(off <= 4.0, "{class:?}: {due} of {count} due, got {got:?}");
        }
    }

    /// Callers that always wait get equal shares, give or take two permits, however much more one of them asks for. This is
    /// the bound of start-time fair queueing: one permit of each of the two.
    #[test]
    fn callers_get_equal_shares(backlogs in prop::collection::vec(1..40_usize, 2..6), count in 1..200_usize) {
        let mut world = one_door();
        let mut got = vec![0_usize; backlogs.len()];
        for _ in 0..count {
            for (caller, &backlog) in backlogs.iter().enumerate() {
                let name = u8::try_from(caller).unwrap();
                let waits = world.waiting.values().filter(|waiter| waiter.caller == CallerId::named(name)).count();
                (waits..backlog).for_each(|_| world.enter(0, Class::Bulk, name, None));
            }
            let all = world.waiting.clone();
            let id = world.serve().unwrap();
            let served = (0..backlogs.len()).find(|&caller| all[&id].caller == CallerId::named(u8::try_from(caller).unwrap()));
            got[served.unwrap()] += 1;
        }
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        prop_assert!(most - least <= 2, "{got:?}");
    }

    /// Callers that always wait get permits by their weights: the bound of start-time fair queueing is one permit of each of the
    /// two, by its weight. Who is served beyond it, however many it asks for, takes from nobody.
    #[test]
    fn callers_get_shares_by_their_weights(
        callers in prop::collection::vec((1..40_usize, 1..=CallerId::MAX_WEIGHT), 2..6),
        count in 1..600_usize,
    ) {
        let mut world = one_door();
        let who = |index: usize| CallerId::named(index).weighing(callers[index].1);
        let mut got = vec![0_u32; callers.len()];
        for _ in 0..count {
            for (index, &(backlog, _)) in callers.iter().enumerate() {
                let waits = world.waiting.values().filter(|waiter| waiter.caller == who(index)).count();
                (waits..backlog).for_each(|_| world.enter_as(0, Class::Bulk, who(index), None));
            }
            let all = world.waiting.clone();
            let id = world.serve().unwrap();
            got[(0..callers.len()).find(|&index| all[&id].caller == who(index)).unwrap()] += 1;
        }
        for (one, other) in (0..callers.len()).flat_map(|one| (0..one).map(move |other| (one, other))) {
            let [(mine, my), (theirs, their)] =
                [one, other].map(|index| (f64::from(got[index]), f64::from(callers[index].1)));
            let off = (mine / my - theirs / their).abs();
            // A thousandth is what is lost by dividing turns.
            prop_assert!(off <= (1.0 / my + 1.0 / their) * 1.001 + 1e-9, "{got:?} of {callers:?}");
        }
    }

    /// A forecast is no promise that is broken where nobody comes later: no more go before a newcomer than it says, whatever
    /// callers weigh, but for the one permit of each by which shares may be apart when it comes.
    #[test]
    fn a_forecast_by_weight_is_kept(
        callers in prop::collection::vec((1..30_usize, 1..=CallerId::MAX_WEIGHT), 1..6),
        own in 0..6_usize,
        weight in 1..=CallerId::MAX_WEIGHT,
        warm in 0..20_usize,
    ) {
        let mut world = one_door();
        for (index, &(backlog, weight)) in callers.iter().enumerate() {
            let who = CallerId::named(index).weighing(weight);
            (0..backlog).for_each(|_| world.enter_as(0, Class::Bulk, who, None));
        }
        for _ in 0..warm.min(world.waiting.len() - 1) {
            world.serve().unwrap();
        }
        let caller = CallerId::named("newcomer").weighing(weight);
        (0..own).for_each(|_| world.enter_as(0, Class::Bulk, caller, None));
        let door = |world: &mut World, permits| {
            world.doors.0[0].permits = permits;
            world.schedule.touch(0);
        };
        door(&mut world, 0);
        prop_assert_eq!(world.serve(), None);
        let entry = Entry { lane: 0, class: Class::Bulk, caller, deadline: None, payload: () };
        let forecast = world.schedule.before(0, [0], &entry, [false; Class::COUNT]) as usize;
        world.enter_as(0, Class::Bulk, caller, None);
        let newcomer = world.next_id;
        door(&mut world, u32::MAX);
        let mut before = 0;
        while world.serve() != Some(newcomer) {
            before += 1;
        }
        prop_assert!(before <= forecast + callers.len(), "{before} went before, {forecast} were forecast");
    }

    /// Whoever comes behind `own` calls of its own goes after at most `own + 1` permits of each other caller of its class and
    /// the turns of the other classes meanwhile, although all of them keep coming.
    #[test]
    fn nobody_starves(class in 0..Class::COUNT, own in 0..4_u32, others in 0..6_u8, warm in 0..50_u32) {
        let class = Class::ALL[class];
        let mut world = one_door();
        let crowd = |world: &mut World| {
            for other in Class::ALL {
                for caller in 0..others {
                    // Who keeps coming has later deadlines than a caller's own before.
                    let deadline = Some(Mono::from_nanos(world.next_id + 1));
                    let name = CallerId::named(caller);
                    let waits = |waiter: &&Entry<u64>| (waiter.class, waiter.caller) == (other, name);
                    if world.waiting.values().filter(waits).count() < 3 {
                        world.enter(usize::from(caller) % LANES, other, caller, deadline);
                    }
                }
            }
        };
        for _ in 0..warm {
            crowd(&mut world);
            world.serve();
        }
        world.waiting.keys().copied().collect::<BTreeSet<_>>().into_iter().for_each(|id| {
            world.schedule.leave(id);
            world.waiting.remove(&id);
        });
        for _ in 0..=own {
            let deadline = Some(Mono::from_nanos(world.next_id + 1));
            world.enter(0, class, 100, deadline);
        }
        let last = world.next_id;
        let mut between = 0_u32;
        loop {
            crowd(&mut world);
            let id = world.serve().unwrap();
            if id == last {
                break;
            }
            between += 1;
        }
        // Permits of its own class before it, those of every turn of the others, and one turn of each class to begin with.
        let before = own + (own + 1) * 2 * u32::from(others);
        let bound = (before + 1) * 85_u32.div_ceil(class.weight()) + 85;
        prop_assert!(between <= bound, "{between} > {bound}");
    }
}

#[test]
fn a_newcomer_is_forecast_only_what_goes_before_it() {
    let mut world = one_door();
    let at = |seconds: u64| Some(Mono::from_nanos(seconds * 1_000_000_000));
    for second in 1..=100 {
        world.enter(0, Class::Sync, 0, at(second));
    }
    for _ in 0..50 {
        world.enter(0, Class::Bulk, 1, None);
    }
    world.doors.0[0].permits = 0;
    assert_eq!(world.serve(), None);
    let before = |class, caller: u8, deadline, pushing| {
        let caller = CallerId::named(caller);
        world.schedule.before(0, [0], &Entry { lane: 0, class, caller, deadline, payload: () }, pushing)
    };
    let (quiet, pushing) = ([false; Class::COUNT], [true; Class::COUNT]);
    assert_eq!(
        before(Class::Sync, 0, at(10), quiet),
        10,
        "its own later deadlines and bulk that gives way come after it"
    );
    assert_eq!(before(Class::Sync, 0, at(10), pushing), 12, "bulk has one turn in four of sync's");
    assert_eq!(before(Class::Sync, 0, None, quiet), 100);
    for deadline in [at(10), None] {
        assert_eq!(
            before(Class::Sync, 2, deadline, quiet),
            1,
            "one of the other caller, whatever its deadlines"
        );
    }
    assert_eq!(before(Class::Interactive, 2, None, quiet), 0);
    assert_eq!(
        before(Class::Bulk, 2, None, quiet),
        1 + 8,
        "one of the other caller, and sync's turns meanwhile"
    );
    assert_eq!(before(Class::Bulk, 1, None, quiet), 50 + 100, "behind its own");
}

/// Barriers 1 and 2 are each of one family, barrier 0 of both.
#[test]
fn who_is_stopped_by_what_a_newcomer_need_not_pass_is_not_in_its_way() {
    let mut world = World::new();
    world.needs = [vec![0, 1], vec![0, 2], vec![0], vec![1], vec![2], vec![3]].to_vec();
    world.doors.0[0].permits = u32::MAX;
    let at = |seconds: u64| Some(Mono::from_nanos(seconds * 1_000_000_000));
    for second in 1..=10 {
        for lane in [0, 0, 1] {
            world.enter(lane, Class::Sync, 0, at(second));
            world.enter(lane, Class::Bulk, u8::try_from(second).unwrap(), None);
        }
    }
    assert_eq!(world.serve(), None, "both families are closed");
    let before = |world: &World, barrier, lane: usize, class, deadline| {
        // In `sync` it is one more of the same caller's.
        let caller = if class == Class::Sync { CallerId::named(0_u8) } else { CallerId::named(99) };
        let newcomer = Entry { lane, class, caller, deadline, payload: () };
        world.schedule.before(barrier, world.needs[lane].iter().copied(), &newcomer, [false; Class::COUNT])
    };
    for (lane, sync, bulk) in [(0, 20, 10), (1, 10, 10), (2, 0, 0)] {
        assert_eq!(before(&world, 0, lane, Class::Sync, None), sync, "{lane}");
        assert_eq!(before(&world, 0, lane, Class::Bulk, None), bulk + sync, "{lane}: a turn of each caller");
    }
    assert_eq!(
        before(&world, 0, 0, Class::Sync, at(3)),
        9,
        "of both families, as nothing tells them apart here"
    );
    assert_eq!(before(&world, 1, 0, Class::Sync, at(3)), 6);
    assert_eq!(before(&world, 2, 0, Class::Sync, at(3)), 3);

    // The second family opens, and what both share closes.
    world.doors.0[2].permits = u32::MAX;
    world.doors.0[0].permits = 0;
    for barrier in [0, 2] {
        world.schedule.touch(barrier);
    }
    assert_eq!(world.serve(), None);
    assert_eq!(before(&world, 0, 2, Class::Sync, None), 10, "they wait for the same now");
}
