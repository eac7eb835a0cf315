//! One organisation as the gateway serves it. Nothing in here is shared with another tenant.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tidegate::credential::Bearer;
use tidegate::{Client, ConfigError, Credential, Upstream, UpstreamConfig};

use crate::learnt::Learnt;

/// One organisation.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) client: Client,
    pub(crate) learnt: Learnt,
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
        let upstream = Upstream::new(config)?;
        Ok(Self { client: Client::over(Arc::clone(&upstream)), upstream, learnt: Learnt::default() })
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
