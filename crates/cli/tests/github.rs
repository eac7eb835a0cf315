//! The page about GitHub shows what happens: its scenario is served, its commands are run, and what it shows is in their answers.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use serde_json::Value;
use tidegate_sim::Scenario;

const PAGE: &str = include_str!("../../../docs/github.md");

/// Fenced blocks in order: what follows the fence, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let fenced = PAGE.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').unwrap()).collect()
}

/// `tidegate serve` with free ports; killed at the end.
struct Gateway {
    child: Child,
    calls: String,
    admin: String,
}

impl Gateway {
    fn start(world: &common::World) -> Self {
        let mut command = common::tidegate(world.folder.path());
        command.args(["serve", "--profile", "github", "--api", &world.sim.url()]);
        let mut child = command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut address = |before: &str| lines.next().unwrap().strip_prefix(before).unwrap().to_owned();
        let (calls, admin) = (address("listening on http://"), address("admin on http://"));
        Self { child, calls, admin }
    }

    /// What a block of commands of the page prints.
    fn run(&self, commands: &str) -> String {
        let commands = commands.replace("127.0.0.1:8787", &self.calls).replace("127.0.0.1:8788", &self.admin);
        // The test reads JSON itself.
        let commands = commands.lines().map(|line| line.split(" | jq ").next().unwrap());
        let commands = format!("set -e\n{}", commands.collect::<Vec<_>>().join("\n"));
        let mut shell = Command::new("sh");
        let ran = shell.args(["-c", &commands]).env("TOKEN", "ghp_anything").output().unwrap();
        assert!(ran.status.success(), "{commands}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap().replace('\r', "")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Asserts that every line is there, in this order.
#[track_caller]
fn assert_shown(shown: &str, printed: &str) {
    let mut rest = printed;
    for line in shown.lines() {
        let line = line.trim();
        let place =
            rest.find(line).unwrap_or_else(|| panic!("`{line}` is missing, or not there, in:\n{printed}"));
        rest = &rest[place + line.len()..];
    }
}

#[track_caller]
fn assert_gates(shown: &str, printed: &str) {
    let shown: Vec<Value> = serde_json::from_str(shown).unwrap();
    let state: Value = serde_json::from_str(printed).unwrap();
    let gates = state["tenants"][0]["gates"].as_array().unwrap();
    for gate in &shown {
        let is = gates.iter().find(|is| is["name"] == gate["name"]).unwrap_or(&Value::Null);
        for (key, value) in gate.as_object().unwrap() {
            assert_eq!(&is[key], value, "{key} of {is}");
        }
    }
}

#[test]
fn the_page_about_github_shows_what_its_commands_print() {
    let blocks = blocks();
    let (_, scenario) = blocks.iter().find(|(kind, _)| *kind == "toml").unwrap();
    let server = Scenario::from_toml(scenario).unwrap().server;
    let world = common::World::new(&toml::to_string(&server).unwrap());
    let gateway = Gateway::start(&world);
    let mut ran = 0;
    for pair in blocks.windows(2) {
        let [("sh run", commands), (kind, shown)] = pair else { continue };
        let printed = gateway.run(commands);
        match *kind {
            "json" => assert_gates(shown, &printed),
            _ => assert_shown(shown, &printed),
        }
        ran += 1;
    }
    assert_eq!(ran, 6, "every block is run and shows what it prints");
    let stats = world.sim.stats();
    assert_eq!(stats.throttled, 1, "the secondary limit, once");
    assert_eq!(stats.statuses.get(&304), Some(&1));
}
