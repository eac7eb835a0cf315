//! Who goes when there is no room, and what nobody uses any more.
//!
//! Lanes and gates are bounded, because callers choose the names that make them. Two hands go round, a few places per
//! call, as in a clock cache: what a call pays does not depend on how much there is.
//!
//! * A lane without waiters and tickets that was not used for [`Registry::LONG`] goes. So does, at the bound, the longest
//!   unused one of a few.
//! * A gate whose last lane goes is folded to its gist, or forgotten if it has none.
//! * At the bound a gate at rest is forgotten, the longest unused one of a few, once it is *harmless*: it is not closed, and
//!   nothing of a declared quota is spent. Whoever asks for it again starts without an imagined quota.
//! * At the bound a family without lanes is forgotten with its gates at rest, the longest unused one of a few, once these are
//!   harmless and its breaker is closed. Whoever asks for it again begins with `other`.
//! * Where nothing may be forgotten, newcomers share one gate per limit. That is slower for them and safe for the quota.

use std::hash::BuildHasher;
use std::time::Duration;

use smallvec::SmallVec;

use super::{GateKey, Limit, OTHER, Place, Registry, Resting};
use crate::pace::gist::{Gist, Known};
use crate::pace::lane::Lane;
use crate::pace::secs::secs;
use crate::pace::slab::small;
use crate::pace::spec::LimitKind;
use crate::time::Mono;

impl Registry {
    /// Unused for so long, a lane and its gates are folded. Most callers that repeat do so more often.
    const LONG: Duration = Duration::from_mins(5);
    /// Places a hand looks at in one step.
    const STEP: usize = 8;
    /// Whoever finds no room shares the gates of this credential.
    pub(super) const CROWD: &'static str = "(crowd)";

    pub(super) fn room(&self) -> usize {
        Self::PER_FAMILY * self.config.max_families.max(8)
    }

    /// One step of the hand that folds what was not used for long. Cheap enough for every call.
    pub(in crate::pace) fn tidy(&mut self, now: Mono, places: usize) {
        let mut hand = self.lane_hand;
        let long = |lane: &Lane| lane.is_idle() && now - lane.used >= Self::LONG;
        let gone = self.lanes.pass(&mut hand, places).find(|(_, lane)| long(lane)).map(|(id, _)| id);
        self.lane_hand = hand;
        if let Some(id) = gone {
            self.drop_lane(now, id);
        }
        if let Some(gate) = self.orphans.pop_front() {
            self.settle_orphan(now, gate);
        }
    }

    pub(super) fn make_room_for_lane(&mut self, now: Mono) {
        if self.lanes.len() >= self.room() {
            self.drop_some_lane(now);
        }
    }

    /// The longest unused of the next few lanes.
    fn drop_some_lane(&mut self, now: Mono) {
        let mut hand = self.lane_hand;
        let few = self.lanes.pass(&mut hand, Self::STEP).filter(|(_, lane)| lane.is_idle());
        let oldest = few.min_by_key(|(_, lane)| lane.used).map(|(id, _)| id);
        self.lane_hand = hand;
        if let Some(id) = oldest {
            self.drop_lane(now, id);
        }
    }

    fn drop_lane(&mut self, now: Mono, id: usize) {
        let Some(lane) = self.lanes.remove(id) else { return };
        let hash = lane.key.hash_with(&self.hasher);
        if let Ok(entry) = self.lane_ids.find_entry(hash, |&other| other == small(id)) {
            entry.remove();
        }
        self.credentials.release(lane.credential);
        self.leave_members(&lane);
        let family = &mut self.families[lane.family];
        (family.lanes, family.left) = (family.lanes - 1, now);
        for gate in lane.gates {
            self.leave(now, gate);
        }
    }

    /// A lane that went is no member of its gate any more, or of its family's lanes that did not prove to exist.
    fn leave_members(&mut self, lane: &Lane) {
        let (Some(&implicit), Some(place)) = (lane.gates.first(), lane.member) else { return };
        let moved = if lane.family == OTHER {
            let Some(lanes) = self.unproven.get_mut(&lane.key.family) else { return };
            lanes.swap_remove(place as usize);
            let moved = lanes.get(place as usize).map(|&lane| lane as usize);
            if lanes.is_empty() {
                self.unproven.remove(&lane.key.family);
            }
            moved
        } else {
            let members = &mut self.gates[implicit].members;
            members.swap_remove(place as usize);
            members.get(place as usize).copied()
        };
        if let Some(moved) = moved {
            self.lanes[moved].member = Some(place);
        }
    }

