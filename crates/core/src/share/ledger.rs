//! One bank's state in a store.
//!
//! The reference of the arithmetic: whole numbers only, so that a script in another language gives the same answers.
//! [`Ledger::exchange`] is all that changes it, in this order:
//!
//! 1. time passes for what the exchange names: what nobody needs is forgotten, silent holders are given up;
//! 2. the holder's report is merged, limit by limit;
//! 3. its asks are answered one after the other;
//! 4. doors are merged and answered;
//! 5. the answer is kept for a repetition of the same exchange.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::share::door::Door;
use crate::share::grant::Granting;
use crate::share::hex;
use crate::share::limit::Limit;
use crate::share::wire::{
    At, DoorReply, DoorSide, Exchange, Grant, HolderId, LimitKey, LimitView, Ms, PROTOCOL, Reply, Unanswered,
};

/// One bank's state.
///
/// ```
/// use tidegate_core::share::{Exchange, HolderId, Kind, Ledger, LimitKey, LimitSide, PROTOCOL, Refill, Terms, Want};
///
/// let mut ledger = Ledger::new(1_000, 42);
/// let users = LimitSide {
///     key: LimitKey::of(&["users"]),
///     name: "users".to_owned(),
///     partition: String::new(),
///     terms: Terms {
///         kind: Kind::Rate { quota: 300, window: 60_000, told: false },
///         rule: Refill::Log,
///         proven: false,
///         pinned: false,
///         assumed: false,
///     },
///     generation: 0,
///     unspent: 0,
///     in_flight: 0,
///     told: 0,
///     told_unseen: 0,
///     ended: Vec::new(),
///     seen: None,
///     refused: None,
///     scouted: None,
///     recall: None,
/// };
/// let want = Want { limits: vec![0], now: [5, 0, 0, 0], soon: [0; 4], leave: [0; 4], fair: [false; 4] };
/// let said = Exchange {
///     protocol: PROTOCOL,
///     holder: HolderId(7),
///     seq: 1,
///     incarnation: None,
///     salt: 0,
///     slack: 2,
///     heard: None,
///     answered: 0,
///     limits: vec![users],
///     asks: vec![want],
///     doors: Vec::new(),
///     leaves: false,
/// };
/// let reply = ledger.exchange(1_005, &said).unwrap();
/// assert!(reply.grants[0].scout, "nothing is known yet: one attempt alone");
/// assert_eq!(ledger.exchange(1_009, &said).unwrap(), reply, "said again, answered the same");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    protocol: u16,
    #[serde(with = "hex::number")]
    incarnation: u64,
    /// When it began.
    born: At,
    /// The latest instant it has seen.
    at: At,
    /// The latest time without any exchange that was longer than [`Ledger::LEAP`]: its clock may have been set then.
    gap: Option<(At, At)>,
    holders: BTreeMap<HolderId, Holder>,
    limits: BTreeMap<LimitKey, Limit>,
    doors: BTreeMap<LimitKey, Door>,
}

/// Who spoke, and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    seq: u64,
    at: At,
    /// It said its last word, or fell silent with permits out and was given up: none of the fleet until it speaks again. Its number is
    /// kept all the same, because one that was only stopped would otherwise take the state for lost, and a last word that is said again,
    /// or what it overtook, would be taken for a word to a state that was.
    gone: bool,
    reply: Reply,
}

/// What shows at the beginning of an exchange of the state before it.
#[derive(Clone, Copy)]
struct Before {
    /// Since when nobody had spoken.
    silent: Ms,
    /// It is older than what the holder was answered.
    older: bool,
}

impl Ledger {
    /// A holder is remembered for so long after its last exchange, and counts as one of the fleet unless it was given up: who lives
    /// says a word in that time even if nothing happens, and of a small fleet two.
    const REMEMBERED: Ms = 90_000;

    /// A clock may run back by so much: servers that take over from one another differ.
    const STEADY: Ms = 1_000;
    /// An exchange is not on its way for longer, and a store not stopped: the clock was set.
    const LEAP: Ms = 10_000;

    /// An empty state: nothing is known. `salt` names its life.
    pub fn new(now: At, salt: u64) -> Self {
        Self {
            protocol: PROTOCOL,
            incarnation: salt,
            born: now,
            at: now,
            gap: None,
            holders: BTreeMap::new(),
            limits: BTreeMap::new(),
            doors: BTreeMap::new(),
        }
    }

    /// Hears what a holder says and answers it. `now` may stand still; where it runs back by less than a second, no time has
    /// passed. A clock that was set begins a new life of the state, because all that is dated by it is worth nothing.
    ///
    /// # Errors
    /// [`Unanswered`]. Another protocol changes nothing. An exchange that was overtaken grants and merges nothing; but time has passed
    /// by it: what is over is forgotten, and where the clock was set a new life has begun.
    pub fn exchange(&mut self, now: At, said: &Exchange) -> Result<Reply, Unanswered> {
        if said.protocol != self.protocol {
            return Err(Unanswered::Protocol { found: self.protocol, known: said.protocol });
        }
        if now > self.at + Self::LEAP {
            self.gap = Some((self.at, now));
        }
        if self.clock_was_set(now, said) {
            *self = Self::new(now, said.salt);
        }
        let now = now.max(self.at);
        let silent = now - self.at;
        self.at = now;
        self.holders.retain(|_, holder| holder.at + Self::REMEMBERED > now);
        self.limits.retain(|_, limit| limit.expires > now);
        self.doors.retain(|_, door| door.expires() > now);
        let before = self.holders.get(&said.holder);
        let knew_seq = before.map_or(0, |holder| holder.seq);
        if let Some(holder) = before.filter(|holder| holder.seq >= said.seq) {
            return if holder.seq == said.seq { Ok(holder.reply.clone()) } else { Err(Unanswered::Stale) };
        }
        let slack = self.slack(now, said);
        let before = Before { silent, older: self.is_older(said) };
        self.hear(now, slack, said, before);
        let mut reply = Reply {
            incarnation: self.incarnation,
            knew_seq,
            holders: self.fleet(said),
            limits: Vec::new(),
            grants: self.grant(now, said),
            doors: self.doors(now, slack, said),
        };
        for side in &said.limits {
            let limit = self.limits.get_mut(&side.key).expect("it was just heard");
            limit.keep(now);
            let recall = limit.rows.get(&said.holder).is_some_and(|row| row.owes);
            reply.limits.push(limit.reply(now, recall));
        }
        if said.leaves {
            for side in &said.limits {
                self.limits.get_mut(&side.key).expect("it was just heard").leave(said.holder);
            }
        }
        let holder = Holder { seq: said.seq, at: now, gone: said.leaves, reply: reply.clone() };
        self.holders.insert(said.holder, holder);
        Ok(reply)
    }

