//! What inputs become: bodies, ids, transactions, and that no row is lost or used twice on the way.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use proptest::prelude::*;
use tidegate_bulk::{Format, Lookups, PlannedRequest, Planner, Recipe, Summary, load, report};
use tidegate_core::time::Wall;
use tidegate_store::{Change, Event, Journal, Outcome, RunHeader};
use uuid::Uuid;

fn plan(recipe: &Recipe, format: Format, input: &str) -> (Summary, Vec<PlannedRequest>) {
    let planner = Planner::new(recipe, format, "in");
    let survey = planner.survey(input.as_bytes()).unwrap();
    let mut requests = Vec::new();
    let summary = planner
        .plan(input.as_bytes(), &survey, &Lookups::default(), |request| {
            requests.push(request);
            Ok::<(), Infallible>(())
        })
        .unwrap();
    requests.sort_by_key(|it| it.seq);
    (summary, requests)
}

fn body(request: &PlannedRequest) -> &str {
    std::str::from_utf8(request.body.as_deref().unwrap()).unwrap()
}

fn recipe(text: &str) -> Recipe {
    Recipe::parse("test.toml", text).unwrap()
}

#[test]
fn rows_of_one_user_become_one_request_wherever_they_are() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let input = "user_id,skill_id,proficiency\nu1,s1,3\nu2,s1,1\nu1,s2,0.5\nu3,s9,5\n";
    let (summary, requests) = plan(&recipe, Format::Csv, input);
    assert_eq!((summary.rows, summary.requests), (4, 3));
    let first = &requests[0];
    assert_eq!((first.seq, first.id.as_str(), first.lines.as_slice()), (2, "u1", &[2, 4][..]));
    assert_eq!(
        (first.method.as_str(), first.target.as_str()),
        ("PATCH", "/api/v2/users/u1/routingskills/bulk")
    );
    assert_eq!(body(first), r#"[{"id":"s1","proficiency":3},{"id":"s2","proficiency":0.5}]"#);
    assert_eq!(requests.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["u1", "u2", "u3"]);
}

#[test]
fn a_generic_recipe_fills_types_and_leaves_out_empty_optional_members() {
    let recipe = recipe(
        r#"
name = "update"
method = "PATCH"
path = "/api/v2/users/{id}?expand={expand}"
id = "id"
body = { name = "{first} {last}", title = "{title?}", version = "{version:number}", on = "{on:bool}", raw = "{raw:json?}", fixed = [1, 2.5, true, "{{x}}"] }
"#,
    );
    let input = "id,expand,first,last,title,version,on,raw\n\
                 a?b,x/y,Ann,\"O'Hara \"\"Q\"\"\",,007e1,TRUE,\n";
    let planner = Planner::new(&recipe, Format::Csv, "in");
    let survey = planner.survey(input.as_bytes()).unwrap();
    let error = planner.check(input.as_bytes(), &survey).unwrap_err().to_string();
    assert_eq!(error, "in has 1 problem:\n  line 2, column `version`: `007e1` is not a number");

    let input = input.replace("007e1,TRUE,", "7,TRUE,\"{\"\"big\"\": 12345678901234567890123}\"");
    let (_, requests) = plan(&recipe, Format::Csv, &input);
    assert_eq!(requests[0].id, "a?b");
    assert_eq!(requests[0].target, "/api/v2/users/a%3Fb?expand=x%2Fy");
    let expected = r#"{"fixed":[1,2.5,true,"{x}"],"name":"Ann O'Hara \"Q\"","on":true,"raw":{"big": 12345678901234567890123},"version":7}"#;
    assert_eq!(sorted(body(&requests[0])), sorted(expected));
    assert!(body(&requests[0]).contains("12345678901234567890123"), "large numbers are not rounded");
}

