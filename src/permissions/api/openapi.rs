//! The description of the API (`OpenAPI` 3.1): paths as the routes have them, schemas as the types make them. It is kept in the tree,
//! `proto/strait/v1/openapi.json`, and a test compares the two.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::problem::Problem;
use crate::routing::discover::Discovery;

use super::wire::{AllowedApps, Documents, Event, RemoteApp, Written};

const CALLER: [(&str, &str); 2] =
    [("namespace", "Dapr namespace of the caller."), ("app", "Dapr app id of the caller.")];
const WAIT: &str = "Seconds that the answer may wait until the change is in force at this gateway; 60 at most, 0 by default.";
const WATCH: &str = "true: answers with lines of JSON, each an Event: first a `document` for each that is in force and `complete`, \
     then what changes, and a `heartbeat` every 10 seconds. Ends when the gateway does.";

/// The description.
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut schemas = settings.into_generator();
    let paths = paths(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Strait: allowed apps",
            "version": "v1",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Which apps of other clusters each app may discover and call. Served by `listeners.admin`. What changes \
                 something needs `Content-Type: application/json`, also without a body.",
        },
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": { "token": {
                "type": "http", "scheme": "bearer",
                "description": "A token of `listeners.admin.tokenFile`. A client certificate will do as well, and none of them is \
                     needed at a loopback address or a Unix socket unless one is configured.",
            } },
        },
    })
}

fn paths(schemas: &mut SchemaGenerator) -> Value {
    let documents = Operation::new(
        "listAllowed",
        "The documents in force, of the store and of the configuration",
    )
    .query("app", "string", "One caller alone, namespace/app.")
    .query("watch", "boolean", WATCH)
    .answers::<Documents>(schemas)
    .lines::<Event>(schemas)
    .problems(schemas, &[400, 503]);
    let read = Operation::new(
        "getAllowed",
        "A caller's document, as the store has it now; its version is the ETag",
    )
    .of_caller()
    .answers::<AllowedApps>(schemas)
    .also(304, "The version is that of If-None-Match.")
    .problems(schemas, &[400, 404, 409, 502, 503]);
    let set = Operation::new("setAllowed", "Replaces a whole document")
        .changes()
        .takes::<AllowedApps>(schemas)
        .answers::<Written>(schemas)
        .also(201, "Made: there was none, as If-None-Match: * demands.")
        .problems(schemas, &[400, 403, 408, 409, 412, 413, 415, 502, 503]);
    let remove = Operation::new("deleteAllowed", "Removes a document")
        .changes()
        .answers::<Written>(schemas)
        .problems(schemas, &[400, 403, 404, 409, 412, 415, 502, 503]);
    let change = |name, summary, schemas: &mut SchemaGenerator| {
        Operation::new(name, summary)
            .changes()
            .takes::<RemoteApp>(schemas)
            .answers::<Written>(schemas)
            .problems(schemas, &[400, 403, 408, 409, 412, 413, 415, 502, 503])
    };
    let allow =
        change("allow", "Allows a caller one more app, or the same in other clusters", schemas);
    let revoke =
        change("revoke", "Allows a caller an app no more; `clusters` is left out", schemas);
    let discover = Operation::new(
        "discoverApps",
        "What a caller may call: where, whether that is well, by which names and addresses",
    )
    .of_caller()
    .answers::<Discovery>(schemas)
    .problems(schemas, &[400]);
    json!({
        "/v1/allowed": { "get": documents.0 },
        "/v1/allowed/{namespace}/{app}": { "get": read.0, "put": set.0, "delete": remove.0 },
        "/v1/allowed/{namespace}/{app}:allow": { "post": allow.0 },
        "/v1/allowed/{namespace}/{app}:revoke": { "post": revoke.0 },
        "/v1/discover/{namespace}/{app}": { "get": discover.0 },
    })
}

/// One operation, put together.
struct Operation(Map<String, Value>);

impl Operation {
    fn new(id: &str, summary: &str) -> Self {
        let mut operation = Map::new();
        operation.insert("operationId".into(), id.into());
        operation.insert("summary".into(), summary.into());
        Self(operation)
    }

