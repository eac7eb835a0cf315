//! The next step of a call after an attempt.
//!
//! One [`Attempts`] lives as long as its call. The shell sends, reports how the attempt ended, and does what
//! [`Attempts::next`] says. The machine owns the questions that retry loops get wrong:
//!
//! * **two ceilings.** Computed backoff is capped by its own cap. A server's hint is never shortened: above the
//!   hint ceiling the call ends with the time at which to come back, and the shell parks it or fails;
//! * **ordered waits are free.** A throttle, or a refusal that names its time, uses up no attempt and no budget,
//!   because the server has not worked; they are bounded all the same, see [`RetryPolicy::max_ordered_waits`];
//! * **doubt is remembered.** Once an attempt may have been executed, only a complete answer can end the call with
//!   certainty. A write whose second attempt is refused for good is *unknown*, not *failed*, since its first one may
//!   have worked;
//! * **a 401 is about the token**: refresh once, send again, start the backoff over. A second one is the answer.
//!
//! `at` of a retry is a lower bound: the shell asks the gates for a new ticket then, and they may hold it longer.
//! It must not send after [`Attempts::send_by`].

use std::time::Duration;

use fastrand::Rng;
use http::StatusCode;

use crate::backoff::{Backoff, Step, hinted};
use crate::budget::{Budget, Cost};
use crate::classify::{
    Attempted, Classifier, Delivery, Facts, Outcome, RetryMatrix, STANDARD, Verdict, Why, is_conflict, judge,
};
use crate::time::Mono;

/// How often, how long, and on which outcomes calls are repeated.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Retries beyond the first attempt, waits ordered by the server not counted.
    pub max_retries: u32,
    /// Waits that the server may order in one call. Normally one or two suffice, since the gate holds the next
    /// attempt until there is quota; a server that throttles a call twenty times is not going to serve it, and
    /// an endless loop of polite waits must end somewhere.
    pub max_ordered_waits: u32,
    /// The wait where the server names none, and a lower bound where it does.
    pub backoff: Backoff,
    /// The longest hint to wait out. The gateway sets its `max_wait`, bulk keeps the default of 15 minutes.
    pub hint_ceiling: Duration,
    /// How much is added to a hint at most, so that all who got the same one do not return together.
    pub spread: Duration,
    /// What statuses say about execution.
    pub matrix: RetryMatrix,
    /// Judgements beside the standard ones.
    pub classifiers: Vec<Classifier>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 5,
            max_ordered_waits: 20,
            backoff: Backoff::default(),
            hint_ceiling: Duration::from_mins(15),
            spread: Duration::from_millis(500),
            matrix: RetryMatrix::default(),
            classifiers: Vec::new(),
        }
    }
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Hand the answer to the caller: it is the upstream's word on this call.
    Deliver {
        /// The upstream rejected the token, and refreshing it is impossible or did not help: the error names the
        /// credential.
        unauthorized: bool,
    },
    /// Send again.
    Retry {
        /// Not before this instant, and with a new ticket.
        at: Mono,
        /// Why that is right.
        why: Why,
        /// The server ordered the wait, so it counts for nothing.
        ordered: bool,
    },
    /// Tell the token's life that this generation was rejected, then send again with the next one.
    RefreshToken,
    /// The call ends without having been executed. Hand over the answer if there is one.
    GiveUp {
        /// When it may be tried again; `None` if repeating is no use.
        retry_at: Option<Mono>,
        /// What ended it.
        why: Stop,
    },
    /// The call ends and nobody knows whether it was executed: reconcile, or report it as unknown.
    Unknown {
        /// When sending it again is still safe; `None` if it never is.
        retry_at: Option<Mono>,
        /// What leaves the doubt.
        why: Doubt,
    },
}

/// What ended a call that could have been repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All retries are used.
    Retries,
    /// The server ordered too many waits.
    OrderedWaits,
    /// The server asks for a longer wait than the hint ceiling.
    HintCeiling,
    /// The next attempt could not start before the deadline.
    Deadline,
    /// The retry budget is empty.
    Budget,
    /// The body is consumed, or a classifier forbids it.
    Forbidden(Why),
    /// The token was rejected for good.
    Unauthorized,
}

