//! What the ledger makes of a store that goes wrong: one with older state, one with another clock, one that is empty.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use tidegate_core::share::{
    At, Ended, Exchange, HolderId, Kind, Ledger, LimitKey, LimitSide, PROTOCOL, Recall, Refill, Reply, Terms,
    Want,
};

const T: At = 1_700_000_000_000;

/// A process that uses each permit as soon as it is valid, is answered at once, and tells all when it is asked.
struct Holder {
    id: u64,
    seq: u64,
    answered: u64,
    quota: u32,
    all: u64,
    told: u64,
    /// When its permits are valid, by its own clock.
    permits: Vec<At>,
    /// When its own clock says that it sent, and how many.
    log: Vec<(At, u32)>,
    life: Option<u64>,
    heard: Option<At>,
    generation: u64,
    recall: bool,
    holders: u32,
}

impl Holder {
    fn new(id: u64, quota: u32) -> Self {
        Self {
            id: id * 7_919,
            seq: 0,
            answered: 0,
            quota,
            all: 0,
            told: 0,
            permits: Vec::new(),
            log: Vec::new(),
            life: None,
            heard: None,
            generation: 0,
            recall: false,
            holders: 0,
        }
    }

    /// Has used what was valid and wants some more. `now` is its own clock, `store` the store's.
    fn say(&mut self, ledger: &mut Ledger, now: At, store: At, want: u32) -> Reply {
        self.seq += 1;
        let log =
            self.log.iter().filter(|&&(at, _)| now - at <= 60_000).map(|&(at, count)| (now - at, count));
        let log: Vec<(u64, u32)> = log.collect();
        let valid = |&at: &At| at <= now;
        let used = small(self.permits.iter().filter(|at| valid(at)).count());
        self.permits.retain(|at| !valid(at));
        if used > 0 {
            self.log.push((now, used));
        }
        self.all += u64::from(used);
        let ended =
            if used > 0 { vec![Ended { age: 0, all: self.all, unseen: self.all }] } else { Vec::new() };
        let kind = Kind::Rate { quota: self.quota, window: 60_000, told: false };
        let side = LimitSide {
            key: LimitKey([7; 8]),
            name: "users".to_owned(),
            partition: String::new(),
            terms: Terms { kind, rule: Refill::Log, proven: false, pinned: false, assumed: false },
            generation: self.generation,
            unspent: small(self.permits.len()),
            in_flight: 0,
            told: self.told,
            told_unseen: self.told,
            ended,
            seen: None,
            refused: None,
            // Whatever it had has left and ended, the scout as well.
            scouted: (used > 0).then_some(0),
            recall: self.recall.then_some(Recall {
                log,
                share: 1_000,
                holders: self.holders,
                generation: self.generation,
                dry: 0,
            }),
        };
        let said = Exchange {
            protocol: PROTOCOL,
            holder: HolderId(self.id),
            seq: self.seq,
            incarnation: self.life,
            salt: self.id ^ now,
            slack: 2,
            heard: self.heard.map(|heard| now - heard),
            answered: self.answered,
            limits: vec![side],
            asks: vec![Want {
                limits: vec![0],
                now: [want, 0, 0, 0],
                soon: [0; 4],
                leave: [0; 4],
                fair: [false; 4],
            }],
            doors: Vec::new(),
            leaves: false,
        };
        let reply = ledger.exchange(store, &said).unwrap();
        (self.told, self.life, self.heard) = (self.all, Some(reply.incarnation), Some(now));
        self.answered = self.seq;
        if self.generation != reply.limits[0].generation {
            self.permits.clear();
        }
        (self.generation, self.recall) = (reply.limits[0].generation, reply.limits[0].recall);
        if !self.recall {
            self.holders = reply.holders;
        }
        let grant = reply.grants[0];
        let dates = (0..u64::from(grant.permits)).map(|place| now + grant.from + grant.gap * place);
        self.permits.extend(dates);
        reply
    }

