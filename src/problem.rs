//! Errors of an HTTP API: problem details (RFC 9457), with what to do about them.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// What all types begin with. A name and no address: there is nothing behind it.
const TYPES: &str = "urn:strait:problem:";

/// What stands in the body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// Which kind of problem it is, for programs: `urn:strait:problem:conflict`. Kinds are added, never renamed.
    #[serde(rename = "type")]
    pub kind: Box<str>,
    /// The same for people; it does not depend on the occurrence.
    pub title: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time.
    pub detail: Box<str>,
    /// What to do about it.
    pub fix: Box<str>,
    /// The version that is there, where another one was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Box<str>>,
    /// The line of the text that is wrong, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in that line, in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// A header that belongs to it.
    #[serde(skip)]
    #[schemars(skip)]
    pub header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Problem {
    /// A problem of a kind: its name within the types, and its title.
    pub fn new(
        status: StatusCode,
        (name, title): (&str, &str),
        detail: impl Into<Box<str>>,
        fix: impl Into<Box<str>>,
    ) -> Self {
        Self {
            kind: format!("{TYPES}{name}").into(),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            fix: fix.into(),
            version: None,
            line: None,
            column: None,
            header: None,
        }
    }

    /// In a text that was sent, at this line and column.
    #[must_use]
    pub fn at(self, line: usize, column: usize) -> Self {
        // A text is bounded far below.
        Self { line: u32::try_from(line).ok(), column: u32::try_from(column).ok(), ..self }
    }

    /// With a header.
    #[must_use]
    pub fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some(Box::new((name, value))), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Fails only for maps with keys that are no text, which a problem does not have.
        let body = serde_json::to_string(&self).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, format!("{body}\n")).into_response();
        response.headers_mut().extend(self.header.map(|header| *header));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_says_what_it_is_and_what_to_do() {
        let problem =
            Problem::new(StatusCode::CONFLICT, ("there", "It is there"), "a is there", "remove a");
        let problem = problem.at(3, 14);
        let retry = (header::RETRY_AFTER, HeaderValue::from_static("1"));
        let response = problem.with_header(retry.0, retry.1).into_response();
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "1");
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "urn:strait:problem:there", "title": "It is there", "status": 409, "detail": "a is there",
            "fix": "remove a", "line": 3, "column": 14,
        });
        assert_eq!(body, expected);
    }
}
