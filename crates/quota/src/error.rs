//! Why a store gave no answer.

use std::time::Duration;

use tidegate_core::share::{Away, Unanswered};
use tidegate_core::time::Mono;

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

impl StoreError {
    /// What it says to a bank whose exchange it ended at `now`: whether asking again may help, and from when on. Where no
    /// answer came in time, that is [`Away::Until`] nothing in particular.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tidegate_core::share::Away;
    /// use tidegate_core::time::Mono;
    /// use tidegate_quota::StoreError;
    ///
    /// let (store, why) = ("redis".to_owned(), "connection refused".to_owned());
    /// let error = StoreError::Away { store, why, retry_after: Some(Duration::from_secs(1)) };
    /// let second = Mono::ZERO + Duration::from_secs(1);
    /// assert_eq!(error.away(Mono::ZERO), Away::Until(Some(second)));
    /// ```
    pub fn away(&self, now: Mono) -> Away {
        match self {
            Self::Away { retry_after, .. } => Away::Until(retry_after.map(|after| now + after)),
            Self::Unusable { .. } | Self::Unanswered(Unanswered::Protocol { .. }) => Away::Unusable,
            Self::Unanswered(Unanswered::Stale) => Away::Until(None),
        }
    }
}
