//! Which gates a call must pass.
//!
//! Gates, lanes and families exist from their first use and are bounded. A family that was never answered by anything
//! but 404 has no gate of its own: it passes the gate `other`, so that a caller who invents paths cannot make the bank
//! grow. At the first other answer it is *promoted*, and its attempts in flight move with it. Beyond the bound families
//! stay with `other`.
//!
//! A call finds its lane by one look into a table, without a copy of its names. What nobody used for long is folded to its
//! gist and comes back when it is asked for (`room`).
//!
//! Of a family's gates the first is implicit: what headers without a name describe, unless a declared limit observes
//! them or has the same scope (the family, all methods). Limits that only headers name get gates as they appear.

mod keep;
mod room;
mod told;

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use smallvec::smallvec;

use crate::breaker::Breaker;
use crate::key::{CredentialId, Family};
use crate::pace::ask::{Ask, TokenSlot};
use crate::pace::gate::{Gate, Knowledge};
use crate::pace::gist::Gist;
use crate::pace::keep::Unseen;
use crate::pace::lane::{Lane, LaneKey};
use crate::pace::names::Names;
use crate::pace::secs::{num, secs, whole};
use crate::pace::slab::{Slab, small};
use crate::pace::sliding::Sliding;
use crate::pace::spec::{BankConfig, LimitKind, Partition};
use crate::time::Mono;

/// The family of everything that did not prove to exist.
pub(super) const OTHER: usize = 0;

/// A family the bank knows.
#[derive(Debug)]
pub(super) struct FamilyState {
    pub(super) family: Family,
    /// The name of its implicit limits.
    label: Arc<str>,
    pub(super) breaker: Breaker,
}

impl FamilyState {
    fn new(family: &Family, config: &BankConfig) -> Self {
        Self {
            family: family.clone(),
            label: Arc::from(family.as_str()),
            breaker: Breaker::new(config.breaker),
        }
    }
}

/// What a gate counts: which limit, and whose count it is. Names are numbers of the registry's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct GateKey {
    limit: Limit,
    token: Option<TokenSlot>,
    credential: Option<u32>,
    family: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Limit {
    /// Declared, by its place in the configuration.
    Declared(u32),
    /// What headers without a name describe.
    Implicit,
    /// What headers name.
    Named(u32),
}

/// A gate that nobody uses.
#[derive(Debug)]
struct Resting {
    key: GateKey,
    gist: Gist,
}

/// Where a gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Live(u32),
    Resting(u32),
}

/// Gates, lanes and families.
#[derive(Debug)]
pub(super) struct Registry {
    config: Arc<BankConfig>,
    names: Vec<Arc<str>>,
    hasher: FixedState,
    pub(super) gates: Slab<Gate>,
    resting: Slab<Resting>,
    places: HashTable<Place>,
    pub(super) lanes: Slab<Lane>,
    lane_ids: HashTable<u32>,
    pub(super) families: Vec<FamilyState>,
    family_ids: HashTable<u32>,
    credentials: Names<CredentialId>,
    /// Whose gates those share who find no room.
    crowd: u32,
    header_names: Names<Arc<str>>,
    /// Gates that lost their last lane while attempts of it were in flight.
    orphans: Vec<usize>,
    /// When the bank was first asked: what was spent before counts from here.
    began: Option<f64>,
    /// How a predecessor ended, if its state was restored.
    unseen: Option<Unseen>,
    lane_hand: usize,
    rest_hand: usize,
}

impl Registry {
    /// Limits that only headers name, per family and credential.
    const MAX_NAMED: usize = 4;
    /// Lanes and gates kept per family allowed; idle ones beyond go, those that know least first.
    const PER_FAMILY: usize = 8;
    /// Stands for every token of a credential in a state that was stored: numbers of tokens die with their process.
    const ANY_TOKEN: TokenSlot = TokenSlot(u64::MAX);

    pub(super) fn new(config: Arc<BankConfig>) -> Self {
        // With a seed of its own nobody outside can make names that collide, and a run can be repeated.
        let hasher = FixedState::with_seed(config.seed);
        let mut credentials = Names::new(hasher.clone());
        let crowd = credentials.hold(&CredentialId::new(Self::CROWD));
        Self {
            names: config.limits.iter().map(|limit| Arc::from(limit.key.as_str())).collect(),
            hasher: hasher.clone(),
            gates: Slab::new(),
            resting: Slab::new(),
            places: HashTable::new(),
            lanes: Slab::new(),
            lane_ids: HashTable::new(),
            families: vec![FamilyState::new(&Family::new("other"), &config)],
            family_ids: HashTable::new(),
            credentials,
            crowd,
            header_names: Names::new(hasher),
            orphans: Vec::new(),
            began: None,
            unseen: None,
            lane_hand: 0,
            rest_hand: 0,
            config,
        }
    }

