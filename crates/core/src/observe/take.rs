//! Reading one limit out of several headers, each of which may hold one value or a list.

use std::time::Duration;

use http::HeaderName;

use super::number::count;
use super::reader::{Reader, bounded};
use super::rules::ResetUnit;
use super::{Dialect, Reading, Reset};

/// Which headers to read for one limit, and what is known about it beforehand.
#[derive(Default)]
pub(super) struct Spec<'s> {
    pub(super) name: Option<String>,
    pub(super) limit: Option<&'s HeaderName>,
    pub(super) remaining: Option<&'s HeaderName>,
    pub(super) used: Option<&'s HeaderName>,
    pub(super) reset: Option<&'s HeaderName>,
    pub(super) unit: ResetUnit,
    pub(super) window: Option<Duration>,
}

/// Reads `32/40`.
pub(super) fn used_of_limit(text: &str) -> Option<(u64, u64)> {
    let (used, limit) = text.split_once('/')?;
    Some((count(used.trim())?, count(limit.trim())?))
}

/// Reads what `spec` points at and adds the readings.
pub(super) fn take(reader: &mut Reader<'_>, dialect: Dialect, spec: &Spec<'_>) {
    let mut text = |field: Option<&HeaderName>| field.and_then(|field| reader.text(field));
    let (limit, remaining, used) = (text(spec.limit), text(spec.remaining), text(spec.used));
    let texts = [&limit, &remaining, &used];
    if texts.iter().all(|text| text.is_none())
        && spec.reset.is_none_or(|field| !reader.headers.contains_key(field))
    {
        return;
    }
    if texts.iter().any(|text| text.as_ref().is_some_and(|text| text.contains(','))) {
        let lists = Lists {
            limit: counts(reader, spec.limit, limit.as_deref()),
            remaining: counts(reader, spec.remaining, remaining.as_deref()),
            used: counts(reader, spec.used, used.as_deref()),
        };
        return take_lists(reader, dialect, spec, &lists);
    }
    let limit = one(reader, spec.limit, limit.as_deref());
    let remaining = one(reader, spec.remaining, remaining.as_deref());
    let used = one(reader, spec.used, used.as_deref());
    let window = limit.and_then(|quota| quota.window).or(spec.window);
    let reset = reset_of(reader, spec);
    let limit = limit.map(|quota| quota.count);
    let left = left(limit, remaining.map(|quota| quota.count), used.map(|quota| quota.count));
    push(reader, spec, Reading { name: spec.name.clone(), limit, remaining: left, reset, window, dialect });
}

fn push(reader: &mut Reader<'_>, spec: &Spec<'_>, reading: Reading) {
    let field = [spec.limit, spec.remaining, spec.used, spec.reset].into_iter().flatten().next();
    if let Some(field) = field {
        reader.push(field, reading);
    }
}

fn left(limit: Option<u64>, remaining: Option<u64>, used: Option<u64>) -> Option<u64> {
    remaining.or_else(|| Some(limit?.saturating_sub(used?)))
}

/// A count with the window some write behind it: `100`, `100;w=60`.
#[derive(Clone, Copy)]
struct Quota {
    count: u64,
    window: Option<Duration>,
}

fn one(reader: &mut Reader<'_>, field: Option<&HeaderName>, text: Option<&str>) -> Option<Quota> {
    let (field, text) = (field?, text?);
    let mut parts = text.split(';').map(str::trim);
    let Some(number) = parts.next().and_then(count) else {
        let why = if text.starts_with('-') { "negative" } else { "not a count" };
        reader.ignore(field, why);
        return None;
    };
    let window = parts.find_map(|part| part.strip_prefix("w=")).and_then(count);
    let window = window.and_then(|seconds| reader.window(field, seconds));
    Some(Quota { count: number, window })
}

fn counts(reader: &mut Reader<'_>, field: Option<&HeaderName>, text: Option<&str>) -> Vec<Quota> {
    let members = text.unwrap_or_default().split(',').map(str::trim).filter(|member| !member.is_empty());
    members.filter_map(|member| one(reader, field, Some(member))).collect()
}

struct Lists {
    limit: Vec<Quota>,
    remaining: Vec<Quota>,
    used: Vec<Quota>,
}

/// Reads headers with several values.
///
/// Drafts to -05 write the limit, then the policies behind it: `100, 100;w=10, 1000;w=3600`. Two limiters in a row
/// (a CDN and its origin) write one value each into every header; those are paired by position. Anything else is read
/// for the worst: the least remaining, the first limit.
fn take_lists(reader: &mut Reader<'_>, dialect: Dialect, spec: &Spec<'_>, lists: &Lists) {
    let (policies, mut limits): (Vec<Quota>, Vec<Quota>) =
        lists.limit.iter().partition(|quota| quota.window.is_some());
    if limits.is_empty() {
        limits.extend(policies.first());
    }
    let resets = resets_of(reader, spec);
    let paired = limits.len() > 1 && lists.remaining.len() == limits.len();
    if paired && (resets.len() == limits.len() || resets.is_empty()) {
        for (at, (limit, remaining)) in limits.iter().zip(&lists.remaining).enumerate() {
            let reset = resets.get(at).copied();
            let (limit, remaining) = (Some(limit.count), Some(remaining.count));
            push(
                reader,
                spec,
                Reading { name: spec.name.clone(), limit, remaining, reset, window: None, dialect },
            );
        }
        return;
    }
    let limit = limits.first().map(|quota| quota.count);
    let least = lists.remaining.iter().map(|quota| quota.count).min();
    let used = lists.used.iter().map(|quota| quota.count).max();
    let current = policies.iter().position(|policy| Some(policy.count) == limit);
    let window = current.and_then(|at| policies[at].window).or(spec.window);
    let reset = resets.into_iter().max_by_key(|reset| reset.after);
    let remaining = left(limit, least, used);
    push(reader, spec, Reading { name: spec.name.clone(), limit, remaining, reset, window, dialect });
    for (at, policy) in policies.iter().enumerate() {
        if Some(at) != current {
            let quota = (Some(policy.count), policy.window);
            push_policy(reader, spec, quota, dialect);
        }
    }
}

/// A further policy of the same limiter gets the name of its window, which stays when its quota changes.
fn push_policy(
    reader: &mut Reader<'_>,
    spec: &Spec<'_>,
    quota: (Option<u64>, Option<Duration>),
    dialect: Dialect,
) {
    let (limit, window) = quota;
    let seconds = window.map_or(0, |window| window.as_secs());
    let name = Some(bounded(&format!("w={seconds}")));
    push(reader, spec, Reading { name, limit, remaining: None, reset: None, window, dialect });
}

pub(super) fn reset_of(reader: &mut Reader<'_>, spec: &Spec<'_>) -> Option<Reset> {
    let resets = resets_of(reader, spec);
    resets.into_iter().max_by_key(|reset| reset.after)
}

/// Resets are a list only where every member is a number: dates have commas of their own.
fn resets_of(reader: &mut Reader<'_>, spec: &Spec<'_>) -> Vec<Reset> {
    let Some(field) = spec.reset else { return Vec::new() };
    let Some(text) = reader.text(field) else { return Vec::new() };
    let listed =
        text.contains(',') && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b',' | b' '));
    if !listed {
        return reader.reset(field, &text, spec.unit).into_iter().collect();
    }
    text.split(',').filter_map(|member| reader.reset(field, member, spec.unit)).collect()
}
