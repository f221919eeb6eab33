//! Services: names with a port that are no apps.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::file::{self, List};
use crate::config::problem::Wrong;
use crate::config::routes_file::wrong_name;
use crate::config::spot::Spot;
use crate::config::tree::NodeId;
use crate::config::units;
use crate::model::egress::{EgressSpec, Holder};
use crate::model::name::{Name, NamePattern};
use crate::model::snapshot::{Allow, EndpointSpec, ImportSpec, Kind, RouteSpec};

use super::egress::{Pins, Wishes, port_number};
use super::imports::{FAILBACK, Import, Known, Place};
use super::routes::Of;
use super::{Resolver, items};

const EXPORT_ALLOW: &str = "add `allow: [{ cluster: CLUSTER }]`, `[{ networksOf: CLUSTER }]`, `[{ network: CIDR }]`, or `any` if \
                            everybody may call it";

/// A service as written, so far as it is right.
struct Service {
    name: Name,
    node: NodeId,
    port: u16,
    label: Holder,
}

impl Resolver<'_> {
    /// Adds the services to the routes. A name that something else has too is found when names are joined.
    pub(super) fn services(
        &mut self,
        written: &List<file::Service>,
        known: &Known<'_>,
        pins: &mut Pins,
        routes: &mut Vec<RouteSpec>,
    ) {
        let mut first = HashMap::new();
        for spot in items(written) {
            let Some(service) = &spot.value else { continue };
            let Some(named) = self.named(service, spot.node, &mut first) else { continue };
            let told = routes.iter().any(|route| route.import.is_some());
            if service.import.is_some() && !told {
                self.check_reach(named.node, known);
            }
            routes.extend(self.service(service, &named, known, pins));
        }
    }

    /// Name and port; nothing where another service has that name.
    fn named(
        &mut self,
        written: &file::Service,
        owner: NodeId,
        first: &mut HashMap<Name, NodeId>,
    ) -> Option<Service> {
        let fix = "add `name: zipkin.mesh.example`, which no app has";
        let name = self.required(&written.name, owner, "name", fix);
        let node = name.map_or(owner, |name| name.node);
        let name = name.and_then(|name| {
            self.parse_spot(name, |written| Name::parse(written).map_err(wrong_name))
        });
        let port = self.required(&written.port, owner, "port", "add `port: NUMBER`");
        let port = port.and_then(|port| self.parse_spot(port, port_number));
        let name = name?;
        if let Some(other) = first.insert(name.clone(), node) {
            let message = format!("{name} is a service already, at {}", self.tree.origin(other));
            let fix = "join the two: one service, with its endpoints, `export` and `import`";
            self.wrong(node, Wrong::new(message, fix));
            return None;
        }
        let label = name.to_string().into();
        Some(Service { name, node, port: port?, label })
    }

    /// Every part is looked at before a wrong one ends it, so that all mistakes are noted.
    fn service(
        &mut self,
        written: &file::Service,
        named: &Service,
        known: &Known<'_>,
        pins: &mut Pins,
    ) -> Option<RouteSpec> {
        let endpoints = self.service_endpoints(written, named);
        let check = self.check(&written.check);
        let export = written.export.as_ref().map(|spot| self.service_export(spot, known));
        let import = written
            .import
            .as_ref()
            .map(|spot| (spot, self.service_import(spot, named, known, pins)));
        if export.is_none() && import.is_none() {
            let fix = "add `export: { allow: [{ cluster: CLUSTER }] }`, or `import: { clusters: [CLUSTER], allow: any }`";
            let message =
                format!("nobody may call {}: it has neither `export` nor `import`", named.name);
            self.wrong(named.node, Wrong::new(message, fix));
        }
        let (allow, quiet_close) = export.unwrap_or(Some((Allow::Hidden, false)))?;
        let origin = self.tree.origin(named.node);
        let mut route = RouteSpec {
            label: Arc::clone(&named.label),
            kind: Kind::Service,
            names: vec![(NamePattern::Exact(named.name.clone()), origin)],
            allow,
            import: None,
            endpoints,
            check,
            send_proxy: false,
            quiet_close,
            plaintext: true,
        };
        if let Some((spot, import)) = import {
            route.import = Some(self.service_spec(spot, import?, &mut route)?);
        }
        Some(route)
    }

    fn service_export(
        &mut self,
        spot: &Spot<file::ServiceExport>,
        known: &Known<'_>,
    ) -> Option<(Allow, bool)> {
        let export = spot.value.as_ref()?;
        let allow = self.required(&export.allow, spot.node, "allow", EXPORT_ALLOW)?;
        let allow = self.allow(allow, Of::Export, known.clusters)?;
        Some((allow, is_set(export.quiet_close.as_ref())))
    }

    fn service_import(
        &mut self,
        spot: &Spot<file::ServiceImport>,
        named: &Service,
        known: &Known<'_>,
        pins: &mut Pins,
    ) -> Option<Import> {
        let import = spot.value.as_ref()?;
        let called = self.import((&import.allow, &import.clusters), spot.node, known);
        let addresses = self.addresses(&import.addresses);
        let pin = self.pin(&import.egress, &named.label, pins);
        let egress = EgressSpec { pin, addresses, port: Some(named.port) };
        let failback = self.parse(&import.failback, units::duration).unwrap_or(FAILBACK);
        let (allow, places) = called?;
        let answer = self.answer(&import.answer, &allow);
        Some(Import {
            label: Arc::clone(&named.label),
            node: spot.node,
            places,
            allow,
            quiet_close: is_set(import.quiet_close.as_ref()),
            wishes: Wishes { egress, plaintext: true },
            answer,
            failback,
        })
    }

    /// Where it is in this cluster. Who exports it, or calls it here too, has to say so.
    fn service_endpoints(&mut self, written: &file::Service, named: &Service) -> Vec<EndpointSpec> {
        if written.endpoints.is_none() {
            if let Some(export) = &written.export {
                let message = format!("{} is exported and has no endpoints", named.name);
                let fix = "add `endpoints: [\"host:port\"]` to the service";
                self.wrong(export.node, Wrong::new(message, fix));
            }
            return vec![];
        }
        let endpoints = self.endpoints(&written.endpoints, Some(named.port), named.node);
        endpoints.into_iter().map(|(endpoint, _)| endpoint).collect()
    }

    fn service_spec(
        &mut self,
        spot: &Spot<file::ServiceImport>,
        import: Import,
        route: &mut RouteSpec,
    ) -> Option<ImportSpec> {
        let own = import.places.iter().any(|place| matches!(place, Place::Own));
        let endpoints = !route.endpoints.is_empty();
        if own && !endpoints {
            let message = "this cluster is in `clusters`, and the service has no endpoints";
            let fix = "add `endpoints: [\"host:port\"]` to the service, or take this cluster out of the list";
            self.wrong(spot.node, Wrong::new(message, fix));
        }
        if endpoints && !own && matches!(route.allow, Allow::Hidden) {
            let message = "nothing leads to the endpoints: they are not exported, and this cluster is not in `clusters`";
            let fix = "add `export`, or this cluster to `clusters`, or remove the endpoints";
            self.doubtful(spot.node, Wrong::new(message, fix));
        }
        self.import_spec(import, route)
    }
}

/// Off unless it is switched on, other than for apps, which all speak HTTP/2.
fn is_set(written: Option<&Spot<bool>>) -> bool {
    written.and_then(|spot| spot.value).unwrap_or_default()
}
