//! The admin port: is it alive, is it ready, what does it count, what does it hold.
//!
//! Read-only, and behind the same door checks as the data port, so that a web page cannot read it through a
//! browser.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tidegate::NotReady;
use tidegate::limits::Listing;
use tidegate_core::pace::BankSnapshot;
use tidegate_store::ledger::Tally;
use tidegate_telemetry::Metrics;

use crate::fleet::{self, Fleet, QuotaBody};
use crate::hygiene::Doors;
use crate::once::Once;
use crate::tenant::Tenant;

/// `/readyz` answers within this time, whatever the upstream does.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// What the admin port shows.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) once: Arc<Once>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) doors: Doors,
}

/// The routes of the admin port.
pub(crate) fn router(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/state", get(state))
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), check_doors))
        .with_state(admin)
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

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    let upstream = &admin.tenant.upstream;
    let look = async {
        upstream.check().await?;
        Ok::<_, NotReady>(fleet::is_closed(upstream).await)
    };
    match tokio::time::timeout(READY_TIMEOUT, look).await {
        Ok(Ok(true)) => {
            let why = "not ready: the store of the shared quota is away, and quota.on_store_loss is closed\n";
            (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
        }
        Ok(Ok(false)) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        Err(_) => {
            let why = format!("not ready: the upstream did not answer within {READY_TIMEOUT:?}\n");
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let tally = admin.once.tally().await.ok().flatten();
    admin.metrics.set_ledger(tally.map(|(_, tally)| (tally.entries - tally.unknown, tally.unknown)));
    let text = admin.metrics.render(&admin.tenant.upstream.pacer().snapshot());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

/// The listing where none is ever asked for.
const NOT_FETCHED: Listing = Listing { state: "off", credential: None, why: None, limits: Vec::new() };

/// The body of `/api/state`.
#[derive(Debug, Serialize)]
struct StateBody {
    version: &'static str,
    profile: String,
    upstream: String,
    tenants: Vec<TenantBody>,
}

#[derive(Debug, Serialize)]
struct TenantBody {
    name: String,
    learnt_logins: usize,
    /// Writes that can be adopted.
    orphans: usize,
    /// What was written under keys.
    ledger: Option<LedgerBody>,
    /// What the upstream lists of its limits.
    listing: Listing,
    /// How the quota is shared with other processes.
    quota: Option<QuotaBody>,
    #[serde(flatten)]
    bank: BankSnapshot,
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

async fn state(State(admin): State<Arc<Admin>>) -> Json<StateBody> {
    let upstream = &admin.tenant.upstream;
    let bank = upstream.pacer().snapshot();
    Json(StateBody {
        version: env!("CARGO_PKG_VERSION"),
        profile: upstream.profile().name.clone(),
        upstream: upstream.api_base().to_owned(),
        tenants: vec![TenantBody {
            name: upstream.tenant().to_string(),
            learnt_logins: admin.tenant.learnt.len(),
            orphans: admin.once.orphans(),
            ledger: ledger(&admin.once).await,
            listing: upstream.listing().unwrap_or(NOT_FETCHED),
            quota: admin.fleet.body(upstream, bank.fleet).await,
            bank,
        }],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use tidegate::limits::Listed;
    use tidegate_core::pace::{BreakerSnapshot, DriftHour, DriftSnapshot, GateSnapshot, ShareSnapshot};

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
        let body = StateBody {
            version: "",
            profile: String::new(),
            upstream: String::new(),
            tenants: vec![TenantBody {
                name: String::new(),
                learnt_logins: 0,
                orphans: 0,
                ledger: Some(LedgerBody { file: String::new(), entries: 0, unknown: 0, problem: None }),
                listing,
                quota: Some(QuotaBody::default()),
                bank: BankSnapshot {
                    gates: vec![gate],
                    breakers: vec![breaker],
                    drift: vec![drift],
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
