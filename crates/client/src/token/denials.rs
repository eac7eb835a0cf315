//! Which missing permissions were told of late, so that a loop of refused calls is one line in the log and not one each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::key::Family;
use tidegate_core::time::Mono;

/// How long a missing permission is not told again.
const QUIET: Duration = Duration::from_hours(1);

/// Missing permissions that are remembered; beyond it the oldest are told again.
const MOST: usize = 64;

/// When each was told last.
#[derive(Debug, Default)]
pub(super) struct Denials(HashMap<(Family, Arc<str>), Mono>);

impl Denials {
    /// Whether it is to be told now.
    pub(super) fn is_news(&mut self, now: Mono, family: &Family, missing: &Arc<str>) -> bool {
        let key = (family.clone(), Arc::clone(missing));
        if self.0.get(&key).is_some_and(|told| now < *told + QUIET) {
            return false;
        }
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, told)| **told).map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Mono {
        Mono::ZERO + Duration::from_mins(minutes)
    }

    fn family(path: &str) -> Family {
        Family::with_segments(path, 3).expect("a path")
    }

    #[test]
    fn each_family_and_permission_is_told_once_an_hour() {
        let mut denials = Denials::default();
        let (users, queues) = (family("/api/v2/users"), family("/api/v2/queues"));
        let (edit, view): (Arc<str>, Arc<str>) = ("edit:users".into(), "view:users".into());
        assert!(denials.is_news(at(0), &users, &edit));
        assert!(!denials.is_news(at(59), &users, &edit));
        assert!(denials.is_news(at(59), &users, &view));
        assert!(denials.is_news(at(59), &queues, &edit));
        assert!(denials.is_news(at(60), &users, &edit));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut denials = Denials::default();
        let missing: Arc<str> = "x".into();
        for n in 0..1_000 {
            assert!(denials.is_news(at(0), &family(&format!("/api/v2/f{n}")), &missing));
        }
        assert_eq!(denials.0.len(), MOST);
    }
}
