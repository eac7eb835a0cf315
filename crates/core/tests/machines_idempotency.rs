//! Keys name writes: the same write however it is spelled, another write however little it differs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;

use fastrand::Rng;
use http::Method;
use proptest::prelude::*;
use serde_json::Value;
use tidegate_core::idempotency::{BodyDigest, Stamp, Transaction, Write, canonical_json};
use tidegate_core::key::Tenant;

/// A JSON value whose numbers all have one meaning.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..=(1 << 53)).prop_map(Value::from),
        any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Writes `value` in one of the many ways in which it can be written.
fn spell(value: &Value, rng: &mut Rng, out: &mut String) {
    space(rng, out);
    match value {
        Value::String(text) => spell_text(text, rng, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                spell(item, rng, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            rng.shuffle(&mut members);
            out.push('{');
            for (at, (name, member)) in members.into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                space(rng, out);
                spell_text(name, rng, out);
                space(rng, out);
                out.push(':');
                spell(member, rng, out);
            }
            out.push('}');
        }
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => {
                out.push_str(&integer.to_string());
                out.push_str(["", ".0", "e0", ".00E+0"][rng.usize(0..4)]);
            }
            (None, Some(double)) if rng.bool() => write!(out, "{double:e}").unwrap(),
            (None, Some(double)) => write!(out, "{double:?}").unwrap(),
            (None, None) => unreachable!("only integers and doubles were made"),
        },
        Value::Null | Value::Bool(_) => out.push_str(&value.to_string()),
    }
    space(rng, out);
}

fn spell_text(text: &str, rng: &mut Rng, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        if matches!(letter, '"' | '\\') || letter < ' ' || rng.u8(0..4) == 0 {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                if rng.bool() { write!(out, "\\u{unit:04x}") } else { write!(out, "\\u{unit:04X}") }.unwrap();
            }
        } else {
            out.push(letter);
        }
    }
    out.push('"');
}

fn space(rng: &mut Rng, out: &mut String) {
    for _ in 0..rng.usize(0..3) {
        out.push(rng.choice([' ', '\t', '\n', '\r']).unwrap());
    }
}

fn spelled(value: &Value, seed: u64) -> String {
    let mut out = String::new();
    spell(value, &mut Rng::with_seed(seed), &mut out);
    out
}

/// The parts of one write.
type Parts = (String, String, &'static str, String, Vec<u8>);

fn parts() -> impl Strategy<Value = Parts> {
    let method = prop::sample::select(vec!["POST", "PUT", "PATCH"]);
    ("[ab/]{0,3}", "[ab/]{0,3}", method, "[ab/]{0,3}", prop::collection::vec(b'a'..=b'b', 0..3))
}

fn key(parts: &Parts, stamp: Stamp) -> uuid::Uuid {
    let (tenant, transaction, method, target, body) = parts;
    let tenant = Tenant::new(tenant);
    let method: Method = method.parse().unwrap();
    let body = BodyDigest::raw(body);
    Write {
        tenant: &tenant,
        transaction: Transaction::Given(transaction),
        method: &method,
        target,
        body: &body,
    }
    .key(stamp)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_spelling_of_a_value_is_the_same_write(value in json(), one in any::<u64>(), other in any::<u64>()) {
        let (one, other) = (spelled(&value, one), spelled(&value, other));
        prop_assert!(canonical_json(one.as_bytes()).is_some(), "{one}");
        prop_assert_eq!(BodyDigest::json(one.as_bytes()), BodyDigest::json(other.as_bytes()), "{} / {}", one, other);
    }

    #[test]
    fn the_canonical_form_means_what_the_text_means_and_has_its_own_digest(value in json(), seed in any::<u64>()) {
        let canonical = canonical_json(spelled(&value, seed).as_bytes()).unwrap();
        prop_assert_eq!(BodyDigest::json(&canonical), BodyDigest::raw(&canonical));
        let read: Value = serde_json::from_slice(&canonical).unwrap();
        prop_assert!(same(&read, &value), "{} became {}", value, read);
    }

    #[test]
    fn two_values_are_two_writes(one in json(), other in json(), seed in any::<u64>()) {
        let digest = |value| BodyDigest::json(spelled(value, seed).as_bytes());
        prop_assert_eq!(digest(&one) == digest(&other), same(&one, &other), "{} / {}", one, other);
    }

    #[test]
    fn a_duplicate_member_makes_the_bytes_count(value in json(), seed in any::<u64>()) {
        let value = spelled(&value, seed);
        let body = format!("{{\"a\":{value},\"b\":[{{\"x\":1}},{{\"y\":0,\"y\":0}}]}}");
        prop_assert_eq!(canonical_json(body.as_bytes()), None);
        prop_assert_eq!(BodyDigest::json(body.as_bytes()), BodyDigest::raw(body.as_bytes()));
        let spaced = format!(" {body}");
        prop_assert_ne!(BodyDigest::json(spaced.as_bytes()), BodyDigest::json(body.as_bytes()));
    }

    #[test]
    fn any_bytes_have_a_digest(body in prop::collection::vec(any::<u8>(), 0..64)) {
        if canonical_json(&body).is_none() {
            prop_assert_eq!(BodyDigest::json(&body), BodyDigest::raw(&body));
        }
    }

    #[test]
    fn integers_beyond_two_to_the_53_are_told_apart(number in (1_u64 << 53) + 1..u64::MAX) {
        let digest = |n: u64| BodyDigest::json(format!("{{\"id\":{n}}}").as_bytes());
        prop_assert_ne!(digest(number), digest(number + 1));
    }

    #[test]
    fn decimal_texts_of_different_value_are_never_one_write(
        digits in "[0-9]{1,22}", exponent in -330_i32..310, last in 0_u8..10,
    ) {
        // Two texts that differ in one digit, often within the same double.
        let text = |digit: u8| format!("[0.{digits}{digit}e{exponent}]");
        let (one, other) = (text(last), text((last + 1) % 10));
        prop_assert_ne!(BodyDigest::json(one.as_bytes()), BodyDigest::json(other.as_bytes()), "{} / {}", one, other);
    }

    #[test]
    fn any_part_that_differs_makes_another_key(one in parts(), other in parts()) {
        for stamp in [Stamp::V4, Stamp::V8] {
            prop_assert_eq!(key(&one, stamp) == key(&other, stamp), one == other);
            prop_assert_eq!(key(&one, stamp), key(&one.clone(), stamp));
        }
        prop_assert_eq!(key(&one, Stamp::V4).get_version_num(), 4);
        prop_assert_eq!(key(&one, Stamp::V8).get_version_num(), 8);
        prop_assert_eq!(key(&one, Stamp::V4).get_variant(), uuid::Variant::RFC4122);
    }
}

/// Whether two values mean the same: JSON has one kind of number, and one zero.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => one == other,
    }
}
