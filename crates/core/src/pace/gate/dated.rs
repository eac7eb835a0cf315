//! What windows of the calendar keep of a limit for some classes.
//!
//! Of a quota `q` a class may count on its per cent in every window of the limit: so much less what it took in the window
//! before is left by the others. What it does not take is lost to nobody but them, until the calendar's window ends: that is what
//! the operator asked for. Caps on attempts at once have no part in it.
//!
//! What a class took is remembered only while something is kept for it. When the calendar's window opens nothing is known of
//! that, and all of its part is left.

use std::collections::VecDeque;

use super::leave::Wish;
use super::{Gate, Knowledge};
use crate::pace::refill::Rule;
use crate::pace::secs::num;
use crate::schedule::Class;

/// When classes for which something is kept took permits, in seconds; by [`Class::ALL`].
#[derive(Debug, Default)]
pub(super) struct Takes {
    taken: [VecDeque<f64>; Class::COUNT],
}

impl Takes {
    fn since(&self, class: Class, since: f64) -> f64 {
        let taken = &self.taken[class.index()];
        num(u64::try_from(taken.len() - taken.partition_point(|&at| at <= since)).unwrap_or(u64::MAX))
    }
}

impl Gate {
    /// One of `class` took a permit, while `reserve` per cent are kept for each class.
    pub(in crate::pace) fn note_take(&mut self, now: f64, class: Class, reserve: [u8; Class::COUNT]) {
        if reserve == [0; Class::COUNT] {
            self.takes = None;
            return;
        }
        let kept = reserve[class.index()];
        let Some(quota) = self.quota().filter(|_| kept > 0) else { return };
        let window = self.window();
        let taken = &mut self.takes.get_or_insert_default().taken[class.index()];
        taken.push_back(now);
        // More than its part is not looked at.
        let most = usize::try_from(quota).unwrap_or(usize::MAX);
        while taken.len() > most || taken.front().is_some_and(|&at| at <= now - window) {
            taken.pop_front();
        }
    }

    /// The permit of an attempt comes back unsent.
    pub(super) fn forget_take(&mut self, sent: f64) {
        for taken in self.takes.iter_mut().flat_map(|takes| &mut takes.taken) {
            if let Some(place) = taken.iter().rposition(|at| at.total_cmp(&sent).is_eq()) {
                taken.remove(place);
                return;
            }
        }
    }

    /// All came back at once: what was taken before is of another window.
    pub(super) fn forget_takes(&mut self) {
        if matches!(&self.knowledge, Knowledge::Told(tide) if tide.rule() == Rule::Step) {
            self.takes = None;
        }
    }

    /// What windows of the calendar have the class of `wish` leave to others, of a quota of so many.
    pub(super) fn dated(&self, now: f64, wish: &Wish, quota: u64) -> f64 {
        let others = Class::ALL.into_iter().filter(|&class| class != wish.class);
        let left = others.map(|class| {
            let part = num(quota) * f64::from(wish.reserved[class.index()]) / 100.0;
            if part <= 0.0 {
                return 0.0;
            }
            let took = self.takes.as_ref().map_or(0.0, |takes| takes.since(class, now - self.window()));
            (part.floor() - took).max(0.0)
        });
        left.sum()
    }
}
