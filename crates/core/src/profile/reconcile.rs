//! How to find out what became of a write: `[[reconcile]]` of a profile, `[reconcile]` of a recipe.

use http::Method;

use super::limit::parse_place;
use super::reader::Section;
use crate::glob::PathGlob;
use crate::reconcile::{
    Absent, BodyTemplate, Conflict, Each, Find, Pair, Pointer, ReadBack, Rule, Same, Template,
};

/// Statuses by which an upstream can refuse a write because its entity has changed.
const REFUSALS: std::ops::RangeInclusive<u64> = 400..=499;

/// The most re-applications of one write that can be asked for.
const MOST: std::ops::RangeInclusive<u64> = 1..=10;

/// Versions that a new entity can have.
const FIRST: std::ops::RangeInclusive<u64> = 0..=1_000_000;

/// Reads every `[[reconcile]]` of a profile.
pub(super) fn rules(file: &Section<'_>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for section in file.sections("reconcile") {
        let place = section.parsed("match", write_place);
        let place = section.required("match", "match = \"PATCH /api/v2/users/*\"", place);
        let Some(rule) = read(&section, place) else { continue };
        if rules.iter().any(|earlier| (&earlier.method, &earlier.path) == (&rule.method, &rule.path)) {
            section.problem("match", "is that of an earlier rule, which decides (remove one)");
        }
        rules.push(rule);
    }
    rules
}

/// Reads the `[reconcile]` of a recipe, whose writes have this method and path.
pub fn read_recipe_rule(section: &Section<'_>, method: Method, path: PathGlob) -> Option<Rule> {
    let conflict = section.section("conflict").map(|section| conflict(&section));
    let rule = read(section, Some((method, path)))?;
    if conflict.is_some() && rule.version.is_none() {
        section.problem("conflict", "needs `version`: what is applied again is the change on the new version (add version = \"/version\")");
    }
    Some(Rule { conflict, ..rule })
}

fn read(section: &Section<'_>, place: Option<(Method, PathGlob)>) -> Option<Rule> {
    let stars = place.as_ref().and_then(|(_, path)| path.star_count()).unwrap_or(0);
    let read = read_back(section, stars);
    let find = find(section);
    let same = same(section);
    let total = section.parsed("total", Pointer::parse);
    let listed = matches!(find, Some(Find::In { .. })) || matches!(same, Some(Same::Each(_)));
    if total.is_some() && !listed {
        section.problem("total", "is of no use without a list (remove it, or add `items` or `each`)");
    }
    let gone = matches!(same, Some(Same::Gone));
    if gone && section.has("version") {
        section.problem("version", "does not go with `gone` (remove one)");
    }
    let first = section.integer("first", &FIRST);
    if first.is_some() && !(matches!(find, Some(Find::In { .. })) && section.has("version")) {
        section.problem(
            "first",
            "needs `items` and `version`: the version of an entity that was just created (remove it)",
        );
    }
    let absent = section.one_of("absent", &Absent::NAMES).unwrap_or_default();
    let settle = section.duration_above_zero("settle").unwrap_or(Rule::SETTLE);
    let version = section.parsed("version", Pointer::parse);
    let (method, path) = place?;
    Some(Rule {
        method,
        path,
        read: read?,
        find: find?,
        same: same?,
        total,
        version,
        first,
        absent,
        settle,
        conflict: None,
    })
}

/// A method that writes, and a path.
fn write_place(text: &str) -> Result<(Method, PathGlob), String> {
    match parse_place(text)? {
        (Some(method), path) if !method.is_safe() => Ok((method, path)),
        _ => Err(format!(
            "`{text}` names no write (put its method in front, such as \"PATCH {}\")",
            text.rsplit(' ').next().unwrap_or(text)
        )),
    }
}

fn read_back(section: &Section<'_>, stars: usize) -> Option<ReadBack> {
    let body = section.parsed("body", |text| BodyTemplate::parse(text, stars));
    let read = if section.has("read") {
        section.parsed("read", |text| {
            let (method, target) = match text.split_once(' ') {
                Some(("GET", target)) => (Method::GET, target),
                Some(("POST", target)) => (Method::POST, target),
                _ => {
                    return Err(format!(
                        "`{text}` is no read (write \"GET /path\", or \"POST /path\" for a search)"
                    ));
                }
            };
            let plain = target.starts_with('/') && !target.starts_with("//");
            if !plain || target.contains(['#', '*']) || target.contains(char::is_whitespace) {
                return Err(format!("`{target}` is no path (write it out, such as \"/api/v2/users/{{1}}\")"));
            }
            Ok((method, Some(Template::parse(target, stars)?)))
        })
    } else {
        Some((Method::GET, None))
    };
    let (method, target) = read?;
    if method == Method::GET && section.has("body") {
        section.problem("body", "does not go with a GET (remove it, or write read = \"POST /path\")");
    }
    Some(ReadBack { method, target, body })
}

