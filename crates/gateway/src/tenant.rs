//! One organisation as the gateway serves it. Nothing in here is shared with another tenant.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tidegate::credential::Bearer;
use tidegate::layer::around;
use tidegate::{Client, ConfigError, Credential, Upstream, UpstreamConfig};
use tidegate_core::key::CredentialId;
use tidegate_core::profile::ErrorShape;

use crate::learnt::{self, Learnt};
use crate::once::Door;

/// One organisation.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) client: Client,
    pub(crate) learnt: Learnt,
    /// The client id and the name of the configured credential.
    configured: Option<(String, CredentialId)>,
}

/// Who a request is made as, and why.
#[derive(Debug)]
pub(crate) struct Identified {
    pub(crate) credential: Credential,
    /// The token of a learnt login, as the caller sent it.
    pub(crate) learnt: bool,
}

impl Tenant {
    pub(crate) fn new(config: UpstreamConfig) -> Result<Self, Vec<ConfigError>> {
        let configured = config.credential.as_ref();
        let configured = configured.map(|(id, login)| (login.client_id().to_owned(), id.clone()));
        let upstream = Upstream::new(config)?;
        let client = Client::with_layer(Arc::clone(&upstream), around(Door { clock: *upstream.clock() }));
        Ok(Self { client, upstream, learnt: Learnt::default(), configured })
    }

    /// The shape of the upstream's errors, and so of ours.
    pub(crate) fn shape(&self) -> ErrorShape {
        self.upstream.profile().errors
    }

    /// Who the upstream counts the calls of `client_id` for. A login as the configured client shares its identity:
    /// with one of its own, the client's limits would be paced at twice what they allow.
    pub(crate) fn identity(&self, client_id: &str) -> CredentialId {
        match &self.configured {
            Some((configured, id)) if configured == client_id => id.clone(),
            _ => learnt::identity(client_id),
        }
    }

    /// The configured credential is lent only where the caller brought none; a token from a login through us is
    /// exchanged for one that is valid now; any other passes unchanged.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Identified {
        let Some(authorization) = headers.get(AUTHORIZATION) else {
            return Identified { credential: self.upstream.credential().clone(), learnt: false };
        };
        let now = self.upstream.clock().now();
        if let Some(manager) = self.learnt.find(authorization.as_bytes(), now) {
            return Identified { credential: Credential::Managed(manager), learnt: true };
        }
        let bearer = Bearer::new(authorization.clone());
        Identified { credential: Credential::Bearer(bearer), learnt: false }
    }
}
