//! What windows of the calendar do to those who ask a bank.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pace_parts::{asking, limit, rate, told};
use tidegate_core::calendar::{Calendar, read_windows};
use tidegate_core::event::Event;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::outlook::{Job, NoOutlook, Outlook};
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, Class, Partition, Refusal, RefusalReason, WaiterId,
    Woken,
};
use tidegate_core::profile::reader::read;
use tidegate_core::time::{Mono, Wall};

const SECOND: u64 = 1_000_000_000;

fn second(second: u64) -> Mono {
    Mono::from_nanos(second * SECOND)
}

/// Monday, 23 November 2026, 05:59 in Chicago.
const MINUTE_BEFORE: Wall = Wall::from_unix_millis(1_795_435_140_000);

fn window(does: &str) -> Arc<Calendar> {
    let text = format!(
        "[[window]]\nname = \"wfm publish\"\ncron = \"0 6 * * MON\"\ntz = \"America/Chicago\"\nfor = \"20m\"\n{does}\n"
    );
    Arc::new(read(&text, "tidegate.toml", read_windows).unwrap())
}

/// A bank with a limit of 100 per 60 s whose clock begins a minute before the window.
fn bank(does: &str) -> Bank {
    let limits = vec![limit("all", rate(100, Duration::from_mins(1)), &[Partition::Tenant])];
    let config = BankConfig { limits, calendar: window(does), stagger_seed: 5, ..BankConfig::default() };
    let mut bank = Bank::new(config).unwrap();
    bank.tell_time(Mono::ZERO, MINUTE_BEFORE);
    bank
}

fn ask(bank: &mut Bank, now: Mono, class: Class, give_up_at: Option<Mono>) -> Asked {
    let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("one"));
    bank.ask(now, &Ask { class, give_up_at, ..asking(&family, &credential) })
}

fn advance(bank: &mut Bank, now: Mono) -> Vec<(WaiterId, Woken)> {
    let mut woken = Vec::new();
    bank.advance(now, &mut woken);
    woken
}

/// Everything that goes at `now`, each answered at once; how many of `class`.
fn go(bank: &mut Bank, now: Mono, class: Class, at_most: u32, seen: &Observation) -> u32 {
    for sent in 0..at_most {
        let Asked::Granted(ticket) = ask(bank, now, class, Some(now)) else { return sent };
        bank.sent(now, ticket);
        bank.answered(now, ticket, &Answer { kind: AnswerKind::Accepted, observation: seen });
    }
    at_most
}

#[test]
fn a_held_class_waits_for_the_end_and_its_stagger_and_others_go_on() {
    let mut bank = bank("hold = [\"bulk\"]\nstagger = \"15m\"");
    assert_eq!(go(&mut bank, second(59), Class::Bulk, 1, &Observation::default()), 1, "before it");
    let Asked::Queued(held) = ask(&mut bank, second(60), Class::Bulk, None) else { panic!("it is held") };
    assert!(matches!(ask(&mut bank, second(60), Class::Interactive, None), Asked::Granted(_)));
    let (words, left) = bank.held_words(second(60), Class::Bulk).unwrap();
    assert!(
        words.starts_with("held by window \"wfm publish\" until 06:20 CST, then staggered by "),
        "{words}"
    );
    assert!(advance(&mut bank, second(60)).is_empty());
    // At the end there is something to tell, and after it one moment at which the class goes on.
    assert_eq!(bank.next_wake(second(60)), Some(second(60 + 1200)));
    assert!(advance(&mut bank, second(60 + 1200)).is_empty());
    let free = second(60) + left;
    assert!(free > second(60 + 1200) && free < second(60 + 1200 + 900), "{free:?}");
    assert_eq!(bank.next_wake(second(60 + 1200)), Some(free));
    let woken = advance(&mut bank, free);
    let [(waiter, Woken::Granted(ticket))] = woken[..] else { panic!("{woken:?}") };
    assert_eq!(waiter, held);
    assert_eq!(&*bank.ticket_limit(ticket), "window \"wfm publish\"");
}

#[test]
fn one_who_cannot_wait_so_long_is_refused_at_once_with_the_windows_name() {
    let mut bank = bank("hold = [\"bulk\"]");
    let asked = ask(&mut bank, second(60), Class::Bulk, Some(second(74)));
    let Asked::Refused(Refusal { reason, retry_after, limit }) = asked else { panic!("{asked:?}") };
    assert_eq!(reason, RefusalReason::Window { forecast: Duration::from_mins(20) });
    assert_eq!((reason.name(), &*limit), ("window", "window \"wfm publish\""));
    assert_eq!(retry_after, Duration::from_mins(20));
    let patient = ask(&mut bank, second(60), Class::Bulk, Some(second(3600)));
    assert!(matches!(patient, Asked::Queued(_)));
}

