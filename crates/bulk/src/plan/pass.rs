//! One reading of the input that yields requests.

use std::borrow::Cow;
use std::collections::HashMap;

use super::group::{Group, Repeat};
use super::lookup::Lookups;
use super::values::{RowValues, convert};
use super::{MAX_BODY_BYTES, PlannedRequest, Summary, Survey, hash, requests, transaction};
use crate::input::{Cell, Row};
use crate::problem::{Problem, Problems};
use crate::recipe::{Kind, Merge, Recipe, Slot, Template, Values, check_target};

/// The state of one reading.
pub(super) struct Pass<'a, F> {
    recipe: &'a Recipe,
    survey: &'a Survey,
    lookups: &'a Lookups,
    sink: F,
    pub(super) problems: Problems,
    pub(super) summary: Summary,
    /// Rows waiting for the others of their request, by what they are merged by.
    groups: HashMap<Box<str>, Group>,
    /// Ids that may be used twice, with the line that used them first.
    ids: HashMap<String, u64>,
    item: Vec<u8>,
}

impl<'a, E, F: FnMut(PlannedRequest) -> Result<(), E>> Pass<'a, F> {
    pub(super) fn new(
        recipe: &'a Recipe,
        survey: &'a Survey,
        lookups: &'a Lookups,
        problems: Problems,
        sink: F,
    ) -> Self {
        let summary = Summary::default();
        let (groups, ids, item) = (HashMap::new(), HashMap::new(), Vec::new());
        let mut pass = Self { recipe, survey, lookups, sink, problems, summary, groups, ids, item };
        for column in &survey.unused {
            pass.note(|| format!("column `{column}` is not used by recipe `{}`", recipe.name()));
        }
        pass
    }

    /// Takes a row.
    pub(super) fn row(&mut self, row: Row<'_>) -> Result<(), E> {
        self.summary.rows += 1;
        let recipe = self.recipe;
        match &recipe.kind {
            Kind::Requests => self.written(row),
            Kind::Template(template) => match &template.merge {
                Some(merge) => self.merged(row, template, merge),
                None => self.single(row, template),
            },
        }
    }

    /// Takes the end of the input: what still waits is complete.
    pub(super) fn finish(&mut self) -> Result<(), E> {
        let recipe = self.recipe;
        let Kind::Template(template) = &recipe.kind else { return Ok(()) };
        let Some(merge) = &template.merge else { return Ok(()) };
        let mut waiting: Vec<_> = std::mem::take(&mut self.groups).into_iter().collect();
        waiting.sort_by_key(|(_, group)| group.first_line());
        waiting.into_iter().try_for_each(|(key, group)| self.close(&key, group, template, merge))
    }

    fn written(&mut self, row: Row<'_>) -> Result<(), E> {
        let Some(written) = requests::read(row, &mut self.problems) else { return Ok(()) };
        let line = row.line();
        let id = written.id.map(Cow::into_owned);
        if let Some(id) = &id {
            self.claim(id, line, "id");
        }
        self.emit(id, line, written.method, written.target, written.body)
    }

    fn single(&mut self, row: Row<'_>, template: &Template) -> Result<(), E> {
        let line = row.line();
        let mut values = RowValues::new(row, template, self.lookups, &mut self.problems);
        let id = template.id.as_deref().and_then(|column| values.name(column)).map(Cow::into_owned);
        let target = template.target.fill(|column| values.name(column));
        let body = template.body.as_ref().map(|node| {
            let mut body = Vec::new();
            node.render(&mut values, &[], &mut body);
            body
        });
        if !values.is_good() {
            return Ok(());
        }
        if let (Some(id), Some(column)) = (&id, &template.id) {
            self.claim(id, line, column);
        }
        let Some(target) = self.checked_target(target, line) else { return Ok(()) };
        self.emit(id, line, template.method.clone(), target, body)
    }

    fn merged(&mut self, row: Row<'_>, template: &Template, merge: &Merge) -> Result<(), E> {
        let mut values = RowValues::new(row, template, self.lookups, &mut self.problems);
        let key = merge.by.as_deref().map_or(Some(Cow::Borrowed("")), |column| values.name(column));
        let unique = merge.unique.as_deref().map_or(Some(Cow::Borrowed("")), |column| values.name(column));
        self.item.clear();
        merge.item.render(&mut values, &[], &mut self.item);
        let good = values.is_good();
        let (Some(key), Some(unique), true) = (key, unique, good) else { return Ok(()) };

        let expected = self.survey.counts.get(&hash(&key)).copied();
        let mut group = self.groups.remove(&*key).unwrap_or_default();
        group.push(row.line(), &unique, &self.item, expected.unwrap_or(1));
        if expected.is_some_and(|expected| group.rows() >= expected) {
            return self.close(&key, group, template, merge);
        }
        self.groups.insert(key.into(), group);
        Ok(())
    }

