//! This cluster, the others, and how links between them prove who is who.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::file::{self, List, Setting};
use crate::config::links::{Links, Peer};
use crate::config::problem::Wrong;
use crate::config::spot::Spot;
use crate::config::suggest::closest;
use crate::config::tree::{NodeId, Value};
use crate::model::app::AppId;
use crate::model::cluster::is_cluster_name;
use crate::model::snapshot::{AllowRule, EndpointAt};

use super::apps::app_id;
use super::routes::endpoint_at;
use super::{Resolver, items};

/// Most letters of a trust domain (SPIFFE-ID §2.1).
const MAX_TRUST_DOMAIN: usize = 255;
/// How links are switched on.
const ADD_LINK: &str = "add `link: { directory: tls, trustDomain: example.org }`, with the folder of this gateway's certificate";

/// All clusters by name, and what this one is called.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    /// `None` where it is missing or wrong, which has been noted.
    pub(super) own: Option<Arc<str>>,
    /// Whether there is a `link`, right or wrong.
    pub(super) linked: bool,
    by_name: HashMap<String, Cluster>,
    /// Those with gateways, in the order in which they are written.
    reachable: Vec<String>,
}

/// One of the other clusters. What was wrong is left out.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) networks: Vec<IpNet>,
    pub(super) gateways: Vec<EndpointAt>,
    /// Whether gateways were written, right or wrong.
    pub(super) has_gateways: bool,
}

impl Clusters {
    pub(super) fn is_own(&self, name: &str) -> bool {
        self.own.as_deref() == Some(name)
    }

    /// The clusters that links lead to, in the order in which they are written.
    pub(super) fn reachable(&self) -> impl Iterator<Item = &str> {
        self.reachable.iter().map(String::as_str)
    }

    pub(super) fn find(&self, name: &str) -> Result<&Cluster, Wrong> {
        self.by_name.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            let fix = match closest(name, &known) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("add it: `clusters: {{ {name}: {{ networks: [CIDR] }} }}`"),
            };
            let message = format!("there is no cluster `{}` under `clusters`", name.escape_debug());
            Wrong::new(message, fix)
        })
    }
}

