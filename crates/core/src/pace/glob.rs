//! Path patterns of limits.
//!
//! `*` stands for one segment, `**` at the end for any number of them, also none: `/api/v2/users/**` matches
//! `/api/v2/users` itself. Everything else is literal and case-sensitive. Matching walks both texts once and does not
//! allocate, because it happens on every call.

use std::fmt;

/// A pattern of paths.
///
/// ```
/// use tidegate_core::pace::PathGlob;
///
/// let users = PathGlob::parse("/api/v2/users/**").expect("a valid pattern");
/// assert!(users.matches("/api/v2/users"));
/// assert!(users.matches("/api/v2/users/7/routingskills"));
/// assert!(!users.matches("/api/v2/usersearch"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathGlob {
    segments: Vec<Segment>,
    open_ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Any,
}

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobProblem {
    /// Patterns are absolute.
    #[error("pattern does not start with `/` (write the path from the root)")]
    NotAbsolute,
    /// `**` is only understood at the end.
    #[error("`**` stands before the end of the pattern (use `*` for one segment)")]
    InnerDoubleStar,
    /// A star inside a segment is not supported.
    #[error("`*` is only part of a segment (a star stands for a whole segment)")]
    PartialStar,
}

impl PathGlob {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, GlobProblem> {
        let rest = text.strip_prefix('/').ok_or(GlobProblem::NotAbsolute)?;
        let mut parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        let open_ended = parts.last() == Some(&"**");
        if open_ended {
            parts.pop();
        }
        let segments = parts.into_iter().map(Segment::parse).collect::<Result<_, _>>()?;
        Ok(Self { segments, open_ended })
    }

    /// Whether `path` (normalised, without a query) is meant.
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        self.segments.iter().all(|segment| parts.next().is_some_and(|part| segment.matches(part)))
            && (self.open_ended || parts.next().is_none())
    }

    /// Whether it means exactly what lies under `prefix`, such as a resource family.
    pub(super) fn is_all_under(&self, prefix: &str) -> bool {
        let mut parts = prefix.split('/').filter(|part| !part.is_empty());
        self.open_ended
            && self
                .segments
                .iter()
                .all(|segment| matches!((segment, parts.next()), (Segment::Literal(text), Some(part)) if text == part))
            && parts.next().is_none()
    }
}

impl Segment {
    fn parse(part: &str) -> Result<Self, GlobProblem> {
        match part {
            "*" => Ok(Self::Any),
            "**" => Err(GlobProblem::InnerDoubleStar),
            part if part.contains('*') => Err(GlobProblem::PartialStar),
            part => Ok(Self::Literal(part.to_owned())),
        }
    }

    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Literal(text) => text == part,
            Self::Any => true,
        }
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Any => f.write_str("/*")?,
            }
        }
        f.write_str(if self.open_ended { "/**" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_whole_segments() {
        let glob = PathGlob::parse("/api/v2/users/*/routingskills").unwrap();
        assert!(glob.matches("/api/v2/users/7/routingskills"));
        assert!(!glob.matches("/api/v2/users/7/8/routingskills"));
        assert!(!glob.matches("/api/v2/users/7/routingskills/bulk"));
        assert_eq!(glob.to_string(), "/api/v2/users/*/routingskills");
    }

    #[test]
    fn the_whole_api_is_two_stars() {
        let glob = PathGlob::parse("/**").unwrap();
        assert!(glob.matches("/") && glob.matches("/api/v2/users"));
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        assert_eq!(PathGlob::parse("api"), Err(GlobProblem::NotAbsolute));
        assert_eq!(PathGlob::parse("/a/**/b"), Err(GlobProblem::InnerDoubleStar));
        assert_eq!(PathGlob::parse("/a/b*"), Err(GlobProblem::PartialStar));
    }

    #[test]
    fn only_the_whole_of_a_family_is_the_family() {
        assert!(PathGlob::parse("/api/v2/users/**").unwrap().is_all_under("/api/v2/users"));
        assert!(!PathGlob::parse("/api/v2/**").unwrap().is_all_under("/api/v2/users"));
        assert!(!PathGlob::parse("/api/v2/users").unwrap().is_all_under("/api/v2/users"));
    }
}
