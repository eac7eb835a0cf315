//! Placeholders in strings: `{column}`, `{column:number?}`.

use tidegate_core::template;

use crate::near;

/// What a placeholder's value becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Number,
    Bool,
    Json,
}

/// A placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) column: String,
    pub(crate) kind: Type,
    /// An empty value leaves the member out.
    pub(crate) optional: bool,
}

/// A part of a string.
pub(crate) type Piece = template::Piece<Slot>;

/// Splits a string into text and placeholders.
pub(crate) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    template::pieces(text, slot)
}

fn slot(inside: &str) -> Result<Slot, String> {
    let (inside, optional) = inside.strip_suffix('?').map_or((inside, false), |it| (it, true));
    let (column, kind) = inside.split_once(':').map_or((inside, None), |(column, kind)| (column, Some(kind)));
    let column = column.trim();
    if column.is_empty() || column.contains('{') {
        return Err(format!("`{{{inside}}}` names no column; write {{column}} or {{column:number}}"));
    }
    let kind = match kind.map(str::trim) {
        None | Some("text") => Type::Text,
        Some("number") => Type::Number,
        Some("bool") => Type::Bool,
        Some("json") => Type::Json,
        Some(other) => {
            let hint = near::hint(other, ["number", "bool", "json", "text"]);
            return Err(format!("unknown type `{other}` in `{{{inside}}}`; use number, bool or json{hint}"));
        }
    };
    Ok(Slot { column: column.to_owned(), kind, optional })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(column: &str, kind: Type, optional: bool) -> Piece {
        Piece::Hole(Slot { column: column.to_owned(), kind, optional })
    }

    #[test]
    fn text_and_placeholders_are_told_apart() {
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(pieces("plain"), Ok(vec![text("plain")]));
        assert_eq!(pieces(""), Ok(vec![]));
        assert_eq!(pieces("{a}"), Ok(vec![named("a", Type::Text, false)]));
        assert_eq!(pieces("{ a b :number?}"), Ok(vec![named("a b", Type::Number, true)]));
        assert_eq!(
            pieces("x{a}y{b?}"),
            Ok(vec![text("x"), named("a", Type::Text, false), text("y"), named("b", Type::Text, true)])
        );
        assert_eq!(pieces("{{a}} {b:json}"), Ok(vec![text("{a} "), named("b", Type::Json, false)]));
    }

    #[test]
    fn broken_placeholders_say_how_to_write_them() {
        for (broken, fault) in [
            ("{a", "`{` is never closed in `{a`; a literal brace is written `{{`"),
            ("a}", "`}` without `{` in `a}`; a literal brace is written `}}`"),
            ("{}", "`{}` names no column; write {column} or {column:number}"),
            (
                "{a:nubmer}",
                "unknown type `nubmer` in `{a:nubmer}`; use number, bool or json; did you mean `number`?",
            ),
        ] {
            assert_eq!(pieces(broken), Err(fault.to_owned()), "{broken}");
        }
    }
}