    fn sent_since(&self, at: At) -> u32 {
        self.log.iter().filter(|&&(sent, _)| sent > at).map(|&(_, count)| count).sum::<u32>()
            + small(self.permits.len())
    }
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap()
}

/// Most that was granted within any window, by the processes' own clock.
fn most_within_a_window(holders: &[Holder]) -> u32 {
    let mut sent: Vec<(At, u32)> = holders.iter().flat_map(|holder| holder.log.iter().copied()).collect();
    sent.sort_unstable();
    let within = |&(end, _): &(At, u32)| {
        sent.iter().filter(|&&(at, _)| at <= end && at + 60_000 > end).map(|&(_, count)| count).sum()
    };
    sent.iter().map(within).max().unwrap_or(0)
}

/// Holders that use a declared quota evenly until T.
fn in_use(count: u64, quota: u32, age: u64) -> (Ledger, Ledger, Vec<Holder>) {
    let begin = T - 200_000;
    let mut ledger = Ledger::new(begin, 1);
    let mut holders: Vec<Holder> = (1..=count).map(|id| Holder::new(id, quota)).collect();
    let mut old = None;
    let mut turn = 0;
    // In 600ths of a call: the quota in 600 turns.
    let mut wanted = 0;
    let mut now = begin;
    while now < T {
        now += 100;
        if now >= T - age && old.is_none() {
            old = Some(ledger.clone());
        }
        wanted += quota;
        let holder = &mut holders[turn % usize::try_from(count).unwrap()];
        turn += 1;
        let reply = holder.say(&mut ledger, now, now, wanted / 600);
        wanted -= 600 * reply.grants[0].permits;
    }
    (ledger, old.unwrap(), holders)
}

#[test]
fn older_state_is_noticed_and_grants_no_more_than_a_probe() {
    for (count, quota) in [(8, 300), (32, 300), (8, 3_000)] {
        for age in [1_000, 5_000, 30_000, 55_000] {
            let (_, mut old, mut holders) = in_use(count, quota, age);
            for round in 0..20 {
                for (place, holder) in (0..).zip(&mut holders) {
                    let now = T + 100 + 50 * round + place;
                    holder.say(&mut old, now, now, 500);
                }
            }
            let used: u32 = holders.iter().map(|holder| holder.sent_since(T + 1_100 - 60_000)).sum();
            assert!(used <= quota + quota / 10, "{used} of {quota} with {count} holders, state {age} ms old");
        }
    }
}

#[test]
fn after_older_state_the_quota_is_soon_in_full_use_again() {
    for age in [500, 5_000, 30_000] {
        let (_, mut old, mut holders) = in_use(8, 300, age);
        let before: u32 = holders.iter().map(|holder| holder.sent_since(0)).sum();
        let mut now = T;
        while now < T + 180_000 {
            now += 100;
            for holder in &mut holders {
                holder.say(&mut old, now, now, 20);
            }
        }
        let used: u32 = holders.iter().map(|holder| holder.sent_since(0)).sum::<u32>() - before;
        assert!(used >= 3 * 300 * 90 / 100, "{used} of 900 after state that is {age} ms old");
        let most = most_within_a_window(&holders);
        assert!(most <= 330, "{most} of 300 within a window, state {age} ms old");
    }
}

#[test]
fn a_holder_whose_beginning_was_lost_recalls_it() {
    // The second begins after the state was kept that comes back.
    let mut ledger = Ledger::new(T, 1);
    let mut first = Holder::new(1, 300);
    let mut second = Holder::new(2, 300);
    let mut now = T;
    let mut old = ledger.clone();
    while now < T + 20_000 {
        now += 200;
        first.say(&mut ledger, now, now, 1);
        if now == T + 10_000 {
            old = ledger.clone();
        }
        if now > T + 10_000 {
            second.say(&mut ledger, now, now, 10);
        }
    }
    for _ in 0..50 {
        now += 20;
        first.say(&mut old, now, now, 300);
        second.say(&mut old, now, now, 300);
    }
    let used = first.sent_since(T) + second.sent_since(T);
    assert!(used <= 330, "{used} of 300");
}

