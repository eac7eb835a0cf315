//! The life of an access token.
//!
//! One [`TokenLife`] per credential. It knows instants and generations, never the secret: the shell keeps the token
//! beside it and attaches the one whose generation [`TokenLife::plan`] names.
//!
//! Why a machine of its own: libraries that refresh on every 401 start one refresh per caller (five refreshes for
//! five concurrent 401s, of which some invalidate each other), and libraries that refresh at expiry make every
//! caller wait. Rules:
//!
//! * **one refresh in flight.** Only one caller is told to refresh; the others use the old token or wait;
//! * **the old one serves** while its successor is fetched, up to its expiry and not beyond. Expiry counts from the
//!   instant at which the token was *requested*, which is never later than its issue;
//! * **the margin scales.** A token is due a margin before its end, at most 10 % of its life plus at most 10 % of
//!   jitter, so that tokens that live two seconds work as well as those that live two days, and the instances of a
//!   fleet do not refresh together. Where the endpoint is slow the margin is twice what the last fetch took, up to half
//!   of the life: a successor that comes later than the end makes every caller wait;
//! * **failures are remembered**, longer each time, so that a token endpoint in trouble is not asked once per call.
//!   Wrong credentials are remembered longest, and a hint of the endpoint is a lower bound;
//! * **a 401 speaks of one generation.** One that arrives late, for a token already replaced, changes nothing. Two
//!   generations in a row that are rejected, none of them accepted in between, are a failure to remember, longer each
//!   time: refreshing does not help, however long a login and an answer take;
//! * time is monotonic; steps of the wall clock change nothing.

use std::time::Duration;

use fastrand::Rng;

use crate::backoff::HINT_FLOOR;
use crate::time::Mono;

/// Numbers the tokens of one credential. A later token has a higher number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// The margins and memories of a token's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// How long before its end a token is due at the latest; at most a tenth of its life, and at least twice the time its
    /// fetch took, up to half of its life.
    pub margin: Duration,
    /// How much earlier than that, drawn once per token; at most a tenth of its life.
    pub jitter: Duration,
    /// The life of a token whose answer does not tell (`expires_in` is only recommended, RFC 6749 §5.1).
    pub default_life: Duration,
    /// How long the first of several transient failures is remembered. It doubles with each further one.
    pub failure_memory: Duration,
    /// The longest memory of a transient failure.
    pub failure_memory_cap: Duration,
    /// How long refused credentials are remembered: somebody has to change the configuration or the org.
    pub refusal_memory: Duration,
}

impl Default for TokenRules {
    /// Due 5 to 10 minutes before the end of a Genesys token (24 h), 1 s of memory doubling to 30 s, 60 s for
    /// refused credentials.
    fn default() -> Self {
        Self {
            margin: Duration::from_mins(5),
            jitter: Duration::from_mins(5),
            default_life: Duration::from_mins(5),
            failure_memory: Duration::from_secs(1),
            failure_memory_cap: Duration::from_secs(30),
            refusal_memory: Duration::from_mins(1),
        }
    }
}

/// What a caller that needs a token has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Plan {
    /// Use the token of this generation.
    Use(Generation),
    /// Use the token of this generation, and start the refresh: nobody else was told to.
    UseAndRefresh(Generation),
    /// There is none; wait for the refresh in flight and ask again when it has ended.
    Wait,
    /// There is none, and nobody is fetching one: start the refresh, then ask again.
    Refresh,
    /// There is none, and asking for one failed a moment ago.
    Fail {
        /// When to try again.
        until: Mono,
        /// How it failed.
        why: TokenFailure,
    },
}

/// How a refresh ended badly, as the shell reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshFailure {
    /// The token endpoint said "too fast" (Genesys: 400 with "rate limit exceeded").
    Throttled {
        /// How long it asked to wait.
        hint: Option<Duration>,
    },
    /// The credentials were refused (`invalid_client`, `unauthorized_client`, `invalid_grant`).
    Refused,
    /// Anything that may pass: no connection, time-out, 5xx, an answer that is no token.
    Transient,
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFailure {
    /// The token endpoint throttles us.
    Throttled,
    /// The credentials were refused.
    Refused,
    /// The token endpoint could not be asked, or its answer not be used.
    Transient,
    /// The token endpoint issued a token whose life had ended on arrival.
    ExpiredOnArrival,
    /// The API rejected two tokens in a row although the token endpoint issued them.
    Rejected,
}

