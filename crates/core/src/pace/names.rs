//! Names held once, however many gates and lanes use them.
//!
//! A caller brings a fresh copy of its names with every call. Held per gate they would cost more than the gate, so each
//! is held once and counted; the last holder lets it go, or invented names would pile up.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::key::CredentialId;
use crate::pace::slab::{Slab, small};

/// A name that can be held.
pub(super) trait Name {
    /// What it is known by: names with the same text are one.
    fn text(&self) -> &str;

    /// The text by which it is held while less is known of it.
    fn before(&self) -> Option<&str> {
        None
    }
}

/// A credential is known by what the server counts by: one client with two names is one. A stored state has the names alone, so
/// what was restored by name goes over to the first client of that name.
impl Name for CredentialId {
    fn text(&self) -> &str {
        self.counted_as()
    }

    fn before(&self) -> Option<&str> {
        self.is_client().then(|| self.as_str())
    }
}

impl Name for std::sync::Arc<str> {
    fn text(&self) -> &str {
        self
    }
}

/// Names with a number and a count of their holders each.
#[derive(Debug)]
pub(super) struct Names<N> {
    hasher: FixedState,
    held: Slab<(N, u32)>,
    table: HashTable<u32>,
}

impl<N: Name + Clone> Names<N> {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { hasher, held: Slab::new(), table: HashTable::new() }
    }

    /// The number of a name for one more holder.
    pub(super) fn hold(&mut self, name: &N) -> u32 {
        if let Some(id) = self.find(name.text()) {
            self.held[id as usize].1 += 1;
            return id;
        }
        let id = if let Some(id) = name.before().and_then(|before| self.find(before)) {
            self.unlist(id);
            self.held[id as usize].0 = name.clone();
            self.held[id as usize].1 += 1;
            id
        } else {
            small(self.held.insert((name.clone(), 1)))
        };
        let Self { hasher, held, table } = self;
        table.insert_unique(hasher.hash_one(name.text()), id, |&id| {
            hasher.hash_one(held[id as usize].0.text())
        });
        id
    }

    fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.table.find(hash, |&id| self.held[id as usize].0.text() == text).copied()
    }

    /// No name leads to `id` any more.
    fn unlist(&mut self, id: u32) {
        let hash = self.hasher.hash_one(self.held[id as usize].0.text());
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
    }

    /// A number that no name leads to, whatever callers are called; `name` is for people.
    pub(super) fn hold_apart(&mut self, name: N) -> u32 {
        small(self.held.insert((name, 1)))
    }

    /// One more holder of a name that is held already.
    pub(super) fn hold_again(&mut self, id: u32) {
        self.held[id as usize].1 += 1;
    }

    /// The name of a number that is held.
    pub(super) fn name(&self, id: u32) -> &N {
        &self.held[id as usize].0
    }

    /// One holder less.
    pub(super) fn release(&mut self, id: u32) {
        let count = &mut self.held[id as usize].1;
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.unlist(id);
        self.held.remove(id as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_to_what_is_held_apart() {
        let mut names = Names::new(FixedState::with_seed(7));
        let apart = names.hold_apart(CredentialId::new("crowd"));
        let own = names.hold(&CredentialId::new("crowd"));
        assert_ne!(own, apart);
        names.release(own);
        assert_eq!(names.name(apart), &CredentialId::new("crowd"));
    }

    #[test]
    fn a_name_is_held_once_and_let_go_by_its_last_holder() {
        let mut names = Names::new(FixedState::with_seed(7));
        let reporting = CredentialId::new("reporting");
        let id = names.hold(&reporting);
        assert_eq!(names.hold(&CredentialId::new("reporting")), id);
        let other = names.hold(&CredentialId::new("other"));
        assert_ne!(other, id);
        names.release(id);
        assert_eq!(names.name(id), &reporting);
        names.release(id);
        assert_eq!(names.held.len(), 1);
        assert_eq!(names.table.len(), 1);
    }

    #[test]
    fn a_client_is_one_whatever_it_is_called_and_takes_over_what_was_held_by_its_name() {
        let mut names = Names::new(FixedState::with_seed(1));
        let restored = names.hold(&CredentialId::new("reporting"));
        let client = CredentialId::new("reporting").of_client("7f0c7c0e");
        assert_eq!(names.hold(&client), restored);
        assert_eq!(names.name(restored), &client);
        assert_eq!(names.hold(&CredentialId::new("login").of_client("7f0c7c0e")), restored);
        let namesake = names.hold(&CredentialId::new("reporting").of_client("0a8b6a0b"));
        assert_ne!(namesake, restored);
        for id in [restored, restored, restored, namesake] {
            names.release(id);
        }
        assert!(names.held.len() == 0 && names.table.is_empty());
    }
}
