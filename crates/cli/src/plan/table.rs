//! The forecast for a terminal: when it ends, and what happens on the way.

use std::fmt::Write as _;

use tidegate_core::calendar::span_words;
use tidegate_core::outlook::Met;
use tidegate_core::time::Wall;

use super::Planned;

/// Windows that are listed; of the others their number is told.
const LISTED: usize = 12;

/// Width of the bar of progress.
const BAR: u64 = 20;

pub(super) fn render(planned: &Planned) -> String {
    let Planned { calls, class, method, path, profile, zone, outlook, .. } = planned;
    let mut text = String::new();
    let mut line = |what: &str, told: &str| {
        writeln!(text, "{what:<9}{told}").expect("a string takes everything");
    };
    line("job", &format!("{calls} calls of class {}, {method} {path}, profile {profile}", class.name()));
    for bound in &planned.bounds {
        line("limit", bound);
    }
    line("start", &zone.clock(planned.start));
    line("end", &format!("{}, after {}", zone.clock(outlook.end), span_words(planned.took())));
    if let (Some(without), Some(took)) = (planned.without, planned.took_without()) {
        line("", &format!("without windows {}, after {}", zone.clock(without), span_words(took)));
    }
    text.push('\n');
    for Happening { at, done, what } in happenings(planned) {
        let per_cent = done * 100 / (*calls).max(1);
        let full = usize::try_from(done * BAR / (*calls).max(1)).unwrap_or_default();
        let bar =
            format!("{}{}", "#".repeat(full), ".".repeat(usize::try_from(BAR).unwrap_or_default() - full));
        writeln!(text, "{}  {bar} {per_cent:>3} %  {what}", zone.clock(at))
            .expect("a string takes everything");
    }
    let more = outlook.windows.len().saturating_sub(LISTED);
    if more > 0 {
        writeln!(text, "... and {more} windows more").expect("a string takes everything");
    }
    text.push_str("\nThe earliest end: calls of other classes, strangers and slow answers come on top.\n");
    text
}

/// Something that happens on the way.
struct Happening {
    at: Wall,
    /// Calls done by then; at the edge of a window those before it.
    done: u64,
    what: String,
}

/// Beginnings, windows, quarters and the end, in their order.
fn happenings(planned: &Planned) -> Vec<Happening> {
    let outlook = &planned.outlook;
    let mut all = vec![Happening { at: planned.start, done: 0, what: "starts".to_owned() }];
    if outlook.first > planned.start {
        all.push(Happening { at: outlook.first, done: 0, what: "the first call leaves".to_owned() });
    }
    for window in outlook.windows.iter().take(LISTED) {
        let edges = edges(planned, window).into_iter();
        all.extend(edges.map(|(at, what)| Happening { at, done: planned.done_before(at), what }));
    }
    for quarter in [25, 50, 75] {
        let wanted = (planned.calls * quarter).div_ceil(100);
        let reached = outlook.curve.iter().find(|&&(_, done)| done >= wanted);
        all.extend(reached.map(|&(at, done)| Happening { at, done, what: format!("{quarter} % done") }));
    }
    all.retain(|happening| happening.at <= outlook.end);
    all.sort_by_key(|happening| happening.at);
    all.push(Happening { at: outlook.end, done: planned.calls, what: "done".to_owned() });
    all
}

fn edges(planned: &Planned, window: &Met) -> Vec<(Wall, String)> {
    let name = &window.name;
    let class = planned.class.name();
    let mut does = Vec::new();
    if window.released.is_some() {
        does.push(format!("{class} is held"));
    }
    if window.kept > 0 {
        does.push(format!("{} % of every quota is kept for others", window.kept));
    }
    let does = if does.is_empty() { format!("{class} goes on") } else { does.join(", ") };
    let opens = format!("window \"{name}\" opens: {does}");
    let opened = if window.from < planned.start { format!("in window \"{name}\": {does}") } else { opens };
    let mut edges =
        vec![(window.from.max(planned.start), opened), (window.until, format!("window \"{name}\" closes"))];
    if let Some(released) = window.released.filter(|&released| released > window.until) {
        let stagger = span_words(released.since(window.until).unwrap_or_default());
        let who = planned.instance.as_deref().map_or_else(String::new, |name| format!(" of `{name}`"));
        edges.push((released, format!("{class} goes on, after the stagger{who}: {stagger}")));
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_when_it_ends_and_what_held_it_up() {
        let text = render(&super::super::tests::publish());
        for part in [
            "job      3000 calls of class bulk, PATCH /api/v2/users/7, profile genesys",
            "limit    client.credentials.token.rate.per.minute: 300 per 60s",
            "start    2026-11-23 05:55 CST",
            "         without windows 2026-11-23 06:04 CST, after 9 m",
            "2026-11-23 05:55 CST  ....................   0 %  starts",
            "2026-11-23 06:00 CST  ##########..........  50 %  window \"wfm publish\" opens: bulk is held",
            "2026-11-23 06:20 CST  ##########..........  50 %  window \"wfm publish\" closes",
            "50 %  bulk goes on, after the stagger of `north`: ",
            "#################### 100 %  done",
        ] {
            assert!(text.contains(part), "{text}\nlacks {part}");
        }
    }
}
