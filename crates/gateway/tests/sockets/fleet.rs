//! Gateways whose quota is shared through a store.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidegate::share::{
    About, BankKey, Exchange, HolderId, Kept, LimitView, Lock, MemoryStore, Name, OnStoreLoss, Reply,
    ShareConfig, SharedQuota, Store, StoreError, TokenKey,
};
use tokio::time::Instant;

use crate::stage::{Caller, FIRST, Played, play, play_with};

fn shared(store: &Arc<dyn Store>, holder: u64, on_store_loss: OnStoreLoss) -> SharedQuota {
    SharedQuota {
        store: Arc::clone(store),
        config: ShareConfig {
            holder: HolderId(holder),
            on_store_loss,
            max_instances: 8,
            tokens_shared: true,
        },
        token_key: Some(TokenKey::from_secret(&[7; 32]).unwrap()),
    }
}

async fn quota_of(played: &Played) -> Value {
    let state = Caller::new(played.gateway.admin_addr()).get("/api/state").await.json();
    state["tenants"][0]["quota"].clone()
}

#[tokio::test]
async fn the_state_tells_how_the_quota_is_shared() {
    let began = Instant::now();
    let clock = move || 1_000_000 + u64::try_from(began.elapsed().as_millis()).unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::at(clock));
    let played = play_with("genesys-guide", "limit = 100", |config| {
        config.tenants[0].upstream.quota = Some(shared(&store, 1, OnStoreLoss::Share));
    })
    .await;
    let before = quota_of(&played).await;
    assert_eq!((&before["mode"], &before["instances"]), (&"idle".into(), &Value::Null), "{before}");
    for _ in 0..3 {
        assert_eq!(played.caller.get(FIRST).await.status, 200);
    }
    let quota = quota_of(&played).await;
    assert_eq!(quota["mode"], "joined", "{quota}");
    assert_eq!((&quota["instances"], &quota["failures"]), (&1.into(), &0.into()), "{quota}");
    assert_eq!((&quota["tokens"], &quota["alone_for_ms"]), (&"shared".into(), &Value::Null), "{quota}");
    assert!(quota["exchanges"].as_u64() > Some(0), "{quota}");
    assert_eq!(quota["store"], "this process's memory");
    let admin = Caller::new(played.gateway.admin_addr());
    let metrics = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
    assert!(
        metrics.contains("tidegate_quota_exchanges_total{outcome=\"answered\",tenant=\"default\"}"),
        "{metrics}"
    );
    assert_eq!(quota_of(&play("genesys-guide", "").await).await, Value::Null, "its own is nobody's");
}

