//! What the trigger of a table tells: `{"table": …, "action": …, "data": {row}}`, in the format of Dapr's configuration component.

use serde::Deserialize;
use serde_json::{Map, Value};

/// What a notification is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// This key. What it has now is to be read: the payload's value may be left out, and may be old.
    Key(String),
    /// Something of the table, and it is not said what.
    Something,
    /// Another table: a channel may serve several.
    Other,
}

#[derive(Deserialize)]
struct Payload {
    table: Option<String>,
    /// `DELETE` brings the row that is gone, which only this tells from one that is new. Whether the key still has another row is
    /// known by reading it, so that both are the same to us.
    #[serde(rename = "action")]
    _action: Option<String>,
    data: Option<Map<String, Value>>,
}

/// Reads a payload. `column` is the name of the key's column.
pub(super) fn read(payload: &str, table: &str, column: &str) -> Notice {
    let Ok(payload) = serde_json::from_str::<Payload>(payload) else { return Notice::Something };
    if payload.table.is_some_and(|named| named != table) {
        return Notice::Other;
    }
    let data = payload.data.unwrap_or_default();
    // Dapr takes the column's name in any case.
    let key = data.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(column));
    match key {
        Some((_, Value::String(key))) => Notice::Key(key),
        Some(_) | None => Notice::Something,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &str) -> Notice {
        super::read(payload, "apps", "key")
    }

    #[test]
    fn the_key_is_read_and_nothing_else() {
        let key = Notice::Key("strait/apps/a/b".to_owned());
        for action in ["INSERT", "UPDATE", "DELETE"] {
            let payload = format!(
                r#"{{"table":"apps","action":"{action}","data":{{"key":"strait/apps/a/b","value":"x","version":"1","metadata":null}}}}"#
            );
            assert_eq!(read(&payload), key);
        }
        assert_eq!(
            read(r#"{"table":"apps","action":"INSERT","data":{"KEY":"strait/apps/a/b"}}"#),
            key
        );
    }

    #[test]
    fn another_table_is_told_apart() {
        assert_eq!(read(r#"{"table":"x","action":"INSERT","data":{"key":"a"}}"#), Notice::Other);
    }

    #[test]
    fn what_names_no_key_is_a_reason_to_look() {
        for payload in [
            "",
            "x",
            "{}",
            "[]",
            r#"{"table":"apps","data":null}"#,
            r#"{"data":{"key":7}}"#,
            r#"{"data":"x"}"#,
        ] {
            assert_eq!(read(payload), Notice::Something, "{payload}");
        }
    }
}
