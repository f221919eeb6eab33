//! A million names in a few bytes each: an index over arenas that hold the names already.
//!
//! The names of a routes file are not copied: an entry of the index is the name's position in the file's arena, which the
//! configuration keeps anyway, and the number of its route. Names from elsewhere go into an arena of our own.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::model::arena::{Arena, Entry, Full, Writer};
use crate::model::name::{MAX_NAME, NamePattern};
use crate::model::routes_file::RoutesFile;

pub(super) use super::index::Position;
use super::index::{Index, NotInserted, Slot};

/// Names and wildcards with the number of the route that each leads to.
#[derive(Debug, Default)]
pub(super) struct Names {
    arenas: Arenas,
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
    /// The names, or the routes, are more than the index can number.
    Full,
}

/// A position in words.
#[derive(Debug)]
pub(super) enum Written<'a> {
    /// At this place of a file's names.
    File(&'a RoutesFile, usize),
    /// In our own arena.
    Own,
}

impl Names {
    /// An empty index over the names of some files, with room for a number of exact names.
    pub(super) fn over(files: &[Arc<RoutesFile>], exact: usize) -> Self {
        let exact = Index::with_capacity(exact);
        Self { arenas: Arenas::of(files), exact, ..Self::default() }
    }

    /// Adds a name that stands nowhere yet. The answer is where it stands from now on.
    pub(super) fn add(&mut self, pattern: &NamePattern, route: u32) -> Result<Position, NotAdded> {
        let (below, name) = match pattern {
            NamePattern::Exact(name) => (false, name),
            NamePattern::Below(suffix) => (true, suffix),
        };
        let at = self.arenas.append(name.as_str(), below).ok_or(NotAdded::Full)?;
        let hash = self.hasher.hash_one(name.as_str());
        self.enter(below, (name.as_str(), hash), at, route)
    }

    /// The hash of a file's entry.
    pub(super) fn hash(&self, entry: &Entry<'_>) -> u64 {
        self.hasher.hash_one(entry.text(&mut [0; MAX_NAME]))
    }

    /// Has the memory fetched in which names with these hashes will be entered: at a million names nearly each is one that no cache
    /// holds. One after the other, with nothing in between, because a core looks only some hundred instructions ahead: mixed with
    /// the making of the hashes they were waited for, which was a quarter of the time that a file takes.
    pub(super) fn fetch(&self, hashes: impl Iterator<Item = u64>) {
        hashes.for_each(|hash| self.exact.fetch(hash));
    }

    /// Adds an entry of a file where it stands, with its [`hash`](Self::hash). `file` counts the files that this index is
    /// over.
    pub(super) fn add_entry(
        &mut self,
        file: usize,
        at: usize,
        (entry, hash): (&Entry<'_>, u64),
        route: u32,
    ) -> Result<Position, NotAdded> {
        let at = self.arenas.position(file, at).ok_or(NotAdded::Full)?;
        self.enter(entry.below, (entry.text(&mut [0; MAX_NAME]), hash), at, route)
    }

    fn enter(
        &mut self,
        below: bool,
        (name, hash): (&str, u64),
        at: Position,
        route: u32,
    ) -> Result<Position, NotAdded> {
        let Self { arenas, exact, below: suffixes, depths, hasher } = self;
        if below {
            *depths |= depth_bit(labels(name));
        }
        let index = if below { suffixes } else { exact };
        let same = |other| arenas.holds(other, name);
        let rehash = |other| arenas.hash(hasher, other);
        match index.insert(hash, at, route, same, rehash) {
            Ok(()) => Ok(at),
            Err(NotInserted::Taken(slot)) => {
                Err(NotAdded::Taken { first: slot.at(), route: slot.route() })
            }
            Err(NotInserted::Route) => Err(NotAdded::Full),
        }
    }

    /// Gives back room that was reserved and not used.
    pub(super) fn finish(&mut self) {
        let Self { arenas, exact, below, hasher, .. } = self;
        exact.shrink(|at| arenas.hash(hasher, at));
        below.shrink(|at| arenas.hash(hasher, at));
        arenas.own.forget_known();
    }

    /// The route of exactly this name.
    pub(super) fn exact(&self, name: &str) -> Option<u32> {
        self.find(&self.exact, name).map(Slot::route)
    }

    /// The wildcards that cover a name, the longest first: each one's suffix, as a part of the name, and route.
    pub(super) fn wildcards<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, u32)> {
        let depth = if self.depths == 0 { 0 } else { labels(name) };
        let dots = name.bytes().enumerate().filter(|&(_, byte)| byte == b'.');
        dots.zip((0..depth).rev()).filter_map(move |((dot, _), depth)| {
            if self.depths & depth_bit(depth) == 0 {
                return None;
            }
            let suffix = name.get(dot + 1..)?;
            Some((suffix, self.find(&self.below, suffix)?.route()))
        })
    }

    fn find(&self, index: &Index, name: &str) -> Option<Slot> {
        index.find(self.hasher.hash_one(name), |at| self.arenas.holds(at, name))
    }

