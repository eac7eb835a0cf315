//! What a program claims to have done against what the simulator says it did.
//!
//! A program through the gateway has succeeded if nothing went wrong for it, every change it was told is done *is*
//! done, exactly as many writes were applied as it was told, none of them twice, and the conditions were really bad:
//! some calls were throttled and more than one token was needed.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use crate::failure::Failure;

/// How the programs name the gateway's word for "nobody knows whether it was done".
pub(super) const UNKNOWN: &str = "424 outcome.unknown";

/// User to skill to proficiency.
type Skills = BTreeMap<String, BTreeMap<String, f64>>;

/// What a program says about its run.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Claim {
    /// Who claims it, such as `python 269.0.0`.
    #[serde(default)]
    sdk: String,
    /// Calls of the program, however often the SDK sent them.
    calls: u64,
    /// What it saw go wrong, by kind.
    errors: BTreeMap<String, u64>,
    /// Changes it was told are done.
    applied: Skills,
    /// How long it took.
    #[serde(default)]
    seconds: f64,
}

/// The simulator's record of a run.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    accepted: u64,
    throttled: u64,
    duplicates: u64,
    lost: u64,
    unkeyed: u64,
    writes: BTreeMap<String, u64>,
    oauth: Oauth,
    users: Skills,
}

/// The simulator's record of its token endpoint.
#[derive(Debug, Deserialize)]
struct Oauth {
    calls: u64,
}

impl Claim {
    /// Reads the JSON report of an SDK proof.
    pub(super) fn from_report(stdout: &str) -> Result<Self, String> {
        serde_json::from_str(stdout).map_err(|error| format!("the program printed no report: {error}"))
    }

    /// Reads the CSV table of an example: `user_id,skill_id,proficiency,status`.
    pub(super) fn from_table(stdout: &str) -> Result<Self, String> {
        let mut lines = stdout.lines();
        if lines.next() != Some("user_id,skill_id,proficiency,status") {
            return Err("the program printed no table".to_owned());
        }
        let mut claim = Self::default();
        for line in lines {
            let fields: Vec<&str> = line.split(',').collect();
            let [user, skill, proficiency, status] = fields[..] else {
                return Err(format!("`{line}` is no line of the table"));
            };
            let proficiency: f64 =
                proficiency.parse().map_err(|_| format!("`{proficiency}` is no proficiency"))?;
            claim.calls += 1;
            if status == "ok" {
                claim.applied.entry(user.to_owned()).or_default().insert(skill.to_owned(), proficiency);
            } else {
                *claim.errors.entry(status.to_owned()).or_default() += 1;
            }
        }
        Ok(claim)
    }

    fn exceptions(&self) -> u64 {
        self.errors.values().sum()
    }

    fn changes(&self) -> u64 {
        self.applied.values().map(|skills| skills.len() as u64).sum()
    }
}

impl Record {
    /// Reads the answer of `/sim/stats?users=1`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        serde_json::from_str(text)
            .map_err(|error| Failure::new(format!("the simulator's record cannot be read: {error}")))
    }

    fn writes(&self) -> u64 {
        self.writes.values().sum()
    }
}

/// What is wrong with a run that should have gone well.
pub(super) fn judge_success(claim: &Claim, record: &Record) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |holds: bool, problem: String| {
        if !holds {
            problems.push(problem);
        }
    };
    expect(claim.exceptions() == 0, format!("the program saw {}", listed(&claim.errors)));
    expect(claim.changes() > 0, "the program changed nothing".to_owned());
    expect(record.duplicates == 0, format!("{} writes were applied twice", record.duplicates));
    // The simulator tells a repetition by the key that a write carries on every attempt.
    expect(record.unkeyed == 0, format!("{} writes carried no key", record.unkeyed));
    expect(record.lost == 0, format!("{} writes were given up without an answer", record.lost));
    let (told, applied) = (claim.changes(), record.writes());
    expect(told == applied, format!("the program was told of {told} writes, but {applied} were applied"));
    let missing = missing(&claim.applied, &record.users);
    expect(missing.is_empty(), format!("{} changes are not there, the first: {missing:?}", missing.len()));
    expect(record.throttled > 0, "the simulator throttled nothing, so the run proves nothing".to_owned());
    expect(record.oauth.calls > 1, "no token had to be renewed, so the run proves nothing".to_owned());
    problems
}

