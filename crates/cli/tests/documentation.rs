//! The pages of the commands name every flag, and no flag that does not exist.

use std::collections::BTreeSet;
use std::process::Command;

/// Words that begin with two hyphens.
fn flags(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c == '-';
    let after = text.match_indices("--").map(|(at, _)| &text[at..]);
    let flags = after.map(|rest| rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())].to_owned());
    flags.filter(|flag| flag.len() > 3 && !flag.starts_with("---") && !flag.ends_with('-')).collect()
}

fn of_command(command: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(command.split(' '))
        .arg("--help")
        .output()
        .expect("the program was built for this test");
    flags(&String::from_utf8(output.stdout).expect("help is text"))
}

fn assert_documented(command: &str, page: &str) {
    let (page, command) = (flags(page), of_command(command));
    // Every command has these; they need no explanation.
    let common = ["--help", "--version", "--verbose"].map(str::to_owned);
    let missing: Vec<&String> = command.difference(&page).filter(|flag| !common.contains(flag)).collect();
    assert!(missing.is_empty(), "the page does not name {missing:?}");
    let invented: Vec<&String> = page.difference(&command).collect();
    assert!(invented.is_empty(), "the page names {invented:?}, which the command does not know");
}

#[test]
fn the_gateways_page_names_every_flag_of_serve() {
    assert_documented("serve", include_str!("../../../docs/gateway.md"));
}

#[test]
fn the_simulators_page_names_every_flag_of_sim() {
    assert_documented("sim", include_str!("../../../docs/simulator.md"));
}

#[test]
fn the_bulk_and_configuration_pages_name_every_flag_of_bulk() {
    let pages = [include_str!("../../../docs/bulk.md"), include_str!("../../../docs/configuration.md")];
    let named = flags(&pages.join("\n"));
    for command in ["bulk run", "bulk resume", "bulk status", "bulk report", "bulk cancel"] {
        let common = ["--help", "--version", "--verbose", "--format"].map(str::to_owned);
        let missing: Vec<String> =
            of_command(command).difference(&named).filter(|flag| !common.contains(flag)).cloned().collect();
        assert!(missing.is_empty(), "the pages do not name {missing:?} of {command}");
    }
}

#[test]
fn the_pages_of_export_and_doctor_name_every_flag() {
    assert_documented("export", include_str!("../../../docs/export.md"));
    assert_documented("doctor", include_str!("../../../docs/doctor.md"));
}

#[test]
fn the_calendars_page_names_every_flag_of_plan() {
    assert_documented("plan", include_str!("../../../docs/calendar.md"));
}

#[test]
fn the_labs_page_names_every_flag_of_lab_run() {
    let page = flags(include_str!("../../../docs/lab.md"));
    let common = ["--help", "--version", "--verbose"].map(str::to_owned);
    let missing: Vec<String> =
        of_command("lab run").difference(&page).filter(|flag| !common.contains(flag)).cloned().collect();
    assert!(missing.is_empty(), "the page does not name {missing:?}");
}
