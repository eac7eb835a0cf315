//! Which gates a call must pass.
//!
//! Gates, lanes and families exist from their first use and are bounded. A family that was never answered by anything
//! but 404 has no gate of its own: it passes the gate `other`, so that a caller who invents paths cannot make the bank
//! grow. At the first other answer it is *promoted*, and its attempts in flight move with it. Beyond the bound families
//! stay with `other`.
//!
//! Of a family's gates the first is implicit: what headers without a name describe, unless a declared limit observes
//! them or has the same scope (the family, all methods). Limits that only headers name get gates as they appear.

mod told;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::breaker::Breaker;
use crate::key::{CredentialId, Family};
use crate::pace::ask::{Ask, TokenSlot};
use crate::pace::gate::{Gate, Knowledge};
use crate::pace::lane::{Lane, LaneKey};
use crate::pace::secs::{num, secs, whole};
use crate::pace::slab::Slab;
use crate::pace::sliding::Sliding;
use crate::pace::spec::{BankConfig, LimitKind, Partition};
use crate::time::Mono;

/// The family of everything that did not prove to exist.
pub(super) const OTHER: usize = 0;

/// A family the bank knows.
#[derive(Debug)]
pub(super) struct FamilyState {
    pub(super) family: Family,
    pub(super) breaker: Breaker,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GateKey {
    Declared {
        limit: usize,
        token: Option<TokenSlot>,
        credential: Option<CredentialId>,
        family: Option<usize>,
    },
    Implicit {
        family: usize,
        credential: CredentialId,
        name: Option<String>,
    },
}

/// Gates, lanes and families.
#[derive(Debug)]
pub(super) struct Registry {
    config: Arc<BankConfig>,
    names: Vec<Arc<str>>,
    pub(super) gates: Slab<Gate>,
    gate_ids: BTreeMap<GateKey, usize>,
    pub(super) lanes: Slab<Lane>,
    lane_ids: BTreeMap<LaneKey, usize>,
    pub(super) families: Vec<FamilyState>,
    family_ids: BTreeMap<Family, usize>,
}

impl Registry {
    /// Limits that only headers name, per family and credential.
    const MAX_NAMED: usize = 4;
    /// Lanes and gates kept per family allowed; idle ones beyond go, those that know least first.
    const PER_FAMILY: usize = 8;

    pub(super) fn new(config: Arc<BankConfig>) -> Self {
        let other = FamilyState { family: Family::new("other"), breaker: Breaker::new(config.breaker) };
        Self {
            names: config.limits.iter().map(|limit| Arc::from(limit.key.as_str())).collect(),
            gates: Slab::new(),
            gate_ids: BTreeMap::new(),
            lanes: Slab::new(),
            lane_ids: BTreeMap::new(),
            families: vec![other],
            family_ids: BTreeMap::new(),
            config,
        }
    }

