//! The file of bearer tokens: read at every request that brings one, so what it holds is always what counts.
//!
//! A request costs one read of a small file. Nothing has to be watched, and a file that is gone or cannot be read admits nobody.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use subtle::ConstantTimeEq;

/// Largest file: a thousand tokens.
const MOST_BYTES: u64 = 64 << 10;
/// Shortest token, in characters: 128 bits in base64. A shorter one could be guessed over the network.
const SHORTEST: usize = 22;
/// What a token is called that has no name.
const UNNAMED: &str = "(unnamed)";

/// One token of the file.
struct Token<'a> {
    name: &'a str,
    secret: &'a str,
}

/// The name of a token, if the file has it. Every token of the file is compared, each in a time that depends on lengths alone.
pub(super) fn find(file: &Path, presented: &str) -> io::Result<Option<Arc<str>>> {
    let text = read(file)?;
    let mut found = None;
    for token in tokens(&text).flatten() {
        if bool::from(token.secret.as_bytes().ct_eq(presented.as_bytes())) {
            found = Some(token.name.into());
        }
    }
    Ok(found)
}

/// What is wrong with a file: message and fix.
pub(super) fn check(file: &Path) -> Result<(), (String, String)> {
    let fix = "write one token a line, or name:token: `openssl rand -hex 32` makes one";
    let wrong = |message: String| Err((message, fix.to_owned()));
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => {
            let fix = "let the user that the gateway runs as read it, and nobody else";
            return Err((format!("the tokens cannot be read: {error}"), fix.to_owned()));
        }
    };
    let mut count = 0;
    for (number, token) in tokens(&text).enumerate() {
        match token {
            Ok(_) => count += 1,
            Err(short) => {
                return wrong(format!(
                    "token {} has {short} characters, at least {SHORTEST} are needed",
                    number + 1
                ));
            }
        }
    }
    if count == 0 { wrong("there is no token in it".to_owned()) } else { Ok(()) }
}

/// The tokens of a text; of a token that is too short its length.
fn tokens(text: &str) -> impl Iterator<Item = Result<Token<'_>, usize>> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let (name, secret) = line.split_once(':').unwrap_or((UNNAMED, line));
        let (name, secret) = (name.trim(), secret.trim());
        if secret.len() < SHORTEST { Err(secret.len()) } else { Ok(Token { name, secret }) }
    })
}

fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // Anything else may never end: a device, a pipe.
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if metadata.mode() & 0o007 != 0 && !is_kubernetes(path) {
        let message = format!(
            "everybody on this host may use it (mode {:04o}): chmod 0600 it",
            metadata.mode() & 0o777
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let mut text = String::new();
    if file.take(MOST_BYTES + 1).read_to_string(&mut text)? as u64 > MOST_BYTES {
        let message = format!("it has more than {MOST_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// Whether Kubernetes has put it there, behind a link: the mode is then the volume's, and nobody else is in the container.
fn is_kubernetes(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target.starts_with("..data"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const LONG: &str = "0123456789abcdef0123456789abcdef";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    fn found(text: &str, presented: &str) -> Option<String> {
        find(file(text).path(), presented).unwrap().map(|name| name.to_string())
    }

    #[test]
    fn a_token_is_found_by_the_whole_of_it() {
        let text = format!("# tokens\n\ndeploy: {LONG}d\r\n{LONG}\n");
        assert_eq!(found(&text, LONG).as_deref(), Some(UNNAMED));
        assert_eq!(found(&text, &format!("{LONG}d")).as_deref(), Some("deploy"));
        for no in ["", "deploy", &LONG[1..], &format!("{LONG}x"), "# tokens"] {
            assert_eq!(found(&text, no), None, "{no}");
        }
    }

    #[test]
    fn a_file_that_holds_nothing_to_believe_admits_nobody() {
        for (text, wrong) in [
            ("", "no token"),
            ("# only this\n", "no token"),
            ("name:\n", "0 characters"),
            ("short", "5 characters"),
        ] {
            let file = file(text);
            assert!(check(file.path()).unwrap_err().0.contains(wrong), "{text}");
            assert_eq!(find(file.path(), text).unwrap(), None);
        }
        assert_eq!(check(file(LONG).path()), Ok(()));
        assert!(check(Path::new("/nonexistent/token")).is_err());
        assert!(check(Path::new("/dev/zero")).unwrap_err().0.contains("regular file"));
    }

    #[test]
    fn a_file_that_everybody_may_read_is_refused() {
        let file = file(LONG);
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(check(file.path()).unwrap_err().0.contains("0644"));
        assert!(find(file.path(), LONG).is_err());
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(check(file.path()), Ok(()));
    }
}
