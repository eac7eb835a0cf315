//! Looking at a job until it has ended.

use std::time::Duration;

use fastrand::Rng;
use http::{Method, StatusCode};
use serde_json::Value;
use tidegate::{Class, ErrorKind};
use tidegate_core::observe::observe;
use tidegate_core::poll::Sight;
use tidegate_core::share::stagger;
use tidegate_core::time::Mono;
use tidegate_store::{Item, Job, Step};

use super::{Ended, text_at};
use crate::execute::judge::{self, MAX_ANSWER};
use crate::execute::{Sender, Stopped};
use crate::health::is_unserved;
use crate::recipe::Jobs;
use crate::recipe::job::{JobRules, Start};

/// Looks in a row that bring nothing of use before a job is given up as unknown.
const STRANGE: u32 = 10;

/// How long after its acceptance a job may not be found yet: what was created is visible everywhere only after a while.
const AFTER_CREATE: Duration = Duration::from_mins(1);

/// A job that is older was not accepted by this run.
const JUST_ACCEPTED: Duration = Duration::from_secs(5);

/// The wait before the first look at a job of that age; `None`: by the recipe's plan. A job that an earlier process has left
/// has been working since, so it is looked at first; where others share the quota not at the same time as theirs, because a
/// fleet that was started anew has many such jobs.
fn first_wait(age: Duration, spread: Option<(Duration, Duration)>, chance: &mut Rng) -> Option<Duration> {
    let wait = || spread.map_or(Duration::ZERO, |(least, most)| stagger(chance, least, most));
    (age > JUST_ACCEPTED).then(wait)
}

/// The most of an answer that is read. Pages of results are large.
pub(super) const MAX_PAGE: usize = 64 << 20;

/// What one call of following brought.
pub(super) enum Told {
    /// A 2xx answer.
    Answer { body: Vec<u8>, hint: Option<Duration> },
    /// The upstream does not know the job, or not any more.
    Gone(String),
    /// An answer that repeating will hardly change.
    Refused(String),
    /// Nothing yet: worth another look.
    Later { hint: Option<Duration> },
}

