//! A vector whose indices stay valid while others come and go.
//!
//! Items lie in boxes of their own, so that a place that is free costs a word: what a burst of callers made is given back
//! to the allocator when it is dropped, whatever its place.

/// Indices are reused only after removal.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<Box<T>>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, item: T) -> usize {
        let item = Some(Box::new(item));
        if let Some(index) = self.free.pop() {
            self.items[index as usize] = item;
            return index as usize;
        }
        self.items.push(item);
        self.items.len() - 1
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<T> {
        let item = self.items.get_mut(index)?.take()?;
        self.free.push(small(index));
        Some(*item)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.items.get(index)?.as_deref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_deref()?)))
    }

    /// The next `count` places after `hand`, round and round; the hand moves on. Some may be free.
    pub(super) fn pass(&self, hand: &mut usize, count: usize) -> impl Iterator<Item = (usize, &T)> {
        let places = self.items.len();
        let count = count.min(places);
        let from = if *hand < places { *hand } else { 0 };
        *hand = if places == 0 { 0 } else { (from + count) % places };
        (from..from + count).filter_map(move |step| {
            let index = step % places;
            Some((index, self.items[index].as_deref()?))
        })
    }
}

/// An index as tables hold it. More than four thousand million items do not fit into a process.
pub(super) fn small(index: usize) -> u32 {
    u32::try_from(index).expect("an index of an item in memory")
}

impl<T> std::ops::Index<usize> for Slab<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        self.items[index].as_ref().expect("an index is dropped by its holder before its item is removed")
    }
}

impl<T> std::ops::IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        self.items[index].as_mut().expect("an index is dropped by its holder before its item is removed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_reused_only_after_its_removal() {
        let mut slab = Slab::new();
        let (one, two) = (slab.insert("one"), slab.insert("two"));
        assert_eq!(slab.remove(one), Some("one"));
        assert_eq!((slab.remove(one), slab.len()), (None, 1));
        assert_eq!(slab.insert("three"), one);
        assert_eq!((slab[one], slab[two]), ("three", "two"));
    }

    #[test]
    fn the_hand_passes_every_place_in_turn() {
        let mut slab = Slab::new();
        for number in 0..5 {
            slab.insert(number);
        }
        slab.remove(1);
        let mut hand = 0;
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.extend(slab.pass(&mut hand, 2).map(|(_, &number)| number));
        }
        assert_eq!(seen, [0, 2, 3, 4, 0, 2, 3, 4]);
        assert_eq!(slab.pass(&mut hand, 100).count(), 4, "never the same place twice in one pass");
    }
}
