//! JSON as it was written: what is passed on is never rebuilt, so that a number with forty digits or a member that
//! stands twice leaves as it arrived.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The JSON at a pointer (RFC 6901), as it stands in `text`. Members of objects only.
pub(crate) fn at<'t>(text: &'t str, pointer: &str) -> Option<&'t str> {
    let mut here = text.trim();
    for name in pointer.split('/').skip(1) {
        let members: BTreeMap<String, &'t RawValue> = serde_json::from_str(here).ok()?;
        here = members.get(&unescape(name))?.get();
    }
    Some(here)
}

/// The array at a pointer, element by element.
pub(crate) fn list_at<'t>(text: &'t str, pointer: &str) -> Option<Vec<&'t RawValue>> {
    serde_json::from_str(at(text, pointer)?).ok()
}

/// The name of a member, as a step of a pointer spells it (RFC 6901 §4).
pub(crate) fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_at_a_pointer_is_found_as_it_was_written() {
        let text = r#" {"a/b": {"~": [1.0,  2e0]}, "x": 1} "#;
        assert_eq!(at(text, "/a~1b/~0"), Some("[1.0,  2e0]"));
        assert_eq!(at(text, ""), Some(text.trim()));
        assert_eq!((at(text, "/y"), at(text, "/x/y")), (None, None));
        let list = list_at(text, "/a~1b/~0").unwrap();
        assert_eq!(list.iter().map(|raw| raw.get()).collect::<Vec<_>>(), ["1.0", "2e0"]);
        assert!(list_at(text, "/x").is_none());
    }
}
