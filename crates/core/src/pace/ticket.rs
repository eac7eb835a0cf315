//! Permission for one attempt, from every gate that applies.
//!
//! A ticket is taken from all gates or from none. It goes through three stages, and what its loss means depends on the
//! stage: *granted* (nothing was sent: everything is given back), *sent* (the server may have counted it: it stays
//! spent, only the place in flight is free again), *answered* (settled by the answer).

use std::sync::Arc;

use crate::pace::secs::Interval;
use crate::pace::slab::small;
use crate::share::Permit;
use crate::time::Mono;

/// Names a ticket. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TicketId {
    place: u32,
    sequence: u64,
}

/// What one gate remembers of an attempt in flight. Times in seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempt {
    /// When it left; until then, when its permit was taken.
    pub(super) sent: f64,
    /// The certified level, if it was taken with nothing else in flight.
    pub(super) level_alone: Option<f64>,
    /// The promised reset when it was taken.
    pub(super) promised: Option<Interval>,
    /// When a scout for that reset was to leave.
    pub(super) send_at: Option<f64>,
    /// Nothing covered it.
    pub(super) scout: bool,
    /// What it took where the limit is shared.
    pub(super) permit: Permit,
}

/// One gate's share of a ticket.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) gate: usize,
    pub(super) attempt: Attempt,
}

/// A granted permission. Whose it is stands in its lane, which outlives it.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) lane: usize,
    pub(super) sent: Option<Mono>,
    pub(super) granted: Mono,
    pub(super) holds: Vec<Hold>,
    pub(super) explained_by: Arc<str>,
}

/// The tickets that are granted or sent. Places are used again, so that a ticket costs no allocation.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    places: Vec<(u64, Option<Ticket>)>,
    free: Vec<u32>,
    issued: u64,
    settled: u64,
}

impl Tickets {
    pub(super) fn insert(&mut self, ticket: Ticket) -> TicketId {
        self.issued += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            small(self.places.len() - 1)
        });
        self.places[place as usize] = (self.issued, Some(ticket));
        TicketId { place, sequence: self.issued }
    }

    fn at(&self, id: TicketId) -> Option<&(u64, Option<Ticket>)> {
        self.places.get(id.place as usize).filter(|(sequence, _)| *sequence == id.sequence)
    }

    pub(super) fn get(&self, id: TicketId) -> Option<&Ticket> {
        self.at(id)?.1.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: TicketId) -> Option<&mut Ticket> {
        self.at(id)?;
        self.places[id.place as usize].1.as_mut()
    }

    pub(super) fn remove(&mut self, id: TicketId) -> Option<Ticket> {
        self.at(id)?;
        let ticket = self.places[id.place as usize].1.take()?;
        self.free.push(id.place);
        self.settled += 1;
        Some(ticket)
    }

    /// Changes with every ticket that comes or goes.
    pub(super) fn revision(&self) -> u64 {
        self.issued + self.settled
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Ticket> {
        self.places.iter_mut().filter_map(|(_, ticket)| ticket.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(lane: usize) -> Ticket {
        Ticket { lane, sent: None, granted: Mono::ZERO, holds: Vec::new(), explained_by: Arc::from("") }
    }

    #[test]
    fn the_name_of_a_settled_ticket_names_no_later_one() {
        let mut tickets = Tickets::default();
        let first = tickets.insert(ticket(1));
        assert!(tickets.remove(first).is_some());
        let second = tickets.insert(ticket(2));
        assert!(tickets.get(first).is_none() && tickets.remove(first).is_none());
        assert_eq!(tickets.get_mut(second).map(|ticket| ticket.lane), Some(2));
        assert_eq!((tickets.len(), tickets.places.len()), (1, 1), "the place is used again");
    }
}
