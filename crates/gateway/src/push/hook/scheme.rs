//! How a webhook is signed: HMAC-SHA-256 (RFC 2104) over the body, or over the body behind what dates and names the delivery.
//!
//! Schemes differ in which headers carry what and how the bytes are written; three well-known ones are there by name:
//! * `github`: `X-Hub-Signature-256: sha256=HEX` over the body
//!   (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>);
//! * `genesys`: `X-Hub-Signature-256: sha256=BASE64` over the body, as open messaging integrations sign their outbound notifications
//!   (<https://developer.genesys.cloud/commdigital/digital/openmessaging/validateWebhooks>);
//! * `standard`: `Webhook-Signature: v1,BASE64` over `ID.TIMESTAMP.BODY` (<https://www.standardwebhooks.com>), whose secrets are
//!   written `whsec_` and base64.
//!
//! Signatures are compared in constant time.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use tidegate_core::time::Wall;

/// What a delivery is signed with.
pub(super) type Mac = [u8; 32];

/// What secrets of Standard Webhooks begin with.
const WHSEC: &str = "whsec_";

/// How the bytes of a signature are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal digits.
    Hex,
    /// Base64 (RFC 4648, section 4).
    Base64,
}

impl Encoding {
    /// Every encoding with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("hex", Self::Hex), ("base64", Self::Base64)];
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// The body alone.
    Body,
    /// `TIMESTAMP.BODY`; the header with the time, in seconds since 1970.
    Dated(HeaderName),
    /// `ID.TIMESTAMP.BODY`; the headers with the id and with the time.
    Named(HeaderName, HeaderName),
}

/// How a webhook is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// The header with the signature, or with several, a blank between them.
    pub header: HeaderName,
    /// What stands before the bytes of one.
    pub prefix: String,
    /// How its bytes are written.
    pub encoding: Encoding,
    /// What is signed.
    pub signed: Signed,
    /// Whether a secret that begins with `whsec_` is the base64 of its bytes.
    pub whsec: bool,
}

/// Why a delivery is not its sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    #[error("a header that its signature needs is missing")]
    Missing,
    #[error("its signature is not one of this hook's secret")]
    Wrong,
    #[error("it was signed too long ago, or by a clock that is ahead")]
    Stale,
}

impl Scheme {
    /// A scheme by its name: `github`, `genesys` or `standard`.
    pub fn named(name: &str) -> Option<Self> {
        let hub = |encoding| Self {
            header: HeaderName::from_static("x-hub-signature-256"),
            prefix: "sha256=".to_owned(),
            encoding,
            signed: Signed::Body,
            whsec: false,
        };
        match name {
            "github" => Some(hub(Encoding::Hex)),
            "genesys" => Some(hub(Encoding::Base64)),
            "standard" => Some(Self {
                header: HeaderName::from_static("webhook-signature"),
                prefix: "v1,".to_owned(),
                encoding: Encoding::Base64,
                signed: Signed::Named(
                    HeaderName::from_static("webhook-id"),
                    HeaderName::from_static("webhook-timestamp"),
                ),
                whsec: true,
            }),
            _ => None,
        }
    }

    /// Whether what is signed says when it was sent.
    pub(super) fn is_dated(&self) -> bool {
        self.signed != Signed::Body
    }

