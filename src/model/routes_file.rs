//! Routes files: many routes, a line each, `name-or-*.suffix endpoint…`, comments behind `#`.
//!
//! A file is read once, from its first line to its last, and what is kept of it is what a table needs: the names in an
//! [`Arena`], each list of endpoints once, and where names stand, for errors. Its text is let go: it takes three times as
//! much memory, and was only read again to build an index.

use std::collections::HashMap;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use memchr::{memchr, memchr_iter, memchr2};

use super::arena::{Arena, Full, Writer};
use super::folding::Folded;
use super::name::{CanonicalName, NameError};
use super::snapshot::{EndpointAt, EndpointError, Origin};

/// What a routes file says.
#[derive(Debug)]
pub struct RoutesFile {
    /// The file as the operator named it.
    pub path: Arc<Path>,
    /// Number of lines that hold a route.
    pub routes: usize,
    /// Each with the number of its list.
    names: Arena,
    endpoints: Vec<EndpointAt>,
    /// Where each list ends in `endpoints`.
    ends: Vec<u32>,
    stretches: Vec<Stretch>,
}

/// Lines one behind the other, whose names begin in the same column.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// The place of the first one's name.
    at: usize,
    line: u32,
    column: u32,
}

impl RoutesFile {
    /// The names in the order of their lines. The value of each is the number of its list in [`lists`](Self::lists).
    pub fn names(&self) -> &Arena {
        &self.names
    }

    /// Every list of endpoints once.
    pub fn lists(&self) -> impl Iterator<Item = &[EndpointAt]> {
        let index = |end: u32| usize::try_from(end).unwrap_or(usize::MAX);
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let list = mem::replace(&mut start, index(end))..index(end);
            self.endpoints.get(list).unwrap_or_default()
        })
    }

    /// Where the name at a place of [`names`](Self::names) was written. Walks along the names: only errors ask.
    pub fn origin(&self, at: usize) -> Origin {
        let after = self.stretches.partition_point(|stretch| stretch.at <= at);
        let first = after.checked_sub(1).and_then(|index| self.stretches.get(index));
        let first = first.copied().unwrap_or(Stretch { at: 0, line: 1, column: 1 });
        let lines = self.names.iter_from(first.at).take_while(|(place, _)| *place < at).count();
        let line = first.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        Origin { file: Arc::clone(&self.path), line, column: first.column }
    }
}

/// What is wrong with a line, and with which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake<'a> {
    /// The name is none.
    Name(NameError),
    /// Nothing follows the name.
    NoEndpoint,
    /// This is no endpoint.
    Endpoint(&'a str, EndpointError),
    /// There are too many names.
    Full(Full),
}

/// Makes a [`RoutesFile`] of lines as they come.
#[derive(Debug)]
pub struct RoutesFileWriter {
    path: Arc<Path>,
    routes: usize,
    names: Writer,
    endpoints: Vec<EndpointAt>,
    ends: Vec<u32>,
    stretches: Vec<Stretch>,
    /// The number of each list by its text.
    lists: HashMap<Box<str>, u32, Folded>,
    /// What the next line would have in front of its name, were it one more of the last stretch.
    next: Option<(u32, u32)>,
}

impl RoutesFileWriter {
    /// A file without lines, for a text of about so many bytes.
    pub fn new(path: Arc<Path>, bytes: usize) -> Self {
        Self {
            path,
            routes: 0,
            names: Writer::with_room(bytes),
            endpoints: Vec::new(),
            ends: Vec::new(),
            stretches: Vec::new(),
            lists: HashMap::default(),
            next: None,
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Takes a line, unless something is wrong with it.
    pub fn line<'a>(&mut self, line: &RouteLine<'a>) -> Result<(), Mistake<'a>> {
        self.routes += 1;
        let suffix = line.name.strip_prefix("*.");
        let name = CanonicalName::parse(suffix.unwrap_or(line.name).as_bytes());
        let name = name.map_err(Mistake::Name)?;
        let list = self.list(line.endpoints)?;
        let at = self.names.push(name.as_str(), suffix.is_some(), list).map_err(Mistake::Full)?;
        if self.next != Some((line.number, line.column)) {
            self.stretches.push(Stretch { at, line: line.number, column: line.column });
        }
        self.next = Some((line.number.saturating_add(1), line.column));
        Ok(())
    }

    fn list<'a>(&mut self, text: &'a str) -> Result<u32, Mistake<'a>> {
        if let Some(&known) = self.lists.get(text) {
            return Ok(known);
        }
        let before = self.endpoints.len();
        for endpoint in text.split_ascii_whitespace() {
            match EndpointAt::parse(endpoint) {
                Ok(at) => self.endpoints.push(at),
                Err(error) => {
                    self.endpoints.truncate(before);
                    return Err(Mistake::Endpoint(endpoint, error));
                }
            }
        }
        let end = u32::try_from(self.endpoints.len()).map_err(|_| Mistake::Full(Full))?;
        if self.endpoints.len() == before {
            return Err(Mistake::NoEndpoint);
        }
        let number = u32::try_from(self.ends.len()).map_err(|_| Mistake::Full(Full))?;
        self.ends.push(end);
        self.lists.insert(text.into(), number);
        Ok(number)
    }

    /// The file.
    pub fn finish(self) -> RoutesFile {
        let Self { path, routes, names, mut endpoints, mut ends, mut stretches, .. } = self;
        endpoints.shrink_to_fit();
        ends.shrink_to_fit();
        stretches.shrink_to_fit();
        RoutesFile { path, routes, names: names.finish(), endpoints, ends, stretches }
    }
}

