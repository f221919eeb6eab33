//! A document as text: proto3 JSON of `strait.v1.AllowedApps`, under the key `strait/apps/<namespace>/<app id>`.
//!
//! Stricter than the mapping of proto3 where that would hide a mistake: an unknown field is refused, as is one that is there
//! twice, and no number stands for text. `null` is the default, as everywhere in proto3 JSON.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::allowed::{AllowedApps, RemoteApp, RemoteAppError};
use crate::model::app::AppId;
use crate::model::cluster::is_cluster_name;

use super::store::{MOST_BYTES, PREFIX};

const SHAPE: &str = r#"a document is {"app": "namespace/app", "allowed": [{"app": "namespace/app", "clusters": ["name"]}]}"#;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} column {column}: {message}; {fix}")]
pub struct FormatError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub fix: Cow<'static, str>,
}

/// The key of a caller's document.
pub fn key(caller: &AppId) -> String {
    format!("{PREFIX}{caller}")
}

/// Whose document a key is, or what is wrong with it, for the operator.
pub fn caller(key: &str) -> Result<AppId, String> {
    let app = key.strip_prefix(PREFIX).unwrap_or(key);
    AppId::parse(app)
        .map_err(|error| format!("the key is no {PREFIX}<namespace>/<app id>: {error}"))
}

/// Reads the document of a caller.
pub fn parse(caller: &AppId, text: &str) -> Result<AllowedApps, FormatError> {
    if text.len() > MOST_BYTES {
        let message = format!("a document of {} bytes, and {MOST_BYTES} are the most", text.len());
        return Err(wrong(text, 0, message, "leave out what is not called"));
    }
    if let Some(at) = text.find("||") {
        return Err(pipes(text, at));
    }
    let Object(written) = serde_json::from_str(text).map_err(|error| shape(text, &error))?;
    Reading { caller, text }.document(&written)
}

/// Reads one app of a document of a caller: `{"app": "namespace/app", "clusters": ["name"]}`.
pub fn parse_remote(caller: &AppId, text: &str) -> Result<RemoteApp, FormatError> {
    if let Some(at) = text.find("||") {
        return Err(pipes(text, at));
    }
    let read = serde_json::from_str(text);
    let Object(written) = read.map_err(|error| {
        let fix = r#"an app is {"app": "namespace/app", "clusters": ["name"]}"#.into();
        FormatError { fix, ..shape(text, &error) }
    })?;
    Reading { caller, text }.remote(&written).map(|(remote, _)| remote)
}

/// Writes a document: the canonical form, by which two of the same meaning compare equal.
pub fn text(says: &AllowedApps) -> String {
    let remote = |RemoteApp { app, clusters }: &RemoteApp| PrintedRemote {
        app: app.to_string(),
        clusters: clusters.clone(),
    };
    let allowed = says.allowed.iter().map(remote).collect();
    let printed = Printed { app: says.app.to_string(), allowed };
    // Text and lists of it: there is nothing that could not be written.
    serde_json::to_string(&printed).unwrap_or_default()
}

/// The JSON Schema of a document, which stands beside the protocol.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Written<'static>)
}

/// Which apps of other clusters an app may discover and call.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AllowedApps")]
struct Written<'a> {
    /// The caller, namespace/app. May be left out: the key says it.
    #[serde(borrow, default)]
    #[schemars(with = "Option<String>")]
    app: Option<&'a RawValue>,
    /// What it may call. Empty: nothing.
    #[serde(borrow, default)]
    #[schemars(with = "Option<Vec<WrittenRemote<'static>>>")]
    allowed: Option<Vec<Object<WrittenRemote<'a>>>>,
}

/// An app that may be called.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RemoteApp")]
struct WrittenRemote<'a> {
    /// namespace/app, or app in the caller's namespace.
    #[serde(borrow)]
    #[schemars(with = "String")]
    app: Option<&'a RawValue>,
    /// Where, in order of preference. Empty: in any cluster that exports it, in the order of the configuration's `clusters`.
    #[serde(borrow, default)]
    #[schemars(with = "Option<Vec<String>>")]
    clusters: Option<Vec<&'a RawValue>>,
}

#[derive(Serialize)]
struct Printed {
    app: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed: Vec<PrintedRemote>,
}

#[derive(Serialize)]
struct PrintedRemote {
    app: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clusters: Vec<Arc<str>>,
}

/// A JSON object, and no array of its values, which serde would take in its place.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// What the parts of a document are read with.
#[derive(Clone, Copy)]
struct Reading<'a> {
    caller: &'a AppId,
    text: &'a str,
}

