//! Who may depend on whom.
//!
//! Why a check and not a habit: one convenient `use` is enough to pull a runtime into the core or to let the
//! simulator share a parser with the code it judges, and neither shows in a test. The rules:
//!
//! * dependencies between our packages follow [`ALLOWED`]; a package that is missing there is itself a violation, so
//!   that its place is decided and not found;
//! * tests may use the simulator, except those of the core and of the simulator;
//! * nothing in [`IMPURE`] is reachable from the core through normal dependencies, on any platform.
//!
//! Edges between our packages are read from the manifests, so that an optional dependency counts although no feature
//! switches it on. What the core reaches is read from the resolved graph of the whole workspace.

use std::collections::{BTreeMap, VecDeque};

use crate::metadata::{Metadata, Package};

/// The package that decides and does nothing else.
const CORE: &str = "tidegate-core";

/// The package that plays the server.
const SIMULATOR: &str = "tidegate-sim";

/// The package that says what a store of shared quota is.
const QUOTA: &str = "tidegate-quota";

/// What a package of ours may depend on among our packages.
enum May {
    /// These and no others.
    Only(&'static [&'static str]),
    /// All of them: it joins the rest into a program.
    All,
}

/// The direction of dependencies.
const ALLOWED: &[(&str, May)] = &[
    (CORE, May::Only(&[])),
    // The independent oracle: if it used the core's types, one mistake would hide in both.
    (SIMULATOR, May::Only(&[])),
    (QUOTA, May::Only(&[CORE])),
    // Nobody but the program knows a backend.
    ("tidegate-quota-dynamodb", May::Only(&[CORE, QUOTA])),
    ("tidegate-quota-redis", May::Only(&[CORE, QUOTA])),
    ("tidegate", May::Only(&[CORE, QUOTA])),
    ("tidegate-telemetry", May::Only(&[CORE, "tidegate"])),
    ("tidegate-store", May::Only(&[CORE])),
    ("tidegate-bulk", May::Only(&[CORE, "tidegate", "tidegate-store"])),
    ("tidegate-gateway", May::Only(&[CORE, "tidegate", "tidegate-store", "tidegate-telemetry"])),
    // The lab joins the core to the simulator's models in virtual time, and the client to the simulator on sockets.
    ("tidegate-lab", May::Only(&[CORE, QUOTA, "tidegate", SIMULATOR])),
    ("tidegate-cli", May::All),
    ("xtask", May::Only(&[])),
];

/// What the core must not reach, with what it would bring in.
const IMPURE: &[(&str, &str)] = &[
    ("async-std", "a runtime"),
    ("getrandom", "the system's randomness"),
    ("hyper", "sockets"),
    ("mio", "sockets"),
    ("rand", "the system's randomness"),
    ("reqwest", "sockets"),
    ("rustls", "sockets' business"),
    ("smol", "a runtime"),
    ("socket2", "sockets"),
    ("tokio", "a runtime"),
];

/// Every violation of the rules, one sentence each.
pub(crate) fn violations(metadata: &Metadata) -> Vec<String> {
    let ours: Vec<&Package> = metadata.members().collect();
    let mut problems = Vec::new();
    for package in &ours {
        let Some((_, may)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            problems.push(format!(
                "`{}` has no place in the order: add it to ALLOWED in xtask/src/layering.rs",
                package.name
            ));
            continue;
        };
        let names: Vec<&str> = ours.iter().map(|other| other.name.as_str()).collect();
        problems.extend(forbidden_edges(package, may, &names));
    }
    problems.extend(impure_reach(metadata));
    problems
}

/// Edges of one package to packages of ours that it may not use.
fn forbidden_edges(package: &Package, may: &May, ours: &[&str]) -> Vec<String> {
    let May::Only(allowed) = may else { return Vec::new() };
    let tests_may_simulate = package.name != CORE && package.name != SIMULATOR;
    let mut problems = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        let for_tests = dependency.kind.as_deref() == Some("dev");
        let fine = !ours.contains(&name)
            || allowed.contains(&name)
            || (for_tests && tests_may_simulate && name == SIMULATOR);
        if !fine {
            let how = dependency.kind.as_deref().unwrap_or("normal");
            problems.push(format!("`{}` may not depend on `{name}` ({how} dependency)", package.name));
        }
    }
    problems
}

/// Packages of [`IMPURE`] that the core reaches, each with the shortest way there.
fn impure_reach(metadata: &Metadata) -> Vec<String> {
    let Some(core) = metadata.members().find(|package| package.name == CORE) else {
        return vec![format!("`{CORE}` is not a member of the workspace")];
    };
    let came_from = normal_closure(metadata, &core.id);
    let mut problems = Vec::new();
    for id in came_from.keys() {
        let Some(package) = metadata.package(id) else { continue };
        if let Some((name, brings)) = IMPURE.iter().find(|(name, _)| *name == package.name) {
            let way = way_to(metadata, &came_from, id).join(" -> ");
            problems.push(format!("the core reaches `{name}`, which brings {brings}: {way}"));
        }
    }
    problems
}

