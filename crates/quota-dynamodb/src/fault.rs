//! What an error means: whether it may pass by itself, and otherwise what somebody has to do.
//!
//! Codes: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html> and
//! <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html>.

use std::error::Error;
use std::time::Duration;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use tidegate_core::share::Unanswered;
use tidegate_quota::StoreError;

use crate::clock::Ahead;
use crate::item::{LARGEST, Strange};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It may come back. `broken`: nothing reached it, so nobody else need try at once.
    Away { why: String, broken: bool },
    /// Somebody has to change something.
    Unusable { why: String, hint: String },
    /// The table is not there.
    NoTable,
    /// A request does not fit the table's key.
    NotItsKey(String),
    /// The state refuses.
    Unanswered(Unanswered),
}

const CREDENTIALS: &str = "check the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE (with SSO, call \
                           `aws sso login`), or the role of this machine";
const PERMISSIONS: &str = "give this identity the actions that docs/fleet.md lists, on this table";
/// What to do where the table is missing.
pub(crate) const INIT: &str =
    "create it with `tidegate quota init`, or name another table or region in quota.store";

/// Codes of what somebody has to change, and how.
const UNUSABLE: &[(&str, &str)] = &[
    ("AccessDeniedException", PERMISSIONS),
    ("UnrecognizedClientException", CREDENTIALS),
    ("InvalidClientTokenId", CREDENTIALS),
    ("MissingAuthenticationToken", CREDENTIALS),
    ("MissingAuthenticationTokenException", CREDENTIALS),
    ("IncompleteSignature", CREDENTIALS),
    ("ExpiredToken", CREDENTIALS),
    ("ExpiredTokenException", CREDENTIALS),
    ("OptInRequired", "enable the region for this AWS account"),
];

/// Codes of what passes.
const PASSING: &[&str] = &[
    "InternalServerError",
    "InternalFailure",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "ThrottlingException",
    "TransactionConflictException",
    // Signed with a clock that was wrong: the library signs the next request with the time that this answer told.
    "InvalidSignatureException",
    "RequestTimeTooSkewed",
];

