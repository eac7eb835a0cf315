//! A quota that is shared with other processes.
//!
//! They meet in a [`Store`]: [`MemoryStore`] for the parts of one program, Redis or DynamoDB for programs (crates
//! `tidegate-quota-redis` and `tidegate-quota-dynamodb`).
//! Those that name the same API and tenant, in one store, share:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use tidegate::share::{HolderId, MemoryStore, OnStoreLoss, ShareConfig, SharedQuota};
//! use tidegate::{Profile, Upstream, UpstreamConfig};
//!
//! let began = Instant::now();
//! let store = Arc::new(MemoryStore::at(move || began.elapsed().as_millis() as u64));
//! let part = |holder| {
//!     let mut config = UpstreamConfig::new(
//!         Arc::new(Profile::builtin("genesys").expect("ships with the crate")),
//!         "https://api.mypurecloud.com",
//!         "https://login.mypurecloud.com",
//!     );
//!     config.quota = Some(SharedQuota {
//!         store: store.clone(),
//!         config: ShareConfig {
//!             holder: HolderId(holder),
//!             on_store_loss: OnStoreLoss::Share,
//!             max_instances: 2,
//!             tokens_shared: false,
//!         },
//!         token_key: None,
//!     });
//!     Upstream::new(config)
//! };
//! let (one, other) = (part(1).expect("valid"), part(2).expect("valid"));
//! assert_eq!(one.bank(), other.bank(), "what one of them spends is spent for both");
//! ```
//!
//! A program that ends calls [`Upstream::give_back`](crate::Upstream::give_back) last, so that the others need not wait for what it
//! holds.

mod ask;
mod courier;

use std::sync::Arc;

pub(crate) use ask::{ask, late};
pub(crate) use courier::{Courier, Link};
pub use tidegate_core::share::{BankKey, Exchange, HolderId, LimitView, OnStoreLoss, Reply, ShareConfig};
pub use tidegate_quota::{About, Kept, Lock, MemoryStore, Name, Store, StoreError, TokenKey};

use crate::clock::Clock;

/// A number for this process among those that share a quota: from the system's source of chance, so that no two processes
/// ever have the same, on machines that were started alike neither.
pub fn new_holder() -> HolderId {
    Clock::start().holder()
}

/// How an upstream's quota is shared with other processes.
///
/// All whose store, API and tenant are the same draw from one quota. Two parts of one program may share a store in memory:
///
/// ```
/// use std::sync::Arc;
/// use std::time::Instant;
///
/// use tidegate::share::{HolderId, MemoryStore, OnStoreLoss, ShareConfig, SharedQuota};
/// use tidegate::{Profile, Upstream, UpstreamConfig};
///
/// let began = Instant::now();
/// let clock = move || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
/// let store = Arc::new(MemoryStore::at(clock));
/// let upstream = |holder| {
///     let profile = Arc::new(Profile::builtin("genesys").expect("it is built in"));
///     let mut config = UpstreamConfig::new(profile, "https://api.mypurecloud.com", "https://login.mypurecloud.com");
///     let share = ShareConfig {
///         holder: HolderId(holder),
///         on_store_loss: OnStoreLoss::Share,
///         max_instances: 64,
///         tokens_shared: false,
///     };
///     let store = Arc::<MemoryStore>::clone(&store);
///     config.quota = Some(SharedQuota { store, config: share, token_key: None });
///     Upstream::new(config)
/// };
/// let (one, other) = (upstream(1), upstream(2));
/// assert!(one.is_ok() && other.is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct SharedQuota {
    /// Where they meet.
    pub store: Arc<dyn Store>,
    /// How this process takes part. Each [`Upstream`](crate::Upstream) draws a holder of its own, so that one value may be given to
    /// several.
    pub config: ShareConfig,
    /// Seals tokens, so that the fleet has one; `None`: each process has its own.
    pub token_key: Option<TokenKey>,
}

impl SharedQuota {
    /// The same for another holder.
    pub(crate) fn of(self, holder: HolderId) -> Self {
        Self { config: ShareConfig { holder, ..self.config }, ..self }
    }
}
