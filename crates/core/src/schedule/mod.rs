//! Who goes next among those who wait.
//!
//! A [`Schedule`] holds waiters and knows nothing of what they wait for: its owner tells it which **barriers** each of them
//! has to pass, and answers whether a barrier is open for a class ([`Barriers`]). Waiters with the same barriers stand in the
//! same **lane**; those of one class in a lane are a **line**, of which only the head can be next.
//!
//! | rule | where |
//! | --- | --- |
//! | between classes: by weight, at each barrier, and no class saves up turns | `turns` |
//! | within a class: between callers by weight, and nobody saves up a share | `fair` |
//! | within `sync`, among a caller's own and among callers whose turn it is: the earliest deadline first (Liu and Layland, *Scheduling Algorithms for Multiprogramming in a Hard-Real-Time Environment*, JACM 20(1), 1973); who has none comes last | `line` |
//! | a waiter goes when all its barriers are open for its class, and then passes all at once | here, `stop` |
//!
//! **No work for those who cannot go.** A line is kept at one barrier that stops it, and nobody looks at it until that barrier
//! opens. Then the best line there is tried; if another barrier stops it by now it moves there. So a permit costs a few
//! look-ups in ordered sets and a question to each of the winner's barriers, however many lanes wait: logarithmic, not
//! linear. What moves between two barriers that open in turn is paid for by their opening.
//!
//! **Contract with the owner.** After anything that may have changed what a barrier answers call [`Schedule::touch`] for it,
//! then [`Schedule::next`] until it returns nobody. At [`Schedule::next_wake`] call `next` again. The answers for a class may
//! depend on time and on who is stopped there ([`Demand`]), not on a single waiter.
//!
//! **No starvation.** Where a class's line is stopped by one barrier and the barrier opens for it, it has its turn after at
//! most the sum of weights over its own weight permits of others. A waiter whose caller has `n` waiters before it goes after at
//! most `n + 1` permits of each other caller that is remembered ([`Schedule::MAX_CALLERS`] and one more for the rest).

mod barrier;
mod caller;
mod class;
mod fair;
mod line;
mod stop;
mod tally;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use crate::time::Mono;

use barrier::{Barrier, Ready};
pub use barrier::{Barriers, Demand, Opens};
pub use caller::CallerId;
pub use class::{Class, UnknownClass};
use fair::Fair;
use line::{Flows, Line, Rank};

/// What a waiter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// Its lane.
    pub lane: usize,
    /// Its class.
    pub class: Class,
    /// Who waits.
    pub caller: CallerId,
    /// By when; counts in classes that go by deadline.
    pub deadline: Option<Mono>,
    /// What the owner wants back.
    pub payload: T,
}

/// The barriers of a lane and its lines.
#[derive(Debug)]
struct Lane {
    needs: Vec<usize>,
    lines: [Line; Class::COUNT],
}

/// Waiters, and the order in which they go.
///
/// ```
/// use tidegate_core::schedule::{Barriers, CallerId, Class, Demand, Entry, Opens, Schedule};
/// use tidegate_core::time::Mono;
///
/// /// One barrier with a few permits.
/// struct Gate(u32);
///
/// impl Barriers for Gate {
///     fn opens(&self, _: Mono, _: usize, _: Class, _: &Demand) -> Opens {
///         if self.0 > 0 { Opens::Now } else { Opens::Event }
///     }
/// }
///
/// let mut schedule = Schedule::default();
/// let now = Mono::ZERO;
/// for (id, (name, class)) in
///     [("job", Class::Bulk), ("job", Class::Bulk), ("other", Class::Bulk), ("desk", Class::Interactive)].into_iter().enumerate()
/// {
///     let entry = Entry { lane: 0, class, caller: CallerId::named(name), deadline: None, payload: name };
///     schedule.enter(now, id as u64, [0], entry);
/// }
/// let mut gate = Gate(3);
/// let mut went = Vec::new();
/// while let Some((_, entry)) = schedule.next(now, &gate) {
///     went.push(entry.payload);
///     gate.0 -= 1;
/// }
/// assert_eq!(went, ["desk", "job", "other"], "the job's second comes after the other's first");
/// ```
#[derive(Debug)]
pub struct Schedule<T> {
    waiters: BTreeMap<u64, Entry<T>>,
    waiting: [usize; Class::COUNT],
    lanes: Vec<Option<Box<Lane>>>,
    barriers: Vec<Option<Box<Barrier>>>,
    fair: [Fair; Class::COUNT],
    /// The next one of every barrier that is open.
    ready: BTreeSet<Ready>,
    /// When closed barriers open.
    wakes: BTreeSet<(Mono, usize)>,
    /// Lines that no barrier has stopped yet.
    fresh: Vec<(usize, Class)>,
    /// Barriers to look at again.
    stale: Vec<usize>,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self {
            waiters: BTreeMap::new(),
            waiting: [0; Class::COUNT],
            lanes: Vec::new(),
            barriers: Vec::new(),
            fair: Class::ALL.map(Fair::of),
            ready: BTreeSet::new(),
            wakes: BTreeSet::new(),
            fresh: Vec::new(),
            stale: Vec::new(),
        }
    }
}