impl Resolver<'_> {
    /// The other clusters, and what links need to know of them.
    pub(super) fn clusters(
        &mut self,
        written: &Setting<BTreeMap<String, Spot<file::Cluster>>>,
        link: &Setting<file::Link>,
        own: Option<Arc<str>>,
    ) -> (Clusters, Option<Links>) {
        let mut links = self.link(link);
        let mut clusters = Clusters { own, linked: link.is_some(), ..Clusters::default() };
        // Nodes count in the order of the text.
        let mut in_order = BTreeMap::new();
        for (name, spot) in written.iter().filter_map(|spot| spot.value.as_ref()).flatten() {
            let checked = cluster_name(name).map_err(|wrong| self.wrong(spot.node, wrong));
            self.check_case(name, spot.node, &clusters);
            let nothing = file::Cluster::default();
            let cluster = spot.value.as_ref().unwrap_or(&nothing);
            let resolved = self.one_cluster(cluster);
            if resolved.has_gateways && !clusters.is_own(name) {
                in_order.insert(spot.node, name.clone());
            }
            clusters.by_name.insert(name.clone(), resolved);
            if !clusters.linked {
                self.check_unlinked(cluster);
            }
            let peer = self.peer(checked.ok(), cluster, links.as_ref());
            if let (Some(peer), Some(links)) = (peer, &mut links)
                && !clusters.is_own(&peer.cluster)
            {
                links.peers.push(peer);
            }
        }
        clusters.reachable = in_order.into_values().collect();
        (clusters, links)
    }

    /// Names in certificates compare with case, those of the exchange without it.
    fn check_case(&mut self, name: &str, node: NodeId, clusters: &Clusters) {
        let known = clusters.by_name.keys().map(String::as_str).chain(clusters.own.as_deref());
        let same =
            known.into_iter().find(|other| other.eq_ignore_ascii_case(name) && *other != name);
        if let Some(other) = same {
            let message = format!("the clusters {name} and {other} differ only in case");
            self.wrong(node, Wrong::new(message, "rename one of the two"));
        }
    }

    /// Keys that only links use, where there are none.
    fn check_unlinked(&mut self, written: &file::Cluster) {
        if let Some(list) = &written.gateways {
            let message = "gateways are reached over links, and there is no `link`";
            self.wrong(list.node, Wrong::new(message, ADD_LINK));
        }
        for spot in [&written.trust_domain, &written.trust_bundle].into_iter().flatten() {
            let message = "it says whom links trust, and there is no `link`";
            self.wrong(spot.node, Wrong::new(message, ADD_LINK));
        }
    }

    fn one_cluster(&mut self, written: &file::Cluster) -> Cluster {
        let has_gateways = written.gateways.is_some();
        let empty = |list: &&Spot<Vec<_>>| list.value.as_ref().is_some_and(Vec::is_empty);
        if let Some(list) = written.gateways.as_ref().filter(empty) {
            let fix = "write `gateways: [\"host:port\"]`, or leave it out";
            self.wrong(list.node, Wrong::new("the list is empty: nothing leads there", fix));
        }
        let gateways = self.gateways(&written.gateways);
        Cluster { networks: self.networks(items(&written.networks)), gateways, has_gateways }
    }

    fn gateways(&mut self, written: &List<String>) -> Vec<EndpointAt> {
        let mut gateways = Vec::new();
        for spot in items(written) {
            let Some(at) = self.parse_spot(spot, endpoint_at) else { continue };
            if gateways.contains(&at) {
                let message = format!("{at} stands in this list twice");
                self.wrong(spot.node, Wrong::new(message, "remove one of the two"));
            } else {
                gateways.push(at);
            }
        }
        gateways
    }

    fn peer(
        &mut self,
        name: Option<Arc<str>>,
        written: &file::Cluster,
        links: Option<&Links>,
    ) -> Option<Peer> {
        let trust_domain = self.parse(&written.trust_domain, trust_domain);
        let trust_bundle = written.trust_bundle.as_ref().and_then(|spot| self.path(spot));
        let own = || links.map(|links| Arc::clone(&links.trust_domain));
        Some(Peer { cluster: name?, trust_domain: trust_domain.or_else(own)?, trust_bundle })
    }

    fn link(&mut self, written: &Setting<file::Link>) -> Option<Links> {
        let spot = written.as_ref()?;
        let nothing = file::Link::default();
        let link = spot.value.as_ref().unwrap_or(&nothing);
        let fix = "add `directory: tls`, the folder with tls.crt, tls.key and ca.crt";
        let directory = self.required(&link.directory, spot.node, "directory", fix);
        let directory = directory.and_then(|directory| self.path(directory));
        let fix = "add `trustDomain: example.org`, that of the certificate's spiffe:// name";
        let domain = self.required(&link.trust_domain, spot.node, "trustDomain", fix);
        let domain = domain.and_then(|domain| self.parse_spot(domain, trust_domain));
        let readable = link.allow_readable_key.as_ref().and_then(|spot| spot.value);
        Some(Links {
            directory: directory?,
            trust_domain: domain?,
            allow_readable_key: readable.unwrap_or_default(),
            peers: vec![],
        })
    }

    pub(super) fn path(&mut self, spot: &Spot<String>) -> Option<PathBuf> {
        let written = spot.value.as_deref()?;
        if written.is_empty() {
            self.wrong(
                spot.node,
                Wrong::new("the path is empty", "write the path of a file or folder"),
            );
            return None;
        }
        Some(self.beside(spot.node, Path::new(written)))
    }

    /// `{ cluster: NAME, apps: [APP, …] }` of an export.
    pub(super) fn cluster_rule(
        &mut self,
        rule: NodeId,
        written: &Spot<String>,
        apps: &List<String>,
        clusters: &Clusters,
    ) -> Option<AllowRule> {
        let name = self.parse_spot(written, |name| linked_cluster(name, clusters));
        let tree = self.tree;
        let has_apps = match tree.value(rule) {
            Value::Map(entries) => entries.iter().any(|entry| &*entry.key == "apps"),
            Value::Null | Value::Scalar(_) | Value::List(_) => false,
        };
        let written = items(apps);
        let listed = apps.as_ref().is_none_or(|list| list.value.is_some());
        if has_apps && listed && written.is_empty() {
            let fix =
                "name apps as namespace/app, or leave `apps` out to admit all of the cluster's";
            self.wrong(
                apps.as_ref().map_or(rule, |list| list.node),
                Wrong::new("`apps` is empty", fix),
            );
            return None;
        }
        let parsed: Vec<AppId> =
            written.iter().filter_map(|spot| self.parse_spot(spot, app_id)).collect();
        // A rule that lost an app admits another set than was meant; one that lost all would admit everybody.
        let whole = parsed.len() == written.len() && listed;
        whole.then_some(AllowRule::Cluster { cluster: name?, apps: parsed })
    }
}

fn linked_cluster(name: &str, clusters: &Clusters) -> Result<Arc<str>, Wrong> {
    if clusters.is_own(name) {
        let message = format!("{name} is this cluster itself, and no link comes from there");
        let fix = "callers of this cluster are judged by `imports`, or by `network`";
        return Err(Wrong::new(message, fix));
    }
    clusters.find(name)?;
    if !clusters.linked {
        let message =
            "`cluster` admits links, whose certificate proves the cluster, and there is no `link`";
        let fix = format!(
            "{ADD_LINK}; or use `networksOf`, which judges the network that a connection comes from"
        );
        return Err(Wrong::new(message, fix));
    }
    Ok(name.into())
}

pub(super) fn cluster_name(written: &str) -> Result<Arc<str>, Wrong> {
    if is_cluster_name(written) {
        return Ok(written.into());
    }
    let fix = "use up to 63 letters, digits and hyphens, none of them at its ends: the name stands in certificates and in DNS names";
    Err(Wrong::new(format!("{written:?} is no name for a cluster"), fix))
}

/// SPIFFE-ID §2.1: lower-case letters, digits, dots, hyphens and underscores.
fn trust_domain(written: &str) -> Result<Arc<str>, Wrong> {
    let plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    if (1..=MAX_TRUST_DOMAIN).contains(&written.len()) && written.bytes().all(plain) {
        return Ok(written.into());
    }
    let fix = "write what stands behind spiffe:// and before the next slash, in small letters: example.org";
    Err(Wrong::new(format!("{written:?} is no trust domain"), fix))
}
