//! The `RateLimit` fields of the IETF, in every shape the drafts gave them.
//!
//! | drafts | field |
//! | --- | --- |
//! | to -06 | `RateLimit-Limit`, `-Remaining`, `-Reset`; policies behind the limit, from -03 on in `RateLimit-Policy: 100;w=60` |
//! | -07 | `RateLimit: limit=100, remaining=50, reset=30` |
//! | -08 to -11 | `RateLimit: "default";r=50;t=30`, `RateLimit-Policy: "default";q=100;w=60` |
//! | change #166 | the same with `a` for `r` and `w` for `t` |
//!
//! Names may be strings or bare tokens. `r`, `t`, `q` and `w` must be integers that are not negative; an item that
//! breaks this is ignored, its siblings are kept. What does not parse as a structured field at all is ignored whole, as
//! RFC 9651 asks. Partition keys (`pk`) are of no use to a client that has one partition.

use std::time::Duration;

use http::HeaderName;
use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parameters, Parser};

use super::meters::triple;
use super::reader::Reader;
use super::seen::Seen;
use super::{Dialect, MAX_DURATION, Reading, Reset};

static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const SECOND: Duration = Duration::from_secs(1);

/// A rule of the server, without its present state.
struct Policy {
    /// The item's own name, by which `RateLimit` refers to it. `None` for the integers of drafts -03 to -07, which belong to the one limit described beside them.
    name: Option<String>,
    /// What is counted, unless it is requests.
    unit: Option<String>,
    quota: u64,
    window: Option<Duration>,
}

pub(super) fn read(reader: &mut Reader<'_>, seen: Seen) {
    let lists = seen.has(Dialect::IetfList) || seen.has(Dialect::IetfDictionary);
    let plain = seen.has(Dialect::IetfTriple);
    if !lists && !plain {
        return;
    }
    let policies = policies(reader);
    let first = reader.out.readings.len();
    if lists {
        field(reader, seen, &policies);
    }
    if plain {
        triple(reader, None);
    }
    if !policies.is_empty() {
        complete(reader, first, policies, seen);
    }
}

/// Reads `RateLimit`. A list and a dictionary cannot be mistaken for each other: `limit=100` is no list.
fn field(reader: &mut Reader<'_>, seen: Seen, policies: &[Policy]) {
    let Some(text) = reader.text(&RATELIMIT) else { return };
    if let Ok(list) = Parser::new(text.as_ref()).parse::<List>() {
        if seen.has(Dialect::IetfList) {
            for entry in &list {
                item(reader, entry, policies);
            }
        }
        return;
    }
    match Parser::new(text.as_ref()).parse::<Dictionary>() {
        Ok(members) if seen.has(Dialect::IetfDictionary) => dictionary(reader, &members),
        Ok(_) => {}
        Err(_) => reader.ignore(&RATELIMIT, "not a structured field"),
    }
}

/// One member of a list: `"default";r=50;t=30`.
fn item(reader: &mut Reader<'_>, entry: &ListEntry, policies: &[Policy]) {
    let Some((name, params)) = named(entry) else {
        return reader.ignore(&RATELIMIT, "an item without a name");
    };
    let Ok(remaining) =
        whole(params, "r").and_then(|found| found.map_or_else(|| whole(params, "a"), |r| Ok(Some(r))))
    else {
        return reader.ignore(&RATELIMIT, "remaining is no whole number");
    };
    let Some(remaining) = remaining else {
        return reader.ignore(&RATELIMIT, "an item without remaining");
    };
    let Ok(after) =
        whole(params, "t").and_then(|found| found.map_or_else(|| whole(params, "w"), |t| Ok(Some(t))))
    else {
        return reader.ignore(&RATELIMIT, "time is no whole number");
    };
    let policy = policies.iter().find(|policy| policy.name.as_deref() == Some(name));
    let reset = after.and_then(|seconds| delta(reader, seconds));
    reader.push(
        &RATELIMIT,
        Reading {
            name: Some(in_units(name, policy.and_then(|policy| policy.unit.as_deref()))),
            limit: policy.map(|policy| policy.quota),
            remaining: Some(remaining),
            reset,
            window: policy.and_then(|policy| policy.window),
            dialect: Dialect::IetfList,
        },
    );
}

/// Draft -07: `limit=100, remaining=50, reset=30`.
fn dictionary(reader: &mut Reader<'_>, members: &Dictionary) {
    let mut read = |key: &str| match members.get(key) {
        Some(ListEntry::Item(Item { bare_item: BareItem::Integer(number), .. })) => {
            let number = u64::try_from(i64::from(*number)).ok();
            if number.is_none() {
                reader.ignore(&RATELIMIT, "negative");
            }
            number
        }
        Some(_) => {
            reader.ignore(&RATELIMIT, "a member is no whole number");
            None
        }
        None => None,
    };
    let (limit, remaining, reset) = (read("limit"), read("remaining"), read("reset"));
    let reset = reset.and_then(|seconds| delta(reader, seconds));
    let dialect = Dialect::IetfDictionary;
    reader.push(&RATELIMIT, Reading { name: None, limit, remaining, reset, window: None, dialect });
}

