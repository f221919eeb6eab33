//! A routes file with a million names, as the benches use it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use strait::config;
use strait::model::snapshot::{Addresses, Routes};
use strait::routing::build::{Inputs, OwnListeners, build};
use strait::routing::endpoint::Endpoints;
use strait::routing::table::Table;

/// Exact names; a thousand wildcards come on top.
pub(crate) const NAMES: usize = 1_000_000;

/// One of the names: of the length and form that Dapr's have.
pub(crate) fn name(number: usize) -> String {
    format!("app{number}-dapr.team-{}.svc.cluster.local", number % 997)
}

/// The routes file's text: a thousand different endpoints.
pub(crate) fn text() -> String {
    let mut text = String::new();
    for number in 0..NAMES {
        let endpoint = number % 1000;
        writeln!(text, "{} 10.0.{}.{}:50002", name(number), endpoint / 250, endpoint % 250)
            .unwrap();
    }
    for number in 0..1000 {
        writeln!(text, "*.wild-{number}.example 10.1.0.1:50002").unwrap();
    }
    text
}

/// What the file says.
pub(crate) fn routes(text: &str) -> Routes {
    let file = config::parse_routes_text(Path::new("names.map"), text.as_bytes()).unwrap();
    Routes { files: vec![Arc::new(file)], ..Routes::default() }
}

/// The table of some routes.
pub(crate) fn table(routes: &Routes) -> Table {
    let (addresses, own) = (Addresses::default(), OwnListeners::default());
    let inputs = Inputs { routes, addresses: &addresses, own: &own };
    build(&inputs, &mut Endpoints::default()).unwrap()
}
