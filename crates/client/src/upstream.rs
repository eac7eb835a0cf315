//! One tenant on one upstream: everything its calls share.
//!
//! The gates, the token, the connections and the retry budget belong to the upstream and not to a service value,
//! because services are cloned for every call and a limiter inside a clone limits nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Uri};
use parking_lot::Mutex;
use tidegate_core::breaker::BreakerConfig;
use tidegate_core::budget::{Budget, BudgetRules};
use tidegate_core::calendar::{Calendar, stagger_seed};
use tidegate_core::classify::Failure;
use tidegate_core::key::{CredentialId, Tenant};
use tidegate_core::pace::{BankConfig, Class, ClassPolicy, LimitSpec, SpecProblem};
use tidegate_core::profile::Profile;
use tidegate_core::retry::RetryPolicy;
use tidegate_core::token::TokenRules;

use crate::body::{BoxError, RequestBody, ResponseBody};
use crate::clock::Clock;
use crate::credential::Credential;
use crate::layer::fresh::Fresh;
use crate::limits::{Fetching, Listing};
use crate::observe::Observers;
use crate::pacer::Pacer;
use crate::share::{BankKey, SharedQuota};
use crate::token::{ClientCredentials, SharedTokens, TokenEndpoint, TokenError, TokenManager};
use crate::transport::{Connections, Http2, SendError, SendOptions, Transport, Wire};

/// Where a profile without OAuth rules passes logins on to.
const DEFAULT_TOKEN_PATH: &str = "/oauth/token";

/// How an upstream is set up.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// The vendor's rules.
    pub profile: Arc<Profile>,
    /// The organisation.
    pub tenant: Tenant,
    /// Base URL of the API, without a path: `https://api.mypurecloud.com`.
    pub api: String,
    /// Base URL of the login host: `https://login.mypurecloud.com`.
    pub login: String,
    /// The credential calls are made as unless they bring their own: its name, and what it logs in with.
    pub credential: Option<(CredentialId, ClientCredentials)>,
    /// The credentials that calls of a class are made as instead, by [`Class::ALL`]: each another client than the others, with
    /// a name of its own, so that one class can spend nothing of another's quota.
    pub class_credentials: [Option<(CredentialId, ClientCredentials)>; Class::COUNT],
    /// Limits beside, or instead of those of the same key in, the profile.
    pub limits: Vec<LimitSpec>,
    /// What each class leaves of a quota to more important ones and to strangers, by [`Class::ALL`].
    pub policies: [ClassPolicy; Class::COUNT],
    /// Windows in which classes are held or something is kept for them, by the wall clock.
    pub calendar: Arc<Calendar>,
    /// Who this is among those who begin again after a window: its moment within the stagger follows from this name, so it is the
    /// same after a restart. `None`: another one in each process.
    pub staggered_as: Option<String>,
    /// Whether declared quotas count as spent at the start where no state is restored: for a process that may have been started
    /// again without any memory, in a container for example. The first calls then wait for up to a window.
    pub assume_spent: bool,
    /// Retries beyond waits that the upstream ordered.
    pub max_retries: u32,
    /// How much extra load all retries of this tenant may be together.
    pub budget: BudgetRules,
    /// When calls to a family that keeps failing are refused, and for how long.
    pub breaker: BreakerConfig,
    /// The longest wait ordered by the upstream that is waited for; above it the answer is delivered.
    pub hint_ceiling: Duration,
    /// Calls that may wait at once. Beyond it a call is refused: a longer queue only makes everybody late.
    pub queue_bound: usize,
    /// Ask the upstream which limits it enforces, where the profile says how (see [`limits`](crate::limits)).
    pub fetch_limits: bool,
    /// Where the quota is shared with other processes; `None`: it is this process's alone.
    pub quota: Option<SharedQuota>,
    /// What is shared with the other upstreams of this process; `None`: nothing.
    pub connections: Option<Connections>,
    /// Whether HTTP/2 is spoken to the API and to its login host.
    pub http2: Http2,
    /// Who is told what happens.
    pub observers: Observers,
}

impl UpstreamConfig {
    /// Calls that may wait at once unless configured otherwise: at 300 per 60 s the last of them would already wait
    /// for more than half an hour.
    pub const QUEUE_BOUND: usize = 10_000;

