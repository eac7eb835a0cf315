//! No spelling of a path reaches a family other than the one it is counted under.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;

use proptest::prelude::*;
use tidegate_core::key::{Family, normalise};

/// How some server reads a path.
#[derive(Clone, Copy, Debug)]
struct Reader {
    /// How often it decodes percent-escapes.
    decodes: u8,
    /// Whether it cuts `;parameters` before it decodes. All cut them in the end.
    cuts_first: bool,
}

const READERS: [Reader; 4] = [
    Reader { decodes: 1, cuts_first: false },
    Reader { decodes: 1, cuts_first: true },
    Reader { decodes: 2, cuts_first: false },
    Reader { decodes: 2, cuts_first: true },
];

impl Reader {
    /// The first three words this server routes by.
    fn words(self, path: &str) -> Vec<String> {
        let path = path.split('?').next().unwrap();
        let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        let cut = |segment: &String| segment.split(';').next().unwrap().to_owned();
        for _ in 0..self.decodes {
            if self.cuts_first {
                segments = segments.iter().map(cut).collect();
            }
            segments = segments.iter().map(|segment| decode_leniently(segment)).collect();
            // A decoded slash separates, for the naive.
            segments = segments.join("/").replace('\\', "/").split('/').map(str::to_owned).collect();
        }
        let mut words: Vec<String> = Vec::new();
        for segment in segments.iter().map(cut) {
            match segment.as_str() {
                "" | "." => {}
                ".." => drop(words.pop()),
                _ => words.push(segment),
            }
        }
        words.truncate(3);
        words
    }
}

/// Decodes what is an escape and leaves the rest as it is. Bytes that are no UTF-8 become replacement characters.
fn decode_leniently(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = text
            .get(at + 1..at + 3)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Text made of the tricks of the trade.
fn trickery() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "api",
        "v2",
        "users",
        "groups",
        ".",
        "..",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "\\",
        "%25",
        "2e",
        "2f",
        "65",
        "%252e",
        "%25%32%65",
        ";",
        "%3b",
        "%253b",
        "x",
        "%",
        "%75",
        "?",
        "#",
        "%00",
        "%c0%ae",
        "+",
        "{id}",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// A plain word, and the choices with which to spell it.
fn words() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let word = ("[a-z~_@][a-zA-Z0-9._-]{0,8}", prop::collection::vec(any::<u8>(), 9));
    prop::collection::vec(word, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn normalising_twice_changes_nothing(path in prop_oneof![trickery(), "/\\PC{0,30}", ".{0,20}"]) {
        if let Ok(once) = normalise(&path) {
            let twice = normalise(&once).unwrap();
            prop_assert_eq!(&twice, &once);
            prop_assert!(once.is_ascii() && once.starts_with('/'));
            prop_assert!(once == "/" || !once.ends_with('/'));
            prop_assert!(once.split('/').skip(1).all(|s| once == "/" || !matches!(s, "" | "." | "..")));
        }
    }

    #[test]
    fn every_server_routes_an_accepted_path_to_the_family_it_counts_under(path in trickery()) {
        let family = Family::of(&path);
        // A refused path is never sent.
        let readers = if family.as_str() == Family::MALFORMED { &[] } else { &READERS[..] };
        for reader in readers {
            let words = reader.words(&path);
            let counted: Vec<&str> = family.as_str().split('/').filter(|word| !word.is_empty()).collect();
            let agree = words.len() == counted.len()
                && words.iter().zip(counted).all(|(word, counted)| match counted {
                    "{id}" => word.bytes().all(|b| b.is_ascii_digit()) || word.len() > 64,
                    _ => *word == decode_leniently(counted),
                });
            prop_assert!(agree, "{reader:?} reads {path} as {words:?}, counted as {family}");
        }
    }

    #[test]
    fn what_is_sent_in_place_of_the_callers_spelling_has_the_same_family(path in trickery()) {
        if let Ok(normal) = normalise(&path) {
            prop_assert_eq!(Family::of(&normal), Family::of(&path));
        }
    }

    #[test]
    fn equivalent_spellings_are_one_path(words in words(), query in "[a-z/.?=]{0,8}") {
        let plain: Vec<&str> = words.iter().map(|(word, _)| word.as_str()).collect();
        let plain = format!("/{}", plain.join("/"));
        let mut spelled = String::new();
        for (word, choices) in &words {
            spelled.push_str(["/", "//", "/./", "/x/../", "/%2E/", "/../"][usize::from(choices[0] % 5)]);
            for (letter, choice) in word.bytes().zip(choices.iter().cycle()) {
                match choice % 3 {
                    0 => write!(spelled, "%{letter:02x}").unwrap(),
                    1 => write!(spelled, "%{letter:02X}").unwrap(),
                    _ => spelled.push(char::from(letter)),
                }
            }
        }
        spelled.push_str(["/", "//", "/.", "/y/.."][query.len() % 4]);
        spelled.push('?');
        spelled.push_str(&query);
        prop_assert_eq!(normalise(&spelled).unwrap(), plain.as_str());
        prop_assert_eq!(Family::of(&spelled), Family::of(&plain));
    }

    #[test]
    fn a_family_is_a_prefix_of_its_path_unless_it_holds_an_id(path in "(/[a-zA-Z_-][a-zA-Z._-]{0,11}){0,6}", n in 0_usize..7) {
        let normal = normalise(if path.is_empty() { "/" } else { &path }).unwrap();
        let family = Family::with_segments(&normal, n).unwrap();
        prop_assert!(family.as_str() == "/" || normal.starts_with(family.as_str()));
        prop_assert!(family.as_str() == "/" || family.as_str().matches('/').count() == n.min(normal.matches('/').count()));
    }
}
