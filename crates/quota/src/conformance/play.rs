//! Histories: played to a store and to the model side by side, and shortened where the two differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use fastrand::Rng;
use tidegate_core::share::{BankKey, Exchange, Ledger, LimitView, Reply, Unanswered};

use super::holder::{Holder, Says, Speaker};
use super::met::Met;
use super::moody::{Mood, Moody};
use super::{Clock, Depth, Subject};
use crate::error::StoreError;
use crate::store::Store;

const BANKS: [BankKey; 2] = [BankKey([0xaa; 12]), BankKey([0xbb; 12])];
const HOLDERS: u64 = 4;

/// Moody ones are more, and each history has another number of them.
const MOODY: u64 = 8;

/// A made clock is set back by so many milliseconds now and then: by what the state bears, and by what begins a new life of it.
const BACK: [u64; 4] = [5, 900, 1_001, 40_000];

/// Attempts to leave steps out.
const SHORTENINGS: u32 = 200;

/// A history of one run.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// What its holders are like; none: they are sensible.
    mood: Option<Mood>,
    pub(super) steps: Vec<Step>,
}

/// One step. Everything in it comes from its seed, so that a step means the same where others were left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    seed: u64,
    wait: Duration,
    /// Where time is made it is set back first, by so much.
    back: Option<Duration>,
    bank: usize,
    holder: u64,
    says: Says,
    /// The holder hears the answer.
    heard: bool,
}

/// Those of one run: of sensible holders and of each mood in turn.
pub(super) fn history(depth: Depth, run: u64) -> History {
    let mut rng = Rng::with_seed(depth.seed.wrapping_mul(1_000_003).wrapping_add(run));
    let mood = [None, Some(Mood::Wild), Some(Mood::Late), Some(Mood::Calm)][usize::from((run % 4) as u8)];
    let longest = u64::try_from(depth.wait.as_millis()).unwrap_or(u64::MAX);
    let holders = if mood.is_some() { rng.u64(1..=MOODY) } else { HOLDERS };
    let paces: &[u64] = match mood {
        None | Some(Mood::Wild) => &[3, 30, 300, 3_000],
        Some(Mood::Late) => &[3, 10],
        Some(Mood::Calm) => &[30, 100, 300],
    };
    let pace = rng.choice(paces).copied().unwrap_or(1).min(longest / 8).max(1);
    let step = |_| Step {
        seed: rng.u64(..),
        wait: Duration::from_millis(match (mood, rng.u8(0..160)) {
            (Some(_), 0) => rng.u64(0..=longest),
            (Some(_), _) => rng.u64(0..pace),
            // Most follow soon, some after a lease, few after everything has ended.
            (None, 0..5) => longest,
            (None, 5..20) => longest / 8,
            (None, 20..100) => rng.u64(0..=longest / 64),
            (None, _) => 0,
        }),
        back: (mood.is_some() && rng.u8(0..80) == 0).then(|| {
            let by = if mood == Some(Mood::Calm) { 0 } else { rng.usize(..BACK.len()) };
            Duration::from_millis(BACK[by])
        }),
        bank: usize::from(rng.u8(0..4) == 0),
        holder: rng.u64(0..holders),
        says: match rng.u8(0..32) {
            0 => Says::Old,
            1..3 => Says::Again,
            3 if mood != Some(Mood::Calm) => Says::OtherVersion,
            _ => Says::New,
        },
        heard: rng.u8(0..8) > 0 || mood == Some(Mood::Calm),
    };
    History { mood, steps: (0..depth.steps).map(step).collect() }
}

/// The model of one bank, and who speaks there.
struct Model {
    ledger: Option<Ledger>,
    /// Which life of the state answered last.
    life: Option<u64>,
    holders: BTreeMap<u64, Box<dyn Speaker + Send>>,
}

/// The holder of a number.
fn speaker(number: u64, mood: Option<Mood>) -> Box<dyn Speaker + Send> {
    match mood {
        None => Box::new(Holder::new(number)),
        Some(mood) => Box::new(Moody::new(number, mood)),
    }
}

/// Plays a history; tells the first difference.
pub(super) async fn play<S: Subject>(subject: &S, history: &History, met: &mut Met) -> Option<String> {
    subject.empty().await;
    let mut models = BANKS.map(|_| Model { ledger: None, life: None, holders: BTreeMap::new() });
    let mut told = String::new();
    for (place, step) in history.steps.iter().enumerate() {
        if let Some(back) = step.back.filter(|_| S::CLOCK == Clock::Made) {
            subject.set_back(back).await;
        }
        subject.pass(step.wait).await;
        let model = &mut models[step.bank];
        let mut rng = Rng::with_seed(step.seed);
        let holder =
            model.holders.entry(step.holder).or_insert_with(|| speaker(step.holder + 1, history.mood));
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
        let alike = match S::CLOCK {
            Clock::Made => shown == known,
            Clock::Real => lasting(&shown) == lasting(&known),
        };
        if !alike {
            _ = writeln!(
                told,
                "step {place}, at {now}, {said:#?}\nthe store shows: {shown:#?}\nthe model: {known:#?}"
            );
            return Some(told);
        }
        met.count(&expected, step.says == Says::Again, model.life);
        model.life = expected.as_ref().map_or(model.life, |reply| Some(reply.incarnation));
        if let (Ok(reply), true) = (&expected, step.heard) {
            holder.hear(now, &said, reply);
        }
        trace(&mut told, place, step, &said, &expected);
    }
    None
}

/// A limit by its name and whose calls it counts; its quota, what is out, its epoch and its generation.
type Lasting<'a> = BTreeMap<(&'a str, &'a str), (Option<u32>, u32, u64, u64)>;

/// What of a view does not depend on when it was read.
fn lasting(view: &[LimitView]) -> Lasting<'_> {
    let counts = |limit: &LimitView| (limit.quota, limit.out, limit.epoch, limit.generation);
    view.iter().map(|limit| ((&*limit.name, &*limit.partition), counts(limit))).collect()
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
    mut history: History,
    mut difference: String,
) -> (History, String) {
    let mut tries = 0;
    let mut part = history.steps.len() / 2;
    while part > 0 {
        let mut from = 0;
        while from < history.steps.len() && tries < SHORTENINGS {
            tries += 1;
            let mut shorter = history.clone();
            shorter.steps.drain(from..(from + part).min(history.steps.len()));
            match play(subject, &shorter, &mut Met::default()).await {
                Some(shown) => (history, difference) = (shorter, shown),
                None => from += part,
            }
        }
        part /= 2;
    }
    (history, difference)
}
