//! Servers that stop, end, and come back. All in the time of the machine.

mod real_time {
    use std::time::Duration;

    use tidegate_quota::{Store, StoreError};
    use tidegate_quota_redis::{RedisConfig, RedisStore};
    use tokio::time::Instant;

    use crate::proxy::Proxy;
    use crate::server::Server;
    use crate::support::{BANK, said};

    fn store(server: &Server) -> RedisStore {
        RedisStore::new(RedisConfig::new(server.url())).unwrap()
    }

    /// Asks as a busy holder does until there is an answer. The same exchange each time: none was answered.
    async fn until_answered(store: &RedisStore, seq: u64) -> (u64, Duration) {
        let begun = Instant::now();
        loop {
            match store.exchange(BANK, &said(1, seq, 1)).await {
                Ok(reply) => return (reply.knew_seq, begun.elapsed()),
                Err(StoreError::Away { retry_after, .. }) => {
                    assert!(begun.elapsed() < Duration::from_secs(20), "it never comes back");
                    tokio::time::sleep(retry_after.unwrap_or_default().max(Duration::from_millis(10))).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[tokio::test]
    async fn a_stopped_server_is_away_and_soon_not_asked_any_more() {
        let server = Server::start(&[]);
        let store = store(&server);
        until_answered(&store, 1).await;
        server.signal("-STOP");
        let mut asked = 0;
        let error = loop {
            let begun = Instant::now();
            let error = store.exchange(BANK, &said(1, 2, 1)).await.unwrap_err();
            let StoreError::Away { retry_after, .. } = error else { panic!("{error}") };
            // Ten times the time-out, for a busy machine.
            assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
            if retry_after.is_some() {
                break error;
            }
            asked += 1;
            assert!(asked <= 3, "it is asked again and again");
        };
        assert!(error.to_string().contains("no answer within 50 ms"), "{error}");
        server.signal("-CONT");
        let (knew, took) = until_answered(&store, 2).await;
        assert!(knew == 1 || knew == 2, "the exchange that was late may have been heard: {knew}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test]
    async fn late_answers_do_not_cost_the_connection_they_come_on() {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port).await;
        let store = RedisStore::new(RedisConfig::new(proxy.url())).unwrap();
        until_answered(&store, 1).await;
        // Each answer takes twice as long as it is waited for.
        proxy.delay(Duration::from_millis(100));
        let mut refused = 0;
        for _ in 0..20 {
            let error = store.exchange(BANK, &said(1, 2, 1)).await.unwrap_err();
            let StoreError::Away { retry_after, .. } = error else { panic!("{error}") };
            refused += u32::from(retry_after.is_some());
        }
        assert!(refused > 0, "a server that is late is not asked all the time");
        proxy.delay(Duration::ZERO);
        let (knew, took) = until_answered(&store, 3).await;
        assert_eq!(knew, 2, "what was late was heard");
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(proxy.connections(), 1);
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_comes_any_more_is_replaced() {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port).await;
        let store = RedisStore::new(RedisConfig::new(proxy.url())).unwrap();
        until_answered(&store, 1).await;
        proxy.forget();
        let (_, took) = until_answered(&store, 2).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(proxy.connections(), 2);
    }

    #[tokio::test]
    async fn a_server_that_comes_back_empty_is_found_within_two_seconds() {
        let mut server = Server::start(&[]);
        let store = store(&server);
        until_answered(&store, 1).await;
        server.kill();
        for seq in 2..6 {
            let error = store.exchange(BANK, &said(1, seq, 1)).await.unwrap_err();
            assert!(matches!(error, StoreError::Away { .. }), "{error}");
        }
        server.restart();
        let (knew, took) = until_answered(&store, 6).await;
        assert_eq!(knew, 0, "it has forgotten");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test]
    async fn a_server_that_was_never_there_is_away() {
        let mut server = Server::start(&[]);
        server.kill();
        let store = store(&server);
        let error = store.exchange(BANK, &said(1, 1, 1)).await.unwrap_err();
        assert!(error.to_string().starts_with("redis at 127.0.0.1:"), "{error}");
        assert!(matches!(error, StoreError::Away { .. }), "{error}");
        server.restart();
        until_answered(&store, 1).await;
    }

    #[tokio::test]
    async fn a_server_that_is_full_is_away_and_says_why() {
        let server = Server::start(&["--maxmemory", "1"]);
        // It is about what the server says, not when.
        let patient = RedisConfig { timeout: Duration::from_secs(5), ..RedisConfig::new(server.url()) };
        let store = RedisStore::new(patient).unwrap();
        let error = store.exchange(BANK, &said(1, 1, 1)).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Away { why, .. } if why.contains("OOM") && why.ends_with("a server of its own")),
            "{error}"
        );
    }
}
