//! What the ledger promises, shown at the ledger itself: exchanges are made up, time is an argument.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::cast_possible_truncation, reason = "small counts and times")]

mod share_words;

use proptest::prelude::*;
use tidegate_core::share::{
    Away, DoorChange, DoorSide, Ended, Exchange, Fallback, Grant, HolderId, Kind, Ledger, LimitKey,
    LimitSide, Ms, PROTOCOL, Part, Recall, Refill, Refusal, Reply, Sight, Terms, Unanswered, Want,
};
use tidegate_core::time::Mono;

use share_words::{KEY, exchange, side};

const T: u64 = 1_700_000_000_000;

fn told(rule: Refill, proven: bool) -> Terms {
    Terms {
        kind: Kind::Rate { quota: 300, window: 60_000, told: true },
        rule,
        proven,
        pinned: false,
        assumed: false,
    }
}

fn declared() -> Terms {
    Terms {
        kind: Kind::Rate { quota: 300, window: 60_000, told: false },
        rule: Refill::Log,
        proven: false,
        pinned: false,
        assumed: false,
    }
}

/// Sent and answered so long ago, with `left`; the epoch ends in `ends`.
#[expect(clippy::unnecessary_wraps, reason = "it stands where there may be none")]
fn sight(sent: Ms, answered: Ms, left: u32, ends: i64) -> Option<Sight> {
    Some(Sight {
        latest_sent: sent,
        left: vec![(answered, left)],
        ends: Some((ends - 5, ends)),
        scout_in: None,
    })
}

fn want(now: [u32; 4], soon: [u32; 4]) -> Want {
    Want { limits: vec![0], now, soon, leave: [0; 4], fair: [false; 4] }
}

/// A ledger in which one holder's scout found `left` of 300, and the epoch has half a minute to go.
fn open(terms: Terms, left: u32) -> Ledger {
    let mut ledger = Ledger::new(T, 1);
    let scout = ledger.exchange(T, &exchange(99, 1, side(terms), Some(want([1, 0, 0, 0], [0; 4])))).unwrap();
    assert!(scout.grants[0].scout);
    let back = LimitSide {
        ended: vec![Ended { age: 1, all: 1, unseen: 0 }],
        seen: sight(20, 1, left, 30_000),
        scouted: Some(20),
        ..side(terms)
    };
    ledger.exchange(T + 50, &exchange(99, 2, back, None)).unwrap();
    ledger
}

fn available(ledger: &Ledger, now: u64) -> i64 {
    ledger.view(now)[0].available
}

#[test]
fn i9_a_replay_returns_the_first_answer() {
    let mut ledger = open(told(Refill::Step, true), 200);
    let said = exchange(1, 1, side(told(Refill::Step, true)), Some(want([9, 0, 0, 0], [0; 4])));
    let first = ledger.exchange(T + 60, &said).unwrap();
    assert!(first.grants[0].permits > 0);
    let after = ledger.clone();
    assert_eq!(ledger.exchange(T + 4_000, &said).unwrap(), first, "word for word, however late");
    assert_eq!(available(&ledger, T + 4_000), available(&after, T + 4_000), "and nothing is granted twice");
    let next = exchange(1, 2, LimitSide { unspent: 9, ..side(told(Refill::Step, true)) }, None);
    assert_eq!(ledger.exchange(T + 4_100, &next).unwrap().knew_seq, 1);
    assert_eq!(ledger.exchange(T + 4_200, &said), Err(Unanswered::Stale));
}

#[test]
fn a_holder_may_begin_with_number_zero() {
    let mut ledger = open(told(Refill::Step, true), 200);
    let hello = Exchange { limits: Vec::new(), ..exchange(1, 0, side(declared()), None) };
    let reply = ledger.exchange(T + 60, &hello).unwrap();
    assert_eq!((reply.knew_seq, reply.holders), (0, 2));
    assert_eq!(ledger.exchange(T + 61, &hello).unwrap(), reply);
    assert!(ledger.exchange(T + 62, &exchange(1, 1, side(told(Refill::Step, true)), None)).is_ok());
}

#[test]
fn another_protocol_is_refused_with_both_versions_and_changes_nothing() {
    let mut ledger = open(told(Refill::Step, true), 200);
    let before = ledger.clone();
    let said = Exchange { protocol: PROTOCOL + 1, ..exchange(1, 1, side(declared()), None) };
    let refused = ledger.exchange(T + 60, &said).unwrap_err();
    assert_eq!(refused, Unanswered::Protocol { found: PROTOCOL, known: PROTOCOL + 1 });
    assert!(refused.to_string().contains(&format!("{PROTOCOL}")));
    assert_eq!(ledger, before);
}

#[test]
fn one_holder_scouts_for_the_fleet_and_the_others_return_when_it_is_back() {
    let mut ledger = Ledger::new(T, 1);
    let terms = told(Refill::Step, false);
    let ask = |holder, seq| exchange(holder, seq, side(terms), Some(want([5, 0, 0, 0], [0; 4])));
    let Grant { permits: 1, scout: true, .. } = ledger.exchange(T, &ask(1, 1)).unwrap().grants[0] else {
        panic!("the first scouts")
    };
    let other = ledger.exchange(T + 1, &ask(2, 1)).unwrap().grants[0];
    assert_eq!((other.permits, other.scout), (0, false));
    assert!((1..200).contains(&other.come_back), "after about a round trip: {}", other.come_back);
    assert!(ledger.exchange(T + 3_100, &ask(2, 2)).unwrap().grants[0].scout, "the first was lost");
}

