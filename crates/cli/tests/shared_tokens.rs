//! Programs that log in as one client and meet in a store: who logs in, and how often.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a panic is how a test fails; real processes take real time; the server's module serves other tests too"
)]

mod common;
#[path = "../../quota-redis/tests/redis/server.rs"]
mod server;

use common::{Running, World};
use server::Server;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Exports that run at the same time, each a process of its own.
fn exports(world: &World, count: usize, set: &[(&str, &str)]) {
    let start = |_| {
        let mut command = world.command(&["export", "/api/v2/routing/skills", "--api", &world.sim.url()]);
        command.env("TIDEGATE_QUOTA_STAGGER", "off").envs(set.iter().copied());
        Running::new(command.spawn().unwrap())
    };
    let running: Vec<Running> = (0..count).map(start).collect();
    for export in running {
        let ran = export.end();
        ran.assert(0, &[]);
        assert_eq!(ran.out.lines().count(), 20);
        assert!(!ran.err.contains(KEY), "{}", ran.err);
    }
}

fn logins(world: &World) -> u64 {
    world.sim.stats().oauth.calls
}

#[test]
fn with_a_token_key_a_fleet_logs_in_once_else_each_process_does() {
    let world = World::new("[oauth]\nlatency = \"200ms\"");
    let server = Server::start(&[]);
    let url = server.url();
    let store = ("TIDEGATE_QUOTA_STORE", url.as_str());
    let shared = [store, ("TIDEGATE_QUOTA_TOKEN_KEY", KEY)];
    exports(&world, 4, &shared);
    assert_eq!(logins(&world), 1);
    // Those that come later find it as well.
    exports(&world, 2, &shared);
    assert_eq!(logins(&world), 1);
    exports(&world, 3, &[store]);
    assert_eq!(logins(&world), 1 + 3);
    assert_eq!(world.sim.stats().oauth.overlap_max, 1, "one after the other");
    // A fleet with another key cannot open what is there, and does not wait for it.
    let other = [store, ("TIDEGATE_QUOTA_TOKEN_KEY", "fedcba9876543210fedcba9876543210")];
    exports(&world, 1, &other);
    assert_eq!(logins(&world), 1 + 3 + 1);
}
