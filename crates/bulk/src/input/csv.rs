//! A streaming CSV reader that knows what is wrong and where.
//!
//! The common parser for this format is lenient by design: it accepts a quote that is never closed (and swallows the
//! rest of the file into one field), text after a closing quote, and fields of any length. A file that is about to
//! change a production system deserves better, so the record splitter is ours: RFC 4180 with bounds, the line where
//! each fault began, and recovery at the next line end. Accepted: LF, CRLF and CR; blank lines (skipped); a quote
//! inside an unquoted field (taken literally).

use std::io::{self, BufRead, Read};

use super::{MAX_ROW_BYTES, Row, Source, not_utf8};
use crate::problem::{Problem, Problems, line_breaks};

/// One record: its fields' text end to end.
#[derive(Debug, Default)]
pub(crate) struct Record {
    line: u64,
    text: String,
    ends: Vec<usize>,
}

impl Record {
    /// The line it starts on.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// The field at a place that the header has.
    pub(crate) fn field(&self, place: usize) -> &str {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.text[start..self.ends[place]]
    }
}

/// Records under a header.
pub(super) struct CsvRows<R> {
    splitter: Splitter<R>,
    columns: Vec<String>,
    record: Record,
    ended: bool,
}

impl<R: Read> CsvRows<R> {
    pub(super) fn new(source: Source<R>, problems: &mut Problems) -> io::Result<Self> {
        let splitter = Splitter { source, line: 1, after_cr: false, raw: Vec::new(), ends: Vec::new() };
        let mut rows = Self { splitter, columns: Vec::new(), record: Record::default(), ended: false };
        if rows.next_record(problems)? {
            let header = &rows.record;
            rows.columns =
                (0..header.ends.len()).map(|place| header.field(place).trim().to_owned()).collect();
            check_header(&rows.columns, header.line, problems);
        } else if problems.is_empty() {
            problems.push(Problem::file("is empty; the first line names the columns"));
        }
        Ok(rows)
    }

    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    pub(super) fn row(&self) -> Row<'_> {
        Row::Csv { columns: &self.columns, record: &self.record }
    }

    pub(super) fn into_source(self) -> Source<R> {
        self.splitter.source
    }

    pub(super) fn advance(&mut self, problems: &mut Problems) -> io::Result<bool> {
        while self.next_record(problems)? {
            let (found, named) = (self.record.ends.len(), self.columns.len());
            if found == named {
                return Ok(true);
            }
            let fields = if found == 1 { "1 field" } else { &format!("{found} fields") };
            let message = format!("has {fields}, the header has {named}");
            problems.push(Problem::line(self.record.line, message));
        }
        Ok(false)
    }

    /// Reads the next record that is well formed, reporting those that are not.
    fn next_record(&mut self, problems: &mut Problems) -> io::Result<bool> {
        while !self.ended {
            let line = self.splitter.skip_blank_lines()?;
            match self.splitter.split()? {
                Step::End => self.ended = true,
                Step::Record => match self.take_record(line) {
                    Ok(()) => return Ok(true),
                    Err(problem) => problems.push(problem),
                },
                Step::Bad(problem) => problems.push(problem),
                Step::Lost(problem) => {
                    problems.push(problem);
                    self.ended = true;
                }
            }
        }
        Ok(false)
    }

    fn take_record(&mut self, line: u64) -> Result<(), Problem> {
        let raw = &self.splitter.raw;
        let text = std::str::from_utf8(raw).map_err(|error| {
            let at = error.valid_up_to();
            let field = self.splitter.ends.iter().take_while(|end| **end <= at).count() + 1;
            let breaks = line_breaks(&raw[..at]);
            Problem::line(line + breaks, format!("field {field}: {}", not_utf8(raw, at)))
        })?;
        self.record.line = line;
        self.record.text.clear();
        self.record.text.push_str(text);
        self.record.ends.clone_from(&self.splitter.ends);
        Ok(())
    }
}

