//! `Idempotency-Key`: a caller's own name for a write (draft-ietf-httpapi-idempotency-key-header).

use http::{HeaderMap, HeaderName, StatusCode};

use crate::hygiene::Refused;

/// The field.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key. UUIDs have 36 characters; a key is not a place for data.
const MAX_KEY: usize = 255;

/// The key of a request, if it has one: a string of RFC 8941 (in quotes), as the draft asks for, or the bare word that
/// most programs send.
///
/// # Errors
/// Two fields, or one that is no key: a write whose key was misread would be done twice.
pub(crate) fn read(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let mut fields = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(first) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(invalid("it is there twice"));
    }
    let text = first.to_str().map_err(|_| invalid("it is not ASCII"))?.trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => unquote(rest).ok_or_else(|| invalid("the quotes do not match"))?,
        None if text.bytes().any(|byte| !(0x21..=0x7e).contains(&byte) || byte == b'"' || byte == b',') => {
            return Err(invalid("it has spaces, commas or quotes"));
        }
        None => text.to_owned(),
    };
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(invalid("it must have 1 to 255 characters"));
    }
    Ok(Some(key))
}

/// The content of a string whose opening quote was read (RFC 8941 §4.2.5).
fn unquote(text: &str) -> Option<String> {
    let mut content = String::with_capacity(text.len());
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => break,
            '\\' => content.push(rest.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            other => content.push(other),
        }
    }
    rest.as_str().is_empty().then_some(content)
}

fn invalid(why: &str) -> Refused {
    Refused {
        status: StatusCode::BAD_REQUEST,
        reason: "invalid-key",
        message: format!("{IDEMPOTENCY_KEY}: {why}; write it like \"8e03978e-40d5-43dd-bc93-6894a57f9324\""),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(values: &[&'static str]) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static(value));
        }
        read(&headers).map_err(|refused| refused.reason)
    }

    #[test]
    fn strings_and_bare_words_are_keys() {
        assert_eq!(key(&[]), Ok(None));
        for (value, expected) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e\"", "8e03978e"),
            ("\"with a space\"", "with a space"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
        ] {
            assert_eq!(key(&[value]), Ok(Some(expected.to_owned())), "{value}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_guessed() {
        let long = "x".repeat(256).leak();
        for value in ["", "\"\"", "a b", "a,b", "\"open", "\"a\"b", "\"a\";p=1", r#""a\n""#, "a\"b", long] {
            assert_eq!(key(&[value]), Err("invalid-key"), "{value}");
        }
        assert_eq!(key(&["a", "a"]), Err("invalid-key"));
    }
}
