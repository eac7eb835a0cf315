//! Limits that bodies describe: `[[body]]`.

use super::limit::{nonempty, parse_place};
use super::parse::pointer;
use super::reader::Section;
use crate::observe::BodyRule;

/// Reads every `[[body]]`.
pub(super) fn rules(file: &Section<'_>) -> Vec<BodyRule> {
    let mut rules: Vec<BodyRule> = Vec::new();
    for section in file.sections("body") {
        let place =
            section.required("match", "match = \"POST /graphql\"", section.parsed("match", parse_place));
        let name = section.required("name", "name = \"points\"", section.parsed("name", nonempty));
        let member = |key, example| section.required(key, example, section.parsed(key, pointer));
        let limit = member("limit", "limit = \"/cost/limit\"");
        let remaining = member("remaining", "remaining = \"/cost/left\"");
        let restore = section.parsed("restore", pointer);
        let cost = section.parsed("cost", pointer);
        let (Some((method, path)), Some(name), Some(limit), Some(remaining)) =
            (place, name, limit, remaining)
        else {
            continue;
        };
        if rules.iter().any(|earlier| (&earlier.method, &earlier.path) == (&method, &path)) {
            section.problem("match", "is that of an earlier rule, which decides (remove one)");
        }
        rules.push(BodyRule { method, path, name, limit, remaining, restore, cost });
    }
    rules
}