/// Everything reachable by normal dependencies, each with the package it was first reached from.
fn normal_closure<'m>(metadata: &'m Metadata, start: &'m str) -> BTreeMap<&'m str, Option<&'m str>> {
    let mut came_from = BTreeMap::from([(start, None)]);
    let mut queue = VecDeque::from([start]);
    while let Some(id) = queue.pop_front() {
        let Some(node) = metadata.resolve.nodes.iter().find(|node| node.id == id) else { continue };
        for edge in &node.deps {
            let normal = edge.dep_kinds.iter().any(|kind| kind.kind.is_none());
            if normal && !came_from.contains_key(edge.pkg.as_str()) {
                came_from.insert(&edge.pkg, Some(id));
                queue.push_back(&edge.pkg);
            }
        }
    }
    came_from
}

/// Names on the way from the start of a closure to `id`.
fn way_to<'m>(
    metadata: &'m Metadata,
    came_from: &BTreeMap<&str, Option<&'m str>>,
    id: &'m str,
) -> Vec<&'m str> {
    let mut way = Vec::new();
    let mut next = Some(id);
    while let Some(id) = next {
        way.push(metadata.package(id).map_or(id, |package| package.name.as_str()));
        next = came_from.get(id).copied().flatten();
    }
    way.reverse();
    way
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Name, whether it is ours, and its dependencies with their kinds.
    type Entry<'e> = (&'e str, bool, &'e [(&'e str, Option<&'e str>)]);

    /// A workspace whose ids are the names.
    fn workspace(packages: &[Entry<'_>]) -> Metadata {
        let package = |(name, _, deps): &Entry<'_>| -> Value {
            let declared: Vec<Value> =
                deps.iter().map(|(name, kind)| json!({ "name": name, "kind": kind })).collect();
            json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": null,
                "dependencies": declared, "targets": [] })
        };
        let node = |(name, _, deps): &Entry<'_>| -> Value {
            let edges: Vec<Value> = deps
                .iter()
                .map(|(name, kind)| json!({ "pkg": name, "dep_kinds": [{ "kind": kind, "target": null }] }))
                .collect();
            json!({ "id": name, "deps": edges, "features": [] })
        };
        let members: Vec<&str> = packages.iter().filter(|p| p.1).map(|p| p.0).collect();
        let value = json!({
            "packages": packages.iter().map(package).collect::<Vec<_>>(),
            "resolve": { "nodes": packages.iter().map(node).collect::<Vec<_>>() },
            "workspace_members": members,
            "target_directory": "target",
        });
        Metadata::parse(&value.to_string()).unwrap()
    }

    const NORMAL: Option<&str> = None;
    const DEV: Option<&str> = Some("dev");

    #[test]
    fn the_order_of_the_design_passes() {
        let found = violations(&workspace(&[
            ("tidegate-core", true, &[("serde", NORMAL), ("proptest", DEV)]),
            ("tidegate-sim", true, &[("tokio", NORMAL)]),
            ("tidegate", true, &[("tidegate-core", NORMAL), ("tidegate-sim", DEV), ("tokio", NORMAL)]),
            ("tidegate-cli", true, &[("tidegate", NORMAL), ("tidegate-sim", NORMAL)]),
            ("serde", false, &[]),
            ("proptest", false, &[("rand", NORMAL)]),
            ("rand", false, &[("getrandom", NORMAL)]),
            ("getrandom", false, &[]),
            ("tokio", false, &[("mio", NORMAL)]),
            ("mio", false, &[]),
        ]));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn the_core_may_not_reach_a_runtime_and_the_way_is_shown() {
        let found = violations(&workspace(&[
            ("tidegate-core", true, &[("uuid", NORMAL)]),
            ("uuid", false, &[("rng", NORMAL), ("tokio", DEV)]),
            ("rng", false, &[("getrandom", NORMAL)]),
            ("getrandom", false, &[]),
            ("tokio", false, &[]),
        ]));
        let way = "tidegate-core -> uuid -> rng -> getrandom";
        assert_eq!(
            found,
            [format!("the core reaches `getrandom`, which brings the system's randomness: {way}")]
        );
    }

    #[test]
    fn all_wrong_edges_are_reported_at_once() {
        let found = violations(&workspace(&[
            ("tidegate-core", true, &[("tidegate-sim", DEV)]),
            ("tidegate-sim", true, &[("tidegate-core", NORMAL)]),
            ("tidegate-store", true, &[("tidegate", NORMAL), ("tidegate-core", NORMAL)]),
            ("tidegate", true, &[("tidegate-core", NORMAL), ("tidegate-sim", NORMAL)]),
        ]));
        assert_eq!(
            found,
            [
                "`tidegate-core` may not depend on `tidegate-sim` (dev dependency)",
                "`tidegate-sim` may not depend on `tidegate-core` (normal dependency)",
                "`tidegate-store` may not depend on `tidegate` (normal dependency)",
                "`tidegate` may not depend on `tidegate-sim` (normal dependency)",
            ]
        );
    }

    #[test]
    fn a_package_without_a_place_is_a_violation() {
        let found = violations(&workspace(&[("tidegate-core", true, &[]), ("tidegate-new", true, &[])]));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("tidegate-new"), "{found:?}");
    }

    #[test]
    fn cycles_among_other_peoples_packages_do_not_hang_the_walk() {
        let found = violations(&workspace(&[
            ("tidegate-core", true, &[("a", NORMAL)]),
            ("a", false, &[("b", NORMAL)]),
            ("b", false, &[("a", NORMAL)]),
        ]));
        assert_eq!(found, Vec::<String>::new());
    }
}