#[test]
fn one_who_waits_when_a_window_opens_and_cannot_wait_it_out_is_refused_then() {
    let mut bank = bank("hold = [\"bulk\"]");
    assert_eq!(go(&mut bank, second(58), Class::Interactive, 100, &Observation::default()), 100);
    let Asked::Queued(short) = ask(&mut bank, second(58), Class::Bulk, Some(second(500))) else { panic!() };
    let Asked::Queued(long) = ask(&mut bank, second(58), Class::Bulk, Some(second(2000))) else { panic!() };
    let Asked::Queued(other) = ask(&mut bank, second(58), Class::Interactive, Some(second(500))) else {
        panic!()
    };
    assert!(advance(&mut bank, second(58)).is_empty());
    assert_eq!(bank.next_wake(second(58)), Some(second(60)), "when it opens");
    let woken = advance(&mut bank, second(60));
    assert!(
        matches!(&woken[..], [(waiter, Woken::Refused(Refusal { reason: RefusalReason::Window { .. }, .. }))] if *waiter == short),
        "{woken:?}"
    );
    let woken = advance(&mut bank, second(120));
    assert!(matches!(&woken[..], [(waiter, Woken::Granted(_))] if *waiter == other), "{woken:?}");
    let mut now = second(120);
    while bank.waiting_now() > 0 {
        now = bank.next_wake(now).unwrap();
        if let [(waiter, Woken::Granted(_))] = advance(&mut bank, now)[..] {
            assert_eq!((waiter, now), (long, second(60 + 1200)));
        }
    }
}

trait Waiting {
    fn waiting_now(&self) -> usize;
}

impl Waiting for Bank {
    fn waiting_now(&self) -> usize {
        self.snapshot(Mono::ZERO).waiting.total()
    }
}

#[test]
fn what_is_kept_for_a_class_is_there_for_it_and_what_it_used_is_not_kept_twice() {
    let plain = Observation::default();
    let mut bank = bank("reserve = { sync = 50 }");
    assert_eq!(go(&mut bank, second(0), Class::Interactive, 200, &plain), 100, "nothing is kept before it");
    // All of it has come back when the window opens.
    let open = second(90);
    assert_eq!(go(&mut bank, open, Class::Interactive, 200, &plain), 50);
    assert_eq!(go(&mut bank, open, Class::Bulk, 200, &plain), 0);
    assert!(go(&mut bank, open, Class::Sync, 30, &plain) == 30, "its part");
    assert_eq!(go(&mut bank, open, Class::Interactive, 200, &plain), 0, "20 are still kept");
    assert_eq!(go(&mut bank, second(149), Class::Interactive, 200, &plain), 0);
    // What all used is back.
    assert_eq!(go(&mut bank, second(151), Class::Interactive, 200, &plain), 50);
    let after = second(60 + 1200 + 90);
    assert_eq!(go(&mut bank, after, Class::Interactive, 200, &plain), 100, "nothing is kept after it");
}

#[test]
fn the_reserve_of_a_told_limit_is_new_with_each_of_its_windows() {
    let mut bank = bank("reserve = { poll = 50 }");
    let mut left = 300;
    let mut take = |bank: &mut Bank, now: u64, class, most, reset: u64| {
        let mut sent = 0;
        while sent < most {
            let Asked::Granted(ticket) = ask(bank, second(now), class, Some(second(now))) else { break };
            bank.sent(second(now), ticket);
            left = if sent == 0 && now.is_multiple_of(60) && now > 120 { 299 } else { left - 1 };
            let seen = told(left, Duration::from_secs(reset - now));
            bank.answered(second(now), ticket, &Answer { kind: AnswerKind::Accepted, observation: &seen });
            sent += 1;
        }
        sent
    };
    assert_eq!(take(&mut bank, 120, Class::Poll, 40, 180), 40);
    let others = take(&mut bank, 130, Class::Interactive, 300, 180);
    // The limit of 100 that is declared as well keeps 50, of which poll used 40.
    assert_eq!(others, 50, "60 are left, of which ten are kept");
}

#[test]
fn a_window_that_opens_and_closes_is_told_once_and_shown_while_it_is_open() {
    let mut bank = bank("hold = [\"bulk\", \"poll\"]\nreserve = { interactive = 25 }");
    assert_eq!(bank.drain_events(), []);
    let shown = bank.snapshot(second(30));
    assert_eq!((shown.windows[0].open, shown.held.len()), (false, 0));
    assert_eq!(shown.windows[0].changes_in_ms, Some(30_000));
    advance(&mut bank, second(61));
    let told: Vec<String> = bank.drain_events().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "window \"wfm publish\" is open until 06:20 CST: bulk, poll held, 25 % of every quota kept for interactive"
        ]
    );
    advance(&mut bank, second(62));
    assert_eq!(bank.drain_events(), []);
    let shown = bank.snapshot(second(62));
    assert!(shown.windows[0].open);
    assert_eq!(shown.windows[0].changes_at.as_deref(), Some("2026-11-23 06:20 CST"));
    let held: Vec<_> = shown.held.iter().map(|held| (held.class, held.for_ms)).collect();
    assert_eq!(held, [("bulk", 1_198_000), ("poll", 1_198_000)]);
    advance(&mut bank, second(60 + 1200));
    assert_eq!(bank.drain_events(), [Event::WindowClosed { window: "wfm publish".to_owned() }]);
}

