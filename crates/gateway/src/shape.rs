//! The bodies of the gateway's own answers, in the shape of the upstream's errors.
//!
//! A program reads an error of its API with the code it has for that API; a body of another shape would be a second error.
//! The profile says which shape it is (`[errors] shape`).

use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tidegate_core::profile::ErrorShape;

/// The error body of the Genesys Cloud Platform API.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Genesys<'a> {
    message: &'a str,
    code: &'a str,
    status: u16,
    context_id: &'a str,
    details: [(); 0],
    errors: [(); 0],
}

/// RFC 9457, "Problem Details for HTTP APIs". With the type `about:blank` the title is the status's own phrase
/// (section 4.2.1).
#[derive(Debug, Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

/// What GitHub and many others write.
#[derive(Debug, Serialize)]
struct Message<'a> {
    message: &'a str,
}

/// The body that says `message`, and its content type. `code` is a word for programs, where the shape has a place for it.
pub(crate) fn error_body(
    shape: ErrorShape,
    status: StatusCode,
    code: &str,
    message: &str,
) -> (Vec<u8>, HeaderValue) {
    let (body, kind) = match shape {
        ErrorShape::Genesys => {
            let context_id = format!("{:032x}", fastrand::u128(..));
            let body = Genesys {
                message,
                code,
                status: status.as_u16(),
                context_id: &context_id,
                details: [],
                errors: [],
            };
            (serde_json::to_vec(&body), "application/json")
        }
        ErrorShape::Problem => {
            let title = status.canonical_reason().unwrap_or(code);
            let body = Problem { r#type: "about:blank", title, status: status.as_u16(), detail: message };
            (serde_json::to_vec(&body), "application/problem+json")
        }
        ErrorShape::Message => (serde_json::to_vec(&Message { message }), "application/json"),
    };
    (body.expect("strings and numbers serialise"), HeaderValue::from_static(kind))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(shape: ErrorShape) -> (Value, HeaderValue) {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let (body, kind) = error_body(shape, status, "too.many.requests", "say \"when\"");
        (serde_json::from_slice(&body).expect("json"), kind)
    }

    #[test]
    fn a_problem_has_the_members_and_the_type_of_the_rfc() {
        let expected = json!({
            "type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": "say \"when\""
        });
        let (body, kind) = body(ErrorShape::Problem);
        assert_eq!((body, kind), (expected, HeaderValue::from_static("application/problem+json")));
    }

    #[test]
    fn a_plain_message_has_nothing_beside_it() {
        let (body, kind) = body(ErrorShape::Message);
        assert_eq!(body, json!({ "message": "say \"when\"" }));
        assert_eq!(kind, "application/json");
    }

    #[test]
    fn the_platforms_shape_has_every_member_its_sdks_read() {
        let (body, kind) = body(ErrorShape::Genesys);
        assert_eq!((&body["code"], &body["status"]), (&json!("too.many.requests"), &json!(429)));
        assert_eq!((&body["details"], &body["errors"]), (&json!([]), &json!([])));
        assert!(body["contextId"].as_str().is_some_and(|id| id.len() == 32));
        assert_eq!(kind, "application/json");
    }
}
