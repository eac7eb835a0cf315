//! Whose word counts in the ledger: who knows less, who counts anew, whose scout is back, which number is the smaller.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod share_words;

use tidegate_core::share::{
    Ended, Exchange, Kind, Ledger, LimitReply, LimitSide, Ms, Refill, Refusal, Reply, Sight, Terms, Want,
};

use share_words::side;

const T: u64 = 1_700_000_000_000;

const UNKNOWN: Terms =
    Terms { kind: Kind::Unknown, rule: Refill::Step, proven: false, pinned: false, assumed: false };

fn rate(quota: u32, window: Ms, told: bool) -> Terms {
    let rule = if told { Refill::Step } else { Refill::Log };
    Terms { kind: Kind::Rate { quota, window, told }, rule, proven: told, pinned: false, assumed: false }
}

fn exchange(holder: u64, seq: u64, side: LimitSide, waiting: u32) -> Exchange {
    let ask =
        Want { limits: vec![0], now: [waiting, 0, 0, 0], soon: [0; 4], leave: [0; 4], fair: [false; 4] };
    share_words::exchange(holder, seq, side, Some(ask))
}

fn say(ledger: &mut Ledger, now: u64, said: &Exchange) -> (LimitReply, Reply) {
    let reply = ledger.exchange(now, said).unwrap();
    (reply.limits[0], reply)
}

/// A ledger in which one holder's scout found nothing left of 300; the epoch ends 30 s later.
fn used_up() -> Ledger {
    let told = rate(300, 60_000, true);
    let mut ledger = Ledger::new(T, 1);
    let (_, scout) = say(&mut ledger, T, &exchange(99, 1, side(told), 1));
    assert!(scout.grants[0].scout);
    let seen = Sight { latest_sent: 20, left: vec![(1, 0)], ends: Some((29_995, 30_000)), scout_in: None };
    let back = LimitSide { ended: vec![Ended { age: 1, all: 1, unseen: 0 }], seen: Some(seen), ..side(told) };
    ledger.exchange(T + 50, &exchange(99, 2, back, 0)).unwrap();
    ledger
}

#[test]
fn a_word_that_weighs_less_waits_for_two_windows_and_nothing_at_all_for_ever() {
    let (told, declared) = (rate(300, 60_000, true), rate(400, 60_000, false));
    for (lesser, quiet, holds) in [
        (UNKNOWN, 11_000, told),
        (UNKNOWN, 125_000, told),
        (declared, 11_000, told),
        (declared, 119_000, told),
        (declared, 121_000, declared),
    ] {
        let (limit, reply) = say(&mut used_up(), T + 50 + quiet, &exchange(5, 1, side(lesser), 200));
        assert_eq!(limit.terms.kind, holds.kind, "{lesser:?} after {quiet} ms of quiet");
        let granted = reply.grants[0].permits;
        assert!(granted <= 1 || holds != told, "{lesser:?} after {quiet} ms of quiet: {granted}");
    }
}

#[test]
fn a_holder_that_counts_from_zero_again_is_counted() {
    let declared = rate(300, 60_000, false);
    let mut ledger = Ledger::new(T, 1);
    say(&mut ledger, T, &exchange(1, 1, side(declared), 1));
    let stay_away = Refusal { sent: 20, age: 1, stay_away: 600_000, blames_quota: false };
    let ended = vec![Ended { age: 1, all: 5_000, unseen: 5_000 }];
    let back = LimitSide { ended, refused: Some(stay_away), ..side(declared) };
    ledger.exchange(T + 50, &exchange(1, 2, back, 0)).unwrap();
    // Its gate was forgotten in the pause: it has told nothing, and what ends from now on is all that it knows.
    let (start, mut told, mut all) = (T + 601_000, 0, 0);
    for step in 0..180 {
        let ended: Vec<Ended> =
            (all > told).then_some(Ended { age: 1, all, unseen: all }).into_iter().collect();
        let scouted = (all > told).then_some(100);
        let anew = LimitSide { told, told_unseen: told, ended, scouted, ..side(declared) };
        let (_, reply) = say(&mut ledger, start + 300 * step, &exchange(1, 3 + step, anew, 100));
        told = all;
        all += u64::from(reply.grants[0].permits);
    }
    assert!((250..=300).contains(&all), "{all} of 300 in less than a window");
}