#[test]
fn a_throttle_voids_every_lease_and_a_scout_goes_first_after_it() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 200);
    let refused = Refusal { sent: 40, age: 5, stay_away: 5_000, blames_quota: false };
    let said = exchange(1, 1, LimitSide { refused: Some(refused), ..side(terms) }, None);
    let reply = ledger.exchange(T + 100, &said).unwrap();
    assert_eq!((reply.limits[0].generation, reply.limits[0].pause), (2, 5_000));
    // Another of the same burst.
    let late = Refusal { sent: 70, age: 5, stay_away: 5_500, blames_quota: false };
    let said = exchange(2, 1, LimitSide { refused: Some(late), ..side(terms) }, None);
    let reply = ledger.exchange(T + 130, &said).unwrap();
    assert_eq!((reply.limits[0].generation, reply.limits[0].pause), (2, 5_500), "no further generation");
    let ask = |seq| exchange(3, seq, side(terms), Some(want([5, 0, 0, 0], [0; 4])));
    assert_eq!(ledger.exchange(T + 5_000, &ask(1)).unwrap().grants[0].permits, 0);
    let grant = ledger.exchange(T + 5_640, &ask(2)).unwrap().grants[0];
    assert!(grant.scout && grant.permits == 1, "{grant:?}");
}

#[test]
fn a_rise_before_the_end_refutes_the_step_whoever_draws() {
    for proven in [false, true] {
        let terms = told(Refill::Step, proven);
        let mut ledger = open(terms, 10);
        // Another holder's attempt left after that was answered, and shows more left, long before the end.
        let seen = sight(30, 5, 14, 29_400);
        let said = exchange(1, 1, LimitSide { seen, ..side(terms) }, None);
        let rule = ledger.exchange(T + 600, &said).unwrap().limits[0].terms;
        assert_eq!((rule.rule, rule.proven), (Refill::Log, true));
    }
}

#[test]
fn an_end_that_moves_with_each_answer_refutes_the_step() {
    let terms = told(Refill::Step, false);
    let mut ledger = open(terms, 200);
    for step in 1..=20_u64 {
        let seen = sight(30, 5, 200 - u32::try_from(step).unwrap(), 30_000);
        let said = exchange(1, step, LimitSide { seen, ..side(terms) }, None);
        ledger.exchange(T + 50 + 200 * step, &said).unwrap();
    }
    let said = exchange(1, 21, side(terms), None);
    assert_eq!(ledger.exchange(T + 5_000, &said).unwrap().limits[0].terms.rule, Refill::Log);
}

#[test]
fn a_certificate_of_an_epoch_that_is_over_opens_nothing_and_what_it_was_about_stays_spent() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 200);
    let stale =
        Sight { latest_sent: 30, left: vec![(5, 290)], ends: Some((-30_000, -29_000)), scout_in: None };
    let before = available(&ledger, T + 100);
    let ended = vec![Ended { age: 5, all: 3, unseen: 0 }];
    let said = exchange(1, 1, LimitSide { seen: Some(stale), ended, ..side(terms) }, None);
    ledger.exchange(T + 100, &said).unwrap();
    assert_eq!(available(&ledger, T + 100), before - 3);
}

#[test]
fn declared_quotas_shrink_on_throttles_and_recover_in_clean_windows() {
    let terms = declared();
    let mut ledger = Ledger::new(T, 1);
    let refused = Refusal { sent: 40, age: 5, stay_away: 1_000, blames_quota: true };
    let said = exchange(1, 1, LimitSide { refused: Some(refused), ..side(terms) }, None);
    assert_eq!(ledger.exchange(T + 100, &said).unwrap().limits[0].share, 850);
    let quiet = |seq| exchange(1, seq, side(terms), None);
    assert_eq!(ledger.exchange(T + 60_000, &quiet(2)).unwrap().limits[0].share, 850);
    assert_eq!(ledger.exchange(T + 60_100, &quiet(3)).unwrap().limits[0].share, 875);
    assert_eq!(ledger.exchange(T + 160_000, &quiet(4)).unwrap().limits[0].share, 901);
}

#[test]
fn the_smaller_of_two_declared_quotas_counts_while_somebody_declares_it() {
    let terms = |quota| Terms { kind: Kind::Rate { quota, window: 60_000, told: false }, ..declared() };
    let mut ledger = Ledger::new(T, 1);
    let mut say = |now: u64, holder, seq, quota| {
        let kind = ledger.exchange(now, &exchange(holder, seq, side(terms(quota)), None)).unwrap().limits[0]
            .terms
            .kind;
        let Kind::Rate { quota, .. } = kind else { panic!("{kind:?}") };
        quota
    };
    assert_eq!(say(T, 1, 1, 500), 500);
    assert_eq!(say(T + 1, 2, 1, 300), 300);
    assert_eq!(say(T + 2, 1, 2, 500), 300);
    assert_eq!(say(T + 20_000, 1, 3, 500), 500, "the other has not been heard for long");
}

#[test]
fn a_cap_is_shared_by_what_is_out() {
    let terms =
        Terms { kind: Kind::Cap { cap: 4 }, rule: Refill::Log, proven: true, pinned: false, assumed: false };
    let mut ledger = Ledger::new(T, 1);
    let ask = |holder, seq, in_flight, all| {
        let ended = vec![Ended { age: 0, all, unseen: 0 }];
        let side = LimitSide { in_flight, ended, scouted: (all > 0).then_some(0), ..side(terms) };
        exchange(holder, seq, side, Some(want([9, 0, 0, 0], [0; 4])))
    };
    assert!(ledger.exchange(T, &ask(1, 1, 0, 0)).unwrap().grants[0].scout);
    let mut granted = 0;
    for seq in 2..20 {
        granted += ledger.exchange(T + 1_000 + 10 * seq, &ask(1, seq, granted, 1)).unwrap().grants[0].permits;
    }
    assert_eq!(granted, 4);
    assert_eq!(ledger.exchange(T + 1_300, &ask(2, 1, 0, 0)).unwrap().grants[0].permits, 0);
    assert_eq!(ledger.exchange(T + 1_310, &ask(1, 20, 2, 3)).unwrap().grants[0].permits, 1);
}

