//! One token per credential, renewed before it ends, fetched by one task at a time.
//!
//! [`TokenLife`](tidegate_core::token::TokenLife) decides when; this shell holds the token, runs the one refresh in
//! a task of its own (so that a caller that gives up does not end it for the others) and wakes who waits for it.

mod grant;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tidegate_core::key::CredentialId;
use tidegate_core::time::Mono;
use tidegate_core::token::{Generation, Plan, TokenFailure, TokenLife, TokenRules};
use tokio::sync::Notify;

pub use self::grant::{ClientCredentials, Grant, GrantError, TokenEndpoint};
use crate::clock::Clock;
use crate::observe::{Observers, TokenDone};

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
    settled: Notify,
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
        if life.refreshed(now, requested_at, grant.expires_in, rng).is_some() {
            self.value = Some(grant.bearer.clone());
            self.failure = None;
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
    /// A manager that holds no token yet.
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
            id,
            slot: NEXT_SLOT.fetch_add(1, Ordering::Relaxed),
            credentials,
            endpoint,
            clock,
            observers,
            state: Mutex::new(state),
            settled: Notify::new(),
        }
    }

    /// The credential's name.
    pub fn id(&self) -> &CredentialId {
        &self.id
    }

    /// The line of tokens this manager holds.
    pub fn slot(&self) -> u64 {
        self.slot
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
            {
                let mut state = self.state.lock();
                let now = self.clock.now();
                let (serve, refresh) = match state.life.plan(now) {
                    Plan::Use(generation) => (Some(generation), false),
                    Plan::UseAndRefresh(generation) => (Some(generation), true),
                    Plan::Refresh => (None, true),
                    Plan::Wait => (None, false),
                    Plan::Fail { until, why } => return Err(self.remembered(&state, until - now, why)),
                };
                if refresh {
                    tokio::spawn(Arc::clone(self).refresh());
                }
                if let (Some(generation), Some(value)) = (serve, state.value.clone()) {
                    return Ok(Lent { value, generation });
                }
            }
            settled.await;
        }
    }

    /// The upstream answered 401 to this generation's token.
    pub fn rejected(&self, generation: Generation) {
        self.state.lock().life.rejected(self.clock.now(), generation);
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

    async fn refresh(self: Arc<Self>) {
        let mut abandoned = Abandoned { manager: Some(&self) };
        let requested_at = self.clock.now();
        let outcome = self.endpoint.fetch(&self.credentials).await;
        abandoned.manager = None;
        let took = self.clock.now() - requested_at;
        self.observers.token(&TokenDone { credential: &self.id, ok: outcome.is_ok(), took });
        self.settle(requested_at, outcome);
    }

    fn settle(&self, requested_at: Mono, outcome: Result<Grant, GrantError>) {
        let mut state = self.state.lock();
        let now = self.clock.now();
        match outcome {
            Ok(grant) => {
                state.keep(now, requested_at, &grant);
            }
            Err(error) => {
                state.life.refresh_failed(now, error.as_failure());
                state.failure = Some(error.to_string());
            }
        }
        drop(state);
        self.settled.notify_waiters();
    }
}

/// Frees the single flight if the refreshing task is dropped, as at shutdown of the runtime.
struct Abandoned<'a> {
    manager: Option<&'a Arc<TokenManager>>,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(manager) = self.manager {
            manager.state.lock().life.refresh_abandoned();
            manager.settled.notify_waiters();
        }
    }
}
