//! Dialects that give each number a header of its own.
//!
//! One pass over the response's header names decides which dialects can be present, by prefix and without allocating:
//! that is all a response without quota headers pays. Only then known names are looked up.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};

use super::number::count;
use super::reader::{Reader, bounded};
use super::rules::{HeaderRead, ResetUnit};
use super::{Dialect, HitLimit, Reading, Reset};

/// Which dialects' header names a response has, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(u16);

impl Seen {
    /// Headers that name the limit that was hit; no dialect of their own.
    const HIT: Self = Self(1 << 15);

    const fn bit(dialect: Dialect) -> Self {
        Self(1 << dialect as u16)
    }

    pub(super) fn of(headers: &HeaderMap) -> Self {
        headers
            .keys()
            .map(|name| Self::in_name(name.as_str()).0)
            .fold(Self(0), |all, bits| Self(all.0 | bits))
    }

    pub(super) const fn any(self) -> bool {
        self.0 != 0
    }

    pub(super) const fn has(self, dialect: Dialect) -> bool {
        self.0 & Self::bit(dialect).0 != 0
    }

    /// What is left after the profile's choice.
    pub(super) fn among(self, read: &HeaderRead) -> Self {
        let chosen = match read {
            HeaderRead::Auto => u16::MAX,
            HeaderRead::Nothing => 0,
            HeaderRead::Only(dialects) => {
                dialects.iter().fold(Self::HIT.0, |bits, dialect| bits | Self::bit(*dialect).0)
            }
        };
        Self(self.0 & chosen)
    }

    /// The dialects that use a header of this name.
    fn in_name(name: &str) -> Self {
        let dialect = match name.as_bytes().first() {
            Some(b'x') => return Self::in_x_name(name),
            Some(b'r') => return Self::in_ietf_name(name),
            Some(b'i') if name.starts_with("inin-ratelimit-") => Dialect::Inin,
            Some(b'a') if name.starts_with("anthropic-ratelimit-") => Dialect::Anthropic,
            Some(b'z') if name.starts_with("zendesk-ratelimit-") => Dialect::Pairs,
            Some(b's') if name == "sforce-limit-info" => Dialect::Pairs,
            Some(b's') if name == "stripe-rate-limited-reason" => return Self::HIT,
            _ => return Self(0),
        };
        Self::bit(dialect)
    }

    fn in_x_name(name: &str) -> Self {
        if let Some(rest) = name.strip_prefix("x-ratelimit-") {
            let last = rest.rsplit('-').next().unwrap_or(rest);
            return Self::bit(match last {
                "requests" | "tokens" => Dialect::OpenAi,
                "second" | "minute" | "hour" | "day" | "month" | "year" => Dialect::Periods,
                _ => Dialect::XRateLimit,
            });
        }
        if name.starts_with("x-rate-limit") {
            return Self::bit(Dialect::Guide);
        }
        if name.starts_with("x-hubspot-ratelimit-") {
            return Self::bit(Dialect::HubSpot);
        }
        if name == "x-shopify-shop-api-call-limit" || name == "x-gorgias-account-api-call-limit" {
            return Self::bit(Dialect::Ratio);
        }
        Self(0)
    }

    fn in_ietf_name(name: &str) -> Self {
        match name {
            "ratelimit" => Self(Self::bit(Dialect::IetfList).0 | Self::bit(Dialect::IetfDictionary).0),
            "ratelimit-policy" => Self::bit(Dialect::IetfList),
            "ratelimit-reason" => Self::HIT,
            _ if name.starts_with("ratelimit-") => Self::bit(Dialect::IetfTriple),
            _ => Self(0),
        }
    }
}

/// The headers of one limit.
struct Meter {
    dialect: Dialect,
    name: Option<&'static str>,
    limit: Option<HeaderName>,
    remaining: Option<HeaderName>,
    reset: Option<HeaderName>,
    window: Option<Duration>,
}

/// An absent header is written as an empty name.
const fn field(name: &'static str) -> Option<HeaderName> {
    if name.is_empty() { None } else { Some(HeaderName::from_static(name)) }
}

const fn meter(dialect: Dialect, name: &'static str, fields: [&'static str; 3], window_secs: u64) -> Meter {
    Meter {
        dialect,
        name: Some(name),
        limit: field(fields[0]),
        remaining: field(fields[1]),
        reset: field(fields[2]),
        window: if window_secs == 0 { None } else { Some(Duration::from_secs(window_secs)) },
    }
}

