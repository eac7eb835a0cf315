//! What crosses the wire: the one operation, its request and its answer.
//!
//! Only durations and ages cross it. A holder reads its own monotonic clock, the store reads its own, and neither ever
//! compares an instant of one with an instant of the other, so wall clocks change no decision.
//!
//! Everything a holder says is absolute ("I have") or cumulative ("in all so many have ended"), never a difference. What
//! was lost on the way is said again by the next exchange, and what arrives twice counts once.
//!
//! Instants and durations are whole milliseconds and fit 13 digits, so that Rust, Lua, JSON and a database number hold
//! them exactly; identifiers are hexadecimal text.

use std::fmt;

use http::Uri;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::schedule::Class;
use crate::share::hex;

/// Version of the state and of the arithmetic. It is stored with every bank, and another one is refused with both named.
pub const PROTOCOL: u16 = 3;

/// A duration or an age in milliseconds.
pub type Ms = u64;

/// An instant of the store's own clock, in milliseconds since an origin of the store's choice.
pub type At = u64;

/// What stands for one bank in a store.
///
/// Its text is the hash tag of the bank's keys, so that a bank lies in one slot of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BankKey(#[serde(with = "hex::bytes")] pub [u8; 12]);

impl BankKey {
    /// The key of a tenant on an API: two programs share a quota if both name the same API and tenant. An API is the same however
    /// its URL is spelt (RFC 3986, sections 6.2.2.1 and 6.2.3): letter case of scheme and host, the scheme's own port, and slashes
    /// at the end tell nothing.
    ///
    /// ```
    /// use tidegate_core::share::BankKey;
    ///
    /// let key = BankKey::of("https://api.mypurecloud.com", "acme");
    /// assert_eq!(key, BankKey::of("https://api.mypurecloud.com", "acme"));
    /// assert_eq!(key, BankKey::of("HTTPS://API.mypurecloud.com:443/", "acme"));
    /// assert_ne!(key, BankKey::of("https://api.mypurecloud.co", "macme"));
    /// assert_eq!(key.to_string().len(), 24);
    /// ```
    pub fn of(api: &str, tenant: &str) -> Self {
        Self(digest(&["bank", &one_spelling(api), tenant]))
    }
}

/// An API's URL in the one form that stands for all of its spellings. What is no URL stands for itself.
fn one_spelling(api: &str) -> String {
    let Ok(url) = api.parse::<Uri>() else { return api.to_owned() };
    let (Some(scheme), Some(host)) = (url.scheme_str(), url.host()) else { return api.to_owned() };
    // The library lowers the scheme itself.
    let port = match (scheme, url.port_u16()) {
        ("https", Some(443)) | ("http", Some(80)) | (_, None) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    let host = host.to_ascii_lowercase();
    format!("{scheme}://{host}{port}{}", url.path().trim_end_matches('/'))
}

impl fmt::Display for BankKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

/// What stands for one limit, or for one family's breaker, in a bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitKey(#[serde(with = "hex::bytes")] pub [u8; 8]);

impl LimitKey {
    /// The key of what `parts` name together: a limit's name and the partition it counts for.
    pub fn of(parts: &[&str]) -> Self {
        Self(digest(parts))
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

/// The beginning of SHA-256 over the parts, each with its length before it.
fn digest<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let whole = digest.finalize();
    std::array::from_fn(|index| whole[index])
}

/// One process's part in one bank: a random number, drawn at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HolderId(#[serde(with = "hex::number")] pub u64);

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The one operation, request: what a holder has, saw and wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// [`PROTOCOL`] of the holder.
    pub protocol: u16,
    /// Who speaks.
    pub holder: HolderId,
    /// Counts this holder's exchanges from 1. The same number is the same exchange, said again.
    pub seq: u64,
    /// The life of the state that the holder knows; another one means that the store has forgotten.
    #[serde(with = "hex::maybe_number")]
    pub incarnation: Option<u64>,
    /// Names a new life, should there be no state.
    #[serde(with = "hex::number")]
    pub salt: u64,
    /// By how much an age may be too small when it arrives, as far as the holder can tell: the last exchange's round trip.
    pub slack: Ms,
    /// Since the answer to the exchange before was heard. The store knows when it gave that answer, so it knows how long this
    /// one may have been on its way, repetitions included. `None`: no answer was heard yet.
    pub heard: Option<Ms>,
    /// The number of that exchange; none is 0. A state that does not know it is an older one.
    pub answered: u64,
    /// The limits it speaks of; at most [`Exchange::MAX_LIMITS`].
    pub limits: Vec<LimitSide>,
    /// One for each set of limits that calls wait for.
    pub asks: Vec<Want>,
    /// Breakers of families that changed here, or want to probe.
    pub doors: Vec<DoorSide>,
    /// The holder's last word: it is one of the fleet no longer, and not waited for where it has nothing out.
    pub leaves: bool,
}

impl Exchange {
    /// Limits of one exchange: the others wait for the next one, so that a script stays short.
    pub const MAX_LIMITS: usize = 16;
    /// Asks of one exchange.
    pub const MAX_ASKS: usize = 16;
    /// Doors of one exchange.
    pub const MAX_DOORS: usize = 16;
}

/// What a holder says of one limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitSide {
    /// Which.
    pub key: LimitKey,
    /// Its name for people; stored once.
    pub name: String,
    /// Whose calls it counts, for people: two limits of one name differ in it. Stored once; empty: everybody's.
    pub partition: String,
    /// What it is held to be.
    pub terms: Terms,
    /// The generation whose permits the holder has; zero if it has none yet.
    pub generation: u64,
    /// Permits granted and not sent, now.
    pub unspent: u32,
    /// Attempts sent and not answered, now.
    pub in_flight: u32,
    /// All that had ended by the last exchange that was answered: the store knows of them, unless it has forgotten.
    pub told: u64,
    /// Of them, those whose answer told nothing of this limit.
    pub told_unseen: u64,
    /// What has ended since: counts from the holder's beginning, oldest first, at most [`LimitSide::MAX_ENDED`].
    pub ended: Vec<Ended>,
    /// Its best certificate.
    pub seen: Option<Sight>,
    /// The latest throttle that it has not told yet.
    pub refused: Option<Refusal>,
    /// Since the fleet's scout left here, where it has ended and that was not told yet. No other ending is taken for it: an
    /// attempt that left before a throttle may end while the scout after it is out.
    pub scouted: Option<Ms>,
    /// Everything it still knows, for a store that has forgotten.
    pub recall: Option<Recall>,
}

