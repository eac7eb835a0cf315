//! Tokens under random traffic: one refresh at a time, none per late 401, nothing served past its end.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;
use tidegate_core::time::Mono;
use tidegate_core::token::{Generation, Plan, RefreshFailure, TokenLife, TokenRules};

#[derive(Clone, Debug)]
enum Op {
    Pass(u64),
    Plan,
    /// The refresh in flight succeeds with a token of this life, in milliseconds.
    Succeed(Option<u64>),
    Fail(RefreshFailure),
    Abandon,
    /// A 401 for the generation this many before the newest.
    Reject(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let failure = prop_oneof![
        Just(RefreshFailure::Transient),
        Just(RefreshFailure::Refused),
        prop::option::of(0_u64..100_000)
            .prop_map(|hint| RefreshFailure::Throttled { hint: hint.map(Duration::from_millis) }),
    ];
    prop_oneof![
        3 => prop_oneof![0_u64..500, 0_u64..600_000].prop_map(Op::Pass),
        5 => Just(Op::Plan),
        3 => prop::option::weighted(0.9, prop_oneof![0_u64..3_000, 0_u64..100_000_000]).prop_map(Op::Succeed),
        1 => failure.prop_map(Op::Fail),
        1 => Just(Op::Abandon),
        1 => (0_u64..3).prop_map(Op::Reject),
    ]
}

/// What the world outside knows of one credential.
#[derive(Default)]
struct World {
    now: Mono,
    /// When the refresh in flight was started.
    in_flight: Option<Mono>,
    /// End of each token issued; the index is its generation less one.
    ends: Vec<Mono>,
    rejected: BTreeSet<u64>,
}

impl World {
    fn check(&mut self, plan: Plan) -> Result<(), TestCaseError> {
        if let Plan::Use(generation) | Plan::UseAndRefresh(generation) = plan {
            let index = usize::try_from(generation.0 - 1).unwrap();
            prop_assert!(self.now < self.ends[index], "served past its end");
            prop_assert_eq!(index + 1, self.ends.len(), "served an old one");
            prop_assert!(!self.rejected.contains(&generation.0), "served a rejected one");
        }
        match plan {
            Plan::Refresh | Plan::UseAndRefresh(_) => {
                prop_assert!(self.in_flight.is_none(), "a second refresh beside the first");
                self.in_flight = Some(self.now);
            }
            Plan::Wait => prop_assert!(self.in_flight.is_some(), "waits for nothing"),
            Plan::Fail { until, .. } => prop_assert!(until > self.now && self.in_flight.is_none()),
            Plan::Use(_) => {}
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_two_refreshes_and_no_dead_token(ops in prop::collection::vec(op(), 0..120), seed in any::<u64>()) {
        let rules = TokenRules::default();
        let mut rng = Rng::with_seed(seed);
        let mut life = TokenLife::new(rules);
        let mut world = World::default();
        for op in ops {
            match op {
                Op::Pass(millis) => world.now += Duration::from_millis(millis),
                Op::Plan => {
                    let plan = life.plan(world.now);
                    world.check(plan)?;
                }
                Op::Succeed(expires_in) => {
                    let Some(began) = world.in_flight.take() else { continue };
                    let expires_in = expires_in.map(Duration::from_millis);
                    let end = began + expires_in.unwrap_or(rules.default_life);
                    let generation = life.refreshed(world.now, began, expires_in, &mut rng);
                    prop_assert_eq!(generation.is_some(), end > world.now);
                    if let Some(Generation(number)) = generation {
                        world.ends.push(end);
                        prop_assert_eq!(usize::try_from(number).unwrap(), world.ends.len());
                    }
                }
                Op::Fail(failure) => {
                    if world.in_flight.take().is_some() {
                        life.refresh_failed(world.now, failure);
                    }
                }
                Op::Abandon => {
                    if world.in_flight.take().is_some() {
                        life.refresh_abandoned();
                    }
                }
                Op::Reject(back) => {
                    let newest = u64::try_from(world.ends.len()).unwrap();
                    if let Some(number) = newest.checked_sub(back).filter(|number| *number > 0) {
                        world.rejected.insert(number);
                        life.rejected(world.now, Generation(number));
                    }
                }
            }
            // When every token and every memory has ended, one waits for the refresh in flight or starts one.
            let in_ten_years = world.now + Duration::from_hours(24 * 3650);
            let waits = life.clone().plan(in_ten_years) == Plan::Wait;
            prop_assert_eq!(waits, world.in_flight.is_some());
        }
        // Whatever happened, the credential recovers: the next refresh that succeeds serves.
        let mut patience = 0;
        loop {
            patience += 1;
            prop_assert!(patience < 5, "stuck");
            let plan = life.plan(world.now);
            world.check(plan)?;
            match plan {
                Plan::Use(_) | Plan::UseAndRefresh(_) => break,
                Plan::Fail { until, .. } => world.now = until,
                Plan::Wait | Plan::Refresh => {
                    let began = world.in_flight.take().unwrap();
                    world.now += Duration::from_millis(1);
                    let day = Duration::from_hours(24);
                    let began = if plan == Plan::Wait { world.now } else { began };
                    prop_assert!(life.refreshed(world.now, began, Some(day), &mut rng).is_some());
                    world.ends.push(began + day);
                }
            }
        }
    }

    #[test]
    fn each_rejected_generation_costs_at_most_one_refresh(
        storm in prop::collection::vec(prop_oneof![Just(None), (0_u64..4).prop_map(Some)], 0..200),
        apart in 0_u64..3_000,
    ) {
        let mut life = TokenLife::new(TokenRules::default());
        let mut rng = Rng::with_seed(5);
        let (mut now, mut newest, mut refreshes) = (Mono::ZERO, 0_u64, 0_usize);
        let mut rejected = BTreeSet::new();
        for event in storm {
            now += Duration::from_millis(apart);
            match event {
                // A caller asks, and a refresh succeeds at once.
                None => {
                    if life.plan(now) == Plan::Refresh {
                        refreshes += 1;
                        newest = life.refreshed(now, now, Some(Duration::from_hours(24)), &mut rng).unwrap().0;
                    }
                }
                Some(back) if newest > back => {
                    rejected.insert(newest - back);
                    life.rejected(now, Generation(newest - back));
                }
                Some(_) => {}
            }
        }
        prop_assert!(refreshes <= 1 + rejected.len());
    }

    #[test]
    fn a_token_is_due_while_a_fetch_as_slow_as_its_own_still_comes_in_time(
        life in 100_u64..100_000_000,
        part in 0.0_f64..0.999,
        seed in any::<u64>(),
    ) {
        let expires_in = Duration::from_millis(life);
        let took = expires_in.mul_f64(part);
        let at = |after: Duration| Mono::ZERO + after;
        let mut token = TokenLife::new(TokenRules::default());
        prop_assert_eq!(token.plan(Mono::ZERO), Plan::Refresh);
        let mut rng = Rng::with_seed(seed);
        prop_assert_eq!(token.refreshed(at(took), Mono::ZERO, Some(expires_in), &mut rng), Some(Generation(1)));
        let early = took.max((expires_in / 2).saturating_sub(Duration::from_millis(1)));
        if early < expires_in / 2 {
            prop_assert_eq!(token.plan(at(early)), Plan::Use(Generation(1)), "half of its life it is left alone");
        }
        let needed = took.max(expires_in.saturating_sub((2 * took).min(expires_in / 2)));
        if needed < expires_in {
            prop_assert_eq!(token.plan(at(needed)), Plan::UseAndRefresh(Generation(1)));
        }
    }
}
