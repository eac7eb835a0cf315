//! Questions with holes: `{1}` is what the first `*` of the rule's path stands for, `{/email}` what the request's body has
//! at that pointer. The grammar is that of all [templates](crate::template).
//!
//! A value is data: in a target it is encoded, and what would make a segment of dots is refused, so that no value can ask
//! about another resource than the rule means.

use serde_json::Value;

use super::{Pointer, Written};
use crate::template::{Piece, encode, pieces};

/// Why a rule cannot ask about a write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The request does not carry what is needed.
    #[error("the request has nothing at `{0}`, which is needed to find out")]
    Missing(String),
    /// The value cannot stand where it is needed.
    #[error("the value at `{0}` cannot stand in a question")]
    Unusable(String),
}

/// A text with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece<Hole>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hole {
    /// What the n-th `*` stands for, from 0.
    Star(usize),
    Member(Pointer),
}

impl Template {
    /// Reads a template for a rule whose path has `stars` places to quote. The error says what is wrong and what to write.
    pub fn parse(text: &str, stars: usize) -> Result<Self, String> {
        pieces(text, |inside| read_hole(inside, stars)).map(Self)
    }

    /// The target for a write whose path has these segments where the rule's has `*`.
    pub(super) fn fill(&self, stars: &[&str], write: &Written) -> Result<String, Unfit> {
        let mut target = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => target.push_str(text),
                // A segment of a normalised path is encoded already.
                Piece::Hole(Hole::Star(at)) => target.push_str(star(stars, *at)?),
                Piece::Hole(Hole::Member(pointer)) => {
                    let text = text_of(member(write, pointer)?, pointer)?;
                    if text.is_empty() || text == "." || text == ".." {
                        return Err(Unfit::Unusable(pointer.to_string()));
                    }
                    encode(&text, &mut target);
                }
            }
        }
        Ok(target)
    }

    /// The same as a JSON value: a hole alone keeps the type of what fills it.
    fn value(&self, stars: &[&str], write: &Written) -> Result<Value, Unfit> {
        if let [Piece::Hole(Hole::Member(pointer))] = &*self.0 {
            return member(write, pointer).cloned();
        }
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Hole(Hole::Star(at)) => text.push_str(star(stars, *at)?),
                Piece::Hole(Hole::Member(pointer)) => {
                    text.push_str(&text_of(member(write, pointer)?, pointer)?);
                }
            }
        }
        Ok(Value::String(text))
    }
}

/// A JSON document whose texts have holes.
#[derive(Clone, Debug, PartialEq)]
pub struct BodyTemplate(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Plain(Value),
    Text(Template),
    List(Vec<Node>),
    Members(Vec<(String, Node)>),
}

impl BodyTemplate {
    /// Reads JSON with holes in its texts. The error says what is wrong and what to write.
    pub fn parse(json: &str, stars: usize) -> Result<Self, String> {
        let value: Value = serde_json::from_str(json)
            .map_err(|error| format!("is no JSON: {error} (write JSON in quotes)"))?;
        Node::parse(value, stars).map(Self)
    }

    pub(super) fn fill(&self, stars: &[&str], write: &Written) -> Result<Vec<u8>, Unfit> {
        self.0.fill(stars, write).map(|value| value.to_string().into_bytes())
    }
}

impl Node {
    fn parse(value: Value, stars: usize) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::parse(&text, stars)?),
            Value::Array(list) => {
                Self::List(list.into_iter().map(|item| Self::parse(item, stars)).collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let read = |(name, value)| Self::parse(value, stars).map(|node| (name, node));
                Self::Members(members.into_iter().map(read).collect::<Result<_, _>>()?)
            }
            plain => Self::Plain(plain),
        })
    }

    fn fill(&self, stars: &[&str], write: &Written) -> Result<Value, Unfit> {
        Ok(match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => template.value(stars, write)?,
            Self::List(list) => {
                Value::Array(list.iter().map(|node| node.fill(stars, write)).collect::<Result<_, _>>()?)
            }
            Self::Members(members) => {
                let fill = |(name, node): &(String, Self)| {
                    node.fill(stars, write).map(|value| (name.clone(), value))
                };
                Value::Object(members.iter().map(fill).collect::<Result<_, _>>()?)
            }
        })
    }
}

