//! What a window of the calendar keeps for a class, in a fleet whose processes meet in one ledger.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::calendar::read_windows;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, Class, Partition, TicketId, WaiterId, Woken,
};
use tidegate_core::profile::reader::read;
use tidegate_core::share::{HolderId, Ledger, OnStoreLoss, ShareConfig};
use tidegate_core::time::{Mono, Wall};

/// The store's time at the beginning, milliseconds.
const T: u64 = 1_700_000_000_000;

/// Monday, 23 November 2026, 05:58 in Chicago: the window opens two minutes later.
const BEFORE: Wall = Wall::from_unix_millis(1_795_435_080_000);
const OPENS: u64 = 120;
const CLOSES: u64 = OPENS + 300;

/// The quota of the fleet per minute, half of which the window keeps for `sync`.
const QUOTA: u64 = 300;

/// How long a call takes, ms.
const CALL: u64 = 100;

fn at(ms: u64) -> Mono {
    Mono::from_nanos(ms * 1_000_000)
}

struct Process {
    bank: Bank,
    flying: Vec<(u64, TicketId)>,
    waiting: BTreeMap<WaiterId, (u64, Class)>,
    /// When each call left, how long it had waited, and its class.
    sent: Vec<(u64, u64, Class)>,
}

impl Process {
    fn new(id: u64) -> Self {
        let window = "[[window]]\nname = \"wfm publish\"\ncron = \"0 6 * * MON\"\ntz = \"America/Chicago\"\n\
            for = \"5m\"\nreserve = { sync = 50 }\n";
        let limits =
            [pace_parts::limit("q", pace_parts::rate(QUOTA, Duration::from_mins(1)), &[Partition::Tenant])];
        let mut bank = Bank::new(BankConfig {
            limits: limits.to_vec(),
            calendar: Arc::new(read(window, "tidegate.toml", read_windows).unwrap()),
            seed: id,
            spread: Duration::ZERO,
            ..BankConfig::default()
        })
        .unwrap();
        bank.share(ShareConfig {
            holder: HolderId(id * 7919),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 8,
            tokens_shared: true,
        });
        bank.tell_time(Mono::ZERO, BEFORE);
        Self { bank, flying: Vec::new(), waiting: BTreeMap::new(), sent: Vec::new() }
    }

    fn ask(&mut self, now: u64, class: Class) {
        let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("one"));
        match self.bank.ask(at(now), &Ask { class, ..pace_parts::asking(&family, &credential) }) {
            Asked::Granted(ticket) => self.send(now, now, class, ticket),
            Asked::Queued(waiter) => {
                self.waiting.insert(waiter, (now, class));
            }
            Asked::Refused(why) => panic!("{why:?}"),
        }
    }

    fn send(&mut self, now: u64, asked: u64, class: Class, ticket: TicketId) {
        self.bank.sent(at(now), ticket);
        self.flying.push((now + CALL, ticket));
        self.sent.push((now, now - asked, class));
    }

    fn wake(&mut self, now: u64) {
        let mut woken = Vec::new();
        self.bank.advance(at(now), &mut woken);
        for (waiter, how) in woken {
            let (asked, class) = self.waiting.remove(&waiter).unwrap();
            match how {
                Woken::Granted(ticket) => self.send(now, asked, class, ticket),
                Woken::Refused(why) => panic!("{why:?}"),
            }
        }
    }

    fn step(&mut self, now: u64, ledger: &mut Ledger) {
        let observation = Observation::default();
        let answer = Answer { kind: AnswerKind::Accepted, observation: &observation };
        for (_, ticket) in self.flying.extract_if(.., |(until, _)| *until <= now).collect::<Vec<_>>() {
            self.bank.answered(at(now), ticket, &answer);
        }
        self.wake(now);
        if self.bank.exchange_due(at(now)).is_some_and(|due| due <= at(now))
            && let Some(said) = self.bank.begin_exchange(at(now))
        {
            let reply = ledger.exchange(T + now, &said).unwrap();
            self.bank.end_exchange(at(now), &said, Ok(&reply));
            self.wake(now);
        }
    }

    /// How many calls of `class` left between two seconds.
    fn count(&self, class: Class, from: u64, to: u64) -> usize {
        let meant =
            |&&(at, _, sent): &&(u64, u64, Class)| sent == class && (from * 1000..to * 1000).contains(&at);
        self.sent.iter().filter(meant).count()
    }

    /// The longest that a call of `class` had waited that left between two seconds.
    fn longest_wait(&self, class: Class, from: u64, to: u64) -> u64 {
        let meant =
            |&&(at, _, sent): &&(u64, u64, Class)| sent == class && (from * 1000..to * 1000).contains(&at);
        self.sent.iter().filter(meant).map(|(_, waited, _)| *waited).max().unwrap_or_default()
    }
}

/// Eight minutes of processes that never run out of bulk calls, beside one that makes a `sync` call every second, if `visited`.
fn played(bulk: u64, visited: bool) -> Vec<Process> {
    let mut ledger = Ledger::new(T, 1);
    let mut processes: Vec<Process> = (1..=bulk + u64::from(visited)).map(Process::new).collect();
    for now in (0..8 * 60_000).step_by(10) {
        for (process, number) in processes.iter_mut().zip(1..) {
            if number > bulk {
                if now % 1000 == 0 {
                    process.ask(now, Class::Sync);
                }
            } else {
                while process.waiting.len() < 5 && process.flying.len() < 20 {
                    process.ask(now, Class::Bulk);
                }
            }
            process.step(now, &mut ledger);
        }
    }
    processes
}

/// What the fleet sent of `class` in the minute that begins at a second.
fn sent(processes: &[Process], class: Class, from: u64) -> usize {
    processes.iter().map(|process| process.count(class, from, from + 60)).sum()
}

#[test]
fn a_fleet_keeps_the_reserve_of_a_window_once_however_many_processes_it_has() {
    for processes in [1, 4] {
        let fleet = played(processes, false);
        let minutes: Vec<usize> = (0..8).map(|minute| sent(&fleet, Class::Bulk, minute * 60)).collect();
        let (window, open) = (&minutes[2..7], [minutes[0], minutes[1], minutes[7]]);
        assert_eq!(open, [300; 3], "{processes} processes");
        // Several leave up to a tenth of their part to chance: each asks for its own share of it, when its turn is.
        let least = if processes == 1 { 150 } else { 130 };
        assert!(window.iter().all(|sent| (least..=150).contains(sent)), "{processes} processes: {window:?}");
    }
}

#[test]
fn who_a_reserve_is_for_does_not_wait_although_others_of_the_fleet_press() {
    for processes in [1, 4] {
        let fleet = played(processes, true);
        // In the first minute of the window the quota that was taken before it is still to come back.
        let waited = fleet.iter().map(|process| process.longest_wait(Class::Sync, OPENS + 60, CLOSES)).max();
        assert!(waited <= Some(100), "{waited:?} ms beside {processes}");
        for minute in (OPENS + 60..CLOSES).step_by(60) {
            assert_eq!(sent(&fleet, Class::Sync, minute), 60);
            // Those who press know nothing of what the reserve was used for elsewhere: they leave it as a whole, beside what was drawn
            // of the quota. All of that is 210, and what a ledger hands out in parts may cost them a little more.
            let pressed = sent(&fleet, Class::Bulk, minute);
            assert!((65..=90).contains(&pressed), "{pressed} beside {processes}");
        }
    }
}
