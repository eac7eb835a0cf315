//! Without the store: from when on a bank does by itself, and how it comes back.

use std::time::Duration;

use super::Told;
use crate::event::Event;
use crate::pace::bank::{Bank, barriers};
use crate::pace::gate::Mode;
use crate::pace::keep::KeptFleet;
use crate::pace::lane::Lane;
use crate::share::{Away, Fallback, OnStoreLoss};
use crate::time::Mono;

impl Bank {
    /// A lost answer is repaired by saying the same again within this time; later, another exchange says more.
    pub(super) const SAID_AGAIN: Duration = Duration::from_millis(500);
    /// What is due within a moment goes along.
    pub(super) const TOGETHER: Duration = Duration::from_millis(20);
    /// A store that does not answer is asked after this, after twice as much the next time, and so on up to half a second; or
    /// when it is tried again, where it says when. Each pause is shorter by up to a quarter, by chance: processes that lost
    /// one store at the same instant do not ask in step.
    const FIRST_RETRY: Duration = Duration::from_millis(50);
    const LAST_RETRY: Duration = Duration::from_millis(500);
    /// For so long after its first answer a store may not have heard of all others: a moment longer than the longest pause
    /// between two tries.
    const SETTLES: Duration = Duration::from_millis(600);
    /// When those are to come back who are refused because the store is away.
    pub(in crate::pace) const STORE_RETRY: Duration = Duration::from_secs(1);

    /// Since when the bank does without the store; `None` while it answers, or is taken to answer.
    pub fn share_mode_since(&self) -> Option<Mono> {
        self.sharing.as_deref().and_then(|sharing| sharing.alone_since)
    }

    /// Nothing leaves because the store is away.
    pub(in crate::pace) fn is_closed(&self) -> bool {
        self.sharing.as_deref().is_some_and(|sharing| sharing.mode == Mode::Closed)
    }

    /// Which store does not answer, and why, in words for people; said before [`Bank::end_exchange`]. Both are told when what the
    /// process does changes, and then once.
    pub fn store_failed(&mut self, why: &str) {
        if let Some(sharing) = self.sharing.as_deref_mut() {
            sharing.why = Some(why.to_owned());
        }
    }

    /// Whoever started this process was told that the store is away: until it answers, that is no news.
    pub fn store_is_known_away(&mut self) {
        if let Some(sharing) = self.sharing.as_deref_mut() {
            sharing.told = Told::Away;
        }
    }

    /// Nobody answered.
    pub(super) fn no_answer(&mut self, now: Mono, away: Away) {
        let Some(sharing) = self.sharing.as_deref_mut() else { return };
        sharing.fallback.away(now, away);
        sharing.back_at = None;
        let pause = Self::FIRST_RETRY * 2_u32.pow(sharing.failures.min(5));
        sharing.failures = sharing.failures.saturating_add(1);
        let pause = if away == Away::Unusable { Self::STORE_RETRY } else { pause.min(Self::LAST_RETRY) };
        let pause = pause.mul_f64(1.0 - self.rng.f64() / 4.0);
        sharing.not_before = match away {
            // A try of ours that came later than the store's own would find it as late.
            Away::Until(Some(until)) if until > now => {
                until.clamp(now + Self::FIRST_RETRY, now + Self::LAST_RETRY)
            }
            Away::Until(_) | Away::Unusable => now + pause,
        };
        if away == Away::Unusable && std::mem::replace(&mut sharing.told, Told::Unusable) != Told::Unusable {
            self.events.push(Event::StoreUnusable { why: sharing.why.take().unwrap_or_default() });
        }
    }

    /// When the store will have been away for too long.
    pub(in crate::pace) fn store_is_lost_at(&self, now: Mono) -> Option<Mono> {
        let sharing = self.sharing.as_deref().filter(|sharing| sharing.alone_since.is_none())?;
        if sharing.failures == 0 {
            return None;
        }
        let stopped = sharing.active.iter().filter_map(|&lane| self.registry.lanes.get(lane));
        let stopped = stopped.filter(|lane| lane.waiting > 0).map(|lane| self.lane_leased_until(now, lane));
        // Nobody waits until the permits of a limit end that he does not need, nor for want of those of another.
        let lease = stopped.min().unwrap_or_else(|| {
            let leases = self.registry.gates.iter().filter_map(|(_, gate)| gate.leased_until(now));
            leases.max().unwrap_or(Mono::ZERO)
        });
        sharing.fallback.alone_at(lease).map(|at| at.max(now))
    }