impl<T> Schedule<T> {
    /// Callers of one class that are told apart; the rest share one share.
    pub const MAX_CALLERS: usize = Fair::MAX_CALLERS;

    /// Waiters.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Waiters by [`Class::ALL`].
    pub fn waiting(&self) -> [usize; Class::COUNT] {
        self.waiting
    }

    /// Waiters by [`Class::ALL`] that have to pass a barrier.
    pub fn waiting_for(&self, barrier: usize) -> [u32; Class::COUNT] {
        self.barrier(barrier).map_or([0; Class::COUNT], |barrier| barrier.waiting)
    }

    /// Waiters of a lane by [`Class::ALL`], if it has any, that do not have to pass `barrier` yet.
    pub fn waiting_beside(&self, lane: usize, barrier: usize) -> Option<[u32; Class::COUNT]> {
        let lane = self.lanes.get(lane)?.as_ref().filter(|lane| !lane.needs.contains(&barrier))?;
        Some(std::array::from_fn(|class| lane.lines[class].len()))
    }

    /// Waiters of a lane by [`Class::ALL`].
    pub fn waiting_in(&self, lane: usize) -> [u32; Class::COUNT] {
        let lane = self.lanes.get(lane).and_then(Option::as_ref);
        lane.map_or([0; Class::COUNT], |lane| std::array::from_fn(|class| lane.lines[class].len()))
    }

    /// One waiter.
    pub fn get(&self, id: u64) -> Option<&Entry<T>> {
        self.waiters.get(&id)
    }

    /// A waiter comes. Its `id` is used once, and those who come later have greater ones. `needs` are the barriers of its lane;
    /// at least one, the same for everybody in it.
    pub fn enter(&mut self, now: Mono, id: u64, needs: impl IntoIterator<Item = usize>, entry: Entry<T>) {
        let (index, class) = (entry.lane, entry.class);
        let urgency = Line::urgency(class, entry.deadline);
        if self.lanes.len() <= index {
            self.lanes.resize_with(index + 1, || None);
        }
        let lane = self.lanes[index].get_or_insert_with(|| {
            Box::new(Lane { needs: needs.into_iter().collect(), lines: Default::default() })
        });
        let queue = &mut lane.lines[class.index()];
        let (before, flows) = (queue.head(), queue.flows());
        queue.insert(&mut self.fair[class.index()], entry.caller, urgency, id);
        let (at, joined) = (queue.at, queue.flows() - flows);
        if queue.len() == 1 {
            self.fresh.push((index, class));
        }
        let top = lane.needs.iter().copied().max().unwrap_or_default();
        if self.barriers.len() <= top {
            self.barriers.resize_with(top + 1, || None);
        }
        for &need in &lane.needs {
            let barrier = self.barriers[need].get_or_insert_default();
            barrier.expect(now, class, urgency);
            barrier.flows[class.index()] += joined;
        }
        if let Some(at) = at {
            let barrier = self.barrier_mut(at);
            barrier.stopped[class.index()] += 1;
            barrier.stopped_flows[class.index()] += joined;
            self.requeue(index, class, before);
        }
        self.waiting[class.index()] += 1;
        self.waiters.insert(id, entry);
    }

