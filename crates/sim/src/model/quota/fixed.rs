//! Fixed windows: a counter that is forgotten as a whole.
//!
//! Either the first request opens a window, or windows lie at multiples of their length. Around the edge of an aligned window a
//! client may get twice the limit within one window's length; that is a property of the rule, not an error.

use std::time::Duration;

use super::Admission;

/// A counter per window; see the module.
#[derive(Debug, Clone)]
pub struct FixedWindow {
    limit: u32,
    window: Duration,
    /// Some: windows start at `phase + k * window`.
    phase: Option<Duration>,
    /// End of the open window; the counter is void from then on.
    end: Option<Duration>,
    used: u32,
}

impl FixedWindow {
    pub(super) fn opened_by_first(limit: u32, window: Duration) -> Self {
        Self { limit, window, phase: None, end: None, used: 0 }
    }

    pub(super) fn aligned(limit: u32, window: Duration, phase: Duration) -> Self {
        Self { limit, window, phase: Some(phase), end: None, used: 0 }
    }

    pub(super) fn look(&mut self, now: Duration, cost: u32) -> Admission {
        if self.end.is_some_and(|end| end <= now) {
            self.end = None;
            self.used = 0;
        }
        let left = self.limit - self.used;
        let to_end = self.end.map_or(Duration::ZERO, |end| end.saturating_sub(now));
        let ok = cost <= left;
        let retry_after = match (ok, cost <= self.limit) {
            (true, _) => Duration::ZERO,
            (false, true) => to_end,
            (false, false) => self.window,
        };
        Admission {
            ok,
            limit: self.limit,
            remaining: left,
            reset_after: to_end,
            next_after: to_end,
            retry_after,
        }
    }

    pub(super) fn draw(&mut self, now: Duration, cost: u32) {
        let (window, phase) = (self.window, self.phase);
        self.end.get_or_insert_with(|| match phase {
            None => now + window,
            Some(phase) => now + until_next_edge(now, window, phase),
        });
        self.used += cost;
    }
}

/// From `now` to the next multiple of `window` shifted by `phase`; a full window exactly at an edge.
pub(super) fn until_next_edge(now: Duration, window: Duration, phase: Duration) -> Duration {
    let length = window.as_nanos();
    // Adding one whole window keeps the difference positive before the first edge.
    let into = (now.as_nanos() + length - phase.as_nanos() % length) % length;
    super::nanos(length - into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quota::{QuotaModel, QuotaRule, Rule};

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn aligned_windows_follow_the_phase() {
        for (now, expected) in [(0, 300), (299, 1), (300, 1000), (1299, 1), (1300, 1000), (2000, 300)] {
            assert_eq!(until_next_edge(ms(now), ms(1000), ms(300)), ms(expected), "at {now} ms");
        }
    }

    #[test]
    fn a_window_opened_by_its_first_request_ends_one_window_later() {
        let mut quota = QuotaModel::new(QuotaRule {
            rule: Rule::Fixed,
            limit: 1,
            window: ms(1000),
            phase: ms(0),
            burst: None,
        });
        assert_eq!(quota.admit(ms(700), 1).reset_after, ms(1000));
        assert_eq!(quota.admit(ms(900), 1).retry_after, ms(800));
        assert!(!quota.admit(ms(1699), 1).ok);
        assert!(quota.admit(ms(1700), 1).ok);
    }

    #[test]
    fn a_cost_above_the_quota_is_never_admitted() {
        let mut window = FixedWindow::opened_by_first(3, ms(10));
        let answer = window.look(ms(0), 4);
        assert!(!answer.ok);
        assert_eq!(answer.retry_after, ms(10));
    }
}
