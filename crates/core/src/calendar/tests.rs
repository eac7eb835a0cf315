//! The calendar as a whole.

use proptest::prelude::*;

use super::*;
use crate::profile::reader::read;

fn calendar(text: &str) -> Calendar {
    read(text, "tidegate.toml", read_windows).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    let problems = read(text, "tidegate.toml", read_windows).unwrap_err();
    problems.to_string().lines().map(str::to_owned).collect()
}

fn wall(text: &str) -> Wall {
    Wall::from_unix_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

const PUBLISH: &str = r#"
    [[window]]
    name = "wfm publish"
    cron = "0 6 * * MON"
    tz = "America/Chicago"
    for = "20m"
    hold = ["bulk"]
    reserve = { poll = 50 }
    stagger = "15m"
"#;

fn window(name: &str, cron: &str, tz: &str, lasts: &str, does: &str) -> String {
    format!("[[window]]\nname = \"{name}\"\ncron = \"{cron}\"\ntz = \"{tz}\"\nfor = \"{lasts}\"\n{does}\n")
}

#[test]
fn a_window_holds_until_its_end_and_the_own_stagger() {
    let publish = calendar(PUBLISH);
    let from = wall("2026-11-23T12:00:00Z");
    let phase = publish.phase(from, 7);
    assert_eq!(phase.open, [Occurrence { window: 0, from, until: wall("2026-11-23T12:20:00Z") }]);
    let held = phase.held[Class::Bulk.index()].unwrap();
    assert!(held.until >= held.by.until && held.until < wall("2026-11-23T12:35:00Z"));
    assert_eq!(phase.held[Class::Interactive.index()], None);
    assert_eq!(phase.until, Some(held.by.until));
    let (kept, own) = (phase.kept_from(Class::Interactive), phase.kept_from(Class::Poll));
    assert_eq!((kept, own), (50, 0), "it is kept from all others");
    let before = publish.phase(Wall::from_unix_millis(from.unix_millis() - 1), 7);
    assert_eq!((before.open.len(), before.held, before.until), (0, [None; 4], Some(from)));
    let after = publish.phase(held.by.until, 7);
    assert_eq!((after.open.len(), after.reserve), (0, [0; 4]), "the reserve ends with the window");
    assert_eq!(after.held[Class::Bulk.index()], Some(held));
    assert_eq!(publish.phase(held.until, 7).held, [None; 4]);
    assert!(
        publish
            .held_words(&held)
            .starts_with("held by window \"wfm publish\" until 06:20 CST, then staggered by ")
    );
}

#[test]
fn everybody_begins_at_a_moment_of_its_own_and_the_same_each_time() {
    let publish = calendar(PUBLISH);
    let window = &publish.windows()[0];
    let from = wall("2026-11-23T12:00:00Z");
    let mut minutes = [0; 15];
    for seed in 0..1500 {
        let stagger = window.own_stagger(from, seed);
        assert_eq!(stagger, window.own_stagger(from, seed));
        minutes[usize::try_from(stagger.as_secs() / 60).unwrap()] += 1;
    }
    assert!(minutes.iter().all(|&count| (60..150).contains(&count)), "{minutes:?}");
    let next_week = wall("2026-11-30T12:00:00Z");
    assert_ne!(window.own_stagger(from, 1), window.own_stagger(next_week, 1));
}

#[test]
fn a_window_over_midnight_is_open_on_both_days() {
    let night = calendar(&window("night", "30 23 * * *", "Europe/Berlin", "2h", "hold = [\"poll\"]"));
    for (at, open) in [
        ("2026-11-22T22:29:59Z", 0),
        ("2026-11-22T22:30:00Z", 1),
        ("2026-11-23T00:29:59Z", 1),
        ("2026-11-23T00:30:00Z", 0),
    ] {
        assert_eq!(night.phase(wall(at), 0).open.len(), open, "{at}");
    }
}

#[test]
fn a_window_lasts_as_long_as_it_says_over_a_switch_of_clocks() {
    for (tz, cron, from, until) in [
        // From 01:30 to 04:30, and from 01:30 to 03:30.
        ("America/Chicago", "30 1 * * *", "2026-03-08T07:30:00Z", "2026-03-08T09:30:00Z"),
        ("America/Chicago", "30 0 * * *", "2026-11-01T05:30:00Z", "2026-11-01T07:30:00Z"),
        ("America/Santiago", "30 23 * * *", "2026-09-06T03:30:00Z", "2026-09-06T05:30:00Z"),
        ("Australia/Lord_Howe", "0 1 * * *", "2026-04-04T14:00:00Z", "2026-04-04T16:00:00Z"),
    ] {
        let calendar = calendar(&window("switch", cron, tz, "2h", "hold = [\"bulk\"]"));
        let phase = calendar.phase(wall(from), 0);
        assert_eq!(phase.open, [Occurrence { window: 0, from: wall(from), until: wall(until) }], "{tz}");
    }
}

#[test]
fn windows_at_once_hold_who_one_of_them_holds_and_keep_the_larger_reserve() {
    let both = calendar(&format!(
        "{}{}",
        window(
            "a",
            "0 6 * * *",
            "UTC",
            "30m",
            "hold = [\"bulk\"]\nreserve = { interactive = 20, sync = 30 }"
        ),
        window("b", "10 6 * * *", "UTC", "1h", "hold = [\"poll\"]\nreserve = { interactive = 50 }"),
    ));
    let phase = both.phase(wall("2026-01-01T06:15:00Z"), 0);
    assert_eq!(phase.open.len(), 2);
    assert_eq!(phase.reserve, [50, 30, 0, 0]);
    let held = |class: Class| phase.held[class.index()].map(|held| held.until);
    assert_eq!(held(Class::Bulk), Some(wall("2026-01-01T06:30:00Z")));
    assert_eq!(held(Class::Poll), Some(wall("2026-01-01T07:10:00Z")));
    assert_eq!(phase.until, Some(wall("2026-01-01T06:30:00Z")));
}

#[test]
fn who_is_held_by_the_next_window_before_the_first_is_over_waits_for_that_too() {
    let both = calendar(&format!(
        "{}{}",
        window("a", "0 6 * * *", "UTC", "30m", "hold = [\"bulk\"]"),
        window("b", "30 6 * * *", "UTC", "30m", "hold = [\"bulk\"]"),
    ));
    let held = both.phase(wall("2026-01-01T06:00:00Z"), 0).held[Class::Bulk.index()].unwrap();
    assert_eq!((held.by.window, held.until), (0, wall("2026-01-01T07:00:00Z")));
}

#[test]
fn what_cannot_be_is_told_at_its_line_and_all_at_once() {
    let text = "[[window]]\nname = \"a\"\ncron = \"0 0 31 2 *\"\ntz = \"Mars/Olympus\"\nfor = \"0s\"\nhold = [\"bluk\"]\nreserve = { poll = 101, x = 1 }\nstager = \"1m\"\n";
    let told = problems(text);
    for (line, part) in told.iter().zip([
        "tidegate.toml:3: window[0].cron: `0 0 31 2 *` never comes",
        "tidegate.toml:4: window[0].tz: `Mars/Olympus` is no time zone",
        "tidegate.toml:5: window[0].for: is zero",
        "tidegate.toml:6: window[0].hold: `bluk` is not a class",
        "tidegate.toml:7: window[0].reserve.poll: 101 is out of range",
        "tidegate.toml:7: window[0].reserve.x: is not a known key",
        "tidegate.toml:8: window[0].stager: is not a known key (did you mean `stagger`?)",
    ]) {
        assert!(line.starts_with(part), "{line}\nand not {part}");
    }
    assert_eq!(told.len(), 7, "{told:#?}");
    let missing = problems("[[window]]\n");
    assert_eq!(missing.len(), 4, "{missing:#?}");
}

#[test]
fn what_does_not_go_together_is_told() {
    for (text, part) in [
        (
            window("a", "0 6 * * *", "UTC", "25h", "hold = [\"bulk\"]"),
            ".for: is 90000s, and it comes again after 86400s",
        ),
        (
            window("a", "0 6 * * *", "UTC", "23h", "hold = [\"bulk\"]\nstagger = \"2h\""),
            ".stagger: with `for` is 90000s, and",
        ),
        (window("a", "0 6 * * *", "UTC", "1h", ""), "neither holds nor reserves"),
        (window("a", "0 6 * * *", "UTC", "1h", "hold = []\nreserve = {}"), "neither holds nor reserves"),
        (window("a", "0 6 * * *", "UTC", "1h", "reserve = { poll = 60, sync = 50 }"), "keeps 110 per cent"),
        (
            window("a", "0 6 * * *", "UTC", "1h", "hold = [\"poll\"]\nreserve = { poll = 60 }"),
            "keeps something for poll",
        ),
        (window("a", "0 6 * * *", "UTC", "1h", "stagger = \"5m\"\nreserve = { poll = 60 }"), "nobody is"),
        (window("a\\u0007", "0 6 * * *", "UTC", "1h", "hold = [\"poll\"]"), "is no name of a window"),
        (format!("{PUBLISH}{PUBLISH}"), "used by an earlier window"),
    ] {
        let told = problems(&text);
        assert!(told.len() == 1 && told[0].contains(part), "{told:#?}\nand not {part}");
    }
}

#[test]
fn reserves_are_too_much_only_where_their_windows_meet() {
    let one = window("one", "0 6 * * MON-FRI", "America/Chicago", "1h", "reserve = { poll = 60 }");
    let apart = window("other", "0 8 * * *", "America/Chicago", "1h", "reserve = { sync = 60 }");
    assert_eq!(calendar(&format!("{one}{apart}")).windows().len(), 2);
    // Half past eleven in London is half past five or six in Chicago, by the season.
    let meets = window("other", "30 11 * * *", "Europe/London", "1h", "reserve = { sync = 60 }");
    let told = problems(&format!("{one}{meets}"));
    assert!(
        told.len() == 1 && told[0].contains("keeps 120 per cent of a quota together with `o"),
        "{told:#?}"
    );
}

#[test]
fn occurrences_between_two_instants_are_those_that_touch_the_time() {
    let publish = calendar(PUBLISH);
    let of = |from, to| publish.between(wall(from), wall(to), 10).len();
    assert_eq!(
        of("2026-11-23T12:10:00Z", "2026-12-07T12:00:00Z"),
        2,
        "one is open, one comes, one begins at the end"
    );
    assert_eq!(of("2026-11-23T12:20:00Z", "2026-11-30T12:00:00.001Z"), 1);
    assert_eq!(publish.between(wall("2026-01-01T00:00:00Z"), wall("2027-01-01T00:00:00Z"), 10).len(), 10);
}

#[test]
fn who_is_held_around_the_clock_is_told_when_to_ask_again() {
    let night = window("night", "0 0 * * *", "UTC", "13h", "hold = [\"bulk\"]");
    let day = window("day", "0 12 * * *", "UTC", "13h", "hold = [\"bulk\"]");
    let always = calendar(&format!("{night}{day}"));
    let of = |at| always.phase(at, 0).held[Class::Bulk.index()];
    let held = of(wall("2026-11-23T06:00:00Z")).unwrap();
    assert_eq!(held.until, wall("2026-12-25T13:00:00Z"), "65 windows, two a day");
    assert!(of(held.until).is_some());
}

#[test]
fn spans_are_told_in_two_units() {
    for (seconds, words) in [(0, "0 s"), (45, "45 s"), (240, "4 m"), (4800, "1 h 20 m"), (90_061, "1 d 1 h")]
    {
        assert_eq!(span_words(Duration::from_secs(seconds)), words);
    }
}

proptest! {
    /// Whatever the windows: what holds is the same at every instant until it is said to change, and the one who is held is free
    /// at the instant that was told, not before; where windows leave no gap for days, what is told is when to ask again.
    #[test]
    fn a_phase_holds_until_it_says_and_the_held_are_free_when_told(
        windows in proptest::collection::vec((0..6_usize, 0..60_u32, 1..300_u64, 0..60_u64, 0..4_usize, 0..3_usize), 1..5),
        seed: u64,
        offset in 0..(400 * 24 * 3600_i64),
    ) {
        let zones = ["UTC", "America/Chicago", "Australia/Lord_Howe"];
        let windows = windows.into_iter().enumerate().map(|(index, (hour, minute, lasts, stagger, class, zone))| {
            let mut hold = [false; Class::COUNT];
            hold[class] = true;
            Window {
                name: index.to_string(),
                cron: Cron::parse(&format!("{minute} {}/{} * * *", hour, 6 + hour)).unwrap(),
                zone: Zone::named(zones[zone]).unwrap(),
                lasts: Duration::from_secs(lasts * 60),
                hold,
                reserve: [0; Class::COUNT],
                stagger: Duration::from_secs(stagger * 60),
            }
        });
        let calendar = Calendar::new(windows.collect());
        let at = Wall::from_unix_millis((1_767_225_600 + offset) * 1000);
        let phase = calendar.phase(at, seed);
        let until = phase.until.unwrap_or(at);
        prop_assert!(calendar.is_empty() || until > at);
        let before = Wall::from_unix_millis((until.unix_millis() - 1).max(at.unix_millis()));
        let middle = Wall::from_unix_millis(i64::midpoint(at.unix_millis(), before.unix_millis()));
        for later in [middle, before] {
            let same = calendar.phase(later, seed);
            prop_assert_eq!((&same.open, &same.reserve, same.held), (&phase.open, &phase.reserve, phase.held));
        }
        for (class, held) in Class::ALL.into_iter().zip(phase.held) {
            let Some(held) = held else { continue };
            prop_assert!(held.until > at);
            let of = |at| calendar.phase(at, seed).held[class.index()];
            // Windows that follow each other without a gap are looked through for a bounded number of times they come; here
            // no more than sixteen come in a day.
            let looked_through = Duration::from_millis((held.until.unix_millis() - at.unix_millis()).unsigned_abs());
            prop_assert!(of(held.until).is_none() || looked_through > Duration::from_hours(72));
            prop_assert!(of(Wall::from_unix_millis(held.until.unix_millis() - 1)).is_some());
        }
    }
}