impl Stop {
    /// The reason in a few words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retries => "retries used up",
            Self::OrderedWaits => "too many ordered waits",
            Self::HintCeiling => "hint above the ceiling",
            Self::Deadline => "deadline",
            Self::Budget => "retry budget empty",
            Self::Forbidden(why) => why.name(),
            Self::Unauthorized => "token rejected",
        }
    }
}

/// What leaves an outcome unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// An attempt may have been executed, and a repeat could execute the write twice.
    NotRepeatable,
    /// An attempt may have been executed, and by the time of a repeat the upstream may have forgotten its key.
    DedupExpired,
    /// The repeat was refused as a conflict, and what it conflicts with may be what an earlier attempt has done.
    Conflict,
    /// An attempt may have been executed, and the repeats ended without an answer.
    Stopped(Stop),
}

impl Doubt {
    /// The reason in a few words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotRepeatable => "not repeatable",
            Self::DedupExpired => "key too old",
            Self::Conflict => "a conflict, perhaps with itself",
            Self::Stopped(stop) => stop.name(),
        }
    }
}

/// The attempts of one call.
#[derive(Clone, Debug)]
pub struct Attempts {
    facts: Facts,
    started: Mono,
    sent: u32,
    retries: u32,
    ordered: u32,
    /// The backoff's own count: a 401 resets it, retries go on counting.
    step: u32,
    previous: Duration,
    refreshed: bool,
    /// What the latest attempt was paid with.
    paid: Option<Cost>,
    /// An attempt, of this call or an earlier one of the same write, may have been executed.
    doubtful: bool,
}

impl Attempts {
    /// A call that begins now. Call it before the first wait for a ticket: the age of the key counts from here.
    pub fn new(facts: Facts, now: Mono) -> Self {
        let doubtful = facts.sent_before.is_some();
        Self {
            facts,
            started: now,
            sent: 0,
            retries: 0,
            ordered: 0,
            step: 0,
            previous: Duration::ZERO,
            refreshed: false,
            paid: None,
            doubtful,
        }
    }

    /// Whether the first attempt of this call may be sent at all: not if the same write was sent before, may have
    /// been executed, and a repeat is not (or no longer) harmless.
    pub fn may_start(&self, now: Mono) -> Result<(), Doubt> {
        self.safe_at(now)
    }

    /// The instant from which on nothing may be sent any more, be it for the deadline or for the age of the key.
    /// Ask before every send: waiting for a ticket takes time.
    pub fn send_by(&self) -> Option<Mono> {
        let key_ends = (self.doubtful && !self.facts.is_repeatable()).then(|| self.trusted_until());
        match (self.facts.give_up_at, key_ends) {
            (Some(deadline), Some(key)) => Some(deadline.min(key)),
            (one, other) => one.or(other),
        }
    }

    /// Attempts reported so far.
    pub const fn sent(&self) -> u32 {
        self.sent
    }

    /// Retries that counted.
    pub const fn retries(&self) -> u32 {
        self.retries
    }

    /// What the call is known by.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Reports how an attempt ended at `now`, and learns what to do. Call it once per attempt, the last included:
    /// successes refill the budget here.
    pub fn next(
        &mut self,
        now: Mono,
        outcome: &Outcome,
        budget: &mut Budget,
        policy: &RetryPolicy,
        rng: &mut Rng,
    ) -> Next {
        self.sent = self.sent.saturating_add(1);
        let attempted = Attempted {
            facts: &self.facts,
            outcome,
            delivery: policy.matrix.delivery(outcome),
            throttled: policy.matrix.is_throttle(outcome),
            age: self.age(now),
        };
        let delivery = attempted.delivery;
        let verdict = judge(STANDARD.iter().chain(&policy.classifiers), &attempted);
        self.doubtful |= delivery == Delivery::MaybeExecuted;
        if delivery == Delivery::Answered && outcome.status() == Some(StatusCode::UNAUTHORIZED) {
            return self.unauthorized(now);
        }
        match verdict {
            Verdict::Retry(why) => self.again(now, outcome, delivery, why, budget, policy, rng),
            Verdict::Forbidden(why) if delivery != Delivery::Answered => self.forbidden(outcome, why),
            Verdict::Forbidden(_) | Verdict::NoOpinion
                if self.in_doubt()
                    && outcome.status().is_some_and(is_conflict)
                    && !self.is_recognised(now) =>
            {
                Next::Unknown { retry_at: None, why: Doubt::Conflict }
            }
            Verdict::Forbidden(_) | Verdict::NoOpinion => {
                if outcome
                    .status()
                    .is_some_and(|status| !status.is_client_error() && !status.is_server_error())
                {
                    budget.success(now, self.paid);
                }
                Next::Deliver { unauthorized: false }
            }
        }
    }

