//! The proofs: which program runs against what, and what must come of it.

use std::{path::Path, process::Command, time::Duration};

use super::{
    Places,
    cutter::Cutter,
    program::{Finished, clean, make_empty, run_to_end, tail},
    server::Server,
    verdict::{Claim, Record, UNKNOWN, judge_duplicate, judge_failure, judge_once, judge_success},
    wire,
};
use crate::{command::root, failure::Failure};

/// How long one program may run. On an idle machine each needs about fifteen seconds.
const LIMIT: Duration = Duration::from_mins(3);

/// All proofs, in the order in which they run.
pub(super) const ALL: &[Proof] = &[
    proof("Python SDK through the gateway", Kind::PythonSdk, Scene::Skills, Way::Gateway),
    proof("Python SDK straight at the server", Kind::PythonSdk, Scene::Skills, Way::Straight),
    proof("Node SDK through the gateway", Kind::NodeSdk, Scene::Skills, Way::Gateway),
    proof("Node SDK straight at the server", Kind::NodeSdk, Scene::Skills, Way::Straight),
    proof("Python SDK, answer lost, through the gateway", Kind::PythonSdk, Scene::LostAnswer, Way::Gateway),
    proof("Python SDK, answer lost, straight", Kind::PythonSdk, Scene::LostAnswer, Way::Straight),
    proof("Node SDK, answer lost, through the gateway", Kind::NodeSdk, Scene::LostAnswer, Way::Gateway),
    proof("Python SDK, answer cut, through the gateway", Kind::PythonSdk, Scene::CutAnswer, Way::Gateway),
    proof("Python SDK, answer cut, straight", Kind::PythonSdk, Scene::CutAnswer, Way::Straight),
    proof("Node SDK, answer cut, through the gateway", Kind::NodeSdk, Scene::CutAnswer, Way::Gateway),
    proof("Python example through the gateway", Kind::PythonExample, Scene::Skills, Way::Gateway),
    proof("Node example through the gateway", Kind::NodeExample, Scene::Skills, Way::Gateway),
];

const fn proof(name: &'static str, program: Kind, scene: Scene, way: Way) -> Proof {
    Proof { name, program, scene, way }
}

/// One program against one upstream.
pub(super) struct Proof {
    /// What it shows, for the report.
    pub(super) name: &'static str,
    program: Kind,
    scene: Scene,
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

/// What the program does, and what the server does to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// Changes the skills of many users while the server throttles and its tokens expire.
    Skills,
    /// Creates one user; the server executes it and closes the connection without an answer.
    LostAnswer,
    /// Creates one user; the server executes it and hands over half of its answer.
    CutAnswer,
}

impl Scene {
    /// What the simulator is told to be.
    fn scenario(self) -> &'static str {
        match self {
            Self::Skills => "tests/sdk/scenario.toml",
            Self::LostAnswer => "tests/sdk/lost-answer.toml",
            Self::CutAnswer => "tests/sdk/cut-answer.toml",
        }
    }
}

/// What the program is pointed at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The gateway in front of the simulator: no harm may be done.
    Gateway,
    /// The simulator itself: harm must be done, or the simulator proves nothing.
    Straight,
}

impl Proof {
    /// Starts the servers, runs the program, and judges it by the simulator's record.
    ///
    /// Returns one line on what happened.
    pub(super) fn run(&self, places: &Places) -> Result<String, Failure> {
        let work = places.work.join(self.name.to_lowercase().replace(' ', "-"));
        make_empty(&work)?;
        let scenario = root().join(self.scene.scenario()).display().to_string();
        let listen = ["sim", "--listen", "127.0.0.1:0", "--scenario", &scenario];
        let sim = Server::start(&places.binary, "sim", &listen, &work)?;
        let cutter = match self.scene {
            Scene::CutAnswer => Some(Cutter::start(sim.base())?),
            Scene::Skills | Scene::LostAnswer => None,
        };
        let upstream = cutter.as_ref().map_or(sim.base(), Cutter::base);
        let gateway = match self.way {
            Way::Gateway => Some(start_gateway(places, upstream, &work)?),
            Way::Straight => None,
        };
        let base = gateway.as_ref().map_or(upstream, Server::base);

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
        let arguments = match (self.program, self.scene, self.way) {
            (Kind::PythonExample | Kind::NodeExample, ..) => ["--users", "100", "--proficiency", "4"],
            (_, Scene::Skills, Way::Gateway) => ["--scene", "skills", "--expect", "pass"],
            (_, Scene::Skills, Way::Straight) => ["--scene", "skills", "--expect", "fail"],
            (_, Scene::LostAnswer, Way::Gateway) => ["--scene", "create", "--expect", "fail"],
            // The answer was read back; or, straight, the worst of it: the program believes that all went well.
            (_, Scene::CutAnswer, _) | (_, Scene::LostAnswer, Way::Straight) => {
                ["--scene", "create", "--expect", "pass"]
            }
        };
        command.args(arguments);
        command
    }

    fn judge(&self, finished: &Finished, record: &Record) -> Result<String, Vec<String>> {
        let claim = match self.program {
            Kind::PythonSdk | Kind::NodeSdk => Claim::from_report(&finished.stdout),
            Kind::PythonExample | Kind::NodeExample => Claim::from_table(&finished.stdout),
        };
        let claim = claim.map_err(|why| vec![why, format!("the program ended with {}", finished.status)])?;
        let mut problems = match (self.scene, self.way) {
            (Scene::Skills, Way::Gateway) => judge_success(&claim, record),
            (Scene::Skills, Way::Straight) => judge_failure(&claim),
            (Scene::LostAnswer, Way::Gateway) => judge_once(&claim, record, Some(UNKNOWN)),
            (Scene::CutAnswer, Way::Gateway) => judge_once(&claim, record, None),
            (Scene::LostAnswer | Scene::CutAnswer, Way::Straight) => judge_duplicate(record),
        };
        if !finished.status.success() {
            problems.push(format!("the program ended with {}", finished.status));
        }
        if problems.is_empty() { Ok(format!("{claim}; {record}")) } else { Err(problems) }
    }
}

fn start_gateway(places: &Places, upstream: &str, work: &Path) -> Result<Server, Failure> {
    let any = "127.0.0.1:0";
    let arguments = ["serve", "--listen", any, "--admin", any, "--api", upstream, "--login", upstream];
    Server::start(&places.binary, "gateway", &arguments, work)
}
