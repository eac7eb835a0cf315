//! Rules, lanes and answers; and a world in which a server that knows singles only is the judge.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::profile::{Profile, reader};
use crate::time::Mono;

const USER: &str = "/api/v2/users/7/routingskills";

fn rules() -> Vec<MergeRule> {
    Profile::builtin("genesys").unwrap().merge
}

fn placed(method: &Method, path: &str) -> Option<Placed> {
    find(&rules(), method, path)
}

fn item(key: &str) -> Item {
    Item { key: key.to_owned(), json: json!({ "id": key }).to_string() }
}

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

fn offer(keys: &[&str], terms: u8) -> Offer {
    Offer { rule: (0, 3), terms: [terms; 32], rows: keys.iter().map(|key| item(key)).collect() }
}

fn seated(join: Join) -> (EntryId, SeatId, bool) {
    match join {
        Join::Seated { group, seat, opened } => (group, seat, opened),
        Join::Alone(..) => panic!("{join:?}"),
    }
}

#[test]
fn singles_and_what_keeps_its_place_share_the_lane_of_the_bulk_call() {
    let bulk = Some(format!("{USER}/bulk"));
    let lane = |method, path: &str| placed(method, path).map(|placed| placed.into);
    for (method, path) in [
        (&Method::PATCH, "/bulk"),
        (&Method::PUT, "/bulk"),
        (&Method::PUT, "/a"),
        (&Method::DELETE, "/a"),
        (&Method::POST, ""),
        (&Method::POST, "/"),
        (&Method::PATCH, "/a/b"),
    ] {
        assert_eq!(lane(method, &format!("{USER}{path}")), bulk, "{method} {path}");
    }
    let single = |method, path: &str| placed(method, path).unwrap().single;
    assert_eq!(single(&Method::PUT, &format!("{USER}/a")), Some((1, Some("a".to_owned()))));
    assert_eq!(single(&Method::PUT, &format!("{USER}/bulk")), None, "it replaces what the others set");
    assert_eq!(single(&Method::DELETE, &format!("{USER}/a")), None);
    assert_eq!(placed(&Method::PATCH, "/api/v2/users/7"), None);
    assert_eq!(placed(&Method::POST, "/api/v2/users/7/routingskillsets"), None);
}

