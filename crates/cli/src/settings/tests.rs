//! What stands where, and which place wins.

use std::path::PathBuf;
use std::time::Duration;

use tidegate_core::breaker::BreakerConfig;
use tidegate_core::pace::{ClassPolicy, Taking};
use tidegate_gateway::{KeepKeys, KeepState};

use super::Settings;
use super::keys::*;
use super::sources::known_variables;
use crate::args::Connection;
use crate::environment::Environment;

pub(super) fn connection() -> Connection {
    Connection {
        config: None,
        tenant: None,
        profile: None,
        region: None,
        api: None,
        login: None,
        client_id: None,
        client_secret_file: None,
        no_fetch_limits: false,
    }
}

pub(super) fn env(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

pub(super) fn file(text: &str) -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.toml");
    std::fs::write(&path, text).unwrap();
    (folder, Connection { config: Some(path), ..connection() })
}

fn api(connection: &Connection, pairs: &[(&str, &str)]) -> String {
    Settings::load(connection, &env(pairs)).unwrap().upstream().unwrap().api
}

#[test]
fn a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() {
    let (_folder, in_file) = file("region = \"mypurecloud.ie\"\n");
    let flagged = Connection { region: Some("mypurecloud.jp".to_owned()), ..in_file.clone() };
    let set = [("TIDEGATE_REGION", "mypurecloud.de"), ("GENESYSCLOUD_REGION", "mypurecloud.com.au")];
    assert_eq!(api(&flagged, &set), "https://api.mypurecloud.jp");
    assert_eq!(api(&in_file, &set), "https://api.mypurecloud.de", "the key's own form goes first");
    assert_eq!(api(&in_file, &set[1..]), "https://api.mypurecloud.com.au");
    assert_eq!(api(&in_file, &[]), "https://api.mypurecloud.ie");
    assert_eq!(api(&connection(), &[]), "https://api.mypurecloud.com");
    assert_eq!(api(&in_file, &[("TIDEGATE_REGION", "")]), "https://api.mypurecloud.ie", "empty is not set");
}

#[test]
fn a_region_that_nobody_has_named_is_told_with_where_it_comes_from() {
    let assumed = |connection: &Connection, pairs: &[(&str, &str)]| {
        Settings::load(connection, &env(pairs)).unwrap().assumed_region()
    };
    let told = "region mypurecloud.com (default of profile genesys)";
    assert_eq!(assumed(&connection(), &[]).as_deref(), Some(told));
    let (_folder, in_file) = file("login = \"https://login.example.com\"\n");
    assert_eq!(assumed(&in_file, &[]).as_deref(), Some(told), "a login says nothing of the API");
    assert_eq!(assumed(&connection(), &[("GENESYSCLOUD_REGION", "us-east-1")]), None);
    assert_eq!(assumed(&connection(), &[("TIDEGATE_API", "https://api.example.com")]), None);
    let generic = Connection { profile: Some("generic".to_owned()), ..connection() };
    assert_eq!(assumed(&generic, &[]), None, "it has no regions");
}

#[test]
fn a_profile_with_one_host_needs_neither_region_nor_address() {
    let github = Connection { profile: Some("github".to_owned()), ..connection() };
    let upstream = Settings::load(&github, &env(&[])).unwrap().upstream().unwrap();
    assert_eq!(
        (upstream.api.as_str(), upstream.login.as_str()),
        ("https://api.github.com", "https://github.com")
    );
}

#[test]
fn limits_are_fetched_unless_a_flag_a_variable_or_the_file_says_no() {
    let fetches = |connection: &Connection, pairs: &[(&str, &str)]| {
        Settings::load(connection, &env(pairs)).unwrap().upstream().unwrap().fetch_limits
    };
    let (_folder, off) = file("fetch_limits = false\n");
    assert!(fetches(&connection(), &[]));
    assert!(!fetches(&off, &[]));
    assert!(fetches(&off, &[("TIDEGATE_FETCH_LIMITS", "true")]));
    assert!(!fetches(&Connection { no_fetch_limits: true, ..connection() }, &[]));
    let told = Settings::load(&connection(), &env(&[("TIDEGATE_FETCH_LIMITS", "no")])).unwrap_err().message;
    assert_eq!(told, "TIDEGATE_FETCH_LIMITS: `no` is neither true nor false");
}

