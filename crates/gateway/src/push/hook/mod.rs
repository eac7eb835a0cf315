//! Webhooks of others: `POST /tidegate/hooks/NAME`.
//!
//! Who has the secret of a hook may say what happened, and nobody else, so a hook needs no key of a caller. Everything that a stranger can
//! send costs little: an unknown name, a body that is too long and one that comes too slowly are refused before anything is
//! computed, and what was accepted once is refused the second time.

mod scheme;
mod template;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::Value;
use tidegate::ResponseBody;
use tidegate_core::time::Wall;

use self::scheme::Mac;
pub use self::scheme::{Encoding, Scheme, Signed};
pub use self::template::HookTemplate;
use super::Kind;
use crate::hygiene::Refused;
use crate::respond;
use crate::tenants::{Started, Tenants};

/// What the paths of hooks begin with.
const HOOKS: &str = "/tidegate/hooks/";

/// A body has to come within this time.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Deliveries that are remembered, of each hook, so that none is taken twice.
const REMEMBERED: usize = 50_000;

/// For how long, where nothing that is signed says when it was sent.
const UNDATED: Duration = Duration::from_hours(24);

/// A webhook that is taken.
#[derive(Clone, Debug)]
pub struct HookConfig {
    /// The last part of its path.
    pub name: String,
    /// Whose events it brings; `None`: those of the tenant that calls without a tenant go to.
    pub tenant: Option<String>,
    /// What its deliveries are signed with.
    pub secret: SecretString,
    /// How they are signed.
    pub scheme: Scheme,
    /// How old a dated delivery may be, and how far ahead its clock.
    pub tolerance: Duration,
    /// The longest body, in bytes.
    pub max_body: usize,
    /// The topic of a delivery.
    pub topic: HookTemplate,
    /// The paths whose answers a delivery makes stale.
    pub closes: Vec<HookTemplate>,
}

impl HookConfig {
    /// How old a delivery may be, unless said otherwise.
    pub const TOLERANCE: Duration = Duration::from_mins(5);
    /// The longest body, unless said otherwise.
    pub const MAX_BODY: usize = 1 << 20;
}

/// A hook and what came over it.
#[derive(Debug)]
struct Hook {
    config: HookConfig,
    taken: Mutex<Taken>,
}

/// Deliveries that were taken, oldest first.
#[derive(Debug, Default)]
struct Taken {
    macs: HashSet<Mac>,
    line: VecDeque<(Wall, Mac)>,
}

impl Taken {
    /// Whether it was not taken before.
    fn take(&mut self, mac: Mac, now: Wall, keep: Duration) -> bool {
        while let Some((at, oldest)) = self.line.front() {
            let is_over = now.since(*at).is_some_and(|age| age > keep);
            if !is_over && self.line.len() < REMEMBERED {
                break;
            }
            self.macs.remove(oldest);
            self.line.pop_front();
        }
        if !self.macs.insert(mac) {
            return false;
        }
        self.line.push_back((now, mac));
        true
    }
}

/// All hooks of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Hooks(Vec<Hook>);

impl Hooks {
    pub(crate) fn new(configs: Vec<HookConfig>) -> Self {
        Self(configs.into_iter().map(|config| Hook { config, taken: Mutex::default() }).collect())
    }

    /// Whether a path is one of theirs.
    pub(crate) fn is_about(&self, path: &str) -> bool {
        !self.0.is_empty() && path.starts_with(HOOKS)
    }

