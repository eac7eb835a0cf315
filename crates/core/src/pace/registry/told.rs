//! Declared limits whose numbers the upstream tells.

use std::sync::Arc;

use super::Registry;
use crate::pace::keep::KeptLimitKind;
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
        let limit = &mut Arc::make_mut(&mut self.config).limits[index];
        (limit.kind, limit.assumed) = (kind, false);
        let name = &self.names[index];
        let of_limit = self.gates.iter().filter(|(_, gate)| Arc::ptr_eq(&gate.name, name));
        let gates: Vec<usize> = of_limit.map(|(id, _)| id).collect();
        for &gate in &gates {
            self.gates[gate].set_kind(kind);
        }
        gates
    }

    /// The limits that no longer have the numbers that were declared.
    pub(in crate::pace) fn keep_named(&self, declared: &[LimitSpec]) -> Vec<KeptLimitKind> {
        let both =
            declared.iter().zip(&self.config.limits).filter(|(declared, known)| declared.kind != known.kind);
        both.map(|(declared, known)| {
            let ((declared, window), (told, _)) = (numbers(declared.kind), numbers(known.kind));
            KeptLimitKind { limit: known.key.clone(), declared, told, window }
        })
        .collect()
    }

    /// What was told holds on where the declaration is still the one that it replaced.
    pub(in crate::pace) fn restore_named(&mut self, kept: &[KeptLimitKind]) {
        for KeptLimitKind { limit, declared, told, window } in kept {
            let Some((index, _)) = self.limit_named(limit) else { continue };
            let spec = &self.config.limits[index];
            if spec.pin || *told == 0 || numbers(spec.kind) != (*declared, *window) {
                continue;
            }
            let kind = match spec.kind {
                LimitKind::Rate { window, .. } => LimitKind::Rate { quota: *told, window },
                LimitKind::Concurrent { .. } => {
                    LimitKind::Concurrent { cap: u32::try_from(*told).unwrap_or(u32::MAX) }
                }
            };
            self.set_kind(index, kind);
        }
    }
}

/// How much a limit allows in how many seconds; zero for attempts at once.
fn numbers(kind: LimitKind) -> (u64, f64) {
    match kind {
        LimitKind::Rate { quota, window } => (quota, window.as_secs_f64()),
        LimitKind::Concurrent { cap } => (u64::from(cap), 0.0),
    }
}
