//! Dialects that give each number a header of its own.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::number::count;
use super::reader::Reader;
use super::rules::ResetUnit;
use super::seen::Seen;
use super::take::{Spec, reset_of, take, used_of_limit};
use super::{Dialect, HitLimit, Reading};

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

/// The name of Discord's limit on everything, and the value of its scope.
pub(super) const GLOBAL: &str = "global";

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
        take(reader, Dialect::Inin, &spec);
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
        take(reader, meter.dialect, &spec);
    }
}

/// `X-Rate-Limit-*`: the guide, Okta, X; `X-Rate-Limit` alone is Zendesk's limit; group and window are `RingCentral`'s.
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
    take(reader, Dialect::Guide, &spec);
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
    take(reader, Dialect::XRateLimit, &spec);
}

fn is_global(reader: &mut Reader<'_>) -> bool {
    reader.text(&X_GLOBAL).is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// The limit's name: Discord's bucket (or `global`), GitHub's resource, `ServiceNow`'s rule.
fn x_name(reader: &mut Reader<'_>) -> Option<String> {
    if is_global(reader) {
        return Some(GLOBAL.to_owned());
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
    take(reader, Dialect::IetfTriple, &spec);
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
            None => take(reader, Dialect::Declared, &spec),
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

/// What a throttled answer's headers say about which limit was hit.
pub(super) fn read_hit(reader: &mut Reader<'_>, seen: Seen, status: StatusCode) {
    if !seen.any() || !(status.is_client_error() || status.is_server_error()) {
        return;
    }
    let reason = reader.name(&REASON).or_else(|| reader.name(&STRIPE_REASON));
    let throttled = status == StatusCode::TOO_MANY_REQUESTS;
    let bucket = if throttled { reader.name(&X_BUCKET) } else { None };
    let scope = if throttled { reader.name(&X_SCOPE) } else { None };
    // Discord's global limit has no bucket: its scope is its name.
    let global = throttled && (is_global(reader) || scope.as_deref() == Some(GLOBAL));
    let bucket = if global { Some(GLOBAL.to_owned()) } else { bucket };
    if reason.is_none() && bucket.is_none() && scope.is_none() {
        return;
    }
    let value = bucket.as_ref().and_then(|bucket| {
        let reading = reader.out.readings.iter().find(|reading| reading.name.as_ref() == Some(bucket));
        reading.and_then(|reading| reading.limit)
    });
    reader.out.hit = Some(HitLimit { key: bucket.or(reason), namespace: scope, value });
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
