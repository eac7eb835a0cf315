//! The demo's world: a simulated organisation with a tight quota, the job, and the judge's verdict.
//!
//! The organisation does what the real one does on a bad day: it allows 150 calls per 5 s, its tokens die after 3 s
//! (instead of a day, because the demo has only a minute), and now and then it cuts a connection, mostly after the work
//! was done. Everything is counted by the simulator, which shares no code with what it judges.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tidegate_sim::model::org::skills;
use tidegate_sim::{Sim, SimConfig, Stats};
use tokio::net::TcpListener;

use crate::failure::Failure;

/// The job: one skill of one agent per row.
pub(super) const CSV: &str = include_str!("../../../../examples/agent-skills.csv");

/// The rules on both sides: guide headers, and writes recognised by X-Genesys-Request-Id.
pub(super) const PROFILE: &str = "genesys-guide";

pub(super) const CLIENT_ID: &str = "demo-client";
pub(super) const CLIENT_SECRET: &str = "demo-secret";

/// What the simulator simulates. [`RULES`] says it in words.
pub(super) const ORGANISATION: &str = r#"
rule = "fixed"
limit = 150
window = "5s"
headers = "guide"
retry_after = "exact"
latency = "20ms..40ms"
dedup = "24h"

[oauth]
token_ttl = "3s"
latency = "20ms..40ms"

[faults]
drop_before = 0.01
drop_after = 0.02
"#;

/// [`ORGANISATION`] in words.
pub(super) const RULES: &str =
    "it allows 150 calls per 5 s, its tokens live 3 s, and it hangs up on 3 calls in 100";

/// Calls per window, and the window in seconds, as in [`ORGANISATION`].
const QUOTA: (u64, u64) = (150, 5);

/// The least time in which `calls` calls can be made, in seconds: the first window's share goes at once.
pub(super) fn least_seconds(calls: u64) -> u64 {
    calls.saturating_sub(1) / QUOTA.0 * QUOTA.1
}

/// One row of the job.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) user: String,
    /// The skill's id.
    pub(super) skill: String,
    pub(super) proficiency: f64,
}

/// Every agent's skills: skill id to proficiency, by user id.
pub(super) type Skills = BTreeMap<String, BTreeMap<String, f64>>;

/// Reads the job.
pub(super) fn rows(csv: &str) -> Result<Vec<Row>, Failure> {
    #[derive(Deserialize)]
    struct Line {
        user_id: String,
        skill: String,
        proficiency: f64,
    }
    let read = |line: Line| {
        let index = skills::NAMES.iter().position(|name| *name == line.skill);
        let index = index.ok_or_else(|| format!("the organisation has no skill `{}`", line.skill))?;
        Ok(Row { user: line.user_id, skill: skills::id(index), proficiency: line.proficiency })
    };
    let lines = csv::Reader::from_reader(csv.as_bytes()).into_deserialize();
    let rows = lines.map(|line| line.map_err(|error| error.to_string()).and_then(read));
    rows.collect::<Result<_, String>>().map_err(|why| Failure::internal(format!("the embedded job: {why}")))
}

/// What the agents' skills must be at the end: what they were, overlaid with the rows.
pub(super) fn expected(before: &Skills, rows: &[Row]) -> Skills {
    let mut skills = before.clone();
    for row in rows {
        skills.entry(row.user.clone()).or_default().insert(row.skill.clone(), row.proficiency);
    }
    skills
}

/// Agents whose skills are not what they must be.
pub(super) fn wrong_agents(expected: &Skills, found: &Skills) -> u64 {
    let wrong = expected.iter().filter(|(user, skills)| found.get(*user) != Some(*skills)).count();
    let invented = found.keys().filter(|user| !expected.contains_key(*user)).count();
    (wrong + invented) as u64
}

/// Agents that the job names.
pub(super) fn agents(rows: &[Row]) -> u64 {
    let users: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.user.as_str()).collect();
    users.len() as u64
}

/// Starts an organisation on a free port.
pub(super) async fn start(config: &str) -> Result<Sim, Failure> {
    let config = SimConfig::from_toml(config).map_err(Failure::internal)?;
    tidegate_sim::serve(free_port().await?, config).await.map_err(Failure::internal)
}

/// A listener on a free port of this machine.
pub(super) async fn free_port() -> Result<TcpListener, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| Failure::internal(format!("cannot listen on 127.0.0.1: {error}")))
}

/// The skills the organisation's agents have.
pub(super) fn skills_of(stats: Stats) -> Skills {
    stats.users.unwrap_or_default()
}

/// Writes the job where the bulk runner can read it.
pub(super) fn write_csv(path: &Path, csv: &str) -> Result<(), Failure> {
    std::fs::write(path, csv)
        .map_err(|error| Failure::internal(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn row(user: &str, skill: &str, proficiency: f64) -> Row {
        Row { user: user.to_owned(), skill: skill.to_owned(), proficiency }
    }

    #[test]
    fn the_embedded_job_is_1500_rows_for_500_agents() {
        let rows = rows(CSV).unwrap();
        assert_eq!((rows.len(), agents(&rows)), (1_500, 500));
    }

    #[test]
    fn an_unknown_skill_is_named() {
        let error = rows("user_id,user_name,skill,proficiency\nu,n,Juggling,1\n").unwrap_err();
        assert!(error.message.contains("Juggling"), "{}", error.message);
    }

    #[test]
    fn the_least_time_is_that_of_the_windows_that_must_pass() {
        assert_eq!([0, 1, 150, 151, 500, 1_500].map(least_seconds), [0, 0, 0, 5, 15, 45]);
        let config = SimConfig::from_toml(ORGANISATION).unwrap();
        assert_eq!((u64::from(config.limit), config.window.as_secs()), QUOTA);
    }

    #[test]
    fn an_agent_is_wrong_by_a_missing_a_spare_and_a_different_skill() {
        let rows = [row("a", "s", 1.0), row("b", "s", 2.0), row("c", "s", 3.0), row("d", "s", 4.0)];
        let good = expected(&Skills::new(), &rows);
        let mut found = good.clone();
        assert_eq!(wrong_agents(&good, &found), 0);
        found.get_mut("a").unwrap().clear();
        found.get_mut("b").unwrap().insert("t".to_owned(), 1.0);
        found.get_mut("c").unwrap().insert("s".to_owned(), 1.0);
        found.remove("d");
        assert_eq!(wrong_agents(&good, &found), 4);
    }
}
