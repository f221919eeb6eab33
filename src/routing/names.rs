//! A million names in a few bytes each: an index over texts that hold the names already.
//!
//! The names of a routes file are not copied: an entry is the name's position in the file's text, which the configuration
//! keeps anyway, and the number of its route. Copying a million names of 30 bytes would cost 31 MB beside the 50 MB of the
//! text; the index costs 10. Names from elsewhere, and those of a file that are not written in canonical form, go into one
//! text of our own.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::model::name::NamePattern;
use crate::model::snapshot::{RouteLine, RoutesFile};

pub(super) use super::index::Position;
use super::index::{Index, NotInserted, Slot};

/// What stands behind each name in our own text. Any byte that no name has would do, as in a file, where white space does.
const END: char = '\n';

/// Names and wildcards with the number of the route that each leads to.
#[derive(Debug, Default)]
pub(super) struct Names {
    texts: Texts,
    exact: Index,
    /// Wildcards by their suffix.
    below: Index,
    /// Bit n: some suffix has n labels. Other depths need no probe, so a hostile name of a hundred labels costs little.
    depths: u128,
    /// `SipHash` with keys of the process's own. Faster hashes exist; this one takes 15 of the 80 ns that a lookup may take,
    /// needs no dependency, and clients who choose names to collide cannot know the keys.
    hasher: RandomState,
}

/// Why a name could not be added.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotAdded {
    /// It stands there already, for this route.
    Taken {
        /// Where it stands.
        first: Position,
        /// The number of its route.
        route: u32,
    },
    /// The texts, or the routes, are more than the index can number.
    Full,
}

/// A position in words.
#[derive(Debug)]
pub(super) enum Written<'a> {
    /// At this byte of a file.
    File(&'a RoutesFile, usize),
    /// In our own text.
    Own,
}

impl Names {
    /// An empty index over the texts of some files, with room for a number of exact names.
    pub(super) fn over(files: &[Arc<RoutesFile>], exact: usize) -> Self {
        let exact = Index::with_capacity(exact);
        Self { texts: Texts::of(files), exact, ..Self::default() }
    }

    /// Adds a name that stands nowhere yet. The answer is where it stands from now on.
    pub(super) fn add(&mut self, pattern: &NamePattern, route: u32) -> Result<Position, NotAdded> {
        let (wild, name) = match pattern {
            NamePattern::Exact(name) => (false, name),
            NamePattern::Below(suffix) => (true, suffix),
        };
        let at = self.texts.append(name.as_str()).ok_or(NotAdded::Full)?;
        self.enter(wild, name.as_str(), at, route)
    }

    /// Adds the name of a file's line where it stands, if it stands there in canonical form; `None` if it does not.
    /// `file` counts the files that this index is over.
    pub(super) fn add_line(
        &mut self,
        file: usize,
        line: &RouteLine<'_>,
        route: u32,
    ) -> Option<Result<Position, NotAdded>> {
        let suffix = line.name.strip_prefix("*.");
        let name = suffix.unwrap_or(line.name);
        if !is_canonical(name) {
            return None;
        }
        let entered = match self.texts.position(file, name) {
            Some(at) => self.enter(suffix.is_some(), name, at, route),
            None => Err(NotAdded::Full),
        };
        Some(entered)
    }

    fn enter(
        &mut self,
        wild: bool,
        name: &str,
        at: Position,
        route: u32,
    ) -> Result<Position, NotAdded> {
        let Self { texts, exact, below, depths, hasher } = self;
        if wild {
            *depths |= depth_bit(labels(name));
        }
        let index = if wild { below } else { exact };
        let same = |other| texts.holds(other, name);
        let rehash = |other| hasher.hash_one(texts.name(other));
        match index.insert(hasher.hash_one(name), at, route, same, rehash) {
            Ok(()) => Ok(at),
            Err(NotInserted::Taken(slot)) => {
                Err(NotAdded::Taken { first: slot.at(), route: slot.route() })
            }
            Err(NotInserted::Route) => Err(NotAdded::Full),
        }
    }

    /// Gives back room that was reserved and not used.
    pub(super) fn shrink(&mut self) {
        let Self { texts, exact, below, hasher, .. } = self;
        exact.shrink(|at| hasher.hash_one(texts.name(at)));
        below.shrink(|at| hasher.hash_one(texts.name(at)));
        texts.own.shrink_to_fit();
    }

    /// The route of exactly this name.
    pub(super) fn exact(&self, name: &str) -> Option<u32> {
        self.find(&self.exact, name).map(Slot::route)
    }

