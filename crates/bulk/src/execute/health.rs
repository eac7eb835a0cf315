//! Whether the upstream is there.

use std::time::Duration;

use parking_lot::Mutex;
use tidegate_core::time::Mono;

/// Since when no attempt has reached the upstream, and why.
#[derive(Debug, Default)]
pub(super) struct Health {
    away: Mutex<Option<(Mono, String)>>,
}

impl Health {
    /// It answered.
    pub(super) fn served(&self) {
        *self.away.lock() = None;
    }

    /// It could not be reached. The first failure of a row tells since when, the latest why.
    pub(super) fn away(&self, now: Mono, why: String) {
        let mut away = self.away.lock();
        let since = away.as_ref().map_or(now, |(since, _)| *since);
        *away = Some((since, why));
    }

    /// Why it cannot be reached, if that has lasted for `patience`.
    pub(super) fn gone(&self, now: Mono, patience: Duration) -> Option<String> {
        let away = self.away.lock();
        away.as_ref().filter(|(since, _)| now - *since >= patience).map(|(_, why)| why.clone())
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