fn check_header(columns: &[String], line: u64, problems: &mut Problems) {
    for (place, column) in columns.iter().enumerate() {
        // A trailing comma in the header makes a nameless column, which nothing can refer to.
        let first = columns[..place].iter().position(|it| it == column && !it.is_empty());
        if let Some(first) = first {
            let message =
                format!("column `{column}` appears twice, in fields {} and {}", first + 1, place + 1);
            problems.push(Problem::line(line, message));
        }
    }
}

/// What a try to read a record ended with.
enum Step {
    /// A record is in the buffers.
    Record,
    /// The input is at its end.
    End,
    /// This record is malformed; the next one can be read.
    Bad(Problem),
    /// Nothing after this place can be understood.
    Lost(Problem),
}

/// Where in a record the splitter is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a field.
    Start,
    /// Inside an unquoted field.
    Bare,
    /// Inside a quoted field.
    Quoted,
    /// After a quote inside a quoted field: its end, or the first half of an escaped quote.
    Closed,
    /// In a malformed record, looking for its end.
    Skip,
}

/// Splits bytes into records.
struct Splitter<R> {
    source: Source<R>,
    /// The current line.
    line: u64,
    /// The last record ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    raw: Vec<u8>,
    ends: Vec<usize>,
}

/// The record under work.
struct Progress {
    state: State,
    /// Line of the last opening quote.
    opened: u64,
    fault: Option<Problem>,
}

impl<R: Read> Splitter<R> {
    /// Skips line ends, and returns the line where the next record starts.
    fn skip_blank_lines(&mut self) -> io::Result<u64> {
        while let Some(&byte) = self.source.fill_buf()?.first() {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' => self.line += 1,
                b'\r' => {
                    self.line += 1;
                    self.after_cr = true;
                }
                _ => break,
            }
            self.source.consume(1);
        }
        self.after_cr = false;
        Ok(self.line)
    }

    fn split(&mut self) -> io::Result<Step> {
        self.raw.clear();
        self.ends.clear();
        let mut progress = Progress { state: State::Start, opened: 0, fault: None };
        let mut untouched = true;
        loop {
            let chunk = self.source.fill_buf()?;
            if chunk.is_empty() {
                return Ok(if untouched { Step::End } else { self.end_of_input(progress) });
            }
            untouched = false;
            let mut buffers = Buffers { line: &mut self.line, raw: &mut self.raw, ends: &mut self.ends };
            let (used, found) = progress.feed(chunk, &mut buffers);
            self.after_cr = found == Some(b'\r');
            self.source.consume(used);
            if found.is_some() {
                return Ok(progress.fault.map_or(Step::Record, Step::Bad));
            }
            if progress.state == State::Quoted && self.raw.len() > MAX_ROW_BYTES {
                let message = format!(
                    "the quoted field that opens here is longer than {MAX_ROW_BYTES} bytes; is its closing quote missing?"
                );
                return Ok(Step::Lost(Problem::line(progress.opened, message)));
            }
        }
    }

    fn end_of_input(&mut self, progress: Progress) -> Step {
        match (progress.state, progress.fault) {
            (State::Quoted, _) => {
                Step::Lost(Problem::line(progress.opened, "the quote that opens here is never closed"))
            }
            (_, Some(problem)) => Step::Bad(problem),
            (_, None) => {
                self.ends.push(self.raw.len());
                Step::Record
            }
        }
    }
}

/// What the splitter fills.
struct Buffers<'a> {
    line: &'a mut u64,
    raw: &'a mut Vec<u8>,
    ends: &'a mut Vec<usize>,
}