#[test]
fn an_ask_takes_from_all_of_its_limits_or_from_none() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 200);
    let other = LimitKey([8; 8]);
    let closed = Refusal { sent: 40, age: 5, stay_away: 5_000, blames_quota: false };
    let second = LimitSide { key: other, refused: Some(closed), ..side(terms) };
    let mut said =
        exchange(1, 1, side(terms), Some(Want { limits: vec![0, 1], ..want([5, 0, 0, 0], [0; 4]) }));
    said.limits.push(second);
    let before = available(&ledger, T + 100);
    let reply = ledger.exchange(T + 100, &said).unwrap();
    assert_eq!(reply.grants[0].permits, 0);
    assert!(reply.grants[0].come_back >= 5_000);
    assert_eq!(available(&ledger, T + 100), before);
}

#[test]
fn reserves_are_left_and_urgent_classes_see_neither_strangers_nor_each_other() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 10);
    let ask = |holder, seq, now, leave, fair| {
        let want =
            Want { leave: [0, 0, leave, leave], fair: [false, false, fair, fair], ..want(now, [0; 4]) };
        exchange(holder, seq, side(terms), Some(want))
    };
    let bulk = ledger.exchange(T + 100, &ask(1, 1, [0, 0, 5, 0], 10, false)).unwrap().grants[0];
    assert_eq!(bulk.permits, 0, "ten are left to others");
    let urgent = ledger.exchange(T + 101, &ask(1, 2, [1, 0, 0, 0], 10, true)).unwrap().grants[0];
    assert_eq!(urgent.permits, 1);
}

#[test]
fn a_door_is_answered_with_what_the_fleet_knows() {
    let mut ledger = open(told(Refill::Step, true), 10);
    let tell = |holder, change| Exchange {
        limits: Vec::new(),
        doors: vec![DoorSide { key: KEY, sent: 10, change }],
        ..exchange(holder, 1, side(declared()), None)
    };
    let opened = DoorChange::Opened { stay_away: 3_000, openings: 2 };
    ledger.exchange(T + 100, &tell(1, opened)).unwrap();
    let reply = ledger.exchange(T + 1_100, &tell(2, DoorChange::MayIProbe)).unwrap();
    assert_eq!(
        (reply.doors[0].refuses_for, reply.doors[0].openings, reply.doors[0].may_probe),
        (2_000, 2, false)
    );
}

#[test]
fn a_state_that_nobody_uses_expires_and_not_before() {
    let mut ledger = open(told(Refill::Step, true), 10);
    let expires = ledger.expires();
    assert!(expires > T + 2 * 60_000, "own attempts of two windows may still count");
    assert!(expires <= T + 4 * 60_000);
    let said = exchange(1, 1, side(declared()), Some(want([1, 0, 0, 0], [0; 4])));
    assert!(ledger.exchange(expires, &said).unwrap().grants[0].scout, "nothing is known any more");
}

#[test]
fn time_that_runs_back_by_less_than_a_second_has_not_passed() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 200);
    let said = exchange(1, 1, side(terms), Some(want([5, 0, 0, 0], [0; 4])));
    let mut other = ledger.clone();
    let back = ledger.exchange(T - 900, &said).unwrap();
    assert_eq!(back, other.exchange(T + 50, &said).unwrap());
}

#[test]
fn a_holder_of_an_earlier_life_tells_all_before_it_gets_anything() {
    let mut ledger = Ledger::new(T, 5);
    let terms = told(Refill::Log, true);
    let mut said = exchange(1, 7, LimitSide { told: 40, ..side(terms) }, Some(want([3, 0, 0, 0], [0; 4])));
    said.incarnation = Some(4);
    let reply = ledger.exchange(T, &said).unwrap();
    assert!(reply.limits[0].recall && reply.incarnation == 5 && reply.knew_seq == 0);
    assert_eq!((reply.grants[0].permits, reply.grants[0].come_back), (0, 0));
    let recall =
        Recall { log: vec![(50_000, 30), (2_000, 10)], share: 1_000, holders: 1, generation: 6, dry: 0 };
    let side = LimitSide { told: 40, recall: Some(recall), ..side(terms) };
    let said = Exchange { incarnation: Some(5), ..exchange(1, 8, side, Some(want([3, 0, 0, 0], [0; 4]))) };
    let reply = ledger.exchange(T + 5, &said).unwrap();
    assert!(!reply.limits[0].recall);
    assert_eq!(reply.limits[0].generation, 6);
    assert!(reply.grants[0].scout, "the server's word is needed");
}

