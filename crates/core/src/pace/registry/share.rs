//! Which gates are shared with other processes, and under which names.
//!
//! Two processes share a gate if the server counts their attempts in it together, so the store's name of a gate is made of what
//! means the same everywhere: the names of the limit and of the family, and a digest of the client id. How a configuration
//! calls a credential is never part of it, nor are numbers of this process's tables. A token that a caller brings is known
//! by its own digest: its client is not known, but the same token in two processes is one count, that of limits per token too.
//!
//! Not shared are the gate of families that did not prove to exist and for which there was no room, that of credentials for
//! which there is none, and limits per token of a client, unless the token is the fleet's.

use super::{GateKey, Limit, OTHER, Registry};
use crate::key::{CredentialId, Family};
use crate::pace::ask::TokenSlot;
use crate::pace::gate::{Gate, Mode, Shared};
use crate::pace::slab::small;
use crate::share::{Fallback, LimitKey, ShareConfig};
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

impl Partaking {
    pub(in crate::pace) fn new(config: &ShareConfig) -> Self {
        Self {
            tokens_shared: config.tokens_shared,
            mode: Mode::Joined,
            fallback: Fallback::new(config.holder, config.max_instances, None),
            share: 1_000,
        }
    }
}

impl Registry {
    /// A gate that is made takes part, if it can.
    pub(super) fn share(&self, now: Mono, gate: &mut Gate) {
        let Some(partaking) = &self.sharing else { return };
        let Some(key) = self.share_key(gate.key, partaking.tokens_shared) else { return };
        gate.share(Shared::new(key, &gate.name, self.shared_partition(gate.key), Mode::Joined));
        if partaking.mode != Mode::Joined {
            gate.set_mode(now, partaking.mode, &partaking.fallback, partaking.share);
        }
    }

    /// A family that is called for the first time has gates of its own at once where gates are shared: others may have used its
    /// quota up, and only the store knows. Through `other` each process would send one attempt that nobody granted. Half of the
    /// room is left to families that proved to exist.
    pub(super) fn family_to_share(&mut self, family: &Family) -> Option<usize> {
        let room = 2 * self.families.len() <= self.config.max_families;
        (self.sharing.is_some() && room).then(|| self.add_family(family, None))
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

    /// A limit that was first told of while the store was away is kept to from then on.
    pub(in crate::pace) fn keep_to_part(&mut self, now: Mono, gate: usize) {
        let Some(partaking) = self.sharing.as_ref().filter(|partaking| partaking.mode == Mode::Part) else {
            return;
        };
        if let Some(state) = self.gates.get_mut(gate).filter(|state| state.has_no_part()) {
            state.set_mode(now, partaking.mode, &partaking.fallback, partaking.share);
        }
    }

    /// The name of a family's breaker in the store.
    pub(in crate::pace) fn door_key(&self, family: usize) -> Option<LimitKey> {
        let state = self.families.get(family).filter(|_| family != OTHER)?;
        Some(LimitKey::of(&["door", state.family.as_str()]))
    }

    /// Whose count a gate is, for people, in words that are the same in every process.
    fn shared_partition(&self, key: GateKey) -> String {
        let mut parts = Vec::new();
        if let Some(credential) = key.credential {
            parts.push(format!("credential={}", self.credentials.name(credential).counted_as()));
        }
        if key.token.is_some() {
            parts.push("token=fleet".to_owned());
        }
        if let (Some(family), Limit::Declared(_)) = (key.family, key.limit) {
            parts.push(format!("family={}", self.families[family as usize].family));
        }
        parts.join(" ")
    }

    /// The name of a gate in the store.
    fn share_key(&self, key: GateKey, tokens_shared: bool) -> Option<LimitKey> {
        let GateKey { limit, token, credential, family } = key;
        if family == Some(small(OTHER)) || credential == Some(self.crowd) {
            return None;
        }
        let credential = credential.map(|id| self.credentials.name(id));
        let is_bearer = credential.is_some_and(CredentialId::is_bearer);
        let of_fleet = |token: TokenSlot| {
            token != Self::ANY_TOKEN && (is_bearer || tokens_shared && token == TokenSlot::FLEET)
        };
        if token.is_some_and(|token| !of_fleet(token)) {
            return None;
        }
        let (kind, name) = match limit {
            Limit::Declared(index) => ("declared", self.config.limits[index as usize].key.as_str()),
            Limit::Implicit => ("implicit", ""),
            Limit::Named(name) => ("named", &**self.header_names.name(name)),
        };
        let credential = credential.map_or("", CredentialId::counted_as);
        let family = family.map_or("", |family| self.families[family as usize].family.as_str());
        // One token per credential then: whose it is says which.
        let token = token.map_or("", |_: TokenSlot| "token");
        Some(LimitKey::of(&[kind, name, token, credential, family]))
    }
}
