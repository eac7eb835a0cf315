//! Who a call is made as.
//!
//! A credential is one of three things: one we hold the secret of and renew tokens for, a bearer token that passes
//! through unchanged, or none. Limits are paced per credential in every case, so each has an identity that is safe
//! to log: a configured name, or a short hash.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use tidegate_core::key::CredentialId;
use tidegate_core::pace::TokenSlot;

use crate::token::TokenManager;

/// Who a call is made as.
#[derive(Clone)]
pub enum Credential {
    /// We hold the secret; tokens are fetched and renewed.
    Managed(Arc<TokenManager>),
    /// The caller's own token, passed on as it is.
    Bearer(Bearer),
    /// Nobody we know: nothing is attached, and an `Authorization` that the request has is left alone.
    Anonymous,
}

impl Credential {
    /// The identity limits are counted for.
    pub fn id(&self) -> CredentialId {
        match self {
            Self::Managed(manager) => manager.id().clone(),
            Self::Bearer(bearer) => bearer.id.clone(),
            Self::Anonymous => CredentialId::new("anonymous"),
        }
    }

    /// The line of tokens that per-token limits are counted for: a renewed token inherits its predecessor's.
    pub fn token_slot(&self) -> TokenSlot {
        match self {
            Self::Managed(manager) => TokenSlot(manager.slot()),
            Self::Bearer(bearer) => TokenSlot(bearer.slot),
            Self::Anonymous => TokenSlot(0),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managed(manager) => write!(f, "Managed({})", manager.id()),
            Self::Bearer(bearer) => write!(f, "Bearer({})", bearer.id),
            Self::Anonymous => f.write_str("Anonymous"),
        }
    }
}

/// A token that is passed on as it is.
#[derive(Clone)]
pub struct Bearer {
    id: CredentialId,
    slot: u64,
    value: HeaderValue,
}

impl Bearer {
    /// From the value of an `Authorization` header.
    pub fn new(mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        let id = CredentialId::of_bearer(&String::from_utf8_lossy(value.as_bytes()));
        let slot =
            id.as_str().bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        Self { id, slot, value }
    }

    pub(crate) fn value(&self) -> HeaderValue {
        self.value.clone()
    }
}