fn read_hole(hole: &str, stars: usize) -> Result<Hole, String> {
    if hole.starts_with('/') {
        return Pointer::parse(hole).map(Hole::Member);
    }
    match hole.parse::<usize>() {
        Ok(number) if (1..=stars).contains(&number) => Ok(Hole::Star(number - 1)),
        Ok(_) if stars == 0 => {
            Err(format!("`{{{hole}}}` stands for nothing (`match` has no `*` to quote, or a `**`)"))
        }
        Ok(_) => Err(format!("`{{{hole}}}` stands for nothing (`match` has `*` number 1 to {stars})")),
        Err(_) => Err(format!(
            "`{{{hole}}}` is not known (write \"{{1}}\" for the first `*` of `match`, or \"{{/email}}\" for a member of the body)"
        )),
    }
}

fn star<'s>(stars: &[&'s str], at: usize) -> Result<&'s str, Unfit> {
    stars.get(at).copied().ok_or_else(|| Unfit::Missing(format!("*{}", at + 1)))
}

fn member<'w>(write: &'w Written, pointer: &Pointer) -> Result<&'w Value, Unfit> {
    write.member(pointer).ok_or_else(|| Unfit::Missing(pointer.to_string()))
}

fn text_of(value: &Value, pointer: &Pointer) -> Result<String, Unfit> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(word) => Ok(word.to_string()),
        _ => Err(Unfit::Unusable(pointer.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn write(body: &str) -> Written {
        Written::new(Method::POST, "/api/v2/users", body.as_bytes())
    }

    #[test]
    fn values_are_encoded_and_stay_in_their_segment() {
        let template =
            Template::parse("/users/{1}/x?filter=userName%20eq%20%22{/email}%22&n={/n}", 1).unwrap();
        let write = write(r#"{"email":"a/b&c@x","n":7}"#);
        assert_eq!(
            template.fill(&["k%C3%A4"], &write).unwrap(),
            "/users/k%C3%A4/x?filter=userName%20eq%20%22a%2Fb%26c%40x%22&n=7"
        );
        let unfit = |body: &str| Template::parse("/x/{/id}", 0).unwrap().fill(&[], &self::write(body));
        assert_eq!(unfit("{}"), Err(Unfit::Missing("/id".to_owned())));
        assert_eq!(unfit(r#"{"id":null}"#), Err(Unfit::Missing("/id".to_owned())));
        for value in [r#""..""#, r#"".""#, r#""""#, "[]", "{}"] {
            assert_eq!(
                unfit(&format!(r#"{{"id":{value}}}"#)),
                Err(Unfit::Unusable("/id".to_owned())),
                "{value}"
            );
        }
    }

    #[test]
    fn a_hole_alone_keeps_its_type_in_a_body() {
        let body =
            BodyTemplate::parse(r#"{"value":"{/n}","text":"n {/n} of {1}","fields":["e{{}}"],"size":2}"#, 1)
                .unwrap();
        let filled = body.fill(&["7"], &write(r#"{"n":3}"#)).unwrap();
        let expected = serde_json::json!({"value": 3, "text": "n 3 of 7", "fields": ["e{}"], "size": 2});
        assert_eq!(serde_json::from_slice::<Value>(&filled).unwrap(), expected);
        assert_eq!(body.fill(&["7"], &write("{}")), Err(Unfit::Missing("/n".to_owned())));
    }

    #[test]
    fn holes_that_stand_for_nothing_are_refused_with_what_to_write() {
        for (text, stars, part) in [
            ("/x/{2}", 1, "`*` number 1 to 1"),
            ("/x/{1}", 0, "no `*` to quote"),
            ("/x/{email}", 1, "\"{/email}\""),
            ("/x/{1", 1, "`{` is never closed"),
            ("/x/1}", 1, "`}` without `{`"),
            ("/x/{/a~2}", 1, "no JSON pointer"),
        ] {
            let error = Template::parse(text, stars).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(BodyTemplate::parse("{x", 0).unwrap_err().contains("is no JSON"));
    }
}
