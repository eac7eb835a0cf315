//! From a tape to what a picture shows: how much of the limit was in use, by whom, and where calls were refused.
//!
//! The level is the server's own: the marks are played into a fresh model of the headline limit. In every slot of time the highest
//! level is kept, because what matters is how close to the limit it came.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_sim::model::quota::QuotaModel;

use super::Lane;
use crate::headline::Headline;
use crate::tape::Kind;

/// What one slot of time shows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Slot {
    /// Units in use, highest in the slot.
    pub(super) used: f64,
    /// The strangers' part of them.
    pub(super) strangers: f64,
    /// Own calls refused as too fast.
    pub(super) throttled: u32,
    /// Strangers' calls refused.
    pub(super) strangers_throttled: u32,
}

/// A tape, slot by slot.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) slots: Vec<Slot>,
    /// The limit, over all its counts that were used.
    pub(super) quota: f64,
}

/// The level of the headline limit.
enum Level {
    Rate(Vec<QuotaModel>, tidegate_sim::model::quota::QuotaRule, Vec<u32>),
    Cap(u32),
}

impl Level {
    fn of(headline: &Headline) -> Self {
        match headline {
            Headline::Rate(rule) => Self::Rate(Vec::new(), rule.quota, Vec::new()),
            Headline::Cap(_) | Headline::None => Self::Cap(0),
        }
    }

    /// A unit is drawn, or a place taken.
    fn draw(&mut self, at: Duration, part: u32, cost: u32) {
        match self {
            Self::Cap(taken) => *taken += cost,
            Self::Rate(models, rule, used) => {
                let part = part as usize;
                while models.len() <= part {
                    models.push(QuotaModel::new(*rule));
                    used.push(0);
                }
                let seen = models[part].admit(at, cost);
                used[part] = seen.limit.saturating_sub(seen.remaining);
            }
        }
    }

    fn free(&mut self, cost: u32) {
        if let Self::Cap(taken) = self {
            *taken = taken.saturating_sub(cost);
        }
    }

    /// What comes back by itself until `at`.
    fn refresh(&mut self, at: Duration) {
        if let Self::Rate(models, _, used) = self {
            for (model, used) in models.iter_mut().zip(used) {
                let seen = model.peek(at, 0);
                *used = seen.limit.saturating_sub(seen.remaining);
            }
        }
    }

    fn used(&self) -> f64 {
        match self {
            Self::Cap(taken) => f64::from(*taken),
            Self::Rate(_, _, used) => used.iter().map(|used| f64::from(*used)).sum(),
        }
    }

    fn counts(&self) -> usize {
        match self {
            Self::Cap(_) => 1,
            Self::Rate(models, _, _) => models.len().max(1),
        }
    }
}

impl Series {
    /// `slots` slots of `width` each.
    pub(super) fn of(lane: &Lane, headline: &Headline, slots: usize, width: Duration) -> Self {
        let ended = Duration::from_secs_f64(lane.measures.ended_at);
        let mut level = Level::of(headline);
        let mut holders = Holders::default();
        let mut found = Vec::with_capacity(slots);
        let mut marks = lane.tape.marks.iter().peekable();
        for index in 0..slots {
            let end = width * u32::try_from(index + 1).unwrap_or(u32::MAX);
            level.refresh(end.saturating_sub(width));
            let mut slot = Slot { used: level.used(), ..Slot::default() };
            slot.strangers = holders.strangers(slot.used);
            while let Some(mark) = marks.next_if(|mark| mark.at < end) {
                match mark.kind {
                    Kind::Own | Kind::Stranger => {
                        level.draw(mark.at, mark.share.part, mark.share.cost);
                        holders.add(mark.share.cost, mark.kind == Kind::Stranger);
                        if level.used() >= slot.used {
                            slot.used = level.used();
                            slot.strangers = holders.strangers(slot.used);
                        }
                    }
                    Kind::Freed => level.free(mark.share.cost),
                    Kind::OwnThrottled => slot.throttled += 1,
                    Kind::StrangerThrottled => slot.strangers_throttled += 1,
                }
            }
            if end.saturating_sub(width) > ended {
                // What is still counted after the last call is of no interest.
                (slot.used, slot.strangers) = (0.0, 0.0);
            }
            found.push(slot);
        }
        #[expect(clippy::cast_precision_loss, reason = "a limit has few counts")]
        let quota = f64::from(headline.quota()) * level.counts() as f64;
        Self { slots: found, quota }
    }
}

/// Who holds the units in use: those drawn last, as many as are in use. Exact for windows and logs; a bucket or a sliding
/// counter does not know whose units it has forgotten.
#[derive(Debug, Default)]
struct Holders {
    draws: VecDeque<(u32, bool)>,
    own: u64,
    strangers: u64,
}

impl Holders {
    fn add(&mut self, cost: u32, stranger: bool) {
        self.draws.push_back((cost, stranger));
        *(if stranger { &mut self.strangers } else { &mut self.own }) += u64::from(cost);
    }

    /// The strangers' part of `used` units.
    #[expect(clippy::cast_precision_loss, reason = "units of one limit")]
    fn strangers(&mut self, used: f64) -> f64 {
        while let Some(&(cost, stranger)) = self.draws.front()
            && (self.own + self.strangers) as f64 - f64::from(cost) >= used
        {
            self.draws.pop_front();
            *(if stranger { &mut self.strangers } else { &mut self.own }) -= u64::from(cost);
        }
        (self.strangers as f64).min(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_in_use_belong_to_those_who_drew_last() {
        let mut holders = Holders::default();
        for stranger in [true, true, false, true, false, false] {
            holders.add(1, stranger);
        }
        assert!((holders.strangers(6.0) - 3.0).abs() < 1e-9);
        assert!((holders.strangers(3.0) - 1.0).abs() < 1e-9);
        assert!(holders.strangers(0.0).abs() < 1e-9);
    }
}