    /// Number of names, wildcards included.
    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.below.len()
    }

    /// Every name and its route's number; in no order that means anything.
    pub(super) fn all(&self) -> impl Iterator<Item = (Entry<'_>, u32)> {
        let slots = self.exact.slots().chain(self.below.slots());
        slots.filter_map(|slot| Some((self.arenas.entry(slot.at())?, slot.route())))
    }

    /// Where a position is.
    pub(super) fn written(&self, at: Position) -> Written<'_> {
        match self.arenas.file_at(at) {
            Some((file, at)) => Written::File(file, at),
            None => Written::Own,
        }
    }
}

/// What names stand in. A position counts through the arenas of all files, one after the other, and then our own.
#[derive(Debug, Default)]
struct Arenas {
    /// Each with the position of its first byte.
    files: Vec<(Position, Arc<RoutesFile>)>,
    /// The position of the first byte of `own`; `None` if there is none left.
    own_start: Option<Position>,
    own: Writer,
}

impl Arenas {
    fn of(files: &[Arc<RoutesFile>]) -> Self {
        let mut arenas = Self { own_start: Some(0), ..Self::default() };
        for file in files {
            // What does not fit has no position, and its names are refused.
            let Some(start) = arenas.own_start else { break };
            let length = Position::try_from(file.names().end()).ok();
            arenas.own_start = length.and_then(|length| start.checked_add(length));
            arenas.files.push((start, Arc::clone(file)));
        }
        arenas
    }

    fn append(&mut self, name: &str, below: bool) -> Option<Position> {
        let start = self.own_start?;
        // The route's number stands in the index.
        let at = self.own.push(name, below, 0).map_err(|Full| ()).ok()?;
        start.checked_add(Position::try_from(at).ok()?)
    }

    /// The position of a place in a file's arena.
    fn position(&self, file: usize, at: usize) -> Option<Position> {
        let (start, _) = self.files.get(file)?;
        start.checked_add(Position::try_from(at).ok()?)
    }

    fn file_at(&self, at: Position) -> Option<(&RoutesFile, usize)> {
        if self.own_start.is_some_and(|own| at >= own) {
            return None;
        }
        let after = self.files.partition_point(|(start, _)| *start <= at);
        let (start, file) = self.files.get(after.checked_sub(1)?)?;
        Some((file, usize::try_from(at - start).ok()?))
    }

    fn entry(&self, at: Position) -> Option<Entry<'_>> {
        let (arena, at): (&Arena, usize) = match self.file_at(at) {
            Some((file, at)) => (file.names(), at),
            None => (self.own.arena(), usize::try_from(at - self.own_start.unwrap_or(0)).ok()?),
        };
        arena.entry(at)
    }

    /// Whether the name at a position is this one.
    fn holds(&self, at: Position, name: &str) -> bool {
        self.entry(at).is_some_and(|entry| entry.is(name))
    }

    fn hash(&self, hasher: &RandomState, at: Position) -> u64 {
        let entry = self.entry(at);
        entry.map_or(0, |entry| hasher.hash_one(entry.text(&mut [0; MAX_NAME])))
    }
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
    use crate::model::routes_file::testing::file;
    use proptest::prelude::*;

    fn add_file(names: &mut Names, number: usize, file: &RoutesFile, route: u32) {
        for (at, entry) in file.names().iter() {
            let hash = names.hash(&entry);
            names.add_entry(number, at, (&entry, hash), route).unwrap();
        }
    }

    /// What [`Names::exact`] and then the first of [`Names::wildcards`] say.
    fn lookup<'a>(names: &'a Names, name: &'a str) -> Option<(u32, Option<&'a str>)> {
        let exact = names.exact(name).map(|route| (route, None));
        exact.or_else(|| names.wildcards(name).next().map(|(below, route)| (route, Some(below))))
    }

    #[test]
    fn names_of_files_and_of_others_stand_side_by_side() {
        let files = [file("a.example x:1\nAB.example. x:1\n*.wild.example\tx:1"), file("a x:1")];
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
        names.finish();
        assert_eq!(lookup(&names, "ab.example"), Some((0, None)));
    }

    #[test]
    fn a_name_that_is_there_says_where() {
        let files = [file("b x:1\na.example x:1\n")];
        let mut names = Names::over(&files, 2);
        add_file(&mut names, 0, &files[0], 7);
        let again = names.add(&NamePattern::parse("A.example").unwrap(), 8);
        let Err(NotAdded::Taken { first, route: 7 }) = again else { panic!("{again:?}") };
        let Written::File(file, at) = names.written(first) else { panic!("{first}") };
        assert_eq!((file.origin(at).line, file.origin(at).column), (2, 1));
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
            let text = in_file.iter().flat_map(|name| [*name, " x:1\n"]).collect::<String>();
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
            for (at, entry) in files[0].names().iter() {
                let pattern = NamePattern::parse(&entry.written()).unwrap();
                let hash = names.hash(&entry);
                let added = names.add_entry(0, at, (&entry, hash), next);
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
