//! The SDK proofs: the official SDKs, unmodified, and the example programs, against the real binary.
//!
//! Why real programs: a gateway is right when programs that know nothing of it work. The same SDKs are also run
//! straight at the simulator, where they must fail; otherwise the simulator would prove nothing.
//!
//! Rules: every proof gets a simulator and a gateway of its own on ports the system chooses; all proofs run even if
//! one fails; the simulator's own record is the judge, not the program's word; nothing of the developer's own
//! settings (proxies, home folder, `TIDEGATE_*`, `GENESYSCLOUD_*`) reaches the programs, because the SDKs read
//! configuration files in the home folder that may point at a real organisation.

pub(crate) mod binary;
mod cutter;
pub(crate) mod install;
mod program;
mod proof;
mod server;
mod verdict;
mod wire;

use std::path::PathBuf;

use crate::{failure::Failure, metadata::Metadata};

/// Where everything the proofs need and write lies, all below cargo's target folder.
pub(crate) struct Places {
    /// The Python environment.
    pub(crate) venv: PathBuf,
    /// The installed Node packages, with a copy of the script beside them.
    pub(crate) node: PathBuf,
    /// Logs, ledgers and the empty home folder.
    pub(crate) work: PathBuf,
    /// The program under proof.
    pub(crate) binary: PathBuf,
}

impl Places {
    /// Asks cargo where its target folder is.
    pub(crate) fn find() -> Result<Self, Failure> {
        let target = Metadata::load()?.target_directory;
        Ok(Self {
            venv: target.join("sdk-venv"),
            node: target.join("sdk-node"),
            work: target.join("sdk-work"),
            binary: binary::path(&target),
        })
    }

    /// The interpreter of the Python environment.
    pub(crate) fn python(&self) -> PathBuf {
        self.venv.join("bin/python")
    }
}

/// Runs every proof and reports them together.
pub(crate) fn run() -> Result<(), Failure> {
    let places = Places::find()?;
    program::make_empty(&places.work)?;
    let mut problems = Vec::new();
    for proof in proof::ALL {
        match proof.run(&places) {
            Ok(summary) => eprintln!("ok      {:<44} {summary}", proof.name),
            Err(failure) => {
                eprintln!("FAILED  {:<44}", proof.name);
                problems.push(format!("{}: {failure}", proof.name));
            }
        }
    }
    eprintln!("\nproofs: {} passed, {} failed", proof::ALL.len() - problems.len(), problems.len());
    Failure::from_problems("failed proofs", &problems)
        .map_err(|failure| failure.hint(format!("logs are in {}", places.work.display())))
}
