//! A row's values, typed, checked against the recipe's rules, with each column's first fault reported once.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::lookup::Lookups;
use crate::input::{Cell, Row};
use crate::near;
use crate::problem::{Problem, Problems};
use crate::recipe::{Rule, Slot, SlotType, Template, Values};

/// The values of one row.
pub(super) struct RowValues<'a, 'p> {
    row: Row<'a>,
    template: &'a Template,
    lookups: &'a Lookups,
    problems: &'p mut Problems,
    /// Columns whose fault has been reported; a column used in path and body has one fault, not two.
    reported: Vec<String>,
}

/// A value as found: a cell, or the id that a name stands for.
enum Found<'a> {
    Cell(Cell<'a>),
    Id(Cow<'a, str>),
}

impl<'a, 'p> RowValues<'a, 'p> {
    pub(super) fn new(
        row: Row<'a>,
        template: &'a Template,
        lookups: &'a Lookups,
        problems: &'p mut Problems,
    ) -> Self {
        Self { row, template, lookups, problems, reported: Vec::new() }
    }

    /// Whether everything asked for so far was there and right.
    pub(super) fn is_good(&self) -> bool {
        self.reported.is_empty()
    }

    /// The value of a column that names something: text that must be there, without stray spaces.
    pub(super) fn name(&mut self, column: &str) -> Option<Cow<'a, str>> {
        let text = self.value_of(column, SlotType::Text, false)?;
        if text.trim() != text {
            self.fault(column, format!("`{text}` has spaces around it"));
            return None;
        }
        Some(text)
    }

    fn value_of(&mut self, column: &str, kind: SlotType, optional: bool) -> Option<Cow<'a, str>> {
        let found = match self.find(column) {
            Ok(Some(found)) => found,
            Ok(None) if optional => return None,
            Ok(None) => {
                let or = self
                    .template
                    .lookup(column)
                    .map_or_else(String::new, |it| format!(", and so is `{}`", it.from));
                self.fault(column, format!("is {}{or}", self.row.nothing()));
                return None;
            }
            Err(message) => {
                self.fault(column, message);
                return None;
            }
        };
        let value = match found {
            Found::Cell(cell) => convert(cell, kind),
            Found::Id(id) => convert(Cell::Text(&id), kind).map(|it| Cow::Owned(it.into_owned())),
        };
        let checked = value.and_then(|value| match self.template.rules.get(column) {
            Some(rule) => check(rule, &value).map(|()| value),
            None => Ok(value),
        });
        checked.map_err(|message| self.fault(column, message)).ok()
    }

    fn find(&self, column: &str) -> Result<Option<Found<'a>>, String> {
        if let Some(cell) = self.row.cell(column) {
            return Ok(Some(Found::Cell(cell)));
        }
        let Some(lookup) = self.template.lookup(column) else { return Ok(None) };
        let Some(cell) = self.row.cell(&lookup.from) else { return Ok(None) };
        let name = cell.text().map_err(|what| format!("`{}` is {what}, not a name", lookup.from))?;
        let id = self.lookups.find(column, name.clone());
        id.map(|id| Some(Found::Id(id))).ok_or_else(|| format!("{} `{name}` was not looked up", lookup.from))
    }

    fn fault(&mut self, column: &str, message: impl Into<String>) {
        if !self.reported.iter().any(|it| it == column) {
            self.reported.push(column.to_owned());
            self.problems.push(Problem::cell(self.row.line(), column, message));
        }
    }
}

impl Values for RowValues<'_, '_> {
    fn value(&mut self, slot: &Slot) -> Option<Cow<'_, str>> {
        self.value_of(&slot.column, slot.kind, slot.optional)
    }
}

