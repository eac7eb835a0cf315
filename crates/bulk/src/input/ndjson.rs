//! A streaming NDJSON reader: one object per line, each value kept as it was written.

use std::fmt;
use std::io::{self, BufRead, Read};

use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{MAX_ROW_BYTES, Row, Source, not_utf8};
use crate::problem::{Problem, Problems};

/// Objects, one per line.
pub(super) struct NdjsonRows<R> {
    source: Source<R>,
    /// The line last read.
    line: u64,
    text: Vec<u8>,
    members: Vec<(String, Box<RawValue>)>,
}

impl<R: Read> NdjsonRows<R> {
    pub(super) fn new(source: Source<R>) -> Self {
        Self { source, line: 0, text: Vec::new(), members: Vec::new() }
    }

    pub(super) fn row(&self) -> Row<'_> {
        Row::Json { line: self.line, members: &self.members }
    }

    pub(super) fn into_source(self) -> Source<R> {
        self.source
    }

    pub(super) fn advance(&mut self, problems: &mut Problems) -> io::Result<bool> {
        while self.read_line()? {
            if self.text.len() > MAX_ROW_BYTES {
                let message = format!("the row is longer than {MAX_ROW_BYTES} bytes");
                problems.push(Problem::line(self.line, message));
                continue;
            }
            if self.text.trim_ascii().is_empty() {
                continue;
            }
            match parse(&self.text) {
                Ok(members) => {
                    self.members = members;
                    return Ok(true);
                }
                Err(message) => problems.push(Problem::line(self.line, message)),
            }
        }
        Ok(false)
    }

    /// Reads a line without its end; of one that is too long only so much that it shows.
    fn read_line(&mut self) -> io::Result<bool> {
        self.text.clear();
        let mut any = false;
        loop {
            let chunk = self.source.fill_buf()?;
            if chunk.is_empty() {
                self.line += u64::from(any);
                return Ok(any);
            }
            any = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let run = &chunk[..end.unwrap_or(chunk.len())];
            let room = (MAX_ROW_BYTES + 1).saturating_sub(self.text.len());
            self.text.extend_from_slice(&run[..run.len().min(room)]);
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.source.consume(used);
            if end.is_some() {
                self.line += 1;
                return Ok(true);
            }
        }
    }
}

fn parse(text: &[u8]) -> Result<Vec<(String, Box<RawValue>)>, String> {
    let text = std::str::from_utf8(text).map_err(|error| not_utf8(text, error.valid_up_to()))?;
    let Members(members) = serde_json::from_str(text).map_err(|error| {
        // The parser counts lines within this one line; only its column means something.
        let full = error.to_string();
        let message = full.split(" at line ").next().unwrap_or(&full);
        format!("is not a JSON object ({message}, column {})", error.column())
    })?;
    for (place, (name, _)) in members.iter().enumerate() {
        if members[..place].iter().any(|(earlier, _)| earlier == name) {
            return Err(format!("`{name}` appears twice"));
        }
    }
    Ok(members)
}

/// An object's members in order, repeated names included.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{Format, Input};

    type Rows = Vec<(u64, String)>;
    type Faults = Vec<(Option<u64>, String)>;

    /// Lines and the text of member `a` of all rows, and the problems.
    fn read(text: &[u8]) -> (Rows, Faults) {
        let mut problems = Problems::new("x.ndjson");
        let mut input = Input::new(text, Format::Ndjson, &mut problems).unwrap();
        let mut rows = Vec::new();
        while input.advance(&mut problems).unwrap() {
            let row = input.row();
            let cell = row.cell("a").map(|cell| cell.text().unwrap().into_owned());
            rows.push((row.line(), cell.unwrap_or_default()));
        }
        (rows, problems.first().iter().map(|it| (it.line, it.message.clone())).collect())
    }

    #[test]
    fn rows_are_read_with_their_lines_and_values_as_text() {
        let text = b"\xef\xbb\xbf{\"a\":\"x\\n\\u00e9\"}\r\n\n{\"a\":12345678901234567890123}\n{\"a\":null}\n{\"a\":true}";
        let (rows, problems) = read(text);
        assert_eq!(problems, []);
        let row = |line, text: &str| (line, text.to_owned());
        let expected = [row(1, "x\n\u{e9}"), row(3, "12345678901234567890123"), row(4, ""), row(5, "true")];
        assert_eq!(rows, expected);
    }

    #[test]
    fn bad_lines_are_reported_with_their_place_and_the_others_read() {
        let (rows, problems) =
            read(b"{\"a\":1}\n{\"a\":}\n[1]\n{\"a\":1,\"a\":2}\n{\"a\":\"\xff\"}\n{\"a\":2}\n");
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [1, 6]);
        let expected = [
            (Some(2), "is not a JSON object (expected value, column 6)".to_owned()),
            (
                Some(3),
                "is not a JSON object (invalid type: sequence, expected an object, column 0)".to_owned(),
            ),
            (Some(4), "`a` appears twice".to_owned()),
            (
                Some(5),
                "byte 0xff is not UTF-8; save the file as UTF-8 (spreadsheets offer \"CSV UTF-8\")"
                    .to_owned(),
            ),
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn a_huge_line_is_refused_and_the_next_one_read() {
        let huge = "x".repeat(10 << 20);
        let (rows, problems) = read(format!("{{\"a\":\"{huge}\"}}\n{{\"a\":1}}\n").as_bytes());
        assert_eq!(rows, [(2, "1".to_owned())]);
        assert_eq!(problems, [(Some(1), "the row is longer than 1048576 bytes".to_owned())]);
    }
}