    /// Until when calls of a lane can leave by permits in hand: they need one of each limit.
    fn lane_leased_until(&self, now: Mono, lane: &Lane) -> Mono {
        let gates = lane.gates.iter().map(|&gate| &self.registry.gates[gate]);
        let leases = gates.filter(|gate| gate.is_joined()).filter_map(|gate| {
            if gate.unspent(now) == 0 { Some(Mono::ZERO) } else { gate.leased_until(now) }
        });
        leases.min().unwrap_or(Mono::ZERO)
    }

    /// Goes on by itself if the store has been away for too long.
    pub(in crate::pace) fn look_for_store(&mut self, now: Mono) {
        if self.store_is_lost_at(now).is_none_or(|at| at > now) {
            return;
        }
        let Some(sharing) = self.sharing.as_deref_mut() else { return };
        let mode = match sharing.config.on_store_loss {
            OnStoreLoss::Share => Mode::Part,
            OnStoreLoss::Closed => Mode::Closed,
            OnStoreLoss::Open => Mode::Open,
        };
        sharing.alone_since = Some(now);
        self.events.push(Event::StoreAway {
            among: sharing.fallback.holders(),
            met: sharing.fallback.has_met(),
            on_store_loss: sharing.config.on_store_loss,
            why: sharing.why.take(),
            again: sharing.told == Told::Away,
        });
        self.go_by(now, mode);
        if mode == Mode::Closed {
            self.doubt_all(now);
        }
    }

    /// The store answered. Each process goes by itself a moment longer and tells what it sent: the store must have heard of all
    /// of them before it gives permits, and each finds out by itself that it is back.
    pub(super) fn store_answered(&mut self, now: Mono) {
        let Some(sharing) = self.sharing.as_deref_mut() else { return };
        let Some(since) = sharing.alone_since else { return };
        let back_at = *sharing.back_at.get_or_insert(now + Self::SETTLES);
        if now < back_at && sharing.mode != Mode::Closed {
            return;
        }
        (sharing.alone_since, sharing.back_at) = (None, None);
        self.events.push(Event::StoreBack { away_for: now - since });
        self.go_by(now, Mode::Joined);
    }

    /// The fleet, for a successor that does not reach the store.
    pub(in crate::pace) fn keep_fleet(&self) -> Option<KeptFleet> {
        let sharing = self.sharing.as_deref()?;
        if sharing.heard.is_none() {
            return self.fleet_kept;
        }
        let shares = self.registry.gates.iter().filter_map(|(_, gate)| gate.fleet_share());
        Some(KeptFleet { holders: sharing.fallback.holders(), share: shares.min().unwrap_or(1_000) })
    }

    /// Begins with what an earlier process knew of the fleet.
    pub(in crate::pace) fn restore_fleet(&mut self, kept: Option<KeptFleet>) {
        self.fleet_kept = kept;
        let (Some(kept), Some(sharing)) = (kept, self.sharing.as_deref_mut()) else { return };
        let config = sharing.config;
        sharing.fallback = Fallback::new(config.holder, config.max_instances, Some(kept.holders.max(1)));
        if let Some(partaking) = &mut self.registry.sharing {
            (partaking.fallback, partaking.share) = (sharing.fallback.clone(), kept.share);
        }
    }

    fn go_by(&mut self, now: Mono, mode: Mode) {
        let Some(sharing) = self.sharing.as_deref_mut() else { return };
        sharing.mode = mode;
        self.registry.set_mode(now, mode, &sharing.fallback);
        sharing.ran_out = true;
        for (gate, state) in self.registry.gates.iter() {
            if state.shared().is_some() {
                sharing.gates.push(gate);
                self.schedule.touch(barriers::gate(gate));
            }
        }
    }
}
