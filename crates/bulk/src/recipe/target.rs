//! Request targets: paths with placeholders, whose values cannot leave their segment.
//!
//! A value is data. Whatever is in the input, it must not be able to address another resource than the recipe meant:
//! everything outside RFC 3986's unreserved characters is percent-encoded, so `../x` stays one segment (`..%2Fx`), and
//! a value that makes a segment `.` or `..`, which encoding cannot defuse, is refused. So is one with a slash, a backslash or a
//! control character in a path: servers disagree on what its encoded form means, so no such path is ever sent, and a run
//! that planned it could only fail. In a query such values pass.

use std::collections::BTreeMap;

use tidegate_core::key::normalise;
use tidegate_core::template::encode;

use super::slot::{Piece, Type, pieces};

/// The placeholder that stands for the upstream's name of a job.
pub(crate) const JOB: &str = "job";

/// A path and query with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(String),
}

impl Target {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for piece in pieces(text)? {
            parts.push(match piece {
                Piece::Text(text) => Part::Text(text),
                Piece::Hole(slot) if slot.kind != Type::Text || slot.optional => {
                    return Err(format!("`{{{}}}` in a path is text and never left out", slot.column));
                }
                Piece::Hole(slot) => Part::Column(slot.column),
            });
        }
        let target = Self { parts };
        // A value of one letter stands for any: values cannot change what is checked here.
        check_target(&target.fill(|_| Some("x".into())).unwrap_or_default())?;
        Ok(target)
    }

    /// The columns it uses.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Column(column) => Some(column.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The target with each column's value encoded; `None` if `value` has none for some column.
    pub(crate) fn fill<'a>(
        &self,
        mut value: impl FnMut(&str) -> Option<std::borrow::Cow<'a, str>>,
    ) -> Option<String> {
        let mut target = String::with_capacity(96);
        let mut complete = true;
        for part in &self.parts {
            match part {
                Part::Text(text) => target.push_str(text),
                // All columns are asked for even if one is missing, so that every problem of a row is found.
                Part::Column(column) => match value(column) {
                    Some(value) => encode(&value, &mut target),
                    None => complete = false,
                },
            }
        }
        complete.then_some(target)
    }
}

impl Target {
    /// The encoded values of the columns in a target that this template was filled to; `None` if it was not. Encoded values
    /// hold none of `/?&=`, so a column that ends at one of those, or at the end, is found again whatever its value is.
    pub(crate) fn columns_of<'t>(&self, target: &'t str) -> Option<BTreeMap<&str, &'t str>> {
        let mut columns = BTreeMap::new();
        let mut rest = target;
        for part in &self.parts {
            match part {
                Part::Text(text) => rest = rest.strip_prefix(text.as_str())?,
                Part::Column(column) => {
                    let end = rest.find(['/', '?', '&', '=']).unwrap_or(rest.len());
                    let (value, after) = rest.split_at(end);
                    if columns.insert(column.as_str(), value).is_some_and(|other| other != value) {
                        return None;
                    }
                    rest = after;
                }
            }
        }
        rest.is_empty().then_some(columns)
    }

    /// Whether [`columns_of`](Self::columns_of) finds every column again.
    pub(crate) fn is_reversible(&self) -> bool {
        let ends = |part: Option<&Part>| match part {
            None => true,
            Some(Part::Text(text)) => text.starts_with(['/', '?', '&', '=']),
            Some(Part::Column(_)) => false,
        };
        let parts = self.parts.iter().enumerate();
        parts.into_iter().all(|(at, part)| matches!(part, Part::Text(_)) || ends(self.parts.get(at + 1)))
    }

    /// The target with `encoded` values as they stand and `job` encoded in place of the column of that name.
    pub(crate) fn fill_job(&self, encoded: &BTreeMap<&str, &str>, job: &str) -> Option<String> {
        let mut target = String::with_capacity(96);
        for part in &self.parts {
            match part {
                Part::Text(text) => target.push_str(text),
                Part::Column(column) if column == JOB => encode(job, &mut target),
                Part::Column(column) => target.push_str(encoded.get(column.as_str())?),
            }
        }
        check_target(&target).is_ok().then_some(target)
    }
}

