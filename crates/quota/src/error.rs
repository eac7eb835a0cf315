//! Why a store gave no answer.

use std::time::Duration;

use tidegate_core::share::Unanswered;

/// Why a store gave no answer. `store` names it as its `check` does, never with a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not reached, or not in time: it may come back.
    #[error("{store} is away: {why}")]
    Away {
        /// Which store.
        store: String,
        /// What happened.
        why: String,
        /// Before that nobody need ask again, from now.
        retry_after: Option<Duration>,
    },
    /// It will not answer before somebody changes something.
    #[error("{store} cannot be used: {why} ({hint})")]
    Unusable {
        /// Which store.
        store: String,
        /// What is wrong.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// The state itself refused.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}
