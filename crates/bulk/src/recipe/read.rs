//! TOML to a checked recipe.

use std::collections::BTreeMap;

use sha2::Digest as _;
use tidegate_store::Digest;
use toml::de::DeValue;

use super::node::{Node, json_string};
use super::slot::{Slot, Type, pieces};
use super::view::{Document, Place, Table};
use super::{Kind, Lookup, Merge, Recipe, Rule, Target, Template, check_target, job, reconcile};
use crate::near;
use crate::problem::Problems;

const METHODS: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];

/// Reads and checks a recipe.
pub(super) fn recipe(file: &str, text: &str) -> Result<Recipe, Problems> {
    let mut document = Document::new(file, text);
    let root = document.parse();
    if !document.problems.is_empty() {
        return Err(document.problems); // what follows a syntax error is guesswork
    }
    let table = Document::root(&root);
    let known = [
        "name",
        "description",
        "kind",
        "method",
        "path",
        "body",
        "id",
        "merge",
        "column",
        "lookup",
        "job",
        "results",
        "item",
        "reconcile",
    ];
    document.known(&table, &known);

    let name = document.required(&table, "name").map(|it| it.0).unwrap_or_default();
    let description = document.string(&table, "description").map(|it| it.0).unwrap_or_default();
    let method = read_method(&mut document, &table);
    let path = document.required(&table, "path");
    let target = path.as_ref().and_then(|(text, line)| {
        Target::parse(text).map_err(|message| document.problem(*line, message)).ok()
    });
    let id = document.string(&table, "id");
    let body = document.get(&table, "body").and_then(|place| read_body(&mut document, place));
    let lookups = read_lookups(&mut document, &table);
    let rules = read_rules(&mut document, &table);
    let readable = body.is_some() || document.get(&table, "body").is_none();
    let (body, merge) = read_merge(&mut document, &table, body);
    let readable = readable && (merge.is_some() || document.get(&table, "merge").is_none());
    let jobs = job::read(&mut document, &table, target.as_ref());
    if let (Some(_), Some((_, line))) = (&merge, &id) {
        document
            .problem(*line, "`id` has no meaning beside `merge`: a merged request is named by `merge.by`");
    }
    // What is wrong with these hides nothing of the rest, which is looked at by what they most likely were to be.
    let likely = || Target::parse(&format!("/{}", path?.0.trim_start_matches('/'))).ok();
    let guessed = method.is_none() || target.is_none();
    let Some(target) = target.or_else(likely) else { return Err(document.problems) };
    let method = method.unwrap_or(http::Method::POST);
    let finding_out = document.get(&table, "reconcile").is_some();
    let reconcile = finding_out.then(|| reconcile::read(&mut document, text, &method, &target)).flatten();
    let id = id.map(|it| it.0);
    let template = Template { method, target, body, id, merge, rules, lookups, jobs };
    // Beside a guess, what could not be read may be what would be said to be missing.
    if readable || !guessed {
        check_use(&mut document, &table, &template);
    }
    if let (Some(rule), Some(body)) = (&reconcile, &template.body) {
        reconcile::check_body(&mut document, &table, rule, body);
    }
    let digest = Digest(sha2::Sha256::digest(text).into());
    let kind = Kind::Template(Box::new(template));
    let text = text.to_owned();
    document.problems.into_result(Recipe { name, description, digest, kind, reconcile, text })
}

pub(super) fn read_method<'t>(document: &mut Document<'t>, table: &Table<'_, 't>) -> Option<http::Method> {
    let (text, line) = document.required(table, "method")?;
    let method = method(&text);
    method.map_err(|message| document.problem(line, message)).ok()
}

/// The method of a bulk write.
///
/// # Errors
/// Why it is none.
pub(crate) fn method(text: &str) -> Result<http::Method, String> {
    if METHODS.contains(&text) {
        return Ok(text.parse().expect("the methods listed are valid"));
    }
    if text == "GET" || text == "HEAD" {
        return Err(format!("method `{text}` does not write; read with `tidegate export`"));
    }
    let hint = near::hint(text, METHODS);
    Err(format!("unknown method `{text}`; use {}{hint}", METHODS.join(", ")))
}

/// A body: a TOML value, or a string that holds JSON or one placeholder.
pub(super) fn read_body(document: &mut Document<'_>, place: Place<'_, '_>) -> Option<Node> {
    let DeValue::String(text) = place.value else { return read_node(document, place) };
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => read_json(document, &value, place.line),
        Err(error) => match pieces(text).map(|pieces| Node::of_string(text, pieces)) {
            Ok(Node::Value(slot)) if slot.kind == Type::Json => Some(Node::Value(slot)),
            _ => {
                document.problem(place.line, format!("`body` is a string but not JSON ({error})"));
                None
            }
        },
    }
}

