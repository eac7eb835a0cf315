//! The admin port: is it alive, is it ready, what does it count, what does it hold.
//!
//! Read-only, and behind the same door checks as the data port, so that a web page cannot read it through a
//! browser.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tidegate::NotReady;
use tidegate::limits::Listing;
use tidegate_core::pace::BankSnapshot;
use tidegate_store::ledger::Tally;
use tidegate_telemetry::Metrics;
use tidegate_telemetry::cache::CacheNow;
use tidegate_telemetry::tenant::Now;

use crate::caller::Caller;
use crate::fleet::{self, QuotaBody};
use crate::hygiene::Doors;
use crate::merging::Merging;
use crate::once::Once;
use crate::outbox::{Outbox, OutboxBody};
use crate::places::{Places, Used};
use crate::push::PushBody;
use crate::readers::Readers;
use crate::tenants::{Started, Tenants};

/// `/readyz` answers within this time, whatever the upstream does.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// Tenants that `/api/state` shows as a whole, unless one is asked for by its name.
const MAX_SHOWN: usize = 50;

/// Names of others, and callers, that it lists.
const MAX_LISTED: usize = 1000;

/// What the admin port shows.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) callers: Vec<Arc<Caller>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) doors: Doors,
    pub(crate) outbox: Option<Arc<Outbox>>,
}

/// Which tenant is looked at.
#[derive(Debug, Deserialize)]
struct Which {
    tenant: Option<String>,
}

/// The routes of the admin port.
pub(crate) fn router(admin: Admin, operated: Option<Router>) -> Router {
    let admin = Arc::new(admin);
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/state", get(state))
        .with_state(Arc::clone(&admin))
        .merge(operated.unwrap_or_default())
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), check_doors))
}

