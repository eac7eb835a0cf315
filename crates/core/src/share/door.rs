//! A family's breaker, shared.
//!
//! Each holder counts failures itself; what it concludes is told to all. An opening refuses for the whole fleet, one holder
//! at a time sends the probe, and an attempt that left after the opening and succeeded closes it for all.

use serde::{Deserialize, Serialize};

use crate::share::wire::{At, DoorChange, DoorReply, DoorSide, HolderId, Ms};

/// One breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Door {
    /// When the attempt left that opened it, at the latest.
    opened: At,
    /// It refuses before.
    until: At,
    openings: u32,
    /// Who probes, since when.
    prober: Option<(HolderId, At)>,
}

impl Door {
    /// A probe that was not reported for so long is lost.
    const PATIENCE: Ms = 3_000;
    /// How often it opened is remembered for so long after it ceased to refuse.
    const KEEP: Ms = 60_000;
    /// It refuses no longer than that, whatever somebody says.
    const LONGEST: Ms = 3_600_000;

    /// A holder tells of it.
    pub(super) fn hear(&mut self, now: At, slack: Ms, holder: HolderId, side: &DoorSide) -> DoorReply {
        let sent = now.saturating_sub(side.sent);
        let mut may_probe = false;
        match side.change {
            DoorChange::Opened { stay_away, openings } => {
                self.until = self.until.max(now + stay_away.min(Self::LONGEST));
                self.opened = self.opened.max(sent);
                self.openings = self.openings.max(openings);
                self.prober = None;
            }
            DoorChange::Alive if sent.saturating_sub(slack) > self.opened => *self = Self::default(),
            DoorChange::Alive => {}
            DoorChange::MayIProbe => {
                let free =
                    self.prober.is_none_or(|(who, since)| who == holder || since + Self::PATIENCE <= now);
                may_probe = free && self.until <= now;
                if may_probe {
                    self.prober = Some((holder, now));
                }
            }
        }
        DoorReply {
            key: side.key,
            refuses_for: self.until.saturating_sub(now),
            openings: self.openings,
            may_probe,
        }
    }

    /// From then on it may be forgotten.
    pub(super) fn expires(&self) -> At {
        let probed = self.prober.map_or(0, |(_, since)| since + Self::PATIENCE);
        if self.until == 0 { probed } else { probed.max(self.until + Self::KEEP) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::wire::LimitKey;

    fn hear(door: &mut Door, now: At, holder: u64, sent: Ms, change: DoorChange) -> DoorReply {
        door.hear(now, 2, HolderId(holder), &DoorSide { key: LimitKey([0; 8]), sent, change })
    }

    #[test]
    fn an_opening_refuses_for_all_and_one_holder_probes() {
        let mut door = Door::default();
        let opened = DoorChange::Opened { stay_away: 1_000, openings: 1 };
        assert_eq!(hear(&mut door, 5_000, 1, 10, opened).refuses_for, 1_000);
        assert!(!hear(&mut door, 5_500, 2, 0, DoorChange::MayIProbe).may_probe, "it still refuses");
        assert!(hear(&mut door, 6_000, 2, 0, DoorChange::MayIProbe).may_probe);
        assert!(!hear(&mut door, 6_001, 3, 0, DoorChange::MayIProbe).may_probe, "another has it");
        assert!(hear(&mut door, 9_000, 3, 0, DoorChange::MayIProbe).may_probe, "that one was lost");
    }

    #[test]
    fn only_an_attempt_that_left_after_the_opening_closes_it() {
        let mut door = Door::default();
        hear(&mut door, 5_000, 1, 10, DoorChange::Opened { stay_away: 1_000, openings: 2 });
        assert_eq!(hear(&mut door, 5_100, 2, 200, DoorChange::Alive).refuses_for, 900);
        assert_eq!(hear(&mut door, 6_200, 2, 50, DoorChange::Alive).openings, 0);
        assert_eq!(door, Door::default());
    }
}
