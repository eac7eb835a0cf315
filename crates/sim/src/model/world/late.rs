//! Calls that are executed after their connection has closed: a front that gives up on a slow server, and a server that does
//! not learn of it.

use std::time::Duration;

use super::serve::Call;
use super::{Reply, World};
use crate::model::fault::Fault;
use crate::model::route::Caller;
use crate::model::uuid_text;
use crate::wire::message::ApiRequest;

/// A call that is still being worked on.
#[derive(Debug)]
pub(super) struct Parked {
    due: Duration,
    id: u64,
    request: ApiRequest,
    caller: Caller,
}

impl World {
    /// Closes the connection of a call that is executed later. A read has nothing to be executed for.
    pub(super) fn park(&mut self, call: &Call<'_>, caller: &Caller) -> Reply {
        self.ledger.fault(Fault::Late.name(), call.write().as_ref());
        if call.request.is_write() {
            let due = call.now + self.faults.draw_late(&mut self.late);
            let (request, caller) = (call.request.clone(), caller.clone());
            self.parked.push(Parked { due, id: call.id, request, caller });
        }
        Reply::Close
    }

    /// Executes what was due until `now`, in order. Nobody is there to get the answers.
    pub(super) fn execute_late(&mut self, now: Duration) {
        while let Some(next) = self.parked.iter().map(|parked| parked.due).min().filter(|due| *due <= now) {
            let Some(index) = self.parked.iter().position(|parked| parked.due == next) else { return };
            let Parked { due, id, request, caller } = self.parked.remove(index);
            let context = uuid_text(&mut self.ids);
            let call = Call { now: due, id, request: &request, context, described: Vec::new() };
            let _nobody_reads_it: Reply = self.answer(&call, &caller);
        }
    }
}