    /// A 401 was not executed and says nothing about load.
    fn unauthorized(&mut self, now: Mono) -> Next {
        self.step = 0;
        self.previous = Duration::ZERO;
        let in_time = self.send_by().is_none_or(|end| now < end);
        if self.facts.refreshable && self.facts.replayable && !self.refreshed && in_time {
            self.refreshed = true;
            Next::RefreshToken
        } else if self.in_doubt() {
            Next::Unknown { retry_at: None, why: Doubt::Stopped(Stop::Unauthorized) }
        } else {
            Next::Deliver { unauthorized: true }
        }
    }

    fn forbidden(&self, outcome: &Outcome, why: Why) -> Next {
        if self.in_doubt() {
            let why = match why {
                Why::NotRepeatable => Doubt::NotRepeatable,
                Why::DedupExpired => Doubt::DedupExpired,
                other => Doubt::Stopped(Stop::Forbidden(other)),
            };
            return Next::Unknown { retry_at: None, why };
        }
        match outcome {
            Outcome::Answered { .. } => Next::Deliver { unauthorized: false },
            Outcome::Failed(_) => Next::GiveUp { retry_at: None, why: Stop::Forbidden(why) },
        }
    }

    /// The attempt may be repeated: find the time, and whether every bound allows it.
    #[expect(clippy::too_many_arguments, reason = "the arguments of `next` and what it derived from them")]
    fn again(
        &mut self,
        now: Mono,
        outcome: &Outcome,
        delivery: Delivery,
        why: Why,
        budget: &mut Budget,
        policy: &RetryPolicy,
        rng: &mut Rng,
    ) -> Next {
        let hint = outcome.hint();
        let ordered = delivery == Delivery::Refused && hint.is_some();
        let wait = self.wait(now, hint, policy, rng);
        let at = now + wait;
        if let Some(stop) = self.bound(at, hint, ordered, policy) {
            return self.stopped(Some(at), stop);
        }
        if let Err(why) = self.safe_at(at) {
            return Next::Unknown { retry_at: None, why };
        }
        if ordered {
            self.ordered += 1;
            self.paid = None;
            return Next::Retry { at, why, ordered };
        }
        let cost = if delivery == Delivery::MaybeExecuted { Cost::Heavy } else { Cost::Light };
        if !budget.try_take(now, cost) {
            let affordable = budget.affordable_in(now, cost).map(|wait| at.max(now + wait));
            return self.stopped(affordable, Stop::Budget);
        }
        self.paid = Some(cost);
        self.retries += 1;
        self.step = self.step.saturating_add(1);
        self.previous = wait;
        Next::Retry { at, why, ordered }
    }

    /// `max(hint, backoff)`, and only ever more.
    fn wait(&self, now: Mono, hint: Option<Duration>, policy: &RetryPolicy, rng: &mut Rng) -> Duration {
        let step = Step { attempt: self.step, previous: self.previous, elapsed: now - self.started };
        let computed = policy.backoff.delay(step, rng);
        hint.map_or(computed, |hint| hinted(hint, policy.spread, rng).max(computed))
    }

    fn bound(&self, at: Mono, hint: Option<Duration>, ordered: bool, policy: &RetryPolicy) -> Option<Stop> {
        if hint.is_some_and(|hint| hint > policy.hint_ceiling) {
            Some(Stop::HintCeiling)
        } else if ordered && self.ordered >= policy.max_ordered_waits {
            Some(Stop::OrderedWaits)
        } else if !ordered && self.retries >= policy.max_retries {
            Some(Stop::Retries)
        } else if self.facts.give_up_at.is_some_and(|deadline| at >= deadline) {
            Some(Stop::Deadline)
        } else {
            None
        }
    }