#[test]
fn a_body_that_is_no_row_is_sent_alone() {
    let rule = &rules()[0];
    let put = |body: &str| rule.rows(1, Some("a"), body.as_bytes()).map(|rows| rows[0].json.clone());
    assert_eq!(put(r#"{"proficiency":2}"#), Ok(r#"{"id":"a","proficiency":2}"#.to_owned()));
    assert_eq!(put(r#"{"id":"a","proficiency":2}"#), Ok(r#"{"id":"a","proficiency":2}"#.to_owned()));
    for body in [
        r#"{"id":"b","proficiency":2}"#,
        r#"{"proficiency":2,"state":"active"}"#,
        r#"{"proficiency":2,"proficiency":3}"#,
        r#"{"proficiency":9007199254740993}"#,
        "{}",
        r#"{"id":"a"}"#,
        "[]",
        "proficiency=2",
        "",
    ] {
        assert_eq!(put(body), Err(Alone::Body), "{body}");
    }
    assert_eq!(rule.rows(1, Some("a%2Fb"), br#"{"proficiency":2}"#), Err(Alone::Body));
    let rows = |body: &str| rule.rows(0, None, body.as_bytes()).map(|rows| rows.len());
    assert_eq!(rows(r#"[{"id":"a","proficiency":1},{"id":"b","proficiency":2}]"#), Ok(2));
    assert_eq!(rows(r#"[{"id":"a","proficiency":1},{"id":"a","proficiency":2}]"#), Err(Alone::Rows));
    assert_eq!(rows("[]"), Err(Alone::Rows));
    assert_eq!(rows(r#"[{"id":7,"proficiency":1}]"#), Err(Alone::Body));
}

#[test]
fn a_group_takes_what_agrees_until_it_is_sealed() {
    let mut merger = Merger::new(Bounds::default());
    let (group, _, opened) = seated(merger.offer("a", offer(&["1"], 0), 1, at(0)));
    assert!(opened);
    assert_eq!(seated(merger.offer("a", offer(&["2"], 0), 2, at(9))).0, group);
    assert_eq!(merger.turn(group, at(49)), Turn::At(at(50)));
    assert_eq!(merger.turn(group, at(50)), Turn::Now);
    assert_eq!(seated(merger.offer("a", offer(&["3"], 0), 3, at(900))).0, group, "its call waits for quota");
    let left = merger.seal(group, |_| true);
    assert_eq!(left.iter().map(|(who, _)| *who).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(merger.seal(group, |_| true).is_empty(), "a further attempt carries the same rows");
    let (next, _, opened) = seated(merger.offer("a", offer(&["4"], 0), 4, at(901)));
    assert!(opened && next != group);
    assert_eq!(merger.turn(next, at(5_000)), Turn::Behind);
    assert_eq!(merger.end(group), Some(next));
    assert_eq!(merger.turn(next, at(5_000)), Turn::Now);
    assert_eq!(merger.tally(), Tally { groups: 1, writes: 3, alone: 0 });
}

#[test]
fn what_does_not_agree_stands_behind_and_ends_the_window() {
    for (second, why) in [
        (offer(&["1"], 0), "the same item"),
        (offer(&["2"], 1), "another header"),
        (offer(&["2", "3", "4"], 0), "too many rows"),
        (Offer { rule: (1, 3), ..offer(&["2"], 0) }, "another rule"),
    ] {
        let mut merger = Merger::new(Bounds::default());
        let (first, ..) = seated(merger.offer("a", offer(&["1"], 0), 1, at(0)));
        let (second, _, opened) = seated(merger.offer("a", second, 2, at(0)));
        assert!(opened && second != first, "{why}");
        assert_eq!(
            (merger.turn(first, at(0)), merger.turn(second, at(0))),
            (Turn::Now, Turn::Behind),
            "{why}"
        );
        let (third, ..) = seated(merger.offer("a", offer(&["5"], 0), 3, at(0)));
        assert_ne!(third, first, "what stands behind is not overtaken: {why}");
    }
    let mut merger = Merger::new(Bounds::default());
    let (first, ..) = seated(merger.offer("a", offer(&["1"], 0), 1, at(0)));
    let alone = merger.pass("a");
    assert_eq!((merger.turn(first, at(0)), merger.turn(alone, at(0))), (Turn::Now, Turn::Behind));
    assert_eq!(merger.before(alone), Some(first));
    let (other, ..) = seated(merger.offer("b", offer(&["1"], 0), 1, at(0)));
    assert_eq!(merger.turn(other, at(50)), Turn::Now, "another entity does not wait");
}

#[test]
fn a_full_group_does_not_wait() {
    let mut merger = Merger::new(Bounds::default());
    let (group, ..) = seated(merger.offer("a", offer(&["1", "2"], 0), 1, at(0)));
    merger.offer("a", offer(&["3"], 0), 2, at(0));
    assert_eq!(merger.turn(group, at(0)), Turn::Now);
}

#[test]
fn bounds_of_bytes_and_groups_are_kept() {
    let bounds = Bounds { bytes: 30, groups: 2, ..Bounds::default() };
    let mut merger = Merger::new(bounds);
    let (first, ..) = seated(merger.offer("a", offer(&["0123456789"], 0), 1, at(0)));
    let (second, ..) = seated(merger.offer("a", offer(&["1123456789"], 0), 2, at(0)));
    assert_ne!(first, second);
    assert!(matches!(merger.offer("b", offer(&["1"], 0), 3, at(0)), Join::Alone(_, Alone::Bound)));
    merger.end(first);
    assert!(matches!(merger.offer("c", offer(&["1"], 0), 3, at(0)), Join::Seated { .. }));
    merger.end(second);
    let long = "x".repeat(40);
    assert!(matches!(merger.offer("d", offer(&[&long], 0), 3, at(0)), Join::Alone(_, Alone::Bound)));
}

#[test]
fn who_hangs_up_before_the_group_leaves_is_not_in_it() {
    let mut merger = Merger::new(Bounds::default());
    let (group, first, _) = seated(merger.offer("a", offer(&["1"], 0), 1, at(0)));
    let (_, second, _) = seated(merger.offer("a", offer(&["2"], 0), 2, at(0)));
    assert!(!merger.leave(group, first));
    assert_eq!(seated(merger.offer("a", offer(&["1"], 0), 3, at(0))).0, group, "its item is free again");
    assert!(!merger.leave(group, second));
    let left = merger.seal(group, |who| *who != 3);
    assert!(left.is_empty(), "the last was held back at the door");
    let (group, seat, _) = seated(merger.offer("b", offer(&["1"], 0), 4, at(0)));
    assert!(merger.leave(group, seat));
    assert_eq!(merger.turn(group, at(0)), Turn::Empty);
    let (next, ..) = seated(merger.offer("b", offer(&["1"], 0), 5, at(0)));
    assert_ne!(next, group, "nobody joins what is given up");
    assert_eq!(merger.end(group), Some(next));
}

#[test]
fn items_with_a_status_of_their_own_are_told_apart() {
    let text = r#"
        [[merge]]
        name = "contacts"
        into = "POST /contacts/bulk"
        max = 10
        members = ["name"]
        wrap = "entities"
        items = "/results"
        status = "/status"
        entity = "/entity"
        error = "/error"
        [[merge.from]]
        match = "PUT /contacts/*"
        id = "{1}"
        status = 201
    "#;
    let rules = reader::read(text, "f", |file| read_merges(file, "merge")).unwrap();
    let rule = &rules[0];
    let rows = rule.rows(0, Some("a"), br#"{"name":"Ann"}"#).unwrap();
    assert_eq!(rule.body(&rows), r#"{"entities":[{"id":"a","name":"Ann"}]}"#);
    let body = json!({"results": [
        {"id": "a", "status": 200, "entity": {"id": "a", "name": "Ann"}},
        {"id": "b", "status": 404, "error": {"message": "gone"}},
        {"id": "d", "status": 200, "entity": {"id": "d"}},
        {"id": "d", "status": 200, "entity": {"id": "d"}},
    ]});
    let keys = ["a", "b", "c", "d"].map(|key| [item(key)]);
    let seats: Vec<(usize, &[Item])> = keys.iter().map(|rows| (0, &rows[..])).collect();
    let answer = |status, body: Value| Verdict::Answer { status, body: body.to_string().into_bytes() };
    assert_eq!(
        split(rule, &seats, 200, body.to_string().as_bytes()),
        [
            answer(201, json!({"id": "a", "name": "Ann"})),
            answer(404, json!({"message": "gone"})),
            Verdict::Lost,
            Verdict::Lost,
        ]
    );
    assert_eq!(split(rule, &seats[..1], 400, b"{}"), [Verdict::Again]);
    assert_eq!(split(rule, &seats[..1], 500, b"{}"), [Verdict::Whole]);
    assert_eq!(split(rule, &seats[..1], 200, b"<html>"), [Verdict::Lost]);
}

#[test]
fn of_a_list_each_is_shown_its_own() {
    let rules = rules();
    let rule = rules.iter().find(|rule| rule.name == "users-auto-answer").unwrap();
    let body = json!({"total": 2, "entities": [{"id": "a", "version": 3}, {"id": "b"}], "pageSize": 25});
    let (own, other) = ([item("a")], [item("z")]);
    let told = split(rule, &[(0, &own), (0, &other)], 200, body.to_string().as_bytes());
    let shown = json!({"total": 1, "entities": [{"id": "a", "version": 3}], "pageSize": 25});
    let Verdict::Answer { status: 200, body } = &told[0] else { panic!("{told:?}") };
    assert_eq!(serde_json::from_slice::<Value>(body).unwrap(), shown);
    assert_eq!(told[1], Verdict::Lost, "setting it twice raises its version twice");
}

#[test]
fn every_problem_of_a_rule_is_told_with_its_line() {
    let text = r#"[[merge]]
name = "a b"
into = "GET /x"
max = 1
members = []
error = "/error"
order = "/x/**"
[[merge.from]]
match = "DELETE /x/*"
row = "rows"
id = "{3}"
answer = "item"
[[merge]]
name = "b"
into = "PATCH /x/{2}/bulk"
max = 5
members = ["n"]
status = "/status"
[[merge.from]]
match = "PUT /x/*"
answer = "whole"
[[merge.from]]
match = "PUT /x/*"
"#;
    let problems = reader::read(text, "f", |file| read_merges(file, "merge")).unwrap_err().to_string();
    for expected in [
        "f:2: merge[0].name: `a b` is no name",
        "f:3: merge[0].into: `GET /x` is no bulk call",
        "f:4: merge[0].max: 1 is out of range",
        "f:5: merge[0].members: is empty",
        "f:6: merge[0].error: needs `status`",
        "f:7: merge[0].order: `/x/**` has a `**`",
        "f:9: merge[0].from[0].match: `DELETE /x/*` names no write with a body",
        "f:11: merge[0].from[0].id: `{3}` stands for nothing",
        "f:11: merge[0].from[0].id: does not go with rows",
        "f:12: merge[0].from[0].answer: `item` is one row's",
        "f:20: merge[1].from[0].match: has fewer `*`",
        "f:21: merge[1].from[0].answer: has to be `item`",
        "f:23: merge[1].from[1].match: is that of an earlier one",
    ] {
        assert!(problems.contains(expected), "{expected} is not in\n{problems}");
    }
}

/// What a caller asks for.
#[derive(Clone, Debug)]
enum Ask {
    Put(&'static str, u8),
    Post(&'static str, u8),
    Patch(Vec<(&'static str, u8)>),
    Replace(Vec<(&'static str, u8)>),
    Delete(&'static str),
}

#[derive(Clone, Debug)]
struct Write {
    user: u8,
    ask: Ask,
    after: u64,
    /// How long its caller waits.
    hangs_up: Option<u64>,
}

/// A server that knows single calls. Values above 5 are refused, and so is every call about user 3.
#[derive(Clone, Debug, Default)]
struct Server(BTreeMap<u8, BTreeMap<String, u64>>);

/// As many items are on a page of an answer.
const PAGE: usize = 3;

fn shown(id: &str, value: u64) -> Value {
    json!({"id": id, "proficiency": value, "state": "active"})
}

impl Server {
    /// One call with these rows: all or nothing.
    fn set(&mut self, user: u8, rows: &[(String, u64)], replace: bool) -> (u16, Value) {
        if user == 3 || rows.iter().any(|(_, value)| *value > 5) {
            return (if user == 3 { 404 } else { 400 }, json!({"message": format!("no, {rows:?}")}));
        }
        let skills = self.0.entry(user).or_default();
        if replace {
            skills.clear();
        }
        skills.extend(rows.iter().cloned());
        let page: Vec<Value> = skills.iter().take(PAGE).map(|(id, value)| shown(id, *value)).collect();
        (200, json!({"entities": page, "total": skills.len()}))
    }

    fn single(&mut self, user: u8, ask: &Ask) -> (u16, Value) {
        let owned = |rows: &[(&'static str, u8)]| -> Vec<(String, u64)> {
            rows.iter().map(|(id, value)| ((*id).to_owned(), u64::from(*value))).collect()
        };
        match ask {
            Ask::Patch(rows) => self.set(user, &owned(rows), false),
            Ask::Replace(rows) => self.set(user, &owned(rows), true),
            Ask::Put(id, value) | Ask::Post(id, value) => {
                match self.set(user, &owned(&[(id, *value)]), false) {
                    (200, _) => (200, shown(id, u64::from(*value))),
                    refused => refused,
                }
            }
            Ask::Delete(id) => {
                let there = self.0.get_mut(&user).and_then(|skills| skills.remove(*id));
                (if there.is_some() { 204 } else { 404 }, json!(null))
            }
        }
    }
}

impl Ask {
    fn request(&self, user: u8) -> (Method, String, String) {
        let base = format!("/api/v2/users/{user}/routingskills");
        let rows = |rows: &[(&str, u8)]| {
            let rows: Vec<Value> =
                rows.iter().map(|(id, value)| json!({"id": id, "proficiency": value})).collect();
            Value::from(rows).to_string()
        };
        match self {
            Self::Put(id, value) => {
                (Method::PUT, format!("{base}/{id}"), json!({"proficiency": value}).to_string())
            }
            Self::Post(id, value) => {
                (Method::POST, base, json!({"id": id, "proficiency": value}).to_string())
            }
            Self::Patch(list) => (Method::PATCH, format!("{base}/bulk"), rows(list)),
            Self::Replace(list) => (Method::PUT, format!("{base}/bulk"), rows(list)),
            Self::Delete(id) => (Method::DELETE, format!("{base}/{id}"), String::new()),
        }
    }
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    HangsUp(usize),
    Looks(EntryId),
    Leaves(EntryId),
    Answered(EntryId),
    Single(EntryId, usize),
}

#[derive(Default)]
struct Carrying {
    writes: Vec<usize>,
    opened: u64,
    free: u64,
    left: Vec<(usize, usize, Vec<Item>)>,
    status: u16,
    answer: Value,
    open_singles: usize,
}

struct World {
    rules: Vec<MergeRule>,
    merger: Merger<(usize, usize)>,
    events: std::collections::BTreeSet<(u64, u64, Event)>,
    order: u64,
    server: Server,
    carrying: BTreeMap<EntryId, Carrying>,
    seats: BTreeMap<usize, (EntryId, SeatId)>,
    told: BTreeMap<usize, (u16, Value)>,
    gone: Vec<usize>,
    /// How often a write took effect.
    done: BTreeMap<usize, u32>,
    may_repeat: Vec<usize>,
    rng: fastrand::Rng,
}

impl World {
    fn at(&mut self, when: u64, event: Event) {
        self.order += 1;
        self.events.insert((when, self.order, event));
    }

    fn soon(&mut self, now: u64, event: Event) {
        let when = now + self.rng.u64(1..200);
        self.at(when, event);
    }

    fn arrives(&mut self, now: u64, number: usize, write: &Write) {
        let (method, path, body) = write.ask.request(write.user);
        let placed = find(&self.rules, &method, &path).unwrap();
        let rule = &self.rules[placed.rule];
        let rows = placed.single.as_ref().and_then(|(single, named)| {
            Some((*single, rule.rows(*single, named.as_deref(), body.as_bytes()).ok()?))
        });
        let entry = if let Some((single, rows)) = rows {
            let offer = Offer { rule: (placed.rule, 4), terms: [0; 32], rows };
            match self.merger.offer(&placed.into, offer, (number, single), at(now)) {
                Join::Seated { group, seat, opened } => {
                    self.seats.insert(number, (group, seat));
                    if let Some(known) = self.carrying.get_mut(&group).filter(|_| !opened) {
                        known.writes.push(number);
                    }
                    self.at(now, Event::Looks(group));
                    opened.then_some(group)
                }
                Join::Alone(alone, _) => Some(alone),
            }
        } else {
            Some(self.merger.pass(&placed.into))
        };
        if let Some(entry) = entry {
            let carrying = Carrying { writes: vec![number], opened: now, ..Carrying::default() };
            self.carrying.insert(entry, carrying);
            self.at(now, Event::Looks(entry));
            if let Some(before) = self.merger.before(entry) {
                self.at(now, Event::Looks(before));
            }
        }
        if let Some(after) = write.hangs_up {
            self.at(now + after, Event::HangsUp(number));
        }
    }

    fn looks(&mut self, now: u64, entry: EntryId) {
        let Some(carrying) = self.carrying.get_mut(&entry).filter(|carrying| carrying.status == 0) else {
            return;
        };
        match self.merger.turn(entry, at(now)) {
            Turn::Now => {
                // Nothing waits longer than the window and for what stands before it.
                assert!(now <= (carrying.opened + 50).max(carrying.free), "{entry:?} left late, at {now}");
                carrying.status = 1;
                self.soon(now, Event::Leaves(entry));
            }
            Turn::At(due) => self.at(due.as_nanos() / 1_000_000, Event::Looks(entry)),
            Turn::Behind => {}
            Turn::Empty => self.ends(now, entry),
        }
    }

    fn leaves(&mut self, now: u64, entry: EntryId, writes: &[Write]) {
        let gone = self.gone.clone();
        let left = self.merger.seal(entry, |(number, _)| !gone.contains(number));
        let carrying = self.carrying.get_mut(&entry).unwrap();
        let first = carrying.writes[0];
        if !left.is_empty() {
            let user = writes[first].user;
            let rule = &self.rules[0];
            let body: Value =
                serde_json::from_str(&rule.body(left.iter().flat_map(|(_, rows)| rows))).unwrap();
            let rows: Vec<(String, u64)> = body
                .as_array()
                .unwrap()
                .iter()
                .map(|row| (row["id"].as_str().unwrap().to_owned(), row["proficiency"].as_u64().unwrap()))
                .collect();
            // Its answer may be lost, and it is sent again.
            for _ in 0..self.rng.u32(1..3) {
                (carrying.status, carrying.answer) = self.server.set(user, &rows, false);
            }
            for ((number, single), rows) in left {
                carrying.left.push((number, single, rows));
                *self.done.entry(number).or_default() += u32::from(carrying.status == 200);
            }
            self.soon(now, Event::Answered(entry));
        } else if self.seats.contains_key(&first) {
            self.ends(now, entry);
        } else {
            carrying.open_singles = 1;
            if gone.contains(&first) {
                return self.ends(now, entry);
            }
            self.soon(now, Event::Single(entry, first));
        }
    }

    fn answered(&mut self, now: u64, entry: EntryId) {
        let Carrying { left, status, answer, .. } = &self.carrying[&entry];
        let seats: Vec<(usize, &[Item])> =
            left.iter().map(|(_, single, rows)| (*single, rows.as_slice())).collect();
        let verdicts = split(&self.rules[0], &seats, *status, answer.to_string().as_bytes());
        let (status, answer) = (*status, answer.clone());
        let numbers: Vec<usize> = left.iter().map(|(number, ..)| *number).collect();
        let mut again = Vec::new();
        for (number, verdict) in numbers.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Answer { status, body } => {
                    self.told.insert(number, (status, serde_json::from_slice(&body).unwrap()));
                }
                Verdict::Whole => drop(self.told.insert(number, (status, answer.clone()))),
                Verdict::Again => again.push(number),
                Verdict::Lost => panic!("skills are set, so it can be sent again"),
            }
        }
        self.carrying.get_mut(&entry).unwrap().open_singles = again.len();
        for number in &again {
            self.may_repeat.push(*number);
            self.soon(now, Event::Single(entry, *number));
        }
        if again.is_empty() {
            self.ends(now, entry);
        }
    }

    fn single(&mut self, now: u64, entry: EntryId, number: usize, write: &Write) {
        let told = self.server.single(write.user, &write.ask);
        *self.done.entry(number).or_default() += u32::from(told.0 < 300);
        self.told.insert(number, told);
        let carrying = self.carrying.get_mut(&entry).unwrap();
        carrying.open_singles -= 1;
        if carrying.open_singles == 0 {
            self.ends(now, entry);
        }
    }

    fn ends(&mut self, now: u64, entry: EntryId) {
        self.carrying.remove(&entry);
        if let Some(next) = self.merger.end(entry) {
            self.carrying.get_mut(&next).unwrap().free = now;
            self.at(now, Event::Looks(next));
        }
    }

    fn hangs_up(&mut self, now: u64, number: usize) {
        let left = self.carrying.values().any(|carrying| {
            carrying.left.iter().any(|(other, ..)| *other == number)
                || carrying.open_singles > 0 && carrying.writes[0] == number
        });
        if left || self.told.contains_key(&number) {
            return;
        }
        self.gone.push(number);
        if let Some((group, seat)) = self.seats.get(&number)
            && self.merger.leave(*group, *seat)
        {
            self.at(now, Event::Looks(*group));
        }
    }

    fn run(writes: &[Write], seed: u64) -> Self {
        let mut world = Self {
            rules: rules(),
            merger: Merger::new(Bounds::default()),
            events: std::collections::BTreeSet::new(),
            order: 0,
            server: Server::default(),
            carrying: BTreeMap::new(),
            seats: BTreeMap::new(),
            told: BTreeMap::new(),
            gone: Vec::new(),
            done: BTreeMap::new(),
            may_repeat: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
        };
        let mut when = 0;
        for (number, write) in writes.iter().enumerate() {
            when += write.after;
            world.at(when, Event::Arrives(number));
        }
        while let Some((now, _, event)) = world.events.pop_first() {
            match event {
                Event::Arrives(number) => world.arrives(now, number, &writes[number]),
                Event::HangsUp(number) => world.hangs_up(now, number),
                Event::Looks(entry) => world.looks(now, entry),
                Event::Leaves(entry) => world.leaves(now, entry, writes),
                Event::Answered(entry) => world.answered(now, entry),
                Event::Single(entry, number) => world.single(now, entry, number, &writes[number]),
            }
        }
        world
    }
}

fn asks() -> impl Strategy<Value = Ask> {
    let id = || prop::sample::select(vec!["a", "b", "c", "d", "e"]);
    let rows =
        || prop::collection::btree_map(id(), 0..6_u8, 1..4).prop_map(|rows| rows.into_iter().collect());
    prop_oneof![
        4 => (id(), 0..7_u8).prop_map(|(id, value)| Ask::Put(id, value)),
        2 => (id(), 0..7_u8).prop_map(|(id, value)| Ask::Post(id, value)),
        4 => rows().prop_map(Ask::Patch),
        1 => rows().prop_map(Ask::Replace),
        1 => id().prop_map(Ask::Delete),
    ]
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let hangs_up = prop::option::weighted(0.2, 0..400_u64);
    let write = (0..4_u8, asks(), 0..40_u64, hangs_up);
    let write = write.prop_map(|(user, ask, after, hangs_up)| Write { user, ask, after, hangs_up });
    prop::collection::vec(write, 1..40)
}

/// Whether two answers say the same of what a write asked for. An answer that lists the whole entity may show what others have set since,
/// on the one page it has, so of it only the status and what is on the page of the own rows is compared.
fn agrees(ask: &Ask, told: &(u16, Value), expected: &(u16, Value)) -> bool {
    match ask {
        Ask::Patch(rows) if expected.0 == 200 => {
            let shows = |(id, value): &(&str, u8)| {
                let found = told.1["entities"].as_array().unwrap().iter().find(|item| item["id"] == *id);
                found.is_none_or(|item| *item == shown(id, u64::from(*value)))
            };
            told.0 == 200 && rows.iter().all(shows)
        }
        _ => told == expected,
    }
}

proptest! {
    #[test]
    fn merged_writes_do_what_singles_in_their_order_do(writes in writes(), seed in any::<u64>()) {
        let world = World::run(&writes, seed);
        // The judge: every write that was not given up before it left, one by one, in the order of arrival.
        let mut judge = Server::default();
        for (number, write) in writes.iter().enumerate() {
            if world.gone.contains(&number) {
                prop_assert!(!world.told.contains_key(&number) && !world.done.contains_key(&number));
                continue;
            }
            let expected = judge.single(write.user, &write.ask);
            let told = world.told.get(&number);
            prop_assert!(told.is_some(), "{number} was never answered: {write:?}");
            prop_assert!(agrees(&write.ask, told.unwrap(), &expected), "{number} {write:?}: {told:?}, not {expected:?}");
            let done = world.done.get(&number).copied().unwrap_or(0);
            let most = if world.may_repeat.contains(&number) { 2 } else { 1 };
            prop_assert!(done <= most, "{number} was done {done} times");
        }
        let filled = |server: &Server| -> Vec<_> {
            server.0.clone().into_iter().filter(|(_, skills)| !skills.is_empty()).collect()
        };
        prop_assert_eq!(filled(&world.server), filled(&judge));
        prop_assert_eq!(world.merger.entries(), 0, "nothing is left over");
    }
}
