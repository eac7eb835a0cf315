//! Somebody who looks over a running server's shoulder.
//!
//! # Why
//!
//! The books add up. Whoever wants to know what was decided when, and what strangers took in between, sees it here as it happens,
//! without another copy of the server.

use std::fmt;
use std::time::Duration;

use crate::model::route::Caller;
use crate::wire::message::ApiRequest;

/// Told of everything that draws from the limits, in order, with times since the start of the simulation. All methods are called
/// under the server's one lock and must return at once.
pub trait Witness: fmt::Debug + Send + Sync {
    /// A stranger called.
    fn stranger(&self, at: Duration, caller: &Caller, admitted: bool);

    /// A call was decided. `status` is what it will be answered; `None`: its connection will be closed. `id` names it until it
    /// departs.
    fn decided(&self, at: Duration, id: u64, request: &ApiRequest, status: Option<u16>);

    /// A call has been answered, or its client has gone.
    fn departed(&self, at: Duration, id: u64);
}
