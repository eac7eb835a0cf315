//! The calendar: windows of the week in which classes are held or something is kept for them.
//!
//! An upstream has its own busy hours: a schedule is published every Monday at six, reports run at midnight, and half of the
//! quota is gone to whatever runs there. A [`Window`] says so once. In it the classes under `hold` get nothing, and every
//! quota keeps for a class what `reserve` says. Who was held begins after the end, each at a moment of its own
//! within `stagger`, so that what waited does not begin together.
//!
//! | question | answer |
//! | --- | --- |
//! | when it begins | a line of a crontab ([`Cron`]) by the clock of a [`Zone`]; skipped by a switch of clocks: as soon as the clock has jumped; twice: the first time, once |
//! | when it ends | `for` later, in elapsed time: over midnight, over a switch of clocks |
//! | two at once | held is who is held by one of them; of each class's reserves the largest counts |
//! | held | until the end and the own stagger; if another window has begun by then, until that one's |
//!
//! Times here are [`Wall`] times, because windows are; whoever asks converts them to the clock it decides by
//! ([`crate::pace::Bank::tell_time`]). Everything is a function of its arguments.

mod cron;
mod read;
#[cfg(test)]
mod tests;
mod window;
mod zone;

use std::time::Duration;

pub use cron::Cron;
pub use read::read_windows;
pub use window::Window;
pub use zone::Zone;

use crate::schedule::Class;
use crate::time::Wall;
use window::later;

/// All windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    windows: Vec<Window>,
}

/// One time that a window comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Which window, by its place.
    pub window: usize,
    /// Its first instant.
    pub from: Wall,
    /// The instant after its last.
    pub until: Wall,
}

/// Why a class gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The window that holds it longest of those that do now.
    pub by: Occurrence,
    /// Until when, with the own stagger, and with every window that follows before it is over. Where 64 follow each other without
    /// a gap it is the end of the last of these: then the class may be held still, and is to ask again.
    pub until: Wall,
}

/// What holds at an instant, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// The windows that are open; those that opened first come first.
    pub open: Vec<Occurrence>,
    /// The classes that get nothing, by [`Class::ALL`].
    pub held: [Option<Held>; Class::COUNT],
    /// Per cent of every quota that are kept for a class, by [`Class::ALL`].
    pub reserve: [u8; Class::COUNT],
    /// When something of this may be otherwise. `None`: never again.
    pub until: Option<Wall>,
}

impl Phase {
    /// Per cent of every quota that a class has to leave to others.
    pub fn kept_from(&self, class: Class) -> u8 {
        let others = Class::ALL.into_iter().filter(|&other| other != class);
        others.map(|other| self.reserve[other.index()]).fold(0, u8::saturating_add).min(100)
    }
}

impl Calendar {
    /// Windows that a calendar can have. Each is looked up when one of them begins or ends.
    pub const MAX_WINDOWS: usize = 64;
    /// Windows that follow on each other without a gap are looked through so far; then the last of them is asked again.
    const MAX_CHAIN: usize = 64;
    /// Beginnings that are looked at to find out whether windows overlap that must not.
    const MAX_SCAN: usize = 200_000;

    /// A calendar of these windows.
    pub fn new(windows: Vec<Window>) -> Self {
        Self { windows }
    }

    /// The windows, in the order of the configuration.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// No window at all.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// What holds at an instant for the one who has this `seed`.
    pub fn phase(&self, at: Wall, seed: u64) -> Phase {
        let mut phase =
            Phase { open: Vec::new(), held: Default::default(), reserve: Default::default(), until: None };
        let mut change = |when: Option<Wall>| {
            phase.until = phase.until.into_iter().chain(when.filter(|&when| when > at)).min();
        };
        for (index, window) in self.windows.iter().enumerate() {
            change(window.next(at));
            for from in window.around(at) {
                let until = window.ends(from);
                change(Some(until));
                change(Some(window.released(from, seed)));
                if at < until {
                    phase.open.push(Occurrence { window: index, from, until });
                }
            }
        }
        for open in &phase.open {
            let reserve = self.windows[open.window].reserve;
            for (kept, own) in phase.reserve.iter_mut().zip(reserve) {
                *kept = own.max(*kept);
            }
        }
        phase.open.sort_by_key(|open| open.from);
        phase.held = Class::ALL.map(|class| self.held(at, class, seed));
        phase
    }

    /// Why a class gets nothing at an instant, and until when.
    fn held(&self, at: Wall, class: Class, seed: u64) -> Option<Held> {
        let (by, mut until) = self.held_once(at, class, seed)?;
        for _ in 0..Self::MAX_CHAIN {
            let Some((_, further)) = self.held_once(until, class, seed) else { break };
            until = further;
        }
        Some(Held { by, until })
    }

