//! `[[list]]`: one call that tells the versions of many things, so that many kept answers are renewed by it.
//!
//! Where several answers under one rule are nearly over, the list is asked once. An answer whose version the list repeats is as good as
//! asked for again, from the instant the list's request left; the others are asked for one by one. It is only as true as the rule:
//! what can change without the version does not belong under it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::key::CacheKey;
use crate::glob::PathGlob;
use crate::profile::parse_place;
use crate::profile::reader::Section;
use crate::schedule::Class;
use crate::template;
use crate::time::Mono;

/// How the versions of many things are found by one call. A profile's `[[list]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRule {
    /// Reads of one thing; the last segment is its id. Reads with a query are not meant: what they add may have no version.
    pub one: PathGlob,
    /// The target of the list, with a query if it needs one.
    pub all: String,
    /// The parameter that asks for ids, once for each; absent where the list cannot be asked for some.
    pub ids: Option<String>,
    /// How many the list tells at once.
    pub at_most: usize,
    /// Where the list's items are: a JSON pointer (RFC 6901).
    pub items: String,
    /// Where the id is in an item.
    pub id: String,
    /// Where the version is, in an item and in the thing itself.
    pub version: String,
}

/// The version of a thing, as its JSON text.
pub type Version = Box<str>;

impl ListRule {
    /// The id in the path of a read that the rule is about.
    pub fn id_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        self.one.matches(path).then(|| path.rsplit('/').next()).flatten()
    }

    /// The target of the call that tells the versions of `ids`.
    ///
    /// ```
    /// use tidegate_core::{cache::ListRule, glob::PathGlob};
    ///
    /// let rule = ListRule {
    ///     one: PathGlob::parse("/api/v2/users/*").unwrap(),
    ///     all: "/api/v2/users?pageSize=100".to_owned(),
    ///     ids: Some("id".to_owned()),
    ///     at_most: 100,
    ///     items: "/entities".to_owned(),
    ///     id: "/id".to_owned(),
    ///     version: "/version".to_owned(),
    /// };
    /// assert_eq!(rule.target(["a", "b&c"]), "/api/v2/users?pageSize=100&id=a&id=b%26c");
    /// ```
    pub fn target<'i>(&self, ids: impl IntoIterator<Item = &'i str>) -> String {
        let mut target = self.all.clone();
        let Some(name) = &self.ids else { return target };
        for id in ids {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(name);
            target.push('=');
            template::encode(id, &mut target);
        }
        target
    }

    /// The version of the thing whose representation `body` is.
    pub fn version_of(&self, body: &[u8]) -> Option<Version> {
        version(&serde_json::from_slice(body).ok()?, &self.version)
    }

    /// The versions by id that a list tells; `None` if it is no such list. Of an id that it names twice it tells nothing.
    pub fn versions(&self, body: &[u8]) -> Option<BTreeMap<String, Version>> {
        let list: Value = serde_json::from_slice(body).ok()?;
        let mut versions: BTreeMap<String, Option<Version>> = BTreeMap::new();
        for item in list.pointer(&self.items)?.as_array()? {
            let Some(id) = item.pointer(&self.id).and_then(Value::as_str) else { continue };
            let told = version(item, &self.version);
            versions.entry(id.to_owned()).and_modify(|known| *known = None).or_insert(told);
        }
        Some(versions.into_iter().filter_map(|(id, version)| Some((id, version?))).collect())
    }
}

fn version(thing: &Value, at: &str) -> Option<Version> {
    match thing.pointer(at)? {
        version @ (Value::String(_) | Value::Number(_)) => Some(version.to_string().into()),
        _ => None,
    }
}

/// One call that may renew many answers.
#[derive(Debug)]
pub struct Roll<Q> {
    /// Which list is asked: the index of its rule.
    pub rule: usize,
    /// What it takes to ask for one of them.
    pub ask: Q,
    /// When the first of them is over.
    pub by: Mono,
    /// As what the list is asked for.
    pub class: Class,
    pub(super) alike: [u8; 32],
    pub(super) members: Vec<Member>,
}

/// An answer that a list may renew.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) key: CacheKey,
    pub(super) id: String,
    /// When the request of the answer left.
    pub(super) sent: Mono,
}

impl<Q> Roll<Q> {
    /// The ids that are asked about.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.id.as_str())
    }
}

/// What a list call came to.
#[derive(Clone, Copy, Debug)]
pub enum Told<'b> {
    /// The list.
    List {
        /// Its body.
        body: &'b [u8],
        /// When its request left.
        sent: Mono,
        /// How old it was by then: what its `Age` says.
        age: Duration,
    },
    /// The upstream will not tell (it may not be asked with this credential, say): it is left alone for a while.
    Denied,
    /// It could not be asked now.
    Nothing,
}

