//! Body templates, rendered straight to bytes.
//!
//! Going through a JSON value would round large numbers and merge repeated keys of `{column:json}` cells. Here a
//! template is literal bytes and slots, and a cell's JSON is copied as it was written.

use std::borrow::Cow;

use super::slot::{Piece, Slot, Type};
use crate::raw;

/// A JSON template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    /// JSON as it stands.
    Literal(String),
    /// Members by name, in order.
    Object(Vec<(String, Node)>),
    /// Elements.
    Array(Vec<Node>),
    /// A string with at least one placeholder in it.
    Text(Vec<Piece>),
    /// One placeholder that is the whole value.
    Value(Slot),
    /// The array of merged items.
    Items,
}

/// A slot's value: JSON text to copy for typed slots, plain text for text slots; `None` if there is none.
pub(crate) trait Values {
    /// The value of `slot`, or `None` if it has none (which has been reported unless the slot is optional).
    fn value(&mut self, slot: &Slot) -> Option<Cow<'_, str>>;
}

impl Node {
    /// Makes a node of a string.
    pub(super) fn of_string(text: &str, mut pieces: Vec<Piece>) -> Self {
        match pieces.as_mut_slice() {
            [Piece::Hole(slot)] => Self::Value(slot.clone()),
            pieces if pieces.iter().all(|piece| matches!(piece, Piece::Text(_))) => {
                let text = match pieces {
                    [Piece::Text(text)] => text.as_str(),
                    _ => text,
                };
                Self::Literal(json_string(text))
            }
            _ => Self::Text(pieces),
        }
    }

    /// The first member on the way of a JSON pointer that no body of this template has, and the members there are instead;
    /// `None` if the pointer leads somewhere, or into a value that only the input knows.
    pub(super) fn lacks(&self, pointer: &str) -> Option<(String, Vec<&str>)> {
        let mut here = self;
        for name in pointer.split('/').skip(1) {
            let name = name.replace("~1", "/").replace("~0", "~");
            let Self::Object(members) = here else { return None };
            match members.iter().find(|(there, _)| *there == name) {
                Some((_, inner)) => here = inner,
                None => return Some((name, members.iter().map(|(there, _)| there.as_str()).collect())),
            }
        }
        None
    }

    /// Puts the array of merged items at a JSON pointer, creating objects on the way.
    pub(super) fn put_items(self, pointer: &str) -> Result<Self, String> {
        let Some(path) = pointer.strip_prefix('/') else {
            return match self {
                _ if !pointer.is_empty() => Err(format!("`{pointer}` is not a JSON pointer; write \"\" or \"/items\"")),
                Self::Object(members) if members.is_empty() => Ok(Self::Items),
                _ => Err("the items are the whole body, so `body` must be left out; or name a member, such as \"/items\"".to_owned()),
            };
        };
        let (name, rest) = path.split_once('/').map_or((path, ""), |(name, _)| (name, &path[name.len()..]));
        let name = raw::unescape(name);
        let Self::Object(mut members) = self else {
            return Err(format!("`{pointer}` leads into something that is not an object"));
        };
        let place = members.iter().position(|(it, _)| *it == name);
        if place.is_some() && rest.is_empty() {
            return Err(format!("`body` already has a member `{name}`, where the items go"));
        }
        let inner = place.map_or_else(|| Self::Object(Vec::new()), |place| members.remove(place).1);
        members.push((name, inner.put_items(rest)?));
        Ok(Self::Object(members))
    }

    /// Every slot in it.
    pub(crate) fn slots<'a>(&'a self, into: &mut Vec<&'a Slot>) {
        match self {
            Self::Literal(_) | Self::Items => {}
            Self::Value(slot) => into.push(slot),
            Self::Text(pieces) => into.extend(pieces.iter().filter_map(|piece| match piece {
                Piece::Hole(slot) => Some(slot),
                Piece::Text(_) => None,
            })),
            Self::Array(elements) => elements.iter().for_each(|it| it.slots(into)),
            Self::Object(members) => members.iter().for_each(|(_, it)| it.slots(into)),
        }
    }

    /// Appends the JSON with values filled in. `false` if the value is to be left out; nothing is appended then.
    pub(crate) fn render(&self, values: &mut impl Values, items: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Self::Literal(json) => out.extend_from_slice(json.as_bytes()),
            Self::Items => {
                out.push(b'[');
                out.extend_from_slice(items);
                out.push(b']');
            }
            Self::Value(slot) => match values.value(slot) {
                Some(value) if slot.kind == Type::Text => {
                    put_string(&value, out);
                }
                Some(value) => out.extend_from_slice(value.as_bytes()),
                None => return false,
            },
            Self::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(plain) => text.push_str(plain),
                        Piece::Hole(slot) => text.push_str(&values.value(slot).unwrap_or_default()),
                    }
                }
                put_string(&text, out);
            }
            Self::Array(elements) => {
                render_list(out, *b"[]", elements, |element, out| element.render(values, items, out));
            }
            Self::Object(members) => render_list(out, *b"{}", members, |(name, value), out| {
                put_string(name, out);
                out.push(b':');
                value.render(values, items, out)
            }),
        }
        true
    }
}

/// Renders a comma-separated list in brackets; entries that render to nothing leave no trace.
fn render_list<T>(
    out: &mut Vec<u8>,
    brackets: [u8; 2],
    entries: &[T],
    mut entry: impl FnMut(&T, &mut Vec<u8>) -> bool,
) {
    out.push(brackets[0]);
    let start = out.len();
    for it in entries {
        let before = out.len();
        if before > start {
            out.push(b',');
        }
        if !entry(it, out) {
            out.truncate(before);
        }
    }
    out.push(brackets[1]);
}

pub(super) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn put_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text is JSON and memory takes any of it");
}
