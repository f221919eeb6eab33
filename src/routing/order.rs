//! Where a client may be led: by its side, and by what is said of its app.

use std::sync::Arc;

use crate::model::client::Side;

use super::table::{Candidate, Route};

/// A cluster as a place where an app is called. `None` is this one.
pub type Place = Option<Arc<str>>;

/// The clusters where one caller may call an app, in its order of preference.
#[derive(Debug, PartialEq, Eq)]
pub struct Order(Box<[Place]>);

/// Where a client stands towards a route.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Its side.
    pub side: Side,
    /// Its order of clusters, if it has one of its own; else the import's holds.
    pub order: Option<&'a Order>,
}

impl From<Side> for Standing<'_> {
    fn from(side: Side) -> Self {
        Self { side, order: None }
    }
}

impl Standing<'_> {
    /// How many ranks there may be.
    pub(super) fn ranks(&self) -> usize {
        self.order.map_or(1, |order| order.0.len())
    }
}

impl Order {
    /// An order of these places.
    pub(super) fn new(places: impl IntoIterator<Item = Place>) -> Self {
        Self(places.into_iter().collect())
    }

    /// This cluster alone.
    pub(super) fn own() -> Self {
        Self::new([None])
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a cluster is in it.
    pub(super) fn has(&self, cluster: Option<&Arc<str>>) -> bool {
        self.0.iter().any(|place| place.as_ref() == cluster)
    }

    fn rank(&self, candidate: &Candidate) -> Option<usize> {
        self.0.iter().position(|place| place.as_ref() == candidate.cluster())
    }
}

impl Route {
    /// Whether a client may be led to one of the candidates, and how early: lower goes first, within that the lower priority. A
    /// remote client is never put on a link: that would make this cluster a way between two others, and two that import from each
    /// other a loop.
    pub(super) fn rank(&self, candidate: &Candidate, standing: Standing<'_>) -> Option<usize> {
        let is_offered = match standing.side {
            Side::Remote => candidate.via.is_none(),
            Side::Local => {
                candidate.via.is_some() || self.import.as_ref().is_none_or(|import| import.own)
            }
        };
        if !is_offered {
            return None;
        }
        standing.order.map_or(Some(0), |order| order.rank(candidate))
    }

    /// Whether a client may be led to one of the candidates.
    pub fn offers<'a>(&self, candidate: &Candidate, standing: impl Into<Standing<'a>>) -> bool {
        self.rank(candidate, standing.into()).is_some()
    }

    /// The places that the route leads to, in its own order.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for candidate in &self.candidates {
            let place = candidate.cluster();
            if !places.iter().any(|known| known.as_ref() == place) {
                places.push(place.cloned());
            }
        }
        places
    }
}

impl Candidate {
    /// The cluster that it is in; `None` for this one.
    fn cluster(&self) -> Option<&Arc<str>> {
        self.via.as_ref().map(|via| &via.cluster)
    }
}
