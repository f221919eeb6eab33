//! Places of which only so many are taken at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts taken places. Clones count together. The limit comes with each request, because it may change while places are taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<AtomicUsize>);

/// A taken place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Places {
    /// A place, unless `limit` of them are taken; 0 is no limit.
    pub(super) fn take(&self, limit: usize) -> Option<Place> {
        // Counted first and given back when it was one too many: the place that is too many is never one that was there before.
        let place = Place(Arc::clone(&self.0));
        let taken = self.0.fetch_add(1, Ordering::Relaxed);
        (limit == 0 || taken < limit).then_some(place)
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_dropped() {
        let places = Places::default();
        let first = places.take(1).unwrap();
        assert!(places.take(1).is_none());
        assert!(places.take(2).is_some(), "a refused request takes no place");
        drop(first);
        assert!(places.take(1).is_some());
    }
}
