//! The shell of outbound webhooks: posts what [`World::deliveries`](crate::model::world::World::deliveries) hands out, one
//! after the other.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;

use crate::model::push::hooks::Delivery;
use crate::server::{Shared, wake_after};

/// How long a receiver may take, as with GitHub's webhooks.
const PATIENCE: Duration = Duration::from_secs(10);

/// Posts until the server stops.
pub(crate) async fn post(shared: Shared, mut stopped: watch::Receiver<bool>) {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
    let mut changed = shared.lock().changed();
    let work = async {
        loop {
            changed.mark_unchanged();
            let ((deliveries, next), now) = shared.lock().deliveries();
            for delivery in deliveries {
                let status = send(&client, delivery).await;
                shared.lock().world.delivered(status);
            }
            tokio::select! {
                () = wake_after(now, next) => {}
                change = changed.changed() => if change.is_err() { return },
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = stopped.changed() => {}
    }
}

async fn send(client: &Client<HttpConnector, Full<Bytes>>, delivery: Delivery) -> Option<u16> {
    let builder = Request::builder().method(Method::POST).uri(&delivery.url);
    let builder =
        delivery.headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, value));
    let request = match builder.body(Full::from(delivery.body)) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(%error, url = delivery.url, "a webhook cannot be posted");
            return None;
        }
    };
    match tokio::time::timeout(PATIENCE, client.request(request)).await {
        Ok(Ok(response)) => Some(response.status().as_u16()),
        Ok(Err(error)) => {
            tracing::debug!(%error, url = delivery.url, "a webhook did not arrive");
            None
        }
        Err(_) => None,
    }
}
