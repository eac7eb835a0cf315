//! One list that is asked in place of many renewals.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AGE;
use http::{HeaderMap, Request, Response, StatusCode};
use tidegate::{CallOptions, CallReport, RequestBody, ResponseBody};
use tidegate_core::cache::{Roll, Told};
use tidegate_core::time::Mono;

use super::flight::BODY_WITHIN;
use super::wait::Patience;
use super::{Ask, Readers, depart};
use crate::proxy;
use crate::respond::REFUSED;
use crate::tenant::Tenant;

/// Asks the list of `roll`, and for what it does not renew.
pub(super) async fn ask(readers: Arc<Readers>, tenant: Arc<Tenant>, roll: Roll<Arc<Ask>>) {
    let now = readers.clock.now();
    let Some(response) = send(&readers, &tenant, &roll, now).await else {
        return land(&readers, &tenant, roll, Told::Nothing);
    };
    let (status, headers) = (response.status(), response.headers().clone());
    let sent = response.extensions().get::<CallReport>().and_then(|report| report.left_at).unwrap_or(now);
    // It is not kept itself, so it may be as long as everything that it is asked for.
    let (_, body) = response.into_body().peek(readers.bounds.entry_bytes, BODY_WITHIN).await;
    let body: Option<Bytes> = body.held().filter(|_| !body.is_cut()).cloned();
    let told = match &body {
        _ if headers.contains_key(REFUSED) || status.is_server_error() => Told::Nothing,
        Some(body) if status == StatusCode::OK => Told::List { body, sent, age: age(&headers) },
        None if status == StatusCode::OK => Told::Nothing,
        _ if status == StatusCode::TOO_MANY_REQUESTS => Told::Nothing,
        _ => Told::Denied,
    };
    land(&readers, &tenant, roll, told);
}

async fn send(
    readers: &Readers,
    tenant: &Tenant,
    roll: &Roll<Arc<Ask>>,
    now: Mono,
) -> Option<Response<ResponseBody>> {
    let list = readers.lists.get(roll.rule)?;
    let mut request: Request<RequestBody> = roll.ask.request();
    *request.uri_mut() = list.target(roll.ids()).parse().ok()?;
    let left = Patience::until(Some(roll.by)).left(&roll.ask.options, now);
    request.extensions_mut().insert(CallOptions { class: Some(roll.class), ..left });
    Some(proxy::exchange(tenant, request, roll.ask.login.clone()).await.0)
}

fn land(readers: &Arc<Readers>, tenant: &Arc<Tenant>, roll: Roll<Arc<Ask>>, told: Told<'_>) {
    let flights = {
        let mut state = readers.state.lock();
        let due = state.cache.land_roll(roll, told, readers.clock.now());
        readers.renewals(&mut state, due)
    };
    depart(tenant, flights);
}

/// How old another cache says an answer is.
fn age(headers: &HeaderMap) -> Duration {
    let told = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse().ok());
    Duration::from_secs(told.unwrap_or(0))
}