#[test]
fn an_attempt_of_before_a_throttle_is_not_taken_for_the_scout_after_it() {
    let declared = rate(300, 60_000, false);
    let mut ledger = Ledger::new(T, 1);
    say(&mut ledger, T, &exchange(1, 1, side(declared), 1));
    // Its scout is back, and a slow call of it is out when another is throttled.
    let ended = vec![Ended { age: 1, all: 1, unseen: 1 }];
    let back = LimitSide { ended, in_flight: 1, scouted: Some(40), ..side(declared) };
    ledger.exchange(T + 50, &exchange(1, 2, back, 0)).unwrap();
    let stay_away = Refusal { sent: 20, age: 1, stay_away: 1_000, blames_quota: false };
    ledger
        .exchange(T + 2_000, &exchange(2, 1, LimitSide { refused: Some(stay_away), ..side(declared) }, 0))
        .unwrap();
    let slow =
        |all: u64| LimitSide { generation: 2, told: all, told_unseen: all, in_flight: 1, ..side(declared) };
    let (_, scout) = say(&mut ledger, T + 3_100, &exchange(1, 3, slow(1), 1));
    assert!(scout.grants[0].scout);
    // The slow one ends, the scout is out.
    let ended = vec![Ended { age: 1, all: 2, unseen: 2 }];
    ledger.exchange(T + 3_200, &exchange(1, 4, LimitSide { ended, ..slow(1) }, 0)).unwrap();
    for holder in 3..8 {
        let (_, reply) = say(&mut ledger, T + 3_300, &exchange(holder, 1, side(declared), 5));
        assert_eq!(reply.grants[0].permits, 0, "holder {holder}");
    }
    let ended = vec![Ended { age: 1, all: 3, unseen: 3 }];
    let back = LimitSide { ended, in_flight: 0, scouted: Some(290), ..slow(2) };
    ledger.exchange(T + 3_400, &exchange(1, 5, back, 0)).unwrap();
    let (_, reply) = say(&mut ledger, T + 5_500, &exchange(3, 2, side(declared), 5));
    assert!(reply.grants[0].permits > 1, "{:?}", reply.grants[0]);
}

#[test]
fn the_smaller_of_two_declared_quotas_is_the_slower_one_whatever_its_window() {
    const MINUTE: Ms = 60_000;
    let year = 365 * 24 * 60 * MINUTE;
    for (less, more) in [
        ((500, MINUTE), (10, 1_000)),
        ((500, MINUTE), (9, 1_000)),
        ((10, 1_000), (600, MINUTE)),
        ((10, 1_000), (20, 1_500)),
        ((u32::MAX - 1, year), (u32::MAX, year)),
        ((u32::MAX - 1, year - 1), (u32::MAX, year - 1)),
        ((1_000_003, 2_000_003), (1_000_001, 1_999_999)),
    ] {
        let (less, more) = (rate(less.0, less.1, false), rate(more.0, more.1, false));
        for (first, second) in [(less, more), (more, less)] {
            let mut ledger = Ledger::new(T, 1);
            say(&mut ledger, T, &exchange(1, 1, side(first), 0));
            let (limit, _) = say(&mut ledger, T + 1, &exchange(2, 1, side(second), 0));
            assert_eq!(limit.terms.kind, less.kind, "{:?} and then {:?}", first.kind, second.kind);
        }
    }
}

#[test]
fn the_largest_quota_and_the_longest_window_are_counted() {
    let most = Terms { rule: Refill::Log, ..rate(u32::MAX, u64::from(u32::MAX) * 1_000, true) };
    let mut ledger = Ledger::new(T, 1);
    say(&mut ledger, T, &exchange(1, 1, side(most), 1));
    let day = 86_400_000;
    for (step, left) in [(1, u32::MAX - 1), (2, 5_000_000), (3, 0)] {
        // Strangers draw what is missing.
        let now = T + step * 40 * day;
        let seen = Sight { latest_sent: 20, left: vec![(1, left)], ends: None, scout_in: None };
        let said = LimitSide { seen: Some(seen), scouted: Some(20), ..side(most) };
        ledger.exchange(now, &exchange(1, 1 + step, said, 0)).unwrap();
        let (limit, _) = say(&mut ledger, now + 1, &exchange(2, step, side(most), u32::MAX));
        assert!(limit.available <= i64::from(left), "{limit:?}");
        if step == 3 {
            // After so long a silence holders have to scout first; what is counted shows to people.
            let available = ledger.view(now + 1)[0].available;
            assert!(limit.foreign > 0 && available < 0, "{available} {limit:?}");
        }
    }
}

/// What a told word that follows others is held to come back by: the rule, and whether it is proven.
fn rule_after(words: &[Terms]) -> (Refill, bool) {
    let mut ledger = Ledger::new(T, 1);
    let mut heard = None;
    for (step, &terms) in words.iter().enumerate() {
        let step = step as u64;
        let (limit, _) = say(&mut ledger, T + 10 * step, &exchange(1 + step % 2, 1 + step, side(terms), 1));
        heard = Some((limit.terms.rule, limit.terms.proven));
    }
    heard.unwrap()
}

#[test]
fn a_told_word_brings_its_own_rule_and_lesser_ones_do_not_touch_it() {
    let declared = rate(300, 60_000, false);
    let assumed = Terms { assumed: true, ..declared };
    let proven = rate(300, 60_000, true);
    let step = Terms { proven: false, ..proven };
    let log = Terms { rule: Refill::Log, ..proven };
    for lesser in [declared, assumed, UNKNOWN] {
        for (told, rule) in
            [(step, (Refill::Step, false)), (proven, (Refill::Step, true)), (log, (Refill::Log, true))]
        {
            assert_eq!(rule_after(&[lesser, told]), rule, "{told:?} after {lesser:?}");
            assert_eq!(rule_after(&[told, lesser]), rule, "{told:?} before {lesser:?}");
            assert_eq!(rule_after(&[lesser, told, lesser]), rule, "{told:?} between {lesser:?}");
        }
    }
    let unproven = Terms { rule: Refill::Log, proven: false, ..step };
    assert_eq!(
        rule_after(&[step, unproven]),
        (Refill::Log, false),
        "of two that weigh the same the later holds"
    );
}
