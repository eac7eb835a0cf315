//! The built-in profiles say what they should, and mistakes in a profile are all told at once.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use http::{Method, StatusCode};
use proptest::prelude::*;
use tidegate_core::backoff::Kind;
use tidegate_core::classify::{Delivery, Outcome, RetryMatrix};
use tidegate_core::glob::PathGlob;
use tidegate_core::idempotency::Stamp;
use tidegate_core::observe::{Dialect, HeaderRead, Observation, Reading, ResetUnit};
use tidegate_core::pace::{LimitKind, Observes, Partition};
use tidegate_core::profile::Profile;
use tidegate_core::reconcile::Absent;

fn delivery(matrix: &RetryMatrix, status: u16, hint: Option<Duration>) -> Delivery {
    matrix.delivery(&Outcome::answered(StatusCode::from_u16(status).unwrap(), hint))
}

#[test]
fn every_builtin_profile_is_valid_and_bears_its_name() {
    let names: Vec<_> = Profile::builtin_names().collect();
    let vendors = ["discord", "okta", "shopify", "zendesk", "hubspot", "salesforce", "msgraph", "slack"];
    let expected: Vec<_> =
        ["genesys", "genesys-guide", "generic", "ietf", "github"].into_iter().chain(vendors).collect();
    assert_eq!(names, expected);
    for name in names {
        let parsed = Profile::parse(Profile::builtin_text(name).unwrap(), name);
        let profile = parsed.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(profile.name, name);
        assert_eq!(Profile::builtin(name), Some(profile));
    }
    assert_eq!(Profile::builtin("genesis"), None);
}

#[test]
fn the_genesys_profile_says_what_the_platform_does() {
    let genesys = Profile::builtin("genesys").unwrap();
    let minute = Duration::from_mins(1);
    let limits: Vec<_> =
        genesys.limits.iter().map(|limit| (limit.key.as_str(), limit.kind, &*limit.per)).collect();
    let rate = |quota| LimitKind::Rate { quota, window: minute };
    assert_eq!(
        limits,
        [
            ("client.credentials.token.rate.per.minute", rate(300), &[Partition::Token][..]),
            ("org.app.user.rate.per.minute", rate(3000), &[Partition::Credential][..]),
        ]
    );
    assert!(
        genesys.limits.iter().all(|limit| !limit.pin && limit.matches(&Method::PATCH, "/api/v2/users/7"))
    );
    assert_eq!(genesys.headers.read, HeaderRead::Auto);
    assert_eq!(genesys.family_segments, 3);

    let regions = genesys.regions.as_ref().unwrap();
    assert_eq!((regions.names.len(), regions.aliases.len()), (18, 17));
    let hosts = |region| genesys.hosts(region).map(|(api, login)| format!("{api} {login}"));
    assert_eq!(hosts("").as_deref(), Some("api.mypurecloud.com login.mypurecloud.com"));
    assert_eq!(hosts("ap-southeast-2").as_deref(), Some("api.mypurecloud.com.au login.mypurecloud.com.au"));
    assert_eq!(hosts("EUC2.pure.cloud").as_deref(), Some("api.euc2.pure.cloud login.euc2.pure.cloud"));
    assert_eq!(
        (hosts("euc3.pure.cloud"), regions.nearest("mypurecloud.cmo")),
        (None, Some("mypurecloud.com"))
    );

    let statuses =
        |hint| [400, 401, 408, 409, 413, 429, 500, 502, 503, 504].map(|s| delivery(&genesys.retry, s, hint));
    let (f, m, r) = (Delivery::Answered, Delivery::MaybeExecuted, Delivery::Refused);
    assert_eq!(statuses(None), [f, f, m, f, f, r, f, m, m, m]);
    assert_eq!(statuses(Some(Duration::from_secs(1))), [f, f, m, f, f, r, f, m, r, m]);

    assert_eq!(genesys.idempotency.header.as_str(), "x-genesys-request-id");
    assert_eq!((genesys.idempotency.stamp, genesys.idempotency.dedup), (Stamp::V4, None));
    assert_eq!(genesys.idempotency.methods, [Method::POST, Method::PUT, Method::PATCH]);
    let oauth = genesys.oauth.unwrap();
    let go_sdk = b"{\"error\":\"invalid_request\",\"description\":\"rate limit exceeded; try later\"}";
    assert_eq!(oauth.token_path, "/oauth/token");
    assert!(oauth.throttle.applies(400, &Observation::default(), go_sdk) && oauth.throttle.needs_body(400));
    assert!(!oauth.throttle.applies(400, &Observation::default(), b"{\"error\":\"invalid_client\"}"));
    assert!(
        !genesys.throttle.applies(400, &Observation::default(), go_sdk),
        "only the token endpoint says it so"
    );
}

