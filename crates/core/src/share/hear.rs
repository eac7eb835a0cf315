//! What a holder's report does to a limit.
//!
//! Ages become instants of the store: an ending is dated `now − age`, which is late by the time the report took, and a
//! sending `now − age − slack`, which is early by what is left of the slack. Both errors make less available.
//!
//! Whatever ended is spent until a certificate includes it: an attempt whose holder's certificate is not taken, because it
//! belongs to an epoch that is over, counts beside the level like one that ended without any.

use crate::share::limit::{Limit, Row};
use crate::share::wire::{At, HolderId, Kind, LimitSide, Ms, Recall, Refill, Sight, Terms};

/// When somebody who said other terms that weigh as much has fallen silent, these count.
const TERMS_LIFE: Ms = 10_000;

/// What a configuration declared in vain is told for so long: as long as a process is remembered.
const OTHER_LIFE: Ms = 60_000;

/// Nothing is kept away for longer, whatever somebody says.
const LONGEST: Ms = 86_400_000;

/// A holder's certificate in the store's time.
struct Seen {
    sent: At,
    left: Vec<(At, u32)>,
    ends: Option<(At, At)>,
    scout_at: Option<At>,
}

impl Seen {
    fn new(now: At, slack: Ms, sight: &Sight) -> Self {
        let after = |time: Ms| now.saturating_add(time.min(LONGEST));
        let from_now =
            |time: i64| now.saturating_add_signed(time.clamp(-LONGEST.cast_signed(), LONGEST.cast_signed()));
        Self {
            sent: now.saturating_sub(sight.latest_sent).saturating_sub(slack),
            left: sight.left.iter().map(|&(age, left)| (ended(now, age), left)).collect(),
            ends: sight.ends.map(|(lo, up)| (from_now(lo.min(up)).saturating_sub(slack), from_now(up))),
            scout_at: sight.scout_in.map(after),
        }
    }

    fn lowest(&self) -> u32 {
        self.left.iter().map(|&(_, left)| left).min().unwrap_or(0)
    }

    /// When the newest answer came.
    fn answered(&self) -> At {
        self.left.iter().map(|&(answered, _)| answered).max().unwrap_or(0)
    }
}

/// When something of this age was, at the latest: the parts of milliseconds that were left off add up to one.
fn ended(now: At, age: Ms) -> At {
    now.saturating_sub(age) + 1
}

/// Where a certificate belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Belongs {
    Here,
    /// To the next epoch, which begins with it.
    Next,
    /// To one that is over.
    Past,
}

impl Limit {
    /// A holder told of this limit. `bereft`: what it told before is lost, with the state or with the limit.
    pub(super) fn hear(&mut self, now: At, holder: HolderId, slack: Ms, side: &LimitSide, bereft: bool) {
        self.hear_terms(now, &side.terms, side.seen.as_ref());
        let knew_all = self.rows.get(&holder).is_none_or(|row| row.all >= side.told);
        let new = self.hear_row(now, holder, side, bereft);
        self.hear_recall(now, holder, side.recall.as_ref());
        let refused = side.refused.as_ref();
        let certified: u32 = new.iter().map(|&(_, seen, _)| seen).sum();
        let told = self.is_told() && side.seen.as_ref().is_some_and(|sight| self.see(now, slack, sight));
        for &(at, seen, unseen) in &new {
            self.seen.lost(at, if told { unseen } else { seen + unseen });
        }
        if told {
            self.own = self.own.saturating_add(u64::from(certified));
        }
        if let Some(refusal) = refused {
            let sent = now.saturating_sub(refusal.sent).saturating_sub(slack);
            self.refuse(now, sent, refusal.stay_away.min(LONGEST), refusal.blames_quota);
        }
        if let Some(age) = side.scouted {
            self.hear_scout(now, holder, ended(now, age), refused.is_some());
        }
        if side.unspent == 0 && side.in_flight == 0 && new.is_empty() && knew_all {
            // A scout that it had was not sent, and never will be. An ending that an older state does not know may be the scout's.
            self.scouts.retain(|&(scout, _)| scout != holder);
        }
    }

