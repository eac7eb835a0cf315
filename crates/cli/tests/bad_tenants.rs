//! What can be wrong with tenants, callers and rules, each told with what to do about it; and what is said where nothing is.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a panic is how a test fails; real processes take real time; the common module serves other tests too"
)]

mod common;

use std::process::Command;

use common::{Ran, ran, tidegate};
use tempfile::TempDir;

/// `tidegate` in a folder with this configuration.
struct Place(TempDir);

impl Place {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tidegate.toml"), config).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = tidegate(self.0.path());
        command.args(args).env("XDG_RUNTIME_DIR", "");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args))
    }
}

/// `serve --check` ends with exit code 2 and these words.
#[track_caller]
fn refused(config: &str, parts: &[&str]) {
    let check = Place::new(config).run(&["serve", "--check"]);
    check.assert(2, parts);
    assert_eq!(check.out, "", "nothing is served");
}

const ACME: &str = "[[tenant]]\nname = \"acme\"\napi = \"http://127.0.0.1:9\"\n";
const GLOBEX: &str = "[[tenant]]\nname = \"globex\"\napi = \"http://127.0.0.1:9\"\n";
const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn a_tenant_without_a_name_and_two_of_one_name_are_told() {
    refused(
        &format!("{ACME}\n[[tenant]]\nregion = \"mypurecloud.de\"\n\n{ACME}"),
        &[
            "tidegate.toml:5: tenant[1].name: is missing (write name = \"acme\")",
            "tidegate.toml:9: tenant[2].name: `acme` is the name of an earlier tenant (choose another)",
        ],
    );
}

#[test]
fn a_tenant_named_like_a_reserved_word_or_like_no_path_is_told() {
    refused(
        "[[tenant]]\nname = \"other\"\n[[tenant]]\nname = \"a/b\"\n[[tenant]]\nname = \"..\"\n",
        &[
            "tidegate.toml:2: tenant[0].name: `other` is a reserved word (choose another name)",
            "tidegate.toml:4: tenant[1].name: `a/b` cannot name a tenant (write up to 64 letters, digits and -_. of ASCII",
            "tidegate.toml:6: tenant[2].name: `..` cannot name a tenant",
        ],
    );
}

#[test]
fn credentials_that_are_missing_are_told_all_at_once_with_their_lines() {
    refused(
        &format!(
            "{ACME}[tenant.credential]\nclient_id = \"a\"\nclient_secret_file = \"none\"\n\
             {GLOBEX}[tenant.credential]\nclient_id = \"b\"\nclient_secret_env = \"ACME_UNSET\"\n\
             [[tenant]]\nname = \"initech\"\n[tenant.credential]\nclient_id = \"c\"\n\
             [tenant.credential.bulk]\nclient_secret_file = \"x\"\n\
             [tenant.credential.poll]\nclient_id = \"c\"\nclient_secret = \"hunter2\"\n"
        ),
        &[
            "tidegate.toml:6: tenant[0].credential.client_secret_file: cannot read none: No such file or directory",
            "tidegate.toml:12: tenant[1].credential.client_secret_env: the variable ACME_UNSET is not set (set it to the secret)",
            "tidegate.toml:16: tenant[2].credential.client_id: has no secret (name a client_secret_file, or a client_secret_env)",
            "tidegate.toml:18: tenant[2].credential.bulk.client_secret_file: is the secret of no client (write client_id too)",
            "tidegate.toml:20: tenant[2].credential.poll.client_id: is the client of another class too",
            "tidegate.toml:21: tenant[2].credential.poll.client_secret: secrets do not belong into this file",
        ],
    );
}

#[test]
fn a_credential_beside_tenants_is_nobodys() {
    refused(
        &format!("[credential]\nclient_id = \"a\"\n{ACME}"),
        &["tidegate.toml:1: credential: belongs to no tenant (move it into the [[tenant]] it is of)"],
    );
    let place = Place::new(ACME);
    let mut serve = place.command(&["serve", "--check"]);
    serve.env("GENESYSCLOUD_OAUTHCLIENT_ID", "a");
    ran(serve).assert(2, &["a credential is set in the environment", "it would be nobody's"]);
}