/// A report of another holder, as it may come at any time.
fn report() -> impl Strategy<Value = LimitSide> {
    let sights = prop::collection::vec((0..3_000_u64, 0..300_u32), 1..4);
    (0..3_000_u64, sights, 0..20_u32, 0..20_u32).prop_map(|(sent, left, unspent, in_flight)| LimitSide {
        unspent,
        in_flight,
        seen: Some(Sight {
            latest_sent: sent.max(left.iter().map(|&(age, _)| age).max().unwrap()),
            left,
            ends: Some((29_000, 30_000)),
            scout_in: None,
        }),
        ..side(told(Refill::Step, true))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merging_commutes(reports in prop::collection::vec(report(), 2..6), order in any::<u64>()) {
        let mut rng = fastrand::Rng::with_seed(order);
        let mut shuffled: Vec<usize> = (0..reports.len()).collect();
        rng.shuffle(&mut shuffled);
        let run = |places: &[usize]| {
            let mut ledger = open(told(Refill::Step, true), 299);
            for &place in places {
                let said = exchange(place as u64, 1, reports[place].clone(), None);
                ledger.exchange(T + 3_100, &said).unwrap();
            }
            ledger.view(T + 3_100)
        };
        let straight: Vec<usize> = (0..reports.len()).collect();
        prop_assert_eq!(run(&straight), run(&shuffled));
    }

    #[test]
    fn i4_a_stale_sight_never_raises_what_is_available(reports in prop::collection::vec(report(), 1..6), which in any::<usize>(), late in 0..20_000_u64) {
        let mut ledger = open(told(Refill::Step, true), 299);
        for (place, side) in reports.iter().enumerate() {
            ledger.exchange(T + 3_100, &exchange(place as u64, 1, side.clone(), None)).unwrap();
        }
        let now = T + 3_100 + late;
        let old = &reports[which % reports.len()];
        let mut seen = old.seen.clone().unwrap();
        seen.latest_sent += late;
        seen.left.iter_mut().for_each(|(age, _)| *age += late);
        seen.ends = seen.ends.map(|(lo, up)| (lo - late.cast_signed(), up - late.cast_signed()));
        let mut without = ledger.clone();
        let quiet = side(told(Refill::Step, true));
        without.exchange(now, &exchange(50, 1, quiet.clone(), None)).unwrap();
        ledger.exchange(now, &exchange(50, 1, LimitSide { seen: Some(seen), ..quiet }, None)).unwrap();
        prop_assert!(available(&ledger, now) <= available(&without, now));
    }

    #[test]
    fn i7_an_urgent_ask_is_granted_in_one_exchange(reports in prop::collection::vec(report(), 0..6), class in 0..2_usize, fair in any::<bool>(), bulk in 0..500_u32) {
        let mut ledger = open(told(Refill::Step, true), 299);
        for (place, side) in reports.iter().enumerate() {
            // All of them ask for bulk as well.
            let ask = Want { fair: [fair; 4], ..want([0, 0, bulk, 0], [0; 4]) };
            ledger.exchange(T + 3_100, &exchange(place as u64, 1, side.clone(), Some(ask))).unwrap();
        }
        let there = available(&ledger, T + 3_100);
        let mut now = [0; 4];
        now[class] = 1;
        let ask = want(now, [0; 4]);
        let grant = ledger.exchange(T + 3_100, &exchange(60, 1, side(told(Refill::Step, true)), Some(ask))).unwrap().grants[0];
        prop_assert_eq!(grant.permits == 1 && grant.from == 0, there >= 1, "{} there, {:?}", there, grant);
    }

    #[test]
    fn i5_without_a_store_the_fleet_keeps_to_its_shares(quota in 1..100_000_u32, share in 50..=1_000_u32, last in 1..200_u32, most in 1..200_u32, processes in 1..400_u64) {
        let mut fallback = Fallback::new(HolderId(1), most, None);
        fallback.heard(last);
        fallback.away(Mono::ZERO, Away::Until(None));
        let part = fallback.part(quota, share, 1);
        // The quota, scaled by how many there are for each that was known.
        let fair = u64::from(quota) * u64::from(share) * processes;
        prop_assert!(u64::from(part.permits) * processes * 1_000 * u64::from(last) <= fair * u64::from(part.windows));
        // Nine tenths of it, where that is one for each.
        let one_each = Part { permits: 1, windows: 1 };
        let nine_tenths = u64::from(part.permits) * 10_000 * u64::from(last) <= u64::from(quota) * u64::from(share) * 9 * u64::from(part.windows);
        prop_assert!(nine_tenths || part == one_each);
    }

    #[test]
    fn dated_permits_never_leave_before_their_entries_came_back(groups in prop::collection::vec((1..59_000_u64, 1..40_u32), 1..20), wanted in 1..200_u32, left in 0..300_u32) {
        let terms = declared();
        let mut ledger = Ledger::new(T, 1);
        let ask = |now| want([now, 0, 0, 0], [0; 4]);
        ledger.exchange(T, &exchange(1, 1, side(terms), Some(ask(1)))).unwrap();
        // What others sent in the last window, up to the quota.
        let mut groups = groups;
        groups.sort_unstable_by(|one, other| other.cmp(one));
        let mut all = 0;
        let mut ended = Vec::new();
        for &(age, count) in groups.iter().take(LimitSide::MAX_ENDED) {
            let count = count.min(300 - left.min(300) - all as u32);
            all += u64::from(count);
            ended.push(Ended { age, all, unseen: 0 });
        }
        let now = T + 59_500;
        let reported = LimitSide { ended: ended.clone(), ..side(terms) };
        let Reply { grants, .. } = ledger.exchange(now, &exchange(1, 2, reported, Some(ask(wanted)))).unwrap();
        let grant = grants[0];
        for place in 0..u64::from(grant.permits) {
            let leaves = now + grant.from + grant.gap * place;
            let mut before = 0;
            let mut held = 0;
            for group in &ended {
                if now - group.age + 60_000 > leaves {
                    held += group.all - before;
                }
                before = group.all;
            }
            prop_assert!(held + place < 300, "{place} of {grant:?} leaves beside {held}");
        }
    }
}

const MINUTE: LimitKey = LimitKey([8; 8]);

/// A told limit and a declared one, which one call passes together.
fn both(holder: u64, seq: u64, told: LimitSide, minute: LimitSide, now: u32) -> Exchange {
    let want = Want { limits: vec![0, 1], ..want([now, 0, 0, 0], [0; 4]) };
    let minute = LimitSide { key: MINUTE, ..minute };
    Exchange { limits: vec![told, minute], ..exchange(holder, seq, told_side(), Some(want)) }
}

fn told_side() -> LimitSide {
    side(told(Refill::Step, true))
}

#[test]
fn who_waits_for_one_limit_is_not_sent_away_for_the_window_of_another() {
    let mut ledger = Ledger::new(T, 1);
    let scout = ledger.exchange(T, &both(99, 1, told_side(), side(declared()), 1)).unwrap();
    assert!(scout.grants[0].scout);
    let ended = |unseen| vec![Ended { age: 1, all: 1, unseen }];
    // Nothing is left of the told limit for 3 s more.
    let back = LimitSide { ended: ended(0), seen: sight(20, 1, 0, 3_000), ..told_side() };
    let minute = LimitSide { ended: ended(1), ..side(declared()) };
    ledger.exchange(T + 50, &both(99, 2, back, minute, 0)).unwrap();
    // The declared one is shut by a throttle, and there is room for its scout.
    let refused = Some(Refusal { sent: 10, age: 5, stay_away: 100, blames_quota: false });
    ledger.exchange(T + 100, &both(1, 1, told_side(), LimitSide { refused, ..side(declared()) }, 0)).unwrap();
    let grant = ledger.exchange(T + 500, &both(2, 1, told_side(), side(declared()), 1)).unwrap().grants[0];
    assert_eq!((grant.permits, grant.scout), (0, false));
    assert!((1..=4_000).contains(&grant.come_back), "when the told one is refilled: {grant:?}");
    let grant = ledger.exchange(T + 4_600, &both(2, 2, told_side(), side(declared()), 1)).unwrap().grants[0];
    assert!(grant.scout, "{grant:?}");
}

#[test]
fn who_only_expects_calls_is_not_sent_away_before_one_comes() {
    for terms in [told(Refill::Step, true), declared()] {
        // A scout is needed, and nobody waits.
        let mut ledger = Ledger::new(T, 1);
        let soon = |limits| Some(Want { limits, ..want([0; 4], [1, 0, 0, 0]) });
        let grant = ledger.exchange(T, &exchange(1, 1, side(terms), soon(vec![0]))).unwrap().grants[0];
        assert_eq!((grant.permits, grant.come_back), (0, 0));
        // Permits in hand cover all that is expected: it lacks nothing of any limit.
        let mut ledger = open(terms, 200);
        let has = LimitSide { unspent: 1, ..side(terms) };
        let grant = ledger.exchange(T + 60, &exchange(1, 1, has, soon(Vec::new()))).unwrap().grants[0];
        assert_eq!((grant.permits, grant.come_back), (0, 0));
    }
}

#[test]
fn who_was_given_up_and_returns_owes_nothing() {
    let mut ledger = open(declared(), 0);
    let ask = exchange(1, 1, side(declared()), Some(want([1, 0, 0, 0], [0; 4])));
    assert_eq!(ledger.exchange(T + 60, &ask).unwrap().grants[0].permits, 1);
    let ended = vec![Ended { age: 1, all: 1, unseen: 1 }];
    ledger.exchange(T + 100, &exchange(1, 2, LimitSide { ended, ..side(declared()) }, None)).unwrap();
    // Others go on, and it is given up.
    let used = LimitSide { told: 1, told_unseen: 1, ..side(declared()) };
    ledger.exchange(T + 15_000, &exchange(99, 3, used.clone(), None)).unwrap();
    assert_eq!(ledger.view(T + 15_000)[0].holders, 1);
    let reply = ledger.exchange(T + 16_000, &exchange(1, 3, used, None)).unwrap();
    assert!(!reply.limits[0].recall, "what it told is known");
    assert_eq!(available(&ledger, T + 16_000), 298, "and the quota is not only probed");
}

#[test]
fn a_lost_state_is_whole_again_when_all_have_told_even_if_some_fell_silent_since() {
    let mut ledger = Ledger::new(T, 2);
    let tells = |holder, seq, recall: bool| {
        let recall =
            recall.then(|| Recall { log: vec![(2_000, 5)], share: 1_000, holders: 2, generation: 1, dry: 0 });
        let side = LimitSide { told: 5, told_unseen: 5, recall, ..side(declared()) };
        Exchange { incarnation: Some(1), ..exchange(holder, seq, side, None) }
    };
    for (now, holder, seq, recall) in
        [(0, 1, 1, false), (1, 1, 2, true), (20_000, 2, 1, false), (20_001, 2, 2, true)]
    {
        ledger.exchange(T + now, &tells(holder, seq, recall)).unwrap();
    }
    let view = &ledger.view(T + 20_001)[0];
    assert_eq!((view.holders, view.available), (1, 290), "two of two have told");
}

#[test]
fn who_declares_in_vain_and_whose_number_holds_are_both_told_of_the_other() {
    let declares = |quota, pinned| {
        let kind = Kind::Rate { quota, window: 5_000, told: false };
        Terms { kind, rule: Refill::Log, proven: false, pinned, assumed: false }
    };
    let mut ledger = Ledger::new(T, 1);
    let mut say = |now, holder, seq, terms| {
        let reply = ledger.exchange(now, &exchange(holder, seq, side(terms), None)).unwrap().limits[0];
        (reply.terms.kind, reply.other, ledger.view(now)[0].differs)
    };
    let (most, least, pin) = (declares(250, false), declares(25, false), declares(300, true));
    assert_eq!(say(T, 1, 1, most), (most.kind, None, None));
    let both = |holds: Terms, vain: Terms| (holds.kind, Some(vain.kind), Some((holds.kind, vain.kind)));
    assert_eq!(say(T + 10, 2, 1, least), both(least, most), "the smaller holds, and its process hears of it");
    assert_eq!(say(T + 20, 1, 2, most), both(least, most));
    assert_eq!(say(T + 30, 3, 1, pin), both(pin, least), "an operator's number goes before");
    assert_eq!(say(T + 40, 2, 2, least), both(pin, least));
    assert_eq!(say(T + 30 + 60_000, 3, 2, pin).1, Some(least.kind));
    assert_eq!(say(T + 40 + 60_000, 3, 3, pin), (pin.kind, None, None), "said a minute ago");
}

#[test]
fn what_headers_told_is_no_difference_between_configurations() {
    let mut ledger = open(told(Refill::Step, true), 200);
    let less = Terms { kind: Kind::Rate { quota: 25, window: 60_000, told: false }, ..declared() };
    let reply = ledger.exchange(T + 60, &exchange(2, 1, side(less), None)).unwrap();
    assert_eq!(reply.limits[0].other, None);
}

#[test]
fn a_limit_whose_life_of_words_is_over_follows_who_speaks_and_names_no_difference() {
    let mut ledger = Ledger::new(T, 1);
    let less = Terms { kind: Kind::Rate { quota: 25, window: 60_000, told: false }, ..declared() };
    ledger.exchange(T, &exchange(1, 1, side(less), None)).unwrap();
    let reply = ledger.exchange(T + 10_000, &exchange(2, 1, side(declared()), None)).unwrap();
    assert_eq!((reply.limits[0].terms.kind, reply.limits[0].other), (declared().kind, None));
}

#[test]
fn whose_calls_a_limit_counts_is_shown() {
    let ledger = open(declared(), 200);
    assert_eq!(ledger.view(T + 60)[0].partition, "credential=client 7f");
}

#[test]
fn who_says_its_last_word_is_none_of_the_fleet_any_more() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 200);
    let ask = |holder, seq| exchange(holder, seq, side(terms), Some(want([2, 0, 0, 0], [0; 4])));
    ledger.exchange(T + 60, &ask(1, 1)).unwrap();
    assert_eq!(ledger.exchange(T + 70, &ask(2, 1)).unwrap().holders, 3);
    let before = available(&ledger, T + 80);
    let last = Exchange { leaves: true, ..exchange(2, 2, side(terms), None) };
    ledger.exchange(T + 80, &last).unwrap();
    assert_eq!(available(&ledger, T + 80), before + 2, "its permits are the others'");
    assert_eq!(ledger.view(T + 81)[0].holders, 2, "and its part");
    let nothing = LimitSide { unspent: 2, ..side(terms) };
    assert_eq!(ledger.exchange(T + 90, &exchange(1, 2, nothing, None)).unwrap().holders, 2);
    ledger.exchange(T + 95, &last).expect("said again it is answered");
    assert_eq!((available(&ledger, T + 96), ledger.view(T + 96)[0].holders), (before + 2, 2));
}

