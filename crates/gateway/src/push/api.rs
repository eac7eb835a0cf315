//! The calls by which channels are made and subscriptions asked for. They go through the tenant's own stack, as `sync` calls of its
//! configured credential, so they are paced and retried like all others.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate::{Class, Client};
use tidegate_core::push::{AskFailed, Order};
use tidegate_core::time::Wall;

/// Where channels are made.
const CHANNELS: &str = "/api/v2/notifications/channels";

/// A call that is not answered by then has failed.
const WITHIN: Duration = Duration::from_secs(30);

/// The longest answer that is read: a thousand topics with their reasons.
const MAX_ANSWER: usize = 1 << 20;

/// A channel of the upstream.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) id: String,
    pub(super) socket: Uri,
    /// How long it lives, if the upstream says so.
    pub(super) life: Option<Duration>,
}

/// What the upstream says of a channel that it made.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    id: String,
    connect_uri: String,
    expires: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Subscriptions {
    #[serde(default)]
    entities: Vec<Subscription>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    id: String,
    state: Option<String>,
    rejection_reason: Option<String>,
}

/// Creates a channel.
pub(super) async fn create(client: &Client, now: Wall) -> Result<Remote, String> {
    let (status, body) = call(client, Method::POST, CHANNELS, None).await?;
    if !status.is_success() {
        return Err(format!("the upstream answered {status} when a channel was asked for"));
    }
    let made: Made = serde_json::from_slice(&body).map_err(|error| format!("a channel's answer: {error}"))?;
    let socket: Uri =
        made.connect_uri.parse().map_err(|_| format!("`{}` is no address", made.connect_uri))?;
    // What is said over TLS is not to be told over a plain socket.
    if client.upstream().api_base().starts_with("https:") && socket.scheme_str() != Some("wss") {
        return Err(format!("the upstream named a socket without TLS: {socket}"));
    }
    let ends = made.expires.as_ref().and_then(Order::read);
    let life = match ends {
        Some(Order::At(ends)) => Wall::from_unix_millis(ends).since(now),
        _ => None,
    };
    Ok(Remote { id: made.id, socket, life: life.filter(|life| !life.is_zero()) })
}

/// Subscribes a channel to topics. Returns those that are rejected, and why.
pub(super) async fn subscribe(
    client: &Client,
    channel: &str,
    topics: &[Arc<str>],
    replace: bool,
) -> Result<Vec<(Arc<str>, Arc<str>)>, AskFailed> {
    let method = if replace { Method::PUT } else { Method::POST };
    // One topic that is denied would else make the upstream refuse all of them.
    let path = format!("{CHANNELS}/{channel}/subscriptions?ignoreErrors=true");
    let body: Vec<Value> = topics.iter().map(|topic| json!({ "id": &**topic })).collect();
    let body = Value::from(body).to_string();
    let for_now = AskFailed::ForNow(Duration::ZERO);
    let (status, body) = call(client, method, &path, Some(body)).await.map_err(|why| {
        tracing::debug!(target: "tidegate", "subscriptions could not be asked for: {why}");
        for_now
    })?;
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(AskFailed::Gone),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::UNAUTHORIZED => {
            return Err(for_now);
        }
        status if status.is_client_error() => return Err(AskFailed::Refused),
        status if !status.is_success() => return Err(for_now),
        _ => {}
    }
    let told: Subscriptions = serde_json::from_slice(&body).map_err(|_| for_now)?;
    let is_rejected = |entity: &Subscription| entity.state.as_deref() == Some("Rejected");
    let rejected = told.entities.into_iter().filter(is_rejected);
    Ok(rejected.map(|it| (Arc::from(it.id), Arc::from(it.rejection_reason.unwrap_or_default()))).collect())
}

async fn call(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<(StatusCode, bytes::Bytes), String> {
    let credential = client.upstream().credential_for(Class::Sync).clone();
    // Done twice it leaves a channel that nobody connects to, or the same subscriptions.
    let mut call = client
        .request(method, path)
        .class(Class::Sync)
        .caller("tidegate push")
        .credential(credential)
        .idempotent(true)
        .deadline(WITHIN)
        .max_wait(WITHIN);
    if let Some(body) = body {
        call = call.json(body);
    }
    let (head, body) = call.send().await.map_err(|error| error.to_string())?.into_parts();
    let body = body.bytes(MAX_ANSWER).await.map_err(|error| error.to_string())?;
    Ok((head.status, body))
}
