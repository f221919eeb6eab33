//! Services: what is no app crosses as it is, whoever speaks first.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use super::common::app::{App, call_from, dial_from, handshake};
use super::common::authority::Authority;
use super::common::gateway::{BASE, Gateway};
use super::common::process::{Process, certificates, strait};
use super::common::{PATIENCE, counterpart, http, wait_for, wait_until};
use super::{CALLER, address_of, egress_of, ip, own_address};

/// The service of most tests.
const DB: &str = "db.mesh.example";
/// A caller that is no app's.
const NOBODY: &str = "127.0.0.9";

/// West, where callers are, and east, where services are: each with its list of services.
struct Pair {
    folder: TempDir,
    west: Gateway,
    east: Gateway,
}

impl Pair {
    fn start(of_east: &str, of_west: &str) -> Self {
        let bind = own_address();
        Self::with(&format!("{{ bind: {bind}, ports: 21000-21099 }}"), of_east, of_west)
    }

    fn with(egress: &str, of_east: &str, of_west: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path(), &["west", "east"]);
        let east = Gateway::with_config(&format!(
            "{}{}clusters: {{ west: {{}}, south: {{}} }}\nservices: [{of_east}]\n",
            BASE.replace("west", "east"),
            link(&folder, "east")
        ));
        let west = Gateway::with_config(&west(&folder, egress, &east, of_west));
        Self { folder, west, east }
    }

    /// Where callers dial a service.
    fn address(&self, name: &str) -> SocketAddr {
        wait_for("the service has an egress address", || address_of(&self.west, name))
    }

    fn dial(&self, name: &str) -> TcpStream {
        let stream = dial_from(ip(CALLER), self.address(name)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

fn link(folder: &TempDir, cluster: &str) -> String {
    let tls = folder.path().join("tls").join(cluster);
    format!("link: {{ directory: {}, trustDomain: example.org }}\n", tls.display())
}

fn west(folder: &TempDir, egress: &str, east: &Gateway, services: &str) -> String {
    format!(
        "{}{}local: {{ networks: [127.0.0.0/8] }}\nclusters: {{ east: {{ gateways: [\"{}\"] }} }}\n\
         apps: [{{ app: shop/caller, from: [{{ network: {CALLER}/32 }}] }}]\nservices: [{services}]\n",
        BASE.replace("  admin:", &format!("  egress: {egress}\n  admin:")),
        link(folder, "west"),
        east.ingress()
    )
}

/// What east exports to west.
fn export(name: &str, at: SocketAddr) -> String {
    format!(
        "{{ name: {name}, port: 1, endpoints: [\"{at}\"], export: {{ allow: [{{ cluster: west }}] }} }}"
    )
}

/// What west imports from east.
fn import(name: &str, more: &str) -> String {
    format!(
        "{{ name: {name}, port: 1, import: {{ clusters: [east], allow: [shop/caller]{more} }} }}"
    )
}

/// As mail and database servers do: it greets, before anything has come, and then answers line by line.
fn greeter(word: &'static str) -> App {
    App::serve("127.0.0.1:0".parse().unwrap(), move |mut stream| {
        writeln!(stream, "220 {word}")?;
        let lines = BufReader::new(stream.try_clone()?).lines();
        lines.map_while(Result::ok).try_for_each(|line| writeln!(stream, "{word} {line}"))
    })
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Waits for the greeting, and only then says something.
fn greeted(mut stream: &TcpStream) -> (String, String) {
    let mut reading = BufReader::new(stream.try_clone().unwrap());
    let greeting = line(&mut reading);
    writeln!(stream, "hello").unwrap();
    (greeting, line(&mut reading))
}

/// What comes on a connection until its end: nothing where the service is refused.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    got
}

fn reason(record: &Value) -> &str {
    record["reason"].as_str().unwrap_or_default()
}

#[test]
fn a_span_is_posted_to_a_collector_in_the_other_cluster() {
    let collector = App::serve("127.0.0.1:0".parse().unwrap(), |stream| {
        let mut reading = BufReader::new(stream.try_clone()?);
        while let Some((body, _)) = http::asked(&mut reading)? {
            write!(&stream, "HTTP/1.1 202 Accepted\r\nContent-Length: {}\r\n\r\n", body.len())?;
            (&stream).write_all(&body)?;
        }
        Ok(())
    });
    let zipkin = "zipkin.mesh.example";
    let pair = Pair::start(&export(zipkin, collector.address), &import(zipkin, ""));
    let spans = vec![b'7'; 200_000];
    let mut stream = pair.dial(zipkin);
    for _ in 0..2 {
        let answer = http::exchange(&mut stream, "POST", "/api/v2/spans", &spans, false).unwrap();
        assert_eq!((answer.status, answer.body.len()), (202, spans.len()));
    }
    drop(stream);
    let (near, far) = (pair.west.record("completed"), pair.east.record("completed"));
    assert_eq!((&near["route"], &near["via"]), (&zipkin.into(), &"east".into()));
    assert_eq!((&far["cluster"], &far["caller"]), (&"west".into(), &"shop/caller".into()));
    assert_eq!(near["id"], far["id"]);
    let told = strait(&["explain", zipkin, "--admin", &pair.west.admin()], pair.folder.path());
    assert!(String::from_utf8_lossy(&told.stdout).contains("imported service"), "{told:?}");
    let status = pair.west.status();
    let kinds: Vec<_> =
        status["routes"].as_array().unwrap().iter().map(|route| &route["kind"]).collect();
    assert_eq!(kinds, ["service"]);
}

#[test]
fn a_server_that_speaks_first_is_heard_before_its_caller_says_a_word() {
    let greeter = greeter("east");
    let pair = Pair::start(&export(DB, greeter.address), &import(DB, ""));
    let answers = ("220 east".to_owned(), "east hello".to_owned());
    assert_eq!(greeted(&pair.dial(DB)), answers);
    // Many at once, each kept open.
    let calls: Vec<_> = (0..20)
        .map(|_| pair.dial(DB))
        .map(|stream| thread::spawn(move || greeted(&stream)))
        .collect();
    assert!(calls.into_iter().all(|call| call.join().unwrap() == answers));
}

#[test]
fn a_service_of_two_clusters_is_left_where_it_fails_and_found_where_it_is() {
    let (far, near) = (greeter("east"), greeter("west"));
    let check = "check: { interval: 100ms, rise: 1, fall: 1 }";
    let exported = export(DB, far.address).replace("port: 1", &format!("port: 1, {check}"));
    let imported = import(DB, "").replace("[east]", "[east, west]");
    let both = imported.replace("port: 1", &format!("port: 1, endpoints: [\"{}\"]", near.address));
    let pair = Pair::start(&exported, &both);
    assert_eq!(greeted(&pair.dial(DB)).0, "220 east");
    drop(far);
    wait_until("the own endpoint takes over", || greeted(&pair.dial(DB)).0 == "220 west");
    wait_until("east has told that nothing of it is left", || {
        let status = pair.west.status();
        status["routes"][0]["endpoints"][0]["health"] == "down"
    });
    assert_eq!(pair.west.status()["routes"][0]["endpoints"][0]["cluster"], "east");
}

#[test]
fn redis_answers_in_the_other_cluster() {
    let test = "redis_answers_in_the_other_cluster";
    let (Some(server), Some(client)) =
        (counterpart(test, "redis-server"), counterpart(test, "redis-cli"))
    else {
        return;
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let number = port.port().to_string();
    let arguments = ["--port", &number, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let started = Command::new(server).args(arguments).stdout(Stdio::null()).spawn().unwrap();
    let _redis = Process(started);
    wait_until("Redis listens", || TcpStream::connect(port).is_ok());
    let pair = Pair::start(&export(DB, port), &import(DB, ""));
    let at = pair.address(DB);
    let ask = |words: &[&str]| {
        let mut command = Command::new(&client);
        command.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()]).args(words);
        let told = command.output().unwrap();
        String::from_utf8_lossy(&told.stdout).trim_end().to_owned()
    };
    assert_eq!(ask(&["SET", "order", "1774"]), "OK");
    assert_eq!(ask(&["GET", "order"]), "1774");
    // A subscriber waits for what the server says at a time of its own.
    let mut subscriber = pair.dial(DB);
    subscriber.write_all(b"SUBSCRIBE news\r\n").unwrap();
    let mut reading = BufReader::new(subscriber);
    (0..6).for_each(|_| drop(line(&mut reading)));
    wait_until("somebody listens", || ask(&["PUBLISH", "news", "late"]) == "1");
    assert!((0..7).any(|_| line(&mut reading) == "late"));
}

#[test]
fn a_service_with_tls_is_reached_at_the_ingress_too_and_by_who_may_from_outside() {
    let authority = Authority::new();
    let app = App::start(&authority, "db", &[DB, "127.0.0.1"]);
    let open = export(DB, app.address)
        .replace("{ cluster: west }", "{ cluster: west }, { network: 127.0.0.7/32 }");
    let pair = Pair::start(&open, &import(DB, ""));
    let (west, east, tls) = (pair.west.ingress(), pair.east.ingress(), authority.client());
    assert_eq!(call_from(ip(CALLER), west, DB, &tls).unwrap(), "db");
    assert_eq!(pair.west.record("completed")["via"], "east");
    // By egress it is carried as all else.
    let mut through = handshake(pair.dial(DB), DB, &tls).unwrap();
    assert_eq!(through.who().unwrap(), "db");
    // Past the near gateway.
    assert_eq!(call_from(ip("127.0.0.7"), east, DB, &tls).unwrap(), "db");
    assert!(call_from(ip("127.0.0.8"), east, DB, &tls).is_err());
    assert_eq!(reason(&pair.east.record("denied")), "no allow rule of the route admits the source");
}

#[test]
fn each_side_refuses_with_its_rule_and_nothing_comes() {
    let greeter = greeter("east");
    let other = "other.mesh.example";
    let denied = export(DB, greeter.address).replace("cluster: west", "cluster: south");
    let pair = Pair::start(&denied, &format!("{}, {}", import(DB, ""), import(other, "")));
    // The near side: nobody that the import lists.
    let stream = dial_from(ip(NOBODY), pair.address(DB)).unwrap();
    assert!(rest(stream).is_empty(), "no alert for who may speak no TLS");
    let record = pair.west.record("unknown_caller");
    assert!(reason(&record).starts_with("the import asks which app calls"), "{record}");
    // The far side's export, and that it has none.
    let ended = |name: &str| {
        assert!(rest(pair.dial(name)).is_empty());
        wait_for("a record of that service", || {
            let mut records = pair.west.records().into_iter();
            records.find(|record| record["route"] == name && record["ending"] != "unknown_caller")
        })
    };
    wait_until("the exchange has told what west may call", || {
        pair.west.status()["routes"][0]["endpoints"].as_array().unwrap().is_empty()
    });
    for name in [DB, other] {
        let record = ended(name);
        assert_eq!(record["ending"], "no_healthy_endpoint");
        assert!(
            reason(&record).ends_with("of east: the cluster does not export it to this one"),
            "{record}"
        );
    }
    assert_eq!(greeter.accepted(), 0);
}

#[test]
fn an_export_that_lists_apps_names_itself_when_it_refuses() {
    let greeter = greeter("east");
    let apps = "{ cluster: west, apps: [shop/other] }";
    let denied = export(DB, greeter.address).replace("{ cluster: west }", apps);
    let pair = Pair::start(&denied, &import(DB, ""));
    assert!(rest(pair.dial(DB)).is_empty());
    let record = pair.west.record("refused_by_far");
    assert!(reason(&record).contains("the export of db.mesh.example"), "{record}");
    let record = pair.east.record("denied");
    assert!(reason(&record).contains("shop/caller"), "{record}");
    assert_eq!(greeter.accepted(), 0);
}

#[test]
fn at_an_address_of_a_pool_a_service_has_its_own_port_and_keeps_it() {
    let greeter = greeter("east");
    let pool = own_address();
    let egress = format!("{{ pool: {pool}/32, port: 50002 }}");
    let imported = import(DB, "").replace("port: 1", "port: 21432");
    let pair = Pair::with(&egress, &export(DB, greeter.address), &imported);
    assert_eq!(pair.address(DB).to_string(), format!("{pool}:21432"));
    assert_eq!(greeted(&pair.dial(DB)).0, "220 east");
    let lock = std::fs::read_to_string(pair.west.folder().join("egress.lock")).unwrap();
    assert!(lock.contains(&format!("{pool} {DB}\n")), "{lock}");
    // Another port is another address for callers, of the same service.
    let moved = imported.replace("21432", "21433");
    pair.west.rewrite_all(&west(&pair.folder, &egress, &pair.east, &moved));
    wait_until("it has the other port", || {
        egress_of(&pair.west, DB).is_some_and(|egress| egress["address"] == format!("{pool}:21433"))
    });
    assert_eq!(greeted(&pair.dial(DB)).0, "220 east");
}
