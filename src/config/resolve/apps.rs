//! Apps and their exports.
//!
//! A caller's sidecar pools connections by what it dialled and checks the peer's identity only in the first handshake. So no two
//! apps may share a name, which the table's builder sees to. An endpoint they may share, because a router by SNI can stand there.
//! If it is a sidecar, the calls for the other app fail the caller's own check: that is worth a warning.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::file::{self, List, Setting};
use crate::config::names::Template;
use crate::config::problem::Wrong;
use crate::config::routes_file::wrong_name;
use crate::config::suggest::closest;
use crate::config::tree::NodeId;
use crate::model::app::{AppId, AppIdError};
use crate::model::name::{Name, NamePattern};
use crate::model::snapshot::{
    CallerSpec, Check, EndpointAt, EndpointSpec, Kind, Origin, ReservedName, RouteSpec,
};

use super::callers::Taken;
use super::clusters::Clusters;
use super::routes::{Of, quiet_close};
use super::{Resolver, items};

/// Apps by their id in lower case, which is how names compare.
#[derive(Debug, Default)]
pub(super) struct Apps(HashMap<String, App>);

/// One of them.
#[derive(Debug)]
pub(super) struct App {
    id: AppId,
    node: NodeId,
    pub(super) endpoints: Vec<EndpointSpec>,
    pub(super) check: Option<Check>,
    /// Whether endpoints were written, right or wrong.
    pub(super) is_served: bool,
    /// Whether it was written where it calls from, right or wrong.
    pub(super) calls: bool,
    from: CallerSpec,
}

/// What asks for an app's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Export,
    Import,
}

impl Named {
    fn word(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Import => "import",
        }
    }
}

impl Apps {
    /// Where apps call from, in an order that does not change.
    pub(super) fn callers(&self) -> Vec<CallerSpec> {
        let known = self.0.values().filter(|app| app.calls);
        let mut callers: Vec<_> = known.map(|app| app.from.clone()).collect();
        callers.sort_by(|one, other| one.app.cmp(&other.app));
        callers
    }

    pub(super) fn find(&self, id: &AppId) -> Option<&App> {
        self.0.get(&id.to_string().to_lowercase()).filter(|app| app.id == *id)
    }

    /// The app that was probably meant.
    pub(super) fn closest(&self, id: &AppId) -> Option<String> {
        let known: Vec<String> = self.0.values().map(|app| app.id.to_string()).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        closest(&id.to_string(), &known).map(str::to_owned)
    }
}

