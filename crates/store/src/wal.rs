//! Walks a write-ahead log as SQLite will read it, without SQLite: is what ends it a torn tail, or damage in its middle?
//!
//! SQLite takes the first frame whose checksum is wrong for the end of the log and forgets what lies behind it. That is
//! right for a commit that was being written when the power went, and silently loses acknowledged commits where a byte
//! in the middle has changed. The two can be told apart: each frame's checksum goes on from the one before it, so a frame
//! behind a damaged one still fits the checksum that the damaged one carries.
//!
//! Format: <https://sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::lock::beside;

/// Bytes of the log's header.
const HEADER: usize = 32;
/// Bytes of a frame before its page.
const FRAME: usize = 24;

/// What a log looks like from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// It has a frame. SQLite makes an empty log when it only looks, so the file alone says nothing.
    pub(crate) exists: bool,
    /// Whole commits behind the place at which SQLite would end the log. A commit that was being written when the power
    /// went can leave one; more are damage.
    pub(crate) stranded: u32,
}

/// The running checksum of a log: two sums over pairs of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    one: u32,
    two: u32,
    big_endian: bool,
}

impl Sum {
    fn add(mut self, bytes: &[u8]) -> Self {
        let word = |at: &[u8]| {
            let word = [at[0], at[1], at[2], at[3]];
            if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        };
        let (mut one, mut two) = (self.one, self.two);
        for pair in bytes.chunks_exact(8) {
            one = one.wrapping_add(word(pair)).wrapping_add(two);
            two = two.wrapping_add(word(&pair[4..])).wrapping_add(one);
        }
        (self.one, self.two) = (one, two);
        self
    }

    /// The sum as `bytes` have it stored.
    fn stored(self, bytes: &[u8]) -> Self {
        Self { one: number(bytes, 0), two: number(bytes, 4), ..self }
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Looks through the log of `database`. Nothing is changed; memory is one page, whatever the size of the log.
pub(crate) fn walk(database: &Path) -> io::Result<Log> {
    let mut file = match File::open(beside(database, "-wal")) {
        Ok(file) => BufReader::with_capacity(1 << 16, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Log::default()),
        Err(error) => return Err(error),
    };
    let mut log = Log::default();
    let mut header = [0; HEADER];
    if !fill(&mut file, &mut header)? {
        return Ok(log);
    }
    let magic = number(&header, 0);
    let start = Sum { one: 0, two: 0, big_endian: magic & 1 == 1 };
    let mut sum = start.add(&header[..24]);
    // A header that does not hold is synced before the first frame: with frames behind it, it was damaged.
    let mut holds = magic & !1 == 0x377f_0682 && sum == sum.stored(&header[24..]);
    sum = sum.stored(&header[24..]);
    let page = match number(&header, 8) {
        size @ 512..=65_536 if size.is_power_of_two() => size as usize,
        _ => crate::format::PAGE,
    };
    let mut salts = header[16..24].to_vec();
    let mut frame = vec![0; FRAME + page];
    let mut first = true;
    while fill(&mut file, &mut frame)? {
        log.exists = true;
        let (head, body) = frame.split_at(FRAME);
        if first && !holds {
            salts = head[8..16].to_vec();
        }
        let next = sum.add(&head[..8]).add(body);
        sum = sum.stored(&head[16..]);
        let fits = next == sum && head[8..16] == *salts && number(head, 0) != 0;
        let commit = number(head, 4) != 0;
        holds &= fits;
        if !holds && fits && commit {
            log.stranded = log.stranded.saturating_add(1);
        }
        first = false;
    }
    Ok(log)
}

/// Fills `buffer`; false if the file ends before.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A database with a log of `commits` commits that nobody has folded into it.
    fn logged(folder: &Path, commits: u32) -> PathBuf {
        let path = folder.join("a.db");
        let writer = rusqlite::Connection::open(&path).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a);").unwrap();
        for number in 1..commits {
            writer.execute("INSERT INTO t VALUES (?1)", [number]).unwrap();
        }
        let copy = folder.join("copy.db");
        fs::copy(&path, &copy).unwrap();
        fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
        copy
    }

    fn change(database: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Log {
        let mut bytes = fs::read(beside(database, "-wal")).unwrap();
        change(&mut bytes);
        fs::write(beside(database, "-wal"), bytes).unwrap();
        walk(database).unwrap()
    }

    #[test]
    fn a_log_as_sqlite_wrote_it_holds_and_so_does_one_that_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = logged(folder.path(), 6);
        let whole = Log { exists: true, stranded: 0 };
        assert_eq!(walk(&path).unwrap(), whole);
        let length = fs::read(beside(&path, "-wal")).unwrap().len();
        for keep in (0..length).rev().step_by(701) {
            let exists = keep >= HEADER + FRAME + 4096;
            let cut = change(&path, |bytes| bytes.truncate(keep));
            assert_eq!(cut, Log { exists, stranded: 0 }, "{keep}");
        }
        fs::remove_file(beside(&path, "-wal")).unwrap();
        assert_eq!(walk(&path).unwrap(), Log { exists: false, stranded: 0 });
    }

    #[test]
    fn commits_behind_a_damaged_frame_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = logged(folder.path(), 6);
        let frame = FRAME + 4096;
        // The first commit has two frames (the table, and the schema), the others one.
        let damage = |bytes: &mut Vec<u8>, at: usize| bytes[HEADER + at * frame + FRAME + 9] ^= 4;
        assert_eq!(change(&path, |bytes| damage(bytes, 3)).stranded, 3);
        assert_eq!(change(&path, |bytes| damage(bytes, 3)).stranded, 0);
        assert_eq!(change(&path, |bytes| damage(bytes, 6)).stranded, 0, "the last one may be a torn tail");
        change(&path, |bytes| damage(bytes, 6));
        assert_eq!(change(&path, |bytes| bytes[17] ^= 1).stranded, 6, "without its header no frame counts");
    }
}
