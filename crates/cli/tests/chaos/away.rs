//! A process that ends while its upstream serves nobody: what was refused, and so is proven not to be done, is done later.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_sim::Faults;
use tidegate_sim::model::fault::BrownOut;

use crate::common::{Running, World, ran};
use crate::judge::{Upstream, judge};
use crate::mix;

/// What is written of what was refused.
pub(crate) const POINTS: [&str; 2] = ["journal.record-unsent.before", "journal.record-unsent.after"];

#[test]
fn killed_while_it_stops_for_an_upstream_that_refuses_what_was_refused_is_sent_later() {
    for point in POINTS {
        let world = World::new("users = 150\nlimit = 0\nlatency = \"2ms..20ms\"\ndedup = \"24h\"\n");
        let profile = world.quick_profile("genesys-guide");
        let writes = mix::mix(1, 150);
        world.write("w.ndjson", mix::ndjson(&writes));
        let mut run = world.bulk_run(&["w.ndjson", "--recipe", "requests", "--profile", &profile]);
        run.args(["--concurrency", "8", "--quiet"]).env("TIDEGATE_FAULT_POINT", point);
        let run = Running::new(run.spawn().unwrap());
        world.await_writes(40);
        // Each 503 says when to come back, so it is known that nothing was executed.
        let refusal = BrownOut { to: Duration::from_secs(4), ..BrownOut::default() };
        world.sim.set_faults(Faults { brown_outs: vec![refusal], ..Faults::default() }).unwrap();
        while !world.sim.stats().faults.contains_key("brown-out") {
            std::thread::sleep(Duration::from_millis(1));
        }
        run.signal("INT");
        assert_eq!(run.end().code, None, "{point} was not reached");
        let resume =
            ran(world.bulk(&["resume", "--journal", "w.ndjson.journal", "--quiet", "--output", "out.csv"]));
        // Those with the wrong version fail.
        resume.assert(1, &[" 0 unknown, 0 pending"]);
        let problems = judge(&world, Upstream::Recognises, &writes, &BTreeSet::new()).problems;
        assert!(problems.is_empty(), "{point}:\n{}", problems.join("\n"));
    }
}
