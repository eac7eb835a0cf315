//! What the admin port says about a quota that is shared with other processes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tidegate::Upstream;
use tidegate::observe::{Observer, StoreDone};
use tidegate::share::OnStoreLoss;
use tidegate_core::pace::FleetSnapshot;

/// The store is asked how it is for so long: who looks at the state wants to see the rest of it too.
const CHECK: Duration = Duration::from_millis(500);

/// Counts exchanges with the store.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    exchanges: AtomicU64,
    failures: AtomicU64,
    /// Why the last exchange brought no answer.
    problem: Mutex<Option<String>>,
}

impl Observer for Fleet {
    fn store(&self, store: &StoreDone<'_>) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        if store.holders.is_none() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        *self.problem.lock() = store.why.map(str::to_owned);
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
    pub(crate) async fn body(&self, upstream: &Upstream, fleet: Option<FleetSnapshot>) -> Option<QuotaBody> {
        let (quota, FleetSnapshot { mode, instances }) = (upstream.quota()?, fleet?);
        let (store, problem) = match quota.look(upstream.bank(), CHECK).await {
            // Exchanges do more than a look, and it is for them that permits are missing.
            Ok((about, _)) => (Some(about.what), self.problem.lock().clone()),
            Err(error) => (None, Some(error.to_string())),
        };
        let alone = upstream.pacer().share_mode_since().map(|since| upstream.clock().now() - since);
        Some(QuotaBody {
            store,
            problem,
            mode,
            alone_for_ms: alone.map(|alone| u64::try_from(alone.as_millis()).unwrap_or(u64::MAX)),
            instances,
            exchanges: self.exchanges.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            tokens: upstream.tokens(),
        })
    }
}

/// Whether calls are refused although the upstream is there: the store is away, and nothing may leave without it. Where no call has
/// asked the store yet, it is looked at now.
pub(crate) async fn is_closed(upstream: &Upstream) -> bool {
    let Some(quota) = upstream.quota() else { return false };
    if quota.config.on_store_loss != OnStoreLoss::Closed {
        return false;
    }
    let pacer = upstream.pacer();
    let met = pacer.snapshot().fleet.is_some_and(|fleet| fleet.instances.is_some());
    pacer.share_mode_since().is_some() || !met && quota.look(upstream.bank(), CHECK).await.is_err()
}
