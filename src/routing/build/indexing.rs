//! Enters the names of all routes into an index, and tells which of them cannot be.

use std::collections::HashMap;

use crate::model::arena::Entry;
use crate::model::cluster::{OWN_DOMAIN, covers_own_names};
use crate::model::name::{Name, NamePattern};
use crate::model::routes_file::RoutesFile;
use crate::model::snapshot::{Kind, Origin, ReservedName, RouteSpec, Routes};

use super::super::names::{Names, NotAdded, Position, Written};
use super::super::template::Template;
use super::{BuildError, FILE_LABEL};

/// More errors than anybody reads; a generated file with one mistake in its template would have a million.
pub(super) const MAX_ERRORS: usize = 100;

/// Names whose memory is fetched together: about as many reads as a core has under way at a time.
const AHEAD: usize = 32;

/// The index of all names, in which routes are counted as `super::routes` makes them.
pub(super) fn index(routes: &Routes) -> Result<Names, Vec<BuildError>> {
    let mut indexer = Indexer::new(routes);
    indexer.keep_own_names_free();
    for (number, route) in (0..).zip(&routes.routes) {
        indexer.route(number, route);
    }
    // Fewer than 2^32, because each was read from text of its own and texts are bounded by that.
    let mut first = u32::try_from(routes.routes.len()).unwrap_or(u32::MAX);
    for (number, file) in routes.files.iter().enumerate() {
        indexer.file(number, file, first);
        first = first.saturating_add(u32::try_from(file.lists().count()).unwrap_or(u32::MAX));
    }
    indexer.finish()
}

struct Indexer<'a> {
    routes: &'a [RouteSpec],
    templates: Vec<(&'a ReservedName, Template)>,
    names: Names,
    /// Where names that stand in no file were written.
    places: HashMap<Position, &'a Origin>,
    errors: Vec<BuildError>,
}

impl<'a> Indexer<'a> {
    fn new(routes: &'a Routes) -> Self {
        let Routes { routes, files, reserved, .. } = routes;
        let names = routes.iter().map(|route| route.names.len()).sum::<usize>();
        let lines = files.iter().map(|file| file.routes).sum::<usize>();
        Self {
            routes,
            templates: reserved
                .iter()
                .map(|name| (name, Template::parse(&name.template)))
                .collect(),
            names: Names::over(files, names + lines),
            places: HashMap::new(),
            errors: Vec::new(),
        }
    }

    fn route(&mut self, number: u32, spec: &'a RouteSpec) {
        for (pattern, origin) in &spec.names {
            match pattern {
                NamePattern::Exact(name) if spec.kind == Kind::Service => {
                    self.keep_services_apart(name, origin);
                }
                NamePattern::Exact(_) => {}
                NamePattern::Below(suffix) => self.keep_templates_free(suffix, || origin.clone()),
            }
            self.keep_own_name_free(pattern, || origin.clone());
            match self.names.add(pattern, number) {
                Ok(at) => {
                    self.places.insert(at, origin);
                }
                Err(error) => self.not_added(&error, &pattern.to_string(), origin.clone(), number),
            }
        }
    }

    /// The names of a file whose first list is the route with this number.
    fn file(&mut self, number: usize, file: &RoutesFile, first: u32) {
        let mut entries = file.names().iter();
        let mut ahead = Vec::with_capacity(AHEAD);
        loop {
            let some = entries.by_ref().take(AHEAD);
            ahead.extend(some.map(|(at, entry)| (at, entry, self.names.hash(&entry))));
            self.names.fetch(ahead.iter().map(|&(_, _, hash)| hash));
            if ahead.is_empty() || self.errors.len() >= MAX_ERRORS {
                return;
            }
            for (at, entry, hash) in ahead.drain(..) {
                if entry.below {
                    self.wildcard(file, at, &entry);
                } else if entry.is_in(OWN_DOMAIN) {
                    self.own_name(&entry.written(), file.origin(at));
                }
                let route = first.saturating_add(entry.value);
                if let Err(error) = self.names.add_entry(number, at, (&entry, hash), route) {
                    self.not_added(&error, &entry.written(), file.origin(at), route);
                }
            }
        }
    }

    fn wildcard(&mut self, file: &RoutesFile, at: usize, entry: &Entry<'_>) {
        let written = entry.written();
        // Always both: it is a wildcard, and what stands in a file was a name.
        if let Some(Ok(suffix)) = written.strip_prefix("*.").map(Name::parse) {
            self.keep_templates_free(&suffix, || file.origin(at));
            self.keep_own_name_free(&NamePattern::Below(suffix), || file.origin(at));
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
        let is_app = |route| self.kind(route) == Kind::App;
        let apps = other != route && is_app(other) && is_app(route);
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

    /// An app that would have the name of a service may come any day, from a source or from another cluster.
    fn keep_services_apart(&mut self, name: &Name, origin: &Origin) {
        let met = self.templates.iter().find(|(_, template)| template.makes(name));
        if let Some((reserved, _)) = met {
            let message = format!(
                "{:?} at {} makes this name for an app, and a name leads to one thing",
                reserved.template, reserved.origin
            );
            let fix = "choose a name that no app can have".into();
            self.report(origin.clone(), name.as_str(), message, fix);
        }
    }

    /// The gateways of all clusters ask each other by names in a domain of their own.
    fn keep_own_names_free(&mut self) {
        let Ok(domain) = Name::parse(OWN_DOMAIN) else { return };
        let met = self.templates.iter().filter(|(_, template)| template.meets(&domain));
        let met: Vec<_> = met.map(|(name, _)| *name).collect();
        for name in met {
            self.own_name(&name.template, name.origin.clone());
        }
    }

    fn keep_own_name_free(&mut self, pattern: &NamePattern, origin: impl Fn() -> Origin) {
        if covers_own_names(pattern) {
            self.own_name(&pattern.to_string(), origin());
        }
    }

    fn own_name(&mut self, written: &str, origin: Origin) {
        let message =
            format!("names in {OWN_DOMAIN} are the gateways' own: they reach each other by them");
        self.report(origin, written, message, "use a domain of yours".into());
    }

    fn place(&self, at: Position) -> Option<Origin> {
        match self.names.written(at) {
            Written::File(file, at) => Some(file.origin(at)),
            Written::Own => self.places.get(&at).copied().cloned(),
        }
    }

    fn spec(&self, route: u32) -> Option<&RouteSpec> {
        self.routes.get(usize::try_from(route).ok()?)
    }

    fn label(&self, route: u32) -> &str {
        self.spec(route).map_or(FILE_LABEL, |spec| &spec.label)
    }

    fn kind(&self, route: u32) -> Kind {
        self.spec(route).map_or(Kind::Plain, |spec| spec.kind)
    }

    fn report(&mut self, origin: Origin, text: &str, message: String, fix: String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(BuildError { origin, text: text.into(), message, fix });
        }
    }

    fn finish(mut self) -> Result<Names, Vec<BuildError>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        self.names.finish();
        Ok(self.names)
    }
}
