//! The local gateway.
//!
//! A program in any language points its base URL at the gateway's port and changes nothing else: the gateway serves
//! the API and its token endpoint on one origin, waits where the quota asks for waiting, retries what is safe to
//! retry, and renews tokens behind the caller's back. It serves one organisation or many ([`TenantConfig`]), whoever asks or
//! only those who have a key ([`CallerConfig`]).
//!
//! [`start`] serves two listeners: the data port, and an admin port that is read-only.

mod admin;
mod caller;
mod fleet;
mod http2;
mod hygiene;
mod identity;
mod learnt;
mod login;
mod merging;
mod named;
mod once;
mod outbox;
mod places;
mod proxy;
mod push;
mod readers;
mod respond;
mod serve;
mod shape;
mod silence;
mod tenant;
mod tenants;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidegate::body::ByteBudget;
use tidegate::observe::Observer;
use tidegate::state::StateError;
use tidegate::{ConfigError, UpstreamConfig};
use tidegate_core::cache::{Bounds, FreshRule};
use tidegate_store::ledger::LedgerError;
use tidegate_store::outbox::OutboxError;
use tidegate_telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::caller::Callers;
pub use crate::caller::{CallerConfig, KEY_PREFIX, KeyHash, new_key};
pub use crate::hygiene::Doors;
use crate::identity::Admission;
pub use crate::identity::RouteRule;
pub use crate::merging::MergeConfig;
pub use crate::once::KeepKeys;
use crate::outbox::{Outbox, Sinks};
pub use crate::outbox::{OutboxConfig, SinkConfig, SinkSecret, latch_of, sink_url};
use crate::proxy::Proxy;
use crate::push::Hooks;
pub use crate::push::{
    Encoding, EventSink, HookConfig, HookTemplate, NoPush, PushConfig, PushEvent, Scheme, Signed,
};
use crate::readers::{ANSWER_BUDGET, Reading};
pub use crate::tenants::{DEFAULT_TENANT, TenantConfig};
use crate::tenants::{Shared, Tenants};

/// The longest a call waits for its quota by default. The JavaScript and Go SDKs give up after 16 s; two are left
/// for the answer.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(14);

/// How a gateway is set up.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The organisations it serves; at least one, each with a name of its own (`upstream.tenant`).
    pub tenants: Vec<TenantConfig>,
    /// Whether a path that begins with `/t/NAME` names a tenant. Else such a path is the upstream's.
    pub tenants_by_path: bool,
    /// Who has a key. Where nobody has one, nobody needs one.
    pub callers: Vec<CallerConfig>,
    /// Whether calls without a key are let in where there are callers with keys.
    pub anonymous: bool,
    /// What calls are unless they say otherwise; of several rules about a call the first that says something decides.
    pub routes: Vec<RouteRule>,
    /// How old answers to reads may be. Of several rules the first that matches decides.
    pub fresh: Vec<FreshRule>,
    /// How much of answers all tenants together keep.
    pub cache: Bounds,
    /// How small writes are merged into bulk calls; `None` if they are not.
    pub merging: Option<MergeConfig>,
    /// What upstreams tell of their own accord, by the name of the tenant.
    pub push: Vec<(String, PushConfig)>,
    /// Webhooks that are taken.
    pub hooks: Vec<HookConfig>,
    /// Who is told of every event beside those who listen.
    pub sinks: Vec<Arc<dyn EventSink>>,
    /// Who may talk to it.
    pub doors: Doors,
    /// Bounds the wait for quota plus the time the upstream commonly takes.
    pub max_wait: Duration,
    /// Whoever starts the gateway was told that the store of the shared quota is away.
    pub store_is_away: bool,
    /// How long calls in flight may take to end once the gateway is told to stop.
    pub grace: Duration,
    /// Where writes are kept that are to be answered later; `None`: none are.
    pub outbox: Option<OutboxConfig>,
}

impl GatewayConfig {
    /// The defaults for one `upstream`.
    pub fn new(upstream: UpstreamConfig) -> Self {
        Self::of(vec![TenantConfig { upstream, state: KeepState::Nowhere, keys: KeepKeys::InMemory }])
    }

