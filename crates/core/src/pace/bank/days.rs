//! The calendar in a bank: which classes wait for the end of a window, and what is kept for others meanwhile.
//!
//! Windows are of the wall clock, a bank decides by the monotonic one. The shell tells what time it is; from then on the
//! bank counts by itself, so a world with a clock of its own tells it once. A wall clock that was set (or a machine that slept)
//! is noticed when the shell tells the time again.
//!
//! Who is held waits at one barrier more, which opens for its class at one instant: so a window costs nothing while it
//! lasts, and one wake-up at its end.

use std::sync::Arc;
use std::time::Duration;

use super::{Bank, barriers};
use crate::calendar::{Calendar, Held, Phase};
use crate::event::Event;
use crate::pace::snapshot::{HoldSnapshot, WindowSnapshot};
use crate::schedule::Class;
use crate::time::{Mono, Wall};

/// The part of the calendar that holds now.
#[derive(Debug, Default)]
pub(super) struct Days {
    /// The wall time at an instant. `None`: nobody told it yet.
    told: Option<(Mono, Wall)>,
    phase: Option<Phase>,
    /// Until when each class gets nothing, by [`Class::ALL`].
    held: [Option<Mono>; Class::COUNT],
    /// When something of this may be otherwise.
    until: Option<Mono>,
    /// What explains the wait of each class that is held.
    labels: [Option<Arc<str>>; Class::COUNT],
}

impl Days {
    fn wall(&self, now: Mono) -> Option<Wall> {
        let (mono, wall) = self.told?;
        Some(crate::calendar::after(wall, now - mono))
    }

    /// Until when a class gets nothing.
    pub(super) fn held(&self, class: Class) -> Option<Mono> {
        self.held[class.index()]
    }

    /// What is kept for each class, per cent.
    pub(super) fn reserve(&self) -> [u8; Class::COUNT] {
        self.phase.as_ref().map_or([0; Class::COUNT], |phase| phase.reserve)
    }

    /// A wall instant on the bank's clock; what has passed is now.
    fn mono(&self, now: Mono, at: Wall) -> Mono {
        let since = self.told.and_then(|(mono, wall)| at.since(wall).map(|since| mono + since));
        since.unwrap_or(now)
    }
}

impl Bank {
    /// A wall clock may differ from what was told and counted since by so much before it is believed to have been set.
    const CLOCK_SET: Duration = Duration::from_secs(1);

    /// Tells what time it is. Windows hold from the first time on that it is told; tell it before other calls, if the bank
    /// [has a calendar](Bank::has_calendar). May change the next wake-up.
    pub fn tell_time(&mut self, now: Mono, wall: Wall) {
        let counted = self.days.wall(now);
        let apart = |counted: Wall| wall.unix_millis().abs_diff(counted.unix_millis());
        let believed =
            counted.is_some_and(|counted| Duration::from_millis(apart(counted)) <= Self::CLOCK_SET);
        if !believed && self.has_calendar() {
            self.days.told = Some((now, wall));
            self.days.until = None;
            self.days.phase = None;
        }
        self.look_at_calendar(now);
    }

    /// Whether there are windows at all.
    pub fn has_calendar(&self) -> bool {
        !self.config.calendar.is_empty()
    }

    /// Lets the windows of this instant hold, if others did.
    pub(super) fn look_at_calendar(&mut self, now: Mono) {
        let Some(wall) = self.days.wall(now) else { return };
        if self.days.phase.is_some() && self.days.until.is_none_or(|until| now < until) {
            return;
        }
        let calendar = Arc::clone(&self.config.calendar);
        let phase = calendar.phase(wall, self.config.stagger_seed);
        self.tell_windows(&calendar, &phase);
        self.days.held = phase.held.map(|held| held.map(|held| self.days.mono(now, held.until)));
        self.days.labels = phase.held.map(|held| held.map(|held| label(&calendar, &held)));
        self.days.until = phase.until.map(|until| self.days.mono(now, until));
        let begins = phase.held.iter().any(Option::is_some);
        self.days.phase = Some(phase);
        self.schedule.touch(barriers::CALENDAR);
        for (gate, _) in self.registry.gates.iter() {
            self.schedule.touch(barriers::gate(gate));
        }
        if begins {
            self.doubt_waiting(now);
        }
    }

