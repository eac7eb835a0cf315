//! The language environments of the proofs, installed once and kept until their pins change.
//!
//! Both lie below cargo's target folder, so that nothing is written into the source tree. A stamp with the text of the
//! pins is written last: an environment without it, or with another, is made anew, so an interrupted install heals.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Places, program::make_empty};
use crate::{
    command::{Program, root, starts},
    failure::Failure,
};

/// File in an environment that holds the pins it was made from.
const STAMP: &str = "installed-pins.txt";

/// Files of the Node environment, copied so that `node_modules` is not made in the source tree. The script goes along
/// because Node looks for packages beside the importing file.
const NODE_FILES: &[&str] = &["package.json", "package-lock.json", ".npmrc", "node_sdk.mjs"];

/// Makes the Python environment.
pub(crate) fn python() -> Result<(), Failure> {
    let places = Places::find()?;
    venv(&places.venv, &root().join("tests/sdk/requirements.txt"), &[]).map(drop)
}

/// Makes a Python environment in `folder` from a list of pins, unless it is there, and brings its interpreter.
pub(crate) fn venv(folder: &Path, requirements: &Path, flags: &[&str]) -> Result<PathBuf, Failure> {
    let (pins, python) = (read(requirements)?, folder.join("bin/python"));
    if is_current(folder, &pins) && starts(&python.to_string_lossy(), &["--version"]) {
        eprintln!("{} is up to date", folder.display());
        return Ok(python);
    }
    if !starts("python3", &["-c", "import venv, ensurepip"]) {
        return Err(Failure::new("python3 with its venv and ensurepip modules is not installed")
            .hint("on Debian: apt-get install python3-venv"));
    }
    make_empty(folder)?;
    Program::new("python3").args(["-m", "venv"]).args([folder]).run()?;
    Program::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .args([requirements])
        .args(flags)
        .run()?;
    write(&folder.join(STAMP), &pins)?;
    Ok(python)
}

/// Makes the Node environment.
pub(crate) fn node() -> Result<(), Failure> {
    let places = Places::find()?;
    let source = root().join("tests/sdk");
    let pins = format!("{}{}", read(&source.join("package.json"))?, read(&source.join("package-lock.json"))?);
    let current = is_current(&places.node, &pins);
    if !current {
        if !starts("npm", &["--version"]) {
            return Err(Failure::new("node and npm are not installed")
                .hint("on Debian: apt-get install nodejs npm (18 or newer)"));
        }
        make_empty(&places.node)?;
    }
    for name in NODE_FILES {
        write(&places.node.join(name), &read(&source.join(name))?)?;
    }
    if current {
        eprintln!("{} is up to date", places.node.display());
        return Ok(());
    }
    Program::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&places.node).run()?;
    write(&places.node.join(STAMP), &pins)
}

fn is_current(environment: &Path, pins: &str) -> bool {
    fs::read_to_string(environment.join(STAMP)).is_ok_and(|stamp| stamp == pins)
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_current_only_with_the_same_pins() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_current(folder.path(), "a==1"), "an install that never finished has no stamp");
        write(&folder.path().join(STAMP), "a==1").unwrap();
        assert!(is_current(folder.path(), "a==1"));
        assert!(!is_current(folder.path(), "a==2"));
    }

    #[test]
    fn every_python_requirement_is_pinned() {
        let pins = read(&root().join("tests/sdk/requirements.txt")).unwrap();
        let lines = pins.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            assert!(line.contains("=="), "`{line}` is not pinned");
        }
    }

    #[test]
    fn the_lock_file_names_no_registry_and_every_package_has_a_digest() {
        let text = read(&root().join("tests/sdk/package-lock.json")).unwrap();
        let lock: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (name, package) in lock["packages"].as_object().unwrap() {
            assert!(package.get("resolved").is_none(), "{name} names where it was fetched from");
            assert!(name.is_empty() || package["integrity"].is_string(), "{name} has no digest");
        }
    }
}