    /// A repeat would be allowed, but not in this call.
    fn stopped(&self, retry_at: Option<Mono>, stop: Stop) -> Next {
        if self.in_doubt() {
            let retry_at = retry_at.filter(|at| self.safe_at(*at).is_ok());
            Next::Unknown { retry_at, why: Doubt::Stopped(stop) }
        } else {
            Next::GiveUp { retry_at, why: stop }
        }
    }

    /// Whether the call could have changed something already. Reads leave no doubt: they change nothing.
    pub fn in_doubt(&self) -> bool {
        self.doubtful && !self.facts.is_read()
    }

    /// Whether sending at `at` cannot execute the write a second time.
    fn safe_at(&self, at: Mono) -> Result<(), Doubt> {
        if !self.doubtful || self.facts.is_repeatable() {
            Ok(())
        } else if self.facts.dedup.is_none() {
            Err(Doubt::NotRepeatable)
        } else if at < self.trusted_until() {
            Ok(())
        } else {
            Err(Doubt::DedupExpired)
        }
    }

    /// Until when the upstream recognises the key. `started` where it does not, or not any more.
    fn trusted_until(&self) -> Mono {
        let trust = self.facts.dedup_trust().unwrap_or_default();
        self.started + trust.saturating_sub(self.facts.sent_before.unwrap_or_default())
    }

    /// The time since the first send, at most: the call began before it.
    /// Whether the upstream answers a repeat as it answered the first: a conflict is then with somebody else's write.
    fn is_recognised(&self, now: Mono) -> bool {
        self.facts.dedup_trust().is_some_and(|trust| self.age(now) < trust)
    }

    fn age(&self, now: Mono) -> Duration {
        (now - self.started).saturating_add(self.facts.sent_before.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::backoff::Kind;
    use crate::budget::BudgetRules;
    use crate::classify::{Failure, Wrote};

    const S: Duration = Duration::from_secs(1);
    const DELIVERED: Next = Next::Deliver { unauthorized: false };

    /// A call, its policy and budget, and the clock of one test.
    struct Call {
        attempts: Attempts,
        policy: RetryPolicy,
        budget: Budget,
        rng: Rng,
        now: Mono,
    }

    impl Call {
        fn new(facts: Facts) -> Self {
            // Without jitter the waits are exact: 3 s from the tiers, hints as given.
            let backoff = Backoff::try_new(Kind::GenesysOfficial, S, 60 * S).unwrap();
            Self {
                attempts: Attempts::new(facts, Mono::ZERO),
                policy: RetryPolicy { backoff, spread: Duration::ZERO, ..RetryPolicy::default() },
                budget: Budget::new(BudgetRules::default(), Mono::ZERO),
                rng: Rng::with_seed(1),
                now: Mono::ZERO,
            }
        }

        fn of(method: Method) -> Self {
            Self::new(Facts::new(method))
        }

        fn ends(&mut self, outcome: Outcome) -> Next {
            let next = self.attempts.next(self.now, &outcome, &mut self.budget, &self.policy, &mut self.rng);
            if let Next::Retry { at, .. } = next {
                self.now = at;
            }
            next
        }

        fn answers(&mut self, code: u16, hint: Option<u64>) -> Next {
            self.ends(Outcome::answered(StatusCode::from_u16(code).unwrap(), hint.map(Duration::from_secs)))
        }

        fn fails(&mut self, failure: Failure) -> Next {
            self.ends(Outcome::Failed(failure))
        }
    }

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn final_answers_are_delivered_whatever_the_method() {
        for code in [200, 204, 301, 400, 403, 404, 409, 412, 413, 415, 422, 500, 501] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(Call::of(method).answers(code, Some(1)), DELIVERED, "{code}");
            }
        }
    }

