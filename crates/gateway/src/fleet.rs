//! What the admin port says about a quota that is shared with other processes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tidegate::Upstream;
use tidegate::observe::{Observer, StoreDone};
use tidegate::share::{OnStoreLoss, SharedQuota};

/// The store is asked how it is for so long: who looks at the state wants to see the rest of it too.
const CHECK: Duration = Duration::from_millis(500);

/// Counts exchanges with the store.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    exchanges: AtomicU64,
    failures: AtomicU64,
    /// Zero: no exchange was answered yet.
    instances: AtomicU32,
}

impl Observer for Fleet {
    fn store(&self, store: &StoreDone<'_>) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        match store.holders {
            Some(holders) => self.instances.store(holders, Ordering::Relaxed),
            None => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The part `quota` of `/api/state`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct QuotaBody {
    pub(crate) store: Option<String>,
    pub(crate) problem: Option<String>,
    pub(crate) mode: &'static str,
    pub(crate) alone_for_ms: Option<u64>,
    pub(crate) instances: Option<u32>,
    pub(crate) exchanges: u64,
    pub(crate) failures: u64,
    pub(crate) tokens: &'static str,
}

impl Fleet {
    /// How it is; nothing where the quota is this process's alone.
    pub(crate) async fn body(&self, upstream: &Upstream) -> Option<QuotaBody> {
        let quota = upstream.quota()?;
        let (store, problem) = match tokio::time::timeout(CHECK, quota.store.check()).await {
            Ok(Ok(about)) => (Some(about.what), None),
            Ok(Err(error)) => (None, Some(error.to_string())),
            Err(_) => (None, Some(format!("the store did not answer within {CHECK:?}"))),
        };
        let instances = self.instances.load(Ordering::Relaxed);
        let alone = upstream.pacer().share_mode_since().map(|since| upstream.clock().now() - since);
        Some(QuotaBody {
            store,
            problem,
            mode: match alone {
                Some(_) => by_itself(quota),
                None if instances > 0 => "joined",
                None => "idle",
            },
            alone_for_ms: alone.map(|alone| u64::try_from(alone.as_millis()).unwrap_or(u64::MAX)),
            instances: (instances > 0).then_some(instances),
            exchanges: self.exchanges.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            tokens: if quota.token_key.is_some() { "shared" } else { "own" },
        })
    }
}

/// Why calls cannot be served although the upstream is there: the store is away, and nothing may leave without it.
pub(crate) fn is_closed(upstream: &Upstream) -> bool {
    upstream.pacer().share_mode_since().is_some()
        && upstream.quota().is_some_and(|quota| quota.config.on_store_loss == OnStoreLoss::Closed)
}

fn by_itself(quota: &SharedQuota) -> &'static str {
    match quota.config.on_store_loss {
        OnStoreLoss::Share => "share",
        OnStoreLoss::Closed => "closed",
        OnStoreLoss::Open => "open",
    }
}
