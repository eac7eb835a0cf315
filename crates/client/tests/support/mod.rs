//! A wire without sockets: answers by a script, under tokio's paused time.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use parking_lot::Mutex;
use tidegate::layer::BoxFuture;
use tidegate::token::ClientCredentials;
use tidegate::transport::{SendError, SendOptions, Wire};
use tidegate::{Client, Profile, RequestBody, ResponseBody, Upstream, UpstreamConfig};
use tidegate_core::classify::Failure;
use tidegate_core::key::CredentialId;
use tokio::time::Instant;

/// What one attempt comes to, and after which time.
pub(crate) struct Act {
    after: Duration,
    end: End,
}

enum End {
    Answer(u16, Vec<(&'static str, String)>, Bytes),
    Fail(Failure),
}

pub(crate) fn answer(status: u16) -> Act {
    Act { after: Duration::from_millis(10), end: End::Answer(status, Vec::new(), Bytes::new()) }
}

pub(crate) fn fail(failure: Failure) -> Act {
    Act { after: Duration::from_millis(10), end: End::Fail(failure) }
}

impl Act {
    pub(crate) fn header(mut self, name: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        if let End::Answer(_, headers, _) = &mut self.end {
            headers.push((name, value.to_string()));
        }
        self
    }

    pub(crate) fn body(mut self, text: impl Into<Bytes>) -> Self {
        if let End::Answer(_, _, body) = &mut self.end {
            *body = text.into();
        }
        self
    }

    pub(crate) fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }
}

/// What the wire saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Duration,
    pub(crate) method: http::Method,
    pub(crate) target: String,
    pub(crate) key: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Bytes,
}

/// The wire: plays its script, then answers 200. Logins have a script of their own, then get a token each.
#[derive(Clone, Debug)]
pub(crate) struct Fake(Arc<Mutex<State>>);

struct State {
    began: Instant,
    script: VecDeque<Act>,
    logins: VecDeque<Act>,
    seen: Vec<Seen>,
    login_count: u64,
    /// Attempts that came to their end.
    ended: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

impl Fake {
    pub(crate) fn new(script: impl IntoIterator<Item = Act>) -> Self {
        Self(Arc::new(Mutex::new(State {
            began: Instant::now(),
            script: script.into_iter().collect(),
            logins: VecDeque::new(),
            seen: Vec::new(),
            login_count: 0,
            ended: 0,
        })))
    }

    pub(crate) fn logins(self, logins: impl IntoIterator<Item = Act>) -> Self {
        self.0.lock().logins = logins.into_iter().collect();
        self
    }

    /// Adds to the script.
    pub(crate) fn then_all(&self, acts: impl IntoIterator<Item = Act>) {
        self.0.lock().script.extend(acts);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.lock().seen.clone()
    }

    pub(crate) fn login_count(&self) -> u64 {
        self.0.lock().login_count
    }

    pub(crate) fn ended(&self) -> usize {
        self.0.lock().ended
    }

    fn next_login(state: &mut State) -> Act {
        state.login_count += 1;
        let token = format!(r#"{{"access_token":"t{}","expires_in":86400}}"#, state.login_count);
        state.logins.pop_front().unwrap_or_else(|| answer(200).body(token))
    }
}

impl Wire for Fake {
    fn send(
        &self,
        request: Request<RequestBody>,
        options: SendOptions,
    ) -> BoxFuture<Result<Response<ResponseBody>, SendError>> {
        let this = self.clone();
        Box::pin(async move {
            let login = request.uri().path() == "/oauth/token";
            let act = {
                let mut state = this.0.lock();
                if login {
                    Self::next_login(&mut state)
                } else {
                    let header = |name: &str| {
                        request.headers().get(name).map(|value| value.to_str().expect("text").to_owned())
                    };
                    let seen = Seen {
                        at: state.began.elapsed(),
                        method: request.method().clone(),
                        target: request.uri().path_and_query().expect("a target").to_string(),
                        key: header("x-genesys-request-id"),
                        authorization: header("authorization"),
                        body: request.body().bytes().cloned().unwrap_or_default(),
                    };
                    state.seen.push(seen);
                    state.script.pop_front().unwrap_or_else(|| answer(200))
                }
            };
            let in_time = tokio::time::timeout(options.timeout, tokio::time::sleep(act.after)).await.is_ok();
            if !login {
                this.0.lock().ended += 1;
            }
            match act.end {
                _ if !in_time => {
                    Err(SendError { failure: Failure::TimedOut { wrote: true }, source: "no answer".into() })
                }
                End::Fail(failure) => Err(SendError { failure, source: "scripted".into() }),
                End::Answer(status, headers, body) => {
                    let mut response = Response::builder().status(status);
                    for (name, value) in headers {
                        response = response.header(name, value);
                    }
                    Ok(response.body(ResponseBody::from(body)).expect("an answer"))
                }
            }
        })
    }

    fn check(&self, _: &Uri) -> BoxFuture<Result<(), SendError>> {
        Box::pin(async { Ok(()) })
    }
}

pub(crate) fn config(profile: &str) -> UpstreamConfig {
    let profile = Arc::new(Profile::builtin(profile).expect("built in"));
    let mut config = UpstreamConfig::new(profile, "https://api.test", "https://login.test");
    let credentials = ClientCredentials::new("id", &"secret".to_owned().into());
    config.credential = Some((CredentialId::new("tests"), credentials));
    // A script is for the calls of its test.
    config.fetch_limits = false;
    config
}

pub(crate) fn upstream(wire: &Fake, profile: &str) -> Arc<Upstream> {
    Upstream::with_wire(config(profile), Arc::new(wire.clone())).expect("valid")
}

pub(crate) fn client(wire: &Fake, profile: &str) -> Client {
    Client::over(upstream(wire, profile))
}
