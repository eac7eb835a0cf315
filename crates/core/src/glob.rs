//! Path patterns.
//!
//! `*` stands for one segment, `**` for any number of them, none included: `/api/v2/users/**` also matches
//! `/api/v2/users`. Both stand alone in their segment, because a pattern that cuts through a segment would invite rules
//! that tell ids apart. A query and a trailing slash of the path are of no account.

use std::fmt;

/// A path pattern such as `/api/v2/users/**`.
#[derive(Clone, PartialEq, Eq)]
pub struct PathGlob {
    parts: Vec<Part>,
    text: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Word(String),
    Any,
    AnyNumber,
}

impl PathGlob {
    /// Reads a pattern. The error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(format!(
                "`{text}` does not begin with a slash (write a path such as \"/api/v2/users/**\")"
            ));
        };
        if text.contains(['?', '#']) || text.contains(char::is_whitespace) {
            return Err(format!("`{text}` has more than a path (remove query, fragment and blanks)"));
        }
        let mut parts = Vec::new();
        for segment in path.split('/').filter(|_| !path.is_empty()) {
            parts.push(match segment {
                "**" if parts.last() == Some(&Part::AnyNumber) => {
                    return Err(format!("`{text}` repeats `**` (write it once)"));
                }
                "**" => Part::AnyNumber,
                "*" => Part::Any,
                "" => return Err(format!("`{text}` has an empty segment (remove the extra slash)")),
                "." | ".." => return Err(format!("`{text}` has a `{segment}` (write the path it leads to)")),
                _ if segment.contains('*') => {
                    return Err(format!(
                        "`{segment}` mixes `*` with letters (`*` stands for a whole segment)"
                    ));
                }
                word => Part::Word(word.to_owned()),
            });
        }
        Ok(Self { parts, text: text.to_owned() })
    }

    /// Whether `path` (normalised, possibly with a query) matches. Does not allocate: it is asked for every call.
    pub fn matches(&self, path: &str) -> bool {
        let path = path.split(['?', '#']).next().unwrap_or(path);
        self.fits(path.split('/').filter(|segment| !segment.is_empty()))
    }

    /// What each `*` of the pattern stands for in `path`; `None` if the pattern does not match, or has a `**`, with which
    /// that would not be certain.
    ///
    /// ```
    /// use tidegate_core::glob::PathGlob;
    ///
    /// let skills = PathGlob::parse("/api/v2/users/*/routingskills/*").unwrap();
    /// assert_eq!(skills.stars("/api/v2/users/7/routingskills/bulk"), Some(vec!["7", "bulk"]));
    /// ```
    pub fn stars<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        if self.star_count().is_none() || !self.matches(path) {
            return None;
        }
        let path = path.split(['?', '#']).next().unwrap_or(path);
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        Some(
            self.parts
                .iter()
                .zip(segments)
                .filter(|(part, _)| **part == Part::Any)
                .map(|(_, at)| at)
                .collect(),
        )
    }

    /// What each `*` before the first `**` stands for in `path`; `None` if the pattern does not match. Up to there pattern
    /// and path go in step, so it is certain.
    ///
    /// ```
    /// use tidegate_core::glob::PathGlob;
    ///
    /// let messages = PathGlob::parse("/api/*/channels/*/messages/**").unwrap();
    /// assert_eq!(messages.leading_stars("/api/v10/channels/41/messages/7"), Some(vec!["v10", "41"]));
    /// ```
    pub fn leading_stars<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        if !self.matches(path) {
            return None;
        }
        let path = path.split(['?', '#']).next().unwrap_or(path);
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let parts = self.parts.iter().take_while(|part| **part != Part::AnyNumber);
        Some(parts.zip(segments).filter(|(part, _)| **part == Part::Any).map(|(_, at)| at).collect())
    }

    /// How many `*` the pattern has before its first `**`.
    pub fn leading_star_count(&self) -> usize {
        let parts = self.parts.iter().take_while(|part| **part != Part::AnyNumber);
        parts.filter(|part| **part == Part::Any).count()
    }

    /// How many `*` the pattern has; `None` if it has a `**`.
    pub fn star_count(&self) -> Option<usize> {
        if self.parts.contains(&Part::AnyNumber) {
            return None;
        }
        Some(self.parts.iter().filter(|part| **part == Part::Any).count())
    }

    /// Whether it means exactly what lies under `prefix`, such as a resource family.
    pub fn is_all_under(&self, prefix: &str) -> bool {
        let Some((Part::AnyNumber, words)) = self.parts.split_last() else { return false };
        let prefix = prefix.split('/').filter(|segment| !segment.is_empty());
        words.iter().map(Part::word).eq(prefix.map(Some))
    }

    /// Walks both lists once; on a mismatch the latest `**` takes one segment more. Only the latest can matter, so the
    /// work is bounded by the product of the lengths.
    fn fits<'p>(&self, mut segments: impl Iterator<Item = &'p str> + Clone) -> bool {
        let mut parts = &self.parts[..];
        let mut retry = None;
        loop {
            let ahead = segments.clone();
            let Some(segment) = segments.next() else { break };
            match parts.split_first() {
                Some((Part::AnyNumber, rest)) => {
                    parts = rest;
                    retry = Some((rest, segments.clone()));
                    segments = ahead;
                }
                Some((Part::Any, rest)) => parts = rest,
                Some((Part::Word(word), rest)) if word == segment => parts = rest,
                _ => match &mut retry {
                    Some((after, taken)) => {
                        parts = after;
                        segments = taken.clone();
                        taken.next();
                    }
                    None => return false,
                },
            }
        }
        parts.iter().all(|part| *part == Part::AnyNumber)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Part {
    fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::Any | Self::AnyNumber => None,
        }
    }
}

impl fmt::Debug for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_segments() {
        for (glob, path, matches) in [
            ("/**", "/", true),
            ("/**", "/api/v2/users", true),
            ("/", "/", true),
            ("/", "/api", false),
            ("/api/v2/users/**", "/api/v2/users", true),
            ("/api/v2/users/**", "/api/v2/users/", true),
            ("/api/v2/users/**", "/api/v2/users/7/skills?x=/y", true),
            ("/api/v2/users/**", "/api/v2/usersettings", false),
            ("/api/v2/scripts/*", "/api/v2/scripts/7", true),
            ("/api/v2/scripts/*", "/api/v2/scripts", false),
            ("/api/v2/scripts/*", "/api/v2/scripts/7/pages", false),
            ("/**/skills", "/api/v2/users/7/skills", true),
            ("/**/skills", "/skills", true),
            ("/a/**/b/**/c", "/a/b/x/b/y/c", true),
            ("/a/**/b/**/c", "/a/x/c", false),
            ("/a/**/b", "/a/b/b/x", false),
        ] {
            assert_eq!(PathGlob::parse(glob).unwrap().matches(path), matches, "{glob} {path}");
        }
    }

    #[test]
    fn patterns_that_cannot_be_meant_are_refused() {
        for text in ["", "api", "/api//v2", "/api/", "/a?b", "/a b", "/a*", "/***", "/**/**", "/a/../b"] {
            assert!(PathGlob::parse(text).is_err(), "{text}");
        }
    }
}
