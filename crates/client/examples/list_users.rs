//! Lists every user of an organisation, page by page.
//!
//! ```sh
//! cargo run -p tidegate --example list_users
//! ```

#![allow(clippy::print_stdout, reason = "printing is what this example does")]

#[path = "shared/mod.rs"]
mod shared;

use serde_json::Value;
use tidegate::Class;
use tidegate::body::BoxError;

/// A page of 100 users with all their fields stays far below this.
const MAX_PAGE: usize = 4 << 20;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for name in run().await? {
        println!("{name}");
    }
    Ok(())
}

/// The names of all users.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    // Two calls a second: the third of the five pages already has to wait, and nobody has to write that down.
    let api = shared::Api::from_env_or_simulated("users = 450\nlimit = 2\nwindow = \"1s\"").await?;
    let client = api.client().build()?;

    let mut names = Vec::new();
    let mut next = Some("/api/v2/users?pageSize=100".to_owned());
    while let Some(target) = next {
        let response = client.get(&target).class(Class::Bulk).send().await?;
        if !response.status().is_success() {
            return Err(format!("{target}: {}", response.status()).into());
        }
        let page: Value = serde_json::from_slice(&response.into_body().bytes(MAX_PAGE).await?)?;
        let users = page["entities"].as_array().ok_or("the page has no entities")?;
        names.extend(users.iter().filter_map(|user| user["name"].as_str().map(str::to_owned)));
        next = page["nextUri"].as_str().map(str::to_owned);
    }
    api.finish().await;
    Ok(names)
}
