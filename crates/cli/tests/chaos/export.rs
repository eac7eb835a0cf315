//! A listing that is exported, and killed between its pages and in the middle of them: each entity is in the file once, and
//! the file is what its manifest says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::World;
use crate::judge::Verdict;
use crate::kill::{Campaign, End, Seen, Victim};
use crate::{FAULTS, Size};

/// Rows of a page: few, so that there are many pages to be killed between.
const PAGE: usize = 4;

/// Pages that a launch may read beyond the one it is to be killed at, and some more.
const RESERVE: u64 = 10;

/// The file that is asked for.
const FILE: &str = "users.ndjson";

/// Before the first page; the second time the file of an earlier launch is there.
const FIRST: [&str; 2] = ["export.begun", "export.begun"];

/// Between pages.
const BETWEEN: [&str; 4] = ["export.page", "export.page:3", "export.progress", "export.progress:3"];

/// At the end.
const LAST: [&str; 2] = ["export.manifest", "export.whole"];

/// All of them.
pub(crate) fn points() -> impl Iterator<Item = &'static str> {
    FIRST.into_iter().chain(BETWEEN).chain(LAST)
}

struct Listing {
    world: World,
    pages: u64,
}

impl Listing {
    /// How many lines of the log are whole, that of its beginning included.
    fn logged(&self) -> u64 {
        let log = std::fs::read(self.world.path(&format!("{FILE}.part.log"))).unwrap_or_default();
        log.split(|byte| *byte == b'\n').skip(1).count() as u64
    }

    fn manifest(&self) -> Option<Value> {
        let text = std::fs::read(self.world.path(&format!("{FILE}.manifest.json"))).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// What is wrong with the file, if it is there.
    fn problems(&self) -> Vec<String> {
        let Ok(file) = std::fs::read(self.world.path(FILE)) else { return Vec::new() };
        let Some(manifest) = self.manifest() else { return vec!["the file has no manifest".to_owned()] };
        let mut digest = String::new();
        for byte in Sha256::digest(&file) {
            write!(digest, "{byte:02x}").unwrap();
        }
        let rows = file.split(|byte| *byte == b'\n').skip(1).count();
        let told = |name: &str, is: Value| {
            let says = &manifest[name];
            (*says != is).then(|| format!("the manifest says {name} {says}, and it is {is}"))
        };
        let all = [
            told("sha256", digest.into()),
            told("bytes", file.len().into()),
            told("rows", rows.into()),
            told("pages", self.pages.into()),
            told("total_changed", false.into()),
        ];
        all.into_iter().flatten().collect()
    }
}

impl Victim for Listing {
    fn command(&self) -> Command {
        let mut command = self.world.command(&["export", "/api/v2/users", "--quiet", "--resume"]);
        command.args(["--page-size", &PAGE.to_string(), "--out", FILE]);
        command.args(["--profile", "genesys-guide-quick.toml", "--api", &self.world.sim.url()]);
        command
    }

    fn left(&self) -> u64 {
        (self.pages + 1).saturating_sub(self.logged())
    }

    fn progress(&self) -> u64 {
        self.logged()
    }

    /// A file under its own name is whole, at whatever moment.
    fn look(&self, end: &End, seen: &mut Seen) {
        let there = self.world.path(FILE).exists();
        let whole = matches!(end, End::Point(point) if point == "export.whole");
        if there != whole {
            seen.problems.push(format!("after {end:?} the file is there: {there}"));
        }
        seen.problems.extend(self.problems().into_iter().map(|what| format!("after {end:?} {what}")));
    }
}

/// All users, page by page.
pub(crate) fn export(size: Size) {
    let begun = Instant::now();
    let users = size.writes;
    let world = World::new(&format!(
        "users = {users}\nseed = {}\nlimit = 0\nlatency = \"5ms..20ms\"\n[oauth]\ntoken_ttl = \"2s\"\n{FAULTS}",
        size.seed
    ));
    world.quick_profile("genesys-guide");
    let listing = Listing { world, pages: users.div_ceil(PAGE) as u64 };
    let campaign = Campaign {
        victim: &listing,
        kills: size.kills,
        reserve: RESERVE,
        patience: Duration::from_secs(3),
        first: FIRST.to_vec(),
        points: BETWEEN.to_vec(),
        last: LAST.to_vec(),
        seed: size.seed,
    };
    let seen = campaign.carry_out();
    let mut verdict = Verdict { problems: listing.problems(), ..Verdict::default() };
    if seen.last.as_ref().and_then(|ran| ran.code) != Some(0) {
        verdict.problems.push(format!("the last command failed: {:#?}", seen.last));
    }
    let text = std::fs::read_to_string(listing.world.path(FILE)).unwrap_or_default();
    let mut expected: BTreeSet<String> =
        (1..=users).map(|number| format!("00000000-0000-4000-8000-{number:012x}")).collect();
    for line in text.lines() {
        let id = serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        if !expected.remove(&id) {
            verdict.duplicates += 1;
            verdict.problems.push(format!("{id} is there twice, or does not exist"));
        }
    }
    verdict.lost = expected.len() as u64;
    verdict.problems.extend(expected.into_iter().map(|id| format!("{id} is missing")));
    size.conclude("export", begun, &listing.world, &seen, verdict);
}
