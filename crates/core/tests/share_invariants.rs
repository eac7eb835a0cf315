//! What a shared quota promises, under any interleaving: fleets, their store and a server in virtual time, with somebody
//! who delays, loses and repeats exchanges, kills processes and cuts them off.
//!
//! Not covered here: I5 in the world, which needs gates that pace by themselves (its numbers are in `share_ledger`).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small counts and times"
)]

mod share_world;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use share_world::node::Belief;
use share_world::server::{Law, Reset, Server, Us};
use share_world::{Chaos, Config, MS, S, World};
use tidegate_core::share::Refill;

/// No call waits for longer where a quarter of each of its limits is left that nobody has in hand: the lease of the longest told
/// window. Twice that where the state was lost, because what is recalled is dated to a sixteenth of a window, late.
const WAIT: Us = 2_500 * MS;

/// A scout that has not come back for so long does not keep another from going.
const PATIENCE: Us = 3 * S;

const NO_CHAOS: Chaos =
    Chaos { lose: 0.0, repeat: 0.0, late: 0.0, kill: 0.0, cut_off: 0.0, lost_attempts: 0.0, clock: 0.0 };
const CHAOS: Chaos =
    Chaos { lose: 0.05, repeat: 0.1, late: 0.05, kill: 0.2, cut_off: 0.5, lost_attempts: 0.02, clock: 0.0 };

/// Every rule that the ledger keeps for certain, as a server goes by it and as a fleet believes it.
const RULES: [(Law, Reset, Refill, bool, bool); 12] = [
    (Law::Anchored, Reset::Next, Refill::Step, true, true),
    (Law::Anchored, Reset::Next, Refill::Step, false, true),
    (Law::Aligned(1_123_456), Reset::Next, Refill::Step, true, true),
    (Law::Aligned(123_456), Reset::Next, Refill::Step, false, true),
    (Law::Log, Reset::Next, Refill::Log, true, true),
    (Law::Log, Reset::Full, Refill::Log, true, true),
    // Believed to be a step until it is seen to be none.
    (Law::Log, Reset::Next, Refill::Step, false, true),
    (Law::Log, Reset::Full, Refill::Step, false, true),
    // Nothing is told.
    (Law::Log, Reset::Silent, Refill::Log, true, false),
    (Law::Anchored, Reset::Silent, Refill::Step, false, false),
    (Law::Bucket, Reset::Full, Refill::Log, true, true),
    (Law::Bucket, Reset::Next, Refill::Step, false, true),
];

/// One way to the server, and how long it takes to answer: from calls of some milliseconds to such that outlive the patience with a
/// scout. On its way no attempt is for longer than the grace of three seconds.
const LATENCIES: [((Us, Us), (Us, Us)); 5] = [
    ((10 * MS, 20 * MS), (0, 0)),
    ((5 * MS, 150 * MS), (0, 0)),
    ((10 * MS, 20 * MS), (3 * S, 3_500 * MS)),
    ((500 * MS, 1_400 * MS), (2 * S, 5 * S)),
    ((10 * MS, 300 * MS), (7 * S, 9 * S)),
];

/// A second limit of each call: none, one that nothing tells of, or one that answers tell of.
fn beside() -> impl Strategy<Value = Option<(Belief, Server)>> {
    let rule = prop::sample::select(vec![0, 4, 8]);
    let limit =
        (prop::sample::select(vec![30, 100, 1_000]), prop::sample::select(vec![5 * S, 20 * S, 60 * S]));
    let some = (rule, limit).prop_map(|(rule, (limit, window))| {
        let (law, reset, rule, proven, told) = RULES[rule];
        (Belief { told, rule, proven }, Server::new(law, reset, limit, window))
    });
    prop::option::of(some)
}