async fn check_doors(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    match admin.doors.check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => (refused.status, refused.message).into_response(),
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready is a gateway that can serve somebody: of several tenants at least one that was called, or as long as none was. Which are
/// not is said in any case.
async fn readyz(State(admin): State<Arc<Admin>>, Query(which): Query<Which>) -> (StatusCode, String) {
    let asked = match which.tenant.as_deref() {
        Some(name) => match admin.tenants.find(name) {
            Some(index) => Some(index),
            None => return (StatusCode::NOT_FOUND, format!("not ready: there is no tenant {name}\n")),
        },
        None => None,
    };
    let looked_at = admin.tenants.started().filter(|(index, _)| asked.is_none_or(|asked| asked == *index));
    let looks = join_all(looked_at.map(async |(index, served)| (index, not_ready(served).await))).await;
    let mut told = String::new();
    for (index, why) in looks.iter().filter_map(|(index, why)| Some((index, why.as_ref()?))) {
        match admin.tenants.len() {
            1 => writeln!(told, "not ready: {why}"),
            _ => writeln!(told, "tenant {} is not ready: {why}", admin.tenants.name(*index)),
        }
        .expect("writing to a string cannot fail");
    }
    if !looks.is_empty() && looks.iter().all(|(_, why)| why.is_some()) {
        return (StatusCode::SERVICE_UNAVAILABLE, told);
    }
    (StatusCode::OK, format!("ready\n{told}"))
}

/// Why a tenant's calls cannot be served; `None` if they can.
async fn not_ready(served: &Started) -> Option<String> {
    let upstream = &served.tenant.upstream;
    let look = async {
        upstream.check().await?;
        Ok::<_, NotReady>(fleet::is_closed(upstream).await)
    };
    match tokio::time::timeout(READY_TIMEOUT, look).await {
        Ok(Ok(false)) => None,
        Ok(Ok(true)) => {
            Some("the store of the shared quota is away, and quota.on_store_loss is closed".to_owned())
        }
        Ok(Err(why)) => Some(why.to_string()),
        Err(_) => Some(format!("the upstream did not answer within {READY_TIMEOUT:?}")),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let mut now = Vec::new();
    for (_, served) in admin.tenants.started() {
        let Started { tenant, once, .. } = &**served;
        let tally = once.tally().await.ok().flatten();
        let ledger = tally.map(|(_, tally)| (tally.entries - tally.unknown, tally.unknown));
        let label = Arc::clone(tenant.metrics.label());
        let name = tenant.upstream.tenant().as_str();
        let held = admin.outbox.as_ref().map(|outbox| outbox.held(name));
        let (outbox, sinks) = held.unzip();
        let sinks = sinks.unwrap_or_default();
        let (tally, (entries, bytes)) = tenant.readers.tally();
        let cache = CacheNow { tally, entries, bytes, bounds: tenant.readers.bounds() };
        now.push(Now { label, bank: tenant.upstream.pacer().snapshot(), ledger, outbox, sinks, cache });
    }
    let text = admin.metrics.render(now);
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

/// The listing where none is ever asked for.
const NOT_FETCHED: Listing = Listing { state: "off", credential: None, why: None, limits: Vec::new() };

/// The body of `/api/state`.
#[derive(Debug, Serialize)]
struct StateBody {
    version: &'static str,
    /// Those of the tenant that calls without a tenant go to.
    profile: Option<String>,
    upstream: Option<String>,
    tenants: Vec<TenantBody>,
    /// Those that no call has come for, or that are beyond what is shown as a whole.
    other_tenants: Vec<String>,
    callers: Vec<CallerBody>,
}

/// Calls that have places.
#[derive(Debug, Default, Serialize)]
struct CallsBody {
    under_way: usize,
    came: u64,
    refused: u64,
}

#[derive(Debug, Serialize)]
struct CallerBody {
    caller: String,
    tenant: Option<String>,
    classes: Vec<&'static str>,
    weight: u8,
    calls: CallsBody,
}

#[derive(Debug, Serialize)]
struct TenantBody {
    name: String,
    profile: String,
    upstream: String,
    calls: CallsBody,
    learnt_logins: usize,
    /// Writes that can be adopted.
    orphans: usize,
    /// Reads that were answered without a call of their own.
    cache: CacheBody,
    merging: Option<MergingBody>,
    /// What the upstream tells of its own accord.
    push: Option<PushBody>,
    /// What was written under keys.
    ledger: Option<LedgerBody>,
    /// What is to be sent later; `None` where nothing can be.
    outbox: Option<OutboxBody>,
    /// What the upstream lists of its limits.
    listing: Listing,
    /// How the quota is shared with other processes.
    quota: Option<QuotaBody>,
    #[serde(flatten)]
    bank: BankSnapshot,
}

#[derive(Debug, Default, Serialize)]
struct CacheBody {
    entries: usize,
    bytes: usize,
    hits: u64,
    joins: u64,
    fetches: u64,
    renewals: u64,
    lists: u64,
    listed: u64,
    unchanged: u64,
    closed: u64,
    evicted: u64,
}

#[derive(Debug, Default, Serialize)]
struct MergingBody {
    groups: u64,
    writes: u64,
    fallbacks: u64,
    alone: u64,
    entries: usize,
}

impl MergingBody {
    fn of(merging: &Merging) -> Self {
        let (tally, fallbacks, entries) = merging.tally();
        let tidegate_core::merge::Tally { groups, writes, alone } = tally;
        Self { groups, writes, fallbacks, alone, entries }
    }
}

impl CacheBody {
    fn of(readers: &Readers) -> Self {
        let (tally, (entries, bytes)) = readers.tally();
        let tidegate_core::cache::Tally {
            hits,
            joins,
            fetches,
            renewals,
            lists,
            listed,
            unchanged,
            closed,
            evicted,
        } = tally;
        Self { entries, bytes, hits, joins, fetches, renewals, lists, listed, unchanged, closed, evicted }
    }
}

#[derive(Debug, Serialize)]
struct LedgerBody {
    file: String,
    entries: u64,
    unknown: u64,
    problem: Option<String>,
}

async fn ledger(once: &Once) -> Option<LedgerBody> {
    match once.tally().await {
        Ok(found) => found.map(|(file, tally)| {
            let Tally { entries, unknown } = tally;
            LedgerBody { file, entries, unknown, problem: None }
        }),
        Err(error) => {
            let problem = Some(error.problem().to_string());
            Some(LedgerBody { file: error.path().display().to_string(), entries: 0, unknown: 0, problem })
        }
    }
}

fn calls(places: &Places) -> CallsBody {
    let Used { taken, came, refused } = places.used();
    CallsBody { under_way: taken, came, refused }
}

async fn tenant_body(Started { tenant, once, push, .. }: &Started, outbox: Option<&Outbox>) -> TenantBody {
    let upstream = &tenant.upstream;
    let bank = upstream.pacer().snapshot();
    TenantBody {
        name: upstream.tenant().to_string(),
        profile: upstream.profile().name.clone(),
        upstream: upstream.api_base().to_owned(),
        calls: calls(&tenant.places),
        learnt_logins: tenant.learnt.len(),
        orphans: once.orphans(),
        cache: CacheBody::of(&tenant.readers),
        merging: tenant.merging.as_deref().map(MergingBody::of),
        push: push.as_ref().map(|push| push.body()),
        ledger: ledger(once).await,
        outbox: outbox.map(|outbox| outbox.tally(upstream.tenant().as_str())),
        listing: upstream.listing().unwrap_or(NOT_FETCHED),
        quota: tenant.fleet.body(upstream, bank.fleet).await,
        bank,
    }
}

fn caller_body(caller: &Caller) -> CallerBody {
    let config = &caller.config;
    CallerBody {
        caller: config.name.clone(),
        tenant: config.tenant.clone(),
        classes: config.classes.iter().map(|class| class.name()).collect(),
        weight: config.weight,
        calls: calls(&caller.places),
    }
}

async fn state(
    State(admin): State<Arc<Admin>>,
    Query(which): Query<Which>,
) -> Result<Json<StateBody>, (StatusCode, String)> {
    let tenants = &admin.tenants;
    let shown: Vec<_> = match which.tenant {
        None => tenants.started().take(MAX_SHOWN).collect(),
        Some(name) => {
            let index = tenants.find(&name);
            let index =
                index.ok_or_else(|| (StatusCode::NOT_FOUND, format!("there is no tenant {name}\n")))?;
            tenants.get(index).map(|served| (index, served)).into_iter().collect()
        }
    };
    let is_shown = |index: &usize| shown.iter().any(|(shown, _)| shown == index);
    let others = (0..tenants.len()).filter(|index| !is_shown(index)).take(MAX_LISTED);
    let (profile, upstream) = tenants.find_or_default(None).map(|index| tenants.place(index)).unzip();
    Ok(Json(StateBody {
        version: env!("CARGO_PKG_VERSION"),
        profile,
        upstream,
        other_tenants: others.map(|index| tenants.name(index).to_string()).collect(),
        tenants: join_all(shown.iter().map(|(_, served)| tenant_body(served, admin.outbox.as_deref()))).await,
        callers: admin.callers.iter().take(MAX_LISTED).map(|caller| caller_body(caller)).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use tidegate::limits::Listed;
    use tidegate_core::pace::{
        BreakerSnapshot, DriftHour, DriftSnapshot, GateSnapshot, HoldSnapshot, ShareSnapshot, WindowSnapshot,
    };

    use super::*;

    fn keys(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(key, value)| {
                into.insert(key.clone());
                keys(value, into);
            }),
            Value::Array(elements) => elements.iter().for_each(|element| keys(element, into)),
            _ => {}
        }
    }

    #[test]
    fn every_field_of_the_state_is_documented() {
        let gate = GateSnapshot {
            name: String::new(),
            partition: String::new(),
            quota: None,
            remaining: None,
            in_flight: 0,
            concurrency: None,
            closed_for_ms: 0,
            waiting: 0,
            state: "open",
            throttles: 0,
            accepted: 0,
            strangers_per_second: 0.0,
            shared: Some(ShareSnapshot {
                permits: 0,
                lease_for_ms: 0,
                generation: 0,
                epoch: 0,
                differs: Some(String::new()),
            }),
        };
        let breaker = BreakerSnapshot { family: String::new(), state: "closed", refuses_for_ms: 0 };
        let hour = DriftHour { hours_ago: 0, throttles: 0, disagreements: 0 };
        let drift = DriftSnapshot { hours: vec![hour], ..DriftSnapshot::default() };
        let listed = Listed { key: String::new(), namespace: Some(String::new()), value: 0, use_: "used" };
        let listing = Listing {
            state: "off",
            credential: Some(String::new()),
            why: Some(String::new()),
            limits: vec![listed],
        };
        let window = WindowSnapshot {
            name: String::new(),
            open: true,
            changes_at: Some(String::new()),
            changes_in_ms: Some(0),
            holds: vec!["bulk"],
            reserve: [("poll", 50)].into(),
        };
        let held = HoldSnapshot { class: "bulk", window: String::new(), for_ms: 0, told: String::new() };
        let body = StateBody {
            version: "",
            profile: None,
            upstream: None,
            other_tenants: Vec::new(),
            callers: vec![CallerBody {
                caller: String::new(),
                tenant: None,
                classes: Vec::new(),
                weight: 1,
                calls: CallsBody::default(),
            }],
            tenants: vec![TenantBody {
                name: String::new(),
                profile: String::new(),
                upstream: String::new(),
                calls: CallsBody::default(),
                learnt_logins: 0,
                orphans: 0,
                cache: CacheBody::default(),
                outbox: Some(OutboxBody::default()),
                merging: Some(MergingBody::default()),
                push: Some(PushBody::default()),
                ledger: Some(LedgerBody { file: String::new(), entries: 0, unknown: 0, problem: None }),
                listing,
                quota: Some(QuotaBody::default()),
                bank: BankSnapshot {
                    gates: vec![gate],
                    breakers: vec![breaker],
                    drift: vec![drift],
                    windows: vec![window],
                    held: vec![held],
                    ..BankSnapshot::default()
                },
            }],
        };
        let mut names = BTreeSet::new();
        keys(&serde_json::to_value(&body).expect("a tree"), &mut names);
        let page = include_str!("../../../docs/gateway.md");
        let (_, part) = page.split_once("### The state\n").expect("a section about the state");
        let part = part.split("\n### ").next().unwrap_or_default();
        let missing: Vec<_> = names.iter().filter(|name| !part.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/gateway.md lacks {missing:?}");
    }
}
