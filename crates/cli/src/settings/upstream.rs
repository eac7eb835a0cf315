//! What the settings say of the upstream: where it is, who calls it, and how it is treated.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::token::ClientCredentials;
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::breaker::BreakerConfig;
use tidegate_core::key::{CredentialId, Tenant};
use tidegate_core::pace::{Class, ClassPolicy, LimitKind, LimitSpec};
use tidegate_core::profile::Timeouts;

use super::Settings;
use super::keys::{
    API, BREAKER_THRESHOLD, BULK_TIMEOUT, CLASSES, CLIENT_ID, CLIENT_SECRET_FILE, CONNECT_TIMEOUT, COOL_DOWN,
    CREDENTIAL_NAME, FETCH_LIMITS, HTTP2, Key, LOGIN, LONGEST_COOL_DOWN, MAX_RETRIES, PROFILE, READ_TIMEOUT,
    REGION, RETRY_BUDGET, SECRET_ENV, STATE_UNKNOWN, TENANT, WRITE_TIMEOUT, http2,
};
use super::sources::{read, secret_in};
use crate::failure::{Failure, together};

/// Profiles by the name or file that the configuration has for them.
pub(crate) type Profiles = BTreeMap<String, Arc<Profile>>;

impl Settings {
    /// The profile as it was named.
    pub(crate) fn profile_name(&self) -> &str {
        self.get(&PROFILE).unwrap_or("genesys")
    }

    /// The profile with the time-outs of the configuration.
    pub(crate) fn profile(&self) -> Result<Profile, Failure> {
        let mut profile = self.named_profile()?;
        let (own, cap) = (profile.timeouts.connect, profile.backoff.cap());
        self.lay_over_timeouts(&mut profile.timeouts);
        let connect = profile.timeouts.connect;
        // What a profile is refused for. One that says that it means it may be given another such time.
        if connect > cap && own <= cap {
            return Err(Failure::usage(format!(
                "{}: {connect:?} is above the backoff cap of {cap:?} of profile `{}`: it only delays the discovery that a host is away (lower it)",
                CONNECT_TIMEOUT.name, profile.name
            )));
        }
        Ok(profile)
    }

