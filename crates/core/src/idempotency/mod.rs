//! The key a write carries on every attempt.
//!
//! An upstream can recognise a repeated write only if the repeat carries the same key, also when it is sent by
//! another process after a crash. So the key is not drawn but computed: from the tenant, the transaction id, the
//! method, the target and the digest of the body. Same transaction and same payload, same key; another payload or
//! target, another key, because it is another write.
//!
//! Rules:
//!
//! * which methods carry a key is the profile's word: POST, PUT and PATCH unless it says otherwise;
//! * the parts are hashed with their lengths before them, so that no two different lists of parts give the same
//!   bytes;
//! * the body counts by its JSON value (RFC 8785), so that a caller that writes its members in another order after
//!   a restart sends the same write. Where the canonical form would hide a difference, the raw bytes count:
//!   see [`canonical_json`];
//! * without a caller's transaction id, the key is random bits that the caller of this module draws; nothing is hashed;
//! * the result is stamped as a UUID, version 4 by default because the Genesys guide asks for one, version 8 (RFC 9562
//!   §5.8, made for this) where the profile allows it.

mod canonical;

use std::fmt;
use std::time::Duration;

use http::Method;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::key::Tenant;
use crate::time::Wall;

pub use canonical::canonical_json;

/// Separates these hashes from any other use of SHA-256 over the same parts, and versions their layout.
const LAYOUT: &str = "tidegate key 1";

/// How far a wall clock may be set back by ordinary discipline (NTP steps, suspended machines) without saying anything
/// about the age of a key.
pub const CLOCK_SLACK: Duration = Duration::from_mins(5);

/// The age of a key that was first sent at `first`, where both times are of a wall clock and a restart may lie between
/// them.
///
/// A clock that was set back makes the key look younger than it is, and a key that the upstream has forgotten must not be
/// trusted. Within [`CLOCK_SLACK`] that is clock discipline and the key counts as new; more says that nothing is known of
/// the time in between, and then the key is as old as can be.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::idempotency::age;
/// use tidegate_core::time::Wall;
///
/// let at = Wall::from_unix_millis;
/// assert_eq!(age(at(1_000), at(61_000)), Duration::from_mins(1));
/// assert_eq!(age(at(1_000), at(400)), Duration::ZERO);
/// assert_eq!(age(at(3_600_000), at(1_000)), Duration::MAX);
/// ```
pub fn age(first: Wall, now: Wall) -> Duration {
    match (now.since(first), first.since(now)) {
        (Some(age), _) => age,
        (None, Some(back)) if back <= CLOCK_SLACK => Duration::ZERO,
        (None, _) => Duration::MAX,
    }
}

/// SHA-256 of a body, by which two bodies count as the same write or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyDigest([u8; 32]);

impl BodyDigest {
    /// The digest of `body` as its media type asks for: by value for JSON types (`application/json`, `…+json`) and
    /// where none is given, else by bytes.
    pub fn of(content_type: Option<&str>, body: &[u8]) -> Self {
        if content_type.is_none_or(is_json) { Self::json(body) } else { Self::raw(body) }
    }

    /// The digest of the canonical form of a JSON text; of the bytes if it has none.
    ///
    /// ```
    /// use tidegate_core::idempotency::BodyDigest;
    ///
    /// let digest = BodyDigest::json(br#"{"name": "Kim", "level": 4.50}"#);
    /// assert_eq!(digest, BodyDigest::json(br#"{"level":4.5,"name":"\u004bim"}"#));
    /// assert_ne!(digest, BodyDigest::json(br#"{"level":4.6,"name":"Kim"}"#));
    /// ```
    pub fn json(body: &[u8]) -> Self {
        // Both kinds share one space of digests without harm: a text that equals the canonical form of another text
        // has the same value, digit by digit.
        canonical_json(body).map_or_else(|| Self::raw(body), |canonical| Self::raw(&canonical))
    }

    /// The digest of the bytes.
    pub fn raw(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }

    /// A digest read back from where [`as_bytes`](Self::as_bytes) was stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyDigest({self})")
    }
}

/// SHA-256 over `parts`, each with its length before it, so that no two lists of parts give the same bytes. `label` goes
/// first: it separates the uses of this hash, and versions the layout of each.
pub fn digest(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in std::iter::once(&label.as_bytes()).chain(parts) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// What names a logical write across attempts, processes and restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction<'a> {
    /// The caller's own id.
    Given(&'a str),
    /// The caller gave none: 128 random bits, drawn once per call. They are the key.
    Random(u128),
}

/// How the key is marked as a UUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamp {
    /// Version 4: "random", which is how the Genesys guide writes it.
    #[default]
    V4,
    /// Version 8: "custom", which is what a hash is.
    V8,
}

/// A write, as far as its key depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The organisation written to.
    pub tenant: &'a Tenant,
    /// The transaction.
    pub transaction: Transaction<'a>,
    /// The method.
    pub method: &'a Method,
    /// Path and query, as sent upstream.
    pub target: &'a str,
    /// The body.
    pub body: &'a BodyDigest,
}