    #[test]
    fn ordered_waits_use_up_neither_attempts_nor_budget() {
        let mut call = Call::of(Method::POST);
        for wait in 1..=20 {
            let expected = Next::Retry { at: at(wait * 7), why: Why::Throttled, ordered: true };
            assert_eq!(call.answers(429, Some(7)), expected);
        }
        assert_eq!(call.attempts.retries(), 0);
        assert_eq!(call.budget.tokens(Mono::ZERO), 500);
        let expected = Next::GiveUp { retry_at: Some(at(147)), why: Stop::OrderedWaits };
        assert_eq!(call.answers(429, Some(7)), expected);
    }

    #[test]
    fn a_throttle_without_a_hint_counts_and_backs_off() {
        let mut call = Call::of(Method::POST);
        for retry in 1..=5 {
            let expected = Next::Retry { at: at(retry * 3), why: Why::Throttled, ordered: false };
            assert_eq!(call.answers(429, None), expected);
        }
        let expected = Next::GiveUp { retry_at: Some(at(18)), why: Stop::Retries };
        assert_eq!(call.answers(429, None), expected);
        assert_eq!(call.attempts.sent(), 6);
    }

    #[test]
    fn a_hint_below_the_backoff_waits_the_backoff() {
        let expected = Next::Retry { at: at(3), why: Why::Throttled, ordered: true };
        assert_eq!(Call::of(Method::GET).answers(429, Some(0)), expected);
    }

    #[test]
    fn a_hint_above_the_ceiling_is_never_shortened() {
        let mut call = Call::of(Method::GET);
        call.policy.hint_ceiling = 14 * S;
        let expected = Next::GiveUp { retry_at: Some(at(15)), why: Stop::HintCeiling };
        assert_eq!(call.answers(429, Some(15)), expected);
        let expected = Next::Retry { at: at(14), why: Why::Throttled, ordered: true };
        assert_eq!(call.answers(429, Some(14)), expected);
    }

    #[test]
    fn what_cannot_start_before_the_deadline_is_given_up_at_once() {
        let mut facts = Facts::new(Method::GET);
        facts.give_up_at = Some(at(10));
        let expected = Next::GiveUp { retry_at: Some(at(10)), why: Stop::Deadline };
        assert_eq!(Call::new(facts.clone()).answers(429, Some(10)), expected);
        let expected = Next::Retry { at: at(9), why: Why::Throttled, ordered: true };
        assert_eq!(Call::new(facts).answers(429, Some(9)), expected);
    }

    #[test]
    fn a_lost_post_is_unknown_and_a_lost_get_is_repeated() {
        let unknown = Next::Unknown { retry_at: None, why: Doubt::NotRepeatable };
        for failure in [
            Failure::Interrupted { whole: false },
            Failure::Interrupted { whole: true },
            Failure::TimedOut { wrote: Wrote::Part },
            Failure::TimedOut { wrote: Wrote::Whole },
            Failure::AnswerTruncated,
        ] {
            assert_eq!(Call::of(Method::POST).fails(failure), unknown);
            let again = Next::Retry { at: at(3), why: Why::Repeatable, ordered: false };
            assert_eq!(Call::of(Method::GET).fails(failure), again);
        }
        for code in [408, 502, 503, 504] {
            assert_eq!(Call::of(Method::PATCH).answers(code, None), unknown);
        }
    }

    #[test]
    fn an_unsent_post_is_repeated() {
        let again = Next::Retry { at: at(3), why: Why::NotSent, ordered: false };
        for failure in
            [Failure::ConnectFailed, Failure::StreamRefused, Failure::TimedOut { wrote: Wrote::Nothing }]
        {
            assert_eq!(Call::of(Method::POST).fails(failure), again);
        }
    }

    #[test]
    fn a_hint_on_an_ambiguous_answer_is_obeyed_but_counts() {
        let mut call = Call::of(Method::GET);
        let expected = Next::Retry { at: at(8), why: Why::Repeatable, ordered: false };
        assert_eq!(call.answers(504, Some(8)), expected);
        assert_eq!(call.attempts.retries(), 1);
    }

