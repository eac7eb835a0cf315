//! The forecast as a picture: calls done over time, the windows behind them.

use std::fmt::Write as _;
use std::time::Duration;

use tidegate_core::calendar::span_words;
use tidegate_core::time::Wall;
use tidegate_lab::picture::{STYLE, Svg, n};

use super::Planned;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 122.0;
const BOTTOM: f64 = 362.0;
const PLOT: f64 = WIDTH - LEFT - RIGHT;
/// A name that is wider than its window would lie over the next one: 6.4 points a character, as in all pictures.
const CHARACTER: f64 = 6.4;

/// Distances of ticks, in seconds.
const STEPS: [u64; 17] =
    [1, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800];
/// Ticks at most.
const TICKS: f64 = 12.0;

/// Where times and counts lie.
struct Scale {
    start: Wall,
    seconds: f64,
    calls: f64,
}

impl Scale {
    fn of(planned: &Planned) -> Self {
        let seconds = planned.took().as_secs_f64().max(1.0);
        Self { start: planned.start, seconds: seconds * 1.03, calls: num(planned.calls) }
    }

    fn x(&self, at: Wall) -> f64 {
        let seconds = at.since(self.start).unwrap_or_default().as_secs_f64();
        LEFT + PLOT * (seconds / self.seconds).clamp(0.0, 1.0)
    }

    fn y(&self, done: u64) -> f64 {
        BOTTOM - (BOTTOM - TOP - 12.0) * num(done) / self.calls.max(1.0)
    }
}

pub(super) fn render(planned: &Planned) -> String {
    let scale = Scale::of(planned);
    let mut svg = Svg::default();
    let label = format!("When {} calls of class {} are done", planned.calls, planned.class.name());
    svg.open(
        "svg",
        &[
            ("xmlns", &"http://www.w3.org/2000/svg"),
            ("viewBox", &format!("0 0 {WIDTH} {HEIGHT}")),
            ("width", &WIDTH),
            ("height", &HEIGHT),
            ("role", &"img"),
            ("aria-label", &label),
        ],
    );
    svg.text("title", &[], &label);
    svg.style(STYLE);
    svg.leaf("rect", &[("class", &"paper"), ("width", &WIDTH), ("height", &HEIGHT)]);
    head(&mut svg, planned);
    svg.leaf(
        "rect",
        &[("class", &"plot"), ("x", &LEFT), ("y", &TOP), ("width", &PLOT), ("height", &(BOTTOM - TOP))],
    );
    axis(&mut svg, planned, &scale);
    windows(&mut svg, planned, &scale);
    counts(&mut svg, planned, &scale);
    line(&mut svg, planned, &scale);
    svg.finish()
}

/// Title, what came of it, and the legend.
fn head(svg: &mut Svg, planned: &Planned) {
    let zone = &planned.zone;
    let title = format!("{} calls, {} {}", planned.calls, planned.method, planned.path);
    svg.text("text", &[("class", &"title"), ("x", &LEFT), ("y", &32)], &title);
    let mut told = format!(
        "class {}, from {} to {}: {}",
        planned.class.name(),
        zone.clock(planned.start),
        zone.clock(planned.outlook.end),
        span_words(planned.took())
    );
    if let Some(took) = planned.took_without() {
        write!(told, "; without windows {}", span_words(took)).expect("a string takes everything");
    }
    svg.text("text", &[("class", &"soft"), ("x", &LEFT), ("y", &54)], &told);
    svg.text("text", &[("class", &"soft"), ("x", &LEFT), ("y", &72)], &planned.bounds.join(", "));
    let mut x = LEFT;
    let mut entry = |class: &str, text: &str| {
        if class == "line" || class == "done" {
            svg.leaf("line", &[("class", &class), ("x1", &x), ("x2", &(x + 18.0)), ("y1", &98), ("y2", &98)]);
        } else {
            svg.leaf(
                "rect",
                &[("class", &class), ("x", &x), ("y", &92), ("width", &18), ("height", &11), ("rx", &2)],
            );
        }
        svg.text("text", &[("class", &"soft"), ("x", &(x + 24.0)), ("y", &102)], text);
        x += 24.0 + CHARACTER * num(text.chars().count() as u64) + 20.0;
    };
    let met = &planned.outlook.windows;
    entry("line", "calls done");
    if met.iter().any(|window| window.released.is_some()) {
        entry("window", "held by a window");
    }
    if met.iter().any(|window| window.released.is_some_and(|released| released > window.until)) {
        entry("stagger", "own stagger");
    }
    if met.iter().any(|window| window.released.is_none() && window.kept > 0) {
        entry("kept", "quota kept for others");
    }
    entry("done", "end");
}

