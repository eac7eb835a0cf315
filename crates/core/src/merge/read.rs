//! `[[merge]]` of a profile, `[[merge.rule]]` of a configuration.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;

use super::rule::{AnswerAs, MergeRule, Row, Single};
use crate::glob::PathGlob;
use crate::profile::parse_place;
use crate::profile::reader::Section;
use crate::reconcile::Pointer;
use crate::template::{Piece, pieces};

/// The most rows a rule may put into one call.
pub const MAX_ROWS: usize = 1_000;

/// The longest window. A longer one would be a delay that nobody asked for.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(1);

const SUCCESSES: RangeInclusive<u64> = 200..=299;

/// Reads every table of this name.
///
/// ```toml
/// [[merge]]
/// name = "user-skills"
/// into = "PATCH /api/v2/users/{1}/routingskills/bulk"
/// max = 50
/// members = ["proficiency"]
/// items = "/entities"
/// idempotent = true
/// order = "/api/v2/users/*/routingskills"
///
/// [[merge.from]]
/// match = "PUT /api/v2/users/*/routingskills/*"
/// id = "{2}"
/// ```
pub fn read_merges(file: &Section<'_>, table: &str) -> Vec<MergeRule> {
    let mut rules: Vec<MergeRule> = Vec::new();
    for section in file.sections(table) {
        let Some(rule) = read(&section) else { continue };
        if rules.iter().any(|earlier| earlier.name == rule.name) {
            section.problem("name", format_args!("`{}` is an earlier rule's (choose another)", rule.name));
        }
        let same = |single: &Single| {
            let mut earlier = rules.iter().flat_map(|rule| &rule.from);
            earlier.any(|other| (&other.method, &other.path) == (&single.method, &single.path))
        };
        if let Some(single) = rule.from.iter().find(|single| same(single)) {
            let told = format_args!(
                "`{} {}` is an earlier rule's, which decides (remove one)",
                single.method,
                single.path.as_str()
            );
            section.problem("from", told);
        }
        rules.push(rule);
    }
    rules
}

fn read(section: &Section<'_>) -> Option<MergeRule> {
    let name = section.parsed("name", name);
    let name = section.required("name", "name = \"user-skills\"", name);
    let into = section.parsed("into", into);
    let into = section.required("into", "into = \"PATCH /users/{1}/skills/bulk\"", into);
    let holes = into.as_ref().map_or(0, |(_, path)| most_of(path));
    let max = section.integer("max", &(2..=MAX_ROWS as u64));
    let max = section.required("max", "max = 50", max);
    let members = section.each("members", name_of_member);
    let members = section.required("members", "members = [\"proficiency\"]", members);
    if members.as_ref().is_some_and(Vec::is_empty) {
        section.problem("members", "is empty (name what a row has beside its key)");
    }
    let key = section.parsed("key", name_of_member).unwrap_or_else(|| "id".to_owned());
    let wrap = section.parsed("wrap", name_of_member);
    let items = section.parsed("items", Pointer::parse).unwrap_or_default();
    let pointer = |key| section.parsed(key, Pointer::parse);
    let (status, entity, error, total) =
        (pointer("status"), pointer("entity"), pointer("error"), pointer("total"));
    if section.has("error") && !section.has("status") {
        section.problem("error", "needs `status`: which items failed (add status = \"/status\")");
    }
    let idempotent = section.boolean("idempotent").unwrap_or(false);
    let order = section.each("order", |text| place_in_order(text, holes)).unwrap_or_default();
    let from = singles(section, holes, status.is_some());
    let (method, into) = into?;
    let max = usize::try_from(max?).ok()?;
    let (name, members) = (name?, members?);
    Some(MergeRule {
        name,
        method,
        into,
        wrap,
        max,
        key,
        members,
        items,
        status,
        entity,
        error,
        total,
        idempotent,
        from,
        order,
    })
}