#[test]
fn the_guides_profile_follows_the_guide() {
    let guide = Profile::builtin("genesys-guide").unwrap();
    assert_eq!(guide.limits, []);
    assert_eq!(guide.headers.read, HeaderRead::Only(vec![Dialect::Guide]));
    assert_eq!(guide.headers.reset_unit, ResetUnit::EpochSeconds);
    assert_eq!(guide.idempotency.dedup, Some(Duration::from_hours(24)));
    assert_eq!(guide.idempotency.dedup, Some(Duration::from_hours(24)));
    assert_eq!(guide.timeouts.connect, guide.backoff.cap() * 3 / 2);
    assert_eq!(
        (guide.timeouts.read, guide.timeouts.bulk),
        (Duration::from_secs(10), Duration::from_secs(30))
    );
    assert_eq!(guide.backoff.kind(), Kind::Guide);
    assert_eq!(guide.hosts(""), Profile::builtin("genesys").unwrap().hosts(""));
}

#[test]
fn a_forbidden_of_github_is_a_throttle_only_with_a_sign_of_one() {
    let github = Profile::builtin("github").unwrap();
    let forbidden = StatusCode::FORBIDDEN.as_u16();
    let nothing = Observation::default();
    let hinted = Observation { retry_after: Some(Duration::ZERO), ..Observation::default() };
    let reading = |remaining| Reading {
        name: Some("core".into()),
        limit: Some(5000),
        remaining: Some(remaining),
        reset: None,
        window: None,
        dialect: Dialect::XRateLimit,
    };
    let left = |remaining| Observation { readings: vec![reading(remaining)], ..Observation::default() };
    assert!(!github.throttle.applies(forbidden, &nothing, b"{\"message\":\"Resource not accessible\"}"));
    assert!(!github.throttle.applies(forbidden, &left(1), b""));
    assert!(github.throttle.applies(forbidden, &left(0), b""));
    assert!(github.throttle.applies(forbidden, &hinted, b""));
    assert!(github.throttle.applies(
        forbidden,
        &nothing,
        b"{\"message\":\"You have exceeded a secondary RATE LIMIT\"}"
    ));
    assert!(github.throttle.applies(429, &nothing, b""));
    assert_eq!(github.hosts("").unwrap(), ("api.github.com".to_owned(), "github.com".to_owned()));
}

#[test]
fn limits_say_which_readings_describe_them() {
    let text = "name = 'x'\n[[limit]]\nkey = 'a'\nquota = 1\nwindow = '1s'\nobserves = true\n\
        [[limit]]\nkey = 'b'\nmatch = 'PATCH /u/**'\nconcurrent = 5\nper = ['token', 'family']\nobserves = 'c'\npin = true\n";
    let profile = Profile::parse(text, "f").unwrap();
    let [a, b] = &profile.limits[..] else { panic!("two limits") };
    assert_eq!([None, Some("a"), Some("b")].map(|name| a.observes(name)), [true, true, false]);
    assert_eq!([None, Some("b"), Some("c")].map(|name| b.observes(name)), [false, false, true]);
    assert_eq!(
        (b.kind, b.pin, &b.observes),
        (LimitKind::Concurrent { cap: 5 }, true, &Observes::Named("c".into()))
    );
    assert!(
        b.matches(&Method::PATCH, "/u") && !b.matches(&Method::GET, "/u") && !b.matches(&Method::PATCH, "/v")
    );
    assert_eq!(a.per, [Partition::Credential], "the default partition");
}

#[test]
fn no_two_limits_share_a_name() {
    let genesys = Profile::builtin("genesys").unwrap();
    assert_eq!(genesys.limits[0].aliases, ["token.rate.per.minute"]);
    let text = "name = 'x'\n[[limit]]\nkey = 'a'\naliases = ['b', 'a']\nquota = 1\nwindow = '1s'\n\
        [[limit]]\nkey = 'b'\naliases = 'a'\nobserves = 7\nquota = 1\nwindow = '1s'\n";
    let problems = Profile::parse(text, "f").unwrap_err().to_string();
    let expected = [
        "f:4: limit[0].aliases: has the key again (remove it)",
        "f:8: limit[1].key: `b` is used by an earlier limit (choose another)",
        "f:9: limit[1].aliases: `a` is used by an earlier limit (choose another)",
        "f:10: limit[1].observes: is of type integer (write true, false or a name)",
    ];
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected);
}

