//! A ready client: the stack, and the few words a program needs to use it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use secrecy::SecretString;
use tidegate_core::key::CredentialId;
use tidegate_core::pace::{CallerId, Class, ClassPolicy, Kept, LimitSpec};
use tidegate_core::profile::Profile;
use tower::{Layer, Service, ServiceExt};

use crate::body::{RequestBody, ResponseBody};
use crate::call::{CallOptions, CallReport};
use crate::credential::Credential;
use crate::error::Error;
use crate::layer::{AttemptService, OnConflict, ReconcileBy, Send};
use crate::observe::{Observer, Observers, Traced};
use crate::stack::{Stack, stack, stack_with};
use crate::token::ClientCredentials;
use crate::upstream::{ConfigErrors, Upstream, UpstreamConfig};

/// Calls one tenant of a quota-limited API at the full speed its quota allows.
///
/// Cheap to clone; all clones share one set of gates, tokens and connections.
#[derive(Clone)]
pub struct Client {
    upstream: Arc<Upstream>,
    stack: Stack,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("api", &self.upstream.api_base()).finish_non_exhaustive()
    }
}

impl Client {
    /// Sets up a client for the API at the base URL `api`, with its login host at `login`.
    pub fn builder(profile: Profile, api: impl Into<String>, login: impl Into<String>) -> ClientBuilder {
        let config = UpstreamConfig::new(Arc::new(profile), api, login);
        ClientBuilder { config, observers: vec![Arc::new(Traced)], state: None }
    }

    /// A client for an upstream that was set up elsewhere.
    pub fn over(upstream: Arc<Upstream>) -> Self {
        let stack = stack(&upstream);
        Self { upstream, stack }
    }

    /// A client whose attempts pass `before_send` when they have their ticket and are about to leave.
    pub fn with_layer<L>(upstream: Arc<Upstream>, before_send: L) -> Self
    where
        L: Layer<Send, Service: AttemptService + Sync>,
    {
        let stack = stack_with(&upstream, before_send);
        Self { upstream, stack }
    }

    /// What the client's calls share.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// What pacing knows now, to be stored for the next process: limits, what of them is spent, what is closed and until
    /// when.
    pub fn keep(&self) -> Kept {
        self.upstream.pacer().keep()
    }

    /// Begins a call.
    pub fn request(&self, method: Method, path: &str) -> CallBuilder<'_> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = method;
        let target = path.parse().map_err(|_| path.to_owned());
        CallBuilder { client: self, request, target, options: CallOptions::default() }
    }

    /// Begins a GET.
    pub fn get(&self, path: &str) -> CallBuilder<'_> {
        self.request(Method::GET, path)
    }

    /// Makes a call. Only the path and query of the request's URI are used; what is wanted of the call stands in its
    /// extensions as [`CallOptions`].
    ///
    /// # Errors
    /// [`Error`] says why there is no answer. An answer of the upstream is never an error, whatever its status.
    pub async fn call(&self, request: Request<RequestBody>) -> Result<Response<ResponseBody>, Error> {
        let mut stack = self.stack.clone();
        stack.ready().await?.call(request).await
    }
}

/// Sets up a [`Client`].
#[must_use = "nothing is set up before `build`"]
pub struct ClientBuilder {
    config: UpstreamConfig,
    observers: Vec<Arc<dyn Observer>>,
    state: Option<(Kept, Duration)>,
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Logs in with a client id and secret. `name` stands for them in logs and errors.
    pub fn credential(mut self, name: &str, client_id: &str, client_secret: &str) -> Self {
        let credentials = ClientCredentials::new(client_id, &SecretString::from(client_secret));
        self.config.credential = Some((CredentialId::new(name), credentials));
        self
    }

    /// Adds a limit, or replaces the profile's of the same key.
    pub fn limit(mut self, limit: LimitSpec) -> Self {
        self.config.limits.push(limit);
        self
    }

    /// How much of each quota the calls of a class leave to more important ones and to strangers.
    ///
    /// ```
    /// use tidegate::{Class, ClassPolicy, Client, Profile};
    ///
    /// let profile = Profile::builtin("generic").unwrap();
    /// let client = Client::builder(profile, "https://api.example.com", "https://login.example.com")
    ///     // Stop while less than twice the workers is left, as some vendors' guides ask for.
    ///     .policy(Class::Bulk, ClassPolicy { reserve: 2 * 40, ..ClassPolicy::of(Class::Bulk) })
    ///     .build()?;
    /// # Ok::<(), tidegate::ConfigErrors>(())
    /// ```
    pub fn policy(mut self, class: Class, policy: ClassPolicy) -> Self {
        self.config.policies[class.index()] = policy;
        self
    }

    /// Retries beyond waits that the upstream ordered; 5 unless said otherwise.
    pub fn max_retries(mut self, max_retries: u32) -> Self {
        self.config.max_retries = max_retries;
        self
    }

    /// The longest wait ordered by the upstream that is waited for; 15 minutes unless said otherwise. A call whose
    /// hint is longer ends with the upstream's answer: nothing is ever sent early.
    pub fn hint_ceiling(mut self, ceiling: Duration) -> Self {
        self.config.hint_ceiling = ceiling;
        self
    }

    /// Whether the upstream is asked which limits it enforces, where the profile says how; it is unless said otherwise
    /// (see [`limits`](crate::limits)).
    pub fn fetch_limits(mut self, fetch: bool) -> Self {
        self.config.fetch_limits = fetch;
        self
    }

