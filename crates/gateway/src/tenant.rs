//! One organisation as the gateway serves it. Nothing in here is shared with another tenant.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tidegate::body::ByteBudget;
use tidegate::credential::Bearer;
use tidegate::layer::around;
use tidegate::{Class, Client, ConfigError, Credential, Upstream, UpstreamConfig};
use tidegate_core::key::CredentialId;
use tidegate_core::profile::ErrorShape;
use tidegate_telemetry::TenantMetrics;

use crate::fleet::Fleet;
use crate::learnt::{self, Learnt};
use crate::merging::{MergeConfig, Merging};
use crate::once::Door;
use crate::places::Places;
use crate::readers::{Readers, Reading};

/// One organisation.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) client: Client,
    pub(crate) learnt: Learnt,
    pub(crate) readers: Arc<Readers>,
    /// Where writes are merged.
    pub(crate) merging: Option<Arc<Merging>>,
    pub(crate) metrics: TenantMetrics,
    pub(crate) fleet: Arc<Fleet>,
    /// Places for its calls.
    pub(crate) places: Arc<Places>,
    /// Memory for the bodies of its calls.
    pub(crate) bodies: ByteBudget,
    /// The client ids and the names of the configured credentials.
    configured: Vec<(String, CredentialId)>,
}

/// Who a request is made as, and why.
#[derive(Debug)]
pub(crate) struct Identified {
    pub(crate) credential: Credential,
    /// The token of a learnt login, as the caller sent it.
    pub(crate) learnt: bool,
}

impl Tenant {
    pub(crate) fn new(
        config: UpstreamConfig,
        metrics: TenantMetrics,
        fleet: Arc<Fleet>,
        places: Arc<Places>,
        bodies: ByteBudget,
        (reading, merging): (Reading, Option<&MergeConfig>),
    ) -> Result<Self, Vec<ConfigError>> {
        let configured = config.credential.iter().chain(config.class_credentials.iter().flatten());
        let configured = configured.map(|(id, login)| (login.client_id().to_owned(), id.clone())).collect();
        let upstream = Upstream::new(config)?;
        let client = Client::with_layer(Arc::clone(&upstream), around(Door { clock: *upstream.clock() }));
        let learnt = Learnt::default();
        let readers = Arc::new(Readers::new(reading, &upstream.profile().lists, *upstream.clock()));
        let merging = merging
            .and_then(|config| Merging::new(config, upstream.profile(), *upstream.clock(), metrics.clone()));
        Ok(Self { upstream, client, learnt, readers, merging, metrics, fleet, places, bodies, configured })
    }

    /// The shape of the upstream's errors, and so of ours.
    pub(crate) fn shape(&self) -> ErrorShape {
        self.upstream.profile().errors
    }

    /// Who the upstream counts the calls of `client_id` for. A login as a configured client shares its identity:
    /// with one of its own, the client's limits would be paced at twice what they allow.
    pub(crate) fn identity(&self, client_id: &str) -> CredentialId {
        let known = self.configured.iter().find(|(configured, _)| configured == client_id);
        known.map_or_else(|| learnt::identity(client_id), |(_, id)| id.clone())
    }

    /// The configured credential, of the call's class if it has one, is lent only where the caller brought none; a token from a login through us is
    /// exchanged for one that is valid now; any other passes unchanged.
    pub(crate) fn identify(&self, headers: &HeaderMap, class: Class) -> Identified {
        let Some(authorization) = headers.get(AUTHORIZATION) else {
            return Identified { credential: self.upstream.credential_for(class).clone(), learnt: false };
        };
        let now = self.upstream.clock().now();
        if let Some(manager) = self.learnt.find(authorization.as_bytes(), now) {
            return Identified { credential: Credential::Managed(manager), learnt: true };
        }
        let bearer = Bearer::new(authorization.clone());
        Identified { credential: Credential::Bearer(bearer), learnt: false }
    }
}