impl LimitSide {
    /// Groups in which ended attempts are told.
    pub const MAX_ENDED: usize = 16;
}

/// Attempts that ended: answered, or lost for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How long ago the last of the group ended, at least.
    pub age: Ms,
    /// All that had ended by then since the holder began.
    pub all: u64,
    /// Of them, those whose answer told nothing of this limit.
    pub unseen: u64,
}

/// What a limit is held to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What it counts.
    pub kind: Kind,
    /// By which rule it gives back.
    pub rule: Refill,
    /// The rule is proven by evidence, not assumed.
    pub proven: bool,
    /// An operator's number, which no header replaces.
    pub pinned: bool,
    /// A profile's number, which says what is usual: neither an operator nor the upstream has said it of this tenant. It holds
    /// until somebody knows better, and replaces nobody's word.
    pub assumed: bool,
}

impl Terms {
    /// A longer window is taken for this one, 100 days: what is counted within it must be exact in every language.
    pub const LONGEST_WINDOW: Ms = 100 * 86_400_000;
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing is known of it: scouts only, one for the fleet.
    Unknown,
    /// Attempts per window.
    Rate {
        /// How many.
        quota: u32,
        /// In which time.
        window: Ms,
        /// Headers tell of it; otherwise it is declared, and nothing is ever seen of it.
        told: bool,
    },
    /// Attempts in flight.
    Cap {
        /// How many.
        cap: u32,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown => f.write_str("nothing"),
            Self::Rate { quota, window, .. } if window % 1_000 == 0 => {
                write!(f, "{quota} per {} s", window / 1_000)
            }
            Self::Rate { quota, window, .. } => write!(f, "{quota} per {window} ms"),
            Self::Cap { cap } => write!(f, "{cap} at once"),
        }
    }
}

/// The learnt refill rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refill {
    /// All back at the end of an epoch.
    Step,
    /// Each one window later: logs, and buckets (a log of `limit / rate` never asks more of them than they have).
    Log,
    /// Evenly: counters, and limits whose bursts are refuted.
    Even,
}

/// The best certificate of a holder, in ages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// Since the latest certified attempt left.
    pub latest_sent: Ms,
    /// Answers that may have been handled last: (age of the answer, remaining), undominated, at most [`Sight::MAX_LEFT`].
    pub left: Vec<(Ms, u32)>,
    /// When the epoch ends that the certificate belongs to, from now, at the earliest and at the latest; below zero where
    /// that is over. None where nothing is told of it.
    pub ends: Option<(i64, i64)>,
    /// When a lone scout for the next epoch is best sent, from now.
    pub scout_in: Option<Ms>,
}

impl Sight {
    /// Candidates told.
    pub const MAX_LEFT: usize = 4;
}

