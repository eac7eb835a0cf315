//! What vendors really answer, and what is read out of it: one file per answer under `tests/corpus/`.
//!
//! A file has a head (`source`: where the answer was published; `note`; `call`: method and path, or `token` for the token
//! endpoint; `received`: the instant of a clock, where the answer has no `Date`), the answer as it was published, and behind
//! `==` what is to be read out of it. Secrets and ids are shortened; what was left out of an answer says nothing about limits.
//!
//! | line | meaning |
//! | --- | --- |
//! | `family` | the family of the call |
//! | `reading` | `name remaining/limit reset=after~grain window=…`, `-` for what is unknown, `@` before the grain of an absolute time |
//! | `ignored` | a field that should have said something and could not be read |
//! | `wait` | how long the answer asks to stay away |
//! | `hit` | the limit it says was hit: key and namespace |
//! | `throttle`, `delivery` | whether it says "too fast", and what that says about execution |
//! | `auto` | `same` where reading every known dialect finds the same, else why it does not |

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; the answers are files"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tidegate_core::key::Family;
use tidegate_core::observe::{HeaderRules, Observation, Reading, observe, observe_body, observe_told};
use tidegate_core::profile::Profile;
use tidegate_core::time::Wall;

/// The fewest answers of a vendor.
const FEWEST: usize = 6;

struct Sample {
    call: Option<(Method, String)>,
    received: Wall,
    status: StatusCode,
    headers: HeaderMap,
    body: String,
    expected: Vec<String>,
}

fn read(path: &Path) -> Sample {
    let text = fs::read_to_string(path).unwrap();
    let name = path.display();
    let (head, rest) = text.split_once("\n\nHTTP/1.1 ").unwrap_or_else(|| panic!("{name}: no answer"));
    let (answer, expected) = rest.split_once("\n==\n").unwrap_or_else(|| panic!("{name}: no =="));
    let field = |key: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(own, _)| *own == key).map(|(_, value)| value.to_owned()).next()
    };
    assert!(field("source").is_some_and(|source| source.starts_with("https://")), "{name}: no source");
    let call = field("call").unwrap_or_else(|| panic!("{name}: no call"));
    let call = call.split_once(' ').map(|(method, path)| (method.parse().unwrap(), path.to_owned()));
    let (lines, body) = answer.split_once("\n\n").unwrap_or((answer, ""));
    let mut lines = lines.lines();
    let status = lines.next().unwrap().split(' ').next().unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{name}: {line}"));
        let key = HeaderName::from_bytes(key.as_bytes()).unwrap();
        headers.append(key, HeaderValue::from_bytes(value.trim().as_bytes()).unwrap());
    }
    let received = field("received")
        .map_or_else(Wall::default, |seconds| Wall::from_unix_millis(seconds.parse::<i64>().unwrap() * 1000));
    assert!(
        headers.contains_key("date")
            || field("received").is_some()
            || !answer.to_lowercase().contains("-reset:"),
        "{name}: a reset, and no instant to read it against"
    );
    let expected = expected.lines().map(str::to_owned).collect();
    Sample { call, received, status, headers, body: body.trim().to_owned(), expected }
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
    format!("{name} {}/{} reset={reset} window={window}", number(reading.remaining), number(reading.limit))
}

/// What headers say by some rules, as far as readers of it can tell.
fn told(rules: &HeaderRules, sample: &Sample) -> (Vec<String>, Observation) {
    let seen = observe(rules, sample.status, &sample.headers, sample.received);
    (seen.readings.iter().map(written).collect(), seen)
}

