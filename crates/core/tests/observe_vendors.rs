//! What every known vendor sends, and what it means: one row per vendor and case.
//!
//! Header texts are the vendors' documented samples (their pages, the IETF drafts and RFC 9110), with times moved to
//! one instant where they must fit together. A reading is written as
//! `name remaining/limit reset=after~grain window=… dialect`, with `-` for what is unknown and `@` before the grain
//! of an absolute time.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tidegate_core::observe::{
    Dialect, HeaderRead, HeaderRule, HeaderRules, Observation, Reading, ResetUnit, observe,
};
use tidegate_core::time::Wall;

/// The response's date in every row.
const NOW: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
const NOW_SECONDS: i64 = 1_700_000_000;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn look(rules: &HeaderRules, status: u16, lines: &[(&str, &str)]) -> Observation {
    let mut all = vec![("date", NOW)];
    all.extend_from_slice(lines);
    // A clock that is a day wrong must not matter, because the response has a date.
    let wrong = Wall::from_unix_millis((NOW_SECONDS - 86_400) * 1000);
    observe(rules, StatusCode::from_u16(status).unwrap(), &headers(&all), wrong)
}

fn written(reading: &Reading) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let number = |number: Option<u64>| or_dash(number.map(|number| number.to_string()));
    let reset = or_dash(reading.reset.map(|reset| {
        let absolute = if reset.at.is_some() { "@" } else { "" };
        format!("{:?}~{absolute}{:?}", reset.after, reset.grain)
    }));
    let window = or_dash(reading.window.map(|window| format!("{window:?}")));
    let name = or_dash(reading.name.clone());
    let (remaining, limit) = (number(reading.remaining), number(reading.limit));
    format!("{name} {remaining}/{limit} reset={reset} window={window} {}", reading.dialect.name())
}