/// Whether a finished target addresses a resource of this upstream and nothing else.
///
/// # Errors
/// What is wrong with it.
pub fn check_target(target: &str) -> Result<(), String> {
    if !target.starts_with('/') || target.starts_with("//") {
        return Err(format!("path `{target}` must start with one `/`, without scheme or host"));
    }
    if let Some(odd) =
        target.chars().find(|it| !it.is_ascii_graphic() || matches!(it, '#' | '\\' | '"' | '<' | '>'))
    {
        return Err(format!("path `{target}` contains {odd:?}; percent-encode it"));
    }
    let path = target.split('?').next().unwrap_or(target);
    for segment in path.split('/') {
        if !segment.starts_with(['.', '%']) {
            continue; // no dot segment starts otherwise
        }
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        if plain == "." || plain == ".." {
            return Err(format!(
                "path `{target}` contains the segment `{segment}`, which would address another resource"
            ));
        }
    }
    target
        .parse::<http::uri::PathAndQuery>()
        .map_err(|error| format!("path `{target}` is malformed ({error})"))?;
    // What is refused there is never sent.
    normalise(target).map_err(|problem| format!("path `{target}` cannot be sent: {problem}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, value: &'static str) -> String {
        Target::parse(template).unwrap().fill(|_| Some(value.into())).unwrap()
    }

    #[test]
    fn a_value_stays_within_its_segment() {
        let template = "/api/v2/users/{id}/skills?q={id}";
        for (value, encoded, fault) in [
            ("../x", "..%2Fx", Some("an encoded slash")),
            ("a b", "a%20b", None),
            ("a?b#c", "a%3Fb%23c", None),
            ("%2e%2e", "%252e%252e", Some("two layers of encoding")),
            ("ü", "%C3%BC", None),
            ("a\r\nHost: b", "a%0D%0AHost%3A%20b", Some("a control character")),
            ("a\\b", "a%5Cb", Some("backslash")),
            ("az-09._~", "az-09._~", None),
        ] {
            let target = fill(template, value);
            assert_eq!(target, format!("/api/v2/users/{encoded}/skills?q={encoded}"));
            // What is encoded stays where it is; what can be read in two ways is refused here and not when it is sent.
            match (check_target(&target), fault) {
                (Ok(()), None) => {}
                (Err(told), Some(fault)) => {
                    assert!(told.contains("cannot be sent") && told.contains(fault), "{told}");
                }
                other => panic!("{value}: {other:?}"),
            }
            assert_eq!(check_target(&fill("/api/v2/users?q={id}", value)), Ok(()), "in a query it is data");
        }
    }

    #[test]
    fn the_values_of_a_filled_target_are_found_again() {
        let template = Target::parse("/lists/{list}/contacts?priority={prio}&x=1").unwrap();
        assert!(template.is_reversible());
        let filled = template.fill(|column| Some(format!("a&b {column}=").into())).unwrap();
        let columns = template.columns_of(&filled).unwrap();
        let expected = [("list", "a%26b%20list%3D"), ("prio", "a%26b%20prio%3D")];
        assert_eq!(columns, expected.into_iter().collect());
        let poll = Target::parse("/lists/{list}/jobs/{job}").unwrap();
        assert_eq!(poll.fill_job(&columns, "j?1").unwrap(), "/lists/a%26b%20list%3D/jobs/j%3F1");
        for elsewhere in ["..", "j/1"] {
            assert_eq!(poll.fill_job(&columns, elsewhere), None, "a job cannot lead elsewhere");
        }
        assert_eq!(template.columns_of("/other"), None);
        assert!(!Target::parse("/lists/{a}-{b}").unwrap().is_reversible());
    }

    #[test]
    fn a_value_that_makes_a_dot_segment_is_refused() {
        for value in [".", ".."] {
            let fault = check_target(&fill("/api/v2/users/{id}", value)).unwrap_err();
            assert!(fault.contains(&format!("the segment `{value}`")), "{fault}");
        }
        assert!(
            check_target(&fill("/users/.{id}", ".")).is_err(),
            "also together with the template's own text"
        );
    }

    #[test]
    fn other_hosts_and_resources_are_refused() {
        for target in [
            "http://a/b",
            "//a/b",
            "users",
            "",
            "/a/../b",
            "/a/%2E%2e/b",
            "/a/.",
            "/a b",
            "/a#b",
            "/a\\b",
            "/ä",
        ] {
            assert!(check_target(target).is_err(), "{target}");
        }
        for target in ["/", "/api/v2/users?a=b&c=../d", "/a//b", "/a/..b", "/a%20b"] {
            assert_eq!(check_target(target), Ok(()), "{target}");
        }
    }

    #[test]
    fn typed_and_optional_placeholders_have_no_place_in_a_path() {
        for template in ["/users/{id:number}", "/users/{id?}"] {
            assert_eq!(
                Target::parse(template),
                Err("`{id}` in a path is text and never left out".to_owned())
            );
        }
    }
}