    /// The wildcards that cover a name, the longest first: each one's suffix and route.
    pub(super) fn wildcards<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, u32)> {
        let depth = if self.depths == 0 { 0 } else { labels(name) };
        let dots = name.bytes().enumerate().filter(|&(_, byte)| byte == b'.');
        dots.zip((0..depth).rev()).filter_map(|((dot, _), depth)| {
            if self.depths & depth_bit(depth) == 0 {
                return None;
            }
            let suffix = name.get(dot + 1..)?;
            let slot = self.find(&self.below, suffix)?;
            Some((self.texts.from(slot.at()).get(..suffix.len())?, slot.route()))
        })
    }

    fn find(&self, index: &Index, name: &str) -> Option<Slot> {
        index.find(self.hasher.hash_one(name), |at| self.texts.holds(at, name))
    }

    /// Number of names, wildcards included.
    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.below.len()
    }

    /// Every name, wildcards with their star, and its route's number; in no order that means anything.
    pub(super) fn all(&self) -> impl Iterator<Item = (Cow<'_, str>, u32)> {
        let exact = self.exact.slots().map(|slot| (Cow::from(self.texts.name(slot.at())), slot));
        let below = self.below.slots();
        let below = below.map(|slot| (format!("*.{}", self.texts.name(slot.at())).into(), slot));
        exact.chain(below).map(|(name, slot)| (name, slot.route()))
    }

    /// Where a position is.
    pub(super) fn written(&self, at: Position) -> Written<'_> {
        match self.texts.file_at(at) {
            Some((file, offset)) => Written::File(file, offset),
            None => Written::Own,
        }
    }
}

/// The texts that names stand in. A position counts through those of all files, one after the other, and then our own.
#[derive(Debug, Default)]
struct Texts {
    /// Each with the position of its first byte.
    files: Vec<(Position, Arc<RoutesFile>)>,
    /// The position of the first byte of `own`; `None` if there is none left.
    own_start: Option<Position>,
    own: String,
}

impl Texts {
    fn of(files: &[Arc<RoutesFile>]) -> Self {
        let mut texts = Self { own_start: Some(0), ..Self::default() };
        for file in files {
            // What does not fit has no position, and its names are refused.
            let Some(start) = texts.own_start else { break };
            let length = Position::try_from(file.text.len()).ok();
            texts.own_start = length.and_then(|length| start.checked_add(length));
            texts.files.push((start, Arc::clone(file)));
        }
        texts
    }

    fn append(&mut self, name: &str) -> Option<Position> {
        let after = Position::try_from(self.own.len() + name.len()).ok()?;
        self.own_start?.checked_add(after)?;
        let at = self.own_start? + Position::try_from(self.own.len()).ok()?;
        self.own.push_str(name);
        self.own.push(END);
        Some(at)
    }

    /// The position of a slice of a file's text.
    fn position(&self, file: usize, slice: &str) -> Option<Position> {
        let (start, file) = self.files.get(file)?;
        let offset = slice.as_ptr().addr().checked_sub(file.text.as_ptr().addr())?;
        start.checked_add(Position::try_from(offset).ok()?)
    }

    fn file_at(&self, at: Position) -> Option<(&RoutesFile, usize)> {
        if self.own_start.is_some_and(|own| at >= own) {
            return None;
        }
        let after = self.files.partition_point(|(start, _)| *start <= at);
        let (start, file) = self.files.get(after.checked_sub(1)?)?;
        Some((file, usize::try_from(at - start).ok()?))
    }

    /// The text from a position on.
    fn from(&self, at: Position) -> &str {
        let text = if let Some((file, offset)) = self.file_at(at) {
            file.text.get(offset..)
        } else {
            let offset = usize::try_from(at - self.own_start.unwrap_or(0)).ok();
            offset.and_then(|offset| self.own.get(offset..))
        };
        text.unwrap_or_default()
    }

    /// The name at a position.
    fn name(&self, at: Position) -> &str {
        let text = self.from(at);
        let end = text.bytes().position(|byte| !is_canonical_byte(byte)).unwrap_or(text.len());
        text.get(..end).unwrap_or_default()
    }

    /// Whether the name at a position is this one.
    fn holds(&self, at: Position, name: &str) -> bool {
        let rest = self.from(at).strip_prefix(name);
        rest.is_some_and(|rest| !rest.bytes().next().is_some_and(is_canonical_byte))
    }
}

/// Whether a name needs no change to be compared with a canonical one. Says nothing of its validity.
fn is_canonical(name: &str) -> bool {
    // No early exit: it would keep the compiler from looking at many bytes at once, and nearly all names pass.
    let canonical = name.bytes().fold(true, |all, byte| all & is_canonical_byte(byte));
    canonical && !name.is_empty() && !name.ends_with('.')
}

fn is_canonical_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')
}

fn labels(name: &str) -> u32 {
    name.bytes().fold(1, |labels, byte| labels + u32::from(byte == b'.'))
}