impl Sender<'_> {
    /// Looks at a job until it has ended.
    pub(super) async fn poll(
        &self,
        item: &Item,
        job: &mut Job,
        rules: &Jobs,
        job_rules: &JobRules,
    ) -> Result<Ended, Stopped> {
        let Some(target) = target_of(&job_rules.poll, rules, item, job) else {
            return Ok(Ended::Unknown(format!("job {} cannot be polled: its path is none", job.id)));
        };
        let mut rng = Rng::with_seed(item.request.seq);
        let mut strange = 0;
        let mut drought = Drought::default();
        let mut sight = Sight { age: self.age(job), progress: None, hint: None };
        let mut chance = Rng::with_seed(self.client.upstream().clock().seed());
        let mut first = first_wait(sight.age, self.options.spread, &mut chance);
        loop {
            let wait = first.take().unwrap_or_else(|| job_rules.plan.next(&sight, &mut rng));
            tokio::time::sleep(wait).await;
            let told = self.ask(Method::GET, &target, None, Class::Poll, MAX_ANSWER).await?;
            sight = Sight { age: self.age(job), progress: None, hint: None };
            let trouble = match told {
                Told::Answer { body, hint } => {
                    sight.hint = hint;
                    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                    sight.progress = progress(&answer, job_rules);
                    match self.seen(item, job, rules, job_rules, &answer).await? {
                        Seen::Ended(ended) => return Ok(ended),
                        Seen::Working => None,
                        Seen::Strange(what) => Some(what),
                    }
                }
                Told::Gone(_) if sight.age < AFTER_CREATE => None,
                Told::Gone(why) => {
                    return Ok(Ended::Unknown(format!("the upstream does not know job {}: {why}", job.id)));
                }
                Told::Refused(why) => Some(why),
                Told::Later { hint } => {
                    sight.hint = hint;
                    if drought.goes_on(self.client.upstream().clock().now(), self.options.patience) {
                        let why =
                            format!("job {} cannot be looked at: the upstream does not serve it", job.id);
                        return Ok(Ended::Open(why));
                    }
                    continue;
                }
            };
            drought = Drought::default();
            strange = if trouble.is_some() { strange + 1 } else { 0 };
            if let Some(what) = trouble.filter(|_| strange >= STRANGE) {
                return Ok(Ended::Unknown(format!("job {}: {what}", job.id)));
            }
        }
    }

    /// What one look saw.
    async fn seen(
        &self,
        item: &Item,
        job: &mut Job,
        rules: &Jobs,
        job_rules: &JobRules,
        answer: &Value,
    ) -> Result<Seen, Stopped> {
        let Some(state) = text_at(answer, &job_rules.state) else {
            return Ok(Seen::Strange(format!("its answer has no state at `{}`", job_rules.state)));
        };
        let is = |states: &[String]| states.contains(&state);
        let starts = job_rules.start.as_ref().filter(|start| start.when.contains(&state));
        let mut step = job.step;
        if is(&job_rules.done) && rules.results.is_some() {
            step = Step::Fetching;
        } else if let Some(start) = starts.filter(|_| step == Step::Polling)
            && let Err(what) = self.start(item, job, rules, start).await?
        {
            return Ok(Seen::Strange(what));
        } else if starts.is_some() {
            step = Step::Started;
        }
        if job.state != state || job.step != step {
            self.journal.polled(item.request.seq, state.clone(), step, self.wall()).await?;
            (job.state, job.step) = (state.clone(), step);
        }
        let why = || {
            let why = job_rules.why.as_ref().and_then(|pointer| text_at(answer, pointer));
            format!("job {} ended {state}{}", job.id, why.map_or_else(String::new, |why| format!(": {why}")))
        };
        Ok(match () {
            () if is(&job_rules.done) => Seen::Ended(Ended::Well),
            () if is(&job_rules.failed) => Seen::Ended(Ended::Failed(why())),
            () if is(&job_rules.unknown) => Seen::Ended(Ended::Unknown(why())),
            () if is(&job_rules.waiting) || starts.is_some() => Seen::Working,
            () => Seen::Strange(format!("unknown state `{state}`")),
        })
    }

    /// Tells a job to start. Its method may be repeated, so nothing is written down before.
    async fn start(
        &self,
        item: &Item,
        job: &Job,
        rules: &Jobs,
        start: &Start,
    ) -> Result<Result<(), String>, Stopped> {
        let Some(target) = target_of(&start.path, rules, item, job) else {
            return Ok(Err("the path that starts it is none".to_owned()));
        };
        let told =
            self.ask(start.method.clone(), &target, start.body.clone(), Class::Bulk, MAX_ANSWER).await?;
        Ok(match told {
            Told::Answer { .. } => Ok(()),
            Told::Gone(why) | Told::Refused(why) => Err(format!("it could not be started: {why}")),
            Told::Later { .. } => Err("it could not be started yet".to_owned()),
        })
    }

    /// One call of following. It never submits anything.
    pub(super) async fn ask(
        &self,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
        class: Class,
        most: usize,
    ) -> Result<Told, Stopped> {
        let mut call = self.client.request(method, target).class(class).called_off_by(self.halt.subscribe());
        if let Some(body) = body {
            call = call.json(body);
        }
        for (name, value) in &self.options.headers {
            // A gateway in between paces polls as polls, whatever the run's writes are.
            let value = match name.as_str() {
                "tidegate-class" => http::HeaderValue::from_static(class.name()),
                _ => value.clone(),
            };
            call = call.header(name.clone(), value);
        }
        let response = match call.send().await {
            Ok(response) => response,
            Err(error) if error.kind() == ErrorKind::Token => {
                return Err(Stopped::Upstream(error.to_string()));
            }
            Err(_) => return Ok(Told::Later { hint: None }),
        };
        let status = response.status();
        let upstream = self.client.upstream();
        let hint = observe(&upstream.profile().headers, status, response.headers(), upstream.clock().wall())
            .retry_after;
        let unserved = response.headers().contains_key("tidegate-refused");
        let (parts, body) = response.into_parts();
        let Ok(body) = body.bytes(most).await else { return Ok(Told::Later { hint }) };
        let told = || judge::reason(status, &body);
        Ok(match status {
            _ if unserved => Told::Later { hint },
            StatusCode::UNAUTHORIZED => {
                return Err(Stopped::Upstream(format!("the upstream refused the credential: {}", told())));
            }
            _ if judge::lacks_permission(status, &parts.headers, &body) => {
                return Err(Stopped::Upstream(told()));
            }
            _ if status.is_success() => Told::Answer { body: body.to_vec(), hint },
            StatusCode::NOT_FOUND | StatusCode::GONE => Told::Gone(told()),
            _ if is_unserved(status) => Told::Later { hint },
            _ => Told::Refused(told()),
        })
    }

    /// The time since a job was accepted. The wall clock may have been set back; then it is young.
    fn age(&self, job: &Job) -> Duration {
        self.wall().since(job.submitted).unwrap_or_default()
    }
}