    /// Events for windows that opened and closed.
    fn tell_windows(&mut self, calendar: &Calendar, phase: &Phase) {
        let before = self.days.phase.as_ref().map_or(&[][..], |before| &before.open);
        let name = |window: usize| calendar.windows()[window].name.clone();
        let mut events = Vec::new();
        for closed in before.iter().filter(|known| !phase.open.contains(known)) {
            events.push(Event::WindowClosed { window: name(closed.window) });
        }
        for opened in phase.open.iter().filter(|known| !before.contains(known)) {
            let window = &calendar.windows()[opened.window];
            let holds = Class::ALL.into_iter().filter(|class| window.hold[class.index()]).collect();
            let reserve = Class::ALL.map(|class| (class, window.reserve[class.index()]));
            events.push(Event::WindowOpened {
                window: name(opened.window),
                until: window.zone.time(opened.until),
                holds,
                reserve: reserve.into_iter().filter(|&(_, per_cent)| per_cent > 0).collect(),
            });
        }
        self.events.extend(events);
    }

    /// What explains the wait of a class that is held: `window "wfm publish"`.
    pub(super) fn held_by(&self, class: Class) -> Option<Arc<str>> {
        self.days.labels[class.index()].clone()
    }

    /// The next change of what holds, if somebody waits for it.
    pub(super) fn calendar_wake(&self) -> Option<Mono> {
        self.days.until.filter(|_| !self.schedule.is_empty())
    }

    /// The windows as they stand, the configuration's order, and which classes are held.
    pub(super) fn windows(&self, now: Mono) -> (Vec<WindowSnapshot>, Vec<HoldSnapshot>) {
        let Some(wall) = self.days.wall(now) else { return Default::default() };
        let calendar = &self.config.calendar;
        let phase = calendar.phase(wall, self.config.stagger_seed);
        let millis = |until: Wall| until.since(wall).map_or(0, whole_millis);
        let names = |list: [bool; Class::COUNT]| {
            Class::ALL.into_iter().filter(|class| list[class.index()]).map(Class::name).collect()
        };
        let windows = calendar.windows().iter().enumerate().map(|(index, window)| {
            let open = phase.open.iter().rfind(|open| open.window == index);
            let next = open.map(|open| open.until).or_else(|| window.next(wall));
            WindowSnapshot {
                name: window.name.clone(),
                open: open.is_some(),
                changes_at: next.map(|next| window.zone.clock(next)),
                changes_in_ms: next.map(millis),
                holds: names(window.hold),
                reserve: Class::ALL
                    .into_iter()
                    .map(|class| (class.name(), window.reserve[class.index()]))
                    .filter(|&(_, per_cent)| per_cent > 0)
                    .collect(),
            }
        });
        let held = Class::ALL.into_iter().filter_map(|class| {
            let held = phase.held[class.index()]?;
            Some(HoldSnapshot {
                class: class.name(),
                window: calendar.windows()[held.by.window].name.clone(),
                for_ms: millis(held.until),
                told: calendar.held_words(&held),
            })
        });
        (windows.collect(), held.collect())
    }

    /// Why a class gets nothing now, in words, and for how long; `None` if it is not held.
    pub fn held_words(&self, now: Mono, class: Class) -> Option<(String, Duration)> {
        let until = self.days.held(class).filter(|&until| until > now)?;
        let held = self.days.phase.as_ref()?.held[class.index()]?;
        Some((self.config.calendar.held_words(&held), until - now))
    }
}

fn label(calendar: &Calendar, held: &Held) -> Arc<str> {
    Arc::from(format!("window \"{}\"", calendar.windows()[held.by.window].name))
}

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