    /// A gate has one lane less.
    pub(super) fn leave(&mut self, now: Mono, gate: usize) {
        self.gates[gate].lanes -= 1;
        if self.gates[gate].lanes == 0 {
            self.settle_orphan(now, gate);
        }
    }

    fn settle_orphan(&mut self, now: Mono, gate: usize) {
        match self.gates.get(gate) {
            Some(orphan) if orphan.lanes > 0 => {}
            Some(orphan) if orphan.in_flight() > 0 || orphan.is_held(now) => self.orphans.push_back(gate),
            Some(_) => self.fold(now, gate),
            None => {}
        }
    }

    /// Leaves of a gate what is worth keeping.
    fn fold(&mut self, now: Mono, gate: usize) {
        let Some(gate) = self.remove_place(Place::Live(small(gate))).and_then(|()| self.gates.remove(gate))
        else {
            return;
        };
        let key = gate.key;
        match gate.gist(now) {
            Some(gist) => {
                let gist = self.as_declared(key, gist);
                self.lay_down(key, gist);
            }
            None => self.release(key),
        }
    }

    /// A gate comes to rest.
    pub(super) fn lay_down(&mut self, key: GateKey, gist: Gist) {
        let of_family = key.family.map(|family| &mut self.families[family as usize].at_rest);
        let place = small(of_family.as_ref().map_or(0, |at_rest| at_rest.len()));
        let rest = small(self.resting.insert(Resting { key, gist, place }));
        if let Some(at_rest) = of_family {
            at_rest.push(rest);
        }
        self.enter(key, Place::Resting(rest));
    }

    /// A gate rests no longer.
    fn take_up(&mut self, rest: usize) -> Resting {
        self.remove_place(Place::Resting(small(rest))).expect("a gate at rest stands in the table");
        let taken = self.resting.remove(rest).expect("it was just found");
        if let Some(family) = taken.key.family {
            let at_rest = &mut self.families[family as usize].at_rest;
            at_rest.swap_remove(taken.place as usize);
            if let Some(&moved) = at_rest.get(taken.place as usize) {
                self.resting[moved as usize].place = taken.place;
            }
        }
        taken
    }

    /// A learnt quota replaces the declared one only as long as the declaration stays the same.
    pub(super) fn as_declared(&self, key: GateKey, mut gist: Gist) -> Gist {
        if let (Known::Declared(spent), Limit::Declared(index)) = (&mut gist.known, key.limit)
            && let LimitKind::Rate { quota, .. } = self.config.limits[index as usize].kind
        {
            spent.declared = quota;
        }
        gist
    }

    /// A gate at rest is asked for.
    pub(super) fn wake(&mut self, now: Mono, rest: usize) -> usize {
        let Resting { key, gist, .. } = self.take_up(rest);
        let mut gate = self.blank(now, key);
        gate.unfold(now, &gist);
        let gate = self.gates.insert(gate);
        self.enter(key, Place::Live(small(gate)));
        gate
    }

    fn remove_place(&mut self, place: Place) -> Option<()> {
        let hash = self.hash_of(place)?;
        self.places.find_entry(hash, |&other| other == place).ok()?.remove();
        Some(())
    }

    fn hash_of(&self, place: Place) -> Option<u64> {
        let key = match place {
            Place::Live(gate) => self.gates.get(gate as usize)?.key,
            Place::Resting(rest) => self.resting.get(rest as usize)?.key,
        };
        Some(self.hasher.hash_one(key))
    }

    pub(super) fn release(&mut self, key: GateKey) {
        if let Some(credential) = key.credential {
            self.credentials.release(credential);
        }
        if let Limit::Named(name) = key.limit {
            self.header_names.release(name);
        }
        if let Some(family) = key.family {
            self.families[family as usize].gates -= 1;
        }
    }

