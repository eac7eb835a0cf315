//! What an operator sees and does: the outbox on the admin port.
//!
//! Looking is free to whoever can reach that port. What changes something needs the key that lies beside the outbox's file, which
//! only its owner can read: whoever can change the file can do the same through the gateway that has it open, and nobody else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path as InPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tidegate_core::outbox::{Seq, State as Life, Tally};
use tidegate_core::time::Mono;
use tidegate_telemetry::tenant::Held;

use super::{Outbox, group_of};

/// The header that shows the key.
const KEY: &str = "tidegate-admin-key";

/// What `/api/state` shows of a tenant's entries.
#[derive(Debug, Default, Serialize)]
pub(crate) struct OutboxBody {
    pub(crate) waiting: usize,
    pub(crate) sending: usize,
    pub(crate) done: usize,
    pub(crate) dead: usize,
    /// Age of the oldest that is not delivered, nor dead.
    pub(crate) oldest_ms: u64,
}

impl OutboxBody {
    fn of(tally: Tally, now: Mono) -> Self {
        let Tally { waiting, sending, done, dead, oldest } = tally;
        let oldest = oldest.map(|oldest| now - oldest).unwrap_or_default();
        let oldest_ms = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
        Self { waiting, sending, done, dead, oldest_ms }
    }
}

impl Outbox {
    /// What changes it through the admin port at `admin`.
    ///
    /// # Errors
    /// The file for that cannot be written.
    pub(crate) fn operated_at(self: &Arc<Self>, admin: std::net::SocketAddr) -> std::io::Result<Router> {
        let latch = Latch::leave(self.file.path(), admin, self.clock.random_id())?;
        Ok(router(Arc::clone(self), latch))
    }

    /// A tenant's entries.
    pub(crate) fn tally(&self, tenant: &str) -> OutboxBody {
        let group = group_of(tenant);
        OutboxBody::of(self.machine.lock().tally(|other| other == group), self.clock.now())
    }

    /// The same for metrics: a tenant's writes, and its events for each sink.
    pub(crate) fn held(&self, tenant: &str) -> (Held, BTreeMap<String, Held>) {
        let of = |group: &str| {
            let OutboxBody { waiting, sending, dead, oldest_ms, .. } =
                OutboxBody::of(self.machine.lock().tally(|other| other == group), self.clock.now());
            let oldest = Duration::from_millis(oldest_ms).as_secs_f64();
            Held { waiting: waiting as u64, sending: sending as u64, dead: dead as u64, oldest }
        };
        let sinks = self.sinks.all.iter().map(|sink| (sink.name.clone(), of(&sink.group(tenant)))).collect();
        (of(&group_of(tenant)), sinks)
    }

    /// Sends a dead letter again. False if it is none.
    async fn replay(&self, seq: Seq) -> Result<bool, StatusCode> {
        let dead = matches!(self.machine.lock().state(seq), Some(Life::Dead(_)));
        if !dead {
            return Ok(false);
        }
        self.file.replay(seq, self.clock.wall()).await.map_err(|error| {
            tracing::warn!(target: "tidegate", "a dead letter is not sent again: {error}");
            StatusCode::SERVICE_UNAVAILABLE
        })?;
        let replayed = self.machine.lock().replay(seq, self.clock.now());
        self.changed();
        Ok(replayed)
    }

    /// Forgets an entry that is not under way. False if it is, or is not there.
    async fn forget(&self, seq: Seq) -> Result<bool, StatusCode> {
        let forgotten = {
            let mut machine = self.machine.lock();
            machine.drop_over(seq) || machine.cancel(seq)
        };
        if forgotten {
            self.changed();
            self.file.remove(vec![seq]).await.map_err(|error| {
                tracing::warn!(target: "tidegate", "an entry is not removed: {error}");
                StatusCode::SERVICE_UNAVAILABLE
            })?;
        }
        Ok(forgotten)
    }
}

/// Where the command that operates an outbox finds the gateway that has it open: a file beside it, for its owner alone.
#[derive(Debug)]
struct Latch {
    path: PathBuf,
    key: String,
}

impl Latch {
    /// Writes it: the admin port's address and a new key.
    fn leave(outbox: &Path, admin: std::net::SocketAddr, chance: u128) -> std::io::Result<Self> {
        let path = latch_of(outbox);
        let key = format!("{chance:032x}");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path)?;
        std::io::Write::write_all(&mut file, format!("{admin} {key}\n").as_bytes())?;
        Ok(Self { path, key })
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(target: "tidegate", "{} is not removed: {error}", self.path.display());
        }
    }
}

/// The file beside an outbox in which a gateway says where it can be operated: address and key.
///
/// ```
/// let latch = tidegate_gateway::latch_of("gateway.outbox".as_ref());
/// assert_eq!(latch.to_str(), Some("gateway.outbox.admin"));
/// ```
pub fn latch_of(outbox: &Path) -> PathBuf {
    let mut name = outbox.as_os_str().to_owned();
    name.push(".admin");
    name.into()
}

#[derive(Debug)]
struct Operated {
    outbox: Arc<Outbox>,
    latch: Latch,
}

/// The routes that change something.
fn router(outbox: Arc<Outbox>, latch: Latch) -> Router {
    Router::new()
        .route("/api/outbox/{id}/{action}", post(act))
        .with_state(Arc::new(Operated { outbox, latch }))
}

/// Replays or drops one entry, or all dead letters (`all`).
async fn act(
    State(operated): State<Arc<Operated>>,
    InPath((id, action)): InPath<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    let Operated { outbox, latch } = &*operated;
    let shown = headers.get(KEY).map(http::HeaderValue::as_bytes).unwrap_or_default();
    if !bool::from(shown.ct_eq(latch.key.as_bytes())) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let seqs = match id.as_str() {
        "all" => outbox.machine.lock().dead(),
        id => vec![
            id.get(..16).and_then(|seq| Seq::from_str_radix(seq, 16).ok()).ok_or(StatusCode::NOT_FOUND)?,
        ],
    };
    let mut count = 0;
    for seq in seqs {
        count += u32::from(match action.as_str() {
            "replay" => outbox.replay(seq).await?,
            "drop" => outbox.forget(seq).await?,
            _ => return Err(StatusCode::NOT_FOUND),
        });
    }
    Ok(Json(json!({ "entries": count })))
}
