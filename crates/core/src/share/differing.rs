//! How what is declared here differs from what other processes declare of the same limit.
//!
//! One number holds for all, so a configuration that says another one changes what everybody else may send, or is not gone by.
//! Both are for people to know, on both sides: with one mistyped number a process slows down a whole fleet.

use std::fmt;

use crate::share::wire::{Kind, LimitReply};

/// Two configurations that differ about one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differing {
    /// What is declared here.
    pub here: Kind,
    /// What another configuration declares.
    pub there: Kind,
    /// What is declared here holds for all; otherwise the other one does.
    pub rules: bool,
    /// What holds is an operator's number that nothing replaces.
    pub pinned: bool,
}

impl Differing {
    /// What an answer of the store shows to whom `here` is declared. What headers told goes before what is declared, and that is
    /// no difference between configurations.
    pub fn of(here: Kind, reply: &LimitReply) -> Option<Self> {
        let (fleet, pinned) = (reply.terms.kind, reply.terms.pinned);
        let told = matches!(fleet, Kind::Unknown | Kind::Rate { told: true, .. });
        let (there, rules) = if fleet == here { (reply.other?, true) } else { (fleet, false) };
        (!told).then_some(Self { here, there, rules, pinned })
    }
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { here, there, .. } = self;
        match (self.rules, self.pinned) {
            (true, true) => {
                write!(f, "{here} as pinned here holds for all, another process's configuration says {there}")
            }
            (true, false) => write!(
                f,
                "{here} as declared here holds for all, because it is less than the {there} of another process's configuration"
            ),
            (false, true) => {
                write!(f, "{there} holds for all, here it is {here}: another process's configuration pins it")
            }
            (false, false) => {
                write!(
                    f,
                    "{there} holds for all, here it is {here}: another process's configuration declares less"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::wire::{Refill, Terms};

    fn rate(quota: u32, told: bool) -> Kind {
        Kind::Rate { quota, window: 5_000, told }
    }

    fn seen(here: Kind, fleet: Kind, pinned: bool, other: Option<Kind>) -> Option<String> {
        let terms = Terms { kind: fleet, rule: Refill::Log, proven: false, pinned, assumed: false };
        let reply = LimitReply {
            generation: 1,
            epoch: 1,
            lease: 500,
            pause: 0,
            recall: false,
            scarce: false,
            terms,
            other,
            available: 0,
            dry: 0,
            ends: None,
            share: 1_000,
            foreign: 0,
        };
        Differing::of(here, &reply).map(|differing| differing.to_string())
    }

    #[test]
    fn both_sides_are_told_both_numbers_and_whose_holds() {
        let (less, more) = (rate(25, false), rate(250, false));
        for (told, expected) in [
            (
                seen(more, less, false, Some(more)),
                "25 per 5 s holds for all, here it is 250 per 5 s: another process's configuration declares less",
            ),
            (
                seen(more, less, true, None),
                "25 per 5 s holds for all, here it is 250 per 5 s: another process's configuration pins it",
            ),
            (
                seen(less, less, false, Some(more)),
                "25 per 5 s as declared here holds for all, because it is less than the 250 per 5 s of another process's configuration",
            ),
            (
                seen(more, more, true, Some(less)),
                "250 per 5 s as pinned here holds for all, another process's configuration says 25 per 5 s",
            ),
        ] {
            assert_eq!(told.as_deref(), Some(expected));
        }
    }

    #[test]
    fn who_agrees_and_who_is_told_by_headers_hears_nothing() {
        let ours = rate(25, false);
        assert_eq!(seen(ours, ours, false, None), None);
        assert_eq!(seen(ours, rate(300, true), false, Some(rate(250, false))), None);
        assert_eq!(seen(ours, Kind::Unknown, false, None), None);
    }
}
