//! Reading TOML so that every problem of a file is reported at once, with its line.
//!
//! Deriving a deserialiser stops at the first mistake; a person with five mistakes then needs five tries. Here the text
//! is parsed into a table that remembers places, and typed getters take values out of it: a getter that finds nothing
//! usable records the problem and gives `None`, and reading goes on. A [`Section`] notes which keys were asked for; when
//! it is dropped, the keys nobody asked for are reported as unknown, with the nearest known one. So unknown keys need no
//! list of their own, and a getter cannot be forgotten without a test noticing.
//!
//! The getters return `Option`; the value built from their defaults is thrown away if there was any problem.
//!
//! ```
//! use std::time::Duration;
//! use tidegate_core::profile::reader::read;
//!
//! let text = "listen = 8787\nmax_wiat = \"14s\"\n";
//! let problems = read(text, "tidegate.toml", |file| {
//!     let listen = file.string("listen").unwrap_or_default();
//!     let max_wait = file.duration("max_wait").unwrap_or(Duration::from_secs(14));
//!     (listen, max_wait)
//! })
//! .unwrap_err();
//! assert_eq!(
//!     problems.to_string(),
//!     "tidegate.toml:1: listen: is of type integer (write a string)\n\
//!      tidegate.toml:2: max_wiat: is not a known key (did you mean `max_wait`?)",
//! );
//! ```

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::near::nearest;
pub use super::problem::{Problem, Problems};
use super::span::parse_duration;

/// Parses `source` and builds a value from its top level. `file` is the name in messages.
///
/// Fails with every problem found: of the syntax, and where that is sound, those the getters and `build` recorded.
pub fn read<T>(source: &str, file: &str, build: impl FnOnce(&Section<'_>) -> T) -> Result<T, Problems> {
    let notes = Notes::new(source);
    let (table, errors) = DeTable::parse_recoverable(source);
    for error in &errors {
        // The parser's messages have several lines; the first says what is wrong.
        let what = error.message().lines().next().unwrap_or_default();
        notes.add(error.span().map_or(0, |span| span.start), String::new(), what.to_owned());
    }
    let whole = errors.is_empty().then(|| {
        let root = Section::new(&notes, String::new(), 0, table.get_ref());
        build(&root)
    });
    let mut list = notes.problems.into_inner();
    list.sort();
    match whole {
        Some(whole) if list.is_empty() => Ok(whole),
        _ => Err(Problems { file: file.to_owned(), list }),
    }
}

/// The problems found so far, and what is needed to tell their lines.
struct Notes {
    /// Where each line begins.
    lines: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
}

impl Notes {
    fn new(source: &str) -> Self {
        let ends = source.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { lines: std::iter::once(0).chain(ends).collect(), problems: RefCell::default() }
    }

    fn add(&self, at: usize, key: String, what: String) {
        let line = self.lines.partition_point(|begin| *begin <= at);
        self.problems.borrow_mut().push(Problem { line, key, what });
    }
}

/// One table of the file.
pub struct Section<'a> {
    notes: &'a Notes,
    /// The full key of the table, empty for the top level.
    path: String,
    /// Where the table begins.
    at: usize,
    table: &'a DeTable<'a>,
    asked: RefCell<BTreeSet<String>>,
    refused: RefCell<BTreeSet<String>>,
}

type Value<'a> = &'a Spanned<DeValue<'a>>;

impl<'a> Section<'a> {
    fn new(notes: &'a Notes, path: String, at: usize, table: &'a DeTable<'a>) -> Self {
        Self { notes, path, at, table, asked: RefCell::default(), refused: RefCell::default() }
    }

    /// Whether the key is present.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Records a problem if the key is present, which must not be: it is no key of this table, and not told as one.
    pub fn refuse(&self, key: &str, what: impl fmt::Display) {
        if self.table.contains_key(key) {
            self.refused.borrow_mut().insert(key.to_owned());
            self.problem(key, what);
        }
    }

