//! `[[fresh]]`: how old answers may be, said by who knows what they are read for.

use std::time::Duration;

use http::Method;

use crate::glob::PathGlob;
use crate::profile::parse_place;
use crate::profile::reader::Section;

/// A promise about the answers of a path: none is older than this.
///
/// It is the operator's word and therefore counts instead of what the upstream says about caching; most say `no-store` about
/// everything. What a request says (`no-cache`, `max-age`) narrows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshRule {
    /// Which reads.
    pub path: PathGlob,
    /// No answer is older, counted from the instant its request left. At least [`SHORTEST`].
    pub max_age: Duration,
}

/// Below this a cache costs more than it saves, and coalescing alone does the same.
pub const SHORTEST: Duration = Duration::from_millis(100);

/// Beyond this a promise of freshness is none.
pub const LONGEST: Duration = Duration::from_hours(24);

/// Reads every `[[fresh]]`.
///
/// ```toml
/// [[fresh]]
/// match = "GET /api/v2/scripts/*"
/// max_age = "5s"
/// ```
pub fn read_fresh(file: &Section<'_>) -> Vec<FreshRule> {
    let mut rules: Vec<FreshRule> = Vec::new();
    for section in file.sections("fresh") {
        let example = "match = \"GET /api/v2/scripts/*\"";
        let place = section.required("match", example, section.parsed("match", parse_place));
        let age = section.duration_above_zero("max_age");
        let age = section.required("max_age", "max_age = \"5s\"", age);
        if age.is_some_and(|age| age < SHORTEST) {
            section.problem(
                "max_age",
                "is below 100ms (identical reads in flight share a call without any rule)",
            );
        }
        if age.is_some_and(|age| age > LONGEST) {
            section.problem("max_age", "is above 24 hours (write a shorter one)");
        }
        let (Some((method, path)), Some(max_age)) = (place, age) else { continue };
        if method.is_some_and(|method| method != Method::GET) {
            section.problem("match", "names another method than GET (only answers to GET are kept)");
        }
        if rules.iter().any(|earlier| earlier.path == path) {
            section.problem("match", "is that of an earlier rule, which decides (remove one)");
        }
        rules.push(FreshRule { path, max_age });
    }
    rules
}
