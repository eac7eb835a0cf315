//! Banks of several processes that meet in one ledger, in steps of a millisecond. The server counts nothing here: what is looked at
//! is how many calls leave, and when.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::breaker::BreakerConfig;
use tidegate_core::event::Event;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, Class, LimitSpec, Partition, TicketId, TokenSlot,
    WaiterId, Woken,
};
use tidegate_core::share::{Away, DoorChange, Exchange, HolderId, Ledger, OnStoreLoss, ShareConfig};
use tidegate_core::time::Mono;

/// How long an exchange takes, ms, and a call.
const TRIP: u64 = 1;
const CALL: u64 = 50;

/// What is set; what is heard may be more.
const MAX_INSTANCES: u32 = 16;

/// The store's clock shows something else than that of the processes.
const STORE: u64 = 1_700_000_000_000;

fn at(ms: u64) -> Mono {
    Mono::from_nanos(ms * 1_000_000)
}

struct Process {
    bank: Bank,
    credential: CredentialId,
    token: TokenSlot,
    flying: Vec<(u64, TicketId)>,
    waiting: BTreeMap<WaiterId, u64>,
    said: Option<(u64, Exchange)>,
    /// When it last spoke to the store.
    spoke: u64,
    sent: Vec<u64>,
    longest_wait: u64,
    events: Vec<Event>,
}

impl Process {
    fn new(id: u64, credential: CredentialId, limits: &[LimitSpec]) -> Self {
        let mut bank = Bank::new(BankConfig {
            limits: limits.to_vec(),
            seed: id,
            spread: Duration::ZERO,
            ..BankConfig::default()
        })
        .unwrap();
        bank.share(ShareConfig {
            holder: HolderId(id * 7919),
            on_store_loss: OnStoreLoss::Share,
            max_instances: MAX_INSTANCES,
            tokens_shared: true,
        });
        Self {
            bank,
            credential,
            token: TokenSlot(id),
            flying: Vec::new(),
            waiting: BTreeMap::new(),
            said: None,
            spoke: 0,
            sent: Vec::new(),
            longest_wait: 0,
            events: Vec::new(),
        }
    }

    fn ask(&mut self, now: u64, class: Class) {
        let family = Family::new("/api/v2/users");
        let credential = self.credential.clone();
        let ask = Ask { class, token: self.token, ..pace_parts::asking(&family, &credential) };
        match self.bank.ask(at(now), &ask) {
            Asked::Granted(ticket) => self.send(now, ticket),
            Asked::Queued(waiter) => {
                self.waiting.insert(waiter, now);
            }
            Asked::Refused(why) => panic!("{why:?}"),
        }
    }

    /// As many calls as a process makes that never runs out of them.
    fn press(&mut self, now: u64) {
        while self.waiting.len() < 20 && self.flying.len() < 50 {
            self.ask(now, Class::Bulk);
        }
    }

    fn send(&mut self, now: u64, ticket: TicketId) {
        self.bank.sent(at(now), ticket);
        self.flying.push((now + CALL, ticket));
        self.sent.push(now);
    }

    /// `ledger`: `None` while the store is away.
    fn step(&mut self, now: u64, ledger: Option<&mut Ledger>) {
        let done: Vec<TicketId> =
            self.flying.extract_if(.., |(until, _)| *until <= now).map(|(_, ticket)| ticket).collect();
        let observation = Observation::default();
        for ticket in done {
            self.bank.answered(
                at(now),
                ticket,
                &Answer { kind: AnswerKind::Accepted, observation: &observation },
            );
        }
        if let Some((_, said)) = self.said.take_if(|(until, _)| *until <= now) {
            let reply = ledger.map(|ledger| ledger.exchange(STORE + now, &said).unwrap());
            self.bank.end_exchange(at(now), &said, reply.as_ref().ok_or(Away::Until(None)));
        }
        self.wake(now);
        if self.said.is_none() && self.bank.exchange_due(at(now)).is_some_and(|due| due <= at(now)) {
            self.said = self.bank.begin_exchange(at(now)).map(|said| (now + TRIP, said));
            self.spoke = now;
        }
        self.events.extend(self.bank.drain_events());
    }

    fn wake(&mut self, now: u64) {
        let mut woken = Vec::new();
        self.bank.advance(at(now), &mut woken);
        for (waiter, how) in woken {
            let since = self.waiting.remove(&waiter).unwrap();
            self.longest_wait = self.longest_wait.max(now - since);
            match how {
                Woken::Granted(ticket) => self.send(now, ticket),
                Woken::Refused(why) => panic!("{why:?}"),
            }
        }
    }
}

