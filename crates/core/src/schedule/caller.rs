//! Callers: between whom a class is shared.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU8;

/// A program, user or job that calls; those of one class get shares by their weights, equal ones unless said otherwise.
///
/// It is a digest of a name, so it is small and says nothing about who it is. Two names that happen to have the same digest
/// and weight share one share. The digest may change from one release to the next: it is for this process only.
///
/// ```
/// use tidegate_core::schedule::CallerId;
///
/// assert_eq!(CallerId::named("nightly export"), CallerId::named("nightly export"));
/// assert_ne!(CallerId::named("nightly export"), CallerId::named("desk"));
/// assert_ne!(CallerId::named(""), CallerId::ANYBODY);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerId {
    name: u64,
    weight: NonZeroU8,
}

impl Default for CallerId {
    fn default() -> Self {
        Self::ANYBODY
    }
}

impl CallerId {
    /// Whoever does not say who it is: all of them are one caller.
    pub const ANYBODY: Self = Self { name: 0, weight: NonZeroU8::MIN };

    /// The greatest weight. Beyond it the share of a caller of weight 1 is none that anybody notices.
    pub const MAX_WEIGHT: u8 = 100;

    /// The caller of this name, of weight 1.
    pub fn named(name: impl Hash) -> Self {
        // The keys of this hasher are fixed, unlike those of a hash map: the same name is the same caller in every run.
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self { name: hasher.finish().max(1), weight: NonZeroU8::MIN }
    }

    /// The same caller with another weight, from 1 to [`CallerId::MAX_WEIGHT`]; what is outside is taken for the nearer end.
    /// While several wait, one of weight 3 gets three permits for each that one of weight 1 gets. A caller always comes with
    /// the same weight: with two it counts as two callers.
    ///
    /// ```
    /// use tidegate_core::schedule::CallerId;
    ///
    /// let desk = CallerId::named("desk");
    /// assert_eq!(desk.weighing(0), desk.weighing(1));
    /// assert_eq!(desk.weighing(3).weight(), 3);
    /// ```
    #[must_use]
    pub fn weighing(self, weight: u8) -> Self {
        let weight = NonZeroU8::new(weight.min(Self::MAX_WEIGHT)).unwrap_or(NonZeroU8::MIN);
        Self { weight, ..self }
    }

    /// Its weight.
    pub const fn weight(self) -> u8 {
        self.weight.get()
    }
}
