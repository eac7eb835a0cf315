//! Scenario files: a server, a fleet of clients, and what is expected of them.
//!
//! The file is the simulator's own ([`tidegate_sim::Scenario`]), so that one file serves sockets and virtual time; this module
//! reads the two sections that the simulator hands on unread. Everything that is wrong in any section is reported
//! at once.

use std::time::Duration;

use serde_json::{Map, Value};
use tidegate_sim::{SimConfig, SimError, strict};

use crate::error::LabError;
use crate::expect::Expect;
use crate::fleet::Fleet;

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
        let server =
            tidegate_sim::Scenario::of("", strict::read("scenario", Value::Object(tree)), &mut problems);
        if let Some(server) = &server {
            problems.extend(prefixed("server.", server.server.validate()));
        }
        let fleet = Fleet::of("fleet.", strict::read("fleet", fleet), &mut problems);
        let expect = Expect::of("expect.", strict::read("expect", expect), &mut problems);
        problems.extend(fleet.iter().flat_map(Fleet::problems));
        if let (Some(server), Some(fleet)) = (&server, &fleet) {
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
            _ => Err(LabError::Invalid(problems)),
        }
    }
}

/// A section that is either read, or leaves its problems.
trait Section: Sized {
    fn of(prefix: &str, read: Result<Self, SimError>, problems: &mut Vec<String>) -> Option<Self> {
        match read {
            Ok(section) => Some(section),
            Err(error) => {
                problems.extend(prefixed(prefix, Err(error)));
                None
            }
        }
    }
}

impl Section for tidegate_sim::Scenario {}
impl Section for Fleet {}
impl Section for Expect {}

fn prefixed(prefix: &str, result: Result<(), SimError>) -> Vec<String> {
    match result {
        Ok(()) => Vec::new(),
        Err(SimError::Invalid { problems, .. }) => {
            problems.into_iter().map(|problem| format!("{prefix}{problem}")).collect()
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
