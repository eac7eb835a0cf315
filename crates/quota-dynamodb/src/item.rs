//! What an item is, and what it must be.
//!
//! | attribute | what it is |
//! | --- | --- |
//! | `id` (S) | the table's key: `PREFIX:b:BANK` for a bank, `PREFIX:k:BANK:NAME` for a lock with its value |
//! | `protocol` (N) | version of the state; another one is refused before the rest is looked at |
//! | `version` (N) | counts the writes from a number drawn by chance: who writes says which one it has seen |
//! | `at` (N) | the time of the state, in milliseconds since 1970 |
//! | `state` (B) | the state as JSON, deflated: a write costs by the kilobyte |
//! | `expires` (N) | when DynamoDB may delete it, in seconds since 1970: its time to live |

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_core::share::{At, BankKey, PROTOCOL, Unanswered};
use tidegate_quota::Name;

/// The table's key.
pub(crate) const KEY: &str = "id";
/// The attribute of the time to live.
pub(crate) const EXPIRES: &str = "expires";
/// The attribute of the version.
pub(crate) const VERSION: &str = "version";

/// DynamoDB takes no item that is larger, names of attributes included
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>).
pub(crate) const LARGEST: usize = 400 * 1_024;
/// What is not the state: names, numbers and the longest key.
const BESIDE: usize = 2 * 1_024;
/// A state that is larger when it is read was not written here.
const LARGEST_PLAIN: usize = 64 * LARGEST;
/// As small as it is worth: beyond, time is spent on the last percent.
const LEVEL: u8 = 6;

/// Attributes as DynamoDB has them.
pub(crate) type Attributes = HashMap<String, AttributeValue>;

/// The id of a bank's item.
pub(crate) fn of_bank(prefix: &str, bank: BankKey) -> String {
    format!("{prefix}:b:{bank}")
}

/// The id of a lock's item.
pub(crate) fn of_slot(prefix: &str, name: &Name) -> String {
    format!("{prefix}:k:{}:{}", name.bank, name.what)
}

/// An item as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) version: u64,
    pub(crate) at: At,
    state: Vec<u8>,
}

/// Why an item is none of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Strange {
    /// Another version of the program wrote it.
    Protocol(Unanswered),
    /// Another program wrote it.
    Shape(String),
    /// It would be larger than an item can be.
    TooLarge(usize),
}

impl Seen {
    /// Reads the attributes of an item.
    pub(crate) fn of(attributes: &Attributes) -> Result<Self, Strange> {
        let protocol = number(attributes, "protocol")?;
        if protocol != u64::from(PROTOCOL) {
            let found = u16::try_from(protocol).unwrap_or(u16::MAX);
            return Err(Strange::Protocol(Unanswered::Protocol { found, known: PROTOCOL }));
        }
        let state = match attributes.get("state") {
            Some(AttributeValue::B(bytes)) => bytes.as_ref().to_vec(),
            other => return Err(Strange::Shape(format!("its `state` is {}, not bytes", kind(other)))),
        };
        Ok(Self { version: number(attributes, VERSION)?, at: number(attributes, "at")?, state })
    }

    /// The state in it.
    pub(crate) fn state<T: DeserializeOwned>(&self) -> Result<T, Strange> {
        let plain = decompress_to_vec_with_limit(&self.state, LARGEST_PLAIN)
            .map_err(|_| Strange::Shape("its `state` is not deflated".to_owned()))?;
        serde_json::from_slice(&plain)
            .map_err(|error| Strange::Shape(format!("its `state` is not understood: {error}")))
    }

    /// What the next writer writes.
    pub(crate) fn next<T: Serialize>(before: Option<&Self>, at: At, state: &T) -> Result<Self, Strange> {
        let plain = serde_json::to_vec(state).expect("a state is plain data");
        let state = compress_to_vec(&plain, LEVEL);
        if state.len() + BESIDE > LARGEST {
            return Err(Strange::TooLarge(state.len()));
        }
        // An item that was deleted and made again must not come to a version that somebody still remembers.
        let version = before.map_or_else(|| fastrand::u64(..1 << 52), |seen| seen.version);
        Ok(Self { version: version + 1, at, state })
    }

    /// The item to write.
    pub(crate) fn attributes(&self, id: &str, expires: At) -> Attributes {
        let number = |number: u64| AttributeValue::N(number.to_string());
        [
            (KEY, AttributeValue::S(id.to_owned())),
            ("protocol", number(u64::from(PROTOCOL))),
            (VERSION, number(self.version)),
            ("at", number(self.at)),
            ("state", AttributeValue::B(Blob::new(self.state.clone()))),
            (EXPIRES, number(expires.div_ceil(1_000))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

fn number(attributes: &Attributes, name: &str) -> Result<u64, Strange> {
    match attributes.get(name) {
        Some(AttributeValue::N(text)) => {
            text.parse().map_err(|_| Strange::Shape(format!("its `{name}` is {text}")))
        }
        other => Err(Strange::Shape(format!("its `{name}` is {}, not a number", kind(other)))),
    }
}

fn kind(value: Option<&AttributeValue>) -> &'static str {
    match value {
        None => "missing",
        Some(AttributeValue::S(_)) => "a string",
        Some(AttributeValue::N(_)) => "a number",
        Some(AttributeValue::B(_)) => "bytes",
        Some(_) => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(state: &str) -> Attributes {
        Seen::next(None, 5, &state).unwrap().attributes("t:b:1", 1_001)
    }

    #[test]
    fn an_item_comes_back_as_it_was_written() {
        let first = Seen::of(&written("a")).unwrap();
        assert_eq!((first.at, first.state::<String>().unwrap().as_str()), (5, "a"));
        assert_eq!(Seen::next(Some(&first), 6, &"b").unwrap().version, first.version + 1);
        assert_ne!(Seen::of(&written("a")).unwrap().version, first.version, "made again, it is another one");
        assert_eq!(
            written("a")[EXPIRES],
            AttributeValue::N("2".to_owned()),
            "whole seconds, not before its time"
        );
    }

    #[test]
    fn an_item_of_another_program_is_told_by_what_is_wrong_with_it() {
        let mut other = written("a");
        other.insert("protocol".to_owned(), AttributeValue::N("7".to_owned()));
        let told = Seen::of(&other).unwrap_err();
        assert_eq!(told, Strange::Protocol(Unanswered::Protocol { found: 7, known: PROTOCOL }));
        for (name, value, told) in [
            ("protocol", None, "its `protocol` is missing, not a number"),
            ("version", Some(AttributeValue::S("1".to_owned())), "its `version` is a string, not a number"),
            ("state", Some(AttributeValue::Bool(true)), "its `state` is something else, not bytes"),
        ] {
            let mut other = written("a");
            other.remove(name);
            other.extend(value.map(|value| (name.to_owned(), value)));
            assert_eq!(Seen::of(&other).unwrap_err(), Strange::Shape(told.to_owned()));
        }
        let mut other = written("a");
        other.insert("state".to_owned(), AttributeValue::B(Blob::new(*b"\xff\xff")));
        assert!(Seen::of(&other).unwrap().state::<String>().is_err());
        assert!(Seen::of(&written("a")).unwrap().state::<u64>().is_err());
    }

    #[test]
    fn a_state_that_no_item_holds_is_not_written() {
        let mut rng = fastrand::Rng::with_seed(1);
        let noise: String = (0..600_000).map(|_| rng.alphanumeric()).collect();
        assert!(matches!(Seen::next(None, 0, &noise), Err(Strange::TooLarge(size)) if size > 400_000));
    }
}
