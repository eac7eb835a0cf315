//! A vector whose indices stay valid while others come and go.
//!
//! Items lie side by side in blocks, so that one is found without a detour. The memory of a block goes back to the
//! allocator when its last item is removed: what a burst of callers made is not held for ever. One empty block is kept, so
//! that a caller who comes and goes at the edge of one costs nothing.

/// Items of a block. Of whatever is held here so many are large enough that an allocator takes their memory from the system,
/// and gives it back there.
const BLOCK: usize = 512;

/// Indices are reused only after removal.
#[derive(Debug)]
pub(super) struct Slab<T> {
    blocks: Vec<Block<T>>,
    /// Indices ever given.
    places: usize,
    free: Vec<u32>,
    /// The block that was emptied last.
    empty: usize,
}

#[derive(Debug)]
struct Block<T> {
    /// As far as it was used; places beyond are free.
    items: Vec<Option<T>>,
    held: usize,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { blocks: Vec::new(), places: 0, free: Vec::new(), empty: 0 }
    }

    pub(super) fn insert(&mut self, item: T) -> usize {
        let index = self.free.pop().map_or(self.places, |index| index as usize);
        self.places = self.places.max(index + 1);
        let (number, offset) = (index / BLOCK, index % BLOCK);
        if self.blocks.len() <= number {
            self.blocks.push(Block { items: Vec::new(), held: 0 });
        }
        let block = &mut self.blocks[number];
        if number > 0 && block.items.capacity() == 0 {
            block.items.reserve_exact(BLOCK);
        }
        if block.items.len() <= offset {
            block.items.resize_with(offset + 1, || None);
        }
        block.items[offset] = Some(item);
        block.held += 1;
        index
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<T> {
        let number = index / BLOCK;
        let block = self.blocks.get_mut(number)?;
        let item = block.items.get_mut(index % BLOCK)?.take()?;
        block.held -= 1;
        self.free.push(small(index));
        if block.held == 0 {
            let before = std::mem::replace(&mut self.empty, number);
            let block = &mut self.blocks[before];
            if before != number && block.held == 0 {
                block.items = Vec::new();
            }
        }
        Some(item)
    }

    pub(super) fn len(&self) -> usize {
        self.places - self.free.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.blocks.get(index / BLOCK)?.items.get(index % BLOCK)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.blocks.get_mut(index / BLOCK)?.items.get_mut(index % BLOCK)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.blocks.iter().enumerate().flat_map(|(number, block)| {
            let items = block.items.iter().enumerate();
            items.filter_map(move |(offset, item)| Some((number * BLOCK + offset, item.as_ref()?)))
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.blocks.iter_mut().flat_map(|block| block.items.iter_mut().flatten())
    }

    /// The next `count` places after `hand`, round and round; the hand moves on. Some may be free.
    pub(super) fn pass(&self, hand: &mut usize, count: usize) -> impl Iterator<Item = (usize, &T)> {
        let places = self.places;
        let count = count.min(places);
        let from = if *hand < places { *hand } else { 0 };
        *hand = if places == 0 { 0 } else { (from + count) % places };
        (from..from + count).filter_map(move |step| {
            let index = step % places;
            Some((index, self.get(index)?))
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
        self.get(index).expect("an index is dropped by its holder before its item is removed")
    }
}

impl<T> std::ops::IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        let item = self.blocks[index / BLOCK].items[index % BLOCK].as_mut();
        item.expect("an index is dropped by its holder before its item is removed")
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
    fn an_emptied_block_is_given_back_and_its_places_are_used_again() {
        let mut slab = Slab::new();
        let held: Vec<usize> = (0..4 * BLOCK).map(|number| slab.insert(number)).collect();
        for &index in &held[BLOCK..] {
            assert_eq!(slab.remove(index), Some(index));
        }
        let of_blocks: Vec<usize> = slab.blocks.iter().map(|block| block.items.len()).collect();
        assert_eq!(of_blocks, [BLOCK, 0, 0, BLOCK], "but for the last one");
        assert_eq!((slab.len(), slab.iter().count(), slab.get(2 * BLOCK)), (BLOCK, BLOCK, None));
        for number in 0..3 * BLOCK {
            let index = slab.insert(number);
            assert!((BLOCK..4 * BLOCK).contains(&index), "{index} is no free place");
            assert_eq!(slab[index], number);
        }
        assert_eq!(slab.len(), 4 * BLOCK);
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
