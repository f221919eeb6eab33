//! Many names in a few bytes each, in the order in which they came.
//!
//! A million names share a few thousand parents (`checkout` and `orders` both stand in `shop.mesh.example`), so a name is kept
//! as its first label and where its parent stands: half of what the names' own text takes. A tree of all labels would save
//! little more, and to compare a name would then take a step for each label.

use std::collections::HashMap;

use super::folding::Folded;
use super::name::MAX_NAME;

/// Bytes in front of each label: what [`Head`] holds.
const HEAD: usize = 8;
/// Largest value beside a name: what the head has room for.
pub const MAX_VALUE: u32 = (1 << 24) - 1;
/// Room for names that are many. glibc maps what is larger than 32 MiB and unmaps it when it is freed, for certain. What is
/// smaller goes, after the first such was freed, into a heap that only shrinks at its end (`mallopt(3)`, `M_MMAP_THRESHOLD`):
/// after some swaps the process would hold two tables that nobody needs. Pages that nobody writes to cost no memory.
pub const MAPPED: usize = 33 << 20;
/// From this size on a buffer is given [`MAPPED`] bytes of room: what a heap keeps of smaller ones does not matter.
const LARGE: usize = 1 << 20;

/// Room for elements that may be many, so that the system gets it back when it is freed.
pub fn roomy<T>(elements: usize) -> Vec<T> {
    let size = size_of::<T>().max(1);
    let large = elements.saturating_mul(size) >= LARGE;
    Vec::with_capacity(if large { elements.max(MAPPED / size) } else { elements })
}

/// Names, each with a number that belongs to it.
#[derive(Debug)]
pub struct Arena {
    /// A head and the first label of each name.
    entries: Vec<u8>,
    /// What stands behind the first labels, each once: a byte of length and the text. The first one is empty.
    parents: Vec<u8>,
}

/// A name as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whether every name below this one is meant: `*.` stood in front.
    pub below: bool,
    /// The number that belongs to it.
    pub value: u32,
    label: &'a [u8],
    parent: &'a [u8],
}

/// A name that does not fit: an arena counts its bytes in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the names are over 4 GiB together, or have more than 16,777,215 different values")]
pub struct Full;

impl Default for Arena {
    fn default() -> Self {
        Self { entries: Vec::new(), parents: vec![0] }
    }
}

impl Arena {
    /// An entry's place is below this.
    pub fn end(&self) -> usize {
        self.entries.len()
    }

    /// The entry at a place that [`Writer::push`] gave.
    #[inline]
    pub fn entry(&self, at: usize) -> Option<Entry<'_>> {
        let (head, rest) = self.entries.get(at..)?.split_first_chunk()?;
        let Head { parent, value, below, length } = Head::read(*head);
        let (&parent_length, parents) = self.parents.get(parent..)?.split_first()?;
        let parent = parents.get(..usize::from(parent_length))?;
        Some(Entry { below, value, label: rest.get(..length)?, parent })
    }

    /// Every entry with its place.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Entry<'_>)> {
        self.iter_from(0)
    }

    /// The entries from a place on.
    pub fn iter_from(&self, at: usize) -> impl Iterator<Item = (usize, Entry<'_>)> {
        let mut next = at;
        std::iter::from_fn(move || {
            let (at, entry) = (next, self.entry(next)?);
            next += HEAD + entry.label.len();
            Some((at, entry))
        })
    }
}

impl Entry<'_> {
    /// Whether this is the name. Of its star it says nothing.
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        let Some(rest) = name.as_bytes().strip_prefix(self.label) else { return false };
        match rest.split_first() {
            None => self.parent.is_empty(),
            Some((&dot, rest)) => dot == b'.' && rest == self.parent && !rest.is_empty(),
        }
    }

    /// Whether this is a name in a domain, the domain itself included. Of its star it says nothing.
    #[inline]
    pub fn is_in(&self, domain: &str) -> bool {
        let below = self.parent.strip_suffix(domain.as_bytes());
        below.is_some_and(|rest| rest.is_empty() || rest.ends_with(b".")) || self.is(domain)
    }

    /// Writes the name, without star, and gives its text.
    #[inline]
    pub fn text<'b>(&self, room: &'b mut [u8; MAX_NAME]) -> &'b str {
        let label = self.label.len();
        let mut length = label;
        if let Some(to) = room.get_mut(..label) {
            to.copy_from_slice(self.label);
        }
        if !self.parent.is_empty()
            && let Some((dot, rest)) = room.get_mut(label..).and_then(<[u8]>::split_first_mut)
            && let Some(to) = rest.get_mut(..self.parent.len())
        {
            *dot = b'.';
            to.copy_from_slice(self.parent);
            length += 1 + self.parent.len();
        }
        // Always text: names are ASCII.
        room.get(..length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }

    /// The name as it is written in configurations, with its star.
    pub fn written(&self) -> String {
        let mut room = [0; MAX_NAME];
        format!("{}{}", if self.below { "*." } else { "" }, self.text(&mut room))
    }
}

/// What stands in front of a label.
struct Head {
    parent: usize,
    value: u32,
    below: bool,
    length: usize,
}

