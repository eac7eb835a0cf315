//! How many deadlines are no later than one.
//!
//! A forecast asks for it with every call that has a deadline, however many wait, and an ordered map can only count step by step.
//! So the deadlines lie in runs of at most [`RUN`], each with its total: to count is to add up the totals of the runs before and
//! to look into one; to add or remove one moves a part of a run. With 10 000 waiters that is some hundred additions.

use crate::time::Mono;

/// Different deadlines in a run, before it is cut in two.
const RUN: usize = 128;

/// Neighbouring deadlines, ascending, each with how many waiters have it.
#[derive(Debug)]
struct Run {
    total: u32,
    last: Mono,
    deadlines: Vec<(Mono, u32)>,
}

/// A multiset of deadlines. Its runs ascend, and none is empty.
#[derive(Debug, Default)]
pub(super) struct Tally {
    runs: Vec<Run>,
}

impl Tally {
    /// The run in which a deadline lies or belongs: the first that does not end before it. May be one beyond the last.
    fn run(&self, deadline: Mono) -> usize {
        self.runs.partition_point(|run| run.last < deadline)
    }

    /// One more.
    pub(super) fn add(&mut self, deadline: Mono) {
        let index = self.run(deadline).min(self.runs.len().saturating_sub(1));
        if self.runs.is_empty() {
            self.runs.push(Run { total: 0, last: deadline, deadlines: Vec::new() });
        }
        let run = &mut self.runs[index];
        run.total += 1;
        run.last = run.last.max(deadline);
        match run.deadlines.binary_search_by_key(&deadline, |&(at, _)| at) {
            Ok(place) => run.deadlines[place].1 += 1,
            Err(place) => run.deadlines.insert(place, (deadline, 1)),
        }
        if run.deadlines.len() > RUN {
            let deadlines = run.deadlines.split_off(RUN / 2);
            let (total, last) = (deadlines.iter().map(|&(_, count)| count).sum(), run.last);
            run.total -= total;
            run.last = run.deadlines[RUN / 2 - 1].0;
            self.runs.insert(index + 1, Run { total, last, deadlines });
        }
    }

    /// One less. Nothing happens if there is none.
    pub(super) fn remove(&mut self, deadline: Mono) {
        let index = self.run(deadline);
        let Some(run) = self.runs.get_mut(index) else { return };
        let Ok(place) = run.deadlines.binary_search_by_key(&deadline, |&(at, _)| at) else { return };
        run.total -= 1;
        run.deadlines[place].1 -= 1;
        if run.deadlines[place].1 > 0 {
            return;
        }
        run.deadlines.remove(place);
        match run.deadlines.last() {
            Some(&(last, _)) => run.last = last,
            None => drop(self.runs.remove(index)),
        }
    }

    /// How many are no later than `deadline`.
    pub(super) fn until(&self, deadline: Mono) -> u32 {
        let index = self.run(deadline);
        let before: u32 = self.runs[..index].iter().map(|run| run.total).sum();
        let within = self.runs.get(index).map_or(0, |run| {
            run.deadlines.iter().take_while(|&&(at, _)| at <= deadline).map(|&(_, count)| count).sum()
        });
        before + within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deadlines come and go in every order, many of them equal.
    #[test]
    fn it_counts_what_a_plain_list_counts() {
        for (seed, distinct) in [(1, 10), (2, 1000), (3, 100_000)] {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut tally, mut list) = (Tally::default(), Vec::new());
            for step in 0..4000 {
                if step % 3 == 2 || step > 3000 && !list.is_empty() {
                    let gone = list.swap_remove(rng.usize(..list.len()));
                    tally.remove(gone);
                } else {
                    let deadline = Mono::from_nanos(rng.u64(..distinct));
                    list.push(deadline);
                    tally.add(deadline);
                }
                let asked = Mono::from_nanos(rng.u64(..distinct));
                let counted = list.iter().filter(|&&deadline| deadline <= asked).count();
                assert_eq!(tally.until(asked) as usize, counted, "seed {seed}, step {step}");
                assert!(tally.runs.iter().all(|run| (1..=RUN).contains(&run.deadlines.len())));
            }
            for deadline in list.drain(..) {
                tally.remove(deadline);
            }
            assert!(tally.runs.is_empty());
        }
    }

    #[test]
    fn what_is_not_there_is_not_removed() {
        let mut tally = Tally::default();
        tally.add(Mono::MAX);
        tally.remove(Mono::ZERO);
        assert_eq!((tally.until(Mono::ZERO), tally.until(Mono::MAX)), (0, 1));
    }
}
