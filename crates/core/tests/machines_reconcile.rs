//! Finding out what became of a write: every case in a table, and chance against an upstream that executes late, reads
//! from a replica that lags, and has another writer.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_core::profile::Profile;
use tidegate_core::reconcile::{
    Finding, Rule, Sight, Since, Unfit, Written, explain, judge, read_for, reapply, see,
};

use Finding::{Applied, CannotTell, NotApplied, Superseded, TooEarly};

const S: Duration = Duration::from_secs(1);

/// The first rule of a profile of nothing else.
fn rule(text: &str) -> Rule {
    Profile::parse(&format!("name = 'x'\n[[reconcile]]\nsettle = '10s'\n{text}\n"), "f")
        .unwrap()
        .reconcile
        .remove(0)
}

fn written(rule: &Rule, path: &str, body: &Value) -> Written {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let written = Written::new(rule.method.clone(), path, body.as_bytes());
    assert!(rule.applies(&written.method, &written.path));
    written
}

/// The finding at once, and after `settle`.
fn findings(rule: &Rule, write: &Written, status: u16, answer: &Value) -> (Finding, Finding) {
    let body = Some(answer).filter(|answer| !answer.is_null());
    let sight = see(rule, write, status, body);
    let at = |quiet| judge(rule, write, sight, Since::watched(quiet));
    (at(9 * S), at(10 * S))
}

const PATCH: &str = "match = 'PATCH /users/*'\nsame = 'body'";

#[test]
fn a_version_tells_whose_write_it_was() {
    let rule = rule(&format!("{PATCH}\nversion = '/version'"));
    let write = written(&rule, "/users/7", &json!({"title": "Lead", "version": 4}));
    for (version, title, found) in [
        (json!(4), "Agent", (NotApplied, NotApplied)),
        (json!(4), "Lead", (NotApplied, NotApplied)),
        (json!(5), "Lead", (Applied, Applied)),
        (json!(5), "Boss", (Superseded, Superseded)),
        (json!(6), "Lead", (Applied, Applied)),
        (json!(6), "Boss", (CannotTell, CannotTell)),
        // Of an export of long ago, or of another organisation: the upstream will refuse it, and never execute it twice.
        (json!(3), "Lead", (TooEarly, NotApplied)),
        (json!(3), "Boss", (TooEarly, NotApplied)),
        (json!("5"), "Lead", (TooEarly, CannotTell)),
        (json!(null), "Lead", (TooEarly, CannotTell)),
    ] {
        let entity = json!({"title": title, "version": version});
        assert_eq!(findings(&rule, &write, 200, &entity), found, "{entity}");
    }
    // A body of nothing but its version can have been executed by nobody else's hand either, and nothing shows it.
    let bare = written(&rule, "/users/7", &json!({"version": 4}));
    assert_eq!(findings(&rule, &bare, 200, &json!({"version": 5})), (CannotTell, CannotTell));
}

#[test]
fn without_a_version_an_absence_proves_nothing_unless_the_rule_says_so() {
    let (unknown, word) = (rule(PATCH), rule(&format!("{PATCH}\nabsent = 'not-applied'")));
    let write = written(&unknown, "/users/7", &json!({"title": "Lead"}));
    for (status, entity, cautious, told) in [
        (200, json!({"title": "Lead", "x": 1}), (Applied, Applied), (Applied, Applied)),
        (200, json!({"title": "Boss"}), (TooEarly, CannotTell), (TooEarly, NotApplied)),
        (200, json!({}), (TooEarly, CannotTell), (TooEarly, NotApplied)),
        (404, json!(null), (TooEarly, CannotTell), (TooEarly, NotApplied)),
        (410, json!({}), (TooEarly, CannotTell), (TooEarly, NotApplied)),
        (403, json!({"title": "Lead"}), (TooEarly, CannotTell), (TooEarly, CannotTell)),
        (500, json!({"title": "Lead"}), (TooEarly, CannotTell), (TooEarly, CannotTell)),
        (200, json!(null), (TooEarly, CannotTell), (TooEarly, CannotTell)),
    ] {
        assert_eq!(findings(&unknown, &write, status, &entity), cautious, "{status} {entity}");
        assert_eq!(findings(&word, &write, status, &entity), told, "{status} {entity}");
    }
    let nothing_to_compare = written(&word, "/users/7", &json!([1]));
    assert_eq!(findings(&word, &nothing_to_compare, 200, &json!({})), (TooEarly, CannotTell));
}

