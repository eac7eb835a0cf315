//! Identifiers as text and as bytes.
//!
//! Numbers above 2⁵³ do not survive JSON in every language (Lua's have 53 bits), so an identifier is hexadecimal text
//! wherever a person could read the format, and plain bytes elsewhere.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// Writes bytes as lower-case hexadecimal digits.
pub(super) fn write(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, f)
    }
}

fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(16 * digit(pair[0])? + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// `#[serde(with)]` of a fixed number of bytes.
pub(super) mod bytes {
    use super::{Deserialize, Deserializer, Error, Serialize, Serializer, Text, read};

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(&Text(bytes)) } else { bytes.as_slice().serialize(to) }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        if from.is_human_readable() {
            let text = String::deserialize(from)?;
            return read(&text)
                .ok_or_else(|| D::Error::custom(format!("`{text}` is not {} hex digits", 2 * N)));
        }
        let bytes = Vec::<u8>::deserialize(from)?;
        bytes.try_into().map_err(|_| D::Error::custom(format!("an identifier must have {N} bytes")))
    }
}

/// `#[serde(with)]` of a 64-bit number that names something.
pub(super) mod number {
    use super::{Deserialize, Deserializer, Serialize, Serializer, bytes};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(crate) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            bytes::serialize(&number.to_be_bytes(), to)
        } else {
            number.serialize(to)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        if from.is_human_readable() {
            return bytes::deserialize(from).map(u64::from_be_bytes);
        }
        u64::deserialize(from)
    }
}

/// The same, where there may be none.
pub(super) mod maybe_number {
    use super::{Deserialize, Deserializer, Serialize, Serializer, number};

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Number(#[serde(with = "number")] u64);

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(crate) fn serialize<S: Serializer>(number: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        number.map(Number).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        Ok(Option::<Number>::deserialize(from)?.map(|Number(number)| number))
    }
}
