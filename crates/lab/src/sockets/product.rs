//! The product on sockets: the client as programs use it, one per instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use tidegate::observe::{Observer, Observers};
use tidegate::token::{ClientCredentials, TokenManager};
use tidegate::transport::{Transport, Wire};
use tidegate::{Client, Credential, ErrorKind, Upstream, UpstreamConfig};
use tidegate_core::event::Event;
use tidegate_core::key::CredentialId;
use tidegate_core::time::Mono;
use tidegate_sim::Sim;
use tokio::time::sleep;

use super::book::Book;
use super::far::Far;
use super::load::Call;
use crate::call::End;
use crate::error::LabError;
use crate::network::Network;
use crate::plan::{Plan, Stream};
use crate::strategy::told;

/// A refused caller that is told to come back at once takes a breath all the same.
const BREATH: Duration = Duration::from_millis(1);
/// Answers of the simulator are far shorter.
const MOST_BODY: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) upstream: Arc<Upstream>,
    pub(super) wire: Arc<dyn Wire>,
    /// The token of each load; loads of one client share one.
    pub(super) managers: Vec<Arc<TokenManager>>,
    client: Client,
    book: Arc<Book>,
    warned: Arc<Warned>,
}

/// Counts what virtual time counts of the core's events.
#[derive(Debug, Default)]
struct Warned(AtomicU64);

impl Observer for Warned {
    fn event(&self, event: &Event) {
        if matches!(event, Event::HintMismatch { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Product {
    pub(super) fn new(
        plan: &Plan<'_>,
        instance: usize,
        sim: &Sim,
        book: &Arc<Book>,
    ) -> Result<Self, LabError> {
        let mut config = UpstreamConfig::new(Arc::clone(&plan.profile), sim.url(), sim.url());
        config.policies = plan.fleet().class.policies();
        if plan.fleet().declared {
            config.limits = told::declared(&plan.server);
        }
        let warned = Arc::new(Warned::default());
        config.observers = Observers::new([Arc::clone(&warned) as Arc<dyn Observer>]);
        let near = Transport::new(tidegate::clock::Clock::start(), plan.profile.timeouts.connect);
        let network = Network::new(plan.fleet().rtt, plan.rng(Stream::Network, instance as u64));
        let wire = Far::new(Arc::new(near), network, Arc::clone(book));
        let upstream =
            Upstream::with_wire(config, Arc::clone(&wire) as Arc<dyn Wire>).map_err(|problems| {
                LabError::Sockets(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            })?;
        let managers = managers(plan, instance, &upstream);
        let client = Client::over(Arc::clone(&upstream));
        Ok(Self { upstream, wire, managers, client, book: Arc::clone(book), warned })
    }

    /// Warnings so far that Retry-After and reset disagree.
    pub(super) fn hint_mismatches(&self) -> u64 {
        self.warned.0.load(Ordering::Relaxed)
    }

    pub(super) async fn log_in(&self) {
        for manager in &self.managers {
            // What went wrong is told to the first call that needs the token.
            drop(manager.lend().await);
        }
    }

    /// Makes a call. Refused before anything was sent, its caller comes back when it was told to, unless that is too late for it.
    pub(super) async fn call(&self, call: Call) -> End {
        loop {
            let mut request = self
                .client
                .request(call.route.method.clone(), &call.path)
                .class(call.class)
                .caller(&format!("load {}", call.load))
                .credential(Credential::Managed(Arc::clone(&self.managers[call.load])))
                .extension(call.tag.clone());
            let now = Mono::ZERO + self.book.now();
            if let Some(deadline) = call.deadline {
                request = request.deadline(deadline - now);
            }
            if call.route.is_write() {
                request = request.json(call.body.as_bytes().to_vec());
            }
            let error = match request.send().await {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let read = answer.into_body().bytes(MOST_BODY).await;
                    return if read.is_ok() { end_of(status) } else { End::GaveUp };
                }
                Err(error) => error,
            };
            let wait = error.retry_after().unwrap_or_default().max(BREATH);
            let again = Mono::ZERO + self.book.now() + wait;
            match error.kind() {
                ErrorKind::OutcomeUnknown => return End::Unknown,
                ErrorKind::Refused if call.deadline.is_none_or(|deadline| again < deadline) => {
                    sleep(wait).await;
                }
                _ => return End::GaveUp,
            }
        }
    }
}

/// One manager per client of the instance, in the order of its loads.
fn managers(plan: &Plan<'_>, instance: usize, upstream: &Upstream) -> Vec<Arc<TokenManager>> {
    let mut managers: Vec<Arc<TokenManager>> = Vec::new();
    for load in 0..plan.fleet().load.len() {
        let id = CredentialId::new(plan.credential(instance, load));
        let known = managers.iter().find(|manager| *manager.id() == id).map(Arc::clone);
        managers.push(known.unwrap_or_else(|| {
            let clients = &plan.server.oauth.clients;
            let client = clients.iter().find(|client| client.id == id.as_str()).cloned().unwrap_or_default();
            let credentials = ClientCredentials::new(&client.id, &SecretString::from(client.secret));
            upstream.manager(id, credentials)
        }));
    }
    managers
}

/// How a call ended whose last answer had this status.
fn end_of(status: u16) -> End {
    match status {
        200..=399 => End::Good,
        401 | 408 | 429 | 500.. => End::GaveUp,
        _ => End::Rejected,
    }
}