fn sent(processes: &[Process]) -> usize {
    processes.iter().map(|process| process.sent.len()).sum()
}

/// The most that left within any window, by when its last call left.
fn most_in(processes: &[Process], window: u64) -> (usize, u64) {
    let mut times: Vec<u64> = processes.iter().flat_map(|process| process.sent.iter().copied()).collect();
    times.sort_unstable();
    let within = |(index, &last): (usize, &u64)| {
        (index + 1 - times[..=index].partition_point(|&time| time + window <= last), last)
    };
    times.iter().enumerate().map(within).max().unwrap_or_default()
}

/// What two processes send in the first minute that never run out of calls, of a limit of 300 per minute and `per`.
fn first_minute(one: CredentialId, other: CredentialId, tokens: [TokenSlot; 2], per: Partition) -> usize {
    let limits = [pace_parts::limit("rate", pace_parts::rate(300, Duration::from_mins(1)), &[per])];
    let mut ledger = Ledger::new(STORE, 1);
    let mut both = [Process::new(1, one, &limits), Process::new(2, other, &limits)];
    for (process, token) in both.iter_mut().zip(tokens) {
        process.token = token;
    }
    for now in 0..59_000 {
        for process in &mut both {
            process.press(now);
            process.step(now, Some(&mut ledger));
        }
    }
    sent(&both)
}

const OWN: [TokenSlot; 2] = [TokenSlot(1), TokenSlot(2)];

fn client(name: &str, client_id: &str) -> CredentialId {
    CredentialId::new(name).of_client(client_id)
}

#[test]
fn one_client_is_one_quota_whatever_two_processes_call_it() {
    let (bulk, gateway) = (client("default", "7f0c7c0e"), client("login-0a1b2c3d", "7f0c7c0e"));
    let sent = first_minute(bulk, gateway, OWN, Partition::Credential);
    assert!((290..=300).contains(&sent), "{sent}");
}

#[test]
fn two_clients_are_two_quotas_though_both_processes_call_theirs_the_same() {
    let sent = first_minute(
        client("default", "7f0c7c0e"),
        client("default", "0a8b6a0b"),
        OWN,
        Partition::Credential,
    );
    assert!((580..=600).contains(&sent), "{sent}");
}

#[test]
fn a_token_whose_client_nobody_knows_is_one_count_wherever_it_is_brought() {
    let (one, other) = (CredentialId::of_bearer("abc"), CredentialId::of_bearer("abd"));
    for per in [Partition::Credential, Partition::Token] {
        let same = first_minute(one.clone(), one.clone(), OWN, per);
        assert!((290..=300).contains(&same), "{same}");
        let two = first_minute(one.clone(), other.clone(), OWN, per);
        assert!((580..=600).contains(&two), "{two}");
    }
}

#[test]
fn of_limits_per_token_only_the_fleets_token_is_one_count() {
    let ids = || (client("default", "7f0c7c0e"), client("default", "7f0c7c0e"));
    let (one, other) = ids();
    let fleet = first_minute(one, other, [TokenSlot::FLEET; 2], Partition::Token);
    assert!((290..=300).contains(&fleet), "{fleet}");
    // A caller has logged in as the same client, and its token is another.
    let (one, other) = ids();
    let apart = first_minute(one, other, [TokenSlot::FLEET, TokenSlot(2)], Partition::Token);
    assert!((580..=600).contains(&apart), "{apart}");
}

/// Processes that share 30 permits per 10 s and all have calls waiting, until the store goes away: the most that left within a
/// window, and how many do without it.
fn without_the_store(count: u64) -> ((usize, u64), usize) {
    let limits = [pace_parts::limit("rate", pace_parts::rate(30, Duration::from_secs(10)), &[])];
    let mut ledger = Ledger::new(STORE, 1);
    let credential = client("default", "7f0c7c0e");
    let mut all: Vec<Process> = (1..=count).map(|id| Process::new(id, credential.clone(), &limits)).collect();
    for now in (0..150_000).step_by(10) {
        for process in &mut all {
            if process.waiting.len() < 2 {
                process.ask(now, Class::Bulk);
            }
            process.step(now, (now < 40_000).then_some(&mut ledger));
        }
    }
    let late = |process: &&Process| process.sent.last().is_some_and(|&last| last > 50_000);
    (most_in(&all, 10_000), all.iter().filter(late).count())
}

