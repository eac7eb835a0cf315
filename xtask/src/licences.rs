//! Licences, sources and bans of every dependency.
//!
//! Why not `cargo deny`: building it takes longer than this project's whole test run, and of its four checks the one
//! that needs it, advisories, needs a database that a CI machine without the open network cannot fetch. The other
//! three are read here from `cargo metadata` in milliseconds: every package has an SPDX expression that the licences
//! of [`ACCEPTED`] satisfy, comes from a path of this repository or from one registry, and is not in [`BANNED`].
//!
//! Edge cases: the old `MIT/Apache-2.0` means `OR`; an exception (`WITH ...`) only adds permissions, so the licence
//! before it decides.

use crate::metadata::{Metadata, Package};

/// Licences whose terms this project keeps by shipping its notices.
const ACCEPTED: &[&str] = &[
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    // Boost's, which asks for its text in sources only: a hash function under the Redis client.
    "BSL-1.0",
    // The list of web root certificates, which is data.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Packages that must not enter the graph, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("native-tls", "TLS is rustls everywhere, so that certificates are checked the same way everywhere"),
    ("openssl-sys", "TLS is rustls; a system library would make the program depend on the machine"),
];

/// Features that must not be switched on, as package, feature and reason.
const BANNED_FEATURES: &[(&str, &str, &str)] = &[(
    "rustls",
    "ring",
    "aws-lc-rs is the provider; with two of them rustls cannot choose and panics at its first use",
)];

/// Every dependency that may not be used, one sentence each.
pub(crate) fn violations(metadata: &Metadata) -> Vec<String> {
    let registries = |package: &&Package| package.source.as_deref().is_some_and(is_registry);
    let registry = metadata.packages.iter().find(registries).and_then(|package| package.source.as_deref());
    let mut problems: Vec<String> =
        metadata.packages.iter().flat_map(|package| problems_of(package, registry)).collect();
    for node in &metadata.resolve.nodes {
        let Some(package) = metadata.package(&node.id) else { continue };
        for (name, feature, reason) in BANNED_FEATURES {
            if package.name == *name && node.features.iter().any(|on| on == feature) {
                problems.push(format!("`{name}` is built with its feature `{feature}`: {reason}"));
            }
        }
    }
    problems
}

fn problems_of(package: &Package, registry: Option<&str>) -> Vec<String> {
    let name = format!("`{} {}`", package.name, package.version);
    let mut problems = Vec::new();
    match package.license.as_deref().map(|text| (text, satisfied(text))) {
        None => problems.push(format!("{name} declares no licence")),
        Some((_, Ok(true))) => {}
        Some((text, Ok(false))) => {
            problems.push(format!("{name} is under `{text}`, which no accepted licence satisfies"));
        }
        Some((text, Err(why))) => {
            problems.push(format!("{name} declares `{text}`, which is no licence expression: {why}"));
        }
    }
    if let Some(source) = package.source.as_deref()
        && Some(source) != registry
    {
        problems.push(format!("{name} comes from {source}; only the one package registry may be used"));
    }
    if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == package.name) {
        problems.push(format!("{name} is banned: {reason}"));
    }
    problems
}

fn is_registry(source: &str) -> bool {
    source.starts_with("registry+")
}

/// Whether an SPDX expression is satisfied by the accepted licences.
fn satisfied(expression: &str) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words };
    let value = parser.either()?;
    match parser.words.first() {
        None => Ok(value),
        Some(word) => Err(format!("`{word}` is not expected")),
    }
}

/// Reads `OR` of `AND` of licences and parentheses; each method returns whether what it read is satisfied.
struct Parser<'w> {
    words: &'w [&'w str],
}

impl<'w> Parser<'w> {
    fn either(&mut self) -> Result<bool, String> {
        let mut value = self.both()?;
        while self.take("OR") {
            // The operand is read even when the value is already known, so that its syntax is checked.
            value |= self.both()?;
        }
        Ok(value)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut value = self.one()?;
        while self.take("AND") {
            value &= self.one()?;
        }
        Ok(value)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let value = self.either()?;
            return if self.take(")") { Ok(value) } else { Err("a `)` is missing".to_owned()) };
        }
        let licence = self.next().ok_or("a licence is missing")?;
        if ["AND", "OR", "WITH", ")"].contains(&licence) {
            return Err(format!("`{licence}` stands where a licence should"));
        }
        if self.take("WITH") {
            self.next().ok_or("an exception is missing")?;
        }
        Ok(ACCEPTED.contains(&licence))
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn next(&mut self) -> Option<&'w str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn expressions_are_judged_by_their_logic() {
        for fine in [
            "MIT",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "GPL-3.0-only OR MIT",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
            "(MIT OR GPL-3.0-only) AND Unicode-3.0",
            "ISC AND (Apache-2.0 OR ISC)",
            "MIT OR GPL-3.0-only AND LGPL-3.0",
        ] {
            assert_eq!(satisfied(fine), Ok(true), "{fine}");
        }
        for refused in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT OR ISC) AND AGPL-3.0", "MPL-2.0"] {
            assert_eq!(satisfied(refused), Ok(false), "{refused}");
        }
    }

    #[test]
    fn broken_expressions_are_errors_even_behind_a_satisfied_choice() {
        for broken in ["", "MIT OR", "(MIT", "MIT)", "MIT OR (ISC AND)", "AND MIT", "MIT WITH", "MIT ISC"] {
            assert!(satisfied(broken).is_err(), "{broken}");
        }
    }

    fn package(name: &str, license: Option<&str>, source: Option<&str>) -> Value {
        json!({ "id": name, "name": name, "version": "1.2.3", "license": license, "source": source,
            "dependencies": [], "targets": [] })
    }

    #[test]
    fn licence_source_and_ban_are_reported_at_once() {
        let registry = Some("registry+the-usual-one");
        let value = json!({
            "packages": [
                package("tidegate-core", Some("MIT OR Apache-2.0"), None),
                package("good", Some("MIT"), registry),
                package("forked", Some("MIT"), Some("git+somewhere")),
                package("private", Some("MIT"), Some("registry+another")),
                package("native-tls", Some("MIT"), registry),
                package("rustls", Some("MIT"), registry),
                package("silent", None, registry),
                package("strict", Some("GPL-3.0-only"), registry),
            ],
            "resolve": { "nodes": [{ "id": "rustls", "deps": [], "features": ["std", "ring"] }] },
            "workspace_members": [], "target_directory": "target",
        });
        let found = violations(&Metadata::parse(&value.to_string()).unwrap());
        let named: Vec<&str> = found.iter().map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(
            named,
            ["`forked", "`private", "`native-tls", "`silent", "`strict", "`rustls`"],
            "{found:?}"
        );
    }
}
