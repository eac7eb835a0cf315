//! What an answer, or its absence, means for an item and for the run.

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use tidegate::{CallReport, Error, ErrorKind, ResponseBody};
use tidegate_core::classify::Delivery;
use tidegate_core::mark::OutcomeMark;
use tidegate_core::permission;
use tidegate_store::{Event, Outcome};

/// How much of an answer is read, so that its connection can carry the next call and an error can be told.
pub(super) const MAX_ANSWER: usize = 1 << 20;

/// How much of an answer that is no error of the vendor's shape is told.
const MAX_TOLD: usize = 300;

/// What is to be written about an item, and what it means for the run.
pub(super) struct Judged {
    /// What happened; `None` leaves the item as the journal has it: in doubt, and to be sent again later.
    pub(super) event: Option<Event>,
    pub(super) outcome: Outcome,
    pub(super) run: ForTheRun,
    /// The answer's body, if it was a good one.
    pub(super) body: Vec<u8>,
}

/// What one item's end says about the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForTheRun {
    /// Nothing.
    Nothing,
    /// The upstream could not be reached, or did not take the call.
    Unserved,
    /// No other item would fare better.
    Stop,
}

impl Judged {
    /// A request that cannot be sent.
    pub(super) fn invalid(reason: String) -> Self {
        let outcome = outcome(&CallReport::default(), None, Some(reason));
        Self { event: Some(Event::Fail), outcome, run: ForTheRun::Nothing, body: Vec::new() }
    }

    /// Judges a call that brought no answer.
    pub(super) fn error(error: &Error) -> Self {
        let (event, run) = match error.kind() {
            ErrorKind::OutcomeUnknown if error.can_settle() => (None, ForTheRun::Unserved),
            ErrorKind::OutcomeUnknown => (Some(Event::LoseTrack), ForTheRun::Nothing),
            // Only of reads: a write without an answer is `OutcomeUnknown`.
            ErrorKind::NoAnswer | ErrorKind::Unreadable | ErrorKind::Invalid => {
                (Some(Event::Fail), ForTheRun::Nothing)
            }
            ErrorKind::Token => (Some(Event::Unsent), ForTheRun::Stop),
            ErrorKind::Unreachable => (Some(Event::Unsent), ForTheRun::Unserved),
            _ => (Some(Event::Unsent), ForTheRun::Nothing),
        };
        let report = error.report();
        let outcome = outcome(report, report.status, Some(error.to_string()));
        Self { event, outcome, run, body: Vec::new() }
    }

    /// Judges an answer. What it says about execution is in its report: the profile's throttles and hints, and the marks of
    /// a gateway in between, have been looked at there.
    pub(super) async fn answer(mut response: http::Response<ResponseBody>) -> Self {
        let report = response.extensions_mut().remove::<CallReport>().unwrap_or_default();
        let status = response.status();
        let headers = response.headers();
        let told = OutcomeMark::of(headers).and_then(|mark| told_by_a_gateway(mark, status));
        let unserved = matches!(report.delivery, Some(Delivery::NotSent | Delivery::Refused));
        // Read in every case. A body that is cut or too long takes nothing from what the status says.
        let (parts, body) = response.into_parts();
        let (headers, body) = (parts.headers, body.bytes(MAX_ANSWER).await.unwrap_or_default());
        let forbidden = lacks_permission(status, &headers, &body);
        let (event, run) = match told {
            Some(told) => told,
            None if status.is_success() => (Some(Event::Succeed), ForTheRun::Nothing),
            None if status == StatusCode::UNAUTHORIZED => (Some(Event::Unsent), ForTheRun::Stop),
            // The refusal is of this sending; an earlier one stays in doubt.
            None if forbidden => ((!report.doubtful).then_some(Event::Unsent), ForTheRun::Stop),
            None if unserved => (Some(Event::Unsent), ForTheRun::Unserved),
            None => (Some(Event::Fail), ForTheRun::Nothing),
        };
        let error = match event {
            Some(Event::Succeed) => None,
            _ if status == StatusCode::UNAUTHORIZED => {
                Some(format!("the upstream refused the credential: {}", reason(status, &body)))
            }
            _ if forbidden => {
                let told = reason(status, &body);
                Some(format!("{told}; no item would fare better: grant it to the client, then resume"))
            }
            _ if unserved => Some(format!("{}{}", reason(status, &body), come_back(&headers))),
            _ => Some(reason(status, &body)),
        };
        let body = if status.is_success() { body.to_vec() } else { Vec::new() };
        // A 424 of a gateway that says "executed" is not what the upstream answered.
        let own = told.is_none_or(|(event, _)| event != Some(Event::Succeed));
        Self { event, outcome: outcome(&report, own.then_some(status.as_u16()), error), run, body }
    }
}