    /// Makes the requests of a complete group.
    fn close(&mut self, key: &str, group: Group, template: &Template, merge: &Merge) -> Result<(), E> {
        let first = group.first_line();
        let (chunks, repeats) = group.close(merge.unique.is_some(), merge.max.unwrap_or(usize::MAX));
        let unique = merge.unique.as_deref().unwrap_or_default();
        for repeat in repeats {
            self.repeat(key, unique, repeat);
        }

        let target = template.target.fill(|_| Some(Cow::Borrowed(key)));
        let Some(target) = self.checked_target(target, first) else { return Ok(()) };
        for (place, chunk) in chunks.into_iter().enumerate() {
            let column = merge.by.as_deref().unwrap_or_default();
            let mut values = KeyValues { key, column, line: first, problems: &mut self.problems };
            let body = template.body.as_ref().map(|node| {
                let mut body = Vec::with_capacity(chunk.items.len() + 64);
                node.render(&mut values, &chunk.items, &mut body);
                body
            });
            let id = match (&merge.by, place) {
                (None, _) => format!("batch-{}", place + 1),
                (Some(_), 0) => key.to_owned(),
                (Some(_), _) => format!("{key}#{}", place + 1),
            };
            self.deliver(PlannedRequest {
                seq: chunk.lines[0],
                transaction: transaction(self.survey.digest, key, place + 1),
                id,
                method: template.method.clone(),
                target: target.clone(),
                body,
                lines: chunk.lines,
            })?;
        }
        Ok(())
    }

    fn repeat(&mut self, key: &str, column: &str, repeat: Repeat) {
        let Repeat { line, earlier, unique, conflict } = repeat;
        if let Some((first, second)) = conflict {
            let message =
                format!("`{unique}` of `{key}` is {second} here and {first} on line {earlier}; keep one");
            self.problems.push(Problem::cell(line, column, message));
        } else {
            self.summary.collapsed += 1;
            self.note(|| {
                format!("line {line} repeats line {earlier} (`{unique}` of `{key}`) and was dropped")
            });
        }
    }

    /// Reports an id that an earlier row has. Only ids that the survey counted twice are remembered.
    fn claim(&mut self, id: &str, line: u64, column: &str) {
        // An uncounted id was looked up; then nothing is known about it and all are compared.
        if self.survey.counts.get(&hash(id)).is_some_and(|uses| *uses < 2) {
            return;
        }
        if let Some(earlier) = self.ids.get(id) {
            let message = format!("`{id}` already names line {earlier}; ids must differ");
            self.problems.push(Problem::cell(line, column, message));
        } else {
            self.ids.insert(id.to_owned(), line);
        }
    }

    fn checked_target(&mut self, target: Option<String>, line: u64) -> Option<String> {
        let target = target?;
        match check_target(&target) {
            Ok(()) => Some(target),
            Err(message) => {
                self.problems.push(Problem::line(line, message));
                None
            }
        }
    }

    fn emit(
        &mut self,
        id: Option<String>,
        line: u64,
        method: http::Method,
        target: String,
        body: Option<Vec<u8>>,
    ) -> Result<(), E> {
        let id = id.unwrap_or_else(|| format!("line-{line}"));
        let transaction = transaction(self.survey.digest, &id, 1);
        self.deliver(PlannedRequest { seq: line, id, transaction, method, target, body, lines: vec![line] })
    }

    fn deliver(&mut self, request: PlannedRequest) -> Result<(), E> {
        let size = request.body.as_ref().map_or(0, Vec::len);
        if size > MAX_BODY_BYTES {
            let message = format!(
                "the body of `{}` has {size} bytes; above {MAX_BODY_BYTES} it could not be resent (limit merged items with `merge.max`)",
                request.id
            );
            self.problems.push(Problem::line(request.seq, message));
        }
        self.summary.requests += 1;
        // After the first problem nothing will be sent, so nothing more is handed out.
        if self.problems.is_empty() { (self.sink)(request) } else { Ok(()) }
    }

    fn note(&mut self, note: impl FnOnce() -> String) {
        if self.summary.notes.len() < Problems::SHOWN {
            self.summary.notes.push(note());
        }
    }
}

/// The one value that the rows of a merged request share.
struct KeyValues<'a> {
    key: &'a str,
    column: &'a str,
    line: u64,
    problems: &'a mut Problems,
}

impl Values for KeyValues<'_> {
    fn value(&mut self, slot: &Slot) -> Option<Cow<'_, str>> {
        match convert(Cell::Text(self.key), slot.kind) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problems.push(Problem::cell(self.line, self.column, message));
                None
            }
        }
    }
}