#[test]
fn a_last_word_said_again_is_answered_alike_and_what_it_overtook_is_not_heard() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 200);
    let ask = |holder, seq| exchange(holder, seq, side(terms), Some(want([20, 0, 0, 0], [0; 4])));
    ledger.exchange(T + 60, &ask(1, 1)).unwrap();
    let life = ledger.exchange(T + 70, &ask(2, 1)).unwrap().incarnation;
    let knows = |said| Exchange { incarnation: Some(life), answered: 1, heard: Some(5), ..said };
    let last = knows(Exchange { leaves: true, ..exchange(2, 3, side(terms), None) });
    let first = ledger.exchange(T + 80, &last).unwrap();
    assert_eq!(ledger.exchange(T + 1_085, &last).unwrap(), first);
    assert_eq!(ledger.exchange(T + 1_086, &knows(ask(2, 2))), Err(Unanswered::Stale));
    // One that lives on says what it knows.
    let spent = LimitSide { unspent: 20, ..side(terms) };
    let reply =
        ledger.exchange(T + 1_090, &exchange(1, 2, spent, Some(want([20, 0, 0, 0], [0; 4])))).unwrap();
    assert_eq!(reply.holders, 2, "it has gone");
    assert_eq!(reply.grants[0].permits, 20, "and the state is no older one");
    let back = Exchange { answered: 3, ..knows(ask(2, 4)) };
    let reply = ledger.exchange(T + 1_100, &back).unwrap();
    assert_eq!((reply.holders, reply.limits[0].recall), (3, false), "who speaks again is there");
    assert!(reply.grants[0].permits > 1, "{:?}", reply.grants[0]);
}

