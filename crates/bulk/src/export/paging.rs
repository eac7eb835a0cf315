//! Where the next page is.
//!
//! Three styles are followed: numbered pages with `nextUri` or `pageNumber` of `pageCount` (Genesys listings), an opaque
//! `cursor` (analytics results), and `startIndex` with `totalResults` (SCIM, RFC 7644 §3.4.2.4). A next page that leads
//! to another host or family, that was read before, or that follows an empty page of a listing that promises more is an
//! error and not a loop.

use std::fmt;
use std::str::FromStr;

use tidegate_core::key::Family;

use super::ExportError;
use super::page::Page;
use crate::recipe::check_target;

/// How a listing is paged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `nextUri`, or `pageNumber` below `pageCount`.
    Pages,
    /// `cursor`, sent back as a query parameter.
    Cursor,
    /// `startIndex`, `itemsPerPage` and `totalResults`.
    Scim,
    /// One page is all there is.
    Single,
}

impl Style {
    const NAMES: [(&'static str, Self); 4] =
        [("pages", Self::Pages), ("cursor", Self::Cursor), ("scim", Self::Scim), ("single", Self::Single)];

    /// The style's name in manifests and on the command line.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, style)| *style == self).map_or("", |(name, _)| name)
    }

    /// The style a first page shows. `linked`: its header says that another page follows.
    ///
    /// # Errors
    /// Another page follows in a way that is not: one page would be taken for the whole listing.
    pub(super) fn found(page: &Page<'_>, linked: bool) -> Result<Self, ExportError> {
        const ELSEWHERE: [&str; 6] =
            ["@odata.nextLink", "next", "nextLink", "next_page", "nextPageToken", "next_cursor"];
        let style = Self::of(page);
        let named = ELSEWHERE.iter().find(|name| page.text(name).is_some());
        match (style, linked, named) {
            (Self::Single, true, _) => Err(ExportError::Paging(
                "the next page is named in a Link header, which is not followed".to_owned(),
            )),
            (Self::Single, _, Some(name)) => {
                Err(ExportError::Paging(format!("the next page is named in `{name}`, which is not followed")))
            }
            _ => Ok(style),
        }
    }

    /// The style a first page shows, among those that are followed.
    fn of(page: &Page<'_>) -> Self {
        let any = |names: &[&str]| names.iter().any(|name| page.has(name));
        if any(&["nextUri", "pageNumber", "pageCount"]) {
            Self::Pages
        } else if any(&["totalResults", "startIndex"]) {
            Self::Scim
        } else if page.has("cursor") {
            Self::Cursor
        } else {
            Self::Single
        }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Style {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let style = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, style)| *style);
        style.ok_or_else(|| format!("`{text}` is no style of paging (write pages, cursor, scim or single)"))
    }
}

/// How many rows the listing says it has.
pub(super) fn total(page: &Page<'_>) -> Option<u64> {
    page.number("total").or_else(|| page.number("totalResults"))
}

/// Whether a request is for a later page of a listing, so that what is read from there on is not all of it.
pub(super) fn begins_late(target: &str) -> bool {
    let pairs = target.split_once('?').map_or("", |(_, query)| query).split('&');
    pairs.filter_map(|pair| pair.split_once('=')).any(|(name, value)| match name {
        "pageNumber" | "startIndex" => !matches!(value, "" | "0" | "1"),
        "cursor" => !value.is_empty(),
        _ => false,
    })
}

/// The target of the page after `page`, which was read from `target` and has `rows` rows; `None` at the end.
pub(super) fn next(
    style: Style,
    target: &str,
    page: &Page<'_>,
    rows: usize,
    segments: usize,
) -> Result<Option<String>, ExportError> {
    let next = match style {
        Style::Single => None,
        Style::Cursor => page.text("cursor").map(|cursor| with(target, "cursor", &cursor)),
        Style::Pages => numbered(target, page, segments)?,
        Style::Scim => scim(target, page)?,
    };
    // A page of a cursor may be empty in the middle: what is filtered is filtered behind the paging.
    if next.is_some() && rows == 0 && style != Style::Cursor {
        return Err(ExportError::Paging(format!(
            "the page {target} is empty, and the listing promises more"
        )));
    }
    Ok(next)
}

fn numbered(target: &str, page: &Page<'_>, segments: usize) -> Result<Option<String>, ExportError> {
    if let Some(next) = page.text("nextUri") {
        check_target(&next).map_err(|why| ExportError::Paging(format!("nextUri: {why}")))?;
        if family(&next, segments) != family(target, segments) {
            return Err(ExportError::Paging(format!("nextUri leads elsewhere: {next}")));
        }
        return Ok(Some(next));
    }
    let more =
        page.number("pageNumber").zip(page.number("pageCount")).filter(|(number, count)| number < count);
    Ok(more.map(|(number, _)| with(target, "pageNumber", &(number + 1).to_string())))
}

fn scim(target: &str, page: &Page<'_>) -> Result<Option<String>, ExportError> {
    let member = |name| {
        page.number(name)
            .ok_or_else(|| ExportError::Paging(format!("the page {target} has no number `{name}`")))
    };
    let (start, total) = (member("startIndex")?, member("totalResults")?);
    let next = start.saturating_add(member("itemsPerPage")?);
    Ok((next <= total).then(|| with(target, "startIndex", &next.to_string())))
}

fn family(target: &str, segments: usize) -> Option<Family> {
    Family::with_segments(target.split('?').next().unwrap_or(target), segments).ok()
}

