//! One token per credential, renewed before it ends, fetched by one task at a time.
//!
//! [`TokenLife`] decides when; this shell holds the token, runs the one refresh in
//! a task of its own (so that a caller that gives up does not end it for the others) and wakes who waits for it.

mod denials;
mod grant;
mod shared;
mod throttled;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::pace::TokenSlot;
use tidegate_core::time::Mono;
use tidegate_core::token::{Generation, Plan, TokenFailure, TokenLife, TokenRules};
use tokio::sync::Notify;

use self::denials::Denials;
pub use self::grant::{ClientCredentials, Grant, GrantError, TokenEndpoint};
pub(crate) use self::shared::SharedTokens;
use self::shared::{Renewed, Taken};
use crate::clock::Clock;
use crate::observe::{Denied, Observers, TokenDone};

/// Why there is no token. Names the credential, never the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no token for credential {credential}: {why}")]
pub struct TokenError {
    /// Whose token.
    pub credential: CredentialId,
    /// What the token endpoint said, or why it could not be asked.
    pub why: String,
    /// Whether the credential itself was refused: trying again will not help.
    pub refused: bool,
    /// Whether the token endpoint ordered the wait. Otherwise `retry_after` is only how long the failure is remembered.
    pub throttled: bool,
    /// When to ask again, from now.
    pub retry_after: Option<Duration>,
}

/// A token on loan: the header to send, and which generation it is, so that a 401 blames the right one.
#[derive(Clone)]
pub struct Lent {
    /// `Bearer …`, marked sensitive.
    pub value: HeaderValue,
    /// Which token of this credential it is.
    pub generation: Generation,
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Holds and renews the token of one credential.
pub struct TokenManager {
    id: CredentialId,
    slot: u64,
    credentials: ClientCredentials,
    endpoint: TokenEndpoint,
    clock: Clock,
    observers: Observers,
    state: Mutex<State>,
    denials: Mutex<Denials>,
    settled: Notify,
    /// The same credential's tokens in other processes.
    shared: Option<SharedTokens>,
}

struct State {
    life: TokenLife,
    rng: fastrand::Rng,
    value: Option<HeaderValue>,
    failure: Option<String>,
}

impl State {
    fn keep(&mut self, now: Mono, requested_at: Mono, grant: &Grant) {
        let Self { life, rng, .. } = self;
        // Whatever failed before, the endpoint has answered now.
        self.failure = None;
        if life.refreshed(now, requested_at, grant.expires_in, rng).is_some() {
            self.value = Some(grant.bearer.clone());
        }
    }

    fn take_over(&mut self, now: Mono, taken: &Taken) {
        let Self { life, rng, .. } = self;
        self.failure = None;
        if life.adopted(now, taken.life, taken.left, rng).is_some() {
            self.value = Some(taken.bearer.clone());
        }
    }
}

impl fmt::Debug for TokenManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenManager").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Lines of tokens are numbered per process; zero is nobody's, and hashes of foreign bearers lie above.
static NEXT_SLOT: AtomicU64 = AtomicU64::new(1);

impl TokenManager {
    /// A manager that holds no token yet. Its calls are counted for the client of `credentials`, whatever `id` calls it.
    pub fn new(
        id: CredentialId,
        credentials: ClientCredentials,
        endpoint: TokenEndpoint,
        rules: TokenRules,
        clock: Clock,
        observers: Observers,
    ) -> Self {
        let rng = fastrand::Rng::with_seed(clock.seed());
        let state = State { life: TokenLife::new(rules), rng, value: None, failure: None };
        Self {
            id: id.of_client(credentials.client_id()),
            slot: NEXT_SLOT.fetch_add(1, Ordering::Relaxed),
            credentials,
            endpoint,
            clock,
            observers,
            state: Mutex::new(state),
            denials: Mutex::new(Denials::default()),
            settled: Notify::new(),
            shared: None,
        }
    }

    /// Renews together with other processes. With a token key its tokens are theirs.
    #[must_use]
    pub(crate) fn sharing(self, shared: SharedTokens) -> Self {
        Self { shared: Some(shared), ..self }
    }

    /// The credential's name.
    pub fn id(&self) -> &CredentialId {
        &self.id
    }

    /// The line of tokens this manager holds: the fleet's, or its own.
    pub fn slot(&self) -> u64 {
        if self.has_fleets() { TokenSlot::FLEET.0 } else { self.slot }
    }

    /// Its tokens are those of the whole fleet.
    pub(crate) fn has_fleets(&self) -> bool {
        self.shared.as_ref().is_some_and(SharedTokens::lends)
    }

    /// A token that is valid now. Waits for the one refresh in flight if there is nothing to serve.
    ///
    /// # Errors
    /// What the token endpoint said last, for as long as that is remembered.
    pub async fn lend(self: &Arc<Self>) -> Result<Lent, TokenError> {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let (lent, flight) = self.plan()?;
            // Outside the lock: a runtime that is ending drops the task here and now, and that locks again.
            if let Some(flight) = flight {
                tokio::spawn(flight.run());
            }
            if let Some(lent) = lent {
                return Ok(lent);
            }
            settled.await;
            // Lets a runtime that is ending, on which every refresh is abandoned at once, end this loop.
            tokio::task::yield_now().await;
        }
    }

