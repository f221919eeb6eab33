//! What a source says, whole: never a change, always the state as that source knows it.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::allowed::Permissions;
use super::app::AppId;
use super::egress::{EgressSpec, Space};
use super::name::{Name, NameError, NamePattern};
use super::offer::{Offer, Wanted};
use super::routes_file::RoutesFile;

/// Where something was written, for messages that send the reader there. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The file as the operator named it.
    pub file: Arc<Path>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// All routes that the configuration asks for: apps' exports under their names, plain routes, routes files.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// Routes with settings of their own.
    pub routes: Vec<RouteSpec>,
    /// Files with many plain routes.
    pub files: Vec<Arc<RoutesFile>>,
    /// What the `names` patterns can make, so that no wildcard may cover it.
    pub reserved: Vec<ReservedName>,
    /// The networks of this cluster: whose clients are local.
    pub local: Vec<IpNet>,
    /// The apps of this cluster that are known as callers, by where they call from.
    pub callers: Vec<CallerSpec>,
    /// Where imported apps have addresses of their own; `None` where they have none.
    pub egress: Option<EgressListeners>,
    /// This cluster's name; empty only where the configuration has none, which is an error.
    pub cluster: Arc<str>,
    /// The other clusters from which something is imported.
    pub peers: Vec<PeerSpec>,
    /// Imports of whatever other clusters export in a namespace.
    pub namespaces: Vec<NamespaceImport>,
    /// Which apps of other clusters each app may call, besides what imports say.
    pub permissions: Permissions,
}

/// Another cluster, as one to ask what it exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    /// Its name.
    pub cluster: Arc<str>,
    /// Its gateways.
    pub gateways: Vec<EndpointAt>,
    /// What is imported from there.
    pub wanted: Arc<Wanted>,
}

/// `app: "shop/*"`: whatever other clusters export there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceImport {
    /// The namespace.
    pub namespace: Arc<str>,
    /// What each of its apps gets, with the gateways of all clusters.
    pub import: ImportSpec,
    /// Where it was written.
    pub origin: Origin,
}

/// What a route stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An app: its sidecars speak mutual TLS, and no two apps may ever share a name.
    App,
    /// Something else that clusters may call from each other, under one name: its bytes are carried as they are, whoever speaks
    /// first.
    Service,
    /// A name or a wildcard of `routes`, or of a routes file. Links do not lead there.
    Plain,
}

/// One route: the names that lead to it, who may use it, where it goes.
#[derive(Debug, Clone)]
pub struct RouteSpec {
    /// The metric label: `namespace/app`, or the name of a service or a plain route.
    pub label: Arc<str>,
    /// What it stands for.
    pub kind: Kind,
    /// The names, each with the place that asks for it.
    pub names: Vec<(NamePattern, Origin)>,
    /// Who may use it: for an app, what its export says.
    pub allow: Allow,
    /// What local callers have in its stead, if the app is imported.
    pub import: Option<ImportSpec>,
    /// Where it goes.
    pub endpoints: Vec<EndpointSpec>,
    /// The active check of its endpoints.
    pub check: Option<Check>,
    /// Whether endpoints get a PROXY v2 header in front of the client's bytes.
    pub send_proxy: bool,
    /// Whether a connection that seems to carry no call may be closed, so that it is made anew elsewhere.
    pub quiet_close: bool,
    /// Whether links may bring what is no TLS.
    pub plaintext: bool,
}

/// Who may use a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// A plain route without `allow`: whoever reaches the listener.
    Open,
    /// Whoever one of the rules admits.
    Rules(Vec<AllowRule>),
    /// Nobody, and nobody is told that it is there: an app that is imported and not exported. Of an import: only documents of
    /// allowed apps say who may call.
    Hidden,
}

/// One rule of an `allow` list. Only `cluster` proves anything: a network is where a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowRule {
    /// `any`
    Any,
    /// `{ network: CIDR }`
    Network(IpNet),
    /// `{ networksOf: CLUSTER }`, with that cluster's networks filled in.
    NetworksOf(Arc<str>, Vec<IpNet>),
    /// `{ cluster: CLUSTER, apps: [APP, …] }`: links of that cluster alone, for these of its apps, or all if there are none.
    Cluster {
        /// Proven by certificate.
        cluster: Arc<str>,
        /// Claimed by that cluster.
        apps: Vec<AppId>,
    },
    /// An app of this cluster, which is known by where it calls from. Stands in imports.
    Caller(AppId),
}

