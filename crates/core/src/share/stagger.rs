//! Starts that are spread.
//!
//! Instances that are started together, by a deployment or a schedule, would send their first calls together. Where they
//! share a quota each waits for a chance of its own first.

use std::time::Duration;

use fastrand::Rng;

/// How long to wait before a start, between the two ends.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::share::stagger;
///
/// let [least, most] = [Duration::from_secs(1), Duration::from_secs(5)];
/// let wait = stagger(&mut fastrand::Rng::with_seed(7), least, most);
/// assert!(least <= wait && wait <= most);
/// assert_eq!(stagger(&mut fastrand::Rng::with_seed(7), most, least), most, "an empty range is its first end");
/// ```
pub fn stagger(rng: &mut Rng, least: Duration, most: Duration) -> Duration {
    least + most.saturating_sub(least).mul_f64(rng.f64())
}
