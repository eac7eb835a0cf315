//! The way to the upstream, and how a resume finds the one its run took.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tidegate::observe::{Observer, Observers, Traced};
use tidegate::{Credential, NotReady, Upstream, UpstreamConfig};

use crate::args::{BulkCommon, Connection};
use crate::failure::Failure;
use crate::progress::Watch;
use crate::settings::Settings;

/// The way to the upstream.
pub(super) struct Link {
    pub(super) upstream: Arc<Upstream>,
    pub(super) watch: Arc<Watch>,
    /// What every request carries for a gateway in between.
    pub(super) header: Option<(HeaderName, HeaderValue)>,
    route: Route,
}

/// Where a run was sent; its journal keeps it, so that a resume goes there without being told again.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Route {
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<String>,
}

impl Link {
    /// Sets the way up. Nothing is sent.
    pub(super) fn new(common: &BulkCommon) -> Result<Self, Failure> {
        let settings = Settings::load(&common.connection, |name| std::env::var_os(name))?;
        let mut config = match &common.via {
            None => settings.upstream()?,
            Some(gateway) => through(&settings, gateway)?,
        };
        let watch = Arc::new(Watch::default());
        let observers: [Arc<dyn Observer>; 2] = [Arc::new(Traced), Arc::clone(&watch) as Arc<dyn Observer>];
        config.observers = Observers::new(observers);
        let route = Route {
            profile: Some(absolute(settings.profile_name())),
            api: common.via.is_none().then(|| config.api.clone()),
            login: common.via.is_none().then(|| config.login.clone()),
            via: common.via.clone(),
        };
        let upstream = Upstream::new(config).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::usage(lines.join("\n"))
        })?;
        let header = common
            .via
            .as_ref()
            .map(|_| (HeaderName::from_static("tidegate-class"), HeaderValue::from_static("bulk")));
        Ok(Self { upstream, watch, header, route })
    }

    /// Where this goes, for the journal.
    pub(super) fn route(&self) -> String {
        serde_json::to_string(&self.route).expect("texts serialise")
    }

    /// Finds out whether calls can be served at all, before there is a journal or an intent.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let upstream = &self.upstream;
        let anonymous = matches!(upstream.credential(), Credential::Anonymous);
        if anonymous && self.header.is_none() && upstream.profile().oauth.is_some() {
            return Err(Failure::usage(format!(
                "no credential for {}: set GENESYSCLOUD_OAUTHCLIENT_ID and GENESYSCLOUD_OAUTHCLIENT_SECRET, or send --via a gateway that has one",
                upstream.api_base()
            )));
        }
        upstream.check().await.map_err(|error| {
            let hint = match &error {
                NotReady::Token(token) if token.refused => {
                    "check the client id and secret, and that they belong to this region"
                }
                NotReady::Token(_) => "check --login or --region, and try again",
                NotReady::Api(_) => "check --api, --region or --via, and try again",
            };
            Failure::upstream(format!("{error}; nothing was sent; {hint}"))
        })
    }
}

/// Through a gateway, which knows the limits and holds the credential.
fn through(settings: &Settings, gateway: &str) -> Result<UpstreamConfig, Failure> {
    let mut profile = settings.profile()?;
    profile.limits.clear();
    let mut config = UpstreamConfig::new(Arc::new(profile), gateway, gateway);
    config.tenant = settings.tenant();
    Ok(config)
}

/// A profile file by its full path, so that it is found from another folder; a built-in one by its name.
fn absolute(profile: &str) -> String {
    match std::path::absolute(profile) {
        Ok(path) if path.is_file() => path.display().to_string(),
        _ => profile.to_owned(),
    }
}

/// The flags of a resume, with what they do not say taken from where the run went.
pub(super) fn as_it_ran(common: &BulkCommon, options: &str) -> BulkCommon {
    // A journal of another version may have other words here; then the flags and the configuration decide.
    let route: Route = serde_json::from_str(options).unwrap_or_default();
    let given = &common.connection;
    let mut common = common.clone();
    common.connection.profile = given.profile.clone().or(route.profile);
    if common.via.is_none() && given.api.is_none() && given.region.is_none() {
        common.via = route.via;
        common.connection =
            Connection { api: route.api, login: given.login.clone().or(route.login), ..common.connection };
    }
    common
}