/// A throttle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Since its attempt left.
    pub sent: Ms,
    /// Since it was answered.
    pub age: Ms,
    /// For how long nothing may leave, from now, with the spread in it.
    pub stay_away: Ms,
    /// It refutes the quota that is held for true: nothing was told, and no other limit explains it.
    pub blames_quota: bool,
}

/// What a holder still knows of a limit that the store has forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// Own attempts of the last window that are contained in [`LimitSide::told`]: (age, how many), oldest first, at most
    /// [`Recall::MAX_LOG`] groups.
    pub log: Vec<(Ms, u32)>,
    /// The share of the quota that is used, in thousandths.
    pub share: u32,
    /// Holders, as it last heard.
    pub holders: u32,
    /// The generation it last heard.
    pub generation: u64,
    /// For so long nothing is there, as it last heard ([`LimitReply::dry`]).
    pub dry: Ms,
}

impl Recall {
    /// Groups of the log.
    pub const MAX_LOG: usize = 16;
}

/// What the calls that wait for one set of limits want.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The limits, as places in [`Exchange::limits`].
    pub limits: Vec<u8>,
    /// Calls that wait now and have no permit, by [`Class::ALL`].
    pub now: [u32; Class::COUNT],
    /// Calls expected beside them before the next exchange, by [`Class::ALL`].
    pub soon: [u32; Class::COUNT],
    /// What each class leaves to more important ones, by [`Class::ALL`].
    pub leave: [u32; Class::COUNT],
    /// Whether each class leaves strangers what they are used to take, by [`Class::ALL`].
    pub fair: [bool; Class::COUNT],
}

/// A family's breaker, told by who changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorSide {
    /// The family's key.
    pub key: LimitKey,
    /// Since the attempt left that proves the change.
    pub sent: Ms,
    /// What changed.
    pub change: DoorChange,
}

/// What changed at a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoorChange {
    /// It opened.
    Opened {
        /// For how long it refuses, from now.
        stay_away: Ms,
        /// How often it opened in a row.
        openings: u32,
    },
    /// An attempt succeeded.
    Alive,
    /// It would send a probe.
    MayIProbe,
}

/// The one operation, answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The life of the state.
    #[serde(with = "hex::number")]
    pub incarnation: u64,
    /// The latest exchange of this holder that the state knew before this one; zero if none. Less than what was answered
    /// means that writes were lost.
    pub knew_seq: u64,
    /// Holders that spoke of late, this one included.
    pub holders: u32,
    /// One per limit of the exchange, in its order.
    pub limits: Vec<LimitReply>,
    /// One per ask, in its order.
    pub grants: Vec<Grant>,
    /// One per door, in its order.
    pub doors: Vec<DoorReply>,
}

/// What the fleet knows of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitReply {
    /// Permits of an earlier generation are void.
    pub generation: u64,
    /// Counts the windows of a limit that is refilled in steps.
    pub epoch: u64,
    /// Unspent permits are void from then on, counted from when the exchange was said.
    pub lease: Ms,
    /// Nothing leaves before, counted from when the answer is heard.
    pub pause: Ms,
    /// The state has forgotten what was there before: tell all.
    pub recall: bool,
    /// Permits are scarce: report each answer at once, and give back what nobody waits for.
    pub scarce: bool,
    /// What the fleet holds the limit to be.
    pub terms: Terms,
    /// What another configuration of late declared instead, in vain.
    pub other: Option<Kind>,
    /// What is there for somebody without any reserve; below zero where more is out than was certified.
    pub available: i64,
    /// For so long nothing is there, if nobody gives anything back and the quota stays what it is; zero where something is, or
    /// where nobody knows. A holder looks again sooner than that; a state that lost what it knew goes by it.
    pub dry: Ms,
    /// When the epoch ends, from now, as an interval.
    pub ends: Option<(Ms, Ms)>,
    /// The share of the quota that is used, in thousandths.
    pub share: u32,
    /// What strangers draw, permits per 1000 s.
    pub foreign: u32,
}

/// What one ask got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// How many attempts may leave.
    pub permits: u32,
    /// The first may leave from then on, counted from when the answer is heard; zero: at once.
    pub from: Ms,
    /// Each further one so much later; zero: all together.
    pub gap: Ms,
    /// It is the fleet's scout: one attempt alone, whose answer is reported at once.
    pub scout: bool,
    /// When to ask again, if nothing changes here before, counted from when the answer is heard.
    pub come_back: Ms,
}