    /// A waiter leaves without having gone. `None` if there is no such waiter.
    pub fn leave(&mut self, id: u64) -> Option<Entry<T>> {
        let entry = self.waiters.remove(&id)?;
        let urgency = Line::urgency(entry.class, entry.deadline);
        let (index, class) = (entry.lane, entry.class);
        let queue = self.line_mut(index, class);
        let before = queue.map_or((None, Flows::default()), |queue| (queue.head(), queue.flows()));
        if let Some(lane) = self.lanes[index].as_mut() {
            lane.lines[class.index()].remove(&mut self.fair[class.index()], entry.caller, urgency, id);
        }
        self.left(index, class, urgency, before);
        Some(entry)
    }

    /// What the owner answers for this barrier may have changed.
    pub fn touch(&mut self, barrier: usize) {
        if let Some(state) = self.barriers.get_mut(barrier).and_then(Option::as_mut)
            && !state.stale
            && !state.is_at_rest()
        {
            state.stale = true;
            self.stale.push(barrier);
        }
    }

    /// The barriers of a lane are others now.
    pub fn rewire(&mut self, now: Mono, lane: usize, needs: impl IntoIterator<Item = usize>) {
        let Some(state) = self.lanes.get_mut(lane).and_then(Option::as_mut) else { return };
        let needs: Vec<usize> = needs.into_iter().collect();
        let old = std::mem::replace(&mut state.needs, needs.clone());
        for class in Class::ALL {
            self.release(lane, class);
            let Some(queue) = self.line_mut(lane, class).filter(|queue| !queue.is_empty()) else { continue };
            let (urgencies, flows): (Vec<Mono>, Flows) = (queue.urgencies().collect(), queue.flows());
            self.fresh.push((lane, class));
            for &need in &needs {
                if self.barriers.len() <= need {
                    self.barriers.resize_with(need + 1, || None);
                }
                let barrier = self.barriers[need].get_or_insert_default();
                barrier.flows[class.index()] += flows;
                for &urgency in &urgencies {
                    barrier.expect(now, class, urgency);
                }
            }
            for &need in &old {
                self.barrier_mut(need).flows[class.index()] -= flows;
                for &urgency in &urgencies {
                    if self.barrier_mut(need).dismiss(class, urgency) {
                        self.close(need);
                        break;
                    }
                }
            }
        }
    }

    /// How many would pass `barrier` before a newcomer that has to pass all `needs`, at most, as they stood at the last
    /// [`Schedule::next`]: those of its own class that do, and of the other classes what their weights give them meanwhile. Of
    /// less important classes only those in `pushing`, by [`Class::ALL`]: the others give way. Who waits for a barrier that is
    /// not among `needs` does not count.
    pub fn before<N>(
        &self,
        barrier: usize,
        needs: impl IntoIterator<Item = usize>,
        newcomer: &Entry<N>,
        pushing: [bool; Class::COUNT],
    ) -> u32 {
        let Some(state) = self.barrier(barrier) else { return 0 };
        let others: SmallVec<[&Barrier; 4]> =
            needs.into_iter().filter(|&need| need != barrier).filter_map(|need| self.barrier(need)).collect();
        let rivals = |class: Class| state.rivals(class, others.iter().copied());
        let class = newcomer.class;
        let own = self.line(newcomer.lane, class).map_or(0, |queue| queue.of(newcomer.caller));
        let own = (newcomer.caller, own, self.fair[class.index()].waiting(newcomer.caller));
        let peers = state.before(rivals(class), class, own, newcomer.deadline);
        let others = Class::ALL.into_iter().filter(|&other| other != class);
        others
            .filter(|&other| other < class || pushing[other.index()])
            .map(|other| {
                let turns = (peers + 1).saturating_mul(other.weight()) / class.weight();
                rivals(other).waiting.min(turns)
            })
            .fold(peers, u32::saturating_add)
    }

    /// When a barrier opens for somebody who waits, if nothing happens before. `None`: nobody waits, or only for something to
    /// happen.
    pub fn next_wake(&self, now: Mono) -> Option<Mono> {
        let unsettled = !(self.fresh.is_empty() && self.stale.is_empty() && self.ready.is_empty());
        if unsettled { Some(now) } else { self.wakes.first().map(|&(at, _)| at) }
    }