/// A cell as the text to insert: plain for text, JSON for the typed kinds.
///
/// # Errors
/// What is wrong with it.
pub(super) fn convert(cell: Cell<'_>, kind: SlotType) -> Result<Cow<'_, str>, String> {
    if let (SlotType::Json, Cell::Json(value)) = (kind, cell) {
        return Ok(Cow::Borrowed(value.get()));
    }
    let text = cell.text().map_err(|what| format!("is {what}, where a single value is needed"))?;
    match kind {
        SlotType::Text => Ok(text),
        SlotType::Number if is_json_number(text.trim()) => Ok(trim(text)),
        SlotType::Number => Err(format!("`{}` is not a number", shorten(&text))),
        SlotType::Bool => match text.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(Cow::Borrowed("true")),
            "false" => Ok(Cow::Borrowed("false")),
            _ => Err(format!("`{}` is neither true nor false", shorten(&text))),
        },
        SlotType::Json => match serde_json::from_str::<&RawValue>(&text) {
            Ok(_) => Ok(trim(text)),
            Err(error) => Err(format!("is not JSON ({error})")),
        },
    }
}

fn trim(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

/// Whether `text` is a number as JSON writes it, so that it can be copied without passing through a float.
fn is_json_number(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_digit() || it == '-')
        && serde_json::from_str::<&RawValue>(text).is_ok()
}

fn check(rule: &Rule, value: &str) -> Result<(), String> {
    if rule.min.is_some() || rule.max.is_some() {
        let number =
            value.trim().parse::<f64>().map_err(|_| format!("`{}` is not a number", shorten(value)))?;
        let (low, high) = (rule.min.unwrap_or(f64::NEG_INFINITY), rule.max.unwrap_or(f64::INFINITY));
        if !(low..=high).contains(&number) {
            return Err(match (rule.min, rule.max) {
                (Some(min), Some(max)) => format!("`{value}` is not between {min} and {max}"),
                (Some(min), None) => format!("`{value}` is below {min}"),
                _ => format!("`{value}` is above {high}"),
            });
        }
    }
    if !rule.one_of.is_empty() && !rule.one_of.iter().any(|it| it == value) {
        let hint = near::hint(value, rule.one_of.iter().map(String::as_str));
        return Err(format!("`{}` is not one of {}{hint}", shorten(value), rule.one_of.join(", ")));
    }
    Ok(())
}

/// Enough of a value to recognise it in a message.
pub(super) fn shorten(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_copied_as_written() {
        for number in ["5", "-0.50", "1e400", "123456789012345678901234567890"] {
            assert_eq!(convert(Cell::Text(number), SlotType::Number).unwrap(), number);
        }
        assert_eq!(convert(Cell::Text(" 5 "), SlotType::Number).unwrap(), "5");
        for other in ["", "05", "+5", ".5", "5.", "NaN", "1,5", "0x5", "5 5", "true"] {
            assert!(convert(Cell::Text(other), SlotType::Number).is_err(), "{other}");
        }
    }

    #[test]
    fn booleans_are_taken_as_spreadsheets_write_them() {
        assert_eq!(convert(Cell::Text("TRUE"), SlotType::Bool).unwrap(), "true");
        assert_eq!(convert(Cell::Text("false "), SlotType::Bool).unwrap(), "false");
        assert!(convert(Cell::Text("yes"), SlotType::Bool).is_err());
    }

    #[test]
    fn json_keeps_large_numbers_and_repeated_names() {
        let json = r#"{"a":12345678901234567890123,"a":1}"#;
        assert_eq!(convert(Cell::Text(json), SlotType::Json).unwrap(), json);
        assert!(convert(Cell::Text("{a}"), SlotType::Json).is_err());
    }

    #[test]
    fn rules_name_the_bounds() {
        let rule = Rule { min: Some(0.0), max: Some(5.0), one_of: vec![] };
        assert_eq!(check(&rule, "5.0"), Ok(()));
        assert_eq!(check(&rule, "5.1"), Err("`5.1` is not between 0 and 5".to_owned()));
        assert_eq!(check(&Rule { max: None, ..rule.clone() }, "-1"), Err("`-1` is below 0".to_owned()));
        assert_eq!(check(&Rule { min: None, ..rule }, "6"), Err("`6` is above 5".to_owned()));
        let rule = Rule { one_of: vec!["active".into(), "inactive".into()], ..Rule::default() };
        let fault = "`actve` is not one of active, inactive; did you mean `active`?";
        assert_eq!(check(&rule, "actve"), Err(fault.to_owned()));
    }
}
