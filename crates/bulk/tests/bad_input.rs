//! Inputs as people really hand them over, and exactly what they are told. Nothing of such an input may be sent.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use tidegate_bulk::{Format, Lookups, PlanError, Planner, Problems, Recipe, Summary};

/// Survey and check, as a dry run does it.
fn check_as(recipe: &Recipe, format: Format, input: &[u8]) -> Result<Summary, PlanError> {
    let planner = Planner::new(recipe, format, "in");
    let survey = planner.survey(input)?;
    planner.check(input, &survey)
}

fn problems(result: Result<Summary, PlanError>) -> Vec<String> {
    match result.unwrap_err() {
        PlanError::Problems(problems) => lines(&problems),
        other => panic!("{other}"),
    }
}

fn lines(problems: &Problems) -> Vec<String> {
    problems.first().iter().map(ToString::to_string).collect()
}

fn skills(input: &str) -> Vec<String> {
    let recipe = Recipe::built_in("user-skills").unwrap();
    problems(check_as(&recipe, Format::Csv, input.as_bytes()))
}

fn requests(input: &str) -> Vec<String> {
    let recipe = Recipe::built_in("requests").unwrap();
    problems(check_as(&recipe, Format::Ndjson, input.as_bytes()))
}

const HEADER: &str = "user_id,skill_id,proficiency\n";

#[test]
fn a_missing_column_is_named_with_what_the_header_has() {
    assert_eq!(
        skills("userid,skill_id\nu1,s1\n"),
        [
            "line 1: column `proficiency` is missing; the header has: userid, skill_id",
            "line 1: column `user_id` is missing; the header has: userid, skill_id; did you mean `userid`?",
        ]
    );
}

#[test]
fn a_missing_column_that_could_be_looked_up_names_both() {
    assert_eq!(
        skills("user_id,proficiency\nu1,3\n"),
        ["line 1: column `skill_id` (or `skill`) is missing; the header has: user_id, proficiency"]
    );
}

#[test]
fn another_separator_is_recognised() {
    let found = skills("user_id;skill_id;proficiency\nu1;s1;3\n");
    assert!(
        found[0]
            .ends_with("the header has: user_id;skill_id;proficiency; fields must be separated by commas"),
        "{found:?}"
    );
}

#[test]
fn a_duplicate_header_is_named_with_both_places() {
    assert_eq!(
        skills("user_id,skill_id,user_id,proficiency\nu1,s1,u2,3\n"),
        ["line 1: column `user_id` appears twice, in fields 1 and 3"]
    );
}

#[test]
fn an_empty_file_is_no_run() {
    assert_eq!(skills(""), ["is empty; the first line names the columns"]);
    assert_eq!(skills("\n\r\n"), ["is empty; the first line names the columns"]);
    assert_eq!(requests("\n"), ["is empty"]);
}

#[test]
fn a_header_alone_is_no_run() {
    assert_eq!(skills(HEADER), ["has a header but no rows"]);
}

#[test]
fn an_empty_id_is_named() {
    assert_eq!(
        skills(&format!("{HEADER},s1,3\nu1,,3\n")),
        ["line 2, column `user_id`: is empty", "line 3, column `skill_id`: is empty, and so is `skill`"]
    );
}

#[test]
fn an_id_with_spaces_around_it_is_named() {
    assert_eq!(
        skills(&format!("{HEADER}u1 ,s1,3\n")),
        ["line 2, column `user_id`: `u1 ` has spaces around it"]
    );
}

#[test]
fn a_ragged_row_is_named_with_both_counts() {
    assert_eq!(
        skills(&format!("{HEADER}u1,s1\nu1,s1,3,4\n\nu1,s2,3\n")),
        ["line 2: has 2 fields, the header has 3", "line 3: has 4 fields, the header has 3"]
    );
}

#[test]
fn an_unclosed_quote_is_named_where_it_opens() {
    assert_eq!(
        skills(&format!("{HEADER}u1,s1,3\nu2,\"s1,3\nu3,s1,3\n")),
        ["line 3: the quote that opens here is never closed"]
    );
}

#[test]
fn bytes_that_are_not_utf8_are_named() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let found = problems(check_as(&recipe, Format::Csv, b"user_id,skill_id,proficiency\nu\xe9,s1,3\n"));
    let expected =
        "line 2: field 1: byte 0xe9 is not UTF-8; save the file as UTF-8 (spreadsheets offer \"CSV UTF-8\")";
    assert_eq!(found, [expected]);
}

