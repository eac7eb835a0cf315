//! The picture: one lane per strategy over the same time, the limit as a line, what was in use below it, throttles as marks.
//!
//! It is one file without fonts or scripts from elsewhere; light or dark is the reader's choice (`prefers-color-scheme`).

use std::fmt::Write as _;
use std::time::Duration;

use super::series::{Series, Slot};
use super::table::seconds;
use super::{Lane, Report};
use crate::measure::Measures;
use crate::picture::{STYLE, Svg, n};
use crate::strategy::StrategyName;

/// The whole picture's width, and where the plot lies in it.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 24.0;
const PLOT: f64 = WIDTH - LEFT - RIGHT;
/// Two slots of time per point of width would not be seen.
const SLOTS: usize = 459;
/// Where the first lane begins, without the lines of the description.
const TOP: f64 = 92.0;
const LANE: f64 = 148.0;
/// Heights inside a lane: its title, the plot, the strip of throttles.
const TITLE: f64 = 22.0;
const BOX: f64 = 84.0;
const STRIP: f64 = 14.0;
/// Characters in a line of the description.
const LINE: usize = 128;

/// Where times lie.
#[derive(Debug, Clone, Copy)]
struct Scale {
    span: f64,
}

impl Scale {
    fn x(self, seconds: f64) -> f64 {
        LEFT + PLOT * (seconds / self.span).clamp(0.0, 1.0)
    }
}

pub(super) fn render(report: &Report) -> String {
    let scale = Scale { span: span(report) };
    let about = wrapped(&report.about);
    let top = TOP + 17.0 * f(about.len().saturating_sub(1));
    let height = top + LANE * f(report.lanes.len()) + 48.0;
    let mut svg = Svg::default();
    let label = format!("{}: quota used over time by strategy", report.name);
    svg.open(
        "svg",
        &[
            ("xmlns", &"http://www.w3.org/2000/svg"),
            ("viewBox", &format!("0 0 {WIDTH} {height}")),
            ("width", &WIDTH),
            ("height", &height),
            ("role", &"img"),
            ("aria-label", &label),
        ],
    );
    svg.text("title", &[], &label);
    svg.style(STYLE);
    svg.leaf("rect", &[("class", &"paper"), ("width", &WIDTH), ("height", &height)]);
    head(&mut svg, report, &about, top);
    let width = Duration::from_secs_f64(scale.span / f(SLOTS));
    let all: Vec<Series> =
        report.lanes.iter().map(|lane| Series::of(lane, &report.headline, SLOTS, width)).collect();
    let most = most_throttled(&all);
    for (index, (lane, series)) in report.lanes.iter().zip(&all).enumerate() {
        draw_lane(&mut svg, report, lane, series, scale, top + LANE * f(index), most);
    }
    axis(&mut svg, scale, top + LANE * f(report.lanes.len()) - 4.0);
    unit(&mut svg, report, top + TITLE + BOX / 2.0);
    svg.finish()
}

/// How much time is shown: all of it, unless one slow strategy would squeeze the others into a corner.
fn span(report: &Report) -> f64 {
    let mut ends: Vec<f64> = report.measures().map(|measures| measures.ended_at).collect();
    ends.sort_by(f64::total_cmp);
    let longest = ends.last().copied().unwrap_or(0.0);
    let median = ends.get(ends.len() / 2).copied().unwrap_or(0.0);
    // What is only a little longer is not worth a cut.
    let shown = if longest > 2.5 * median { 1.8 * median } else { longest };
    let span = shown * 1.01;
    if span > 0.0 { span } else { 1.0 }
}

/// Title, description and legend.
fn head(svg: &mut Svg, report: &Report, about: &[String], top: f64) {
    svg.text("text", &[("class", &"title"), ("x", &LEFT), ("y", &32)], &report.name);
    for (index, line) in about.iter().enumerate() {
        svg.text("text", &[("class", &"soft"), ("x", &LEFT), ("y", &(52.0 + 17.0 * f(index)))], line);
    }
    let strangers = report.measures().any(|measures| measures.strangers + measures.strangers_throttled > 0);
    let y = top - 16.0;
    let mut x = LEFT;
    let mut entry = |svg: &mut Svg, class: &str, text: &str| {
        if class == "quota" || class == "done" {
            let y = y - 4.0;
            svg.leaf("line", &[("class", &class), ("x1", &x), ("x2", &(x + 18.0)), ("y1", &y), ("y2", &y)]);
        } else {
            svg.leaf(
                "rect",
                &[
                    ("class", &class),
                    ("x", &x),
                    ("y", &(y - 10.0)),
                    ("width", &18),
                    ("height", &11),
                    ("rx", &2),
                ],
            );
        }
        svg.text("text", &[("class", &"soft"), ("x", &(x + 24.0)), ("y", &y)], text);
        // System fonts differ; 6.4 points a character leaves room for the widest of them.
        x += 24.0 + 6.4 * f(text.chars().count()) + 20.0;
    };
    entry(svg, "quota", &format!("limit: {}", report.headline.title()));
    entry(svg, "own", "used by us");
    if strangers {
        entry(svg, "other", "used by strangers");
    }
    entry(svg, "hit", "throttled");
    if strangers {
        entry(svg, "their", "strangers throttled");
    }
    if !report.outages.is_empty() {
        entry(svg, "outage", "brown-out");
    }
    if !report.windows.is_empty() {
        entry(svg, "window", "job held");
    }
    if report.measures().any(|measures| measures.makespan.is_some()) {
        entry(svg, "done", "jobs done");
    }
}

