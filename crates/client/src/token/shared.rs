//! Tokens that several processes renew together.
//!
//! Where the quota is shared, the processes log in as one credential. Some platforms count logins, and some end older tokens
//! when too many are fetched, so only one of them fetches at a time: who holds the lock in the store. With a token key the
//! one puts its token there, sealed, and the others take it over; then the fleet has one token per life. Without a key each
//! has its own, fetched one after the other.
//!
//! * A lock ends by itself, so a process that dies while it holds it delays the others by that, no more. Its fence keeps a
//!   process that was late from replacing a newer token.
//! * A token that was held here is not taken over again, so one that the API rejected is never taken back from the store. It is
//!   known again by its seal, not by its fence: a store that lost its state begins anew with fences.
//! * A store that is away delays a renewal by a second, then this process fetches alone: to have a token goes before to
//!   save a login.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidegate_core::share::{BankKey, HolderId, LimitKey};
use tidegate_core::time::Mono;
use tidegate_quota::{Kept, Lock, Name, Store, StoreError, TokenKey};
use zeroize::Zeroizing;

use super::grant::{ClientCredentials, Grant, GrantError};
use crate::clock::Clock;
use crate::share::{SharedQuota, ask};

/// A lock outlives the longest fetch by this: the way to the store and back.
const SLACK: Duration = Duration::from_secs(5);

/// After so long it is looked for the first time whether another process has finished; then after twice that, and so on.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// Up to this.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// So many of the last tokens are known again: a store that comes back with older state has one of them, or one that is over.
const HELD: usize = 8;

/// One credential's tokens in all processes.
pub(crate) struct SharedTokens {
    store: Arc<dyn Store>,
    name: Name,
    who: HolderId,
    key: Option<TokenKey>,
    /// Of a lock.
    life: Duration,
    /// Of a token whose answer does not tell.
    default_life: Duration,
    /// The tokens that were held here last, by their seals.
    held: Mutex<VecDeque<Seal>>,
    /// It was said that a token could not be opened.
    warned: AtomicBool,
    /// The token that is held here is not the fleet's, which could not be opened.
    apart: AtomicBool,
}

/// How a renewal ended.
pub(super) enum Renewed {
    /// By asking the endpoint, at that instant.
    Fetched(Mono, Result<Grant, GrantError>),
    /// By another process's token.
    Taken(Taken),
}

/// Another process's token.
pub(super) struct Taken {
    pub(super) bearer: HeaderValue,
    pub(super) life: Duration,
    pub(super) left: Duration,
}

/// What is sealed.
#[derive(Deserialize, Serialize)]
struct Token<'a> {
    /// The header's value.
    #[serde(borrow)]
    bearer: &'a str,
    life_ms: u64,
}

/// Who is to fetch.
enum Turn {
    Take(Taken),
    /// This process, which holds the lock.
    Fetch {
        fence: u64,
    },
    /// This process, whatever the others do.
    Alone,
}

/// What the store has.
enum Found {
    Nothing,
    Token(Taken),
    /// A token that this process cannot open.
    Sealed,
}

impl SharedTokens {
    pub(crate) fn new(
        quota: &SharedQuota,
        bank: BankKey,
        credentials: &ClientCredentials,
        fetch: Duration,
        default_life: Duration,
    ) -> Self {
        // By the client and not by the name that this configuration has for it: a name may stand for another client
        // elsewhere, and its token must not be lent to this one's callers.
        let client = LimitKey::of(&["token", credentials.client_id()]);
        Self {
            store: Arc::clone(&quota.store),
            name: Name { bank, what: format!("token/{client}") },
            who: quota.config.holder,
            key: quota.token_key.clone(),
            life: fetch + SLACK,
            default_life,
            held: Mutex::new(VecDeque::new()),
            warned: AtomicBool::new(false),
            apart: AtomicBool::new(false),
        }
    }

    /// The fleet has one token, and this process has it or is to get it. Who has another one is counted by the API apart, and must
    /// not draw from what the fleet's is counted in.
    pub(super) fn lends(&self) -> bool {
        self.key.is_some() && !self.apart.load(Ordering::Relaxed)
    }

