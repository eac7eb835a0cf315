//! One page of a listing: its rows as they came, and the members that say where the next page is.
//!
//! Rows are never rebuilt: a number with forty digits or a member that stands twice leaves as it arrived. So a page is
//! read as raw pieces of its text, and only the few members that paging needs become values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::ExportError;
use crate::raw;

/// Names under which listings keep their rows, where a page has several arrays.
const KNOWN: [&str; 5] = ["entities", "Resources", "results", "conversations", "items"];

/// A page, in pieces.
pub(super) struct Page<'a> {
    text: &'a str,
    /// The members of the page; none if it is no object.
    members: BTreeMap<String, &'a RawValue>,
}

impl<'a> Page<'a> {
    /// Takes a body apart.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, ExportError> {
        let wrong = |why: String| ExportError::NoPage { why };
        let text = std::str::from_utf8(body).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
        let not_json = |error: serde_json::Error| wrong(format!("it is not JSON ({error})"));
        let members = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(not_json)?
        } else {
            serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
            BTreeMap::new()
        };
        Ok(Self { text, members })
    }

    /// Where the rows are: a JSON pointer (RFC 6901), "" for the page itself.
    pub(super) fn find_items(&self) -> Result<String, ExportError> {
        if self.text.trim_start().starts_with('[') {
            return Ok(String::new());
        }
        let rows = |raw: &RawValue| {
            let elements: Option<Vec<&RawValue>> = serde_json::from_str(raw.get()).ok();
            elements.is_some_and(|all| all.iter().all(|element| element.get().starts_with('{')))
        };
        let found: Vec<&str> =
            self.members.iter().filter(|(_, raw)| rows(raw)).map(|(name, _)| name.as_str()).collect();
        let known: Vec<&str> = found.iter().copied().filter(|name| KNOWN.contains(name)).collect();
        match (found.as_slice(), known.as_slice()) {
            ([only], _) | (_, [only]) => Ok(format!("/{}", only.replace('~', "~0").replace('/', "~1"))),
            ([], _) => Err(ExportError::Items("the answer has no list of objects".to_owned())),
            _ => Err(ExportError::Items(format!("the answer has several lists: {}", found.join(", ")))),
        }
    }

    /// The rows at a JSON pointer, in their order.
    pub(super) fn items(&self, pointer: &str) -> Result<Vec<&'a RawValue>, ExportError> {
        let missing = || ExportError::Items(format!("the answer has no list at `{pointer}`"));
        raw::list_at(self.text, pointer).ok_or_else(missing)
    }

    /// Whether the page has a member of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// A member that is a text and not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text: String = serde_json::from_str(self.members.get(name)?.get()).ok()?;
        (!text.is_empty()).then_some(text)
    }

    /// A member that is a number of things.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        serde_json::from_str(self.members.get(name)?.get()).ok()
    }
}

/// A row as one line: its own text; without the blanks between its parts where these have line breaks.
pub(super) fn line(row: &RawValue) -> Cow<'_, str> {
    let text = row.get();
    if !text.contains(['\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let (mut line, mut within, mut escaped) = (String::with_capacity(text.len()), false, false);
    for c in text.chars() {
        // Within a text a line break is written as an escape, so blanks elsewhere mean nothing.
        if within || !c.is_ascii_whitespace() {
            line.push(c);
        }
        (within, escaped) = match c {
            '"' if !escaped => (!within, false),
            '\\' => (within, within && !escaped),
            _ => (within, false),
        };
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(body: &str, pointer: &str) -> Vec<String> {
        let page = Page::read(body.as_bytes()).unwrap();
        page.items(pointer).unwrap().into_iter().map(|row| line(row).into_owned()).collect()
    }

    #[test]
    fn rows_leave_as_they_came() {
        let body =
            r#"{"entities":[{"n":12345678901234567890123456789.10,"a":1,"a":2}, {"b" : "x"}],"total":2}"#;
        let expected = [r#"{"n":12345678901234567890123456789.10,"a":1,"a":2}"#, r#"{"b" : "x"}"#];
        assert_eq!(rows(body, "/entities"), expected);
    }

    #[test]
    fn a_row_over_several_lines_becomes_one() {
        let body = "[{\n  \"a b\" : \"c \\\" d\\\\\",\r\n  \"e\": [1,\n 2]\n}]";
        assert_eq!(rows(body, ""), [r#"{"a b":"c \" d\\","e":[1,2]}"#]);
    }

    #[test]
    fn rows_are_found_where_only_one_list_can_be_meant() {
        let find = |body: &str| Page::read(body.as_bytes()).unwrap().find_items();
        assert_eq!(find(r#"{"entities":[],"total":0}"#).unwrap(), "/entities");
        assert_eq!(find(r#"{"schemas":["urn"],"Resources":[{"id":1}]}"#).unwrap(), "/Resources");
        assert_eq!(find(r#"{"a/b":[{}]}"#).unwrap(), "/a~1b");
        assert_eq!(find(r#"{"entities":[{}],"facets":[{}]}"#).unwrap(), "/entities", "a known name");
        assert_eq!(find("[{}]").unwrap(), "");
        let told = find(r#"{"a":[{}],"b":[]}"#).unwrap_err().to_string();
        assert!(told.contains("several lists: a, b"), "{told}");
        assert!(find(r#"{"a":1}"#).unwrap_err().to_string().contains("no list of objects"));
    }

    #[test]
    fn a_pointer_leads_into_the_page() {
        assert_eq!(rows(r#"{"data":{"a/b":[{"x":1}]}}"#, "/data/a~1b"), [r#"{"x":1}"#]);
        let page = Page::read(br#"{"data":{}}"#).unwrap();
        assert!(page.items("/data/rows").is_err());
        assert!(page.items("/data").is_err(), "no list");
    }

    #[test]
    fn what_is_no_json_is_no_page() {
        for body in [&b"<html>"[..], b"{\"a\":", b"\xff", b""] {
            assert!(Page::read(body).is_err());
        }
    }
}
