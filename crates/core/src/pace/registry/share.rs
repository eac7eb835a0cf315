//! Which gates are shared with other processes, and under which names.
//!
//! Two processes share a gate if they would count the same attempts in it, so the store's name of a gate is made of names
//! that mean the same everywhere: the limit's, the credential's, the family's. Numbers of this process's tables are never part
//! of it. Not shared are the gate of families that did not prove to exist, that of those for whom there is no room, and limits
//! per token unless the fleet has one token per credential.

use super::{GateKey, Limit, OTHER, Registry};
use crate::pace::ask::TokenSlot;
use crate::pace::gate::{Gate, Mode, Shared};
use crate::pace::slab::small;
use crate::share::{Fallback, LimitKey};
use crate::time::Mono;

/// How gates take part that are made now.
#[derive(Clone, Debug)]
pub(in crate::pace) struct Partaking {
    /// Tokens are the fleet's.
    pub(in crate::pace) tokens_shared: bool,
    pub(in crate::pace) mode: Mode,
    pub(in crate::pace) fallback: Fallback,
    /// Of a quota of which nothing was heard yet, what the fleet used when it was last heard of, in thousandths.
    pub(in crate::pace) share: u32,
}

impl Registry {
    /// A gate that is made takes part, if it can.
    pub(super) fn share(&self, now: Mono, gate: &mut Gate) {
        let Some(partaking) = &self.sharing else { return };
        let Some(key) = self.share_key(gate.key, partaking.tokens_shared) else { return };
        gate.share(Shared::new(key, &gate.name, Mode::Joined));
        if partaking.mode != Mode::Joined {
            gate.set_mode(now, partaking.mode, &partaking.fallback, partaking.share);
        }
    }

    /// All gates go by something else from now on, those to come too.
    pub(in crate::pace) fn set_mode(&mut self, now: Mono, mode: Mode, fallback: &Fallback) {
        let share = self.sharing.as_ref().map_or(1_000, |partaking| partaking.share);
        for gate in self.gates.iter_mut() {
            gate.set_mode(now, mode, fallback, share);
        }
        for (family, state) in self.families.iter_mut().enumerate() {
            state.breaker.share(now, mode == Mode::Joined && family != OTHER);
        }
        if let Some(partaking) = &mut self.sharing {
            partaking.mode = mode;
            partaking.fallback = fallback.clone();
        }
    }

    /// The name of a family's breaker in the store.
    pub(in crate::pace) fn door_key(&self, family: usize) -> Option<LimitKey> {
        let state = self.families.get(family).filter(|_| family != OTHER)?;
        Some(LimitKey::of(&["door", state.family.as_str()]))
    }

    /// The name of a gate in the store.
    fn share_key(&self, key: GateKey, tokens_shared: bool) -> Option<LimitKey> {
        let GateKey { limit, token, credential, family } = key;
        if family == Some(small(OTHER)) || credential == Some(self.crowd) {
            return None;
        }
        if token.is_some_and(|token| !tokens_shared || token == Self::ANY_TOKEN) {
            return None;
        }
        let (kind, name) = match limit {
            Limit::Declared(index) => ("declared", self.config.limits[index as usize].key.as_str()),
            Limit::Implicit => ("implicit", ""),
            Limit::Named(name) => ("named", &**self.header_names.name(name)),
        };
        let credential = credential.map_or("", |id| self.credentials.name(id).as_str());
        let family = family.map_or("", |family| self.families[family as usize].family.as_str());
        // One token per credential: whose it is says which.
        let token = token.map_or("", |_: TokenSlot| "token");
        Some(LimitKey::of(&[kind, name, token, credential, family]))
    }
}