    /// The defaults for these tenants.
    pub fn of(tenants: Vec<TenantConfig>) -> Self {
        Self {
            tenants,
            tenants_by_path: false,
            callers: Vec::new(),
            anonymous: false,
            routes: Vec::new(),
            fresh: Vec::new(),
            cache: Bounds::default(),
            merging: None,
            push: Vec::new(),
            hooks: Vec::new(),
            sinks: Vec::new(),
            doors: Doors::default(),
            max_wait: DEFAULT_MAX_WAIT,
            store_is_away: false,
            grace: Duration::from_secs(30),
            outbox: None,
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
    /// The outbox cannot be where it should be.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// A tenant cannot have what its upstream tells of its own accord.
    #[error("tenant {tenant}: {why}")]
    Push {
        /// Which.
        tenant: String,
        /// Why.
        why: NoPush,
    },
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
    tenants: Arc<Tenants>,
    outbox: Option<(Arc<Outbox>, JoinHandle<()>)>,
    sinks: Option<Arc<Sinks>>,
    grace: Duration,
}

/// Starts a gateway on two listeners. It starts with its upstreams away: `/readyz` says so. The only tenant of a gateway is started
/// with it, one of several with its first call.
///
/// # Errors
/// Settings that cannot be used, or a listener that is not loopback.
pub fn start(
    config: GatewayConfig,
    observers: Vec<Arc<dyn Observer>>,
    data: TcpListener,
    admin: TcpListener,
) -> Result<Gateway, StartError> {
    let data_addr = loopback("the data port", &data)?;
    let admin_addr = loopback("the admin port", &admin)?;
    let metrics = Arc::new(Metrics::new());
    let GatewayConfig {
        tenants,
        tenants_by_path,
        doors,
        max_wait,
        grace,
        fresh,
        cache,
        merging,
        store_is_away,
        outbox,
        push,
        hooks,
        mut sinks,
        ..
    } = config;
    let told = outbox.as_ref().map(|outbox| Sinks::new(outbox.sinks.clone(), Arc::clone(&metrics)));
    sinks.extend(told.as_ref().map(|(sinks, _)| Arc::clone(sinks) as Arc<dyn EventSink>));
    let (stop, stopping) = watch::channel(false);
    let early: Vec<String> =
        push.iter().filter(|(_, push)| !push.topics.is_empty()).map(|(name, _)| name.clone()).collect();
    let answers = ByteBudget::new(ANSWER_BUDGET);
    let shared = Shared {
        max_wait,
        reading: Reading { fresh: fresh.into(), bounds: cache, answers },
        merging,
        store_is_away,
        push: push.into_iter().collect(),
        sinks: sinks.into(),
        stop: stopping.clone(),
    };
    let tenants = Tenants::new(tenants, tenants_by_path, shared, &observers.into_boxed_slice(), &metrics)?;
    if tenants.len() == 1 {
        tenants.start_now(0)?;
    } else {
        // Whose topics are wanted always is not waited for.
        for index in early.iter().filter_map(|name| tenants.find(name)) {
            tenants.start_now(index)?;
        }
    }
    let admission = Admission {
        callers: Callers::new(config.callers),
        anonymous: config.anonymous,
        routes: config.routes,
        max_wait,
    };
    let callers = admission.callers.all().to_vec();
    let sinks = told.as_ref().map(|(sinks, _)| Arc::clone(sinks));
    let outbox = match outbox.zip(told) {
        Some((config, told)) => {
            let (tenants, metrics) = (Arc::clone(&tenants), Arc::clone(&metrics));
            Some(Outbox::open(&config, tenants, callers.clone(), metrics, max_wait, told)?)
        }
        None => None,
    };
    let operated = outbox.as_ref().map(|outbox| outbox.operated_at(admin_addr)).transpose()?;
    let proxy = Arc::new(Proxy {
        tenants: Arc::clone(&tenants),
        doors: doors.clone(),
        admission,
        outbox: outbox.clone(),
        hooks: Hooks::new(hooks),
        stop: stopping.clone(),
    });
    let admin_body =
        admin::Admin { tenants: Arc::clone(&tenants), callers, metrics, doors, outbox: outbox.clone() };
    let router = admin::router(admin_body, operated);
    let outbox = outbox.map(|outbox| {
        let running = tokio::spawn(Arc::clone(&outbox).run());
        (outbox, running)
    });
    let data = tokio::spawn(serve::serve(data, proxy, stopping.clone(), grace));
    let admin = tokio::spawn(serve_admin(admin, router, stopping, grace));
    Ok(Gateway { data_addr, admin_addr, stop, data, admin, tenants, outbox, sinks, grace })
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

    /// What tells events to the sinks that are configured, beside those that come from upstreams; `None` without an outbox.
    pub fn event_sink(&self) -> Option<Arc<dyn EventSink>> {
        self.sinks.as_ref().map(|sinks| Arc::clone(sinks) as _)
    }

    /// Stops accepting, waits for the calls in flight, and returns when they have ended or the grace is over. What is held of a
    /// quota that is shared with other processes is given back.
    pub async fn drain(self) {
        self.stop.send_replace(true);
        if let Some((outbox, _)) = &self.outbox {
            outbox.stop();
        }
        for task in [self.data, self.admin] {
            if let Err(error) = task.await {
                tracing::warn!(target: "tidegate", "a listener ended badly: {error}");
            }
        }
        // What it has sent is awaited and noted. What is not by then is found out about at the next start.
        if let Some((_, running)) = self.outbox
            && tokio::time::timeout(self.grace, running).await.is_err()
        {
            tracing::warn!(target: "tidegate", "deliveries not answered within {:?} are in doubt", self.grace);
        }
        join_all(self.tenants.started().map(|(_, served)| served.end())).await;
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