/// `x-ratelimit-limit-requests` and its like: `$prefix-$field-$name`.
macro_rules! by_suffix {
    ($dialect:ident, $prefix:literal, $name:literal, $window:literal) => {
        meter(
            Dialect::$dialect,
            $name,
            [
                concat!($prefix, "-limit-", $name),
                concat!($prefix, "-remaining-", $name),
                concat!($prefix, "-reset-", $name),
            ],
            $window,
        )
    };
}

/// `anthropic-ratelimit-requests-limit` and its like: `$prefix-$name-$field`.
macro_rules! by_infix {
    ($dialect:ident, $prefix:literal, $name:literal) => {
        meter(
            Dialect::$dialect,
            $name,
            [
                concat!($prefix, "-", $name, "-limit"),
                concat!($prefix, "-", $name, "-remaining"),
                concat!($prefix, "-", $name, "-reset"),
            ],
            0,
        )
    };
}

/// Limits whose headers need no further thought. Months and years of [`Dialect::Periods`] have no fixed length, so
/// their window stays unknown.
static METERS: [Meter; 16] = [
    by_suffix!(OpenAi, "x-ratelimit", "requests", 0),
    by_suffix!(OpenAi, "x-ratelimit", "tokens", 0),
    by_suffix!(Periods, "x-ratelimit", "second", 1),
    by_suffix!(Periods, "x-ratelimit", "minute", 60),
    by_suffix!(Periods, "x-ratelimit", "hour", 3600),
    by_suffix!(Periods, "x-ratelimit", "day", 86_400),
    by_suffix!(Periods, "x-ratelimit", "month", 0),
    by_suffix!(Periods, "x-ratelimit", "year", 0),
    by_infix!(Anthropic, "anthropic-ratelimit", "requests"),
    by_infix!(Anthropic, "anthropic-ratelimit", "tokens"),
    by_infix!(Anthropic, "anthropic-ratelimit", "input-tokens"),
    by_infix!(Anthropic, "anthropic-ratelimit", "output-tokens"),
    by_infix!(XRateLimit, "x-ratelimit", "requests"),
    meter(
        Dialect::HubSpot,
        "daily",
        ["x-hubspot-ratelimit-daily", "x-hubspot-ratelimit-daily-remaining", ""],
        86_400,
    ),
    meter(
        Dialect::HubSpot,
        "secondly",
        ["x-hubspot-ratelimit-secondly", "x-hubspot-ratelimit-secondly-remaining", ""],
        1,
    ),
    meter(Dialect::HubSpot, "interval", ["x-hubspot-ratelimit-max", "x-hubspot-ratelimit-remaining", ""], 0),
];

/// Declares header names as statics, because looking one up by text would have to check and lower it each time.
macro_rules! names {
    ($($ident:ident = $text:literal;)*) => {
        $(static $ident: HeaderName = HeaderName::from_static($text);)*
    };
}

names! {
    GUIDE_BARE = "x-rate-limit";
    GUIDE_LIMIT = "x-rate-limit-limit";
    GUIDE_REMAINING = "x-rate-limit-remaining";
    GUIDE_RESET = "x-rate-limit-reset";
    GUIDE_GROUP = "x-rate-limit-group";
    GUIDE_WINDOW = "x-rate-limit-window";
    X_LIMIT = "x-ratelimit-limit";
    X_REMAINING = "x-ratelimit-remaining";
    X_USED = "x-ratelimit-used";
    X_RESET = "x-ratelimit-reset";
    X_RESET_AFTER = "x-ratelimit-reset-after";
    X_NEXT = "x-ratelimit-next";
    X_BUCKET = "x-ratelimit-bucket";
    X_RESOURCE = "x-ratelimit-resource";
    X_RULE = "x-ratelimit-rule";
    X_GLOBAL = "x-ratelimit-global";
    X_SCOPE = "x-ratelimit-scope";
    X_INTERVAL = "x-ratelimit-interval-seconds";
    X_WINDOW = "x-ratelimit-window";
    ININ_COUNT = "inin-ratelimit-count";
    ININ_ALLOWED = "inin-ratelimit-allowed";
    ININ_RESET = "inin-ratelimit-reset";
    TRIPLE_LIMIT = "ratelimit-limit";
    TRIPLE_REMAINING = "ratelimit-remaining";
    TRIPLE_OBSERVED = "ratelimit-observed";
    TRIPLE_RESET = "ratelimit-reset";
    TRIPLE_RESET_TIME = "ratelimit-resettime";
    TRIPLE_NAME = "ratelimit-name";
    HUBSPOT_INTERVAL = "x-hubspot-ratelimit-interval-milliseconds";
    REASON = "ratelimit-reason";
    STRIPE_REASON = "stripe-rate-limited-reason";
}