/// Every table a profile can have, each with a key that none knows: the reader answers with the keys it asked for.
const EVERY_TABLE: &str = "
zzzzzzzzzzzz = 1
[hosts]
zzzzzzzzzzzz = 1
[family]
zzzzzzzzzzzz = 1
[[family.rule]]
zzzzzzzzzzzz = 1
[[limit]]
zzzzzzzzzzzz = 1
[limits_source]
zzzzzzzzzzzz = 1
[headers]
zzzzzzzzzzzz = 1
[[headers.rule]]
zzzzzzzzzzzz = 1
[[body]]
zzzzzzzzzzzz = 1
[throttle]
zzzzzzzzzzzz = 1
[[throttle.text]]
zzzzzzzzzzzz = 1
[retry]
zzzzzzzzzzzz = 1
[[route]]
zzzzzzzzzzzz = 1
[[reconcile]]
zzzzzzzzzzzz = 1
[reconcile.each]
zzzzzzzzzzzz = 1
[[merge]]
zzzzzzzzzzzz = 1
[[merge.from]]
zzzzzzzzzzzz = 1
[consistency]
zzzzzzzzzzzz = 1
[idempotency]
zzzzzzzzzzzz = 1
[idempotency.dedup]
zzzzzzzzzzzz = 1
[oauth]
zzzzzzzzzzzz = 1
[push]
zzzzzzzzzzzz = 1
[[push.topic]]
zzzzzzzzzzzz = 1
[timeouts]
zzzzzzzzzzzz = 1
[backoff]
zzzzzzzzzzzz = 1
[errors]
zzzzzzzzzzzz = 1
";

