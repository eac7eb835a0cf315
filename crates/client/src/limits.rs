//! Fetching the upstream's own listing of its limits, in the background.
//!
//! After the first use of a credential we hold the secret of, one task asks as that credential, by calls like any other:
//! class `poll`, paced, retried, with a bounded wait. No call waits for it. What is read becomes the quotas of the declared
//! limits of those keys; what went wrong is an event and nothing else, because the declared numbers hold anyhow. There is
//! no task between two fetches: the next use after the refresh is due starts the next one. When to ask, and as whom, is
//! [`FetchPlan`]'s decision.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;
use tidegate_core::event::Event;
use tidegate_core::key::CredentialId;
use tidegate_core::listing::{Denied, FetchPlan, ListedLimit, MAX_LISTING, read_listing, read_why};
use tidegate_core::pace::{Class, Named, Quoted};
use tidegate_core::profile::LimitsSource;
use tidegate_core::time::Mono;
use tokio::time::timeout;

use crate::client::Client;
use crate::credential::Credential;
use crate::upstream::Upstream;

/// The longest wait of one call for its turn. Whoever is busy for longer is asked again later.
const MAX_WAIT: Duration = Duration::from_mins(10);

/// What is known from the upstream's listing of its limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// `not asked`, `asking`, `fetched`, `denied` or `failed`: how the latest fetch went.
    pub state: &'static str,
    /// As whom it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Why nothing came of it, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What the latest fetch that succeeded listed.
    pub limits: Vec<Listed>,
}

/// One limit of the listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its namespace, where the listing names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its value, as listed.
    pub value: u64,
    /// What became of it: `used`, `pinned`, `overruled` (another name of the same limit decides), `unknown` (no limit of
    /// that name is declared) or `unusable`.
    #[serde(rename = "use")]
    pub use_: &'static str,
}

/// The fetching of one upstream.
#[derive(Debug)]
pub(crate) struct Fetching {
    rules: LimitsSource,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    plan: FetchPlan,
    listing: Listing,
}

impl Fetching {
    pub(crate) fn new(rules: LimitsSource) -> Self {
        let plan = FetchPlan::new(rules.refresh);
        let listing = Listing { state: "not asked", ..Listing::default() };
        Self { rules, state: Mutex::new(State { plan, listing }) }
    }

    pub(crate) fn listing(&self) -> Listing {
        self.state.lock().listing.clone()
    }

    fn begin(&self, now: Mono, credential: &CredentialId) -> bool {
        let mut state = self.state.lock();
        let due = state.plan.used(now, credential);
        if due {
            state.listing.state = "asking";
            state.listing.credential = Some(credential.to_string());
        }
        due
    }

    fn end(&self, how: &'static str, why: Option<String>, plan: impl FnOnce(&mut FetchPlan)) {
        let mut state = self.state.lock();
        plan(&mut state.plan);
        state.listing.state = how;
        state.listing.why = why;
    }
}

/// Starts a fetch if this use of `credential` is the occasion. Only credentials whose tokens we fetch ourselves: what a
/// caller brought is not ours to make calls of our own with.
pub(crate) fn used(upstream: &Arc<Upstream>, credential: &Credential) {
    let (Some(fetching), Credential::Managed(manager)) = (upstream.fetching(), credential) else { return };
    if fetching.begin(upstream.clock().now(), manager.id()) {
        let task = Task { upstream: Arc::clone(upstream), credential: credential.clone(), ended: false };
        tokio::spawn(task.run());
    }
}

/// One fetch.
struct Task {
    upstream: Arc<Upstream>,
    credential: Credential,
    ended: bool,
}

/// What one path answered.
enum Said {
    Listed(Vec<ListedLimit>),
    Denied(StatusCode, Option<String>),
    Nothing(String),
}