#[test]
fn utf16_is_recognised() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let text: Vec<u8> = "\u{feff}user_id".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let found = problems(check_as(&recipe, Format::Csv, &text));
    assert_eq!(found[0], "is written in UTF-16; save it as UTF-8");
}

#[test]
fn a_ten_megabyte_field_is_refused() {
    let found = skills(&format!("{HEADER}u1,{},3\nu2,s1,9\n", "s".repeat(10 << 20)));
    assert_eq!(
        found,
        [
            "line 2: the row is longer than 1048576 bytes",
            "line 3, column `proficiency`: `9` is not between 0 and 5"
        ]
    );
}

#[test]
fn a_byte_order_mark_and_crlf_are_fine() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let summary =
        check_as(&recipe, Format::Csv, "\u{feff}user_id,skill_id,proficiency\r\nu1,s1,3\r\n".as_bytes());
    assert_eq!(summary.unwrap().requests, 1);
}

#[test]
fn a_proficiency_out_of_range_or_no_number_is_named() {
    assert_eq!(
        skills(&format!("{HEADER}u1,s1,6\nu1,s2,-1\nu1,s3,high\nu1,s4,\nu1,s5,5.0\n")),
        [
            "line 2, column `proficiency`: `6` is not between 0 and 5",
            "line 3, column `proficiency`: `-1` is not between 0 and 5",
            "line 4, column `proficiency`: `high` is not a number",
            "line 5, column `proficiency`: is empty",
        ]
    );
}

#[test]
fn the_same_skill_twice_with_different_proficiency_is_a_conflict_of_both_lines() {
    assert_eq!(
        skills(&format!("{HEADER}u1,s1,3\nu2,s1,3\nu1,s1,4\n")),
        [
            r#"line 4, column `skill_id`: `s1` of `u1` is {"id":"s1","proficiency":4} here and {"id":"s1","proficiency":3} on line 2; keep one"#
        ]
    );
}

#[test]
fn the_same_skill_twice_with_the_same_proficiency_collapses_with_a_note() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let input = format!("{HEADER}u1,s1,3\nu1,s1,3\n");
    let summary = check_as(&recipe, Format::Csv, input.as_bytes()).unwrap();
    assert_eq!((summary.rows, summary.requests, summary.collapsed), (2, 1, 1));
    assert_eq!(summary.notes, ["line 3 repeats line 2 (`s1` of `u1`) and was dropped"]);
}

#[test]
fn problems_of_all_kinds_come_together_and_beyond_twenty_are_counted() {
    let mut input = format!("{HEADER}u1,s1,3\nu1,s1,4\nu2\n");
    input.extend((0..30).map(|row| format!("v{row},s1,9\n")));
    let recipe = Recipe::built_in("user-skills").unwrap();
    let error = check_as(&recipe, Format::Csv, input.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("in has 32 problems:\n  line 3, column `skill_id`: "), "{error}");
    assert!(error.contains("\n  line 4: has 1 field, the header has 3\n"), "{error}");
    assert!(error.ends_with("\n  and 12 more"), "{error}");
}

#[test]
fn an_unused_column_is_a_note() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let input = "user_id,user_name,skill_id,proficiency\nu1,Ann,s1,3\n";
    let summary = check_as(&recipe, Format::Csv, input.as_bytes()).unwrap();
    assert_eq!(summary.notes, ["column `user_name` is not used by recipe `user-skills`"]);
}

#[test]
fn requests_are_checked_member_by_member() {
    let input = r#"{"id":"a","method":"PATCH","path":"/api/v2/users/1","body":{}}
{"methd":"PATCH","path":"/a"}
{"method":"GET","path":"/a"}
{"method":"POST","path":"https://evil/a"}
{"method":"POST","path":"/a/../b"}
{"id":{},"method":"POST","path":"/a"}
{"id":"a","method":"DELETE","path":"/a"}
"#;
    assert_eq!(
        requests(input),
        [
            "line 2: unknown member `methd`; a request has id, method, path, body; did you mean `method`?",
            "line 2, column `method`: is missing",
            "line 3, column `method`: method `GET` does not write; read with `tidegate export`",
            "line 4, column `path`: path `https://evil/a` must start with one `/`, without scheme or host",
            "line 5, column `path`: path `/a/../b` contains the segment `..`, which would address another resource",
            "line 6, column `id`: is an object, not a string",
            "line 7, column `id`: `a` already names line 1; ids must differ",
        ]
    );
}

