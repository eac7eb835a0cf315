//! What a holder says where nothing is special about it.

use tidegate_core::share::{Exchange, HolderId, LimitKey, LimitSide, PROTOCOL, Terms, Want};

/// The limit that everybody speaks of.
pub(crate) const KEY: LimitKey = LimitKey([7; 8]);

/// A limit of which nothing was drawn yet.
pub(crate) fn side(terms: Terms) -> LimitSide {
    LimitSide {
        key: KEY,
        name: "users".to_owned(),
        partition: "credential=client 7f".to_owned(),
        terms,
        generation: 1,
        unspent: 0,
        in_flight: 0,
        told: 0,
        told_unseen: 0,
        ended: Vec::new(),
        seen: None,
        refused: None,
        scouted: None,
        recall: None,
    }
}

/// One limit, and what is asked of it.
pub(crate) fn exchange(holder: u64, seq: u64, side: LimitSide, ask: Option<Want>) -> Exchange {
    Exchange {
        protocol: PROTOCOL,
        holder: HolderId(holder),
        seq,
        incarnation: None,
        salt: 0,
        slack: 2,
        heard: None,
        answered: 0,
        limits: vec![side],
        asks: ask.into_iter().collect(),
        doors: Vec::new(),
        leaves: false,
    }
}