#[test]
fn a_place_that_is_half_named_and_a_region_that_is_none_are_told_with_whose_they_are() {
    refused(
        "[[tenant]]\nname = \"acme\"\nlogin = \"http://a\"\n",
        &[
            "tidegate.toml:3: tenant[0].login: names a login host without its API (write api too, or region for both)",
        ],
    );
    refused(
        "[[tenant]]\nname = \"acme\"\nregion = \"mypurecloud.dd\"\n[[tenant]]\nname = \"globex\"\nprofile = \"genesis\"\n\
         [[tenant]]\nname = \"initech\"\napi = \"api.example.com\"\n",
        &[
            "tenant `initech`: api: `api.example.com` must begin with http:// or https://",
            "tenant `acme`: region `mypurecloud.dd` is not one of profile `genesys` (did you mean `mypurecloud.de`?)",
            "tenant `globex`: profile `genesis`: no built-in profile and no file",
        ],
    );
}

#[test]
fn a_callers_bad_hash_and_a_key_in_the_file_are_told() {
    let key = "tgk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    refused(
        &format!(
            "[[caller]]\nname = \"a\"\nkey_sha256 = \"abc\"\n[[caller]]\nname = \"b\"\nkey_sha256 = \"{key}\"\n\
             [[caller]]\nname = \"c\"\n[[caller]]\nkey_sha256_file = \"none\"\nkey = \"{key}\"\n\
             [[caller]]\nname = \"e\"\nkey_sha256 = \"{HASH}\"\nclasses = [\"bulk\", \"fast\"]\nclass = \"sync\"\nweight = 0\nmax_calls = 0\n"
        ),
        &[
            "tidegate.toml:3: caller[0].key_sha256: is no SHA-256 in hexadecimal digits",
            "tidegate.toml:6: caller[1].key_sha256: is a key and not its hash",
            "tidegate.toml:7: caller[2].key_sha256: is missing (`tidegate caller new NAME` makes a key",
            "tidegate.toml:9: caller[3].name: is missing (write name = \"wfm\")",
            "tidegate.toml:10: caller[3].key_sha256_file: cannot read none: No such file",
            "tidegate.toml:11: caller[3].key: keys do not belong into this file",
            "tidegate.toml:15: caller[4].classes: `fast` ",
            "tidegate.toml:16: caller[4].class: `sync` is none of its classes",
            "tidegate.toml:17: caller[4].weight: 0 is out of range (write a number from 1 to 100)",
            "tidegate.toml:18: caller[4].max_calls: 0 is out of range (write a number from 1 to 8192)",
        ],
    );
}

#[test]
fn callers_of_one_name_or_one_key_or_of_no_tenant_are_told() {
    let other = HASH.replace('b', "c");
    refused(
        &format!(
            "{ACME}{GLOBEX}[[caller]]\nname = \"a\"\nkey_sha256 = \"{HASH}\"\ntenant = \"acne\"\n\
             [[caller]]\nname = \"a\"\nkey_sha256 = \"{other}\"\n\
             [[caller]]\nname = \"b\"\nkey_sha256 = \"{other}\"\ntenant = \"globex\"\n"
        ),
        &[
            "tidegate.toml:10: caller[0].tenant: `acne` is no tenant (did you mean `acme`?)",
            "tidegate.toml:11: caller[1].tenant: is missing (write one of acme, globex)",
            "tidegate.toml:12: caller[1].name: `a` is the name of an earlier caller (choose another)",
            "tidegate.toml:16: caller[2].key_sha256: is the key of `a` too (make one for each)",
        ],
    );
    refused(
        &format!(
            "tenant = \"acme\"\n[[caller]]\nname = \"a\"\nkey_sha256 = \"{HASH}\"\ntenant = \"globex\"\n"
        ),
        &["caller `a`: `globex` is no tenant (there are: acme)"],
    );
}

#[test]
fn rules_that_say_nothing_or_name_what_there_is_not_are_told() {
    refused(
        &format!(
            "{ACME}[[route]]\nmatch = \"/api/v2/**\"\n[[route]]\nmatch = \"FETCH /api\"\nclass = \"fast\"\n\
             [[route]]\nclass = \"bulk\"\ndeadline = \"0s\"\ntenant = \"globex\"\n"
        ),
        &[
            "tidegate.toml:5: route[0].match: has a rule that says nothing (write class, deadline or tenant)",
            "tidegate.toml:7: route[1].match: `FETCH` ",
            "tidegate.toml:8: route[1].class: `fast` ",
            "tidegate.toml:9: route[2].match: is missing (write match = \"GET /api/v2/analytics/**\")",
            "tidegate.toml:11: route[2].deadline: is zero",
            "tidegate.toml:12: route[2].tenant: `globex` is no tenant (there are: acme)",
        ],
    );
}