impl Head {
    #[inline]
    fn read(bytes: [u8; HEAD]) -> Self {
        let [p0, p1, p2, p3, v0, v1, v2, rest] = bytes;
        let parent = u32::from_le_bytes([p0, p1, p2, p3]);
        Self {
            parent: usize::try_from(parent).unwrap_or(usize::MAX),
            value: u32::from_le_bytes([v0, v1, v2, 0]),
            below: rest & 0x80 != 0,
            length: usize::from(rest & 0x7f),
        }
    }

    #[inline]
    fn bytes(parent: u32, value: u32, below: bool, length: u8) -> [u8; HEAD] {
        let [p0, p1, p2, p3] = parent.to_le_bytes();
        let [v0, v1, v2, _] = value.to_le_bytes();
        [p0, p1, p2, p3, v0, v1, v2, length | if below { 0x80 } else { 0 }]
    }
}

/// Fills an [`Arena`].
#[derive(Debug, Default)]
pub struct Writer {
    arena: Arena,
    /// Where each parent stands.
    known: HashMap<Box<[u8]>, u32, Folded>,
}

impl Writer {
    /// Expects names whose text takes about so many bytes.
    pub fn with_room(bytes: usize) -> Self {
        let arena = Arena { entries: roomy(bytes), ..Arena::default() };
        Self { arena, known: HashMap::default() }
    }

    /// Adds a canonical name and gives its place.
    pub fn push(&mut self, name: &str, below: bool, value: u32) -> Result<usize, Full> {
        let name = name.as_bytes();
        let dot = memchr::memchr(b'.', name);
        let (label, parent) = match dot.and_then(|dot| name.split_at_checked(dot)) {
            Some((label, rest)) => (label, rest.get(1..).unwrap_or_default()),
            None => (name, &[][..]),
        };
        let at = self.arena.entries.len();
        let length = u8::try_from(label.len()).map_err(|_| Full)?;
        if value > MAX_VALUE || u32::try_from(at + HEAD + label.len()).is_err() {
            return Err(Full);
        }
        let head = Head::bytes(self.parent(parent)?, value, below, length);
        self.arena.entries.extend_from_slice(&head);
        self.arena.entries.extend_from_slice(label);
        Ok(at)
    }

    fn parent(&mut self, parent: &[u8]) -> Result<u32, Full> {
        if parent.is_empty() {
            return Ok(0);
        }
        if let Some(&at) = self.known.get(parent) {
            return Ok(at);
        }
        let parents = &mut self.arena.parents;
        let at = u32::try_from(parents.len()).map_err(|_| Full)?;
        parents.push(u8::try_from(parent.len()).map_err(|_| Full)?);
        parents.extend_from_slice(parent);
        self.known.insert(parent.into(), at);
        Ok(at)
    }

    /// Gives back what only makes a further name cheaper: a parent that comes again would then be kept twice.
    pub fn forget_known(&mut self) {
        self.known = HashMap::default();
        self.arena.entries.shrink_to_fit();
        self.arena.parents.shrink_to_fit();
    }

    /// What there is so far.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The arena.
    pub fn finish(self) -> Arena {
        self.arena
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_itself_and_no_other() {
        let mut writer = Writer::default();
        let at = writer.push("a.b.example", false, 7).unwrap();
        let wild = writer.push("b.example", true, 8).unwrap();
        let alone = writer.push("alone", false, MAX_VALUE).unwrap();
        assert_eq!(writer.push("b", false, MAX_VALUE + 1), Err(Full));
        let arena = writer.finish();
        let [named, below, alone] = [at, wild, alone].map(|at| arena.entry(at).unwrap());
        for other in ["a", "a.", "a.b", "a.b.exampl", "a.b.example2", "b.example", "", "ab.example"]
        {
            assert!(!named.is(other), "{other}");
        }
        assert!(named.is("a.b.example") && below.is("b.example") && alone.is("alone"));
        assert!(!alone.is("alone.") && !alone.is("alone.x"));
        assert!(["a.b.example", "b.example", "example"].iter().all(|domain| named.is_in(domain)));
        assert!(!["xample", "c.a.b.example", "a.b", ""].iter().any(|domain| named.is_in(domain)));
        assert!(alone.is_in("alone") && !alone.is_in("one"));
        assert_eq!((named.value, below.value, alone.value), (7, 8, MAX_VALUE));
        assert_eq!(
            [named, below, alone].map(|entry| entry.written()),
            ["a.b.example", "*.b.example", "alone"]
        );
    }

    #[test]
    fn many_bytes_are_given_room_that_goes_back_to_the_system() {
        assert_eq!(roomy::<u64>(100).capacity(), 100);
        assert!(roomy::<u64>(LARGE).capacity() * 8 >= MAPPED);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            names in prop::collection::vec(("[a-z]{1,63}(\\.[a-z0-9_-]{1,20}){0,4}", any::<bool>(), 0..=MAX_VALUE), 0..40),
        ) {
            let mut writer = Writer::with_room(0);
            let places: Vec<_> =
                names.iter().map(|(name, below, value)| writer.push(name, *below, *value).unwrap()).collect();
            let arena = writer.finish();
            let read: Vec<_> = arena.iter().collect();
            prop_assert_eq!(read.iter().map(|(at, _)| *at).collect::<Vec<_>>(), places);
            for ((_, entry), (name, below, value)) in read.into_iter().zip(&names) {
                prop_assert!(entry.is(name));
                let mut room = [0; MAX_NAME];
                prop_assert_eq!(entry.text(&mut room), name);
                prop_assert_eq!((entry.below, entry.value), (*below, *value));
            }
        }
    }
}