#[test]
fn without_the_store_a_fleet_keeps_to_the_quota_however_small_the_parts_are() {
    for (count, served) in [(20, 20), (70, 65)] {
        let (most, late) = without_the_store(count);
        assert!(most.0 <= 30, "{count} processes: {most:?}");
        assert!(late >= served, "{late} of {count} have had their turn");
    }
}

#[test]
fn who_was_told_to_come_back_later_counts_as_one_of_the_fleet() {
    let limits = [pace_parts::limit("rate", pace_parts::rate(30, Duration::from_mins(1)), &[])];
    let mut ledger = Ledger::new(STORE, 1);
    let credential = client("default", "7f0c7c0e");
    let mut all: Vec<Process> = (1..=8).map(|id| Process::new(id, credential.clone(), &limits)).collect();
    // The quota is used up in the first seconds, and comes back after a minute.
    for now in 0..70_000 {
        for process in &mut all {
            process.press(now);
            process.step(now, (now < 60_200).then_some(&mut ledger));
        }
    }
    let among = all.iter().flat_map(|process| &process.events).find_map(|event| match event {
        Event::StoreAway { among, .. } => Some(*among),
        _ => None,
    });
    assert_eq!(among, Some(8));
}

/// Eight processes that start `apart` ms after one another, each with an interactive call every `every` ms: the longest that one
/// waited.
fn longest_wait(limits: &[LimitSpec], apart: u64, every: u64) -> u64 {
    let mut ledger = Ledger::new(STORE, 1);
    let credential = client("default", "7f0c7c0e");
    let mut all: Vec<Process> = (1..=8).map(|id| Process::new(id, credential.clone(), limits)).collect();
    for now in 0..8_000 {
        for (process, began) in all.iter_mut().zip((0..).step_by(usize::try_from(apart).unwrap())) {
            if now >= began && (now - began) % every == 0 {
                process.ask(now, Class::Interactive);
            }
            process.step(now, Some(&mut ledger));
        }
    }
    all.iter().map(|process| process.longest_wait).max().unwrap()
}

#[test]
fn a_call_does_not_wait_for_what_the_process_was_told_when_none_waited() {
    let declared = [pace_parts::limit("rate", pace_parts::rate(3_000, Duration::from_mins(1)), &[])];
    for limits in [&declared[..], &[]] {
        for (apart, every) in [(1, 200), (7, 500), (40, 100)] {
            let wait = longest_wait(limits, apart, every);
            assert!(wait < 200, "{wait} ms with a call every {every} ms");
        }
    }
}

/// How often processes that call at these times are told that the store has lost its latest state. It has lost it once at `lost`,
/// if ever; else it forgets what is over, as a store does.
fn told_of_a_loss(calls: &[&[u64]], lost: Option<u64>) -> usize {
    let mut ledger = Ledger::new(STORE, 1);
    let credential = client("default", "7f0c7c0e");
    let mut all: Vec<Process> =
        (1..).take(calls.len()).map(|id| Process::new(id, credential.clone(), &[])).collect();
    for now in 0..400_000 {
        if ledger.expires() <= STORE + now || lost == Some(now) {
            ledger = Ledger::new(STORE + now, now);
        }
        for (process, times) in all.iter_mut().zip(calls) {
            if times.contains(&now) {
                process.ask(now, Class::Interactive);
            }
            process.step(now, Some(&mut ledger));
        }
    }
    let events = all.iter().flat_map(|process| &process.events);
    events.filter(|event| matches!(event, Event::StoreForgot)).count()
}

#[test]
fn a_store_that_forgot_an_idle_process_has_lost_nothing() {
    let steady: Vec<u64> = (0..800).map(|step| step * 500).collect();
    assert_eq!(told_of_a_loss(&[&[0, 100, 80_000], &steady], None), 0, "the others kept the state");
    assert_eq!(told_of_a_loss(&[&[0, 100, 390_000]], None), 0, "nobody did, and it was over");
    assert_eq!(told_of_a_loss(&[&[0, 100, 30_000], &[0, 100, 20_100, 20_200]], Some(20_000)), 2);
}