/// What is read out of an answer, in the lines of the corpus.
fn lines(profile: &Profile, sample: &Sample) -> Vec<String> {
    let body = sample.body.as_bytes();
    let status = sample.status.as_u16();
    let oauth = profile.oauth.as_ref();
    let throttle = match sample.call {
        Some(_) => &profile.throttle,
        None => &oauth.expect("a sample of the token endpoint is of a profile with one").throttle,
    };
    let (readings, mut seen) = told(&profile.headers, sample);
    let (auto_readings, auto) = told(&HeaderRules::default(), sample);
    let agrees = readings == auto_readings && seen.retry_after == auto.retry_after;
    observe_body(&profile.headers, sample.status, body, &mut seen);
    let throttled = throttle.applies(status, &seen, body);
    let mut lines = Vec::new();
    if let Some((method, path)) = &sample.call {
        lines.push(format!("family: {}", profile.family(method, path).unwrap()));
        if let Some(rule) = profile.body_rule(method, path) {
            observe_told(rule, body, throttled, &mut seen);
        }
    }
    if throttled {
        seen.retry_after = seen.retry_after.or_else(|| throttle.wait(status, &seen, body));
    }
    lines.extend(seen.readings.iter().map(|reading| format!("reading: {}", written(reading))));
    lines.extend(seen.ignored.iter().map(|ignored| format!("ignored: {}", ignored.field)));
    lines.extend(seen.retry_after.map(|wait| format!("wait: {wait:?}")));
    lines.extend(seen.hit.map(|hit| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        format!("hit: {} {}", or_dash(hit.key), or_dash(hit.namespace))
    }));
    lines.push(format!("throttle: {}", if throttled { "yes" } else { "no" }));
    if sample.call.is_some() {
        let delivery = profile.delivery(sample.status, &sample.headers, body, sample.received);
        lines.push(format!("delivery: {}", delivery.name()));
    }
    lines.push(if agrees { "auto: same".to_owned() } else { "auto: ".to_owned() });
    lines
}

/// Every sample of a vendor, in the order of names.
fn samples(vendor: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(vendor);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn check(vendor: &str) {
    let profile = Profile::builtin(vendor).unwrap();
    let files = samples(vendor);
    assert!(files.len() >= FEWEST, "{vendor} has {} samples", files.len());
    let mut wrong = String::new();
    for file in files {
        let sample = read(&file);
        let found = lines(&profile, &sample);
        let explained = |found: &String, expected: &String| match found.as_str() {
            // Where the readings differ, the file says why.
            "auto: " => expected.starts_with("auto: ") && expected.len() > 20,
            _ => found == expected,
        };
        let fits = found.len() == sample.expected.len()
            && found.iter().zip(&sample.expected).all(|(found, expected)| explained(found, expected));
        if !fits {
            let (found, expected) = (found.join("\n"), sample.expected.join("\n"));
            writeln!(wrong, "{}\nexpected\n{expected}\nfound\n{found}\n", file.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

macro_rules! vendors {
    ($($name:ident: $vendor:literal;)*) => {
        $(
            #[test]
            fn $name() {
                check($vendor);
            }
        )*

        #[test]
        fn every_vendor_with_a_profile_has_a_corpus() {
            // What Genesys sends, in every era of it, and what the drafts say is in `observe_vendors`.
            let tested = [$($vendor),*];
            let known = Profile::builtin_names().filter(|name| !["generic", "ietf", "genesys", "genesys-guide"].contains(name));
            for name in known {
                assert!(tested.contains(&name), "{name} has no corpus");
            }
        }
    };
}

vendors! {
    answers_of_discord_are_read: "discord";
    answers_of_github_are_read: "github";
    answers_of_hubspot_are_read: "hubspot";
    answers_of_microsoft_graph_are_read: "msgraph";
    answers_of_okta_are_read: "okta";
    answers_of_salesforce_are_read: "salesforce";
    answers_of_shopify_are_read: "shopify";
    answers_of_slack_are_read: "slack";
    answers_of_zendesk_are_read: "zendesk";
}

#[test]
fn families_of_callers_names_are_bounded() {
    for name in Profile::builtin_names() {
        let profile = Profile::builtin(name).unwrap();
        let long = format!("/api/v10/channels/{}/messages/1", "9".repeat(3000));
        let family = profile.family(&Method::GET, &long).unwrap();
        assert!(family.as_str().len() < 400 && family != Family::new(Family::MALFORMED), "{name} {family}");
    }
}