    /// What it is held to be: a pinned number goes before a told one, that before one of a configuration or of the upstream's
    /// listing, and that before a profile's, which is all that a process knows until it has read the listing. Who waits for the end of a
    /// window says nothing until then, so a word that weighs less replaces another only if that was not said for longer; and who
    /// knows nothing replaces nothing.
    fn hear_terms(&mut self, now: At, said: &Terms, seen: Option<&Sight>) {
        let (old, new) = (rank(&self.terms), rank(said));
        let same = self.terms.kind == said.kind;
        let forgotten = self.said + TERMS_LIFE <= now;
        let newer = seen.is_some_and(|sight| now.saturating_sub(sight.latest_sent) >= self.seen.latest_sent);
        let replaces = match (self.terms.kind, said.kind) {
            _ if new != old => new > old || (new > 0 && self.is_outlived(now)),
            _ if old == TOLD => newer,
            (Kind::Rate { .. }, Kind::Rate { .. }) => is_slower(said.kind, self.terms.kind) || forgotten,
            (Kind::Cap { cap: ours }, Kind::Cap { cap: theirs }) => theirs < ours || forgotten,
            _ => forgotten,
        };
        let both = is_declared(old) && is_declared(new) || (old, new) == (ASSUMED, ASSUMED);
        if !same && both && !(replaces && forgotten) {
            self.other = Some((if replaces { self.terms.kind } else { said.kind }, now));
        }
        if replaces || same && old == new {
            (self.terms.kind, self.terms.pinned, self.terms.assumed) = (said.kind, said.pinned, said.assumed);
            self.said = now;
        }
        if self.settled || new < rank(&self.terms) {
            // Who knows less of the quota knows nothing of how it comes back either.
            return;
        }
        if replaces && new == TOLD && old < TOLD {
            // What was declared says nothing of how a told quota comes back.
            (self.terms.rule, self.terms.proven) = (said.rule, said.proven);
            return;
        }
        // Between words that weigh the same, the rule that gives back later.
        if said.proven && !self.terms.proven {
            (self.terms.rule, self.terms.proven) = (said.rule, true);
        } else if said.proven == self.terms.proven {
            self.terms.rule = self.terms.rule.max(said.rule);
        }
    }

    /// Nobody has said these terms for two windows, in which whoever draws from them spoke.
    fn is_outlived(&self, now: At) -> bool {
        let windows = 2 * self.rate().map_or(0, |(_, window)| window);
        self.said.saturating_add(windows.max(TERMS_LIFE)) <= now
    }

    /// What another configuration declared in vain of late.
    pub(super) fn other(&self, now: At) -> Option<Kind> {
        let (kind, said) = self.other?;
        (said + OTHER_LIFE > now && kind != self.terms.kind).then_some(kind)
    }

    /// What it has, and what ended since it last told: (when, certified, not certified).
    fn hear_row(&mut self, now: At, holder: HolderId, side: &LimitSide, bereft: bool) -> Vec<(At, u32, u32)> {
        let window = self.rate().map(|(_, window)| window);
        // What was told before this limit was here is forgotten, and may still count with the server.
        let owes = bereft && self.born + window.unwrap_or(0) > now;
        let fresh =
            Row { all: side.told, unseen: side.told_unseen, owes, losses: self.losses, ..Row::default() };
        if owes && !self.rows.contains_key(&holder) {
            // What others saw last is forgotten too: only what the server says from now on counts. Where it says nothing, the first
            // who tells of the loss makes a scout necessary; who comes later lets no other go, because that one's word still holds.
            if self.seen.latest_sent <= self.born && (self.is_told() || self.missed == 0) {
                self.shut = Some(self.born);
            }
            self.slow_until = self.slow_until.max(self.born + self.slow());
        }
        if !bereft && side.told > 0 && !self.rows.contains_key(&holder) {
            self.departed = self.departed.saturating_sub(1);
        }
        let until = now + self.silence();
        let row = self.rows.entry(holder).or_insert(fresh);
        // A gate that was forgotten and made anew counts from zero again, under the same holder; words that were overtaken are not
        // heard at all.
        if side.ended.last().map_or(side.told, |group| group.all) < row.all {
            (row.all, row.unseen) = (side.told, side.told_unseen);
        }
        (row.until, row.losses) = (until, self.losses);
        (row.unspent, row.in_flight) = (side.unspent, side.in_flight);
        let mut new = Vec::new();
        // What was told to a state that has lost it since ended no later than what is told now.
        let age = side.ended.first().map_or(0, |group| group.age);
        let lost = (age, side.told, side.told_unseen);
        let groups = side.ended.iter().map(|group| (group.age, group.all, group.unseen));
        for (age, all, unseen) in std::iter::once(lost).chain(groups) {
            let count = small(all.saturating_sub(row.all));
            let uncertified = small(unseen.saturating_sub(row.unseen)).min(count);
            row.all = row.all.max(all);
            row.unseen = row.unseen.max(unseen);
            if count > 0 {
                let at = ended(now, age);
                if let Some(window) = window {
                    self.log.add(at, count, window);
                }
                new.push((at, count - uncertified, uncertified));
            }
        }
        new
    }

