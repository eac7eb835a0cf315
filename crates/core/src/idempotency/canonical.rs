//! The canonical form of a JSON text (RFC 8785), where it has one that hides nothing.
//!
//! Canonicalisers agree on well-behaved JSON. Two hazards are common to all of them, since they sit in the parser:
//! of duplicate members the last one silently wins, and numbers become doubles, so that 9007199254740993 and
//! ...992 are one value. A server may read both differently, and then two different writes would share a key.
//! Such texts have no canonical form here, and their bytes count instead. That errs on the safe side: two
//! spellings of one odd value are taken for two writes, never the other way round.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Integers from here on have neighbours that are the same double.
const LAST_EXACT_INTEGER: &str = "9007199254740992";

/// The RFC 8785 form of the JSON text `body`, or `None` if it is no JSON or if the form would lose information:
///
/// * an object names a member twice;
/// * an integer lies beyond ±2⁵³;
/// * a number is written with other digits than the double it becomes (`0.1000000000000000055`, `1e-400`).
///
/// ```
/// use tidegate_core::idempotency::canonical_json;
///
/// assert_eq!(canonical_json(b" { \"b\" : 1e1, \"a\" : [ ] } ").unwrap(), b"{\"a\":[],\"b\":10}");
/// assert_eq!(canonical_json(b"{\"a\":1,\"a\":2}"), None);
/// assert_eq!(canonical_json(b"9007199254740993"), None);
/// ```
pub fn canonical_json(body: &[u8]) -> Option<Vec<u8>> {
    let strict: Strict = serde_json::from_slice(body).ok()?;
    if !numbers_survive(body) {
        return None;
    }
    serde_json_canonicalizer::to_vec(&strict.0).ok()
}

/// A JSON value whose objects name each member once.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a json value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Whether every number of a valid JSON text is told exactly by the double it becomes.
fn numbers_survive(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = match byte {
            b'"' => behind_string(behind),
            b'-' | b'0'..=b'9' => {
                let end = rest.iter().position(|&b| !is_number_byte(b)).unwrap_or(rest.len());
                let (number, behind) = rest.split_at(end);
                if !std::str::from_utf8(number).is_ok_and(survives) {
                    return false;
                }
                behind
            }
            _ => behind,
        };
    }
    true
}

/// What follows the string whose opening quote was just passed.
fn behind_string(mut rest: &[u8]) -> &[u8] {
    loop {
        match rest {
            [b'\\', _, behind @ ..] | [_, behind @ ..] if rest[0] != b'"' => rest = behind,
            [_, behind @ ..] => return behind,
            [] => return rest,
        }
    }
}

const fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

fn survives(number: &str) -> bool {
    let digits = number.trim_start_matches('-');
    let integer = digits.bytes().all(|b| b.is_ascii_digit());
    // Digits without leading zeros compare by length, then as text.
    if integer && (digits.len(), digits) > (LAST_EXACT_INTEGER.len(), LAST_EXACT_INTEGER) {
        return false;
    }
    let Ok(double) = number.parse::<f64>() else { return false };
    double.is_finite() && Decimal::read(number) == Decimal::read(&format!("{double:e}"))
}

