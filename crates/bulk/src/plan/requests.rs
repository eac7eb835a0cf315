//! Rows that are requests: the built-in recipe `requests`.

use std::borrow::Cow;

use crate::input::{Cell, Row};
use crate::near;
use crate::problem::{Problem, Problems};
use crate::recipe::{check_target, method};

/// The members such a row may have.
const MEMBERS: [&str; 4] = ["id", "method", "path", "body"];

/// A request written out.
pub(super) struct Written<'a> {
    /// Its own name, if it has one.
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) method: http::Method,
    pub(super) target: String,
    pub(super) body: Option<Vec<u8>>,
}

/// Reads a row as a request; `None` after its problems were reported.
pub(super) fn read<'a>(row: Row<'a>, problems: &mut Problems) -> Option<Written<'a>> {
    let before = problems.total();
    let line = row.line();
    if let Row::Json { members, .. } = row {
        for (name, _) in members.iter().filter(|(name, _)| !MEMBERS.contains(&name.as_str())) {
            let hint = near::hint(name, MEMBERS);
            problems.push(Problem::line(
                line,
                format!("unknown member `{name}`; a request has {}{hint}", MEMBERS.join(", ")),
            ));
        }
    }
    let mut text = |name: &str, required: bool| {
        let text = match row.cell(name).map(Cell::text) {
            Some(Ok(text)) => return Some(text),
            Some(Err(what)) => format!("is {what}, not a string"),
            None if required => "is missing".to_owned(),
            None => return None,
        };
        problems.push(Problem::cell(line, name, text));
        None
    };
    let id = text("id", false);
    let written_method = text("method", true);
    let path = text("path", true);
    let checked = written_method.map(|it| method(&it));
    let method =
        checked.and_then(|it| it.map_err(|fault| problems.push(Problem::cell(line, "method", fault))).ok());
    let target = path.and_then(|path| match check_target(&path) {
        Ok(()) => Some(path.into_owned()),
        Err(fault) => {
            problems.push(Problem::cell(line, "path", fault));
            None
        }
    });
    let body = match row.cell("body") {
        Some(Cell::Json(value)) => Some(value.get().as_bytes().to_vec()),
        _ => None,
    };
    let (method, target) = (method?, target?);
    (problems.total() == before).then_some(Written { id, method, target, body })
}