/// Fleets that believe what is so, of a usual size: what is there by the server's law is there for them.
fn truthful() -> impl Strategy<Value = (Config, Server)> {
    let limit = |rules: &'static [usize], windows: &'static [Us]| {
        (prop::sample::select(rules), prop::sample::select(vec![30, 100, 300]), prop::sample::select(windows))
    };
    let limit =
        || prop_oneof![limit(&[0, 2, 4], &[2 * S, 5 * S, 20 * S]), limit(&[8], &[5 * S, 20 * S, 60 * S])];
    let fleet = (any::<u64>(), 1..9_u64, prop::sample::select(vec![0.3, 0.5, 0.8, 1.5]), any::<bool>());
    (fleet, limit(), prop::option::weighted(0.7, limit())).prop_map(
        |((seed, nodes, demand, slow), first, second)| {
            let limit = |(rule, limit, window): (usize, u32, Us)| {
                let (law, reset, rule, proven, told) = RULES[rule];
                (Belief { told, rule, proven }, Server::new(law, reset, limit, window))
            };
            let (belief, server) = limit(first);
            let config = Config {
                seed,
                nodes,
                belief,
                demand,
                skew: 0.8,
                length: 30 * S,
                chaos: NO_CHAOS,
                to_store: (200, 600),
                to_server: if slow { (5 * MS, 150 * MS) } else { (10 * MS, 20 * MS) },
                answers: (0, 0),
                strangers: 0.0,
                clocks: 0,
                beside: second.map(limit),
            };
            (config, server)
        },
    )
}

fn config() -> impl Strategy<Value = (Config, Server)> {
    let fleet = (any::<u64>(), 0..RULES.len(), 1..12_u64, beside());
    let limit =
        (prop::sample::select(vec![1, 5, 30, 100, 300]), prop::sample::select(vec![S, 2 * S, 5 * S, 20 * S]));
    let load = (prop::sample::select(vec![0.5, 1.5, 3.0]), any::<bool>(), 0..LATENCIES.len());
    (fleet, limit, load).prop_map(|((seed, rule, nodes, beside), (limit, window), (demand, near, slow))| {
        let (law, reset, rule, proven, told) = RULES[rule];
        let config = Config {
            seed,
            nodes,
            belief: Belief { told, rule, proven },
            demand,
            skew: 0.8,
            length: 6 * window,
            chaos: NO_CHAOS,
            to_store: if near { (200, 600) } else { (MS, 20 * MS) },
            to_server: LATENCIES[slow].0,
            answers: LATENCIES[slow].1,
            strangers: 0.0,
            clocks: 0,
            beside,
        };
        (config, Server::new(law, reset, limit, window))
    })
}

/// What eight processes use of what strangers leave of 100 per 5 s, once the rule is learnt.
fn used_of_what_is_left(seed: u64, rule: usize, strangers: f64) -> f64 {
    let (law, reset, rule, proven, told) = RULES[rule];
    let window = 5 * S;
    let config = Config {
        seed,
        nodes: 8,
        belief: Belief { told, rule, proven },
        demand: 1.5,
        skew: 0.8,
        length: 12 * window,
        chaos: NO_CHAOS,
        to_store: (200, 600),
        to_server: (10 * MS, 20 * MS),
        answers: (0, 0),
        strangers,
        clocks: 0,
        beside: None,
    };
    let mut world = World::new(config, Server::new(law, reset, 100, window));
    world.run_to(4 * window);
    let (accepted, others) = (world.told.accepted, world.told.strangers);
    world.run();
    let others = world.told.strangers - others;
    let ours = world.told.accepted - accepted - others;
    ours as f64 / (8 * 100 - others) as f64
}

/// What becomes of a fleet of eight at 100 per 10 s, some of which die.
#[derive(Debug)]
struct Crash {
    /// Permits that the dead had in hand.
    had: u64,
    /// The store does not count the dead any more when it has not heard of them for long.
    forgotten: bool,
    /// Accepted in the seven windows after.
    used: u64,
    throttled: u64,
}

