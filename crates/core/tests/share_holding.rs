//! What a process remembers of a shared limit.

use std::time::Duration;

use tidegate_core::share::{Grant, Holding, Kind, LimitKey, LimitReply, Refill, Terms};
use tidegate_core::time::Mono;

const TERMS: Terms = Terms {
    kind: Kind::Rate { quota: 100, window: 5_000, told: false },
    rule: Refill::Log,
    proven: true,
    pinned: false,
    assumed: false,
};

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

fn reply(recall: bool) -> LimitReply {
    LimitReply {
        generation: 1,
        epoch: 1,
        lease: 600,
        pause: 0,
        recall,
        scarce: false,
        terms: TERMS,
        other: None,
        available: 0,
        dry: 0,
        ends: None,
        share: 1_000,
        foreign: 0,
    }
}

/// Attempts that end one after the other, a part of them while an exchange tells of those before.
#[test]
fn attempts_that_end_while_others_are_told_of_are_remembered_too() {
    let mut holding = Holding::new(LimitKey([7; 8]), "users");
    let mut ended = 0;
    for round in 0..10 {
        let now = 1_000 + 20 * round;
        for step in 0..4 {
            let permit = holding.took(at(now));
            holding.ended(at(now + step), permit, false);
            ended += 1;
        }
        let _ = holding.say(at(now + 5), TERMS, None);
        // Within the group that is told of just now.
        let permit = holding.took(at(now));
        holding.ended(at(now + 6), permit, false);
        ended += 1;
        holding.hear(at(now + 10), at(now + 5), 2, &reply(round == 9));
    }
    // The last one told of what ended since the one before: that is known to whoever forgot the rest.
    let known = 5;
    let said = holding.say(at(1_300), TERMS, None);
    let recalled: u32 = said.recall.iter().flat_map(|recall| &recall.log).map(|&(_, count)| count).sum();
    let untold = said.ended.last().map_or(0, |group| group.all - said.told);
    assert_eq!(u64::from(recalled) + known + untold, ended);
}

/// Permits of a generation, as the store gives them.
fn granted(holding: &mut Holding, now: u64, permits: u32, scout: bool, generation: u64) {
    let _ = holding.say(at(now), TERMS, None);
    holding.hear(at(now), at(now), 2, &LimitReply { generation, ..reply(false) });
    holding.granted(at(now), &Grant { permits, from: 0, gap: 0, scout, come_back: 0 });
}

#[test]
fn only_the_scout_itself_is_told_to_be_back() {
    let mut holding = Holding::new(LimitKey([7; 8]), "users");
    granted(&mut holding, 0, 1, false, 1);
    let slow = holding.took(at(10));
    granted(&mut holding, 20, 1, true, 2);
    let scout = holding.took(at(30));
    holding.ended(at(100), slow, false);
    assert!(holding.has_scout_out());
    assert_eq!(holding.say(at(100), TERMS, None).scouted, None);
    holding.ended(at(140), scout, false);
    assert!(!holding.has_scout_out());
    assert_eq!(holding.say(at(150), TERMS, None).scouted, Some(120), "since it left");
    assert_eq!(holding.say(at(160), TERMS, None).scouted, Some(130), "until that is heard");
    holding.hear(at(161), at(160), 2, &LimitReply { generation: 2, ..reply(false) });
    assert_eq!(holding.say(at(170), TERMS, None).scouted, None);
}

#[test]
fn a_scout_that_is_late_is_not_taken_for_the_one_after_it() {
    let mut holding = Holding::new(LimitKey([7; 8]), "users");
    granted(&mut holding, 0, 1, true, 1);
    let late = holding.took(at(10));
    granted(&mut holding, 3_500, 1, true, 1);
    let scout = holding.took(at(3_510));
    holding.ended(at(3_520), late, false);
    assert!(holding.has_scout_out());
    holding.gave_back(scout);
    assert!(!holding.has_scout_out());
}

#[test]
fn a_permit_does_not_survive_the_throttle_that_voided_it() {
    let mut holding = Holding::new(LimitKey([7; 8]), "users");
    granted(&mut holding, 0, 3, false, 1);
    let (early, place) = (holding.took(at(10)), holding.took(at(10)));
    holding.gave_back(early);
    assert_eq!(holding.unspent(at(20)), 2, "while it is worth something");
    let early = holding.took(at(20));
    granted(&mut holding, 30, 0, false, 2);
    holding.gave_back(early);
    holding.ended(at(40), place, false);
    holding.takes_place(at(40), place);
    assert_eq!((holding.unspent(at(40)), holding.in_flight()), (0, 0));
    granted(&mut holding, 50, 1, false, 2);
    let new = holding.took(at(60));
    holding.ended(at(70), new, false);
    holding.takes_place(at(70), new);
    assert_eq!(holding.unspent(at(70)), 1);
}
