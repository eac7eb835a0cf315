//! Declared limits whose numbers the upstream tells.

use std::sync::Arc;

use super::Registry;
use crate::pace::spec::{LimitKind, LimitSpec};

impl Registry {
    /// The declared limit of this key.
    pub(in crate::pace) fn limit_index(&self, key: &str) -> Option<usize> {
        self.config.limits.iter().position(|limit| limit.key == key)
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
