//! Recipes as their authors get them wrong, and what they are told.

use super::*;

const RENAME: &str = r#"
name = "rename"
method = "PATCH"
path = "/api/v2/users/{user_id}"
id = "user_id"
body = { name = "{first} {last}", title = "{title?}", version = "{version:number}" }

[column.version]
min = 1
"#;

fn problems(text: &str) -> Vec<String> {
    let problems = Recipe::parse("r.toml", text).unwrap_err();
    problems.first().iter().map(ToString::to_string).collect()
}

/// `RENAME` with one piece of text replaced.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(RENAME.contains(from), "{from}");
    problems(&RENAME.replace(from, to))
}

#[test]
fn every_built_in_recipe_loads_under_its_name() {
    for name in Recipe::built_in_names() {
        let recipe = Recipe::load(name).unwrap();
        assert_eq!(recipe.name(), name);
        assert!(!recipe.description().is_empty());
    }
    for (name, text) in BUILT_IN {
        Recipe::parse(name, text).unwrap();
    }
}

#[test]
fn an_unknown_recipe_lists_the_built_in_ones_and_the_nearest() {
    let error = Recipe::load("user-skils").unwrap_err().to_string();
    let expected = "unknown recipe `user-skils`; did you mean `user-skills`?\n\
                    built in: analytics-conversations, bulk-users, external-contacts, outbound-contacts, queue-members, \
                    recording-batch, recording-jobs, user-languages, user-skills, requests; or give the path of a .toml file";
    assert_eq!(error, expected);
    let error = Recipe::load("nowhere/mine.toml").unwrap_err().to_string();
    assert!(error.starts_with("cannot read recipe nowhere/mine.toml: "), "{error}");
}

#[test]
fn a_recipe_file_is_loaded_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, RENAME).unwrap();
    let recipe = Recipe::load(path.to_str().unwrap()).unwrap();
    assert_eq!(recipe.name(), "rename");
    assert_eq!(recipe.digest(), Digest(sha2::Sha256::digest(RENAME).into()));
}

#[test]
fn all_problems_are_reported_at_once_with_their_lines() {
    let text = RENAME
        .replace("method = \"PATCH\"", "method = \"PACTH\"")
        .replace("/api/v2/users/{user_id}", "api/v2/users/{user_id}")
        .replace("id = \"user_id\"", "ids = \"user_id\"")
        .replace("{last}", "{last")
        .replace("min = 1", "minimum = 1");
    let expected = [
        "line 5: unknown key `ids`; did you mean `id`?",
        "line 3: unknown method `PACTH`; use POST, PUT, PATCH, DELETE; did you mean `PATCH`?",
        "line 4: path `api/v2/users/x` must start with one `/`, without scheme or host",
        "line 6: `{` is never closed in `{first} {last`; a literal brace is written `{{`",
        "line 9: unknown key `column.version.minimum`",
    ];
    assert_eq!(problems(&text), expected);
}

#[test]
fn a_wrong_method_and_path_hide_nothing_of_the_rest() {
    let text = RENAME
        .replace("method = \"PATCH\"", "method = \"PACTH\"")
        .replace("/api/v2/users/{user_id}", "api/v2/users/{user_id}")
        .replace("[column.version]", "[column.vresion]")
        + "[reconcile]\nversion = \"/vresion\"\nsame = [\"/nme\", \"/title\"]\nsettel = \"5s\"\n";
    let told = problems(&text);
    let expected = [
        "unknown method `PACTH`",
        "must start with one `/`",
        "`reconcile.settel`",
        "`column.vresion`: no placeholder uses `vresion`; did you mean `version`?",
    ];
    for part in expected {
        assert!(told.iter().any(|it| it.contains(part)), "{part}: {told:#?}");
    }
    assert_eq!(told.len(), 4, "{told:#?}");
}

#[test]
fn a_rule_about_members_that_no_body_has_is_refused() {
    let text = |rule: &str| format!("{RENAME}[reconcile]\n{rule}");
    assert_eq!(
        problems(&text("version = \"/vresion\"\nsame = [\"/nme\", \"/title\"]\n")),
        [
            "line 11: `reconcile.version`: the body has no `/vresion`; did you mean `version`?",
            "line 12: `reconcile.same`: the body has no `/nme`; did you mean `name`?",
        ]
    );
    Recipe::parse("r.toml", &text("version = \"/version\"\nsame = [\"/name\", \"/title\"]\n")).unwrap();
}

#[test]
fn a_syntax_error_names_its_line() {
    let found = changed("id = \"user_id\"", "id = \"user_id");
    assert!(found[0].starts_with("line 5: "), "{found:?}");
}

#[test]
fn missing_keys_are_named() {
    assert_eq!(
        problems(""),
        ["line 1: `name` is missing", "line 1: `method` is missing", "line 1: `path` is missing"]
    );
}