impl Reading<'_> {
    fn document(self, written: &Written<'_>) -> Result<AllowedApps, FormatError> {
        if let Some(raw) = written.app {
            self.check_caller(raw)?;
        }
        let mut seen = HashSet::new();
        let mut allowed = Vec::new();
        for Object(remote) in written.allowed.iter().flatten() {
            let (remote, raw) = self.remote(remote)?;
            if !seen.insert(remote.app.clone()) {
                let message = format!("{} is allowed twice", remote.app);
                return Err(self.wrong(raw, message, "join the two, with the clusters of both"));
            }
            allowed.push(remote);
        }
        Ok(AllowedApps { app: self.caller.clone(), allowed })
    }

    fn check_caller(self, raw: &RawValue) -> Result<(), FormatError> {
        let app = self.string(raw)?;
        // The default: it is not said.
        if app.is_empty() || *app == *self.caller.label() {
            return Ok(());
        }
        let message = format!("`app` is {app:?}, and the key is that of {}", self.caller);
        Err(self.wrong(raw, message, "write the caller's own app, or leave `app` out"))
    }

    fn remote<'raw>(
        self,
        written: &WrittenRemote<'raw>,
    ) -> Result<(RemoteApp, Option<&'raw RawValue>), FormatError> {
        let name = written.app.map(|raw| self.string(raw)).transpose()?.unwrap_or_default();
        let app = RemoteApp::parse(Some(self.caller), &name);
        let app = app.map_err(|error| self.wrong(written.app, error.to_string(), error.fix()))?;
        let mut clusters: Vec<Arc<str>> = Vec::new();
        for &raw in written.clusters.iter().flatten() {
            let cluster = self.cluster(raw)?;
            if clusters.contains(&cluster) {
                let message = format!("{cluster} stands in this list twice");
                return Err(self.wrong(raw, message, "remove one of the two"));
            }
            clusters.push(cluster);
        }
        Ok((RemoteApp { app, clusters }, written.app))
    }

    fn cluster(self, raw: &RawValue) -> Result<Arc<str>, FormatError> {
        let name = self.string(raw)?;
        if is_cluster_name(&name) {
            return Ok(name.into());
        }
        let message = format!("{name:?} is no name of a cluster");
        let fix = "write it as `clusters` of the configuration has it; for any cluster leave `clusters` empty";
        Err(self.wrong(raw, message, fix))
    }

    fn string(self, raw: &RawValue) -> Result<String, FormatError> {
        serde_json::from_str(raw.get())
            .map_err(|_| self.wrong(raw, format!("{} is no text", raw.get()), SHAPE))
    }

    /// An error at a value of the text; at its beginning, where the value is not there.
    fn wrong<'raw>(
        self,
        raw: impl Into<Option<&'raw RawValue>>,
        message: String,
        fix: &'static str,
    ) -> FormatError {
        let start = |raw: &RawValue| raw.get().as_ptr().addr();
        let at = raw.into().map(|raw| start(raw).saturating_sub(self.text.as_ptr().addr()));
        wrong(self.text, at.unwrap_or_default(), message, fix)
    }
}

fn wrong(text: &str, at: usize, message: String, fix: &'static str) -> FormatError {
    let before = text.get(..at).unwrap_or_default();
    let (line, column) = before
        .rsplit_once('\n')
        .map_or((1, before), |(lines, last)| (lines.matches('\n').count() + 2, last));
    FormatError { line, column: column.chars().count() + 1, message, fix: fix.into() }
}

fn pipes(text: &str, at: usize) -> FormatError {
    let error = RemoteAppError::Pipes;
    wrong(text, at, error.to_string(), error.fix())
}

