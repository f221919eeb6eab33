//! A hash index of eight bytes a slot: where a name stands, the number of its route, and eight bits of its hash.
//!
//! Open addressing with linear probing, filled to four fifths: ten bytes a name, and a look-up reads one line of memory here
//! and one of the name's text. A general hash table (hashbrown) was measured at 19 bytes a name, and slower to build:
//! it keeps its tags apart from its entries, which is one more miss, and its sizes are powers of two.

use std::hint::black_box;

use crate::model::arena::roomy;

/// Where a name stands, as `super::names` counts.
pub(super) type Position = u32;

/// Most routes: what fits beside tag and position. That many routes would take gigabytes.
const MAX_ROUTE: u32 = (1 << 24) - 1;
/// Room that the first name makes when none was reserved.
const FIRST_NAMES: usize = 8;

/// Names by hash. The names themselves are the caller's: it passes what compares one with the name at a position.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<Slot>,
    used: usize,
}

/// From the top: 8 bits of tag, 24 of route, 32 of position. No tag is 0, so 0 is an empty slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Slot(u64);

impl Slot {
    fn new(hash: u64, at: Position, route: u32) -> Self {
        Self((tag(hash) << 56) | (u64::from(route) << 32) | u64::from(at))
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn tag(self) -> u64 {
        self.0 >> 56
    }

    /// Where the name stands.
    pub(super) fn at(self) -> Position {
        // Never fails: 32 bits.
        u32::try_from(self.0 & 0xffff_ffff).unwrap_or_default()
    }

    /// The number of its route.
    pub(super) fn route(self) -> u32 {
        // Never fails: 24 bits.
        u32::try_from((self.0 >> 32) & u64::from(MAX_ROUTE)).unwrap_or_default()
    }
}

/// The lowest bits of the hash; the highest choose the slot, so the two say different things.
fn tag(hash: u64) -> u64 {
    (hash & 0xff).max(1)
}

/// Why a name could not be inserted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotInserted {
    /// It is there.
    Taken(Slot),
    /// A number that does not fit.
    Route,
}

impl Index {
    /// Room for a number of names.
    pub(super) fn with_capacity(names: usize) -> Self {
        Self { slots: empty(slots_for(names)), used: 0 }
    }

    /// Number of names.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// The name with this hash for which `same` says yes.
    pub(super) fn find(&self, hash: u64, same: impl Fn(Position) -> bool) -> Option<Slot> {
        let (_, met) = self.probe(hash, same)?;
        (!met.is_empty()).then_some(met)
    }

    /// Inserts a name unless `same` finds it here. `rehash` gives the hash of a name that is here.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        at: Position,
        route: u32,
        same: impl Fn(Position) -> bool,
        rehash: impl Fn(Position) -> u64,
    ) -> Result<(), NotInserted> {
        if route > MAX_ROUTE {
            return Err(NotInserted::Route);
        }
        if slots_for(self.used + 1) > self.slots.len() {
            self.resize(slots_for(FIRST_NAMES.max(self.used * 2)), rehash);
        }
        match self.probe(hash, same) {
            Some((_, taken)) if !taken.is_empty() => return Err(NotInserted::Taken(taken)),
            Some((free, _)) => self.put(free, Slot::new(hash, at, route)),
            // Never: one slot in five is empty.
            None => {}
        }
        Ok(())
    }

    /// Has the memory fetched in which a name with this hash will be looked for.
    pub(super) fn fetch(&self, hash: u64) {
        black_box(self.home(hash).and_then(|home| self.slots.get(home)).copied());
    }

    /// Every name, in no order that means anything.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().copied().filter(|slot| !slot.is_empty())
    }

    /// Gives back room that was reserved and not used.
    pub(super) fn shrink(&mut self, rehash: impl Fn(Position) -> u64) {
        let enough = slots_for(self.used);
        if enough < self.slots.len() / 2 {
            self.resize(enough, rehash);
        }
    }

    fn resize(&mut self, slots: usize, rehash: impl Fn(Position) -> u64) {
        let old = std::mem::replace(self, Self { slots: empty(slots), used: 0 });
        for slot in old.slots.into_iter().filter(|slot| !slot.is_empty()) {
            if let Some((free, _)) = self.probe(rehash(slot.at()), |_| false) {
                self.put(free, slot);
            }
        }
    }

    fn put(&mut self, index: usize, slot: Slot) {
        if let Some(place) = self.slots.get_mut(index) {
            *place = slot;
            self.used += 1;
        }
    }

    /// The hash, as a fraction, times the number of slots: any number of slots will do, and no division is needed.
    fn home(&self, hash: u64) -> Option<usize> {
        let slots = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        usize::try_from((u128::from(hash) * u128::from(slots)) >> 64).ok()
    }

    /// The first slot that is empty or the name's own, from the one that its hash begins at and around the end.
    fn probe(&self, hash: u64, same: impl Fn(Position) -> bool) -> Option<(usize, Slot)> {
        let home = self.home(hash)?;
        let (before, from) = self.slots.split_at_checked(home)?;
        let tag = tag(hash);
        let ends = |slot: &Slot| slot.is_empty() || (slot.tag() == tag && same(slot.at()));
        let first = |slots: &[Slot]| slots.iter().position(ends);
        let index = first(from).map(|index| home + index).or_else(|| first(before))?;
        self.slots.get(index).map(|&slot| (index, slot))
    }
}

