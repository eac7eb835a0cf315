//! Rows that wait for the others of their request.
//!
//! In the worst order of an input all of its rows wait at once, so a waiting row is its rendered item and a few bytes
//! beside it, and a group is one buffer, allocated once for the rows the survey counted. The value that must be unique
//! nearly always stands in the item, and then only its place is kept.

use std::collections::HashMap;

use super::values::shorten;

/// Bytes a group may reserve ahead. Larger groups grow as they are read.
const RESERVE: usize = 1 << 16;

/// The rows of one merged request so far.
#[derive(Default)]
pub(super) struct Group {
    rows: u32,
    /// Per row: line, length of the item, place of the unique value in it plus one (0: it stands apart, before the item),
    /// length of the unique value, the unique value if it stands apart, the item. Numbers are LEB128.
    text: Vec<u8>,
}

/// A row as it waits.
struct Waiting<'a> {
    line: u64,
    unique: &'a [u8],
    item: &'a [u8],
}

/// Some of a group's rows, as many as fit into a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Input lines, repeated rows included, ascending.
    pub(super) lines: Vec<u64>,
    /// The items, separated by commas.
    pub(super) items: Vec<u8>,
}

/// A row that repeats the unique value of an earlier one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) line: u64,
    pub(super) earlier: u64,
    /// The unique value.
    pub(super) unique: String,
    /// Both items, the earlier one first, if they differ.
    pub(super) conflict: Option<(String, String)>,
}

impl Group {
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    pub(super) fn first_line(&self) -> u64 {
        take_number(&mut self.text.as_slice())
    }

    /// Adds a row to a group of which `expected` rows are expected in all.
    pub(super) fn push(&mut self, line: u64, unique: &str, item: &[u8], expected: u32) {
        let unique = unique.as_bytes();
        let place = find(item, unique);
        if self.rows == 0 {
            // Rows of one group are alike; what is added allows for longer numbers in later ones.
            let row = item.len() + place.map_or(unique.len(), |_| 0) + 12;
            self.text.reserve_exact(row.saturating_mul(expected as usize).min(RESERVE.max(row)));
        }
        self.rows += 1;
        put_number(&mut self.text, line);
        put_number(&mut self.text, item.len() as u64);
        put_number(&mut self.text, place.map_or(0, |place| place as u64 + 1));
        put_number(&mut self.text, unique.len() as u64);
        if place.is_none() {
            self.text.extend_from_slice(unique);
        }
        self.text.extend_from_slice(item);
    }

    /// Splits the group into chunks of at most `max` items, dropping repeats where `unique` is set.
    pub(super) fn close(self, unique: bool, max: usize) -> (Vec<Chunk>, Vec<Repeat>) {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut repeats = Vec::new();
        // Unique value to (line, item, chunk) of the row that had it first.
        let mut seen: HashMap<&[u8], (u64, &[u8], usize)> = HashMap::new();
        let mut room = 0;
        let mut rest = self.text.as_slice();
        while !rest.is_empty() {
            let row = take_row(&mut rest);
            if unique && let Some(&(earlier, first, chunk)) = seen.get(row.unique) {
                let conflict = (first != row.item).then(|| (text(first), text(row.item)));
                if conflict.is_none() {
                    chunks[chunk].lines.push(row.line);
                }
                repeats.push(Repeat { line: row.line, earlier, unique: text(row.unique), conflict });
                continue;
            }
            if room == 0 {
                chunks.push(Chunk { lines: Vec::new(), items: Vec::new() });
                room = max;
            }
            room -= 1;
            let place = chunks.len() - 1;
            let chunk = &mut chunks[place];
            if !chunk.items.is_empty() {
                chunk.items.push(b',');
            }
            chunk.items.extend_from_slice(row.item);
            chunk.lines.push(row.line);
            if unique {
                seen.insert(row.unique, (row.line, row.item, place));
            }
        }
        (chunks, repeats)
    }
}

