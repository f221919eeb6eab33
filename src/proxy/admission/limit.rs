//! The limits that a connection may be refused for.

/// A limit, named as its setting is where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Limit {
    /// `limits.connections`, or what the file descriptors allow where that is less.
    Connections,
    /// `limits.perListener`
    PerListener,
    /// `limits.perSource`
    PerSource,
    /// `limits.pending`
    Pending,
    /// `limits.pendingPerSource`
    PendingPerSource,
    /// `limits.helloRate`
    HelloRate,
    /// `limits.helloBytes`
    HelloBytes,
    /// File descriptors, of which some are kept for everything but connections.
    Descriptors,
    /// Connects in progress of one route.
    Dials,
    /// Sockets for endpoints: descriptors, memory, source ports.
    Sockets,
    /// Links on which the gateways of one cluster ask what is exported to it.
    Exchange,
}

impl Limit {
    /// Every limit.
    pub(in crate::proxy) const ALL: [Self; 11] = [
        Self::Connections,
        Self::PerListener,
        Self::PerSource,
        Self::Pending,
        Self::PendingPerSource,
        Self::HelloRate,
        Self::HelloBytes,
        Self::Descriptors,
        Self::Dials,
        Self::Sockets,
        Self::Exchange,
    ];

    /// The metric label and log field.
    pub(in crate::proxy) fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::PerListener => "perListener",
            Self::PerSource => "perSource",
            Self::Pending => "pending",
            Self::PendingPerSource => "pendingPerSource",
            Self::HelloRate => "helloRate",
            Self::HelloBytes => "helloBytes",
            Self::Descriptors => "descriptors",
            Self::Dials => "dials",
            Self::Sockets => "sockets",
            Self::Exchange => "exchange",
        }
    }

    /// What the operator is told.
    pub(in crate::proxy) fn reason(self) -> &'static str {
        match self {
            Self::Connections => "as many connections are open as limits.connections allows",
            Self::PerListener => {
                "as many connections of the listener are open as limits.perListener allows"
            }
            Self::PerSource => {
                "as many connections of the source are open as limits.perSource allows"
            }
            Self::Pending => "as many hellos are waited for as limits.pending allows",
            Self::PendingPerSource => {
                "as many hellos of the source are waited for as limits.pendingPerSource allows"
            }
            Self::HelloRate => "the source sends hellos faster than limits.helloRate allows",
            Self::HelloBytes => "the hello is longer than limits.helloBytes allows",
            Self::Descriptors => "too few file descriptors are free",
            Self::Dials => "too many connects to the route's endpoints are in progress",
            Self::Sockets => "the system gives no socket for an endpoint",
            Self::Exchange => {
                "as many links are open as may be on which the gateways of one cluster ask what is exported to it"
            }
        }
    }

    /// What the operator may do.
    pub(in crate::proxy) fn hint(self) -> &'static str {
        match self {
            Self::Connections | Self::PerListener => {
                "raise the limit if this load is meant to be, or look which peers hold the connections: /status names the \
                 sources that have most, and limits.perSource keeps one from taking all"
            }
            Self::PerSource | Self::PendingPerSource | Self::HelloRate => {
                "raise the limit if this source stands for many callers, as a NAT gateway does; a load balancer that sends \
                 PROXY headers belongs into the listener's proxyProtocol.from, and its clients are counted instead of it"
            }
            Self::Pending => {
                "look which sources connect and send no hello: limits.pendingPerSource keeps one from taking all"
            }
            Self::HelloBytes => "limits.helloBytes is the limit",
            Self::Descriptors => {
                "raise the process's limit of file descriptors (ulimit -n, LimitNOFILE=), or lower limits.connections"
            }
            Self::Sockets => {
                "raise what has run out: file descriptors (ulimit -n, LimitNOFILE=) or, if no address can be assigned, source \
                 ports (net.ipv4.ip_local_port_range, or more endpoints); or lower limits.connections"
            }
            Self::Exchange => {
                "a gateway asks on one link: look what in the other cluster opens so many with its certificate"
            }
            Self::Dials => {
                "the route's endpoints answer too slowly for its load: look at them, or lower limits.connectTotal"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_limit_has_a_label_and_a_place_of_its_own() {
        let labels: HashSet<_> = Limit::ALL.iter().map(|limit| limit.label()).collect();
        assert_eq!(labels.len(), Limit::ALL.len());
        assert!(Limit::ALL.iter().enumerate().all(|(place, limit)| *limit as usize == place));
    }
}