/// A decimal number in the one form `0.d₁d₂… × 10^exponent` without zeros at either end of its digits. The sign is
/// left out: a double keeps it, and zero has none that counts.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn read(number: &str) -> Self {
        let number = number.trim_start_matches('-');
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        if digits.is_empty() {
            return Self { digits: String::new(), exponent: 0 };
        }
        let leading = all.len() - digits.len();
        // An exponent too long for 64 bits is too long for a double, whose own is never near the bound.
        let exponent = exponent.parse::<i64>().unwrap_or(i64::MAX);
        let point = i64::try_from(whole.len()).unwrap_or(i64::MAX);
        let leading = i64::try_from(leading).unwrap_or(i64::MAX);
        Self {
            digits: digits.trim_end_matches('0').to_owned(),
            exponent: exponent.saturating_add(point).saturating_sub(leading),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(json: &str) -> Option<String> {
        canonical_json(json.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn members_are_sorted_by_utf16_units_and_arrays_keep_their_order() {
        // The kinds of input of RFC 8785 §3.2.3 and of the test data beside its reference implementations.
        let json = r#"{"\u20ac":"euro","\r":"cr","\ufb33":"dalet","1":"one","\ud83d\ude00":"grin","\u0080":"c","\u00f6":"o"}"#;
        let expected = "{\"\\r\":\"cr\",\"1\":\"one\",\"\u{80}\":\"c\",\"\u{f6}\":\"o\",\"\u{20ac}\":\"euro\",\
                        \"\u{1f600}\":\"grin\",\"\u{fb33}\":\"dalet\"}";
        assert_eq!(canonical(json).unwrap(), expected);
        assert_eq!(
            canonical("[56,{\"d\":true,\"10\":null,\"1\":[ ]}]").unwrap(),
            r#"[56,{"1":[],"10":null,"d":true}]"#
        );
        let nested = r#"{"1":{"f":{"f":"hi","F":5},"\n":56.0},"10":{},"":"empty","a":{},"111":[],"A":{}}"#;
        let sorted = r#"{"":"empty","1":{"\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":[],"A":{},"a":{}}"#;
        assert_eq!(canonical(nested).unwrap(), sorted);
    }

    #[test]
    fn strings_are_escaped_in_one_way() {
        let json = r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/""#;
        assert_eq!(canonical(json).unwrap(), "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"");
        assert_eq!(canonical("\"A\\u030a\"").unwrap(), "\"A\u{30a}\"", "unicode is not normalised");
    }

    #[test]
    fn numbers_are_written_as_ecmascript_writes_them() {
        let cases = [
            ("4.50", "4.5"),
            ("2e-3", "0.002"),
            ("1E30", "1e+30"),
            ("0.000000000000000000000000001", "1e-27"),
            ("-0", "0"),
            ("-0.0e7", "0"),
            ("1e0", "1"),
            ("100", "100"),
            ("1e21", "1e+21"),
            ("1e20", "100000000000000000000"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("9007199254740992", "9007199254740992"),
            ("-9007199254740992", "-9007199254740992"),
        ];
        for (number, expected) in cases {
            assert_eq!(canonical(number).as_deref(), Some(expected), "{number}");
        }
    }

    #[test]
    fn numbers_that_a_double_cannot_tell_have_no_canonical_form() {
        let cases = [
            "9007199254740993",
            "9007199254740994",
            "-9007199254740993",
            "18446744073709551615",
            "100000000000000000000000",
            "9007199254740993.0",
            "0.1000000000000000055511151231257827",
            "333333333.33333329",
            "1e400",
            "-1e400",
            "1e-400",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "1.7976931348623158e308",
        ];
        for number in cases {
            assert_eq!(canonical(number), None, "{number}");
            assert_eq!(canonical(&format!("{{\"a\":[\"b\",{number}]}}")), None, "{number}");
        }
        assert_eq!(canonical("0e99999999999999999999").as_deref(), Some("0"), "zero is zero");
    }

    #[test]
    fn numbers_within_strings_are_text() {
        let json = r#"{"a\"9007199254740993":"\\","b":"9007199254740993 \" 1e400"}"#;
        assert_eq!(canonical(json).as_deref(), Some(json));
    }

    #[test]
    fn duplicate_members_have_no_canonical_form_at_any_depth_or_spelling() {
        for json in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"[{"b":{"a":1,"c":2,"a":3}}]"#] {
            assert_eq!(canonical(json), None, "{json}");
        }
        assert!(canonical(r#"[{"a":1},{"a":2},{"A":{"a":3}}]"#).is_some());
    }

    #[test]
    fn what_is_no_json_has_no_canonical_form() {
        let deep = "[".repeat(100_000);
        let texts = [
            "",
            " ",
            "{",
            "{\"a\":1}x",
            "{'a':1}",
            "01",
            "1.",
            "NaN",
            "\"\\ud800\"",
            "\u{feff}{}",
            "a=1",
            &deep,
        ];
        for text in texts {
            assert_eq!(canonical(text), None, "{:?}", text.get(..20).unwrap_or(text));
        }
        assert_eq!(canonical_json(b"\"\xff\""), None);
    }
}
