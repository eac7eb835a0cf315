//! Which gates a call must pass.
//!
//! Gates, lanes and families exist from their first use and are bounded. A family that was never answered by anything
//! but 404 and 401 has no gate of its own: it passes the gate `other`, so that a caller who invents paths cannot make the bank
//! grow. At the first other answer it is *promoted*, and its attempts in flight move with it. Beyond the bound it takes the
//! place of one that nobody uses (`room`), or stays with `other` where there is none.
//!
//! A call finds its lane by one look into a table, without a copy of its names (`lanes`). What nobody used for long is folded to its
//! gist and comes back when it is asked for (`room`).
//!
//! Of a family's gates the first is implicit: what headers without a name describe, unless a declared limit observes
//! them or has the same scope (the family, all methods). Limits that only headers name get gates as they appear.

mod keep;
mod lanes;
mod room;
mod share;
mod told;

pub(super) use share::Partaking;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};

use crate::breaker::Breaker;
use crate::key::{CredentialId, Family};
use crate::pace::ask::TokenSlot;
use crate::pace::gate::{Gate, Knowledge, Mode};
use crate::pace::gist::{Gist, Known};
use crate::pace::keep::Unseen;
use crate::pace::lane::Lane;
use crate::pace::lease::Lease;
use crate::pace::names::Names;
use crate::pace::secs::secs;
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
    lanes: u32,
    /// Gates in use and at rest.
    gates: u32,
    /// Those at rest.
    at_rest: Vec<u32>,
    /// When its last lane went.
    left: Mono,
}

impl FamilyState {
    fn new(family: &Family, config: &BankConfig) -> Self {
        Self {
            family: family.clone(),
            label: Arc::from(family.as_str()),
            breaker: Breaker::new(config.breaker),
            lanes: 0,
            gates: 0,
            at_rest: Vec::new(),
            left: Mono::ZERO,
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
    /// Its place among those of its family, if it has one.
    place: u32,
}

/// The end of a process that may have spent what no state holds. A gate that was not asked for since knows nothing of it.
#[derive(Clone, Copy, Debug)]
struct Crash {
    ended: f64,
    /// Nothing bounded what it spent.
    all: bool,
    /// It is about one declared limit only, of which a gate was lost.
    limit: Option<u32>,
}

impl Crash {
    fn unseen(self, quota: u64, window: f64) -> u64 {
        if self.all { Unseen::all(quota, window) } else { Lease::size(quota, window) }
    }
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
    /// Lanes of families that did not prove to exist. So one that does finds its own without a look at all.
    unproven: HashMap<Family, Vec<u32>, FixedState>,
    credentials: Names<CredentialId>,
    /// Whose gates those share who find no room.
    crowd: u32,
    header_names: Names<Arc<str>>,
    /// Gates that lost their last lane while attempts of it were in flight.
    orphans: VecDeque<usize>,
    /// When the bank was first asked: what was spent before counts from here.
    began: Option<f64>,
    /// How predecessors ended, the last ones last, if a state was restored.
    crashes: Option<Vec<Crash>>,
    /// Until when what is stored holds; infinite where nothing is.
    pub(super) leased_until: f64,
    /// How gates that are made take part in a fleet.
    pub(super) sharing: Option<Partaking>,
    lane_hand: usize,
    rest_hand: usize,
    family_hand: usize,
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
        let crowd = credentials.hold_apart(CredentialId::new(Self::CROWD));
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
            unproven: HashMap::with_hasher(hasher.clone()),
            credentials,
            crowd,
            header_names: Names::new(hasher),
            orphans: VecDeque::new(),
            began: None,
            crashes: None,
            leased_until: f64::INFINITY,
            sharing: None,
            lane_hand: 0,
            rest_hand: 0,
            family_hand: 0,
            config,
        }
    }

    fn family_id(&self, family: &Family) -> Option<usize> {
        let hash = self.hasher.hash_one(family.as_str());
        let id = self.family_ids.find(hash, |&id| self.families[id as usize].family == *family)?;
        Some(*id as usize)
    }

