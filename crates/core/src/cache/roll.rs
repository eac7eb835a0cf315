//! One list in place of many renewals: when it is asked, and what it renews.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::list::{ListRule, Member, Roll, Told};
use super::shelf::Entry;
use super::{Cache, CacheKey, Errand, Kept, Line, renewal};
use crate::schedule::Class;
use crate::time::Mono;

/// For how long a list is left alone that the upstream would not tell.
pub const DENIED_FOR: Duration = Duration::from_mins(5);

/// So few are asked for one by one: a list costs as much as each of them.
const LEAST: usize = 2;

/// Those of an answer's life before its renewal in which a list may take it along: so answers that are renewed together stay together,
/// and none is renewed in the first half of its life.
const TAKEN_ALONG: u32 = 4;

/// A list's rule, and what its answers have in common.
type Group = (usize, [u8; 32]);

impl<Q: Clone, B: Clone> Cache<Q, B> {
    /// The lists to ask now, each for answers that would else be asked for one by one. To be called before [`Cache::due`], which
    /// gives the rest.
    pub fn rolls(&mut self, now: Mono) -> Vec<Roll<Q>> {
        self.denied.retain(|_, until| *until > now);
        let mut longest = BTreeMap::<Group, Duration>::new();
        for (_, key, entry) in self.shelf.due_by(now) {
            if let Some(group) = self.group(key, entry) {
                let along = longest.entry(group).or_default();
                *along = (*along).max(entry.life() / TAKEN_ALONG);
            }
        }
        let Some(along) = longest.values().max().copied() else { return Vec::new() };
        let mut groups = BTreeMap::<Group, Vec<CacheKey>>::new();
        for (at, key, entry) in self.shelf.due_by(now + along) {
            let group = self.group(key, entry).filter(|group| longest.contains_key(group));
            if let Some(group) = group.filter(|_| at <= now + entry.life() / TAKEN_ALONG) {
                groups.entry(group).or_default().push(key.clone());
            }
        }
        let lists = Arc::clone(&self.lists);
        let mut rolls = Vec::new();
        for (group, keys) in groups {
            for keys in keys.chunks(lists[group.0].at_most).filter(|keys| keys.len() >= LEAST) {
                rolls.extend(self.roll(group, &lists[group.0], keys));
            }
        }
        rolls
    }

    /// The list that can tell of an answer, if one can and may be asked.
    fn group(&self, key: &CacheKey, entry: &Entry<Q, B>) -> Option<Group> {
        entry.kept.version.as_ref()?;
        let rule = self.lists.iter().position(|rule| rule.id_of(key.path()).is_some())?;
        let group = (rule, key.alike()?);
        let asked = entry.conditional || self.open.contains_key(key) || self.denied.contains_key(&group);
        (!asked).then_some(group)
    }

    fn roll(&mut self, (rule, alike): Group, list: &ListRule, keys: &[CacheKey]) -> Option<Roll<Q>> {
        let mut members = Vec::new();
        let mut by: Option<Mono> = None;
        let mut ask = None;
        // As its most urgent reader, at most `sync`, as a renewal of one.
        let mut class: Option<Class> = None;
        for key in keys {
            let Some(entry) = self.shelf.get(key) else { continue };
            let Some(id) = list.id_of(key.path()) else { continue };
            by = Some(by.map_or(entry.end(), |by| by.min(entry.end())));
            ask.get_or_insert_with(|| entry.ask.clone());
            let line = Line::of_renewal(self.shelf.wanted(key).unwrap_or(Class::Sync));
            class = Some(class.map_or(line.class, |class| class.min(line.class)));
            members.push(Member { key: key.clone(), id: id.to_owned(), sent: entry.kept.sent });
        }
        for member in &members {
            self.shelf.not_due(&member.key);
        }
        self.tally.lists += 1;
        Some(Roll { rule, ask: ask?, by: by?, class: class?, alike, members })
    }

    /// A list is told, or not. Gives the answers that it did not renew, to be asked for one by one.
    pub fn land_roll(&mut self, roll: Roll<Q>, told: Told<'_>, now: Mono) -> Vec<(Errand, Q)> {
        let lists = Arc::clone(&self.lists);
        let versions = match told {
            Told::List { body, .. } => lists.get(roll.rule).and_then(|list| list.versions(body)),
            Told::Denied | Told::Nothing => None,
        };
        let is_list = matches!(told, Told::List { .. });
        if matches!(told, Told::Denied) || is_list && versions.is_none() {
            self.denied.insert((roll.rule, roll.alike), now + DENIED_FOR);
        }
        let mut errands = Vec::new();
        for Member { key, id, sent: before } in roll.members {
            // What a write or an event closed, or somebody asked for meanwhile, is not what the list was asked about.
            let Some(entry) = self.shelf.get(&key).filter(|entry| entry.kept.sent == before) else {
                continue;
            };
            let told_version = versions.as_ref().and_then(|versions| versions.get(&id));
            let unchanged = told_version.is_some() && told_version == entry.kept.version.as_ref();
            match told {
                Told::List { sent, age, .. } if unchanged && age < entry.lifetime => {
                    self.renew_by_list(&key, sent, age);
                }
                _ if self.open.contains_key(&key) => {}
                _ => {
                    let (ask, conditional, end) = (entry.ask.clone(), entry.conditional, entry.end());
                    errands.push(self.renew(&key, ask, conditional, end));
                }
            }
        }
        errands
    }

    /// An answer is as young as the list that told its version.
    fn renew_by_list(&mut self, key: &CacheKey, sent: Mono, age: Duration) {
        let Some(entry) = self.shelf.get(key) else { return };
        let Entry { kept: old, lifetime, rule, conditional, trip, ask_length, .. } = entry;
        let (lifetime, rule, conditional) = (*lifetime, *rule, *conditional);
        let (trip, ask_length, ask) = (*trip, *ask_length, entry.ask.clone());
        let kept = Arc::new(Kept {
            status: old.status,
            headers: old.headers.clone(),
            body: old.body.clone(),
            length: old.length,
            sent,
            initial_age: age,
            version: old.version.clone(),
            vary: old.vary.clone(),
        });
        let renews = rule.is_some() && !self.covers.contains_key(key.path());
        let renew_at = renews.then(|| renewal(&kept, lifetime, trip.expected()));
        self.tally.listed += 1;
        self.shelf.put(key, Entry { kept, lifetime, ask, ask_length, rule, conditional, trip, renew_at });
    }
}
