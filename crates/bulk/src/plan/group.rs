//! Rows that wait for the others of their request.
//!
//! A million rows may wait at once in the worst order of an input, so a waiting row is its rendered item in one shared
//! buffer and sixteen bytes of bookkeeping.

use std::collections::HashMap;

use super::values::shorten;

/// The rows of one merged request so far.
pub(super) struct Group {
    rows: Vec<RowMark>,
    /// Per row: what must be unique, then the item.
    text: Vec<u8>,
}

struct RowMark {
    line: u64,
    unique: u32,
    item: u32,
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
    pub(super) fn new() -> Self {
        Self { rows: Vec::new(), text: Vec::new() }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn first_line(&self) -> u64 {
        self.rows.first().map_or(0, |row| row.line)
    }

    /// Adds a row. Its values come from a row of bounded size, so their lengths fit.
    pub(super) fn push(&mut self, line: u64, unique: &str, item: &[u8]) {
        let length = |length: usize| u32::try_from(length).expect("a row is bounded well below 4 GB");
        self.rows.push(RowMark { line, unique: length(unique.len()), item: length(item.len()) });
        self.text.extend_from_slice(unique.as_bytes());
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
        for row in &self.rows {
            let (key, after) = rest.split_at(row.unique as usize);
            let (item, after) = after.split_at(row.item as usize);
            rest = after;
            if unique && let Some(&(earlier, first, chunk)) = seen.get(key) {
                let conflict = (first != item).then(|| (text(first), text(item)));
                if conflict.is_none() {
                    chunks[chunk].lines.push(row.line);
                }
                repeats.push(Repeat { line: row.line, earlier, unique: text(key), conflict });
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
            chunk.items.extend_from_slice(item);
            chunk.lines.push(row.line);
            seen.insert(key, (row.line, item, place));
        }
        (chunks, repeats)
    }
}

fn text(bytes: &[u8]) -> String {
    shorten(&String::from_utf8_lossy(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(rows: &[(u64, &str, &str)]) -> Group {
        let mut group = Group::new();
        for (line, unique, item) in rows {
            group.push(*line, unique, item.as_bytes());
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
}