/// An app that is called in other clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSpec {
    /// Which callers of this cluster may call it.
    pub allow: Allow,
    /// Whether this cluster is one of those where it is called: local callers may then get the route's own endpoints.
    pub own: bool,
    /// The gateways of the other clusters.
    pub gateways: Vec<GatewaySpec>,
    /// Whether a local caller's connection that seems to carry no call may be closed.
    pub quiet_close: bool,
    /// How long what is preferred must have been well until such connections that went elsewhere are closed.
    pub failback: Duration,
    /// The egress addresses that it is to have.
    pub egress: EgressSpec,
    /// Whether callers that do not speak TLS are carried too.
    pub plaintext: bool,
    /// What its name stands for.
    pub answer: Answer,
}

/// What the name of an imported app stands for, where this gateway is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answer {
    /// This gateway, which opens a link: `linked`.
    #[default]
    Linked,
    /// The gateways of the first healthy cluster: `direct`.
    Direct,
}

/// Where an app of this cluster calls from. By this it is known as a caller: its place in the network, no identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerSpec {
    /// The app.
    pub app: AppId,
    /// Its networks.
    pub networks: Vec<IpNet>,
    /// Names that stand for the addresses of its pods.
    pub hosts: Vec<Name>,
    /// Users of this machine that its processes run as.
    pub users: Vec<u32>,
}

/// `listeners.egress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressListeners {
    /// Where addresses come from.
    pub space: Space,
    /// The file that keeps them.
    pub lock: PathBuf,
}

/// A gateway of another cluster, as a way to an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySpec {
    /// The cluster.
    pub cluster: Arc<str>,
    /// Where.
    pub at: EndpointAt,
    /// Lower goes first; counted together with the priorities of the route's own endpoints.
    pub priority: u8,
    /// What the cluster says of the app.
    pub offering: Offering,
}

/// What another cluster says of an app that is imported from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Offering {
    /// Nothing yet: it may offer the app.
    #[default]
    Unknown,
    /// That it exports it.
    Offered(Offer),
    /// What it exports, and this is not among that.
    Missing,
}

/// An endpoint as written: one address, or a DNS name that stands for all of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Where.
    pub at: EndpointAt,
    /// Share of the load against endpoints of the same priority; at least 1.
    pub weight: u16,
    /// Lower goes first; a higher number is used only when no lower one can be.
    pub priority: u8,
    /// Where it was written.
    pub origin: Origin,
}

/// An address, or a name to resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAt {
    /// `10.0.0.7:50002`, `[fd00::7]:50002`
    Address(SocketAddr),
    /// `checkout-dapr.shop.svc.cluster.local:50002`
    Host(Name, u16),
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No colon that a port could follow.
    #[error("an endpoint needs a port: host:port")]
    NoPort,
    /// What follows the last colon is no port.
    #[error("the port is a number from 1 to 65535")]
    BadPort,
    /// Colons outside brackets, or brackets around something else.
    #[error("an IPv6 address stands in brackets: [2001:db8::7]:50002")]
    Ipv6,
    /// An address that is one only together with an interface (RFC 4007 §11).
    #[error(
        "a link-local address needs the number of its interface, which `ip link` tells: [fe80::7%2]:50002"
    )]
    LinkLocal,
    /// Digits and dots, but no IPv4 address.
    #[error("the host is no IPv4 address, and a host name does not end in a number")]
    Ipv4,
    /// The host is no DNS name.
    #[error(transparent)]
    Host(NameError),
}