#[test]
fn a_leaver_with_attempts_in_flight_is_given_up_in_time_and_not_before() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 200);
    ledger.exchange(T + 60, &exchange(2, 1, side(terms), Some(want([2, 0, 0, 0], [0; 4])))).unwrap();
    let last = LimitSide { in_flight: 2, ..side(terms) };
    let last = Exchange { leaves: true, ..exchange(2, 2, last, None) };
    ledger.exchange(T + 80, &last).unwrap();
    assert_eq!(ledger.view(T + 81)[0].out, 2, "the server may count them");
    let reply = ledger.exchange(T + 20_000, &exchange(1, 1, side(terms), None)).unwrap();
    assert_eq!((reply.holders, ledger.view(T + 20_000)[0].out), (2, 0));
}

#[test]
fn the_scout_of_a_leaver_passes_on_at_once() {
    for in_flight in [0, 1] {
        let terms = told(Refill::Step, false);
        let mut ledger = Ledger::new(T, 1);
        let ask = |holder, seq| exchange(holder, seq, side(terms), Some(want([1, 0, 0, 0], [0; 4])));
        assert!(ledger.exchange(T, &ask(1, 1)).unwrap().grants[0].scout);
        assert!(!ledger.exchange(T + 5, &ask(2, 1)).unwrap().grants[0].scout);
        // Others that it had out end after the scout was granted, or never.
        let ended = vec![Ended { age: 2, all: 1, unseen: 1 }];
        let last = LimitSide { in_flight, ended, ..side(terms) };
        ledger.exchange(T + 10, &Exchange { leaves: true, ..exchange(1, 2, last, None) }).unwrap();
        let grant = &ledger.exchange(T + 20, &ask(2, 2)).unwrap().grants[0];
        assert!(grant.scout, "{grant:?} with {in_flight} in flight");
    }
}

