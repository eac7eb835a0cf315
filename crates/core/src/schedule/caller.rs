//! Callers: between whom a class is shared.

use std::hash::{DefaultHasher, Hash, Hasher};

/// A program, user or job that calls; those of one class get equal shares.
///
/// It is a digest of a name, so it is small and says nothing about who it is. Two names that happen to have the same digest
/// share one share. The digest may change from one release to the next: it is for this process only.
///
/// ```
/// use tidegate_core::schedule::CallerId;
///
/// assert_eq!(CallerId::named("nightly export"), CallerId::named("nightly export"));
/// assert_ne!(CallerId::named("nightly export"), CallerId::named("desk"));
/// assert_ne!(CallerId::named(""), CallerId::ANYBODY);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerId(u64);

impl CallerId {
    /// Whoever does not say who it is: all of them are one caller.
    pub const ANYBODY: Self = Self(0);

    /// The caller of this name.
    pub fn named(name: impl Hash) -> Self {
        // The keys of this hasher are fixed, unlike those of a hash map: the same name is the same caller in every run.
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(hasher.finish().max(1))
    }
}