impl Resolver<'_> {
    /// The `names` templates; `None` when there is none to make names from.
    pub(super) fn templates(
        &mut self,
        written: &List<String>,
    ) -> (Vec<ReservedName>, Option<Vec<Template>>) {
        let mut templates: Vec<Template> = Vec::new();
        let mut reserved: Vec<ReservedName> = Vec::new();
        for spot in items(written) {
            let Some(template) = self.parse_spot(spot, Template::parse) else { continue };
            let written: Arc<str> = spot.value.as_deref().unwrap_or_default().into();
            let origin = self.tree.origin(spot.node);
            reserved.push(ReservedName {
                template: written,
                suffix: template.suffix.clone(),
                origin,
            });
            templates.push(template);
        }
        let any = written
            .as_ref()
            .is_some_and(|spot| spot.value.as_ref().is_none_or(|list| !list.is_empty()));
        (reserved, any.then_some(templates))
    }

    pub(super) fn apps(&mut self, written: &List<file::LocalApp>, local: &[IpNet]) -> Apps {
        let mut apps = Apps::default();
        let (mut taken, mut callers) = (HashMap::new(), Taken::default());
        for spot in items(written) {
            let Some(app) = &spot.value else { continue };
            let id = self.app_id(&app.app, spot.node);
            let (is_served, calls) = (app.endpoints.is_some(), app.from.is_some());
            let endpoints = match (is_served, calls) {
                (false, true) => vec![],
                (true, _) | (false, false) => self.endpoints(&app.endpoints, None, spot.node),
            };
            let check = self.check(&app.check);
            let Some((id, node)) = id else { continue };
            self.check_addresses(&id, &endpoints, &mut taken);
            let endpoints = endpoints.into_iter().map(|(endpoint, _)| endpoint).collect();
            let from = self.from(&app.from, &id, local, &mut callers);
            self.add_app(&mut apps, App { id, node, endpoints, check, is_served, calls, from });
        }
        apps
    }

    pub(super) fn app_id(
        &mut self,
        written: &Setting<String>,
        owner: NodeId,
    ) -> Option<(AppId, NodeId)> {
        let spot = self.required(written, owner, "app", "add `app: NAMESPACE/APP`")?;
        Some((self.parse_spot(spot, app_id)?, spot.node))
    }

    /// One sidecar serves one app.
    fn check_addresses(
        &mut self,
        id: &AppId,
        endpoints: &[(EndpointSpec, NodeId)],
        taken: &mut HashMap<EndpointAt, (AppId, Origin)>,
    ) {
        for (endpoint, node) in endpoints {
            match taken.get(&endpoint.at) {
                Some((other, place)) if !same(other, id) => {
                    let message =
                        format!("{} is also an endpoint of {other}, at {place}", endpoint.at);
                    let fix = "a sidecar serves one app: give each an endpoint of its own, unless what listens there routes by SNI itself";
                    self.doubtful(*node, Wrong::new(message, fix));
                }
                Some(_) => {}
                None => {
                    taken.insert(endpoint.at.clone(), (id.clone(), endpoint.origin.clone()));
                }
            }
        }
    }

    fn add_app(&mut self, apps: &mut Apps, app: App) {
        let key = app.id.to_string().to_lowercase();
        let Some(other) = apps.0.get(&key) else {
            apps.0.insert(key, app);
            return;
        };
        let place = self.tree.origin(other.node);
        let wrong = if other.id == app.id {
            Wrong::new(
                format!("{} is listed twice, also at {place}", app.id),
                "join the two: one app, all its endpoints",
            )
        } else {
            let message = format!(
                "{} and {}, at {place}, differ only in case, and names are compared without it",
                app.id, other.id
            );
            Wrong::new(message, "rename one of the two apps")
        };
        self.wrong(app.node, wrong);
    }

    pub(super) fn exports(
        &mut self,
        written: &List<file::Export>,
        apps: &Apps,
        templates: Option<&[Template]>,
        clusters: &Clusters,
    ) -> Vec<RouteSpec> {
        let mut exported = HashMap::new();
        let mut routes = Vec::new();
        for spot in items(written) {
            let Some(export) = &spot.value else { continue };
            let fix = "add `allow: [{ cluster: CLUSTER }]`, `[{ networksOf: CLUSTER }]`, `[{ network: CIDR }]`, or `any` if everybody may call it";
            let allow = self.required(&export.allow, spot.node, "allow", fix);
            let allow = allow.and_then(|allow| self.allow(allow, Of::Export, clusters));
            let Some((id, node)) = self.app_id(&export.app, spot.node) else { continue };
            if let Some(first) = exported.insert(id.clone(), node) {
                let message =
                    format!("{id} is exported twice, also at {}", self.tree.origin(first));
                self.wrong(node, Wrong::new(message, "join the two: one export, all its rules"));
            }
            let names = self.app_names(&export.name, Named::Export, &id, node, templates);
            let Some(app) = self.exported_app(apps, &id, node) else { continue };
            let Some(allow) = allow else { continue };
            let (endpoints, check) = (app.endpoints.clone(), app.check);
            routes.push(RouteSpec {
                label: id.label(),
                kind: Kind::App,
                names,
                allow,
                import: None,
                endpoints,
                check,
                send_proxy: false,
                quiet_close: quiet_close(&export.quiet_close),
                plaintext: export
                    .plaintext
                    .as_ref()
                    .and_then(|spot| spot.value)
                    .unwrap_or_default(),
            });
        }
        routes
    }

    fn exported_app<'a>(&mut self, apps: &'a Apps, id: &AppId, node: NodeId) -> Option<&'a App> {
        let app = apps.find(id);
        if app.is_none() {
            let fix = match apps.closest(id) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("add it: `apps: [{{ app: {id}, endpoints: [\"host:port\"] }}]`"),
            };
            self.wrong(node, Wrong::new(format!("{id} is not one of `apps`"), fix));
        } else if app.is_some_and(|app| !app.is_served) {
            let fix = format!("add `endpoints: [\"host:port\"]` to {id} under `apps`");
            self.wrong(
                node,
                Wrong::new(format!("{id} has no endpoints, so nobody can call it"), fix),
            );
        }
        app
    }

    pub(super) fn app_names(
        &mut self,
        own: &Setting<String>,
        of: Named,
        id: &AppId,
        node: NodeId,
        templates: Option<&[Template]>,
    ) -> Vec<(NamePattern, Origin)> {
        if let Some(own) = own {
            let name = self.parse_spot(own, |written| Name::parse(written).map_err(wrong_name));
            let origin = self.tree.origin(own.node);
            return name.map(|name| (NamePattern::Exact(name), origin)).into_iter().collect();
        }
        let Some(templates) = templates else {
            let of = of.word();
            let message =
                format!("{id} has no name: there is no `names` and the {of} has no `name`");
            let fix = format!(
                "add `names: [\"{{app}}.{{namespace}}.mesh.example\"]`, or a `name` to this {of}"
            );
            self.wrong(node, Wrong::new(message, fix));
            return vec![];
        };
        self.expanded(templates, of, id, node)
    }

    fn expanded(
        &mut self,
        templates: &[Template],
        of: Named,
        id: &AppId,
        node: NodeId,
    ) -> Vec<(NamePattern, Origin)> {
        let mut names: Vec<(NamePattern, Origin)> = Vec::new();
        for template in templates {
            match template.expand(id) {
                Ok(name) => {
                    let name = NamePattern::Exact(name);
                    // Two templates may agree on an app: `{app}.shop.example` and `{app}.{namespace}.example`.
                    if !names.iter().any(|(known, _)| *known == name) {
                        names.push((name, self.tree.origin(node)));
                    }
                }
                Err((name, error)) => {
                    let fix = format!(
                        "give this {} a `name` of its own, or shorten the template",
                        of.word()
                    );
                    self.wrong(node, Wrong::new(format!("its name by `names` would be {name}, which DNS does not allow: {error}"), fix));
                }
            }
        }
        names
    }
}

fn same(left: &AppId, right: &AppId) -> bool {
    left.to_string().eq_ignore_ascii_case(&right.to_string())
}

pub(super) fn app_id(written: &str) -> Result<AppId, Wrong> {
    AppId::parse(written).map_err(|error| {
        let fix = match error {
            AppIdError::Shape | AppIdError::Empty => "write `namespace/app`, such as shop/checkout; Dapr's default namespace is `default`",
            AppIdError::BadCharacter(_) => "an app that Dapr knows under such an id cannot be reached by a name; rename it",
        };
        Wrong::new(error.to_string(), fix)
    })
}
