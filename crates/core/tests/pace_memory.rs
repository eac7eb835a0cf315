//! What a bank keeps of gates that nobody uses, and how it is bounded.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, GateSnapshot, LimitSpec, Partition, TicketId,
};
use tidegate_core::time::{Mono, Wall};

/// The least bound there is: 8 families allowed, 8 gates each.
const ROOM: usize = 64;

struct Shell {
    bank: Bank,
    now: Mono,
}

impl Shell {
    fn new(limits: Vec<LimitSpec>) -> Self {
        let config =
            BankConfig { limits, max_families: 8, spread: Duration::ZERO, seed: 7, ..BankConfig::default() };
        Self { bank: Bank::new(config).unwrap(), now: Mono::ZERO + Duration::from_secs(1) }
    }

    fn advance(&mut self) {
        let mut woken = Vec::new();
        self.bank.advance(self.now, &mut woken);
        assert!(woken.is_empty(), "nobody waits in these tests");
    }

    /// A ticket if one is granted at once; a caller who would have to wait goes away.
    fn ask(&mut self, family: &str, credential: &str) -> Option<TicketId> {
        self.ask_at(family, family, credential)
    }

    fn ask_at(&mut self, path: &str, family: &str, credential: &str) -> Option<TicketId> {
        let (family, credential) = (Family::new(family), CredentialId::new(credential));
        let ask = Ask { path, ..pace_parts::asking(&family, &credential) };
        let asked = self.bank.ask(self.now, &ask);
        if let Asked::Queued(waiter) = asked {
            self.bank.abandon(self.now, waiter);
        }
        self.advance();
        if let Asked::Granted(ticket) = asked { Some(ticket) } else { None }
    }

    fn answer(&mut self, ticket: TicketId, kind: AnswerKind, observation: &Observation) {
        self.bank.sent(self.now, ticket);
        self.bank.answered(self.now, ticket, &Answer { kind, observation });
        self.advance();
    }

    fn call(&mut self, family: &str, credential: &str, kind: AnswerKind, observation: &Observation) -> bool {
        let ticket = self.ask(family, credential);
        if let Some(ticket) = ticket {
            self.answer(ticket, kind, observation);
        }
        ticket.is_some()
    }

    /// Nothing but the timer for so long.
    fn idle(&mut self, time: Duration) {
        self.now += time;
        for _ in 0..2 * ROOM {
            self.advance();
        }
    }

    fn gates(&self) -> Vec<GateSnapshot> {
        self.bank.snapshot(self.now).gates
    }

    fn gate(&self, partition: &str) -> Option<GateSnapshot> {
        self.gates().into_iter().find(|gate| gate.partition == partition)
    }
}

fn per_credential(quota: u64, window: Duration) -> LimitSpec {
    pace_parts::limit("calls", pace_parts::rate(quota, window), &[Partition::Credential])
}

fn told(name: Option<&str>, limit: u64, remaining: u64, reset: u64) -> Observation {
    pace_parts::reading(name, limit, remaining, Duration::from_secs(reset))
}

fn throttled(retry_after: u64) -> Observation {
    pace_parts::wait(Duration::from_secs(retry_after))
}

#[test]
fn a_closed_gate_outlasts_a_flood_of_invented_credentials() {
    let mut shell = Shell::new(Vec::new());
    assert!(shell.call("/api/v2/users", "wfm", AnswerKind::Accepted, &Observation::default()));
    assert!(shell.call("/api/v2/users", "wfm", AnswerKind::Throttled, &throttled(600)));
    for number in 0..5000 {
        shell.now += Duration::from_millis(50);
        shell.call(
            "/api/v2/users",
            &format!("invented-{number}"),
            AnswerKind::Unauthorized,
            &Observation::default(),
        );
    }
    let gate = shell.gate("credential=wfm").expect("a closed gate is kept");
    assert_eq!(gate.closed_for_ms, 350_000);
    assert!(shell.ask("/api/v2/users", "wfm").is_none());
}

#[test]
fn tickets_in_flight_keep_their_gates() {
    let mut shell = Shell::new(Vec::new());
    assert!(shell.call("/api/v2/users", "wfm", AnswerKind::Accepted, &Observation::default()));
    let ticket = shell.ask("/api/v2/users", "wfm").unwrap();
    for number in 0..1000 {
        shell.call(
            "/api/v2/users",
            &format!("invented-{number}"),
            AnswerKind::Unauthorized,
            &Observation::default(),
        );
    }
    shell.idle(Duration::from_hours(1));
    assert_eq!(shell.gate("credential=wfm").unwrap().in_flight, 1);
    shell.answer(ticket, AnswerKind::Accepted, &Observation::default());
    assert_eq!(shell.gate("credential=wfm").unwrap().in_flight, 0);
}