    /// Whether a delivery is signed with `secret`. Returns what it is signed with.
    pub(super) fn check(
        &self,
        secret: &SecretString,
        headers: &HeaderMap,
        body: &[u8],
        now: Wall,
        tolerance: Duration,
    ) -> Result<Mac, Bad> {
        let of =
            |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Bad::Missing);
        let shown = of(&self.header)?;
        let before = match &self.signed {
            Signed::Body => None,
            Signed::Dated(at) => Some((of(at)?, format!("{}.", of(at)?))),
            Signed::Named(id, at) => Some((of(at)?, format!("{}.{}.", of(id)?, of(at)?))),
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key(secret)).expect("a key of any length will do");
        if let Some((_, before)) = &before {
            mac.update(before.as_bytes());
        }
        mac.update(body);
        let ours: Mac = mac.clone().finalize().into_bytes().into();
        let is_ours = |shown: &str| {
            let bytes = shown.strip_prefix(&*self.prefix).and_then(|text| self.decode(text));
            bytes.is_some_and(|bytes| mac.clone().verify_slice(&bytes).is_ok())
        };
        if !shown.split(' ').any(is_ours) {
            return Err(Bad::Wrong);
        }
        match before {
            Some((at, _)) if !is_near(at, now, tolerance) => Err(Bad::Stale),
            _ => Ok(ours),
        }
    }

    fn key(&self, secret: &SecretString) -> Vec<u8> {
        let text = secret.expose_secret();
        let decoded =
            text.strip_prefix(WHSEC).filter(|_| self.whsec).and_then(|text| STANDARD.decode(text).ok());
        decoded.unwrap_or_else(|| text.as_bytes().to_vec())
    }

    fn decode(&self, text: &str) -> Option<Vec<u8>> {
        match self.encoding {
            Encoding::Base64 => STANDARD.decode(text).ok(),
            Encoding::Hex => {
                let digits: Option<Vec<u8>> =
                    text.chars().map(|c| c.to_digit(16).and_then(|digit| digit.try_into().ok())).collect();
                let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
                Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
            }
        }
    }
}

/// Whether a time in seconds since 1970 is near now.
fn is_near(at: &str, now: Wall, tolerance: Duration) -> bool {
    let Some(at) = at.parse::<i64>().ok().and_then(|at| at.checked_mul(1000)) else { return false };
    let apart = Duration::from_millis(now.unix_millis().abs_diff(at));
    apart <= tolerance
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn check(
        name: &str,
        secret: &str,
        fields: &[(&'static str, &str)],
        body: &str,
        at: i64,
    ) -> Result<(), Bad> {
        let scheme = Scheme::named(name).unwrap();
        let now = Wall::from_unix_millis(at * 1000);
        let tolerance = Duration::from_mins(5);
        scheme.check(&SecretString::from(secret), &headers(fields), body.as_bytes(), now, tolerance).map(drop)
    }

    /// The example of GitHub's documentation.
    #[test]
    fn a_signature_of_githubs_documentation_is_right() {
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let secret = "It's a Secret to Everybody";
        let sent = [("x-hub-signature-256", signature)];
        assert_eq!(check("github", secret, &sent, "Hello, World!", 0), Ok(()));
        assert_eq!(check("github", secret, &sent, "Hello, World?", 0), Err(Bad::Wrong));
        assert_eq!(check("github", "another", &sent, "Hello, World!", 0), Err(Bad::Wrong));
        assert_eq!(check("github", secret, &[], "Hello, World!", 0), Err(Bad::Missing));
        for odd in ["", "sha256=", "sha256=75", "sha256=zz", "757107ea", "sha1=757107ea"] {
            let sent = [("x-hub-signature-256", odd)];
            assert_eq!(check("github", secret, &sent, "Hello, World!", 0), Err(Bad::Wrong), "{odd}");
        }
    }

    /// The example of the specification's reference implementations.
    #[test]
    fn a_signature_of_standard_webhooks_is_right_for_its_time_and_its_id_only() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let body = r#"{"test": 2432232314}"#;
        let sent = |id, at, signature| {
            [("webhook-id", id), ("webhook-timestamp", at), ("webhook-signature", signature)]
        };
        let at = 1_614_265_330;
        assert_eq!(check("standard", secret, &sent(id, "1614265330", signature), body, at), Ok(()));
        let several = format!("v1,AAAA v2,x {signature}");
        assert_eq!(check("standard", secret, &sent(id, "1614265330", &several), body, at + 300), Ok(()));
        for (id, stamp, now, why) in [
            ("msg_other", "1614265330", at, Bad::Wrong),
            (id, "1614265331", at, Bad::Wrong),
            (id, "soon", at, Bad::Wrong),
            (id, "1614265330", at + 301, Bad::Stale),
            (id, "1614265330", at - 301, Bad::Stale),
        ] {
            assert_eq!(check("standard", secret, &sent(id, stamp, signature), body, now), Err(why));
        }
    }
}