fn draw_lane(svg: &mut Svg, report: &Report, lane: &Lane, series: &Series, scale: Scale, y: f64, most: f64) {
    svg.open("g", &[]);
    let title = y + 13.0;
    svg.text("text", &[("class", &"name"), ("x", &LEFT), ("y", &title)], lane.measures.strategy);
    if lane.measures.ended_at > scale.span {
        // Strategies are lower-case words; 9 points a character leave room for the widest font.
        let x = LEFT + 9.0 * f(lane.measures.strategy.len()) + 8.0;
        let text = format!("goes on until {} \u{2192}", spaced(lane.measures.ended_at));
        svg.text("text", &[("class", &"soft"), ("x", &x), ("y", &title)], &text);
    }
    let met = report.violations.iter().all(|violation| violation.strategy != lane.measures.strategy);
    let class = if met { "soft num end" } else { "bad num end" };
    let summary = summary(&lane.measures);
    svg.text("text", &[("class", &class), ("x", &(LEFT + PLOT)), ("y", &title)], &summary);
    let top = y + TITLE;
    let bottom = top + BOX;
    svg.leaf("rect", &[("class", &"plot"), ("x", &LEFT), ("y", &top), ("width", &PLOT), ("height", &BOX)]);
    let (tick, _, _) = step(scale.span);
    let mut at = tick;
    while at < scale.span {
        let x = n(scale.x(at));
        svg.leaf("line", &[("class", &"grid"), ("x1", &x), ("x2", &x), ("y1", &top), ("y2", &bottom)]);
        at += tick;
    }
    // Only the product knows them.
    let known = lane.measures.strategy == StrategyName::Tidegate.name();
    let windows = report.windows.iter().filter(|_| known).map(|window| ("window", window));
    for (class, &(from, to)) in report.outages.iter().map(|outage| ("outage", outage)).chain(windows) {
        let (left, right) = (scale.x(from.as_secs_f64()), scale.x(to.as_secs_f64()));
        let width = right - left;
        svg.leaf(
            "rect",
            &[("class", &class), ("x", &n(left)), ("y", &top), ("width", &n(width)), ("height", &BOX)],
        );
    }
    draw_levels(svg, series, top, bottom);
    let done = lane.measures.makespan.zip(lane.measures.jobs_began).map(|(took, began)| began + took);
    if let Some(done) = done.filter(|done| *done <= scale.span) {
        let x = scale.x(done);
        svg.leaf("line", &[("class", &"done"), ("x1", &n(x)), ("x2", &n(x)), ("y1", &top), ("y2", &bottom)]);
    }
    draw_throttles(svg, series, bottom + 2.0, most);
    svg.close();
}

/// The used area, the strangers' part at its foot, and the limit with its number.
fn draw_levels(svg: &mut Svg, series: &Series, top: f64, bottom: f64) {
    let highest = series.slots.iter().map(|slot| slot.used).fold(series.quota, f64::max).max(1.0) * 1.12;
    let y = |value: f64| bottom - (bottom - top) * value / highest;
    for (class, value) in
        [("own", (|slot: &Slot| slot.used) as fn(&Slot) -> f64), ("other", |slot: &Slot| slot.strangers)]
    {
        if series.slots.iter().any(|slot| value(slot) > 0.0) {
            let path = area(&series.slots.iter().map(|slot| y(value(slot))).collect::<Vec<_>>(), bottom);
            svg.leaf("path", &[("class", &class), ("d", &path)]);
        }
    }
    let middle = |y: f64| y + 4.0;
    svg.text("text", &[("class", &"soft num end"), ("x", &(LEFT - 7.0)), ("y", &n(middle(bottom)))], "0");
    if series.quota > 0.0 {
        let line = n(y(series.quota));
        svg.leaf(
            "line",
            &[("class", &"quota"), ("x1", &LEFT), ("x2", &(LEFT + PLOT)), ("y1", &line), ("y2", &line)],
        );
        let number = format!("{:.0}", series.quota);
        let at = n(middle(y(series.quota)));
        svg.text("text", &[("class", &"soft num end"), ("x", &(LEFT - 7.0)), ("y", &at)], &number);
    }
}

