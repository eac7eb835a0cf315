//! What an export tells about itself: the line per page of its log, and the manifest at its end.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_core::time::Wall;

/// What was asked for, of whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The program and its version.
    pub tool: String,
    /// The first page's path and query.
    pub request: String,
    /// The base URL of the API, or of the gateway in between.
    pub api: String,
    /// The profile's name.
    pub profile: String,
    /// The organisation.
    pub tenant: String,
    /// The credential's name, never the credential.
    pub credential: String,
    /// When it began, RFC 3339.
    pub started: String,
}

impl Head {
    /// Whether `other` is the same export, begun at whatever time. Rows that another credential sees are others.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let place = |head: &Self| {
            let Self { request, api, profile, tenant, credential, .. } = head.clone();
            (request, api, profile, tenant, credential)
        };
        place(self) == place(other)
    }
}

/// One page that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageDone {
    /// Its path and query.
    pub target: String,
    /// The next page's; `None` at the end.
    pub next: Option<String>,
    /// How the listing is paged.
    pub paging: String,
    /// Where its rows are, a JSON pointer.
    pub items: String,
    /// Its rows.
    pub rows: u64,
    /// Its bytes in the file.
    pub bytes: u64,
    /// SHA-256 of those.
    pub sha256: String,
    /// How many rows the listing said it has, if it said so.
    pub total: Option<u64>,
    /// How many pages the listing said it has, if it said so.
    #[serde(default)]
    pub of_pages: Option<u64>,
    /// When it was read, RFC 3339.
    pub at: String,
    /// What the upstream calls the request, for its support.
    pub correlation: Option<String>,
}

/// An export that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What was asked for.
    #[serde(flatten)]
    pub head: Head,
    /// When its last page was read, RFC 3339.
    pub ended: String,
    /// How the listing is paged.
    pub paging: String,
    /// Where the rows of a page are, a JSON pointer.
    pub items: String,
    /// Its pages.
    pub pages: u64,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Whether the total that the listing tells changed while it was read: rows may be missing or there twice.
    pub total_changed: bool,
    /// What contradicts that this is all of the listing; nothing if all of it was read.
    #[serde(default)]
    pub contradiction: Option<String>,
    /// Whether all of the listing was read, by what it told of itself.
    #[serde(default = "not_contradicted")]
    pub complete: bool,
    /// Each page.
    pub each: Vec<PageDone>,
}

impl Manifest {
    pub(super) fn new(
        head: Head,
        each: Vec<PageDone>,
        sha256: String,
        contradiction: Option<String>,
    ) -> Self {
        let last = each.last();
        let totals = || each.iter().filter_map(|page| page.total);
        Self {
            ended: last.map_or_else(|| head.started.clone(), |page| page.at.clone()),
            paging: last.map_or_else(String::new, |page| page.paging.clone()),
            items: last.map_or_else(String::new, |page| page.items.clone()),
            pages: each.len() as u64,
            rows: each.iter().map(|page| page.rows).sum(),
            bytes: each.iter().map(|page| page.bytes).sum(),
            total_changed: totals().min() != totals().max(),
            sha256,
            complete: contradiction.is_none(),
            contradiction,
            head,
            each,
        }
    }
}

/// Manifests of earlier versions do not tell, and nothing was compared.
const fn not_contradicted() -> bool {
    true
}

/// A wall-clock instant as RFC 3339 writes it.
pub(super) fn rfc3339(at: Wall) -> String {
    Timestamp::from_millisecond(at.unix_millis()).map_or_else(|_| String::new(), |at| at.to_string())
}
