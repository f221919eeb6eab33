//! Files of many routes: a line each, `name-or-*.suffix endpoint…`, comments behind `#`.

use std::path::Path;
use std::sync::Arc;

use crate::model::name::{CanonicalName, NameError};
use crate::model::snapshot::{EndpointAt, RouteLine, RoutesFile, split_lines};

use super::problem::{Problem, Problems, Wrong};

const FORM: &str = "write `name endpoint…`, for example `checkout.mesh.example 10.0.0.7:50002`";

/// Checks every line. The text is kept as it is: a million parsed lines would weigh several times as much.
pub(super) fn parse(path: &Path, text: String, problems: &mut Problems) -> RoutesFile {
    let path: Arc<Path> = path.into();
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let mut routes = 0;
    // Many lines lead to the same few gateways, so what was checked a line ago is not checked again.
    let mut checked = "";
    for line in split_lines(&text) {
        routes += 1;
        match check(&line, checked) {
            Ok(()) => checked = line.endpoints,
            Err((part, wrong)) => problems.error(|| problem(&path, &text, &line, part, wrong)),
        }
    }
    RoutesFile { path, text: text.into(), routes }
}

fn check<'a>(line: &RouteLine<'a>, checked: &str) -> Result<(), (&'a str, Wrong)> {
    let name = line.name.strip_prefix("*.").unwrap_or(line.name);
    CanonicalName::parse(name.as_bytes()).map_err(|error| (line.name, wrong_name(error)))?;
    if line.endpoints.is_empty() {
        return Err((line.name, Wrong::new("the line has a name and no endpoint", FORM)));
    }
    if line.endpoints == checked {
        return Ok(());
    }
    for endpoint in line.endpoints.split_ascii_whitespace() {
        EndpointAt::parse(endpoint)
            .map_err(|error| (endpoint, Wrong::new(error.to_string(), FORM)))?;
    }
    Ok(())
}

/// What to do about a name that is none.
pub(super) fn wrong_name(error: NameError) -> Wrong {
    let fix = match error {
        NameError::BadByte(b'*') => "a star stands only in front: *.mesh.example",
        NameError::IpLiteral => "write the DNS name that clients ask for",
        NameError::Empty
        | NameError::TooLong
        | NameError::LabelTooLong
        | NameError::EmptyLabel
        | NameError::BadByte(_) => "write a DNS name, or *.suffix for every name below one",
    };
    Wrong::new(error.to_string(), fix)
}

fn problem(
    path: &Arc<Path>,
    text: &str,
    line: &RouteLine<'_>,
    part: &str,
    wrong: Wrong,
) -> Problem {
    // Both are parts of one text, so the distance of their addresses is the offset.
    let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    Problem::at(path, text, line.number, start..start + part.len(), wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        parse(Path::new("names.map"), text.to_owned(), &mut problems);
        problems.finish().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_lines_are_counted() {
        let mut problems = Problems::default();
        let text = "\u{feff}# head\na.example 10.0.0.1:1 b:2\n*.c.example [::1]:1 # c\n";
        let file = parse(Path::new("names.map"), text.to_owned(), &mut problems);
        assert!(!problems.has_errors());
        assert_eq!(file.routes, 2);
        assert_eq!(file.lines().next().unwrap().name, "a.example");
    }

    #[test]
    fn every_bad_line_is_reported() {
        let shown = problems(
            "a.example\nb.example 10.0.0.1:1 10.0.0.2\n\nc d:1 # fine\na.*.e d:1\n10.0.0.1 d:1\n",
        );
        assert_eq!(
            shown,
            [
                "names.map:1:1: error: the line has a name and no endpoint\n1 | a.example\n  | ^^^^^^^^^\n\
                 help: write `name endpoint…`, for example `checkout.mesh.example 10.0.0.7:50002`",
                "names.map:2:22: error: an endpoint needs a port: host:port\n2 | b.example 10.0.0.1:1 10.0.0.2\n  |                      ^^^^^^^^\n\
                 help: write `name endpoint…`, for example `checkout.mesh.example 10.0.0.7:50002`",
                "names.map:5:1: error: the name has the byte 0x2a; letters, digits, hyphen, underscore and dot are what a name may have\n5 | a.*.e d:1\n  | ^^^^^\n\
                 help: a star stands only in front: *.mesh.example",
                "names.map:6:1: error: the name is an IP address; a server name is a DNS name\n6 | 10.0.0.1 d:1\n  | ^^^^^^^^\n\
                 help: write the DNS name that clients ask for",
            ]
        );
    }

    #[test]
    fn a_file_of_nonsense_gives_a_hundred_problems() {
        assert_eq!(problems(&"x\n".repeat(100_000)).len(), super::super::problem::MAX_PROBLEMS + 1);
    }
}