    /// Records a problem of a key of this table, on the line of the key, or of the table if the key is absent. `what`
    /// says what is wrong, and in parentheses what to do.
    pub fn problem(&self, key: &str, what: impl fmt::Display) {
        let at = self.table.get_key_value(key).map_or(self.at, |(key, _)| key.span().start);
        self.notes.add(at, self.full(key), what.to_string());
    }

    /// Records that `key` is missing, unless it is present (and then has a problem of its own). `example` is what to
    /// write.
    pub fn required<T>(&self, key: &str, example: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.has(key) {
            self.problem(key, format_args!("is missing (write {example})"));
        }
        value
    }

    /// A string.
    pub fn string(&self, key: &str) -> Option<String> {
        self.text(key).map(|(_, text)| text.to_owned())
    }

    /// A string that `parse` understands; its error says what is wrong and in parentheses what to do.
    pub fn parsed<T, E: fmt::Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (at, text) = self.text(key)?;
        parse(text).map_err(|what| self.notes.add(at, self.full(key), what.to_string())).ok()
    }

    /// One of several words.
    pub fn one_of<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.parsed(key, |text| choose(text, words))
    }

    /// A boolean.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.boolean_or(key, "true or false")
    }

    /// A boolean where something else is allowed too: `expected` names all of it.
    pub fn boolean_or(&self, key: &str, expected: &str) -> Option<bool> {
        let value = self.find(key)?;
        let read = value.get_ref().as_bool();
        read.or_else(|| self.wrong_type(key, value, expected))
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &str, range: &RangeInclusive<u64>) -> Option<u64> {
        self.number(key, self.find(key)?, range)
    }

    /// A duration such as `"250ms"`, `"5s"`, `"1.5s"`, `"1m"`, `"24h"` or `"7d"`; zero is allowed.
    pub fn duration(&self, key: &str) -> Option<Duration> {
        self.parsed(key, parse_duration)
    }

    /// A duration above zero.
    pub fn duration_above_zero(&self, key: &str) -> Option<Duration> {
        self.parsed(key, |text| match parse_duration(text)? {
            Duration::ZERO => Err("is zero (write a duration above zero, such as \"5s\")".to_owned()),
            duration => Ok(duration),
        })
    }

    /// A string or an array of strings, each of which `parse` understands. A value given twice is a problem.
    pub fn each<T: PartialEq, E: fmt::Display>(
        &self,
        key: &str,
        mut parse: impl FnMut(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        self.elements(key, |value| {
            let Some(text) = value.get_ref().as_str() else {
                return self.wrong_type(key, value, "strings");
            };
            parse(text)
                .map_err(|what| self.notes.add(value.span().start, self.full(key), what.to_string()))
                .ok()
        })
    }

    /// A number or an array of numbers within `range`. A number given twice is a problem.
    pub fn integers(&self, key: &str, range: &RangeInclusive<u64>) -> Option<Vec<u64>> {
        self.elements(key, |value| self.number(key, value, range))
    }

    /// Whether the key holds a table, for keys that may be a word or a table.
    pub fn is_section(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// Whether the key holds a string, for keys that may be a word or something else.
    pub fn is_string(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_str())
    }

    /// A table.
    pub fn section(&self, key: &str) -> Option<Section<'a>> {
        let value = self.find(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Section::new(self.notes, self.full(key), value.span().start, table)),
            None => self.wrong_type(key, value, "a table"),
        }
    }

    /// An array of tables (`[[key]]`); none if the key is absent.
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            let _: Option<()> = self.wrong_type(key, value, "an array of tables");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, value) in array.iter().enumerate() {
            let path = format!("{}[{index}]", self.full(key));
            match value.get_ref().as_table() {
                Some(table) => sections.push(Section::new(self.notes, path, value.span().start, table)),
                None => self.notes.add(value.span().start, path, "is no table (write [[…]])".to_owned()),
            }
        }
        sections
    }

    /// The keys of a table whose keys are names and not words of the format. They count as asked for.
    pub fn keys(&self) -> Vec<String> {
        let keys: Vec<String> = self.table.keys().map(|key| key.get_ref().to_string()).collect();
        self.asked.borrow_mut().extend(keys.iter().cloned());
        keys
    }

    fn find(&self, key: &str) -> Option<Value<'a>> {
        if !self.asked.borrow().contains(key) {
            self.asked.borrow_mut().insert(key.to_owned());
        }
        self.table.get(key)
    }

    fn text(&self, key: &str) -> Option<(usize, &'a str)> {
        let value = self.find(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some((value.span().start, text)),
            None => self.wrong_type(key, value, "a string"),
        }
    }

    fn number(&self, key: &str, value: Value<'a>, range: &RangeInclusive<u64>) -> Option<u64> {
        let Some(integer) = value.get_ref().as_integer() else {
            return self.wrong_type(key, value, "a whole number");
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number =
            number.and_then(|number| u64::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            let bounds = match *range.end() {
                u64::MAX => format!("at least {}", range.start()),
                end => format!("from {} to {end}", range.start()),
            };
            let what = format!("{} is out of range (write a number {bounds})", integer.as_str());
            self.notes.add(value.span().start, self.full(key), what);
        }
        number
    }

    /// Reads one value or an array of them. A bad element is a problem and left out; nothing is left where all are bad.
    fn elements<T: PartialEq>(
        &self,
        key: &str,
        mut read: impl FnMut(Value<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.find(key)?;
        let values: Vec<Value<'a>> = match value.get_ref().as_array() {
            Some(array) => array.iter().collect(),
            None => vec![value],
        };
        let mut all = Vec::with_capacity(values.len());
        for &value in &values {
            match read(value) {
                Some(read) if all.contains(&read) => {
                    self.notes.add(
                        value.span().start,
                        self.full(key),
                        "is given twice (remove one)".to_owned(),
                    );
                }
                Some(read) => all.push(read),
                None => {}
            }
        }
        (!all.is_empty() || values.is_empty()).then_some(all)
    }

    fn wrong_type<T>(&self, key: &str, value: Value<'a>, expected: &str) -> Option<T> {
        let what = format!("is of type {} (write {expected})", value.get_ref().type_str());
        self.notes.add(value.span().start, self.full(key), what);
        None
    }

    fn full(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }
}