impl TokenFailure {
    /// The reason in a few words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "token endpoint throttles",
            Self::Refused => "credentials refused",
            Self::Transient => "token endpoint unavailable",
            Self::ExpiredOnArrival => "token expired on arrival",
            Self::Rejected => "fresh tokens rejected by the api",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Held {
    requested: Mono,
    due: Mono,
    expires: Mono,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    until: Mono,
    why: TokenFailure,
}

/// The life of one credential's token.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::time::Mono;
/// use tidegate_core::token::{Generation, Plan, TokenLife, TokenRules};
///
/// let mut life = TokenLife::new(TokenRules::default());
/// let mut rng = fastrand::Rng::with_seed(1);
/// let now = Mono::ZERO;
/// assert_eq!(life.plan(now), Plan::Refresh, "the first caller fetches");
/// assert_eq!(life.plan(now), Plan::Wait, "the second waits for it");
/// life.refreshed(now, now, Some(Duration::from_secs(86_400)), &mut rng);
/// assert_eq!(life.plan(now), Plan::Use(Generation(1)));
/// ```
#[derive(Clone, Debug)]
pub struct TokenLife {
    rules: TokenRules,
    /// The newest generation ever issued, held or not.
    newest: Generation,
    held: Option<Held>,
    /// When the refresh in flight began.
    refreshing: Option<Mono>,
    remembered: Option<Remembered>,
    /// Transient failures since the last success.
    failures: u32,
    /// Tokens rejected since one was accepted last.
    rejections: u32,
}

impl TokenLife {
    /// A credential without a token.
    pub const fn new(rules: TokenRules) -> Self {
        Self {
            rules,
            newest: Generation(0),
            held: None,
            refreshing: None,
            remembered: None,
            failures: 0,
            rejections: 0,
        }
    }

    /// What a caller that needs a token at `now` has to do.
    ///
    /// [`Plan::Refresh`] and [`Plan::UseAndRefresh`] make the caller the one who refreshes: it must end with exactly
    /// one of [`refreshed`](Self::refreshed), [`refresh_failed`](Self::refresh_failed) or
    /// [`refresh_abandoned`](Self::refresh_abandoned). All other answers may be asked for again without effect.
    pub fn plan(&mut self, now: Mono) -> Plan {
        let idle = self.refreshing.is_none();
        let failing = self.remembered.filter(|failure| now < failure.until);
        match (self.serving(now), failing) {
            (Some(held), None) if idle && now >= held.due => {
                self.refreshing = Some(now);
                Plan::UseAndRefresh(self.newest)
            }
            (Some(_), _) => Plan::Use(self.newest),
            (None, _) if !idle => Plan::Wait,
            (None, Some(Remembered { until, why })) => Plan::Fail { until, why },
            (None, None) => {
                self.refreshing = Some(now);
                Plan::Refresh
            }
        }
    }

    /// A token arrived that was requested at `requested_at` and lives for `expires_in` from its issue. Answers the
    /// generation under which to keep it, or `None` if there is nothing to keep: it was requested before the one that
    /// is held, or its life has ended already (a failure to remember, else each call would fetch another dead token).
    pub fn refreshed(
        &mut self,
        now: Mono,
        requested_at: Mono,
        expires_in: Option<Duration>,
        rng: &mut Rng,
    ) -> Option<Generation> {
        // The late answer of an abandoned refresh does not end the one that replaced it.
        if self.refreshing.is_some_and(|began| requested_at >= began) {
            self.refreshing = None;
        }
        let life = expires_in.unwrap_or(self.rules.default_life);
        let expires = requested_at + life;
        if expires <= now {
            self.fail(now, TokenFailure::ExpiredOnArrival);
            return None;
        }
        if self.serving(now).is_some_and(|held| held.requested > requested_at) {
            // The late answer of an older request: what is held is newer. The ends are not compared, because a life
            // that the org shortened must be believed, else the old token would be refreshed again and again.
            return None;
        }
        Some(self.hold(requested_at, expires, life, now - requested_at, rng))
    }