    fn parameter(mut self, parameter: &Value) -> Self {
        let parameters = self.0.entry("parameters").or_insert_with(|| json!([]));
        parameters.as_array_mut().into_iter().for_each(|all| all.push(parameter.clone()));
        self
    }

    fn query(self, name: &str, kind: &str, description: &str) -> Self {
        let schema = json!({ "type": kind });
        self.parameter(
            &json!({ "name": name, "in": "query", "schema": schema, "description": description }),
        )
    }

    fn of_caller(self) -> Self {
        CALLER.into_iter().fold(self, |operation, (name, description)| {
            let schema = json!({ "type": "string" });
            operation.parameter(&json!({
                "name": name, "in": "path", "required": true, "schema": schema, "description": description,
            }))
        })
    }

    /// Parameters of what changes something.
    fn changes(self) -> Self {
        let header = |name: &str, description: &str| {
            let schema = json!({ "type": "string" });
            json!({ "name": name, "in": "header", "schema": schema, "description": description })
        };
        let matching = "The ETag of the version that is to be replaced, or * for any; without it, whatever is there.";
        self.of_caller()
            .query("wait", "integer", WAIT)
            .parameter(&header("If-Match", matching))
            .parameter(&header("If-None-Match", "*: nothing may be there."))
    }

    fn takes<T: JsonSchema>(mut self, schemas: &mut SchemaGenerator) -> Self {
        let content = content("application/json", &schemas.subschema_for::<T>());
        self.0.insert("requestBody".into(), json!({ "required": true, "content": content }));
        self
    }

    fn answer(
        mut self,
        status: u16,
        kind: &str,
        description: &str,
        schema: Option<Schema>,
    ) -> Self {
        let answers = self.0.entry("responses").or_insert_with(|| json!({}));
        let Some(answers) = answers.as_object_mut() else { return self };
        let answer = answers
            .entry(status.to_string())
            .or_insert_with(|| json!({ "description": description }));
        if let (Some(schema), Some(answer)) = (schema, answer.as_object_mut()) {
            let known = answer.entry("content").or_insert_with(|| json!({}));
            known.as_object_mut().into_iter().for_each(|known| {
                known.insert(kind.to_owned(), json!({ "schema": schema }));
            });
        }
        self
    }

    fn answers<T: JsonSchema>(self, schemas: &mut SchemaGenerator) -> Self {
        let schema = schemas.subschema_for::<T>();
        self.answer(200, "application/json", "Done.", Some(schema))
    }

    fn lines<T: JsonSchema>(self, schemas: &mut SchemaGenerator) -> Self {
        let schema = schemas.subschema_for::<T>();
        self.answer(200, "application/x-ndjson", "Done.", Some(schema))
    }

    fn also(self, status: u16, description: &str) -> Self {
        self.answer(status, "application/json", description, None)
    }

    /// What may go wrong; who asks may be unknown everywhere.
    fn problems(self, schemas: &mut SchemaGenerator, statuses: &[u16]) -> Self {
        [401].iter().chain(statuses).fold(self, |operation, status| {
            let schema = schemas.subschema_for::<Problem>();
            operation.answer(*status, "application/problem+json", meaning(*status), Some(schema))
        })
    }
}

fn content(kind: &str, schema: &Schema) -> Value {
    let mut content = Map::new();
    content.insert(kind.to_owned(), json!({ "schema": schema }));
    content.into()
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "Not understood, or no document; `line` and `column` tell where.",
        401 => "Who asks is not known.",
        403 => "A page of another site asks, or nobody may.",
        404 => "There is no such document.",
        408 => "The body did not come in time.",
        409 => "There is no store to write to, or what it has is no document.",
        412 => "Another version is there: `version` tells which.",
        413 => "The document is too large.",
        415 => "It is not said to be JSON.",
        502 => "The store does not let the gateway do this.",
        503 => "The store does not answer, or too many watches are open; worth another try.",
        _ => "It went wrong.",
    }
}
