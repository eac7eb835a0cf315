//! The hand that takes values out of a header map and puts readings into an observation, within bounds.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use super::rules::{HeaderRules, ResetUnit};
use super::when::{When, http_date};
use super::{Dialect, Ignored, MAX_DURATION, MAX_IGNORED, MAX_READINGS, Observation, Reading, Reset};
use crate::time::Wall;

/// Longest value that is read, all lines of a field together. Real ones have some 200 bytes; the bound keeps a hostile
/// server from making every answer expensive.
const MAX_VALUE: usize = 2048;

/// Longest name that is kept, of a limit or an ignored field.
const MAX_NAME: usize = 128;

pub(super) struct Reader<'a> {
    pub(super) rules: &'a HeaderRules,
    pub(super) headers: &'a HeaderMap,
    /// The instant absolute times are read against.
    pub(super) now: Wall,
    pub(super) out: Observation,
}

impl<'a> Reader<'a> {
    pub(super) fn new(rules: &'a HeaderRules, headers: &'a HeaderMap, received: Wall) -> Self {
        let mut reader = Self { rules, headers, now: received, out: Observation::default() };
        if let Some(text) = reader.text(&header::DATE) {
            reader.out.date = http_date(&text);
            match reader.out.date {
                Some(date) => reader.now = date,
                None => reader.ignore(&header::DATE, "not an HTTP date"),
            }
        }
        reader
    }

    /// Lists a field as ignored.
    pub(super) fn ignore(&mut self, field: &HeaderName, why: &'static str) {
        self.ignore_name(field.as_str(), why);
    }

    pub(super) fn ignore_name(&mut self, field: &str, why: &'static str) {
        note(&mut self.out, field, why);
    }

    /// The value of a field, all its lines joined by commas (RFC 9110 5.3), if it is text of a sane length.
    pub(super) fn text(&mut self, field: &HeaderName) -> Option<Cow<'a, str>> {
        let headers = self.headers;
        let mut lines = headers.get_all(field).iter();
        let first = lines.next()?;
        let mut text = match std::str::from_utf8(first.as_bytes()) {
            Ok(text) => Cow::Borrowed(text.trim()),
            Err(_) => return self.refuse(field, "not text"),
        };
        for line in lines {
            let Ok(line) = std::str::from_utf8(line.as_bytes()) else {
                return self.refuse(field, "not text");
            };
            if text.len() + line.len() > MAX_VALUE {
                return self.refuse(field, "too long");
            }
            let joined = text.to_mut();
            joined.push_str(", ");
            joined.push_str(line.trim());
        }
        if text.len() > MAX_VALUE {
            return self.refuse(field, "too long");
        }
        Some(text)
    }

    fn refuse<T>(&mut self, field: &HeaderName, why: &'static str) -> Option<T> {
        self.ignore(field, why);
        None
    }

    /// Reads `text` of `field` as the time of a reset.
    pub(super) fn reset(&mut self, field: &HeaderName, text: &str, unit: ResetUnit) -> Option<Reset> {
        match When::parse(text, unit).and_then(|when| when.resolve(self.now)) {
            Ok(reset) => Some(reset),
            Err(why) => self.refuse(field, why),
        }
    }

    /// A window of `seconds`, if it is one.
    pub(super) fn window(&mut self, field: &HeaderName, seconds: u64) -> Option<Duration> {
        let window = Duration::from_secs(seconds);
        if window.is_zero() {
            return self.refuse(field, "a window of no length");
        }
        if window > MAX_DURATION {
            return self.refuse(field, "a window of more than a year");
        }
        Some(window)
    }

    /// The value of a field that names something.
    pub(super) fn name(&mut self, field: &HeaderName) -> Option<String> {
        let text = self.text(field)?;
        (!text.is_empty()).then(|| bounded(&text))
    }

    /// Adds a reading that `field` (one of its headers, for reporting) gave.
    pub(super) fn push(&mut self, field: &HeaderName, mut reading: Reading) {
        if reading.limit == Some(0) {
            self.ignore(field, "a limit of zero");
            reading.limit = None;
            if reading.reset.is_none() {
                return;
            }
        }
        if reading.limit.is_none() && reading.remaining.is_none() && reading.reset.is_none() {
            return;
        }
        reading.name = reading.name.map(|name| bounded(&name));
        if let Some(twin) = self.out.readings.iter_mut().find(|known| known.name == reading.name) {
            let ruled = twin.dialect == Dialect::Declared && reading.dialect != Dialect::Declared;
            if ruled || merge(twin, &reading) {
                return;
            }
            reading.name = Some(self.free_name(&reading));
        }
        if self.out.readings.len() < MAX_READINGS {
            self.out.readings.push(reading);
        } else {
            self.ignore(field, "more limits than are kept");
        }
    }

    /// A name for a limit whose own is taken: its dialect, with a number if need be.
    fn free_name(&self, reading: &Reading) -> String {
        let base = match &reading.name {
            Some(name) => format!("{name} ({})", reading.dialect.name()),
            None => reading.dialect.name().to_owned(),
        };
        let taken = |name: &str| self.out.readings.iter().any(|known| known.name.as_deref() == Some(name));
        if !taken(&base) {
            return base;
        }
        let numbered = (2..=MAX_READINGS + 1).map(|n| format!("{base} {n}"));
        numbered.into_iter().find(|name| !taken(name)).unwrap_or(base)
    }
}

/// Lists a field as ignored, within bounds.
pub(super) fn note(out: &mut Observation, field: &str, why: &'static str) {
    if out.ignored.len() < MAX_IGNORED {
        out.ignored.push(Ignored { field: bounded(field), why });
    }
}

/// `text`, cut to the longest name kept.
pub(super) fn bounded(text: &str) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_NAME).last();
    text[..end.unwrap_or(0)].to_owned()
}

/// Joins `other` into `known` if both can be the same limit, and says whether it did.
fn merge(known: &mut Reading, other: &Reading) -> bool {
    let agree = |a: Option<u64>, b: Option<u64>| a.is_none() || b.is_none() || a == b;
    if !agree(known.limit, other.limit) || !agree(known.remaining, other.remaining) {
        return false;
    }
    known.limit = known.limit.or(other.limit);
    known.remaining = known.remaining.or(other.remaining);
    known.window = known.window.or(other.window);
    known.reset = match (known.reset, other.reset) {
        (Some(a), Some(b)) => Some(if b.grain < a.grain { b } else { a }),
        (a, b) => a.or(b),
    };
    true
}