    /// Tells `observer` what happens, beside `tracing`.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Whether declared quotas count as spent at the start, as a process before this one may have spent them; they do not
    /// unless said otherwise. With a [state](ClientBuilder::state), or a [`StateKeeper`](crate::state::StateKeeper) that finds one, it is of no account.
    pub fn assume_spent(mut self, spent: bool) -> Self {
        self.config.assume_spent = spent;
        self
    }

    /// Begins with what [`Client::keep`] returned in an earlier process. `uncovered` is for how long at most that process
    /// went on after it, if it is not its [last](Kept::last). [`StateKeeper`](crate::state::StateKeeper) does both with a
    /// file.
    pub fn state(mut self, kept: Kept, uncovered: Duration) -> Self {
        self.state = Some((kept, uncovered));
        self
    }

    /// Builds the client. Nothing is sent yet.
    ///
    /// # Errors
    /// Every setting that cannot be used.
    pub fn build(mut self) -> Result<Client, ConfigErrors> {
        self.config.observers = Observers::new(self.observers);
        let client = Upstream::new(self.config).map(Client::over).map_err(ConfigErrors)?;
        if let Some((kept, uncovered)) = self.state {
            client.upstream.pacer().restore(&kept, uncovered);
        }
        Ok(client)
    }
}

/// A call that is being put together.
#[derive(Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct CallBuilder<'a> {
    client: &'a Client,
    request: Request<RequestBody>,
    target: Result<http::Uri, String>,
    options: CallOptions,
}

impl CallBuilder<'_> {
    /// Its class; `interactive` unless said otherwise.
    pub fn class(mut self, class: Class) -> Self {
        self.options.class = Some(class);
        self
    }

    /// Whose it is, by name: callers of one class get equal shares of what they compete for.
    pub fn caller(mut self, name: &str) -> Self {
        self.options.caller = Some(CallerId::named(name));
        self
    }

    /// After this time the answer is worthless: the call is refused as soon as it cannot be met.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// The longest wait before the call must have left.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.options.max_wait = Some(max_wait);
        self
    }

    /// Names the transaction, so that the same call after a restart carries the same idempotency key.
    pub fn transaction(mut self, id: impl Into<String>) -> Self {
        self.options.transaction = Some(id.into());
        self
    }

    /// An idempotency key that was made and stored before, sent as it is.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.options.key = Some(key.into());
        self
    }

    /// Overrides what the method says about executing twice.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.options.idempotent = Some(idempotent);
        self
    }

    /// How long ago the same write was sent before with an outcome nobody knows, from a journal.
    pub fn sent_before(mut self, ago: Option<Duration>) -> Self {
        self.options.sent_before = ago;
        self
    }

    /// Looks for what was sent before also where sending it again would do no harm by itself; see
    /// [`CallOptions::asks_first`].
    pub fn asks_first(mut self, asks_first: bool) -> Self {
        self.options.asks_first = asks_first;
        self
    }

    /// Finds out by a read what became of the call where its outcome is unknown; see [`CallOptions::reconcile`].
    ///
    /// ```no_run
    /// # async fn example(client: &tidegate::Client) -> Result<(), tidegate::Error> {
    /// use std::time::Duration;
    /// use tidegate::layer::ReconcileBy;
    ///
    /// // By the profile's rule for this route, for a minute at most.
    /// let by = ReconcileBy { within: Some(Duration::from_mins(1)), ..ReconcileBy::default() };
    /// let user = client.request(http::Method::POST, "/api/v2/users").json(r#"{"email":"ann@example.com","name":"Ann"}"#);
    /// let created = user.reconcile(by).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reconcile(mut self, by: ReconcileBy) -> Self {
        self.options.reconcile = Some(by);
        self
    }

    /// Applies the change to what its entity has become where the upstream refuses it for that; see
    /// [`CallOptions::conflict`].
    pub fn on_conflict(mut self, conflict: OnConflict) -> Self {
        self.options.conflict = Some(conflict);
        self
    }

    /// Ends waits for further attempts when it becomes true; see [`CallOptions::called_off`].
    pub fn called_off_by(mut self, signal: tokio::sync::watch::Receiver<bool>) -> Self {
        self.options.called_off = Some(signal);
        self
    }

    /// Attaches a value that layers of your own find in the extensions of each attempt's request.
    pub fn extension<T: Clone + std::marker::Send + Sync + 'static>(mut self, value: T) -> Self {
        self.request.extensions_mut().insert(value);
        self
    }

    /// Makes the call as somebody else.
    pub fn credential(mut self, credential: Credential) -> Self {
        self.options.credential = Some(credential);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.request.headers_mut().append(name, value);
        self
    }

    /// A JSON body.
    pub fn json(mut self, body: impl Into<Bytes>) -> Self {
        self.request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *self.request.body_mut() = RequestBody::from(body.into());
        self
    }

    /// Makes the call.
    ///
    /// # Errors
    /// [`Error`] says why there is no answer.
    pub async fn send(self) -> Result<Response<ResponseBody>, Error> {
        let Self { client, mut request, target, options } = self;
        match target {
            Ok(uri) => *request.uri_mut() = uri,
            Err(path) => {
                let report = CallReport::default();
                return Err(Error::new(crate::ErrorKind::Invalid, request.method(), &path, report)
                    .with_source("the path is not a valid request target"));
            }
        }
        request.extensions_mut().insert(options);
        client.call(request).await
    }
}
