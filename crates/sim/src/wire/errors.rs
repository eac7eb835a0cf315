//! Error bodies in the platform's shapes, with the member order of the documented samples.

use serde::Serialize;

use crate::model::limits::Refusal;
use crate::wire::message::ApiResponse;

/// The platform's `ErrorBody`; members in the order of the documented samples.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody<'a> {
    message: &'a str,
    code: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_params: Option<PermissionParams<'a>>,
    context_id: &'a str,
    details: [(); 0],
    errors: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<LimitBody<'a>>,
}

#[derive(Serialize)]
struct PermissionParams<'a> {
    permissions: &'a str,
}

#[derive(Serialize)]
struct LimitBody<'a> {
    key: &'a str,
    namespace: &'a str,
    value: u32,
}

/// The token endpoint's error shape.
#[derive(Serialize)]
struct OauthBody<'a> {
    error: &'a str,
    description: &'a str,
    error_description: &'a str,
}

/// An error of the API, before it has a correlation id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The platform's error code.
    pub code: &'static str,
    /// What a person reads.
    pub message: String,
    /// The limit a 429 names, as key, namespace and value.
    pub limit: Option<(String, String, u32)>,
    /// The permission a 403 names in `messageParams` too.
    pub permission: Option<Box<str>>,
}

impl ApiError {
    /// An error without a limit.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), limit: None, permission: None }
    }

    /// 400 with the platform's general code.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "bad.request", message)
    }

    /// 401 for a missing bearer.
    pub fn no_bearer() -> Self {
        Self::new(
            401,
            "authentication.required",
            "No authentication bearer token specified in authorization header.",
        )
    }

    /// 401 for a token that is unknown, revoked or expired.
    pub fn bad_credentials() -> Self {
        Self::new(401, "bad.credentials", "Invalid login credentials.")
    }

    /// 403 for a missing scope.
    pub fn missing_permission(permission: &str) -> Self {
        let message = format!(
            "Unable to perform the requested action. You are missing the following permission(s): {permission}"
        );
        Self { permission: Some(permission.into()), ..Self::new(403, "missing.any.permissions", message) }
    }

    /// 404 of an object or path.
    pub fn not_found(what: &str) -> Self {
        Self::new(404, "not.found", format!("The requested resource was not found: {what}"))
    }

    /// 409 of a stale version.
    pub fn version_conflict(sent: u64, current: u64) -> Self {
        Self::new(
            409,
            "general.conflict",
            format!(
                "Version {sent} does not match the current version {current}; read the resource and retry"
            ),
        )
    }

    /// The throttle. `seconds` is what the body says to wait; without it the older code and text are used. The text is the
    /// platform's normalised one of November 2021.
    pub fn throttled(seconds: Option<u64>, limit: Option<&Refusal>) -> Self {
        let (code, message) = match seconds {
            Some(seconds) => (
                "too.many.requests.retry.after",
                format!("Rate limit exceeded the maximum. Retry the request in [{seconds}] seconds"),
            ),
            None => ("too.many.requests", "Rate limit exceeded the maximum.".to_owned()),
        };
        let limit = limit.map(|refusal| (refusal.key.clone(), refusal.namespace.clone(), refusal.value));
        Self { limit, ..Self::new(429, code, message) }
    }

    /// The answer with its correlation id.
    pub fn render(&self, context_id: &str) -> ApiResponse {
        let body = ErrorBody {
            message: &self.message,
            code: self.code,
            status: self.status,
            message_params: self.permission.as_deref().map(|permissions| PermissionParams { permissions }),
            context_id,
            details: [],
            errors: [],
            limit: self.limit.as_ref().map(|(key, namespace, value)| LimitBody {
                key,
                namespace,
                value: *value,
            }),
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers always serialise");
        ApiResponse::text(self.status, "application/json", body)
    }
}

/// An error of the token endpoint.
pub fn oauth_error(status: u16, error: &str, description: &str, error_description: &str) -> ApiResponse {
    let body = OauthBody { error, description, error_description };
    let body = serde_json::to_vec(&body).expect("strings always serialise");
    ApiResponse::text(status, "application/json", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_throttle_has_the_documented_bytes() {
        let body = ApiError::throttled(Some(42), None).render("c0ffee").body;
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"message":"Rate limit exceeded the maximum. Retry the request in [42] seconds","code":"too.many.requests.retry.after","status":429,"contextId":"c0ffee","details":[],"errors":[]}"#
        );
    }

    #[test]
    fn the_limit_can_be_named() {
        let refusal = Refusal {
            key: "token.rate.per.minute".to_owned(),
            namespace: "platform.api".to_owned(),
            value: 300,
            retry_after: std::time::Duration::ZERO,
        };
        let body = String::from_utf8(ApiError::throttled(None, Some(&refusal)).render("x").body).unwrap();
        assert!(body.ends_with(
            r#""errors":[],"limit":{"key":"token.rate.per.minute","namespace":"platform.api","value":300}}"#
        ));
        assert!(body.contains(r#""code":"too.many.requests","#));
    }
}