    /// By more than a second back; or ahead by more than [`Ledger::LEAP`], which shows where the time since the holder's last
    /// answer is much longer here than for the holder; state that is older than that shows alike, and is given up as well.
    /// Nobody spoke while a clock leapt, so a holder whose own clock stood still while others spoke proves nothing.
    fn clock_was_set(&self, now: At, said: &Exchange) -> bool {
        if now + Self::STEADY < self.at {
            return true;
        }
        let Some(((from, to), heard)) = self.gap.zip(said.heard) else { return false };
        match self.holders.get(&said.holder) {
            Some(before) => {
                before.at <= from && now.saturating_sub(before.at) > heard.saturating_add(Self::LEAP)
            }
            // It was answered by this life, after the gap had begun for it, and would be remembered.
            None => {
                said.incarnation == Some(self.incarnation)
                    && now.saturating_sub(to) <= heard
                    && heard.saturating_add(Self::LEAP) < Self::REMEMBERED
            }
        }
    }

    /// It has forgotten an exchange of this life that it answered: the holder's last one, and maybe others' too.
    fn is_older(&self, said: &Exchange) -> bool {
        let known = self.holders.get(&said.holder).map(|holder| holder.seq);
        let remembered = |heard: Ms| heard.saturating_add(Self::LEAP) < Self::REMEMBERED;
        said.incarnation == Some(self.incarnation)
            && said.answered > known.unwrap_or(0)
            && (known.is_some() || said.heard.is_some_and(remembered))
    }

    /// How long the exchange may have been on its way: no longer than since the answer before, less the time that the holder
    /// says has passed since it heard that; and what whole milliseconds may hide.
    fn slack(&self, now: At, said: &Exchange) -> Ms {
        let answered = self.holders.get(&said.holder).map(|holder| holder.at);
        let known =
            answered.zip(said.heard).map_or(0, |(at, heard)| now.saturating_sub(at).saturating_sub(heard));
        known.max(said.slack).saturating_add(2)
    }

    fn hear(&mut self, now: At, slack: Ms, said: &Exchange, before: Before) {
        let another = said.incarnation.is_some_and(|life| life != self.incarnation);
        let spoke = self.holders.get(&said.holder).map(|holder| holder.at);
        let careful = self.born + Limit::CAREFUL;
        for side in &said.limits {
            let limit = self.limits.entry(side.key).or_insert_with(|| Limit::new(now, side, careful));
            // Who spoke while this limit was here has told it what it knew, also if it was given up since.
            let forgotten = side.told > 0 && spoke.is_none_or(|at| at < limit.born);
            let bereft = another || forgotten;
            limit.roll(now);
            limit.notice_loss(now, said.holder, side, before.older);
            limit.doubt(now, before.silent);
            for holder in limit.reap(now, said.holder) {
                if let Some(holder) = self.holders.get_mut(&holder) {
                    holder.gone = true;
                }
            }
            limit.hear(now, said.holder, slack, side, bereft);
        }
    }

    fn grant(&mut self, now: At, said: &Exchange) -> Vec<Grant> {
        let limits = &mut self.limits;
        let answer = |want| {
            let keys = Granting::keys(said, want);
            Granting { now, holder: said.holder, want, keys, limits: &mut *limits }.grant()
        };
        said.asks.iter().map(answer).collect()
    }

    fn doors(&mut self, now: At, slack: Ms, said: &Exchange) -> Vec<DoorReply> {
        let doors = &mut self.doors;
        let answer = |side: &DoorSide| {
            let door = doors.entry(side.key).or_default();
            door.hear(now, slack, said.holder, side)
        };
        let replies = said.doors.iter().map(answer).collect();
        doors.retain(|_, door| door.expires() > now);
        replies
    }

    /// Holders that are remembered and were not given up, with the one that speaks now.
    fn fleet(&self, said: &Exchange) -> u32 {
        let counts = |&(&holder, known): &(&HolderId, &Holder)| holder != said.holder && !known.gone;
        let others = self.holders.iter().filter(counts).count();
        u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// From then on the state may be dropped: nothing in it holds any more.
    pub fn expires(&self) -> At {
        let limits = self.limits.values().map(|limit| limit.expires);
        let doors = self.doors.values().map(Door::expires);
        let holders = self.holders.values().map(|holder| holder.at + Self::REMEMBERED);
        limits.chain(doors).chain(holders).max().unwrap_or(self.at)
    }

    /// Protocol of the state.
    pub fn protocol(&self) -> u16 {
        self.protocol
    }

    /// What is known of each limit, for people.
    pub fn view(&self, now: At) -> Vec<LimitView> {
        let now = now.max(self.at);
        self.limits.values().filter(|limit| limit.expires > now).map(|limit| limit.view(now)).collect()
    }
}