impl Fault {
    /// What an error of the library means.
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(said) => {
                let status = said.raw().status().as_u16();
                Self::of_code(said.err().code().unwrap_or_default(), said.err().message(), status)
            }
            SdkError::TimeoutError(_) => Self::Away { why: "no answer in time".to_owned(), broken: true },
            SdkError::DispatchFailure(failure) => {
                let why = innermost(error);
                // A log-in that is over says "SSO token", any other want of credentials says so.
                let lacks = why.contains("credential") || why.contains("SSO token");
                if failure.is_timeout() || failure.is_io() || !lacks {
                    return Self::Away { why, broken: true };
                }
                Self::Unusable { why, hint: CREDENTIALS.to_owned() }
            }
            SdkError::ResponseError(said) if said.raw().status().as_u16() >= 500 => {
                Self::Away { why: format!("it answers {}", said.raw().status().as_u16()), broken: false }
            }
            SdkError::ResponseError(_) => Self::strange(innermost(error)),
            _ => {
                let why = DisplayErrorContext(error).to_string();
                let hint = if why.contains("egion") {
                    "name the region: dynamodb://TABLE?region=REGION, or AWS_REGION"
                } else {
                    "check quota.store, and AWS's configuration in the environment"
                };
                Self::Unusable { why: innermost(error), hint: hint.to_owned() }
            }
        }
    }

    fn of_code(code: &str, message: Option<&str>, status: u16) -> Self {
        let why = match message {
            Some(message) if !message.is_empty() => format!("{code}: {message}"),
            _ => format!("{code}, status {status}"),
        };
        if code == "ResourceNotFoundException" {
            return Self::NoTable;
        }
        if code == "ValidationException" {
            return Self::NotItsKey(why);
        }
        if let Some((_, hint)) = UNUSABLE.iter().find(|(known, _)| *known == code) {
            return Self::Unusable { why, hint: (*hint).to_owned() };
        }
        if PASSING.contains(&code) || status >= 500 {
            return Self::Away { why, broken: false };
        }
        Self::Unusable { why, hint: "is this DynamoDB? check quota.store, endpoint included".to_owned() }
    }

    /// The answer is not what this program expects.
    pub(crate) fn strange(why: impl std::fmt::Display) -> Self {
        Self::Unusable {
            why: format!("its answer is not understood: {why}"),
            hint: "is another server at this endpoint?".to_owned(),
        }
    }

    /// There was no answer in time.
    pub(crate) fn late(patience: Duration) -> Self {
        Self::Away { why: format!("no answer within {} ms", patience.as_millis()), broken: false }
    }

    /// The item with this id is none of ours.
    pub(crate) fn of_item(id: &str, strange: Strange) -> Self {
        match strange {
            Strange::Protocol(why) => Self::Unanswered(why),
            Strange::Shape(why) => Self::Unusable {
                why: format!("the item {id} is another program's: {why}"),
                hint: "choose another quota.prefix, or delete that item".to_owned(),
            },
            Strange::TooLarge(size) => Self::Unusable {
                why: format!(
                    "the item {id} would have {size} bytes of state, and an item holds {LARGEST} in all"
                ),
                hint: "share among fewer processes, or use Redis, which keeps a bank in many keys".to_owned(),
            },
        }
    }

    /// The item with this id is ahead of DynamoDB's clock.
    pub(crate) fn of_future(id: &str, Ahead(by): Ahead) -> Self {
        Self::Unusable {
            why: format!(
                "the time in the item {id} is {} ahead of DynamoDB's own clock",
                human(Duration::from_millis(by))
            ),
            hint: "nothing would be granted until then: find who wrote it with a wrong clock, and delete that item"
                .to_owned(),
        }
    }

    /// For the caller.
    pub(crate) fn told(self, store: &str, retry_after: Option<Duration>) -> StoreError {
        let store = store.to_owned();
        let unusable = |why: String, hint: &str| StoreError::Unusable {
            store: store.clone(),
            why,
            hint: hint.to_owned(),
        };
        match self {
            Self::Away { why, .. } => StoreError::Away { store, why, retry_after },
            Self::Unusable { why, hint } => unusable(why, &hint),
            Self::NoTable => unusable("the table does not exist".to_owned(), INIT),
            Self::NotItsKey(why) => unusable(why, INIT),
            Self::Unanswered(why) => StoreError::Unanswered(why),
        }
    }
}

/// Minutes where seconds would be many.
pub(crate) fn human(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 120 => format!("{} min", seconds / 60),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// The cause at the bottom: the layers above say only that something failed.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_passing_or_says_what_to_do() {
        for &code in PASSING {
            assert!(matches!(Fault::of_code(code, None, 400), Fault::Away { broken: false, .. }), "{code}");
        }
        for &(code, hint) in UNUSABLE {
            assert!(!PASSING.contains(&code));
            let told = Fault::of_code(code, Some("why"), 400).told("dynamodb table t", None).to_string();
            assert_eq!(told, format!("dynamodb table t cannot be used: {code}: why ({hint})"));
        }
        assert!(matches!(Fault::of_code("Whatever", None, 503), Fault::Away { .. }));
        assert!(matches!(Fault::of_code("Whatever", None, 400), Fault::Unusable { .. }));
        let told = Fault::of_code("ResourceNotFoundException", Some("x"), 400).told("dynamodb table t", None);
        assert!(
            told.to_string().contains("the table does not exist (create it with `tidegate quota init`"),
            "{told}"
        );
    }

    #[test]
    fn a_bank_that_no_item_holds_is_told_with_its_size() {
        let told =
            Fault::of_item("t:b:1", Strange::TooLarge(500_000)).told("dynamodb table t", None).to_string();
        assert!(
            told.contains("the item t:b:1 would have 500000 bytes of state, and an item holds 409600"),
            "{told}"
        );
        assert!(told.contains("use Redis"), "{told}");
    }
}