#[test]
fn a_natural_key_finds_one_entity_or_tells_nothing() {
    let rule = rule(
        "match = 'POST /users'\nread = 'GET /users?q={/email}'\nitems = '/list'\ntotal = '/total'\nkey = '/mail = /email'\nsame = ['/name']\nabsent = 'not-applied'",
    );
    let write = written(&rule, "/users", &json!({"email": "ann@x", "name": "Ann"}));
    assert_eq!(read_for(&rule, &write).unwrap().target, "/users?q=ann%40x");
    let ann = json!({"mail": "ann@x", "name": "Ann"});
    let list = |list: Value| json!({"total": list.as_array().unwrap().len(), "list": list});
    for (answer, found) in [
        (list(json!([ann])), (Applied, Applied)),
        (list(json!([{"mail": "bob@x", "name": "Ann"}, ann])), (Applied, Applied)),
        (list(json!([])), (TooEarly, NotApplied)),
        (list(json!([{"mail": "bob@x", "name": "Ann"}])), (TooEarly, NotApplied)),
        // Whoever made it: a second one would be too many.
        (list(json!([{"mail": "ann@x", "name": "Anna"}])), (TooEarly, CannotTell)),
        (list(json!([ann, ann])), (TooEarly, CannotTell)),
        (list(json!([{"mail": " Ann@X", "name": "Ann"}])), (TooEarly, CannotTell)),
        (json!({"total": 40, "list": []}), (TooEarly, CannotTell)),
        (json!({"list": []}), (TooEarly, CannotTell)),
        (json!({"total": 0}), (TooEarly, CannotTell)),
        (json!([]), (TooEarly, CannotTell)),
    ] {
        assert_eq!(findings(&rule, &write, 200, &answer), found, "{answer}");
    }
    assert_eq!(
        findings(&rule, &write, 404, &json!({})),
        (TooEarly, CannotTell),
        "a search that is not there"
    );
    let keyless = written(&rule, "/users", &json!({"name": "Ann"}));
    assert_eq!(read_for(&rule, &keyless), Err(Unfit::Missing("/email".to_owned())));
}

#[test]
fn a_list_is_applied_when_every_item_is_there() {
    let text = |exact: bool| {
        format!(
            "match = 'PUT /users/*/skills'\nread = 'GET /users/{{1}}/list'\ntotal = '/total'\nabsent = 'not-applied'\neach = {{ into = '/list', id = '/id', members = ['/level'], exact = {exact} }}"
        )
    };
    let (merge, replace) = (rule(&text(false)), rule(&text(true)));
    let write =
        written(&merge, "/users/7/skills", &json!([{"id": "a", "level": 4}, {"id": "b", "level": 1}]));
    assert_eq!(read_for(&merge, &write).unwrap().target, "/users/7/list");
    let (a, b, c) =
        (json!({"id": "a", "level": 4.0}), json!({"id": "b", "level": 1}), json!({"id": "c", "level": 1}));
    let list = |list: Value| json!({"total": list.as_array().unwrap().len(), "list": list});
    for (answer, merged, replaced) in [
        (list(json!([b, a])), (Applied, Applied), (Applied, Applied)),
        (list(json!([a, b, c])), (Applied, Applied), (TooEarly, NotApplied)),
        (list(json!([a])), (TooEarly, NotApplied), (TooEarly, NotApplied)),
        (list(json!([a, {"id": "b", "level": 2}])), (TooEarly, NotApplied), (TooEarly, NotApplied)),
        (json!({"total": 3, "list": [a, b]}), (Applied, Applied), (TooEarly, CannotTell)),
        (json!({"total": 3, "list": [a, c]}), (TooEarly, CannotTell), (TooEarly, CannotTell)),
        (json!({"total": 3}), (TooEarly, CannotTell), (TooEarly, CannotTell)),
    ] {
        assert_eq!(findings(&merge, &write, 200, &answer), merged, "merge {answer}");
        assert_eq!(findings(&replace, &write, 200, &answer), replaced, "replace {answer}");
    }
    let nothing = written(&merge, "/users/7/skills", &json!([]));
    assert_eq!(findings(&merge, &nothing, 200, &list(json!([a]))), (TooEarly, CannotTell));
    assert_eq!(findings(&replace, &nothing, 200, &list(json!([]))), (Applied, Applied));
}