    #[test]
    fn doubt_outlives_later_refusals() {
        let mut call = Call::of(Method::PUT);
        call.policy.hint_ceiling = 14 * S;
        assert!(matches!(
            call.fails(Failure::Interrupted { whole: true }),
            Next::Retry { why: Why::Repeatable, .. }
        ));
        let expected = Next::Unknown { retry_at: Some(at(63)), why: Doubt::Stopped(Stop::HintCeiling) };
        assert_eq!(call.answers(429, Some(60)), expected, "the first attempt may have worked");
        let mut call = Call::of(Method::GET);
        call.policy.hint_ceiling = 14 * S;
        call.fails(Failure::Interrupted { whole: true });
        let expected = Next::GiveUp { retry_at: Some(at(63)), why: Stop::HintCeiling };
        assert_eq!(call.answers(429, Some(60)), expected, "a read leaves no doubt");
    }

    #[test]
    fn a_get_that_its_route_calls_harmful_is_treated_as_a_write() {
        let mut facts = Facts::new(Method::GET);
        facts.idempotent = Some(false);
        let unknown = Next::Unknown { retry_at: None, why: Doubt::NotRepeatable };
        assert_eq!(Call::new(facts).fails(Failure::Interrupted { whole: true }), unknown);
    }

    #[test]
    fn an_answer_after_doubt_is_certain() {
        let mut call = Call::of(Method::DELETE);
        call.fails(Failure::Interrupted { whole: true });
        assert_eq!(call.answers(404, None), DELIVERED);
    }

    #[test]
    fn a_conflict_after_doubt_may_be_of_its_own_making() {
        for code in [409, 412] {
            let mut call = Call::of(Method::PUT);
            call.fails(Failure::Interrupted { whole: true });
            let unknown = Next::Unknown { retry_at: None, why: Doubt::Conflict };
            assert_eq!(call.answers(code, None), unknown);
            // The first attempt was refused before execution: the conflict is with somebody else.
            let mut call = Call::of(Method::PUT);
            call.answers(429, Some(1));
            assert_eq!(call.answers(code, None), DELIVERED);
        }
        let mut facts = Facts::new(Method::PUT);
        facts.sent_before = Some(S);
        let unknown = Next::Unknown { retry_at: None, why: Doubt::Conflict };
        assert_eq!(Call::new(facts).answers(409, None), unknown, "an earlier process may have executed it");
    }

    #[test]
    fn a_conflict_under_a_key_that_is_recognised_is_with_somebody_else() {
        let mut facts = Facts::new(Method::PATCH);
        facts.dedup = Some(Duration::from_hours(24));
        facts.sent_before = Some(S);
        assert_eq!(Call::new(facts.clone()).answers(409, None), DELIVERED);
        facts.sent_before = Some(Duration::from_hours(25));
        let unknown = Next::Unknown { retry_at: None, why: Doubt::Conflict };
        assert_eq!(Call::new(facts).answers(409, None), unknown, "forgotten by now");
    }

    #[test]
    fn a_401_refreshes_once_and_starts_the_backoff_over() {
        let mut call = Call::of(Method::POST);
        call.policy.backoff = Backoff::try_new(Kind::Equal, S, 64 * S).unwrap();
        for _ in 0..4 {
            call.answers(429, None);
        }
        assert_eq!(call.answers(401, None), Next::RefreshToken);
        let before = call.now;
        let Next::Retry { at, .. } = call.answers(429, None) else { panic!("a fifth retry") };
        assert!(at - before <= S, "the first step's wait, not the fifth's of at least 8 s");
        assert_eq!(call.answers(401, None), Next::Deliver { unauthorized: true });
    }

    #[test]
    fn a_401_is_delivered_where_nothing_can_be_refreshed_or_sent_again() {
        let unauthorized = Next::Deliver { unauthorized: true };
        let mut facts = Facts::new(Method::GET);
        facts.refreshable = false;
        assert_eq!(Call::new(facts).answers(401, None), unauthorized);
        let mut facts = Facts::new(Method::POST);
        facts.replayable = false;
        assert_eq!(Call::new(facts).answers(401, None), unauthorized);
    }

    #[test]
    fn a_401_after_the_deadline_is_not_worth_a_refresh() {
        let mut facts = Facts::new(Method::GET);
        facts.give_up_at = Some(at(10));
        let mut call = Call::new(facts.clone());
        call.now = at(10);
        assert_eq!(call.answers(401, None), Next::Deliver { unauthorized: true });
        let mut call = Call::new(facts);
        call.now = at(9);
        assert_eq!(call.answers(401, None), Next::RefreshToken);
    }

