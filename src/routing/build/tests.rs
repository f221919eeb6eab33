use super::indexing::MAX_ERRORS;
use super::*;
use crate::model::client::Client;
use crate::model::name::{Name, NamePattern};
use crate::model::routes_file::testing::file;
use crate::model::snapshot::{AllowRule, Answer, EndpointSpec, GatewaySpec};
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
        kind: Kind::Plain,
        names: names.iter().map(|name| (NamePattern::parse(name).unwrap(), origin(line))).collect(),
        allow: Allow::Open,
        import: None,
        endpoints: endpoints.iter().map(endpoint).collect(),
        check: None,
        send_proxy: false,
        quiet_close: true,
        plaintext: false,
    }
}

fn app(line: u32, label: &str, names: &[&str]) -> RouteSpec {
    RouteSpec { label: label.into(), kind: Kind::App, ..route(line, names, &["10.0.0.1:50002"]) }
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
        ..Routes::default()
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
        ..Routes::default()
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
        ..Routes::default()
    };
    let found = errors(&routes);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("strait.yaml:3:5: \"*.shop.mesh.example\": the wildcard covers"));
    assert!(found[1].starts_with("names.map:1:1: \"*.example\": the wildcard covers"));
}

#[test]
fn the_name_of_a_service_is_nothing_elses() {
    let service =
        |line, name| RouteSpec { kind: Kind::Service, ..route(line, &[name], &["10.0.0.1:1"]) };
    let routes = Routes {
        routes: vec![
            app(3, "shop/orders", &["orders.other"]),
            route(4, &["plain.other"], &["10.0.0.1:1"]),
            service(5, "orders.other"),
            service(6, "plain.other"),
            service(7, "db.shop.mesh.example"),
            service(8, "db.mesh.example"),
        ],
        reserved: vec![reserved("{app}.{namespace}.mesh.example", "mesh.example")],
        ..Routes::default()
    };
    let expected = [
        "strait.yaml:5:5: \"orders.other\": the name is written twice: shop/orders has it at strait.yaml:3:5,",
        "strait.yaml:6:5: \"plain.other\": the name is written twice: plain.other has it at strait.yaml:4:5,",
        "strait.yaml:7:5: \"db.shop.mesh.example\": \"{app}.{namespace}.mesh.example\" at strait.yaml:1:5 makes this name",
    ];
    let found = errors(&routes);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn errors_are_capped() {
    let many = file(&"a 10.0.0.1:1\n".repeat(1000));
    assert_eq!(errors(&Routes { files: vec![many], ..Routes::default() }).len(), MAX_ERRORS);
}

#[test]
fn a_table_of_the_same_routes_shares_the_names() {
    let mut endpoints = Endpoints::default();
    let routes = Routes {
        routes: vec![route(3, &["a"], &["app.svc:1"])],
        files: vec![file("b app.svc:2 10.0.0.2:2\n*.c 10.0.0.3:3\n")],
        ..Routes::default()
    };
    let answer = |address: &str| {
        Addresses([(Name::parse("app.svc").unwrap(), vec![address.parse().unwrap()])].into())
    };
    let first = build_with(&routes, &answer("10.0.0.7"), &mut endpoints).unwrap();
    let (addresses, own) = (answer("10.0.0.8"), OwnListeners::default());
    let inputs = Inputs { routes: &routes, addresses: &addresses, own: &own };
    let second = rebuild(&first, &inputs, &mut endpoints);
    assert!(Arc::ptr_eq(&first.shared_names(), &second.shared_names()));
    assert_eq!(candidates(&first, "a"), ["10.0.0.7:1"]);
    assert_eq!(candidates(&second, "a"), ["10.0.0.8:1"]);
    assert_eq!(candidates(&second, "b"), ["10.0.0.8:2", "10.0.0.2:2"]);
    let kept = [&first, &second]
        .map(|table| Arc::clone(&table.lookup("x.c").unwrap().route.candidates[0].endpoint));
    assert!(Arc::ptr_eq(&kept[0], &kept[1]));
}

#[test]
fn routes_with_other_names_are_told_from_those_with_the_same() {
    let of = |names: &[&str], template: &str, file: &Arc<RoutesFile>| Routes {
        routes: vec![app(3, "shop/a", names), route(4, &["x"], &["10.0.0.1:1"])],
        files: vec![Arc::clone(file)],
        reserved: vec![reserved(template, "example")],
        ..Routes::default()
    };
    let (kept, other) = (file("b 10.0.0.2:2\n"), file("b 10.0.0.2:2\n"));
    let one = of(&["a", "*.b"], "{app}.example", &kept);
    let mut same = of(&["a", "*.b"], "{app}.example", &kept);
    same.routes[0].allow = Allow::Hidden;
    same.routes[1].endpoints.clear();
    assert!(have_same_names(&one, &same));
    let mut fewer = same.clone();
    fewer.routes.pop();
    let others = [
        of(&["a"], "{app}.example", &kept),
        of(&["a", "b"], "{app}.example", &kept),
        of(&["a", "*.b"], "{app}.{namespace}.example", &kept),
        of(&["a", "*.b"], "{app}.example", &other),
        fewer,
    ];
    for other in others {
        assert!(!have_same_names(&one, &other) && !have_same_names(&other, &one), "{other:?}");
    }
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
        RouteSpec { allow: Allow::Rules(vec![network]), ..route(4, &["ours"], &["10.1.0.1:1"]) },
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

#[test]
fn nothing_covers_the_names_by_which_gateways_reach_each_other() {
    let routes = Routes {
        routes: vec![
            route(3, &["exchange.east.strait.internal"], &["10.0.0.1:1"]),
            route(4, &["*.internal"], &["10.0.0.1:1"]),
            app(5, "shop/a", &["a.strait.internal"]),
            route(6, &["strait.internal.example", "*.example"], &["10.0.0.1:1"]),
        ],
        files: vec![file(
            "a 10.0.0.1:1\nX.Strait.Internal. 10.0.0.1:1\n*.east.strait.internal 10.0.0.1:1\nb.internal 10.0.0.1:1",
        )],
        reserved: vec![reserved("{app}.{namespace}.internal", "internal")],
        ..Routes::default()
    };
    let found = errors(&routes);
    let own = |error: &&String| error.contains("names in strait.internal are the gateways' own");
    let places: Vec<_> = found.iter().filter(own).map(|error| &error[..15]).collect();
    assert_eq!(
        places,
        [
            "strait.yaml:1:5",
            "strait.yaml:3:5",
            "strait.yaml:4:5",
            "strait.yaml:5:5",
            "names.map:2:1: ",
            "names.map:3:1: "
        ],
        "{found:#?}"
    );
}

#[test]
fn gateways_are_resolved_and_kept_apart_from_endpoints() {
    let gateway = |cluster: &str, at: &str, priority| GatewaySpec {
        cluster: cluster.into(),
        at: EndpointAt::parse(at).unwrap(),
        priority,
        offering: crate::model::snapshot::Offering::Unknown,
    };
    let import = ImportSpec {
        allow: Allow::Rules(vec![AllowRule::Any]),
        own: true,
        answer: Answer::Linked,
        quiet_close: true,
        egress: crate::model::egress::EgressSpec::default(),
        plaintext: false,
        failback: std::time::Duration::ZERO,
        gateways: vec![
            gateway("east", "gw.east:8443", 1),
            gateway("east", "203.0.113.1:8443", 1),
            gateway("south", "203.0.113.1:8443", 2),
            gateway("north", "10.0.0.5:8443", 3),
            gateway("north", "gw.north:8443", 3),
        ],
    };
    let own = ["203.0.113.1:8443"];
    let both =
        RouteSpec { kind: Kind::App, import: Some(import), ..route(3, &["a.example"], &own) };
    let routes = Routes { routes: vec![both], ..Routes::default() };
    let answer = ["203.0.113.2", "203.0.113.1"].map(|address| address.parse().unwrap());
    let addresses = Addresses([(Name::parse("gw.east").unwrap(), answer.into())].into());
    let table = build_with(&routes, &addresses, &mut Endpoints::default()).unwrap();
    let route = table.lookup("a.example").unwrap().route;
    let ways: Vec<_> = route
        .candidates
        .iter()
        .map(|candidate| {
            let via = candidate.via.as_ref();
            let cluster = via.map_or("", |via| &*via.cluster);
            (candidate.priority, candidate.endpoint.address.to_string(), cluster)
        })
        .collect();
    let expected = [
        (0, "203.0.113.1:8443".to_owned(), ""),
        (1, "203.0.113.1:8443".to_owned(), "east"),
        (1, "203.0.113.2:8443".to_owned(), "east"),
        (2, "203.0.113.1:8443".to_owned(), "south"),
    ];
    assert_eq!(ways, expected);
    let absent: Vec<_> = route.absent.iter().map(|(at, why)| (&**at, *why)).collect();
    let expected = [
        ("10.0.0.5:8443 of north", Absence::OwnListener),
        ("gw.north:8443 of north", Absence::Unresolved),
    ];
    assert_eq!(absent, expected);
}