/// A name of 253 octets has 127 labels at most; what is deeper cannot be asked for.
fn depth_bit(depth: u32) -> u128 {
    1_u128.checked_shl(depth).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn file(text: &str) -> Arc<RoutesFile> {
        let routes = text.lines().count();
        Arc::new(RoutesFile { path: Path::new("names.map").into(), text: text.into(), routes })
    }

    fn add_file(names: &mut Names, number: usize, file: &RoutesFile, route: u32) {
        for line in file.lines() {
            match names.add_line(number, &line, route) {
                Some(added) => added.unwrap(),
                None => names.add(&NamePattern::parse(line.name).unwrap(), route).unwrap(),
            };
        }
    }

    /// What [`Names::exact`] and then the first of [`Names::wildcards`] say.
    fn lookup<'a>(names: &'a Names, name: &'a str) -> Option<(u32, Option<&'a str>)> {
        let exact = names.exact(name).map(|route| (route, None));
        exact.or_else(|| names.wildcards(name).next().map(|(below, route)| (route, Some(below))))
    }

    #[test]
    fn names_of_files_and_of_others_stand_side_by_side() {
        let files = [file("a.example x\nAB.example. x\n*.wild.example\tx"), file("a x")];
        let mut names = Names::over(&files, 0);
        add_file(&mut names, 0, &files[0], 0);
        add_file(&mut names, 1, &files[1], 1);
        let at = names.add(&NamePattern::parse("own.example").unwrap(), 2).unwrap();
        assert!(matches!(names.written(at), Written::Own));
        assert_eq!(names.len(), 5);
        for (name, route) in [("a.example", 0), ("ab.example", 0), ("a", 1), ("own.example", 2)] {
            assert_eq!(lookup(&names, name), Some((route, None)), "{name}");
        }
        assert_eq!(lookup(&names, "x.y.wild.example"), Some((0, Some("wild.example"))));
        for name in ["wild.example", "example", "b.example", "own", "a.exampl", ""] {
            assert_eq!(lookup(&names, name), None, "{name}");
        }
        names.shrink();
        assert_eq!(lookup(&names, "ab.example"), Some((0, None)));
    }

    #[test]
    fn a_name_that_is_there_says_where() {
        let files = [file("b x\na.example x\n")];
        let mut names = Names::over(&files, 2);
        add_file(&mut names, 0, &files[0], 7);
        let again = names.add(&NamePattern::parse("A.example").unwrap(), 8);
        assert_eq!(again, Err(NotAdded::Taken { first: 4, route: 7 }));
        assert!(matches!(names.written(4), Written::File(_, 4)));
        // A wildcard is another name than its suffix.
        assert!(names.add(&NamePattern::parse("*.a.example").unwrap(), 8).is_ok());
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "B", "c_", "ab"]), 1..5)
            .prop_map(|labels| labels.join("."))
    }

    fn pattern() -> impl Strategy<Value = String> {
        (any::<bool>(), name(), any::<bool>()).prop_map(|(wild, name, dot)| {
            format!("{}{name}{}", if wild { "*." } else { "" }, if dot { "." } else { "" })
        })
    }

    /// What the table promises, without an index: exact, then the longest suffix.
    fn naive<'a>(patterns: &'a [NamePattern], name: &str) -> Option<&'a NamePattern> {
        let exact = patterns
            .iter()
            .find(|pattern| matches!(pattern, NamePattern::Exact(exact) if exact.as_str() == name));
        exact.or_else(|| {
            let covering = patterns.iter().filter(|pattern| pattern.covers(name));
            covering.max_by_key(|pattern| pattern.to_string().len())
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_scan_of_all_patterns(
            written in prop::collection::vec((pattern(), any::<bool>()), 0..30),
            asked in prop::collection::vec(name(), 1..30),
        ) {
            let in_file: Vec<_> = written.iter().filter(|(_, in_file)| *in_file).map(|(name, _)| &**name).collect();
            let text = in_file.join(" x\n");
            let files = [file(&text)];
            let mut names = Names::over(&files, 0);
            let mut patterns: Vec<NamePattern> = vec![];
            let mut route = 0;
            let mut note = |pattern: NamePattern, added: Result<Position, NotAdded>| {
                let first = patterns.iter().position(|known| *known == pattern);
                if let Some(first) = first {
                    let taken = matches!(added, Err(NotAdded::Taken { route, .. }) if route as usize == first);
                    assert!(taken, "{pattern} was taken, not {added:?}");
                } else {
                    assert!(added.is_ok());
                    patterns.push(pattern);
                    route += 1;
                }
                route
            };
            let mut next = 0;
            for line in files[0].lines() {
                let pattern = NamePattern::parse(line.name).unwrap();
                let added = names.add_line(0, &line, next).unwrap_or_else(|| names.add(&pattern, next));
                next = note(pattern, added);
            }
            for (name, _) in written.iter().filter(|(_, in_file)| !*in_file) {
                let pattern = NamePattern::parse(name).unwrap();
                let added = names.add(&pattern, next);
                next = note(pattern, added);
            }
            for name in &asked {
                let name = name.to_ascii_lowercase();
                let found = lookup(&names, &name).map(|(route, below)| (&patterns[route as usize], below));
                prop_assert_eq!(found.map(|(pattern, _)| pattern), naive(&patterns, &name));
                let below = found.and_then(|(_, below)| below).map(|below| format!("*.{below}"));
                let wild = found.map(|(pattern, _)| pattern.to_string()).filter(|pattern| pattern.starts_with('*'));
                prop_assert_eq!(below, wild);
            }
        }
    }
}
