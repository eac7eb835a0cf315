//! Logins on the way, beside the calls.

use tidegate_sim::model::world::Reply;

use super::{Engine, Event};
use crate::wallet::Login;

/// Where a login is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// It arrives at the token endpoint.
    Arrive,
    /// It is decided.
    Decide,
    /// The token endpoint is done with it.
    Deliver,
    /// The client has the answer.
    Answer,
}

impl Engine<'_, '_> {
    /// Tokens that are there before the run begins, as in a process that has been up for a while. A refused login is made
    /// again when a call needs it.
    pub(super) fn login_before_the_start(&mut self, instance: usize, purse: usize) {
        let request = self.instances[instance].purses[purse].request();
        let arrival = self.world.arrive(&request);
        self.catch_up();
        let decision = self.world.decide(self.now, arrival.id, &request);
        self.world.depart(arrival.id);
        if let Reply::Answer(response) = decision.reply {
            self.instances[instance].purses[purse].receive(self.now, Some(&response));
        }
    }

    /// One step of a login.
    pub(super) fn login(&mut self, instance: usize, purse: usize, step: Step) {
        let now = self.now;
        self.catch_up();
        let state = &mut self.instances[instance].purses[purse];
        let request = state.request();
        let login = state.login.get_or_insert_with(Login::default);
        let (next, after) = match step {
            Step::Arrive => {
                let arrival = self.world.arrive(&request);
                login.world_id = arrival.id;
                (Step::Decide, arrival.wait)
            }
            Step::Decide => {
                let decision = self.world.decide(now, login.world_id, &request);
                login.response = match decision.reply {
                    Reply::Answer(response) => Some(response),
                    Reply::Close => None,
                };
                (Step::Deliver, decision.wait)
            }
            Step::Deliver => {
                self.world.depart(login.world_id);
                (Step::Answer, self.network.one_way())
            }
            Step::Answer => {
                let response = login.response.take();
                match state.receive(now, response.as_ref()) {
                    None => return self.logged_in(instance, purse),
                    Some(pause) => (Step::Arrive, pause + self.network.one_way()),
                }
            }
        };
        self.queue.push(now + after, Event::Login { instance, purse, step: next });
    }

    fn logged_in(&mut self, instance: usize, purse: usize) {
        let state = &mut self.instances[instance].purses[purse];
        state.login = None;
        for call in std::mem::take(&mut state.waiting) {
            self.leave(call);
        }
    }
}