/// Reads every `[[list]]` of a profile.
pub(crate) fn read_lists(file: &Section<'_>) -> Vec<ListRule> {
    let mut rules: Vec<ListRule> = Vec::new();
    for section in file.sections("list") {
        let example = "match = \"GET /api/v2/users/*\"";
        let place = section.required("match", example, section.parsed("match", parse_place));
        let example = "all = \"/api/v2/users?pageSize=100\"";
        let all = section.required("all", example, section.parsed("all", target));
        let ids = section.parsed("ids", |text| match text {
            "" => Err("is empty (write the name of a parameter, or leave it out)"),
            text => Ok(text.to_owned()),
        });
        let at_most = section.integer("at_most", &(2..=1000)).unwrap_or(100);
        let pointer = |key: &'static str, default: &str| {
            section.parsed(key, pointer).unwrap_or_else(|| default.to_owned())
        };
        let (items, id, version) =
            (pointer("items", "/entities"), pointer("id", "/id"), pointer("version", "/version"));
        let (Some((method, one)), Some(all)) = (place, all) else { continue };
        if method.is_some_and(|method| method != Method::GET) {
            section.problem("match", "names another method than GET (only answers to GET are kept)");
        }
        if !one.as_str().ends_with("/*") {
            section.problem("match", "does not end in the id (write it like \"GET /api/v2/users/*\")");
        }
        if rules.iter().any(|earlier| earlier.one == one) {
            section.problem("match", "is that of an earlier list, which decides (remove one)");
        }
        let at_most = usize::try_from(at_most).unwrap_or(2);
        rules.push(ListRule { one, all, ids, at_most, items, id, version });
    }
    rules
}

fn target(text: &str) -> Result<String, &'static str> {
    match text.parse::<http::uri::PathAndQuery>() {
        Ok(_) if text.starts_with('/') => Ok(text.to_owned()),
        _ => Err("is no target (write it like \"/api/v2/users?pageSize=100\")"),
    }
}

fn pointer(text: &str) -> Result<String, &'static str> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("is no JSON pointer (begin with a slash)") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::reader;

    fn rules(text: &str) -> Result<Vec<ListRule>, String> {
        reader::read(text, "x.toml", read_lists).map_err(|problems| problems.to_string())
    }

    fn users() -> ListRule {
        rules("[[list]]\nmatch = \"GET /api/v2/users/*\"\nall = \"/api/v2/users\"\nids = \"id\"")
            .unwrap()
            .remove(0)
    }

    #[test]
    fn versions_are_told_by_id_and_only_where_they_are_told_once() {
        let body = br#"{"entities": [{"id": "a", "version": 7}, {"id": "b", "version": "x"}, {"id": "c"},
            {"id": "d", "version": 1}, {"id": "d", "version": 2}, {"version": 3}]}"#;
        let told = users().versions(body).unwrap();
        let told: Vec<_> = told.iter().map(|(id, version)| (id.as_str(), &**version)).collect();
        assert_eq!(told, [("a", "7"), ("b", "\"x\"")]);
        assert_eq!(users().version_of(br#"{"id": "a", "version": 7}"#).as_deref(), Some("7"));
        for nothing in [&b"[]"[..], b"{}", b"not json", br#"{"entities": {}}"#] {
            assert_eq!(users().versions(nothing), None);
        }
    }

    #[test]
    fn an_id_is_the_last_segment_of_a_path_that_matches() {
        assert_eq!(users().id_of("/api/v2/users/7"), Some("7"));
        assert_eq!(users().id_of("/api/v2/users/7/skills"), None);
        assert_eq!(users().target(["a"]), "/api/v2/users?id=a");
    }

    #[test]
    fn what_cannot_be_a_list_is_told() {
        for (text, problem) in [
            ("[[list]]\nall = \"/x\"", "match"),
            ("[[list]]\nmatch = \"GET /x/*\"", "all"),
            ("[[list]]\nmatch = \"PUT /x/*\"\nall = \"/x\"", "another method"),
            ("[[list]]\nmatch = \"GET /x/*/y\"\nall = \"/x\"", "does not end in the id"),
            ("[[list]]\nmatch = \"GET /x/*\"\nall = \"x\"", "no target"),
            ("[[list]]\nmatch = \"GET /x/*\"\nall = \"/x\"\nid = \"id\"", "JSON pointer"),
            ("[[list]]\nmatch = \"GET /x/*\"\nall = \"/x\"\nat_most = 1", "at_most"),
        ] {
            let told = rules(text).unwrap_err();
            assert!(told.contains(problem), "{text}: {told}");
        }
    }
}
