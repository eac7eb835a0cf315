//! What holds in every world: over all refill rules, header forms, latencies, reorderings, losses and strangers.
//!
//! Every world checks, at every step: nothing is granted while a hint that is known says to stay away; a declared cap
//! holds; a permit that is given back unsent comes back to every gate; a waiter ends once; whoever waits while nothing
//! is under way is woken; and an instant the bank named is not named again without progress.

mod pace_random;
mod pace_world;

use proptest::prelude::*;

use pace_random::{FORMS, Plan, Told, plan};
use pace_world::{Form, Rule};

/// The bank's own patience: after waiting so long a call of any class ignores its reserve.
const PATIENCE: f64 = 30.0;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Closed gates, caps, whole tickets and wake-ups are checked on the way; and everything finishes.
    #[test]
    fn every_request_is_served_in_the_end_by_wake_ups_alone(plan in plan()) {
        let story = plan.play();
        prop_assert_eq!(story.accepted, plan.requests);
    }

    /// A quota that was declared as it is, and nobody else draws: never more than it in a window of the server's, wherever that
    /// begins, though the server says nothing. A sliding counter is left out: it weighs the last window evenly, so it may
    /// refuse what no window of its length exceeds.
    #[test]
    fn a_declared_quota_is_never_exceeded_at_any_server_alone(
        plan in plan(),
        rule in proptest::sample::select(vec![Rule::Fixed, Rule::Aligned, Rule::LogOldest, Rule::BucketFull]),
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

    /// While the server serves, nobody waits for longer than: the bank's patience with reserves, the time in which a
    /// fair turn of the lowest class comes round once for each caller (the shares are 64 : 16 : 4 : 1), and four windows.
    #[test]
    fn nobody_starves_while_the_server_serves(plan in plan(), declared in any::<bool>()) {
        let told = if declared { Told::Rate } else { Told::Nothing };
        let form = if declared { plan.form } else { Form::Exact };
        let plan = Plan { mixed: true, losses: 0.0, strangers: 0.0, hints: true, told, form, ..plan };
        let story = plan.play();
        let trip = 2.0 * plan.leg + plan.dawdle;
        let turns = 85.0 * plan.callers as f64 * (1.0 / plan.rate()).max(trip / plan.callers as f64);
        let bound = PATIENCE + turns + 4.0 * plan.window;
        for (class, longest) in story.longest.into_iter().enumerate() {
            prop_assert!(longest <= bound, "class {class} waited {longest:.1} s, more than {bound:.1}: {story:?}");
        }
    }
}
