//! The way of a run to its upstream: straight, or through a running gateway.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use tidegate::observe::{Observer, Observers, Traced};
use tidegate::{Profile, Upstream, UpstreamConfig};

use crate::args::BulkCommon;
use crate::failure::Failure;
use crate::progress::Watch;
use crate::settings::Settings;

/// The way to the upstream.
pub(crate) struct Link {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) watch: Arc<Watch>,
    /// What every request carries for a gateway in between.
    pub(crate) header: Option<(HeaderName, HeaderValue)>,
}

impl Link {
    /// As the command line says.
    pub(crate) fn new(common: &BulkCommon) -> Result<Self, Failure> {
        let settings = Settings::load(&common.connection, |name| std::env::var(name).ok())?;
        match &common.via {
            None => Self::over(settings.upstream()?, None),
            Some(gateway) => Self::via(settings.profile()?, gateway),
        }
    }

    /// Through the gateway at `gateway`, which knows the limits and holds the credential.
    pub(crate) fn via(mut profile: Profile, gateway: &str) -> Result<Self, Failure> {
        profile.limits.clear();
        let class = (HeaderName::from_static("tidegate-class"), HeaderValue::from_static("bulk"));
        Self::over(UpstreamConfig::new(Arc::new(profile), gateway, gateway), Some(class))
    }

    fn over(mut config: UpstreamConfig, header: Option<(HeaderName, HeaderValue)>) -> Result<Self, Failure> {
        let watch = Arc::new(Watch::default());
        let observers: [Arc<dyn Observer>; 2] = [Arc::new(Traced), Arc::clone(&watch) as Arc<dyn Observer>];
        config.observers = Observers::new(observers);
        let upstream = Upstream::new(config).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::usage(lines.join("\n"))
        })?;
        Ok(Self { upstream, watch, header })
    }
}
