//! What single routes do otherwise than their method says: `[[route]]`; and how long what was created may not be found:
//! `[consistency]`.

use std::time::Duration;

use http::Method;

use super::limit::parse_place;
use super::reader::Section;
use crate::glob::PathGlob;

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// The method; any if absent.
    pub method: Option<Method>,
    /// The path.
    pub path: PathGlob,
    /// Whether executing a call twice does no more than executing it once, whatever the method says.
    pub idempotent: bool,
    /// Whether it changes nothing, whatever the method says: a search by POST.
    pub safe: bool,
}

/// The longest time for which a new entity can be said to be missing. Beyond it a 404 of something that was created is
/// news.
const LONGEST: Duration = Duration::from_mins(10);

/// Reads every `[[route]]`.
pub(super) fn routes(file: &Section<'_>) -> Vec<RouteRule> {
    let mut routes: Vec<RouteRule> = Vec::new();
    for section in file.sections("route") {
        let place = section.required(
            "match",
            "match = \"POST /api/v2/users/search\"",
            section.parsed("match", parse_place),
        );
        let idempotent = section.required("idempotent", "idempotent = true", section.boolean("idempotent"));
        let safe = section.boolean("safe").unwrap_or(false);
        if safe && idempotent == Some(false) {
            section.problem(
                "safe",
                "contradicts idempotent = false (what changes nothing does so twice as well)",
            );
        }
        let (Some((method, path)), Some(idempotent)) = (place, idempotent) else { continue };
        if routes.iter().any(|earlier| (&earlier.method, &earlier.path) == (&method, &path)) {
            section.problem("match", "is that of an earlier route, which decides (remove one)");
        }
        routes.push(RouteRule { method, path, idempotent, safe });
    }
    routes
}

/// Reads `[consistency]`: for how long something created may not be found.
pub(super) fn after_create(file: &Section<'_>) -> Option<Duration> {
    let section = file.section("consistency")?;
    let window = section.required(
        "after_create",
        "after_create = \"60s\"",
        section.duration_above_zero("after_create"),
    )?;
    if window > LONGEST {
        section.problem(
            "after_create",
            format_args!(
                "is above {} minutes (what is missing for so long is missing)",
                LONGEST.as_secs() / 60
            ),
        );
    }
    Some(window)
}