impl EndpointAt {
    /// Reads `host:port`, `10.0.0.7:50002` or `[fd00::7]:50002`. An IPv4-mapped address becomes the IPv4 address, so that
    /// one socket has one spelling.
    pub fn parse(written: &str) -> Result<Self, EndpointError> {
        let (host, port) = written.rsplit_once(':').ok_or(EndpointError::NoPort)?;
        if host.starts_with('[') || host.contains(':') {
            let address: SocketAddr = written.parse().map_err(|_| wrong_ipv6(host, port))?;
            return match canonical(address) {
                address if is_nobodys(&address) => Err(EndpointError::LinkLocal),
                address if address.port() == 0 => Err(EndpointError::BadPort),
                address => Ok(Self::Address(address)),
            };
        }
        let port = parse_port(port).ok_or(EndpointError::BadPort)?;
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Ok(Self::Address((address, port).into()));
        }
        match Name::parse(host) {
            Ok(name) => Ok(Self::Host(name, port)),
            Err(NameError::IpLiteral) => Err(EndpointError::Ipv4),
            Err(error) => Err(EndpointError::Host(error)),
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => (v4, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

/// Whether a link's address comes without its link.
fn is_nobodys(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0)
}

/// Digits only: `str::parse` would let a plus sign in.
fn parse_port(written: &str) -> Option<u16> {
    let digits = written.bytes().all(|byte| byte.is_ascii_digit());
    written.parse().ok().filter(|&port| digits && port != 0)
}

fn wrong_ipv6(host: &str, port: &str) -> EndpointError {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let scoped = literal.and_then(|literal| literal.split_once('%')?.0.parse::<Ipv6Addr>().ok());
    if scoped.is_some_and(|address| address.is_unicast_link_local()) {
        return EndpointError::LinkLocal;
    }
    let is_ipv6 = literal.is_some_and(|literal| literal.parse::<Ipv6Addr>().is_ok());
    if is_ipv6 && parse_port(port).is_none() { EndpointError::BadPort } else { EndpointError::Ipv6 }
}

impl fmt::Display for EndpointAt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(out, "{address}"),
            Self::Host(name, port) => write!(out, "{name}:{port}"),
        }
    }
}

/// Active check of an endpoint: a TCP connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Check {
    /// Time from the start of one check to the start of the next.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Successes in a row that bring an endpoint up.
    pub rise: u16,
    /// Failures in a row that take it down.
    pub fall: u16,
}

/// A name template of the `names` setting, such as `{app}.{namespace}.mesh.example`.
#[derive(Debug, Clone)]
pub struct ReservedName {
    /// The template as written.
    pub template: Arc<str>,
    /// What stands behind the last placeholder, canonical and without a leading dot: `mesh.example`.
    pub suffix: Name,
    /// Where it was written.
    pub origin: Origin,
}

impl ReservedName {
    /// The name that the template makes for an app.
    pub fn expand(&self, app: &AppId) -> Result<Name, NameError> {
        // The namespace first: it has no braces, as no app has, so nothing is replaced twice.
        let name = self.template.replace("{namespace}", app.namespace());
        Name::parse(&name.replace("{app}", app.app()))
    }
}

/// Addresses that DNS names stand for. A name that is absent has not been answered yet; an empty list is an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(pub HashMap<Name, Vec<IpAddr>>);

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(written: &str) -> Result<String, EndpointError> {
        EndpointAt::parse(written).map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn one_socket_has_one_spelling() {
        for (written, canonical) in [
            ("10.0.0.7:50002", "10.0.0.7:50002"),
            ("[fd00:0::7]:50002", "[fd00::7]:50002"),
            ("[::ffff:10.0.0.7]:50002", "10.0.0.7:50002"),
            ("Checkout.Shop.svc.:050002", "checkout.shop.svc:50002"),
        ] {
            assert_eq!(endpoint(written).unwrap(), canonical, "{written}");
        }
    }

    #[test]
    fn what_nobody_can_dial_is_no_endpoint() {
        for (written, error) in [
            ("checkout", EndpointError::NoPort),
            ("checkout:", EndpointError::BadPort),
            ("checkout:0", EndpointError::BadPort),
            ("checkout:+80", EndpointError::BadPort),
            ("checkout:65536", EndpointError::BadPort),
            ("10.0.0.7:0", EndpointError::BadPort),
            ("[fd00::7]:0", EndpointError::BadPort),
            ("[fd00::7]:x", EndpointError::BadPort),
            ("[fe80::7]:80", EndpointError::LinkLocal),
            ("[fe80::7%0]:80", EndpointError::LinkLocal),
            ("[fe80::7%eth0]:80", EndpointError::LinkLocal),
            ("[fd00::7%eth0]:80", EndpointError::Ipv6),
            ("[fd00::7]", EndpointError::Ipv6),
            ("fd00::7:80", EndpointError::Ipv6),
            ("[10.0.0.7]:80", EndpointError::Ipv6),
            ("10.0.0:80", EndpointError::Ipv4),
            ("10.0.0.256:80", EndpointError::Ipv4),
            (":80", EndpointError::Host(NameError::Empty)),
            ("a b:80", EndpointError::Host(NameError::BadByte(b' '))),
        ] {
            assert_eq!(endpoint(written), Err(error), "{written}");
        }
    }
}