/// Which headers to read for one limit, and what is known about it beforehand.
#[derive(Default)]
struct Spec<'s> {
    name: Option<String>,
    limit: Option<&'s HeaderName>,
    remaining: Option<&'s HeaderName>,
    used: Option<&'s HeaderName>,
    reset: Option<&'s HeaderName>,
    unit: ResetUnit,
    window: Option<Duration>,
}

/// Reads every dialect of this module that was seen, except the IETF triple, whose window stands in another field.
pub(super) fn read(reader: &mut Reader<'_>, seen: Seen) {
    if seen.has(Dialect::Guide) {
        guide(reader);
    }
    if seen.has(Dialect::XRateLimit) {
        x_rate_limit(reader);
    }
    if seen.has(Dialect::Inin) {
        let spec = Spec {
            limit: Some(&ININ_ALLOWED),
            used: Some(&ININ_COUNT),
            reset: Some(&ININ_RESET),
            unit: ResetUnit::DeltaSeconds,
            ..Spec::default()
        };
        take(reader, Dialect::Inin, spec);
    }
    for meter in METERS.iter().filter(|meter| seen.has(meter.dialect)) {
        let window =
            if meter.name == Some("interval") { millis(reader, &HUBSPOT_INTERVAL) } else { meter.window };
        let spec = Spec {
            name: meter.name.map(str::to_owned),
            limit: meter.limit.as_ref(),
            remaining: meter.remaining.as_ref(),
            reset: meter.reset.as_ref(),
            unit: reader.rules.reset_unit,
            window,
            ..Spec::default()
        };
        take(reader, meter.dialect, spec);
    }
}

/// `X-Rate-Limit-*`: the guide, Okta, X; `X-Rate-Limit` alone is Zendesk's limit; group and window are RingCentral's.
fn guide(reader: &mut Reader<'_>) {
    let bare = !reader.headers.contains_key(&GUIDE_LIMIT);
    let spec = Spec {
        name: reader.name(&GUIDE_GROUP),
        limit: Some(if bare { &GUIDE_BARE } else { &GUIDE_LIMIT }),
        remaining: Some(&GUIDE_REMAINING),
        reset: Some(&GUIDE_RESET),
        unit: reader.rules.reset_unit,
        window: seconds(reader, &GUIDE_WINDOW),
        ..Spec::default()
    };
    take(reader, Dialect::Guide, spec);
}

/// `X-RateLimit-*`, whose reset has every unit there is. `-Reset-After` (Discord) is exact where `-Reset` depends on
/// clocks, so it wins; `-Next` (Akamai) is the instant of the next permit.
fn x_rate_limit(reader: &mut Reader<'_>) {
    let has = |name: &HeaderName| reader.headers.contains_key(name);
    let (reset, unit) = if has(&X_RESET_AFTER) {
        (&X_RESET_AFTER, ResetUnit::DeltaSeconds)
    } else if has(&X_RESET) {
        (&X_RESET, reader.rules.reset_unit)
    } else {
        (&X_NEXT, reader.rules.reset_unit)
    };
    let spec = Spec {
        name: x_name(reader),
        limit: Some(&X_LIMIT),
        remaining: Some(&X_REMAINING),
        used: Some(&X_USED),
        reset: Some(reset),
        unit,
        window: seconds(reader, &X_INTERVAL).or_else(|| seconds(reader, &X_WINDOW)),
    };
    take(reader, Dialect::XRateLimit, spec);
}

/// The limit's name: Discord's bucket (or `global`), GitHub's resource, ServiceNow's rule.
fn x_name(reader: &mut Reader<'_>) -> Option<String> {
    if reader.text(&X_GLOBAL).is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Some("global".to_owned());
    }
    [&X_BUCKET, &X_RESOURCE, &X_RULE].into_iter().find_map(|field| reader.name(field))
}

/// `RateLimit-*` of the IETF drafts to -06. GitLab adds a name, the used count and the reset as a date, and means an
/// epoch where the drafts mean seconds; size tells.
pub(super) fn triple(reader: &mut Reader<'_>, window: Option<Duration>) {
    let has_reset = reader.headers.contains_key(&TRIPLE_RESET);
    let spec = Spec {
        name: reader.name(&TRIPLE_NAME),
        limit: Some(&TRIPLE_LIMIT),
        remaining: Some(&TRIPLE_REMAINING),
        used: Some(&TRIPLE_OBSERVED),
        reset: Some(if has_reset { &TRIPLE_RESET } else { &TRIPLE_RESET_TIME }),
        unit: reader.rules.reset_unit,
        window,
    };
    take(reader, Dialect::IetfTriple, spec);
}

