//! Properties of header reading: whatever a server sends, reading it neither panics nor leaves its bounds, and what an
//! independent emitter writes is read back as it was meant.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use tidegate_core::observe::{
    HeaderRead, HeaderRule, HeaderRules, MAX_DURATION, MAX_IGNORED, MAX_READINGS, Observation, ResetUnit,
    observe, observe_body,
};
use tidegate_core::time::Wall;

const NAMES: &[&str] = &[
    "age",
    "date",
    "retry-after",
    "retry-after-ms",
    "x-rate-limit",
    "x-rate-limit-limit",
    "x-rate-limit-remaining",
    "x-rate-limit-reset",
    "x-rate-limit-group",
    "x-rate-limit-window",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-used",
    "x-ratelimit-reset",
    "x-ratelimit-reset-after",
    "x-ratelimit-bucket",
    "x-ratelimit-scope",
    "x-ratelimit-global",
    "x-ratelimit-next",
    "x-ratelimit-interval-seconds",
    "x-ratelimit-limit-requests",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-limit-minute",
    "inin-ratelimit-count",
    "inin-ratelimit-allowed",
    "inin-ratelimit-reset",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "ratelimit-observed",
    "ratelimit-resettime",
    "ratelimit-name",
    "ratelimit-reason",
    "anthropic-ratelimit-requests-reset",
    "x-hubspot-ratelimit-max",
    "x-hubspot-ratelimit-interval-milliseconds",
    "x-shopify-shop-api-call-limit",
    "zendesk-ratelimit-a",
    "zendesk-ratelimit-b",
    "sforce-limit-info",
    "stripe-rate-limited-reason",
    "x-own",
];

/// Values that are nearly right are the ones that break parsers.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        "[0-9]{0,22}(\\.[0-9]{0,12})?".prop_map(String::into_bytes),
        "[-+0-9.,;=/wqrt\"a-c ]{0,40}".prop_map(String::into_bytes),
        "[0-9]{1,6}(;w=[0-9]{0,9})?(, [0-9]{1,6}(;w=[0-9]{0,9})?){0,20}".prop_map(String::into_bytes),
        "\"[a-z]{0,3}\"(;[rtqwa]=-?[0-9]{0,16}){0,3}(, [a-z]{1,3};r=[0-9]{1,3}){0,20}"
            .prop_map(String::into_bytes),
        "[A-Z][a-z]{2},? [0-9]{1,2} [A-Z][a-z]{2} [0-9]{1,5} [0-9:]{0,8}( GMT)?".prop_map(String::into_bytes),
        "[0-9]{1,5}-[0-9]{1,2}-[0-9]{1,2}[T ]?[0-9:.]{0,12}(Z|[+-][0-9:]{0,6})?".prop_map(String::into_bytes),
        "([0-9]{1,20}(h|m|s|ms|us|ns|d)){0,4}".prop_map(String::into_bytes),
        "(total|remaining|resets|api-usage)=[0-9]{0,5}(/[0-9]{0,5})?(; (total|remaining)=[0-9]{0,20}){0,2}"
            .prop_map(String::into_bytes),
    ]
}

fn map(lines: &[(usize, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            map.append(HeaderName::from_static(NAMES[*name]), value);
        }
    }
    map
}

fn unit() -> impl Strategy<Value = ResetUnit> {
    proptest::sample::select(ResetUnit::NAMES.map(|(_, unit)| unit).to_vec())
}

