//! How often what matters was met.

use tidegate_core::share::{Reply, Unanswered};

/// How often what matters was met in the histories that were played: a comparison that never meets it shows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Grants of several permits at once.
    pub permits: u32,
    /// Grants for later.
    pub dated: u32,
    /// Scouts.
    pub scouts: u32,
    /// Asks that got nothing and were told when to come back.
    pub waits: u32,
    /// Limits that nobody may use for a while.
    pub pauses: u32,
    /// Holders that were asked what they remember.
    pub recalls: u32,
    /// Limits whose answers have to be told at once.
    pub scarce: u32,
    /// Limits from which strangers draw.
    pub strangers: u32,
    /// Limits whose next window began.
    pub epochs: u32,
    /// Doors that somebody was to probe.
    pub probes: u32,
    /// Lives of the state that followed another.
    pub lives: u32,
    /// Exchanges that were answered as before.
    pub repeated: u32,
    /// Exchanges that were refused: older ones, and those of another version.
    pub refused: u32,
}

impl Met {
    pub(super) fn count(&mut self, answer: &Result<Reply, Unanswered>, again: bool, life: Option<u64>) {
        let Ok(reply) = answer else {
            self.refused += 1;
            return;
        };
        self.repeated += u32::from(again);
        self.lives += u32::from(life.is_some_and(|life| life != reply.incarnation));
        for grant in &reply.grants {
            self.permits += u32::from(grant.permits > 1);
            self.dated += u32::from(grant.gap > 0);
            self.scouts += u32::from(grant.scout);
            self.waits += u32::from(grant.come_back > 0 && !grant.scout);
        }
        for limit in &reply.limits {
            self.pauses += u32::from(limit.pause > 0);
            self.recalls += u32::from(limit.recall);
            self.scarce += u32::from(limit.scarce);
            self.strangers += u32::from(limit.foreign > 0);
            self.epochs += u32::from(limit.epoch > 1);
        }
        self.probes += u32::from(reply.doors.iter().any(|door| door.may_probe));
    }

    /// How often that was met which was met least.
    pub fn least(&self) -> u32 {
        let some =
            [self.permits, self.dated, self.scouts, self.waits, self.pauses, self.recalls, self.scarce];
        let others = [self.strangers, self.epochs, self.probes, self.repeated, self.refused, self.lives];
        some.into_iter().chain(others).min().unwrap_or(0)
    }
}
