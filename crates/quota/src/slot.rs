//! A lock and the value under it, as a pure machine: what a store that keeps whole values needs, in memory or over a network.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_core::share::{At, HolderId, Ms};

use crate::store::{Kept, Lock};

/// A lock and the value under it.
///
/// ```
/// use std::time::Duration;
///
/// use tidegate_core::share::HolderId;
/// use tidegate_quota::{Lock, Slot};
///
/// let (mut slot, life) = (Slot::default(), Duration::from_millis(100));
/// assert_eq!(slot.lock(0, HolderId(1), life), Lock::Yours { fence: 1 });
/// assert_eq!(slot.lock(100, HolderId(2), life), Lock::Yours { fence: 2 });
/// assert!(!slot.put(100, 1, b"late", life));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The highest fence ever given; it outlives lock and value, else fences could fall.
    fence: u64,
    held: Option<(HolderId, Life)>,
    kept: Option<Stored>,
    /// The end of the longest life that was ever asked for.
    latest: At,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    fence: u64,
    bytes: Vec<u8>,
    life: Life,
}

/// Until when something holds, and for how long it was to: with a clock that was set back it would hold for as much longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    until: At,
    life: Ms,
}

impl Life {
    /// What is left of it; `None` once it is over, or where it would end later than if it had begun now.
    fn left(self, now: At) -> Option<Ms> {
        let left = self.until.checked_sub(now).filter(|&left| left > 0)?;
        (left <= self.life).then_some(left)
    }
}

impl Slot {
    /// The fence is remembered for so long after the last life that was asked for: two days.
    const REMEMBERED: Ms = 2 * 86_400_000;

    /// A lock for `life`, as [`Store::lock`](crate::Store::lock) says.
    pub fn lock(&mut self, now: At, who: HolderId, life: Duration) -> Lock {
        let held = self.held.and_then(|(holder, life)| life.left(now).map(|left| (holder, left)));
        match held {
            Some((holder, left)) if holder != who => {
                return Lock::Held { fence: self.fence, left: Duration::from_millis(left) };
            }
            Some(_) => {}
            None => self.fence += 1,
        }
        self.held = Some((who, self.begin(now, life)));
        Lock::Yours { fence: self.fence }
    }

    /// Keeps a value under a fence, as [`Store::put`](crate::Store::put) says.
    pub fn put(&mut self, now: At, fence: u64, bytes: &[u8], life: Duration) -> bool {
        if fence == 0 || self.fence != fence {
            return false;
        }
        self.held = None;
        self.kept = Some(Stored { fence, bytes: bytes.to_vec(), life: self.begin(now, life) });
        true
    }

    /// What is kept and has not ended.
    pub fn get(&self, now: At) -> Option<Kept> {
        let stored = self.kept.as_ref()?;
        let left = Duration::from_millis(stored.life.left(now)?);
        Some(Kept { fence: stored.fence, bytes: stored.bytes.clone(), left })
    }

    /// Ends the lock with this fence; false where it is another one.
    pub fn unlock(&mut self, fence: u64) -> bool {
        let ours = self.fence == fence && self.held.is_some();
        if ours {
            self.held = None;
        }
        ours
    }

    fn begin(&mut self, now: At, life: Duration) -> Life {
        let life = millis(life);
        let until = now.saturating_add(life);
        self.latest = self.latest.max(until);
        Life { until, life }
    }

    /// From then on it may be dropped, fence and all.
    pub fn expires(&self) -> At {
        self.latest.saturating_add(Self::REMEMBERED)
    }
}

/// Whole milliseconds, rounded up: nothing ends before its time.
fn millis(duration: Duration) -> Ms {
    Ms::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(Ms::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_remembered_for_days_after_all_has_ended() {
        let (mut slot, now, life) = (Slot::default(), 1_700_000_000_000, Duration::from_mins(1));
        assert_eq!(slot.lock(now, HolderId(1), life), Lock::Yours { fence: 1 });
        assert!(slot.unlock(1) && !slot.unlock(1));
        assert_eq!(slot.expires(), now + 60_000 + Slot::REMEMBERED);
        assert!(slot.put(now, 1, b"value", 2 * life));
        assert_eq!(slot.expires(), now + 120_000 + Slot::REMEMBERED);
    }

    #[test]
    fn no_lock_and_no_value_outlives_a_clock_that_was_put_right() {
        let (mut slot, now, hour) = (Slot::default(), 1_700_000_000_000, 3_600_000);
        let life = Duration::from_secs(25);
        assert_eq!(slot.lock(now + hour, HolderId(1), life), Lock::Yours { fence: 1 });
        assert_eq!(slot.lock(now, HolderId(2), life), Lock::Yours { fence: 2 });
        assert!(slot.put(now + hour, 2, b"token", 2 * life));
        assert_eq!(slot.get(now), None);
        assert_eq!(slot.get(now + hour - 1), None, "not even for a moment more");
        assert_eq!(slot.get(now + hour + 1).map(|kept| kept.left), Some(Duration::from_millis(49_999)));
    }
}
