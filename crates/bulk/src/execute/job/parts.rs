//! The rows of a submission: their names, what the upstream tells of each, and requests with some of them.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use sha2::Digest as _;
use tidegate_store::{Item, Part, PartState};
use uuid::Uuid;

use super::text_at;
use crate::recipe::Jobs;
use crate::recipe::job::ItemRules;

/// The names that the rows of a submission have of their own, by `[item] id`; none if it is not merged.
pub(super) fn names(item: &Item, rules: &Jobs) -> Vec<Option<String>> {
    let body = item.request.body.as_deref().and_then(|body| std::str::from_utf8(body).ok());
    let rows = rules.into.as_ref().and_then(|into| elements(body.unwrap_or_default(), into));
    let pointer = rules.item.as_ref().and_then(|it| it.id.as_ref());
    let name = |row: &RawValue| {
        let row: Value = serde_json::from_str(row.get()).ok()?;
        text_at(&row, pointer?)
    };
    rows.unwrap_or_default().into_iter().map(name).collect()
}

/// The rows of a submission, of which nothing is known yet; none if it is not merged.
pub(super) fn rows(item: &Item, rules: &Jobs) -> Vec<Part> {
    let request = &item.request;
    let rows = names(item, rules);
    // Repeated rows were dropped, and then nobody knows which line is whose.
    let lines = (request.lines.len() == rows.len()).then_some(&request.lines);
    rows.into_iter()
        .zip(0_u32..)
        .map(|(named, ord)| {
            let id = named.unwrap_or_else(|| format!("{}/{}", request.id, ord + 1));
            let line = lines.and_then(|lines| lines.get(ord as usize).copied());
            Part { ord, id, line, ..Part::default() }
        })
        .collect()
}

/// A row with what the upstream told of it. Results are matched to rows by their place; one that has another row's `name`
/// tells nothing of this one, which is then unknown: sending it again, or calling it done, could be wrong.
pub(super) fn told(row: Part, name: Option<&str>, told: &Value, rules: &ItemRules) -> Part {
    let theirs = rules.id.as_ref().and_then(|pointer| text_at(told, pointer));
    if let (Some(name), Some(theirs)) = (name, theirs)
        && name != theirs
    {
        let error = Some(format!("the result in this row's place is that of `{theirs}`"));
        return Part { state: Some(PartState::Unknown), error, ..row };
    }
    let text = |pointer: &Option<String>| pointer.as_ref().and_then(|pointer| text_at(told, pointer));
    let message = match (text(&rules.code), text(&rules.message)) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (one, other) => one.or(other),
    };
    let good = match &rules.ok {
        Some(pointer) => told.pointer(pointer).and_then(Value::as_bool) == Some(true),
        None => message.is_none(),
    };
    let retryable = rules.retryable.as_ref().and_then(|pointer| told.pointer(pointer)?.as_bool());
    let state = match (good, retryable) {
        (true, _) => PartState::Ok,
        (false, Some(true)) => PartState::Retry,
        (false, _) => PartState::Failed,
    };
    let http_status = text(&rules.status).and_then(|status| status.parse().ok());
    let error = (!good).then(|| message.unwrap_or_else(|| "the upstream tells no reason".to_owned()));
    Part { state: Some(state), http_status, error, ..row }
}

/// A body that holds only `rows` of the array at `into`; the rest of it stays as it was written.
pub(super) fn some_of(body: &[u8], into: &str, rows: &[Part]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let (start, list) = at(text, into)?;
    let elements: Vec<&RawValue> = serde_json::from_str(list).ok()?;
    let mut out = Vec::with_capacity(body.len());
    out.extend_from_slice(&body[..start]);
    out.push(b'[');
    for (place, row) in rows.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(elements.get(row.ord as usize)?.get().as_bytes());
    }
    out.push(b']');
    out.extend_from_slice(&body[start + list.len()..]);
    Some(out)
}

