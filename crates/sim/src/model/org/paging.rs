//! Paging styles: numbered pages with relative URIs, and opaque cursors.

use serde_json::{Value, json};

use crate::wire::message::ApiRequest;

/// The page size if the caller names none, as on the platform.
const DEFAULT_SIZE: usize = 25;

/// The largest page anyone gets; more is silently cut, as on the platform.
const MAX_SIZE: usize = 500;

/// One numbered page: `{entities, pageSize, pageNumber, total, pageCount, selfUri, nextUri?, previousUri?, ...}`. URIs are relative.
/// Only the entities of the page are rendered.
pub(super) fn page<T>(request: &ApiRequest, items: &[T], render: impl Fn(&T) -> Value) -> Value {
    let size = request.number("pageSize", DEFAULT_SIZE).min(MAX_SIZE);
    let number = request.number("pageNumber", 1);
    let count = items.len().div_ceil(size);
    let start = (number - 1).saturating_mul(size).min(items.len());
    let end = start.saturating_add(size).min(items.len());
    let uri = |number: usize| format!("{}?pageSize={size}&pageNumber={number}", request.path);
    let mut page = json!({
        "entities": items[start..end].iter().map(render).collect::<Vec<_>>(),
        "pageSize": size,
        "pageNumber": number,
        "total": items.len(),
        "pageCount": count,
        "selfUri": uri(number),
        "firstUri": uri(1),
        "lastUri": uri(count.max(1)),
    });
    if number < count {
        page["nextUri"] = json!(uri(number + 1));
    }
    if number > 1 {
        page["previousUri"] = json!(uri(number - 1));
    }
    page
}

/// Everything on one page: the answer of operations that have no paging parameters.
pub(super) fn whole<T>(request: &ApiRequest, items: &[T], render: impl Fn(&T) -> Value) -> Value {
    let mut listing = page(&ApiRequest::new(request.method.clone(), &request.path), &[], &render);
    listing["entities"] = items.iter().map(render).collect();
    listing["total"] = json!(items.len());
    listing["pageSize"] = json!(items.len());
    listing["pageCount"] = json!(1);
    listing
}

/// A slice by opaque cursor, and the cursor of the next slice. A cursor that cannot be read is an error.
pub(super) fn cursor<'a, T>(
    request: &ApiRequest,
    items: &'a [T],
    max: usize,
) -> Result<(&'a [T], Option<String>), crate::wire::errors::ApiError> {
    let start = match request.query("cursor") {
        None | Some("") => 0,
        Some(text) => text
            .strip_prefix('c')
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .filter(|start| *start <= items.len())
            .ok_or_else(|| {
                crate::wire::errors::ApiError::bad_request(format!("invalid cursor \"{text}\""))
            })?,
    };
    let end = start.saturating_add(request.number("pageSize", max).min(max)).min(items.len());
    let next = (end < items.len()).then(|| format!("c{end:x}"));
    Ok((&items[start..end], next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn fetch(target: &str, total: u32) -> Value {
        let items: Vec<u32> = (0..total).collect();
        page(&ApiRequest::new(Method::GET, target), &items, |item| json!(item))
    }

    #[test]
    fn following_next_uri_visits_everything_once() {
        let mut target = "/api/v2/users?pageSize=7".to_owned();
        let mut seen = Vec::new();
        loop {
            let page = fetch(&target, 23);
            seen.extend(page["entities"].as_array().unwrap().clone());
            match page["nextUri"].as_str() {
                Some(next) => target = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, (0..23).map(|item| json!(item)).collect::<Vec<_>>());
    }

    #[test]
    fn a_page_behind_the_end_is_empty() {
        let page = fetch("/api/v2/users?pageNumber=99999999999999", 23);
        assert_eq!(page["entities"], json!([]));
        assert_eq!(page["pageCount"], json!(1));
    }

    #[test]
    fn cursors_visit_everything_once_and_refuse_forgeries() {
        let items: Vec<u32> = (0..10).collect();
        let mut target = "/x".to_owned();
        let mut seen = Vec::new();
        loop {
            let request = ApiRequest::new(Method::GET, &target);
            let (slice, next) = cursor(&request, &items, 4).unwrap();
            seen.extend_from_slice(slice);
            match next {
                Some(next) => target = format!("/x?cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, items);
        assert!(cursor(&ApiRequest::new(Method::GET, "/x?cursor=zz"), &items, 4).is_err());
    }
}