#[test]
fn a_write_of_which_only_a_part_is_compared_is_never_called_executed() {
    let members = rule(
        "match = 'PATCH /users/*'\nversion = '/version'\nsame = ['/name', '/address/city']\nabsent = 'not-applied'",
    );
    let entity =
        json!({"name": "Ann", "state": "active", "address": {"city": "Bonn", "street": "A"}, "version": 2});
    for (body, found) in [
        (json!({"name": "Ann"}), (Applied, Applied)),
        (json!({"name": "Ann", "address": {"city": "Bonn"}}), (Applied, Applied)),
        // What was there before says nothing about the state that was written.
        (json!({"name": "Ann", "state": "inactive"}), (TooEarly, CannotTell)),
        (json!({"name": "Ann", "state": "active"}), (TooEarly, CannotTell)),
        (json!({"name": "Ann", "password": null}), (TooEarly, CannotTell)),
        (json!({"name": "Ann", "address": {"city": "Bonn", "street": "A"}}), (TooEarly, CannotTell)),
        (json!({"state": "active"}), (TooEarly, CannotTell)),
        // One that is otherwise shows that the whole is not there.
        (json!({"name": "Bob", "state": "active"}), (TooEarly, NotApplied)),
        // The upstream's spelling, or what was there before.
        (json!({"name": "ann "}), (TooEarly, CannotTell)),
        (json!({"name": "Ann", "state": "inactive", "version": 1}), (CannotTell, CannotTell)),
        (json!({"name": "Bob", "state": "inactive", "version": 1}), (Superseded, Superseded)),
        (json!({"name": "Ann", "state": "inactive", "version": 2}), (NotApplied, NotApplied)),
    ] {
        let write = written(&members, "/users/7", &body);
        assert_eq!(findings(&members, &write, 200, &entity), found, "{body}");
    }
    let write = written(&members, "/users/7", &json!({"name": "Ann", "state": "inactive"}));
    let why = explain(&members, &write, Sight::Found(&entity));
    assert_eq!(why, "not all that was written can be compared with what is there");
}

#[test]
fn an_item_of_which_only_a_part_is_compared_is_never_called_executed() {
    let rule = rule(
        "match = 'PATCH /users/*/skills'\nread = 'GET /x'\nabsent = 'not-applied'\neach = { from = '/items', into = '/list', id = '/id', members = ['/level'] }",
    );
    let list = json!({"list": [{"id": "a", "level": 4, "state": "active"}]});
    for (body, found) in [
        (json!({"items": [{"id": "a", "level": 4}]}), (Applied, Applied)),
        (json!({"items": [{"id": "a"}]}), (Applied, Applied)),
        (json!({"items": [{"id": "a", "level": 4, "state": "inactive"}]}), (TooEarly, CannotTell)),
        (json!({"items": [{"id": "a", "level": 5, "state": "inactive"}]}), (TooEarly, NotApplied)),
        (json!({"items": [{"id": "a", "level": 4}], "notify": true}), (TooEarly, CannotTell)),
    ] {
        let write = written(&rule, "/users/7/skills", &body);
        assert_eq!(findings(&rule, &write, 200, &list), found, "{body}");
    }
}

