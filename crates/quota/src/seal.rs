//! The key that seals tokens.
//!
//! XChaCha20-Poly1305 (<https://datatracker.ietf.org/doc/html/draft-irtf-cfrg-xchacha>): its nonce has 24 bytes, so that
//! processes that do not know of each other may draw nonces by chance for the life of a key. What a value was kept as, its
//! name and its fence, is authenticated with it: a store that is not trusted can lose a value, but not pass one off as
//! another. It can bring back an old value with the fence that one had, and say what it likes about the time that is left of
//! it: who had that value of late knows it again, who has just started does not. With tokens that is good for calls that
//! the API rejects and for logins, no more.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::store::Name;

/// Seals tokens, so that a store that keeps them never sees one.
#[derive(Clone)]
pub struct TokenKey(Zeroizing<[u8; 32]>);

/// A secret that cannot become a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("has {found} bytes, at least {min} are needed (openssl rand -base64 32)", min = TokenKey::MIN_SECRET)]
pub struct KeyProblem {
    /// How long it is.
    pub found: usize,
}

impl TokenKey {
    /// Bytes that a secret needs.
    pub const MIN_SECRET: usize = 32;

    /// The key of a secret, which must be the same in the whole fleet. White space around it does not count.
    ///
    /// ```
    /// use tidegate_quota::TokenKey;
    ///
    /// assert!(TokenKey::from_secret(b"0123456789abcdef0123456789abcdef\n").is_ok());
    /// assert!(TokenKey::from_secret(b"too short").unwrap_err().to_string().contains("9 bytes"));
    /// ```
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyProblem> {
        let secret = secret.trim_ascii();
        if secret.len() < Self::MIN_SECRET {
            return Err(KeyProblem { found: secret.len() });
        }
        let mut digest = Sha256::new();
        digest.update(b"tidegate token key 1\0");
        digest.update(secret);
        Ok(Self(Zeroizing::new(digest.finalize().into())))
    }

    /// Bytes of a nonce.
    pub const NONCE: usize = 24;

    /// Seals `plain` as what is kept under `name` with `fence`. The nonce must be from a source of chance that is fit for
    /// secrets, and used once.
    ///
    /// ```
    /// use tidegate_core::share::BankKey;
    /// use tidegate_quota::{Name, TokenKey};
    ///
    /// let key = TokenKey::from_secret(&[7; 32]).unwrap();
    /// let name = Name { bank: BankKey([1; 12]), what: "token/reporting".to_owned() };
    /// let sealed = key.seal(&name, 3, [9; TokenKey::NONCE], b"a token");
    /// assert_eq!(key.open(&name, 3, &sealed).unwrap().as_slice(), b"a token");
    /// assert!(key.open(&name, 4, &sealed).is_none(), "it was not kept with that fence");
    /// ```
    pub fn seal(&self, name: &Name, fence: u64, nonce: [u8; Self::NONCE], plain: &[u8]) -> Vec<u8> {
        let aad = context(name, fence);
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &aad });
        // It fails only beyond 256 GiB.
        let sealed = sealed.expect("a token is not that long");
        [nonce.as_slice(), &sealed].concat()
    }

    /// What was sealed as the value of `name` with `fence`; `None` if it was not, or with another key.
    pub fn open(&self, name: &Name, fence: u64, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<{ Self::NONCE }>()?;
        let aad = context(name, fence);
        let plain = self.cipher().decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad });
        plain.ok().map(Zeroizing::new)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

/// The form of what is sealed. It is not that of the ledger, which changes more often: a token that was sealed before an upgrade is
/// as good after it.
const FORM: u16 = 2;

/// What is authenticated with a value: all that says which one it is.
fn context(name: &Name, fence: u64) -> Vec<u8> {
    let mut context = Vec::from(name.bank.0);
    context.extend(FORM.to_be_bytes());
    context.extend(fence.to_be_bytes());
    context.extend(name.what.as_bytes());
    context
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::share::BankKey;

    use super::*;

    fn name(what: &str) -> Name {
        Name { bank: BankKey([1; 12]), what: what.to_owned() }
    }

    #[test]
    fn a_sealed_token_opens_under_its_own_name_and_fence_only() {
        let key = TokenKey::from_secret(&[b'k'; 32]).unwrap();
        let own = name("token/a");
        let sealed = key.seal(&own, 5, [3; TokenKey::NONCE], b"secret");
        assert_eq!(key.open(&own, 5, &sealed).unwrap().as_slice(), b"secret");
        assert!(key.open(&name("token/b"), 5, &sealed).is_none());
        assert!(key.open(&Name { bank: BankKey([2; 12]), ..own.clone() }, 5, &sealed).is_none());
        assert!(key.open(&own, 4, &sealed).is_none(), "an old value is not a new one");
        assert!(TokenKey::from_secret(&[b'l'; 32]).unwrap().open(&own, 5, &sealed).is_none());
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(key.open(&own, 5, &other).is_none(), "byte {at}");
        }
        assert!(key.open(&own, 5, &sealed[..20]).is_none());
    }

    #[test]
    fn a_sealed_token_is_not_in_what_is_kept() {
        let key = TokenKey::from_secret(&[b'k'; 32]).unwrap();
        let sealed = key.seal(&name("token/a"), 1, [0; TokenKey::NONCE], b"the-bearer");
        assert!(!sealed.windows(10).any(|window| window == b"the-bearer"));
    }

    #[test]
    fn a_token_of_before_an_upgrade_can_still_be_opened() {
        let key = TokenKey::from_secret(&[b'k'; 32]).unwrap();
        // As protocol 2 of the ledger has sealed it.
        let sealed = "090909090909090909090909090909090909090909090909077e921c13eb558c2133129e9574c844c4b4f5e4413da6cfd4b3";
        let sealed: Vec<u8> = (0..sealed.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&sealed[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(key.open(&name("token/a"), 7, &sealed).unwrap().as_slice(), b"the-bearer");
    }
}
