//! Callers as daprd is one, through a restart: no call is lost, none is executed twice.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{ChildStdout, Command, Stdio};

use serde_json::Value;

use super::common::authority::Authority;
use super::common::gateway::BASE;
use super::common::process::{Process, go_program};
use super::{command, first, take_over};

const CALLERS: usize = 200;
const NAME: &str = "calls.example";

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

#[test]
fn calls_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let test = "calls_survive_a_restart";
    let Some(program) = go_program(test, "handover/calls", folder.path()) else { return };
    let authority = Authority::new();
    let ca = authority.write(folder.path());
    let (certificate, key) = authority.issue(&[NAME]).write(folder.path(), NAME);
    let calls = |mode: &str| {
        let mut command = Command::new(&program);
        command.arg(mode);
        command
    };

    let mut server = calls("server");
    server.arg(certificate).arg(key);
    let (server, port) = Half::start(server);
    let endpoint = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    let mut old = first(&format!(
        "{BASE}limits: {{ drainTimeout: 10m }}\nroutes: [{{ name: {NAME}, endpoints: [\"{endpoint}\"], allow: any }}]\n"
    ));
    let mut client = calls("client");
    client.arg(old.ingress().to_string()).args([NAME]).arg(ca).arg(CALLERS.to_string());
    let (client, begun) = Half::start(client);
    assert_eq!(begun, "begun");

    // The deadline is far away: whoever is left there would be cut, in a call or not, and that is another test's matter.
    let new = take_over(&old, command(old.folder()));
    assert_eq!(old.exit().code(), Some(0), "all its connections are closed between calls");
    let records = old.records();
    assert_eq!(records.len(), CALLERS, "nobody connected twice before");
    assert!(records.iter().all(|record| record["reason"] == "closed between two calls"));

    let (came, executed) = (client.report(), server.report());
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("{CALLERS} callers through a restart: {came}, {executed}\n").as_bytes(),
    );
    assert_eq!(came["lost"], serde_json::json!([]));
    assert_eq!(executed["twice"], serde_json::json!([]));
    assert_eq!(executed["executed"], came["answered"]);
    drop(new);
}
