//! Call a quota-limited API at the full speed its quota allows, and never faster.
//!
//! A [`Client`] paces every attempt by what the upstream's answers say about its limits, renews tokens before they
//! end, retries what is safe to retry, and says "outcome unknown" where nobody can know:
//!
//! ```no_run
//! use std::time::Duration;
//! use tidegate::{Client, Class, Profile};
//!
//! # async fn example() -> Result<(), tidegate::body::BoxError> {
//! let client = Client::builder(
//!     Profile::builtin("genesys").expect("ships with the crate"),
//!     "https://api.mypurecloud.com",
//!     "https://login.mypurecloud.com",
//! )
//! .credential("skills-sync", "client-id", "client-secret")
//! .build()?;
//!
//! // Any number of tasks may do this at once; none of them sees a 429 while the quota allows all of them.
//! let users = client.get("/api/v2/users?pageSize=100").deadline(Duration::from_secs(30)).send().await?;
//! assert!(users.status().is_success());
//!
//! // A write carries the same idempotency key on every attempt. Bulk work leaves room for everybody else.
//! let patched = client
//!     .request(http::Method::PATCH, "/api/v2/users/1234/routingskills/bulk")
//!     .class(Class::Bulk)
//!     .transaction("skills-2026-11-22/1234")
//!     .json(r#"[{"id":"skill","proficiency":4}]"#)
//!     .send()
//!     .await?;
//! // An answer read to its end leaves its connection to the next call.
//! let skills = patched.into_body().bytes(1 << 20).await?;
//! # drop(skills);
//! # Ok(())
//! # }
//! ```
//!
//! The same stack is built from tower layers; [`stack`](mod@stack) shows their order and the reason for it, and
//! [`layer`] holds them one by one. The crate's `examples/` run against a simulator they start themselves:
//! `cargo run -p tidegate --example list_users`.

pub mod body;
pub mod call;
pub mod client;
pub mod clock;
pub mod credential;
pub mod error;
pub mod layer;
pub mod limits;
pub mod observe;
pub mod pacer;
pub mod probe;
pub mod share;
pub mod stack;
pub mod state;
pub mod token;
pub mod transport;
pub mod upstream;

pub use tidegate_core::pace::{CallerId, Class, ClassPolicy, Taking};
pub use tidegate_core::profile::Profile;

pub use self::body::{RequestBody, ResponseBody};
pub use self::call::{CallOptions, CallReport};
pub use self::client::{CallBuilder, Client, ClientBuilder};
pub use self::credential::Credential;
pub use self::error::{Error, ErrorKind};
pub use self::share::SharedQuota;
pub use self::upstream::{ConfigError, ConfigErrors, NotReady, Upstream, UpstreamConfig};