    /// What it knew before the state was lost.
    fn hear_recall(&mut self, now: At, holder: HolderId, recall: Option<&Recall>) {
        let Some(recall) = recall else { return };
        let row = self.rows.get_mut(&holder).expect("it was just heard");
        if !std::mem::take(&mut row.owes) {
            return;
        }
        if let Some((_, window)) = self.rate() {
            for &(age, count) in &recall.log {
                self.log.add(ended(now, age), count, window);
            }
        }
        self.generation = self.generation.max(recall.generation);
        self.missed = self.missed.max(recall.holders).max(1);
        if let Some((_, window)) = self.rate().filter(|_| self.seen.latest_sent <= self.born) {
            let over = now.saturating_add(recall.dry).min(self.born + window);
            self.dry = self.dry.max(over);
        }
        let share = recall.share.clamp(1, 1_000);
        if share < self.share {
            (self.share, self.clean_since) = (share, now);
        }
    }

    /// Takes a certificate, unless it belongs to an epoch that is over.
    fn see(&mut self, now: At, slack: Ms, sight: &Sight) -> bool {
        let Some((quota, window)) = self.rate() else { return false };
        let mut seen = Seen::new(now, slack, sight);
        let belongs = match seen.ends {
            Some(ends) if self.is_stepped(now) => self.place(&seen, ends, slack, window),
            _ => Belongs::Here,
        };
        match belongs {
            Belongs::Past => return false,
            Belongs::Next => self.turn(now, &seen, quota, window),
            Belongs::Here => self.judge(now, &seen, window),
        }
        if !self.is_stepped(now) {
            self.measure(now, &seen, quota, window);
            // What came back since it was answered.
            let error = self.error(now, window);
            for (answered, left) in &mut seen.left {
                let back = self.log.back(*answered + error, now, window);
                *left = small(u64::from(*left).saturating_add(back)).min(quota);
            }
        }
        self.anchor(now, &seen, belongs, window);
        self.seen.merge(seen.sent, &seen.left);
        if self.shut.is_some_and(|since| seen.sent > since || since == 0) {
            self.shut = None;
        }
        if seen.sent > self.born && seen.lowest() > 0 {
            self.dry = 0;
        }
        true
    }

    /// Where a certificate with these ends belongs, while refill is in steps.
    fn place(&self, seen: &Seen, (lo, up): (At, At), slack: Ms, window: Ms) -> Belongs {
        let Some((ours_lo, ours_up)) = self.ends else { return Belongs::Here };
        let tolerance = Self::tolerance(window);
        if lo > ours_up + tolerance {
            // An attempt that left before the old end may still have been counted before it: not a beginning.
            return if seen.sent + slack >= ours_lo { Belongs::Next } else { Belongs::Past };
        }
        if up + tolerance < ours_lo { Belongs::Past } else { Belongs::Here }
    }

    /// The next epoch begins.
    fn turn(&mut self, now: At, seen: &Seen, quota: u32, window: Ms) {
        // A log would still hold what ended within the window before, for certain.
        let error = (window / 8).max(self.error(now, window));
        let held = self.log.alive(seen.answered() + error, window);
        let by_log = u64::from(quota).saturating_sub(held);
        let notable = u64::from(quota / 16).max(2);
        let left = u64::from(seen.lowest());
        if left > by_log + notable {
            self.steps += 1;
        } else if held >= u64::from(quota / 4).max(2) {
            self.logs += 1;
        }
        match (self.settled, self.steps, self.logs) {
            (true, ..) => {}
            (_, _, 2..) => self.settle(Refill::Log),
            (_, 2.., _) => self.settle(Refill::Step),
            _ => {}
        }
        // The first epoch was not seen to begin: nobody knows what of it was ours.
        if let Some(level) = self.seen.level().filter(|_| self.epoch > 1) {
            let ours = u64::from(level) + self.own + self.seen.unseen() + small_out(self.out());
            self.foreign.measure(now, u64::from(quota).saturating_sub(ours), window);
        }
        self.epoch += 1;
        (self.own, self.scout_at, self.vain) = (0, None, false);
        self.seen.void();
    }