#[test]
fn every_key_and_every_backoff_is_documented() {
    let page = include_str!("../../../docs/profiles.md");
    let problems = Profile::parse(EVERY_TABLE, "f").unwrap_err();
    let tables = EVERY_TABLE.lines().filter(|line| line.starts_with('['));
    let headings = tables.map(|line| format!("## `{line}`\n"));
    let headings = std::iter::once("## The top level\n".to_owned()).chain(headings);
    let mut asked: Vec<_> =
        problems.list.iter().filter(|problem| problem.key.ends_with("zzzzzzzzzzzz")).collect();
    asked.sort_by_key(|problem| problem.line);
    let mut tables = 0;
    for (heading, problem) in headings.zip(&asked) {
        let (_, section) = page.split_once(&heading).unwrap_or_else(|| panic!("no heading {heading}"));
        let section = section.split("\n## ").next().unwrap();
        let rows: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("| ")).collect();
        let (_, known) = problem.what.split_once("known are ").expect("a list of keys");
        for key in known.trim_end_matches(')').split(", ") {
            let named =
                rows.iter().any(|row| row.split(" | ").next().unwrap().split(", ").any(|own| own == key));
            assert!(named, "{heading} lacks {key}");
        }
        tables += 1;
    }
    assert_eq!((tables, asked.len()), (26, 26));
    for (name, _) in Kind::NAMES {
        assert!(page.contains(&format!("\n| `{name}` |")), "{name}");
    }
    for name in Profile::builtin_names() {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn three_lines_make_a_profile() {
    let profile = Profile::parse("name = 'mine'\n[hosts]\napi = 'localhost:8790'\n", "f").unwrap();
    let generic = Profile::builtin("generic").unwrap();
    assert_eq!((&profile.retry, &profile.throttle), (&generic.retry, &generic.throttle));
    assert_eq!(
        (profile.timeouts, profile.backoff, profile.errors),
        (generic.timeouts, generic.backoff, generic.errors)
    );
    assert_eq!((&profile.headers, &profile.idempotency), (&generic.headers, &generic.idempotency));
    assert_eq!(profile.hosts(""), Some(("localhost:8790".to_owned(), "localhost:8790".to_owned())));
}

#[test]
fn every_mistake_of_a_profile_is_told_at_once_with_its_line() {
    let text = r#"title = 7
[hosts]
api = "https://api.x"
default = "eu"
[family]
segments = 0
[[limit]]
key = "a"
match = "FETCH /x"
quota = 0
window = "0s"
per = ["token", "token"]
[[limit]]
key = "b"
match = "/x*"
[[limit]]
key = "c"
concurrent = 5
window = "1s"
[[limit]]
key = "d"
quota = 5
[headers]
read = ["auto", "guide"]
[[headers.rule]]
used = "X-Used"
reset_unit = "delta-m"
[[headers.rule]]
ratio = "X Ratio"
limit = "X-Limit"
[throttle]
statuses = [429, 302]
[retry]
ambiguous = [429]
[idempotency]
dedup = "24h"
uuid = "v5"
[timeouts]
connect = "90s"
[backoff]
base = "2m"
kind = "ful"
[errors]
shap = "genesys"
"#;
    let problems = Profile::parse(text, "p.toml").unwrap_err().to_string();
    let expected = [
        "p.toml:1: name: is missing (write name = \"my-api\")",
        "p.toml:1: title: is of type integer (write a string)",
        "p.toml:3: hosts.api: `https://api.x` is no host name (write it without scheme and path, such as \"api.example.com\")",
        "p.toml:4: hosts.default: `eu` is not among `regions` (add it there)",
        "p.toml:6: family.segments: 0 is out of range (write a number from 1 to 16)",
        "p.toml:9: limit[0].match: `FETCH` is not known (write one of `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`, `OPTIONS`)",
        "p.toml:10: limit[0].quota: 0 is out of range (write a number at least 1)",
        "p.toml:11: limit[0].window: is zero (write a duration above zero, such as \"5s\")",
        "p.toml:12: limit[0].per: is given twice (remove one)",
        "p.toml:13: limit[1]: has neither a quota nor `concurrent` (write quota = 300 and window = \"60s\")",
        "p.toml:15: limit[1].match: `x*` mixes `*` with letters (`*` stands for a whole segment)",
        "p.toml:19: limit[2].window: does not go with `concurrent` (declare two limits)",
        "p.toml:20: limit[3].window: is missing (write window = \"60s\")",
        "p.toml:24: headers.read: `auto` and `none` stand alone (list dialects, or write one of the two)",
        "p.toml:26: headers.rule[0].used: tells nothing without a limit (add `limit`, or use `ratio`)",
        "p.toml:27: headers.rule[0].reset_unit: `delta-m` is not known (did you mean `delta-ms`?)",
        "p.toml:27: headers.rule[0].reset_unit: is of no use without `reset` or `retry_after` (remove it)",
        "p.toml:28: headers.rule[1].name: describes the limit of an earlier rule (name them apart)",
        "p.toml:29: headers.rule[1].ratio: `X Ratio` is no header name (write letters, digits and dashes)",
        "p.toml:30: headers.rule[1].limit: does not go with `ratio` (write another rule)",
        "p.toml:32: throttle.statuses: 302 is out of range (write a number from 400 to 599)",
        "p.toml:34: retry.ambiguous: 429 is a throttle, which is refused (remove one)",
        "p.toml:34: retry.ambiguous: 429 is among `refused` too (it is one or the other)",
        "p.toml:36: idempotency.dedup: `24h` is not known (write \"none\" or { for = \"24h\" })",
        "p.toml:37: idempotency.uuid: `v5` is not known (did you mean `v4`?)",
        "p.toml:39: timeouts.connect: 90s is above the backoff cap of 60s: it only delays the discovery that a host is away \
         (lower it, or set connect_above_backoff = true)",
        "p.toml:41: backoff.base: the base of 120s is above the cap of 60s (lower the base)",
        "p.toml:42: backoff.kind: `ful` is not known (did you mean `full`?)",
        "p.toml:44: errors.shap: is not a known key (did you mean `shape`?)",
    ];
    let mut found: Vec<_> = problems.lines().collect();
    let mut expected: Vec<_> = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "\n{problems}");
}

