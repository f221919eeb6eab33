//! Callers as daprd is one, through a restart: no call is lost, none is executed twice.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::common::authority::Authority;
use super::common::gateway::{BASE, Gateway};
use super::common::joined::{self, APP, More, NAME, own_address};
use super::common::process::{Process, certificates, go_program};
use super::common::{measured, wait_until};
use super::{command, first, take_over};

const CALLERS: usize = 200;

/// One half of `calls`: it speaks a line, and reports when its input ends.
struct Half(Process, BufReader<ChildStdout>);

impl Half {
    /// Starts it and waits for its first line.
    fn start(mut command: Command) -> (Self, String) {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process(command.spawn().unwrap());
        let mut half = BufReader::new(process.0.stdout.take().unwrap());
        let mut line = String::new();
        half.read_line(&mut line).unwrap();
        (Self(process, half), line.trim().to_owned())
    }

    fn report(mut self) -> Value {
        drop(self.0.0.stdin.take());
        let mut said = String::new();
        self.1.read_to_string(&mut said).unwrap();
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("no report ({error}): {said}"))
    }
}

/// The app, and what its callers need.
struct Calls {
    folder: TempDir,
    program: PathBuf,
    ca: PathBuf,
    server: Half,
    endpoint: SocketAddr,
}

impl Calls {
    /// Starts the app. `None`: it cannot be built here, and the test has said so.
    fn start(test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let program = go_program(test, "handover/calls", folder.path())?;
        let authority = Authority::new();
        let ca = authority.write(folder.path());
        let (certificate, key) = authority.issue(&[NAME]).write(folder.path(), NAME);
        let mut server = Command::new(&program);
        server.arg("server").arg(certificate).arg(key);
        let (server, port) = Half::start(server);
        let endpoint = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        Some(Self { folder, program, ca, server, endpoint })
    }

    /// Starts callers, each of which has called once when this returns.
    fn call(&self, at: SocketAddr, callers: usize) -> Half {
        let mut client = Command::new(&self.program);
        client.arg("client").arg(at.to_string()).arg(NAME).arg(&self.ca).arg(callers.to_string());
        let (client, begun) = Half::start(client);
        assert_eq!(begun, "begun");
        client
    }

    /// Ends both. No call may be lost, and none executed twice.
    fn finish(self, client: Half, what: &str) {
        let (came, executed) = (client.report(), self.server.report());
        measured(&format!("{what}: {came}, {executed}"));
        assert_eq!(came["lost"], serde_json::json!([]));
        assert_eq!(executed["twice"], serde_json::json!([]));
        assert_eq!(executed["executed"], came["answered"]);
        drop(self.folder);
    }
}

/// How many connections a gateway has closed while they carried no call; none may have ended otherwise.
fn closed_between_calls(gateway: &Gateway) -> usize {
    let records = gateway.records();
    let calls = records.iter().filter(|record| record["route"] != "exchange");
    let quiet = |record: &&Value| record["reason"] == "closed between two calls";
    assert_eq!(
        calls.clone().filter(|record| !quiet(record)).collect::<Vec<_>>(),
        [&Value::Null; 0]
    );
    calls.count()
}

/// The deadline is far away: whoever is left there would be cut, in a call or not, and that is another test's matter.
const LIMITS: &str = "limits: { drainTimeout: 10m }\n";

#[test]
fn calls_survive_a_restart() {
    let Some(calls) = Calls::start("calls_survive_a_restart") else { return };
    let route = format!("{{ name: {NAME}, endpoints: [\"{}\"], allow: any }}", calls.endpoint);
    let mut old = first(&format!("{BASE}{LIMITS}routes: [{route}]\n"));
    let client = calls.call(old.ingress(), CALLERS);
    let new = take_over(&old, command(old.folder()));
    assert_eq!(old.exit().code(), Some(0), "all its connections are closed between calls");
    assert_eq!(closed_between_calls(&old), CALLERS, "nobody connected twice before");
    calls.finish(client, &format!("{CALLERS} callers through a restart"));
    drop(new);
}

const LINKED: usize = 50;

#[test]
fn calls_over_links_survive_a_restart_of_their_gateway() {
    let Some(calls) = Calls::start("calls over links survive a restart") else { return };
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), &["west", "east"]);
    let more = More { west: LIMITS, ..More::default() };
    let east = Gateway::with_config(&joined::east(&folder, calls.endpoint, &more));
    let mut old = first(&joined::west(&folder, &own_address(), &[east.ingress()], &more));
    let egress = old.egress(APP).unwrap();
    let client = calls.call(egress, LINKED);
    let new = take_over(&old, command(old.folder()));
    assert_eq!(old.exit().code(), Some(0), "all its connections are closed between calls");
    assert_eq!(closed_between_calls(&old), LINKED, "nobody connected twice before");
    assert_eq!(new.egress(APP), Some(egress));
    calls.finish(client, &format!("{LINKED} callers at an egress address through a restart"));
}

#[test]
fn calls_over_links_survive_the_end_of_a_far_gateway() {
    let Some(calls) = Calls::start("calls over links survive the end of a gateway") else { return };
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), &["west", "east"]);
    let more = More { east: LIMITS, ..More::default() };
    let text = joined::east(&folder, calls.endpoint, &more);
    let (mut one, other) = (Gateway::with_config(&text), Gateway::with_config(&text));
    let west = [one.ingress(), other.ingress()];
    let west = Gateway::with_config(&joined::west(&folder, &own_address(), &west, &more));
    wait_until("both gateways are heard", || {
        west.status()["sources"].to_string().contains("\"up\":true")
    });
    let client = calls.call(west.egress(APP).unwrap(), LINKED);
    one.signal(Signal::TERM);
    assert_eq!(one.exit().code(), Some(0), "all its links are closed between calls");
    let closed = closed_between_calls(&one);
    assert!(closed > 0 && closed < LINKED, "{closed} were at the one that ended");
    calls.finish(client, &format!("{LINKED} callers, {closed} at a far gateway that ended"));
}