#[test]
fn one_that_may_have_been_there_before_is_not_taken_for_the_new_one() {
    let rule = rule(
        "match = 'POST /users'\nread = 'GET /users?q={/email}'\nitems = '/list'\nkey = '/email'\nsame = ['/name', '/division/id = /divisionId']\nversion = '/version'\nfirst = 1\nabsent = 'not-applied'",
    );
    let write = written(&rule, "/users", &json!({"email": "ann@x", "name": "Ann", "divisionId": "d"}));
    let user = |name: &str, division: &str, version: Value| json!({"list": [{"email": "ann@x", "name": name, "division": {"id": division, "name": "Home"}, "version": version}]});
    for (answer, found) in [
        (user("Ann", "d", json!(1)), (Applied, Applied)),
        (user("Ann", "d", json!(4)), (TooEarly, CannotTell)),
        (user("Ann", "d", json!(null)), (TooEarly, CannotTell)),
        (user("Anna", "d", json!(1)), (TooEarly, CannotTell)),
        (user("Ann", "e", json!(1)), (TooEarly, CannotTell)),
    ] {
        assert_eq!(findings(&rule, &write, 200, &answer), found, "{answer}");
    }
    let more = written(&rule, "/users", &json!({"email": "ann@x", "name": "Ann", "title": "Lead"}));
    let there = user("Ann", "d", json!(1));
    assert_eq!(findings(&rule, &more, 200, &there), (TooEarly, CannotTell), "of the title nothing is known");
}

#[test]
fn an_absence_that_nobody_watched_is_not_believed_unless_the_rule_vouches_for_it() {
    let after = |absent: &str, entity: &Value, since: Since| {
        let rule = rule(&format!("{PATCH}\nabsent = '{absent}'"));
        let write = written(&rule, "/users/7", &json!({"title": "Lead"}));
        judge(&rule, &write, see(&rule, &write, 200, Some(entity)), since)
    };
    let (before, done) = (json!({"title": "Boss"}), json!({"title": "Lead"}));
    let (watched, unwatched) = (Since::watched(10 * S), Since::unwatched(10 * S));
    for (absent, seen, unseen) in [
        ("unknown", CannotTell, CannotTell),
        ("unchanged", NotApplied, CannotTell),
        ("not-applied", NotApplied, NotApplied),
    ] {
        assert_eq!((after(absent, &before, watched), after(absent, &before, unwatched)), (seen, unseen));
        assert_eq!(after(absent, &before, Since::unwatched(9 * S)), TooEarly);
        assert_eq!(after(absent, &done, Since::unwatched(Duration::ZERO)), Applied);
    }
}

#[test]
fn what_ought_to_be_gone_is_gone() {
    let rule = rule("match = 'DELETE /users/*'\ngone = true");
    let write = written(&rule, "/users/7", &json!(null));
    assert_eq!(findings(&rule, &write, 404, &json!(null)), (Applied, Applied));
    assert_eq!(findings(&rule, &write, 410, &json!({})), (Applied, Applied));
    assert_eq!(findings(&rule, &write, 200, &json!({"id": 7})), (TooEarly, CannotTell));
    assert_eq!(findings(&rule, &write, 204, &json!(null)), (TooEarly, CannotTell));
    assert_eq!(findings(&rule, &write, 403, &json!(null)), (TooEarly, CannotTell));
    let there = json!({"id": 7});
    assert_eq!(explain(&rule, &write, Sight::Found(&there)), "the entity is still there");
    let word = Rule { absent: tidegate_core::reconcile::Absent::NotApplied, ..rule };
    assert_eq!(findings(&word, &write, 200, &there), (TooEarly, NotApplied), "the author's word");
}

