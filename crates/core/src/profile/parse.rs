//! From the sections of a file to a profile.
//!
//! What a profile leaves out has the default of the `generic` one: a person with an unknown API writes three lines, not
//! sixty.

use std::time::Duration;

use http::{HeaderName, Method};

use super::limit::{nonempty, read_limits};
use super::reader::{Section, choose};
use super::rules::{ErrorShape, IdempotencyRules, OauthRules, Throttle, ThrottleText, Timeouts};
use super::{Profile, body, family, hosts, reconcile, route, source};
use crate::backoff::{Backoff, BackoffProblem, Kind};
use crate::cache::read_lists;
use crate::classify::RetryMatrix;
use crate::idempotency::Stamp;
use crate::merge::read_merges;
use crate::observe::{Dialect, HeaderRead, HeaderRule, HeaderRules, ResetUnit};

/// Statuses of refusals: an answer below 400 is never one.
const STATUSES: std::ops::RangeInclusive<u64> = 400..=599;

/// Statuses that a text can make a throttle: some vendors refuse with 200 (Slack, GraphQL).
const TEXT_STATUSES: std::ops::RangeInclusive<u64> = 200..=599;

pub(super) fn profile(file: &Section<'_>) -> Profile {
    let name = file.required("name", "name = \"my-api\"", file.parsed("name", nonempty)).unwrap_or_default();
    let title = file.string("title").unwrap_or_else(|| name.clone());
    let regions = file.section("hosts").map(|section| hosts::read(&section));
    let family = file.section("family");
    let family_rules = family.as_ref().map(family::rules).unwrap_or_default();
    let family = family.and_then(|section| section.integer("segments", &(1..=16)));
    // Its numbers are what is usual with this API: what this tenant was granted, the upstream and the operator know.
    let mut limits = read_limits(file);
    for limit in &mut limits {
        limit.assumed = !limit.pin;
    }
    let limits_source = file.section("limits_source").and_then(|section| source::read(&section));
    let headers = file.section("headers").map(|section| headers(&section)).unwrap_or_default();
    let bodies = body::rules(file);
    let throttle = file.section("throttle").map_or_else(default_throttle, |section| throttle(&section));
    let retry = retry(file, &throttle);
    let routes = route::routes(file);
    let reconcile = reconcile::rules(file);
    let merge = read_merges(file, "merge");
    let after_create = route::after_create(file);
    let lists = read_lists(file);
    let idempotency = file.section("idempotency");
    let idempotency = idempotency.map_or_else(default_idempotency, |section| idempotency_rules(&section));
    let push = file.section("push").and_then(|section| crate::push::read_rules(&section));
    let oauth = file.section("oauth").map(|section| oauth(&section));
    let backoff = file.section("backoff").map_or_else(Backoff::default, |section| backoff(&section));
    let timeouts = file.section("timeouts").map_or(DEFAULT_TIMEOUTS, |section| timeouts(&section, &backoff));
    let errors = file.section("errors").and_then(|section| section.one_of("shape", &ErrorShape::NAMES));
    Profile {
        name,
        title,
        regions,
        family_segments: family.and_then(|segments| usize::try_from(segments).ok()).unwrap_or(3),
        family_rules,
        limits,
        limits_source,
        headers,
        bodies,
        throttle,
        retry,
        routes,
        idempotency,
        reconcile,
        merge,
        lists: lists.into(),
        after_create,
        oauth,
        timeouts,
        backoff,
        push,
        errors: errors.unwrap_or(ErrorShape::Problem),
    }
}

fn headers(section: &Section<'_>) -> HeaderRules {
    let read = section.each("read", |text| {
        let dialects = Dialect::KNOWN.map(|dialect| (dialect.name(), Word::One(dialect)));
        let words: Vec<_> = dialects.into_iter().chain([("auto", Word::All), ("none", Word::None)]).collect();
        choose(text, &words)
    });
    let read = read.map_or(HeaderRead::Auto, |words| header_read(section, &words));
    let reset_unit = section.one_of("reset_unit", &ResetUnit::NAMES).unwrap_or_default();
    let body_wait = section.parsed("body_wait", pointer);
    let mut declared: Vec<HeaderRule> = Vec::new();
    for rule in section.sections("rule") {
        let read = header_rule(&rule);
        if read.name_from.is_none() && declared.iter().any(|known| known.name == read.name) {
            rule.problem("name", "describes the limit of an earlier rule (name them apart)");
        }
        declared.push(read);
    }
    HeaderRules { read, reset_unit, declared, body_wait }
}

/// A word of `headers.read`.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    All,
    None,
    One(Dialect),
}