#[test]
fn reads_are_sent_elsewhere() {
    let expected = ["line 3: method `GET` does not write; read with `tidegate export`"];
    assert_eq!(changed("\"PATCH\"", "\"GET\""), expected);
}

#[test]
fn values_of_the_wrong_type_are_named() {
    assert_eq!(changed("\"rename\"", "5"), ["line 2: `name` must be a string, not a TOML integer"]);
    assert_eq!(
        changed("min = 1", "min = \"1\""),
        ["line 9: `column.version.min` must be a number, not a TOML string"]
    );
    assert_eq!(
        changed("min = 1", "one_of = \"a\""),
        ["line 9: `column.version.one_of` must be a list of strings"]
    );
}

#[test]
fn paths_that_leave_the_upstream_are_refused() {
    for path in ["//evil/{user_id}", "https://evil/{user_id}", "/api/../{user_id}", "/api v2/{user_id}"] {
        let found = changed("/api/v2/users/{user_id}", path);
        assert!(found[0].starts_with("line 4: path `"), "{found:?}");
    }
}

#[test]
fn bad_placeholders_are_refused_wherever_they_are() {
    assert_eq!(
        changed("{version:number}", "{version:int}"),
        [
            "line 6: unknown type `int` in `{version:int}`; use number, bool or json",
            "line 8: `column.version`: no placeholder uses `version`"
        ]
    );
    assert_eq!(
        changed("{user_id}\"", "{user_id:number}\""),
        ["line 4: `{user_id}` in a path is text and never left out"]
    );
    let in_key = changed("title = \"{title?}\"", "\"{title}\" = 1");
    assert_eq!(in_key, ["line 6: `{title}`: member names cannot hold placeholders"]);
}

#[test]
fn rules_and_lookups_for_unused_columns_are_refused() {
    assert_eq!(
        changed("[column.version]", "[column.versoin]"),
        ["line 8: `column.versoin`: no placeholder uses `versoin`; did you mean `version`?"]
    );
}

const MERGE: &str = r#"
name = "languages"
method = "PATCH"
path = "/users/{user_id}/languages"

[merge]
by = "user_id"
into = "/items"
item = { id = "{language_id}" }
unique = "language_id"
max = 50
"#;

fn merge_changed(from: &str, to: &str) -> Vec<String> {
    assert!(MERGE.contains(from), "{from}");
    problems(&MERGE.replace(from, to))
}

#[test]
fn merging_is_checked() {
    Recipe::parse("r.toml", MERGE).unwrap();
    assert_eq!(merge_changed("max = 50", "max = 0"), ["line 11: `merge.max` is 0, but must be 1 or more"]);
    assert_eq!(
        merge_changed("max = 50", "max = 1.5"),
        ["line 11: `merge.max` is 1.5, but must be 1 or more"]
    );
    assert_eq!(
        merge_changed("unique = \"language_id\"", "unique = \"id\""),
        ["line 6: `merge.unique` names `id`, which `merge.item` does not use"]
    );
    assert_eq!(
        merge_changed("/users/{user_id}", "/users/{user_id}/{other}"),
        [
            "line 6: `path` and `body` may only use `{user_id}`, in which merged rows agree; `{other}` belongs into `merge.item`"
        ]
    );
    assert_eq!(
        merge_changed("item = { id = \"{language_id}\" }\nunique = \"language_id\"", ""),
        ["line 6: `merge.item` is missing"]
    );
    assert_eq!(
        merge_changed("into = \"/items\"", "into = \"items\""),
        ["line 8: `merge.into`: `items` is not a JSON pointer; write \"\" or \"/items\""]
    );
    assert_eq!(
        merge_changed("[merge]", "id = \"user_id\"\n[merge]"),
        ["line 6: `id` has no meaning beside `merge`: a merged request is named by `merge.by`"]
    );
    assert_eq!(
        merge_changed("[merge]", "body = { items = [] }\n[merge]"),
        ["line 9: `merge.into`: `body` already has a member `items`, where the items go"]
    );
}

#[test]
fn a_body_may_be_json_text() {
    let json = RENAME.replace(
        r#"body = { name = "{first} {last}", title = "{title?}", version = "{version:number}" }"#,
        r#"body = '{"name": "{first} {last}", "version": "{version:number}"}'"#,
    );
    Recipe::parse("r.toml", &json).unwrap();
    let broken = json.replace("}'", "'");
    let found = problems(&broken);
    assert!(found[0].starts_with("line 6: `body` is a string but not JSON ("), "{found:?}");
}

