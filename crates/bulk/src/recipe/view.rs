//! TOML with places: a small reader that collects every problem instead of stopping at the first.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::near;
use crate::problem::{Problem, Problems, line_breaks};

/// A TOML document being read, with the problems found so far.
pub(super) struct Document<'t> {
    text: &'t str,
    pub(super) problems: Problems,
}

/// A table being read; whatever nobody asked for is reported as unknown.
pub(super) struct Table<'a, 't> {
    members: &'a DeTable<'t>,
    line: u64,
    /// Its name, for messages; empty for the document itself.
    name: String,
}

/// A value and the line it is on.
#[derive(Clone, Copy)]
pub(super) struct Place<'a, 't> {
    pub(super) value: &'a DeValue<'t>,
    pub(super) line: u64,
}

impl<'t> Document<'t> {
    pub(super) fn new(file: &str, text: &'t str) -> Self {
        Self { text, problems: Problems::new(file) }
    }

    /// Parses the whole document; syntax errors are reported, and what could be read is returned.
    pub(super) fn parse(&mut self) -> Spanned<DeTable<'t>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let line = self.line(error.span().map_or(0, |span| span.start));
            self.problem(line, error.message().to_owned());
        }
        root
    }

    pub(super) fn root<'a>(root: &'a Spanned<DeTable<'t>>) -> Table<'a, 't> {
        Table { members: root.get_ref(), line: 1, name: String::new() }
    }

    pub(super) fn problem(&mut self, line: u64, message: impl Into<String>) {
        self.problems.push(Problem::line(line, message));
    }

    fn line(&self, offset: usize) -> u64 {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        line_breaks(before) + 1
    }

    pub(super) fn place<'a>(&self, value: &'a Spanned<DeValue<'t>>) -> Place<'a, 't> {
        Place { value: value.get_ref(), line: self.line(value.span().start) }
    }

    /// Reports the keys of `table` that are not among `known`.
    pub(super) fn known(&mut self, table: &Table<'_, 't>, known: &[&str]) {
        for (key, _) in table.members {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let hint = near::hint(name, known.iter().copied());
                let line = self.line(key.span().start);
                self.problem(line, format!("unknown key `{}`{hint}", table.path(name)));
            }
        }
    }

    pub(super) fn get<'a>(&self, table: &Table<'a, 't>, key: &str) -> Option<Place<'a, 't>> {
        table.members.get(key).map(|value| self.place(value))
    }

    pub(super) fn string(&mut self, table: &Table<'_, 't>, key: &str) -> Option<(String, u64)> {
        let place = self.get(table, key)?;
        match place.value {
            DeValue::String(text) => Some((text.to_string(), place.line)),
            other => self.wrong_type(table, key, place.line, "a string", other),
        }
    }

    /// A string that must be there; its absence is reported.
    pub(super) fn required(&mut self, table: &Table<'_, 't>, key: &str) -> Option<(String, u64)> {
        if self.get(table, key).is_none() {
            self.problem(table.line, format!("`{}` is missing", table.path(key)));
        }
        self.string(table, key)
    }

    pub(super) fn number(&mut self, table: &Table<'_, 't>, key: &str) -> Option<f64> {
        let place = self.get(table, key)?;
        let number = match place.value {
            DeValue::Integer(it) if it.radix() == 10 => it.as_str().parse().ok(),
            DeValue::Float(it) => it.as_str().parse().ok().filter(|it: &f64| it.is_finite()),
            _ => None,
        };
        number.or_else(|| self.wrong_type(table, key, place.line, "a number", place.value))
    }

    /// A whole number from 1.
    pub(super) fn count(&mut self, table: &Table<'_, 't>, key: &str) -> Option<usize> {
        let number = self.number(table, key)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a count")]
        let count = (number >= 1.0 && number.fract() == 0.0).then_some(number as usize);
        if count.is_none() {
            let line = self.get(table, key).map_or(1, |it| it.line);
            self.problem(line, format!("`{}` is {number}, but must be 1 or more", table.path(key)));
        }
        count
    }

    pub(super) fn table<'a>(&mut self, table: &Table<'a, 't>, key: &str) -> Option<Table<'a, 't>> {
        let place = self.get(table, key)?;
        match place.value {
            DeValue::Table(inner) => Some(Table { members: inner, line: place.line, name: table.path(key) }),
            other => self.wrong_type(table, key, place.line, "a table", other),
        }
    }

    pub(super) fn wrong_type<T>(
        &mut self,
        table: &Table<'_, 't>,
        key: &str,
        line: u64,
        expected: &str,
        found: &DeValue<'t>,
    ) -> Option<T> {
        let found = found.type_str();
        self.problem(line, format!("`{}` must be {expected}, not a TOML {found}", table.path(key)));
        None
    }
}

impl<'a> Table<'a, '_> {
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.members.iter().map(|(key, _)| &**key.get_ref())
    }

    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}
