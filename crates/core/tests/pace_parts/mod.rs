//! Parts that the tests of a bank share: limits, what a server says, and who asks.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "each test binary uses a part of the parts")]

use std::time::Duration;

use http::Method;
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::{Dialect, Observation, Reading, Reset};
use tidegate_core::pace::{Ask, CallerId, Class, LimitKind, LimitSpec, Observes, Partition, TokenSlot};

/// A limit of every call, which only answers that name it are about.
pub(crate) fn limit(key: &str, kind: LimitKind, per: &[Partition]) -> LimitSpec {
    LimitSpec {
        key: key.to_owned(),
        aliases: Vec::new(),
        method: None,
        path: PathGlob::parse("/**").unwrap(),
        kind,
        per: per.to_vec(),
        pin: false,
        assumed: false,
        observes: Observes::OwnName,
    }
}

pub(crate) fn rate(quota: u64, window: Duration) -> LimitKind {
    LimitKind::Rate { quota, window }
}

/// An answer that tells how much is left of a limit, and when all of it is back.
pub(crate) fn reading(name: Option<&str>, limit: u64, remaining: u64, reset: Duration) -> Observation {
    let reading = Reading {
        name: name.map(str::to_owned),
        limit: Some(limit),
        remaining: Some(remaining),
        reset: Some(Reset { after: reset, grain: Duration::ZERO, at: None }),
        window: None,
        dialect: Dialect::Guide,
    };
    Observation { readings: vec![reading], ..Observation::default() }
}

/// The same of 300 that have no name.
pub(crate) fn told(remaining: u64, reset: Duration) -> Observation {
    reading(None, 300, remaining, reset)
}

/// An answer that says to stay away.
pub(crate) fn wait(retry_after: Duration) -> Observation {
    Observation { retry_after: Some(retry_after), ..Observation::default() }
}

/// Somebody who asks for a family's root and can wait for as long as it takes.
pub(crate) fn asking<'a>(family: &'a Family, credential: &'a CredentialId) -> Ask<'a> {
    Ask {
        method: &Method::GET,
        path: family.as_str(),
        family,
        credential,
        token: TokenSlot(0),
        class: Class::Interactive,
        caller: CallerId::ANYBODY,
        deadline: None,
        give_up_at: None,
    }
}
