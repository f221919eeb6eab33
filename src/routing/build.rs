//! Builds a table from what the sources said: a pure function, run beside the table in force.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::name::{Name, NamePattern};
use crate::model::snapshot::{
    Addresses, Allow, EndpointAt, Origin, ReservedName, RouteLine, RouteSpec, Routes, RoutesFile,
};
use crate::policy::Policy;

use super::endpoint::Endpoints;
use super::names::{Names, NotAdded, Position, Written};
use super::own::OwnAddresses;
use super::resolve::Resolver;
use super::table::{Route, Table};
use super::template::Template;

/// The metric label of every route that comes from a routes file: a million label values would cost more than the table.
pub const FILE_LABEL: &str = "routes_file";

/// More errors than anybody reads; a generated file with one mistake in its template would have a million.
const MAX_ERRORS: usize = 100;

/// Everything a table is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What the configuration asks for.
    pub routes: &'a Routes,
    /// What DNS says.
    pub addresses: &'a Addresses,
    /// The gateway's own listeners as they are bound, never to be dialled.
    pub own: &'a OwnListeners,
}

/// The gateway's own listeners, metrics and admin included.
#[derive(Debug, Clone)]
pub struct OwnListeners {
    /// As bound: ports are real, addresses may be unspecified.
    pub bound: Vec<SocketAddr>,
    /// Whether this host has an address: only then a listener on every address takes it. Handed in, because a table is built
    /// from nothing but what it is given.
    pub is_local: fn(IpAddr) -> bool,
}

impl Default for OwnListeners {
    /// None, on a host of which nothing is known.
    fn default() -> Self {
        Self { bound: Vec::new(), is_local: |_| false }
    }
}

/// What makes a table impossible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    /// Where the mistake stands.
    pub origin: Origin,
    /// The offending text.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub fix: String,
}

impl fmt::Display for BuildError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, text, message, fix } = self;
        write!(out, "{origin}: {text:?}: {message}; {fix}")
    }
}

impl std::error::Error for BuildError {}

/// Builds a table. All errors at once, up to a hundred.
pub fn build(inputs: &Inputs<'_>, endpoints: &mut Endpoints) -> Result<Table, Vec<BuildError>> {
    let mut builder = Builder::new(inputs, endpoints);
    for route in &inputs.routes.routes {
        builder.route(route);
    }
    for (number, file) in inputs.routes.files.iter().enumerate() {
        builder.file(number, file);
    }
    builder.finish()
}

struct Builder<'a> {
    resolver: Resolver<'a>,
    templates: Vec<(&'a ReservedName, Template)>,
    names: Names,
    /// Where the names in the index's own text were written, in order of position.
    places: Vec<(Position, Origin)>,
    routes: Vec<Arc<Route>>,
    /// Numbers of the routes that stand for apps.
    apps: HashSet<u32>,
    /// Routes of routes files by their endpoints as written, so that many names with the same ones share a route.
    shared: HashMap<&'a str, u32>,
    open: Arc<Policy>,
    file_label: Arc<str>,
    errors: Vec<BuildError>,
}

impl<'a> Builder<'a> {
    fn new(inputs: &Inputs<'a>, endpoints: &'a mut Endpoints) -> Self {
        let Routes { routes, files, reserved } = inputs.routes;
        let names = routes.iter().map(|route| route.names.len()).sum::<usize>();
        let lines = files.iter().map(|file| file.routes).sum::<usize>();
        Self {
            resolver: Resolver {
                addresses: inputs.addresses,
                endpoints,
                own: OwnAddresses::new(&inputs.own.bound, inputs.own.is_local),
            },
            templates: reserved
                .iter()
                .map(|name| (name, Template::parse(&name.template)))
                .collect(),
            names: Names::over(files, names + lines),
            places: Vec::new(),
            routes: Vec::with_capacity(routes.len()),
            apps: HashSet::new(),
            shared: HashMap::new(),
            open: Arc::new(Policy::compile(&Allow::Open)),
            file_label: FILE_LABEL.into(),
            errors: Vec::new(),
        }
    }