    /// One more family, in the place of a forgotten one if there is one.
    fn add_family(&mut self, family: &Family, place: Option<usize>) -> usize {
        let mut state = FamilyState::new(family, &self.config);
        let joined = self.sharing.as_ref().is_some_and(|partaking| partaking.mode == Mode::Joined);
        state.breaker.share(Mono::ZERO, joined);
        let index = place.unwrap_or(self.families.len());
        match self.families.get_mut(index) {
            Some(forgotten) => *forgotten = state,
            None => self.families.push(state),
        }
        let Self { family_ids, families, hasher, .. } = self;
        family_ids.insert_unique(hasher.hash_one(family.as_str()), small(index), |&id| {
            hasher.hash_one(families[id as usize].family.as_str())
        });
        index
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
        if let Some(family) = key.family {
            self.families[family as usize].gates += 1;
        }
        let mut gate = self.blank(now, key);
        if let Some(gist) = self.begins_with(now, key) {
            gate.unfold(now, &gist);
        }
        let gate = self.gates.insert(gate);
        self.enter(key, Place::Live(small(gate)));
        gate
    }

    /// What others left that may have been of this gate: earlier tokens of its credential, and those who found no room. Beside it
    /// stands what is assumed of a gate that nothing is known of, because one that was lost may have been this one, too.
    fn begins_with(&self, now: Mono, key: GateKey) -> Option<Gist> {
        let tokens = key.token.is_some().then_some(GateKey { token: Some(Self::ANY_TOKEN), ..key });
        let stored = tokens.and_then(|key| self.gist_of(key)).cloned();
        let mut gist = match (stored, self.spent_in_the_crowd(now, key)) {
            (Some(mut stored), Some(shared)) => {
                stored.merge(shared);
                stored
            }
            (stored, shared) => stored.or(shared)?,
        };
        if let (Known::Declared(spent), Limit::Declared(index)) = (&mut gist.known, key.limit)
            && let LimitKind::Rate { quota, window } = self.config.limits[index as usize].kind
        {
            spent.cover(&self.assumed(now, index, quota, window.as_secs_f64()));
        }
        Some(gist)
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
            Limit::Declared(index) if self.config.limits[index as usize].assumed => {
                gate.assume(self.config.limits[index as usize].kind);
            }
            Limit::Named(name) => gate.header_name = Some(self.header_names.name(name).to_string()),
            Limit::Declared(_) | Limit::Implicit => {}
        }
        self.share(now, &mut gate);
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
                sliding.lease().bind(self.leased_until);
                for (at, permits) in self.assumed(now, index, quota, window.as_secs_f64()) {
                    sliding.assume_spent(at, permits);
                }
                Knowledge::Declared(sliding)
            }
        }
    }

    /// What may have been spent of a declared limit by a gate that nothing is known of, and when, ascending.
    fn assumed(&self, now: Mono, index: u32, quota: u64, window: f64) -> Vec<(f64, u64)> {
        let counts = |at: f64| secs(now) < at + 2.0 * window;
        let Some(crashes) = &self.crashes else {
            let at = self.began.unwrap_or(secs(now));
            let spent = self.config.assume_spent && counts(at);
            return if spent { vec![(at, Unseen::all(quota, window))] } else { Vec::new() };
        };
        // What the state does not hold was not spent before it, but after it, or by others that crashed before.
        let of_it = |crash: &&Crash| crash.limit.is_none_or(|limit| limit == index) && counts(crash.ended);
        crashes.iter().filter(of_it).map(|crash| (crash.ended, crash.unseen(quota, window))).collect()
    }

    /// Changes the leases of all gates, in use and at rest.
    pub(super) fn leases(&mut self, change: impl Fn(&mut Lease)) {
        self.gates.iter_mut().filter_map(Gate::lease).for_each(&change);
        for rest in self.resting.iter_mut() {
            if let Known::Declared(spent) = &mut rest.gist.known {
                change(&mut spent.lease);
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
        match key.token {
            None => {}
            Some(TokenSlot::FLEET) => parts.push("token=fleet".to_owned()),
            Some(token) => parts.push(format!("token={}", token.0)),
        }
        if let (Some(family), Limit::Declared(_)) = (key.family, key.limit) {
            parts.push(format!("family={}", self.families[family as usize].family));
        }
        parts.join(" ")
    }
}