#[test]
fn requests_in_csv_are_refused() {
    let recipe = Recipe::built_in("requests").unwrap();
    let found = problems(check_as(&recipe, Format::Csv, b"id,method\n"));
    assert!(found[0].starts_with("recipe `requests` reads NDJSON (.ndjson)"), "{found:?}");
}

#[test]
fn a_value_that_would_address_another_resource_is_refused() {
    let found = skills(&format!("{HEADER}..,s1,3\n"));
    assert!(
        found[0].starts_with("line 2: path `/api/v2/users/../routingskills/bulk` contains the segment `..`"),
        "{found:?}"
    );
}

#[test]
fn a_value_with_a_slash_is_refused_when_it_is_planned_and_not_when_it_is_sent() {
    let found = skills(&format!("{HEADER}a/b,s1,3\n"));
    let expected = "line 2: path `/api/v2/users/a%2Fb/routingskills/bulk` cannot be sent: the path holds an encoded slash";
    assert!(found[0].starts_with(expected), "{found:?}");
    let found = requests(r#"{"method":"DELETE","path":"/api/v2/users/a%2fb"}"#);
    assert!(
        found[0].starts_with("line 1, column `path`: path `/api/v2/users/a%2fb` cannot be sent: "),
        "{found:?}"
    );
}

#[test]
fn a_body_too_large_to_resend_is_refused() {
    let mut input = HEADER.to_owned();
    input.extend((0..8_000).map(|row| format!("u1,{row:050},3\n")));
    let found = skills(&input);
    assert!(found[0].starts_with("line 2: the body of `u1` has "), "{found:?}");
    assert!(
        found[0].ends_with("above 512000 it could not be resent (limit merged items with `merge.max`)"),
        "{found:?}"
    );
}

#[test]
fn an_unknown_skill_is_named_with_the_nearest_known_one() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let planner = Planner::new(&recipe, Format::Csv, "agents.csv");
    let input = "user_id,skill,proficiency\nu1,Suport,3\nu2,Billing,3\nu3,Opera,1\nu4,Sales,1\n";
    let survey = planner.survey(input.as_bytes()).unwrap();
    let names = survey.names("skill_id").unwrap();
    assert_eq!(names.keys().collect::<Vec<_>>(), ["Billing", "Opera", "Sales", "Suport"]);
    let listed = [("Support", "1"), ("Billing", "2"), ("Sales", "3"), ("Sales", "4")];
    let listed = listed.map(|(name, id)| (name.to_owned(), id.to_owned()));
    let error = Lookups::default().resolve("agents.csv", &recipe.lookups()[0], names, listed).unwrap_err();
    assert_eq!(
        lines(&error),
        [
            "line 4, column `skill`: unknown skill `Opera` (of 3 at /api/v2/routing/skills)",
            "line 5, column `skill`: `Sales` names 2 different entries of /api/v2/routing/skills; give `skill_id` instead",
            "line 2, column `skill`: unknown skill `Suport` (of 3 at /api/v2/routing/skills); did you mean `Support`?",
        ]
    );
}

#[test]
fn an_input_that_changes_between_readings_is_refused() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let planner = Planner::new(&recipe, Format::Csv, "in");
    let survey = planner.survey(format!("{HEADER}u1,s1,3\n").as_bytes()).unwrap();
    let found = problems(planner.check(format!("{HEADER}u1,s1,4\n").as_bytes(), &survey));
    assert_eq!(found, ["was changed while it was being read; start again"]);
}

#[test]
fn a_name_and_the_id_it_stands_for_are_the_same_skill() {
    let recipe = Recipe::built_in("user-skills").unwrap();
    let planner = Planner::new(&recipe, Format::Csv, "in");
    let input = "user_id,skill,skill_id,proficiency\nu1,Support,,3\nu1,,id-1,4\n";
    let survey = planner.survey(input.as_bytes()).unwrap();
    let mut lookups = Lookups::default();
    let asked: BTreeMap<_, _> = survey.names("skill_id").unwrap().clone();
    lookups.resolve("in", &recipe.lookups()[0], &asked, [("Support".to_owned(), "id-1".to_owned())]).unwrap();
    let result = planner.plan(input.as_bytes(), &survey, &lookups, |_| Ok(()));
    let found = problems(result);
    assert!(found[0].contains("`id-1` of `u1`") && found[0].ends_with("on line 2; keep one"), "{found:?}");
}
