//! Patches the skills of fifty users at once, through a quota that allows thirty calls in two seconds.
//!
//! Each write is a transaction with a name of its own. The name makes its idempotency key, so running this program
//! again (after a crash, say) repeats the same writes under the same keys instead of making new ones.
//!
//! ```sh
//! cargo run -p tidegate --example patch_skills
//! ```

#![allow(clippy::print_stdout, reason = "printing is what this example does")]

#[path = "shared/mod.rs"]
mod shared;

use http::Method;
use tidegate::body::BoxError;
use tidegate::{Class, Client, ErrorKind};
use tokio::task::JoinSet;

const USERS: usize = 50;
const SKILL: &str = "10000000-0000-4000-8000-000000000001";

/// What became of the writes.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) patched: usize,
    pub(crate) failed: usize,
    /// The upstream may have executed them, and nothing can tell: to be looked up, not to be sent again.
    pub(crate) unknown: usize,
    pub(crate) throttled: Option<u64>,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Sums { patched, failed, unknown, throttled } = run().await?;
    println!("{patched} patched, {failed} failed, {unknown} unknown");
    if let Some(throttled) = throttled {
        println!("{throttled} calls throttled by the upstream");
    }
    Ok(())
}

/// Patches all of them.
pub(crate) async fn run() -> Result<Sums, BoxError> {
    let api = shared::Api::from_env_or_simulated("limit = 30\nwindow = \"2s\"").await?;
    let client = api.client().build()?;

    let mut writes = JoinSet::new();
    for number in 1..=USERS {
        let user = format!("00000000-0000-4000-8000-{number:012x}");
        writes.spawn(patch(client.clone(), user));
    }
    let mut sums = Sums::default();
    while let Some(outcome) = writes.join_next().await {
        match outcome? {
            Ok(true) => sums.patched += 1,
            Ok(false) => sums.failed += 1,
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => sums.unknown += 1,
            Err(error) => return Err(error.into()),
        }
    }
    sums.throttled = api.finish().await;
    Ok(sums)
}

/// Gives one user one skill; whether the upstream accepted it.
async fn patch(client: Client, user: String) -> Result<bool, tidegate::Error> {
    let response = client
        .request(Method::PATCH, &format!("/api/v2/users/{user}/routingskills/bulk"))
        .class(Class::Bulk)
        .transaction(format!("winter-campaign/{user}"))
        .json(format!(r#"[{{"id":"{SKILL}","proficiency":4}}]"#))
        .send()
        .await?;
    let accepted = response.status().is_success();
    // An answer that is read to its end leaves its connection to the next call.
    drop(response.into_body().bytes(1 << 20).await);
    Ok(accepted)
}