    /// The profile as it stands: a built-in one by name, or a file.
    fn named_profile(&self) -> Result<Profile, Failure> {
        let name = self.profile_name();
        if let Some(profile) = Profile::builtin(name) {
            return Ok(profile);
        }
        let path = Path::new(name);
        if !path.exists() {
            let known = Profile::builtin_names().collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!(
                "profile `{name}`: no built-in profile and no file (built in: {known})"
            )));
        }
        let text = read(path)?;
        Profile::parse(&text, name).map_err(Failure::usage)
    }

    /// What to say where nobody has said which upstream is meant, and the profile's own region is taken.
    pub(crate) fn assumed_region(&self) -> Option<String> {
        if self.get(&API).is_some() || self.get(&REGION).is_some() {
            return None;
        }
        let profile = self.named_profile().ok()?;
        let region = profile.regions?.default?;
        Some(format!("region {region} (default of profile {})", profile.name))
    }

    /// The organisation.
    pub(crate) fn tenant(&self) -> Tenant {
        Tenant::new(self.get(&TENANT).unwrap_or("default"))
    }

    /// Where the upstream is and who calls it.
    pub(crate) fn upstream(&self) -> Result<UpstreamConfig, Failure> {
        self.upstream_with(&mut Profiles::new())
    }

    /// The same, one of several: those with one profile have it together.
    pub(crate) fn upstream_with(&self, profiles: &mut Profiles) -> Result<UpstreamConfig, Failure> {
        let profile = match profiles.get(self.profile_name()) {
            Some(profile) => Ok(Arc::clone(profile)),
            None => self.profile().map(Arc::new),
        };
        let place = profile.and_then(|profile| self.hosts(&profile).map(|hosts| (profile, hosts)));
        let who = together((self.credential(), together((self.breaker(), self.quota()))));
        let ((profile, (api, login)), (credential, (breaker, quota))) = together((place, who))?;
        profiles.entry(self.profile_name().to_owned()).or_insert_with(|| Arc::clone(&profile));
        let mut config = UpstreamConfig::new(profile, api, login);
        config.tenant = self.tenant();
        config.limits.clone_from(&self.limits);
        config.calendar = self.calendar();
        config.staggered_as = self.instance();
        config.breaker = breaker;
        config.max_retries = self.number(&MAX_RETRIES).unwrap_or(config.max_retries);
        config.budget.capacity = self.number(&RETRY_BUDGET).unwrap_or(config.budget.capacity);
        self.lay_over_all(&mut config.policies);
        for told in self.cut_reserves(&config) {
            tracing::warn!(target: "tidegate", "{told}");
        }
        config.http2 = self.get(&HTTP2).and_then(|text| http2(text).ok()).unwrap_or_default();
        config.quota = quota;
        if let Some(told) = super::quota::per_token(&config) {
            tracing::warn!(target: "tidegate", "{told}");
        }
        config.credential = credential;
        config.class_credentials.clone_from(&self.class_credentials);
        config.assume_spent = self.get(&STATE_UNKNOWN) == Some("spent");
        config.fetch_limits = self.get(&FETCH_LIMITS) != Some("false");
        Ok(config)
    }

    /// The profile's time-outs with those of the configuration.
    fn lay_over_timeouts(&self, timeouts: &mut Timeouts) {
        let set = |timeout: &mut Duration, key| *timeout = self.duration(key).unwrap_or(*timeout);
        set(&mut timeouts.connect, &CONNECT_TIMEOUT);
        set(&mut timeouts.read, &READ_TIMEOUT);
        set(&mut timeouts.write, &WRITE_TIMEOUT);
        set(&mut timeouts.bulk, &BULK_TIMEOUT);
    }

    /// When calls to a family that keeps failing are refused.
    fn breaker(&self) -> Result<BreakerConfig, Failure> {
        let default = BreakerConfig::default();
        let cool_down = self.duration(&COOL_DOWN).unwrap_or(default.cool_down);
        let longest = self.duration(&LONGEST_COOL_DOWN);
        if let Some(longest) = longest.filter(|longest| *longest < cool_down) {
            return Err(Failure::usage(format!(
                "{}: {longest:?} is shorter than the first cool-down of {cool_down:?} (raise it, or lower {})",
                LONGEST_COOL_DOWN.name, COOL_DOWN.name
            )));
        }
        Ok(BreakerConfig {
            threshold: self.number(&BREAKER_THRESHOLD).unwrap_or(default.threshold),
            cool_down,
            longest_cool_down: longest.unwrap_or(default.longest_cool_down.max(cool_down)),
        })
    }

    /// What was set of the classes' policies.
    pub(super) fn lay_over_all(&self, policies: &mut [ClassPolicy; Class::COUNT]) {
        for (policy, keys) in policies.iter_mut().zip(CLASSES) {
            self.lay_over(policy, keys);
        }
    }

    /// What was set of a class's policy. Texts were checked when they were read.
    fn lay_over(&self, policy: &mut ClassPolicy, (taking, reserve): (&Key, &Key)) {
        if let Some(taking) = self.get(taking).and_then(|text| text.parse().ok()) {
            policy.taking = taking;
        }
        if let Some(reserve) = self.get(reserve).and_then(|text| text.parse().ok()) {
            policy.reserve = reserve;
        }
    }

    /// What to say about each reserve that was set and is more than declared quotas can give.
    pub(super) fn cut_reserves(&self, config: &UpstreamConfig) -> Vec<String> {
        let replaced = |limit: &LimitSpec| config.limits.iter().any(|own| own.key == limit.key);
        let declared = config.profile.limits.iter().filter(|limit| !replaced(limit)).chain(&config.limits);
        let quotas: Vec<(&str, u64)> = declared
            .filter_map(|limit| match limit.kind {
                LimitKind::Rate { quota, .. } => Some((limit.key.as_str(), quota)),
                LimitKind::Concurrent { .. } => None,
            })
            .collect();
        let mut told = Vec::new();
        for (policy, (_, key)) in config.policies.iter().zip(CLASSES) {
            // Whoever has not set it meant nothing by it.
            if self.get(key).is_none() {
                continue;
            }
            let cut = quotas.iter().filter(|(_, quota)| policy.reserve.saturating_mul(2) > *quota);
            let cut: Vec<String> =
                cut.map(|(limit, quota)| format!("{} of {quota} (limit `{limit}`)", quota / 2)).collect();
            if !cut.is_empty() {
                told.push(format!(
                    "{} = {} is more than half of a quota, where only half is left: {}",
                    key.name,
                    policy.reserve,
                    cut.join(", ")
                ));
            }
        }
        told
    }

    fn hosts(&self, profile: &Profile) -> Result<(String, String), Failure> {
        let of_region = match self.get(&REGION) {
            Some(region) => Some(profile.hosts(region).ok_or_else(|| unknown_region(profile, region))?),
            None => profile.hosts(""),
        };
        let (region_api, region_login) = of_region.unzip();
        let url = |host: String| format!("https://{host}");
        let api = self.get(&API).map(str::to_owned).or_else(|| region_api.map(url));
        // An API that was named without its login host serves both, as the simulator and a gateway do.
        let login = self.get(&LOGIN).map(str::to_owned).or_else(|| match self.get(&API) {
            Some(api) => Some(api.to_owned()),
            None => region_login.map(url),
        });
        match (api, login) {
            (Some(api), Some(login)) => Ok((api, login)),
            _ => Err(Failure::usage(format!(
                "profile `{}` does not say where its upstream is: give --api, and --login if it is elsewhere",
                profile.name
            ))),
        }
    }

    fn credential(&self) -> Result<Option<(CredentialId, ClientCredentials)>, Failure> {
        if let Some(configured) = &self.credential {
            return Ok(Some(configured.clone()));
        }
        let name = CredentialId::new(self.get(&CREDENTIAL_NAME).unwrap_or("default"));
        let secret = match (&self.secret, self.get(&CLIENT_SECRET_FILE)) {
            (Some(secret), _) => Some(secret.clone()),
            (None, Some(path)) => Some(secret_in(path, &format!("credential `{name}`"))?),
            (None, None) => None,
        };
        match (self.get(&CLIENT_ID), secret) {
            (None, None) => Ok(None),
            (Some(id), Some(secret)) => Ok(Some((name, ClientCredentials::new(id, &secret)))),
            (Some(_), None) => Err(Failure::usage(format!(
                "credential `{name}` has a client id but no secret: set {} or --client-secret-file",
                SECRET_ENV[1]
            ))),
            (None, Some(_)) => Err(Failure::usage(format!(
                "credential `{name}` has a secret but no client id: set {} or --client-id",
                CLIENT_ID.env[1]
            ))),
        }
    }
}

fn unknown_region(profile: &Profile, region: &str) -> Failure {
    let regions = profile.regions.as_ref();
    let near = regions.and_then(|regions| regions.nearest(region));
    let hint = near.map_or_else(
        || format!(" (`tidegate profile show {}` lists them)", profile.name),
        |near| format!(" (did you mean `{near}`?)"),
    );
    Failure::usage(format!("region `{region}` is not one of profile `{}`{hint}", profile.name))
}