    /// Takes a delivery.
    pub(crate) async fn deliver(
        &self,
        tenants: &Arc<Tenants>,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let name = request.uri().path().strip_prefix(HOOKS).unwrap_or_default();
        let Some(hook) = self.0.iter().find(|hook| hook.config.name == name) else {
            let unknown = refused(StatusCode::NOT_FOUND, "unknown-hook", "there is no webhook of this name");
            return respond::refused(tenants.shape(None), &unknown);
        };
        let index = tenants.find_or_default(hook.config.tenant.as_deref());
        let shape = tenants.shape(index);
        let started = match index {
            Some(index) => tenants.start(index).await,
            None => Err(Arc::from("its tenant is not served")),
        };
        let served = match started {
            Ok(served) => served,
            Err(why) => return respond::not_started(shape, &why),
        };
        let taken = hook.read(request, served.tenant.upstream.clock().wall()).await;
        let outcome = taken.as_ref().err().map_or("taken", |refused| refused.reason);
        served.tenant.metrics.hook(&hook.config.name, outcome);
        match taken {
            Ok((headers, body)) => match hook.tell(&served, &headers, &body) {
                Ok(()) => {
                    let mut response = Response::new(ResponseBody::from(Bytes::new()));
                    *response.status_mut() = StatusCode::NO_CONTENT;
                    response
                }
                Err(refused) => respond::refused(shape, &refused),
            },
            Err(refused) => {
                tracing::warn!(target: "tidegate", hook = hook.config.name, "a delivery is refused: {}", refused.message);
                respond::refused(shape, &refused)
            }
        }
    }
}

impl Hook {
    /// Reads a delivery and checks that it is its sender's, and new.
    async fn read(&self, request: Request<Incoming>, now: Wall) -> Result<(HeaderMap, Value), Refused> {
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            return Err(refused(StatusCode::METHOD_NOT_ALLOWED, "method", "webhooks are delivered by POST"));
        }
        let reading = tokio::time::timeout(BODY_WITHIN, Limited::new(body, self.config.max_body).collect());
        let body = match reading.await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, "body", "the body is too long"));
            }
            Ok(Err(_)) | Err(_) => {
                return Err(refused(StatusCode::BAD_REQUEST, "body", "the body could not be read"));
            }
        };
        self.check(&parts.headers, &body, now)?;
        let body = serde_json::from_slice(&body)
            .map_err(|_| refused(StatusCode::BAD_REQUEST, "no-json", "the body is no JSON"))?;
        Ok((parts.headers, body))
    }

    fn check(&self, headers: &HeaderMap, body: &[u8], now: Wall) -> Result<(), Refused> {
        let HookConfig { secret, scheme, tolerance, .. } = &self.config;
        let mac = scheme.check(secret, headers, body, now, *tolerance).map_err(|why| {
            let reason = if why == scheme::Bad::Stale { "stale" } else { "bad-signature" };
            refused(StatusCode::UNAUTHORIZED, reason, &why.to_string())
        })?;
        // What is dated is refused by its date once it is forgotten here.
        let keep = if scheme.is_dated() { *tolerance * 2 } else { UNDATED };
        if self.taken.lock().take(mac, now, keep) {
            return Ok(());
        }
        Err(refused(StatusCode::CONFLICT, "replayed", "this delivery was taken before"))
    }

    fn tell(&self, served: &Started, headers: &HeaderMap, body: &Value) -> Result<(), Refused> {
        let no_topic = || {
            let what = format!("the delivery lacks what its topic `{}` is made of", self.config.topic);
            refused(StatusCode::UNPROCESSABLE_ENTITY, "no-topic", &what)
        };
        let topic = self.config.topic.topic(headers, body).ok_or_else(no_topic)?;
        served.tenant.metrics.push_event("hook", "new");
        served.feed.publish(&topic, Bytes::from(body.to_string()), Kind::Event { late: false });
        for path in self.config.closes.iter().filter_map(|path| path.path(headers, body)) {
            served.tenant.readers.event(&served.tenant, &path);
        }
        Ok(())
    }
}

fn refused(status: StatusCode, reason: &'static str, message: &str) -> Refused {
    Refused { status, reason, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_taken_once_while_it_is_remembered() {
        let at = |minutes: i64| Wall::from_unix_millis(minutes * 60_000);
        let mut taken = Taken::default();
        let keep = Duration::from_mins(10);
        assert!(taken.take([1; 32], at(0), keep) && !taken.take([1; 32], at(9), keep));
        assert!(taken.take([1; 32], at(11), keep), "its date refuses it by then");
        for number in 0..=REMEMBERED {
            let mut mac = [0; 32];
            mac[..8].copy_from_slice(&number.to_be_bytes());
            taken.take(mac, at(12), keep);
        }
        assert_eq!((taken.macs.len(), taken.line.len()), (REMEMBERED, REMEMBERED));
    }
}