#[tokio::test]
async fn without_its_store_a_gateway_is_ready_unless_it_is_to_be_closed() {
    for (on_store_loss, mode, ready) in [
        (OnStoreLoss::Share, "share", 200),
        (OnStoreLoss::Open, "open", 200),
        (OnStoreLoss::Closed, "closed", 503),
    ] {
        let played = play_with("genesys-guide", "limit = 100", |config| {
            config.tenants[0].upstream.quota =
                Some(shared(&(Arc::new(Gone) as Arc<dyn Store>), 1, on_store_loss));
        })
        .await;
        let admin = Caller::new(played.gateway.admin_addr());
        assert_eq!(admin.get("/readyz").await.status, ready, "{mode}, before the first call");
        // Somebody has to want something before the store is missed.
        played.caller.get(FIRST).await;
        let end = Instant::now() + Duration::from_secs(10);
        while quota_of(&played).await["mode"] == "idle" {
            assert!(Instant::now() < end, "the store is not missed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let quota = quota_of(&played).await;
        assert_eq!(quota["mode"], mode, "{quota}");
        assert!(quota["alone_for_ms"].is_u64() && quota["failures"].as_u64() > Some(0), "{quota}");
        assert!(quota["problem"].as_str().unwrap().contains("is away"), "{quota}");
        assert_eq!(admin.get("/readyz").await.status, ready, "{mode}");
        let answer = played.caller.get(FIRST).await;
        if ready == 503 {
            assert!(answer.is_ours(429, ("tidegate-refused", "quota-store")), "{answer:?}");
        } else {
            assert_eq!(answer.status, 200, "{mode}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_exchanges_from_permits_is_told_though_the_store_looks_well() {
    let memory = Arc::new(MemoryStore::at(|| 1_000_000));
    let played = play_with("genesys-guide", "limit = 100", |config| {
        let store = Arc::new(Refusing(memory)) as Arc<dyn Store>;
        config.tenants[0].upstream.quota = Some(shared(&store, 1, OnStoreLoss::Share));
    })
    .await;
    played.caller.get(FIRST).await;
    let end = Instant::now() + Duration::from_secs(10);
    while quota_of(&played).await["mode"] != "share" {
        assert!(Instant::now() < end, "the store is not missed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let quota = quota_of(&played).await;
    assert!(quota["problem"].as_str().is_some_and(|problem| problem.contains("a broken script")), "{quota}");
    assert!(quota["store"].is_string(), "{quota}");
}

/// A store whose exchanges fail, and nothing else.
#[derive(Debug)]
struct Refusing(Arc<MemoryStore>);

impl Store for Refusing {
    fn exchange<'a>(&'a self, _: BankKey, _: &'a Exchange) -> Told<'a, Reply> {
        let (store, why) = ("this store".to_owned(), "a broken script".to_owned());
        let error = StoreError::Unusable { store, why, hint: "mend it".to_owned() };
        Box::pin(std::future::ready(Err(error)))
    }
    fn lock<'a>(&'a self, name: &'a Name, who: HolderId, life: Duration) -> Told<'a, Lock> {
        self.0.lock(name, who, life)
    }
    fn put<'a>(&'a self, name: &'a Name, fence: u64, bytes: &'a [u8], life: Duration) -> Told<'a, bool> {
        self.0.put(name, fence, bytes, life)
    }
    fn get<'a>(&'a self, name: &'a Name) -> Told<'a, Option<Kept>> {
        self.0.get(name)
    }
    fn unlock<'a>(&'a self, name: &'a Name, fence: u64) -> Told<'a, ()> {
        self.0.unlock(name, fence)
    }
    fn view(&self, bank: BankKey) -> Told<'_, Vec<LimitView>> {
        self.0.view(bank)
    }
    fn check(&self) -> Told<'_, About> {
        self.0.check()
    }
    fn patience(&self) -> Duration {
        self.0.patience()
    }
}

/// A store that nobody can reach.
#[derive(Debug)]
struct Gone;

type Told<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

fn away<'a, T: Send + 'a>() -> Told<'a, T> {
    let store = "the store of this test".to_owned();
    let error = StoreError::Away { store, why: "nobody listens".to_owned(), retry_after: None };
    Box::pin(std::future::ready(Err(error)))
}

impl Store for Gone {
    fn exchange<'a>(&'a self, _: BankKey, _: &'a Exchange) -> Told<'a, Reply> {
        away()
    }
    fn lock<'a>(&'a self, _: &'a Name, _: HolderId, _: Duration) -> Told<'a, Lock> {
        away()
    }
    fn put<'a>(&'a self, _: &'a Name, _: u64, _: &'a [u8], _: Duration) -> Told<'a, bool> {
        away()
    }
    fn get<'a>(&'a self, _: &'a Name) -> Told<'a, Option<Kept>> {
        away()
    }
    fn unlock<'a>(&'a self, _: &'a Name, _: u64) -> Told<'a, ()> {
        away()
    }
    fn view(&self, _: BankKey) -> Told<'_, Vec<LimitView>> {
        away()
    }
    fn check(&self) -> Told<'_, About> {
        away()
    }
    fn patience(&self) -> Duration {
        Duration::from_millis(50)
    }
}