    fn route(&mut self, spec: &RouteSpec) {
        let written = spec.endpoints.iter().map(|at| (&at.at, at.weight, at.priority));
        let (candidates, absent) = self.resolver.resolve(spec.check, written);
        let route = Route {
            label: Arc::clone(&spec.label),
            policy: Arc::new(Policy::compile(&spec.allow)),
            candidates,
            absent,
            send_proxy: spec.send_proxy,
            dials: self.resolver.endpoints.dials(&spec.label),
        };
        let number = self.push(route);
        if spec.is_app {
            self.apps.insert(number);
        }
        for (pattern, origin) in &spec.names {
            self.name(pattern, origin.clone(), number);
        }
    }

    fn file(&mut self, number: usize, file: &'a RoutesFile) {
        for line in file.lines() {
            if self.errors.len() >= MAX_ERRORS {
                return;
            }
            if let Some(route) = self.file_route(file, &line) {
                self.line(number, file, &line, route);
            }
        }
    }

    /// The route of a line: one for all lines with the same endpoints.
    fn file_route(&mut self, file: &RoutesFile, line: &RouteLine<'a>) -> Option<u32> {
        if let Some(&shared) = self.shared.get(line.endpoints) {
            return Some(shared);
        }
        let mut written = Vec::new();
        for text in line.endpoints.split_ascii_whitespace() {
            match EndpointAt::parse(text) {
                Ok(at) => written.push(at),
                Err(error) => self.report(
                    origin_of(file, text),
                    text,
                    error.to_string(),
                    "write host:port after the name".into(),
                ),
            }
        }
        if written.is_empty() {
            if line.endpoints.is_empty() {
                let fix = "write host:port after the name".into();
                let message = "the line names no endpoint".into();
                self.report(origin_of(file, line.name), line.name, message, fix);
            }
            return None;
        }
        let written = written.iter().map(|at| (at, 1, 0));
        let (candidates, absent) = self.resolver.resolve(None, written);
        let route = Route {
            label: Arc::clone(&self.file_label),
            policy: Arc::clone(&self.open),
            candidates,
            absent,
            send_proxy: false,
            // By endpoints, not by label: one dead endpoint must not use up the dials of every route in the file. No label has
            // a colon, as every endpoint does.
            dials: self.resolver.endpoints.dials(line.endpoints),
        };
        let number = self.push(route);
        self.shared.insert(line.endpoints, number);
        Some(number)
    }

    fn line(&mut self, number: usize, file: &RoutesFile, line: &RouteLine<'_>, route: u32) {
        if let Some(suffix) = line.name.strip_prefix("*.")
            && let Ok(suffix) = Name::parse(suffix)
        {
            self.keep_templates_free(&suffix, || origin_of(file, line.name));
        }
        match self.names.add_line(number, line, route) {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                self.not_added(&error, line.name, origin_of(file, line.name), route);
            }
            None => match NamePattern::parse(line.name) {
                Ok(pattern) => self.add(&pattern, origin_of(file, line.name), route),
                Err(error) => {
                    let fix = "write a name, or *. and a name".into();
                    self.report(origin_of(file, line.name), line.name, error.to_string(), fix);
                }
            },
        }
    }

    fn name(&mut self, pattern: &NamePattern, origin: Origin, route: u32) {
        match pattern {
            NamePattern::Exact(_) => {}
            NamePattern::Below(suffix) => self.keep_templates_free(suffix, || origin.clone()),
        }
        self.add(pattern, origin, route);
    }

    fn add(&mut self, pattern: &NamePattern, origin: Origin, route: u32) {
        match self.names.add(pattern, route) {
            Ok(at) => self.places.push((at, origin)),
            Err(error) => self.not_added(&error, &pattern.to_string(), origin, route),
        }
    }

    fn not_added(&mut self, error: &NotAdded, name: &str, origin: Origin, route: u32) {
        let (first, other) = match *error {
            NotAdded::Taken { first, route } => (first, route),
            NotAdded::Full => {
                let message = "names and routes files are over 4 GiB together".into();
                return self.report(origin, name, message, "shorten the routes files".into());
            }
        };
        let place = self.place(first).map_or_else(String::new, |place| format!(" at {place}"));
        let [one, two] = [other, route].map(|route| self.label(route));
        let apps = other != route && self.apps.contains(&other) && self.apps.contains(&route);
        let (message, fix) = if apps {
            let message = format!(
                "{one}{place} has this name too; Dapr would hand calls for one of them to the other"
            );
            (message, "give each app a name of its own".into())
        } else {
            let message = format!("the name is written twice: {one} has it{place}, and {two} here");
            (message, "remove one of the two".into())
        };
        self.report(origin, name, message, fix);
    }

    fn keep_templates_free(&mut self, suffix: &Name, origin: impl Fn() -> Origin) {
        let met = self.templates.iter().find(|(_, template)| template.meets(suffix));
        if let Some((reserved, _)) = met {
            let message = format!(
                "the wildcard covers names that {:?} at {} makes, so it would take calls for apps that are not there",
                reserved.template, reserved.origin
            );
            let fix = "write the names one by one, or choose another suffix".into();
            self.report(origin(), &format!("*.{suffix}"), message, fix);
        }
    }

    fn place(&self, at: Position) -> Option<Origin> {
        match self.names.written(at) {
            Written::File(file, offset) => {
                let before = file.text.get(..offset)?;
                let star = before.strip_suffix("*.").map_or(offset, str::len);
                file.text.get(star..).map(|rest| origin_of(file, rest))
            }
            Written::Own => {
                let place = self.places.binary_search_by_key(&at, |(at, _)| *at).ok()?;
                self.places.get(place).map(|(_, origin)| origin.clone())
            }
        }
    }

    fn label(&self, route: u32) -> String {
        let route = usize::try_from(route).ok().and_then(|route| self.routes.get(route));
        route.map_or_else(String::new, |route| route.label.to_string())
    }

    fn push(&mut self, route: Route) -> u32 {
        // Fewer than 2^32, because each was read from text of its own and texts are bounded by that.
        let number = u32::try_from(self.routes.len()).unwrap_or(u32::MAX);
        self.routes.push(Arc::new(route));
        number
    }

    fn report(&mut self, origin: Origin, text: &str, message: String, fix: String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(BuildError { origin, text: text.into(), message, fix });
        }
    }

    fn finish(mut self) -> Result<Table, Vec<BuildError>> {
        self.resolver.endpoints.purge();
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        self.names.shrink();
        Ok(Table::new(self.names, self.routes))
    }
}