#[test]
fn a_source_of_limits_is_read_whole_or_refused_with_every_mistake() {
    let genesys = Profile::builtin("genesys").unwrap().limits_source.unwrap();
    assert_eq!(
        genesys.paths,
        ["", "/defaults"].map(|rest| format!("/api/v2/organizations/limits/namespaces/platform.api{rest}"))
    );
    assert_eq!((genesys.entries.as_str(), genesys.key.as_deref()), ("/entities", Some("/key")));
    assert_eq!((genesys.value.as_str(), genesys.why.as_deref()), ("/value", Some("/message")));
    assert_eq!(genesys.refresh, Duration::from_hours(24));
    let listing: Vec<_> = Profile::builtin_names()
        .filter(|name| Profile::builtin(name).unwrap().limits_source.is_some())
        .collect();
    assert_eq!(listing, ["genesys", "github", "salesforce"]);

    let least = "name = 'x'\n[limits_source]\npaths = '/limits'\nvalue = '/limit'\n";
    let least = Profile::parse(least, "f").unwrap().limits_source.unwrap();
    assert_eq!((least.entries.as_str(), least.key, least.refresh), ("", None, Duration::from_hours(24)));

    let wrong = "name = 'x'\n[limits_source]\npaths = ['limits', '/{ns}']\nkey = 'key'\nrefresh = '5s'\nvalues = '/v'\n";
    let problems = Profile::parse(wrong, "f").unwrap_err().to_string();
    for part in [
        "f:3: limits_source.paths: `limits` is no path (write it out, such as \"/api/v2/limits\")",
        "f:3: limits_source.paths: `/{ns}` is no path",
        "f:4: limits_source.key: `key` is no JSON pointer (begin with a slash, such as \"/value\")",
        "f:5: limits_source.refresh: is below a minute",
        "limits_source.value: is missing (write value = \"/value\")",
        "f:6: limits_source.values: is not a known key (did you mean `value`?)",
    ] {
        assert!(problems.contains(part), "{part} is missing in:\n{problems}");
    }
}

#[test]
fn routes_and_ways_to_find_out_are_read_whole_or_refused_with_every_mistake() {
    let text = r#"name = "x"
[[route]]
match = "POST /search"
idempotent = true
safe = true
[[route]]
match = "/harmful/**"
idempotent = false
[[reconcile]]
match = "PUT /things/*/parts/*"
read = "POST /parts/search?of={1}"
body = '{"id": "{2}"}'
items = "/found"
key = ["/mail = /email", "/name"]
same = "body"
except = "/secret"
absent = "not-applied"
settle = "5s"
[consistency]
after_create = "20s"
"#;
    let profile = Profile::parse(text, "f").unwrap();
    let idempotent = |method, path| profile.is_idempotent(&method, path);
    assert_eq!(idempotent(Method::POST, "/search"), Some(true));
    assert_eq!(idempotent(Method::GET, "/search"), None);
    assert_eq!(
        (idempotent(Method::GET, "/harmful/x"), idempotent(Method::PUT, "/harmful")),
        (Some(false), Some(false))
    );
    let safe = |method, path| profile.is_safe(&method, path);
    assert_eq!((safe(Method::POST, "/search"), safe(Method::PUT, "/harmful")), (true, false));
    assert_eq!(profile.after_create, Some(Duration::from_secs(20)));
    let rule = profile.reconcile_rule(&Method::PUT, "/things/1/parts/2").unwrap();
    assert_eq!(
        (rule.absent, rule.settle, &rule.conflict),
        (Absent::NotApplied, Duration::from_secs(5), &None)
    );
    assert_eq!(profile.reconcile_rule(&Method::PATCH, "/things/1/parts/2"), None);

    let text = r#"name = "x"
[[route]]
match = "POST /search"
[[reconcile]]
match = "GET /things"
same = []
gone = false
[[reconcile]]
match = "PUT /things/**"
read = "PUT /things/{1}"
items = "found"
same = ["/a", "/a"]
settle = "0s"
total = "/n"
conflict = {}
[[reconcile]]
match = "PUT /a/*"
read = "GET /a/{2}"
body = '{"a": "{b}"}'
key = "/id"
gone = true
version = "/version"
each = { members = "id" }
absent = "no"
[[reconcile]]
match = "PUT /b"
same = "body"
[[reconcile]]
match = "PUT /b"
same = "/x"
except = "/y"
[consistency]
after_create = "1h"
[[route]]
match = "POST /adds"
idempotent = false
safe = true
"#;
    let problems = Profile::parse(text, "f").unwrap_err().to_string();
    let expected = [
        "f:2: route[0].idempotent: is missing",
        "f:4: reconcile[0]: needs one of `same`, `each` and `gone`",
        "f:5: reconcile[0].match: `GET /things` names no write",
        "f:7: reconcile[0].gone: is true or absent",
        "f:10: reconcile[1].read: `PUT /things/{1}` is no read",
        "f:11: reconcile[1].items: `found` is no JSON pointer",
        "f:11: reconcile[1].items: needs `key`",
        "f:12: reconcile[1].same: is given twice",
        "f:13: reconcile[1].settle: is zero",
        "f:14: reconcile[1].total: is of no use",
        "f:15: reconcile[1].conflict: is not a known key",
        "f:16: reconcile[2]: needs one of `same`, `each` and `gone`",
        "f:18: reconcile[2].read: `{2}` stands for nothing (`match` has `*` number 1 to 1)",
        "f:19: reconcile[2].body: `{b}` is not known",
        "f:20: reconcile[2].key: needs `items`",
        "f:23: reconcile[2].each.id: is missing",
        "f:23: reconcile[2].each.into: is missing",
        "f:23: reconcile[2].each.members: `id` is no JSON pointer",
        "f:24: reconcile[2].absent: `no` is not known",
        "f:29: reconcile[4].match: is that of an earlier rule",
        "f:31: reconcile[4].except: goes with same = \"body\"",
        "f:33: consistency.after_create: is above 10 minutes",
        "f:37: route[1].safe: contradicts idempotent = false",
    ];
    let found: Vec<&str> = problems.lines().collect();
    for line in expected {
        assert!(found.iter().any(|found| found.starts_with(line)), "{line}\n{problems}");
    }
    assert_eq!(found.len(), expected.len(), "{problems}");
}

