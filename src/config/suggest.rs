//! What was probably meant by a word that means nothing here.

use super::problem::Wrong;

/// Keys of later versions, which people may know from newer documents.
const LATER: &[&str] =
    &["allowLocalAddresses", "allowed", "allowedApps", "stateDir", "tls", "tokenFile", "tracing"];

/// What is wrong with a key that is not among the known ones.
pub(super) fn unknown_key(key: &str, known: &'static [&'static str]) -> Wrong {
    if LATER.contains(&key) {
        return Wrong::new(
            format!("this version does not have `{key}`"),
            "remove it; a later version may have it",
        );
    }
    if key == "<<" {
        return Wrong::new(
            "YAML merge keys are not read",
            "write the keys out, or use an alias for a whole value",
        );
    }
    let fix = match closest(key, known) {
        Some(close) => format!("did you mean `{close}`?"),
        None => one_of(known),
    };
    Wrong::new(format!("there is no key `{}` here", key.escape_debug()), fix)
}

/// The words that may stand there.
pub(super) fn one_of(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match words.as_slice() {
        [word] => format!("it can only be {word}"),
        words => format!("it can be one of {}", words.join(", ")),
    }
}

/// The word that was probably meant: at most a third of its letters differ, or just their case.
pub(super) fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let distance = |other: &str| strsim::damerau_levenshtein(&word, &other.to_lowercase());
    // A longer word is no slip of the finger, and the distance takes quadratic time.
    let short = word.len() <= 64;
    let (distance, close) =
        known.iter().filter(|_| short).map(|&other| (distance(other), other)).min()?;
    (distance <= close.len().div_ceil(3)).then_some(close)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_what_was_meant() {
        let known = ["helloTimeout", "idleTimeout", "connections"];
        assert_eq!(closest("idelTimeout", &known), Some("idleTimeout"));
        assert_eq!(closest("idletimeout", &known), Some("idleTimeout"));
        assert_eq!(closest("hello_timeout", &known), Some("helloTimeout"));
        assert_eq!(closest("banana", &known), None);
    }
}
