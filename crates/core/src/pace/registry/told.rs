//! Declared limits whose numbers the upstream tells.

use std::sync::Arc;

use super::Registry;
use crate::pace::spec::{LimitKind, LimitSpec};

impl Registry {
    /// The declared limit of this name, which is its key or an alias, and the name's place among them.
    pub(in crate::pace) fn limit_named(&self, name: &str) -> Option<(usize, usize)> {
        let ranks = self.config.limits.iter().map(|limit| limit.rank_of(name)).enumerate();
        ranks.into_iter().find_map(|(index, rank)| Some((index, rank?)))
    }

    /// The name of the gates of a limit that the upstream calls so.
    pub(in crate::pace) fn gate_name<'n>(&'n self, name: &'n str) -> &'n str {
        self.limit_named(name).map_or(name, |(index, _)| &self.config.limits[index].key)
    }

    /// A declared limit, with the numbers known by now.
    pub(in crate::pace) fn limit(&self, index: usize) -> &LimitSpec {
        &self.config.limits[index]
    }

    /// Gives a declared limit other numbers: to the gates there are, which are returned, and to those to come.
    pub(in crate::pace) fn set_kind(&mut self, index: usize, kind: LimitKind) -> Vec<usize> {
        Arc::make_mut(&mut self.config).limits[index].kind = kind;
        let name = &self.names[index];
        let of_limit = self.gates.iter().filter(|(_, gate)| Arc::ptr_eq(&gate.name, name));
        let gates: Vec<usize> = of_limit.map(|(id, _)| id).collect();
        for &gate in &gates {
            self.gates[gate].set_kind(kind);
        }
        gates
    }
}
