//! What is wrong with a configuration, where, and how to mend it: in the form that compilers use.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::model::snapshot::Origin;

/// Most problems of one kind that a load reports: who reads a hundred has understood, and a generated file may have a million.
pub const MAX_PROBLEMS: usize = 100;
/// Characters of an offending line that are shown; a longer line is cut around the offending text.
const SHOWN_LINE: usize = 120;
/// Characters left of the offending text that a cut keeps.
const SHOWN_BEFORE: usize = 40;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The configuration cannot come into force.
    Error,
    /// It can, but the operator should know.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong. `Display` writes it whole, in several lines and without colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops the configuration.
    pub severity: Severity,
    /// The file as the operator named it.
    pub file: Arc<Path>,
    /// Line, from 1; 0 when the problem is the file as a whole.
    pub line: u32,
    /// Column in characters, from 1; 0 when the problem is the file as a whole.
    pub column: u32,
    /// The key's path, such as `routes[2].allow`; empty at the top.
    pub key: String,
    /// The offending text, cut to one line, without control characters.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub fix: String,
    /// The offending line, for the eye.
    pub excerpt: Option<Excerpt>,
}

/// A line of a file with a part of it marked. Control characters are replaced, so that it is safe on a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, or a part of a long one.
    pub line: String,
    /// Characters in front of the marked part.
    pub before: usize,
    /// Characters of the marked part; at least 1.
    pub marked: usize,
}

/// What is wrong with a value, before it is known where the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// What is wrong.
    pub(crate) message: String,
    /// How to mend it.
    pub(crate) fix: String,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { message: message.into(), fix: fix.into() }
    }
}

impl Problem {
    /// A problem of no place in particular.
    pub fn whole(path: &Path, message: String, fix: &str) -> Self {
        Self::of_file(path, Wrong { message, fix: fix.to_owned() })
    }

    /// The same as a warning.
    #[must_use]
    pub fn into_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// A problem of a file as a whole.
    pub(crate) fn of_file(file: &Path, wrong: Wrong) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: 0,
            column: 0,
            key: String::new(),
            text: String::new(),
            message: wrong.message,
            fix: wrong.fix,
            excerpt: None,
        }
    }

    /// A problem at some bytes of a file's text, which begin in a line; no more than the first line of them is marked.
    pub(crate) fn at(
        file: &Arc<Path>,
        source: &str,
        line_number: u32,
        bytes: Range<usize>,
        wrong: Wrong,
    ) -> Self {
        let Range { start, end } = bytes;
        let before = source.get(..start).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = source.get(line_start..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        let column = before.get(line_start..).map_or(0, |left| left.chars().count());
        let text = source.get(start..end.max(start)).unwrap_or_default();
        let text = text.lines().next().unwrap_or_default().trim_end();
        Self {
            file: Arc::clone(file),
            line: line_number,
            column: u32::try_from(column + 1).unwrap_or(u32::MAX),
            text: text.chars().take(SHOWN_LINE).map(harmless).collect(),
            excerpt: Some(Excerpt::of(line, column, text.chars().count())),
            ..Self::of_file(file, wrong)
        }
    }

    /// A problem that was found only after the files were read, with the line as it stands in `source`, the file's text now.
    pub fn found_later(
        origin: &Origin,
        source: &str,
        text: &str,
        message: String,
        fix: String,
    ) -> Self {
        let before = usize::try_from(origin.column.saturating_sub(1)).unwrap_or_default();
        let number = usize::try_from(origin.line.saturating_sub(1)).unwrap_or_default();
        // A file that has changed meanwhile shows no line rather than a wrong one. Names are told in lower case.
        let same = |line: &&str| line.to_ascii_lowercase().contains(&text.to_ascii_lowercase());
        let line = source.lines().nth(number).filter(same);
        Self {
            line: origin.line,
            column: origin.column,
            excerpt: line.map(|line| Excerpt::of(line, before, text.chars().count())),
            text: text.chars().map(harmless).collect(),
            ..Self::of_file(&origin.file, Wrong { message, fix })
        }
    }

    pub(crate) fn with_key(mut self, key: String) -> Self {
        self.key = key;
        self
    }

    /// File, line and column.
    pub fn place(&self) -> (&Path, u32, u32) {
        (&self.file, self.line, self.column)
    }
}

impl Excerpt {
    fn of(line: &str, before: usize, marked: usize) -> Self {
        let cut =
            if line.chars().count() > SHOWN_LINE { before.saturating_sub(SHOWN_BEFORE) } else { 0 };
        let shown: String = line.chars().skip(cut).take(SHOWN_LINE).map(harmless).collect();
        let before = before - cut;
        let room = shown.chars().count().saturating_sub(before);
        Self { before, marked: marked.min(room).max(1), line: shown }
    }
}

/// A tab counts as one column, and nothing from a file may steer a terminal.
fn harmless(letter: char) -> char {
    match letter {
        '\t' | '\n' => ' ',
        letter if letter.is_control() => char::REPLACEMENT_CHARACTER,
        letter => letter,
    }
}

/// Text with parts that an operator or a file wrote: a key, a message that quotes one, a file's name.
struct Harmless<T>(T);