fn empty(slots: usize) -> Vec<Slot> {
    let mut empty = roomy(slots);
    empty.resize(slots, Slot::default());
    empty
}

/// Slots for a number of names: a quarter more, and one that is always empty.
fn slots_for(names: usize) -> usize {
    if names == 0 { 0 } else { names + names / 4 + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn an_empty_index_finds_nothing_and_grows() {
        let mut index = Index::default();
        assert_eq!(index.find(7, |_| true), None);
        for at in 0..1000 {
            index
                .insert(u64::from(at) << 54, at, 1, |other| other == at, |at| u64::from(at) << 54)
                .unwrap();
        }
        assert_eq!(index.len(), 1000);
        let found =
            (0..1000).filter(|&at| index.find(u64::from(at) << 54, |it| it == at).is_some());
        assert_eq!(found.count(), 1000);
    }

    #[test]
    fn room_for_a_number_of_names_is_enough_for_them() {
        for names in [1, 2, 3, 4, 5, 100, 1001] {
            let mut index = Index::with_capacity(names);
            let slots = index.slots.len();
            for at in 0..u32::try_from(names).unwrap() {
                index.insert(u64::MAX, at, 0, |_| false, |_| unreachable!("it grew")).unwrap();
            }
            assert_eq!(index.slots.len(), slots, "{names}");
        }
    }

    #[test]
    fn a_route_that_does_not_fit_is_refused() {
        let mut index = Index::default();
        assert_eq!(index.insert(0, 0, MAX_ROUTE, |_| false, |_| 0), Ok(()));
        assert_eq!(index.find(0, |_| true).unwrap().route(), MAX_ROUTE);
        assert_eq!(index.insert(0, 1, MAX_ROUTE + 1, |_| false, |_| 0), Err(NotInserted::Route));
    }

    proptest! {
        /// Few hashes, so that runs are long, meet and go around the end.
        #[test]
        fn agrees_with_a_map(
            names in prop::collection::vec((0_u64..40, 0_u64..3), 0..200),
            asked in prop::collection::vec((0_u64..40, 0_u64..3), 50),
            room in 0_usize..100,
        ) {
            let hash = |(name, _): (u64, u64)| (name % 5).wrapping_sub(2).wrapping_mul(0x1111_1111_1111_1111);
            let mut index = Index::with_capacity(room);
            let mut map = HashMap::new();
            for (route, (at, &name)) in (0..).zip((u32::MAX - 500..).zip(&names)) {
                let known = map.get(&name).map(|&(at, _)| at);
                let rehash = |at: u32| hash(names[(at - (u32::MAX - 500)) as usize]);
                let inserted = index.insert(hash(name), at, route, |it| Some(it) == known, rehash);
                if let Some(&(at, route)) = map.get(&name) {
                    let Err(NotInserted::Taken(taken)) = inserted else { panic!("{inserted:?}") };
                    prop_assert_eq!((taken.at(), taken.route()), (at, route));
                } else {
                    prop_assert_eq!(inserted, Ok(()));
                    map.insert(name, (at, route));
                }
            }
            index.shrink(|at| hash(names[(at - (u32::MAX - 500)) as usize]));
            prop_assert_eq!(index.len(), map.len());
            for name in asked.into_iter().chain(names.iter().copied()) {
                let known = map.get(&name).copied();
                let found = index.find(hash(name), |it| Some(it) == known.map(|(at, _)| at));
                prop_assert_eq!(found.map(|slot| (slot.at(), slot.route())), known);
            }
        }
    }
}
