//! Histories: played to a store and to the model side by side, and shortened where the two differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use fastrand::Rng;
use tidegate_core::share::{BankKey, Exchange, Ledger, LimitView, Reply, Unanswered};

use super::holder::{Holder, Says};
use super::{Depth, Subject};
use crate::error::StoreError;
use crate::store::Store;

const BANKS: [BankKey; 2] = [BankKey([0xaa; 12]), BankKey([0xbb; 12])];
const HOLDERS: u64 = 4;

/// Attempts to leave steps out.
const SHORTENINGS: u32 = 200;

/// One step. Everything in it comes from its seed, so that a step means the same where others were left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    seed: u64,
    wait: Duration,
    bank: usize,
    holder: u64,
    says: Says,
    /// The holder hears the answer.
    heard: bool,
}

/// The steps of one run.
pub(super) fn history(depth: Depth, run: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(depth.seed.wrapping_mul(1_000_003).wrapping_add(run));
    let longest = u64::try_from(depth.wait.as_millis()).unwrap_or(u64::MAX);
    let step = |_| Step {
        seed: rng.u64(..),
        // Most follow soon, some after a lease, few after everything has ended.
        wait: Duration::from_millis(match rng.u8(0..32) {
            0 => longest,
            1..4 => longest / 8,
            4..20 => rng.u64(0..=longest / 64),
            _ => 0,
        }),
        bank: usize::from(rng.u8(0..4) == 0),
        holder: rng.u64(0..HOLDERS),
        says: match rng.u8(0..32) {
            0 => Says::Old,
            1..3 => Says::Again,
            3 => Says::OtherVersion,
            _ => Says::New,
        },
        heard: rng.u8(0..8) > 0,
    };
    (0..depth.steps).map(step).collect()
}

/// The model of one bank, and who speaks there.
struct Model {
    ledger: Option<Ledger>,
    holders: BTreeMap<u64, Holder>,
}

/// Plays a history; tells the first difference.
pub(super) async fn play(subject: &impl Subject, history: &[Step]) -> Option<String> {
    subject.empty().await;
    let mut models = BANKS.map(|_| Model { ledger: None, holders: BTreeMap::new() });
    let mut told = String::new();
    for (place, step) in history.iter().enumerate() {
        subject.pass(step.wait).await;
        let model = &mut models[step.bank];
        let mut rng = Rng::with_seed(step.seed);
        let holder = model.holders.entry(step.holder).or_insert_with(|| Holder::new(step.holder + 1));
        // A real clock may have moved on by the time that the exchange is answered; the model hears of it then.
        let said = holder.say(subject.now().await, step.says, &mut rng);
        let answer = subject.store().exchange(BANKS[step.bank], &said).await;
        let now = subject.now().await;
        let answer = unanswered(answer);
        if model.ledger.as_ref().is_some_and(|ledger| ledger.expires() <= now) {
            model.ledger = None;
        }
        let expected = model.ledger.get_or_insert_with(|| Ledger::new(now, said.salt)).exchange(now, &said);
        if answer != expected {
            _ = writeln!(
                told,
                "step {place}, at {now}, {said:#?}\nthe store: {answer:#?}\nthe model: {expected:#?}"
            );
            return Some(told);
        }
        let shown = subject.store().view(BANKS[step.bank]).await.expect("the store is there");
        let known = model.ledger.as_ref().map(|ledger| ledger.view(now)).unwrap_or_default();
        if lasting(&shown) != lasting(&known) {
            _ = writeln!(
                told,
                "step {place}, at {now}, {said:#?}\nthe store shows: {shown:#?}\nthe model: {known:#?}"
            );
            return Some(told);
        }
        if let (Ok(reply), true) = (&expected, step.heard) {
            holder.hear(now, &said, reply);
        }
        trace(&mut told, place, step, &said, &expected);
    }
    None
}

/// What of a view does not depend on when it was read.
fn lasting(view: &[LimitView]) -> BTreeMap<&str, (Option<u32>, u32, u64, u64)> {
    view.iter().map(|limit| (&*limit.name, (limit.quota, limit.out, limit.epoch, limit.generation))).collect()
}

fn unanswered(answer: Result<Reply, StoreError>) -> Result<Reply, Unanswered> {
    answer.map_err(|error| match error {
        StoreError::Unanswered(why) => why,
        error => panic!("the store could not be asked: {error}"),
    })
}

/// One line of what led to a difference.
fn trace(told: &mut String, place: usize, step: &Step, said: &Exchange, answer: &Result<Reply, Unanswered>) {
    let got = match answer {
        Ok(reply) => format!("{:?}", reply.grants),
        Err(why) => why.to_string(),
    };
    _ = writeln!(
        told,
        "step {place}: {:?} later holder {} says {:?} #{} to bank {}: {got}",
        step.wait, step.holder, step.says, said.seq, step.bank
    );
}

/// Leaves out what is not needed to show a difference, larger parts first.
pub(super) async fn shorten(
    subject: &impl Subject,
    mut history: Vec<Step>,
    mut difference: String,
) -> (Vec<Step>, String) {
    let mut tries = 0;
    let mut part = history.len() / 2;
    while part > 0 {
        let mut from = 0;
        while from < history.len() && tries < SHORTENINGS {
            tries += 1;
            let mut shorter = history.clone();
            shorter.drain(from..(from + part).min(history.len()));
            match play(subject, &shorter).await {
                Some(shown) => (history, difference) = (shorter, shown),
                None => from += part,
            }
        }
        part /= 2;
    }
    (history, difference)
}
