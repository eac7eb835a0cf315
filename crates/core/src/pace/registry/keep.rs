//! The registry's part of a stored state.

use std::sync::Arc;

use super::{Crash, GateKey, Limit, OTHER, Place, Registry};
use crate::key::{CredentialId, Family};
use crate::pace::gist::Gist;
use crate::pace::keep::{
    Kept, KeptBreaker, KeptCrash, KeptFamily, KeptGate, KeptLimit, LostOf, Restored, Unseen, instant,
};
use crate::pace::secs::secs;
use crate::pace::slab::small;
use crate::pace::spec::LimitKind;
use crate::time::Mono;

impl Registry {
    /// So many crashes are remembered of all limits, and of each limit that lost a gate. The leases of sixteen make two quotas, so
    /// that what those before them spent is of no account.
    const MAX_CRASHES: usize = 16;

    /// All gates, on a clock that shows `by` seconds more.
    pub(in crate::pace) fn keep_gates(&self, now: Mono, by: f64) -> Vec<KeptGate> {
        let live = self.gates.iter().filter_map(|(_, gate)| {
            let gist = self.as_declared(gate.key, gate.gist(now)?);
            Some((gate.key, gist))
        });
        let resting = self.resting.iter().map(|(_, rest)| (rest.key, rest.gist.clone()));
        live.chain(resting).map(|(key, gist)| self.keep_gate(key, gist.shift(by))).collect()
    }

    fn keep_gate(&self, key: GateKey, gist: Gist) -> KeptGate {
        let limit = match key.limit {
            Limit::Declared(index) => KeptLimit::Declared(self.config.limits[index as usize].key.clone()),
            Limit::Implicit => KeptLimit::Implicit,
            Limit::Named(name) => KeptLimit::Named(self.header_names.name(name).to_string()),
        };
        let own = key.credential.filter(|&id| id != self.crowd);
        let family = |index: u32| self.families[index as usize].family.to_string();
        KeptGate {
            limit,
            family: key.family.map(family),
            credential: own.map(|id| self.credentials.name(id).to_string()),
            crowd: key.credential == Some(self.crowd),
            token: key.token.is_some(),
            gist,
        }
    }

    /// All families that proved to exist.
    pub(in crate::pace) fn keep_families(&self, now: Mono, by: f64) -> Vec<KeptFamily> {
        let keep = |state: &super::FamilyState| KeptFamily {
            family: state.family.to_string(),
            breaker: state
                .breaker
                .keep(now)
                .map(|(until, openings)| KeptBreaker { until: secs(until) + by, openings }),
        };
        self.families.iter().map(keep).collect()
    }

    /// Families with their breakers, as far as there is room.
    pub(in crate::pace) fn restore_families(&mut self, kept: &Kept, now: Mono, by: f64) {
        for known in &kept.families {
            let family = Family::new(&known.family);
            let Some(index) = self.known_family(&family).or_else(|| {
                (self.families.len() <= self.config.max_families).then(|| self.add_family(&family, None))
            }) else {
                continue;
            };
            if let Some(KeptBreaker { until, openings }) = known.breaker {
                self.families[index].breaker.restore(now, instant(until, by), openings);
            }
        }
    }

    fn known_family(&self, family: &Family) -> Option<usize> {
        if *family == self.families[OTHER].family { Some(OTHER) } else { self.family_id(family) }
    }

    /// Gates come back to rest, and wake when they are asked for.
    pub(in crate::pace) fn restore_gates(
        &mut self,
        kept: &Kept,
        now: Mono,
        by: f64,
        unseen: Unseen,
    ) -> Restored {
        self.crashes = Some(self.crashes_of(kept, by, unseen));
        let mut restored = Restored::default();
        for gate in &kept.gates {
            match self.key_of(gate) {
                Some(key) if self.resting.len() < self.room() => {
                    let gist = gate.gist.clone().shift(by).back_at(secs(now), unseen);
                    self.rest_again(key, gist);
                    restored.gates += 1;
                }
                key => {
                    restored.forgotten += 1;
                    if let Some(key) = key {
                        self.release(key);
                    }
                }
            }
        }
        restored
    }

