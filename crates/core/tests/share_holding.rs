//! What a process remembers of a shared limit.

use std::time::Duration;

use tidegate_core::share::{Holding, Kind, LimitKey, LimitReply, Refill, Terms};
use tidegate_core::time::Mono;

const TERMS: Terms = Terms {
    kind: Kind::Rate { quota: 100, window: 5_000, told: false },
    rule: Refill::Log,
    proven: true,
    pinned: false,
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
        available: 0,
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
            holding.took(at(now));
            holding.ended(at(now + step), false);
            ended += 1;
        }
        let _ = holding.say(at(now + 5), TERMS, None);
        // Within the group that is told of just now.
        holding.took(at(now));
        holding.ended(at(now + 6), false);
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