fn assert_within_bounds(seen: &Observation) {
    assert!(seen.readings.len() <= MAX_READINGS && seen.ignored.len() <= MAX_IGNORED);
    assert!(seen.retry_after.is_none_or(|wait| wait <= MAX_DURATION));
    assert!(
        seen.readings.iter().filter(|reading| reading.name.is_none()).count() <= 1,
        "{:?}",
        seen.readings
    );
    for (at, reading) in seen.readings.iter().enumerate() {
        assert!(seen.readings[..at].iter().all(|other| other.name != reading.name), "{:?}", seen.readings);
        assert!(reading.name.as_ref().is_none_or(|name| name.len() <= 256), "names are bounded");
        assert!(reading.window.is_none_or(|window| !window.is_zero() && window <= MAX_DURATION));
        assert!(reading.reset.is_none_or(|reset| reset.after <= MAX_DURATION));
        assert_ne!(reading.limit, Some(0));
        assert!(reading.limit.is_some() || reading.remaining.is_some() || reading.reset.is_some());
    }
    for ignored in &seen.ignored {
        assert!(!ignored.field.is_empty() && ignored.field.len() <= 128);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_headers_never_panic_and_stay_within_bounds(
        lines in proptest::collection::vec((0..NAMES.len(), value()), 0..24),
        status in 100_u16..600,
        received in any::<i64>(),
        unit in unit(),
        quiet in any::<bool>(),
    ) {
        let own = HeaderName::from_static("x-own");
        let rule = HeaderRule {
            limit: Some(own.clone()), reset: Some(own.clone()), retry_after: Some(own.clone()), reset_unit: unit,
            ..HeaderRule::default()
        };
        let read = if quiet { HeaderRead::Nothing } else { HeaderRead::Auto };
        let ratio = HeaderRule { ratio: Some(own), ..HeaderRule::default() };
        let rules = HeaderRules { read, reset_unit: unit, declared: vec![rule, ratio], body_wait: None };
        let status = StatusCode::from_u16(status).unwrap();
        assert_within_bounds(&observe(&rules, status, &map(&lines), Wall::from_unix_millis(received)));
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut seen = Observation::default();
        observe_body(&HeaderRules::default(), StatusCode::TOO_MANY_REQUESTS, &body, &mut seen);
        assert_within_bounds(&seen);
    }

    #[test]
    fn bodies_of_nearly_the_right_shape_stay_within_bounds(
        wait in "-?[0-9]{0,24}(\\.[0-9]{1,12})?", key in "\\PC{0,300}", value in any::<f64>(),
    ) {
        let body = serde_json::json!({
            "message": format!("Retry the request in [{wait}] seconds"), "retry_after": wait,
            "limit": { "key": key, "namespace": key, "value": value },
        });
        let mut seen = Observation::default();
        observe_body(&HeaderRules::default(), StatusCode::TOO_MANY_REQUESTS, body.to_string().as_bytes(), &mut seen);
        assert_within_bounds(&seen);
    }

    #[test]
    fn a_larger_number_never_means_an_earlier_reset(
        a in 0_u64..40_000_000, b in 0_u64..40_000_000, epoch in any::<bool>(), millis in any::<bool>(),
    ) {
        let (small, large) = (a.min(b), a.max(b));
        let (unit, base) = match (epoch, millis) {
            (false, false) => (ResetUnit::DeltaSeconds, 0),
            (false, true) => (ResetUnit::DeltaMillis, 0),
            (true, false) => (ResetUnit::EpochSeconds, 1_700_000_000),
            (true, true) => (ResetUnit::EpochMillis, 1_700_000_000_000),
        };
        let after = |number: u64| {
            let mut headers = HeaderMap::new();
            headers.insert("x-ratelimit-reset", HeaderValue::from(base + number));
            let rules = HeaderRules { reset_unit: unit, ..HeaderRules::default() };
            let seen = observe(&rules, StatusCode::OK, &headers, Wall::from_unix_millis(1_700_000_010_000));
            seen.readings.first().and_then(|reading| reading.reset).map(|reset| reset.after)
        };
        // A reset beyond the bound is ignored, and then so is every later one.
        match (after(small), after(large)) {
            (Some(small), Some(large)) => prop_assert!(small <= large),
            (small, large) => prop_assert!(large.is_none(), "{small:?} {large:?}"),
        }
    }
}

/// What a server means.
#[derive(Clone, Debug)]
struct Meaning {
    limit: u64,
    remaining: u64,
    reset: u64,
    now: i64,
}

fn meaning() -> impl Strategy<Value = Meaning> {
    (1_u64..1_000_000, 0_u64..2_000_000, 0_u64..31_000_000, 1_000_000_000_i64..4_000_000_000).prop_map(
        |(limit, remaining, reset, now)| Meaning { limit, remaining: remaining % (limit + 1), reset, now },
    )
}

type Lines = Vec<(String, String)>;

fn fields(names: [&str; 3], values: [&str; 3]) -> Lines {
    names.into_iter().zip(values).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Writes a meaning in one of sixteen ways. Knows nothing of the reader.
fn emit(kind: usize, m: &Meaning) -> Lines {
    let (limit, remaining, reset) = (&*m.limit.to_string(), &*m.remaining.to_string(), &*m.reset.to_string());
    let at = m.now + i64::try_from(m.reset).unwrap();
    let timestamp = jiff::Timestamp::from_second(at).unwrap();
    let plain = |reset: &str| {
        fields(["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"], [limit, remaining, reset])
    };
    match kind {
        0 => fields(
            ["x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"],
            [limit, remaining, &at.to_string()],
        ),
        1 => plain(reset),
        2 => plain(&at.to_string()),
        3 => plain(&(at * 1000).to_string()),
        4 => plain(&format!("{at}.000")),
        5 => plain(&timestamp.to_string()),
        6 => plain(
            &timestamp.strftime("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)").to_string(),
        ),
        7 => plain(&timestamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()),
        8 => plain(&format!("{}m{}s", m.reset / 60, m.reset % 60)),
        9 => fields(
            ["inin-ratelimit-allowed", "inin-ratelimit-count", "inin-ratelimit-reset"],
            [limit, &(m.limit - m.remaining).to_string(), reset],
        ),
        10 => {
            fields(["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"], [limit, remaining, reset])
        }
        11 => vec![("ratelimit".into(), format!("limit={limit}, remaining={remaining}, reset={reset}"))],
        12 => vec![
            ("ratelimit-policy".into(), format!("\"d\";q={limit};w=60")),
            ("ratelimit".into(), format!("\"d\";r={remaining};t={reset}")),
        ],
        13 => vec![(
            "zendesk-ratelimit-d".into(),
            format!("total={limit}; remaining={remaining}; resets={reset}"),
        )],
        14 => fields(
            ["limit", "remaining", "reset"]
                .map(|field| format!("anthropic-ratelimit-requests-{field}"))
                .each_ref()
                .map(String::as_str),
            [limit, remaining, &timestamp.to_string()],
        ),
        _ => fields(
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
            [limit, remaining, &format!("{}ms", m.reset * 1000)],
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn what_any_dialect_writes_is_read_back(kind in 0_usize..16, meant in meaning(), dated in any::<bool>()) {
        let mut headers = HeaderMap::new();
        for (name, text) in emit(kind, &meant) {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(&text).unwrap());
        }
        let mut received = meant.now * 1000;
        if dated {
            let date = jiff::Timestamp::from_second(meant.now).unwrap();
            let text = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            headers.insert("date", HeaderValue::from_str(&text).unwrap());
            received -= 3_600_000;
        }
        let seen = observe(&HeaderRules::default(), StatusCode::OK, &headers, Wall::from_unix_millis(received));
        prop_assert!(seen.ignored.is_empty(), "{:?}", seen.ignored);
        prop_assert_eq!(seen.readings.len(), 1);
        let reading = &seen.readings[0];
        prop_assert_eq!((reading.limit, reading.remaining), (Some(meant.limit), Some(meant.remaining)));
        prop_assert_eq!(reading.reset.unwrap().after, Duration::from_secs(meant.reset));
    }
}