fn header_read(section: &Section<'_>, words: &[Word]) -> HeaderRead {
    let mut dialects = Vec::new();
    for word in words {
        match word {
            Word::One(dialect) => dialects.push(*dialect),
            Word::All | Word::None if words.len() > 1 => {
                section.problem(
                    "read",
                    "`auto` and `none` stand alone (list dialects, or write one of the two)",
                );
                return HeaderRead::Auto;
            }
            Word::All => return HeaderRead::Auto,
            Word::None => return HeaderRead::Nothing,
        }
    }
    if dialects.is_empty() { HeaderRead::Nothing } else { HeaderRead::Only(dialects) }
}

fn header_rule(section: &Section<'_>) -> HeaderRule {
    let field = |key| section.parsed(key, header_name);
    let rule = HeaderRule {
        name: section.parsed("name", nonempty),
        name_from: field("name_from"),
        limit: field("limit"),
        remaining: field("remaining"),
        used: field("used"),
        ratio: field("ratio"),
        reset: field("reset"),
        retry_after: field("retry_after"),
        reset_unit: section.one_of("reset_unit", &ResetUnit::NAMES).unwrap_or_default(),
        window: section.duration_above_zero("window"),
    };
    let has = |key| section.has(key);
    if !["limit", "remaining", "used", "ratio", "reset", "retry_after"].into_iter().any(has) {
        section.problem("", "reads nothing (name a header, such as remaining = \"X-Calls-Left\")");
    }
    if has("used") && !has("limit") {
        section.problem("used", "tells nothing without a limit (add `limit`, or use `ratio`)");
    }
    for other in ["limit", "remaining", "used"].into_iter().filter(|key| has("ratio") && has(key)) {
        section.problem(other, "does not go with `ratio` (write another rule)");
    }
    if has("reset_unit") && !has("reset") && !has("retry_after") {
        section.problem("reset_unit", "is of no use without `reset` or `retry_after` (remove it)");
    }
    rule
}

/// A JSON pointer to a member (RFC 6901).
pub(super) fn pointer(text: &str) -> Result<String, &'static str> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("is no JSON pointer (begin with a slash, such as \"/retry_in\")")
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("`{text}` is no header name (write letters, digits and dashes)"))
}

fn statuses(section: &Section<'_>, key: &str) -> Option<Vec<u16>> {
    let statuses = section.integers(key, &STATUSES)?;
    Some(statuses.into_iter().filter_map(|status| u16::try_from(status).ok()).collect())
}

fn default_throttle() -> Throttle {
    Throttle { statuses: vec![429], ..Throttle::default() }
}

fn throttle(section: &Section<'_>) -> Throttle {
    let always = statuses(section, "statuses").unwrap_or_else(|| vec![429]);
    let when_exhausted = statuses(section, "when_exhausted").unwrap_or_default();
    let mut texts = Vec::new();
    for text in section.sections("text") {
        let status = text.required("status", "status = 403", text.integer("status", &TEXT_STATUSES));
        let contains =
            text.required("contains", "contains = \"rate limit\"", text.parsed("contains", nonempty));
        let at = text.parsed("at", pointer);
        let wait = text.duration_above_zero("wait");
        let (Some(status), Some(contains)) = (status.and_then(|status| u16::try_from(status).ok()), contains)
        else {
            continue;
        };
        if always.contains(&status) && wait.is_none() {
            text.problem("status", format_args!("{status} is a throttle whatever its text (remove this)"));
        }
        if u64::from(status) < *STATUSES.start() && !text.has("at") {
            let what = "needs `at`: the content of such an answer may hold any text (write at = \"/error\")";
            text.problem("status", format_args!("{status} {what}"));
        }
        texts.push(ThrottleText { status, contains: contains.to_ascii_lowercase(), at, wait });
    }
    for status in when_exhausted.iter().filter(|status| always.contains(status)) {
        section.problem("when_exhausted", format_args!("{status} is among `statuses` already (remove one)"));
    }
    Throttle { statuses: always, when_exhausted, texts }
}

fn retry(file: &Section<'_>, throttle: &Throttle) -> RetryMatrix {
    let default = |list: &[u16]| list.to_vec();
    let mut matrix = RetryMatrix {
        refused: default(&[429]),
        ambiguous: default(&[408, 502, 503, 504]),
        refused_with_hint: default(&[503]),
        throttles: throttle.statuses.clone(),
    };
    let Some(section) = file.section("retry") else { return matrix };
    for (key, list) in [
        ("refused", &mut matrix.refused),
        ("ambiguous", &mut matrix.ambiguous),
        ("refused_with_hint", &mut matrix.refused_with_hint),
    ] {
        if let Some(given) = statuses(&section, key) {
            *list = given;
        }
    }
    for status in matrix.ambiguous.iter().filter(|status| matrix.refused.contains(status)) {
        section
            .problem("ambiguous", format_args!("{status} is among `refused` too (it is one or the other)"));
    }
    for status in matrix.ambiguous.iter().filter(|status| matrix.throttles.contains(status)) {
        section.problem("ambiguous", format_args!("{status} is a throttle, which is refused (remove one)"));
    }
    for status in matrix.refused_with_hint.iter().filter(|status| matrix.refused.contains(status)) {
        section.problem(
            "refused_with_hint",
            format_args!("{status} is refused without a hint too (remove one)"),
        );
    }
    matrix
}