/// What a gateway in between says of an item's outcome; `None` where it leaves that to the status.
fn told_by_a_gateway(mark: OutcomeMark, status: StatusCode) -> Option<(Option<Event>, ForTheRun)> {
    match mark {
        OutcomeMark::Unknown | OutcomeMark::InFlight | OutcomeMark::AnswerNotKept => {
            Some((Some(Event::LoseTrack), ForTheRun::Nothing))
        }
        // It stays in doubt, and may be sent again: executing it twice does no harm.
        OutcomeMark::NoAnswer | OutcomeMark::UnreadableAnswer => Some((None, ForTheRun::Unserved)),
        OutcomeMark::AnswerLost if status == StatusCode::FAILED_DEPENDENCY => {
            Some((Some(Event::Succeed), ForTheRun::Nothing))
        }
        OutcomeMark::AnswerLost | OutcomeMark::ConfirmedByRead | OutcomeMark::AlreadyDone => None,
    }
}

/// When the upstream wants to be asked again, as it says it.
fn come_back(headers: &HeaderMap) -> String {
    let after = headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok());
    after.map_or_else(String::new, |after| match after.parse::<u64>() {
        Ok(seconds) => format!("; it asks not to be called again for {seconds} s: resume then"),
        Err(_) => format!("; it asks not to be called again before {after}: resume then"),
    })
}

/// Whether the credential lacks a permission that the other items need as well.
pub(super) fn lacks_permission(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
    permission::missing(status, headers, body).is_some_and(|missing| missing.everywhere)
}

fn outcome(report: &CallReport, http_status: Option<u16>, error: Option<String>) -> Outcome {
    Outcome { attempts: report.attempts, http_status, error }
}