    /// The lane of a call.
    pub(super) fn lane(&mut self, now: Mono, ask: &Ask<'_>) -> usize {
        let key = LaneKey {
            family: ask.family.clone(),
            credential: ask.credential.clone(),
            token: ask.token,
            limits: self.limits_of(ask),
        };
        if let Some(&lane) = self.lane_ids.get(&key) {
            return lane;
        }
        self.make_room(now);
        let family = self.family_ids.get(ask.family).copied().unwrap_or(OTHER);
        let lane = Lane {
            key: key.clone(),
            family,
            gates: Vec::new(),
            unnamed: 0,
            queues: Default::default(),
            tickets: 0,
        };
        let lane = self.lanes.insert(lane);
        self.lane_ids.insert(key, lane);
        self.resolve(now, lane);
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
        let Lane { key, family, .. } = &self.lanes[lane];
        let (key, family) = (key.clone(), *family);
        let implicit = self.implicit(&key, family, None);
        let mut gates = vec![implicit];
        let mut unnamed = implicit;
        let mut observed = false;
        for index in (0..self.config.limits.len()).filter(|index| key.limits & (1 << index) != 0) {
            let gate = self.declared(now, index, &key, family);
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
        for &gate in &gates {
            self.gates[gate].lanes += 1;
        }
        for gate in old {
            self.gates[gate].lanes -= 1;
        }
        let lane = &mut self.lanes[lane];
        lane.gates = gates;
        lane.unnamed = unnamed;
    }

    fn implicit(&mut self, key: &LaneKey, family: usize, name: Option<&str>) -> usize {
        let gate_key =
            GateKey::Implicit { family, credential: key.credential.clone(), name: name.map(str::to_owned) };
        if let Some(&gate) = self.gate_ids.get(&gate_key) {
            return gate;
        }
        let text = self.families[family].family.as_str();
        let label = match name {
            None => Arc::from(text),
            Some(name) => Arc::from(format!("{text} {name}")),
        };
        let mut gate = Gate::new(
            label,
            format!("credential={}", key.credential),
            Knowledge::Unknown,
            self.config.spread,
        );
        gate.header_name = name.map(str::to_owned);
        let gate = self.gates.insert(gate);
        self.gate_ids.insert(gate_key, gate);
        gate
    }

    fn declared(&mut self, now: Mono, index: usize, key: &LaneKey, family: usize) -> usize {
        let limit = &self.config.limits[index];
        let per = |partition| limit.per.contains(&partition);
        let gate_key = GateKey::Declared {
            limit: index,
            token: per(Partition::Token).then_some(key.token),
            credential: (per(Partition::Credential) || per(Partition::Token)).then(|| key.credential.clone()),
            family: per(Partition::Family).then_some(family),
        };
        if let Some(&gate) = self.gate_ids.get(&gate_key) {
            return gate;
        }
        let knowledge = match limit.kind {
            LimitKind::Concurrent { cap } => Knowledge::Capped(cap),
            LimitKind::Rate { quota, window } => {
                let mut sliding = Sliding::new(quota, window.as_secs_f64());
                let spent = whole(num(quota) * self.config.assume_spent.clamp(0.0, 1.0));
                if spent > 0 {
                    sliding.assume_spent(secs(now), spent);
                }
                Knowledge::Declared(sliding)
            }
        };
        let partition = self.partition_text(&gate_key);
        let mut gate = Gate::new(Arc::clone(&self.names[index]), partition, knowledge, self.config.spread);
        if limit.pin {
            gate.pin();
        }
        let gate = self.gates.insert(gate);
        self.gate_ids.insert(gate_key, gate);
        gate
    }

    fn partition_text(&self, key: &GateKey) -> String {
        let GateKey::Declared { token, credential, family, .. } = key else { return String::new() };
        let mut parts = Vec::new();
        if let Some(credential) = credential {
            parts.push(format!("credential={credential}"));
        }
        if let Some(token) = token {
            parts.push(format!("token={}", token.0));
        }
        if let Some(family) = family {
            parts.push(format!("family={}", self.families[*family].family));
        }
        parts.join(" ")
    }

    /// Gives a family that proved to exist gates of its own. Returns its lanes, or nothing if it had them or there is
    /// no room.
    pub(super) fn promote(&mut self, now: Mono, family: &Family) -> Vec<usize> {
        if self.family_ids.contains_key(family) || self.families.len() > self.config.max_families {
            return Vec::new();
        }
        self.families
            .push(FamilyState { family: family.clone(), breaker: Breaker::new(self.config.breaker) });
        let index = self.families.len() - 1;
        self.family_ids.insert(family.clone(), index);
        let lanes: Vec<usize> =
            self.lanes.iter().filter(|(_, lane)| lane.key.family == *family).map(|(id, _)| id).collect();
        for &lane in &lanes {
            self.lanes[lane].family = index;
            self.resolve(now, lane);
        }
        lanes
    }

    /// The gate of a limit that only headers name, if there is room for it, and the lanes that must pass it now.
    pub(super) fn name_limit(&mut self, lane: usize, name: &str) -> Option<(usize, Vec<usize>)> {
        let Lane { key, family, .. } = &self.lanes[lane];
        let (key, family) = (key.clone(), *family);
        let named = |gate: &usize| self.gates[*gate].header_name.is_some();
        if family == OTHER
            || self.lanes[lane].gates.iter().filter(|gate| named(gate)).count() >= Self::MAX_NAMED
        {
            return None;
        }
        let gate = self.implicit(&key, family, Some(name));
        let mut joined = Vec::new();
        let lanes: Vec<usize> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.family == family && lane.key.credential == key.credential)
            .map(|(id, _)| id)
            .collect();
        for lane in lanes {
            if !self.lanes[lane].gates.contains(&gate) {
                self.lanes[lane].gates.push(gate);
                self.gates[gate].lanes += 1;
                joined.push(lane);
            }
        }
        Some((gate, joined))
    }

    fn make_room(&mut self, now: Mono) {
        let room = Self::PER_FAMILY * self.config.max_families.max(8);
        if self.lanes.len() >= room {
            let idle: Vec<usize> = self
                .lanes
                .iter()
                .filter(|(_, lane)| lane.tickets == 0 && lane.waiting() == 0)
                .map(|(id, _)| id)
                .collect();
            for id in idle {
                self.drop_lane(id);
            }
        }
        if self.gates.len() >= room {
            self.drop_gates(now, self.gates.len() + 1 - room);
        }
    }

    fn drop_lane(&mut self, id: usize) {
        if let Some(lane) = self.lanes.remove(id) {
            self.lane_ids.remove(&lane.key);
            for gate in lane.gates {
                self.gates[gate].lanes -= 1;
            }
        }
    }

    /// Pauses are kept, and what was learnt as long as there is room: the longest unused go first.
    fn drop_gates(&mut self, now: Mono, count: usize) {
        let mut idle: Vec<(f64, usize)> = self
            .gates
            .iter()
            .filter(|(_, gate)| gate.is_idle(now))
            .map(|(id, gate)| (gate.last_used(), id))
            .collect();
        idle.sort_by(|one, other| one.0.total_cmp(&other.0));
        for (_, id) in idle.into_iter().take(count) {
            self.gates.remove(id);
            self.gate_ids.retain(|_, gate| *gate != id);
        }
    }
}