#[test]
fn invented_names_of_every_kind_do_not_make_the_bank_grow() {
    let mut shell = Shell::new(vec![per_credential(1000, Duration::from_mins(1))]);
    for number in 0..3000_u64 {
        shell.now += Duration::from_millis(1);
        let (credential, family) = (format!("c{}", number % 97), format!("/api/v2/f{number}"));
        // Families that exist and families that do not, each with limits of another name, some of them closed.
        let kind = [AnswerKind::Accepted, AnswerKind::NotFound, AnswerKind::Throttled][(number % 3) as usize];
        let mut said = told(Some(&format!("limit-{number}")), 10, number % 3, 3600);
        said.retry_after = (kind == AnswerKind::Throttled).then_some(Duration::from_hours(1));
        shell.call(&family, &credential, kind, &said);
        // One gate per limit is shared by those who find no room: the declared one and the implicit one.
        assert!(shell.gates().len() <= ROOM + 2, "{} gates after {number}", shell.gates().len());
    }
}

#[test]
fn newcomers_without_room_share_one_gate_and_are_served() {
    let mut shell = Shell::new(Vec::new());
    for number in 0..2 * ROOM {
        // All of them closed: nothing may be forgotten.
        shell.call("/api/v2/users", &format!("c{number}"), AnswerKind::Throttled, &throttled(3600));
    }
    assert!(shell.gates().len() <= ROOM + 1);
    let crowd = shell.gate("credential=(crowd)").expect("the later ones share a gate");
    assert!(crowd.closed_for_ms > 0, "which their throttle closed for all of them");
}

#[test]
fn an_idle_told_gate_comes_back_with_its_limit_and_a_lone_scout() {
    let mut shell = Shell::new(Vec::new());
    for left in [299, 298, 297] {
        assert!(shell.call("/api/v2/users", "wfm", AnswerKind::Accepted, &told(None, 300, left, 60)));
    }
    shell.idle(Duration::from_mins(6));
    let gate = shell.gate("credential=wfm").unwrap();
    assert_eq!((gate.state, gate.quota, gate.remaining), ("at rest", Some(300), None));
    let scout = shell.ask("/api/v2/users", "wfm").expect("one attempt goes first");
    assert!(shell.ask("/api/v2/users", "wfm").is_none(), "what was left is not believed any more");
    shell.answer(scout, AnswerKind::Accepted, &told(None, 300, 299, 60));
    let gate = shell.gate("credential=wfm").unwrap();
    assert_eq!(gate.remaining, Some(299.0));
    assert_eq!(gate.accepted, 4, "its counts go on");
}

#[test]
fn an_idle_gate_that_learnt_nothing_is_gone() {
    let mut shell = Shell::new(Vec::new());
    assert!(shell.call("/api/v2/users", "wfm", AnswerKind::Accepted, &Observation::default()));
    shell.idle(Duration::from_mins(6));
    assert_eq!(shell.gates(), []);
}

#[test]
fn a_credential_called_as_the_crowd_has_gates_of_its_own() {
    let mut shell = Shell::new(vec![per_credential(1, Duration::from_hours(1))]);
    for number in 0..2 * ROOM {
        shell.call("/api/v2/users", &format!("c{number}"), AnswerKind::Accepted, &Observation::default());
    }
    shell.call("/api/v2/users", "(crowd)", AnswerKind::Accepted, &Observation::default());
    let crowds = shell.gates().into_iter().filter(|gate| gate.partition == "credential=(crowd)");
    let spent: Vec<_> = crowds.filter(|gate| gate.name == "calls").map(|gate| gate.accepted).collect();
    assert_eq!(spent, [1], "there is no room for it either, so the crowd's one permit was spent already");
    let mut shell = Shell::new(vec![per_credential(1, Duration::from_hours(1))]);
    assert!(shell.call("/api/v2/users", "(crowd)", AnswerKind::Accepted, &Observation::default()));
    let (now, wall) = (shell.now, Wall::from_unix_millis(1_700_000_000_000));
    let kept = shell.bank.begin_store(now, wall).last();
    for number in 0..2 * ROOM {
        shell.call("/api/v2/users", &format!("c{number}"), AnswerKind::Accepted, &Observation::default());
    }
    let mut next = Shell::new(vec![per_credential(1, Duration::from_hours(1))]);
    next.bank.restore(now, wall, &kept, Duration::ZERO);
    assert!(next.ask("/api/v2/users", "(crowd)").is_none(), "its own permit is spent");
    assert!(next.ask("/api/v2/users", "c1").is_some(), "others' are not");
}