    /// The lane of a call.
    pub(super) fn lane(&mut self, now: Mono, ask: &Ask<'_>) -> usize {
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
        let family = self.family_id(ask.family).unwrap_or(OTHER);
        // What the registry holds already is shared, not held twice.
        let name = if family == OTHER { ask.family } else { &self.families[family].family };
        let credential = self.credentials.hold(ask.credential);
        let key = LaneKey {
            family: name.clone(),
            credential: self.credentials.name(credential).clone(),
            token: ask.token,
            limits,
        };
        let lane = self.lanes.insert(Lane::new(key, family, credential, now));
        let Self { lane_ids, lanes, hasher, .. } = self;
        lane_ids.insert_unique(hash, small(lane), |&id| lanes[id as usize].key.hash_with(hasher));
        self.resolve(now, lane);
        lane
    }

    fn limits_of(&self, ask: &Ask<'_>) -> u128 {
        let applies = |index: usize| self.config.limits[index].matches(ask.method, ask.path);
        (0..self.config.limits.len())
            .filter(|&index| applies(index))
            .fold(0, |bits, index| bits | (1 << index))
    }

    fn family_id(&self, family: &Family) -> Option<usize> {
        let hash = self.hasher.hash_one(family.as_str());
        let id = self.family_ids.find(hash, |&id| self.families[id as usize].family == *family)?;
        Some(*id as usize)
    }

    fn add_family(&mut self, family: &Family) -> usize {
        self.families.push(FamilyState::new(family, &self.config));
        let index = self.families.len() - 1;
        let Self { family_ids, families, hasher, .. } = self;
        family_ids.insert_unique(hasher.hash_one(family.as_str()), small(index), |&id| {
            hasher.hash_one(families[id as usize].family.as_str())
        });
        index
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
            let same_scope =
                limit.method.is_none() && !limit.pin && limit.path.is_all_under(key.family.as_str());
            if limit.observes(None) || (same_scope && !observed && unnamed == implicit) {
                unnamed = gate;
                observed |= limit.observes(None);
            }
            if matches!(limit.kind, LimitKind::Rate { .. }) {
                self.gates[implicit].back();
            }
        }
        let old = std::mem::take(&mut self.lanes[lane].gates);
        if self.is_own(implicit) {
            self.gates[implicit].members.push(lane);
        }
        let lane = &mut self.lanes[lane];
        lane.gates = gates;
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

    fn implicit(&mut self, now: Mono, family: usize, credential: u32) -> usize {
        let key = |credential| GateKey {
            limit: Limit::Implicit,
            token: None,
            credential: Some(credential),
            family: Some(small(family)),
        };
        self.find(now, key(credential)).unwrap_or_else(|| {
            let key = self.room_for(now, key(credential));
            self.find(now, key).unwrap_or_else(|| self.make(now, key))
        })
    }

    fn declared(
        &mut self,
        now: Mono,
        index: usize,
        token: TokenSlot,
        credential: u32,
        family: usize,
    ) -> usize {
        let limit = &self.config.limits[index];
        let per = |partition| limit.per.contains(&partition);
        let key = GateKey {
            limit: Limit::Declared(small(index)),
            token: per(Partition::Token).then_some(token),
            credential: (per(Partition::Credential) || per(Partition::Token)).then_some(credential),
            family: per(Partition::Family).then_some(small(family)),
        };
        self.find(now, key).unwrap_or_else(|| {
            let key = self.room_for(now, key);
            self.find(now, key).unwrap_or_else(|| self.make(now, key))
        })
    }

    /// The gate of a key, woken if it rests.
    fn find(&mut self, now: Mono, key: GateKey) -> Option<usize> {
        match self.place_of(key)? {
            Place::Live(gate) => Some(gate as usize),
            Place::Resting(rest) => Some(self.wake(now, rest as usize)),
        }
    }

    fn key_at(&self, place: Place) -> GateKey {
        match place {
            Place::Live(gate) => self.gates[gate as usize].key,
            Place::Resting(rest) => self.resting[rest as usize].key,
        }
    }