    /// As [`lend`](Self::lend), but not for longer than until `end`.
    ///
    /// # Errors
    /// As `lend`, or that there was no token in time.
    pub async fn lend_by(self: &Arc<Self>, end: Option<Mono>) -> Result<Lent, TokenError> {
        let Some(end) = end else { return self.lend().await };
        match tokio::time::timeout_at(self.clock.instant(end), self.lend()).await {
            Ok(lent) => lent,
            Err(_elapsed) => Err(TokenError {
                credential: self.id.clone(),
                why: "the token endpoint did not answer in time".to_owned(),
                refused: false,
                throttled: false,
                retry_after: None,
            }),
        }
    }

    /// What can be served now, and the refresh that the caller has to start.
    fn plan(self: &Arc<Self>) -> Result<(Option<Lent>, Option<Flight>), TokenError> {
        let mut state = self.state.lock();
        let now = self.clock.now();
        let (serve, refresh) = match state.life.plan(now) {
            Plan::Use(generation) => (Some(generation), false),
            Plan::UseAndRefresh(generation) => (Some(generation), true),
            Plan::Refresh => (None, true),
            Plan::Wait => (None, false),
            Plan::Fail { until, why } => return Err(self.remembered(&state, until - now, why)),
        };
        let lent = serve.zip(state.value.clone()).map(|(generation, value)| Lent { value, generation });
        Ok((lent, refresh.then(|| Flight { manager: Arc::clone(self), landed: false })))
    }

    /// The upstream answered 401 to this generation's token.
    pub fn rejected(&self, generation: Generation) {
        self.state.lock().life.rejected(self.clock.now(), generation);
    }

    /// The upstream did what a call with this generation's token asked for.
    pub(crate) fn accepted(&self, generation: Generation) {
        self.state.lock().life.accepted(generation);
    }

    /// The upstream answered 403 and named the permission that is `missing`. Says so if it is to be `told`, once in an hour.
    pub(crate) fn denied(&self, family: &Family, missing: &Arc<str>, told: bool) {
        self.observers.denied(&Denied { credential: &self.id, family, missing });
        if told && self.denials.lock().is_news(self.clock.now(), family, missing) {
            tracing::warn!(
                target: "tidegate",
                credential = %self.id,
                %family,
                "credential `{}` lacks {missing} (403): give its role that permission, or its login that scope",
                self.id
            );
        }
    }

    /// Takes over a grant that was fetched elsewhere, as the first token of this line.
    pub fn adopt(&self, grant: &Grant, requested_at: Mono) {
        self.state.lock().keep(self.clock.now(), requested_at, grant);
        self.settled.notify_waiters();
    }

    /// The failure in the words of the token endpoint, where it said any.
    fn remembered(&self, state: &State, left: Duration, why: TokenFailure) -> TokenError {
        TokenError {
            credential: self.id.clone(),
            why: state.failure.clone().unwrap_or_else(|| why.name().to_owned()),
            throttled: why == TokenFailure::Throttled,
            refused: matches!(why, TokenFailure::Refused | TokenFailure::Rejected),
            retry_after: Some(left),
        }
    }

    /// A token: another process's where tokens are shared, else one from the endpoint.
    async fn renew(&self) -> Renewed {
        let fetch = async {
            let requested_at = self.clock.now();
            (requested_at, self.endpoint.fetch(&self.credentials).await)
        };
        if let Some(shared) = &self.shared {
            return shared.renew(&self.clock, fetch).await;
        }
        let (requested_at, outcome) = fetch.await;
        Renewed::Fetched(requested_at, outcome)
    }

    fn settle(&self, renewed: Renewed) {
        let mut state = self.state.lock();
        let now = self.clock.now();
        match renewed {
            Renewed::Taken(taken) => state.take_over(now, &taken),
            Renewed::Fetched(requested_at, Ok(grant)) => state.keep(now, requested_at, &grant),
            Renewed::Fetched(_, Err(error)) => {
                state.life.refresh_failed(now, error.as_failure());
                state.failure = Some(error.to_string());
            }
        }
        drop(state);
        self.settled.notify_waiters();
    }
}

/// The one refresh in flight. Made before its task is spawned, so that the flight is freed even if the task is
/// dropped unpolled, as at the end of its runtime.
struct Flight {
    manager: Arc<TokenManager>,
    landed: bool,
}

impl Flight {
    async fn run(mut self) {
        let manager = Arc::clone(&self.manager);
        let began = manager.clock.now();
        let renewed = manager.renew().await;
        let took = manager.clock.now() - began;
        let (name, why) = match &renewed {
            Renewed::Taken(_) => ("shared", None),
            Renewed::Fetched(_, Ok(_)) => ("granted", None),
            Renewed::Fetched(_, Err(error)) => (error.name(), Some(error.to_string())),
        };
        let asked = !matches!(&renewed, Renewed::Fetched(_, Err(GrantError::Throttled { asked: false, .. })));
        self.landed = true;
        manager.settle(renewed);
        if !asked {
            return;
        }
        let done = TokenDone { credential: &manager.id, outcome: name, why: why.as_deref(), took };
        manager.observers.token(&done);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            self.manager.state.lock().life.refresh_abandoned();
            self.manager.settled.notify_waiters();
        }
    }
}
