//! The tenants of a gateway: which there are, and those that were called.
//!
//! A tenant is nothing but its configuration until its first call; then it is set up once, apart from the call that waits for it,
//! so that a caller that hangs up leaves nothing half done. What it is made of belongs to it alone: gates, tokens, logins, retry
//! budget, ledger, state, connections. All that tenants share are bounds of the process: places for calls, memory for bodies,
//! idle connections. Of the first two no tenant can take more than half.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate::UpstreamConfig;
use tidegate::body::ByteBudget;
use tidegate::observe::{Observer, Observers};
use tidegate::state::{StateError, StateFile, StateKeeper};
use tidegate::transport::Connections;
use tidegate_core::profile::ErrorShape;
use tidegate_telemetry::Metrics;
use tokio::sync::{OnceCell, watch};

use crate::fleet::Fleet;
use crate::merging::MergeConfig;
use crate::named::Named;
use crate::once::{KeepKeys, Once};
use crate::places::{Held, Places};
use crate::push::{EventSink, Feed, Push, PushConfig};
use crate::readers::Reading;
use crate::serve::MAX_CONNECTIONS;
use crate::tenant::Tenant;
use crate::{KeepState, StartError};

/// Where calls go that name no tenant, if a tenant has this name.
pub const DEFAULT_TENANT: &str = "default";

/// Request bodies held in memory by all calls together: 128 of the largest that can be sent again.
const BODY_BUDGET: usize = 64 * 1024 * 1024;

/// One tenant as it is configured.
#[derive(Clone, Debug)]
pub struct TenantConfig {
    /// Its upstream and its rules. Its name is the upstream's `tenant`.
    pub upstream: UpstreamConfig,
    /// Where its pacing is kept over restarts.
    pub state: KeepState,
    /// Where what was written under `Idempotency-Key`s is kept.
    pub keys: KeepKeys,
}

/// What holds for each tenant alike.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// Bounds the wait for quota plus the time the upstream commonly takes.
    pub(crate) max_wait: Duration,
    pub(crate) reading: Reading,
    /// How writes are merged; `None` if they are not.
    pub(crate) merging: Option<MergeConfig>,
    /// Whoever starts the gateway was told that the store of the shared quota is away.
    pub(crate) store_is_away: bool,
    /// What upstreams tell of their own accord, by tenant.
    pub(crate) push: HashMap<String, PushConfig>,
    /// Who is told of every event.
    pub(crate) sinks: Arc<[Arc<dyn EventSink>]>,
    /// Becomes true when the gateway stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// A tenant that was called.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) once: Arc<Once>,
    /// Its events on their way to those who listen.
    pub(crate) feed: Arc<Feed>,
    /// What its upstream tells of its own accord, where that is wanted.
    pub(crate) push: Option<Arc<Push>>,
    keeper: Mutex<Option<StateKeeper>>,
}

impl Started {
    /// Gives back what is held of a shared quota and stores its state. To be called when nothing is sent any more.
    pub(crate) async fn end(&self) {
        self.tenant.upstream.give_back().await;
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper {
            keeper.end().await;
        }
    }
}

#[derive(Debug)]
struct Slot {
    name: Arc<str>,
    shape: ErrorShape,
    config: TenantConfig,
    /// Held from the start on, so that no other process can begin to keep the same.
    state: Mutex<Option<StateFile>>,
    started: OnceCell<Arc<Started>>,
}

/// All tenants.
#[derive(Debug)]
pub(crate) struct Tenants {
    slots: Vec<Slot>,
    by_name: HashMap<Arc<str>, usize>,
    default: Option<usize>,
    by_path: bool,
    shared: Shared,
    metrics: Arc<Metrics>,
    bodies: ByteBudget,
    /// For the calls of all tenants.
    places: Arc<Places>,
}