    /// Lets the next one go, if anybody can.
    pub fn next(&mut self, now: Mono, barriers: &impl Barriers) -> Option<(u64, Entry<T>)> {
        while let Some(&(at, barrier)) = self.wakes.first() {
            if at > now {
                break;
            }
            self.wakes.pop_first();
            self.barrier_mut(barrier).wake = None;
            self.touch(barrier);
        }
        while let Some((lane, class)) = self.fresh.pop() {
            if self.line(lane, class).is_some_and(|queue| !queue.is_empty() && queue.at.is_none()) {
                let at =
                    self.stopped_by(now, lane, class, barriers).unwrap_or_else(|| self.most_wanted(lane));
                self.stop(lane, class, at);
            }
        }
        loop {
            while let Some(barrier) = self.stale.pop() {
                self.look(now, barrier, barriers);
            }
            let &Ready { barrier, class, lane, .. } = self.ready.first()?;
            if self.refresh(lane, class) {
                self.touch(barrier);
                continue;
            }
            match self.stopped_by(now, lane, class, barriers) {
                None => return self.pass(now, lane, class),
                Some(at) if at == barrier => {
                    // It opened for a moment that has passed.
                    self.touch(barrier);
                }
                Some(at) => {
                    self.release(lane, class);
                    self.stop(lane, class, at);
                }
            }
        }
    }

    /// The head of a line goes.
    fn pass(&mut self, now: Mono, lane: usize, class: Class) -> Option<(u64, Entry<T>)> {
        let state = self.lanes[lane].as_mut()?;
        let queue = &mut state.lines[class.index()];
        let before = (queue.head(), queue.flows());
        let id = queue.take(&mut self.fair[class.index()])?;
        let entry = self.waiters.remove(&id)?;
        for &need in &state.needs {
            let barrier = self.barriers[need].as_mut()?;
            barrier.passes(now, class);
            if !barrier.stale && !barrier.is_at_rest() {
                barrier.stale = true;
                self.stale.push(need);
            }
        }
        self.left(lane, class, Line::urgency(class, entry.deadline), before);
        Some((id, entry))
    }

    /// The books after somebody left a line, which before had this head and so many flows.
    fn left(&mut self, index: usize, class: Class, urgency: Mono, before: (Option<Rank>, Flows)) {
        self.waiting[class.index()] -= 1;
        if self.waiting[class.index()] == 0 {
            self.fair[class.index()].rest();
        }
        let Some(queue) = self.line(index, class) else { return };
        let gone = before.1 - queue.flows();
        if let Some(at) = queue.at {
            let empty = queue.is_empty();
            let barrier = self.barrier_mut(at);
            barrier.stopped[class.index()] -= 1;
            barrier.stopped_flows[class.index()] -= gone;
            self.requeue(index, class, before.0);
            if empty && let Some(queue) = self.line_mut(index, class) {
                queue.at = None;
            }
        }
        let Some(lane) = self.lanes[index].as_ref() else { return };
        let idle = lane.lines.iter().all(Line::is_empty);
        for position in 0..lane.needs.len() {
            let Some(need) = self.lanes[index].as_ref().map(|lane| lane.needs[position]) else { return };
            let barrier = self.barrier_mut(need);
            barrier.flows[class.index()] -= gone;
            if barrier.dismiss(class, urgency) {
                self.close(need);
            }
        }
        if idle {
            self.lanes[index] = None;
        }
    }

    fn barrier(&self, index: usize) -> Option<&Barrier> {
        self.barriers.get(index)?.as_deref()
    }

    fn barrier_mut(&mut self, index: usize) -> &mut Barrier {
        self.barriers[index].as_mut().expect("a barrier exists as long as somebody has to pass it")
    }

    fn line(&self, lane: usize, class: Class) -> Option<&Line> {
        Some(&self.lanes.get(lane)?.as_ref()?.lines[class.index()])
    }

    fn line_mut(&mut self, lane: usize, class: Class) -> Option<&mut Line> {
        Some(&mut self.lanes.get_mut(lane)?.as_mut()?.lines[class.index()])
    }
}
