//! The pure server: what it decides, and what the judge writes down. No clock, no socket, no task.
//!
//! Every method takes `now`, the time since the start of the simulation, which must not go backwards. All randomness comes from
//! the seed of the configuration, from one stream per purpose, so that switching one feature on does not change the draws
//! of another.

pub mod concurrency;
pub mod dedup;
pub mod fault;
pub mod ledger;
pub mod limits;
pub mod oauth;
pub mod org;
pub mod push;
pub mod quota;
pub mod route;
pub mod strangers;
pub mod world;

/// Independent random streams of one seed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Ids,
    Latency,
    Faults,
    Strangers,
    Tokens,
    Org,
    Late,
    Live,
    Push,
    Channels,
    Hooks,
}

impl Stream {
    /// The generator of this stream for `seed`. The multiplier (the 64-bit golden ratio) keeps neighbouring seeds apart.
    pub(crate) fn rng(self, seed: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(seed ^ (self as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// A version 4 UUID from `rng`, as text.
pub(crate) fn uuid_text(rng: &mut fastrand::Rng) -> String {
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid().hyphenated().to_string()
}
