//! An app as Dapr knows it: an id within a namespace, written `namespace/app` everywhere.

use std::fmt;
use std::sync::Arc;

/// A (namespace, app id). The id keeps its case, as the SNI of a Dapr sidecar does.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId {
    written: Arc<str>,
    slash: usize,
}

/// Why a text is no app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppIdError {
    /// No slash, or more than one.
    #[error("an app is written namespace/app")]
    Shape,
    /// Nothing on one side of the slash.
    #[error("the namespace or the app id is empty")]
    Empty,
    /// A character that cannot stand in a server name, where both parts go.
    #[error(
        "{0:?} cannot stand in a server name; letters, digits, hyphen and underscore can, and a dot in the app id"
    )]
    BadCharacter(char),
}

impl AppId {
    /// Reads `namespace/app`.
    pub fn parse(written: &str) -> Result<Self, AppIdError> {
        let (namespace, app) = written.split_once('/').ok_or(AppIdError::Shape)?;
        if app.contains('/') {
            return Err(AppIdError::Shape);
        }
        if namespace.is_empty() || app.is_empty() {
            return Err(AppIdError::Empty);
        }
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        let bad = namespace.chars().find(|&letter| !plain(letter));
        let bad = bad.or_else(|| app.chars().find(|&letter| !plain(letter) && letter != '.'));
        match bad {
            Some(letter) => Err(AppIdError::BadCharacter(letter)),
            None => Ok(Self { written: written.into(), slash: namespace.len() }),
        }
    }

    /// The Dapr namespace.
    pub fn namespace(&self) -> &str {
        self.written.get(..self.slash).unwrap_or_default()
    }

    /// The Dapr app id.
    pub fn app(&self) -> &str {
        self.written.get(self.slash + 1..).unwrap_or_default()
    }

    /// `namespace/app`.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// `namespace/app`, shared.
    pub fn label(&self) -> Arc<str> {
        Arc::clone(&self.written)
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.written)
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_has_a_namespace_and_an_id() {
        let app = AppId::parse("shop/Check_out").unwrap();
        assert_eq!((app.namespace(), app.app()), ("shop", "Check_out"));
        assert_eq!(app.to_string(), "shop/Check_out");
    }

    #[test]
    fn what_no_server_name_can_hold_is_refused() {
        assert_eq!(AppId::parse("checkout"), Err(AppIdError::Shape));
        assert_eq!(AppId::parse("a/b/c"), Err(AppIdError::Shape));
        assert_eq!(AppId::parse("/b"), Err(AppIdError::Empty));
        assert_eq!(AppId::parse("a/"), Err(AppIdError::Empty));
        assert_eq!(AppId::parse("shop/a||b"), Err(AppIdError::BadCharacter('|')));
        assert_eq!(AppId::parse("shop/*"), Err(AppIdError::BadCharacter('*')));
    }
}
