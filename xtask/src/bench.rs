//! Benchmarks by name: `cargo xtask bench NAME [ARGS]` finds the package that has it.

use crate::{
    command::Program,
    dynamodb,
    failure::Failure,
    metadata::{Metadata, Package},
    redis,
};

/// The benchmark that needs a Redis server and an emulator of DynamoDB.
const SHARED: &str = "fleet";

/// Prints every benchmark of the workspace.
pub(crate) fn list() -> Result<(), Failure> {
    let metadata = Metadata::load()?;
    let found = all(&metadata);
    if found.is_empty() {
        eprintln!("the workspace has no benchmarks");
    }
    for (package, bench) in found {
        println!("{bench}  (in {})", package.name);
    }
    Ok(())
}

/// Runs one benchmark in release mode; what follows the name is handed to it.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Result<(), Failure> {
    let metadata = Metadata::load()?;
    let found = all(&metadata);
    let Some((package, _)) = found.iter().find(|(_, bench)| *bench == name) else {
        let names: Vec<&str> = found.iter().map(|(_, bench)| *bench).collect();
        return Err(Failure::new(format!("there is no benchmark `{name}`"))
            .hint(format!("the workspace has: {}", names.join(", "))));
    };
    let mut bench = Program::cargo().args(["bench", "--locked", "-p", &package.name, "--bench", name]);
    if name == SHARED {
        bench = bench
            .args(["--features", "dynamodb"])
            .env(redis::VARIABLE, &redis::server()?.to_string_lossy())
            .env(dynamodb::VARIABLE, &dynamodb::python()?.to_string_lossy());
    }
    bench.args(["--"]).args(arguments).run()
}

fn all(metadata: &Metadata) -> Vec<(&Package, &str)> {
    let benches = |package| benches_of(package).map(move |bench| (package, bench));
    metadata.members().flat_map(benches).collect()
}

fn benches_of(package: &Package) -> impl Iterator<Item = &str> {
    let targets = package.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "bench"));
    targets.map(|target| target.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_our_own_benchmarks_are_offered() {
        let package = |name: &str| {
            json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": null, "dependencies": [],
                "targets": [{ "name": name, "kind": ["lib"] }, { "name": format!("{name}-speed"), "kind": ["bench"] }] })
        };
        let value = json!({ "packages": [package("tidegate-core"), package("serde")], "resolve": { "nodes": [] },
            "workspace_members": ["tidegate-core"], "target_directory": "target" });
        let metadata = Metadata::parse(&value.to_string()).unwrap();
        let names: Vec<&str> = all(&metadata).into_iter().map(|(_, bench)| bench).collect();
        assert_eq!(names, ["tidegate-core-speed"]);
    }
}