/// An error of the JSON itself, whose place serde tells in its text once more. Its columns count bytes.
fn shape(text: &str, error: &serde_json::Error) -> FormatError {
    let told = error.to_string();
    let message = told.rsplit_once(" at line ").map_or(&*told, |(message, _)| message);
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let before = line.get(..error.column().saturating_sub(1)).unwrap_or_default();
    FormatError {
        line: error.line().max(1),
        column: before.chars().count() + 1,
        message: message.to_owned(),
        fix: SHAPE.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frontend() -> AppId {
        AppId::parse("shop/frontend").unwrap()
    }

    fn read(text: &str) -> Result<String, String> {
        parse(&frontend(), text).map(|says| super::text(&says)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_document_is_read_as_proto3_json_is() {
        let whole = r#"{"app":"shop/frontend","allowed":[{"app":"shop/orders","clusters":["east","west"]},{"app":"lab/x"}]}"#;
        let short = r#"{"allowed": [{"clusters": ["east", "west"], "app": "orders"}, {"app": "lab/x", "clusters": null}]}"#;
        assert_eq!((read(whole), read(short)), (Ok(whole.to_owned()), Ok(whole.to_owned())));
        for nothing in [
            r#"{"app":"shop/frontend"}"#,
            "{}",
            r#"{"app":null,"allowed":null}"#,
            r#"{"app":"","allowed":[]}"#,
        ] {
            assert_eq!(read(nothing).unwrap(), r#"{"app":"shop/frontend"}"#, "{nothing}");
        }
        assert!(read(r#"{"allowed":[{"app":"\u006frders"}]}"#).unwrap().contains("shop/orders"));
    }

    #[test]
    fn one_app_is_read_as_those_of_a_document_are() {
        let read = |text| parse_remote(&frontend(), text).map_err(|error| error.to_string());
        let orders = read(r#"{"app": "orders", "clusters": ["east"]}"#).unwrap();
        assert_eq!(orders.app.to_string(), "shop/orders");
        assert_eq!(*orders.clusters, [Arc::from("east")]);
        for (text, expected) in [
            ("[]", "line 1 column 1: "),
            ("{}", "line 1 column 1: "),
            ("{\n\"app\": \"*\"}", "line 2 column 8: "),
            (r#"{"app": "a||b"}"#, "line 1 column "),
        ] {
            assert!(read(text).unwrap_err().starts_with(expected), "{:?}", read(text));
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        for (text, expected) in [
            ("", "line 1 column 1: EOF while parsing a value"),
            ("nonsense", "line 1 column 2: expected ident"),
            ("{", "line 1 column 1: EOF while parsing an object"),
            ("{} {}", "line 1 column 4: trailing characters"),
            (
                r#"["shop/frontend", []]"#,
                "line 1 column 1: invalid type: sequence, expected an object",
            ),
            ("null", "line 1 column 4: invalid type: null, expected an object"),
            (
                r#"{"allowed": [["orders"]]}"#,
                "line 1 column 13: invalid type: sequence, expected an object",
            ),
            (
                "{\"allowed\":\n [{\"app\": \"orders\", \"cluster\": []}]}",
                "line 2 column 29: unknown field `cluster`, expected `app` or `clusters`",
            ),
            (
                r#"{"app":"shop/frontend","app":"shop/frontend"}"#,
                "line 1 column 28: duplicate field `app`",
            ),
            (r#"{"app":7}"#, "line 1 column 8: 7 is no text"),
            (
                r#"{"app":"shop/other"}"#,
                "line 1 column 8: `app` is \"shop/other\", and the key is that of shop/frontend; write the caller's own app",
            ),
            (
                "{\"allowed\":[{\"app\":\"ä\"}]}",
                "line 1 column 20: 'ä' cannot stand in a server name",
            ),
            (
                r#"{"allowed":[{"app":"*"}]}"#,
                "line 1 column 20: `*` is no app: it would also admit to every app that is exported later; name each app",
            ),
            (r#"{"allowed":[{"app":"shop/*"}]}"#, "line 1 column 20: `*` is no app"),
            (
                r#"{"allowed":[{"app":"a"},{"app":"a||b"}]}"#,
                "line 1 column 34: no app can hold `||`",
            ),
            (r#"{"allowed":[{"app":"a|\u007cb"}]}"#, "line 1 column 20: no app can hold `||`"),
            (r#"{"allowed":[{}]}"#, "line 1 column 1: the namespace or the app id is empty"),
            (
                r#"{"allowed":[{"app":""}]}"#,
                "line 1 column 20: the namespace or the app id is empty",
            ),
            (r#"{"allowed":[null]}"#, "line 1 column 16: invalid type: null"),
            (
                r#"{"allowed":[{"app":"a"},{"app":"b"},{"app":"shop/a"}]}"#,
                "line 1 column 44: shop/a is allowed twice; join the two",
            ),
            (
                r#"{"allowed":[{"app":"a","clusters":["east",null]}]}"#,
                "line 1 column 43: null is no text",
            ),
            (
                r#"{"allowed":[{"app":"a","clusters":["*"]}]}"#,
                "line 1 column 36: \"*\" is no name of a cluster; write it as",
            ),
            (
                r#"{"allowed":[{"app":"a","clusters":["east","east"]}]}"#,
                "line 1 column 43: east stands in this list twice",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(
                error.starts_with(expected),
                "{text}
{error}
{expected}"
            );
        }
        let long = format!("{{{}}}", " ".repeat(MOST_BYTES));
        assert!(read(&long).unwrap_err().contains("65536 are the most"));
    }

    #[test]
    fn a_key_names_one_app() {
        assert_eq!(caller(&key(&frontend())), Ok(frontend()));
        for key in ["strait/apps/", "strait/apps/frontend", "strait/apps/a/b/c", "else"] {
            assert!(caller(key).unwrap_err().starts_with("the key is no strait/apps/"), "{key}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            apps in prop::collection::btree_map("[a-z]{1,3}/[a-zA-Z.]{1,3}", prop::collection::btree_set("[a-z]{1,3}", 0..3), 0..8),
        ) {
            let remote = |(app, clusters): (String, std::collections::BTreeSet<String>)| RemoteApp {
                app: AppId::parse(&app).unwrap(),
                clusters: clusters.into_iter().map(Into::into).collect(),
            };
            let says = AllowedApps { app: frontend(), allowed: apps.into_iter().map(remote).collect() };
            prop_assert_eq!(parse(&frontend(), &text(&says)), Ok(says));
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,200}") {
            let _ = parse(&frontend(), &text);
        }
    }
}