/// Names the sending again of `rows` of a transaction: the same after every restart, another one for other rows.
pub(super) fn transaction(parent: Uuid, rows: &[Part]) -> Uuid {
    let mut hasher = sha2::Sha256::new();
    hasher.update(b"tidegate bulk rows again 1\0");
    hasher.update(parent.as_bytes());
    for row in rows {
        hasher.update(row.ord.to_be_bytes());
        hasher.update(row.round.to_be_bytes());
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The JSON at a pointer as it was written, and where it begins in `text`. Members of objects only.
pub(super) fn at<'t>(text: &'t str, pointer: &str) -> Option<(usize, &'t str)> {
    let mut here = text.trim();
    for name in pointer.split('/').skip(1) {
        let name = name.replace("~1", "/").replace("~0", "~");
        let members: BTreeMap<String, &'t RawValue> = serde_json::from_str(here).ok()?;
        here = members.get(&name)?.get();
    }
    // Raw values are borrowed from the text itself.
    let start = here.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    Some((start, here))
}

fn elements<'t>(body: &'t str, into: &str) -> Option<Vec<&'t RawValue>> {
    let (_, list) = at(body, into)?;
    serde_json::from_str(list).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(ord: u32) -> Part {
        Part { ord, ..Part::default() }
    }

    #[test]
    fn rows_are_taken_out_of_a_body_as_they_were_written() {
        let body = br#"{"x": 1.10, "in": {"list" : [ {"a":1.0} , 12345678901234567890, "z"]}, "y":2}"#;
        let some = some_of(body, "/in/list", &[part(0), part(1)]).unwrap();
        assert_eq!(
            std::str::from_utf8(&some).unwrap(),
            r#"{"x": 1.10, "in": {"list" : [{"a":1.0},12345678901234567890]}, "y":2}"#
        );
        assert_eq!(some_of(b" [1,2,3] ", "", &[part(2)]).unwrap(), b" [3] ");
        assert_eq!(some_of(body, "/in/list", &[part(3)]), None);
        assert_eq!(some_of(body, "/in/none", &[part(0)]), None);
    }

    #[test]
    fn only_what_says_so_is_sent_again() {
        let rules = ItemRules {
            ok: Some("/success".to_owned()),
            status: Some("/status".to_owned()),
            code: Some("/error/code".to_owned()),
            message: Some("/error/message".to_owned()),
            retryable: Some("/error/retryable".to_owned()),
            id: None,
        };
        let judge = |text: &str| told(part(0), None, &serde_json::from_str(text).unwrap(), &rules);
        let good = judge(r#"{"success":true,"status":200}"#);
        assert_eq!((good.state, good.http_status, good.error), (Some(PartState::Ok), Some(200), None));
        let busy = judge(
            r#"{"success":false,"status":503,"error":{"code":"busy","message":"later","retryable":true}}"#,
        );
        assert_eq!((busy.state, busy.error.as_deref()), (Some(PartState::Retry), Some("busy: later")));
        for bad in [r#"{"success":false,"error":{"retryable":false}}"#, r#"{"success":false}"#, "{}", "7"] {
            let bad = judge(bad);
            assert_eq!(bad.state, Some(PartState::Failed));
            assert_eq!(bad.error.as_deref(), Some("the upstream tells no reason"));
        }
        let by_message = ItemRules { message: Some("/errorMsg".to_owned()), ..ItemRules::default() };
        let judge = |text: &str| told(part(0), None, &serde_json::from_str(text).unwrap(), &by_message).state;
        assert_eq!(judge(r#"{"url":"x"}"#), Some(PartState::Ok));
        assert_eq!(judge(r#"{"errorMsg":"gone"}"#), Some(PartState::Failed));
    }

    #[test]
    fn a_result_that_names_another_row_tells_nothing_of_this_one() {
        let rules = ItemRules { id: Some("/email".to_owned()), ..ItemRules::default() };
        let judge = |name: Option<&str>, text: &str| {
            told(part(0), name, &serde_json::from_str(text).unwrap(), &rules).state
        };
        assert_eq!(judge(Some("a@x"), r#"{"email":"a@x"}"#), Some(PartState::Ok));
        assert_eq!(judge(Some("a@x"), r#"{"email":"b@x"}"#), Some(PartState::Unknown));
        let again = r#"{"email":"b@x","error":{"retryable":true}}"#;
        assert_eq!(judge(Some("a@x"), again), Some(PartState::Unknown), "and is not sent again");
        assert_eq!(judge(Some("a@x"), "{}"), Some(PartState::Ok), "only its place tells");
        assert_eq!(judge(None, r#"{"email":"b@x"}"#), Some(PartState::Ok), "the row has no name");
    }

    #[test]
    fn sending_rows_again_has_a_name_of_its_own() {
        let parent = Uuid::from_u128(1);
        let once = transaction(parent, &[part(1), part(2)]);
        assert_eq!(once, transaction(parent, &[part(1), part(2)]));
        let later = Part { round: 1, ..part(1) };
        for other in [vec![part(1)], vec![part(2), part(1)], vec![later, part(2)]] {
            assert_ne!(once, transaction(parent, &other));
        }
        assert_ne!(once, transaction(Uuid::from_u128(2), &[part(1), part(2)]));
    }
}
