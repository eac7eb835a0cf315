//! CSV and NDJSON as one stream of rows.
//!
//! Files come out of spreadsheets and scripts, are a million rows long, and are wrong somewhere. So: rows are read one
//! at a time in bounded memory; every problem carries the line a text editor shows; a bad row is reported and skipped
//! so that the next ones are checked too; and the digest of exactly the bytes that were read comes out at the end.

mod csv;
mod ndjson;
mod row;

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use sha2::Digest as _;
use tidegate_store::Digest;

pub(crate) use self::row::{Cell, Row};
use crate::problem::{Problem, Problems};

/// Longest row. A request body above half of this could not be resent anyway, and the bound is what turns a missing
/// quote in a huge file into a message instead of a full memory.
pub const MAX_ROW_BYTES: usize = 1 << 20;

/// The bytes read from the file at once.
const BUFFER: usize = 1 << 16;

/// How rows are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values (RFC 4180) with a header row, in UTF-8.
    Csv,
    /// One JSON object per line, in UTF-8.
    Ndjson,
}

impl Format {
    /// The format that a file's name promises: `.ndjson`, `.jsonl` and `.json` are NDJSON, all others CSV.
    pub fn of(path: &Path) -> Self {
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default().to_ascii_lowercase();
        if matches!(extension.as_str(), "ndjson" | "jsonl" | "json") { Self::Ndjson } else { Self::Csv }
    }
}

/// A file being read row by row.
pub(crate) struct Input<R> {
    rows: Rows<R>,
}

enum Rows<R> {
    Csv(csv::CsvRows<R>),
    Ndjson(ndjson::NdjsonRows<R>),
}

impl<R: Read> Input<R> {
    /// Starts reading; of CSV the header is read here and its own problems are reported.
    pub(crate) fn new(reader: R, format: Format, problems: &mut Problems) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(BUFFER, Hashing::new(reader));
        let mut first = source.fill_buf()?;
        if first.starts_with(&[0xff, 0xfe]) || first.starts_with(&[0xfe, 0xff]) {
            problems.push(Problem::file("is written in UTF-16; save it as UTF-8"));
            first = &[];
        }
        // Spreadsheets put a byte order mark before UTF-8; it is no part of the first column's name.
        let mark = if first.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        source.consume(mark);
        let rows = match format {
            Format::Csv => Rows::Csv(csv::CsvRows::new(source, problems)?),
            Format::Ndjson => Rows::Ndjson(ndjson::NdjsonRows::new(source)),
        };
        Ok(Self { rows })
    }

    /// The columns a header declares; `None` where every row names its own.
    pub(crate) fn columns(&self) -> Option<&[String]> {
        match &self.rows {
            Rows::Csv(rows) => Some(rows.columns()),
            Rows::Ndjson(_) => None,
        }
    }

    /// Moves to the next good row; bad ones are reported and skipped. `false` at the end.
    pub(crate) fn advance(&mut self, problems: &mut Problems) -> io::Result<bool> {
        match &mut self.rows {
            Rows::Csv(rows) => rows.advance(problems),
            Rows::Ndjson(rows) => rows.advance(problems),
        }
    }

    /// The row moved to.
    pub(crate) fn row(&self) -> Row<'_> {
        match &self.rows {
            Rows::Csv(rows) => rows.row(),
            Rows::Ndjson(rows) => rows.row(),
        }
    }

    /// Digest of the whole file, whatever of it has been read so far.
    pub(crate) fn into_digest(self) -> io::Result<Digest> {
        let mut source = match self.rows {
            Rows::Csv(rows) => rows.into_source(),
            Rows::Ndjson(rows) => rows.into_source(),
        };
        io::copy(&mut source, &mut io::sink())?;
        Ok(source.into_inner().digest())
    }
}

/// The reader both formats read from.
type Source<R> = BufReader<Hashing<R>>;

/// Digests what passes through.
struct Hashing<R> {
    reader: R,
    hasher: sha2::Sha256,
}

impl<R> Hashing<R> {
    fn new(reader: R) -> Self {
        Self { reader, hasher: sha2::Sha256::new() }
    }

    fn digest(self) -> Digest {
        Digest(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// What to say about bytes that are not UTF-8.
fn not_utf8(bytes: &[u8], valid_up_to: usize) -> String {
    let byte = bytes.get(valid_up_to).copied().unwrap_or_default();
    format!("byte 0x{byte:02x} is not UTF-8; save the file as UTF-8 (spreadsheets offer \"CSV UTF-8\")")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_promise_formats() {
        for (name, format) in [
            ("a.csv", Format::Csv),
            ("a.NDJSON", Format::Ndjson),
            ("a.jsonl", Format::Ndjson),
            ("a", Format::Csv),
        ] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn the_digest_is_of_the_whole_file_however_much_was_parsed() {
        let text = "\u{feff}a,b\n1,2\n3,4\n";
        let expected: [u8; 32] = sha2::Sha256::digest(text).into();
        for rows in 0..3 {
            let mut problems = Problems::new("x");
            let mut input = Input::new(text.as_bytes(), Format::Csv, &mut problems).unwrap();
            (0..rows).for_each(|_| assert!(input.advance(&mut problems).unwrap()));
            assert_eq!(input.into_digest().unwrap(), Digest(expected));
        }
    }
}