#[test]
fn an_exemption_without_need_is_a_mistake_too() {
    let text = "name = 'x'\n[timeouts]\nconnect_above_backoff = true\n";
    let problems = Profile::parse(text, "f").unwrap_err().to_string();
    assert!(problems.starts_with("f:3: timeouts.connect_above_backoff: is of no use"), "{problems}");
}

/// Matching restated as plain recursion.
fn fits(parts: &[&str], segments: &[&str]) -> bool {
    match (parts.split_first(), segments.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((&"**", parts)), rest) => {
            fits(parts, segments) || rest.is_some_and(|(_, rest)| fits_on(parts, rest))
        }
        (Some((&"*", parts)), Some((_, rest))) => fits(parts, rest),
        (Some((part, parts)), Some((segment, rest))) => part == segment && fits(parts, rest),
        (Some(_), None) => false,
    }
}

fn fits_on(parts: &[&str], segments: &[&str]) -> bool {
    fits(parts, segments) || segments.split_first().is_some_and(|(_, rest)| fits_on(parts, rest))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn globs_match_as_plain_recursion_does(
        parts in proptest::collection::vec(proptest::sample::select(vec!["a", "b", "*", "**"]), 1..7),
        segments in proptest::collection::vec(proptest::sample::select(vec!["a", "b", "c"]), 0..8),
    ) {
        let repeats = parts.windows(2).any(|pair| pair == ["**", "**"]);
        let glob = PathGlob::parse(&format!("/{}", parts.join("/")));
        prop_assert_eq!(glob.is_err(), repeats);
        if let Ok(glob) = glob {
            prop_assert_eq!(glob.matches(&format!("/{}", segments.join("/"))), fits(&parts, &segments));
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]a-z= \"'{},.0-9\n]{0,200}") {
        if let Err(problems) = Profile::parse(&text, "f") {
            prop_assert!(!problems.list.is_empty());
        }
    }

    #[test]
    fn a_profile_with_one_character_changed_never_panics(at in 0_usize..2_000, to in any::<char>()) {
        let text = Profile::builtin_text("genesys-guide").unwrap();
        let mut letters: Vec<char> = text.chars().collect();
        let at = at % letters.len();
        letters[at] = to;
        if let Err(problems) = Profile::parse(&letters.iter().collect::<String>(), "f") {
            let lines = text.lines().count() + 1;
            prop_assert!(problems.list.iter().all(|problem| (1..=lines + 1).contains(&problem.line)), "{problems}");
        }
    }
}

