//! The lane of a call, and the gates it has to pass.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use smallvec::smallvec;

use super::{GateKey, Limit, OTHER, Registry};
use crate::key::{CredentialId, Family};
use crate::pace::ask::{Ask, TokenSlot};
use crate::pace::lane::{Lane, LaneKey};
use crate::pace::secs::secs;
use crate::pace::slab::small;
use crate::pace::spec::LimitKind;
use crate::time::Mono;

impl Registry {
    /// The lane of a call.
    pub(in crate::pace) fn lane(&mut self, now: Mono, ask: &Ask<'_>) -> usize {
        let limits = self.limits_of(ask);
        let hash = lane_hash(&self.hasher, ask.family, ask.credential, ask.token, limits);
        let found = self.lane_ids.find(hash, |&id| {
            let key = &self.lanes[id as usize].key;
            key.token == ask.token
                && key.limits == limits
                && key.family == *ask.family
                && key.credential == *ask.credential
        });
        if let Some(&id) = found {
            let lane = id as usize;
            self.lanes[lane].used = now;
            return lane;
        }
        self.add_lane(now, ask, limits, hash)
    }

    fn add_lane(&mut self, now: Mono, ask: &Ask<'_>, limits: u128, hash: u64) -> usize {
        self.began.get_or_insert(secs(now));
        self.make_room_for_lane(now);
        let known = self.family_id(ask.family).or_else(|| self.family_to_share(ask.family));
        let family = known.unwrap_or(OTHER);
        // What the registry holds already is shared, not held twice.
        let name = if family == OTHER { ask.family.clone() } else { self.families[family].family.clone() };
        let credential = self.credentials.hold(ask.credential);
        self.families[family].lanes += 1;
        let held = self.credentials.name(credential);
        // A client may go by several names; what it is found by is the name of the ask.
        let shown = if held == ask.credential { held } else { ask.credential }.clone();
        let key = LaneKey { family: name, credential: shown, token: ask.token, limits };
        let lane = self.lanes.insert(Lane::new(key, family, credential, now));
        let Self { lane_ids, lanes, hasher, .. } = self;
        lane_ids.insert_unique(hash, small(lane), |&id| lanes[id as usize].key.hash_with(hasher));
        self.resolve(now, lane);
        if family == OTHER {
            let lanes = self.unproven.entry(ask.family.clone()).or_default();
            self.lanes[lane].member = Some(small(lanes.len()));
            lanes.push(small(lane));
        }
        lane
    }

    fn limits_of(&self, ask: &Ask<'_>) -> u128 {
        let applies = |index: usize| self.config.limits[index].matches(ask.method, ask.path);
        (0..self.config.limits.len())
            .filter(|&index| applies(index))
            .fold(0, |bits, index| bits | (1 << index))
    }

    /// Finds or makes the gates of a lane.
    fn resolve(&mut self, now: Mono, lane: usize) {
        let Lane { key, family, credential, .. } = &self.lanes[lane];
        let (key, family, credential) = (key.clone(), *family, *credential);
        // Room for one gate must not be made by dropping this lane, or a gate that was just found for it.
        self.lanes[lane].tickets += 1;
        let implicit = self.implicit(now, family, credential);
        self.gates[implicit].lanes += 1;
        let mut gates = smallvec![implicit];
        let mut unnamed = implicit;
        let mut observed = false;
        for index in (0..self.config.limits.len()).filter(|index| key.limits & (1 << index) != 0) {
            let gate = self.declared(now, index, key.token, credential, family);
            self.gates[gate].lanes += 1;
            gates.push(gate);
            let limit = &self.config.limits[index];
            let whole_family = limit.method.is_none() && limit.path.is_all_under(key.family.as_str());
            let same_scope = whole_family && !limit.pin;
            let wider = limit.method.is_none() && limit.path.is_all_under("");
            if limit.observes(None) || (same_scope && !observed && unnamed == implicit) {
                unnamed = gate;
                observed |= limit.observes(None);
            }
            match limit.kind {
                LimitKind::Rate { .. } => self.gates[implicit].back(),
                LimitKind::Concurrent { .. } if whole_family || wider => {
                    self.gates[implicit].bounded_elsewhere();
                }
                LimitKind::Concurrent { .. } => {}
            }
        }
        let old = std::mem::take(&mut self.lanes[lane].gates);
        let member = self.is_own(implicit).then(|| {
            self.gates[implicit].members.push(lane);
            small(self.gates[implicit].members.len() - 1)
        });
        let lane = &mut self.lanes[lane];
        lane.gates = gates;
        lane.member = member;
        lane.unnamed = unnamed;
        lane.tickets -= 1;
        for gate in old {
            self.leave(now, gate);
        }
    }

