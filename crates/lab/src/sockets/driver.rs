//! A strategy of virtual time on sockets: one task holds it, tells it what happens, and carries out its orders.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode, Uri};
use tidegate::RequestBody;
use tidegate::transport::SendOptions;
use tidegate_core::pace::CallerId;
use tidegate_core::time::Mono;
use tidegate_sim::model::world::REQUEST_ID;
use tidegate_sim::wire::message::ApiResponse;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, sleep_until};

use super::book::Book;
use super::load::Call;
use super::product::Product;
use crate::call::{CallId, CallInfo, End};
use crate::plan::Plan;
use crate::strategy::{Briefing, Order, Orders, Strategy, StrategyName};

/// The longest wait for an answer, as in the client's own profiles.
const TIMEOUT: Duration = Duration::from_mins(1);
/// After a refused login without a hint.
const PAUSE: Duration = Duration::from_secs(1);
/// Answers of the simulator are far shorter.
const MOST_BODY: usize = 1 << 20;

/// What the driving task is told.
enum Said {
    /// A call begins; its end is awaited there.
    Begin(Call, oneshot::Sender<End>),
    /// An attempt has really left.
    Left(CallId),
    /// It was answered.
    Answered(CallId, Option<ApiResponse>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Driver {
    said: mpsc::UnboundedSender<Said>,
    post: Arc<Post>,
    task: AbortHandle,
}

impl Driver {
    /// Starts to drive. `product` lends its tokens and its wire, and is not called.
    pub(super) fn start(
        plan: &Plan<'_>,
        name: StrategyName,
        instance: usize,
        product: Product,
        book: Arc<Book>,
    ) -> Self {
        let (said, told) = mpsc::unbounded_channel();
        let post = Arc::new(Post { product });
        let wheel = Wheel {
            strategy: name.build(&Briefing { plan, instance, store: None }),
            calls: Vec::new(),
            free: Vec::new(),
            orders: Orders::default(),
            attempts: JoinSet::new(),
            said: said.clone(),
            post: Arc::clone(&post),
            book,
        };
        let task = tokio::spawn(wheel.turn(told)).abort_handle();
        Self { said, post, task }
    }

    pub(super) async fn log_in(&self) {
        self.post.product.log_in().await;
    }

    pub(super) async fn call(&self, call: Call) -> End {
        let (end, ended) = oneshot::channel();
        if self.said.send(Said::Begin(call, end)).is_err() {
            return End::GaveUp;
        }
        ended.await.unwrap_or(End::GaveUp)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A call that has not ended.
struct Running {
    call: Arc<Call>,
    info: CallInfo,
    end: oneshot::Sender<End>,
}

/// The strategy and its calls.
struct Wheel {
    strategy: Box<dyn Strategy>,
    calls: Vec<Option<Running>>,
    free: Vec<CallId>,
    orders: Orders,
    attempts: JoinSet<()>,
    said: mpsc::UnboundedSender<Said>,
    post: Arc<Post>,
    book: Arc<Book>,
}

impl Wheel {
    async fn turn(mut self, mut told: mpsc::UnboundedReceiver<Said>) {
        loop {
            let now = self.now();
            let wake = self.strategy.next_wake(now);
            let at = self.book.instant(Duration::from_nanos(wake.unwrap_or_default().as_nanos()));
            tokio::select! {
                said = told.recv() => match said {
                    Some(said) => self.hear(said),
                    None => return,
                },
                () = sleep_until(at), if wake.is_some() => {
                    let now = self.now();
                    self.strategy.wake(now, &mut self.orders);
                }
            }
            self.carry_out();
            while self.attempts.try_join_next().is_some() {}
        }
    }

    fn now(&self) -> Mono {
        Mono::ZERO + self.book.now()
    }

    fn hear(&mut self, said: Said) {
        let now = self.now();
        match said {
            Said::Begin(call, end) => {
                let id = self.free.pop().unwrap_or_else(|| {
                    self.calls.push(None);
                    CallId(u32::try_from(self.calls.len() - 1).unwrap_or(u32::MAX))
                });
                let info = CallInfo {
                    id,
                    route: Arc::clone(&call.route),
                    path: call.path.as_str().into(),
                    credential: self.post.product.managers[call.load].id().clone(),
                    class: call.class,
                    caller: CallerId::named(call.load),
                    deadline: call.deadline,
                };
                self.strategy.begin(now, &info, &mut self.orders);
                self.calls[id.0 as usize] = Some(Running { call: Arc::new(call), info, end });
            }
            Said::Left(id) => self.strategy.left(now, id, &mut self.orders),
            Said::Answered(id, answer) => {
                if let Some(running) = &self.calls[id.0 as usize] {
                    self.strategy.answered(now, &running.info, answer.as_ref(), &mut self.orders);
                }
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(order) = self.orders.pop() {
            match order {
                Order::Send(id) => {
                    let Some(running) = &self.calls[id.0 as usize] else { continue };
                    let (call, post, said) =
                        (Arc::clone(&running.call), Arc::clone(&self.post), self.said.clone());
                    self.attempts.spawn(async move { post.attempt(id, &call, &said).await });
                }
                Order::End(id, end) => {
                    if let Some(running) = self.calls[id.0 as usize].take() {
                        self.free.push(id);
                        // If nobody waits for it any more, the run has ended.
                        running.end.send(end).ok();
                    }
                }
            }
        }
    }
}

/// Sends attempts.
#[derive(Debug)]
struct Post {
    product: Product,
}

impl Post {
    /// Sends one attempt, with a token, and tells how it ended.
    async fn attempt(&self, id: CallId, call: &Call, said: &mpsc::UnboundedSender<Said>) {
        let manager = &self.product.managers[call.load];
        let lent = loop {
            match manager.lend().await {
                Ok(lent) => break lent,
                Err(error) => sleep(error.retry_after.unwrap_or(PAUSE)).await,
            }
        };
        said.send(Said::Left(id)).ok();
        let answer = match self.request(call, lent.value) {
            Some(request) => self.exchange(request).await,
            None => None,
        };
        if answer.as_ref().is_some_and(|answer| answer.status == StatusCode::UNAUTHORIZED.as_u16()) {
            manager.rejected(lent.generation);
        }
        said.send(Said::Answered(id, answer)).ok();
    }

    /// `None` if the scenario's path is no URI, which its check has excluded.
    fn request(&self, call: &Call, authorization: HeaderValue) -> Option<Request<RequestBody>> {
        let uri: Uri = format!("{}{}", self.product.upstream.api_base(), call.path).parse().ok()?;
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = call.route.method.clone();
        *request.uri_mut() = uri;
        request.headers_mut().insert(AUTHORIZATION, authorization);
        request.extensions_mut().insert(call.tag.clone());
        if call.route.is_write() {
            let key = format!("00000000-0000-4000-9000-{:012x}", call.tag.serial);
            request.headers_mut().insert(REQUEST_ID, key.parse().ok()?);
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = RequestBody::from(call.body.as_bytes().to_vec());
        }
        Some(request)
    }

    /// `None` if there was no answer.
    async fn exchange(&self, request: Request<RequestBody>) -> Option<ApiResponse> {
        let options = SendOptions { timeout: TIMEOUT, careful: false };
        let (head, body) = self.product.wire.send(request, options).await.ok()?.into_parts();
        let body = body.bytes(MOST_BODY).await.ok()?.to_vec();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Some(ApiResponse { status: head.status.as_u16(), headers, body })
    }
}