fn crash(seed: u64, rule: usize, killed: usize) -> Crash {
    let (law, reset, rule, proven, told) = RULES[rule];
    let window = 10 * S;
    let config = Config {
        seed,
        nodes: 8,
        belief: Belief { told, rule, proven },
        demand: 3.0,
        skew: 0.0,
        length: 12 * window,
        chaos: NO_CHAOS,
        to_store: (200, 600),
        to_server: (10 * MS, 20 * MS),
        answers: (0, 0),
        strangers: 0.0,
        clocks: 0,
        beside: None,
    };
    let mut world = World::new(config, Server::new(law, reset, 100, window));
    // In the middle of spending, with permits in hand.
    let when = world.rng.u64(0..window);
    world.run_to(4 * window + when);
    let dead: Vec<String> = world.nodes[..killed].iter().map(|node| format!("{:016x}", node.id)).collect();
    let rows = |world: &World| {
        let state = serde_json::to_value(&world.ledger).unwrap();
        state["limits"].as_object().unwrap().values().next().unwrap()["rows"].clone()
    };
    let before = rows(&world);
    let had = dead.iter().filter_map(|holder| before[holder]["unspent"].as_u64()).sum();
    (0..killed).for_each(|node| world.dies(node));
    let (accepted, died) = (world.told.accepted, world.now);
    // A lease and the grace of three seconds, no longer than a window on top where nothing is out, and who speaks next.
    world.run_to(died + 2 * window);
    let now = rows(&world);
    // Where all wait for the next refill, the first who speaks then gives them up.
    let over = |row: &serde_json::Value| row["until"].as_u64().unwrap() <= world.store_time();
    let forgotten = dead.iter().all(|holder| now.get(holder).is_none_or(over));
    world.run_to(died + 7 * window);
    Crash { had, forgotten, used: world.told.accepted - accepted, throttled: world.told.throttled }
}

/// What becomes of a fleet whose store comes back with nothing.
#[derive(Debug)]
struct Recalled {
    throttled: u64,
    /// Throttles that cannot be helped: what was out, and what finds that out.
    most: u64,
}