    /// An implicit gate of one family and credential, not one of many.
    fn is_own(&self, implicit: usize) -> bool {
        let key = self.gates[implicit].key;
        key.family != Some(small(OTHER)) && key.credential != Some(self.crowd)
    }

    /// Gives a family that proved to exist gates of its own. Returns its lanes, or nothing if it had them or there is
    /// no room.
    pub(in crate::pace) fn promote(&mut self, now: Mono, family: &Family) -> Vec<usize> {
        if self.family_id(family).is_some() {
            return Vec::new();
        }
        let place = if self.families.len() > self.config.max_families {
            let Some(place) = self.forget_family(now) else { return Vec::new() };
            Some(place)
        } else {
            None
        };
        let index = self.add_family(family, place);
        let lanes = self.unproven.remove(family).unwrap_or_default();
        let mut lanes: Vec<usize> = lanes.into_iter().map(|lane| lane as usize).collect();
        for &lane in &lanes {
            // One that nobody uses may have gone to make room for the gates of another.
            let Some(state) = self.lanes.get_mut(lane) else { continue };
            state.family = index;
            self.families[OTHER].lanes -= 1;
            self.families[index].lanes += 1;
            self.resolve(now, lane);
        }
        lanes.retain(|&lane| self.lanes.get(lane).is_some());
        lanes
    }

    /// The gate of a limit that only headers name, if there is room for it, and the lanes that must pass it now.
    pub(in crate::pace) fn name_limit(
        &mut self,
        now: Mono,
        lane: usize,
        name: &str,
    ) -> Option<(usize, Vec<usize>)> {
        let Lane { family, credential, ref gates, .. } = self.lanes[lane];
        let named = |gate: &&usize| self.gates[**gate].header_name.is_some();
        let implicit = gates[0];
        if !self.is_own(implicit) || gates.iter().filter(named).count() >= Self::MAX_NAMED {
            return None;
        }
        let name = self.header_names.hold(&Arc::from(name));
        let key = GateKey {
            limit: Limit::Named(name),
            token: None,
            credential: Some(credential),
            family: Some(small(family)),
        };
        let gate = self.find(now, key).or_else(|| self.has_room(now).then(|| self.make(now, key)));
        self.header_names.release(name);
        let gate = gate?;
        let mut joined = Vec::new();
        for lane in self.gates[implicit].members.clone() {
            if !self.lanes[lane].gates.contains(&gate) {
                self.lanes[lane].gates.push(gate);
                self.gates[gate].lanes += 1;
                joined.push(lane);
            }
        }
        Some((gate, joined))
    }
}

fn lane_hash(
    hasher: &FixedState,
    family: &Family,
    credential: &CredentialId,
    token: TokenSlot,
    limits: u128,
) -> u64 {
    let mut hasher = hasher.build_hasher();
    family.as_str().hash(&mut hasher);
    credential.counted_as().hash(&mut hasher);
    token.0.hash(&mut hasher);
    limits.hash(&mut hasher);
    hasher.finish()
}

impl LaneKey {
    pub(super) fn hash_with(&self, hasher: &FixedState) -> u64 {
        lane_hash(hasher, &self.family, &self.credential, self.token, self.limits)
    }
}
