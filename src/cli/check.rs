//! `strait check`: everything that is wrong with a configuration, in the form that compilers use.

use std::io::{self, Write};
use std::path::PathBuf;

use anstyle::Style;

use crate::config::problem::{Excerpt, MAX_PROBLEMS, Problem, Severity};

use super::output::{BAD, FAINT, GOOD, HELP, Out, PLAIN, TITLE, WARNING, count, harmless, styled};
use super::{Failed, Outcome, Work};

/// A configuration to check.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  strait check config/strait.yaml

Exit codes:
  0  the configuration is valid; warnings do not change that
  1  it is not: each error is told with its place and how to mend it
  2  the command line is wrong")]
pub struct CheckArguments {
    /// A file, or a directory of them
    path: PathBuf,
}

/// What came of a check.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Errors and warnings, each in the order of their places.
    pub problems: Vec<Problem>,
    /// Names that lead somewhere, wildcards included.
    pub names: usize,
}

/// Checks and tells. Problems go to standard error, as a compiler's do.
pub(super) fn check(
    arguments: &CheckArguments,
    work: &impl Work,
    out: &mut Out,
) -> Result<Outcome, Failed> {
    let checked = work.check(&arguments.path);
    problems(&checked.problems, &mut out.err)?;
    let path = harmless(&arguments.path.display().to_string());
    let number =
        |severity| checked.problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (number(Severity::Error), number(Severity::Warning));
    let warnings =
        if warnings > 0 { format!(", {}", numbered(warnings, "warning")) } else { String::new() };
    if errors > 0 {
        let told = styled(BAD, &numbered(errors, "error"));
        writeln!(out.err, "{path}: {told}{warnings}")?;
        return Ok(Outcome::Refused);
    }
    writeln!(
        out.out,
        "{path}: {}, {}{warnings}",
        styled(GOOD, "valid"),
        count(checked.names, "name")
    )?;
    Ok(Outcome::Done)
}

/// Each problem with a blank line behind it.
pub(super) fn problems(problems: &[Problem], to: &mut impl Write) -> io::Result<()> {
    problems.iter().try_for_each(|problem| one(problem, to))
}

/// A list that was cut says so.
fn numbered(found: usize, what: &str) -> String {
    if found > MAX_PROBLEMS {
        format!("more than {MAX_PROBLEMS} {what}s")
    } else {
        count(found, what)
    }
}

/// The words of the problem's own `Display`, in colour.
fn one(problem: &Problem, to: &mut impl Write) -> io::Result<()> {
    let Problem { severity, file, line, column, key, message, fix, excerpt, text: _ } = problem;
    let style = match severity {
        Severity::Error => BAD,
        Severity::Warning => WARNING,
    };
    let file = file.display();
    let place = if *line > 0 { format!("{file}:{line}:{column}:") } else { format!("{file}:") };
    let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
    let what = styled(style, &format!("{severity}:"));
    let message = styled(TITLE, &format!("{key}{message}"));
    writeln!(to, "{} {what} {message}", styled(PLAIN, &place))?;
    if let Some(excerpt) = excerpt {
        marked(*line, excerpt, style, to)?;
    }
    writeln!(to, "{}\n", styled(HELP, &format!("help: {fix}")))
}

fn marked(number: u32, excerpt: &Excerpt, style: Style, to: &mut impl Write) -> io::Result<()> {
    let number = number.to_string();
    let (gutter, before) = (" ".repeat(number.len()), " ".repeat(excerpt.before));
    let marks = styled(style, &"^".repeat(excerpt.marked));
    writeln!(to, "{} {}", styled(FAINT, &format!("{number} |")), styled(PLAIN, &excerpt.line))?;
    writeln!(to, "{} {before}{marks}", styled(FAINT, &format!("{gutter} |")))
}

#[cfg(test)]
mod tests {
    use super::super::output::testing::printed;
    use super::super::testing::Fake;
    use super::*;
    use std::path::Path;

    fn problem(severity: Severity) -> Problem {
        Problem {
            severity,
            file: Path::new("strait.yaml").into(),
            line: 12,
            column: 5,
            key: "routes[0]".into(),
            text: "naem".into(),
            message: "unknown key naem".into(),
            fix: "write name".into(),
            excerpt: Some(Excerpt { line: "  - naem: a".into(), before: 4, marked: 4 }),
        }
    }

    fn checked(problems: Vec<Problem>, terminal: bool) -> (Outcome, String, String) {
        let work = Fake { checked: Checked { problems, names: 1 }, ..Fake::default() };
        let arguments = CheckArguments { path: "config".into() };
        printed(terminal, |out| check(&arguments, &work, out).unwrap())
    }

    #[test]
    fn errors_are_told_as_the_problem_tells_itself() {
        let whole_file =
            Problem { line: 0, key: String::new(), excerpt: None, ..problem(Severity::Error) };
        let problems = vec![problem(Severity::Error), problem(Severity::Warning), whole_file];
        let words =
            problems.iter().map(|problem| format!("{problem}\n\n")).collect::<Vec<_>>().concat();
        let (outcome, out, err) = checked(problems.clone(), false);
        assert_eq!((outcome, out.as_str()), (Outcome::Refused, ""));
        assert_eq!(err, words.clone() + "config: 2 errors, 1 warning\n");
        let (.., err) = checked(problems, true);
        assert!(err.contains(&format!("{BAD}error:{BAD:#}")), "{err:?}");
        assert_eq!(
            anstream::adapter::strip_str(&err).to_string(),
            words + "config: 2 errors, 1 warning\n"
        );
    }

    #[test]
    fn warnings_do_not_make_it_invalid() {
        let (outcome, out, err) = checked(vec![problem(Severity::Warning)], false);
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(out, "config: valid, 1 name, 1 warning\n");
        assert!(err.starts_with("strait.yaml:12:5: warning: routes[0]: unknown key naem\n12 |   - naem: a\n   |     ^^^^\n"), "{err}");
    }

    #[test]
    fn a_cut_list_says_that_there_are_more() {
        let (.., err) = checked(vec![problem(Severity::Error); MAX_PROBLEMS + 1], false);
        assert!(err.ends_with("config: more than 100 errors\n"));
    }
}