/// Marks below the plot: how many of a slot's calls were refused, tall for many.
fn draw_throttles(svg: &mut Svg, series: &Series, top: f64, most: f64) {
    let slot_width = PLOT / f(SLOTS);
    for (class, count, offset) in [
        ("hit", (|slot: &Slot| slot.throttled) as fn(&Slot) -> u32, 0.0),
        ("their", |slot: &Slot| slot.strangers_throttled, STRIP + 1.0),
    ] {
        let mut path = String::new();
        for (index, slot) in series.slots.iter().enumerate() {
            let count = f64::from(count(slot));
            if count > 0.0 {
                // A logarithm, so that a single throttle is seen beside a herd of them.
                let height = (STRIP * (0.3 + 0.7 * count.ln_1p() / most.ln_1p())).min(STRIP);
                let x = LEFT + slot_width * f(index);
                write!(
                    path,
                    "M{} {}h{}v{}h-{}z",
                    n(x),
                    n(top + offset),
                    n(slot_width),
                    n(height),
                    n(slot_width)
                )
                .expect("writing to a String cannot fail");
            }
        }
        if !path.is_empty() {
            svg.leaf("path", &[("class", &class), ("d", &path)]);
        }
    }
}

fn most_throttled(all: &[Series]) -> f64 {
    let slots = all.iter().flat_map(|series| &series.slots);
    slots.map(|slot| f64::from(slot.throttled.max(slot.strangers_throttled))).fold(1.0, f64::max)
}

/// What the numbers on the left count, beside the first lane.
fn unit(svg: &mut Svg, report: &Report, y: f64) {
    let turn = format!("rotate(-90 16 {})", n(y));
    let counted = report.headline.unit();
    svg.text("text", &[("class", &"soft mid"), ("x", &16), ("y", &n(y)), ("transform", &turn)], counted);
}

/// The time axis below the last lane.
fn axis(svg: &mut Svg, scale: Scale, y: f64) {
    let (step, unit, divisor) = step(scale.span);
    svg.leaf("line", &[("class", &"grid"), ("x1", &LEFT), ("x2", &(LEFT + PLOT)), ("y1", &y), ("y2", &y)]);
    let mut at = 0.0;
    while at <= scale.span {
        let x = n(scale.x(at));
        svg.leaf("line", &[("class", &"grid"), ("x1", &x), ("x2", &x), ("y1", &y), ("y2", &(y + 5.0))]);
        let label = format!("{} {unit}", n(at / divisor));
        svg.text("text", &[("class", &"soft num mid"), ("x", &x), ("y", &(y + 19.0))], &label);
        at += step;
    }
    svg.text(
        "text",
        &[("class", &"soft end"), ("x", &(LEFT + PLOT)), ("y", &(y + 36.0))],
        "time since the start",
    );
}

/// Distance of ticks in seconds, their unit, and its length.
fn step(span: f64) -> (f64, &'static str, f64) {
    let round = [
        0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0,
        3600.0, 7200.0, 14_400.0,
    ];
    let step = round.into_iter().find(|step| span / step <= 12.0).unwrap_or(86_400.0);
    if step >= 3600.0 {
        (step, "h", 3600.0)
    } else if step >= 60.0 {
        (step, "min", 60.0)
    } else {
        (step, "s", 1.0)
    }
}

/// Seconds with a space before their unit.
fn spaced(value: f64) -> String {
    let text = seconds(value);
    match text.find(char::is_alphabetic) {
        Some(unit) => format!("{} {}", &text[..unit], &text[unit..]),
        None => text,
    }
}

fn summary(measures: &Measures) -> String {
    let mut parts = vec![format!("{:.1} % of the ideal", 100.0 * measures.efficiency)];
    parts.extend(measures.makespan.map(|makespan| format!("jobs done in {}", spaced(makespan))));
    parts.push(match measures.throttles {
        1 => "1 throttle".to_owned(),
        many => format!("{many} throttles"),
    });
    // Where classes compete, how long a person waits is half of the story.
    if let (Some(waits), 2..) = (measures.waits.get("interactive"), measures.waits.len()) {
        parts.push(format!("interactive p99 {}", spaced(waits.p99)));
    }
    if measures.strangers_throttled > 0 {
        parts.push(format!("{} of strangers", measures.strangers_throttled));
    }
    for (count, what) in
        [(measures.failed, "failed"), (measures.unfinished, "unfinished"), (measures.late, "late")]
    {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(" · ")
}

/// A filled area under steps: equal neighbours make one step.
fn area(heights: &[f64], bottom: f64) -> String {
    let width = PLOT / f(SLOTS);
    let mut path = format!("M{} {}", n(LEFT), n(bottom));
    let mut before = None;
    for (index, &height) in heights.iter().enumerate() {
        if before != Some(n(height)) {
            write!(path, "H{}V{}", n(LEFT + width * f(index)), n(height))
                .expect("writing to a String cannot fail");
            before = Some(n(height));
        }
    }
    write!(path, "H{}V{}z", n(LEFT + PLOT), n(bottom)).expect("writing to a String cannot fail");
    path
}

/// Lines of at most [`LINE`] characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a line");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > LINE {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// A small count as a coordinate.
#[expect(clippy::cast_precision_loss, reason = "lanes, lines and slots are few")]
fn f(count: usize) -> f64 {
    count as f64
}