#[test]
fn of_more_holders_than_permits_each_comes_back_when_its_turn_is_likely() {
    let mut terms = told(Refill::Step, true);
    terms.kind = Kind::Rate { quota: 20, window: 60_000, told: true };
    let mut ledger = open(terms, 0);
    let mut backs = Vec::new();
    for round in 1..=2 {
        backs.clear();
        for holder in 101..=200 {
            let said = exchange(holder, round, side(terms), Some(want([1, 0, 0, 0], [0; 4])));
            let grant = ledger.exchange(T + 25_000 + holder, &said).unwrap().grants[0];
            assert_eq!(grant.permits, 0);
            backs.push(grant.come_back);
        }
    }
    let early = backs.iter().filter(|&&back| back < 6_000).count();
    assert!((10..=35).contains(&early), "{early} of 100 come for the 20 of the next epoch");
    assert!(backs.iter().all(|&back| back < 11_000), "the others look again, ten each second: {backs:?}");
    let at_once = |&back: &Ms| backs.iter().filter(|&&other| other == back).count();
    let herd = backs.iter().map(at_once).max().unwrap();
    assert!(herd <= 8, "{herd} of 100 come at one instant");
}

#[test]
fn after_a_throttle_a_fleet_asks_for_one_permit_each_20_ms() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 200);
    let refused = Some(Refusal { sent: 20, age: 1, stay_away: 1_000, blames_quota: false });
    let throttled = LimitSide { refused, ..side(terms) };
    ledger.exchange(T + 100, &exchange(1, 1, throttled, None)).unwrap();
    let ask = |holder, seq| exchange(holder, seq, side(terms), Some(want([5, 0, 0, 0], [0; 4])));
    assert!(ledger.exchange(T + 1_200, &ask(1, 2)).unwrap().grants[0].scout);
    let ended = vec![Ended { age: 1, all: 1, unseen: 0 }];
    let back = LimitSide { generation: 2, ended, seen: sight(20, 1, 250, 28_000), ..side(terms) };
    ledger.exchange(T + 1_250, &exchange(1, 3, back, None)).unwrap();
    for holder in 2..=11 {
        let grant = ledger.exchange(T + 1_260 + holder, &ask(holder, 1)).unwrap().grants[0];
        assert_eq!(grant.permits, 1, "one at a time");
        let known = 20 * (holder - 1);
        assert!((known..=20 * 12 + 2 * 12).contains(&grant.come_back), "{grant:?} of {holder}");
    }
}

#[test]
fn who_waits_for_the_end_of_a_long_window_notices_within_a_lease_that_the_quota_rose() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 0);
    for holder in 1..=8 {
        let said = exchange(holder, 1, side(terms), Some(want([3, 0, 0, 0], [0; 4])));
        let grant = ledger.exchange(T + 100 + holder, &said).unwrap().grants[0];
        assert!(grant.permits == 0 && grant.come_back < 5_200, "{grant:?}, and the window ends in 30 s");
    }
}

#[test]
fn who_fell_silent_with_permits_out_is_none_of_the_fleet_but_lost_nothing_where_it_was_only_stopped() {
    let terms = told(Refill::Step, true);
    let mut ledger = open(terms, 200);
    let ask = |holder, seq| exchange(holder, seq, side(terms), Some(want([2, 0, 0, 0], [0; 4])));
    ledger.exchange(T + 60, &ask(2, 1)).unwrap();
    let life = ledger.exchange(T + 70, &exchange(3, 1, side(terms), None)).unwrap().incarnation;
    let word = |ledger: &mut Ledger, at, seq| {
        let said = Exchange { limits: Vec::new(), ..exchange(1, seq, side(terms), None) };
        ledger.exchange(at, &said).unwrap().holders
    };
    assert_eq!(word(&mut ledger, T + 5_000, 1), 4, "the lease and its grace last still");
    let reply = ledger.exchange(T + 10_100, &exchange(1, 2, side(terms), None)).unwrap();
    assert_eq!(reply.holders, 3, "one died with permits out; another had none and may be idle");
    assert_eq!(word(&mut ledger, T + 10_200, 3), 3);
    let back = Exchange { incarnation: Some(life), answered: 1, heard: Some(11_000), ..ask(2, 2) };
    let reply = ledger.exchange(T + 11_060, &back).unwrap();
    assert_eq!((reply.knew_seq, reply.holders), (1, 4), "it was only stopped");
    assert!(available(&ledger, T + 11_061) > 0, "and nothing was lost");
    assert_eq!(
        word(&mut ledger, T + 91_000, 4),
        2,
        "who is silent for longer than it takes to say a word is forgotten"
    );
}

/// A holder told the state before this one of five attempts, and that one knew that nothing would be there for `dry`.
fn who_knew(ledger: &mut Ledger, now: u64, seq: u64, dry: u64, recalls: bool) -> Grant {
    let mut side = side(told(Refill::Log, true));
    (side.told, side.generation) = (5, 1);
    side.recall =
        recalls.then(|| Recall { log: vec![(2_000, 5)], share: 1_000, holders: 3, generation: 1, dry });
    let life = if seq == 1 { 99 } else { 1 };
    let ask = want([1, 0, 0, 0], [0; 4]);
    let said = Exchange { incarnation: Some(life), ..exchange(1, seq, side, Some(ask)) };
    ledger.exchange(now, &said).unwrap().grants[0]
}