#[test]
fn time_outs_retries_and_breaker_come_from_file_and_environment() {
    let (_folder, in_file) = file(
        "[timeouts]\nread = \"3s\"\n[retries]\nmax = 2\nbudget = 50\n[breaker]\nthreshold = 7\ncool_down = \"10m\"\n",
    );
    let set =
        [("TIDEGATE_TIMEOUTS_READ", "4s"), ("TIDEGATE_TIMEOUTS_BULK", "2m"), ("TIDEGATE_RETRIES_MAX", "0")];
    let config = Settings::load(&in_file, &env(&set)).unwrap().upstream().unwrap();
    let timeouts = config.profile.timeouts;
    assert_eq!((timeouts.read, timeouts.bulk), (Duration::from_secs(4), Duration::from_mins(2)));
    assert_eq!((timeouts.connect, timeouts.write), (Duration::from_secs(5), Duration::from_secs(30)));
    assert_eq!((config.max_retries, config.budget.capacity, config.budget.light), (0, 50, 5));
    let ten = Duration::from_mins(10);
    let expected = BreakerConfig { threshold: 7, cool_down: ten, longest_cool_down: ten };
    assert_eq!(config.breaker, expected, "the longest is not shorter than the first");
}

#[test]
fn a_connection_is_not_waited_for_longer_than_an_attempt_is_put_off() {
    let told = |pairs: &[(&str, &str)]| Settings::load(&connection(), &env(pairs)).unwrap().upstream();
    let refused = told(&[("TIDEGATE_TIMEOUTS_CONNECT", "90s")]).map(drop).unwrap_err().message;
    assert!(refused.starts_with("timeouts.connect: 90s is above the backoff cap of 60s"), "{refused}");
    assert!(told(&[("TIDEGATE_TIMEOUTS_CONNECT", "60s")]).is_ok());
}

#[test]
fn numbers_out_of_range_are_told_with_their_place() {
    let (_folder, in_file) = file("[breaker]\nthreshold = 0\ncool_down = \"soon\"\n[retries]\nmax = 101\n");
    let set = [("TIDEGATE_BREAKER_THRESHOLD", "many")];
    let told = Settings::load(&in_file, &env(&set)).unwrap_err().message;
    for part in [
        "tidegate.toml:2: breaker.threshold: ",
        "tidegate.toml:3: breaker.cool_down: `soon` is no duration",
        "tidegate.toml:5: retries.max: ",
        "TIDEGATE_BREAKER_THRESHOLD: `many` is no whole number from 1 to 100",
    ] {
        assert!(told.contains(part), "{part} is missing in:\n{told}");
    }
    let (_folder, in_file) = file("[breaker]\nlongest_cool_down = \"10s\"\n");
    let told = Settings::load(&in_file, &env(&[])).unwrap().upstream().unwrap_err().message;
    assert!(
        told.contains("breaker.longest_cool_down: 10s is shorter than the first cool-down of 30s"),
        "{told}"
    );
}

#[test]
fn a_region_by_flag_is_not_overridden_by_an_address_of_the_file() {
    let (_folder, in_file) = file("api = \"https://api.example.com\"\n");
    let flagged = Connection { region: Some("eu-central-1".to_owned()), ..in_file };
    assert_eq!(api(&flagged, &[]), "https://api.mypurecloud.de");
}

#[test]
fn an_api_without_a_login_host_serves_both() {
    let (_folder, in_file) = file("api = \"http://127.0.0.1:8790\"\n");
    let upstream = Settings::load(&in_file, &env(&[])).unwrap().upstream().unwrap();
    assert_eq!(upstream.login, "http://127.0.0.1:8790");
}

