//! Dialects that put several numbers into one header.
//!
//! | vendor | header |
//! | --- | --- |
//! | Shopify | `X-Shopify-Shop-Api-Call-Limit: 32/40` |
//! | Gorgias | `X-Gorgias-Account-Api-Call-Limit: 10/40` |
//! | Zendesk | `zendesk-ratelimit-tickets-index: total=100; remaining=99; resets=41` |
//! | Salesforce | `Sforce-Limit-Info: api-usage=10018/100000; api-bursts=1/750` |

use std::time::Duration;

use http::HeaderName;

use super::number::count;
use super::reader::Reader;
use super::rules::ResetUnit;
use super::seen::Seen;
use super::take::used_of_limit;
use super::{Dialect, Reading};

static SHOPIFY: HeaderName = HeaderName::from_static("x-shopify-shop-api-call-limit");
static GORGIAS: HeaderName = HeaderName::from_static("x-gorgias-account-api-call-limit");
static SALESFORCE: HeaderName = HeaderName::from_static("sforce-limit-info");

/// The window of Salesforce's daily allocation, which the header does not write.
const DAY: Duration = Duration::from_hours(24);

pub(super) fn read(reader: &mut Reader<'_>, seen: Seen) {
    if seen.has(Dialect::Ratio) {
        ratio(reader, &SHOPIFY);
        ratio(reader, &GORGIAS);
    }
    if seen.has(Dialect::Pairs) {
        salesforce(reader);
        zendesk(reader);
    }
}

fn ratio(reader: &mut Reader<'_>, field: &HeaderName) {
    let Some(text) = reader.text(field) else { return };
    match used_of_limit(&text) {
        Some(pair) => reader.push(field, used(None, pair, None, Dialect::Ratio)),
        None => reader.ignore(field, "not used/limit"),
    }
}

fn used(
    name: Option<String>,
    (used, limit): (u64, u64),
    window: Option<Duration>,
    dialect: Dialect,
) -> Reading {
    let remaining = Some(limit.saturating_sub(used));
    Reading { name, limit: Some(limit), remaining, reset: None, window, dialect }
}

/// One `name=used/limit` per limit; a limit of one app adds its name in parentheses.
fn salesforce(reader: &mut Reader<'_>) {
    let Some(text) = reader.text(&SALESFORCE) else { return };
    for member in text.split([';', ',']).map(str::trim).filter(|member| !member.is_empty()) {
        let pair = member.split_once('=').and_then(|(name, numbers)| {
            let numbers = numbers.split('(').next().unwrap_or(numbers);
            Some((name.trim(), used_of_limit(numbers)?))
        });
        let Some((name, numbers)) = pair else {
            reader.ignore(&SALESFORCE, "not name=used/limit");
            continue;
        };
        let window = (name == "api-usage").then_some(DAY);
        reader.push(&SALESFORCE, used(Some(name.to_owned()), numbers, window, Dialect::Pairs));
    }
}

/// Each limit has a header of its own, named after it.
fn zendesk(reader: &mut Reader<'_>) {
    let headers = reader.headers;
    for field in headers.keys() {
        if let Some(name) = field.as_str().strip_prefix("zendesk-ratelimit-") {
            pairs(reader, field, name);
        }
    }
}

fn pairs(reader: &mut Reader<'_>, field: &HeaderName, name: &str) {
    let Some(text) = reader.text(field) else { return };
    let (mut limit, mut remaining, mut reset) = (None, None, None);
    for member in text.split([';', ',']).map(str::trim) {
        let Some((key, value)) = member.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
            continue;
        };
        match key {
            "total" | "limit" => limit = count(value),
            "remaining" => remaining = count(value),
            "resets" | "reset" => reset = reader.reset(field, value, ResetUnit::Auto),
            _ => {}
        }
    }
    if limit.is_none() && remaining.is_none() {
        return reader.ignore(field, "no total and no remaining");
    }
    let (name, dialect) = (Some(name.to_owned()), Dialect::Pairs);
    reader.push(field, Reading { name, limit, remaining, reset, window: None, dialect });
}