fn singles(section: &Section<'_>, holes: usize, by_item: bool) -> Vec<Single> {
    let mut singles: Vec<Single> = Vec::new();
    let tables = section.sections("from");
    if tables.is_empty() {
        section.problem("from", "is missing (write [[merge.from]] with match = \"PUT /users/*/skills/*\")");
    }
    for table in tables {
        let place = table.parsed("match", write_place);
        let place = table.required("match", "match = \"PUT /users/*/skills/*\"", place);
        let stars = place.as_ref().and_then(|(_, path)| path.star_count());
        let kind = table.one_of("row", &[("body", Row::Body(None)), ("rows", Row::Rows)]);
        let id = table.parsed("id", |text| star(text, stars.unwrap_or(0)));
        let row = match kind.unwrap_or(Row::Body(None)) {
            Row::Body(_) => Row::Body(id),
            Row::Rows => {
                if table.has("id") {
                    table.problem("id", "does not go with rows, which name their items (remove it)");
                }
                Row::Rows
            }
        };
        let usual = if row == Row::Rows { AnswerAs::Own } else { AnswerAs::Item };
        let answer = table.one_of("answer", &AnswerAs::NAMES).unwrap_or(usual);
        if row == Row::Rows && answer == AnswerAs::Item {
            table.problem("answer", "`item` is one row's (write \"own\" or \"whole\")");
        }
        if by_item && answer != AnswerAs::Item {
            table.problem(
                "answer",
                "has to be `item` where items have a status of their own (remove `status`)",
            );
        }
        let status = table.integer("status", &SUCCESSES).and_then(|status| u16::try_from(status).ok());
        let Some((method, path)) = place else { continue };
        match stars {
            None => table.problem("match", "has a `**`, so nothing can be quoted from it (write `*`)"),
            Some(stars) if stars < holes => {
                table.problem(
                    "match",
                    format_args!("has fewer `*` than `into` quotes ({stars}, and {holes})"),
                );
            }
            Some(_) => {}
        }
        if singles.iter().any(|earlier| (&earlier.method, &earlier.path) == (&method, &path)) {
            table.problem("match", "is that of an earlier one, which decides (remove one)");
        }
        singles.push(Single { method, path, row, answer, status });
    }
    singles
}

fn name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !text.is_empty() && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no name (write letters, digits and dashes)"))
}

fn name_of_member(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('/') {
        return Err(format!("`{text}` names no member (write it plainly, such as \"proficiency\")"));
    }
    Ok(text.to_owned())
}

fn into(text: &str) -> Result<(Method, Vec<Piece<usize>>), String> {
    let unfit = || {
        format!(
            "`{text}` is no bulk call (write method and path, such as \"PATCH /users/{{1}}/skills/bulk\")"
        )
    };
    let (method, path) = text.split_once(' ').ok_or_else(unfit)?;
    let method: Method = method.parse().map_err(|_| unfit())?;
    let plain =
        path.starts_with('/') && !path.contains(['?', '#', '*']) && !path.contains(char::is_whitespace);
    if !plain || ![Method::POST, Method::PUT, Method::PATCH].contains(&method) {
        return Err(unfit());
    }
    let hole = |inside: &str| match inside.parse::<usize>() {
        Ok(number @ 1..=9) => Ok(number - 1),
        _ => Err(format!("`{{{inside}}}` is not known (write \"{{1}}\" for the first `*` of `match`)")),
    };
    Ok((method, pieces(path, hole)?))
}

/// How many `*` these pieces need.
fn most_of(path: &[Piece<usize>]) -> usize {
    let hole = |piece: &Piece<usize>| match piece {
        Piece::Hole(at) => at + 1,
        Piece::Text(_) => 0,
    };
    path.iter().map(hole).max().unwrap_or(0)
}

fn place_in_order(text: &str, holes: usize) -> Result<PathGlob, String> {
    let place = PathGlob::parse(text)?;
    match place.star_count() {
        None => Err(format!("`{text}` has a `**` (write where it begins; what lies below belongs to it)")),
        Some(stars) if stars < holes => {
            Err(format!("`{text}` has fewer `*` than `into` quotes ({stars}, and {holes})"))
        }
        Some(_) => Ok(place),
    }
}

/// A method that writes, and a path.
fn write_place(text: &str) -> Result<(Method, PathGlob), String> {
    match parse_place(text)? {
        (Some(method), path) if [Method::POST, Method::PUT, Method::PATCH].contains(&method) => {
            Ok((method, path))
        }
        _ => Err(format!(
            "`{text}` names no write with a body (put its method in front, such as \"PUT {}\")",
            text.rsplit(' ').next().unwrap_or(text)
        )),
    }
}

fn star(text: &str, stars: usize) -> Result<usize, String> {
    let inside = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match inside.and_then(|inside| inside.parse::<usize>().ok()) {
        Some(number) if (1..=stars).contains(&number) => Ok(number - 1),
        _ => Err(format!(
            "`{text}` stands for nothing (`match` has {stars} `*`; write \"{{2}}\" for the second)"
        )),
    }
}
