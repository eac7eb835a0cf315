//! `[reconcile]`: how to find out what became of a request of this recipe. The keys are those of a profile's
//! `[[reconcile]]`, and so is their reader.

use std::sync::Arc;

use http::Method;
use tidegate_core::glob::PathGlob;
use tidegate_core::profile::{read_recipe_rule, reader};
use tidegate_core::reconcile::{Pair, Rule, Same};

use super::Target;
use super::node::Node;
use super::view::{Document, Table};
use crate::near;

/// Reads the rule of a recipe that has one; its problems become the recipe's.
pub(super) fn read(
    document: &mut Document<'_>,
    text: &str,
    method: &Method,
    target: &Target,
) -> Option<Arc<Rule>> {
    let path = match PathGlob::parse(&pattern(target)) {
        Ok(path) => path,
        Err(what) => {
            document.problem(1, format!("`reconcile`: {what}"));
            return None;
        }
    };
    let read = reader::read(text, "", |recipe| {
        // Every other key is the recipe's business.
        recipe.keys();
        recipe.section("reconcile").and_then(|section| read_recipe_rule(&section, method.clone(), path))
    });
    match read {
        Ok(rule) => rule.map(Arc::new),
        Err(problems) => {
            for problem in problems.list {
                document.problem(problem.line as u64, format!("`{}` {}", problem.key, problem.what));
            }
            None
        }
    }
}

/// Finds what the rule compares and no request of the recipe has: such a rule would never tell anything.
pub(super) fn check_body<'t>(document: &mut Document<'t>, table: &Table<'_, 't>, rule: &Rule, body: &Node) {
    let same: &[Pair] = match &rule.same {
        Same::Members(members) => members,
        _ => &[],
    };
    let named =
        rule.version.iter().map(|it| ("version", it)).chain(same.iter().map(|it| ("same", &it.request)));
    let Some(section) = document.table(table, "reconcile") else { return };
    for (key, pointer) in named {
        let Some((missing, there)) = body.lacks(pointer.as_str()) else { continue };
        let hint = near::hint(&missing, there);
        let line = document.get(&section, key).map_or(1, |it| it.line);
        document.problem(line, format!("`reconcile.{key}`: the body has no `{pointer}`{hint}"));
    }
}

/// The path of all requests that `target` can become: a segment with a value in it is any segment.
fn pattern(target: &Target) -> String {
    // Encoded it is nothing that a path could have of itself.
    const VALUE: &str = "*";
    let filled = target.fill(|_| Some(VALUE.into())).unwrap_or_default();
    let path = filled.split('?').next().unwrap_or_default();
    let segments = path.split('/').map(|segment| if segment.contains("%2A") { "*" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_for_any_segment() {
        let pattern = |target: &str| pattern(&Target::parse(target).unwrap());
        assert_eq!(pattern("/api/v2/users/{id}/skills?x={y}"), "/api/v2/users/*/skills");
        assert_eq!(pattern("/api/v2/users/u-{id}"), "/api/v2/users/*");
        assert_eq!(pattern("/api/v2/users"), "/api/v2/users");
    }
}