    fn is_apart(&self, apart: bool) {
        self.apart.store(apart, Ordering::Relaxed);
    }

    /// A token: one that another process has put there since, else a new one by `fetch`, which tells when it asked.
    pub(super) async fn renew(
        &self,
        clock: &Clock,
        fetch: impl Future<Output = (Mono, Result<Grant, GrantError>)> + Send,
    ) -> Renewed {
        let turn = self.turn(clock).await.unwrap_or_else(|error| {
            tracing::debug!(target: "tidegate", "a token is fetched without the others: {error}");
            Turn::Alone
        });
        match turn {
            Turn::Take(taken) => Renewed::Taken(taken),
            Turn::Alone => {
                let (requested_at, outcome) = fetch.await;
                Renewed::Fetched(requested_at, outcome)
            }
            Turn::Fetch { fence } => {
                let (requested_at, outcome) = fetch.await;
                let age = clock.now() - requested_at;
                if let Err(error) = self.end(fence, age, outcome.as_ref().ok()).await {
                    tracing::debug!(target: "tidegate", "a token could not be given to the others: {error}");
                }
                Renewed::Fetched(requested_at, outcome)
            }
        }
    }

    /// Waits for a token of another process, or for the lock.
    async fn turn(&self, clock: &Clock) -> Result<Turn, StoreError> {
        // Who holds the lock dies once; if the next does so too, something is wrong that waiting does not mend. Many may wait: each
        // gives up at a time of its own, over one life more.
        let end = clock.now() + self.life * 2 + self.life.mul_f64(self.place());
        let mut look = FIRST_LOOK;
        loop {
            match self.found().await? {
                Found::Token(taken) => return Ok(Turn::Take(taken)),
                Found::Sealed => return Ok(Turn::Alone),
                Found::Nothing => {}
            }
            match ask(|| self.store.lock(&self.name, self.who, self.life)).await? {
                Lock::Yours { fence } => return self.look_again(fence).await,
                Lock::Held { .. } if clock.now() >= end => return Ok(Turn::Alone),
                Lock::Held { left, .. } => tokio::time::sleep(look.min(left)).await,
            }
            look = (look * 2).min(LONGEST_LOOK);
        }
    }

    /// This process's place among those that wait, from zero to one: holders are drawn by chance.
    fn place(&self) -> f64 {
        let place = u16::try_from(self.who.0 & 0xffff).expect("it has sixteen bits");
        f64::from(place) / f64::from(u16::MAX)
    }

    /// The lock is ours. Between the look and the lock another may have finished.
    async fn look_again(&self, fence: u64) -> Result<Turn, StoreError> {
        let found = match self.found().await {
            Ok(Found::Token(taken)) => Ok(Turn::Take(taken)),
            Ok(Found::Nothing) => return Ok(Turn::Fetch { fence }),
            Ok(Found::Sealed) => Ok(Turn::Alone),
            Err(error) => Err(error),
        };
        self.store.unlock(&self.name, fence).await?;
        found
    }

    /// The token in the store, if it is not one that was held here.
    async fn found(&self) -> Result<Found, StoreError> {
        let Some(key) = &self.key else { return Ok(Found::Nothing) };
        let kept = ask(|| self.store.get(&self.name)).await?;
        let Some(kept) = kept.filter(|kept| !kept.left.is_zero()) else {
            return Ok(Found::Nothing);
        };
        let seal = seal_of(&kept.bytes);
        if seal.is_some_and(|seal| self.held.lock().contains(&seal)) {
            return Ok(Found::Nothing);
        }
        if let Some(taken) = open(key, &self.name, &kept) {
            self.hold(seal);
            self.is_apart(false);
            return Ok(Found::Token(taken));
        }
        self.is_apart(true);
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "tidegate",
                "the token of the other processes was sealed with another token key, so this one fetches its own: give all the same quota.token_key_file"
            );
        }
        Ok(Found::Sealed)
    }

    fn hold(&self, seal: Option<Seal>) {
        let mut held = self.held.lock();
        held.extend(seal);
        if held.len() > HELD {
            held.pop_front();
        }
    }

    /// Gives the new token to the others and ends the lock.
    async fn end(&self, fence: u64, age: Duration, grant: Option<&Grant>) -> Result<(), StoreError> {
        let sealed = grant.zip(self.key.as_ref()).and_then(|(grant, key)| {
            let life = grant.expires_in.unwrap_or(self.default_life);
            let left = life.checked_sub(age).filter(|left| !left.is_zero())?;
            Some((seal(key, &self.name, fence, &grant.bearer, life)?, left))
        });
        let Some((sealed, left)) = sealed else {
            return self.store.unlock(&self.name, fence).await;
        };
        self.hold(seal_of(&sealed));
        if !ask(|| self.store.put(&self.name, fence, &sealed, left)).await? {
            tracing::debug!(target: "tidegate", "another process has renewed the token meanwhile");
            return Ok(());
        }
        self.is_apart(false);
        Ok(())
    }
}