impl<T: fmt::Display> fmt::Display for Harmless<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string().chars().try_for_each(|letter| out.write_char(harmless(letter)))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", Harmless(self.file.display()))?;
        if self.line > 0 {
            write!(out, "{}:{}:", self.line, self.column)?;
        }
        write!(out, " {}: ", self.severity)?;
        if !self.key.is_empty() {
            write!(out, "{}: ", Harmless(&self.key))?;
        }
        write!(out, "{}", Harmless(&self.message))?;
        if let Some(excerpt) = &self.excerpt {
            let number = self.line.to_string();
            let gutter = " ".repeat(number.len());
            let (before, marks) = (" ".repeat(excerpt.before), "^".repeat(excerpt.marked));
            write!(out, "\n{number} | {}\n{gutter} | {before}{marks}", excerpt.line)?;
        }
        write!(out, "\nhelp: {}", Harmless(&self.fix))
    }
}

/// Problems as they are found, no more than [`MAX_PROBLEMS`] of each severity.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    kept: Vec<Problem>,
    errors: usize,
    warnings: usize,
}

impl Problems {
    /// Notes an error. It is made only when it is kept: to find its line may cost more than to find the error.
    pub(crate) fn error(&mut self, make: impl FnOnce() -> Problem) {
        self.errors += 1;
        if self.errors <= MAX_PROBLEMS {
            self.kept.push(make());
        }
    }

    /// Notes a warning.
    pub(crate) fn warning(&mut self, make: impl FnOnce() -> Problem) {
        self.warnings += 1;
        if self.warnings <= MAX_PROBLEMS {
            self.kept.push(Problem { severity: Severity::Warning, ..make() });
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The errors and the warnings, each from the top of the files to the bottom, with a last one that counts what was left out.
    pub(crate) fn finish(mut self) -> (Vec<Problem>, Vec<Problem>) {
        self.kept.sort_by(by_place);
        let (errors, warnings) =
            self.kept.into_iter().partition(|problem| problem.severity == Severity::Error);
        (capped(errors, self.errors, "errors"), capped(warnings, self.warnings, "warnings"))
    }
}

fn by_place(left: &Problem, right: &Problem) -> Ordering {
    left.place().cmp(&right.place())
}

fn capped(mut kept: Vec<Problem>, found: usize, what: &str) -> Vec<Problem> {
    let more = found - kept.len();
    if let Some(last) = kept.last().filter(|_| more > 0) {
        let wrong = Wrong::new(format!("{more} more {what}"), "mend these first");
        let severity = last.severity;
        let file = Arc::clone(&last.file);
        kept.push(Problem { severity, ..Problem::of_file(&file, wrong) });
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(source: &str, offending: &str) -> Problem {
        let start = source.find(offending).unwrap();
        let wrong = Wrong::new("is wrong", "mend it");
        let file: Arc<Path> = Path::new("a.yaml").into();
        let line = u32::try_from(source[..start].matches('\n').count() + 1).unwrap();
        Problem::at(&file, source, line, start..start + offending.len(), wrong)
    }

    #[test]
    fn a_problem_reads_as_a_compilers() {
        let shown =
            problem("a: 1\nné: wrong value\n", "wrong value").with_key("né".into()).to_string();
        assert_eq!(
            shown,
            "a.yaml:2:5: error: né: is wrong\n2 | né: wrong value\n  |     ^^^^^^^^^^^\nhelp: mend it"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_offence() {
        let source = format!("{}OFFENCE{}", "x".repeat(500), "y".repeat(500));
        let shown = problem(&source, "OFFENCE");
        assert_eq!(shown.column, 501);
        let excerpt = shown.excerpt.unwrap();
        assert_eq!(excerpt.line.chars().count(), SHOWN_LINE);
        assert_eq!(excerpt.line.find("OFFENCE"), Some(excerpt.before));
        assert_eq!(excerpt.marked, 7);
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let bad = "\u{1b}[2J\tx";
        let mut shown = problem(&format!("a:\t{bad}"), bad).with_key(bad.into());
        shown.message = format!("{bad} is wrong");
        shown.fix = format!("not {bad}");
        shown.file = Path::new(bad).into();
        assert_eq!(shown.text, "\u{fffd}[2J x");
        let origin = Origin { file: Path::new("none").into(), line: 1, column: 1 };
        let later = Problem::found_later(&origin, bad, bad, bad.into(), bad.into());
        assert_eq!(later.text, shown.text);
        for shown in [shown.to_string(), later.to_string()] {
            assert!(!shown.contains(['\u{1b}', '\t']), "{shown:?}");
            assert!(shown.contains("\u{fffd}[2J x"), "{shown:?}");
        }
    }

    #[test]
    fn a_million_problems_are_a_hundred_and_a_number() {
        let mut problems = Problems::default();
        for _ in 0..1000 {
            problems.error(|| problem("x", "x"));
        }
        let (errors, warnings) = problems.finish();
        assert_eq!(errors.len(), MAX_PROBLEMS + 1);
        assert_eq!(errors.last().unwrap().message, "900 more errors");
        assert!(warnings.is_empty());
    }
}
