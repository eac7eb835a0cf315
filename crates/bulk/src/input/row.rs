//! A row and its cells, whichever format they came in.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::csv::Record;

/// A row of the input.
#[derive(Clone, Copy)]
pub(crate) enum Row<'a> {
    /// A CSV record under its header.
    Csv { columns: &'a [String], record: &'a Record },
    /// An NDJSON object.
    Json { line: u64, members: &'a [(String, Box<RawValue>)] },
}

impl<'a> Row<'a> {
    /// The line it starts on, from 1.
    pub(crate) fn line(self) -> u64 {
        match self {
            Row::Csv { record, .. } => record.line(),
            Row::Json { line, .. } => line,
        }
    }

    /// What to call a cell that [`Row::cell`] has none of.
    pub(crate) fn nothing(self) -> &'static str {
        match self {
            Row::Csv { .. } => "empty",
            Row::Json { .. } => "missing or empty",
        }
    }

    /// The cell of a column; `None` if the row has none or it holds nothing (empty text, JSON null).
    pub(crate) fn cell(self, column: &str) -> Option<Cell<'a>> {
        let cell = match self {
            Row::Csv { columns, record } => {
                let place = columns.iter().position(|it| it == column)?;
                Cell::Text(record.field(place))
            }
            Row::Json { members, .. } => {
                let (_, value) = members.iter().find(|(name, _)| name == column)?;
                Cell::Json(value)
            }
        };
        (!cell.is_empty()).then_some(cell)
    }
}

/// One value of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    /// Text of a CSV field, or an id that was looked up.
    Text(&'a str),
    /// A JSON value.
    Json(&'a RawValue),
}

impl<'a> Cell<'a> {
    fn is_empty(self) -> bool {
        match self {
            Cell::Text(text) => text.is_empty(),
            Cell::Json(value) => matches!(value.get(), "null" | "\"\""),
        }
    }

    /// The value as text: strings as they are, numbers and booleans as written.
    ///
    /// # Errors
    /// What it is instead.
    pub(crate) fn text(self) -> Result<Cow<'a, str>, &'static str> {
        let raw = match self {
            Cell::Text(text) => return Ok(Cow::Borrowed(text)),
            Cell::Json(value) => value.get(),
        };
        match raw.as_bytes().first() {
            Some(b'"') => serde_json::from_str::<Text>(raw).map(|it| it.0).map_err(|_| "a broken string"),
            Some(b'{') => Err("an object"),
            Some(b'[') => Err("an array"),
            _ => Ok(Cow::Borrowed(raw)),
        }
    }
}

/// A JSON string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