/// Vendor, status, header lines, retry-after in milliseconds, readings, names of ignored fields.
type Row<'a> = (&'a str, u16, &'a [(&'a str, &'a str)], Option<u64>, &'a [&'a str], &'a [&'a str]);

fn check(rules: &HeaderRules, rows: &[Row<'_>]) {
    for (vendor, status, lines, retry_after, readings, ignored) in rows {
        let seen = look(rules, *status, lines);
        assert_eq!(seen.date, Some(Wall::from_unix_millis(NOW_SECONDS * 1000)), "{vendor}");
        assert_eq!(seen.readings.iter().map(written).collect::<Vec<_>>(), *readings, "{vendor}");
        assert_eq!(seen.retry_after, retry_after.map(Duration::from_millis), "{vendor}");
        let fields: Vec<_> = seen.ignored.iter().map(|ignored| ignored.field.as_str()).collect();
        assert_eq!(fields, *ignored, "{vendor}: {:?}", seen.ignored);
    }
}

/// A row of the common case: accepted, no wait, nothing ignored.
fn fine<'a>(vendor: &'a str, lines: &'a [(&'a str, &'a str)], readings: &'a [&'a str]) -> Row<'a> {
    (vendor, 200, lines, None, readings, &[])
}

#[test]
fn genesys_in_every_era_is_understood() {
    check(
        &HeaderRules::default(),
        &[
            fine("now, accepted", &[("ININ-Correlation-Id", "c"), ("Cache-Control", "no-cache")], &[]),
            ("now, refused", 429, &[("Retry-After", "42")], Some(42_000), &[], &[]),
            fine(
                "to 2021",
                &[
                    ("inin-ratelimit-count", "1"),
                    ("inin-ratelimit-allowed", "180"),
                    ("inin-ratelimit-reset", "61"),
                ],
                &["- 179/180 reset=61s~1s window=- inin"],
            ),
            (
                "the guide, refused, hint and reset apart",
                429,
                &[
                    ("X-Rate-Limit-Limit", "300"),
                    ("X-Rate-Limit-Remaining", "0"),
                    ("X-Rate-Limit-Reset", "1700000017"),
                    ("Retry-After", "5"),
                ],
                Some(5_000),
                &["- 0/300 reset=17s~@1s window=- guide"],
                &[],
            ),
        ],
    );
}

#[test]
fn vendors_with_one_header_per_number_are_understood() {
    check(
        &HeaderRules::default(),
        &[
            fine(
                "Okta, X",
                &[
                    ("x-rate-limit-limit", "900"),
                    ("x-rate-limit-remaining", "899"),
                    ("x-rate-limit-reset", "1700000900"),
                ],
                &["- 899/900 reset=900s~@1s window=- guide"],
            ),
            (
                "RingCentral, refused with quota left",
                429,
                &[
                    ("X-Rate-Limit-Group", "heavy"),
                    ("X-Rate-Limit-Limit", "10"),
                    ("X-Rate-Limit-Remaining", "10"),
                    ("X-Rate-Limit-Window", "60"),
                    ("Retry-After", "60"),
                ],
                Some(60_000),
                &["heavy 10/10 reset=- window=60s guide"],
                &[],
            ),
            fine(
                "GitHub",
                &[
                    ("x-ratelimit-limit", "5000"),
                    ("x-ratelimit-remaining", "4987"),
                    ("x-ratelimit-used", "13"),
                    ("x-ratelimit-reset", "1700003599"),
                    ("x-ratelimit-resource", "core"),
                ],
                &["core 4987/5000 reset=3599s~@1s window=- x-ratelimit"],
            ),
            fine(
                "ServiceNow",
                &[
                    ("X-RateLimit-Limit", "1000"),
                    ("X-RateLimit-Reset", "1700001800"),
                    ("X-RateLimit-Rule", "REST per user"),
                ],
                &["REST per user -/1000 reset=1800s~@1s window=- x-ratelimit"],
            ),
            fine(
                "Telnyx, GoodData",
                &[("X-RateLimit-Limit", "10"), ("X-RateLimit-Remaining", "9"), ("X-RateLimit-Reset", "1")],
                &["- 9/10 reset=1s~1s window=- x-ratelimit"],
            ),
        ],
    );
}

#[test]
fn vendors_with_a_window_and_no_reset_are_understood() {
    check(
        &HeaderRules::default(),
        &[
            (
                "Confluence Data Center",
                200,
                &[
                    ("X-RateLimit-Limit", "100"),
                    ("X-RateLimit-Remaining", "99"),
                    ("X-RateLimit-FillRate", "20"),
                    ("X-RateLimit-Interval-Seconds", "60"),
                    ("Retry-After", "0"),
                ],
                Some(0),
                &["- 99/100 reset=- window=60s x-ratelimit"],
                &[],
            ),
            fine(
                "Kong",
                &[
                    ("X-RateLimit-Limit-Second", "5"),
                    ("X-RateLimit-Remaining-Second", "4"),
                    ("X-RateLimit-Limit-Hour", "10000"),
                    ("X-RateLimit-Remaining-Hour", "9998"),
                ],
                &["second 4/5 reset=- window=1s periods", "hour 9998/10000 reset=- window=3600s periods"],
            ),
            fine(
                "HubSpot",
                &[
                    ("X-HubSpot-RateLimit-Daily", "250000"),
                    ("X-HubSpot-RateLimit-Daily-Remaining", "249912"),
                    ("X-HubSpot-RateLimit-Secondly", "10"),
                    ("X-HubSpot-RateLimit-Secondly-Remaining", "9"),
                    ("X-HubSpot-RateLimit-Max", "100"),
                    ("X-HubSpot-RateLimit-Remaining", "98"),
                    ("X-HubSpot-RateLimit-Interval-Milliseconds", "10000"),
                ],
                &[
                    "daily 249912/250000 reset=- window=86400s hubspot",
                    "secondly 9/10 reset=- window=1s hubspot",
                    "interval 98/100 reset=- window=10s hubspot",
                ],
            ),
            (
                "Webex, Slack, Twilio",
                429,
                &[("Retry-After", "30"), ("Twilio-Concurrent-Requests", "9")],
                Some(30_000),
                &[],
                &[],
            ),
            (
                "Azure, OpenAI",
                429,
                &[("Retry-After", "2"), ("retry-after-ms", "1999")],
                Some(2_000),
                &[],
                &[],
            ),
        ],
    );
}

#[test]
fn resets_in_every_unit_are_understood() {
    check(
        &HeaderRules::default(),
        &[
            fine(
                "Discord",
                &[
                    ("X-RateLimit-Limit", "5"),
                    ("X-RateLimit-Remaining", "0"),
                    ("X-RateLimit-Reset", "1700000001.250"),
                    ("X-RateLimit-Reset-After", "1.250"),
                    ("X-RateLimit-Bucket", "abcd1234"),
                ],
                &["abcd1234 0/5 reset=1.25s~1ms window=- x-ratelimit"],
            ),
            fine(
                "epoch seconds with decimals",
                &[("X-RateLimit-Remaining", "4"), ("X-RateLimit-Reset", "1700000001.25")],
                &["- 4/- reset=1.25s~@10ms window=- x-ratelimit"],
            ),
            fine(
                "epoch milliseconds",
                &[("X-RateLimit-Remaining", "9"), ("X-RateLimit-Reset", "1700000000750")],
                &["- 9/- reset=750ms~@1ms window=- x-ratelimit"],
            ),
            (
                "Jira, minute precision",
                429,
                &[
                    ("X-RateLimit-Limit", "350"),
                    ("X-RateLimit-Remaining", "0"),
                    ("X-RateLimit-Reset", "2023-11-14T22:14Z"),
                    ("X-RateLimit-NearLimit", "true"),
                    ("Retry-After", "40"),
                ],
                Some(40_000),
                &["- 0/350 reset=40s~@60s window=- x-ratelimit"],
                &[],
            ),
            fine(
                "lemlist, what JavaScript prints",
                &[
                    ("X-RateLimit-Remaining", "19"),
                    ("X-RateLimit-Reset", "Tue Nov 14 2023 22:13:22 GMT+0000 (Coordinated Universal Time)"),
                ],
                &["- 19/- reset=2s~@1s window=- x-ratelimit"],
            ),
            fine(
                "Akamai",
                &[("X-RateLimit-Remaining", "59"), ("X-RateLimit-Next", "2023-11-14T22:13:20.500Z")],
                &["- 59/- reset=500ms~@1ms window=- x-ratelimit"],
            ),
            fine(
                "OpenAI",
                &[
                    ("x-ratelimit-limit-requests", "60"),
                    ("x-ratelimit-limit-tokens", "150000"),
                    ("x-ratelimit-remaining-requests", "59"),
                    ("x-ratelimit-remaining-tokens", "149984"),
                    ("x-ratelimit-reset-requests", "100ms"),
                    ("x-ratelimit-reset-tokens", "6m0s"),
                ],
                &[
                    "requests 59/60 reset=100ms~1ms window=- openai",
                    "tokens 149984/150000 reset=360s~1s window=- openai",
                ],
            ),
            fine(
                "Anthropic",
                &[
                    ("anthropic-ratelimit-requests-limit", "50"),
                    ("anthropic-ratelimit-requests-remaining", "49"),
                    ("anthropic-ratelimit-requests-reset", "2023-11-14T22:13:21Z"),
                    ("anthropic-ratelimit-input-tokens-limit", "40000"),
                    ("anthropic-ratelimit-input-tokens-remaining", "39000"),
                    ("anthropic-ratelimit-input-tokens-reset", "2023-11-14T22:13:23Z"),
                ],
                &[
                    "requests 49/50 reset=1s~@1s window=- anthropic",
                    "input-tokens 39000/40000 reset=3s~@1s window=- anthropic",
                ],
            ),
        ],
    );
}

#[test]
fn vendors_that_pack_several_numbers_into_a_header_are_understood() {
    let shopify = "X-Shopify-Shop-Api-Call-Limit";
    check(
        &HeaderRules::default(),
        &[
            (
                "Shopify",
                429,
                &[(shopify, "32/40"), ("Retry-After", "2.0")],
                Some(2_000),
                &["- 8/40 reset=- window=- ratio"],
                &[],
            ),
            fine(
                "Gorgias",
                &[("X-Gorgias-Account-Api-Call-Limit", "10/40")],
                &["- 30/40 reset=- window=- ratio"],
            ),
            fine(
                "Zendesk, two parallel sets and one more limit",
                &[
                    ("x-rate-limit", "700"),
                    ("ratelimit-limit", "700"),
                    ("x-rate-limit-remaining", "699"),
                    ("ratelimit-remaining", "699"),
                    ("ratelimit-reset", "41"),
                    ("zendesk-ratelimit-tickets-index", "total=100; remaining=99; resets=41"),
                ],
                &[
                    "- 699/700 reset=41s~1s window=- guide",
                    "tickets-index 99/100 reset=41s~1s window=- pairs",
                ],
            ),
            fine(
                "Salesforce",
                &[(
                    "Sforce-Limit-Info",
                    "api-usage=10018/100000; api-bursts=1/750, per-app-api-usage=17/250(appName=x)",
                )],
                &[
                    "api-usage 89982/100000 reset=- window=86400s pairs",
                    "api-bursts 749/750 reset=- window=- pairs",
                    "per-app-api-usage 233/250 reset=- window=- pairs",
                ],
            ),
            fine("used beyond the limit", &[(shopify, "41/40")], &["- 0/40 reset=- window=- ratio"]),
            ("a broken ratio", 200, &[(shopify, "32 of 40")], None, &[], &["x-shopify-shop-api-call-limit"]),
        ],
    );
}

#[test]
fn the_early_ietf_drafts_and_their_relatives_are_understood() {
    check(
        &HeaderRules::default(),
        &[
            fine(
                "draft -03",
                &[
                    ("RateLimit-Limit", "100, 100;w=10, 1000;w=3600"),
                    ("RateLimit-Remaining", "50"),
                    ("RateLimit-Reset", "5"),
                ],
                &[
                    "- 50/100 reset=5s~1s window=10s ietf-triple",
                    "w=3600 -/1000 reset=- window=3600s ietf-triple",
                ],
            ),
            fine(
                "draft -06",
                &[
                    ("RateLimit-Limit", "100"),
                    ("RateLimit-Remaining", "50"),
                    ("RateLimit-Reset", "30"),
                    ("RateLimit-Policy", "100;w=60"),
                ],
                &["- 50/100 reset=30s~1s window=60s ietf-triple"],
            ),
            fine(
                "draft -07",
                &[("RateLimit", "limit=100, remaining=50, reset=30"), ("RateLimit-Policy", "100;w=60")],
                &["- 50/100 reset=30s~1s window=60s ietf-dictionary"],
            ),
            fine(
                "GitLab: the old names, an epoch, a name, a date",
                &[
                    ("RateLimit-Limit", "2000"),
                    ("RateLimit-Observed", "28"),
                    ("RateLimit-Remaining", "1972"),
                    ("RateLimit-Reset", "1700000040"),
                    ("RateLimit-ResetTime", "Tue, 14 Nov 2023 22:14:00 GMT"),
                    ("RateLimit-Name", "throttle_authenticated_web"),
                ],
                &["throttle_authenticated_web 1972/2000 reset=40s~@1s window=- ietf-triple"],
            ),
            fine(
                "GitLab, used and date alone",
                &[
                    ("RateLimit-Limit", "2000"),
                    ("RateLimit-Observed", "28"),
                    ("RateLimit-ResetTime", "Tue, 14 Nov 2023 22:14:00 GMT"),
                ],
                &["- 1972/2000 reset=40s~@1s window=- ietf-triple"],
            ),
            fine(
                "Phone.com",
                &[("RateLimit-Reset", "1700000040")],
                &["- -/- reset=40s~@1s window=- ietf-triple"],
            ),
            fine(
                "Microsoft Graph",
                &[("RateLimit-Limit", "1500"), ("RateLimit-Remaining", "299"), ("RateLimit-Reset", "40")],
                &["- 299/1500 reset=40s~1s window=- ietf-triple"],
            ),
        ],
    );
}

#[test]
fn the_late_ietf_drafts_are_understood() {
    check(
        &HeaderRules::default(),
        &[
            fine(
                "drafts -08 to -11",
                &[("RateLimit", "\"default\";r=50;t=30"), ("RateLimit-Policy", "\"default\";q=100;w=60")],
                &["default 50/100 reset=30s~1s window=60s ietf-list"],
            ),
            (
                "refused",
                429,
                &[("Retry-After", "Tue, 14 Nov 2023 22:13:25 GMT"), ("RateLimit", "\"default\";r=0;t=5")],
                Some(5_000),
                &["default 0/- reset=5s~1s window=- ietf-list"],
                &[],
            ),
            fine(
                "change #166, several lines",
                &[
                    ("RateLimit", "\"minute\";a=50;w=30;c=2"),
                    ("RateLimit", "\"day\";a=4000"),
                    ("RateLimit-Policy", "\"minute\";q=100;w=60, \"day\";q=5000;w=86400"),
                ],
                &[
                    "minute 50/100 reset=30s~1s window=60s ietf-list",
                    "day 4000/5000 reset=- window=86400s ietf-list",
                ],
            ),
            fine(
                "bare tokens",
                &[("RateLimit", "default;r=50;t=30"), ("RateLimit-Policy", "default;q=100;w=60")],
                &["default 50/100 reset=30s~1s window=60s ietf-list"],
            ),
            fine(
                "Cloudflare's sample, whose policy is another limit",
                &[("Ratelimit", "\"default\";r=50;t=30"), ("Ratelimit-Policy", "\"burst\";q=100;w=60")],
                &["default 50/- reset=30s~1s window=- ietf-list", "burst -/100 reset=- window=60s ietf-list"],
            ),
            (
                "Hugging Face, invalid policy",
                200,
                &[
                    ("RateLimit", "\"api\";r=2999;t=300"),
                    ("RateLimit-Policy", "\"fixed window\";\"resolvers\";q=3000;w=300"),
                ],
                None,
                &["api 2999/- reset=300s~1s window=- ietf-list"],
                &["ratelimit-policy"],
            ),
            fine(
                "PyPI and others, partition keys of every type",
                &[("RateLimit", "\"a\";r=1;t=2;pk=:cHsdsRa894==:, \"b\";r=3;t=4;pk=\"text\"")],
                &["a 1/- reset=2s~1s window=- ietf-list", "b 3/- reset=4s~1s window=- ietf-list"],
            ),
            (
                "decimal and negative numbers, no remaining, no name",
                200,
                &[("RateLimit", "\"a\";r=1.5;t=2, \"b\";r=-1, \"c\";t=3, 7;r=1, \"d\";r=9;t=-3, \"e\";r=8")],
                None,
                &["e 8/- reset=- window=- ietf-list"],
                &["ratelimit"; 5],
            ),
            fine(
                "a quota of bytes",
                &[(
                    "RateLimit-Policy",
                    "\"bulk\";q=65535;qu=\"content-bytes\";w=10, \"peak\";q=50;qu=\"requests\";w=60",
                )],
                &[
                    "bulk;qu=content-bytes -/65535 reset=- window=10s ietf-list",
                    "peak -/50 reset=- window=60s ietf-list",
                ],
            ),
            fine(
                "the state of a quota of bytes",
                &[
                    ("RateLimit-Policy", "\"bulk\";q=65535;qu=\"content-bytes\";w=10"),
                    ("RateLimit", "\"bulk\";r=100;t=3"),
                ],
                &["bulk;qu=content-bytes 100/65535 reset=3s~1s window=10s ietf-list"],
            ),
            ("no structured field", 200, &[("RateLimit", "50 left")], None, &[], &["ratelimit"]),
        ],
    );
}

#[test]
fn retry_after_is_read_in_every_form_and_nonsense_is_listed() {
    let good = [
        ("120", 120_000),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30_000),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", 30_000),
        ("Tue Nov 14 22:13:50 2023", 30_000),
        ("Tue, 14 Nov 2023 23:13:50 +0100", 30_000),
        ("0.300", 300),
        ("1700000030", 30_000),
        ("0", 0),
        ("Tue, 14 Nov 2023 22:13:19 GMT", 0),
    ];
    for (text, millis) in good {
        check(&HeaderRules::default(), &[(text, 503, &[("Retry-After", text)], Some(millis), &[], &[])]);
    }
    for text in ["-1", "1e3", "soon", "", "Mon, 14 Nov 2023 22:13:50 GMT", "4000000000", "Caf\u{e9}", "1, 2"]
    {
        check(&HeaderRules::default(), &[(text, 429, &[("Retry-After", text)], None, &[], &["retry-after"])]);
    }
    let lines: &[_] = &[("Retry-After", "3"), ("Retry-After", "soon"), ("Retry-After", "7")];
    check(&HeaderRules::default(), &[("several lines", 429, lines, Some(7_000), &[], &["retry-after"])]);
}

#[test]
fn text_that_is_not_utf8_is_ignored_and_listed() {
    let mut map = headers(&[("date", NOW)]);
    for name in ["x-ratelimit-remaining", "retry-after", "ratelimit"] {
        map.insert(name, HeaderValue::from_bytes(b"5\xff").unwrap());
    }
    let seen = observe(&HeaderRules::default(), StatusCode::OK, &map, Wall::default());
    assert_eq!((seen.readings.len(), seen.retry_after, seen.ignored.len()), (0, None, 3), "{seen:?}");
}

#[test]
fn strange_values_are_kept_or_ignored_as_the_rules_say() {
    check(
        &HeaderRules::default(),
        &[
            fine(
                "remaining above the limit",
                &[("X-RateLimit-Limit", "10"), ("X-RateLimit-Remaining", "15")],
                &["- 15/10 reset=- window=- x-ratelimit"],
            ),
            (
                "a limit of zero without an end",
                200,
                &[("X-RateLimit-Limit", "0"), ("X-RateLimit-Remaining", "0")],
                None,
                &[],
                &["x-ratelimit-limit"],
            ),
            (
                "a limit of zero with an end",
                429,
                &[("X-RateLimit-Limit", "0"), ("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "9")],
                None,
                &["- 0/- reset=9s~1s window=- x-ratelimit"],
                &["x-ratelimit-limit"],
            ),
            (
                "bad fields leave the good one",
                200,
                &[
                    ("X-RateLimit-Limit", "plenty"),
                    ("X-RateLimit-Remaining", "-3"),
                    ("X-RateLimit-Reset", "9"),
                ],
                None,
                &["- -/- reset=9s~1s window=- x-ratelimit"],
                &["x-ratelimit-limit", "x-ratelimit-remaining"],
            ),
            (
                "a reset in another age",
                200,
                &[("X-RateLimit-Remaining", "3"), ("X-RateLimit-Reset", "999999999")],
                None,
                &["- 3/- reset=- window=- x-ratelimit"],
                &["x-ratelimit-reset"],
            ),
            fine(
                "floating point tokens",
                &[("X-RateLimit-Limit", "100.0"), ("X-RateLimit-Remaining", "99.97")],
                &["- 99/100 reset=- window=- x-ratelimit"],
            ),
        ],
    );
}

#[test]
fn parallel_and_repeated_headers_become_one_reading_where_they_agree() {
    check(
        &HeaderRules::default(),
        &[
            fine(
                "two limiters in a row",
                &[
                    ("X-RateLimit-Limit", "100"),
                    ("X-RateLimit-Limit", "20"),
                    ("X-RateLimit-Remaining", "99"),
                    ("X-RateLimit-Remaining", "3"),
                ],
                &["- 99/100 reset=- window=- x-ratelimit", "x-ratelimit 3/20 reset=- window=- x-ratelimit"],
            ),
            fine(
                "lists that do not pair up are read for the worst",
                &[
                    ("X-RateLimit-Limit", "100"),
                    ("X-RateLimit-Remaining", "99, 3"),
                    ("X-RateLimit-Reset", "5, 60"),
                ],
                &["- 3/100 reset=60s~1s window=- x-ratelimit"],
            ),
            fine(
                "sets that agree, the finer reset wins",
                &[
                    ("X-RateLimit-Limit", "100"),
                    ("X-RateLimit-Remaining", "99"),
                    ("X-RateLimit-Reset", "1700000009.125"),
                    ("RateLimit-Limit", "100"),
                    ("RateLimit-Remaining", "99"),
                    ("RateLimit-Reset", "10"),
                ],
                &["- 99/100 reset=9.125s~@1ms window=- x-ratelimit"],
            ),
            fine(
                "sets that disagree are two limits",
                &[("X-Rate-Limit-Limit", "100"), ("X-RateLimit-Limit", "50")],
                &["- -/100 reset=- window=- guide", "x-ratelimit -/50 reset=- window=- x-ratelimit"],
            ),
        ],
    );
}

#[test]
fn a_cached_answer_keeps_its_retry_after_only() {
    let lines: &[_] = &[("Age", "30"), ("X-RateLimit-Remaining", "99"), ("Retry-After", "9")];
    check(
        &HeaderRules::default(),
        &[
            ("cached", 503, lines, Some(9_000), &[], &["age"]),
            fine("cached without quota", &[("Age", "30")], &[]),
            fine(
                "fresh",
                &[("Age", "0"), ("X-RateLimit-Remaining", "9")],
                &["- 9/- reset=- window=- x-ratelimit"],
            ),
        ],
    );
}

#[test]
fn without_a_date_the_callers_clock_is_the_reference() {
    let map = headers(&[("x-rate-limit-remaining", "1"), ("x-rate-limit-reset", "1700000042")]);
    let received = Wall::from_unix_millis(NOW_SECONDS * 1000 + 1_500);
    let seen = observe(&HeaderRules::default(), StatusCode::OK, &map, received);
    assert_eq!(seen.readings[0].reset.unwrap().after, Duration::from_millis(40_500));
    assert_eq!(seen.date, None);
}

#[test]
fn refusals_name_the_limit_that_was_hit() {
    let hit = |status, lines: &[(&str, &str)]| {
        look(&HeaderRules::default(), status, lines).hit.map(|hit| (hit.key, hit.namespace, hit.value))
    };
    let discord: &[_] =
        &[("x-ratelimit-bucket", "abcd"), ("x-ratelimit-scope", "shared"), ("x-ratelimit-limit", "5")];
    assert_eq!(hit(429, discord), Some((Some("abcd".into()), Some("shared".into()), Some(5))));
    assert_eq!(hit(200, discord), None);
    let jira: &[_] = &[("ratelimit-reason", "jira-burst-based")];
    assert_eq!(hit(429, jira), Some((Some("jira-burst-based".into()), None, None)));
    let stripe: &[_] = &[("stripe-rate-limited-reason", "global-concurrency")];
    assert_eq!(hit(429, stripe), Some((Some("global-concurrency".into()), None, None)));
}

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

#[test]
fn a_profiles_own_rules_read_what_no_dialect_covers() {
    let declared = |rules: Vec<HeaderRule>| HeaderRules { declared: rules, ..HeaderRules::default() };
    let oracle = declared(vec![HeaderRule {
        retry_after: Some(name("requestlimit-default-retryafter")),
        reset_unit: ResetUnit::DeltaMillis,
        ..HeaderRule::default()
    }]);
    check(&oracle, &[("Oracle", 429, &[("RequestLimit-Default-RetryAfter", "1500")], Some(1_500), &[], &[])]);

    let vendor = declared(vec![
        HeaderRule {
            name: Some("daily".into()),
            limit: Some(name("x-quota")),
            used: Some(name("x-quota-used")),
            reset: Some(name("x-quota-ends")),
            reset_unit: ResetUnit::Date,
            window: Some(Duration::from_hours(24)),
            ..HeaderRule::default()
        },
        HeaderRule {
            ratio: Some(name("x-burst")),
            name_from: Some(name("x-burst-name")),
            ..HeaderRule::default()
        },
    ]);
    let lines: &[_] = &[
        ("X-Quota", "1000"),
        ("X-Quota-Used", "10"),
        ("X-Quota-Ends", "2023-11-14T22:13:30Z"),
        ("X-Burst", "1/5"),
        ("X-Burst-Name", "burst"),
    ];
    let readings =
        ["daily 990/1000 reset=10s~@1s window=86400s declared", "burst 4/5 reset=- window=- declared"];
    check(&vendor, &[fine("a vendor of one's own", lines, &readings)]);

    let overruled = declared(vec![HeaderRule { remaining: Some(name("x-truth")), ..HeaderRule::default() }]);
    let lines: &[_] = &[("X-Truth", "1"), ("X-RateLimit-Remaining", "99")];
    check(&overruled, &[fine("a rule wins", lines, &["- 1/- reset=- window=- declared"])]);
}

#[test]
fn the_profiles_unit_decides_between_resets_that_look_alike() {
    let millis = HeaderRules { reset_unit: ResetUnit::DeltaMillis, ..HeaderRules::default() };
    let lines: &[_] = &[("X-RateLimit-Remaining", "9"), ("X-RateLimit-Reset", "1500")];
    let readings = ["- 9/- reset=1.5s~1ms window=- x-ratelimit"];
    check(&millis, &[fine("SkuVault, Prisjakt, Cisco", lines, &readings)]);
}

#[test]
fn only_the_chosen_dialects_are_read() {
    let lines: &[_] =
        &[("x-rate-limit-remaining", "1"), ("x-ratelimit-remaining", "2"), ("retry-after", "3")];
    let guide = HeaderRules::only([Dialect::Guide]);
    check(&guide, &[("guide only", 200, lines, Some(3_000), &["- 1/- reset=- window=- guide"], &[])]);
    let nothing = HeaderRules { read: HeaderRead::Nothing, ..HeaderRules::default() };
    check(&nothing, &[("nothing", 200, lines, Some(3_000), &[], &[])]);
}