    /// The defaults for `profile` at the given base URLs.
    pub fn new(profile: Arc<Profile>, api: impl Into<String>, login: impl Into<String>) -> Self {
        Self {
            profile,
            tenant: Tenant::new("default"),
            api: api.into(),
            login: login.into(),
            credential: None,
            class_credentials: Default::default(),
            limits: Vec::new(),
            policies: Class::ALL.map(ClassPolicy::of),
            calendar: Arc::default(),
            staggered_as: None,
            assume_spent: false,
            max_retries: 5,
            budget: BudgetRules::default(),
            breaker: BreakerConfig::default(),
            hint_ceiling: Duration::from_mins(15),
            queue_bound: Self::QUEUE_BOUND,
            fetch_limits: true,
            quota: None,
            connections: None,
            http2: Http2::default(),
            observers: Observers::default(),
        }
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: `{value}` {rule}")]
pub struct ConfigError {
    /// Which setting.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong with it and what to do.
    pub rule: String,
}

/// Why calls cannot be served now.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// The API does not accept connections.
    #[error(transparent)]
    Api(#[from] SendError),
    /// The configured credential has no token.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Every setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One tenant on one upstream.
#[derive(Debug)]
pub struct Upstream {
    profile: Arc<Profile>,
    tenant: Tenant,
    api_base: String,
    token_uri: Uri,
    token_endpoint: TokenEndpoint,
    credential: Credential,
    /// By [`Class::ALL`], where a class has its own.
    class_credentials: [Option<Credential>; Class::COUNT],
    pacer: Pacer,
    wire: Arc<dyn Wire>,
    clock: Clock,
    observers: Observers,
    retry_policy: Arc<RetryPolicy>,
    budget: Arc<Mutex<Budget>>,
    fetching: Option<Fetching>,
    fresh: Option<Fresh>,
    quota: Option<SharedQuota>,
}

impl Upstream {
    /// Sets up an upstream. Nothing is sent and no task is spawned.
    ///
    /// # Errors
    /// Every setting that cannot be used.
    pub fn new(config: UpstreamConfig) -> Result<Arc<Self>, Vec<ConfigError>> {
        let clock = Clock::start();
        let within = config.profile.timeouts.connect;
        let connections = config.connections.clone().unwrap_or_else(|| Connections::new(clock));
        let wire = Arc::new(Transport::among(&connections, within, config.http2));
        Self::over(config, clock, wire)
    }

    /// Sets up an upstream whose attempts and logins go over `wire` instead of sockets.
    ///
    /// # Errors
    /// Every setting that cannot be used.
    pub fn with_wire(config: UpstreamConfig, wire: Arc<dyn Wire>) -> Result<Arc<Self>, Vec<ConfigError>> {
        Self::over(config, Clock::start(), wire)
    }

    fn over(
        config: UpstreamConfig,
        clock: Clock,
        wire: Arc<dyn Wire>,
    ) -> Result<Arc<Self>, Vec<ConfigError>> {
        let mut problems = Vec::new();
        let api_base = base_url("api", &config.api, &mut problems);
        let login_base = base_url("login", &config.login, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let profile = config.profile;
        let token_path = profile.oauth.as_ref().map_or(DEFAULT_TOKEN_PATH, |oauth| &oauth.token_path);
        let token_uri = format!("{login_base}{token_path}").parse::<Uri>().map_err(|error| {
            vec![ConfigError { field: "login", value: config.login.clone(), rule: error.to_string() }]
        })?;
        let bank = BankConfig {
            limits: profile.limits_with(config.limits),
            queue_bound: config.queue_bound,
            breaker: config.breaker,
            policies: config.policies,
            assume_spent: config.assume_spent,
            seed: clock.seed(),
            calendar: config.calendar,
            stagger_seed: config.staggered_as.as_deref().map_or_else(|| clock.seed(), stagger_seed),
            ..BankConfig::default()
        };
        let pacer = Pacer::new(bank, clock, config.observers.clone()).map_err(|problems| {
            let problem = |problem: &SpecProblem| ConfigError {
                field: "limit",
                value: String::new(),
                rule: problem.to_string(),
            };
            problems.iter().map(problem).collect::<Vec<_>>()
        })?;
        // Of two upstreams of one program each counts its own exchanges, so it needs a name of its own in the store.
        let quota = config.quota.map(|quota| quota.of(clock.holder()));
        if let Some(quota) = &quota {
            pacer.share(quota, BankKey::of(&api_base, config.tenant.as_str()));
        }
        let retry_policy = Arc::new(RetryPolicy {
            max_retries: config.max_retries,
            hint_ceiling: config.hint_ceiling,
            backoff: profile.backoff,
            matrix: profile.retry.clone(),
            ..RetryPolicy::default()
        });
        let token_endpoint =
            TokenEndpoint::new(token_uri.clone(), Arc::clone(&wire), Arc::clone(&profile), clock);
        let mut upstream = Self {
            pacer,
            token_endpoint,
            budget: Arc::new(Mutex::new(Budget::new(config.budget, clock.now()))),
            credential: Credential::Anonymous,
            class_credentials: Default::default(),
            fetching: profile.limits_source.clone().filter(|_| config.fetch_limits).map(Fetching::new),
            fresh: profile.after_create.map(Fresh::new),
            tenant: config.tenant,
            quota,
            observers: config.observers,
            api_base,
            token_uri,
            wire,
            clock,
            retry_policy,
            profile,
        };
        if let Some(configured) = config.credential {
            upstream.credential = upstream.managed(configured);
        }
        upstream.class_credentials =
            config.class_credentials.map(|configured| configured.map(|one| upstream.managed(one)));
        Ok(Arc::new(upstream))
    }

    /// A configured credential.
    fn managed(&self, (id, credentials): (CredentialId, ClientCredentials)) -> Credential {
        let manager = self.new_manager(id, credentials.clone());
        Credential::Managed(Arc::new(match &self.quota {
            Some(quota) => manager.sharing(self.shared_tokens(quota, &credentials)),
            None => manager,
        }))
    }

    /// A manager for another credential of this tenant. Its tokens are this process's alone.
    pub fn manager(&self, id: CredentialId, credentials: ClientCredentials) -> Arc<TokenManager> {
        Arc::new(self.new_manager(id, credentials))
    }

    fn new_manager(&self, id: CredentialId, credentials: ClientCredentials) -> TokenManager {
        let endpoint = self.token_endpoint.clone();
        let rules = TokenRules::default();
        TokenManager::new(id, credentials, endpoint, rules, self.clock, self.observers.clone())
    }

    /// Where the configured credential's tokens are renewed together with other processes.
    fn shared_tokens(&self, quota: &SharedQuota, credentials: &ClientCredentials) -> SharedTokens {
        // A fetch may take its time-out twice: to the head of the answer, and to the end of its body.
        let fetch = self.profile.timeouts.read * 2;
        SharedTokens::new(quota, self.bank(), credentials, fetch, TokenRules::default().default_life)
    }

    /// The tenant's token endpoint.
    pub fn token_endpoint(&self) -> &TokenEndpoint {
        &self.token_endpoint
    }

    /// Sends a login that is not ours to keep to the token endpoint, once and as it is, its query too.
    ///
    /// # Errors
    /// [`SendError`] says how far it got.
    pub async fn login(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, SendError> {
        let mut uri = self.token_uri.clone().into_parts();
        if let Some(query) = request.uri().query() {
            let target = format!("{}?{query}", self.token_uri.path()).parse();
            uri.path_and_query = Some(target.map_err(too_long)?);
        }
        *request.uri_mut() = Uri::from_parts(uri).map_err(too_long)?;
        let options = SendOptions { timeout: self.profile.timeouts.write, careful: true };
        self.wire.send(request, options).await
    }

    /// Whether calls can be served now: the API accepts connections, and each configured credential has a token.
    ///
    /// # Errors
    /// What is missing.
    pub async fn check(&self) -> Result<(), NotReady> {
        let api = self.api_base.parse().expect("it was checked when the upstream was set up");
        self.wire.check(&api).await?;
        for credential in [&self.credential].into_iter().chain(self.class_credentials.iter().flatten()) {
            if let Credential::Managed(manager) = credential {
                manager.lend().await?;
            }
        }
        Ok(())
    }

    /// Waits until no write is in flight any more, those whose callers have gone included: a program that ends
    /// before cuts them, and their outcome is unknown.
    pub async fn idle(&self) {
        self.pacer.idle().await;
    }

    /// Ends this process's part in a quota that is shared with others: what it holds is given back at once, for which the others would
    /// otherwise wait as for one that has died. To be called last, after [`idle`](Self::idle). It takes no longer than an exchange
    /// may; where nothing is shared it does nothing.
    ///
    /// ```
    /// # async fn example(client: tidegate::Client) {
    /// // … the program's work …
    /// client.upstream().idle().await;
    /// client.upstream().give_back().await;
    /// # }
    /// ```
    pub async fn give_back(&self) {
        self.pacer.give_back().await;
    }

    /// Writes in flight, those whose callers have gone included.
    pub fn writes_in_flight(&self) -> usize {
        self.pacer.outliving()
    }

    /// The vendor's rules.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// The path of the token endpoint.
    pub fn token_path(&self) -> &str {
        self.token_uri.path()
    }

    /// The organisation.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The base URL of the API.
    pub fn api_base(&self) -> &str {
        &self.api_base
    }

    /// Who calls are made as unless they bring their own credential.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Who calls of a class are made as unless they bring their own credential.
    pub fn credential_for(&self, class: Class) -> &Credential {
        self.class_credentials[class.index()].as_ref().unwrap_or(&self.credential)
    }

    /// The gates.
    pub fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Whose token calls are made with where the quota is shared: `shared` is the fleet's; `own` is this process's; `apart` is its own
    /// too, although a token key is set, because the fleet's is sealed with another.
    pub fn tokens(&self) -> &'static str {
        let keyed = self.quota.as_ref().is_some_and(|quota| quota.token_key.is_some());
        match &self.credential {
            Credential::Managed(manager) if keyed && !manager.has_fleets() => "apart",
            _ if keyed => "shared",
            _ => "own",
        }
    }

    /// What the upstream listed of its limits; `None` if it is not asked.
    pub fn listing(&self) -> Option<Listing> {
        self.fetching.as_ref().map(Fetching::listing)
    }

    /// Where the quota is shared with other processes.
    pub fn quota(&self) -> Option<&SharedQuota> {
        self.quota.as_ref()
    }

    /// Who this upstream is in the store of a shared quota.
    pub fn bank(&self) -> BankKey {
        BankKey::of(&self.api_base, self.tenant.as_str())
    }

    /// The clock all of this upstream's decisions are made by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn fetching(&self) -> Option<&Fetching> {
        self.fetching.as_ref()
    }

    /// What its calls have created lately, where the profile says that it may not be found at once.
    pub(crate) fn fresh(&self) -> Option<&Fresh> {
        self.fresh.as_ref()
    }

    pub(crate) fn wire(&self) -> &Arc<dyn Wire> {
        &self.wire
    }

    pub(crate) fn observers(&self) -> &Observers {
        &self.observers
    }

    pub(crate) fn retry_policy(&self) -> &Arc<RetryPolicy> {
        &self.retry_policy
    }

    pub(crate) fn budget(&self) -> &Arc<Mutex<Budget>> {
        &self.budget
    }
}

/// The one thing that can be wrong with a URI that is made of two valid ones.
fn too_long(error: impl Into<BoxError>) -> SendError {
    SendError::new(Failure::ZeroBytesWritten, error)
}

/// Checks a base URL and cuts its trailing slash.
fn base_url(field: &'static str, value: &str, problems: &mut Vec<ConfigError>) -> String {
    let mut problem = |rule: &str| {
        problems.push(ConfigError { field, value: value.to_owned(), rule: rule.to_owned() });
    };
    match value.parse::<Uri>() {
        Err(_) => problem("is not a URL; write it like https://api.mypurecloud.com"),
        Ok(uri) if uri.authority().is_none() => {
            problem("names no host; write it like https://api.mypurecloud.com");
        }
        Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) => {
            problem("must begin with http:// or https://");
        }
        Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            problem("must not carry a user or password");
        }
        Ok(uri) if uri.path() != "/" && !uri.path().is_empty() => {
            problem("must not carry a path; paths come from the calls");
        }
        Ok(_) => {}
    }
    value.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_checked_and_all_problems_told() {
        for (value, expected) in [
            ("api.mypurecloud.com", "must begin with http"),
            ("/api", "names no host"),
            ("ftp://api", "must begin with http"),
            ("http://user:pass@api", "user or password"),
            ("http://api/v2", "must not carry a path"),
        ] {
            let mut problems = Vec::new();
            base_url("api", value, &mut problems);
            assert!(
                problems.iter().any(|problem| problem.rule.contains(expected)),
                "{value}: {problems:?} should say {expected}"
            );
        }
        let mut problems = Vec::new();
        assert_eq!(base_url("api", "http://127.0.0.1:8790/", &mut problems), "http://127.0.0.1:8790");
        assert!(problems.is_empty());
    }
}
