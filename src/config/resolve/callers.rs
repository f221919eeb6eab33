//! Who of this cluster is known as a caller, by where it calls from: a place in the network, no identity.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use ipnet::IpNet;

use crate::config::file::{self, List};
use crate::config::problem::Wrong;
use crate::config::routes_file::wrong_name;
use crate::config::spot::Spot;
use crate::config::tree::{NodeId, Value};
use crate::model::app::AppId;
use crate::model::name::Name;
use crate::model::snapshot::{CallerSpec, Origin};
use crate::policy::canonical;

use super::listeners::network;
use super::{Resolver, items};

/// The keys of `from`.
const KEYS: [&str; 3] = ["network", "dns", "uid"];

/// What stands for an app already, with the place that says so.
#[derive(Debug, Default)]
pub(super) struct Taken {
    networks: HashMap<IpNet, (AppId, Origin)>,
    hosts: HashMap<Name, (AppId, Origin)>,
    users: HashMap<u32, (AppId, Origin)>,
}

impl Resolver<'_> {
    /// Where an app calls from. What tells a caller stands for one app: what two apps share outright is an error here, what
    /// overlaps is refused when somebody comes from there.
    pub(super) fn from(
        &mut self,
        written: &List<file::From>,
        id: &AppId,
        local: &[IpNet],
        taken: &mut Taken,
    ) -> CallerSpec {
        let mut spec =
            CallerSpec { app: id.clone(), networks: vec![], hosts: vec![], users: vec![] };
        for spot in items(written) {
            let Some(from) = &spot.value else { continue };
            self.check_keys(from, spot.node);
            if let Some(found) =
                self.told(from.network.as_ref(), id, &mut taken.networks, |written| {
                    network(written).map(canonical)
                })
            {
                self.check_local(
                    from.network.as_ref().map_or(spot.node, |network| network.node),
                    found,
                    local,
                );
                spec.networks.push(found);
            }
            let host = |written: &str| Name::parse(written).map_err(wrong_name);
            spec.hosts.extend(self.told(from.dns.as_ref(), id, &mut taken.hosts, host));
            spec.users.extend(self.told(from.uid.as_ref(), id, &mut taken.users, user));
        }
        spec
    }

    fn check_keys(&mut self, from: &file::From, node: NodeId) {
        let written = [from.network.is_some(), from.dns.is_some(), from.uid.is_some()];
        match written.into_iter().filter(|is_there| *is_there).count() {
            // What is not known has been noted; what it stands in place of is not missing.
            0 if self.has_unknown_key(node) => {}
            0 => {
                let fix = "add `network: CIDR` or `dns: NAME`, where the app's pods have their addresses, or `uid: NUMBER` for a \
                           process of this machine";
                self.wrong(node, Wrong::new("nothing says where the app calls from", fix));
            }
            1 => {}
            _ => {
                let fix = "write an item of the list for each";
                self.wrong(node, Wrong::new("more than one key in one item", fix));
            }
        }
    }

    /// Parses one key, and notes who has it.
    fn told<T: Eq + Hash + Display + Clone>(
        &mut self,
        written: Option<&Spot<String>>,
        id: &AppId,
        taken: &mut HashMap<T, (AppId, Origin)>,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let Spot { node, .. } = *written?;
        let found = self.parse_spot(written?, parse)?;
        if let Some((other, place)) = taken.get(&found) {
            self.wrong(node, told_twice(&found, id, other, place));
            return None;
        }
        taken.insert(found.clone(), (id.clone(), self.tree.origin(node)));
        Some(found)
    }

    fn has_unknown_key(&self, node: NodeId) -> bool {
        match self.tree.value(node) {
            Value::Map(entries) => entries.iter().any(|entry| !KEYS.contains(&&*entry.key)),
            Value::Null | Value::Scalar(_) | Value::List(_) => false,
        }
    }

    fn check_local(&mut self, node: NodeId, from: IpNet, local: &[IpNet]) {
        let meets = |local: &IpNet| local.contains(&from) || from.contains(local);
        if !local.is_empty() && !local.iter().any(meets) {
            let message = format!(
                "{from} is outside of `local.networks`, so no caller from there is known as an app at the ingress"
            );
            self.doubtful(
                node,
                Wrong::new(message, "add it to `local.networks` if it is of this cluster"),
            );
        }
    }
}

fn told_twice(found: &impl Display, id: &AppId, other: &AppId, place: &Origin) -> Wrong {
    if other == id {
        let message = format!("{found} stands for this app twice, also at {place}");
        return Wrong::new(message, "remove one of the two");
    }
    let message = format!(
        "{found} stands for {other} too, at {place}: nobody could tell which of the two calls"
    );
    Wrong::new(
        message,
        "give each app networks, names or users of its own; apps behind one NAT cannot be told apart",
    )
}

fn user(written: &str) -> Result<u32, Wrong> {
    let digits = written.bytes().all(|byte| byte.is_ascii_digit());
    written.parse().ok().filter(|_| digits).ok_or_else(|| {
        let message = format!("{written:?} is no user id");
        Wrong::new(
            message,
            "write the number that `id -u` tells of the user whom the app's sidecar runs as",
        )
    })
}