    /// Ends of processes of which gates that the state does not hold may have been spent.
    pub(in crate::pace) fn keep_crashes(&self, now: Mono, by: f64) -> Vec<KeptCrash> {
        let windows = self.config.limits.iter().filter_map(|limit| match limit.kind {
            LimitKind::Rate { window, .. } => Some(window.as_secs_f64()),
            LimitKind::Concurrent { .. } => None,
        });
        let longest = windows.fold(0.0, f64::max);
        let name = |index: u32| self.config.limits[index as usize].key.clone();
        let known = self.crashes.iter().flatten().filter(|crash| secs(now) < crash.ended + 2.0 * longest);
        known
            .map(|crash| KeptCrash { ended: crash.ended + by, all: crash.all, limit: crash.limit.map(name) })
            .collect()
    }

    fn crashes_of(&self, kept: &Kept, by: f64, unseen: Unseen) -> Vec<Crash> {
        let index = |name: &String| self.limit_named(name).map(|(index, _)| small(index));
        let mut crashes = Vec::new();
        for KeptCrash { ended, all, limit } in &kept.crashes {
            let limit = match limit.as_ref().map(index) {
                // It is no longer declared.
                Some(None) => continue,
                Some(index) => index,
                None => None,
            };
            crashes.push(Crash { ended: (ended + by).min(unseen.ended), all: *all, limit });
        }
        let ended = unseen.ended;
        if let Some(all) = unseen.unbounded() {
            crashes.push(Crash { ended, all, limit: None });
        }
        for lost in &kept.lost {
            let limit = match &lost.spent_of {
                LostOf::Nothing => continue,
                LostOf::Limit(name) => match index(name) {
                    Some(index) => Some(index),
                    None => continue,
                },
                LostOf::Anything => None,
            };
            crashes.push(Crash { ended, all: true, limit });
        }
        Self::told_apart(crashes)
    }

    /// However many gates a process lost of a limit, it ended once; and those of one limit push out none of another.
    fn told_apart(mut crashes: Vec<Crash>) -> Vec<Crash> {
        crashes.sort_by(|one, other| {
            let by_limit = one.limit.cmp(&other.limit).then(one.ended.total_cmp(&other.ended));
            by_limit.then(one.all.cmp(&other.all))
        });
        // Two leases add up, even where a clock that was set back lets them end at once.
        crashes.dedup_by(|next, kept| {
            next.all && kept.all && next.limit == kept.limit && next.ended.total_cmp(&kept.ended).is_eq()
        });
        let of_limits = crashes.chunk_by(|one, other| one.limit == other.limit);
        let mut known: Vec<Crash> = of_limits
            .flat_map(|ends| &ends[ends.len().saturating_sub(Self::MAX_CRASHES)..])
            .copied()
            .collect();
        known.sort_by(|one, other| one.ended.total_cmp(&other.ended));
        known
    }

    fn key_of(&mut self, gate: &KeptGate) -> Option<GateKey> {
        // A limit that was stored under what is an alias now goes on as the one it belongs to.
        let declared = |key: &String| self.limit_named(key).map(|(index, _)| index);
        let family = match &gate.family {
            None => None,
            Some(family) => Some(small(self.known_family(&Family::new(family))?)),
        };
        let limit = match &gate.limit {
            KeptLimit::Declared(key) => Limit::Declared(small(declared(key)?)),
            KeptLimit::Implicit => Limit::Implicit,
            KeptLimit::Named(name) => Limit::Named(self.header_names.hold(&Arc::from(name.as_str()))),
        };
        let credential = match &gate.credential {
            _ if gate.crowd => {
                self.credentials.hold_again(self.crowd);
                Some(self.crowd)
            }
            name => name.as_ref().map(|name| self.credentials.hold(&CredentialId::new(name))),
        };
        if let Some(family) = family {
            self.families[family as usize].gates += 1;
        }
        Some(GateKey { limit, token: gate.token.then_some(Self::ANY_TOKEN), credential, family })
    }

    /// Of two that became one, as those of two tokens, what is closed or spent in either counts.
    fn rest_again(&mut self, key: GateKey, gist: Gist) {
        match self.place_of(key) {
            None => return self.lay_down(key, gist),
            Some(Place::Resting(rest)) => {
                self.resting[rest as usize].gist.merge(gist);
            }
            // It is in use already, and knows better.
            Some(Place::Live(_)) => {}
        }
        self.release(key);
    }
}