#[test]
fn a_limit_replaces_one_of_any_of_its_names_and_keeps_the_others() {
    let genesys = Profile::builtin("genesys").unwrap();
    let [client, token] = ["client.credentials.token.rate.per.minute", "token.rate.per.minute"];
    let named = |key: &str| tidegate_core::pace::LimitSpec {
        key: key.to_owned(),
        aliases: Vec::new(),
        ..genesys.limits[0].clone()
    };
    let merged = genesys.limits_with(vec![named(token)]);
    let all: Vec<Vec<&str>> =
        merged.iter().map(|limit: &tidegate_core::pace::LimitSpec| limit.names().collect()).collect();
    assert_eq!(all, [vec!["org.app.user.rate.per.minute"], vec![token, client]]);
    // Who declares both wants two counts.
    let merged = genesys.limits_with(vec![named(token), named(client)]);
    let all: Vec<Vec<&str>> =
        merged.iter().map(|limit: &tidegate_core::pace::LimitSpec| limit.names().collect()).collect();
    assert_eq!(all, [vec!["org.app.user.rate.per.minute"], vec![token], vec![client]]);
}

#[test]
fn a_text_makes_an_answer_of_any_status_a_throttle_if_it_stands_where_it_should() {
    let text = "name = 'x'\n[[throttle.text]]\nstatus = 200\nat = '/error'\ncontains = 'rateLimited'\n\
        [[throttle.text]]\nstatus = 429\ncontains = 'minute'\nwait = '60s'\n";
    let throttle = Profile::parse(text, "f").unwrap().throttle;
    let nothing = Observation::default();
    let says = |status, body: &[u8]| throttle.applies(status, &nothing, body);
    assert!(says(200, b"{\"error\":\"ratelimited\"}") && throttle.needs_body(200));
    for body in
        [&b"{\"text\":\"ratelimited\"}"[..], b"ratelimited", b"{\"error\":[\"ratelimited\"]}", b"{\"error\":"]
    {
        assert!(!says(200, body), "{}", String::from_utf8_lossy(body));
    }
    assert!(!says(201, b"{\"error\":\"ratelimited\"}"));

    let minute = Duration::from_mins(1);
    assert!(says(429, b"") && throttle.needs_body(429));
    assert_eq!(throttle.wait(429, &nothing, b"once a Minute"), Some(minute));
    assert_eq!(throttle.wait(429, &nothing, b"too fast"), None);
    let hinted = Observation { retry_after: Some(Duration::ZERO), ..Observation::default() };
    assert_eq!(throttle.wait(429, &hinted, b"minute"), None, "the answer says it itself");

    let wrong = "name = 'x'\n[[throttle.text]]\nstatus = 200\ncontains = 'x'\n[[throttle.text]]\nstatus = 429\ncontains = 'x'\n\
        [[throttle.text]]\nstatus = 199\ncontains = 'x'\nat = 'error'\nwait = '0s'\n";
    let problems = Profile::parse(wrong, "f").unwrap_err().to_string();
    let expected = [
        "f:3: throttle.text[0].status: 200 needs `at`: the content of such an answer may hold any text (write at = \"/error\")",
        "f:6: throttle.text[1].status: 429 is a throttle whatever its text (remove this)",
        "f:9: throttle.text[2].status: 199 is out of range (write a number from 200 to 599)",
        "f:11: throttle.text[2].at: is no JSON pointer (begin with a slash, such as \"/retry_in\")",
        "f:12: throttle.text[2].wait: is zero (write a duration above zero, such as \"5s\")",
    ];
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_limit_a_body_describes_is_read_whole_or_refused_with_every_mistake() {
    let shopify = Profile::builtin("shopify").unwrap();
    let told = |method: Method, path| shopify.body_rule(&method, path).map(|rule| rule.name.as_str());
    assert_eq!(told(Method::POST, "/admin/api/2026-07/graphql.json"), Some("points"));
    assert_eq!(told(Method::GET, "/admin/api/2026-07/graphql.json"), None);
    assert_eq!(told(Method::POST, "/admin/api/2026-07/products.json"), None);

    let wrong = "name = 'x'\n[[body]]\nmatch = '/q'\nlimit = 'max'\n[[body]]\nmatch = '/q'\nname = 'n'\nlimit = '/l'\nremaining = '/r'\n\
        [[body]]\nmatch = '/q'\nname = 'n'\nlimit = '/l'\nremaining = '/r'\n";
    let problems = Profile::parse(wrong, "f").unwrap_err().to_string();
    let expected = [
        "f:2: body[0].name: is missing (write name = \"points\")",
        "f:2: body[0].remaining: is missing (write remaining = \"/cost/left\")",
        "f:4: body[0].limit: is no JSON pointer (begin with a slash, such as \"/retry_in\")",
        "f:11: body[2].match: is that of an earlier rule, which decides (remove one)",
    ];
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected);
}
