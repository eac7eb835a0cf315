//! The tables `[[window]]` of a configuration, with every problem at its line.

use std::time::Duration;

use super::{Calendar, Cron, Window, Zone};
use crate::profile::reader::Section;
use crate::schedule::Class;

/// Reads every `[[window]]` of a file.
///
/// ```
/// use tidegate_core::calendar::read_windows;
/// use tidegate_core::profile::reader::read;
///
/// let text = r#"
///     [[window]]
///     name = "wfm publish"
///     cron = "0 6 * * MON"
///     tz = "America/Chicago"
///     for = "20m"
///     hold = ["bulk"]
///     reserve = { poll = 50 }
///     stagger = "15m"
/// "#;
/// let calendar = read(text, "tidegate.toml", read_windows).unwrap();
/// assert_eq!(calendar.windows()[0].name, "wfm publish");
/// ```
pub fn read_windows(file: &Section<'_>) -> Calendar {
    let mut windows: Vec<Window> = Vec::new();
    let sections = file.sections("window");
    for section in &sections {
        let Some(window) = read_window(section) else { continue };
        if windows.iter().any(|known| known.name == window.name) {
            section.problem(
                "name",
                format_args!("`{}` is used by an earlier window (choose another)", window.name),
            );
        }
        for (key, what) in window.problems() {
            section.problem(key, what);
        }
        windows.push(window);
    }
    if windows.len() > Calendar::MAX_WINDOWS
        && let Some(section) = sections.get(Calendar::MAX_WINDOWS)
    {
        section.problem(
            "",
            format_args!("is one of {} windows (write {} at most)", windows.len(), Calendar::MAX_WINDOWS),
        );
        windows.truncate(Calendar::MAX_WINDOWS);
    }
    let calendar = Calendar::new(windows);
    if let Some((index, what)) = calendar.overbooked() {
        sections[index].problem("reserve", what);
    }
    calendar
}

fn read_window(section: &Section<'_>) -> Option<Window> {
    let name = section.parsed("name", |text| match text.trim() {
        "" => Err("is empty (write a name, such as \"weekly publish\")"),
        // It stands in header fields, between quotation marks.
        text if text.len() > 64 || !text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte)) => {
            Err("is no name of a window (write up to 64 letters, digits, blanks and signs of ASCII, no quotation mark and no backslash)")
        }
        text => Ok(text.to_owned()),
    });
    let name = section.required("name", "name = \"weekly publish\"", name);
    let cron = section.required("cron", "cron = \"0 6 * * MON\"", section.parsed("cron", Cron::parse));
    let zone = section.required(
        "tz",
        "tz = \"America/Chicago\", or tz = \"UTC\"",
        section.parsed("tz", Zone::named),
    );
    let lasts = section.required("for", "for = \"20m\"", section.duration_above_zero("for"));
    let mut hold = [false; Class::COUNT];
    let classes =
        section.each("hold", |text| text.parse::<Class>().map_err(|what| format!("`{text}` {what}")));
    for class in classes.unwrap_or_default() {
        hold[class.index()] = true;
    }
    let reserve = read_reserve(section);
    let stagger = section.duration("stagger").unwrap_or(Duration::ZERO);
    Some(Window { name: name?, cron: cron?, zone: zone?, lasts: lasts?, hold, reserve, stagger })
}

fn read_reserve(section: &Section<'_>) -> [u8; Class::COUNT] {
    let mut reserve = [0; Class::COUNT];
    if let Some(section) = section.section("reserve") {
        for (kept, class) in reserve.iter_mut().zip(Class::ALL) {
            let per_cent = section.integer(class.name(), &(1..=100));
            *kept = per_cent.and_then(|number| u8::try_from(number).ok()).unwrap_or_default();
        }
    }
    reserve
}