const JOB: &str = r#"
name = "exports"
kind = "job"
method = "POST"
path = "/lists/{list}/jobs"
[merge]
by = "list"
into = "/rows"
item = { id = "{id}" }
[job]
id = "/id"
poll = "/lists/{list}/jobs/{job}"
state = "/state"
done = ["Done"]
[job.start]
when = ["Ready"]
method = "PUT"
path = "/jobs/{job}"
body = { state = "Go" }
[results]
path = "/jobs/{job}/results"
items = "/results"
[item]
ok = "/success"
"#;

fn job_changed(from: &str, to: &str) -> Vec<String> {
    assert!(JOB.contains(from), "{from}");
    problems(&JOB.replace(from, to))
}

#[test]
fn jobs_are_checked() {
    let jobs = Recipe::parse("r.toml", JOB).unwrap();
    let rules = jobs.jobs().unwrap().job.as_ref().unwrap();
    assert_eq!(rules.start.as_ref().unwrap().body.as_deref(), Some(&br#"{"state":"Go"}"#[..]));
    assert_eq!(
        job_changed("\"job\"", "\"jbo\""),
        ["line 3: unknown kind `jbo`; use request, items, job; did you mean `job`?"]
    );
    assert_eq!(
        job_changed("kind = \"job\"\n", ""),
        [
            "line 9: `job` has no meaning in a recipe of kind `request`",
            "line 19: `results` has no meaning in a recipe of kind `request`",
            "line 22: `item` has no meaning in a recipe of kind `request`"
        ]
    );
    assert_eq!(
        job_changed("poll = \"/lists/{list}", "poll = \"/lists/{lst}"),
        ["line 12: `job.poll`: `{lst}` is not among the placeholders of `path`; use those and `{job}`"]
    );
    assert_eq!(
        job_changed("path = \"/lists/{list}/jobs\"", "path = \"/lists/{list}x/jobs\""),
        [
            "line 12: `job.poll` uses values of `path`, so each placeholder there must be a whole segment or parameter"
        ]
    );
    assert_eq!(
        job_changed("done = [\"Done\"]", "done = \"Done\""),
        [
            "line 14: `job.done` must be a list of strings",
            "line 10: `job.done` is missing: the states in which it has ended well"
        ]
    );
    assert_eq!(
        job_changed("method = \"PUT\"", "method = \"POST\""),
        ["line 15: `job.start.method` is POST: it may be sent twice, use PUT"]
    );
    assert_eq!(
        job_changed("id = \"/id\"", "id = \"id\""),
        ["line 11: `job.id`: `id` is not a JSON pointer; write \"/id\""]
    );
    assert_eq!(
        job_changed("items = \"/results\"", "items = \"/results\"\ncursor = \"/c\"\nnext = \"/n\""),
        ["line 20: `results` has both `cursor` and `next`; pages name the next one in one way"]
    );
    assert_eq!(
        job_changed("ok = \"/success\"", "status = \"/s\""),
        ["line 23: `item` needs `ok`, or `message` whose absence means good"]
    );
    let unmerged = JOB.replace("[merge]\nby = \"list\"\ninto = \"/rows\"\nitem = { id = \"{id}\" }\n", "");
    assert_eq!(
        problems(&unmerged),
        ["line 19: `item` tells apart what `merge` puts into one request, and there is no `merge`"]
    );
    let items = JOB.replace("kind = \"job\"", "kind = \"items\"");
    let found = problems(&items);
    assert!(
        found.contains(&"line 10: `job` has no meaning in a recipe of kind `items`".to_owned()),
        "{found:?}"
    );
}

#[test]
fn a_recipe_says_how_to_find_out_in_the_words_of_a_profile() {
    let rule = |more: &str| format!("{RENAME}\n[reconcile]\n{more}");
    let recipe =
        Recipe::parse("mine.toml", &rule("version = \"/version\"\nsame = \"body\"\nconflict = { most = 2 }"))
            .unwrap();
    let read = recipe.reconcile().unwrap();
    assert!(
        read.applies(&http::Method::PATCH, "/api/v2/users/7")
            && !read.applies(&http::Method::PUT, "/api/v2/users/7")
    );
    assert_eq!(
        read.conflict.as_ref().map(|conflict| (conflict.most, &conflict.statuses[..])),
        Some((2, &[409][..]))
    );
    let lines = RENAME.lines().count() + 1;
    let told = problems(&rule("smae = \"body\"\nmatch = \"PATCH /x\"\nconflict = { most = 99 }"));
    for (line, what) in [
        (lines + 1, "`reconcile` needs one of `same`, `each` and `gone`"),
        (lines + 2, "`reconcile.smae` is not a known key (did you mean `same`?)"),
        (lines + 3, "`reconcile.match` is not a known key"),
        (lines + 4, "`reconcile.conflict.most` 99 is out of range"),
    ] {
        assert!(
            told.iter().any(|told| told.starts_with(&format!("line {line}: {what}"))),
            "{line} {what}: {told:#?}"
        );
    }
}