/// Where a slice of a file's text stands. Counts lines from the start: only errors ask.
fn origin_of(file: &RoutesFile, slice: &str) -> Origin {
    let offset = slice.as_ptr().addr().saturating_sub(file.text.as_ptr().addr());
    let before = file.text.get(..offset).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Origin {
        file: Arc::clone(&file.path),
        line: count(1 + before.bytes().filter(|&byte| byte == b'\n').count()),
        column: count(1 + before.get(line_start..).unwrap_or_default().chars().count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::client::Client;
    use crate::model::snapshot::{AllowRule, EndpointSpec};
    use crate::routing::endpoint::Health;
    use crate::routing::table::Absence;
    use std::path::Path;

    fn origin(line: u32) -> Origin {
        Origin { file: Path::new("strait.yaml").into(), line, column: 5 }
    }

    /// A plain open route that stands at a line.
    fn route(line: u32, names: &[&str], endpoints: &[&str]) -> RouteSpec {
        let endpoint = |written: &&str| EndpointSpec {
            at: EndpointAt::parse(written).unwrap(),
            weight: 1,
            priority: 0,
            origin: origin(line),
        };
        RouteSpec {
            label: names[0].into(),
            is_app: false,
            names: names
                .iter()
                .map(|name| (NamePattern::parse(name).unwrap(), origin(line)))
                .collect(),
            allow: Allow::Open,
            endpoints: endpoints.iter().map(endpoint).collect(),
            check: None,
            send_proxy: false,
        }
    }

    fn app(line: u32, label: &str, names: &[&str]) -> RouteSpec {
        RouteSpec { label: label.into(), is_app: true, ..route(line, names, &["10.0.0.1:50002"]) }
    }

    fn file(text: &str) -> Arc<RoutesFile> {
        let path = Path::new("names.map").into();
        Arc::new(RoutesFile { path, text: text.into(), routes: text.lines().count() })
    }

    fn reserved(template: &str, suffix: &str) -> ReservedName {
        let suffix = Name::parse(suffix).unwrap();
        ReservedName { template: template.into(), suffix, origin: origin(1) }
    }

    fn build_with(
        routes: &Routes,
        addresses: &Addresses,
        endpoints: &mut Endpoints,
    ) -> Result<Table, Vec<BuildError>> {
        let is_local = |address| address == IpAddr::from([10, 0, 0, 5]);
        let own = OwnListeners { bound: vec!["[::]:8443".parse().unwrap()], is_local };
        build(&Inputs { routes, addresses, own: &own }, endpoints)
    }

    fn built(routes: &Routes) -> Result<Table, Vec<BuildError>> {
        build_with(routes, &Addresses::default(), &mut Endpoints::default())
    }

    fn errors(routes: &Routes) -> Vec<String> {
        built(routes).unwrap_err().iter().map(ToString::to_string).collect()
    }

    fn candidates(table: &Table, name: &str) -> Vec<String> {
        let route = table.lookup(name).unwrap().route;
        route.candidates.iter().map(|candidate| candidate.endpoint.address.to_string()).collect()
    }

    #[test]
    fn routes_of_all_kinds_lead_where_they_say() {
        let routes = Routes {
            routes: vec![
                route(
                    3,
                    &["a.example", "*.wild.example"],
                    &["10.0.0.1:50002", "[::ffff:10.0.0.2]:50002"],
                ),
                app(4, "shop/checkout", &["checkout.shop.mesh.example"]),
            ],
            files: vec![file(
                "# open\nB.Example. 10.0.0.3:1\n*.x.wild.example 10.0.0.3:1\nc 10.0.0.4:1\n",
            )],
            reserved: vec![reserved("{app}.{namespace}.mesh.example", "mesh.example")],
        };
        let table = built(&routes).unwrap();
        assert_eq!(table.len(), 6);
        assert_eq!(candidates(&table, "a.example"), ["10.0.0.1:50002", "10.0.0.2:50002"]);
        assert_eq!(table.lookup("a.wild.example").unwrap().below, Some("wild.example"));
        assert_eq!(candidates(&table, "a.x.wild.example"), ["10.0.0.3:1"]);
        let [one, other] =
            ["b.example", "q.x.wild.example"].map(|name| table.lookup(name).unwrap().route);
        assert!(Arc::ptr_eq(one, other), "the same endpoints, one route");
        assert_eq!(&*one.label, FILE_LABEL);
        assert_eq!(table.routes().count(), 4);
        assert!(table.lookup("wild.example").is_none());
    }

    #[test]
    fn a_name_twice_is_an_error_wherever_it_stands() {
        let routes = Routes {
            routes: vec![
                route(3, &["a.example"], &["10.0.0.1:1"]),
                route(4, &["A.example."], &["10.0.0.2:1"]),
                app(5, "shop/Orders", &["orders.example"]),
                app(6, "shop/orders", &["orders.example"]),
            ],
            files: vec![file(
                "x 10.0.0.1:1\n*.w 10.0.0.1:1\n  a.example 10.0.0.1:1\nX 10.0.0.2:1\n*.w 10.0.0.1:1",
            )],
            reserved: vec![],
        };
        let found = errors(&routes);
        let expected = [
            "strait.yaml:4:5: \"a.example\": the name is written twice: a.example has it at strait.yaml:3:5,",
            "strait.yaml:6:5: \"orders.example\": shop/Orders at strait.yaml:5:5 has this name too; Dapr would",
            "names.map:3:3: \"a.example\": the name is written twice: a.example has it at strait.yaml:3:5,",
            "names.map:4:1: \"x\": the name is written twice: routes_file has it at names.map:1:1,",
            "names.map:5:1: \"*.w\": the name is written twice: routes_file has it at names.map:2:1,",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn no_wildcard_may_cover_what_a_template_makes() {
        let routes = Routes {
            routes: vec![
                route(3, &["*.shop.mesh.example"], &["10.0.0.1:1"]),
                route(4, &["*.example.org"], &["10.0.0.1:1"]),
            ],
            files: vec![file("*.Example 10.0.0.1:1\norders.shop.mesh.example 10.0.0.1:1")],
            reserved: vec![reserved("{app}.{namespace}.mesh.example", "mesh.example")],
        };
        let found = errors(&routes);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(
            found[0].starts_with("strait.yaml:3:5: \"*.shop.mesh.example\": the wildcard covers")
        );
        assert!(found[1].starts_with("names.map:1:1: \"*.example\": the wildcard covers"));
    }

    #[test]
    fn bad_lines_are_errors_and_errors_are_capped() {
        let text = "a..b 10.0.0.1:1\nA_.. 10.0.0.1:1\nc\nd 10.0.0.1\n";
        let found = errors(&Routes { files: vec![file(text)], ..Routes::default() });
        let places: Vec<_> = found.iter().map(|error| &error[..13]).collect();
        assert_eq!(
            places,
            ["names.map:2:1", "names.map:3:1", "names.map:4:3"],
            "a..b is out of reach"
        );
        let many = file(&"a 10.0.0.1:1\n".repeat(1000));
        assert_eq!(errors(&Routes { files: vec![many], ..Routes::default() }).len(), MAX_ERRORS);
    }

    #[test]
    fn names_stand_for_all_their_addresses_and_own_listeners_for_none() {
        let mut spec = route(
            3,
            &["a"],
            &["app.svc:8443", "new.svc:1", "gone.svc:1", "10.0.0.5:8443", "10.0.0.9:8443"],
        );
        spec.endpoints[4].priority = 1;
        let routes = Routes { routes: vec![spec], ..Routes::default() };
        let answer = |name: &str, addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            (Name::parse(name).unwrap(), addresses)
        };
        let pods = ["10.0.0.9", "::ffff:10.0.0.7", "10.0.0.5", "10.0.0.7"];
        let addresses = Addresses([answer("app.svc", &pods), answer("gone.svc", &[])].into());
        let table = build_with(&routes, &addresses, &mut Endpoints::default()).unwrap();
        assert_eq!(candidates(&table, "a"), ["10.0.0.7:8443", "10.0.0.9:8443"]);
        let route = table.lookup("a").unwrap().route;
        assert!(route.candidates.iter().all(|candidate| candidate.priority == 0));
        let absent: Vec<_> = route.absent.iter().map(|(at, why)| (&**at, *why)).collect();
        let expected = [
            ("app.svc:8443 (10.0.0.5:8443)", Absence::OwnListener),
            ("new.svc:1", Absence::Unresolved),
            ("gone.svc:1", Absence::NoAddress),
            ("10.0.0.5:8443", Absence::OwnListener),
        ];
        assert_eq!(absent, expected);
    }

    #[test]
    fn marks_and_counts_survive_a_rebuild_and_go_with_the_last_route() {
        let mut endpoints = Endpoints::default();
        let routes = |names: &[&str]| Routes {
            routes: vec![route(3, names, &["10.0.0.1:1"])],
            files: vec![file("f 10.0.0.2:1")],
            ..Routes::default()
        };
        let none = Addresses::default();
        let first = build_with(&routes(&["a"]), &none, &mut endpoints).unwrap();
        let [a, f] = ["a", "f"].map(|name| Arc::clone(first.lookup(name).unwrap().route));
        a.candidates[0].endpoint.checked(false);
        let (_connection, _permit) = (f.candidates[0].endpoint.connection(), f.dial_permit());
        let second = build_with(&routes(&["a", "b"]), &none, &mut endpoints).unwrap();
        drop(first);
        let [b, g] = ["b", "f"].map(|name| second.lookup(name).unwrap().route);
        assert_eq!(b.candidates[0].endpoint.health(), Health::Down);
        assert_eq!(g.candidates[0].endpoint.open(), 1);
        assert!(Arc::ptr_eq(&a.dials, &b.dials) && Arc::ptr_eq(&f.dials, &g.dials));
        assert!(!Arc::ptr_eq(&a.dials, &f.dials));
        drop((second, a));
        build_with(&Routes::default(), &none, &mut endpoints).unwrap();
        let living: Vec<_> = endpoints.living().map(|endpoint| endpoint.address.port()).collect();
        assert_eq!(living, [1], "only what a held route names");
    }

    #[test]
    fn strangers_are_not_told_what_is_denied() {
        let network = AllowRule::Network("10.0.0.0/8".parse().unwrap());
        let closed = |allow| RouteSpec { allow, ..route(3, &["closed"], &["10.1.0.1:1"]) };
        let routes = vec![
            closed(Allow::Rules(vec![])),
            RouteSpec {
                allow: Allow::Rules(vec![network]),
                ..route(4, &["ours"], &["10.1.0.1:1"])
            },
        ];
        let table = built(&Routes { routes, ..Routes::default() }).unwrap();
        let refusal = |name, from: [u8; 4]| {
            table.decide(name, &Client::direct((from, 1).into())).unwrap_err().alert() as u8
        };
        assert_eq!(refusal("closed", [10, 0, 0, 1]), 49);
        assert_eq!(refusal("nobody", [10, 0, 0, 1]), 112);
        assert_eq!(refusal("closed", [192, 0, 2, 1]), 112);
        assert!(table.decide("ours", &Client::direct(([10, 0, 0, 1], 1).into())).is_ok());
    }
}