fn read_string(document: &mut Document<'_>, text: &str, line: u64) -> Option<Node> {
    let pieces = pieces(text).map_err(|message| document.problem(line, message)).ok()?;
    Some(Node::of_string(text, pieces))
}

fn read_key(document: &mut Document<'_>, name: &str, line: u64) -> String {
    if name.contains(['{', '}']) {
        document.problem(line, format!("`{name}`: member names cannot hold placeholders"));
    }
    name.to_owned()
}

fn literal_or<T: ToString>(
    document: &mut Document<'_>,
    line: u64,
    value: Option<T>,
    fault: impl FnOnce() -> String,
) -> Option<Node> {
    if value.is_none() {
        document.problem(line, fault());
    }
    value.map(|value| Node::Literal(value.to_string()))
}

fn read_node(document: &mut Document<'_>, place: Place<'_, '_>) -> Option<Node> {
    match place.value {
        DeValue::String(text) => read_string(document, text, place.line),
        DeValue::Boolean(it) => Some(Node::Literal(it.to_string())),
        DeValue::Datetime(it) => Some(Node::Literal(json_string(&it.to_string()))),
        DeValue::Integer(it) => {
            let number = i64::from_str_radix(it.as_str(), it.radix());
            literal_or(document, place.line, number.ok(), || format!("number `{it}` is too large"))
        }
        DeValue::Float(it) => {
            let number = it.as_str().parse::<f64>().ok().filter(|number| number.is_finite());
            literal_or(document, place.line, number, || format!("number `{it}` does not exist in JSON"))
        }
        DeValue::Array(elements) => {
            // Collected before judging, so that every element is checked.
            let nodes: Vec<_> = elements
                .iter()
                .map(|it| {
                    let place = document.place(it);
                    read_node(document, place)
                })
                .collect();
            nodes.into_iter().collect::<Option<_>>().map(Node::Array)
        }
        DeValue::Table(members) => {
            let nodes: Vec<_> = members
                .iter()
                .map(|(name, it)| {
                    let place = document.place(it);
                    let name = read_key(document, name.get_ref(), place.line);
                    Some((name, read_node(document, place)?))
                })
                .collect();
            nodes.into_iter().collect::<Option<_>>().map(Node::Object)
        }
    }
}

fn read_json(document: &mut Document<'_>, value: &serde_json::Value, line: u64) -> Option<Node> {
    match value {
        serde_json::Value::String(text) => read_string(document, text, line),
        serde_json::Value::Array(elements) => {
            let nodes: Vec<_> = elements.iter().map(|it| read_json(document, it, line)).collect();
            nodes.into_iter().collect::<Option<_>>().map(Node::Array)
        }
        serde_json::Value::Object(members) => {
            let nodes: Vec<_> = members
                .iter()
                .map(|(name, it)| Some((read_key(document, name, line), read_json(document, it, line)?)))
                .collect();
            nodes.into_iter().collect::<Option<_>>().map(Node::Object)
        }
        other => Some(Node::Literal(other.to_string())),
    }
}

fn read_rules<'t>(document: &mut Document<'t>, table: &Table<'_, 't>) -> BTreeMap<String, Rule> {
    let mut rules = BTreeMap::new();
    let Some(columns) = document.table(table, "column") else { return rules };
    for column in columns.keys() {
        let Some(inner) = document.table(&columns, column) else { continue };
        document.known(&inner, &["min", "max", "one_of"]);
        let min = document.number(&inner, "min");
        let max = document.number(&inner, "max");
        let one_of = read_strings(document, &inner, "one_of");
        rules.insert(column.to_owned(), Rule { min, max, one_of });
    }
    rules
}