/// A holder whose store's clock is set by `set`, which is told how many tenths of a second have passed.
fn under_a_clock(set: impl Fn(u64) -> i64) -> Holder {
    let mut ledger = Ledger::new(T, 1);
    let mut holder = Holder::new(1, 300);
    for tenth in 0..4_000 {
        let now = T + 100 * tenth;
        holder.say(&mut ledger, now, now.checked_add_signed(set(tenth)).unwrap(), 300);
    }
    holder
}

/// By how much a clock is set after so many tenths of a second.
type Set = fn(u64) -> i64;

#[test]
fn a_store_whose_clock_is_set_goes_on_and_grants_nothing_twice() {
    let cases: [(&str, Set); 6] = [
        ("30 s back", |tenth| if tenth >= 100 { -30_000 } else { 0 }),
        ("an hour back", |tenth| if tenth >= 100 { -3_600_000 } else { 0 }),
        ("an hour ahead for one exchange", |tenth| if tenth == 100 { 3_600_000 } else { 0 }),
        ("30 s ahead", |tenth| if tenth >= 100 { 30_000 } else { 0 }),
        ("70 s ahead", |tenth| if tenth >= 100 { 70_000 } else { 0 }),
        ("an hour ahead", |tenth| if tenth >= 100 { 3_600_000 } else { 0 }),
    ];
    for (name, set) in cases {
        let holder = under_a_clock(set);
        let most = most_within_a_window(std::slice::from_ref(&holder));
        assert!(most <= 300, "{most} of 300 within a window, clock {name}");
        let after = holder.sent_since(T + 10_000);
        assert!(after >= 1_500, "{after} in 390 s after the clock was {name}");
    }
}

#[test]
fn a_clock_that_differs_by_less_than_a_second_changes_nothing() {
    let holder = under_a_clock(|tenth| if tenth >= 100 { -900 } else { 0 });
    assert!(holder.sent_since(T + 10_000) >= 1_700);
    assert!(most_within_a_window(&[holder]) <= 300);
}

#[test]
fn a_process_that_slept_is_not_taken_for_a_wrong_clock() {
    let mut ledger = Ledger::new(T, 1);
    let (mut awake, mut sleeper) = (Holder::new(1, 300), Holder::new(2, 300));
    let mut life = None;
    for tenth in 0..2_000 {
        let now = T + 100 * tenth;
        awake.say(&mut ledger, now, now, 1);
        // Its clock stands still for two minutes: it says that it was answered a moment ago.
        let asleep = (300..1_500).contains(&tenth);
        if !asleep {
            let own = if tenth < 300 { now } else { now - 120_000 };
            let reply = sleeper.say(&mut ledger, own, now, 1);
            assert_eq!(*life.get_or_insert(reply.incarnation), reply.incarnation, "after {tenth} tenths");
        }
    }
}

#[test]
fn a_newcomer_at_an_empty_store_gets_no_more_than_a_tenth_before_others_can_tell() {
    let mut ledger = Ledger::new(T, 9);
    let mut newcomer = Holder::new(5, 300);
    let mut now = T;
    while now < T + 990 {
        newcomer.say(&mut ledger, now, now, 300);
        now += 30;
    }
    assert!((20..=30).contains(&newcomer.sent_since(0)), "{} of 300", newcomer.sent_since(0));
    // Those who have used the quota up come back: nothing is left.
    for id in 6..10 {
        let mut other = Holder::new(id, 300);
        (other.life, other.seq, other.all, other.told) = (Some(1), 50, 68, 68);
        other.log = vec![(T - 5_000, 68)];
        other.holders = 4;
        other.say(&mut ledger, now, now, 0);
        other.say(&mut ledger, now + 1, now + 1, 0);
        now += 2;
    }
    while now < T + 5_000 {
        newcomer.say(&mut ledger, now, now, 300);
        now += 30;
    }
    assert!(newcomer.sent_since(0) <= 30, "{} beside the 272 of others", newcomer.sent_since(0));
}

