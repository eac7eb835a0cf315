//! Texts with holes: `/users/{id}`. The one grammar of recipes and of the questions that [`reconcile`](crate::reconcile)
//! asks; what may stand in a hole is the caller's business.
//!
//! `{` opens a hole and `}` closes it; `{{` and `}}` are braces. What fills a hole of a target is data: [`encode`] keeps it
//! from reaching beyond its segment.

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<H> {
    /// As it stands, never empty.
    Text(String),
    /// A hole.
    Hole(H),
}

/// Splits `text` into what stands and its holes, whose content `hole` reads.
///
/// ```
/// use tidegate_core::template::{Piece, pieces};
///
/// let read = pieces("/users/{id}?brace={{", |name| Ok::<_, String>(name.len()));
/// assert_eq!(
///     read.unwrap(),
///     [Piece::Text("/users/".into()), Piece::Hole(2), Piece::Text("?brace={".into())]
/// );
/// ```
///
/// # Errors
/// A brace without its other half, with what to write; or what `hole` says.
pub fn pieces<H>(
    text: &str,
    mut hole: impl FnMut(&str) -> Result<H, String>,
) -> Result<Vec<Piece<H>>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            plain.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(format!("`}}` without `{{` in `{text}`; a literal brace is written `}}}}`"));
        }
        let (inside, after) = rest
            .split_once('}')
            .ok_or_else(|| format!("`{{` is never closed in `{text}`; a literal brace is written `{{{{`"))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Hole(hole(inside)?));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// Appends `value` with everything outside RFC 3986's unreserved characters (§2.3) percent-encoded. A value that makes a
/// segment `.` or `..` cannot be defused so: refuse it.
pub fn encode(value: &str, target: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            target.push(char::from(byte));
        } else {
            target.push('%');
            target.push(char::from(HEX[usize::from(byte >> 4)]));
            target.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Piece<String>>, String> {
        pieces(text, |inside| if inside == "odd" { Err("odd".to_owned()) } else { Ok(inside.to_owned()) })
    }

    #[test]
    fn braces_that_are_doubled_are_text() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let hole = |text: &str| Piece::Hole(text.to_owned());
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("{{{a}}}"), Ok(vec![text("{"), hole("a"), text("}")]));
        assert_eq!(read("{a}{b}"), Ok(vec![hole("a"), hole("b")]));
        assert_eq!(read("{}"), Ok(vec![hole("")]));
    }

    #[test]
    fn a_brace_alone_is_an_error_that_says_what_to_write() {
        assert_eq!(read("x{a").unwrap_err(), "`{` is never closed in `x{a`; a literal brace is written `{{`");
        assert_eq!(read("x}a").unwrap_err(), "`}` without `{` in `x}a`; a literal brace is written `}}`");
        assert_eq!(read("{odd}").unwrap_err(), "odd");
    }

    #[test]
    fn a_value_stays_within_its_segment() {
        let mut target = String::new();
        encode("a/b?ä~", &mut target);
        assert_eq!(target, "a%2Fb%3F%C3%A4~");
    }
}
