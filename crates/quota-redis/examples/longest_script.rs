//! How long the longest exchange keeps a Redis server: sixteen limits that strangers use up, with a full log and as many answers
//! that may be the last as are kept, and sixteen asks that find nothing.
//!
//! ```text
//! redis-server --port 7000 --save "" & cargo run --release -p tidegate-quota-redis --example longest_script -- redis://127.0.0.1:7000
//! ```
#![allow(clippy::print_stdout, reason = "the figures are what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::time::{Duration, Instant};

use tidegate_core::share::{
    BankKey, Ended, Exchange, HolderId, Kind, LimitKey, LimitSide, PROTOCOL, Refill, Sight, Terms, Want,
};
use tidegate_quota::Store;
use tidegate_quota_redis::{RedisConfig, RedisStore};

const LIMITS: u8 = 16;

fn side(limit: u8, seq: u64) -> LimitSide {
    // Each exchange brings sixteen groups of a window that has 64, the oldest first.
    let group = |place: u64| {
        let all = (seq - 1) * 16 + place + 1;
        Ended { age: 62_000 - 938 * all.min(64), all, unseen: 0 }
    };
    let left = |place: u32| (u64::from(8 - place) * 2, place);
    let half = u32::from(seq.is_multiple_of(2)) * 4;
    LimitSide {
        key: LimitKey([limit; 8]),
        name: format!("limit {limit}"),
        partition: String::new(),
        terms: Terms {
            assumed: false,
            kind: Kind::Rate { quota: 300, window: 60_000, told: true },
            rule: Refill::Log,
            proven: true,
            pinned: false,
        },
        generation: 1,
        unspent: 0,
        in_flight: 40,
        told: (seq - 1) * 16,
        told_unseen: 0,
        ended: (0..16).map(group).collect(),
        seen: Some(Sight {
            latest_sent: 5_000,
            left: (half..half + 4).map(left).collect(),
            ends: None,
            scout_in: None,
        }),
        refused: None,
        scouted: Some(0),
        recall: None,
    }
}

fn said(seq: u64, together: bool) -> Exchange {
    let limits = |ask: u8| if together { (0..LIMITS).collect() } else { vec![ask] };
    let ask = |ask: u8| Want {
        limits: limits(ask),
        now: [5, 5, 5, 5],
        soon: [5; 4],
        leave: [0, 0, 5, 5],
        fair: [false, false, true, true],
    };
    Exchange {
        protocol: PROTOCOL,
        holder: HolderId(1),
        seq,
        incarnation: None,
        salt: 1,
        slack: 2,
        heard: None,
        answered: seq - 1,
        limits: (0..LIMITS).map(|limit| side(limit, seq)).collect(),
        asks: (0..16).map(ask).collect(),
        doors: Vec::new(),
        leaves: false,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("name a server: redis://HOST:PORT")?;
    let store = RedisStore::new(RedisConfig { timeout: Duration::from_secs(30), ..RedisConfig::new(url) })?;
    for (bank, together) in [(1, false), (2, true)] {
        let bank = BankKey([bank; 12]);
        let mut took = Vec::new();
        for seq in 1..=40 {
            let said = said(seq, together);
            let began = Instant::now();
            let reply = store.exchange(bank, &said).await?;
            let denied = reply.grants.iter().filter(|grant| grant.permits == 0).count();
            took.push((began.elapsed(), denied));
        }
        took.sort_unstable();
        let (middle, longest) = (took[took.len() / 2], took[took.len() - 1]);
        println!(
            "each ask of all limits: {together}; (time, asks denied) median {middle:?}, longest {longest:?}"
        );
    }
    Ok(())
}
