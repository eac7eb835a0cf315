//! Scenario files: a server, a fleet of clients, and what is expected of them.
//!
//! The file is the simulator's own ([`tidegate_sim::Scenario`]), so that one file serves sockets and virtual time; this module
//! reads the two sections that the simulator hands on unread. Everything that is wrong in any section is reported
//! at once.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tidegate_sim::{SimConfig, SimError, strict};

use crate::error::LabError;
use crate::expect::Expect;
use crate::fleet::Fleet;
use crate::place;

/// A situation: who serves, who calls, what should come of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Short name, as listed.
    pub name: String,
    /// One sentence: what this shows.
    pub about: String,
    /// The run ends here at the latest; if absent, when all loads are done.
    pub duration: Option<Duration>,
    /// The server.
    pub server: SimConfig,
    /// The clients.
    pub fleet: Fleet,
    /// What each strategy should reach.
    pub expect: Expect,
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// The line of a syntax error, or every unknown key, wrong type and value out of bounds of all sections.
    ///
    /// ```
    /// let error = tidegate_lab::Scenario::from_toml("[server]\nlimt = 3\n[fleet]\nload = []\ninstances = 0\n").unwrap_err();
    /// assert!(error.to_string().starts_with("3 problems in the scenario:"), "{error}");
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, LabError> {
        let tree = strict::read_toml::<Value>("scenario", text)
            .map_err(|error| LabError::Syntax(error.to_string()))?;
        let Value::Object(mut tree) = tree else { return Err(LabError::Invalid(Vec::new())) };
        let mut take = |key: &str| tree.remove(key).unwrap_or_else(|| Value::Object(Map::new()));
        let (fleet, expect) = (take("fleet"), take("expect"));
        let mut problems = Vec::new();
        let server: Option<tidegate_sim::Scenario> = section("", Value::Object(tree), &mut problems);
        let fleet: Option<Fleet> = section("fleet.", fleet, &mut problems);
        let expect: Option<Expect> = section("expect.", expect, &mut problems);
        let readable = problems.is_empty();
        let mut bounds = server.iter().flat_map(out_of_bounds).collect::<Vec<_>>();
        bounds.extend(fleet.iter().flat_map(Fleet::problems));
        // Where a value was left out because it cannot be read, the default in its place is nobody's mistake.
        bounds.retain(|bound| !problems.iter().any(|problem| problem.starts_with(place::key(bound))));
        problems.extend(bounds);
        if let (Some(server), Some(fleet), true) = (&server, &fleet, readable) {
            problems.extend(fleet.misfits(&server.server, server.duration));
        }
        match (server, fleet, expect) {
            (Some(server), Some(fleet), Some(expect)) if problems.is_empty() => Ok(Self {
                name: server.name,
                about: server.about,
                duration: server.duration,
                server: server.server,
                fleet,
                expect,
            }),
            _ => Err(LabError::Invalid(place::with_lines(text, problems))),
        }
    }
}

/// What is sound of a section; the rest leaves its problems.
fn section<T: DeserializeOwned>(prefix: &str, tree: Value, problems: &mut Vec<String>) -> Option<T> {
    let (section, wrong) = strict::salvage(tree);
    problems.extend(wrong.into_iter().map(|problem| format!("{prefix}{problem}")));
    section
}

fn out_of_bounds(scenario: &tidegate_sim::Scenario) -> Vec<String> {
    match scenario.server.validate() {
        Ok(()) => Vec::new(),
        Err(SimError::Invalid { problems, .. }) => {
            problems.into_iter().map(|problem| format!("server.{problem}")).collect()
        }
        Err(other) => vec![other.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_of_all_sections_are_reported_at_once() {
        let error = Scenario::from_toml(
            "nmae = \"x\"\n[server]\nlimt = 3\n[fleet]\ninstance = 2\n[fleet.class.blk]\n[fleet.class.bulk]\npolicy = \"polite\"\n[[fleet.load]]\nclass = \"fast\"\n[expect.tidegate]\nefficiency = \"much\"\n[expect.magic]\n",
        )
        .unwrap_err()
        .to_string();
        for part in [
            "nmae: unknown",
            "server.limt: unknown",
            "fleet.instance: unknown",
            "fleet.class.blk: unknown",
            "fleet.class.bulk.policy: \"polite\" is not a policy",
            "fleet.load[0].class: \"fast\" is not a class",
            "expect.tidegate.efficiency: \"much\" is not a range",
            "expect.magic: unknown",
        ] {
            assert!(error.contains(part), "{part} is missing in:\n{error}");
        }
    }

    #[test]
    fn values_out_of_bounds_are_told_beside_what_cannot_be_read_with_lines_in_their_order() {
        let error = Scenario::from_toml(
            "[server]\nlimit = 3\nburst = 0\n\n[fleet]\nstrategies = [\"guide\", \"guide\"]\n[[fleet.load]]\nclass = \"fast\"\nrate = -1\n\n[[fleet.load]]\nrequest = 5\nrate = \"much\"\n",
        )
        .unwrap_err();
        let LabError::Invalid(problems) = error else { panic!("{error}") };
        let begins = [
            "line 3: server.burst: 0 is below 1",
            "line 6: fleet.strategies: `guide` is named twice",
            "line 8: fleet.load[0].class: \"fast\" is not a class",
            "line 9: fleet.load[0].rate: -1 is not above 0",
            "line 12: fleet.load[1].request: unknown field `request` (did you mean `requests`?)",
            "line 13: fleet.load[1].rate: invalid type",
        ];
        assert_eq!(problems.len(), begins.len(), "{problems:#?}");
        for (problem, begin) in problems.iter().zip(begins) {
            assert!(problem.starts_with(begin), "{begin} is missing in:\n{problems:#?}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_read_is_not_called_empty_too() {
        let error = Scenario::from_toml("[fleet]\nload = 3\n").unwrap_err();
        let LabError::Invalid(problems) = error else { panic!("{error}") };
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("line 2: fleet.load: invalid type"), "{problems:?}");
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = Scenario::from_toml("name = \"x\"\n[fleet\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_file_of_the_simulator_alone_says_what_the_lab_misses() {
        let error = Scenario::from_toml("name = \"x\"\n[server]\nlimit = 3\n").unwrap_err().to_string();
        assert!(error.contains("fleet.load: nobody calls"), "{error}");
    }
}