    /// A gate that nothing is known of but its configuration.
    fn make(&mut self, now: Mono, key: GateKey) -> usize {
        if let Some(credential) = key.credential {
            self.credentials.hold_again(credential);
        }
        if let Limit::Named(name) = key.limit {
            self.header_names.hold_again(name);
        }
        let mut gate = self.blank(now, key);
        let stored = key.token.is_some().then_some(GateKey { token: Some(Self::ANY_TOKEN), ..key });
        if let Some(stored) = stored.and_then(|key| self.gist_of(key)) {
            gate.unfold(now, stored);
        } else if let Some(shared) = self.spent_in_the_crowd(now, key) {
            gate.unfold(now, &shared);
        }
        let gate = self.gates.insert(gate);
        self.enter(key, Place::Live(small(gate)));
        gate
    }

    fn blank(&self, now: Mono, key: GateKey) -> Gate {
        let (name, knowledge) = match key.limit {
            Limit::Declared(index) => (Arc::clone(&self.names[index as usize]), self.declaration(now, index)),
            Limit::Implicit => (Arc::clone(&self.label(key)), Knowledge::Unknown),
            Limit::Named(name) => {
                let text = format!("{} {}", self.label(key), self.header_names.name(name));
                (Arc::from(text), Knowledge::Unknown)
            }
        };
        let mut gate = Gate::new(name, key, knowledge, self.config.spread);
        match key.limit {
            Limit::Declared(index) if self.config.limits[index as usize].pin => gate.pin(),
            Limit::Named(name) => gate.header_name = Some(self.header_names.name(name).to_string()),
            Limit::Declared(_) | Limit::Implicit => {}
        }
        gate
    }

    fn label(&self, key: GateKey) -> Arc<str> {
        Arc::clone(&self.families[key.family.unwrap_or_default() as usize].label)
    }

    fn declaration(&self, now: Mono, index: u32) -> Knowledge {
        match self.config.limits[index as usize].kind {
            LimitKind::Concurrent { cap } => Knowledge::Capped(cap),
            LimitKind::Rate { quota, window } => {
                let mut sliding = Sliding::new(quota, window.as_secs_f64());
                let window = window.as_secs_f64();
                let (spent, at) = if let Some(unseen) = self.unseen {
                    // What the state does not hold was not spent before it.
                    (unseen.of(quota, window), unseen.ended)
                } else {
                    let share = self.config.assume_spent.clamp(0.0, 1.0);
                    (whole(num(quota) * share), self.began.unwrap_or(secs(now)))
                };
                if spent > 0 && secs(now) < at + 2.0 * window {
                    sliding.assume_spent(at, spent);
                }
                Knowledge::Declared(sliding)
            }
        }
    }

    fn enter(&mut self, key: GateKey, place: Place) {
        let hash = self.hasher.hash_one(key);
        let Self { places, gates, resting, hasher, .. } = self;
        places.insert_unique(hash, place, |&place| {
            hasher.hash_one(match place {
                Place::Live(gate) => gates[gate as usize].key,
                Place::Resting(rest) => resting[rest as usize].key,
            })
        });
    }

    /// Whose count a gate is, for people.
    pub(super) fn partition(&self, key: GateKey) -> String {
        let mut parts = Vec::new();
        if let Some(credential) = key.credential {
            parts.push(format!("credential={}", self.credentials.name(credential)));
        }
        if let Some(token) = key.token {
            parts.push(format!("token={}", token.0));
        }
        if let (Some(family), Limit::Declared(_)) = (key.family, key.limit) {
            parts.push(format!("family={}", self.families[family as usize].family));
        }
        parts.join(" ")
    }

    /// Gives a family that proved to exist gates of its own. Returns its lanes, or nothing if it had them or there is
    /// no room.
    pub(super) fn promote(&mut self, now: Mono, family: &Family) -> Vec<usize> {
        if self.families.len() > self.config.max_families || self.family_id(family).is_some() {
            return Vec::new();
        }
        let index = self.add_family(family);
        let lanes: Vec<usize> =
            self.lanes.iter().filter(|(_, lane)| lane.key.family == *family).map(|(id, _)| id).collect();
        for &lane in &lanes {
            self.lanes[lane].family = index;
            self.resolve(now, lane);
        }
        lanes
    }

    /// The gate of a limit that only headers name, if there is room for it, and the lanes that must pass it now.
    pub(super) fn name_limit(&mut self, now: Mono, lane: usize, name: &str) -> Option<(usize, Vec<usize>)> {
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
    credential.as_str().hash(&mut hasher);
    token.0.hash(&mut hasher);
    limits.hash(&mut hasher);
    hasher.finish()
}

impl LaneKey {
    fn hash_with(&self, hasher: &FixedState) -> u64 {
        lane_hash(hasher, &self.family, &self.credential, self.token, self.limits)
    }
}