/// What one look saw.
enum Seen {
    Ended(Ended),
    Working,
    Strange(String),
}

/// Looks in a row that the upstream did not serve, be it that it answered each of them with an error.
#[derive(Clone, Copy, Debug, Default)]
struct Drought {
    since: Option<Mono>,
    looks: u32,
}

impl Drought {
    /// Counts one more; whether it is time to leave the job to a resume: a run that polls for ever tells nobody.
    fn goes_on(&mut self, now: Mono, patience: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        self.looks += 1;
        self.looks >= STRANGE && now - since >= patience
    }
}

/// A target of a job, with the values of its submission's.
pub(super) fn target_of(
    template: &crate::recipe::Target,
    rules: &Jobs,
    item: &Item,
    job: &Job,
) -> Option<String> {
    let columns = rules.target.columns_of(&item.request.target).unwrap_or_default();
    template.fill_job(&columns, &job.id)
}

/// How far a job says it is.
fn progress(answer: &Value, rules: &JobRules) -> Option<f64> {
    let percent = answer.pointer(rules.progress.as_ref()?)?.as_f64()?;
    Some(percent / 100.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn first_looks_at_jobs_of_an_earlier_process_are_spread_where_others_share() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
        let wait = |age, spread, seed| first_wait(age, spread, &mut Rng::with_seed(seed));
        assert_eq!(wait(minute, None, 1), Some(Duration::ZERO), "alone it looks at once");
        let spread = Some((second, 5 * second));
        assert_eq!(wait(second, spread, 1), None, "it was just accepted: by the plan");
        let waits: BTreeSet<Duration> = (0..50).filter_map(|seed| wait(minute, spread, seed)).collect();
        assert!(waits.len() > 40, "{waits:?}");
        assert!(waits.iter().all(|wait| (second..=5 * second).contains(wait)), "{waits:?}");
    }

    #[test]
    fn a_job_that_is_not_served_is_left_after_ten_looks_and_no_sooner_than_patience() {
        let minutes = |number| Duration::from_mins(number);
        let mut often = Drought::default();
        let mut seldom = Drought::default();
        for look in 1..=30 {
            let second = Mono::ZERO + Duration::from_secs(look);
            assert!(!often.goes_on(second, minutes(1)), "{look} looks within a minute");
            let left = seldom.goes_on(Mono::ZERO + minutes(look), minutes(1));
            assert_eq!(left, look >= u64::from(STRANGE), "{look} looks, a minute each");
        }
        assert!(often.goes_on(Mono::ZERO + minutes(2), minutes(1)));
    }
}
