//! Whether the upstream is there, and how long it is waited for if it is not.
//!
//! Runs and exports wait alike: the client repeats a call by its own rules, and where that comes to nothing the upstream is
//! away, from the first such end until something is served. What lasts as long as the user's patience stops them.

use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tidegate::clock::Clock;
use tidegate_core::time::Mono;

/// How long an upstream is waited for, unless somebody says otherwise.
pub(crate) const DEFAULT_PATIENCE: Duration = Duration::from_mins(1);

/// How often it is looked whether the upstream is still away.
const LOOK: Duration = Duration::from_millis(200);

/// Whether an answer to a read says nothing about what was asked: another try may be served.
pub(crate) fn is_unserved(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) || status.is_server_error()
}

/// Since when no attempt has reached the upstream, and why.
#[derive(Debug, Default)]
pub(crate) struct Health {
    away: Mutex<Option<(Mono, String)>>,
}

impl Health {
    /// It answered.
    pub(crate) fn served(&self) {
        *self.away.lock() = None;
    }

    /// It could not be reached. The first failure of a row tells since when, the latest why.
    pub(crate) fn away(&self, now: Mono, why: String) {
        let mut away = self.away.lock();
        let since = away.as_ref().map_or(now, |(since, _)| *since);
        *away = Some((since, why));
    }

    /// Why it cannot be reached, if that has lasted for `patience`.
    fn gone(&self, now: Mono, patience: Duration) -> Option<String> {
        let away = self.away.lock();
        away.as_ref().filter(|(since, _)| now - *since >= patience).map(|(_, why)| why.clone())
    }

    /// Returns when it could not be reached for `patience`, and says why.
    pub(crate) async fn lost(&self, clock: &Clock, patience: Duration) -> String {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(why) = self.gone(clock.now(), patience) {
                return why;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_counts_from_its_first_failure_and_ends_with_an_answer() {
        let health = Health::default();
        let at = |seconds| Mono::ZERO + Duration::from_secs(seconds);
        let patience = Duration::from_secs(10);
        assert_eq!(health.gone(at(99), patience), None);
        health.away(at(1), "refused".to_owned());
        health.away(at(8), "timed out".to_owned());
        assert_eq!(health.gone(at(10), patience), None);
        assert_eq!(health.gone(at(11), patience), Some("timed out".to_owned()));
        health.served();
        assert_eq!(health.gone(at(11), patience), None);
    }
}
