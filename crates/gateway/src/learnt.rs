//! Credentials learnt from callers that logged in through the gateway.
//!
//! An SDK logs in once and keeps its token until it fails. So a login that the upstream accepted through us is
//! remembered, in memory only, and when a call arrives with the token it brought, the token is exchanged for one
//! that is valid now: the SDK never sees its token expire. Each login keeps a token of its own, as the caller asked
//! for; limits per client are still paced together, because all logins of one client id share an identity, the
//! configured credential's if it is the same client.
//!
//! A login is forgotten when the caller deletes its token, when the upstream refuses to renew it, or 24 hours after
//! it was made. What then arrives with the old token passes through unchanged, and the upstream answers it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tidegate::token::TokenManager;
use tidegate_core::key::CredentialId;
use tidegate_core::time::Mono;

/// Logins remembered. A program that logs in for every call would otherwise fill the memory.
const MAX_LOGINS: usize = 10_000;

/// A login is renewed for at most this long after it was made.
const MAX_AGE: Duration = Duration::from_hours(24);

/// The digest of a token: tokens themselves are not kept as keys.
type TokenDigest = [u8; 32];

/// The logins of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    logins: Mutex<HashMap<TokenDigest, Login>>,
}

#[derive(Debug)]
struct Login {
    manager: Arc<TokenManager>,
    made: Mono,
    used: Mono,
}

impl Learnt {
    /// Remembers that `bearer` (the whole header value) was granted to `manager`.
    pub(crate) fn remember(&self, bearer: &[u8], manager: Arc<TokenManager>, now: Mono) {
        let mut logins = self.logins.lock();
        logins.retain(|_, login| now - login.made < MAX_AGE);
        if logins.len() >= MAX_LOGINS {
            let oldest = logins.iter().min_by_key(|(_, login)| login.used).map(|(digest, _)| *digest);
            if let Some(oldest) = oldest {
                logins.remove(&oldest);
            }
        }
        logins.insert(digest(bearer), Login { manager, made: now, used: now });
    }

    /// Who logged in and got `bearer`, if that is known and not too long ago.
    pub(crate) fn find(&self, bearer: &[u8], now: Mono) -> Option<Arc<TokenManager>> {
        let mut logins = self.logins.lock();
        let login = logins.get_mut(&digest(bearer)).filter(|login| now - login.made < MAX_AGE)?;
        login.used = now;
        Some(Arc::clone(&login.manager))
    }

    /// Forgets a login.
    pub(crate) fn forget(&self, bearer: &[u8]) {
        self.logins.lock().remove(&digest(bearer));
    }

    /// Logins remembered now.
    pub(crate) fn len(&self) -> usize {
        self.logins.lock().len()
    }
}

/// The identity of a client id: all its logins share it. A hash, because client ids are not for logs.
pub(crate) fn identity(client_id: &str) -> CredentialId {
    let [a, b, c, d, ..] = digest(client_id.as_bytes());
    CredentialId::new(format!("login-{:08x}", u32::from_be_bytes([a, b, c, d])))
}

/// The digest of a bearer, as a whole header value.
pub(crate) fn digest(text: &[u8]) -> TokenDigest {
    Sha256::digest(text).into()
}
