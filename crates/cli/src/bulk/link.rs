//! The way to the upstream, and how a resume finds the one its run took.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate::observe::{Observer, Observers, Traced};
use tidegate::{Credential, NotReady, Profile, Upstream, UpstreamConfig};
use tidegate_bulk::Recipe;
use tidegate_core::key::Tenant;
use tidegate_core::pace::Class;

use crate::args::{BulkCommon, Connection};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output;
use crate::progress::Watch;
use crate::quota;
use crate::settings::{KEY_ENV, Settings, Stagger};

/// By whom a gateway in between is called.
const CALLER: HeaderName = HeaderName::from_static("tidegate-caller");

/// For which of its tenants, and with which key.
const TENANT: HeaderName = HeaderName::from_static("tidegate-tenant");
const KEY: HeaderName = HeaderName::from_static("tidegate-key");

/// The way to the upstream.
pub(crate) struct Link {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) watch: Arc<Watch>,
    /// What every request carries for a gateway in between.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// By how much starts are spread where others share the quota.
    stagger: Option<Stagger>,
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
    /// The tenant that was named on the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// The recipe's text, where jobs have to be followed by it, or it says how to find out what became of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipe: Option<String>,
    /// Where results of jobs go, if not to the place they go to by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<PathBuf>,
}

impl Link {
    /// As the command line says, for the run of `journal`. Nothing is sent.
    pub(crate) fn new(common: &BulkCommon, journal: &Path) -> Result<Self, Failure> {
        let mut link = Self::of(&common.connection, common.via.as_deref(), Some(journal))?;
        link.called_by(journal);
        Ok(link)
    }

    /// To the upstream of `connection`, through the gateway at `via` if there is one. Nothing is sent. The file that stands for the
    /// work decides when it begins again after a window, so that it is the same moment for a resume.
    pub(crate) fn of(
        connection: &Connection,
        via: Option<&str>,
        work: Option<&Path>,
    ) -> Result<Self, Failure> {
        let settings = Settings::load(connection, &Environment::of_process())?;
        let mut link = match via {
            None => {
                let mut config = settings.upstream()?;
                if let Some(assumed) = settings.assumed_region() {
                    output::talk(&assumed);
                }
                if let (Some(name), Some(work)) = (&mut config.staggered_as, work) {
                    name.push(' ');
                    name.push_str(&name_of(work));
                }
                let route = Route {
                    api: Some(config.api.clone()),
                    login: Some(config.login.clone()),
                    ..Route::default()
                };
                Self::over(config, route, Vec::new())?
            }
            Some(gateway) => {
                let key = Environment::of_process().get(KEY_ENV).map_err(Failure::usage)?;
                let mut link = Self::through(settings.profile()?, settings.tenant(), gateway)?;
                for (name, value) in [(TENANT, connection.tenant.as_deref()), (KEY, key.as_deref())] {
                    let Some(value) = value else { continue };
                    let mut field = HeaderValue::try_from(value).map_err(|_| {
                        Failure::usage(format!("{name}: its value cannot be sent in a header"))
                    })?;
                    field.set_sensitive(name == KEY);
                    link.headers.push((name, field));
                }
                link
            }
        };
        link.route.tenant.clone_from(&connection.tenant);
        link.route.profile = Some(absolute(settings.profile_name()));
        link.stagger = settings.stagger();
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
        // Several runs through one gateway share it; each is a caller of its own. A run with a journal is named by that.
        let caller = HeaderValue::try_from(format!("tidegate bulk {}", std::process::id()));
        let headers = vec![
            (HeaderName::from_static("tidegate-class"), HeaderValue::from_static("bulk")),
            (CALLER, caller.expect("digits and letters are a header's value")),
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
        Ok(Self { upstream, watch, headers, stagger: None, route })
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

    /// Names the caller that a gateway in between sees by the run's journal, so that a resume is the same caller: what the
    /// gateway followed to its end for a process that was killed is told to the next one.
    fn called_by(&mut self, journal: &Path) {
        let name = caller_of(journal);
        for (_, value) in self.headers.iter_mut().filter(|(header, _)| *header == CALLER) {
            *value = name.clone();
        }
    }

    /// Where this goes, for the journal.
    pub(crate) fn route(&self) -> String {
        serde_json::to_string(&self.route).expect("texts serialise")
    }

    /// Begins: waits for a chance of its own where other processes share the quota, then finds out whether calls can be
    /// served at all, before there is a journal or an intent. The gateway that calls go through, if there is one, shares
    /// for them.
    pub(crate) async fn begin(&self) -> Result<(), Failure> {
        if let Some(quota) = self.upstream.quota() {
            quota::wait_for_a_start(quota, self.upstream.bank(), self.stagger).await?;
        }
        self.check().await?;
        if let Some((held, _)) = self.held() {
            output::talk(&held);
        }
        Ok(())
    }

    /// Why the work waits for a window of the calendar, in words, and for how long; `None` if it does not.
    pub(crate) fn held(&self) -> Option<(String, Duration)> {
        self.upstream.pacer().held(Class::Bulk)
    }

    /// What keeps polls of jobs from beginning together; `None`: nothing has to.
    pub(super) fn spread(&self) -> Option<(Duration, Duration)> {
        self.upstream.quota()?;
        self.stagger.map(|Stagger { least, most }| (least, most))
    }

    async fn check(&self) -> Result<(), Failure> {
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

/// The name of the run whose journal that is, however the path to it is written.
fn caller_of(journal: &Path) -> HeaderValue {
    let name = format!("tidegate bulk {}", name_of(journal));
    HeaderValue::try_from(name).expect("digits and letters are a header's value")
}

/// Sixteen digits that are the same however the path is written.
fn name_of(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    let path = match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path,
    };
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest[..8].iter().fold(String::new(), |name, byte| format!("{name}{byte:02x}"))
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
    common.connection.tenant = given.tenant.clone().or(route.tenant);
    if common.via.is_none() && given.api.is_none() && given.region.is_none() {
        common.via = route.via;
        common.connection =
            Connection { api: route.api, login: given.login.clone().or(route.login), ..common.connection };
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_the_same_caller_however_its_journal_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let plain = caller_of(&inner.join("a.journal"));
        assert_eq!(caller_of(&inner.join("../inner/./a.journal")), plain);
        assert_ne!(caller_of(&inner.join("b.journal")), plain);
        let mut link = Link::via(Profile::builtin("generic").unwrap(), "http://127.0.0.1:1").unwrap();
        link.called_by(&inner.join("a.journal"));
        let named: Vec<_> = link.headers.iter().filter(|(name, _)| *name == CALLER).collect();
        assert_eq!(named, [&(CALLER, plain)]);
    }
}
