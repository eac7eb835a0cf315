//! What the server is known to have left.
//!
//! Every answer certifies what was left when the server handled *that* attempt. Attempts overlap, so the order in which
//! they were handled is known only where one was answered before the other was sent. The level is therefore the lowest
//! remaining among the answers that **may** have been handled last; what is spent from it is every attempt not known to
//! be counted in it. In a window whose remaining only falls this is `min(remaining seen) − in flight`, and it is exact.
//!
//! Rules: an answer handled before another that certifies is dropped from the candidates; an attempt that was lost, or
//! answered without a certificate, stays spent until a certificate arrives whose attempt left after it.

use std::collections::VecDeque;

/// The best certificate of one limit. Times in seconds.
#[derive(Debug, Default)]
pub(super) struct Certificate {
    /// Latest send time among the answered: what was answered before it cannot have been handled last.
    latest_sent: Option<f64>,
    /// Answers that may have been handled last: (answered, remaining), both ascending.
    candidates: VecDeque<(f64, f64)>,
    /// When attempts ended that no certificate is known to include, ascending.
    unseen: VecDeque<f64>,
}

impl Certificate {
    /// What was left at least, when the last attempt was handled.
    pub(super) fn level(&self) -> Option<f64> {
        self.candidates.front().map(|&(_, remaining)| remaining)
    }

    /// The latest send time among the answered.
    pub(super) fn latest_sent(&self) -> Option<f64> {
        self.latest_sent
    }

    /// Answers that may have been handled last: (answered, remaining), both ascending.
    pub(super) fn candidates(&self) -> impl Iterator<Item = (f64, f64)> {
        self.candidates.iter().copied()
    }

    /// Attempts that ended without being included in the level for certain.
    pub(super) fn unseen(&self) -> usize {
        self.unseen.len()
    }

    /// An answer certified `remaining`.
    pub(super) fn certify(&mut self, sent: f64, answered: f64, remaining: f64) {
        let latest = self.latest_sent.map_or(sent, |latest| latest.max(sent));
        self.latest_sent = Some(latest);
        while self.candidates.back().is_some_and(|&(_, other)| other >= remaining) {
            self.candidates.pop_back();
        }
        self.candidates.push_back((answered, remaining));
        while self.candidates.len() > 1 && self.candidates.front().is_some_and(|&(at, _)| at < latest) {
            self.candidates.pop_front();
        }
        while self.unseen.front().is_some_and(|&at| at <= sent) {
            self.unseen.pop_front();
        }
    }

    /// An attempt ended at `at` and the server may have counted it, but no certificate says so.
    pub(super) fn ended_unseen(&mut self, at: f64) {
        self.unseen.push_back(at);
    }

    /// Everything certified belongs to a window that has passed.
    pub(super) fn void(&mut self) {
        self.candidates.clear();
    }

    /// Nothing at all is known any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_order_answers_do_not_raise_the_level() {
        let mut certificate = Certificate::default();
        certificate.certify(0.0, 0.10, 7.0);
        certificate.certify(0.0, 0.11, 9.0);
        assert_eq!(
            certificate.level(),
            Some(7.0),
            "both were in flight together: the lower one may be the later"
        );
    }

    #[test]
    fn an_attempt_sent_after_an_answer_was_handled_after_it() {
        let mut certificate = Certificate::default();
        certificate.certify(0.0, 0.1, 2.0);
        certificate.certify(0.2, 0.3, 50.0);
        assert_eq!(certificate.level(), Some(50.0), "permits came back in between");
    }

    #[test]
    fn a_lost_attempt_stays_spent_until_a_later_one_is_certified() {
        let mut certificate = Certificate::default();
        certificate.certify(0.0, 0.1, 10.0);
        certificate.ended_unseen(0.5);
        certificate.certify(0.4, 0.6, 9.0);
        assert_eq!(certificate.unseen(), 1, "it left before the lost one ended");
        certificate.certify(0.7, 0.8, 7.0);
        assert_eq!(certificate.unseen(), 0);
    }
}