/// What tells one sealed token from all others: its nonce.
type Seal = [u8; TokenKey::NONCE];

fn seal_of(sealed: &[u8]) -> Option<Seal> {
    sealed.first_chunk().copied()
}

/// `None` where the machine has no source of chance that is fit for it.
fn seal(key: &TokenKey, name: &Name, fence: u64, bearer: &HeaderValue, life: Duration) -> Option<Vec<u8>> {
    let mut nonce = [0; TokenKey::NONCE];
    getrandom::fill(&mut nonce).ok()?;
    let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    let token = Token { bearer: bearer.to_str().ok()?, life_ms };
    let plain = Zeroizing::new(serde_json::to_vec(&token).expect("texts serialise"));
    Some(key.seal(name, fence, nonce, &plain))
}

fn open(key: &TokenKey, name: &Name, kept: &Kept) -> Option<Taken> {
    let plain = key.open(name, kept.fence, &kept.bytes)?;
    let token: Token<'_> = serde_json::from_slice(&plain).ok()?;
    let mut bearer = HeaderValue::from_str(token.bearer).ok()?;
    bearer.set_sensitive(true);
    let life = Duration::from_millis(token.life_ms);
    Some(Taken { bearer, life, left: kept.left.min(life) })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use http::Response;
    use secrecy::SecretString;
    use tidegate_core::share::{Exchange, LimitView, OnStoreLoss, Reply, ShareConfig};
    use tidegate_quota::{About, MemoryStore};
    use tokio::time::Instant;

    use super::*;

    const FETCH: Duration = Duration::from_secs(20);
    const HOUR: Duration = Duration::from_hours(1);

    fn memory() -> Arc<MemoryStore> {
        let began = Instant::now();
        Arc::new(MemoryStore::at(move || 1_000_000 + u64::try_from(began.elapsed().as_millis()).unwrap()))
    }

    fn process(store: &Arc<MemoryStore>, holder: u64, key: Option<u8>) -> SharedTokens {
        let config = ShareConfig {
            holder: HolderId(holder),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 8,
            tokens_shared: key.is_some(),
        };
        let token_key = key.map(|byte| TokenKey::from_secret(&[byte; 32]).unwrap());
        let quota = SharedQuota { store: Arc::clone(store) as Arc<dyn Store>, config, token_key };
        let login = ClientCredentials::new("client", &SecretString::from("secret"));
        SharedTokens::new(&quota, BankKey::of("http://api", "acme"), &login, FETCH, HOUR)
    }

    fn grant(token: &str) -> Grant {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        Grant { bearer, expires_in: Some(HOUR), answer: Response::new(Bytes::new()) }
    }

    /// Renews; a fetch takes a second and brings `fresh`.
    async fn renew(tokens: &SharedTokens, clock: &Clock, fresh: &str) -> (String, &'static str) {
        let fetch = async {
            let asked = clock.now();
            tokio::time::sleep(Duration::from_secs(1)).await;
            (asked, Ok(grant(fresh)))
        };
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        match tokens.renew(clock, fetch).await {
            Renewed::Taken(taken) => (text(&taken.bearer), "taken"),
            Renewed::Fetched(_, outcome) => (text(&outcome.unwrap().bearer), "fetched"),
        }
    }

    fn told(token: &str, how: &'static str) -> (String, &'static str) {
        (format!("Bearer {token}"), how)
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_second_takes_over_the_first_ones_token_with_what_is_left_of_it() {
        let (store, clock) = (memory(), Clock::start());
        let (one, other) = (process(&store, 1, Some(7)), process(&store, 2, Some(7)));
        let both = tokio::join!(renew(&one, &clock, "a"), renew(&other, &clock, "b"));
        assert_eq!(both, (told("a", "fetched"), told("a", "taken")));
        tokio::time::sleep(HOUR / 2).await;
        let third = process(&store, 3, Some(7));
        let Ok(Turn::Take(taken)) = third.turn(&clock).await else { panic!("there is a token") };
        assert_eq!(taken.life, HOUR);
        assert!(taken.left < HOUR / 2 && taken.left + Duration::from_secs(3) > HOUR / 2, "{:?}", taken.left);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_held_is_not_taken_back_from_the_store() {
        let (store, clock) = (memory(), Clock::start());
        let (one, other) = (process(&store, 1, Some(7)), process(&store, 2, Some(7)));
        assert_eq!(renew(&one, &clock, "a").await, told("a", "fetched"));
        assert_eq!(renew(&other, &clock, "b").await, told("a", "taken"));
        // The API rejects it in both.
        assert_eq!(renew(&other, &clock, "b").await, told("b", "fetched"));
        assert_eq!(renew(&one, &clock, "c").await, told("b", "taken"));
    }

    /// Logins of each life of a token. `before` happens before each.
    async fn logins(
        clock: &Clock,
        processes: &[SharedTokens],
        lives: usize,
        before: impl Fn(usize),
    ) -> Vec<usize> {
        let mut logins = Vec::new();
        for life in 0..lives {
            before(life);
            let mut fetched = 0;
            for process in processes {
                fetched += usize::from(renew(process, clock, "t").await.1 == "fetched");
            }
            logins.push(fetched);
            tokio::time::sleep(HOUR).await;
        }
        logins
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_forgot_its_fences_costs_no_login() {
        let (store, clock) = (memory(), Clock::start());
        let processes: Vec<_> = (1..=4).map(|holder| process(&store, holder, Some(7))).collect();
        let forgets = |life| {
            if [8, 9].contains(&life) {
                store.forget();
            }
        };
        assert_eq!(logins(&clock, &processes, 20, forgets).await, [1; 20]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_that_speaks_first_to_a_store_that_forgot_logs_in_for_all() {
        let (store, clock) = (memory(), Clock::start());
        let mut processes: Vec<_> = (1..=3).map(|holder| process(&store, holder, Some(7))).collect();
        assert_eq!(logins(&clock, &processes, 5, |_| ()).await, [1; 5]);
        store.forget();
        processes.insert(0, process(&store, 4, Some(7)));
        assert_eq!(logins(&clock, &processes, 4, |_| ()).await, [1; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_dies_in_a_refresh_delays_it_by_its_lock() {
        let (store, clock) = (memory(), Clock::start());
        let dead = process(&store, 1, Some(7));
        assert!(matches!(dead.turn(&clock).await, Ok(Turn::Fetch { fence: 1 })));
        let began = Instant::now();
        let other = process(&store, 2, Some(7));
        assert_eq!(renew(&other, &clock, "b").await, told("b", "fetched"));
        let (took, least) = (began.elapsed(), FETCH + SLACK + Duration::from_secs(1));
        assert!(took >= least && took < least + LONGEST_LOOK, "{took:?}");
        // What the dead one would still say is too late.
        assert!(dead.end(1, Duration::ZERO, Some(&grant("a"))).await.is_ok());
        assert_eq!(renew(&process(&store, 3, Some(7)), &clock, "c").await, told("b", "taken"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_key_one_fetches_after_the_other() {
        let (store, clock) = (memory(), Clock::start());
        let (one, other) = (process(&store, 1, None), process(&store, 2, None));
        let began = Instant::now();
        let both = tokio::join!(renew(&one, &clock, "a"), renew(&other, &clock, "b"));
        assert_eq!(both, (told("a", "fetched"), told("b", "fetched")));
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(store.get(&one.name).await.unwrap(), None, "no token is kept, sealed or not");
    }

    #[tokio::test(start_paused = true)]
    async fn the_store_never_sees_a_token() {
        let (store, clock) = (memory(), Clock::start());
        let one = process(&store, 1, Some(7));
        assert_eq!(renew(&one, &clock, "a-long-token").await, told("a-long-token", "fetched"));
        let kept = store.get(&one.name).await.unwrap().expect("it was put there");
        for word in ["a-long-token", "Bearer", "bearer"] {
            assert!(!kept.bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_another_key_sealed_is_left_alone() {
        let (store, clock) = (memory(), Clock::start());
        let (one, other) = (process(&store, 1, Some(7)), process(&store, 2, Some(8)));
        assert_eq!(renew(&one, &clock, "a").await, told("a", "fetched"));
        let began = Instant::now();
        assert_eq!(renew(&other, &clock, "b").await, told("b", "fetched"));
        assert_eq!(began.elapsed(), Duration::from_secs(1), "it waits for nobody");
        assert_eq!(renew(&process(&store, 3, Some(7)), &clock, "c").await, told("a", "taken"));
    }

    /// A store that nobody can reach.
    #[derive(Debug)]
    struct Gone;

    fn gone<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, StoreError>> {
        let away = StoreError::Away { store: "s".to_owned(), why: "gone".to_owned(), retry_after: None };
        Box::pin(std::future::ready(Err(away)))
    }

    impl Store for Gone {
        fn exchange<'a>(&'a self, _: BankKey, _: &'a Exchange) -> BoxFuture<'a, Result<Reply, StoreError>> {
            gone()
        }
        fn lock<'a>(
            &'a self,
            _: &'a Name,
            _: HolderId,
            _: Duration,
        ) -> BoxFuture<'a, Result<Lock, StoreError>> {
            gone()
        }
        fn put<'a>(
            &'a self,
            _: &'a Name,
            _: u64,
            _: &'a [u8],
            _: Duration,
        ) -> BoxFuture<'a, Result<bool, StoreError>> {
            gone()
        }
        fn get<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<Option<Kept>, StoreError>> {
            gone()
        }
        fn unlock<'a>(&'a self, _: &'a Name, _: u64) -> BoxFuture<'a, Result<(), StoreError>> {
            gone()
        }
        fn view(&self, _: BankKey) -> BoxFuture<'_, Result<Vec<LimitView>, StoreError>> {
            gone()
        }
        fn check(&self) -> BoxFuture<'_, Result<About, StoreError>> {
            gone()
        }
        fn patience(&self) -> Duration {
            Duration::from_millis(50)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_store_a_process_fetches_alone_a_second_later() {
        for key in [Some(7), None] {
            let clock = Clock::start();
            let tokens = SharedTokens { store: Arc::new(Gone), ..process(&memory(), 1, key) };
            let began = Instant::now();
            assert_eq!(renew(&tokens, &clock, "a").await, told("a", "fetched"));
            assert_eq!(began.elapsed(), Duration::from_secs(2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_in_vain_for_the_lock_give_up_at_times_of_their_own() {
        let (store, clock) = (memory(), Clock::start());
        let keeper = process(&store, 9, None);
        let keeps = async {
            loop {
                assert!(matches!(
                    keeper.store.lock(&keeper.name, keeper.who, keeper.life).await,
                    Ok(Lock::Yours { .. })
                ));
                tokio::time::sleep(keeper.life / 2).await;
            }
        };
        let waiters = [0x4000, 0x8000, 0xc000].map(|holder| process(&store, holder, None));
        let gives_up = async |waiter: &SharedTokens| {
            assert!(matches!(waiter.turn(&clock).await, Ok(Turn::Alone)));
            clock.now()
        };
        let all = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let [one, two, three] = &waiters;
            tokio::join!(gives_up(one), gives_up(two), gives_up(three))
        };
        let (one, two, three) = tokio::select! {
            () = keeps => unreachable!("it keeps it for ever"),
            ended = all => ended,
        };
        let life = keeper.life;
        assert!(one >= Mono::ZERO + life * 2 && three <= Mono::ZERO + life * 3 + LONGEST_LOOK);
        assert!(two - one >= life / 5 && three - two >= life / 5, "{one:?} {two:?} {three:?}");
    }
}
