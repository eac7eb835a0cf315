//! The local gateway.
//!
//! A program in any language points its base URL at the gateway's port and changes nothing else: the gateway serves
//! the API and its token endpoint on one origin, waits where the quota asks for waiting, retries what is safe to
//! retry, and renews tokens behind the caller's back.
//!
//! [`start`] serves two listeners: the data port, and an admin port that is read-only.

mod admin;
mod fleet;
mod hygiene;
mod learnt;
mod login;
mod once;
mod proxy;
mod respond;
mod serve;
mod shape;
mod silence;
mod tenant;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate::Upstream;
use tidegate::body::ByteBudget;
use tidegate::observe::Observer;
use tidegate::state::{StateError, StateFile, StateKeeper};
use tidegate::{ConfigError, UpstreamConfig};
use tidegate_store::ledger::LedgerError;
use tidegate_telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fleet::Fleet;
pub use crate::hygiene::Doors;
pub use crate::once::KeepKeys;
use crate::once::Once;
use crate::proxy::Proxy;
use crate::tenant::Tenant;

/// The longest a call waits for its quota by default. The JavaScript and Go SDKs give up after 16 s; two are left
/// for the answer.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(14);

/// Request bodies held in memory by all calls together: 128 of the largest that can be sent again.
const BODY_BUDGET: usize = 64 * 1024 * 1024;

/// How a gateway is set up.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The upstream and its rules.
    pub upstream: UpstreamConfig,
    /// Who may talk to it.
    pub doors: Doors,
    /// Bounds the wait for quota plus the time the upstream commonly takes.
    pub max_wait: Duration,
    /// Where pacing is kept over restarts.
    pub state: KeepState,
    /// Where what was written under `Idempotency-Key`s is kept.
    pub keys: KeepKeys,
    /// Whoever starts the gateway was told that the store of the shared quota is away.
    pub store_is_away: bool,
    /// How long calls in flight may take to end once the gateway is told to stop.
    pub grace: Duration,
}

impl GatewayConfig {
    /// The defaults for `upstream`.
    pub fn new(upstream: UpstreamConfig) -> Self {
        Self {
            upstream,
            doors: Doors::default(),
            max_wait: DEFAULT_MAX_WAIT,
            state: KeepState::Nowhere,
            keys: KeepKeys::InMemory,
            store_is_away: false,
            grace: Duration::from_secs(30),
        }
    }
}

