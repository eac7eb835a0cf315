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

    /// Gives a declared limit other numbers: to the gates there are, and to those to come.
    pub(in crate::pace) fn set_kind(&mut self, index: usize, kind: LimitKind) {
        Arc::make_mut(&mut self.config).limits[index].kind = kind;
        let name = &self.names[index];
        for gate in self.gates.values_mut().filter(|gate| Arc::ptr_eq(&gate.name, name)) {
            gate.set_kind(kind);
        }
    }
}