    /// A token that somebody else had fetched was taken over: `left` is left of its `life`. Answers the generation under
    /// which to keep it, or `None` as [`refreshed`](Self::refreshed) does. How long its fetch took is not known, so it is due
    /// by its life alone.
    pub fn adopted(
        &mut self,
        now: Mono,
        life: Duration,
        left: Duration,
        rng: &mut Rng,
    ) -> Option<Generation> {
        self.refreshing = None;
        let requested_at = now.back(life.saturating_sub(left));
        if left.is_zero() {
            self.fail(now, TokenFailure::ExpiredOnArrival);
            return None;
        }
        if self.serving(now).is_some_and(|held| held.requested > requested_at) {
            return None;
        }
        Some(self.hold(requested_at, now + left, life, Duration::ZERO, rng))
    }

    fn hold(
        &mut self,
        requested: Mono,
        expires: Mono,
        life: Duration,
        took: Duration,
        rng: &mut Rng,
    ) -> Generation {
        let tenth = life / 10;
        let jitter = u64::try_from(self.rules.jitter.min(tenth).as_nanos()).unwrap_or(u64::MAX);
        let margin = self.rules.margin.min(tenth) + Duration::from_nanos(rng.u64(0..=jitter));
        // The next fetch is expected to take as long as this one, and is given as much again.
        let twice = took.saturating_mul(2);
        let margin = margin.max(twice.min(life / 2));
        self.newest.0 += 1;
        self.held = Some(Held { requested, due: expires.back(margin), expires });
        self.remembered = None;
        self.failures = 0;
        self.newest
    }

    /// The refresh in flight ended without a token. What is still held goes on serving.
    pub fn refresh_failed(&mut self, now: Mono, failure: RefreshFailure) {
        self.refreshing = None;
        match failure {
            RefreshFailure::Transient => self.fail(now, TokenFailure::Transient),
            RefreshFailure::Refused => self.remember(now, self.rules.refusal_memory, TokenFailure::Refused),
            RefreshFailure::Throttled { hint: Some(hint) } => {
                self.remember(now, hint.max(HINT_FLOOR), TokenFailure::Throttled);
            }
            RefreshFailure::Throttled { hint: None } => self.fail(now, TokenFailure::Throttled),
        }
    }

    /// The task that refreshed is gone without a result: the next caller may start another at once.
    pub fn refresh_abandoned(&mut self) {
        self.refreshing = None;
    }

    /// The API answered 401 to a token of `generation`. The next [`plan`](Self::plan) fetches a new one, unless that
    /// has happened already.
    pub fn rejected(&mut self, now: Mono, generation: Generation) {
        if generation != self.newest || self.held.take().is_none() {
            return;
        }
        self.rejections = self.rejections.saturating_add(1);
        if let Some(before) = self.rejections.checked_sub(2) {
            self.remember(now, self.memory(before), TokenFailure::Rejected);
        }
    }

    /// The API did what a call with a token of `generation` asked for. Of an older one it says nothing.
    pub fn accepted(&mut self, generation: Generation) {
        if generation == self.newest {
            self.rejections = 0;
        }
    }

    fn serving(&self, now: Mono) -> Option<Held> {
        self.held.filter(|held| now < held.expires)
    }