/// One line of a routes file that holds a route. Nothing of it has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteLine<'a> {
    /// Line number, from 1.
    pub number: u32,
    /// Where the name begins, from 1.
    pub column: u32,
    /// `name` or `*.suffix`, as written.
    pub name: &'a str,
    /// What follows the name: endpoints with white space between them, none at its ends.
    pub endpoints: &'a str,
}

/// Splits the text of a routes file. Blank lines and comments are left out; a line without endpoints has empty `endpoints`.
pub fn split_lines(text: &str) -> impl Iterator<Item = RouteLine<'_>> {
    let ends = memchr_iter(b'\n', text.as_bytes()).chain([text.len()]);
    let (mut next, mut comment) = (0, comment_from(text, 0));
    ends.zip(1..).filter_map(move |(end, number)| {
        let start = mem::replace(&mut next, end + 1);
        // Looked for once, not in every line: most files have few.
        if comment < start {
            comment = comment_from(text, start);
        }
        let written = text.get(start..end.min(comment))?;
        let line = written.trim_ascii_start();
        // White space is ASCII, so that bytes are characters.
        let column = u32::try_from(written.len() - line.len()).map_or(u32::MAX, |left| left + 1);
        let line = line.trim_ascii_end();
        let name = memchr2(b' ', b'\t', line.as_bytes()).unwrap_or(line.len());
        let (name, endpoints) = line.split_at_checked(name)?;
        let endpoints = endpoints.trim_ascii_start();
        (!name.is_empty()).then_some(RouteLine { number, column, name, endpoints })
    })
}

/// Where the next comment begins, or the text ends.
fn comment_from(text: &str, start: usize) -> usize {
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    memchr(b'#', rest).map_or(text.len(), |at| start + at)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A file of lines without mistakes.
    pub(crate) fn file(text: &str) -> Arc<RoutesFile> {
        let mut writer = RoutesFileWriter::new(Path::new("names.map").into(), text.len());
        split_lines(text).for_each(|line| writer.line(&line).unwrap());
        Arc::new(writer.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::file;
    use super::*;

    #[test]
    fn a_text_is_split_into_names_and_endpoints() {
        let text =
            "# head\n\na.example 10.0.0.1:1\t10.0.0.2:1  # both\r\n  *.b\t \t[::1]:1 \nalone\n#x";
        let line =
            |(number, column), name, endpoints| RouteLine { number, column, name, endpoints };
        assert_eq!(
            split_lines(text).collect::<Vec<_>>(),
            [
                line((3, 1), "a.example", "10.0.0.1:1\t10.0.0.2:1"),
                line((4, 3), "*.b", "[::1]:1"),
                line((5, 1), "alone", "")
            ]
        );
    }

    #[test]
    fn names_share_lists_and_know_where_they_stand() {
        let file =
            file("A.example. x:1 y:2\nb.example z:1\n\n# and\n  *.c x:1 y:2\n  d x:1 y:2\ne z:1\n");
        assert_eq!(file.routes, 5);
        let lists: Vec<Vec<_>> =
            file.lists().map(|list| list.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(lists, [vec!["x:1", "y:2"], vec!["z:1"]]);
        let names: Vec<_> = file
            .names()
            .iter()
            .map(|(at, name)| {
                let Origin { line, column, .. } = file.origin(at);
                (name.written(), name.value, line, column)
            })
            .collect();
        let expected = [
            ("a.example", 0, 1, 1),
            ("b.example", 1, 2, 1),
            ("*.c", 0, 5, 3),
            ("d", 0, 6, 3),
            ("e", 1, 7, 1),
        ];
        assert_eq!(
            names,
            expected.map(|(name, list, line, column)| (name.to_owned(), list, line, column))
        );
    }

    #[test]
    fn a_line_with_a_mistake_is_left_out() {
        let mut writer = RoutesFileWriter::new(Path::new("names.map").into(), 0);
        let mut line =
            |name, endpoints| writer.line(&RouteLine { number: 1, column: 1, name, endpoints });
        assert_eq!(line("a..b", "x:1"), Err(Mistake::Name(NameError::EmptyLabel)));
        assert_eq!(line("a", ""), Err(Mistake::NoEndpoint));
        let wrong = Err(Mistake::Endpoint("y", EndpointError::NoPort));
        assert_eq!(line("a", "x:1 y"), wrong);
        assert_eq!(line("a", "x:1 y"), wrong);
        assert_eq!(line("b", "z:1"), Ok(()));
        let file = writer.finish();
        assert_eq!((file.routes, file.names().iter().count(), file.lists().count()), (5, 1, 1));
        assert_eq!(file.lists().next().unwrap()[0].to_string(), "z:1");
    }
}