/// `target` with a query parameter, in place of one of that name.
pub(super) fn with(target: &str, name: &str, value: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_it = |pair: &&str| pair.split('=').next() == Some(name);
    let mut pairs: Vec<String> =
        query.split('&').filter(|pair| !pair.is_empty() && !is_it(pair)).map(str::to_owned).collect();
    let mut pair = format!("{name}=");
    tidegate_core::template::encode(value, &mut pair);
    pairs.push(pair);
    format!("{path}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(style: Style, target: &str, body: &str, rows: usize) -> Result<Option<String>, String> {
        let page = Page::read(body.as_bytes()).unwrap();
        next(style, target, &page, rows, 3).map_err(|error| error.to_string())
    }

    #[test]
    fn numbered_pages_follow_their_uri_and_else_their_number() {
        let follow = |body| after(Style::Pages, "/api/v2/users?state=any&pageNumber=1&pageSize=2", body, 2);
        let uri = r#"{"nextUri":"/api/v2/users?pageSize=2&pageNumber=2","pageNumber":1,"pageCount":9}"#;
        assert_eq!(follow(uri).unwrap().unwrap(), "/api/v2/users?pageSize=2&pageNumber=2");
        let number = r#"{"pageNumber":1,"pageCount":2}"#;
        assert_eq!(follow(number).unwrap().unwrap(), "/api/v2/users?state=any&pageSize=2&pageNumber=2");
        assert_eq!(follow(r#"{"pageNumber":2,"pageCount":2}"#), Ok(None));
        assert_eq!(follow(r#"{"nextUri":"","pageNumber":2}"#), Ok(None));
    }

    #[test]
    fn a_next_page_that_is_named_in_another_way_is_not_taken_for_the_end() {
        let found = |body: &str, linked| {
            Style::found(&Page::read(body.as_bytes()).unwrap(), linked).map_err(|error| error.to_string())
        };
        assert_eq!(found(r#"{"value":[1]}"#, false), Ok(Style::Single));
        assert_eq!(found(r#"{"value":[1],"next":null}"#, false), Ok(Style::Single));
        assert!(found(r#"{"value":[1]}"#, true).unwrap_err().contains("a Link header"));
        let odata = r#"{"value":[1],"@odata.nextLink":"https://x/y?$skip=1"}"#;
        assert!(found(odata, false).unwrap_err().contains("`@odata.nextLink`"));
        assert_eq!(found(r#"{"entities":[1],"pageNumber":1,"next":"x"}"#, true), Ok(Style::Pages));
    }

    #[test]
    fn a_next_page_that_leads_elsewhere_is_refused() {
        for uri in [
            "https://evil.example/api/v2/users",
            "//evil.example/x",
            "users?x",
            "/api/v2/queues?pageNumber=2",
        ] {
            let told = after(Style::Pages, "/api/v2/users", &format!(r#"{{"nextUri":"{uri}"}}"#), 1);
            assert!(told.unwrap_err().contains("nextUri"), "{uri}");
        }
    }

    #[test]
    fn a_cursor_is_encoded_and_replaces_the_one_before() {
        let follow = |body| after(Style::Cursor, "/x/results?cursor=old&pageSize=3", body, 0);
        assert_eq!(
            follow(r#"{"cursor":"a+/="}"#).unwrap().unwrap(),
            "/x/results?pageSize=3&cursor=a%2B%2F%3D"
        );
        assert_eq!(follow(r#"{"cursor":""}"#), Ok(None));
        assert_eq!(follow(r#"{"cursor":null}"#), Ok(None));
    }

    #[test]
    fn scim_counts_from_one() {
        let follow = |start, per_page, total| {
            let body =
                format!(r#"{{"startIndex":{start},"itemsPerPage":{per_page},"totalResults":{total}}}"#);
            after(Style::Scim, "/scim/v2/users?count=10", &body, per_page)
        };
        assert_eq!(follow(1, 10, 30).unwrap().unwrap(), "/scim/v2/users?count=10&startIndex=11");
        assert_eq!(follow(21, 10, 31).unwrap().unwrap(), "/scim/v2/users?count=10&startIndex=31");
        assert_eq!(follow(21, 10, 30), Ok(None));
        assert!(follow(21, 0, 30).unwrap_err().contains("promises more"));
        assert!(after(Style::Scim, "/x", "{}", 1).unwrap_err().contains("startIndex"));
    }

    #[test]
    fn an_empty_page_that_promises_more_is_no_loop() {
        let told = after(Style::Pages, "/api/v2/users", r#"{"nextUri":"/api/v2/users?pageNumber=2"}"#, 0);
        assert!(told.unwrap_err().contains("promises more"));
    }

    #[test]
    fn a_later_page_is_not_all_of_a_listing() {
        for late in ["/x?pageNumber=3", "/x?pageSize=5&startIndex=11", "/x?cursor=abc"] {
            assert!(begins_late(late), "{late}");
        }
        for whole in
            ["/x", "/x?pageNumber=1&pageSize=5", "/x?startIndex=1", "/x?cursor=", "/x?sortBy=pageNumber"]
        {
            assert!(!begins_late(whole), "{whole}");
        }
    }

    #[test]
    fn a_first_page_shows_its_style() {
        let style = |body: &str| Style::of(&Page::read(body.as_bytes()).unwrap());
        assert_eq!(style(r#"{"entities":[],"pageNumber":1}"#), Style::Pages);
        assert_eq!(style(r#"{"Resources":[],"totalResults":0}"#), Style::Scim);
        assert_eq!(style(r#"{"results":[],"cursor":"x"}"#), Style::Cursor);
        assert_eq!(style("[]"), Style::Single);
        for (name, style) in Style::NAMES {
            assert_eq!((name.parse(), style.to_string()), (Ok(style), name.to_owned()));
        }
    }
}
