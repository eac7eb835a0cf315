//! What forecasts and people are told of a shared gate: what the fleet has, and this process's part in it.

use std::time::Duration;

use super::{Mode, Shared, signed};
use crate::pace::gate::Gate;
use crate::pace::secs::{mono, num, secs};
use crate::pace::snapshot::ShareSnapshot;
use crate::share::{Kind, Refill};
use crate::time::Mono;

impl Gate {
    /// The share of the quota that the fleet uses, in thousandths.
    pub(in crate::pace) fn fleet_share(&self) -> Option<u32> {
        self.shared()?.heard.map(|heard| heard.reply.share)
    }

    /// For how long the fleet stays away.
    pub(in crate::pace::gate) fn paused_until(&self, now: Mono) -> Option<Mono> {
        let shared = self.shared().filter(|shared| shared.mode == Mode::Joined)?;
        shared.heard.map(|heard| heard.pause()).filter(|&pause| now < pause)
    }

    /// When the `place`-th waiter may go, by what the fleet has and this process's part in it.
    pub(in crate::pace::gate) fn forecast_shared(&self, now: Mono, wanted: f64) -> Option<Mono> {
        let shared = self.shared().filter(|shared| shared.mode == Mode::Joined)?;
        let Some(heard) = shared.heard else { return Some(now) };
        let missing = wanted - f64::from(shared.holding.unspent(now));
        let Kind::Rate { quota, window, .. } = heard.reply.terms.kind else { return Some(now) };
        let holders = f64::from(shared.holders.max(1));
        let missing = missing - (signed(heard.reply.available) / holders).max(0.0);
        if missing <= 0.0 {
            return Some(now);
        }
        let window = num(window) / 1e3;
        let spacing = Self::shared_spacing(secs(now), window / f64::from(quota.max(1)), shared);
        let ends = heard.reply.ends.filter(|_| heard.reply.terms.rule == Refill::Step);
        let at = match ends {
            Some((_, up)) => {
                let next = secs(heard.at + Duration::from_millis(up)).max(secs(now));
                let per_window = (window / spacing).max(1.0);
                next + window * ((missing - 1.0) / per_window).floor()
            }
            None => secs(now) + missing * spacing,
        };
        Some(mono(at))
    }

    /// Seconds between permits of this process, where the fleet has one each `spacing`: no less than what an equal part gives,
    /// unless it was given more of late.
    fn shared_spacing(now: f64, spacing: f64, shared: &Shared) -> f64 {
        let equal = spacing * f64::from(shared.holders.max(1));
        let pace = shared.pace_at(now);
        if pace > 0.0 { equal.min(1.0 / pace).max(spacing) } else { equal }
    }

    /// The same for who is refused: as many more seconds as there are others.
    pub(in crate::pace::gate) fn spread_among(&self, now: Mono, spacing: f64) -> f64 {
        match self.shared().filter(|shared| shared.mode == Mode::Joined) {
            Some(shared) => Self::shared_spacing(secs(now), spacing, shared),
            None => spacing,
        }
    }

    /// What the fleet may use now, as last heard, and what is in hand.
    pub(in crate::pace::gate) fn fleet_remaining(&self, now: Mono) -> Option<f64> {
        let shared = self.shared().filter(|shared| shared.mode == Mode::Joined)?;
        let heard = shared.heard.filter(|heard| matches!(heard.reply.terms.kind, Kind::Rate { .. }))?;
        Some((signed(heard.reply.available) + f64::from(shared.holding.unspent(now))).max(0.0))
    }

    /// What strangers draw, permits per second: not the siblings.
    pub(in crate::pace::gate) fn fleet_strangers(&self) -> Option<f64> {
        let shared = self.shared().filter(|shared| shared.mode == Mode::Joined)?;
        shared.heard.map(|heard| f64::from(heard.reply.foreign) / 1e3)
    }

    /// What is held of it, for people. None before the store was heard of it.
    pub(in crate::pace) fn share_snapshot(&self, now: Mono) -> Option<ShareSnapshot> {
        let shared = self.shared()?;
        let heard = shared.heard?;
        let lease = u64::try_from((shared.holding.lease() - now).as_millis()).unwrap_or(u64::MAX);
        Some(ShareSnapshot {
            permits: shared.holding.unspent(now),
            lease_for_ms: lease,
            generation: heard.reply.generation,
            epoch: heard.reply.epoch,
            differs: self.differing(&heard.reply).map(|differing| differing.to_string()),
        })
    }
}