/// What is wrong with a run that should have failed.
pub(super) fn judge_failure(claim: &Claim) -> Vec<String> {
    if claim.exceptions() > 0 {
        return Vec::new();
    }
    vec!["nothing went wrong although the gateway was left out, so the simulator proves nothing".to_owned()]
}

/// What is wrong with a run whose only write was executed and whose answer did not come, or not wholly.
///
/// The program must have been told so, by `word`, in a way that its SDK does not answer by sending again; without one it must not
/// have noticed, because the gateway read back what was written.
pub(super) fn judge_once(claim: &Claim, record: &Record, word: Option<&str>) -> Vec<String> {
    let mut problems = Vec::new();
    let expected: BTreeMap<String, u64> = word.map(|word| (word.to_owned(), 1)).into_iter().collect();
    if claim.errors != expected {
        let (expected, saw) = (listed(&expected), listed(&claim.errors));
        problems.push(format!("the program should have seen [{expected}], but saw [{saw}]"));
    }
    if record.writes() != 1 || record.duplicates != 0 {
        let (writes, duplicates) = (record.writes(), record.duplicates);
        problems
            .push(format!("{writes} writes were applied, {duplicates} of them again, instead of 1 and 0"));
    }
    problems
}

/// What is wrong with a run that should have applied a write twice.
pub(super) fn judge_duplicate(record: &Record) -> Vec<String> {
    if record.duplicates > 0 {
        return Vec::new();
    }
    vec![
        "no write was applied twice although the gateway was left out, so the proof proves nothing"
            .to_owned(),
    ]
}

/// Claimed changes that the record does not have, as `user skill`.
fn missing(claimed: &Skills, recorded: &Skills) -> Vec<String> {
    let mut missing = Vec::new();
    for (user, skills) in claimed {
        for (skill, proficiency) in skills {
            let there = recorded.get(user).and_then(|skills| skills.get(skill));
            // Both sides carry the number through unchanged; no arithmetic is done on it.
            if there.is_none_or(|there| (there - proficiency).abs() > f64::EPSILON) {
                missing.push(format!("{user} {skill}"));
            }
        }
    }
    missing
}

/// `142 x 401 bad.credentials, 3 x 429 too.many.requests`.
fn listed(errors: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> = errors.iter().map(|(name, count)| format!("{count} x {name}")).collect();
    each.join(", ")
}