/// `when`: in windows, from the end of the third on.
fn recall(config: Config, server: Server, when: f64) -> Recalled {
    let window = server.window;
    let mut limits = vec![(config.belief.told, u64::from(server.limit))];
    limits.extend(config.beside.as_ref().map(|(belief, server)| (belief.told, u64::from(server.limit))));
    // A scout that is late does not keep the next one: so many may be out before the first is refused.
    let scouts = 1 + (2 * config.to_server.1 + config.answers.1) / PATIENCE;
    let mut world = World::new(Config { nodes: config.nodes.max(2), ..config }, server);
    world.run_to(3 * window + (when * window as f64) as u64);
    let out: u64 = world.ledger.view(world.store_time()).iter().map(|limit| u64::from(limit.out)).sum();
    world.forget();
    world.run();
    // What was out with holders that have not spoken yet is not known. A scout finds that out; where nothing is told, a
    // tenth of the quota may leave beside it.
    let probe: u64 =
        limits.iter().map(|&(told, limit)| scouts + if told { 0 } else { (limit / 10).max(1) }).sum();
    let all: u64 = limits.iter().map(|&(_, limit)| limit).sum();
    Recalled { throttled: world.told.throttled, most: out.min(all) + probe }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn i1_a_fleet_alone_is_never_throttled_under_any_interleaving((config, server) in config(), calm in any::<bool>()) {
        let chaos = if calm { NO_CHAOS } else { CHAOS };
        let mut world = World::new(Config { chaos, ..config }, server);
        world.run();
        prop_assert_eq!(world.told.throttled, 0);
    }

    #[test]
    fn i2_a_crash_costs_one_chunk_and_no_longer_than_a_window(seed in any::<u64>(), rule in 0..8_usize, killed in 1..4_usize) {
        let after = crash(seed, rule, killed);
        // Twice an equal part of what comes back within a lease, at most everything, and one of half of what is there.
        prop_assert!(after.had <= (100 / 4 + 100 / 16 + 1) * killed as u64, "{} in hand", after.had);
        prop_assert!(after.forgotten, "a dead holder is remembered");
        // What the dead had is missing for one window, and for as long as they may be alive; after that there is no trace of
        // it. A permit is used again when it has come back, at the end of a group, is known to have, at the end of a lease, and
        // the turn of each of eight has come.
        let window = 10 * S;
        let again = window + if rule < 4 { 0 } else { window / 64 + window / 8 + 8 * window / 100 };
        // Where attempts come back in bunches, a whole quota may lie on either side of the end.
        let least = if rule < 4 { 7 * 97 - 100 } else { 7 * window / again * 100 };
        prop_assert!(after.used + 2 * after.had >= least, "{:?} of {least}", after);
        prop_assert_eq!(after.throttled, 0);
    }

    #[test]
    fn i3_wall_clocks_change_no_decision((config, server) in config()) {
        let chaos = CHAOS;
        let runs = [0, 3_600].map(|clocks| {
            let mut world = World::new(Config { chaos, clocks, ..config.clone() }, server.clone());
            world.run();
            (world.told.calls, world.told.exchanges, world.told.accepted, world.told.granted)
        });
        prop_assert_eq!(runs[0], runs[1]);
    }

    #[test]
    fn i6_lost_writes_overgrant_no_more_than_their_chunks((config, server) in config(), lost in 0.0..1.0_f64, long in any::<bool>()) {
        let window = server.window;
        let mut world = World::new(Config { nodes: config.nodes.max(2), ..config }, server);
        world.run_to(3 * window + window / 3);
        let old = world.remember();
        // A server that takes over lacks a moment; one that was restored, up to a window.
        let longest = if long { window } else { 100 * MS };
        world.run_to(world.now + (lost * longest as f64) as u64);
        let granted = world.told.granted;
        world.ledger = old;
        world.run();
        // State that is more than ten seconds old is given up: all are asked for what they know, and one scout may leave.
        let granted = granted + u64::from(long);
        prop_assert!(world.told.throttled <= granted, "{} throttled, {} granted by lost writes", world.told.throttled, granted);
    }

    #[test]
    fn a_store_whose_clock_is_set_grants_no_more_than_one_that_forgot((config, server) in config(), calm in any::<bool>()) {
        let limit = u64::from(server.limit);
        let chaos = if calm { NO_CHAOS } else { CHAOS };
        let clock = 1e6 / (3.0 * server.window as f64);
        let mut world = World::new(Config { chaos: Chaos { clock, ..chaos }, ..config }, server);
        world.run();
        // As for a ledger that is recalled: what was out, or all of it, and the probe.
        let probe = if world.config.belief.told { 1 } else { 1 + (limit / 10).max(1) };
        let most = world.told.clocks * (limit + probe);
        prop_assert!(world.told.throttled <= most, "{} throttled, clock set {} times", world.told.throttled, world.told.clocks);
    }

    #[test]
    fn i8_a_greedy_fleet_uses_96_percent_of_what_strangers_leave(seed in any::<u64>(), rule in prop::sample::select(vec![0, 1, 2, 3, 8, 9]), strangers in prop::sample::select(vec![0.0, 0.1, 0.3])) {
        // Where nothing is told, strangers are not seen; that fleet is alone.
        let strangers = if RULES[rule].4 { strangers } else { 0.0 };
        let part = used_of_what_is_left(seed, rule, strangers);
        prop_assert!(part >= 0.96, "{part:.3} used");
    }

    #[test]
    fn a_recalled_ledger_grants_no_more_than_the_forgotten_one((config, server) in config(), when in 0.0..2.0_f64) {
        let recalled = recall(config, server, when);
        prop_assert!(recalled.throttled <= recalled.most, "{recalled:?}");
    }
}

proptest! {
    // Its worlds are long.
    #![proptest_config(cases(300))]

    #[test]
    fn i7_calls_do_not_wait_for_ever_where_there_is_room((config, server) in truthful(), forgets in any::<bool>(), when in 0.0..2.0_f64) {
        // What is recalled is dated late, and those who had drawn may be silent: that is over after a window.
        let windows = config.beside.iter().map(|(_, server)| server.window).chain([server.window]);
        let most = if forgets { windows.max().unwrap_or(0) + 2 * WAIT } else { 2 * WAIT };
        if let Some((stall, until)) = longest_stall(config, server, forgets.then_some(when)) {
            prop_assert!(stall <= most, "{} ms until {} ms", stall / MS, until / MS);
        }
    }
}

