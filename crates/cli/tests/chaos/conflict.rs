//! Updates that are refused because their entity has changed: the same change is put on the current version, under a key that
//! is on disk before it is sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::bulk::{Bulk, books};
use crate::common::{by_status, ran};
use crate::judge::{Upstream, Verdict};
use crate::kill::Campaign;
use crate::{FAULTS, LATE, Size, profile};

/// Of so many updates one carries a version before the current one.
const STALE_EVERY: usize = 3;

/// What is asked finds out what became of a write; the conflicts are what it is about.
const RECIPE: &str = r#"
name = "retitle"
method = "PATCH"
path = "/api/v2/users/{user_id}"
id = "user_id"
body = { title = "{title}", version = "{version:number}" }
[reconcile]
version = "/version"
same = "/title"
settle = "2s"
conflict = { most = 3 }
"#;

/// The points that such a run passes besides the ordinary ones.
pub(crate) const POINTS: [&str; 9] = [
    "journal.amend.before",
    "journal.amend.before:4",
    "journal.amend.after",
    "journal.amend.after:4",
    "journal.intend.before:7",
    "journal.intend.after:7",
    "journal.record-ok.before:3",
    "bulk.sent:4",
    "bulk.answered:4",
];

fn user(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn title(number: usize) -> String {
    format!("Title {number}")
}

/// Changes each user's title once; the upstream recognises nothing.
pub(crate) fn conflicts(size: Size) {
    let begun = Instant::now();
    let count = size.writes;
    let mut bulk = Bulk::new(&format!(
        "users = {count}\nseed = {}\nlimit = 0\nlatency = \"2ms..20ms\"\ndedup = \"none\"\n[oauth]\ntoken_ttl = \"2s\"\n{FAULTS}{LATE}",
        size.seed
    ));
    let profile = profile(&bulk.world, Upstream::Forgets);
    bulk.world.write("retitle.toml", RECIPE);
    let mut csv = "user_id,title,version\n".to_owned();
    for number in 1..=count {
        let version = u8::from(!number.is_multiple_of(STALE_EVERY));
        writeln!(csv, "{},{},{version}", user(number), title(number)).unwrap();
    }
    bulk.apply("t.csv", &csv, count, "retitle.toml", &profile);
    let campaign = Campaign {
        victim: &bulk,
        kills: size.kills,
        reserve: crate::RESERVE,
        patience: Duration::from_secs(3),
        first: Vec::new(),
        points: POINTS.to_vec(),
        last: Vec::new(),
        seed: size.seed,
    };
    let seen = campaign.carry_out();
    let mut verdict = judge(&bulk, count);
    if seen.last.as_ref().and_then(|ran| ran.code) != Some(0) {
        verdict.problems.push(format!("the last resume ended otherwise than well: {:#?}", seen.last));
    }
    size.conclude("conflict", begun, &bulk.world, &seen, verdict);
}

/// Each update is done, once, under the key that the result tells; and each user has its new title.
fn judge(bulk: &Bulk, count: usize) -> Verdict {
    let world = &bulk.world;
    let mut verdict = Verdict::default();
    let mut rows = BTreeMap::new();
    for (status, found) in by_status(&std::fs::read_to_string(world.path("out.csv")).unwrap()) {
        for row in found {
            rows.insert(row[0].clone(), (status.clone(), row[4].clone()));
        }
    }
    let books = books(world);
    let titles = titles(bulk);
    for number in 1..=count {
        let id = user(number);
        let Some((status, key)) = rows.remove(&id) else {
            verdict.lost += 1;
            verdict.problems.push(format!("{id} is missing in the result"));
            continue;
        };
        let path = format!("/api/v2/users/{id}");
        let all: Vec<_> = books.values().filter(|book| book.path == path).collect();
        let executed: u64 = all.iter().map(|book| book.executed).sum();
        verdict.duplicates += executed.saturating_sub(1);
        let stale = number.is_multiple_of(STALE_EVERY);
        let rules = [
            (status != "ok", "nothing is wrong with it"),
            (executed > 1, "executed more than once"),
            (executed == 0, "never executed"),
            (
                books.get(&key).is_none_or(|book| book.executed != 1),
                "not executed under the key that is told",
            ),
            // A further body was sent where the first was refused, and nowhere else.
            (all.len() != 1 + usize::from(stale), "sent under another number of keys"),
            (titles.get(&id) != Some(&title(number)), "its user has another title"),
        ];
        let wrong = rules.into_iter().filter(|(broken, _)| *broken);
        verdict.of(&status, executed, &id, wrong.map(|(_, what)| format!("{what}; {all:?}")));
    }
    verdict.problems.extend(rows.keys().map(|id| format!("a row that nobody asked for: {id}")));
    verdict.count(world);
    verdict
}

/// Every user's title, as the simulator shows it.
fn titles(bulk: &Bulk) -> BTreeMap<String, String> {
    let world = &bulk.world;
    let mut command = world.command(&["export", "/api/v2/users", "--page-size", "100", "--quiet"]);
    command.args(["--api", &world.sim.url(), "--profile", "genesys-guide"]);
    let listing = ran(command);
    listing.assert(0, &[]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let read = |line: &str| {
        let user: serde_json::Value = serde_json::from_str(line).unwrap();
        (text(&user["id"]), text(&user["title"]))
    };
    listing.out.lines().map(read).collect()
}