fn policies(reader: &mut Reader<'_>) -> Vec<Policy> {
    let Some(text) = reader.text(&POLICY) else { return Vec::new() };
    let Ok(list) = Parser::new(text.as_ref()).parse::<List>() else {
        reader.ignore(&POLICY, "not a structured field");
        return Vec::new();
    };
    list.iter().filter_map(|entry| policy(reader, entry)).collect()
}

fn policy(reader: &mut Reader<'_>, entry: &ListEntry) -> Option<Policy> {
    let ListEntry::Item(item) = entry else {
        reader.ignore(&POLICY, "an item without a name");
        return None;
    };
    let params = &item.params;
    let Ok(window) = whole(params, "w") else {
        reader.ignore(&POLICY, "window is no whole number");
        return None;
    };
    let window = window.and_then(|seconds| reader.window(&POLICY, seconds));
    if let BareItem::Integer(quota) = &item.bare_item {
        let quota = u64::try_from(i64::from(*quota)).ok();
        return quota.map(|quota| Policy { name: None, unit: None, quota, window });
    }
    let (Some((name, params)), Ok(Some(quota))) = (named(entry), whole(params, "q")) else {
        reader.ignore(&POLICY, "a policy without a name or a whole quota");
        return None;
    };
    Some(Policy { name: Some(name.to_owned()), unit: unit(params), quota, window })
}

/// The unit of a quota that does not count requests. The draft's text and its registry disagree about the plural.
fn unit(params: &Parameters) -> Option<String> {
    let unit = match params.get("qu")? {
        BareItem::String(unit) => unit.as_str(),
        BareItem::Token(unit) => unit.as_str(),
        _ => return None,
    };
    (!matches!(unit, "requests" | "request")).then(|| unit.to_owned())
}

/// A limit that does not count requests says so in its name, so that nobody takes it for one that does.
fn in_units(name: &str, unit: Option<&str>) -> String {
    unit.map_or_else(|| name.to_owned(), |unit| format!("{name};qu={unit}"))
}

/// Adds what the policies tell beyond the readings from `first` on: windows of unnamed policies, and rules of which
/// the response gives no state.
fn complete(reader: &mut Reader<'_>, first: usize, policies: Vec<Policy>, seen: Seen) {
    let unnamed = policies.iter().filter(|policy| policy.name.is_none()).count();
    let mut current = None;
    if let Some(reading) = reader.out.readings.iter_mut().skip(first).find(|reading| reading.name.is_none()) {
        let same = |policy: &Policy| policy.name.is_none() && Some(policy.quota) == reading.limit;
        let only = |policy: &Policy| policy.name.is_none() && unnamed == 1;
        current = policies.iter().position(|policy| same(policy) || only(policy));
        if let Some(policy) = current.map(|at| &policies[at]) {
            reading.limit = reading.limit.or(Some(policy.quota));
            reading.window = reading.window.or(policy.window);
        }
    }
    if !seen.has(Dialect::IetfList) {
        return;
    }
    for (at, Policy { name, unit, quota, window }) in policies.into_iter().enumerate() {
        let name = name.map(|name| in_units(&name, unit.as_deref()));
        let told = reader.out.readings.iter().any(|known| known.name.is_some() && known.name == name);
        if Some(at) == current || told {
            continue;
        }
        let name = name.or_else(|| window.map(|window| format!("w={}", window.as_secs())));
        let (limit, dialect) = (Some(quota), Dialect::IetfList);
        reader.push(&POLICY, Reading { name, limit, remaining: None, reset: None, window, dialect });
    }
}

/// The name of a list member: a string, or a bare token as some revisions and servers write it.
fn named(entry: &ListEntry) -> Option<(&str, &Parameters)> {
    let ListEntry::Item(item) = entry else { return None };
    match &item.bare_item {
        BareItem::String(name) => Some((name.as_str(), &item.params)),
        BareItem::Token(name) => Some((name.as_str(), &item.params)),
        _ => None,
    }
}

/// A parameter that must be a whole number where it is present.
fn whole(params: &Parameters, key: &str) -> Result<Option<u64>, ()> {
    match params.get(key) {
        None => Ok(None),
        Some(BareItem::Integer(number)) => u64::try_from(i64::from(*number)).map(Some).map_err(|_| ()),
        Some(_) => Err(()),
    }
}

fn delta(reader: &mut Reader<'_>, seconds: u64) -> Option<Reset> {
    let after = Duration::from_secs(seconds);
    if after > MAX_DURATION {
        reader.ignore(&RATELIMIT, "more than a year ahead");
        return None;
    }
    Some(Reset { after, grain: SECOND, at: None })
}