impl Progress {
    /// Takes bytes of `chunk`; returns how many, and the line end that closed the record, if one did.
    fn feed(&mut self, chunk: &[u8], to: &mut Buffers<'_>) -> (usize, Option<u8>) {
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            match self.state {
                State::Quoted => {
                    at += self.quoted(&chunk[at..], to);
                    if to.raw.len() > MAX_ROW_BYTES {
                        if self.state == State::Quoted {
                            break; // the caller gives up
                        }
                        self.fail_as_too_long(to);
                    }
                    continue;
                }
                _ if matches!(byte, b'\n' | b'\r') => {
                    if self.state != State::Skip {
                        to.ends.push(to.raw.len());
                    }
                    *to.line += 1;
                    return (at + 1, Some(byte));
                }
                State::Skip => {}
                _ if byte == b',' => {
                    to.ends.push(to.raw.len());
                    self.state = State::Start;
                }
                State::Start if byte == b'"' => self.open(to),
                State::Closed if byte == b'"' => {
                    to.raw.push(b'"');
                    self.state = State::Quoted;
                }
                State::Closed => {
                    self.fail(*to.line, "text follows a closing quote; double the quotes inside a field");
                }
                State::Start | State::Bare => {
                    at += self.bare(&chunk[at..], to);
                    continue;
                }
            }
            at += 1;
        }
        (at, None)
    }

    fn open(&mut self, to: &Buffers<'_>) {
        self.state = State::Quoted;
        self.opened = *to.line;
    }

    fn fail(&mut self, line: u64, message: impl Into<String>) {
        self.state = State::Skip;
        self.fault = Some(Problem::line(line, message));
    }

    /// Takes a run of an unquoted field.
    fn bare(&mut self, run: &[u8], to: &mut Buffers<'_>) -> usize {
        self.state = State::Bare;
        let end = run.iter().position(|byte| matches!(byte, b',' | b'\n' | b'\r')).unwrap_or(run.len());
        to.raw.extend_from_slice(&run[..end]);
        if to.raw.len() > MAX_ROW_BYTES {
            self.fail_as_too_long(to);
        }
        end
    }

    fn fail_as_too_long(&mut self, to: &Buffers<'_>) {
        self.fail(*to.line, format!("the row is longer than {MAX_ROW_BYTES} bytes"));
    }

    /// Takes a run of a quoted field up to and including the next quote.
    fn quoted(&mut self, run: &[u8], to: &mut Buffers<'_>) -> usize {
        let end = run.iter().position(|byte| *byte == b'"');
        let text = &run[..end.unwrap_or(run.len())];
        *to.line += line_breaks(text);
        to.raw.extend_from_slice(text);
        match end {
            Some(end) => {
                self.state = State::Closed;
                end + 1
            }
            None => run.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{Format, Input};
    use proptest::prelude::*;

    /// All well-formed rows, and the problems of the others.
    fn read(text: &[u8], buffer: usize) -> (Vec<(u64, Vec<String>)>, Problems) {
        /// Hands out a few bytes at a time, so that every token is cut somewhere.
        struct Drip<'a>(&'a [u8], usize);
        impl Read for Drip<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let length = self.0.len().min(self.1).min(into.len());
                into[..length].copy_from_slice(&self.0[..length]);
                self.0 = &self.0[length..];
                Ok(length)
            }
        }
        let mut problems = Problems::new("x.csv");
        let mut input = Input::new(Drip(text, buffer), Format::Csv, &mut problems).unwrap();
        let width = input.columns().unwrap().len();
        let mut rows = Vec::new();
        while input.advance(&mut problems).unwrap() {
            let Row::Csv { record, .. } = input.row() else { unreachable!() };
            rows.push((record.line(), (0..width).map(|it| record.field(it).to_owned()).collect()));
        }
        (rows, problems)
    }

    fn lines_and_messages(problems: &Problems) -> Vec<(Option<u64>, String)> {
        problems.first().iter().map(|it| (it.line, it.message.clone())).collect()
    }

    #[test]
    fn quotes_line_ends_and_blank_lines_are_read_with_exact_lines() {
        let text = b"a,b\r\n1,\"x, \"\"y\"\"\nz\"\r\n\r\n\n2,\n\"3\",5\" disk\r4,last";
        for buffer in [1, 2, 3, 64] {
            let (rows, problems) = read(text, buffer);
            assert!(problems.is_empty(), "{problems}");
            let row = |line, a: &str, b: &str| (line, vec![a.to_owned(), b.to_owned()]);
            let expected =
                [row(2, "1", "x, \"y\"\nz"), row(6, "2", ""), row(7, "3", "5\" disk"), row(8, "4", "last")];
            assert_eq!(rows, expected, "buffer of {buffer}");
        }
    }

    #[test]
    fn a_malformed_row_is_reported_and_the_next_one_read() {
        let (rows, problems) = read(b"a,b\n1,\"x\"y\n2,3\n4\n5,6,7\n8,9\n", 4);
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [3, 6]);
        let expected = [
            (Some(2), "text follows a closing quote; double the quotes inside a field".to_owned()),
            (Some(4), "has 1 field, the header has 2".to_owned()),
            (Some(5), "has 3 fields, the header has 2".to_owned()),
        ];
        assert_eq!(lines_and_messages(&problems), expected);
    }

    #[test]
    fn an_unclosed_quote_is_reported_where_it_opened() {
        let (rows, problems) = read(b"a,b\n1,2\n3,\"x\n5,6\n7,8\n", 5);
        assert_eq!(rows.len(), 1);
        assert_eq!(
            lines_and_messages(&problems),
            [(Some(3), "the quote that opens here is never closed".to_owned())]
        );
    }

    #[test]
    fn a_huge_field_is_refused_in_bounded_memory() {
        let huge = "x".repeat(10 << 20);
        let (rows, problems) = read(format!("a,b\n{huge},1\n2,3\n").as_bytes(), 1 << 14);
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [3], "the next row is read");
        let expected = (Some(2), "the row is longer than 1048576 bytes".to_owned());
        assert_eq!(lines_and_messages(&problems), [expected]);

        let (_, problems) = read(format!("a,b\n1,2\n3,\"{huge}").as_bytes(), 1 << 14);
        let expected =
            "the quoted field that opens here is longer than 1048576 bytes; is its closing quote missing?";
        assert_eq!(lines_and_messages(&problems), [(Some(3), expected.to_owned())]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named_with_line_and_field() {
        let (rows, problems) = read(b"a,b\n1,\"x\ncaf\xe9\"\n2,3\n", 3);
        assert_eq!(rows.len(), 1);
        let expected = (
            Some(3),
            "field 2: byte 0xe9 is not UTF-8; save the file as UTF-8 (spreadsheets offer \"CSV UTF-8\")",
        );
        assert_eq!(lines_and_messages(&problems), [(expected.0, expected.1.to_owned())]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_column() {
        let mut problems = Problems::new("x");
        let input = Input::new("\u{feff}user_id,b\n".as_bytes(), Format::Csv, &mut problems).unwrap();
        assert_eq!(input.columns(), Some(&["user_id".to_owned(), "b".to_owned()][..]));
    }

    proptest! {
        /// What the common CSV library writes, this reader reads back, however the bytes are cut.
        #[test]
        fn what_a_csv_library_writes_is_read_back(
            rows in prop::collection::vec(prop::collection::vec("[a,\"\n\r é]{0,6}", 2), 1..8),
            buffer in 1_usize..9,
        ) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["a", "b"]).unwrap();
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let (found, problems) = read(&writer.into_inner().unwrap(), buffer);
            prop_assert!(problems.is_empty(), "{}", problems);
            prop_assert_eq!(found.into_iter().map(|row| row.1).collect::<Vec<_>>(), rows);
        }

        /// Any text at all: rows that both readers accept agree, and ours never panics or hangs.
        #[test]
        fn on_text_without_faults_it_agrees_with_a_csv_library(text in "[a1,\"\n é]{0,40}") {
            let (found, problems) = read(text.as_bytes(), 7);
            let mut library = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
            let theirs: Vec<Vec<String>> = library
                .records()
                .map(|record| record.unwrap().iter().map(str::to_owned).collect())
                .collect();
            let header_only_fault = text.trim_matches('\n').is_empty();
            if problems.is_empty() && !header_only_fault {
                prop_assert_eq!(found.into_iter().map(|row| row.1).collect::<Vec<_>>(), theirs);
            }
        }
    }
}