    #[test]
    fn a_streamed_body_gets_its_429_delivered_and_its_loss_reported_as_unknown() {
        let mut facts = Facts::new(Method::PUT);
        facts.replayable = false;
        assert_eq!(Call::new(facts.clone()).answers(429, Some(1)), DELIVERED);
        let unknown = Next::Unknown { retry_at: None, why: Doubt::Stopped(Stop::Forbidden(Why::BodyGone)) };
        assert_eq!(Call::new(facts.clone()).fails(Failure::Interrupted { whole: true }), unknown);
        let again = Next::Retry { at: at(3), why: Why::NotSent, ordered: false };
        assert_eq!(Call::new(facts.clone()).fails(Failure::ConnectFailed), again);
        let gone = Next::GiveUp { retry_at: None, why: Stop::Forbidden(Why::BodyGone) };
        assert_eq!(Call::new(facts).fails(Failure::StreamRefused), gone);
    }

    #[test]
    fn an_empty_budget_ends_the_call_with_the_time_at_which_it_can_pay() {
        let mut call = Call::of(Method::GET);
        while call.budget.try_take(Mono::ZERO, Cost::Light) {}
        let expected = Next::GiveUp { retry_at: Some(at(10)), why: Stop::Budget };
        assert_eq!(call.fails(Failure::Interrupted { whole: true }), expected);
        assert_eq!(call.attempts.retries(), 0);
        let expected = Next::Retry { at: at(7), why: Why::Throttled, ordered: true };
        assert_eq!(call.answers(429, Some(7)), expected, "ordered waits need no budget");
    }

    #[test]
    fn a_trusted_key_allows_repeats_only_while_the_upstream_remembers_it() {
        let mut facts = Facts::new(Method::POST);
        facts.dedup = Some(Duration::from_hours(24));
        let mut call = Call::new(facts.clone());
        let again = Next::Retry { at: at(3), why: Why::Deduplicated, ordered: false };
        assert_eq!(call.fails(Failure::Interrupted { whole: true }), again);
        assert_eq!(call.attempts.send_by(), Some(at(23 * 3600)));
        call.now = at(23 * 3600 - 2);
        let expected = Next::Unknown { retry_at: None, why: Doubt::DedupExpired };
        assert_eq!(call.answers(429, Some(5)), expected, "the repeat would come too late");
    }

    #[test]
    fn a_journaled_send_decides_whether_the_call_may_start() {
        let mut facts = Facts::new(Method::POST);
        facts.sent_before = Some(Duration::from_hours(22));
        assert_eq!(Call::new(facts.clone()).attempts.may_start(Mono::ZERO), Err(Doubt::NotRepeatable));
        facts.dedup = Some(Duration::from_hours(24));
        let attempts = Attempts::new(facts.clone(), at(50));
        assert_eq!(attempts.may_start(at(50)), Ok(()));
        assert_eq!(attempts.send_by(), Some(at(3650)));
        assert_eq!(attempts.may_start(at(3650)), Err(Doubt::DedupExpired));
        facts.sent_before = Some(Duration::from_hours(23));
        assert_eq!(Call::new(facts.clone()).attempts.may_start(Mono::ZERO), Err(Doubt::DedupExpired));
        facts.method = Method::PUT;
        assert_eq!(Call::new(facts).attempts.may_start(Mono::ZERO), Ok(()));
    }

    #[test]
    fn a_classifier_of_the_callers_own_can_repeat_a_final_answer() {
        fn not_yet_there(attempted: &Attempted<'_>) -> Verdict {
            match attempted.outcome.status() {
                Some(StatusCode::NOT_FOUND) => Verdict::Retry(Why::Custom("not yet there")),
                _ => Verdict::NoOpinion,
            }
        }
        let mut call = Call::of(Method::GET);
        call.policy.classifiers.push(not_yet_there);
        let again = Next::Retry { at: at(3), why: Why::Custom("not yet there"), ordered: false };
        assert_eq!(call.answers(404, None), again);
        assert_eq!(call.answers(200, None), DELIVERED);
    }
}
