//! What holds in every world: over all refill rules, header forms, latencies, reorderings, losses and strangers.
//!
//! Every world checks, at every step: nothing is granted while a hint that is known says to stay away; a declared cap
//! holds; a permit that is given back unsent comes back to every gate; a waiter ends once; whoever waits while nothing
//! is under way is woken; and an instant the bank named is not named again without progress.

#![allow(clippy::cast_precision_loss, reason = "small counts")]

mod pace_parts;
mod pace_random;
mod pace_world;

use proptest::prelude::*;

use pace_random::{FORMS, Plan, Told, plan};
use pace_world::{Form, Rule};
use tidegate_core::pace::Class;

/// The rules that accept whatever no window of their length exceeds. A sliding counter does not: it weighs the last window
/// evenly, wherever in it the attempts were.
const DECLARABLE: [Rule; 4] = [Rule::Fixed, Rule::Aligned, Rule::LogOldest, Rule::BucketFull];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Closed gates, caps, whole tickets and wake-ups are checked on the way; and everything finishes.
    #[test]
    fn every_request_is_served_in_the_end_by_wake_ups_alone(plan in plan()) {
        let story = plan.play();
        prop_assert_eq!(story.accepted, plan.requests);
    }

    /// The same at a server that works on so many at once and refuses more, with a hint or without, and whose refusals name the limit
    /// that was met or do not.
    #[test]
    fn every_request_is_served_in_the_end_under_a_cap_that_nobody_declared(
        plan in plan(),
        cap in 1..8_u32,
        work in 0.01..0.5_f64,
        names in any::<bool>(),
        callers in 2..20_usize,
    ) {
        let plan = Plan { cap: Some((cap, work)), names, callers, ..plan };
        let story = plan.play();
        prop_assert_eq!(story.accepted, plan.requests);
    }

    /// And at a server without a cap whose refusals name the limit.
    #[test]
    fn every_request_is_served_in_the_end_where_refusals_name_the_limit(plan in plan()) {
        let plan = Plan { names: true, ..plan };
        let story = plan.play();
        prop_assert_eq!(story.accepted, plan.requests);
    }

    /// A quota that was declared as it is, and nobody else draws: never more than it in a window of the server's, wherever that
    /// begins, though the server says nothing.
    #[test]
    fn a_declared_quota_is_never_exceeded_at_any_server_alone(
        plan in plan(),
        rule in proptest::sample::select(DECLARABLE.to_vec()),
    ) {
        let told = if plan.told == Told::Nothing { Told::Rate } else { plan.told };
        let plan = Plan { rule, form: Form::Silent, told, strangers: 0.0, ..plan };
        let story = plan.play();
        prop_assert_eq!(story.throttled, 0);
    }

    /// A fixed window that tells its numbers, and nobody else draws: never more than its limit. Three things are assumed, and
    /// without them it is not so: a server that tells whole seconds has windows of whole seconds, longer than one; no leg
    /// is shorter than another by more than 18 %, or a scout that was timed by half of the least round trip (nine tenths
    /// of it, to arrive after the reset) comes early; and nothing is lost, because a small window that gives back less
    /// than it promised looks like another rule. A reset in whole seconds of the server's own clock leaves the length open until one
    /// guess has failed: one refusal, not more.
    #[test]
    fn a_fixed_window_that_tells_its_limit_is_never_exceeded_alone(
        plan in plan(),
        form in proptest::sample::select(FORMS[..3].to_vec()),
    ) {
        let window = if form == Form::Exact { plan.window } else { plan.window.ceil().max(2.0) };
        let jitter = plan.jitter.min(0.18);
        let families = if plan.told == Told::Nothing { 1 } else { plan.families };
        let plan = Plan { rule: Rule::Fixed, form, window, jitter, families, strangers: 0.0, losses: 0.0, ..plan };
        let story = plan.play();
        prop_assert!(story.throttled <= usize::from(form == Form::Epoch), "{story:?}");
    }
}