/// Of nine some come back when the fleet has found out already what is there.
#[test]
fn who_comes_late_to_a_recalled_ledger_lets_no_further_scout_go() {
    let window = 20 * S;
    let config = Config {
        seed: 16_800_042_407_490_489_029,
        nodes: 9,
        belief: Belief { told: false, rule: Refill::Log, proven: true },
        demand: 1.5,
        skew: 0.8,
        length: 6 * window,
        chaos: NO_CHAOS,
        to_store: (200, 600),
        to_server: (5 * MS, 150 * MS),
        answers: (0, 0),
        strangers: 0.0,
        clocks: 0,
        beside: None,
    };
    let recalled = recall(config, Server::new(Law::Log, Reset::Silent, 5, window), 1.873_414_683_971_399);
    assert_eq!((recalled.throttled, recalled.most), (0, 3));
}

/// How long calls waited at most where there was room, and until when; none where a throttle was met: then less is used than there
/// is, the rest is what it taught. `forgets`: when the store comes back with nothing, in windows.
fn longest_stall(config: Config, server: Server, forgets: Option<f64>) -> Option<(Us, Us)> {
    let window = server.window;
    let mut world = World::new(config, server);
    if let Some(when) = forgets {
        world.run_to(window + (when * window as f64) as u64);
        world.forget();
    }
    world.run_to(world.now + 30 * S);
    (world.told.throttled == 0).then_some(world.told.longest_stall)
}

#[test]
fn i7_hardly_a_call_waits_for_longer_than_a_lease_where_there_is_room() {
    let mut runner = TestRunner::deterministic();
    for (forgets, most) in [(false, WAIT), (true, 2 * WAIT)] {
        let (mut worlds, mut late) = (0, Vec::new());
        for number in 0..400 {
            let (config, server) = truthful().new_tree(&mut runner).unwrap().current();
            let when = forgets.then_some(f64::from(number) / 200.0);
            if let Some((stall, _)) = longest_stall(config, server, when) {
                worlds += 1;
                late.extend((stall > most).then_some(stall / MS));
            }
        }
        // What was out with others when the state was lost is not known, and may be met by a throttle.
        let least = if forgets { 370 } else { 390 };
        assert!(worlds > least, "{worlds}");
        assert!(late.len() * 50 <= worlds, "{late:?} ms of {worlds} worlds");
    }
}

// ---- How well a quota is used: means over stated worlds ------------------------------------------------------------------

fn mean(parts: &[f64]) -> f64 {
    parts.iter().sum::<f64>() / parts.len() as f64
}

/// A burst takes what was promised to us, so a little is kept for strangers where attempts come back one by one.
#[test]
fn a_log_that_is_told_is_used_up_alone_and_to_most_beside_bursts_of_strangers() {
    for (strangers, least) in [(0.0, 0.97), (0.3, 0.85)] {
        let seeds = (0..100).flat_map(|seed| (4..8).map(move |rule| (seed, rule)));
        let parts: Vec<f64> = seeds.map(|(seed, rule)| used_of_what_is_left(seed, rule, strangers)).collect();
        assert!(mean(&parts) >= least, "{:.3} with strangers at {strangers}", mean(&parts));
    }
}

#[test]
fn a_fleet_that_lost_some_uses_what_the_dead_left() {
    for (rules, least) in [(0..4, 0.99), (4..8, 0.97)] {
        let seeds = rules.flat_map(|rule| (0..100).map(move |seed| (seed, rule)));
        let part = |(seed, rule)| {
            let after = crash(seed, rule, 1 + seed as usize % 3);
            (after.used + 2 * after.had) as f64 / 700.0
        };
        let parts: Vec<f64> = seeds.map(part).collect();
        assert!(mean(&parts) >= least, "{:.3}", mean(&parts));
    }
}