#[test]
fn all_problems_of_file_and_environment_are_told_at_once() {
    let (_folder, in_file) = file(
        "regoin = \"x\"\nmax_wait = \"14\"\nlisten = \"here\"\n[credential]\nclient_secret = \"hunter2\"\n[[limit]]\nkey = \"users\"\n",
    );
    let set = [("TIDEGATE_ADMIN", "8788"), ("TIDEGATE_MAX_WAIT", "0s")];
    let told = Settings::load(&in_file, &env(&set)).unwrap_err().message;
    for part in [
        "tidegate.toml:1: regoin: is not a known key (did you mean `region`?)",
        "tidegate.toml:2: max_wait: `14` is no duration (write a number and ms, s, m, h or d, such as \"5s\")",
        "tidegate.toml:3: listen: `here` is not an address (write it like 127.0.0.1:8787)",
        "tidegate.toml:5: credential.client_secret: secrets do not belong into this file",
        "has neither a quota nor `concurrent`",
        "TIDEGATE_ADMIN: `8788` is not an address",
        "TIDEGATE_MAX_WAIT: is zero",
    ] {
        assert!(told.contains(part), "{part} is missing in:\n{told}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn policies_of_classes_come_from_file_and_environment() {
    let (_folder, in_file) =
        file("[class.bulk]\npolicy = \"greedy\"\nreserve = 80\n[class.poll]\nreserve = 0\n");
    let set = [("TIDEGATE_CLASS_BULK_RESERVE", "40")];
    let policies = Settings::load(&in_file, &env(&set)).unwrap().upstream().unwrap().policies;
    let [interactive, sync, bulk, poll] = policies;
    assert_eq!((interactive, sync), (ClassPolicy::GREEDY, ClassPolicy::GREEDY));
    assert_eq!(bulk, ClassPolicy { taking: Taking::Greedy, reserve: 40 });
    assert_eq!(poll, ClassPolicy { taking: Taking::Fair, reserve: 0 }, "what is not set stays");
}

#[test]
fn wrong_policies_are_told_with_their_place() {
    let (_folder, in_file) =
        file("[class.bulk]\npolicy = \"polite\"\nreserve = -1\n[class.blk]\nreserve = 1\n");
    let set = [("TIDEGATE_CLASS_POLL_RESERVE", "ten")];
    let told = Settings::load(&in_file, &env(&set)).unwrap_err().message;
    for part in [
        "tidegate.toml:2: class.bulk.policy: `polite` is not a policy (write greedy or fair)",
        "tidegate.toml:3: class.bulk.reserve:",
        "tidegate.toml:4: class.blk: is not a known key (did you mean `bulk`?)",
        "TIDEGATE_CLASS_POLL_RESERVE: `ten` is no number of permits",
    ] {
        assert!(told.contains(part), "{part} is missing in:\n{told}");
    }
}

#[test]
fn a_reserve_is_no_policy_but_a_key_of_its_own() {
    let (_folder, in_file) = file("[class.bulk]\npolicy = \"reserve\"\n");
    let told = Settings::load(&in_file, &env(&[])).unwrap_err().message;
    assert!(told.contains("(write greedy or fair; `reserve` is a key of its own, such as"), "{told}");
}

#[test]
fn a_reserve_above_half_of_a_declared_quota_is_told_once_for_its_class() {
    let told = |text: &str| {
        let (_folder, in_file) = file(text);
        let settings = Settings::load(&in_file, &env(&[])).unwrap();
        settings.cut_reserves(&settings.upstream().unwrap())
    };
    let limit = "[[limit]]\nkey = \"users\"\nquota = 60\nwindow = \"60s\"\n";
    let generic = "profile = \"generic\"\napi = \"http://127.0.0.1:1\"\n";
    assert_eq!(
        told(&format!("{generic}[class.bulk]\nreserve = 80\n{limit}")),
        [
            "class.bulk.reserve = 80 is more than half of a quota, where only half is left: 30 of 60 (limit `users`)"
        ]
    );
    assert!(told(&format!("{generic}[class.bulk]\nreserve = 30\n{limit}")).is_empty(), "half is left");
    let small = limit.replace("60\n", "10\n");
    assert!(told(&format!("{generic}{small}")).is_empty(), "nobody set the ten of `poll`");
}

#[test]
fn unknown_variables_are_told_with_all_other_problems() {
    let set = [
        ("TIDEGATE_CLAS_BULK_POLICY", "fair"),
        ("TIDEGATE_ADMIN", "8788"),
        ("TIDEGATE_HTTP2", "on"),
        ("TIDEGATE_REGOIN", ""),
    ];
    let told = Settings::load(&connection(), &env(&set)).unwrap_err().message;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert_eq!(
        lines[0],
        "TIDEGATE_CLAS_BULK_POLICY: is not a known variable (did you mean `TIDEGATE_CLASS_BULK_POLICY`?)"
    );
    assert!(lines[1].starts_with("TIDEGATE_HTTP2: is not a known variable (remove it;"), "{told}");
    assert!(lines[2].starts_with("TIDEGATE_ADMIN: "), "{told}");
    let known = known_variables().map(|name| (name, "")).collect::<Vec<_>>();
    assert!(Settings::load(&connection(), &env(&known)).is_ok());
    let others = [("TIDEGATE_LOG", "debug"), ("TIDEGATE_TEST_BINARY", "/bin/tidegate")];
    assert!(Settings::load(&connection(), &env(&others)).is_ok());
}

#[test]
fn place_and_credential_are_told_together() {
    let wrong = Connection {
        region: Some("mypurecloud.dd".to_owned()),
        client_id: Some("id".to_owned()),
        ..connection()
    };
    let told = Settings::load(&wrong, &env(&[])).unwrap().upstream().unwrap_err().message;
    assert_eq!(
        told,
        "region `mypurecloud.dd` is not one of profile `genesys` (did you mean `mypurecloud.de`?)\n\
         credential `default` has a client id but no secret: set GENESYSCLOUD_OAUTHCLIENT_SECRET or --client-secret-file"
    );
}

#[test]
fn every_key_of_the_environment_has_a_form_of_its_own() {
    for key in KEYS {
        let form = format!("TIDEGATE_{}", key.name.replace('.', "_").to_uppercase());
        assert_eq!(key.env[0], form);
    }
}

#[test]
fn state_is_kept_where_somebody_said_else_as_long_as_the_machine_runs() {
    let keep = |flag: Option<&str>, set: &[(&str, &str)]| {
        let settings = Settings::load(&connection(), &env(set)).unwrap();
        settings.keep_state(flag.map(PathBuf::from), &env(set))
    };
    let session = ("XDG_RUNTIME_DIR", "/run/user/1000");
    let managed = ("STATE_DIRECTORY", "/var/lib/tidegate:/var/lib/other");
    let usual = |dir: &str| KeepState::InIfFree(PathBuf::from(dir));
    assert_eq!(keep(None, &[]), KeepState::Nowhere);
    assert_eq!(keep(None, &[session]), usual("/run/user/1000/tidegate"));
    assert_eq!(keep(None, &[session, managed]), usual("/var/lib/tidegate"));
    assert_eq!(keep(Some("here"), &[managed]), KeepState::In(PathBuf::from("here")));
    assert_eq!(keep(Some("off"), &[managed]), KeepState::Nowhere);
    let set = [managed, ("TIDEGATE_STATE_DIR", "off"), ("TIDEGATE_STATE_UNKNOWN", "spent")];
    assert_eq!(keep(None, &set), KeepState::Nowhere);
    assert!(Settings::load(&connection(), &env(&set)).unwrap().upstream().unwrap().assume_spent);
    let told = Settings::load(&connection(), &env(&[("TIDEGATE_STATE_UNKNOWN", "none")])).unwrap_err();
    assert!(told.message.contains("neither fresh nor spent"), "{}", told.message);
}

#[test]
fn keys_are_kept_where_somebody_said_else_where_the_gateway_was_started() {
    let keep = |flag: Option<&str>, set: &[(&str, &str)]| {
        let settings = Settings::load(&connection(), &env(set)).unwrap();
        settings.keep_keys(flag.map(PathBuf::from), &env(set), 8787)
    };
    let once_needed = |file: &str| KeepKeys::InOnceNeeded(PathBuf::from(file));
    let (managed, named) = (("STATE_DIRECTORY", "/var/lib/tidegate:/x"), ("TIDEGATE_STATE_FILE", "keys.db"));
    assert_eq!(keep(None, &[]), once_needed("tidegate-8787.db"));
    assert_eq!(keep(None, &[managed]), once_needed("/var/lib/tidegate/tidegate-8787.db"));
    assert_eq!(keep(None, &[managed, named]), KeepKeys::In(PathBuf::from("keys.db")));
    assert_eq!(keep(Some("here.db"), &[named]), KeepKeys::In(PathBuf::from("here.db")));
    assert_eq!(keep(Some("off"), &[named]), KeepKeys::InMemory);
}

#[test]
fn every_key_and_variable_is_documented() {
    let text = include_str!("../../../../docs/configuration.md");
    for key in KEYS {
        assert!(text.contains(&format!("`{}`", key.name)), "{}", key.name);
        key.env.iter().for_each(|name| assert!(text.contains(&format!("`{name}`")), "{name}"));
    }
    for name in SECRET_ENV.iter().chain(&[QUOTA_PASSWORD_ENV, TOKEN_KEY_ENV]).chain(&OTHER_ENV) {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn a_secret_file_ends_without_its_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "s3cret\r\n").unwrap();
    let with_file = Connection { client_secret_file: Some(path.clone()), ..connection() };
    let settings = Settings::load(&with_file, &env(&[("GENESYSCLOUD_OAUTHCLIENT_ID", "id")])).unwrap();
    assert_eq!(settings.upstream().unwrap().credential.unwrap().1.client_id(), "id");
    std::fs::write(&path, "\n").unwrap();
    let told = settings.upstream().unwrap_err().message;
    assert!(told.contains("is empty (write the secret into it)"), "{told}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let read = [("TIDEGATE_TENANT".into(), std::ffi::OsString::from_vec(vec![0xff]))].into_iter().collect();
    assert_eq!(Settings::load(&connection(), &read).unwrap_err().message, "TIDEGATE_TENANT: is not UTF-8");
}

/// The settings of each tenant of a file.
fn each(text: &str, connection: Connection) -> Vec<Settings> {
    let (_folder, in_file) = file(text);
    let connection = Connection { config: in_file.config, ..connection };
    Settings::load_all(&connection, &env(&[("ACME", "s")])).unwrap().of_each().unwrap()
}

#[test]
fn a_tenant_has_the_top_levels_settings_but_no_part_of_a_place_and_no_credential() {
    let text = "region = \"mypurecloud.ie\"\n[retries]\nmax = 2\n\
                [[limit]]\nkey = \"a\"\nconcurrent = 1\n[[limit]]\nkey = \"b\"\nconcurrent = 2\n\
                [[tenant]]\nname = \"plain\"\n\
                [[tenant]]\nname = \"placed\"\napi = \"http://a\"\n[[tenant.limit]]\nkey = \"b\"\nconcurrent = 9\n\
                [tenant.credential]\nclient_id = \"me\"\nclient_secret_env = \"ACME\"\n\
                [[tenant]]\nname = \"other\u{2d}vendor\"\nprofile = \"github\"\napi = \"http://g\"\n[tenant.quota]\nprefix = \"gh\"\n";
    let all = each(text, connection());
    let configs: Vec<_> = all.iter().map(|one| one.upstream().unwrap()).collect();
    let places: Vec<_> = configs.iter().map(|config| (config.api.as_str(), config.login.as_str())).collect();
    assert_eq!(
        places,
        [
            ("https://api.mypurecloud.ie", "https://login.mypurecloud.ie"),
            ("http://a", "http://a"),
            ("http://g", "http://g")
        ]
    );
    assert!(configs.iter().all(|config| config.max_retries == 2));
    let clients: Vec<_> = configs.iter().map(|config| config.credential.is_some()).collect();
    assert_eq!(clients, [false, true, false]);
    let limits = |index: usize| -> Vec<String> {
        configs[index].limits.iter().map(|limit| format!("{} {:?}", limit.key, limit.kind)).collect()
    };
    assert_eq!(limits(0).len(), 2);
    assert!(limits(1).iter().any(|limit| limit.starts_with("b ") && limit.contains('9')), "{:?}", limits(1));
    assert_eq!(limits(1).len(), 2, "one of the same key replaces it");
    assert_eq!((all[0].get(&QUOTA_PREFIX), all[2].get(&QUOTA_PREFIX)), (None, Some("gh")));
}

#[test]
fn one_tenant_is_chosen_by_flag_or_variable_and_flags_win_over_its_table() {
    let text = "[[tenant]]\nname = \"acme\"\napi = \"http://a\"\n[[tenant]]\nname = \"default\"\napi = \"http://d\"\n";
    let (_folder, in_file) = file(text);
    let api = |connection: &Connection, pairs: &[(&str, &str)]| {
        let one = Settings::load(connection, &env(pairs)).unwrap();
        (one.tenant().to_string(), one.upstream().unwrap().api)
    };
    let is = |name: &str, api: &str| (name.to_owned(), api.to_owned());
    assert_eq!(api(&in_file, &[]), is("default", "http://d"));
    assert_eq!(api(&in_file, &[("TIDEGATE_TENANT", "acme")]), is("acme", "http://a"));
    let named = Connection { tenant: Some("acme".to_owned()), ..in_file };
    assert_eq!(api(&named, &[("TIDEGATE_TENANT", "default")]), is("acme", "http://a"));
    let flagged = Connection { api: Some("http://f".to_owned()), ..named };
    assert_eq!(api(&flagged, &[]), is("acme", "http://f"));
    // Without tables it is the name of the only one.
    let named =
        Connection { tenant: Some("acme".to_owned()), api: Some("http://f".to_owned()), ..connection() };
    assert_eq!(api(&named, &[]), is("acme", "http://f"));
}

#[test]
fn a_class_may_have_a_client_of_its_own_in_a_file_without_tenants() {
    let text = "[credential]\nclient_id = \"desk\"\nclient_secret_file = \"/dev/null\"\n\
                [credential.bulk]\nclient_id = \"nightly\"\nclient_secret_env = \"ACME\"\n";
    let (_folder, in_file) = file(text);
    let set = env(&[("ACME", "s"), ("TIDEGATE_CREDENTIAL_CLIENT_SECRET", "t")]);
    let config = Settings::load(&in_file, &set).unwrap().upstream().unwrap();
    let names: Vec<_> =
        config.class_credentials.iter().map(|own| own.as_ref().map(|(id, _)| id.to_string())).collect();
    assert_eq!(names, [None, None, Some("bulk".to_owned()), None]);
    assert_eq!(config.credential.unwrap().1.client_id(), "desk");
}