/// Vertical lines at round times of the zone's clock.
fn axis(svg: &mut Svg, planned: &Planned, scale: &Scale) {
    let step = STEPS.into_iter().find(|&step| scale.seconds / num(step) <= TICKS).unwrap_or(4 * 604_800);
    let far = step >= 86_400;
    let mut shown = String::new();
    for tick in ticks(planned, scale, step) {
        let x = n(scale.x(tick));
        svg.leaf(
            "line",
            &[("class", &"grid"), ("x1", &x), ("x2", &x), ("y1", &TOP), ("y2", &(BOTTOM + 5.0))],
        );
        let pattern = if step < 60 { "%H:%M:%S" } else { "%H:%M" };
        let label = planned.zone.show(tick, if far { "%d %b" } else { pattern });
        svg.text("text", &[("class", &"soft num mid"), ("x", &x), ("y", &(BOTTOM + 20.0))], &label);
        let day = planned.zone.show(tick, "%a %d %b %Y, %Z");
        if !far && day != shown {
            svg.text("text", &[("class", &"soft"), ("x", &x), ("y", &(BOTTOM + 37.0))], &day);
            shown = day;
        }
    }
}

/// Round times by the clock: after a switch of clocks they are looked for anew.
fn ticks(planned: &Planned, scale: &Scale, step: u64) -> Vec<Wall> {
    let end = scale.start.unix_millis() + whole(scale.seconds * 1000.0);
    let step = i64::try_from(step).unwrap_or(i64::MAX) * 1000;
    let mut ticks = Vec::new();
    let mut at = scale.start.unix_millis();
    while at <= end {
        let shown = planned.zone.local_millis(Wall::from_unix_millis(at));
        let off = shown.rem_euclid(step);
        let tick = if off == 0 { at } else { at + step - off };
        if tick > end {
            break;
        }
        ticks.push(Wall::from_unix_millis(tick));
        at = tick + step.min(3_600_000).max(step / 24);
    }
    ticks.dedup();
    ticks
}

fn windows(svg: &mut Svg, planned: &Planned, scale: &Scale) {
    let mut free_from = LEFT;
    for window in &planned.outlook.windows {
        let (left, right) = (scale.x(window.from), scale.x(window.until));
        let mut band = |class: &str, left: f64, right: f64| {
            let width = n((right - left).max(1.0));
            svg.leaf(
                "rect",
                &[
                    ("class", &class),
                    ("x", &n(left)),
                    ("y", &TOP),
                    ("width", &width),
                    ("height", &(BOTTOM - TOP)),
                ],
            );
        };
        match window.released {
            Some(released) => {
                band("window", left, right);
                if released > window.until {
                    band("stagger", right, scale.x(released));
                }
            }
            None => band(if window.kept > 0 { "kept" } else { "stagger" }, left, right),
        }
        if left >= free_from {
            svg.text("text", &[("class", &"soft"), ("x", &n(left + 5.0)), ("y", &(TOP - 5.0))], &window.name);
            free_from = left + CHARACTER * num(window.name.chars().count() as u64) + 12.0;
        }
    }
}

/// Four lines with their counts.
fn counts(svg: &mut Svg, planned: &Planned, scale: &Scale) {
    for quarter in 0..=4 {
        let done = planned.calls * quarter / 4;
        let y = scale.y(done);
        let at = n(y);
        svg.leaf(
            "line",
            &[("class", &"grid"), ("x1", &LEFT), ("x2", &(LEFT + PLOT)), ("y1", &at), ("y2", &at)],
        );
        svg.text(
            "text",
            &[("class", &"soft num end"), ("x", &(LEFT - 7.0)), ("y", &n(y + 4.0))],
            &done.to_string(),
        );
    }
}

fn line(svg: &mut Svg, planned: &Planned, scale: &Scale) {
    let mut path = String::new();
    for (index, &(at, done)) in planned.outlook.curve.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        write!(path, "{command}{} {}", n(scale.x(at)), n(scale.y(done))).expect("a string takes everything");
    }
    svg.leaf("path", &[("class", &"line"), ("d", &path)]);
    let x = n(scale.x(planned.outlook.end));
    svg.leaf("line", &[("class", &"done"), ("x1", &x), ("x2", &x), ("y1", &TOP), ("y2", &BOTTOM)]);
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
fn num(count: u64) -> f64 {
    count as f64
}

fn whole(millis: f64) -> i64 {
    i64::try_from(Duration::from_secs_f64((millis / 1000.0).max(0.0)).as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_its_stagger_the_end_and_round_times_are_drawn() {
        let picture = render(&super::super::tests::publish());
        for part in [
            ">3000 calls, PATCH /api/v2/users/7</text>",
            "<rect class=\"window\" x=\"",
            "<rect class=\"stagger\" x=\"",
            ">wfm publish</text>",
            ">06:00</text>",
            ">Mon 23 Nov 2026, CST</text>",
            "<path class=\"line\"",
            "<line class=\"done\"",
        ] {
            assert!(picture.contains(part), "{picture}\nlacks {part}");
        }
        assert!(!picture.contains("NaN"));
    }
}
