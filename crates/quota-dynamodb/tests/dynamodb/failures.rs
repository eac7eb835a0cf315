//! Tables that do not answer, and come back. All in the time of the machine.

mod real_time {
    use std::time::Duration;

    use tidegate_quota::{Store, StoreError};
    use tidegate_quota_dynamodb::DynamoStore;
    use tokio::time::Instant;

    use crate::support::{BANK, begin, said, with};

    /// Asks as a busy holder does until there is an answer. The same exchange each time: none was answered.
    async fn until_answered(store: &DynamoStore, seq: u64) -> (u64, Duration) {
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
    async fn a_table_that_does_not_answer_is_away_and_soon_not_asked_any_more() {
        let (emulator, _patient) = begin().await;
        let store = with(&emulator, |_| ());
        until_answered(&store, 1).await;
        emulator.signal("-STOP");
        let mut asked = 0;
        let error = loop {
            let begun = Instant::now();
            let error = store.exchange(BANK, &said(1, 2, 1)).await.unwrap_err();
            let StoreError::Away { retry_after, .. } = error else { panic!("{error}") };
            // Four times the time-out, for a busy machine.
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
            if retry_after.is_some() {
                break error;
            }
            asked += 1;
            assert!(asked <= 3, "it is asked again and again");
        };
        assert!(error.to_string().contains("no answer within 250 ms"), "{error}");
        emulator.signal("-CONT");
        let (knew, took) = until_answered(&store, 2).await;
        assert!(knew == 1 || knew == 2, "an exchange that was late may have been heard: {knew}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_there_is_away() {
        let (emulator, _) = begin().await;
        let gone = emulator.endpoint();
        drop(emulator);
        let config =
            tidegate_quota_dynamodb::DynamoConfig::parse(&format!("dynamodb://quota?endpoint={gone}"))
                .unwrap();
        let store = DynamoStore::with_aws(config, crate::support::aws()).unwrap();
        let error = store.exchange(BANK, &said(1, 1, 1)).await.unwrap_err();
        assert!(matches!(error, StoreError::Away { .. }), "{error}");
        assert!(error.to_string().starts_with("dynamodb table quota at http://127.0.0.1:"), "{error}");
        let error = store.exchange(BANK, &said(1, 1, 1)).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Away { retry_after: Some(_), .. }),
            "it is refused at once: {error}"
        );
    }
}