fn take_row<'a>(text: &mut &'a [u8]) -> Waiting<'a> {
    let line = take_number(text);
    let length = take_length(text);
    let place = take_length(text);
    let unique_length = take_length(text);
    let apart = take_bytes(text, if place == 0 { unique_length } else { 0 });
    let item = take_bytes(text, length);
    let unique = if place == 0 { apart } else { &item[place - 1..place - 1 + unique_length] };
    Waiting { line, unique, item }
}

fn take_bytes<'a>(text: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = text.split_at(length);
    *text = rest;
    taken
}

fn take_length(text: &mut &[u8]) -> usize {
    usize::try_from(take_number(text)).expect("it was the length of something in memory")
}

fn take_number(text: &mut &[u8]) -> u64 {
    let mut number = 0;
    let mut shift = 0;
    while let Some((&byte, rest)) = text.split_first() {
        *text = rest;
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

fn put_number(text: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        text.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    text.push(number.to_le_bytes()[0]);
}

/// Where `part` first stands in `whole`.
fn find(whole: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() {
        return Some(0);
    }
    whole.windows(part.len()).position(|window| window == part)
}

fn text(bytes: &[u8]) -> String {
    shorten(&String::from_utf8_lossy(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(rows: &[(u64, &str, &str)]) -> Group {
        let mut group = Group::default();
        for (line, unique, item) in rows {
            group.push(*line, unique, item.as_bytes(), 2);
        }
        group
    }

    #[test]
    fn rows_are_split_into_chunks_of_the_largest_size() {
        let rows = group(&[(2, "a", "1"), (3, "b", "2"), (9, "c", "3")]);
        let (chunks, repeats) = rows.close(true, 2);
        assert!(repeats.is_empty());
        let expected = [
            Chunk { lines: vec![2, 3], items: b"1,2".to_vec() },
            Chunk { lines: vec![9], items: b"3".to_vec() },
        ];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn equal_repeats_collapse_into_the_chunk_of_the_first_and_unequal_ones_are_conflicts() {
        let rows = group(&[(2, "a", "1"), (3, "b", "2"), (4, "a", "1"), (5, "b", "3")]);
        let (chunks, repeats) = rows.close(true, 1);
        assert_eq!(chunks[0], Chunk { lines: vec![2, 4], items: b"1".to_vec() });
        assert_eq!(chunks[1], Chunk { lines: vec![3], items: b"2".to_vec() });
        let conflict = Some(("2".to_owned(), "3".to_owned()));
        let expected = [
            Repeat { line: 4, earlier: 2, unique: "a".into(), conflict: None },
            Repeat { line: 5, earlier: 3, unique: "b".into(), conflict },
        ];
        assert_eq!(repeats, expected);
    }

    #[test]
    fn without_a_unique_column_every_row_is_an_item() {
        let (chunks, repeats) = group(&[(2, "", "1"), (3, "", "1")]).close(false, usize::MAX);
        assert_eq!((chunks.len(), repeats.len()), (1, 0));
        assert_eq!(chunks[0].items, b"1,1");
    }

    #[test]
    fn numbers_and_rows_survive_packing() {
        let mut packed = Vec::new();
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        for number in numbers {
            put_number(&mut packed, number);
        }
        let mut rest = packed.as_slice();
        assert_eq!(numbers.map(|_| take_number(&mut rest)), numbers);
        assert!(rest.is_empty());

        for (unique, item) in
            [("s1", r#"{"id":"s1"}"#), ("a\"b", r#"{"id":"a\\"b"}"#), ("", "1"), ("gone", "{}")]
        {
            let packed = group(&[(7, unique, item)]);
            assert_eq!(packed.first_line(), 7);
            let row = take_row(&mut packed.text.as_slice());
            assert_eq!((row.line, row.unique, row.item), (7, unique.as_bytes(), item.as_bytes()));
        }
    }
}
