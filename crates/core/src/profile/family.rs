//! Which family a request belongs to where the number of path segments does not say: `[[family.rule]]`.
//!
//! Headers that name no limit, and breakers, are about a family. Most vendors count by resource, and the first segments of a
//! path name it. Some count otherwise: Shopify's REST calls share one bucket whatever they ask for, Discord counts each
//! channel apart, Zendesk gives single endpoints limits of their own. A rule names the family of what it matches.

use http::Method;

use super::limit::parse_place;
use super::reader::Section;
use crate::glob::PathGlob;
use crate::key::{Family, LONGEST_WORD, PathProblem, normalise, word};
use crate::template::{Piece, pieces};

/// The family of what a place matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyRule {
    /// The method; any if absent.
    pub method: Option<Method>,
    /// The path.
    pub path: PathGlob,
    /// The family's name. A hole is the place of a `*` of the path, counted from 0.
    name: Vec<Piece<usize>>,
}

/// The longest name a rule can give, without what fills its holes.
const LONGEST: usize = 256;

impl FamilyRule {
    /// The family of a call, `None` if the rule is not about it. The path is normalised.
    fn family(&self, method: &Method, path: &str) -> Result<Option<Family>, PathProblem> {
        if self.method.as_ref().is_some_and(|own| own != method) {
            return Ok(None);
        }
        let Some(stars) = self.path.leading_stars(path) else { return Ok(None) };
        let mut name = String::new();
        for piece in &self.name {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Hole(star) => {
                    // A name of any length could be made by a caller.
                    let word = word(stars.get(*star).copied().unwrap_or_default())?;
                    name.push_str(if word.len() > LONGEST_WORD { "{id}" } else { word });
                }
            }
        }
        Ok(Some(Family::new(name)))
    }
}

/// The family of a call: of the first rule that matches, else its first `segments` path segments. A rule may keep an id
/// that segments would not, so that each object has a family of its own.
pub(super) fn of(
    rules: &[FamilyRule],
    segments: usize,
    method: &Method,
    path: &str,
) -> Result<Family, PathProblem> {
    let plain = Family::with_segments(path, segments)?;
    if rules.is_empty() {
        return Ok(plain);
    }
    let path = normalise(path)?;
    for rule in rules {
        if let Some(family) = rule.family(method, &path)? {
            return Ok(family);
        }
    }
    Ok(plain)
}

/// Reads every `[[family.rule]]`.
pub(super) fn rules(section: &Section<'_>) -> Vec<FamilyRule> {
    let mut rules: Vec<FamilyRule> = Vec::new();
    for section in section.sections("rule") {
        let place =
            section.required("match", "match = \"/admin/api/*/**\"", section.parsed("match", parse_place));
        let name = section.required("name", "name = \"/admin/rest\"", section.parsed("name", read_name));
        let (Some((method, path)), Some(name)) = (place, name) else { continue };
        let stars = path.leading_star_count();
        let beyond = |piece: &Piece<usize>| matches!(piece, Piece::Hole(star) if *star >= stars);
        if name.iter().any(beyond) {
            let what = "has a place for more than the `*` that `match` has before any `**`";
            section.problem("name", format_args!("{what}, which are {stars} (remove it)"));
        }
        if rules.iter().any(|earlier| (&earlier.method, &earlier.path) == (&method, &path)) {
            section.problem("match", "is that of an earlier rule, which decides (remove one)");
        }
        rules.push(FamilyRule { method, path, name });
    }
    rules
}

fn read_name(text: &str) -> Result<Vec<Piece<usize>>, String> {
    if !text.starts_with('/') || text.contains(char::is_whitespace) || text.len() > LONGEST {
        return Err(format!(
            "`{text}` is no name of a family (begin with a slash, without blanks, such as \"/channels/{{2}}\")"
        ));
    }
    pieces(text, |hole| match hole.parse::<usize>() {
        Ok(number) if number > 0 => Ok(number - 1),
        _ => Err(format!(
            "`{{{hole}}}` is no place (write {{1}} for what the first `*` of `match` stands for)"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::*;

    fn profile(rules: &str) -> Profile {
        Profile::parse(&format!("name = 'x'\n[family]\nsegments = 2\n{rules}"), "f").unwrap()
    }

    fn family(profile: &Profile, method: &Method, path: &str) -> String {
        profile.family(method, path).unwrap().to_string()
    }

    #[test]
    fn the_first_rule_that_matches_names_the_family_and_segments_name_the_others() {
        let profile = profile(
            "[[family.rule]]\nmatch = 'DELETE /api/*/channels/*/messages/*'\nname = '/channels/{2}/messages/delete'\n\
             [[family.rule]]\nmatch = '/api/*/channels/*/**'\nname = '/channels/{2}'\n",
        );
        for (method, path, expected) in [
            (Method::DELETE, "/api/v10/channels/41/messages/7", "/channels/41/messages/delete"),
            (Method::GET, "/api/v10/channels/41/messages/7", "/channels/41"),
            (Method::POST, "/api/v10//channels/%34%31/messages?x=1", "/channels/41"),
            (Method::GET, "/api/v10/channels/41;x=1", "/channels/41"),
            (Method::GET, "/api/v10/channels", "/api/v10"),
            (Method::GET, "/gateway/bot", "/gateway/bot"),
        ] {
            assert_eq!(family(&profile, &method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn what_callers_put_into_a_name_is_bounded_and_has_one_spelling() {
        let profile = profile("[[family.rule]]\nmatch = '/c/*/**'\nname = '/c/{1}'\n");
        assert_eq!(family(&profile, &Method::GET, &format!("/c/{}", "x".repeat(65))), "/c/{id}");
        assert!(profile.family(&Method::GET, "/c/us%2565rs").is_err());
        assert!(profile.family(&Method::GET, "/c/a%2Fb").is_err());
    }

    #[test]
    fn every_mistake_is_told_with_what_to_write() {
        let text = "name = 'x'\n[family]\n[[family.rule]]\nmatch = '/a/**/*'\nname = '/a/{1}'\n\
            [[family.rule]]\nmatch = 'FETCH /b'\nname = 'b'\n[[family.rule]]\nname = '/c/{x}'\nmatch = '/a/**/*'\n\
            [[family.rule]]\nname = '/d'\nmatch = '/a/**/*'\n";
        let problems = Profile::parse(text, "f").unwrap_err().to_string();
        let expected = [
            "f:5: family.rule[0].name: has a place for more than the `*` that `match` has before any `**`, which are 0 (remove it)",
            "f:7: family.rule[1].match: `FETCH` is not known (write one of `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`, `OPTIONS`)",
            "f:8: family.rule[1].name: `b` is no name of a family (begin with a slash, without blanks, such as \"/channels/{2}\")",
            "f:10: family.rule[2].name: `{x}` is no place (write {1} for what the first `*` of `match` stands for)",
            "f:14: family.rule[3].match: is that of an earlier rule, which decides (remove one)",
        ];
        assert_eq!(problems.lines().collect::<Vec<_>>(), expected);
    }
}