/// Where a gateway keeps its pacing over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeepState {
    /// Nowhere: a gateway that is started again has forgotten what the upstream has not.
    #[default]
    Nowhere,
    /// In this folder. Where that cannot be, the gateway does not start.
    In(PathBuf),
    /// In this folder, which nobody named. Where that cannot be, or another gateway does so, nowhere, and a warning says it.
    InIfFree(PathBuf),
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings that cannot be used.
    #[error("the upstream's settings cannot be used")]
    Config(Vec<ConfigError>),
    /// A listener that other machines could reach.
    #[error(
        "{port} {addr} can be reached by other machines, and the gateway would lend them its credential: listen on 127.0.0.1"
    )]
    NotLoopback {
        /// Which port.
        port: &'static str,
        /// Its address.
        addr: SocketAddr,
    },
    /// Pacing cannot be kept where it should be.
    #[error(transparent)]
    State(#[from] StateError),
    /// Keys cannot be kept where they should be.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The operating system refused.
    #[error("cannot listen: {0}")]
    Io(#[from] std::io::Error),
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Gateway {
    data_addr: SocketAddr,
    admin_addr: SocketAddr,
    stop: watch::Sender<bool>,
    data: JoinHandle<()>,
    admin: JoinHandle<()>,
    state: Option<StateKeeper>,
    upstream: Arc<Upstream>,
}

/// Starts a gateway on two listeners. It starts with its upstream away: `/readyz` says so.
///
/// # Errors
/// Settings that cannot be used, or a listener that is not loopback.
pub fn start(
    mut config: GatewayConfig,
    observers: Vec<Arc<dyn Observer>>,
    data: TcpListener,
    admin: TcpListener,
) -> Result<Gateway, StartError> {
    let data_addr = loopback("the data port", &data)?;
    let admin_addr = loopback("the admin port", &admin)?;
    let metrics = Arc::new(Metrics::new());
    let fleet = Arc::new(Fleet::default());
    let own: [Arc<dyn Observer>; 2] = [Arc::clone(&metrics) as _, Arc::clone(&fleet) as _];
    let told = observers.into_iter().chain(own);
    config.upstream.observers = tidegate::observe::Observers::new(told);
    // A hint that outlasts the caller's patience is delivered, not waited for.
    config.upstream.hint_ceiling = config.max_wait;
    let tenant = Arc::new(Tenant::new(config.upstream).map_err(StartError::Config)?);
    let upstream = &tenant.upstream;
    if config.store_is_away {
        upstream.pacer().store_is_known_away();
    }
    let state = state_file(&config.state, upstream)?.map(|file| StateKeeper::start(file, upstream));
    let once = Once::new(Arc::clone(&tenant), config.keys, config.max_wait, Arc::clone(&metrics))?;
    let proxy = Arc::new(Proxy {
        tenant: Arc::clone(&tenant),
        doors: config.doors.clone(),
        max_wait: config.max_wait,
        bodies: ByteBudget::new(BODY_BUDGET),
        once: Arc::clone(&once),
    });
    let (stop, stopping) = watch::channel(false);
    let upstream = Arc::clone(upstream);
    let router = admin::router(admin::Admin { tenant, once, metrics, fleet, doors: config.doors });
    let data = tokio::spawn(serve::serve(data, proxy, stopping.clone(), config.grace));
    let admin = tokio::spawn(serve_admin(admin, router, stopping, config.grace));
    Ok(Gateway { data_addr, admin_addr, stop, data, admin, state, upstream })
}

fn state_file(keep: &KeepState, upstream: &Upstream) -> Result<Option<StateFile>, StateError> {
    let in_dir = |dir: &Path| StateFile::in_dir(dir, upstream.tenant(), upstream.api_base());
    match keep {
        KeepState::Nowhere => Ok(None),
        KeepState::In(dir) => in_dir(dir).map(Some),
        KeepState::InIfFree(dir) => Ok(in_dir(dir)
            .map_err(|error| {
                tracing::warn!(target: "tidegate", "pacing is not kept over restarts: {error}");
            })
            .ok()),
    }
}

impl Gateway {
    /// Where callers point their base URL.
    pub fn data_addr(&self) -> SocketAddr {
        self.data_addr
    }

    /// Where operators look.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Stops accepting, waits for the calls in flight, and returns when they have ended or the grace is over. What is held of a
    /// quota that is shared with other processes is given back.
    pub async fn drain(self) {
        self.stop.send_replace(true);
        for task in [self.data, self.admin] {
            if let Err(error) = task.await {
                tracing::warn!(target: "tidegate", "a listener ended badly: {error}");
            }
        }
        self.upstream.give_back().await;
        if let Some(state) = self.state {
            state.end().await;
        }
    }
}

/// Serves the admin port until `stop` says so, then waits for the requests in flight, up to `grace`: a connection
/// that has sent half a head would otherwise be waited for without end.
async fn serve_admin(
    listener: TcpListener,
    router: axum::Router,
    stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let stopped = |mut stop: watch::Receiver<bool>| async move {
        // An error means that the gateway is gone, which is a reason to stop as well.
        drop(stop.wait_for(|stop| *stop).await);
    };
    let too_late = async {
        stopped(stop.clone()).await;
        tokio::time::sleep(grace).await;
    };
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopped(stop.clone()));
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            tracing::warn!(target: "tidegate", "the admin port ended: {error}");
        },
        () = too_late => tracing::debug!(target: "tidegate", "admin connections still open after {grace:?} were cut off"),
    }
}

fn loopback(port: &'static str, listener: &TcpListener) -> Result<SocketAddr, StartError> {
    let addr = listener.local_addr()?;
    must_be_loopback(port, addr).map(|()| addr)
}

/// Whether the gateway may listen on `addr`; `port` names it in the error, such as "the data port".
///
/// # Errors
/// [`StartError::NotLoopback`]: other machines could reach it.
pub fn must_be_loopback(port: &'static str, addr: SocketAddr) -> Result<(), StartError> {
    if addr.ip().is_loopback() { Ok(()) } else { Err(StartError::NotLoopback { port, addr }) }
}
