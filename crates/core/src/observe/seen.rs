//! Which dialects a response can speak, by the names of its headers.
//!
//! One pass over the names, by prefix and without allocating: that is all a response without quota headers pays
//! (Genesys since 2021). Only what was seen is then looked up.

use http::HeaderMap;

use super::Dialect;
use super::rules::HeaderRead;

/// Which dialects' header names a response has, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(u16);

impl Seen {
    /// Headers that name the limit that was hit; no dialect of their own.
    const HIT: Self = Self(1 << 15);

    const fn bit(dialect: Dialect) -> Self {
        Self(1 << dialect as u16)
    }

    pub(super) fn of(headers: &HeaderMap) -> Self {
        headers
            .keys()
            .map(|name| Self::in_name(name.as_str()).0)
            .fold(Self(0), |all, bits| Self(all.0 | bits))
    }

    pub(super) const fn any(self) -> bool {
        self.0 != 0
    }

    pub(super) const fn has(self, dialect: Dialect) -> bool {
        self.0 & Self::bit(dialect).0 != 0
    }

    /// What is left after the profile's choice.
    pub(super) fn among(self, read: &HeaderRead) -> Self {
        let chosen = match read {
            HeaderRead::Auto => u16::MAX,
            HeaderRead::Nothing => 0,
            HeaderRead::Only(dialects) => {
                dialects.iter().fold(Self::HIT.0, |bits, dialect| bits | Self::bit(*dialect).0)
            }
        };
        Self(self.0 & chosen)
    }

    /// The dialects that use a header of this name.
    fn in_name(name: &str) -> Self {
        let dialect = match name.as_bytes().first() {
            Some(b'x') => return Self::in_x_name(name),
            Some(b'r') => return Self::in_ietf_name(name),
            Some(b'i') if name.starts_with("inin-ratelimit-") => Dialect::Inin,
            Some(b'a') if name.starts_with("anthropic-ratelimit-") => Dialect::Anthropic,
            Some(b'z') if name.starts_with("zendesk-ratelimit-") => Dialect::Pairs,
            Some(b's') if name == "sforce-limit-info" => Dialect::Pairs,
            Some(b's') if name == "stripe-rate-limited-reason" => return Self::HIT,
            _ => return Self(0),
        };
        Self::bit(dialect)
    }

    fn in_x_name(name: &str) -> Self {
        if let Some(rest) = name.strip_prefix("x-ratelimit-") {
            let last = rest.rsplit('-').next().unwrap_or(rest);
            return Self::bit(match last {
                "requests" | "tokens" => Dialect::OpenAi,
                "second" | "minute" | "hour" | "day" | "month" | "year" => Dialect::Periods,
                _ => Dialect::XRateLimit,
            });
        }
        if name.starts_with("x-rate-limit") {
            return Self::bit(Dialect::Guide);
        }
        if name.starts_with("x-hubspot-ratelimit-") {
            return Self::bit(Dialect::HubSpot);
        }
        if name == "x-shopify-shop-api-call-limit" || name == "x-gorgias-account-api-call-limit" {
            return Self::bit(Dialect::Ratio);
        }
        Self(0)
    }

    fn in_ietf_name(name: &str) -> Self {
        match name {
            "ratelimit" => Self(Self::bit(Dialect::IetfList).0 | Self::bit(Dialect::IetfDictionary).0),
            "ratelimit-policy" => Self::bit(Dialect::IetfList),
            "ratelimit-reason" => Self::HIT,
            _ if name.starts_with("ratelimit-") => Self::bit(Dialect::IetfTriple),
            _ => Self(0),
        }
    }
}