/// Reads the profile's own rules.
pub(super) fn read_declared(reader: &mut Reader<'_>) {
    let rules = reader.rules;
    for rule in &rules.declared {
        let given = rule.name_from.as_ref().and_then(|field| reader.name(field));
        let spec = Spec {
            name: given.or_else(|| rule.name.clone()),
            limit: rule.limit.as_ref(),
            remaining: rule.remaining.as_ref(),
            used: rule.used.as_ref(),
            reset: rule.reset.as_ref(),
            unit: rule.reset_unit,
            window: rule.window,
        };
        match &rule.ratio {
            Some(field) => ratio(reader, field, spec),
            None => take(reader, Dialect::Declared, spec),
        }
    }
}

fn ratio(reader: &mut Reader<'_>, field: &HeaderName, spec: Spec<'_>) {
    let Some(text) = reader.text(field) else { return };
    let Some((used, limit)) = used_of_limit(&text) else {
        return reader.ignore(field, "not used/limit");
    };
    let reset = reset_of(reader, &spec);
    reader.push(
        field,
        Reading {
            name: spec.name,
            limit: Some(limit),
            remaining: Some(limit.saturating_sub(used)),
            reset,
            window: spec.window,
            dialect: Dialect::Declared,
        },
    );
}

/// Reads `32/40`.
pub(super) fn used_of_limit(text: &str) -> Option<(u64, u64)> {
    let (used, limit) = text.split_once('/')?;
    Some((count(used.trim())?, count(limit.trim())?))
}

/// What a throttled answer's headers say about which limit was hit.
pub(super) fn read_hit(reader: &mut Reader<'_>, status: StatusCode) {
    if !status.is_client_error() && !status.is_server_error() {
        return;
    }
    let reason = reader.name(&REASON).or_else(|| reader.name(&STRIPE_REASON));
    let throttled = status == StatusCode::TOO_MANY_REQUESTS;
    let bucket = if throttled { reader.name(&X_BUCKET) } else { None };
    let scope = if throttled { reader.name(&X_SCOPE) } else { None };
    if reason.is_none() && bucket.is_none() && scope.is_none() {
        return;
    }
    let value = bucket.as_ref().and_then(|bucket| {
        let reading = reader.out.readings.iter().find(|reading| reading.name.as_ref() == Some(bucket));
        reading.and_then(|reading| reading.limit)
    });
    reader.out.hit = Some(HitLimit { key: bucket.or(reason), namespace: scope, value });
}

/// Reads what `spec` points at and adds the readings.
fn take(reader: &mut Reader<'_>, dialect: Dialect, spec: Spec<'_>) {
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
    let reset = reset_of(reader, &spec);
    let limit = limit.map(|quota| quota.count);
    let left = left(limit, remaining.map(|quota| quota.count), used.map(|quota| quota.count));
    push(reader, &spec, Reading { name: spec.name.clone(), limit, remaining: left, reset, window, dialect });
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
fn take_lists(reader: &mut Reader<'_>, dialect: Dialect, spec: Spec<'_>, lists: &Lists) {
    let (policies, mut limits): (Vec<Quota>, Vec<Quota>) =
        lists.limit.iter().partition(|quota| quota.window.is_some());
    if limits.is_empty() {
        limits.extend(policies.first());
    }
    let resets = resets_of(reader, &spec);
    let paired = limits.len() > 1 && lists.remaining.len() == limits.len();
    if paired && (resets.len() == limits.len() || resets.is_empty()) {
        for (at, (limit, remaining)) in limits.iter().zip(&lists.remaining).enumerate() {
            let reset = resets.get(at).copied();
            let (limit, remaining) = (Some(limit.count), Some(remaining.count));
            push(
                reader,
                &spec,
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
    push(reader, &spec, Reading { name: spec.name.clone(), limit, remaining, reset, window, dialect });
    for (at, policy) in policies.iter().enumerate() {
        if Some(at) != current {
            let quota = (Some(policy.count), policy.window);
            push_policy(reader, &spec, quota, dialect);
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

fn reset_of(reader: &mut Reader<'_>, spec: &Spec<'_>) -> Option<Reset> {
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

fn seconds(reader: &mut Reader<'_>, field: &HeaderName) -> Option<Duration> {
    let seconds = number(reader, field)?;
    reader.window(field, seconds)
}

fn millis(reader: &mut Reader<'_>, field: &HeaderName) -> Option<Duration> {
    let millis = number(reader, field)?;
    reader.window(field, millis.div_ceil(1000))?;
    Some(Duration::from_millis(millis))
}

fn number(reader: &mut Reader<'_>, field: &HeaderName) -> Option<u64> {
    let text = reader.text(field)?;
    let number = count(&text);
    if number.is_none() {
        reader.ignore(field, "not a number");
    }
    number
}
