//! Who may come in: how many connections there may be, in all, of a listener, of a source, and before their hello.
//!
//! Over a limit it is always the newest that is refused. What a limit counts is a value that somebody holds: a connection is
//! counted as long as its [`Entry`] or [`Permit`] lives, and one that is refused has none.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use ipnet::IpNet;

use crate::config::Limits;

use super::places::{Place, Places};
use super::refuse::Refused;

mod complaints;
mod descriptors;
mod limit;
mod sources;

pub(super) use self::complaints::Complaints;
pub(super) use self::descriptors::{Descriptors, has_spare};
pub(super) use self::limit::Limit;
use self::sources::{Counted, Sources};

/// Counts the connections of one gateway.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) descriptors: Descriptors,
    connections: Places,
    pending: Places,
    sources: Sources,
}

/// A connection whose hello is not whole yet.
#[derive(Debug)]
pub(super) struct Entry {
    connections: Place,
    listener: Place,
    source: Option<Counted>,
    _pending: Place,
}

/// A connection that may stay until this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    _connections: Place,
    _listener: Place,
    _source: Option<Counted>,
}

/// How far limits are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The limit by its setting's name: `connections`.
    pub limit: &'static str,
    /// What it is a limit of, where there are several: a listener or a source network.
    pub of: Option<String>,
    /// What is counted now.
    pub used: usize,
    /// The limit in force; 0 is none.
    pub most: usize,
}

impl Admission {
    pub(super) fn new(descriptors: Descriptors) -> Self {
        Self {
            descriptors,
            connections: Places::default(),
            pending: Places::default(),
            sources: Sources::default(),
        }
    }

    /// Admits an accepted connection, of which only the listener is known.
    pub(super) fn enter(
        &self,
        listener: &Places,
        socket: Option<&impl AsFd>,
        limits: &Limits,
    ) -> Result<Entry, Refused> {
        if socket.is_none_or(|socket| self.descriptors.are_scarce(socket)) {
            return Err(Refused::over(Limit::Descriptors));
        }
        let take =
            |places: &Places, most, limit| places.take(most).ok_or_else(|| Refused::over(limit));
        Ok(Entry {
            connections: take(&self.connections, self.most(limits), Limit::Connections)?,
            listener: take(listener, limits.per_listener, Limit::PerListener)?,
            source: None,
            _pending: take(&self.pending, limits.pending, Limit::Pending)?,
        })
    }

    /// Admits it for its source, which is known now.
    pub(super) fn admit(
        &self,
        entry: &mut Entry,
        source: SocketAddr,
        limits: &Limits,
    ) -> Result<(), Refused> {
        entry.source = Some(self.sources.enter(source.ip(), limits).map_err(Refused::over)?);
        Ok(())
    }

    /// `limits.connections` as far as the file descriptors allow it; 0 is no limit.
    pub(super) fn most(&self, limits: &Limits) -> usize {
        match (limits.connections, self.descriptors.connections()) {
            (0, allowed) => allowed,
            (configured, 0) => configured,
            (configured, allowed) => configured.min(allowed),
        }
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.connections.taken()
    }

    /// How far the limits are used, listeners apart. The `busiest` sources come with their connections.
    pub(super) fn usage(&self, limits: &Limits, busiest: usize) -> Vec<Usage> {
        let usage = |limit: Limit, used, most| Usage { limit: limit.label(), of: None, used, most };
        let of_source = |(network, used): (IpNet, usize)| Usage {
            of: Some(network.to_string()),
            ..usage(Limit::PerSource, used, limits.per_source)
        };
        let mut all = vec![
            usage(Limit::Connections, self.open(), self.most(limits)),
            usage(Limit::Pending, self.pending.taken(), limits.pending),
        ];
        all.extend(self.sources.busiest(busiest).into_iter().map(of_source));
        all
    }
}

impl Usage {
    /// Of a listener.
    pub(super) fn of_listener(label: &str, places: &Places, limits: &Limits) -> Self {
        let limit = Limit::PerListener.label();
        let (used, most) = (places.taken(), limits.per_listener);
        Self { limit, of: Some(label.to_owned()), used, most }
    }
}

impl Entry {
    /// The hello is whole.
    pub(super) fn heard(self) -> Permit {
        let Self { connections, listener, mut source, _pending } = self;
        if let Some(source) = &mut source {
            source.heard();
        }
        Permit { _connections: connections, _listener: listener, _source: source }
    }
}
