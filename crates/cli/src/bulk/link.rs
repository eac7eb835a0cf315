//! The way to the upstream, and how a resume finds the one its run took.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tidegate::observe::{Observer, Observers, Traced};
use tidegate::{Credential, NotReady, Profile, Upstream, UpstreamConfig};
use tidegate_bulk::Recipe;
use tidegate_core::key::Tenant;

use crate::args::{BulkCommon, Connection};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::progress::Watch;
use crate::settings::Settings;

/// The way to the upstream.
pub(crate) struct Link {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) watch: Arc<Watch>,
    /// What every request carries for a gateway in between.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
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
    /// The recipe's text, where jobs have to be followed by it, or it says how to find out what became of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipe: Option<String>,
    /// Where results of jobs go, if not to the place they go to by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<PathBuf>,
}

impl Link {
    /// As the command line says. Nothing is sent.
    pub(crate) fn new(common: &BulkCommon) -> Result<Self, Failure> {
        Self::of(&common.connection, common.via.as_deref())
    }

    /// To the upstream of `connection`, through the gateway at `via` if there is one. Nothing is sent.
    pub(crate) fn of(connection: &Connection, via: Option<&str>) -> Result<Self, Failure> {
        let settings = Settings::load(connection, &Environment::of_process())?;
        let mut link = match via {
            None => {
                let config = settings.upstream()?;
                let route = Route {
                    api: Some(config.api.clone()),
                    login: Some(config.login.clone()),
                    ..Route::default()
                };
                Self::over(config, route, Vec::new())?
            }
            Some(gateway) => Self::through(settings.profile()?, settings.tenant(), gateway)?,
        };
        link.route.profile = Some(absolute(settings.profile_name()));
        Ok(link)
    }

    /// Through the gateway at `gateway`, for the default tenant.
    pub(crate) fn via(profile: Profile, gateway: &str) -> Result<Self, Failure> {
        Self::through(profile, Tenant::new("default"), gateway)
    }

    /// Through a gateway, which knows the limits and holds the credential.
    fn through(mut profile: Profile, tenant: Tenant, gateway: &str) -> Result<Self, Failure> {
        profile.limits.clear();
        profile.limits_source = None;
        // Several runs through one gateway share it; each is a caller of its own.
        let caller = HeaderValue::try_from(format!("tidegate bulk {}", std::process::id()));
        let headers = vec![
            (HeaderName::from_static("tidegate-class"), HeaderValue::from_static("bulk")),
            (
                HeaderName::from_static("tidegate-caller"),
                caller.expect("digits and letters are a header's value"),
            ),
        ];
        let mut config = UpstreamConfig::new(Arc::new(profile), gateway, gateway);
        config.tenant = tenant;
        let route = Route { via: Some(gateway.to_owned()), ..Route::default() };
        Self::over(config, route, headers)
    }

    fn over(
        mut config: UpstreamConfig,
        route: Route,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Self, Failure> {
        let watch = Arc::new(Watch::default());
        let observers: [Arc<dyn Observer>; 2] = [Arc::new(Traced), Arc::clone(&watch) as Arc<dyn Observer>];
        config.observers = Observers::new(observers);
        let upstream = Upstream::new(config).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::usage(lines.join("\n"))
        })?;
        Ok(Self { upstream, watch, headers, route })
    }

    /// What a resume needs of a recipe whose upstream works on after its answer, or that says how to find out what became
    /// of a request.
    pub(super) fn keep_recipe(&mut self, recipe: &Recipe, results: Option<&Path>) {
        if recipe.jobs().is_some() || recipe.reconcile().is_some() {
            self.route.recipe = Some(recipe.text().to_owned());
        }
        if recipe.jobs().is_some() {
            self.route.results = results.and_then(|path| std::path::absolute(path).ok());
        }
    }

    /// Where this goes, for the journal.
    pub(crate) fn route(&self) -> String {
        serde_json::to_string(&self.route).expect("texts serialise")
    }

    /// Finds out whether calls can be served at all, before there is a journal or an intent.
    pub(crate) async fn check(&self) -> Result<(), Failure> {
        let upstream = &self.upstream;
        let anonymous = matches!(upstream.credential(), Credential::Anonymous);
        if anonymous && self.headers.is_empty() && upstream.profile().oauth.is_some() {
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

/// A profile file by its full path, so that it is found from another folder; a built-in one by its name.
fn absolute(profile: &str) -> String {
    match std::path::absolute(profile) {
        Ok(path) if path.is_file() => path.display().to_string(),
        _ => profile.to_owned(),
    }
}

/// The text of the recipe that a run goes on by, and where the results of its jobs go if that was said.
///
/// # Errors
/// The journal's words are none of this version: without the recipe jobs could not be followed, nor doubts found out.
pub(super) fn followed(options: &str) -> Result<(Option<String>, Option<PathBuf>), Failure> {
    if options.is_empty() {
        return Ok((None, None));
    }
    let route: Route = serde_json::from_str(options).map_err(|error| {
        Failure::usage(format!(
            "the journal's options cannot be read ({error}); nothing was sent: resume with the version of tidegate that began the run"
        ))
    })?;
    Ok((route.recipe, route.results))
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