impl fmt::Display for Claim {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.sdk.is_empty() {
            write!(out, "{}: ", self.sdk)?;
        }
        write!(out, "{} calls, {} changes", self.calls, self.changes())?;
        if self.seconds > 0.0 {
            write!(out, " in {:.1} s", self.seconds)?;
        }
        if self.exceptions() == 0 {
            out.write_str(", no exception")
        } else {
            write!(out, ", saw {}", listed(&self.errors))
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "simulator: {} accepted, {} throttled, {} token calls, {} writes, {} duplicates",
            self.accepted,
            self.throttled,
            self.oauth.calls,
            self.writes(),
            self.duplicates
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(changes: &Value, errors: &Value) -> Claim {
        let report = json!({ "sdk": "python 269.0.0", "base": "http://x", "calls": 9, "exceptions": 0, "errors": errors,
            "users_listed": 100, "seconds": 1.5, "applied": changes });
        Claim::from_report(&report.to_string()).unwrap()
    }

    fn record(overrides: &Value) -> Record {
        let mut record = json!({ "accepted": 12, "throttled": 3, "duplicates": 0, "lost": 0, "unkeyed": 0,
            "writes": { "PATCH skills": 2 }, "oauth": { "calls": 4, "overlap_max": 1 },
            "users": { "u1": { "s1": 2 }, "u2": { "s1": 3.0, "s2": 5.0 } } });
        for (key, value) in overrides.as_object().unwrap() {
            record[key] = value.clone();
        }
        Record::parse(&record.to_string()).unwrap()
    }

    fn good_claim() -> Claim {
        claim(&json!({ "u1": { "s1": 2.0 }, "u2": { "s2": 5.0 } }), &json!({}))
    }

    #[test]
    fn a_clean_run_is_accepted_and_summed_up() {
        let (claim, record) = (good_claim(), record(&json!({})));
        assert_eq!(judge_success(&claim, &record), Vec::<String>::new());
        assert_eq!(claim.to_string(), "python 269.0.0: 9 calls, 2 changes in 1.5 s, no exception");
        assert_eq!(
            record.to_string(),
            "simulator: 12 accepted, 3 throttled, 4 token calls, 2 writes, 0 duplicates"
        );
    }

    #[test]
    fn every_way_to_fail_is_told_apart() {
        for (overrides, expected) in [
            (json!({ "duplicates": 1 }), "applied twice"),
            (json!({ "lost": 1 }), "given up"),
            (json!({ "unkeyed": 2 }), "no key"),
            (json!({ "writes": { "PATCH skills": 3 } }), "told of 2 writes, but 3"),
            (json!({ "users": { "u1": { "s1": 2 }, "u2": { "s2": 4 } } }), "u2 s2"),
            (json!({ "users": { "u2": { "s2": 5 } } }), "u1 s1"),
            (json!({ "throttled": 0 }), "throttled nothing"),
            (json!({ "oauth": { "calls": 1 } }), "no token"),
        ] {
            let problems = judge_success(&good_claim(), &record(&overrides));
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(expected), "{problems:?}");
        }
    }

    #[test]
    fn an_exception_of_the_program_fails_it() {
        let claim =
            claim(&json!({ "u1": { "s1": 2.0 } }), &json!({ "401 bad.credentials": 2, "MaxRetryError": 1 }));
        let problems = judge_success(&claim, &record(&json!({ "writes": { "PATCH skills": 1 } })));
        assert_eq!(problems, ["the program saw 2 x 401 bad.credentials, 1 x MaxRetryError"]);
    }

    #[test]
    fn straight_at_the_server_the_absence_of_errors_is_the_failure() {
        assert_eq!(judge_failure(&good_claim()).len(), 1);
        assert!(judge_failure(&claim(&json!({}), &json!({ "429 x": 1 }))).is_empty());
    }

    #[test]
    fn an_unknown_outcome_is_told_once_and_applied_once() {
        let told = claim(&json!({}), &json!({ "424 outcome.unknown": 1 }));
        let once = record(&json!({ "writes": { "POST users": 1 } }));
        assert_eq!(judge_once(&told, &once, Some(UNKNOWN)), Vec::<String>::new());
        assert_eq!(
            judge_once(&good_claim(), &once, Some(UNKNOWN)).len(),
            1,
            "the program was told that all is well"
        );
        let twice = record(&json!({ "writes": { "POST users": 2 }, "duplicates": 1 }));
        assert_eq!(judge_once(&told, &twice, Some(UNKNOWN)).len(), 1);
        assert_eq!(judge_once(&good_claim(), &once, None), Vec::<String>::new());
        assert_eq!(judge_once(&told, &once, None).len(), 1, "it was to be completed");
        assert!(judge_duplicate(&twice).is_empty());
        assert_eq!(judge_duplicate(&once).len(), 1);
    }

    #[test]
    fn the_table_of_an_example_is_a_claim() {
        let claim = Claim::from_table(
            "user_id,skill_id,proficiency,status\r\nu1,s1,4.0,ok\r\nu2,s1,4.0,unknown\r\nu3,s1,4,ok\r\n",
        )
        .unwrap();
        assert_eq!((claim.calls, claim.changes(), claim.exceptions()), (3, 2, 1));
        assert!(Claim::from_table("Traceback").is_err());
        assert!(Claim::from_table("user_id,skill_id,proficiency,status\nu1,s1").is_err());
    }
}