#[test]
fn a_change_is_applied_again_on_the_current_version_only_where_that_is_what_was_wrong() {
    let rule = rule(&format!("{PATCH}\nversion = '/meta/version'"));
    let on = |body: &str, version: Value| {
        let changed =
            reapply(&rule, body.as_bytes(), &json!({"title": "Boss", "meta": {"version": version}}))?;
        Some(serde_json::from_slice::<Value>(&changed).unwrap())
    };
    let body = r#"{"title":"Lead","meta":{"version":4}}"#;
    assert_eq!(on(body, json!(9)), Some(json!({"title": "Lead", "meta": {"version": 9}})));
    assert_eq!(on(body, json!(4)), None, "the refusal was about something else");
    assert_eq!(on(body, json!("9")), None);
    assert_eq!(on(r#"{"title":"Lead"}"#, json!(9)), None, "it never said what it was based on");
    assert_eq!(on(r#"{"n":9007199254740993,"meta":{"version":4}}"#, json!(9)), None, "digits would be lost");
    assert_eq!(on("{", json!(9)), None);
}

#[test]
fn the_genesys_rules_compare_what_agents_are_given() {
    let genesys = Profile::builtin("genesys").unwrap();
    let finding = |method: Method, path: &str, body: &Value, answer: &Value, since: Since| {
        let write = Written::new(method, path, body.to_string().as_bytes());
        let rule = genesys.reconcile_rule(&write.method, path).unwrap();
        judge(rule, &write, see(rule, &write, 200, Some(answer)), since)
    };
    let late = Since::unwatched(Duration::from_hours(2));
    let user = json!({"id": "7", "name": "Ann", "email": "a@x", "title": "Lead", "department": "Sales", "state": "active", "version": 2});
    let patch = |body: &Value| finding(Method::PATCH, "/api/v2/users/7", body, &user, late);
    assert_eq!(
        patch(&json!({"name": "Ann", "state": "inactive"})),
        CannotTell,
        "never applied, and never lost"
    );
    assert_eq!(patch(&json!({"name": "Ann", "state": "inactive", "version": 1})), Superseded);
    assert_eq!(patch(&json!({"state": "active", "version": 1})), Applied);
    assert_eq!(patch(&json!({"state": "active", "version": 9})), NotApplied);
    assert_eq!(patch(&json!({"name": "Ann", "manager": "8"})), CannotTell);
    let found = json!({"results": [user], "total": 1});
    let post = |body: &Value| finding(Method::POST, "/api/v2/users", body, &found, late);
    assert_eq!(post(&json!({"name": "Ann", "email": "a@x", "department": "New"})), CannotTell);
    assert_eq!(
        post(&json!({"name": "Ann", "email": "a@x"})),
        CannotTell,
        "it was changed since it was created"
    );
    let skills = json!({"entities": [{"id": "s", "proficiency": 2.0, "state": "active"}], "total": 1});
    for (method, what) in [
        (Method::PATCH, "routingskills"),
        (Method::PUT, "routingskills"),
        (Method::PATCH, "routinglanguages"),
    ] {
        let target = format!("/api/v2/users/7/{what}/bulk");
        let item = |item: Value, since| finding(method.clone(), &target, &json!([item]), &skills, since);
        assert_eq!(item(json!({"id": "s", "proficiency": 2}), late), Applied);
        assert_eq!(
            item(json!({"id": "s", "proficiency": 5}), late),
            CannotTell,
            "set by hand since, perhaps"
        );
        assert_eq!(item(json!({"id": "s", "proficiency": 5}), Since::watched(10 * S)), NotApplied);
        assert_eq!(item(json!({"id": "s", "proficiency": 2, "state": "inactive"}), late), CannotTell);
        assert_eq!(item(json!({"id": "s", "proficiency": 2, "other": 1}), late), CannotTell);
    }
}

#[test]
fn the_genesys_rules_ask_what_the_platform_answers() {
    let genesys = Profile::builtin("genesys").unwrap();
    let asked = |method: Method, path: &str, body: &str| {
        let write = Written::new(method, path, body.as_bytes());
        let rule = genesys.reconcile_rule(&write.method, path)?;
        let read = read_for(rule, &write).unwrap();
        let body = read.body.map(|body| String::from_utf8(body).unwrap()).unwrap_or_default();
        Some(format!("{} {} {body}", read.method, read.target))
    };
    let search = r#"POST /api/v2/users/search {"pageSize":25,"query":[{"fields":["email"],"type":"EXACT","value":"a@x"},{"fields":["state"],"type":"EXACT","values":["active","inactive","deleted"]}]}"#;
    assert_eq!(asked(Method::POST, "/api/v2/users", r#"{"email":"a@x"}"#).as_deref(), Some(search));
    assert_eq!(asked(Method::PATCH, "/api/v2/users/7", "{}").as_deref(), Some("GET /api/v2/users/7 "));
    assert_eq!(asked(Method::DELETE, "/api/v2/users/7", "").as_deref(), Some("GET /api/v2/users/7 "));
    for (method, what) in [
        (Method::PATCH, "routingskills"),
        (Method::PUT, "routingskills"),
        (Method::PATCH, "routinglanguages"),
    ] {
        let path = format!("/api/v2/users/7/{what}/bulk");
        let expected = format!("GET /api/v2/users/7/{what}?pageSize=100 ");
        assert_eq!(asked(method, &path, "[]"), Some(expected));
    }
    assert_eq!(
        asked(Method::DELETE, "/api/v2/users/7/routingskills/a", ""),
        None,
        "nothing can be read there"
    );
    assert_eq!(asked(Method::POST, "/api/v2/conversations/calls", "{}"), None);
    // Adding members twice is adding them once: such a write is sent again without a question.
    assert_eq!(genesys.is_idempotent(&Method::POST, "/api/v2/routing/queues/7/members"), Some(true));
}

/// How an attempt ends that is not answered, and when it is executed.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Before,
    After,
    Late(u64),
}

/// An upstream with one list of users. Times are milliseconds; reads show what was there `lag` ago.
#[derive(Debug, Default)]
struct Upstream {
    /// What was executed, in order: the time, whether it was ours, and the title written.
    executed: Vec<(u64, bool, &'static str)>,
    /// Attempts that are executed later: the time, and the version they are based on.
    pending: Vec<(u64, Option<u64>)>,
    /// The other writer's updates, by time.
    others: Vec<u64>,
    creates: bool,
    lag: u64,
}

impl Upstream {
    fn version(&self) -> u64 {
        1 + self.executed.len() as u64
    }

    /// Executes our write; whether it was accepted.
    fn execute(&mut self, at: u64, based_on: Option<u64>) -> bool {
        let accepted = based_on.is_none_or(|version| version == self.version());
        if accepted {
            self.executed.push((at, true, "Ours"));
        }
        accepted
    }

    fn advance(&mut self, now: u64) {
        loop {
            let own = self.pending.iter().copied().enumerate().min_by_key(|(_, (at, _))| *at);
            let other = self.others.first().copied();
            match (own, other) {
                (Some((index, (at, based_on))), other)
                    if at <= now && other.is_none_or(|other| at < other) =>
                {
                    self.pending.remove(index);
                    self.execute(at, based_on);
                }
                (_, Some(at)) if at <= now => {
                    self.others.remove(0);
                    self.executed.push((at, false, "Theirs"));
                }
                _ => return,
            }
        }
    }

    fn read(&self, now: u64) -> Value {
        let seen: Vec<_> = self.executed.iter().filter(|(at, ..)| at + self.lag <= now).collect();
        if self.creates {
            let list: Vec<_> =
                seen.iter().map(|(_, _, name)| json!({"email": "a@x", "name": name})).collect();
            return json!({"list": list, "total": list.len()});
        }
        json!({"title": seen.last().map_or("Before", |(_, _, title)| title), "version": 1 + seen.len()})
    }

    fn ours(&self) -> usize {
        self.executed.iter().filter(|(_, ours, _)| *ours).count()
    }
}

/// How a write ended, as its writer was told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Done,
    Refused,
    Unknown,
}

/// Writes once, however often that has to be tried: the shell's loop, with a read every `every`.
fn write_once(
    rule: &Rule,
    write: &Written,
    upstream: &mut Upstream,
    losses: &[Loss],
    every: u64,
) -> (End, u64) {
    let based_on = write.body.as_ref().unwrap()["version"].as_u64();
    let mut now = 0;
    let mut lost_at = None;
    for attempt in 0..3 {
        now += 50;
        upstream.advance(now);
        let refused = match losses.get(attempt) {
            None => {
                if upstream.execute(now, based_on) {
                    return (End::Done, now);
                }
                if lost_at.is_none() {
                    return (End::Refused, now);
                }
                true
            }
            Some(loss) => {
                match loss {
                    Loss::Before => {}
                    Loss::After => drop(upstream.execute(now, based_on)),
                    Loss::Late(after) => upstream.pending.push((now + after, based_on)),
                }
                lost_at = Some(now);
                false
            }
        };
        loop {
            upstream.advance(now);
            let quiet = Duration::from_millis(now - lost_at.unwrap());
            let answer = upstream.read(now);
            match judge(rule, write, see(rule, write, 200, Some(&answer)), Since::watched(quiet)) {
                Applied => return (End::Done, now),
                Superseded => return (End::Refused, now),
                CannotTell => return (End::Unknown, now),
                NotApplied if refused && quiet >= rule.settle => return (End::Refused, now),
                NotApplied if !refused => break,
                NotApplied | TooEarly => now += every,
            }
        }
    }
    (End::Unknown, now)
}

fn losses() -> impl Strategy<Value = Vec<Loss>> {
    let loss = prop_oneof![Just(Loss::Before), Just(Loss::After), (0_u64..4_000).prop_map(Loss::Late)];
    prop::collection::vec(loss, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Executing late and reading late take less than the 10 s of `settle` together.
    #[test]
    fn no_write_is_executed_twice_and_none_is_said_to_be_done_that_was_not(
        losses in losses(),
        lag in 0_u64..5_000,
        every in 100_u64..3_000,
        others in prop::collection::btree_set(0_u64..20_000, 0..3),
        kind in 0_u8..3,
    ) {
        let (rule, body, others) = match kind {
            0 => (rule(&format!("{PATCH}\nversion = '/version'")), json!({"title": "Ours", "version": 1}), others),
            // Without a version nobody else may write the entity: that is what `not-applied` vouches for.
            1 => (rule(&format!("{PATCH}\nabsent = 'not-applied'")), json!({"title": "Ours"}), BTreeSet::default()),
            _ => (
                rule("match = 'PATCH /users/*'\nread = 'GET /list'\nitems = '/list'\ntotal = '/total'\nkey = '/email'\nsame = '/name'\nabsent = 'not-applied'"),
                json!({"email": "a@x", "name": "Ours"}),
                BTreeSet::default(),
            ),
        };
        let write = written(&rule, "/users/7", &body);
        let mut upstream = Upstream { others: others.into_iter().collect(), creates: kind == 2, lag, ..Upstream::default() };
        let (end, now) = write_once(&rule, &write, &mut upstream, &losses, every);
        if end == End::Done {
            prop_assert_eq!(upstream.ours(), 1, "said to be done when it was");
        }
        upstream.advance(now + 60_000);
        prop_assert!(upstream.ours() <= 1, "{:?}", upstream);
        if end == End::Refused {
            prop_assert_eq!(upstream.ours(), 0, "{:?}", upstream);
        }
        if losses.len() < 3 && upstream.executed.iter().all(|(_, ours, _)| *ours) {
            prop_assert!(end == End::Done, "alone nothing stays unknown: {:?} {:?}", end, upstream);
        }
    }
}

#[test]
fn a_read_that_comes_too_early_proves_nothing() {
    let post = rule(
        "match = 'PATCH /users/*'\nread = 'GET /list'\nitems = '/list'\nkey = '/email'\nsame = '/name'\nabsent = 'not-applied'",
    );
    let hasty = Rule { settle: Duration::ZERO, ..post.clone() };
    let write = written(&post, "/users/7", &json!({"email": "a@x", "name": "Ours"}));
    assert_eq!(judge(&post, &write, Sight::Absent, Since::watched(Duration::ZERO)), TooEarly);
    assert_eq!(judge(&post, &write, Sight::Absent, Since::watched(10 * S)), NotApplied);
    let executions = |rule: &Rule| {
        let mut upstream = Upstream { creates: true, ..Upstream::default() };
        let (_, now) = write_once(rule, &write, &mut upstream, &[Loss::Late(2_000)], 500);
        upstream.advance(now + 60_000);
        upstream.ours()
    };
    assert_eq!((executions(&post), executions(&hasty)), (1, 2), "what `settle` is for");
}

#[test]
fn what_was_written_may_stand_elsewhere_in_the_entity() {
    let rule = rule(
        "match = 'POST /jobs'\nread = 'GET /jobs'\nitems = '/list'\nkey = '/query/mark = /mark'\nsame = ['/query/action = /action', '/query/note = /note']",
    );
    let write = written(&rule, "/jobs", &json!({"mark": 7, "action": "EXPORT"}));
    let finding = |query: Value| {
        let answer = json!({"list": [{"id": "1", "action": "OTHER", "query": query}]});
        judge(&rule, &write, see(&rule, &write, 200, Some(&answer)), Since::watched(10 * S))
    };
    assert_eq!(finding(json!({"mark": 7, "action": "EXPORT", "note": "theirs"})), Applied);
    assert_eq!(finding(json!({"mark": 7, "action": "DELETE"})), CannotTell);
    assert_eq!(
        finding(json!({"mark": 8, "action": "EXPORT"})),
        CannotTell,
        "unless told, an absence proves nothing"
    );
}