proptest! {
    // Worlds that last long enough for somebody to starve.
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// While a server that was declared as it is serves, nobody waits for longer than two rounds of the classes' turns for
    /// each caller of the same class and one more (the shares are 64 : 16 : 4 : 1, so a round of the lowest is 85 permits), and
    /// four windows and five seconds, which a hint in whole seconds and its scout can add.
    #[test]
    fn nobody_starves_while_the_server_serves(
        plan in plan(),
        callers in 4..9_usize,
        rule in proptest::sample::select(DECLARABLE.to_vec()),
    ) {
        let plan = Plan {
            callers,
            rule,
            told: Told::Rate,
            form: Form::Silent,
            requests: 1000,
            families: 1,
            mixed: true,
            reserves: false,
            losses: 0.0,
            strangers: 0.0,
            hints: true,
            ..plan
        };
        let story = plan.play();
        for (class, longest) in story.longest.into_iter().enumerate() {
            let peers = (0..callers).filter(|caller| caller % 4 == class).count();
            let round = 85.0 / [64.0, 16.0, 4.0, 1.0][class];
            let bound = 2.0 * round * (peers as f64 + 1.0) / plan.rate() + 4.0 * plan.window + 5.0;
            prop_assert!(longest <= bound, "class {class} waited {longest:.1} s, more than {bound:.1}: {story:?}");
        }
    }
    /// The same where the server tells, and where it does not though a quota was declared, whatever its rule: at the pace that
    /// was reached.
    #[test]
    fn nobody_starves_where_the_server_tells(plan in plan(), callers in 4..9_usize, declared in any::<bool>()) {
        let told = if declared { Told::Rate } else { Told::Nothing };
        let form = if declared { plan.form } else { Form::Exact };
        let plan = Plan {
            callers,
            told,
            form,
            requests: 1000,
            families: 1,
            mixed: true,
            reserves: false,
            losses: 0.0,
            strangers: 0.0,
            hints: true,
            ..plan
        };
        let story = plan.play();
        let pace = story.accepted as f64 / story.end;
        for (class, longest) in story.longest.into_iter().enumerate() {
            let peers = (0..callers).filter(|caller| caller % 4 == class).count();
            let round = 85.0 / [64.0, 16.0, 4.0, 1.0][class];
            let bound = 2.0 * round * (peers as f64 + 1.0) / pace + 4.0 * plan.window + 5.0;
            prop_assert!(longest <= bound, "class {class} waited {longest:.1} s, more than {bound:.1}: {story:?}");
        }
    }

    /// With the policies that classes have by default and urgent ones that always ask: a class is passed by others for no
    /// longer than its patience before each of its calls, beside what the turns take.
    #[test]
    fn policies_starve_nobody(plan in plan(), callers in 4..9_usize) {
        let plan = Plan {
            callers,
            told: Told::Nothing,
            form: Form::Exact,
            requests: 1000,
            families: 1,
            mixed: true,
            losses: 0.0,
            strangers: 0.0,
            hints: true,
            ..plan
        };
        let story = plan.play();
        let pace = story.accepted as f64 / story.end;
        for (class, longest) in story.longest.into_iter().enumerate() {
            let calls = (0..callers).filter(|caller| caller % 4 == class).count() as f64 + 1.0;
            let round = 85.0 / [64.0, 16.0, 4.0, 1.0][class];
            let bound = calls * (2.0 * round / pace + 10.0) + 4.0 * plan.window + 5.0;
            prop_assert!(longest <= bound, "class {class} waited {longest:.1} s, more than {bound:.1}: {story:?}");
        }
    }
}

/// In a log that was not proven yet, `bulk` and `poll` took each permit that came back, as scouts, because it was less than what
/// they leave; while `interactive` waited for the sake of evidence, from each of their answers on anew, to the end: 269 s of 275.
#[test]
fn who_leaves_more_does_not_go_before_who_leaves_less() {
    let plan = Plan {
        rule: Rule::LogNewest,
        form: Form::Exact,
        quota: 8,
        window: 1.839_377_308_048_000_7,
        phase: 0.0,
        leg: 0.123_867_455_268_661_61,
        jitter: 0.361_141_787_439_018_54,
        dawdle: 0.0,
        told: Told::Nothing,
        hints: true,
        callers: 4,
        requests: 1000,
        families: 1,
        mixed: true,
        losses: 0.0,
        strangers: 0.0,
        spread: false,
        reserves: true,
        seed: 13_789_314_793_517_706_888,
        cap: None,
        names: false,
    };
    let story = plan.play();
    assert!(story.longest[Class::Interactive as usize] < 2.0 * plan.window, "{story:?}");
}
