//! Tables and items that are not what they must be.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use tidegate_core::share::{HolderId, PROTOCOL, Unanswered};
use tidegate_quota::{Lock, Name, Store, StoreError};

use crate::emulator::Emulator;
use crate::support::{BANK, TABLE, begin, id, look, said, store, unusable};

/// Changes one attribute of the bank's item.
async fn set(emulator: &Emulator, name: &str, value: AttributeValue) {
    let client = look(emulator);
    let update = client.update_item().table_name(TABLE).key("id", AttributeValue::S(id()));
    let update = update.update_expression("SET #a = :v").expression_attribute_names("#a", name);
    update.expression_attribute_values(":v", value).send().await.unwrap();
}

async fn item(emulator: &Emulator) -> std::collections::HashMap<String, AttributeValue> {
    let client = look(emulator);
    let found = client.get_item().table_name(TABLE).key("id", AttributeValue::S(id())).send().await.unwrap();
    found.item.unwrap()
}

#[tokio::test]
async fn a_missing_table_is_told_with_what_makes_it_and_is_then_made_once() {
    let emulator = Emulator::start();
    let store = store(&emulator);
    let (why, hint) = unusable(store.exchange(BANK, &said(1, 1, 1)).await);
    assert_eq!(why, "the table does not exist");
    assert!(hint.contains("`tidegate quota init`"), "{hint}");
    unusable(store.check().await);
    let told = store.init(true).await.unwrap();
    assert!(told[0].starts_with("would create the table quota with the key `id`"), "{told:?}");
    unusable(store.check().await);
    let told = store.init(false).await.unwrap();
    assert_eq!(told[0], "created the table quota with the key `id`, paid by request");
    assert_eq!(told[1], "switched on its time to live, by `expires`");
    for dry_run in [false, true] {
        let told = store.init(dry_run).await.unwrap();
        assert_eq!(
            told,
            ["the table quota is there, with the key `id`", "its time to live is on, by `expires`"]
        );
    }
    assert_eq!(emulator.count("CreateTable"), 1);
    assert_eq!(emulator.count("UpdateTimeToLive"), 1);
    let about = store.check().await.unwrap();
    assert_eq!(about.what, format!("dynamodb table quota in eu-west-1 at {}", emulator.endpoint()));
    let table = look(&emulator).describe_table().table_name(TABLE).send().await.unwrap().table.unwrap();
    let billing = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
    assert_eq!(billing, Some(&BillingMode::PayPerRequest));
    store.exchange(BANK, &said(1, 1, 1)).await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_looked_at_often_is_described_once_and_read_each_time() {
    let (emulator, _) = begin().await;
    let store = store(&emulator);
    let asked = || ["DescribeTable", "DescribeTimeToLive", "GetItem"].map(|kind| emulator.count(kind));
    let before = asked();
    for _ in 0..5 {
        store.check().await.unwrap();
    }
    assert_eq!(asked(), [before[0] + 1, before[1] + 1, before[2] + 5]);
    look(&emulator).delete_table().table_name(TABLE).send().await.unwrap();
    assert_eq!(
        unusable(store.check().await).0,
        "the table does not exist",
        "nobody looks at what was described"
    );
}

#[tokio::test]
async fn a_table_of_another_shape_is_told_with_its_key_and_left_alone() {
    let emulator = Emulator::start();
    let client = look(&emulator);
    let part =
        |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
    let attribute = |name: &str, kind| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
    };
    client
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(part("pk", KeyType::Hash))
        .key_schema(part("sk", KeyType::Range))
        .attribute_definitions(attribute("pk", ScalarAttributeType::S))
        .attribute_definitions(attribute("sk", ScalarAttributeType::N))
        .send()
        .await
        .unwrap();
    let store = store(&emulator);
    let expected = "its key is `pk` (S) and `sk` (N), and not `id` (S)";
    assert_eq!(unusable(store.exchange(BANK, &said(1, 1, 1)).await).0, expected);
    assert_eq!(unusable(store.check().await).0, expected);
    let (why, hint) = unusable(store.init(false).await);
    assert_eq!(why, expected);
    assert!(hint.contains("another table"), "{hint}");
    assert_eq!(emulator.count("UpdateTimeToLive"), 0);
}

#[tokio::test]
async fn an_item_of_another_program_is_refused_and_left_alone() {
    let (emulator, store) = begin().await;
    set(&emulator, "owner", AttributeValue::S("somebody".to_owned())).await;
    let before = item(&emulator).await;
    let (why, hint) = unusable(store.exchange(BANK, &said(1, 1, 1)).await);
    assert_eq!(
        why,
        format!("the item {} is another program's: its `protocol` is missing, not a number", id())
    );
    assert!(hint.contains("quota.prefix"), "{hint}");
    unusable(store.view(BANK).await);
    assert_eq!(item(&emulator).await, before);
}

#[tokio::test]
async fn a_state_of_another_version_is_refused_with_both_versions_named() {
    let (emulator, store) = begin().await;
    store.exchange(BANK, &said(1, 1, 1)).await.unwrap();
    set(&emulator, "protocol", AttributeValue::N("9".to_owned())).await;
    // Somebody else's write: this store has kept the item it wrote itself.
    set(&emulator, "version", AttributeValue::N("77".to_owned())).await;
    let before = item(&emulator).await;
    let refused = StoreError::Unanswered(Unanswered::Protocol { found: 9, known: PROTOCOL });
    assert_eq!(store.exchange(BANK, &said(1, 2, 1)).await, Err(refused.clone()));
    assert_eq!(store.view(BANK).await, Err(refused.clone()));
    assert!(refused.to_string().contains("has protocol 9, this program speaks 3"), "{refused}");
    assert_eq!(item(&emulator).await, before);
}

#[tokio::test]
async fn a_state_whose_time_is_an_hour_ahead_is_told_and_not_waited_for() {
    let (emulator, store) = begin().await;
    store.exchange(BANK, &said(1, 1, 1)).await.unwrap();
    let Some(AttributeValue::N(at)) = item(&emulator).await.remove("at") else { panic!("it has a time") };
    let ahead = at.parse::<u64>().unwrap() + 3_600_000;
    set(&emulator, "at", AttributeValue::N(ahead.to_string())).await;
    let other = crate::support::store(&emulator);
    let (why, hint) = unusable(other.exchange(BANK, &said(2, 1, 1)).await);
    assert!(why.contains("ahead of DynamoDB's own clock") && why.contains("59 min"), "{why}");
    assert!(hint.contains("with a wrong clock"), "{hint}");
}

#[tokio::test]
async fn every_item_has_an_end() {
    let (emulator, store) = begin().await;
    store.exchange(BANK, &said(1, 1, 1)).await.unwrap();
    let name = Name { bank: BANK, what: "token/reporting".to_owned() };
    let lock = store.lock(&name, HolderId(1), std::time::Duration::from_mins(1)).await.unwrap();
    assert_eq!(lock, Lock::Yours { fence: 1 });
    let items = look(&emulator).scan().table_name(TABLE).send().await.unwrap().items.unwrap();
    assert_eq!(items.len(), 2);
    for item in items {
        let number = |name: &str| item[name].as_n().unwrap().parse::<u64>().unwrap();
        assert!(number("expires") > number("at") / 1_000, "{item:?}");
        assert!(number("expires") < number("at") / 1_000 + 3 * 86_400, "{item:?}");
    }
}