fn sorted(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_merge_may_go_into_a_member_and_split_at_the_largest_size() {
    let recipe = recipe(
        r#"
name = "members"
method = "POST"
path = "/queues/{queue}/members"
body = { queue = "{queue:number}", source = "tidegate" }
[merge]
by = "queue"
into = "/data/items"
item = { id = "{user}" }
max = 2
"#,
    );
    let (summary, requests) = plan(&recipe, Format::Csv, "queue,user\n7,a\n7,b\n8,c\n7,d\n");
    assert_eq!(summary.requests, 3);
    let ids: Vec<_> = requests.iter().map(|it| (it.seq, it.id.as_str())).collect();
    assert_eq!(ids, [(2, "7"), (4, "8"), (5, "7#2")]);
    let expected = r#"{"queue":7,"source":"tidegate","data":{"items":[{"id":"a"},{"id":"b"}]}}"#;
    assert_eq!(sorted(body(&requests[0])), sorted(expected));
    assert_eq!(sorted(body(&requests[2]))["data"]["items"], sorted(r#"[{"id":"d"}]"#));
    let transactions: BTreeSet<_> = requests.iter().map(|it| it.transaction).collect();
    assert_eq!(transactions.len(), 3);
}

#[test]
fn rows_that_name_their_group_meet_rows_that_give_its_id() {
    let recipe = Recipe::built_in("queue-members").unwrap();
    let planner = Planner::new(&recipe, Format::Csv, "in");
    let input = "queue,queue_id,user_id\nNight,,a\n,q1,b\nDay,,c\nNight,,d\n";
    let survey = planner.survey(input.as_bytes()).unwrap();
    let mut lookups = Lookups::default();
    let listed = [("Night", "q1"), ("Day", "q2")].map(|(name, id)| (name.to_owned(), id.to_owned()));
    lookups.resolve("in", &recipe.lookups()[0], survey.names("queue_id").unwrap(), listed).unwrap();
    let mut requests = Vec::new();
    let taken = planner.plan(input.as_bytes(), &survey, &lookups, |request| {
        requests.push((request.id.clone(), request.lines.clone(), body(&request).to_owned()));
        Ok::<(), Infallible>(())
    });
    assert_eq!(taken.unwrap().requests, 2);
    let expected = [
        ("q1".to_owned(), vec![2, 3, 5], r#"[{"id":"a"},{"id":"b"},{"id":"d"}]"#.to_owned()),
        ("q2".to_owned(), vec![4], r#"[{"id":"c"}]"#.to_owned()),
    ];
    assert_eq!(requests, expected);
}

#[test]
fn a_member_missing_from_an_object_is_named() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let planner = Planner::new(&recipe, Format::Ndjson, "in");
    let input = "{\"user_id\":\"u1\",\"skill_id\":\"s1\"}\n";
    let survey = planner.survey(input.as_bytes()).unwrap();
    let error = planner.check(input.as_bytes(), &survey).unwrap_err().to_string();
    assert_eq!(error, "in has 1 problem:\n  line 1, column `proficiency`: is missing or empty");
}

#[test]
fn written_requests_keep_their_bodies_byte_for_byte() {
    let recipe = Recipe::built_in("requests").unwrap();
    let input = r#"{"id":"a","method":"PUT","path":"/x?y=%2F","body":{ "n":1.0, "n":12345678901234567890123 }}
{"method":"DELETE","path":"/z"}
"#;
    let (_, requests) = plan(&recipe, Format::Ndjson, input);
    assert_eq!(body(&requests[0]), r#"{ "n":1.0, "n":12345678901234567890123 }"#);
    assert_eq!(requests[0].target, "/x?y=%2F");
    assert_eq!((requests[1].id.as_str(), requests[1].body.as_ref()), ("line-2", None));
}

#[test]
fn csv_and_ndjson_of_the_same_rows_make_the_same_requests() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let csv = "user_id,skill_id,proficiency\nu1,s1,3\nu1,s2,4.5\n";
    let ndjson = "{\"user_id\":\"u1\",\"skill_id\":\"s1\",\"proficiency\":3}\n{\"user_id\":\"u1\",\"skill_id\":\"s2\",\"proficiency\":4.5}\n";
    let (_, from_csv) = plan(&recipe, Format::Csv, csv);
    let (_, from_ndjson) = plan(&recipe, Format::Ndjson, ndjson);
    assert_eq!(body(&from_csv[0]), body(&from_ndjson[0]));
    assert_eq!(from_csv[0].target, from_ndjson[0].target);
}

#[test]
fn transactions_follow_from_input_and_id_alone() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let input = "user_id,skill_id,proficiency\nu1,s1,3\nu2,s1,3\n";
    let (_, first) = plan(&recipe, Format::Csv, input);
    let (_, again) = plan(&recipe, Format::Csv, input);
    assert_eq!(first, again, "planning again gives the same run");
    let (_, other) = plan(&recipe, Format::Csv, &input.replace("u2,s1,3", "u2,s1,4"));
    assert_ne!(first[0].transaction, first[1].transaction);
    assert_ne!(first[0].transaction, other[0].transaction, "another input is another run");
    assert_eq!(first[0].transaction.get_version_num(), 8);
}

#[test]
fn a_run_goes_from_file_to_journal_to_report() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe::built_in("user-skills").unwrap();
    let planner = Planner::new(&recipe, Format::Csv, "in");
    let input = "user_id,skill_id,proficiency\nu1,s1,3\nu2,s1,1\nu1,s2,5\nu3,s1,1\nu4,s1,1\n";
    let survey = planner.survey(input.as_bytes()).unwrap();
    let header =
        RunHeader { recipe: recipe.name().into(), input_digest: survey.digest(), ..RunHeader::default() };
    let journal = Journal::create(&folder.path().join("run.journal"), &header).unwrap();
    let now = Wall::from_unix_millis(1);
    let summary = load(&planner, input.as_bytes(), &survey, &Lookups::default(), &journal, now, |request| {
        Uuid::from_u128(u128::from(request.seq))
    })
    .unwrap();
    assert_eq!(summary.requests, 4);

    journal.intend_blocking(vec![2, 3, 5], now).unwrap();
    let change = |seq, event, attempts, http_status, error: Option<&str>| Change {
        seq,
        event,
        outcome: Outcome { attempts, http_status, error: error.map(str::to_owned) },
    };
    let changes = vec![
        change(2, Event::Succeed, 1, Some(200), None),
        change(3, Event::Fail, 2, Some(404), Some("not.found: no user \"u2\", sorry")),
        change(5, Event::LoseTrack, 1, None, Some("connection lost after sending")),
    ];
    journal.record_blocking(changes, now).unwrap();

    let mut csv = Vec::new();
    let counts = report::write_csv(&journal.reader().unwrap(), &mut csv).unwrap();
    assert_eq!((counts.ok, counts.failed, counts.unknown, counts.planned), (1, 1, 1, 1));
    let expected = "id,status,http_status,attempts,key,error,lines\n\
        u1,ok,200,1,00000000-0000-0000-0000-000000000002,,2 4\n\
        u2,failed,404,2,00000000-0000-0000-0000-000000000003,\"not.found: no user \"\"u2\"\", sorry\",3\n\
        u3,unknown,,1,00000000-0000-0000-0000-000000000005,connection lost after sending,5\n\
        u4,pending,,0,00000000-0000-0000-0000-000000000006,,6\n";
    assert_eq!(String::from_utf8(csv).unwrap(), expected);

    journal.cancel_blocking(now).unwrap();
    let mut csv = Vec::new();
    report::write_csv(&journal.reader().unwrap(), &mut csv).unwrap();
    assert!(
        String::from_utf8(csv)
            .unwrap()
            .ends_with("u4,failed,,0,00000000-0000-0000-0000-000000000006,cancelled before it was sent,6\n")
    );
}

#[test]
fn the_example_becomes_one_request_per_agent() {
    let input = include_str!("../../../examples/agent-skills.csv");
    let recipe = Recipe::built_in("user-skills").unwrap();
    let planner = Planner::new(&recipe, Format::Csv, "agent-skills.csv");
    let survey = planner.survey(input.as_bytes()).unwrap();
    let summary = planner.check(input.as_bytes(), &survey).unwrap();
    assert_eq!((summary.rows, summary.requests, summary.collapsed), (1500, 500, 0));
    assert!(survey.names("skill_id").unwrap().len() <= 20);
}

/// One row: user, skill, proficiency.
type Row = (u8, u8, u8);

fn csv(rows: &[Row]) -> String {
    let lines = rows.iter().map(|(user, skill, proficiency)| format!("u{user},s{skill},{proficiency}\n"));
    std::iter::once("user_id,skill_id,proficiency\n".to_owned()).chain(lines).collect()
}

proptest! {
    /// Against a plain map from user to skills, whatever the order of the rows and the size of a request.
    #[test]
    fn every_row_is_in_exactly_one_request_and_nothing_else_is(
        rows in prop::collection::vec((0_u8..6, 0_u8..12), 1..60),
        max in 1_usize..8,
    ) {
        // A skill's proficiency depends on user and skill only, so repeats are equal and collapse.
        let rows: Vec<Row> = rows.into_iter().map(|(user, skill)| (user, skill, (user + skill) % 6)).collect();
        let text = format!(
            "name = \"r\"\nmethod = \"PATCH\"\npath = \"/users/{{user_id}}\"\n[merge]\nby = \"user_id\"\ninto = \"\"\n\
             item = {{ id = \"{{skill_id}}\", proficiency = \"{{proficiency:number}}\" }}\nunique = \"skill_id\"\nmax = {max}\n"
        );
        let (summary, requests) = plan(&recipe(&text), Format::Csv, &csv(&rows));

        let mut lines: Vec<u64> = requests.iter().flat_map(|it| it.lines.clone()).collect();
        lines.sort_unstable();
        prop_assert_eq!(lines, (2..rows.len() as u64 + 2).collect::<Vec<_>>(), "each row in exactly one request");

        let mut expected: BTreeMap<String, BTreeMap<String, u8>> = BTreeMap::new();
        for (user, skill, proficiency) in &rows {
            expected.entry(format!("/users/u{user}")).or_default().insert(format!("s{skill}"), *proficiency);
        }
        let mut found: BTreeMap<String, BTreeMap<String, u8>> = BTreeMap::new();
        let mut items = 0;
        for request in &requests {
            let serde_json::Value::Array(array) = sorted(body(request)) else { panic!("no array") };
            prop_assert!(array.len() <= max && !array.is_empty());
            items += array.len();
            for item in array {
                let skill = item["id"].as_str().unwrap().to_owned();
                let proficiency = u8::try_from(item["proficiency"].as_u64().unwrap()).unwrap();
                let earlier = found.entry(request.target.clone()).or_default().insert(skill, proficiency);
                prop_assert_eq!(earlier, None, "an item is sent once");
            }
            prop_assert_eq!(request.seq, request.lines[0]);
            prop_assert!(request.lines.is_sorted());
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(summary.collapsed, (rows.len() - items) as u64);
        let ids: BTreeSet<_> = requests.iter().map(|it| it.id.clone()).collect();
        prop_assert_eq!(ids.len(), requests.len(), "ids differ");
    }

    /// The order of requests is that of their first rows, and moving a user's later rows does not change it.
    #[test]
    fn the_order_of_requests_is_that_of_first_rows(users in prop::collection::vec(0_u8..8, 1..40)) {
        let rows: Vec<Row> = users.iter().zip(0..).map(|(user, skill)| (*user, skill, 1)).collect();
        let (_, requests) = plan(&Recipe::built_in("user-skills").unwrap(), Format::Csv, &csv(&rows));
        let mut first_seen = Vec::new();
        for user in &users {
            let id = format!("u{user}");
            if !first_seen.contains(&id) {
                first_seen.push(id);
            }
        }
        prop_assert_eq!(requests.into_iter().map(|it| it.id).collect::<Vec<_>>(), first_seen);
    }

    /// Contradictions are found wherever the two rows are, and then nothing is planned to its end.
    #[test]
    fn a_contradiction_is_found_wherever_it_is(
        rows in prop::collection::vec((0_u8..4, 0_u8..5, 0_u8..3), 1..40),
    ) {
        let mut seen: BTreeMap<(u8, u8), u8> = BTreeMap::new();
        let conflicts = rows
            .iter()
            .filter(|(user, skill, level)| *seen.entry((*user, *skill)).or_insert(*level) != *level)
            .count();
        let recipe = Recipe::built_in("user-skills").unwrap();
        let planner = Planner::new(&recipe, Format::Csv, "in");
        let input = csv(&rows);
        let survey = planner.survey(input.as_bytes()).unwrap();
        match planner.check(input.as_bytes(), &survey) {
            Ok(_) => prop_assert_eq!(conflicts, 0),
            Err(tidegate_bulk::PlanError::Problems(problems)) => prop_assert_eq!(problems.total(), conflicts as u64),
            Err(other) => panic!("{other}"),
        }
    }
}
