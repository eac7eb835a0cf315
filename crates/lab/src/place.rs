//! Where in a scenario file a problem is. Values are read by name, without their places; so a problem, which begins with its
//! key, is looked up in the text once more.

use tidegate_core::profile::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The key that a problem begins with: `fleet.load[0].rate` of `fleet.load[0].rate: -1 is not above 0`.
pub(crate) fn key(problem: &str) -> &str {
    problem.split_once(": ").map_or(problem, |(key, _)| key)
}

/// The problems in the order of their lines, each with its line and, for an unknown key, the one that was meant.
pub(crate) fn with_lines(text: &str, problems: Vec<String>) -> Vec<String> {
    let table = DeTable::parse(text).ok();
    let line = |problem: &str| {
        let at = find(table.as_ref()?.get_ref(), key(problem))?;
        Some(text[..at].matches('\n').count() + 1)
    };
    let mut placed: Vec<(Option<usize>, String)> =
        problems.into_iter().map(|problem| (line(&problem), meant(problem))).collect();
    placed.sort_by_key(|(line, _)| *line);
    let told = placed.into_iter().map(|(line, problem)| match line {
        Some(line) => format!("line {line}: {problem}"),
        None => problem,
    });
    told.collect()
}

/// Where `key` is, or the innermost table around it that is there.
fn find(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let mut at = None;
    let mut inside = Some(table);
    for part in key.split('.') {
        let (name, indices) = part.split_once('[').unwrap_or((part, ""));
        let Some((name, value)) = inside.and_then(|table| table.get_key_value(name)) else { break };
        let mut value: &Spanned<DeValue<'_>> = value;
        at = Some(name.span().start);
        for index in indices.split(['[', ']']).filter_map(|index| index.parse::<usize>().ok()) {
            let Some(element) = value.get_ref().as_array().and_then(|array| array.get(index)) else {
                return at;
            };
            value = element;
            at = Some(value.span().start);
        }
        inside = value.get_ref().as_table();
    }
    at
}

/// Shortens serde's list of all keys to the one that is near, if there is one.
fn meant(problem: String) -> String {
    let Some((before, known)) = problem.split_once(", expected ") else { return problem };
    let Some((_, unknown)) = before.split_once("unknown field `") else { return problem };
    let known = known.split('`').skip(1).step_by(2);
    match nearest(unknown.trim_end_matches('`'), known) {
        Some(near) => format!("{before} (did you mean `{near}`?)"),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_is_written_or_else_the_table_it_belongs_to() {
        let text = "name = 1\n[a]\nb = { c = [1,\n 2] }\n[[a.d]]\nx = 1\n[[a.d]]\ny = 1\n";
        let lines = |key: &str| with_lines(text, vec![format!("{key}: bad")]).remove(0);
        assert_eq!(lines("name"), "line 1: name: bad");
        assert_eq!(lines("a.b.c[1]"), "line 4: a.b.c[1]: bad");
        assert_eq!(lines("a.d[1].y"), "line 8: a.d[1].y: bad");
        assert_eq!(lines("a.d[1].z"), "line 7: a.d[1].z: bad");
        assert_eq!(lines("other"), "other: bad", "what is not there has no line");
    }

    #[test]
    fn only_a_near_key_replaces_the_list_of_all() {
        let unknown = |key: &str| format!("k: unknown field `{key}`, expected one of `rate`, `requests`");
        assert_eq!(meant(unknown("rat")), "k: unknown field `rat` (did you mean `rate`?)");
        assert_eq!(meant(unknown("speed")), unknown("speed"));
    }
}
