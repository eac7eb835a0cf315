//! Names to ids.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::near;
use crate::problem::{Problem, Problems};
use crate::recipe::Lookup;

/// What the names of an input stand for.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    columns: HashMap<String, HashMap<String, String>>,
    /// Offline: a name stands for itself.
    unresolved: bool,
}

impl Lookups {
    /// Every name stands for itself, to check an input without asking the upstream.
    pub(crate) fn unresolved() -> Self {
        Self { columns: HashMap::new(), unresolved: true }
    }

    /// Resolves the names an input uses for one column against what the upstream lists, as (name, id).
    ///
    /// Names must match exactly: two skills may differ in letter case only, and guessing would write to the wrong one.
    ///
    /// # Errors
    /// Every name that is not listed, with the nearest one that is, and every name listed with several ids.
    pub fn resolve(
        &mut self,
        file: &str,
        lookup: &Lookup,
        asked: &BTreeMap<String, u64>,
        listed: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), Problems> {
        let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, id) in listed {
            known.entry(name).or_default().insert(id);
        }
        let mut problems = Problems::new(file);
        let resolved = self.columns.entry(lookup.column.clone()).or_default();
        for (name, &line) in asked {
            let ids: Vec<_> = known.get(name).into_iter().flatten().collect();
            let message = match ids.as_slice() {
                [id] => {
                    resolved.insert(name.clone(), (*id).clone());
                    continue;
                }
                [] => {
                    let hint = near::hint(name, known.keys().map(String::as_str));
                    let (from, path) = (&lookup.from, &lookup.path);
                    format!("unknown {from} `{name}` (of {} at {path}){hint}", known.len())
                }
                several => format!(
                    "`{name}` names {} different entries of {}; give `{}` instead",
                    several.len(),
                    lookup.path,
                    lookup.column
                ),
            };
            problems.push(Problem::cell(line, &lookup.from, message));
        }
        problems.into_result(())
    }

    /// What `name` stands for in `column`; `None` if it was never resolved.
    pub(super) fn find<'a>(&'a self, column: &str, name: Cow<'a, str>) -> Option<Cow<'a, str>> {
        if self.unresolved {
            return Some(name);
        }
        self.columns.get(column)?.get(&*name).map(|id| Cow::Borrowed(id.as_str()))
    }
}
