//! Local keys: which program calls, and what it may do.
//!
//! A key is a random text that one program sends in `Tidegate-Key`. Only its SHA-256 is configured, so that neither the file nor
//! a backup of it lets anybody in. Keys have 256 bits of chance ([`new_key`]), so a plain digest is enough: there is nothing to
//! guess that a slow hash would protect.
//!
//! A key is looked up by the first bytes of its digest and then compared as a whole in constant time. The look-up may tell by its
//! time whether those bytes are known; that helps nobody who cannot find a text with a given digest.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tidegate::{CallerId, Class};

use crate::places::Places;

/// What every key begins with, so that people and scanners of repositories know what it is.
pub const KEY_PREFIX: &str = "tgk_";

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyHash {
    type Err = String;

    /// Reads 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, String> {
        let what = if text.starts_with(KEY_PREFIX) {
            "is a key and not its hash (write the hash that `tidegate caller new NAME` printed; a key does not belong into this file)"
        } else {
            "is no SHA-256 in hexadecimal digits (`tidegate caller new NAME` makes a key and prints the hash of it)"
        };
        let digits: Vec<u8> =
            text.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| d.try_into().ok()).collect();
        if digits.len() != 64 || text.len() != 64 {
            return Err(what.to_owned());
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(hash))
    }
}

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    fn begins(&self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("eight of thirty-two"))
    }
}

/// Makes a key of these 256 random bits.
///
/// ```
/// use tidegate_gateway::{KeyHash, new_key};
///
/// let key = new_key([7; 32]);
/// assert!(key.starts_with("tgk_") && key.len() == 47);
/// assert_eq!(KeyHash::of(key.as_bytes()).to_string().len(), 64);
/// ```
pub fn new_key(chance: [u8; 32]) -> String {
    format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(chance))
}

/// A program that has a key.
#[derive(Clone, Debug)]
pub struct CallerConfig {
    /// Stands for it in messages and in `/api/state`.
    pub name: String,
    /// The hash of its key.
    pub key: KeyHash,
    /// The tenant it calls for; `None`: the one that calls without a tenant go to.
    pub tenant: Option<String>,
    /// The classes it may call in; never empty.
    pub classes: Vec<Class>,
    /// The class of its calls that name none and match no rule; one of `classes`.
    pub class: Class,
    /// Its share beside other callers of a class, from 1 to [`CallerId::MAX_WEIGHT`].
    pub weight: u8,
    /// Calls that it may have under way at once; `None`: as many as its tenant.
    pub max_calls: Option<usize>,
}

/// A caller as the gateway knows it.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) config: CallerConfig,
    pub(crate) id: CallerId,
    pub(crate) places: Arc<Places>,
}

/// All callers that have keys.
#[derive(Debug)]
pub(crate) struct Callers {
    all: Vec<Arc<Caller>>,
    by_digest: HashMap<u64, Vec<usize>>,
    /// Those of all callers without a key, where they are let in beside those that have one.
    nameless: Arc<Places>,
}

impl Callers {
    pub(crate) fn new(configs: Vec<CallerConfig>) -> Self {
        let nameless = Places::new(usize::MAX);
        let mut callers = Self { all: Vec::new(), by_digest: HashMap::new(), nameless };
        for config in configs {
            let places = Places::new(config.max_calls.unwrap_or(usize::MAX));
            // Beside it a name that a caller without a key gives itself is another one's.
            let id = CallerId::named(("key", &config.name)).weighing(config.weight);
            callers.by_digest.entry(config.key.begins()).or_default().push(callers.all.len());
            callers.all.push(Arc::new(Caller { config, id, places }));
        }
        callers
    }

    /// Nobody needs a key.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The places of who calls, where it shares those of its tenant with others that are told apart.
    pub(crate) fn places<'p>(&'p self, caller: Option<&'p Caller>) -> Option<&'p Arc<Places>> {
        match caller {
            Some(caller) => Some(&caller.places),
            None if self.is_empty() => None,
            None => Some(&self.nameless),
        }
    }

    pub(crate) fn all(&self) -> &[Arc<Caller>] {
        &self.all
    }

    /// Whose key that is.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Arc<Caller>> {
        let hash = KeyHash::of(key);
        let near = self.by_digest.get(&hash.begins())?.iter().map(|&index| &self.all[index]);
        near.into_iter().find(|caller| bool::from(caller.config.key.0.ct_eq(&hash.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written_and_nothing_else_is() {
        let hash = KeyHash::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text, "FIPS 180-4, the digest of abc");
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(text.to_uppercase().parse(), Ok(hash));
        for bad in
            ["", &text[1..], &format!("{text}0"), &text.replace('a', "g"), &format!("{}é", &text[..62])]
        {
            assert!(bad.parse::<KeyHash>().unwrap_err().contains("no SHA-256"), "{bad}");
        }
        assert!(new_key([1; 32]).parse::<KeyHash>().unwrap_err().contains("a key and not its hash"));
    }

    #[test]
    fn a_key_finds_its_caller_and_a_near_one_nobody() {
        let caller = |name: &str| CallerConfig {
            name: name.to_owned(),
            key: KeyHash::of(name.as_bytes()),
            tenant: None,
            classes: vec![Class::Bulk],
            class: Class::Bulk,
            weight: 1,
            max_calls: None,
        };
        let callers = Callers::new(vec![caller("a"), caller("b")]);
        assert_eq!(callers.find(b"b").map(|found| found.config.name.as_str()), Some("b"));
        assert!(callers.find(b"B").is_none() && callers.find(b"").is_none());
    }
}