#[test]
fn a_family_that_nobody_uses_makes_room_for_another() {
    let mut shell = Shell::new(Vec::new());
    let families = |shell: &Shell| -> Vec<String> {
        shell.bank.snapshot(shell.now).breakers.into_iter().map(|breaker| breaker.family).collect()
    };
    let call = |shell: &mut Shell, family: &str| {
        shell.call(family, "wfm", AnswerKind::Accepted, &Observation::default());
    };
    for number in 0..20 {
        call(&mut shell, &format!("/api/v2/f{number}"));
    }
    let known = families(&shell);
    assert!(known.len() == 9 && !known.contains(&"/api/v2/f19".to_owned()), "all are in use: {known:?}");
    // One of them is closed for long, another one's breaker is open.
    shell.call("/api/v2/f1", "wfm", AnswerKind::Throttled, &throttled(7200));
    for _ in 0..6 {
        shell.call("/api/v2/f2", "wfm", AnswerKind::HardFailure, &throttled(3600));
        shell.now += Duration::from_secs(3601);
    }
    shell.call("/api/v2/f1", "wfm", AnswerKind::Throttled, &throttled(7200));
    shell.idle(Duration::from_mins(6));
    for number in 20..60 {
        call(&mut shell, &format!("/api/v2/f{number}"));
        shell.idle(Duration::from_mins(6));
    }
    let known = families(&shell);
    assert!(known.len() == 9 && known.contains(&"/api/v2/f59".to_owned()), "{known:?}");
    assert!(!known.contains(&"/api/v2/f3".to_owned()), "{known:?}");
    assert!(shell.gates().len() <= ROOM);
    // What was forgotten begins anew.
    call(&mut shell, "/api/v2/f3");
    assert!(families(&shell).contains(&"/api/v2/f3".to_owned()));
}

#[test]
fn a_closed_family_is_not_forgotten() {
    let mut shell = Shell::new(Vec::new());
    shell.call("/api/v2/closed", "wfm", AnswerKind::Throttled, &throttled(86_400));
    for number in 0..40 {
        shell.call(&format!("/api/v2/f{number}"), "wfm", AnswerKind::Accepted, &Observation::default());
        shell.idle(Duration::from_mins(6));
    }
    assert!(shell.ask("/api/v2/closed", "wfm").is_none());
}

#[test]
fn an_unknown_path_or_login_gives_no_family_gates_of_its_own() {
    let mut shell = Shell::new(Vec::new());
    for kind in [AnswerKind::NotFound, AnswerKind::Unauthorized, AnswerKind::HardFailure] {
        shell.call("/api/v2/invented", "wfm", kind, &Observation::default());
    }
    let families = |shell: &Shell| shell.bank.snapshot(shell.now).breakers.len();
    assert_eq!(families(&shell), 1);
    shell.call("/api/v2/invented", "wfm", AnswerKind::Accepted, &Observation::default());
    assert_eq!(families(&shell), 2);
}

#[test]
fn lanes_that_go_leave_the_others_among_the_members_of_their_gate() {
    // Each method is a lane of its own: a limit applies to it or not.
    let mut limits: Vec<LimitSpec> = Vec::new();
    for number in 0..4 {
        let path = PathGlob::parse(&format!("/api/v2/users/{number}")).unwrap();
        let key = format!("l{number}");
        limits.push(LimitSpec { key, path, ..per_credential(1000, Duration::from_secs(1)) });
    }
    let mut shell = Shell::new(limits);
    let call = |shell: &mut Shell, number: usize, said: &Observation| {
        let path = format!("/api/v2/users/{number}");
        let ticket = shell.ask_at(&path, "/api/v2/users", "wfm");
        if let Some(ticket) = ticket {
            shell.answer(ticket, AnswerKind::Accepted, said);
        }
        ticket.is_some()
    };
    for number in 0..4 {
        assert!(call(&mut shell, number, &told(Some("minute"), 300, 200, 60)));
    }
    for _ in 0..4 {
        shell.idle(Duration::from_mins(2));
        assert!([1, 3].into_iter().all(|number| call(
            &mut shell,
            number,
            &told(Some("minute"), 300, 200, 60)
        )));
    }
    // Another limit appears: it is everybody's who is left.
    assert!(call(&mut shell, 3, &told(Some("day"), 10, 0, 3600)));
    assert_eq!([1, 3].map(|number| call(&mut shell, number, &Observation::default())), [false, false]);
}

