//! Rows on real sockets, in real time: the same cells, played by the client's whole stack against the simulator's server.

use std::time::Duration;

use crate::grid::{Cell, RULES, Strangers, TOLD};
use crate::row::{Part, Plan};

/// In real time each phase takes half a minute; three of them show whether a row hangs on its phase.
const PHASES: u32 = 3;

/// Every rule under the guide's headers, alone and beside a steady stranger; then the other dialects and strangers on the rules that
/// are most different; then silence. All at 300 per 5 s, 20 ms away, but for the last.
pub(crate) fn plans() -> Vec<Plan> {
    let mut cells = Vec::new();
    let mut add = |rule: &'static str, told: &str, strangers: Strangers, rtt: u64| {
        let told =
            TOLD.into_iter().find(|one| one.name == told).expect("the names below are those of the grid");
        let (window, rtt) = (Duration::from_secs(5), Duration::from_millis(rtt));
        let fair = strangers == Strangers::Alone;
        cells.push(Cell { window, rtt, rule, told, strangers, fair });
    };
    for rule in RULES {
        add(rule, "guide", Strangers::Alone, 20);
        add(rule, "guide", Strangers::Steady, 20);
    }
    for rule in ["fixed", "sliding-log"] {
        add(rule, "inin", Strangers::Alone, 20);
        add(rule, "ietf", Strangers::Alone, 20);
        add(rule, "none+declared", Strangers::Alone, 20);
        add(rule, "inin", Strangers::Appear, 20);
    }
    add("fixed", "inin", Strangers::Bursts, 20);
    add("fixed", "none+undeclared", Strangers::Alone, 20);
    add("token-bucket", "none+undeclared", Strangers::Alone, 20);
    add("fixed", "inin", Strangers::Alone, 200);
    cells.iter().map(|cell| cell.plan(Part::Sockets, PHASES)).collect()
}