fn default_idempotency() -> IdempotencyRules {
    IdempotencyRules {
        header: HeaderName::from_static("idempotency-key"),
        methods: vec![Method::POST, Method::PUT, Method::PATCH],
        stamp: Stamp::V4,
        dedup: None,
    }
}

fn idempotency_rules(section: &Section<'_>) -> IdempotencyRules {
    let default = default_idempotency();
    let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let words = writes.each_ref().map(|method| (method.as_str(), method));
    let methods = section.each("methods", |text| choose(text, &words).cloned());
    let dedup = if section.is_section("dedup") {
        let length = section
            .section("dedup")
            .and_then(|table| table.required("for", "for = \"24h\"", table.duration_above_zero("for")));
        length.map(Some)
    } else {
        section.parsed("dedup", |text| match text {
            "none" => Ok(None),
            _ => Err(format!("`{text}` is not known (write \"none\" or {{ for = \"24h\" }})")),
        })
    };
    IdempotencyRules {
        header: section.parsed("header", header_name).unwrap_or(default.header),
        methods: methods.unwrap_or(default.methods),
        stamp: section.one_of("uuid", &[("v4", Stamp::V4), ("v8", Stamp::V8)]).unwrap_or(default.stamp),
        dedup: dedup.unwrap_or(default.dedup),
    }
}

fn oauth(section: &Section<'_>) -> OauthRules {
    let path = section.parsed("token_path", |text| {
        let plain =
            text.starts_with('/') && !text.contains(['?', '#', '*']) && !text.contains(char::is_whitespace);
        if plain { Ok(text.to_owned()) } else { Err(format!("`{text}` is no path (write \"/oauth/token\")")) }
    });
    let throttle = section.section("throttle").map_or_else(default_throttle, |section| throttle(&section));
    OauthRules { token_path: path.unwrap_or_else(|| "/oauth/token".to_owned()), throttle }
}

fn backoff(section: &Section<'_>) -> Backoff {
    let default = Backoff::default();
    let kind = section.one_of("kind", &Kind::NAMES).unwrap_or(default.kind());
    let base = section.duration_above_zero("base");
    let cap = section.duration_above_zero("cap");
    if kind == Kind::GenesysOfficial {
        for key in ["base", "cap"].into_iter().filter(|key| section.has(key)) {
            section.problem(key, "does not go with `genesys-official`, whose waits are fixed (remove it)");
        }
        return Backoff::official();
    }
    let (base, cap) = (base.unwrap_or(default.base()), cap.unwrap_or(default.cap()));
    Backoff::try_new(kind, base, cap).unwrap_or_else(|problems| {
        for problem in problems {
            let key = match problem {
                BackoffProblem::CapTooLong { .. } => "cap",
                _ if section.has("base") => "base",
                _ => "cap",
            };
            section.problem(key, problem);
        }
        default
    })
}

const DEFAULT_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    read: Duration::from_secs(10),
    write: Duration::from_secs(30),
    bulk: Duration::from_secs(30),
};

fn timeouts(section: &Section<'_>, backoff: &Backoff) -> Timeouts {
    let timeouts = Timeouts {
        connect: section.duration_above_zero("connect").unwrap_or(DEFAULT_TIMEOUTS.connect),
        read: section.duration_above_zero("read").unwrap_or(DEFAULT_TIMEOUTS.read),
        write: section.duration_above_zero("write").unwrap_or(DEFAULT_TIMEOUTS.write),
        bulk: section.duration_above_zero("bulk").unwrap_or(DEFAULT_TIMEOUTS.bulk),
    };
    let allowed = section.boolean("connect_above_backoff").unwrap_or(false);
    let above = timeouts.connect > backoff.cap();
    if above && !allowed {
        section.problem(
            "connect",
            format_args!(
                "{:?} is above the backoff cap of {:?}: it only delays the discovery that a host is away (lower it, or set \
                 connect_above_backoff = true)",
                timeouts.connect,
                backoff.cap()
            ),
        );
    }
    if allowed && !above {
        section.problem(
            "connect_above_backoff",
            "is of no use, `connect` is not above the backoff cap (remove it)",
        );
    }
    timeouts
}