#[test]
fn processes_that_lost_one_store_do_not_ask_for_it_in_step() {
    let credential = client("default", "7f0c7c0e");
    let mut all: Vec<Process> = (1..=20).map(|id| Process::new(id, credential.clone(), &[])).collect();
    let mut spoke = Vec::new();
    for now in 0..10_000 {
        for process in &mut all {
            if now == 1 {
                process.ask(now, Class::Interactive);
            }
            process.step(now, None);
            spoke.extend((process.spoke == now && now > 5_000).then_some(now));
        }
    }
    // Twenty that ask every 375 to 500 ms for five seconds.
    assert!((200..=270).contains(&spoke.len()), "{}", spoke.len());
    let busiest = spoke.chunk_by(|one, other| one / 10 == other / 10).map(<[u64]>::len).max().unwrap();
    assert!(busiest <= 6, "{busiest} of 20 at once");
}

/// One bank, its ledger, and calls that all fail.
struct Failing {
    bank: Bank,
    ledger: Ledger,
    granted: Option<TicketId>,
}

impl Failing {
    fn calls(&mut self, now: u64) {
        let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("one"));
        match self.bank.ask(at(now), &pace_parts::asking(&family, &credential)) {
            Asked::Granted(ticket) => self.granted = Some(ticket),
            Asked::Queued(_) => {}
            Asked::Refused(refusal) => panic!("{refusal:?}"),
        }
    }

    /// A call that leaves as soon as it may and fails 10 ms later: when that is known.
    fn fails(&mut self, now: u64) -> u64 {
        self.calls(now);
        let mut then = now;
        while self.granted.is_none() {
            assert!(then < now + 500, "nothing lets it leave");
            self.advance(then);
            if self.bank.exchange_due(at(then)).is_some_and(|due| due <= at(then)) {
                let (said, _) = self.tells(then);
                self.hears(then, &said);
            }
            then += 1;
        }
        let ticket = self.granted.take().unwrap();
        self.bank.sent(at(then), ticket);
        let observation = Observation::default();
        let failure = Answer { kind: AnswerKind::HardFailure, observation: &observation };
        self.bank.answered(at(then + 10), ticket, &failure);
        self.advance(then + 11);
        then + 11
    }

    fn hears(&mut self, now: u64, said: &Exchange) {
        let reply = self.ledger.exchange(STORE + now, said).unwrap();
        self.bank.end_exchange(at(now), said, Ok(&reply));
    }

    fn advance(&mut self, now: u64) {
        let mut woken = Vec::new();
        self.bank.advance(at(now), &mut woken);
        for (_, outcome) in woken {
            if let Woken::Granted(ticket) = outcome {
                self.granted = Some(ticket);
            }
        }
    }

    /// What the next exchange tells of the breaker.
    fn tells(&mut self, now: u64) -> (Exchange, Option<DoorChange>) {
        self.advance(now);
        assert!(
            self.bank.exchange_due(at(now)).is_some_and(|due| due <= at(now)),
            "there is something to tell"
        );
        let said = self.bank.begin_exchange(at(now)).unwrap();
        let change = said.doors.first().map(|door| door.change);
        (said, change)
    }
}

#[test]
fn a_breaker_that_opens_again_while_its_opening_is_told_is_told_again() {
    let cool_down = Duration::from_millis(100);
    let breaker = BreakerConfig { threshold: 1, cool_down, longest_cool_down: cool_down };
    let mut bank =
        Bank::new(BankConfig { breaker, spread: Duration::ZERO, ..BankConfig::default() }).unwrap();
    bank.share(ShareConfig {
        holder: HolderId(7919),
        on_store_loss: OnStoreLoss::Share,
        max_instances: MAX_INSTANCES,
        tokens_shared: false,
    });
    let mut world = Failing { bank, ledger: Ledger::new(STORE, 1), granted: None };
    let opened = |change| match change {
        Some(DoorChange::Opened { openings, .. }) => openings,
        other => panic!("{other:?}"),
    };
    let now = world.fails(0);
    let (said, change) = world.tells(now);
    assert_eq!(opened(change), 1);
    world.hears(now + 1, &said);
    // The store lets this process probe, for some seconds, and gives a permit more for a call that waits behind the probe.
    world.calls(now + 200);
    let now = world.fails(now + 200);
    let (slow, change) = world.tells(now);
    assert_eq!(opened(change), 2);
    let now = world.fails(now + 200);
    world.hears(now, &slow);
    let (_, change) = world.tells(now + 1);
    assert_eq!(opened(change), 3);
}
