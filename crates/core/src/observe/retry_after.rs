//! `Retry-After` and its relatives.
//!
//! RFC 9110 10.2.3 allows whole seconds and HTTP dates. Shopify writes decimals, some write an epoch; both are read. A
//! negative or unreadable value is ignored and listed (RFC 9110 asks that of no one, but a hint that cannot be read
//! is no hint). Of several values the longest wait counts: a hint may be exceeded, never undercut. Zero is kept; the
//! floor is the business of whoever waits.

use std::time::Duration;

use http::{HeaderName, header};

use super::reader::Reader;
use super::rules::ResetUnit;

/// Azure's form, also sent by `OpenAI`: more precise than the seconds next to it.
static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Azure's older form.
static X_MS_RETRY_AFTER_MS: HeaderName = HeaderName::from_static("x-ms-retry-after-ms");

pub(super) fn read(reader: &mut Reader<'_>) {
    hint(reader, &header::RETRY_AFTER, ResetUnit::Auto);
    hint(reader, &RETRY_AFTER_MS, ResetUnit::DeltaMillis);
    hint(reader, &X_MS_RETRY_AFTER_MS, ResetUnit::DeltaMillis);
    let rules = reader.rules;
    for rule in &rules.declared {
        if let Some(field) = &rule.retry_after {
            hint(reader, field, rule.reset_unit);
        }
    }
}

/// Reads every line of one field. Lines are not joined: an HTTP date has a comma of its own.
fn hint(reader: &mut Reader<'_>, field: &HeaderName, unit: ResetUnit) {
    let headers = reader.headers;
    for value in headers.get_all(field) {
        match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => {
                if let Some(reset) = reader.reset(field, text, unit) {
                    let longest = reader.out.retry_after.unwrap_or(Duration::ZERO).max(reset.after);
                    reader.out.retry_after = Some(longest);
                }
            }
            Err(_) => reader.ignore(field, "not text"),
        }
    }
}