/// What the fleet knows of a family's breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorReply {
    /// The family's key.
    pub key: LimitKey,
    /// It refuses for so long.
    pub refuses_for: Ms,
    /// How often it opened in a row.
    pub openings: u32,
    /// This holder sends the probe.
    pub may_probe: bool,
}

/// Why a ledger does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unanswered {
    /// Another version of the program has written the state.
    #[error(
        "the shared state has protocol {found}, this program speaks {known} (upgrade the older Tidegate, or give one of them another quota.prefix)"
    )]
    Protocol {
        /// Its protocol.
        found: u16,
        /// This program's.
        known: u16,
    },
    /// A later exchange of this holder was answered already: this one was overtaken on its way.
    #[error("a later exchange was answered before")]
    Stale,
}

/// A limit as the store sees it, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// Its name.
    pub name: String,
    /// Whose calls it counts; empty: everybody's.
    pub partition: String,
    /// Its quota or cap, if known.
    pub quota: Option<u32>,
    /// What it is held to be, where configurations differ, and what another of them declared of late, in vain.
    pub differs: Option<(Kind, Kind)>,
    /// What is there.
    pub available: i64,
    /// Granted or in flight.
    pub out: u32,
    /// Who draws from it.
    pub holders: u32,
    /// Nothing leaves for so long.
    pub paused_for: Ms,
    /// Within this time all that is out comes back, but of holders that are heard of again: their leases are over by then, and the
    /// grace for attempts that may still be on their way.
    pub held_for: Ms,
    /// Counts the windows of a limit that is refilled in steps.
    pub epoch: u64,
    /// Begins with 1 and rises with each throttle that voids all permits.
    pub generation: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_hex_text_in_json() {
        let text = serde_json::to_string(&(HolderId(0xfeed), LimitKey([1, 2, 3, 4, 5, 6, 7, 0xab]))).unwrap();
        assert_eq!(text, r#"["000000000000feed","01020304050607ab"]"#);
        let (holder, key): (HolderId, LimitKey) = serde_json::from_str(&text).unwrap();
        assert_eq!((holder, key), (HolderId(0xfeed), LimitKey([1, 2, 3, 4, 5, 6, 7, 0xab])));
        for wrong in [r#""0102""#, r#""010203040506070x""#, "7"] {
            assert!(serde_json::from_str::<LimitKey>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_api_has_one_bank_however_it_is_spelt() {
        let bank = |api| BankKey::of(api, "acme");
        for (one, others) in [
            (
                "https://api.example.com",
                ["https://api.example.com/", "HTTPS://Api.Example.COM", "https://api.example.com:443"]
                    .as_slice(),
            ),
            ("http://localhost", &["http://localhost:80/", "http://LOCALHOST"]),
            ("https://x.example/v2", &["https://X.example:443/v2/", "https://x.example/v2//"]),
            ("no url", &["no url"]),
        ] {
            for other in others {
                assert_eq!(bank(one), bank(other), "{other}");
            }
        }
        let others = [
            "https://api.example.com",
            "http://api.example.com",
            "https://api.example.com:444",
            "https://api.example.com:80",
            "https://api.example.com/v2",
            "https://api.example.com/V2",
        ];
        for (place, one) in others.iter().enumerate() {
            for other in &others[place + 1..] {
                assert_ne!(bank(one), bank(other), "{one} {other}");
            }
        }
    }

    #[test]
    fn an_exchange_survives_json() {
        let side = LimitSide {
            key: LimitKey::of(&["users"]),
            name: "users".to_owned(),
            partition: "credential=client 7f".to_owned(),
            terms: Terms {
                kind: Kind::Rate { quota: 300, window: 60_000, told: true },
                rule: Refill::Step,
                proven: false,
                pinned: false,
                assumed: false,
            },
            generation: 3,
            unspent: 1,
            in_flight: 2,
            told: 5,
            told_unseen: 0,
            ended: vec![Ended { age: 10, all: 7, unseen: 0 }],
            seen: Some(Sight { latest_sent: 9, left: vec![(4, 290)], ends: Some((1, 2)), scout_in: None }),
            refused: None,
            scouted: None,
            recall: None,
        };
        let said = Exchange {
            protocol: PROTOCOL,
            holder: HolderId(u64::MAX),
            seq: 1,
            incarnation: Some(u64::MAX - 1),
            salt: 7,
            slack: 3,
            heard: Some(120),
            answered: 0,
            limits: vec![side],
            asks: Vec::new(),
            doors: vec![DoorSide { key: LimitKey([0; 8]), sent: 1, change: DoorChange::Alive }],
            leaves: true,
        };
        let text = serde_json::to_string(&said).unwrap();
        assert_eq!(serde_json::from_str::<Exchange>(&text).unwrap(), said);
    }
}
