//! In which order writes left, path by path.
//!
//! A PATCH may be adopted only while nothing else was written to its entity after it: else who sends it again means to
//! undo what came later, and is told of an effect that is gone. What counts is when a write *left*, not when it came or
//! was found: of two that wait for quota the later may leave first, and one that leaves while the other's caller still
//! waits has overtaken it all the same. Another spelling of a path, or another query, is the same entity.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tidegate_core::key::normalise;

use super::flight::Print;

/// Paths remembered: those of PATCHes that could be adopted. A PATCH whose path was forgotten is not adopted.
const MAX_PATHS: usize = 65_536;

/// The order of what left.
#[derive(Debug, Default)]
pub(super) struct Order(Mutex<Left>);

#[derive(Debug, Default)]
struct Left {
    /// Writes that have left.
    count: u64,
    paths: HashMap<String, Last>,
}

/// What was last sent to a path.
#[derive(Debug)]
struct Last {
    /// What it was; `None` of what cannot be adopted.
    print: Option<Print>,
    /// Since this number everything that left was the same.
    since: u64,
    number: u64,
}

impl Order {
    /// A write leaves; its number.
    fn leaves(&self, path: &str, print: Option<Print>) -> u64 {
        let mut left = self.0.lock();
        left.count += 1;
        let number = left.count;
        if let Some(last) = left.paths.get_mut(path) {
            if print.is_none() || last.print != print {
                (last.print, last.since) = (print, number);
            }
            last.number = number;
        } else if print.is_some() {
            left.make_room();
            left.paths.insert(path.to_owned(), Last { print, since: number, number });
        }
        number
    }

    /// Whether nothing but its equals has left since the write with this number did.
    fn is_last(&self, path: &str, print: Print, number: u64) -> bool {
        let left = self.0.lock();
        left.paths.get(path).is_some_and(|last| last.print == Some(print) && number >= last.since)
    }
}

impl Left {
    /// Forgets the older half of the paths where there are too many.
    fn make_room(&mut self) {
        if self.paths.len() < MAX_PATHS {
            return;
        }
        let mut numbers: Vec<u64> = self.paths.values().map(|last| last.number).collect();
        let (_, middle, _) = numbers.select_nth_unstable(MAX_PATHS / 2);
        let middle = *middle;
        self.paths.retain(|_, last| last.number >= middle);
    }
}

/// One write's place in the order.
#[derive(Debug)]
pub(super) struct Turn {
    order: Arc<Order>,
    path: String,
    /// What it is, where it may be adopted only while it is the last write to its path.
    print: Option<Print>,
    /// Its first attempt's number.
    first: OnceLock<u64>,
}

impl Turn {
    /// The turn of a write to `path`, in any of its spellings.
    pub(super) fn new(order: &Arc<Order>, path: &str, print: Option<Print>) -> Self {
        let normal = normalise(path);
        let path = normal.as_deref().unwrap_or(path).trim_end_matches('/').to_owned();
        Self { order: Arc::clone(order), path, print, first: OnceLock::new() }
    }

    /// An attempt leaves.
    pub(super) fn leaves(&self) {
        let number = self.order.leaves(&self.path, self.print);
        self.first.get_or_init(|| number);
    }

    /// Whether it may be adopted: it is the last write to its path, or that is of no account.
    pub(super) fn is_last(&self) -> bool {
        let Some(print) = self.print else { return true };
        self.first.get().is_some_and(|first| self.order.is_last(&self.path, print, *first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: Print = [1; 32];
    const OTHER: Print = [2; 32];

    fn left(order: &Arc<Order>, path: &str, print: Option<Print>) -> Turn {
        let turn = Turn::new(order, path, print);
        turn.leaves();
        turn
    }

    #[test]
    fn what_leaves_later_overtakes_whoever_came_first() {
        let order = Arc::default();
        let waiting = Turn::new(&order, "/users/7", Some(OTHER));
        let first = left(&order, "/users/7", Some(PRINT));
        assert!(first.is_last());
        waiting.leaves();
        assert!(!first.is_last() && waiting.is_last());
        // A further attempt of the first overtakes in its turn; what was in between stays in between.
        first.leaves();
        assert!(!first.is_last() && !waiting.is_last());
    }

    #[test]
    fn every_spelling_of_a_path_is_one_entity_and_every_write_counts() {
        for (path, is_last) in
            [("/users/7/", false), ("/%75sers/7", false), ("/users/8", true), ("/users/7/skills", true)]
        {
            let order = Arc::default();
            let first = left(&order, "/users/7", Some(PRINT));
            left(&order, path, None);
            assert_eq!(first.is_last(), is_last, "{path}");
        }
    }

    #[test]
    fn equal_writes_do_not_overtake_each_other() {
        let order = Arc::default();
        let [first, second] = [(); 2].map(|()| left(&order, "/users/7", Some(PRINT)));
        assert!(first.is_last() && second.is_last());
        left(&order, "/users/7", None);
        let third = left(&order, "/users/7", Some(PRINT));
        assert_eq!([first, second, third].map(|turn| turn.is_last()), [false, false, true]);
    }

    #[test]
    fn what_is_forgotten_is_not_the_last() {
        let order = Arc::default();
        let first = left(&order, "/users/7", Some(PRINT));
        let other = left(&order, "/roles/7", None);
        for number in 0..MAX_PATHS {
            left(&order, &format!("/users/x{number}"), Some(PRINT));
        }
        assert!(!first.is_last());
        assert!(other.is_last(), "what may be adopted in any case needs no memory");
        assert!(order.0.lock().paths.len() <= MAX_PATHS);
    }
}
