//! `cargo xtask chaos`: the long form of the kill tests, by seed, number of kills and mode.
//!
//! Why not a step of the CI: it takes minutes. Its short form is an ordinary test and runs with all of them.

use crate::{command::Program, failure::Failure};

/// The modes, each an ignored test of `crates/cli/tests/chaos`; see [`test_of`].
const MODES: [&str; 8] =
    ["dedup", "plain", "reconcile", "jobs", "jobs-plain", "conflict", "cancel", "export"];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    seed: u64,
    kills: u32,
    modes: Vec<&'static str>,
}

/// Runs what `words` ask for; all modes with seed 1 and a hundred kills by default.
pub(crate) fn run(words: &[&str]) -> Result<(), Failure> {
    let wanted = parse(words)?;
    for mode in &wanted.modes {
        eprintln!("\n== chaos: {mode} ==");
        Program::cargo()
            .args(["test", "--locked", "-p", "tidegate-cli", "--test", "chaos", "--"])
            .args(["--ignored", "--exact", "--nocapture", &test_of(mode)])
            .env("TIDEGATE_CHAOS_SEED", &wanted.seed.to_string())
            .env("TIDEGATE_CHAOS_KILLS", &wanted.kills.to_string())
            .run()?;
    }
    Ok(())
}

/// The test of a mode.
fn test_of(mode: &str) -> String {
    format!("long_{}", mode.replace('-', "_"))
}

/// Shown by `cargo xtask help`.
pub(crate) fn about() -> String {
    format!("kill the program at random, minutes; --seed N, --kills N, --mode {}", MODES.join("|"))
}

fn parse(words: &[&str]) -> Result<Wanted, Failure> {
    let mut wanted = Wanted { seed: 1, kills: 100, modes: MODES.to_vec() };
    for pair in words.chunks(2) {
        let &[flag, value] = pair else {
            return Err(Failure::new(format!("`{}` needs a value", pair[0])).hint(about()));
        };
        let number = || Failure::new(format!("{flag}: `{value}` is not a number"));
        match flag {
            "--seed" => wanted.seed = value.parse().map_err(|_| number())?,
            "--kills" => wanted.kills = value.parse().map_err(|_| number())?,
            "--mode" => {
                let mode = MODES.into_iter().find(|mode| *mode == value);
                let unknown = || Failure::new(format!("there is no mode `{value}`")).hint(about());
                wanted.modes = vec![mode.ok_or_else(unknown)?];
            }
            _ => return Err(Failure::new(format!("`chaos` has no flag `{flag}`")).hint(about())),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_what_the_project_promises() {
        let wanted = Wanted { seed: 1, kills: 100, modes: MODES.to_vec() };
        assert_eq!(parse(&[]).unwrap(), wanted);
    }

    #[test]
    fn flags_are_read_and_strange_ones_refused() {
        let wanted = Wanted { seed: 7, kills: 3, modes: vec!["plain"] };
        assert_eq!(parse(&["--seed", "7", "--mode", "plain", "--kills", "3"]).unwrap(), wanted);
        for (words, told) in [
            (&["--seed"][..], "--seed"),
            (&["--seed", "x"], "`x`"),
            (&["--mode", "wild"], "wild"),
            (&["--speed", "1"], "--speed"),
        ] {
            assert!(parse(words).unwrap_err().to_string().contains(told), "{words:?}");
        }
    }

    #[test]
    fn every_mode_has_its_test() {
        let path = crate::command::root().join("crates/cli/tests/chaos/main.rs");
        let tests = std::fs::read_to_string(path).unwrap();
        for mode in MODES {
            assert!(tests.contains(&format!("fn {}()", test_of(mode))), "{mode}");
        }
        assert_eq!(tests.matches("fn long_").count(), MODES.len());
    }
}
