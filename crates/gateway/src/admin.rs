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
use tidegate::limits::Listing;
use tidegate_core::pace::BankSnapshot;
use tidegate_telemetry::Metrics;

use crate::hygiene::Doors;
use crate::tenant::Tenant;

/// `/readyz` answers within this time, whatever the upstream does.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// What the admin port shows.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) metrics: Arc<Metrics>,
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
    match tokio::time::timeout(READY_TIMEOUT, admin.tenant.upstream.check()).await {
        Ok(Ok(())) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        Err(_) => {
            let why = format!("not ready: the upstream did not answer within {READY_TIMEOUT:?}\n");
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let text = admin.metrics.render(&admin.tenant.upstream.pacer().snapshot());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

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
    /// What the upstream lists of its limits; absent if it is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    listing: Option<Listing>,
    #[serde(flatten)]
    bank: BankSnapshot,
}

async fn state(State(admin): State<Arc<Admin>>) -> Json<StateBody> {
    let upstream = &admin.tenant.upstream;
    Json(StateBody {
        version: env!("CARGO_PKG_VERSION"),
        profile: upstream.profile().name.clone(),
        upstream: upstream.api_base().to_owned(),
        tenants: vec![TenantBody {
            name: upstream.tenant().to_string(),
            learnt_logins: admin.tenant.learnt.len(),
            listing: upstream.listing(),
            bank: upstream.pacer().snapshot(),
        }],
    })
}