impl Tenants {
    /// Takes what places a call needs, until they are dropped; `None` if one is lacking. `own`: its caller's, where others call for
    /// the tenant as well.
    pub(crate) fn take_places(&self, tenant: &Tenant, own: Option<&Arc<Places>>) -> Option<Held> {
        let alone = self.slots.len() == 1;
        // The tenant holds no more than are free of all, so this much is left of its own.
        let left = || self.places.free().saturating_sub(tenant.places.taken());
        // Those of the caller first: one that has none of its own left takes none of the tenant's.
        let own = match own {
            Some(own) => Some(own.take_beside(if alone { tenant.places.free() } else { left() })?),
            None => None,
        };
        let (tenants, all) = if alone {
            (tenant.places.take()?, None)
        } else {
            (tenant.places.take_beside(self.places.free())?, Some(self.places.take()?))
        };
        Some(own.into_iter().chain([tenants]).chain(all).collect())
    }

    /// Sets the tenants up; nothing of them is started.
    ///
    /// # Errors
    /// What of a configuration cannot be used, of the first tenant that has such; or a state that another process keeps.
    pub(crate) fn new(
        configs: Vec<TenantConfig>,
        by_path: bool,
        shared: Shared,
        observers: &[Arc<dyn Observer>],
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>, StartError> {
        let connections = Connections::new(tidegate::clock::Clock::start());
        let mut slots = Vec::with_capacity(configs.len());
        let mut by_name = HashMap::with_capacity(configs.len());
        let alone = configs.len() == 1;
        for mut config in configs {
            let name: Arc<str> = Arc::from(config.upstream.tenant.as_str());
            let told = observers.iter().map(Arc::clone);
            let told: Vec<Arc<dyn Observer>> = if alone {
                told.collect()
            } else {
                told.map(|observer| Named::of(&name, observer)).collect()
            };
            config.upstream.observers = Observers::new(told);
            config.upstream.connections = Some(connections.clone());
            // A hint that outlasts the caller's patience is delivered, not waited for.
            config.upstream.hint_ceiling = shared.max_wait;
            let state = state_file(&config)?;
            // A configuration that cannot be used is told now and not to the first caller.
            tidegate::Upstream::new(config.upstream.clone()).map_err(StartError::Config)?;
            by_name.insert(Arc::clone(&name), slots.len());
            let shape = config.upstream.profile.errors;
            slots.push(Slot { name, shape, config, state: Mutex::new(state), started: OnceCell::new() });
        }
        let default = by_name.get(DEFAULT_TENANT).copied().or(alone.then_some(0));
        let (metrics, bodies) = (Arc::clone(metrics), ByteBudget::new(BODY_BUDGET));
        let places = Places::new(MAX_CONNECTIONS);
        Ok(Arc::new(Self { slots, by_name, default, by_path, shared, metrics, bodies, places }))
    }

    /// Whether paths that begin with `/t/` name a tenant.
    pub(crate) fn by_path(&self) -> bool {
        self.by_path
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn name(&self, index: usize) -> &Arc<str> {
        &self.slots[index].name
    }

    /// A tenant's profile and the address of its API.
    pub(crate) fn place(&self, index: usize) -> (String, String) {
        let upstream = &self.slots[index].config.upstream;
        (upstream.profile.name.clone(), upstream.api.trim_end_matches('/').to_owned())
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The tenant of this name; without one the tenant of calls that name none.
    pub(crate) fn find_or_default(&self, name: Option<&str>) -> Option<usize> {
        name.map_or(self.default, |name| self.find(name))
    }

    /// The shape of errors of one tenant, or of those that are told before it is known which.
    pub(crate) fn shape(&self, index: Option<usize>) -> ErrorShape {
        self.slots[index.or(self.default).unwrap_or(0)].shape
    }

    /// Those that were called, with their numbers.
    pub(crate) fn started(&self) -> impl Iterator<Item = (usize, &Arc<Started>)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index, slot.started.get()?)))
    }

    /// The tenant with this number if it was called.
    pub(crate) fn get(&self, index: usize) -> Option<&Arc<Started>> {
        self.slots[index].started.get()
    }

    /// The tenant with this number, started if it was not.
    ///
    /// # Errors
    /// It cannot be started now; the next call tries again.
    pub(crate) async fn start(self: &Arc<Self>, index: usize) -> Result<Arc<Started>, Arc<str>> {
        if let Some(started) = self.slots[index].started.get() {
            return Ok(Arc::clone(started));
        }
        let this = Arc::clone(self);
        let starting = tokio::spawn(async move {
            let make = || async {
                let this = Arc::clone(&this);
                // Its files are read and written.
                let made = tokio::task::spawn_blocking(move || this.make(index)).await;
                made.map_err(|error| error.to_string())
                    .and_then(|made| made.map_err(|error| error.to_string()))
            };
            this.slots[index].started.get_or_try_init(make).await.map(Arc::clone)
        });
        let started = starting.await.map_err(|error| error.to_string()).flatten();
        started.map_err(|why| {
            tracing::warn!(target: "tidegate", "tenant {} cannot be started: {why}", self.slots[index].name);
            Arc::from(why)
        })
    }

    /// Starts a tenant before there are calls. It reads and writes files.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start_now(&self, index: usize) -> Result<(), StartError> {
        let made = self.make(index)?;
        // Whoever was faster has made the same.
        drop(self.slots[index].started.set(made));
        Ok(())
    }

    fn make(&self, index: usize) -> Result<Arc<Started>, StartError> {
        let slot = &self.slots[index];
        let TenantConfig { upstream: mut config, keys, .. } = slot.config.clone();
        let metrics = self.metrics.tenant(&slot.name);
        let fleet = Arc::new(Fleet::default());
        let own: [Arc<dyn Observer>; 2] = [Arc::new(metrics.clone()), Arc::clone(&fleet) as _];
        config.observers = config.observers.and(own);
        let bodies = match self.slots.len() {
            1 => self.bodies.clone(),
            _ => self.bodies.part(BODY_BUDGET / 2),
        };
        let reading = self.shared.reading.part_of(self.slots.len());
        let merging = self.shared.merging.as_ref();
        let places = Places::new(MAX_CONNECTIONS);
        let tenant = Tenant::new(config, metrics, fleet, places, bodies, (reading, merging));
        let tenant = Arc::new(tenant.map_err(StartError::Config)?);
        if self.shared.store_is_away {
            tenant.upstream.pacer().store_is_known_away();
        }
        let once = Once::new(Arc::clone(&tenant), keys, self.shared.max_wait)?;
        let state = slot.state.lock().take();
        let keeper = Mutex::new(state.map(|file| StateKeeper::start(file, &tenant.upstream)));
        let feed = Feed::new(
            Arc::clone(&slot.name),
            *tenant.upstream.clock(),
            Arc::clone(&self.shared.sinks),
            tenant.metrics.clone(),
        );
        let wanted = self.shared.push.get(&*slot.name).filter(|push| push.is_on());
        let push = wanted.map(|config| Push::new(&tenant, &feed, config)).transpose();
        let push = push.map_err(|why| StartError::Push { tenant: slot.name.to_string(), why })?;
        if let Some(push) = &push {
            tokio::spawn(Arc::clone(push).drive(self.shared.stop.clone()));
        }
        Ok(Arc::new(Started { tenant, once, feed, push, keeper }))
    }
}

fn state_file(config: &TenantConfig) -> Result<Option<StateFile>, StateError> {
    let upstream = &config.upstream;
    let in_dir = |dir: &Path| StateFile::in_dir(dir, &upstream.tenant, upstream.api.trim_end_matches('/'));
    match &config.state {
        KeepState::Nowhere => Ok(None),
        KeepState::In(dir) => in_dir(dir).map(Some),
        KeepState::InIfFree(dir) => Ok(in_dir(dir)
            .map_err(|error| {
                tracing::warn!(target: "tidegate", "pacing is not kept over restarts: {error}");
            })
            .ok()),
    }
}
