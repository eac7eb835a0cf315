//! Who may do what: passwords, ACL users, commands that are not there.

use redis::aio::MultiplexedConnection;
use secrecy::SecretString;
use tidegate_core::share::HolderId;
use tidegate_quota::{Name, Store, StoreError};
use tidegate_quota_redis::{RedisConfig, RedisStore};

use crate::server::Server;
use crate::support::{BANK, look, said, store, unusable, with};

const FLEET: &str = include_str!("../../../../docs/fleet.md");

pub(crate) fn login(server: &Server, user: Option<&str>, password: &str) -> RedisConfig {
    let user = user.map(ToOwned::to_owned);
    RedisConfig { user, password: Some(SecretString::from(password)), ..RedisConfig::new(server.url()) }
}

/// The user as docs/fleet.md says, with changes at its end.
pub(crate) async fn set_user(look: &mut MultiplexedConnection, more: &str) {
    let line =
        FLEET.lines().find(|line| line.starts_with("ACL SETUSER tidegate ")).expect("docs/fleet.md has it");
    let mut command = redis::cmd("ACL");
    for word in line.split(' ').skip(1).chain(more.split(' ').filter(|word| !word.is_empty())) {
        command.arg(word.replace("PASSWORD", "s3cret"));
    }
    command.exec_async(look).await.unwrap();
}

pub(crate) async fn do_all(store: &RedisStore) -> Result<(), StoreError> {
    store.check().await?;
    store.exchange(BANK, &said(1, 1, 3)).await?;
    store.exchange(BANK, &said(2, 1, 1)).await?;
    store.view(BANK).await?;
    let name = Name { bank: BANK, what: "token/x".to_owned() };
    let life = std::time::Duration::from_secs(5);
    store.lock(&name, HolderId(1), life).await?;
    store.put(&name, 1, b"bytes", life).await?;
    store.get(&name).await?;
    store.unlock(&name, 1).await
}

#[tokio::test]
async fn a_wrong_password_is_told_with_what_to_do() {
    let server = Server::start(&["--requirepass", "s3cret"]);
    for config in [login(&server, None, "wrong"), login(&server, Some("nobody"), "s3cret")] {
        let (why, hint) = unusable(with(config).exchange(BANK, &said(1, 1, 1)).await);
        assert!(hint.contains("quota.password_file"), "{hint}");
        assert!(!why.contains("s3cret"), "{why}");
    }
    let (_, hint) = unusable(store(&server).exchange(BANK, &said(1, 1, 1)).await);
    assert!(hint.contains("wants a password"), "{hint}");
    with(login(&server, None, "s3cret")).exchange(BANK, &said(1, 1, 1)).await.unwrap();
    let in_url = server.url().replace("redis://", "redis://:s3cret@");
    with(RedisConfig::new(in_url)).exchange(BANK, &said(1, 2, 1)).await.unwrap();
}

#[tokio::test]
async fn a_password_that_the_server_does_not_want_is_told() {
    let server = Server::start(&[]);
    let answer = with(login(&server, None, "s3cret")).exchange(BANK, &said(1, 1, 1)).await;
    let (_, hint) = unusable(answer);
    assert!(hint.contains("quota.password_file"), "{hint}");
}

#[tokio::test]
async fn the_documented_user_may_do_all_that_is_needed_and_no_more() {
    let server = Server::start(&[]);
    let mut look = look(&server).await;
    set_user(&mut look, "").await;
    do_all(&with(login(&server, Some("tidegate"), "s3cret"))).await.unwrap();
    let elsewhere = RedisConfig { prefix: "other".to_owned(), ..login(&server, Some("tidegate"), "s3cret") };
    let (_, hint) = unusable(with(elsewhere).exchange(BANK, &said(1, 1, 1)).await);
    assert!(hint.contains("docs/fleet.md"), "{hint}");

    // Each command is needed: without it a check, which is what `tidegate doctor` makes, says so.
    let line = FLEET.lines().find(|line| line.starts_with("ACL SETUSER tidegate ")).unwrap();
    let commands = line.split(' ').filter_map(|word| word.strip_prefix('+'));
    for command in commands {
        redis::cmd("ACL").arg(&["DELUSER", "tidegate"]).exec_async(&mut look).await.unwrap();
        set_user(&mut look, &format!("-{command}")).await;
        let store = with(login(&server, Some("tidegate"), "s3cret"));
        let Err(StoreError::Unusable { hint, .. }) = store.check().await else {
            panic!("{command} is not tried");
        };
        assert!(hint.contains("docs/fleet.md"), "{command}: {hint}");
    }
}

#[tokio::test]
async fn a_server_without_scripts_is_told() {
    let server = Server::start(&["--rename-command", "EVALSHA", ""]);
    let (why, hint) = unusable(store(&server).exchange(BANK, &said(1, 1, 1)).await);
    assert!(why.contains("unknown command"), "{why}");
    assert!(hint.contains("scripts are needed"), "{hint}");
}

#[tokio::test]
async fn a_check_names_the_server_and_leaves_nothing() {
    let server = Server::start(&[]);
    let about = store(&server).check().await.unwrap();
    assert!(about.what.ends_with(&format!(" at 127.0.0.1:{}", server.port)), "{}", about.what);
    assert!(about.what.starts_with("redis ") || about.what.starts_with("valkey "), "{}", about.what);
    let left: u64 = redis::cmd("DBSIZE").query_async(&mut look(&server).await).await.unwrap();
    assert_eq!(left, 0);
}