#[test]
fn a_family_that_is_promoted_leaves_nothing_behind() {
    let mut shell = Shell::new(Vec::new());
    for number in 0..7 {
        assert!(shell.call(
            &format!("/api/v2/f{number}"),
            "wfm",
            AnswerKind::Accepted,
            &Observation::default()
        ));
    }
    let names: Vec<String> = shell.gates().into_iter().map(|gate| gate.name).collect();
    assert!(!names.contains(&"other".to_owned()), "{names:?}");
}

#[test]
fn a_family_that_proves_to_exist_where_all_is_full_takes_the_lanes_that_are_left() {
    let mut shell = Shell::new(Vec::new());
    let call = |shell: &mut Shell, credential: &str, kind| {
        shell.call("/api/v2/users", credential, kind, &Observation::default())
    };
    for number in 0..ROOM {
        // They learn something, so that their gates are kept.
        let held = if number % 2 == 0 { told(None, 300, 299, 60) } else { Observation::default() };
        shell.call("/api/v2/users", &format!("c{number}"), AnswerKind::NotFound, &held);
        shell.now += Duration::from_millis(20);
    }
    for number in 0..40 {
        call(&mut shell, &format!("d{number}"), AnswerKind::Accepted);
    }
    let names: Vec<String> = shell.gates().into_iter().map(|gate| gate.name).collect();
    assert!(names.iter().any(|name| name == "/api/v2/users") && names.len() <= ROOM + 2, "{names:?}");
}

#[test]
fn a_family_with_many_gates_at_rest_goes_with_the_last_of_them() {
    let mut shell = Shell::new(Vec::new());
    for number in 0..30 {
        shell.call("/api/v2/many", &format!("c{number}"), AnswerKind::Accepted, &told(None, 300, 299, 60));
    }
    for number in 0..7 {
        let family = format!("/api/v2/f{number}");
        assert!(shell.call(&family, "wfm", AnswerKind::Accepted, &Observation::default()));
    }
    let of_many = |shell: &Shell| shell.gates().iter().filter(|gate| gate.name == "/api/v2/many").count();
    shell.idle(Duration::from_hours(2));
    assert_eq!(of_many(&shell), 30);
    let mut left = vec![30];
    for call in 0..8 {
        for number in 0..7 {
            shell.call(&format!("/api/v2/f{number}"), "wfm", AnswerKind::Accepted, &Observation::default());
        }
        shell.call("/api/v2/new", &format!("n{call}"), AnswerKind::Accepted, &Observation::default());
        left.push(of_many(&shell));
    }
    assert!(left.windows(2).all(|pair| pair[0].saturating_sub(pair[1]) <= 8), "a few at a time: {left:?}");
    assert_eq!(left.last(), Some(&0), "{left:?}");
    assert!(shell.gates().iter().any(|gate| gate.name == "/api/v2/new"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is folded, woken and forgotten under pressure: no credential ever has more than its quota in any window.
    #[test]
    fn no_gate_comes_back_with_an_imagined_quota(
        steps in prop::collection::vec((0..400_u32, 0..2000_u64, any::<bool>()), 200..900),
        quota in 1..4_u64,
    ) {
        let window = Duration::from_secs(40);
        let mut shell = Shell::new(vec![per_credential(quota, window)]);
        let mut sends: BTreeMap<u32, Vec<Mono>> = BTreeMap::new();
        for (step, (credential, wait, long)) in steps.into_iter().enumerate() {
            shell.now += Duration::from_millis(if long && wait < 5 { 400_000 } else { wait / 4 });
            // A few of them come again and again, the others once.
            let credential = if credential < 200 { credential % 5 } else { credential };
            if shell.call("/api/v2/users", &format!("c{credential}"), AnswerKind::Accepted, &Observation::default()) {
                let sent = sends.entry(credential).or_default();
                sent.push(shell.now);
                let within = sent.iter().filter(|&&at| shell.now - at < window).count();
                prop_assert!(within as u64 <= quota, "{within} of {quota} for c{credential} at {:?}", shell.now);
            }
            prop_assert!(!step.is_multiple_of(50) || shell.gates().len() <= ROOM + 2);
        }
    }
}