    /// Remembers a failure for longer than the one before it.
    fn fail(&mut self, now: Mono, why: TokenFailure) {
        let memory = self.memory(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.remember(now, memory, why);
    }

    /// How long a failure is remembered that had so many before it.
    fn memory(&self, before: u32) -> Duration {
        let factor = 1_u32.checked_shl(before).unwrap_or(u32::MAX);
        self.rules.failure_memory.saturating_mul(factor).min(self.rules.failure_memory_cap)
    }

    fn remember(&mut self, now: Mono, memory: Duration, why: TokenFailure) {
        self.remembered = Some(Remembered { until: now + memory, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_hours(24);

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    fn at_ms(millis: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(millis)
    }

    /// A life that fetched its first token at zero.
    fn with_token(expires_in: Duration) -> TokenLife {
        let mut life = TokenLife::new(TokenRules::default());
        assert_eq!(life.plan(Mono::ZERO), Plan::Refresh);
        renew(&mut life, Mono::ZERO, expires_in);
        life
    }

    fn renew(life: &mut TokenLife, now: Mono, expires_in: Duration) -> Option<Generation> {
        life.refreshed(now, now, Some(expires_in), &mut Rng::with_seed(3))
    }

    #[test]
    fn one_caller_refreshes_and_the_others_wait() {
        let mut life = TokenLife::new(TokenRules::default());
        assert_eq!(life.plan(at(0)), Plan::Refresh);
        for _ in 0..5 {
            assert_eq!(life.plan(at(1)), Plan::Wait);
        }
        assert_eq!(renew(&mut life, at(2), DAY), Some(Generation(1)));
        assert_eq!(life.plan(at(2)), Plan::Use(Generation(1)));
    }

    #[test]
    fn a_due_token_serves_while_one_caller_refreshes() {
        let mut life = with_token(DAY);
        assert_eq!(life.plan(at(86_400 - 601)), Plan::Use(Generation(1)));
        assert_eq!(life.plan(at(86_400 - 299)), Plan::UseAndRefresh(Generation(1)));
        assert_eq!(life.plan(at(86_400 - 298)), Plan::Use(Generation(1)));
        assert_eq!(life.plan(at(86_400)), Plan::Wait, "never past its end");
        assert_eq!(renew(&mut life, at(86_401), DAY), Some(Generation(2)));
        assert_eq!(life.plan(at(86_401)), Plan::Use(Generation(2)));
    }

    #[test]
    fn a_token_of_two_seconds_serves_most_of_its_life() {
        for seed in 0..200 {
            let mut life = TokenLife::new(TokenRules::default());
            assert_eq!(life.plan(at(0)), Plan::Refresh);
            life.refreshed(at_ms(50), at(0), Some(2 * S), &mut Rng::with_seed(seed));
            assert_eq!(life.plan(at_ms(1_599)), Plan::Use(Generation(1)), "seed {seed}");
            assert_eq!(life.plan(at_ms(1_800)), Plan::UseAndRefresh(Generation(1)), "seed {seed}");
            assert_eq!(life.plan(at(2)), Plan::Wait);
        }
    }

    #[test]
    fn a_token_is_due_before_its_renewal_could_come_too_late() {
        for seed in 0..200 {
            let mut life = TokenLife::new(TokenRules::default());
            assert_eq!(life.plan(at(0)), Plan::Refresh);
            life.refreshed(at_ms(300), at(0), Some(2 * S), &mut Rng::with_seed(seed));
            assert_eq!(life.plan(at_ms(1_399)), Plan::Use(Generation(1)), "seed {seed}");
            assert_eq!(life.plan(at_ms(1_400)), Plan::UseAndRefresh(Generation(1)), "seed {seed}");
            // An endpoint that takes twice as long this time still comes before the end.
            assert_eq!(life.plan(at_ms(1_999)), Plan::Use(Generation(1)), "seed {seed}");
        }
    }

    #[test]
    fn a_slow_endpoint_never_takes_more_than_half_a_life() {
        for took in [700, 1_000, 1_900] {
            let mut life = TokenLife::new(TokenRules::default());
            assert_eq!(life.plan(at(0)), Plan::Refresh);
            life.refreshed(at_ms(took), at(0), Some(2 * S), &mut Rng::with_seed(1));
            if took < 1_000 {
                assert_eq!(life.plan(at_ms(999)), Plan::Use(Generation(1)), "{took} ms");
            }
            assert_eq!(life.plan(at_ms(took.max(1_000))), Plan::UseAndRefresh(Generation(1)), "{took} ms");
        }
    }

    #[test]
    fn the_due_times_of_a_fleet_are_spread() {
        let due = |seed| {
            let mut life = TokenLife::new(TokenRules::default());
            life.refreshed(at(0), at(0), Some(DAY), &mut Rng::with_seed(seed));
            (85_000..86_400).find(|s| matches!(life.plan(at(*s)), Plan::UseAndRefresh(_))).unwrap()
        };
        let times: std::collections::BTreeSet<u64> = (0..50).map(due).collect();
        assert!(times.len() > 30, "{times:?}");
        assert!(times.iter().all(|due| (85_800..=86_100).contains(due)), "{times:?}");
    }

    #[test]
    fn a_late_401_of_an_older_generation_changes_nothing() {
        let mut life = with_token(DAY);
        life.rejected(at(10), Generation(1));
        assert_eq!(life.plan(at(10)), Plan::Refresh);
        renew(&mut life, at(11), DAY);
        for _ in 0..5 {
            life.rejected(at(12), Generation(1));
            assert_eq!(life.plan(at(12)), Plan::Use(Generation(2)));
        }
    }

    #[test]
    fn five_concurrent_401s_lead_to_one_refresh() {
        let mut life = with_token(DAY);
        let mut refreshes = 0;
        for _ in 0..5 {
            life.rejected(at(10), Generation(1));
            refreshes += u32::from(life.plan(at(10)) == Plan::Refresh);
        }
        assert_eq!(refreshes, 1);
    }

    #[test]
    fn fresh_tokens_that_are_rejected_stop_the_refreshing_for_a_while() {
        let mut life = with_token(DAY);
        life.rejected(at_ms(100), Generation(1));
        assert_eq!(life.plan(at_ms(100)), Plan::Refresh);
        renew(&mut life, at_ms(200), DAY);
        life.rejected(at_ms(300), Generation(2));
        assert_eq!(life.plan(at_ms(300)), Plan::Fail { until: at_ms(1_300), why: TokenFailure::Rejected });
        assert_eq!(life.plan(at_ms(1_300)), Plan::Refresh);
    }

    #[test]
    fn an_api_that_rejects_every_token_costs_ever_fewer_logins_however_slow_it_is() {
        let mut life = TokenLife::new(TokenRules::default());
        let (mut now, mut logins) = (at(0), 0);
        while now < at(600) {
            match life.plan(now) {
                Plan::Refresh => {
                    logins += 1;
                    let generation = renew(&mut life, now + S, DAY).expect("a token");
                    now += 2 * S;
                    life.rejected(now, generation);
                }
                Plan::Fail { until, why } => {
                    assert_eq!(why, TokenFailure::Rejected);
                    now = until;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(logins < 30, "{logins}");
    }

    #[test]
    fn a_token_that_served_before_it_was_rejected_is_replaced_at_once() {
        let mut life = with_token(DAY);
        let mut generation = Generation(1);
        for revoked in 1..5 {
            life.accepted(generation);
            // What an older one was accepted for says nothing of this one.
            life.accepted(Generation(0));
            life.rejected(at(revoked), generation);
            assert_eq!(life.plan(at(revoked)), Plan::Refresh);
            generation = renew(&mut life, at(revoked), DAY).expect("a token");
        }
        life.rejected(at(5), generation);
        life.accepted(Generation(1));
        assert!(matches!(life.plan(at(5)), Plan::Fail { why: TokenFailure::Rejected, .. }));
    }

    #[test]
    fn failures_are_remembered_longer_each_time_up_to_a_cap() {
        let mut life = TokenLife::new(TokenRules::default());
        let mut now = at(0);
        for memory in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert_eq!(life.plan(now), Plan::Refresh);
            life.refresh_failed(now, RefreshFailure::Transient);
            let until = now + memory * S;
            assert_eq!(life.plan(now), Plan::Fail { until, why: TokenFailure::Transient });
            now = until;
        }
        assert_eq!(life.plan(now), Plan::Refresh);
        renew(&mut life, now, DAY);
        life.rejected(now, Generation(1));
        assert_eq!(life.plan(now), Plan::Refresh);
        life.refresh_failed(now, RefreshFailure::Transient);
        assert_eq!(life.plan(now), Plan::Fail { until: now + S, why: TokenFailure::Transient });
    }

    #[test]
    fn hints_and_refusals_have_memories_of_their_own() {
        let cases = [
            (RefreshFailure::Throttled { hint: Some(45 * S) }, 45_000, TokenFailure::Throttled),
            (RefreshFailure::Throttled { hint: Some(Duration::ZERO) }, 100, TokenFailure::Throttled),
            (RefreshFailure::Throttled { hint: None }, 1_000, TokenFailure::Throttled),
            (RefreshFailure::Refused, 60_000, TokenFailure::Refused),
        ];
        for (failure, millis, why) in cases {
            let mut life = TokenLife::new(TokenRules::default());
            assert_eq!(life.plan(at(0)), Plan::Refresh);
            life.refresh_failed(at(0), failure);
            assert_eq!(life.plan(at(0)), Plan::Fail { until: at_ms(millis), why });
            assert_eq!(life.plan(at_ms(millis)), Plan::Refresh);
        }
    }

    #[test]
    fn a_valid_token_serves_through_a_failing_endpoint() {
        let mut life = with_token(100 * S);
        assert_eq!(life.plan(at(95)), Plan::UseAndRefresh(Generation(1)));
        life.refresh_failed(at(95), RefreshFailure::Transient);
        assert_eq!(life.plan(at(95)), Plan::Use(Generation(1)));
        assert_eq!(life.plan(at(96)), Plan::UseAndRefresh(Generation(1)), "tried again after the memory");
        life.refresh_failed(at(96), RefreshFailure::Refused);
        assert_eq!(life.plan(at(99)), Plan::Use(Generation(1)));
        assert_eq!(life.plan(at(100)), Plan::Fail { until: at(156), why: TokenFailure::Refused });
    }

    #[test]
    fn an_abandoned_refresh_is_replaced_and_its_late_answer_does_not_end_the_new_one() {
        let mut life = TokenLife::new(TokenRules::default());
        assert_eq!(life.plan(at(0)), Plan::Refresh);
        life.refresh_abandoned();
        assert_eq!(life.plan(at(5)), Plan::Refresh);
        assert_eq!(life.refreshed(at(6), at(0), Some(100 * S), &mut Rng::with_seed(1)), Some(Generation(1)));
        assert_eq!(life.plan(at(6)), Plan::Use(Generation(1)));
        assert_eq!(life.plan(at(100)), Plan::Wait, "the refresh that replaced it is still in flight");
        renew(&mut life, at(7), 100 * S);
        let late = life.refreshed(at(8), at(1), Some(100 * S), &mut Rng::with_seed(1));
        assert_eq!(late, None, "what is held is newer");
        assert_eq!(life.plan(at(8)), Plan::Use(Generation(2)));
        assert_eq!(life.plan(at(106)), Plan::UseAndRefresh(Generation(2)), "nobody is fetching one any more");
        assert_eq!(life.plan(at(107)), Plan::Wait);
    }

    #[test]
    fn a_token_that_is_dead_on_arrival_is_a_failure_and_no_loop() {
        for expires_in in [Duration::ZERO, 2 * S] {
            let mut life = TokenLife::new(TokenRules::default());
            assert_eq!(life.plan(at(0)), Plan::Refresh);
            assert_eq!(life.refreshed(at(3), at(0), Some(expires_in), &mut Rng::with_seed(1)), None);
            assert_eq!(life.plan(at(3)), Plan::Fail { until: at(4), why: TokenFailure::ExpiredOnArrival });
        }
    }

    #[test]
    fn a_shorter_life_than_before_is_believed() {
        let mut life = with_token(DAY);
        assert_eq!(life.plan(at(86_000 + 300)), Plan::UseAndRefresh(Generation(1)));
        assert_eq!(renew(&mut life, at(86_301), 60 * S), Some(Generation(2)));
        assert_eq!(life.plan(at(86_302)), Plan::Use(Generation(2)));
        assert_eq!(life.plan(at(86_360)), Plan::UseAndRefresh(Generation(2)));
        assert_eq!(life.plan(at(86_361)), Plan::Wait);
    }

    #[test]
    fn a_token_that_was_taken_over_is_due_by_its_end_and_not_by_when_it_was_taken() {
        let mut life = TokenLife::new(TokenRules::default());
        assert_eq!(life.plan(at(1)), Plan::Refresh);
        let hour = Duration::from_hours(1);
        assert_eq!(life.adopted(at(1), DAY, hour, &mut Rng::with_seed(3)), Some(Generation(1)));
        assert_eq!(life.plan(at(2_999)), Plan::Use(Generation(1)));
        assert_eq!(life.plan(at(3_302)), Plan::UseAndRefresh(Generation(1)));
        assert_eq!(life.plan(at(3_601)), Plan::Wait, "not past its end");
        assert_eq!(renew(&mut life, at(3_602), DAY), Some(Generation(2)));
        assert_eq!(life.adopted(at(3_603), DAY, hour, &mut Rng::with_seed(3)), None, "what is held is newer");
        assert_eq!(life.plan(at(3_603)), Plan::Use(Generation(2)));
    }

    #[test]
    fn a_token_without_anything_left_is_not_taken_over() {
        let mut life = TokenLife::new(TokenRules::default());
        assert_eq!(life.plan(at(0)), Plan::Refresh);
        assert_eq!(life.adopted(at(0), DAY, Duration::ZERO, &mut Rng::with_seed(1)), None);
        assert_eq!(life.plan(at(0)), Plan::Fail { until: at(1), why: TokenFailure::ExpiredOnArrival });
    }

    #[test]
    fn an_answer_without_a_life_gets_the_default_one() {
        let mut life = TokenLife::new(TokenRules::default());
        life.refreshed(at(0), at(0), None, &mut Rng::with_seed(1));
        assert_eq!(life.plan(at(299)), Plan::UseAndRefresh(Generation(1)));
        assert_eq!(life.plan(at(300)), Plan::Wait);
    }
}