    /// The window that holds a class longest of those that do at an instant.
    fn held_once(&self, at: Wall, class: Class, seed: u64) -> Option<(Occurrence, Wall)> {
        let holding = self.windows.iter().enumerate().filter(|(_, window)| window.hold[class.index()]);
        let all = holding.flat_map(|(index, window)| {
            window.around(at).map(move |from| {
                (Occurrence { window: index, from, until: window.ends(from) }, window.released(from, seed))
            })
        });
        all.filter(|&(_, released)| released > at).max_by_key(|&(_, released)| released)
    }

    /// Every time that a window comes and that touches the time between two instants, the earliest first; at most `most`.
    pub fn between(&self, from: Wall, to: Wall, most: usize) -> Vec<Occurrence> {
        let mut all = Vec::new();
        for (index, window) in self.windows.iter().enumerate() {
            let begun = window.around(from).collect::<Vec<_>>();
            let last = begun.last().copied().unwrap_or(from);
            let coming = std::iter::successors(window.next(last), |&last| window.next(last));
            let coming = coming.take_while(|&begins| begins < to).take(most);
            let found = begun.into_iter().chain(coming).map(|from| Occurrence {
                window: index,
                from,
                until: window.ends(from),
            });
            all.extend(found.filter(|found| found.until > from));
        }
        all.sort_by_key(|found| (found.from, found.window));
        all.truncate(most);
        all
    }

    /// Windows that come at the same time and keep more than there is: the place of the one, and what to say.
    ///
    /// Looked for in the year 2028, which has a leap day; only where all reserves together would be too much.
    fn overbooked(&self) -> Option<(usize, String)> {
        let most = |windows: &mut dyn Iterator<Item = &Window>| {
            let kept = windows.fold([0; Class::COUNT], |kept: [u8; Class::COUNT], window| {
                std::array::from_fn(|class| kept[class].max(window.reserve[class]))
            });
            kept.iter().copied().map(u32::from).sum::<u32>()
        };
        if self.windows.iter().any(|window| most(&mut std::iter::once(window)) > 100)
            || most(&mut self.windows.iter()) <= 100
        {
            return None;
        }
        let keeping = |window: &&Window| window.reserve != [0; Class::COUNT];
        // 1 January 2028, 0:00 UTC, and 367 days.
        let (begin, end) =
            (Wall::from_unix_millis(1_830_297_600_000), Wall::from_unix_millis(1_862_006_400_000));
        let mut times: Vec<(Wall, usize)> = Vec::new();
        for (index, window) in self.windows.iter().enumerate().filter(|(_, window)| keeping(window)) {
            let coming = std::iter::successors(window.next(begin), |&last| window.next(last));
            times
                .extend(coming.take_while(|&from| from < end).take(Self::MAX_SCAN).map(|from| (from, index)));
        }
        times.sort_unstable();
        let mut open: Vec<(Wall, usize)> = Vec::new();
        for (from, index) in times {
            open.retain(|&(until, _)| until > from);
            open.push((self.windows[index].ends(from), index));
            let kept = most(&mut open.iter().map(|&(_, index)| &self.windows[index]));
            if kept > 100 {
                let window = &self.windows[index];
                let others: Vec<String> = open
                    .iter()
                    .filter(|&&(_, other)| other != index)
                    .map(|&(_, other)| format!("`{}`", self.windows[other].name))
                    .collect();
                return Some((
                    index,
                    format!(
                        "keeps {kept} per cent of a quota together with {}, which is open too at {} (write less)",
                        others.join(" and "),
                        window.zone.clock(from)
                    ),
                ));
            }
        }
        None
    }

    /// Until when somebody is held, in words: `held by window "wfm publish" until 06:20 CDT, then staggered by 4 m`.
    pub fn held_words(&self, held: &Held) -> String {
        let window = &self.windows[held.by.window];
        let stagger = held.until.since(held.by.until).unwrap_or_default();
        let until = window.zone.time(held.by.until);
        let name = &window.name;
        if stagger < Duration::from_secs(1) {
            return format!("held by window \"{name}\" until {until}");
        }
        format!("held by window \"{name}\" until {until}, then staggered by {}", span_words(stagger))
    }
}

/// A duration as people say it, to two units: `4 m`, `1 h 20 m`, `45 s`.
pub fn span_words(span: Duration) -> String {
    let seconds = span.as_secs() + u64::from(span.subsec_millis() >= 500);
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let Some(first) = units.iter().position(|&(unit, _)| seconds >= unit) else { return "0 s".to_owned() };
    let (unit, name) = units[first];
    let (whole, rest) = (seconds / unit, seconds % unit);
    match units.get(first + 1) {
        Some(&(next, other)) if rest / next > 0 => format!("{whole} {name} {} {other}", rest / next),
        _ => format!("{whole} {name}"),
    }
}

/// A seed from the name of an instance or a job (FNV-1a, RFC 9923): the same name begins at the same moment within a stagger.
pub fn stagger_seed(name: &str) -> u64 {
    window::mix(FNV_OFFSET, name)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// The instant `by` later than `at`, for those who lay windows over their own time.
pub fn after(at: Wall, by: Duration) -> Wall {
    later(at, by)
}
