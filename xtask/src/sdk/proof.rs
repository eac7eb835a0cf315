//! The proofs: which program runs against what, and what must come of it.

use std::{path::Path, process::Command, time::Duration};

use super::{
    Places,
    program::{Finished, clean, make_empty, run_to_end, tail},
    server::Server,
    verdict::{Claim, Record, judge_failure, judge_success},
    wire,
};
use crate::{command::root, failure::Failure};

/// How long one program may run. On an idle machine each needs about fifteen seconds.
const LIMIT: Duration = Duration::from_mins(3);

/// What every simulator of a proof is told to be.
const SCENARIO: &str = "tests/sdk/scenario.toml";

/// All proofs, in the order in which they run.
pub(super) const ALL: &[Proof] = &[
    Proof { name: "Python SDK through the gateway", program: Kind::PythonSdk, way: Way::Gateway },
    Proof { name: "Python SDK straight at the server", program: Kind::PythonSdk, way: Way::Straight },
    Proof { name: "Node SDK through the gateway", program: Kind::NodeSdk, way: Way::Gateway },
    Proof { name: "Node SDK straight at the server", program: Kind::NodeSdk, way: Way::Straight },
    Proof { name: "Python example through the gateway", program: Kind::PythonExample, way: Way::Gateway },
    Proof { name: "Node example through the gateway", program: Kind::NodeExample, way: Way::Gateway },
];

/// One program against one upstream.
pub(super) struct Proof {
    /// What it shows, for the report.
    pub(super) name: &'static str,
    program: Kind,
    way: Way,
}

/// Which program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    PythonSdk,
    NodeSdk,
    PythonExample,
    NodeExample,
}

/// What the program is pointed at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The gateway in front of the simulator; all must go well.
    Gateway,
    /// The simulator itself; the program must fail.
    Straight,
}

impl Proof {
    /// Starts the servers, runs the program, and judges it by the simulator's record.
    ///
    /// Returns one line on what happened.
    pub(super) fn run(&self, places: &Places) -> Result<String, Failure> {
        let work = places.work.join(self.name.to_lowercase().replace(' ', "-"));
        make_empty(&work)?;
        let scenario = root().join(SCENARIO).display().to_string();
        let listen = ["sim", "--listen", "127.0.0.1:0", "--scenario", &scenario];
        let sim = Server::start(&places.binary, "sim", &listen, &work)?;
        let gateway = match self.way {
            Way::Gateway => Some(start_gateway(places, &sim, &work)?),
            Way::Straight => None,
        };
        let base = gateway.as_ref().unwrap_or(&sim).base();

        let log = work.join("program.log");
        let finished = run_to_end(self.command(places, &work, base), &log, LIMIT)?;
        let record = Record::parse(&wire::get(sim.base(), "/sim/stats?users=1")?)?;
        self.judge(&finished, &record)
            .map_err(|problems| Failure::new(format!("{}{}", problems.join("; "), tail(&log))))
    }

    fn command(&self, places: &Places, work: &Path, base: &str) -> Command {
        let (interpreter, script) = match self.program {
            Kind::PythonSdk => (places.python(), root().join("tests/sdk/python_sdk.py")),
            Kind::NodeSdk => ("node".into(), places.node.join("node_sdk.mjs")),
            Kind::PythonExample => (places.python(), root().join("examples/python/patch_skills.py")),
            Kind::NodeExample => ("node".into(), root().join("examples/node/patch_skills.mjs")),
        };
        let mut command = clean(interpreter.as_os_str(), work);
        command.arg(script).args(["--base", base]);
        match (self.program, self.way) {
            (Kind::PythonSdk | Kind::NodeSdk, Way::Gateway) => command.args(["--expect", "pass"]),
            (Kind::PythonSdk | Kind::NodeSdk, Way::Straight) => command.args(["--expect", "fail"]),
            (Kind::PythonExample | Kind::NodeExample, _) => {
                command.args(["--users", "100", "--proficiency", "4"])
            }
        };
        command
    }

    fn judge(&self, finished: &Finished, record: &Record) -> Result<String, Vec<String>> {
        let claim = match self.program {
            Kind::PythonSdk | Kind::NodeSdk => Claim::from_report(&finished.stdout),
            Kind::PythonExample | Kind::NodeExample => Claim::from_table(&finished.stdout),
        };
        let claim = claim.map_err(|why| vec![why, format!("the program ended with {}", finished.status)])?;
        let mut problems = match self.way {
            Way::Gateway => judge_success(&claim, record),
            Way::Straight => judge_failure(&claim),
        };
        if !finished.status.success() {
            problems.push(format!("the program ended with {}", finished.status));
        }
        if problems.is_empty() { Ok(format!("{claim}; {record}")) } else { Err(problems) }
    }
}

fn start_gateway(places: &Places, sim: &Server, work: &Path) -> Result<Server, Failure> {
    let any = "127.0.0.1:0";
    let arguments = ["serve", "--listen", any, "--admin", any, "--api", sim.base(), "--login", sim.base()];
    Server::start(&places.binary, "gateway", &arguments, work)
}
