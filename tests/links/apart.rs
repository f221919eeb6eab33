//! Two clusters in networks of their own, whose gateways are all that one sees of the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use super::common::gateway::Gateway;
use super::common::net::Net;
use super::common::wait_for;
use super::grpc::{Host, Way};
use super::{Folders, base};

/// Where east's gateway is: the only address of east's that west knows a way to.
const EAST: &str = "203.0.113.2:8443";
/// Where west's gateway has its listeners.
const WEST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Where west's callers are, of which the one that is known is shop/frontend.
pub(crate) const FRONTEND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 4, 7));

/// The two, with a machine for the sidecars of each.
pub(crate) struct Apart {
    folders: Folders,
    pub(crate) callers: Host,
    pub(crate) callees: Host,
    pub(crate) near: Gateway,
    pub(crate) far: Gateway,
    west: Net,
    _east: Net,
}

impl Apart {
    /// With what each configuration has besides. `None`: this machine does not let the test, which has said so.
    pub(crate) fn start(test: &str, of_west: &str, of_east: &str) -> Option<Self> {
        let (west, east) = Net::new(test).zip(Net::new(test))?;
        west.join(&east, "203.0.113.1/24", "203.0.113.2/24");
        // Every address of these networks is the host's own then.
        west.ip(&["address", "add", &format!("{WEST}/16"), "dev", "lo"]);
        east.ip(&["address", "add", "10.2.0.1/16", "dev", "lo"]);
        let folders = Folders::new();
        let far = east.run(|| Gateway::with_config(&east_of(&folders, of_east)));
        let near = west.run(|| Gateway::with_config(&west_of(&folders, of_west)));
        Some(Self {
            folders,
            callers: west.run(Host::new),
            callees: east.run(Host::new),
            near,
            far,
            west,
            _east: east,
        })
    }

    /// Writes both configurations anew.
    pub(crate) fn rewrite(&self, of_west: &str, of_east: &str) {
        self.near.rewrite_all(&west_of(&self.folders, of_west));
        self.far.rewrite_all(&east_of(&self.folders, of_east));
    }

    /// Where the sidecar of an app of east's is.
    pub(crate) fn callee(number: u8) -> SocketAddr {
        (Ipv4Addr::new(10, 2, 1, number), 50_002).into()
    }

    /// The same of west's.
    pub(crate) fn own_callee(number: u8) -> SocketAddr {
        (Ipv4Addr::new(10, 1, 1, number), 50_002).into()
    }

    /// Whether a connection from west comes about.
    pub(crate) fn dial(&self, to: SocketAddr) -> io::Result<()> {
        self.west.run(|| TcpStream::connect(to).map(drop))
    }

    /// An app's own address at west's gateway.
    pub(crate) fn egress(&self, app: &str) -> SocketAddr {
        wait_for("the app has an egress address", || self.near.egress(app))
    }

    /// By an app's name at west's gateway.
    pub(crate) fn named(name: &'static str) -> Way {
        Way::Named((WEST, 8443).into(), name)
    }
}

fn west_of(folders: &Folders, more: &str) -> String {
    let listeners = format!("{WEST}:8443\" }}]\n  egress: {{ bind: {WEST}, ports: 20000-20999 }}");
    format!(
        "{}local: {{ networks: [10.1.0.0/16] }}\nclusters: {{ east: {{ gateways: [\"{EAST}\"] }} }}\n{more}",
        base("west", &folders.of("west")).replace("127.0.0.1:0\" }]", &listeners)
    )
}

fn east_of(folders: &Folders, more: &str) -> String {
    let text = base("east", &folders.of("east")).replace("127.0.0.1:0", EAST);
    format!("{text}clusters: {{ west: {{}} }}\n{more}")
}