#[test]
fn a_clock_that_is_set_moves_the_windows_and_one_that_drifts_does_not() {
    let mut bank = bank("hold = [\"bulk\"]");
    let later = |millis: i64| Wall::from_unix_millis(MINUTE_BEFORE.unix_millis() + millis);
    bank.tell_time(second(10), later(10_900));
    assert!(bank.held_words(second(10), Class::Bulk).is_none());
    bank.tell_time(second(20), later(60_000));
    let (_, left) = bank.held_words(second(20), Class::Bulk).unwrap();
    assert_eq!(left, Duration::from_mins(20));
    let Asked::Queued(_) = ask(&mut bank, second(21), Class::Bulk, None) else { panic!("it is held") };
    bank.tell_time(second(22), later(-3_600_000));
    assert_eq!(advance(&mut bank, second(22)).len(), 1, "it is an hour earlier than was thought");
}

#[test]
fn nobody_is_held_before_the_time_was_told() {
    let config = BankConfig { calendar: window("hold = [\"bulk\"]"), ..BankConfig::default() };
    let mut bank = Bank::new(config).unwrap();
    assert!(matches!(ask(&mut bank, second(60), Class::Bulk, None), Asked::Granted(_)));
    assert!(bank.snapshot(second(60)).windows.is_empty());
}

fn outlook(calls: u64, does: Option<&str>) -> Result<Outlook, NoOutlook> {
    let limits = vec![limit("all", rate(300, Duration::from_mins(1)), &[Partition::Tenant])];
    let calendar = does.map(window).unwrap_or_default();
    let config = BankConfig { limits, calendar, stagger_seed: 5, ..BankConfig::default() };
    let job = Job {
        calls,
        class: Class::Bulk,
        method: &Method::PATCH,
        path: "/api/v2/users/7",
        start: MINUTE_BEFORE,
    };
    Outlook::of(&job, config)
}

fn took(outlook: &Outlook) -> f64 {
    outlook.end.since(MINUTE_BEFORE).unwrap().as_secs_f64()
}

#[test]
fn a_job_takes_as_long_as_its_limit_says() {
    for calls in [1, 299, 1000, 30_000] {
        let seconds = took(&outlook(calls, None).unwrap());
        let windows = f64::from(u32::try_from(calls.saturating_sub(1) / 300).unwrap()) * 60.0;
        assert!(seconds >= windows && seconds <= windows + 61.0, "{calls}: {seconds}");
    }
}

#[test]
fn a_job_that_meets_a_window_pauses_for_it_and_its_stagger() {
    let (free, held) =
        (outlook(3000, None).unwrap(), outlook(3000, Some("hold = [\"bulk\"]\nstagger = \"15m\"")).unwrap());
    let [met] = &held.windows[..] else { panic!("{:?}", held.windows) };
    let released = met.released.unwrap();
    let paused = released.since(met.from).unwrap().as_secs_f64();
    // The pause gives a window of the limit back.
    assert!(
        (took(&free) + paused - 61.0..=took(&free) + paused).contains(&took(&held)),
        "{} {paused}",
        took(&held)
    );
    let during = held.curve.iter().filter(|(at, _)| *at > met.from && *at < released).count();
    assert_eq!(during, 0, "nothing leaves in it");
    assert!(held.curve.is_sorted() && held.curve.len() < 700, "{}", held.curve.len());
    assert_eq!(held.curve.last(), Some(&(held.end, 3000)));
}

#[test]
fn what_is_kept_for_others_makes_a_job_longer() {
    let kept = outlook(9000, Some("reserve = { poll = 50 }")).unwrap();
    // One minute at 300, twenty at 150, the rest at 300: 300 + 3000 + 5700.
    let seconds = took(&kept);
    assert!((2300.0..=2461.0).contains(&seconds), "{seconds}");
}

#[test]
fn a_job_without_a_known_end_is_told_so() {
    let job = Job { calls: 5, class: Class::Bulk, method: &Method::GET, path: "/x", start: MINUTE_BEFORE };
    let unknown = Outlook::of(&job, BankConfig::default()).unwrap_err();
    assert!(unknown.to_string().starts_with("no declared limit counts GET /x"), "{unknown}");
    let half = |name: &str, hour: u32| {
        format!(
            "[[window]]\nname = \"{name}\"\ncron = \"0 {hour} * * *\"\ntz = \"UTC\"\nfor = \"12h\"\nhold = [\"bulk\"]\n"
        )
    };
    let always = format!("{}{}", half("day", 6), half("night", 18));
    let limits = vec![limit("all", rate(300, Duration::from_mins(1)), &[Partition::Tenant])];
    let calendar = Arc::new(read(&always, "tidegate.toml", read_windows).unwrap());
    let never = Outlook::of(&job, BankConfig { limits, calendar, ..BankConfig::default() }).unwrap_err();
    assert_eq!(never, NoOutlook::NeverEnds { done: 0, calls: 5 });
}
