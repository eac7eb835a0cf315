//! A 403 that names the permission its credential lacks.
//!
//! The answer passes as it is. Beside it the call's report names the permission, and one line in the log says what to do:
//! every other call of the kind will be answered the same until somebody changes the credential's role.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use tidegate_core::pace::Class;
use tidegate_core::permission::{MAX_BODY, missing};

use crate::body::ResponseBody;
use crate::call::Call;
use crate::credential::Credential;

/// How long the body of a 403 is waited for; without it the headers decide.
const WITHIN: Duration = Duration::from_secs(1);

/// Notes what an answer says is missing, and returns the answer as it came.
pub(super) async fn note(call: &Call, response: Response<ResponseBody>) -> Response<ResponseBody> {
    if response.status() != StatusCode::FORBIDDEN {
        return response;
    }
    let (parts, body) = response.into_parts();
    let (read, body) = body.peek(MAX_BODY, WITHIN).await;
    if let Some(missing) = missing(parts.status, &parts.headers, &read) {
        let missing: Arc<str> = missing.to_string().into();
        // A caller's own token is the caller's business.
        if let Credential::Managed(manager) = &call.credential {
            // Who polls in the background, as the reading of limits does, says itself what a refusal means.
            manager.denied(&call.family, &missing, call.class != Class::Poll);
        }
        call.note_missing(missing);
    }
    Response::from_parts(parts, body)
}