#[test]
fn who_is_alone_at_an_empty_store_has_all_of_it_after_a_second() {
    let mut ledger = Ledger::new(T, 9);
    let mut alone = Holder::new(5, 300);
    for step in 0..100 {
        alone.say(&mut ledger, T + 30 * step, T + 30 * step, 300);
    }
    assert!(alone.sent_since(0) >= 290, "{} of 300", alone.sent_since(0));
}

/// What a holder does in one exchange without wanting or telling anything.
fn word(holder: &mut Holder, ledger: &mut Ledger, now: At) {
    holder.say(ledger, now, now, 0);
}

#[test]
fn older_state_shows_to_who_has_nothing_new_to_tell() {
    for age in [600, 2_000, 9_000] {
        let (mut ledger, _, mut holders) = in_use(8, 300, 1_000);
        // All that ended is told.
        (0..2).for_each(|_| holders.iter_mut().for_each(|holder| word(holder, &mut ledger, T)));
        let old = ledger.clone();
        // Six are busy meanwhile, and the first says no more than that it is there; the last says nothing.
        let mut now = T;
        while now < T + age {
            now += 50;
            for holder in &mut holders[1..7] {
                holder.say(&mut ledger, now, now, 9);
            }
        }
        word(&mut holders[0], &mut ledger, now);
        let mut restored = old.clone();
        let (first, others) = holders.split_first_mut().unwrap();
        let before = first.sent_since(0);
        for step in 1..=15 {
            first.say(&mut restored, now + 50 * step, now + 50 * step, 300);
        }
        let got = first.sent_since(0) - before;
        assert!(got <= 30, "{got} before the others have spoken, state {age} ms old");
        for round in 0..40 {
            for holder in others.iter_mut() {
                holder.say(&mut restored, now + 1_000 + 50 * round, now + 1_000 + 50 * round, 300);
            }
        }
        let most = most_within_a_window(&holders);
        assert!(most <= 330, "{most} of 300 within a window, state {age} ms old");
    }
}

#[test]
fn permits_of_which_nobody_told_for_longer_than_a_lease_let_a_newcomer_have_little() {
    let mut ledger = Ledger::new(T, 1);
    let mut busy = Holder::new(1, 300);
    for step in 0..40 {
        busy.say(&mut ledger, T + 100 * step, T + 100 * step, 2);
    }
    // From here on its word is lost: 5 s and a second more is longer than it may be silent with permits.
    let mut newcomer = Holder::new(2, 300);
    let back = T + 3_900 + 6_100;
    let mut now = back;
    while now < back + 950 {
        newcomer.say(&mut ledger, now, now, 300);
        now += 30;
    }
    assert!(newcomer.sent_since(0) <= 30, "{}", newcomer.sent_since(0));
    while now < back + 20_000 {
        newcomer.say(&mut ledger, now, now, 300);
        now += 30;
    }
    assert!(newcomer.sent_since(0) >= 150, "{} when nobody else has come", newcomer.sent_since(0));
}

#[test]
fn a_clock_set_ahead_by_less_than_an_exchange_may_take_gives_back_early_by_as_much_once() {
    for ahead in [2_000, 5_000, 9_000] {
        let holder = under_a_clock(|tenth| if tenth >= 100 { ahead } else { 0 });
        let window = 60_000 - ahead.unsigned_abs();
        let within = |&(end, _): &(At, u32)| -> u32 {
            let held = holder.log.iter().filter(|&&(at, _)| at <= end && at + window > end);
            held.map(|&(_, count)| count).sum()
        };
        let most = holder.log.iter().map(within).max().unwrap();
        assert!(most <= 300, "{most} of 300 within {window} ms, clock {ahead} ms ahead");
        let later: Vec<_> = holder.log.iter().filter(|&&(at, _)| at > T + 130_000).copied().collect();
        let within = |&(end, _): &(At, u32)| -> u32 {
            later.iter().filter(|&&(at, _)| at <= end && at + 60_000 > end).map(|&(_, count)| count).sum()
        };
        assert!(later.iter().map(within).max().unwrap() <= 300, "a window later nothing of it is left");
    }
}
