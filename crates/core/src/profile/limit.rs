//! Limits a profile or a configuration declares.

use http::Method;

use super::reader::Section;
use crate::glob::PathGlob;
use crate::pace::{LimitKind, LimitSpec, Observes, Partition};

/// Reads every `[[limit]]` of a file, for profiles and configurations alike.
pub fn read_limits(file: &Section<'_>) -> Vec<LimitSpec> {
    let mut limits: Vec<LimitSpec> = Vec::new();
    let mut unnamed = false;
    for section in file.sections("limit") {
        let Some(limit) = read_limit(&section) else { continue };
        for name in limit.names().filter(|name| limits.iter().any(|known| known.rank_of(name).is_some())) {
            let key = if name == limit.key { "key" } else { "aliases" };
            section.problem(key, format_args!("`{name}` is used by an earlier limit (choose another)"));
        }
        if limit.aliases.contains(&limit.key) {
            section.problem("aliases", "has the key again (remove it)");
        }
        if limit.observes == Observes::Unnamed && std::mem::replace(&mut unnamed, true) {
            section.problem("observes", "an earlier limit has the unnamed readings already (remove one)");
        }
        limits.push(limit);
    }
    limits
}

fn read_limit(section: &Section<'_>) -> Option<LimitSpec> {
    let key = section.required("key", "key = \"users\"", section.parsed("key", nonempty));
    let aliases = section.each("aliases", nonempty).unwrap_or_default();
    let place = section.parsed("match", parse_place).unwrap_or_else(everywhere);
    let kind = read_kind(section);
    let per = section.each("per", |text| super::reader::choose(text, &Partition::NAMES));
    if per.as_ref().is_some_and(Vec::is_empty) {
        section.problem("per", "is empty (write one of token, credential, tenant, family)");
    }
    let pin = section.boolean("pin").unwrap_or(false);
    let observes = read_observes(section);
    let (method, path) = place;
    let per = per.unwrap_or_else(|| vec![Partition::Credential]);
    Some(LimitSpec { key: key?, aliases, method, path, kind: kind?, per, pin, assumed: false, observes })
}

fn read_kind(section: &Section<'_>) -> Option<LimitKind> {
    let quota = section.integer("quota", &(1..=u64::MAX));
    let window = section.duration_above_zero("window");
    let concurrent = section.integer("concurrent", &(1..=u64::from(u32::MAX)));
    if section.has("concurrent") {
        for other in ["quota", "window"].into_iter().filter(|key| section.has(key)) {
            section.problem(other, "does not go with `concurrent` (declare two limits)");
        }
        return concurrent.and_then(|cap| u32::try_from(cap).ok()).map(|cap| LimitKind::Concurrent { cap });
    }
    if !section.has("quota") && !section.has("window") {
        section.problem("", "has neither a quota nor `concurrent` (write quota = 300 and window = \"60s\")");
        return None;
    }
    let quota = section.required("quota", "quota = 300", quota);
    let window = section.required("window", "window = \"60s\"", window);
    Some(LimitKind::Rate { quota: quota?, window: window? })
}

fn read_observes(section: &Section<'_>) -> Observes {
    if section.is_string("observes") {
        return section.parsed("observes", nonempty).map_or_else(Observes::default, Observes::Named);
    }
    match section.boolean_or("observes", "true, false or a name") {
        Some(true) => Observes::Unnamed,
        _ => Observes::OwnName,
    }
}

pub(super) fn nonempty(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("is empty (write a name)") } else { Ok(text.to_owned()) }
}

fn everywhere() -> (Option<Method>, PathGlob) {
    (None, PathGlob::parse("/**").expect("the pattern of every path is valid"))
}

/// Reads `/api/v2/users/**` or `PATCH /api/v2/users/**`. The error says what is wrong and what to write.
pub fn parse_place(text: &str) -> Result<(Option<Method>, PathGlob), String> {
    let Some((method, path)) = text.split_once(' ') else { return Ok((None, PathGlob::parse(text)?)) };
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let names = known.each_ref().map(|method| (method.as_str(), method));
    let method = super::reader::choose(method, &names)?.clone();
    Ok((Some(method), PathGlob::parse(path.trim_start())?))
}