    /// The place of a family that was forgotten for another one: the longest unused of the next few that may be. Of one with many gates
    /// a few go at a time, and it is forgotten with the last of them.
    pub(super) fn forget_family(&mut self, now: Mono) -> Option<usize> {
        let count = self.families.len();
        let few = (self.family_hand..self.family_hand + Self::STEP.min(count)).map(|place| place % count);
        self.family_hand = (self.family_hand + Self::STEP) % count;
        let unused = |&place: &usize| {
            let family = &self.families[place];
            place != OTHER && family.lanes == 0 && family.breaker.keep(now).is_none()
        };
        let place = few.filter(unused).min_by_key(|&place| self.families[place].left)?;
        let at_rest = self.families[place].at_rest.iter().rev().take(Self::STEP);
        let harmless = |id: &u32| self.resting[*id as usize].gist.harmless_at() <= secs(now);
        let harmless: SmallVec<[u32; Self::STEP]> = at_rest.copied().filter(harmless).collect();
        for id in harmless {
            self.forget(id as usize);
        }
        if self.families[place].gates > 0 {
            return None;
        }
        let hash = self.hasher.hash_one(self.families[place].family.as_str());
        let entry = self.family_ids.find_entry(hash, |&id| id == small(place));
        entry.expect("a family stands in the table").remove();
        Some(place)
    }

    /// Whether one more gate may be made, after something was forgotten for it if it must.
    pub(super) fn has_room(&mut self, now: Mono) -> bool {
        if self.gates.len() + self.resting.len() < self.room() {
            return true;
        }
        if !self.forget_some(now) {
            self.drop_some_lane(now);
            self.forget_some(now);
        }
        self.gates.len() + self.resting.len() < self.room()
    }

    /// The longest unused of the next few gates at rest that are harmless.
    fn forget_some(&mut self, now: Mono) -> bool {
        let mut hand = self.rest_hand;
        let few = self.resting.pass(&mut hand, Self::STEP);
        let harmless = few.filter(|(_, rest)| rest.gist.harmless_at() <= secs(now));
        let oldest = harmless.min_by(|one, other| one.1.gist.last_used.total_cmp(&other.1.gist.last_used));
        let oldest = oldest.map(|(id, _)| id);
        self.rest_hand = hand;
        let Some(id) = oldest else { return false };
        self.forget(id);
        true
    }

    fn forget(&mut self, rest: usize) {
        let forgotten = self.take_up(rest);
        self.release(forgotten.key);
    }

    /// The key to make a gate with: its own, or where there is no room that of the crowd.
    pub(super) fn room_for(&mut self, now: Mono, key: GateKey) -> GateKey {
        if self.has_room(now) {
            return key;
        }
        self.crowd_of(key)
    }

    fn crowd_of(&self, key: GateKey) -> GateKey {
        GateKey {
            limit: key.limit,
            token: None,
            credential: key.credential.map(|_| self.crowd),
            family: key.family.map(|_| small(OTHER)),
        }
    }

    /// What a gate of its own has to begin with, because it may have been spent, or closed, while there was no room.
    pub(super) fn spent_in_the_crowd(&self, now: Mono, key: GateKey) -> Option<Gist> {
        let crowd = self.crowd_of(key);
        if crowd == key {
            return None;
        }
        let mut gist = match self.place_of(crowd)? {
            Place::Live(gate) => self.as_declared(crowd, self.gates[gate as usize].gist(now)?),
            Place::Resting(rest) => self.resting[rest as usize].gist.clone(),
        };
        if gist.harmless_at() <= secs(now) {
            return None;
        }
        gist.forget_whose();
        Some(gist)
    }

    pub(super) fn place_of(&self, key: GateKey) -> Option<Place> {
        self.places.find(self.hasher.hash_one(key), |&place| self.key_at(place) == key).copied()
    }

    pub(super) fn resting_at(&self, key: GateKey) -> Option<usize> {
        match self.place_of(key)? {
            Place::Resting(rest) => Some(rest as usize),
            Place::Live(_) => None,
        }
    }

    pub(super) fn gist_of(&self, key: GateKey) -> Option<&Gist> {
        self.resting_at(key).map(|rest| &self.resting[rest].gist)
    }

    /// Gates at rest: their names, whose counts they are, and what is kept of them. What tokens of the process before left is
    /// no gate: those of today's tokens begin with it.
    pub(in crate::pace) fn at_rest(&self) -> impl Iterator<Item = (String, String, &Gist)> {
        let gates = self.resting.iter().filter(|(_, rest)| rest.key.token != Some(Self::ANY_TOKEN));
        gates.map(|(_, rest)| (self.name_of(rest.key), self.partition(rest.key), &rest.gist))
    }

    fn name_of(&self, key: GateKey) -> String {
        match key.limit {
            Limit::Declared(index) => self.names[index as usize].to_string(),
            Limit::Implicit => self.label(key).to_string(),
            Limit::Named(name) => format!("{} {}", self.label(key), self.header_names.name(name)),
        }
    }
}
