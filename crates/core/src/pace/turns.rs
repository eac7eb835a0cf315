//! Whose turn it is between classes.
//!
//! Stride scheduling (Waldspurger and Weihl, 1995): every class has a pass that advances by one over its weight per
//! permit; the lowest pass among those who could go goes. So `interactive` gets most, and nobody starves. A class that
//! was idle does not save up turns.

use crate::pace::ask::Class;

/// The passes of the classes.
#[derive(Debug, Default)]
pub(super) struct Turns {
    passes: [u64; 4],
    now: u64,
}

impl Turns {
    /// One over the weight, in 64ths: weights 64, 16, 4 and 1.
    const STRIDES: [u64; 4] = [1, 4, 16, 64];

    /// The place of a class in the order of turns; lower goes first.
    pub(super) fn place(&self, class: Class) -> u64 {
        self.passes[class.index()].max(self.now)
    }

    /// `class` got a permit.
    pub(super) fn took(&mut self, class: Class) {
        let place = self.place(class);
        self.now = place;
        self.passes[class.index()] = place + Self::STRIDES[class.index()];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_weights_and_nobody_starves() {
        let mut turns = Turns::default();
        let mut got = [0_u32; 4];
        for _ in 0..8500 {
            let class = Class::ALL
                .into_iter()
                .min_by_key(|&class| turns.place(class))
                .expect("there are four classes");
            turns.took(class);
            got[class.index()] += 1;
        }
        assert!(got[0] > 6000 && got[1] > 1500 && got[2] > 350 && got[3] > 80, "{got:?}");
    }
}
