//! The parts of `cargo metadata` that the checks read.

use std::path::PathBuf;

use serde::Deserialize;

use crate::{command::Program, failure::Failure};

/// The workspace and everything it depends on.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// Every package of the graph, ours and others'.
    pub(crate) packages: Vec<Package>,
    /// Ids of our own packages.
    pub(crate) workspace_members: Vec<String>,
    /// The resolved graph.
    pub(crate) resolve: Resolve,
    /// Where cargo puts what it builds.
    pub(crate) target_directory: PathBuf,
}

/// One package.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Opaque id, unique in the graph.
    pub(crate) id: String,
    /// Name in its manifest.
    pub(crate) name: String,
    /// Version in its manifest.
    pub(crate) version: String,
    /// SPDX expression, where the manifest has one.
    pub(crate) license: Option<String>,
    /// Where it comes from; nothing for a path.
    pub(crate) source: Option<String>,
    /// What its manifest asks for, also what no feature has switched on.
    pub(crate) dependencies: Vec<Declared>,
    /// What can be built from it.
    pub(crate) targets: Vec<Target>,
}

/// A dependency as the manifest declares it.
#[derive(Debug, Deserialize)]
pub(crate) struct Declared {
    /// Name of the package that is depended on.
    pub(crate) name: String,
    /// Nothing for a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// Something that can be built from a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: String,
    /// `lib`, `bin`, `test`, `bench`, ...
    pub(crate) kind: Vec<String>,
}

/// The resolved graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    /// One node per package.
    pub(crate) nodes: Vec<Node>,
}

/// One package's edges.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    /// Id of the package.
    pub(crate) id: String,
    /// What it depends on.
    pub(crate) deps: Vec<Edge>,
    /// Features that anything in the workspace switches on.
    pub(crate) features: Vec<String>,
}

/// One edge of the graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Edge {
    /// Id of the package that is depended on.
    pub(crate) pkg: String,
    /// Why: one entry per kind and platform.
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

/// The kind of an edge.
#[derive(Debug, Deserialize)]
pub(crate) struct EdgeKind {
    /// Nothing for a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self, Failure> {
        let text = Program::cargo().args(["metadata", "--format-version", "1", "--locked"]).read()?;
        Self::parse(&text)
    }

    /// Reads what cargo printed.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        serde_json::from_str(text)
            .map_err(|error| Failure::new(format!("`cargo metadata` printed something unexpected: {error}")))
    }

    /// The package with this id.
    pub(crate) fn package(&self, id: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.id == id)
    }

    /// Our own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}
