//! Reading values that scenario files write as text, for `#[serde(deserialize_with = "...")]`.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tidegate_sim::text::parse_duration;

/// A [`Duration`] written as "5s" or "250ms".
pub(crate) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// An optional [`Duration`].
pub(crate) fn maybe_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// A value by its name.
pub(crate) fn parsed<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    let text = String::deserialize(from)?;
    text.parse().map_err(|error| D::Error::custom(format!("\"{text}\" {error}")))
}
