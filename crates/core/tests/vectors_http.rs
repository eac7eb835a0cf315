//! The examples of RFC 9110 for `Retry-After` (section 10.2.3) and for its dates (section 5.6.7).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use tidegate_core::observe::{HeaderRules, observe};
use tidegate_core::time::Wall;

/// What `Retry-After: value` asks for in an answer of `date`, on a machine whose clock is wrong by ten years.
fn wait(date: &str, value: &str) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    headers.insert("date", HeaderValue::from_str(date).unwrap());
    headers.insert("retry-after", HeaderValue::from_str(value).unwrap());
    let wrong = Wall::from_unix_millis(315_360_000_000);
    observe(&HeaderRules::default(), StatusCode::SERVICE_UNAVAILABLE, &headers, wrong).retry_after
}

/// It is `delay` seconds.
fn read(date: &str, value: &str, delay: u64) {
    assert_eq!(wait(date, value), Some(Duration::from_secs(delay)), "{date} / {value}");
}

#[test]
fn both_examples_of_retry_after_are_read() {
    read("Sun, 06 Nov 1994 08:49:37 GMT", "120", 120);
    read("Fri, 31 Dec 1999 23:59:00 GMT", "Fri, 31 Dec 1999 23:59:59 GMT", 59);
    // a time that has passed is now
    read("Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 31 Dec 1999 23:59:59 GMT", 0);
}

#[test]
fn the_three_forms_of_a_date_name_one_instant_in_either_field() {
    let forms =
        ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];
    for date in forms {
        for until in forms {
            read(date, until, 0);
        }
        read(date, "Sun, 06 Nov 1994 08:50:37 GMT", 60);
    }
}

#[test]
fn a_date_with_the_wrong_weekday_is_no_date() {
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", "Mon, 06 Nov 1994 08:50:37 GMT"), None);
}

/// The RFC reads a two-digit year that appears to be more than 50 years ahead as the past. The parser in use pivots at 70
/// whatever the year, so the same text is the same instant in every year, and from 2020 on years from 70 on are in the past
/// where the RFC would have some of them in the future. No server is known to write such a date today; one that did would be
/// taken to say "now", and its 429 would be met by the backoff.
#[test]
fn a_year_of_two_digits_pivots_at_seventy() {
    read("Sun, 06 Nov 2067 08:49:37 GMT", "Sunday, 06-Nov-67 08:50:37 GMT", 60);
    // 70 is 1970, and 69 is 2069.
    read("Fri, 06 Nov 1970 08:49:37 GMT", "Friday, 06-Nov-70 08:50:37 GMT", 60);
    read("Wed, 06 Nov 2069 08:49:37 GMT", "Wednesday, 06-Nov-69 08:50:37 GMT", 60);
}

#[test]
fn what_the_grammar_does_not_allow_is_no_wait() {
    // delay-seconds = 1*DIGIT; a sign, a unit or a list is none.
    for value in ["-120", "+120", "120 s", "120, 130", "1e2", "two minutes"] {
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", value), None, "{value}");
    }
}