/// The message of the upstream's error; the beginning of its text if it has another shape.
pub(super) fn reason(status: StatusCode, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct ErrorBody {
        message: Option<String>,
        code: Option<String>,
    }
    let told =
        serde_json::from_slice(body).ok().and_then(|ErrorBody { message, code }| match (code, message) {
            (Some(code), Some(message)) => Some(format!("{code}: {message}")),
            (one, other) => one.or(other),
        });
    told.unwrap_or_else(|| {
        let text: String = String::from_utf8_lossy(body).trim().chars().take(MAX_TOLD).collect();
        if text.is_empty() { status.to_string() } else { format!("{status}: {text}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_error_is_told_in_its_own_words() {
        let told = |body: &str| reason(StatusCode::BAD_REQUEST, body.as_bytes());
        assert_eq!(
            told(r#"{"code":"bad.skill","message":"no such skill","status":400}"#),
            "bad.skill: no such skill"
        );
        assert_eq!(told(r#"{"message":"no such skill"}"#), "no such skill");
        assert_eq!(told("<html>nope</html>\n"), "400 Bad Request: <html>nope</html>");
        assert_eq!(told(""), "400 Bad Request");
        assert_eq!(told(&"x".repeat(5_000)).len(), "400 Bad Request: ".len() + MAX_TOLD);
    }

    async fn judged(status: u16, delivery: Delivery) -> (Option<Event>, ForTheRun) {
        let report = CallReport { delivery: Some(delivery), ..CallReport::default() };
        let judged = judge(status, &[], "", report).await;
        (judged.event, judged.run)
    }

    async fn judge(
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: &'static str,
        report: CallReport,
    ) -> Judged {
        let mut response =
            http::Response::new(ResponseBody::from(bytes::Bytes::from_static(body.as_bytes())));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().insert(*name, http::HeaderValue::from_static(value));
        }
        response.extensions_mut().insert(report);
        Judged::answer(response).await
    }

    #[tokio::test]
    async fn one_that_asks_to_be_left_alone_says_for_how_long() {
        let report = || CallReport { delivery: Some(Delivery::Refused), ..CallReport::default() };
        let told = judge(429, &[("retry-after", "4000")], r#"{"message":"slow"}"#, report()).await;
        assert_eq!(
            told.outcome.error.unwrap(),
            "slow; it asks not to be called again for 4000 s: resume then"
        );
        let date = "Wed, 21 Oct 2026 07:28:00 GMT";
        let told = judge(503, &[("retry-after", date)], "", report()).await.outcome.error.unwrap();
        assert!(told.ends_with("again before Wed, 21 Oct 2026 07:28:00 GMT: resume then"), "{told}");
    }

    fn answered(doubtful: bool) -> CallReport {
        CallReport { delivery: Some(Delivery::Answered), doubtful, ..CallReport::default() }
    }

    #[tokio::test]
    async fn a_missing_permission_stops_the_run_and_is_named() {
        let body = r#"{"code":"missing.any.permissions","message":"You are missing: routing:skill:assign"}"#;
        let judged = judge(403, &[], body, answered(false)).await;
        assert_eq!((judged.event, judged.run), (Some(Event::Unsent), ForTheRun::Stop));
        assert!(judged.outcome.error.unwrap().contains("routing:skill:assign"));
        let doubted = judge(403, &[], body, answered(true)).await;
        assert_eq!(
            (doubted.event, doubted.run),
            (None, ForTheRun::Stop),
            "an earlier sending stays in doubt"
        );
        let division = r#"{"code":"missing.division.permission","message":"not in this division"}"#;
        let judged = judge(403, &[], division, answered(false)).await;
        assert_eq!((judged.event, judged.run), (Some(Event::Fail), ForTheRun::Nothing));
    }

    #[tokio::test]
    async fn an_answer_that_proves_nothing_was_done_leaves_the_item_pending() {
        let unserved = (Some(Event::Unsent), ForTheRun::Unserved);
        for (status, delivery) in [
            (429, Delivery::Refused),
            (403, Delivery::Refused),
            (503, Delivery::Refused),
            (502, Delivery::Refused),
            (429, Delivery::NotSent),
        ] {
            assert_eq!(judged(status, delivery).await, unserved, "{status}");
        }
        assert_eq!(judged(401, Delivery::Refused).await, (Some(Event::Unsent), ForTheRun::Stop));
    }

    #[tokio::test]
    async fn final_answers_end_the_item() {
        assert_eq!(judged(200, Delivery::Answered).await, (Some(Event::Succeed), ForTheRun::Nothing));
        assert_eq!(judged(404, Delivery::Answered).await, (Some(Event::Fail), ForTheRun::Nothing));
        assert_eq!(judged(500, Delivery::Answered).await, (Some(Event::Fail), ForTheRun::Nothing));
    }

    #[tokio::test]
    async fn every_word_of_a_gateway_on_an_outcome_has_its_reading() {
        let (done, lost) = (Some(Event::Succeed), Some(Event::LoseTrack));
        for mark in OutcomeMark::ALL {
            let expected: &[(u16, Option<Event>)] = match mark {
                OutcomeMark::Unknown => &[(424, lost)],
                OutcomeMark::InFlight | OutcomeMark::AnswerNotKept => &[(409, lost)],
                OutcomeMark::NoAnswer => &[(504, None)],
                OutcomeMark::UnreadableAnswer => &[(502, None)],
                // A 424 says that the status was a 2xx; any other status is the upstream's own.
                OutcomeMark::AnswerLost => &[(424, done), (409, Some(Event::Fail)), (200, done)],
                OutcomeMark::ConfirmedByRead => &[(200, done), (204, done)],
                OutcomeMark::AlreadyDone => &[(204, done)],
            };
            for (status, event) in expected {
                let marked = [("tidegate-outcome", mark.name())];
                let judged = judge(*status, &marked, "", answered(false)).await;
                let (told, run) = (judged.event, judged.run);
                assert_eq!(told, *event, "{status} {mark:?}");
                let stays = if event.is_none() { ForTheRun::Unserved } else { ForTheRun::Nothing };
                assert_eq!(run, stays, "{status} {mark:?}");
            }
        }
    }
}
