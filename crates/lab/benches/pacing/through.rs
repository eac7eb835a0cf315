//! The row through the gateway itself: callers, gateway and simulator on sockets.
//!
//! The lab knows nothing of the gateway, which is built on what the lab judges. So the row is played by a benchmark of the
//! gateway's own, `gateway-pacing`, in a process of its own, which tells its figures as JSON.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::goal::HEADERS_ALONE;
use crate::play::{Failure, Figures};
use crate::row::{Part, Plan};

/// How many phases of the wall clock's second it is played at.
const PHASES: u32 = 5;

/// 40 callers, 1500 GETs, 300 per 5 s, told as in the guide.
pub(crate) fn plan() -> Plan {
    Plan {
        part: Part::Gateway,
        name: "gateway 5s 20ms fixed guide alone".to_owned(),
        goals: vec![&HEADERS_ALONE],
        window: Duration::from_secs(5),
        rtt: Duration::from_millis(20),
        phases: PHASES,
        timed: false,
        template: String::new(),
    }
}

/// Builds the gateway's benchmark if need be and runs it; the figures of each phase.
pub(crate) fn play(plan: &Plan) -> Result<Figures, Failure> {
    let phases = plan.phases.to_string();
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "bench",
        "--locked",
        "--quiet",
        "-p",
        "tidegate-gateway",
        "--bench",
        "gateway-pacing",
        "--",
    ]);
    command.args(["--json", "--phases", &phases]);
    let told = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !told.status.success() {
        return Err(format!("the benchmark gateway-pacing ended with {}", told.status).into());
    }
    let figures: Figures = serde_json::from_slice(&told.stdout)?;
    if figures.len() == plan.phases as usize {
        Ok(figures)
    } else {
        Err(format!("the benchmark gateway-pacing played {} phases of {phases}", figures.len()).into())
    }
}