    /// Looks for proofs that refill is not in steps: more left before the end, or an end that moves.
    fn judge(&mut self, now: At, seen: &Seen, window: Ms) {
        if !self.is_stepped(now) {
            return;
        }
        let early = self.ends.is_some_and(|(lo, _)| seen.answered() < lo);
        let moved = self.ends.is_some() && seen.ends.is_some_and(|(lo, _)| lo > self.promised + window / 32);
        if moved || (early && self.seen.rises(seen.sent, &seen.left)) {
            self.settle(Refill::Log);
        }
    }

    fn settle(&mut self, rule: Refill) {
        self.terms.rule = rule;
        (self.terms.proven, self.settled) = (true, true);
    }

    /// Keeps when the epoch ends: what all agree on, within an epoch.
    fn anchor(&mut self, now: At, seen: &Seen, belongs: Belongs, window: Ms) {
        let Some((lo, up)) = seen.ends else { return };
        let far = up > now.saturating_add(2 * window + 3_000);
        if far {
            return;
        }
        self.ends = match self.ends.filter(|_| belongs == Belongs::Here && self.is_stepped(now)) {
            Some((ours_lo, ours_up)) if lo.max(ours_lo) <= up.min(ours_up) => {
                Some((lo.max(ours_lo), up.min(ours_up)))
            }
            // Nothing fits both: the later is safe.
            Some((ours_lo, ours_up)) => Some(if lo > ours_lo { (lo, up) } else { (ours_lo, ours_up) }),
            None => {
                self.promised = up;
                Some((lo, up))
            }
        };
        self.promised = self.promised.min(up);
        if let Some(best) = seen.scout_at {
            self.scout_at = Some(self.scout_at.map_or(best, |ours| ours.min(best)));
        }
    }

    /// What strangers have in a log: what is missing and not ours.
    fn measure(&mut self, now: At, seen: &Seen, quota: u32, window: Ms) {
        // Before the state is a window old it does not know what was ours.
        let young = now < self.born + window;
        if young || !self.foreign.is_due(now, (window / 8).max(1)) || seen.left.is_empty() {
            return;
        }
        let ours = self.log.alive(seen.answered(), window) + small_out(self.out());
        let missing = u64::from(quota).saturating_sub(u64::from(seen.lowest()));
        self.foreign.measure(now, missing.saturating_sub(ours), window);
    }

    /// The scout that left then, at the latest, has ended: whatever was granted to its holder before is back, however late.
    fn hear_scout(&mut self, now: At, holder: HolderId, left: At, refused: bool) {
        let back = |&(scout, since): &(HolderId, At)| scout == holder && left >= since;
        let Some((_, since)) = self.scouts.iter().copied().rfind(back) else { return };
        self.trip = ((3 * self.trip + now.saturating_sub(since)) / 4).clamp(10, 1_000);
        self.scouts.retain(|scout| !back(scout));
        self.end_scout(now, since);
        if !refused && !self.is_told() {
            self.shut = None;
        }
    }
}

/// What a profile takes for usual.
const ASSUMED: u8 = 1;
/// What a configuration declares, or the upstream lists. Both may be wrong, a listing that is not read yet cannot correct a
/// configuration, and so neither goes before the other.
const DECLARED: u8 = 2;
/// What headers tell.
const TOLD: u8 = 3;
/// What an operator has pinned.
const PINNED: u8 = 4;

/// How much words about a limit weigh.
fn rank(terms: &Terms) -> u8 {
    match terms.kind {
        Kind::Unknown => 0,
        _ if terms.pinned => PINNED,
        Kind::Rate { told: true, .. } => TOLD,
        _ if terms.assumed => ASSUMED,
        Kind::Rate { .. } | Kind::Cap { .. } => DECLARED,
    }
}

/// Whether one rate is less than another: by what it gives in a time, and where that is the same, at once. 500 per minute is less
/// than 10 per second.
fn is_slower(one: Kind, other: Kind) -> bool {
    let (Kind::Rate { quota, window, .. }, Kind::Rate { quota: others, window: theirs, .. }) = (one, other)
    else {
        return false;
    };
    let product = |quota: u32, window: Ms| u128::from(quota) * u128::from(window.max(1));
    (product(quota, theirs), quota) < (product(others, window), others)
}

/// Such words come from a configuration, or from the upstream's listing.
fn is_declared(rank: u8) -> bool {
    matches!(rank, DECLARED | PINNED)
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn small_out(out: i64) -> u64 {
    u64::try_from(out).unwrap_or(0)
}