#[test]
fn what_a_lost_state_knew_to_be_used_up_is_not_scouted_before_it_comes_back() {
    for dry in [0, 4_000, 30_000] {
        let mut ledger = Ledger::new(T, 1);
        assert_eq!(
            who_knew(&mut ledger, T + 10, 1, dry, false).permits,
            0,
            "it is asked what it knows first"
        );
        let (mut now, mut seq) = (T + 20, 2);
        let mut grant = who_knew(&mut ledger, now, seq, dry, true);
        while grant.permits == 0 && seq < 50 {
            assert!((1..=6_000).contains(&grant.come_back), "it looks again within about a lease: {grant:?}");
            (now, seq) = (now + grant.come_back, seq + 1);
            grant = who_knew(&mut ledger, now, seq, dry, false);
        }
        assert!(grant.scout, "{grant:?}");
        assert!((dry..dry + 1_000).contains(&(now - T - 20)), "after {} ms, dry for {dry} ms", now - T - 20);
    }
}

#[test]
fn of_a_declared_quota_one_scout_finds_out_what_a_lost_state_has_left_whoever_comes_later() {
    let mut ledger = Ledger::new(T, 1);
    let mut say = |now: u64, holder, seq, side: LimitSide| {
        let said = exchange(holder, seq, side, Some(want([1, 0, 0, 0], [0; 4])));
        let life = (holder != 9).then_some(99);
        ledger.exchange(T + now, &Exchange { incarnation: life, ..said }).unwrap().grants[0]
    };
    let owing = || LimitSide { told: 5, told_unseen: 5, ..side(declared()) };
    let recall = || Recall { log: vec![(2_000, 5)], share: 1_000, holders: 3, generation: 1, dry: 0 };
    let recalling = || LimitSide { recall: Some(recall()), ..owing() };
    let back = |told| LimitSide {
        told,
        told_unseen: told,
        ended: vec![Ended { age: 1, all: told + 1, unseen: told + 1 }],
        scouted: Some(20),
        ..side(declared())
    };
    assert!(say(0, 9, 1, side(declared())).scout, "who has just started knows of no loss");
    assert!(!say(50, 9, 2, back(0)).scout);
    say(1_500, 1, 1, owing());
    assert!(say(1_505, 1, 2, recalling()).scout, "the first who tells of it makes another one necessary");
    say(1_555, 1, 3, back(5));
    say(6_000, 2, 1, owing());
    let late = say(6_005, 2, 2, recalling());
    assert_eq!((late.permits, late.scout), (1, false), "of the tenth that is there: {late:?}");
}

#[test]
fn an_answer_that_tells_of_more_ends_what_a_lost_state_knew() {
    let mut ledger = Ledger::new(T, 1);
    who_knew(&mut ledger, T + 10, 1, 30_000, false);
    assert_eq!(who_knew(&mut ledger, T + 20, 2, 30_000, true).permits, 0);
    // One that was on its way while the state was lost and left after it began.
    let mut other = side(told(Refill::Log, true));
    other.ended = vec![Ended { age: 10, all: 1, unseen: 0 }];
    other.seen = Some(Sight { latest_sent: 200, left: vec![(10, 40)], ends: None, scout_in: None });
    ledger.exchange(T + 3_000, &exchange(2, 1, other, None)).unwrap();
    assert!(who_knew(&mut ledger, T + 3_010, 3, 30_000, false).permits > 0);
}

/// For how long a holder at most gets nothing after a process that declares `wrong` has lived for 4 s beside four that declare 600
/// per minute and send little.
fn silent_after_a_wrong_process(wrong: Kind) -> Ms {
    const WRONG: usize = 4;
    let rate = |kind| Terms { kind, ..declared() };
    let right = rate(Kind::Rate { quota: 600, window: 60_000, told: false });
    let mut ledger = Ledger::new(T, 1);
    // Of each: when it speaks next, the number of its exchange, what it has told, what it was granted, and when it last got something.
    let mut holders: [(u64, u64, u64, u64, u64); 5] = [(T, 0, 0, 0, T); 5];
    holders[WRONG].0 = T + 20_000;
    let (mut longest, mut scouted) = (0, [None; 5]);
    while let Some(who) = (0..5).filter(|&who| holders[who].0 < T + 120_000).min_by_key(|&who| holders[who].0)
    {
        let (now, seq, told, all, got) = holders[who];
        let leaves = who == WRONG && now >= T + 24_000;
        let ended: Vec<Ended> =
            (all > told).then_some(Ended { age: 1, all, unseen: all }).into_iter().collect();
        let of = side(if who == WRONG { rate(wrong) } else { right });
        let of = LimitSide { told, told_unseen: told, ended, scouted: scouted[who].take(), ..of };
        let ask = (!leaves).then(|| want([1, 0, 0, 0], [0; 4]));
        let said = Exchange { leaves, ..exchange(who as u64 + 1, seq + 1, of, ask) };
        let reply = ledger.exchange(now, &said).unwrap();
        let (permits, come_back) =
            reply.grants.first().map_or((0, 0), |grant| (grant.permits, grant.come_back));
        scouted[who] = reply.grants.iter().any(|grant| grant.scout).then_some(600);
        let until = if permits > 0 { now } else { got };
        if who != WRONG && now >= T + 24_000 {
            longest = longest.max(now - got);
        }
        let next = match (who, leaves) {
            (WRONG, true) => u64::MAX,
            (WRONG, false) => now + 500,
            _ => now + if permits > 0 { 600 } else { come_back.max(20) },
        };
        holders[who] = (next, seq + 1, all, all + u64::from(permits), until);
    }
    let silent = holders[..WRONG].iter().map(|&(.., got)| T + 120_000 - got).max().unwrap();
    longest.max(silent)
}

#[test]
fn a_wrong_process_that_goes_stops_the_others_no_longer_than_its_word_holds() {
    for (quota, window) in [(1, 60_000), (2, 60_000), (10, 60_000), (1, 86_400_000), (100, 86_400_000)] {
        let silent = silent_after_a_wrong_process(Kind::Rate { quota, window, told: false });
        // 4 s that it lives, 10 s that its word holds, 5 s until all have looked again.
        assert!(silent < 20_000, "{quota} per {window} ms: nothing for {silent} ms");
    }
}
