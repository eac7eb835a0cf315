//! Which paths stand on the events of which topics.
//!
//! Of a topic whose rule names a path that path is known before an event comes. Others carry in each event what it is about: such
//! a path is told about from its first event on. What is remembered of those is bounded; the oldest are let go, and stand on
//! their own age again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Paths that events carried.
const MOST_CARRIED: usize = 50_000;

#[derive(Debug, Default)]
pub(super) struct Paths {
    /// By topic as it is subscribed to.
    by_topic: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Topics whose events arrive, by path.
    covering: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    carried: VecDeque<(Arc<str>, Arc<str>)>,
    /// As what a topic is subscribed to that is one with others.
    joint: BTreeMap<String, Arc<str>>,
}

/// What a path that was carried changes.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// It is covered from now on.
    pub(crate) cover: Option<Arc<str>>,
    /// These are so no more.
    pub(crate) uncover: Vec<Arc<str>>,
}

impl Paths {
    /// Who subscribes to `topic` is sent events on `part`, which tell of `path` if there is one.
    pub(super) fn tell(&mut self, topic: &Arc<str>, part: String, path: Option<&str>) {
        let paths = self.by_topic.entry(Arc::clone(topic)).or_default();
        paths.extend(path.map(Arc::from));
        if part != **topic {
            self.joint.insert(part, Arc::clone(topic));
        }
    }

    /// What was subscribed to that brings events on `topic`.
    pub(super) fn subscribed_as(&self, topic: &str) -> Arc<str> {
        self.joint.get(topic).map_or_else(|| Arc::from(topic), Arc::clone)
    }

    /// Events on `topic`, which arrive, carried `path`.
    pub(super) fn carry(&mut self, topic: &str, path: &str) -> Told {
        let (topic, path): (Arc<str>, Arc<str>) = (Arc::from(topic), Arc::from(path));
        let mut told = Told::default();
        if !self.by_topic.entry(Arc::clone(&topic)).or_default().insert(Arc::clone(&path)) {
            return told;
        }
        self.covering.entry(Arc::clone(&path)).or_default().insert(Arc::clone(&topic));
        self.carried.push_back((topic, Arc::clone(&path)));
        told.cover = Some(path);
        if self.carried.len() > MOST_CARRIED
            && let Some((topic, path)) = self.carried.pop_front()
        {
            if let Some(paths) = self.by_topic.get_mut(&topic) {
                paths.remove(&path);
            }
            told.uncover.extend(self.stop(&topic, &path));
        }
        told
    }

    /// Events on `topic` arrive: the paths that they tell of.
    pub(super) fn told_by(&mut self, topic: &Arc<str>) -> Vec<Arc<str>> {
        let paths: Vec<Arc<str>> = self.by_topic.get(topic).into_iter().flatten().map(Arc::clone).collect();
        for path in &paths {
            self.covering.entry(Arc::clone(path)).or_default().insert(Arc::clone(topic));
        }
        paths
    }

    /// Events on `topic` arrive no more: the paths that no other topic tells of. `wanted`: whether they may arrive again.
    pub(super) fn silence(&mut self, topic: &Arc<str>, wanted: bool) -> Vec<Arc<str>> {
        let paths: Vec<Arc<str>> = self.by_topic.get(topic).into_iter().flatten().map(Arc::clone).collect();
        if !wanted {
            self.by_topic.remove(topic);
            self.joint.retain(|_, of| of != topic);
            self.carried.retain(|(of, _)| of != topic);
        }
        paths.into_iter().filter_map(|path| self.stop(topic, &path)).collect()
    }

    fn stop(&mut self, topic: &str, path: &Arc<str>) -> Option<Arc<str>> {
        let topics = self.covering.get_mut(path)?;
        topics.remove(topic);
        if !topics.is_empty() {
            return None;
        }
        self.covering.remove(path);
        Some(Arc::clone(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_covered_as_long_as_one_of_its_topics_is() {
        let mut paths = Paths::default();
        let (one, other): (Arc<str>, Arc<str>) = (Arc::from("one"), Arc::from("other"));
        paths.tell(&one, "one".to_owned(), Some("/a"));
        assert_eq!(paths.told_by(&one), [Arc::from("/a")]);
        assert!(paths.carry("other", "/a").cover.is_some());
        assert!(paths.carry("other", "/a").cover.is_none(), "it is so already");
        assert!(paths.silence(&one, true).is_empty());
        assert_eq!(paths.silence(&other, true), [Arc::from("/a")]);
        assert_eq!(paths.told_by(&other), [Arc::from("/a")], "what it carried is asked for behind a gap");
        assert_eq!(paths.silence(&other, false), [Arc::from("/a")]);
        assert!(paths.told_by(&other).is_empty());
    }

    #[test]
    fn what_events_carry_is_bounded() {
        let mut paths = Paths::default();
        let mut let_go = Vec::new();
        for number in 0..=MOST_CARRIED {
            let_go.extend(paths.carry("t", &format!("/{number}")).uncover);
        }
        assert_eq!(let_go, [Arc::from("/0")]);
    }
}
