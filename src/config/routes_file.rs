//! Reads routes files: in pieces of some hundred kilobytes, so that no more than that of the text is ever in memory.

use std::io::{self, Read};
use std::path::Path;
use std::str::{Utf8Error, from_utf8};

use crate::model::name::NameError;
use crate::model::routes_file::{Mistake, RouteLine, RoutesFile, RoutesFileWriter, split_lines};

use super::disk::{Fingerprint, Opened};
use super::problem::{Problem, Problems, Wrong};

/// Read at once: what stays in a core's own cache while it is gone through three times.
const PIECE: usize = 256 << 10;
const FORM: &str = "write `name endpoint…`, for example `checkout.mesh.example 10.0.0.7:50002`";
/// Some editors put it in front of what they save as UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Reads a file to its end and checks every line. `None` where it is no text.
pub(super) fn read(
    path: &Path,
    opened: Opened,
    fingerprint: &mut Fingerprint,
    problems: &mut Problems,
) -> io::Result<Option<RoutesFile>> {
    let Opened { mut source, length } = opened;
    let mut lines = Lines { file: RoutesFileWriter::new(path.into(), length), before: 0 };
    let mut buffer = Vec::new();
    loop {
        // A line that is longer than a piece is read in steps that double.
        let room = PIECE.checked_sub(buffer.len()).filter(|&room| room > 0).unwrap_or(buffer.len());
        let read = (&mut source).take(room as u64).read_to_end(&mut buffer)?;
        let ended = read < room;
        let last = memchr::memrchr(b'\n', &buffer).map_or(0, |newline| newline + 1);
        let whole = if ended { buffer.len() } else { last };
        let (piece, _) = buffer.split_at(whole);
        fingerprint.add_piece(piece);
        match from_utf8(piece) {
            Ok(text) => lines.take(text, problems),
            Err(error) => {
                problems.error(|| not_utf8(path, piece, error, lines.before));
                return Ok(None);
            }
        }
        if ended {
            return Ok(Some(lines.file.finish()));
        }
        buffer.drain(..whole);
    }
}

/// A file while it is read.
struct Lines {
    file: RoutesFileWriter,
    /// Lines before those that come.
    before: u32,
}

impl Lines {
    /// Takes whole lines.
    fn take(&mut self, text: &str, problems: &mut Problems) {
        let text = if self.before == 0 {
            text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
        } else {
            text
        };
        for line in split_lines(text) {
            let line = RouteLine { number: self.before.saturating_add(line.number), ..line };
            if let Err(mistake) = self.file.line(&line) {
                problems.error(|| problem(self.file.path(), text, &line, mistake));
            }
        }
        self.before = self.before.saturating_add(newlines(text.as_bytes()));
    }
}

fn newlines(bytes: &[u8]) -> u32 {
    u32::try_from(memchr::memchr_iter(b'\n', bytes).count()).unwrap_or(u32::MAX)
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
    path: &std::sync::Arc<Path>,
    text: &str,
    line: &RouteLine<'_>,
    mistake: Mistake<'_>,
) -> Problem {
    let (part, wrong) = match mistake {
        Mistake::Name(error) => (line.name, wrong_name(error)),
        Mistake::NoEndpoint => (line.name, Wrong::new("the line has a name and no endpoint", FORM)),
        Mistake::Endpoint(part, error) => (part, Wrong::new(error.to_string(), FORM)),
        Mistake::Full(error) => (line.name, Wrong::new(error.to_string(), "write fewer routes")),
    };
    // Both are parts of one text, so the distance of their addresses is the offset.
    let start = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    Problem::at(path, text, line.number, start..start + part.len(), wrong)
}

/// The problem of bytes that are no text, behind a number of lines.
pub(super) fn not_utf8(file: &Path, bytes: &[u8], error: Utf8Error, before: u32) -> Problem {
    let text = String::from_utf8_lossy(bytes);
    let valid = error.valid_up_to();
    let lines = newlines(text.as_bytes().get(..valid).unwrap_or_default());
    let line = before.saturating_add(lines).saturating_add(1);
    let bad = valid..valid + char::REPLACEMENT_CHARACTER.len_utf8();
    Problem::at(&file.into(), &text, line, bad, Wrong::new("not UTF-8", "save the file as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> (Option<RoutesFile>, Vec<Problem>) {
        let (mut problems, mut fingerprint) = (Problems::default(), Fingerprint::default());
        let opened = Opened { source: Box::new(io::Cursor::new(text.to_owned())), length: 0 };
        let file = read(Path::new("names.map"), opened, &mut fingerprint, &mut problems).unwrap();
        (file, problems.finish().0)
    }

    fn problems(text: &str) -> Vec<String> {
        parsed(text.as_bytes()).1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_lines_are_counted() {
        let text = "\u{feff}# head\na.example 10.0.0.1:1 b:2\n*.c.example [::1]:1 # c\n";
        let (file, problems) = parsed(text.as_bytes());
        let file = file.unwrap();
        assert!(problems.is_empty());
        assert_eq!(file.routes, 2);
        assert_eq!(file.names().iter().next().unwrap().1.written(), "a.example");
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

    /// Lines of every length around a piece's end, comments, a line of several pieces: nothing is lost, and lines are numbered.
    #[test]
    fn pieces_make_the_whole() {
        let mut text = format!("# {}\n", "é".repeat(PIECE));
        let (mut lines, mut expected) = (1, Vec::new());
        for number in 0_usize..60_000 {
            if number % 7 == 0 {
                text.push_str("# a comment\n\n");
                lines += 2;
            }
            let name = format!("n{number}{}.example", "x".repeat(number % 23));
            text.push_str(&name);
            text.push_str(" 10.0.0.1:1\n");
            lines += 1;
            if number % 1009 == 0 {
                expected.push((name, lines));
            }
        }
        assert!(text.len() > 8 * PIECE);
        text.push_str("last.example 10.0.0.1:x");
        let (file, problems) = parsed(text.as_bytes());
        let file = file.unwrap();
        assert_eq!((file.routes, problems.len()), (60_001, 1));
        assert_eq!(problems[0].line as usize, text.lines().count());
        let read = file.names().iter().step_by(1009);
        let read = read.map(|(at, name)| (name.written(), file.origin(at).line as usize));
        assert_eq!(read.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_no_text_is_told_with_its_line() {
        let text =
            [&b"a.example x:1\n".repeat(30_000)[..], b"# \xff\n", b"b.example x:1\n"].concat();
        let (file, problems) = parsed(&text);
        assert!(file.is_none());
        assert_eq!((problems[0].line, problems[0].column), (30_001, 3));
        assert_eq!(problems[0].message, "not UTF-8");
    }
}
