//! Situations that are no cell of the grid: hints that lie, brown-outs, caps, fleets, and classes beside each other.

use std::time::Duration;

use tidegate_lab::builtin;

use crate::goal::{BROWN_OUT_HINTED, BROWN_OUT_SILENT, CAP, FLEET, Goal, INTERACTIVE, SHORT_HINT, SYNC};
use crate::grid::{CALLERS, LIMIT, RULES};
use crate::row::{Part, Plan};

const RTT: Duration = Duration::from_millis(20);
const PHASES: u32 = 5;

/// All of them.
pub(crate) fn plans() -> Vec<Plan> {
    let mut plans = vec![
        built_in("retry-after-mismatch", &SHORT_HINT),
        built_in("brown-out-hinted", &BROWN_OUT_HINTED),
        built_in("brown-out-unavailable", &BROWN_OUT_HINTED),
        built_in("brown-out-silent", &BROWN_OUT_SILENT),
        built_in("concurrency-cap", &CAP),
        built_in("late-or-never", &SYNC),
    ];
    plans.push(short_hint_unheard());
    plans.push(declared_cap());
    for window in [5, 60] {
        plans.extend(RULES.map(|rule| interactive(rule, window)));
    }
    plans.extend(RULES.map(sync));
    plans.push(Plan { timed: true, phases: 1, ..built_in("fleet-10000", &FLEET) });
    plans
}

/// A row of `template` with one phase per seed.
fn plan(name: String, goal: &'static Goal, window: u64, template: String) -> Plan {
    Plan {
        part: Part::Special,
        name,
        goals: vec![goal],
        window: Duration::from_secs(window),
        rtt: RTT,
        phases: PHASES,
        timed: false,
        template,
    }
}

/// A scenario that is built in, under five seeds.
fn built_in(name: &str, goal: &'static Goal) -> Plan {
    let template = builtin::text(name).unwrap_or_default().to_owned();
    plan(format!("scenario {name}"), goal, 5, template)
}

/// As the scenario `retry-after-mismatch`, but no header says anything, and each process has been told that all of the quota is
/// its own.
fn short_hint_unheard() -> Plan {
    let mut plan = built_in("retry-after-mismatch", &SHORT_HINT);
    plan.template = plan.template.replace("headers = \"guide\"", "headers = \"none\"");
    plan.template = plan.template.replace("[fleet]\n", "[fleet]\ndeclared = true\n");
    plan.name.push_str(" none+declared");
    plan
}

/// As the scenario `concurrency-cap`, but the operator has declared the cap.
fn declared_cap() -> Plan {
    let mut plan = built_in("concurrency-cap", &CAP);
    plan.template = plan.template.replace("[fleet]\n", "[fleet]\ndeclared = true\n");
    plan.name.push_str(" declared");
    plan
}

/// Calls behind which a person waits, a fifth of the quota, beside a job that takes all it can get.
fn interactive(rule: &str, window: u64) -> Plan {
    let duration = window * 12;
    #[expect(clippy::cast_precision_loss, reason = "a window of seconds")]
    let rate = f64::from(LIMIT) * 0.2 / window as f64;
    let template = format!(
        "duration = \"{duration}s\"\n[server]\nrule = \"{rule}\"\nlimit = {LIMIT}\nwindow = \"{window}s\"\nphase = \"{{phase}}\"\nheaders = \"guide\"\n[fleet]\nrtt = \"14ms..26ms\"\nprofile = \"genesys-guide\"\n[[fleet.load]]\nclass = \"bulk\"\ncallers = {CALLERS}\n[[fleet.load]]\nclass = \"interactive\"\nrate = {rate:?}\nirregular = true\n"
    );
    plan(format!("interactive beside bulk {window}s {rule}"), &INTERACTIVE, window, template)
}

/// 500 calls at one stroke every 5 s, worthless 5 s later, on a quota of 600.
fn sync(rule: &str) -> Plan {
    let template = format!(
        "duration = \"62s\"\n[server]\nrule = \"{rule}\"\nlimit = 600\nwindow = \"5s\"\nphase = \"{{phase}}\"\nheaders = \"guide\"\n[fleet]\nrtt = \"14ms..26ms\"\nprofile = \"genesys-guide\"\n[[fleet.load]]\nclass = \"sync\"\nrate = 100.0\nburst = 500\ndeadline = \"5s\"\nto = \"58s\"\n"
    );
    plan(format!("sync 500-per-5s {rule}"), &SYNC, 5, template)
}
