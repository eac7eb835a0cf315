//! One request, within a time.
//!
//! A request that is no longer waited for goes on by itself: what it finds out, be it only a connection or credentials, is
//! there for the next one, and its late answer still tells the time. It ends with the library's own time-out.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{
    Builder, ConfigBag, Intercept, RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_dynamodb::error::{BoxError, ProvideErrorMetadata, SdkError};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::breaker::Breaker;
use crate::clock::Clock;
use crate::config::DynamoConfig;
use crate::fault::{Fault, human};

/// Longest that a request goes on, with credentials and a connection.
const LONGEST: Duration = Duration::from_secs(5);
/// Longest that a connection takes to be made.
const CONNECT: Duration = Duration::from_secs(1);
/// This machine's clock may differ from DynamoDB's by that before it is told: less changes nothing.
const WRONG: Duration = Duration::from_mins(1);

/// Until when an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    pub(crate) at: Instant,
    patience: Duration,
}

impl Until {
    /// For so long from now on.
    pub(crate) fn after(patience: Duration) -> Self {
        Self { at: Instant::now() + patience, patience }
    }

    /// It has passed.
    pub(crate) fn late(self) -> Fault {
        Fault::late(self.patience)
    }
}

/// What a request left: an answer, DynamoDB's refusal, or nothing.
pub(crate) enum Sent<T, E> {
    Answered(T),
    Refused(Box<SdkError<E, HttpResponse>>),
    Late,
}

/// The way to DynamoDB. The client is made with the first request, because finding its region and credentials takes time.
#[derive(Debug)]
pub(crate) struct Wire {
    config: DynamoConfig,
    aws: Option<SdkConfig>,
    client: Arc<OnceCell<Client>>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) breaker: Breaker,
    /// By how much this machine's clock is behind DynamoDB's, in seconds, by its latest answer.
    wall: Arc<Mutex<Option<i64>>>,
    time: fn() -> SystemTime,
}

impl Wire {
    pub(crate) fn new(config: DynamoConfig, aws: Option<SdkConfig>) -> Self {
        Self {
            aws,
            clock: Arc::new(Clock::new(config.skew)),
            config,
            client: Arc::default(),
            breaker: Breaker::default(),
            wall: Arc::default(),
            time: SystemTime::now,
        }
    }

    /// The same with another clock.
    #[cfg(test)]
    pub(crate) fn with_clock(self, clock: Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// The same on a machine whose wall clock shows something else.
    #[cfg(test)]
    pub(crate) fn with_wall(self, time: fn() -> SystemTime) -> Self {
        Self { time, ..self }
    }

    /// What to say of this machine's clock, where it is wrong.
    pub(crate) fn wrong_clock(&self) -> Option<String> {
        wrong((*self.wall.lock())?)
    }

    /// The interceptor that hears what an answer says of the time.
    pub(crate) fn ear(&self) -> impl Intercept + 'static {
        let (clock, wall) = (Arc::clone(&self.clock), Arc::clone(&self.wall));
        Ear { sent: Instant::now(), clock, wall, time: self.time }
    }

    /// Sends one request. Refuses at once while the breaker is open.
    pub(crate) async fn send<T, E, F>(
        &self,
        until: Until,
        request: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Result<T, (Fault, Option<Duration>)>
    where
        T: Send + 'static,
        E: ProvideErrorMetadata + Error + Send + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send + 'static,
    {
        match self.try_send(until, request).await? {
            Sent::Answered(answer) => Ok(answer),
            Sent::Refused(error) => Err((Fault::of(&error), None)),
            Sent::Late => Err((until.late(), None)),
        }
    }

    /// As [`Wire::send`], for who looks at a refusal.
    pub(crate) async fn try_send<T, E, F>(
        &self,
        until: Until,
        request: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Result<Sent<T, E>, (Fault, Option<Duration>)>
    where
        T: Send + 'static,
        E: ProvideErrorMetadata + Error + Send + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send + 'static,
    {
        let now = Instant::now();
        self.breaker.may(now).map_err(|(fault, pause)| (fault, Some(pause)))?;
        let (config, aws, cell) = (self.config.clone(), self.aws.clone(), Arc::clone(&self.client));
        let under_way = tokio::spawn(async move {
            let client = cell.get_or_init(|| connect(config, aws)).await.clone();
            request(client).await
        });
        let answer = tokio::time::timeout_at(until.at, under_way).await;
        let now = Instant::now();
        Ok(match answer {
            Ok(Ok(Ok(answer))) => {
                self.breaker.answered();
                Sent::Answered(answer)
            }
            Ok(Ok(Err(error))) => {
                match &Fault::of(&error) {
                    fault @ Fault::Away { broken: true, .. } => self.breaker.failed(now, fault, true),
                    _ => self.breaker.answered(),
                }
                Sent::Refused(Box::new(error))
            }
            Ok(Err(ended)) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Sent::Late,
            },
            Err(_) => {
                self.breaker.failed(now, &until.late(), false);
                Sent::Late
            }
        })
    }
}

async fn connect(config: DynamoConfig, aws: Option<SdkConfig>) -> Client {
    let base = if let Some(aws) = aws {
        aws
    } else {
        let loader = aws_config::defaults(BehaviorVersion::latest());
        match config.region.clone() {
            Some(region) => loader.region(Region::new(region)).load().await,
            None => loader.load().await,
        }
    };
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_timeout(LONGEST).build();
    let mut builder = Builder::from(&base)
        // Who asks knows better whether and when to ask again.
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts);
    if let Some(region) = config.region {
        builder = builder.region(Region::new(region));
    }
    if let Some(endpoint) = config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    Client::from_conf(builder.build())
}

/// What to say of a clock that is behind DynamoDB's by so many seconds, where that is too much.
fn wrong(behind: i64) -> Option<String> {
    let by = Duration::from_secs(behind.unsigned_abs());
    let way = if behind > 0 { "behind" } else { "ahead of" };
    (by > WRONG).then(|| {
        format!(
            "this machine's clock is {} {way} DynamoDB's (set it; the quota does not depend on it)",
            human(by)
        )
    })
}

/// Hears what an answer says of the time.
#[derive(Debug)]
struct Ear {
    sent: Instant,
    clock: Arc<Clock>,
    wall: Arc<Mutex<Option<i64>>>,
    time: fn() -> SystemTime,
}

impl Intercept for Ear {
    fn name(&self) -> &'static str {
        "Ear"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(date) = context.response().headers().get("date") else { return Ok(()) };
        let Ok(date) = httpdate::parse_http_date(date) else { return Ok(()) };
        let Ok(since) = date.duration_since(UNIX_EPOCH) else { return Ok(()) };
        self.clock.hear(since.as_secs() * 1_000, self.sent, Instant::now());
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        let behind = seconds(date) - seconds((self.time)());
        let before = self.wall.lock().replace(behind);
        if let Some(told) = wrong(behind).filter(|_| before.is_none_or(|before| wrong(before).is_none())) {
            tracing::warn!(target: "tidegate", "{told}");
        }
        Ok(())
    }
}
