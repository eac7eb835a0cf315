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
    fn text(&self) -> &str;
}

impl Name for CredentialId {
    fn text(&self) -> &str {
        self.as_str()
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
        let hash = self.hasher.hash_one(name.text());
        if let Some(&id) = self.table.find(hash, |&id| self.held[id as usize].0.text() == name.text()) {
            self.held[id as usize].1 += 1;
            return id;
        }
        let id = small(self.held.insert((name.clone(), 1)));
        let Self { hasher, held, table } = self;
        table.insert_unique(hash, id, |&id| hasher.hash_one(held[id as usize].0.text()));
        id
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
        if let Some((name, _)) = self.held.remove(id as usize)
            && let Ok(entry) = self.table.find_entry(self.hasher.hash_one(name.text()), |&other| other == id)
        {
            entry.remove();
        }
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
}