pub(super) fn read_strings<'t>(document: &mut Document<'t>, table: &Table<'_, 't>, key: &str) -> Vec<String> {
    let Some(place) = document.get(table, key) else { return Vec::new() };
    let strings = place.value.as_array().and_then(|array| {
        array.iter().map(|it| it.get_ref().as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    match strings {
        Some(strings) if !strings.is_empty() => strings,
        _ => {
            document.problem(place.line, format!("`{}` must be a list of strings", table.path(key)));
            Vec::new()
        }
    }
}

fn read_lookups<'t>(document: &mut Document<'t>, table: &Table<'_, 't>) -> Vec<Lookup> {
    let mut lookups = Vec::new();
    let Some(columns) = document.table(table, "lookup") else { return lookups };
    for column in columns.keys() {
        let Some(inner) = document.table(&columns, column) else { continue };
        document.known(&inner, &["from", "path", "items", "name", "value"]);
        let mut field = |key: &str| document.required(&inner, key);
        let (from, path, items, name, value) =
            (field("from"), field("path"), field("items"), field("name"), field("value"));
        if let Some((path, line)) = &path
            && let Err(message) = check_target(path)
        {
            document.problem(*line, message);
        }
        let column = column.to_owned();
        if let (Some(from), Some(path), Some(items), Some(name), Some(value)) =
            (from, path, items, name, value)
        {
            let (from, path, items, name, value) = (from.0, path.0, items.0, name.0, value.0);
            lookups.push(Lookup { column, from, path, items, name, value });
        }
    }
    lookups
}

/// Reads `merge` and puts the place of its items into the body.
fn read_merge<'t>(
    document: &mut Document<'t>,
    table: &Table<'_, 't>,
    body: Option<Node>,
) -> (Option<Node>, Option<Merge>) {
    let Some(inner) = document.table(table, "merge") else { return (body, None) };
    document.known(&inner, &["by", "into", "item", "unique", "max"]);
    let by = document.string(&inner, "by").map(|it| it.0);
    let into = document.required(&inner, "into");
    let unique = document.string(&inner, "unique").map(|it| it.0);
    let max = document.count(&inner, "max");
    let item = document.get(&inner, "item");
    if item.is_none() {
        let line = document.get(table, "merge").map_or(1, |it| it.line);
        document.problem(line, "`merge.item` is missing");
    }
    let item = item.and_then(|place| read_node(document, place));
    let (Some((into, line)), Some(item)) = (into, item) else { return (body, None) };
    let body = body.unwrap_or_else(|| Node::Object(Vec::new())).put_items(&into);
    let body = body.map_err(|message| document.problem(line, format!("`merge.into`: {message}"))).ok();
    (body, Some(Merge { by, item, unique, max }))
}

/// What only shows when the parts are seen together.
fn check_use(document: &mut Document<'_>, table: &Table<'_, '_>, template: &Template) {
    let line_of = |document: &Document<'_>, key: &str| document.get(table, key).map_or(1, |it| it.line);
    let mut outer: Vec<&Slot> = Vec::new();
    if let Some(body) = &template.body {
        body.slots(&mut outer);
        if matches!(body, Node::Value(slot) if slot.optional) {
            document.problem(line_of(document, "body"), "the whole body cannot be left out with `?`");
        }
    }
    let mut used: Vec<&str> =
        outer.iter().map(|slot| slot.column.as_str()).chain(template.target.columns()).collect();
    if let Some(merge) = &template.merge {
        let line = line_of(document, "merge");
        for column in used.iter().filter(|column| Some(**column) != merge.by.as_deref()) {
            let told = match &merge.by {
                Some(by) => format!(
                    "`path` and `body` may only use `{{{by}}}`, in which merged rows agree; `{{{column}}}` belongs into `merge.item`"
                ),
                None => format!(
                    "`path` and `body` use `{{{column}}}`, so rows that share a request must agree in it: `merge.by` is missing"
                ),
            };
            document.problem(line, told);
        }
        if let Some(by) = &merge.by
            && !used.contains(&by.as_str())
        {
            document.problem(
                line,
                format!("neither `path` nor `body` uses `{{{by}}}`, which rows are merged by"),
            );
        }
        let mut inner = Vec::new();
        merge.item.slots(&mut inner);
        used.extend(inner.iter().map(|slot| slot.column.as_str()));
        if let Some(unique) = &merge.unique
            && !used.contains(&unique.as_str())
        {
            document
                .problem(line, format!("`merge.unique` names `{unique}`, which `merge.item` does not use"));
        }
    }
    let unused_rules =
        template.rules.keys().filter(|it| !used.contains(&it.as_str())).map(|it| ("column", it));
    let lookups = template.lookups.iter().map(|it| &it.column);
    let unused_lookups = lookups.filter(|it| !used.contains(&it.as_str())).map(|it| ("lookup", it));
    for (kind, column) in unused_rules.chain(unused_lookups) {
        let hint = near::hint(column, used.iter().copied());
        document.problem(
            line_of(document, kind),
            format!("`{kind}.{column}`: no placeholder uses `{column}`{hint}"),
        );
    }
}