impl Write<'_> {
    /// The key of this write.
    ///
    /// ```
    /// use http::Method;
    /// use tidegate_core::idempotency::{BodyDigest, Stamp, Transaction, Write};
    /// use tidegate_core::key::Tenant;
    ///
    /// let tenant = Tenant::new("acme");
    /// let body = BodyDigest::json(b"{}");
    /// let transaction = Transaction::Given("order-17");
    /// let write = Write { tenant: &tenant, transaction, method: &Method::POST, target: "/api/v2/users", body: &body };
    /// assert_eq!(write.key(Stamp::V4).get_version_num(), 4);
    /// assert_eq!(write.key(Stamp::V4), write.key(Stamp::V4));
    /// ```
    pub fn key(&self, stamp: Stamp) -> Uuid {
        let bits = match self.transaction {
            Transaction::Random(bits) => bits.to_be_bytes(),
            Transaction::Given(id) => self.hash(id),
        };
        match stamp {
            Stamp::V4 => Builder::from_random_bytes(bits).into_uuid(),
            Stamp::V8 => Builder::from_custom_bytes(bits).into_uuid(),
        }
    }

    fn hash(&self, transaction: &str) -> [u8; 16] {
        let parts: [&[u8]; 5] = [
            self.tenant.as_str().as_bytes(),
            transaction.as_bytes(),
            self.method.as_str().as_bytes(),
            self.target.as_bytes(),
            self.body.as_bytes(),
        ];
        let digest = digest(LAYOUT, &parts);
        let mut bits = [0; 16];
        bits.copy_from_slice(&digest[..16]);
        bits
    }
}

/// Whether a media type is JSON: `application/json`, `text/json` or a `+json` suffix (RFC 6839 §3.1).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, transaction: &str, method: &Method, target: &str, body: &str) -> Uuid {
        let tenant = Tenant::new(tenant);
        let body = BodyDigest::of(None, body.as_bytes());
        let transaction = Transaction::Given(transaction);
        Write { tenant: &tenant, transaction, method, target, body: &body }.key(Stamp::V4)
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_key_young() {
        let first = Wall::from_unix_millis(10_000_000);
        let at = |millis: i64| age(first, Wall::from_unix_millis(10_000_000 + millis));
        assert_eq!(at(30 * 3_600_000), Duration::from_hours(30));
        assert_eq!((at(0), at(-1), at(-300_000)), (Duration::ZERO, Duration::ZERO, Duration::ZERO));
        assert_eq!((at(-300_001), at(-9_000_000)), (Duration::MAX, Duration::MAX));
    }

    #[test]
    fn the_layout_of_the_hash_is_fixed() {
        // Computed with Python's hashlib over the layout written down in the module documentation: journals of
        // earlier versions depend on it.
        let key = key("acme", "order-17", &Method::POST, "/api/v2/users", r#"{"a":1}"#);
        assert_eq!(key.to_string(), "02b7ac34-121b-4106-8758-8524f0b91c72");
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(key("ab", "c", &Method::POST, "/", ""), key("a", "bc", &Method::POST, "/", ""));
        assert_ne!(key("a", "b/", &Method::POST, "/", ""), key("a", "b", &Method::POST, "//", ""));
        assert_ne!(digest("x", &[b"ab", b"c"]), digest("x", &[b"a", b"bc"]));
        assert_ne!(digest("x", &[b"a", b""]), digest("x", &[b"a"]));
        assert_ne!(digest("x", &[b"a"]), digest("y", &[b"a"]));
    }

    #[test]
    fn the_stamp_changes_six_bits_and_nothing_else() {
        let tenant = Tenant::new("acme");
        let body = BodyDigest::raw(b"");
        let write = Write {
            tenant: &tenant,
            transaction: Transaction::Random(u128::MAX),
            method: &Method::POST,
            target: "/",
            body: &body,
        };
        assert_eq!(write.key(Stamp::V4).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(write.key(Stamp::V8).to_string(), "ffffffff-ffff-8fff-bfff-ffffffffffff");
        let zeros = Write { transaction: Transaction::Random(0), ..write };
        assert_eq!(zeros.key(Stamp::V4).to_string(), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn a_random_transaction_ignores_the_payload() {
        let tenant = Tenant::new("acme");
        let (one, other) = (BodyDigest::raw(b"1"), BodyDigest::raw(b"2"));
        let transaction = Transaction::Random(7);
        let write = Write { tenant: &tenant, transaction, method: &Method::POST, target: "/", body: &one };
        assert_eq!(write.key(Stamp::V4), Write { body: &other, ..write }.key(Stamp::V4));
    }

    #[test]
    fn the_media_type_says_whether_the_value_or_the_bytes_count() {
        let same = |content_type| BodyDigest::of(content_type, b"1.0") == BodyDigest::of(content_type, b"1");
        for json in
            [None, Some("application/json"), Some("Application/JSON; charset=utf-8"), Some("a/scim+json")]
        {
            assert!(same(json), "{json:?}");
        }
        for other in
            [Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data")]
        {
            assert!(!same(other), "{other:?}");
        }
    }

    #[test]
    fn a_stored_digest_reads_back() {
        let digest = BodyDigest::raw(b"abc");
        assert_eq!(BodyDigest::from_bytes(*digest.as_bytes()), digest);
        assert!(digest.to_string().starts_with("ba7816bf8f01cfea"), "FIPS 180-4, first example");
    }
}
