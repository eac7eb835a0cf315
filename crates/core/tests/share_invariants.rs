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
use share_world::node::Belief;
use share_world::server::{Law, Reset, Server};
use share_world::{Chaos, Config, MS, S, World};
use tidegate_core::share::{Ledger, Refill};

const NO_CHAOS: Chaos =
    Chaos { lose: 0.0, repeat: 0.0, late: 0.0, kill: 0.0, cut_off: 0.0, lost_attempts: 0.0 };
const CHAOS: Chaos =
    Chaos { lose: 0.05, repeat: 0.1, late: 0.05, kill: 0.2, cut_off: 0.5, lost_attempts: 0.02 };

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

fn config() -> impl Strategy<Value = (Config, Server)> {
    let fleet = (any::<u64>(), 0..RULES.len(), 1..12_u64);
    let limit =
        (prop::sample::select(vec![1, 5, 30, 300]), prop::sample::select(vec![S, 2 * S, 5 * S, 20 * S]));
    let load = (prop::sample::select(vec![0.5, 1.5, 3.0]), any::<bool>(), any::<bool>());
    (fleet, limit, load).prop_map(|((seed, rule, nodes), (limit, window), (demand, near, slow))| {
        let (law, reset, rule, proven, told) = RULES[rule];
        let config = Config {
            seed,
            nodes,
            belief: Belief { told, rule, proven },
            demand,
            skew: 0.8,
            length: 8 * window,
            chaos: NO_CHAOS,
            to_store: if near { (200, 600) } else { (MS, 20 * MS) },
            to_server: if slow { (5 * MS, 150 * MS) } else { (10 * MS, 20 * MS) },
            strangers: 0.0,
            clocks: 0,
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
        length: 16 * window,
        chaos: NO_CHAOS,
        to_store: (200, 600),
        to_server: (10 * MS, 20 * MS),
        strangers,
        clocks: 0,
    };
    let mut world = World::new(config, Server::new(law, reset, 100, window));
    world.run_to(5 * window);
    let (accepted, others) = (world.told.accepted, world.told.strangers);
    world.run();
    let others = world.told.strangers - others;
    let ours = world.told.accepted - accepted - others;
    ours as f64 / (11 * 100 - others) as f64
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
        let (law, reset, rule, proven, told) = RULES[rule];
        let window = 10 * S;
        let config = Config {
            seed,
            nodes: 8,
            belief: Belief { told, rule, proven },
            demand: 3.0,
            skew: 0.0,
            length: 8 * window,
            chaos: NO_CHAOS,
            to_store: (200, 600),
            to_server: (10 * MS, 20 * MS),
            strangers: 0.0,
            clocks: 0,
        };
        let mut world = World::new(config, Server::new(law, reset, 300, window));
        // In the middle of spending, with permits in hand.
        let when = world.rng.u64(0..window);
        world.run_to(4 * window + when);
        let state = serde_json::to_value(&world.ledger).unwrap();
        let limit = state["limits"].as_object().unwrap().values().next().unwrap();
        let unspent = |node: usize| limit["rows"][format!("{:016x}", world.nodes[node].id)]["unspent"].as_u64();
        let had: u64 = (0..killed).filter_map(unspent).sum();
        // Twice an equal part of what comes back within a lease, at most everything, and one of half of what is there.
        prop_assert!(had <= (300 / 4 + 300 / 16 + 1) * killed as u64, "{had} in hand");
        (0..killed).for_each(|node| world.dies(node));
        let before = world.told.accepted;
        world.run_to(world.now + 7 * window);
        // What the dead had is missing for one window, and for as long as they may be alive; after that there is no trace of
        // it. (Where attempts come back in bunches, a whole quota may lie on either side of the end.)
        let used = world.told.accepted - before;
        prop_assert!(used + 2 * had >= 7 * 291 - 300, "{} used, {} lost", used, had);
        prop_assert_eq!(world.told.throttled, 0);
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
    fn i6_lost_writes_overgrant_no_more_than_their_chunks((config, server) in config(), lost in 0.0..1.0_f64) {
        let window = server.window;
        let mut world = World::new(Config { nodes: config.nodes.max(2), ..config }, server);
        world.run_to(3 * window + window / 3);
        let old = world.remember();
        world.run_to(world.now + (lost * 1e5) as u64);
        let granted = world.told.granted;
        world.ledger = old;
        world.run();
        prop_assert!(world.told.throttled <= granted, "{} throttled, {} granted by lost writes", world.told.throttled, granted);
    }

    #[test]
    fn i8_a_greedy_fleet_uses_96_percent_of_what_strangers_leave(seed in any::<u64>(), rule in prop::sample::select(vec![0, 1, 2, 3, 8, 9]), strangers in prop::sample::select(vec![0.0, 0.1, 0.3])) {
        // Where nothing is told, strangers are not seen; that fleet is alone.
        let strangers = if RULES[rule].4 { strangers } else { 0.0 };
        let part = used_of_what_is_left(seed, rule, strangers);
        prop_assert!(part >= 0.96, "{part:.3} used");
    }

    #[test]
    fn a_log_that_is_told_keeps_a_little_and_more_beside_bursts_of_strangers(seed in any::<u64>(), rule in 4..8_usize, alone in any::<bool>()) {
        let part = used_of_what_is_left(seed, rule, if alone { 0.0 } else { 0.3 });
        prop_assert!(part >= if alone { 0.94 } else { 0.80 }, "{part:.3} used");
    }

    #[test]
    fn a_recalled_ledger_grants_no_more_than_the_forgotten_one((config, server) in config(), when in 0.0..2.0_f64) {
        let window = server.window;
        let limit = u64::from(server.limit);
        let mut world = World::new(Config { nodes: config.nodes.max(2), ..config }, server);
        world.run_to(3 * window + (when * window as f64) as u64);
        let out: u64 = world.ledger.view(world.store_time()).iter().map(|limit| u64::from(limit.out)).sum();
        world.ledger = Ledger::new(world.store_time(), 99);
        world.run();
        // What was out with holders that have not spoken yet is not known. One scout finds that out; where nothing is told, a
        // tenth of the quota may leave beside it.
        let probe = if world.config.belief.told { 1 } else { 1 + (limit / 10).max(1) };
        prop_assert!(world.told.throttled <= out.min(limit) + probe, "{} throttled, {} were out", world.told.throttled, out);
    }
}
