//! RFC 8785: the samples of its text, the six documents of its author's test suite, and the stream of numbers whose
//! checksums he published.
//!
//! The documents are written out again here; no file of others is read. The stream is generated (facts from
//! cyberphone/json-canonicalization, `testdata/README.md`, Apache-2.0): chosen edge cases, 2,000 neighbours of the smallest normal
//! number, then SHA-256 chained over itself. One number out of a hundred thousand that is written otherwise changes the checksum.
//!
//! Two things differ on purpose (`idempotency::canonical_json`): a text that holds a number with other digits than its double has,
//! or an integer beyond 2⁵³ written out, has no canonical form; its bytes count instead.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use tidegate_core::idempotency::canonical_json;

fn canonical(json: &str) -> Option<String> {
    canonical_json(json.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Section 3.2.2. Its first number is written 333333333.33333329 there; with the digits of its double all is as in 3.2.3.
#[test]
fn the_sample_of_the_text_has_its_canonical_form_once_its_number_is_exact() {
    let sample = |number: &str| {
        let escaped = r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/""#;
        format!(
            "{{\"numbers\": [{number}, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],\n\
             \"string\": {escaped},\n\"literals\": [null, true, false]}}"
        )
    };
    assert_eq!(canonical(&sample("333333333.33333329")), None);
    let expected = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
                    \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
    assert_eq!(canonical(&sample("333333333.3333333")).unwrap(), expected);
}

#[test]
fn the_documents_of_the_test_suite_have_their_canonical_forms() {
    let cases = [
        // arrays
        (r#"[ 56, { "d": true, "10": null, "1": [ ] } ]"#, r#"[56,{"1":[],"10":null,"d":true}]"#),
        // french: sorted by code units, whatever a language says
        (
            r#"{ "peach": "1", "péché": "2", "pêche": "3", "sin": "4" }"#,
            r#"{"peach":"1","péché":"2","pêche":"3","sin":"4"}"#,
        ),
        // structures
        (
            r#"{ "1": {"f": {"f": "hi","F": 5} ,"\n": 56.0}, "10": { }, "": "empty", "a": { }, "111": [ { } ], "A": { } }"#,
            r#"{"":"empty","1":{"\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":[{}],"A":{},"a":{}}"#,
        ),
        // unicode: not normalised
        (r#"{ "Unnormalized Unicode": "A\u030a" }"#, "{\"Unnormalized Unicode\":\"A\u{30a}\"}"),
        // values, with the number of its double
        (
            r#"{ "numbers": [333333333.3333333, 1E30, 4.50, 2e-3, 0.000000000000000000000000001], "literals": [null, true, false] }"#,
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27]}"#,
        ),
        // weird: sorted by UTF-16 code units, so the smiley (a surrogate pair) goes before the Hebrew letter
        (
            r#"{ "\u20ac": "Euro", "\r": "CR", "\ufb33": "Dalet", "1": "One", "\ud83d\ude02": "Smiley", "\u0080": "Control\u007f", "\u00f6": "O", "</script>": "Browser" }"#,
            "{\"\\r\":\"CR\",\"1\":\"One\",\"</script>\":\"Browser\",\"\u{80}\":\"Control\u{7f}\",\"ö\":\"O\",\"€\":\"Euro\",\
             \"😂\":\"Smiley\",\"\u{fb33}\":\"Dalet\"}",
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(canonical(input).as_deref(), Some(expected), "{input}");
        assert_eq!(canonical(expected).as_deref(), Some(expected), "a canonical form is its own");
    }
}

/// Thirds of powers of ten and the like; the stream has each with both signs.
const BOTH_SIGNS: &str = "
446696695dbd1cc3 443211ede4974a35 43fce97ca0f21056 43c7213080c1a6ac 439280f39a348556 435d9b1f5d20d557 4327af4c4a80aaac
42f2f2a36ecd5556 42be51057e155558 428840d131aaaaac 4253670dc1555557 421f0b4935555557 41e8d5d42aaaaaac 41b3de4355555556
417fca0555555556 41496e6aaaaaaaab 4114585555555555 40e046aaaaaaaaab 40aa0aaaaaaaaaaa 4074d55555555555 4040aaaaaaaaaaab
400aaaaaaaaaaaab 3fd5555555555555 3fa1111111111111 3f6b4e81b4e81b4f 3f35d867c3ece2a5 3f0179ec9cbd821e 3ecbf647612f3696
3e965e9f80f29212 3e61e54c672874db 3e2ca213d840baf8 3df6e80fe033c8c6 3dc2533fe68fd3d2 3d8d51ffd74c861c 3d5774ccac3d3817
3d22c3d6f030f9ac 3cee0624b3818f79 3cb804ea293472c7 3c833721ba905bd3 3c4ebe9c5db3c61e 3c18987d17c304e5 3be3ad30dfcf371d
3baf7b816618582f 3b792f9ab81379bf 3b442615600f9499 3b101e77800c76e1 3ad9ca58cce0be35 3aa4a1e0a3e6fe90 3a708180831f320d
3a3a68cd9e985016";

/// Neighbours of round numbers, of one, of the ends of the range, and of where the notation changes.
const EDGES: &str = "
4024000000000000 4014000000000000 3fe0000000000000 3fa999999999999a 3f747ae147ae147b 3f40624dd2f1a9fc 3f0a36e2eb1c432d
3ed4f8b588e368f1 3ea0c6f7a0b5ed8d 3e6ad7f29abcaf48 3e35798ee2308c3a 3ed539223589fa95 3ed4ff26cd5a7781 3ed4f95a762283ff
3ed4f8c60703520c 3ed4f8b72f19cd0d 3ed4f8b5b31c0c8d 3ed4f8b58d1c461a 3ed4f8b5894f7f0e 3ed4f8b588ee37f3 3ed4f8b588e47da4
3ed4f8b588e3849c 3ed4f8b588e36bb5 3ed4f8b588e36937 3ed4f8b588e368f8 3ed4f8b588e368f1 3ff0000000000000 bff0000000000000
bfeffffffffffffa bfeffffffffffffb 3feffffffffffffa 3feffffffffffffb 3feffffffffffffc 3feffffffffffffe bfefffffffffffff
bfefffffffffffff 3fefffffffffffff 3fefffffffffffff 3fd3333333333332 3fd3333333333333 3fd3333333333334 0010000000000000
000ffffffffffffd 000fffffffffffff 7fefffffffffffff ffefffffffffffff 4340000000000000 c340000000000000 4430000000000000
44b52d02c7e14af5 44b52d02c7e14af6 44b52d02c7e14af7 444b1ae4d6e2ef4e 444b1ae4d6e2ef4f 444b1ae4d6e2ef50 3eb0c6f7a0b5ed8c
3eb0c6f7a0b5ed8d 41b3de4355555553 41b3de4355555554 41b3de4355555555 41b3de4355555556 41b3de4355555557 becbf647612f3696
43143ff3c1cb0959";

/// The bits of the stream's numbers, without end.
fn stream() -> impl Iterator<Item = u64> {
    let bits = |text: &'static str| text.split_whitespace().map(|hex| u64::from_str_radix(hex, 16).unwrap());
    let sign = 1 << 63;
    let zeros = [0, sign, 1, sign | 1];
    let negative = bits(BOTH_SIGNS).map(move |bits| bits | sign);
    let neighbours = (0..2_000).map(|number| 0x0010_0000_0000_0000 + number);
    let mut block = [0_u8; 32];
    let chained = std::iter::repeat_with(move || {
        block = Sha256::digest(block).into();
        block.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect::<Vec<_>>()
    });
    let usable = |bits: &u64| {
        let number = f64::from_bits(*bits);
        number.is_finite() && number != 0.0
    };
    zeros
        .into_iter()
        .chain(negative)
        .chain(bits(BOTH_SIGNS))
        .chain(bits(EDGES))
        .chain(neighbours)
        .chain(chained.flatten().filter(usable))
}

#[test]
fn a_hundred_thousand_numbers_have_the_published_checksum() {
    let mut lines = String::new();
    for bits in stream().take(100_000) {
        let number = f64::from_bits(bits);
        // Written with an exponent, an integer beyond 2⁵³ is the double it is.
        let written = canonical(&format!("{number:e}")).unwrap();
        writeln!(lines, "{bits:x},{written}").unwrap();
    }
    assert_eq!(lines.len(), 4_031_728);
    let digest = Sha256::digest(&lines);
    let hex = digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    assert_eq!(hex, "22776e6d4b49fa294a0d0f349268e5c28808fe7e0cb2bcbe28f63894e494d4c7");
}