/// Reports the keys nobody asked for.
impl Drop for Section<'_> {
    fn drop(&mut self) {
        let (asked, refused) = (self.asked.borrow(), self.refused.borrow());
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if asked.contains(name) || refused.contains(name) {
                continue;
            }
            let advice = match nearest(name, asked.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known are {}", listed(asked.iter().map(String::as_str))),
            };
            self.notes.add(key.span().start, self.full(name), format!("is not a known key ({advice})"));
        }
    }
}

/// The value of the word `text`, or what is wrong with it.
pub fn choose<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known = words.iter().map(|(word, _)| *word);
    Err(match nearest(text, known.clone()) {
        Some(near) => format!("`{text}` is not known (did you mean `{near}`?)"),
        None => format!("`{text}` is not known (write one of {})", listed(known)),
    })
}

fn listed<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, build: impl FnOnce(&Section<'_>)) -> Vec<String> {
        read(text, "f", |section| build(section)).map_or_else(
            |problems| problems.to_string().lines().map(str::to_owned).collect(),
            |()| Vec::new(),
        )
    }

    #[test]
    fn values_of_every_type_are_read() {
        let text =
            "s = 'x'\nb = true\ni = 0x10\nd = '1.5s'\none = 'a'\nmany = ['a', 'b']\nn = [1, 2]\nw = 'full'\n";
        let read = read(text, "f", |file| {
            assert_eq!(file.string("s").as_deref(), Some("x"));
            assert_eq!(file.boolean("b"), Some(true));
            assert_eq!(file.integer("i", &(0..=16)), Some(16));
            assert_eq!(file.duration("d"), Some(Duration::from_millis(1_500)));
            let word = |text: &str| Ok::<_, String>(text.to_owned());
            assert_eq!(file.each("one", word), Some(vec!["a".to_owned()]));
            assert_eq!(file.each("many", word), Some(vec!["a".to_owned(), "b".to_owned()]));
            assert_eq!(file.integers("n", &(1..=2)), Some(vec![1, 2]));
            assert_eq!(file.one_of("w", &[("none", 0), ("full", 1)]), Some(1));
            assert_eq!((file.string("absent"), file.sections("absent").len()), (None, 0));
        });
        assert_eq!(read, Ok(()));
    }

    #[test]
    fn all_problems_come_at_once_in_the_order_of_lines() {
        let text =
            "s = 1\nd = '5 parsecs'\n[t]\ni = 99\ntwice = [1, 1]\n[[l]]\nw = 'ful'\n[[l]]\nzero = '0s'\n";
        let found = problems(text, |file| {
            file.string("s");
            file.duration("d");
            file.required("name", "name = \"x\"", file.string("name"));
            let table = file.section("t").unwrap();
            table.integer("i", &(1..=9));
            table.integers("twice", &(0..=9));
            for item in file.sections("l") {
                item.one_of("w", &[("full", 1), ("none", 2)]);
                item.duration_above_zero("zero");
            }
        });
        let expected = [
            "f:1: name: is missing (write name = \"x\")",
            "f:1: s: is of type integer (write a string)",
            "f:2: d: `5 parsecs` is no duration (write a number and ms, s, m, h or d, such as \"5s\")",
            "f:4: t.i: 99 is out of range (write a number from 1 to 9)",
            "f:5: t.twice: is given twice (remove one)",
            "f:7: l[0].w: `ful` is not known (did you mean `full`?)",
            "f:9: l[1].zero: is zero (write a duration above zero, such as \"5s\")",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn keys_nobody_asked_for_are_reported_with_the_nearest_known_one() {
        let found = problems("qouta = 1\nother = 2\n[deep]\nx = 1\n", |file| {
            file.integer("quota", &(0..=9));
            file.section("deep");
        });
        let expected = [
            "f:1: qouta: is not a known key (did you mean `quota`?)",
            "f:2: other: is not a known key (known are `deep`, `quota`)",
            "f:4: deep.x: is not a known key (known are )",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_key_that_must_not_be_there_is_refused_and_never_recommended() {
        let found = problems("secret = 1\nsecrets = 2\n", |file| {
            file.integer("quota", &(0..=9));
            file.refuse("secret", "has no place here (leave it out)");
            file.refuse("absent", "is not told");
        });
        let expected = [
            "f:1: secret: has no place here (leave it out)",
            "f:2: secrets: is not a known key (known are `quota`)",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_list_of_nothing_but_mistakes_is_not_taken_for_an_empty_one() {
        let text = "one = 'tok'\nsome = ['a', 'tok']\nnone = []\n";
        let found = problems(text, |file| {
            let read = |key| file.each(key, |text| choose(text, &[("a", 1)]));
            assert_eq!((read("one"), read("some"), read("none")), (None, Some(vec![1]), Some(Vec::new())));
        });
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn broken_syntax_is_reported_alone_with_every_error() {
        let found = problems("a = \nb = 1\nb = 2\n", |_| unreachable!("nothing is built from broken text"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("f:1: ") && found[1].starts_with("f:3: "), "{found:?}");
    }

    #[test]
    fn tables_and_scalars_are_not_mistaken_for_each_other() {
        let found = problems("t = 1\nl = 'x'\nm = [1]\n", |file| {
            file.section("t");
            file.sections("l");
            file.sections("m");
            assert!(!file.is_section("t"));
        });
        let expected = [
            "f:1: t: is of type integer (write a table)",
            "f:2: l: is of type string (write an array of tables)",
            "f:3: m[0]: is no table (write [[…]])",
        ];
        assert_eq!(found, expected);
    }
}
