//! Whose turn it is between classes, at one barrier.
//!
//! Stride scheduling (Waldspurger and Weihl, *Stride Scheduling: Deterministic Proportional-Share Resource Management*,
//! MIT/LCS/TM-528, 1995): every class has a pass that advances by one over its weight for each permit it takes; the lowest
//! pass among those who could go goes. A class that was idle does not save up turns: it enters at the present pass.
//!
//! Bound: among classes that always have somebody who may go, the permits a class got differ from its share by less than
//! one turn of each class, and it waits for no more than the sum of the weights over its own weight permits of others.

use super::Class;

/// The passes of the classes.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    passes: [u64; Class::COUNT],
    now: u64,
}

impl Turns {
    /// One over the weight, in 64ths.
    const fn stride(class: Class) -> u64 {
        64 / class.weight() as u64
    }

    fn pass(&self, class: Class) -> u64 {
        self.passes[class.index()].max(self.now)
    }

    /// How far ahead of its share a class is; the least goes first.
    pub(super) fn lead(&self, class: Class) -> u64 {
        self.pass(class) - self.now
    }

    /// `class` took a permit.
    pub(super) fn took(&mut self, class: Class) {
        let pass = self.pass(class);
        self.now = pass;
        self.passes[class.index()] = pass + Self::stride(class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_weights_within_a_turn() {
        let mut turns = Turns::default();
        let mut got = [0_u64; Class::COUNT];
        for granted in 1..=8500_u64 {
            let class = Class::ALL.into_iter().min_by_key(|&class| (turns.lead(class), class)).unwrap();
            turns.took(class);
            got[class.index()] += 1;
            for class in Class::ALL {
                // Its share of what was granted, in 85ths of a permit.
                let due = granted * u64::from(class.weight());
                assert!((got[class.index()] * 85).abs_diff(due) <= 85 * 4, "{granted}: {got:?}");
            }
        }
        assert_eq!(got, [6400, 1600, 400, 100]);
    }

    #[test]
    fn an_idle_class_saves_up_nothing() {
        let mut turns = Turns::default();
        for _ in 0..1000 {
            turns.took(Class::Bulk);
        }
        let mut in_a_row = 0;
        while turns.lead(Class::Interactive) <= turns.lead(Class::Bulk) {
            turns.took(Class::Interactive);
            in_a_row += 1;
        }
        assert!(in_a_row <= 17, "{in_a_row}");
    }
}
