//! Where each line waits: at one barrier that stops it.
//!
//! A barrier is looked at when it was touched, when its instant has come, and after somebody passed it. Only then its answers are
//! asked for, once per class that waits there.

use std::cmp::Reverse;

use super::barrier::{Barriers, Opens, Ready};
use super::line::Rank;
use super::{Class, Schedule};
use crate::time::Mono;

impl<T> Schedule<T> {
    /// The barrier that stops a line longest.
    pub(super) fn stopped_by(
        &self,
        now: Mono,
        lane: usize,
        class: Class,
        barriers: &impl Barriers,
    ) -> Option<usize> {
        let mut latest = (Opens::Now, None);
        for &need in &self.lanes.get(lane)?.as_ref()?.needs {
            let opens = self.opens(now, need, class, barriers);
            if opens.is_later_than(latest.0) {
                latest = (opens, Some(need));
            }
        }
        latest.1
    }

    fn opens(&self, now: Mono, barrier: usize, class: Class, barriers: &impl Barriers) -> Opens {
        let Some(state) = self.barrier(barrier) else { return Opens::Now };
        match barriers.opens(now, barrier, class, &state.demand(class)) {
            Opens::At(at) if at <= now => Opens::Now,
            opens => opens,
        }
    }

    /// Where a line that nothing stops meets most of those it competes with.
    pub(super) fn most_wanted(&self, lane: usize) -> usize {
        let needs = self.lanes.get(lane).and_then(Option::as_ref).map_or(&[][..], |lane| &lane.needs);
        let waiting = |need: usize| self.waiting_for(need).iter().sum::<u32>();
        needs.iter().copied().max_by_key(|&need| (waiting(need), Reverse(need))).unwrap_or_default()
    }

    /// Looks at a barrier again: who of those it stops would go, and when it opens for the others.
    pub(super) fn look(&mut self, now: Mono, index: usize, barriers: &impl Barriers) {
        let Some(state) = self.barriers[index].as_mut() else { return };
        state.stale = false;
        if let Some(ready) = state.ready.take() {
            self.ready.remove(&ready);
        }
        if let Some(wake) = state.wake.take() {
            self.wakes.remove(&(wake, index));
        }
        let (mut ready, mut wake) = (None::<Ready>, None::<Mono>);
        for class in Class::ALL {
            let Some((rank, lane)) = self.first(index, class) else { continue };
            let Some(state) = self.barrier(index) else { return };
            let lead = state.turns.lead(class);
            match self.opens(now, index, class, barriers) {
                Opens::Now => {
                    let other = Ready { lead, class, rank, barrier: index, lane };
                    ready = Some(ready.map_or(other, |ready| ready.min(other)));
                }
                Opens::At(at) => wake = Some(wake.map_or(at, |wake| wake.min(at))),
                Opens::Event => {}
            }
        }
        let state = self.barrier_mut(index);
        (state.ready, state.wake) = (ready, wake);
        self.ready.extend(ready);
        self.wakes.extend(wake.map(|wake| (wake, index)));
    }

    /// Whose head goes first of the lines that a barrier stops.
    fn first(&mut self, index: usize, class: Class) -> Option<(Rank, usize)> {
        loop {
            let first = self.barrier(index)?.lines[class.index()].first().copied()?;
            if !self.refresh(first.1, class) {
                return Some(first);
            }
        }
    }

    /// Sets the start of a line's head right. False if it was.
    pub(super) fn refresh(&mut self, lane: usize, class: Class) -> bool {
        let Some(state) = self.lanes[lane].as_mut() else { return false };
        let queue = &mut state.lines[class.index()];
        let before = queue.head();
        let changed = queue.refresh(&self.fair[class.index()]);
        if changed {
            self.rank(lane, class, before);
        }
        changed
    }

    /// A line waits at a barrier.
    pub(super) fn stop(&mut self, lane: usize, class: Class, at: usize) {
        let Some(queue) = self.line_mut(lane, class) else { return };
        let Some(head) = queue.head() else { return };
        let (len, flows) = (queue.len(), queue.flows());
        queue.at = Some(at);
        let barrier = self.barrier_mut(at);
        barrier.lines[class.index()].insert((head, lane));
        barrier.stopped[class.index()] += len;
        barrier.stopped_flows[class.index()] += flows;
        self.touch(at);
    }

    /// A line no longer waits where it did.
    pub(super) fn release(&mut self, lane: usize, class: Class) {
        let Some(queue) = self.line_mut(lane, class) else { return };
        let (len, flows, head) = (queue.len(), queue.flows(), queue.head());
        let Some(at) = queue.at.take() else { return };
        let barrier = self.barrier_mut(at);
        barrier.stopped[class.index()] -= len;
        barrier.stopped_flows[class.index()] -= flows;
        if let Some(head) = head {
            barrier.lines[class.index()].remove(&(head, lane));
        }
        self.touch(at);
    }

    /// The head of a line may be another than before, who may go sooner.
    pub(super) fn requeue(&mut self, lane: usize, class: Class, before: Option<Rank>) {
        if let Some(at) = self.rank(lane, class, before) {
            self.touch(at);
        }
    }

    /// Ranks a line anew where it is stopped; there.
    fn rank(&mut self, lane: usize, class: Class, before: Option<Rank>) -> Option<usize> {
        let queue = self.line(lane, class)?;
        let (at, after) = (queue.at?, queue.head());
        if before != after {
            let lines = &mut self.barrier_mut(at).lines[class.index()];
            if let Some(rank) = before {
                lines.remove(&(rank, lane));
            }
            lines.extend(after.map(|rank| (rank, lane)));
        }
        Some(at)
    }

    /// Nobody waits for a barrier any more.
    pub(super) fn close(&mut self, index: usize) {
        let Some(state) = self.barriers[index].take() else { return };
        if let Some(ready) = state.ready {
            self.ready.remove(&ready);
        }
        if let Some(wake) = state.wake {
            self.wakes.remove(&(wake, index));
        }
    }
}