#[test]
fn unknown_keys_of_the_new_tables_are_told_with_near_ones() {
    refused(
        &format!(
            "{ACME}regoin = \"x\"\n[[caller]]\nname = \"a\"\nkey_sha256 = \"{HASH}\"\nwieght = 2\n[[route]]\nmatch = \"/\"\nclas = \"bulk\"\n"
        ),
        &[
            "tidegate.toml:4: tenant[0].regoin: is not a known key (did you mean `region`?)",
            "tidegate.toml:8: caller[0].wieght: is not a known key (did you mean `weight`?)",
            "tidegate.toml:11: route[0].clas: is not a known key (did you mean `class`?)",
        ],
    );
}

#[test]
fn a_command_about_one_tenant_asks_which_and_knows_them() {
    let place = Place::new(&format!("{ACME}{GLOBEX}"));
    place
        .run(&["export", "/api/v2/users"])
        .assert(2, &["for which tenant? (name one with --tenant: acme, globex)"]);
    for args in [["export", "/api/v2/users"].as_slice(), &["doctor"], &["quota", "show"]] {
        let args: Vec<&str> = args.iter().copied().chain(["--tenant", "acne"]).collect();
        place.run(&args).assert(2, &["tenant `acne` has no table [[tenant]] (there are: acme, globex)"]);
    }
    let mut named = place.command(&["export", "/api/v2/users"]);
    named.env("TIDEGATE_TENANT", "acne");
    ran(named).assert(2, &["tenant `acne` has no table [[tenant]]"]);
    place.run(&["serve", "--check", "--api", "http://127.0.0.1:9"]).assert(
        2,
        &["flags for api are about one tenant, and there are several (name one with --tenant, or say it in its table)"],
    );
}

#[test]
fn a_check_prints_what_would_be_served() {
    let config = format!(
        "{ACME}[tenant.credential]\nclient_id = \"a\"\nclient_secret_file = \"secret\"\n\
         [tenant.credential.bulk]\nname = \"nightly\"\nclient_id = \"b\"\nclient_secret_env = \"ACME_BULK\"\n{GLOBEX}\
         [[tenant.limit]]\nkey = \"exports\"\nconcurrent = 5\n\
         [[caller]]\nname = \"wfm\"\nkey_sha256 = \"{HASH}\"\ntenant = \"acme\"\nclasses = [\"bulk\", \"poll\"]\nweight = 3\n"
    );
    let place = Place::new(&config);
    place.write("secret", "hunter2\n");
    let check = |args: &[&str]| {
        let mut serve = place.command(args);
        serve.env("ACME_BULK", "hunter2");
        let check = ran(serve);
        check.assert(0, &["the configuration is good"]);
        assert!(!check.out.contains("hunter2") && !check.out.contains(HASH));
        check.out
    };
    let all = check(&["serve", "--check"]);
    assert_eq!(
        all,
        "tenant acme: http://127.0.0.1:9 by profile genesys, credential default, bulk as nightly, 0 limits of its own\n\
         tenant globex: http://127.0.0.1:9 by profile genesys, no credential, 1 limits of its own\n\
         caller wfm: tenant acme, bulk poll, weight 3\n"
    );
    let one = check(&["serve", "--check", "--tenant", "globex"]);
    assert_eq!(one.lines().count(), 1, "{one}");
    // Of one that is not asked for no secret is needed.
    place.run(&["serve", "--check", "--tenant", "globex"]).assert(0, &["the configuration is good"]);
    place.run(&["serve", "--check"]).assert(2, &["the variable ACME_BULK is not set"]);
}

#[test]
fn a_new_key_is_told_apart_from_what_is_configured_and_they_belong_together() {
    let place = Place::new("");
    let made = place.run(&["caller", "new", "nightly \"one\"", "--tenant", "acme", "--classes", "bulk,poll"]);
    made.assert(0, &["the header Tidegate-Key:"]);
    let key = made.err.lines().find(|line| line.starts_with("tgk_")).unwrap();
    assert!(!made.out.contains("tgk_"), "{}", made.out);
    let again = place.run(&["caller", "new", "b"]);
    assert!(!again.err.contains(key) && !again.out.contains("tenant"));
    // What it printed is what the configuration takes.
    let place = Place::new(&format!("{ACME}{}", made.out));
    let check = place.run(&["serve", "--check"]);
    check.assert(0, &["the configuration is good"]);
    assert!(
        check.out.contains("caller nightly \"one\": tenant acme, bulk poll, weight 1\n"),
        "{}",
        check.out
    );
    place.run(&["caller", "new", ""]).assert(2, &["the name is empty"]);
}