impl Task {
    async fn run(mut self) {
        let paths = self.fetching().rules.paths.clone();
        let (mut limits, mut listed, mut denied): (Vec<(usize, ListedLimit)>, bool, _) =
            (Vec::new(), false, None);
        for (answer, path) in paths.into_iter().enumerate() {
            match self.ask(&path).await {
                Said::Listed(more) => {
                    listed = true;
                    for limit in more {
                        if limits.iter().all(|(_, known)| known.key != limit.key) {
                            limits.push((answer, limit));
                        }
                    }
                }
                Said::Denied(status, why) => denied = denied.or(Some((status, why))),
                // Half a listing is not taken: which path decides about a key would change from day to day.
                Said::Nothing(why) => return self.failed(why),
            }
        }
        match denied {
            Some((status, why)) if !listed => self.denied(status, why),
            _ => self.fetched(limits),
        }
    }

    async fn ask(&self, path: &str) -> Said {
        let client = Client::over(Arc::clone(&self.upstream));
        let call = client.get(path).class(Class::Poll).max_wait(MAX_WAIT).credential(self.credential.clone());
        let response = match call.send().await {
            Ok(response) => response,
            Err(error) => return Said::Nothing(error.to_string()),
        };
        let status = response.status();
        let patience = self.upstream.profile().timeouts.bulk;
        let body = match timeout(patience, response.into_body().bytes(MAX_LISTING)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Said::Nothing(format!("{path}: {error}")),
            Err(_) => return Said::Nothing(format!("{path}: the answer did not end within {patience:?}")),
        };
        let rules = &self.fetching().rules;
        match status {
            StatusCode::OK => match read_listing(rules, &body) {
                Ok(limits) => Said::Listed(limits),
                Err(error) => Said::Nothing(format!("{path}: {error}")),
            },
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Said::Denied(status, read_why(rules, &body)),
            status => Said::Nothing(format!("{path} was answered {status}")),
        }
    }

    /// `limits`: each with the number of the answer it stood in.
    fn fetched(&mut self, limits: Vec<(usize, ListedLimit)>) {
        let quoted: Vec<Quoted<'_>> = limits
            .iter()
            .map(|(answer, limit)| Quoted { key: &limit.key, value: limit.value, answer: *answer })
            .collect();
        let outcomes = self.upstream.pacer().set_quotas(&quoted);
        let limits: Vec<Listed> = limits
            .into_iter()
            .zip(outcomes)
            .map(|((_, ListedLimit { key, namespace, value }), use_)| Listed {
                key,
                namespace,
                value,
                use_: use_.name(),
            })
            .collect();
        let used = limits.iter().filter(|limit| limit.use_ == Named::Used.name()).count();
        let unused = limits.len() - used;
        let (now, chance) = (self.upstream.clock().now(), fastrand::f64());
        self.fetching().state.lock().listing.limits = limits;
        self.end("fetched", None, |plan| plan.fetched(now, chance));
        self.tell(Event::LimitsListed { credential: self.credential.id(), used, unused });
    }

    fn denied(&mut self, status: StatusCode, why: Option<String>) {
        let (now, credential) = (self.upstream.clock().now(), self.credential.id());
        let mut again = false;
        let sentence = why.clone().unwrap_or_else(|| status.to_string());
        self.end("denied", Some(sentence), |plan| again = plan.denied(now, &credential) == Denied::Again);
        self.tell(Event::LimitsDenied { credential, status: status.as_u16(), why, again });
    }

    fn failed(&mut self, why: String) {
        let now = self.upstream.clock().now();
        let mut again_in = Duration::ZERO;
        self.end("failed", Some(why.clone()), |plan| again_in = plan.failed(now));
        self.tell(Event::LimitsUnread { credential: self.credential.id(), why, again_in });
    }

    fn end(&mut self, how: &'static str, why: Option<String>, plan: impl FnOnce(&mut FetchPlan)) {
        self.ended = true;
        self.fetching().end(how, why, plan);
    }

    fn tell(&self, event: Event) {
        self.upstream.observers().events(&[event]);
    }

    fn fetching(&self) -> &Fetching {
        self.upstream.fetching().expect("a task is made for an upstream that fetches")
    }
}

/// A task whose runtime ends has failed: another runtime's next use may ask again.
impl Drop for Task {
    fn drop(&mut self) {
        if !self.ended {
            let now = self.upstream.clock().now();
            self.end("failed", Some("it was cut off".to_owned()), |plan| {
                plan.failed(now);
            });
        }
    }
}
