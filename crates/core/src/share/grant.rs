//! Who gets how many permits, and when.
//!
//! One ask draws from all of its limits or from none. What is there is given at once, an equal part of half of it at a time,
//! so that grants are large while much is left and shrink to one near the end; calls that wait for a quota that comes back in
//! steps have an equal part of all of it at once. Who gets nothing is told when it is worth while to ask again, each at a time of its own. Where attempts come back one by one, what is
//! there at once is never much: then permits are *dated*, for when the log gives back within the lease. Without that each
//! call of a busy fleet would cost exchanges.

use std::collections::BTreeMap;

use crate::schedule::Class;
use crate::share::limit::Limit;
use crate::share::wire::{At, Exchange, Grant, HolderId, LimitKey, Ms, Want};

/// One ask, its limits, and who asks.
pub(super) struct Granting<'a> {
    pub(super) now: At,
    pub(super) holder: HolderId,
    pub(super) want: &'a Want,
    /// Its limits, each once.
    pub(super) keys: Vec<LimitKey>,
    pub(super) limits: &'a mut BTreeMap<LimitKey, Limit>,
}

/// Permits and what they are made of.
#[derive(Clone, Copy, Default)]
struct Plan {
    permits: u32,
    from: Ms,
    gap: Ms,
}

impl Granting<'_> {
    /// Milliseconds between single permits of a fleet that goes on slowly.
    const BEAT: Ms = 20;
    /// Milliseconds between looks of a fleet whose holders wait.
    const LOOK: Ms = 100;
    /// One in so many permits that others hold is likely to be given back.
    const KEPT: u64 = 4;

    /// The limits of an ask, each once; places that name no limit are left out.
    pub(super) fn keys(said: &Exchange, want: &Want) -> Vec<LimitKey> {
        let mut keys: Vec<LimitKey> = Vec::with_capacity(want.limits.len());
        for side in want.limits.iter().filter_map(|&place| said.limits.get(usize::from(place))) {
            if !keys.contains(&side.key) {
                keys.push(side.key);
            }
        }
        keys
    }

    /// Answers the ask, and takes what it grants.
    pub(super) fn grant(mut self) -> Grant {
        let grant = self.decide();
        for key in &self.keys {
            if let Some(limit) = self.limits.get_mut(key) {
                limit.expect(self.now, self.holder, grant.come_back);
            }
        }
        grant
    }

    fn decide(&mut self) -> Grant {
        let paused = self.all().map(|limit| limit.pause.saturating_sub(self.now)).max().unwrap_or(0);
        if self.keys.is_empty() {
            // It lacks nothing: when it does, it need not wait for a time that was told for this.
            return none(0);
        }
        if paused > 0 {
            return none(paused + self.place());
        }
        if self.all().any(|limit| limit.rows.get(&self.holder).is_some_and(|row| row.owes)) {
            // What it knows comes first; it is asked for it by the same answer.
            return none(0);
        }
        let dry = |limit: &Limit| limit.dry.saturating_sub(self.now).min(self.look(limit));
        if let Some(dry) = self.all().map(dry).max().filter(|&dry| dry > 0) {
            return none(dry + self.place());
        }
        if self.all().any(|limit| limit.needs_scout(self.now)) {
            return self.scout();
        }
        let slow = self.all().any(|limit| self.now < limit.slow_until);
        if slow && self.all().any(|limit| limit.rows.get(&self.holder).is_some_and(|row| row.out() > 0)) {
            return none(self.turn());
        }
        let at_once = self.at_once(if slow { 1 } else { i64::from(u32::MAX) });
        let dated = if slow { Plan::default() } else { self.dated(at_once.permits) };
        let plan = if dated.permits > at_once.permits { dated } else { at_once };
        if plan.permits == 0 {
            return none(self.come_back());
        }
        self.take(plan.permits);
        let come_back = if slow { self.turn() } else { 0 };
        Grant { permits: plan.permits, from: plan.from, gap: plan.gap, scout: false, come_back }
    }

    /// While permits are given one at a time: until the next one for this holder, so that the fleet asks for one each
    /// [`Granting::BEAT`]; no longer than that lasts.
    fn turn(&self) -> Ms {
        let slow = |limit: &Limit| limit.slow_until.saturating_sub(self.now);
        let beat = |limit: &Limit| u64::from(limit.holders(self.now)) * Self::BEAT;
        let rest = self.all().map(|limit| beat(limit).max(limit.trip).min(slow(limit)));
        rest.max().unwrap_or(0) + 2 * self.place()
    }

    fn all(&self) -> impl Iterator<Item = &Limit> {
        self.keys.iter().filter_map(|key| self.limits.get(key))
    }

    fn take(&mut self, permits: u32) {
        let urgent = Class::ALL.into_iter().filter(|class| class.is_urgent());
        let wanted = urgent.map(|class| self.want.now[class.index()]).fold(0, u32::saturating_add);
        for key in &self.keys {
            if let Some(limit) = self.limits.get_mut(key) {
                limit.take(self.now, self.holder, permits, wanted.min(permits));
            }
        }
    }

    /// One attempt alone for the fleet, if nobody has it already.
    fn scout(&mut self) -> Grant {
        let waits = self.want.now.iter().any(|&waiting| waiting > 0);
        if !waits {
            // No scout is spent on a call that may not come; who comes asks at once.
            return none(0);
        }
        if !self.all().all(|limit| self.is_ready(limit, None)) {
            let scouting = self.all().any(|limit| limit.is_scouted(self.now));
            return none(if scouting { self.trip() + self.place() } else { self.all_return(None) });
        }
        for key in &self.keys {
            if let Some(limit) = self.limits.get_mut(key).filter(|limit| limit.needs_scout(self.now)) {
                limit.scout_leaves(self.now, self.holder);
            }
        }
        self.take(1);
        Grant { permits: 1, from: 0, gap: 0, scout: true, come_back: self.trip() }
    }

    /// A limit lets one attempt through, the scout or another; of a class, if one is named.
    fn is_ready(&self, limit: &Limit, class: Option<Class>) -> bool {
        if limit.needs_scout(self.now) {
            limit.may_scout(self.now)
        } else {
            self.rest(limit, self.now, class) >= 1
        }
    }

    /// What is there of a limit at `at`, for a class if one is named.
    fn rest(&self, limit: &Limit, at: At, class: Option<Class>) -> i64 {
        let room = limit.available(self.now, at);
        class.map_or(room, |class| {
            let (leave, fair) = self.leaves(class);
            limit.for_class(self.now, room, leave, fair)
        })
    }

    /// What a class leaves.
    fn leaves(&self, class: Class) -> (u32, bool) {
        (self.want.leave[class.index()], self.want.fair[class.index()])
    }

    /// What each class may take of what is there now, waiting calls first.
    fn at_once(&self, most: i64) -> Plan {
        let (mut part, mut chunk) = (most, most);
        for limit in self.all() {
            let room = limit.available(self.now, self.now);
            let of_limit = limit.chunk(self.now, room);
            chunk = chunk.min(of_limit);
            part = part.min(of_limit.max(self.equal_part(limit).min(room)));
        }
        let mut taken = 0;
        for (place, (class, wanted)) in self.wanted().enumerate() {
            let most = if place < Class::COUNT { part } else { chunk };
            let room = self.room(self.now, class) - taken;
            taken += i64::from(wanted).min(most - taken).min(room).max(0);
        }
        Plan { permits: u32::try_from(taken).unwrap_or(0), from: 0, gap: 0 }
    }

    /// What is everybody's of a quota that comes back all at once. None where strangers draw: what they take meanwhile would be
    /// granted already.
    fn equal_part(&self, limit: &Limit) -> i64 {
        let stepped = limit.is_stepped(self.now) && limit.foreign.rate == 0;
        let quota = limit.rate().filter(|_| stepped).map_or(0, |(quota, _)| quota);
        i64::from(quota / limit.holders(self.now))
    }

    /// Classes with what they want: those that wait, by importance, then what is expected.
    fn wanted(&self) -> impl Iterator<Item = (Class, u32)> {
        let now = Class::ALL.into_iter().map(|class| (class, self.want.now[class.index()]));
        now.chain(Class::ALL.into_iter().map(|class| (class, self.want.soon[class.index()])))
    }

    /// What a class may take at `at` of all limits.
    fn room(&self, at: At, class: Class) -> i64 {
        self.all().map(|limit| self.rest(limit, at, Some(class))).min().unwrap_or(0)
    }

    /// Permits for when attempts come back within the lease; better than `at_once` or nothing.
    fn dated(&self, at_once: u32) -> Plan {
        let lease = self.all().map(Limit::horizon).min().unwrap_or(0);
        let until = self.now + lease;
        let most = |limit: &Limit| {
            let unspent = limit.rows.get(&self.holder).map_or(0, |row| i64::from(row.unspent));
            limit.dated_chunk(self.now, until) - unspent
        };
        let mut most = self.all().map(most).min().unwrap_or(0);
        let mut times = vec![self.now];
        for limit in self.all().filter(|limit| limit.counts_log(self.now)) {
            if let Some((_, window)) = limit.rate() {
                times.extend(limit.log.returns(self.now, until, window));
            }
        }
        times.sort_unstable();
        times.dedup();
        // When each further permit is there: (how many by then, since when), ascending.
        let mut steps: Vec<(i64, Ms)> = Vec::new();
        let mut taken = 0;
        let mut place = 0;
        for (class, wanted) in self.wanted() {
            let mut rest = i64::from(wanted).min(most);
            while rest > 0 && place < times.len() {
                let there = (self.room(times[place], class) - taken).min(rest);
                if there > 0 {
                    (taken, rest, most) = (taken + there, rest - there, most - there);
                    steps.push((taken, times[place] - self.now));
                }
                if rest > 0 {
                    place += 1;
                }
            }
            // Further back nothing is there for this class; a less important one has no more.
            if place == times.len() {
                break;
            }
        }
        let Some(&(_, first)) = steps.first() else { return Plan::default() };
        let line = line(&steps, first, lease);
        let (count, last) = steps.last().map_or((0, 0), |&(count, at)| (small(count), at));
        // Where all comes back at once and late, a line from the first would be far too flat; but of many at one moment many
        // would be refused where strangers come just before.
        let alone = self.all().all(|limit| limit.foreign.rate == 0);
        if alone && at_once == 0 && count > 2 * line.permits {
            Plan { permits: count, from: last, gap: 0 }
        } else {
            line
        }
    }

    /// How long a scout takes.
    fn trip(&self) -> Ms {
        self.all().map(|limit| limit.trip).max().unwrap_or(0)
    }

    /// The holder's place among all, in milliseconds, so that they do not return together.
    fn place(&self) -> Ms {
        self.all().map(|limit| limit.turn_of(self.now, self.holder)).max().unwrap_or(0)
    }

    /// When something is there again for a class that wants it, if nobody gives anything back before.
    fn come_back(&self) -> Ms {
        let waits = self.want.now.iter().any(|&waiting| waiting > 0);
        let wanted = if waits { &self.want.now } else { &self.want.soon };
        let classes = Class::ALL.into_iter().filter(|class| wanted[class.index()] > 0);
        classes.map(|class| self.all_return(Some(class))).min().unwrap_or_else(|| self.all_return(None))
    }

    /// When something is there again of all limits.
    fn all_return(&self, class: Option<Class>) -> Ms {
        self.all().map(|limit| self.returns(limit, class)).max().unwrap_or(0)
    }

    /// Until when a class leaves what is there to others of this epoch.
    fn left_until(&self, limit: &Limit, class: Option<Class>) -> Ms {
        let there = class.is_some() && limit.available(self.now, self.now) >= 1;
        let ends = limit.ends.filter(|_| there && limit.is_stepped(self.now));
        ends.map_or(0, |(_, up)| up.saturating_sub(self.now))
    }

    /// A fair class leaves less and less until the epoch ends, one permit after the other: when it is this holder's turn for one of
    /// them. Of more holders than permits several come for each, because not all of them have calls that wait.
    fn is_left_less(&self, limit: &Limit, class: Option<Class>, place: u64) -> Option<Ms> {
        let (leave, _) = class.map(|class| self.leaves(class)).filter(|&(_, fair)| fair)?;
        let left = self.left_until(limit, class);
        let spare = limit.available(self.now, self.now) - 1 - i64::from(leave);
        let spare = u64::try_from(spare).ok().filter(|_| left > 0)?;
        let (turns, behind) = (spare + 1, limit.forecast_of(spare - place % (spare + 1)));
        Some((left.saturating_sub(behind).max(1) + place / turns).min(self.look(limit)))
    }

    /// Those who wait look again after so long, because the quota itself may have become another: so that they are few together.
    fn look(&self, limit: &Limit) -> Ms {
        limit.lease().max(u64::from(limit.holders(self.now)) * Self::LOOK)
    }

    fn returns(&self, limit: &Limit, class: Option<Class>) -> Ms {
        let lease = limit.lease();
        let place = limit.turn_of(self.now, self.holder);
        let Some((quota, window)) = limit.rate() else { return limit.trip + place };
        if self.is_ready(limit, class) {
            // Another limit of the ask is what stops it.
            return 0;
        }
        if let Some(wait) = self.is_left_less(limit, class, place) {
            return wait;
        }
        // Others may give back what they do not use, when it is void: a few look for it, not all.
        let unspent = limit.rows.values().fold(0, |sum, row| sum + u64::from(row.unspent));
        let look = self.look(limit);
        let given_back = if place * Self::KEPT < unspent { lease } else { look };
        let barred = limit.is_barred(self.now);
        if !barred && limit.is_stepped(self.now) && self.rest(limit, self.now + window, class) < 1 {
            // Else the epoch must end.
            let refill = limit.refill_at().unwrap_or(self.now).saturating_sub(self.now);
            let refill = if refill == 0 { self.left_until(limit, class) } else { refill };
            if refill == 0 || given_back < refill {
                return refill.min(given_back) + limit.trip + 2 * place;
            }
            // Of more holders than permits each sits out epochs in which others come before it.
            let sits =
                |&sat: &u64| limit.place_in(self.now, self.holder, limit.epoch + 1 + sat) >= u64::from(quota);
            let sat = (0..Limit::SAT_OUT - 1).take_while(sits).count() as u64;
            let place = limit.place_in(self.now, self.holder, limit.epoch + 1 + sat);
            let wait = (refill + sat * window).min(look.max(refill));
            // One comes when the scout is due, the others when it is back.
            return if place == 0 && sat == 0 { wait } else { wait + limit.trip + 2 * place };
        }
        let back = limit.log.returns(self.now, self.now + window, window);
        // A scout that is barred by the log goes when that gives back.
        let there = |at| if barred { limit.by_log(at) } else { self.rest(limit, at, class) };
        let first = back.into_iter().find(|&at| there(at) >= 1);
        let wait = first.map_or(lease, |at| at - self.now).min(given_back);
        // Also those far behind: the quota of which so many windows would be waited for may be another by then.
        let wait = (wait + place * (window / u64::from(quota.max(1)))).min(look + place);
        // Those who still owe what they know tell it within a second, and it is there.
        if limit.is_probed(self.now, window) { wait.min(Limit::SHORT_LEASE + place) } else { wait }
    }
}

/// The steepest straight line from `first` on which no permit is used before its step, cut at the lease.
fn line(steps: &[(i64, Ms)], first: Ms, lease: Ms) -> Plan {
    let mut before = 0;
    let mut gap = 0;
    for &(count, at) in steps {
        // The permit after `before` others is the first of this step.
        if before > 0 {
            gap = gap.max((at - first).div_ceil(u64::try_from(before).unwrap_or(1)));
        }
        before = count;
    }
    let all = u64::try_from(before).unwrap_or(0);
    let fit = (lease - first).checked_div(gap).map_or(all, |fit| all.min(fit + 1));
    Plan { permits: u32::try_from(fit).unwrap_or(u32::MAX), from: first, gap }
}

fn none(come_back: Ms) -> Grant {
    Grant { permits: 0, from: 0, gap: 0, scout: false, come_back }
}

fn small(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(0)
}
