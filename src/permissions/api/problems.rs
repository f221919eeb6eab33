//! What is wrong, as the API tells it: each with what to do.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};

use crate::model::app::AppId;
use crate::permissions::format::FormatError;
use crate::permissions::service::ServiceError;
use crate::permissions::store::StoreError;
use crate::problem::Problem;

const CONFLICT: (&str, &str) = ("conflict", "Another version is there");
const NO_DOCUMENT: (&str, &str) = ("no-document", "No such document");
const BAD_DOCUMENT: (&str, &str) = ("bad-document", "Not a document");
const BAD_REQUEST: (&str, &str) = ("bad-request", "Not understood");
/// What a client waits with until it asks a store again that is down.
const RETRY_AFTER: (HeaderName, HeaderValue) = (header::RETRY_AFTER, HeaderValue::from_static("1"));

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let detail = error.to_string();
        match error {
            ServiceError::NoStore => {
                let fix = "configure `allowedApps.store`, or write the document under `allowed` in the configuration";
                Self::new(StatusCode::CONFLICT, ("no-store", "There is no store"), detail, fix)
            }
            ServiceError::Absent(_) => {
                let fix = "make it: PUT with `If-None-Match: *`, or POST :allow; GET /v1/allowed lists what is in force";
                Self::new(StatusCode::NOT_FOUND, NO_DOCUMENT, detail, fix)
            }
            ServiceError::Precondition(version)
            | ServiceError::Store(StoreError::Conflict(version)) => {
                let fix = "read the document again, make your change to that one, and send its ETag as If-Match";
                let problem = Self::new(StatusCode::PRECONDITION_FAILED, CONFLICT, detail, fix);
                Self { version: version.map(|version| version.as_str().into()), ..problem }
            }
            ServiceError::Store(StoreError::Unavailable(_)) => {
                let kind = ("store-unavailable", "The store does not answer");
                let fix = "try again; what is in force stays so meanwhile. `strait status` tells since when the store is down. A write without an answer may have been made: read before you repeat it";
                let (name, value) = RETRY_AFTER;
                Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail, fix)
                    .with_header(name, value)
            }
            ServiceError::Store(StoreError::Refused(_)) => {
                let kind = ("store-refused", "The store does not let the gateway do this");
                let fix = "let the gateway's user of the store read and write the keys below strait/apps/";
                Self::new(StatusCode::BAD_GATEWAY, kind, detail, fix)
            }
            ServiceError::Garbled(_, error) => {
                let kind = ("garbled-document", "What is stored is no document");
                let fix = "replace it with PUT, or remove it with DELETE; the last good one stays in force meanwhile";
                let problem = Self::new(StatusCode::CONFLICT, kind, detail, fix);
                problem.at(error.line, error.column)
            }
            ServiceError::TooLong(..) => {
                let fix = "leave out what is not called";
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, ("too-large", "Too large"), detail, fix)
            }
        }
    }
}

impl From<FormatError> for Problem {
    fn from(error: FormatError) -> Self {
        let FormatError { line, column, message, fix } = error;
        let detail = format!("line {line} column {column}: {message}");
        let problem = Self::new(StatusCode::BAD_REQUEST, BAD_DOCUMENT, detail, fix);
        problem.at(line, column)
    }
}

pub(super) fn bad_request(detail: impl Into<Box<str>>, fix: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, BAD_REQUEST, detail, fix)
}

pub(super) fn too_large(most: usize) -> Problem {
    let detail = format!("the body has more than {most} bytes");
    let fix = "leave out what is not called";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ("too-large", "Too large"), detail, fix)
}

pub(super) fn too_slow() -> Problem {
    let detail = "the rest of the body did not come in time";
    Problem::new(StatusCode::REQUEST_TIMEOUT, ("too-slow", "Too slow"), detail, "send it again")
}

pub(super) fn too_many_watches(most: usize) -> Problem {
    let kind = ("too-many-watches", "Too many watches");
    let detail = format!("{most} watches are open, and no more are taken");
    let fix = "end one that is not needed, or ask for GET /v1/allowed now and then";
    let (name, value) = RETRY_AFTER;
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail, fix).with_header(name, value)
}

pub(super) fn not_found() -> Problem {
    let detail = "there is nothing of this path";
    let fix = "GET /v1/openapi.json tells what there is";
    Problem::new(StatusCode::NOT_FOUND, ("no-path", "No such path"), detail, fix)
}

pub(super) fn not_allowed(method: &str, allowed: &'static str) -> Problem {
    let kind = ("method", "Not a method of this path");
    let detail = format!("{} is not understood here", method.escape_debug());
    let fix = format!("use {allowed}; GET /v1/openapi.json tells what each does");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, kind, detail, fix)
        .with_header(header::ALLOW, HeaderValue::from_static(allowed))
}

/// Only the configuration has a document of this caller, and no store is there.
pub(super) fn nothing_configured(caller: &AppId) -> Problem {
    let detail = format!("{caller} has no document");
    let fix = "write one under `allowed` in the configuration, or configure `allowedApps.store`";
    Problem::new(StatusCode::NOT_FOUND, NO_DOCUMENT, detail, fix)
}

pub(super) fn internal() -> Problem {
    let detail = "the answer failed";
    let fix = "see the gateway's log";
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        ("internal", "A fault of the gateway's own"),
        detail,
        fix,
    )
}