fn find(section: &Section<'_>) -> Option<Find> {
    let items = section.parsed("items", Pointer::parse);
    let key = section.each("key", key_pair);
    match (section.has("items"), section.has("key")) {
        (false, false) => Some(Find::Entity),
        (true, true) => match (items, key) {
            (Some(_), Some(key)) if key.is_empty() => {
                section.problem("key", "is empty (name what is unique, such as \"/email\")");
                None
            }
            (Some(items), Some(key)) => Some(Find::In { items, key }),
            _ => None,
        },
        (true, false) => {
            section.problem("items", "needs `key`: which of the items it is (add key = \"/email\")");
            None
        }
        (false, true) => {
            section.problem("key", "needs `items`: where the list is (add items = \"/entities\")");
            None
        }
    }
}

/// `"/email"`, or `"/userName = /email"` where the entity's is another member.
fn key_pair(text: &str) -> Result<Pair, String> {
    pair(text).ok_or_else(|| {
        format!("`{text}` is no part of a key (write \"/email\", or \"/userName = /email\" for entity and request)")
    })
}

/// `"/name"`, or `"/division/id = /divisionId"`.
fn same_pair(text: &str) -> Result<Pair, String> {
    if text.is_empty() {
        return Err("is empty (name a member, such as \"/name\")".to_owned());
    }
    match (pair(text), text.contains('=')) {
        (Some(pair), _) => Ok(pair),
        (None, true) => Err(format!(
            "`{text}` names no member of both (write \"/division/id = /divisionId\" for entity and request)"
        )),
        (None, false) => member(text).map(|member| Pair { entity: member.clone(), request: member }),
    }
}

/// Where the entity has it, and where the request.
fn pair(text: &str) -> Option<Pair> {
    let (entity, request) = text.split_once('=').unwrap_or((text, text));
    let read = |text: &str| Pointer::parse(text.trim()).ok().filter(|pointer| !pointer.as_str().is_empty());
    Some(Pair { entity: read(entity)?, request: read(request)? })
}

fn same(section: &Section<'_>) -> Option<Same> {
    let kinds = ["same", "each", "gone"].into_iter().filter(|kind| section.has(kind)).count();
    let body = section.is_string("same") && section.string("same").as_deref() == Some("body");
    let members = if body { None } else { section.each("same", same_pair) };
    let except = section.each("except", member);
    let each = section.section("each").map(|section| each(&section));
    let gone = section.boolean("gone");
    if gone == Some(false) {
        section.problem("gone", "is true or absent (remove it)");
    }
    if section.has("except") && !body {
        section.problem("except", "goes with same = \"body\" (remove it, or compare the whole body)");
    }
    if kinds != 1 {
        section.problem(
            "",
            "needs one of `same`, `each` and `gone` (write same = \"body\" to compare all that was written)",
        );
        return None;
    }
    match (body, members, each, gone) {
        (true, ..) => Some(Same::Body { except: except.unwrap_or_default() }),
        (_, Some(members), ..) if members.is_empty() => {
            section.problem("same", "is empty (name what is compared, or write \"body\")");
            None
        }
        (_, Some(members), ..) => Some(Same::Members(members)),
        (_, _, Some(each), _) => each.map(Same::Each),
        (_, _, _, Some(true)) => Some(Same::Gone),
        _ => None,
    }
}

fn member(text: &str) -> Result<Pointer, String> {
    match Pointer::parse(text) {
        Ok(pointer) if !text.is_empty() => Ok(pointer),
        Ok(_) => Err("is empty (name a member, such as \"/name\")".to_owned()),
        Err(what) => Err(what),
    }
}

fn each(section: &Section<'_>) -> Option<Each> {
    let into = section.required("into", "into = \"/entities\"", section.parsed("into", Pointer::parse));
    let id = section.required("id", "id = \"/id\"", section.parsed("id", member));
    let members = section.each("members", member).unwrap_or_default();
    let exact = section.boolean("exact").unwrap_or(false);
    let from = if section.has("from") { section.parsed("from", Pointer::parse)? } else { Pointer::default() };
    Some(Each { from, into: into?, id: id?, members, exact })
}

fn conflict(section: &Section<'_>) -> Conflict {
    let default = Conflict::default();
    let statuses = section.integers("statuses", &REFUSALS).map(|statuses| {
        if statuses.is_empty() {
            section.problem("statuses", "is empty (remove it, or name one, such as 409)");
        }
        statuses.into_iter().filter_map(|status| u16::try_from(status).ok()).collect()
    });
    let most = section.integer("most", &MOST).and_then(|most| u32::try_from(most).ok());
    Conflict { statuses: statuses.unwrap_or(default.statuses), most: most.unwrap_or(default.most) }
}
