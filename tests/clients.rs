//! Real TLS clients through the gateway: each reaches the app that it names, a mebibyte goes each way and arrives whole, and a
//! name without a route is refused with the alert that says so.
//!
//! Of the two apps behind the gateway the first is served by rustls, the second by the client's own TLS library where that is a
//! language's, else by rustls too.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use common::app::{self, App};
use common::authority::Authority;
use common::gateway::Gateway;
use common::process::{Process, converse, run};
use common::{counterpart, http, noise};

/// Bytes that go each way; odd, so that no buffer size divides it.
const PAYLOAD: usize = (1 << 20) + 7;

/// Two apps behind one gateway, and the files that clients need.
struct Scene {
    gateway: Gateway,
    authority: Authority,
    apps: [Backend; 2],
    folder: TempDir,
    ca: PathBuf,
    payload: PathBuf,
}

/// An app of this process, or of another.
enum Backend {
    Ours(App),
    Theirs { address: SocketAddr, _server: Process },
}

const NAMES: [&str; 2] = ["alpha.example", "beta.example"];
const UNKNOWN: &str = "gamma.example";

impl Backend {
    fn ours(authority: &Authority, name: &str) -> Self {
        Self::Ours(App::start(authority, name, &[name]))
    }

    /// A program of `tests/clients` that takes the app's name, its certificate and its key, and prints its port.
    fn theirs(mut server: Command, authority: &Authority, name: &str, folder: &Path) -> Self {
        let (certificate, key) = authority.issue(&[name]).write(folder, name);
        server.arg(name).arg(certificate).arg(key).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = Process(server.spawn().unwrap());
        let mut port = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap()));
        Self::Theirs { address, _server: server }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Ours(app) => app.address,
            Self::Theirs { address, .. } => *address,
        }
    }

    /// Connections so far, where that is known.
    fn accepted(&self) -> usize {
        match self {
            Self::Ours(app) => app.accepted(),
            Self::Theirs { .. } => 1,
        }
    }
}

impl Scene {
    /// Two apps of ours.
    fn new() -> Self {
        Self::with(|authority, name, _| Backend::ours(authority, name))
    }

    /// An app of ours and one that `server` runs.
    fn with_server(server: Command) -> Self {
        Self::with(|authority, name, folder| Backend::theirs(server, authority, name, folder))
    }

    fn with(second: impl FnOnce(&Authority, &str, &Path) -> Backend) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let apps =
            [Backend::ours(&authority, NAMES[0]), second(&authority, NAMES[1], folder.path())];
        let [alpha, beta] = apps.each_ref().map(Backend::address);
        let gateway = Gateway::start(&format!(
            "\
routes:
  - {{ name: {}, endpoints: [\"{alpha}\"] }}
  - {{ name: {}, endpoints: [\"{beta}\"] }}
",
            NAMES[0], NAMES[1]
        ));
        let ca = authority.write(folder.path());
        let payload = folder.path().join("payload");
        fs::write(&payload, noise(3, PAYLOAD)).unwrap();
        Self { gateway, authority, apps, folder, ca, payload }
    }

    /// Lets a client call each app, then a name that no route has. `client` runs it and gives back its output, of which
    /// `body` takes the answer's body; `alert` is how the client prints `unrecognized_name`.
    fn check(
        &self,
        client: impl Fn(SocketAddr, &str) -> Output,
        body: impl Fn(&[u8]) -> Vec<u8>,
        alert: &str,
    ) {
        let ingress = self.gateway.ingress();
        let sent = fs::read(&self.payload).unwrap();
        for name in NAMES {
            let output = client(ingress, name);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}: {}: {errors}", output.status);
            let got = body(&output.stdout);
            // Not `assert_eq!`, which would print both mebibytes.
            assert!(got == app::reply(name, &sent), "{name}: {} bytes differ: {errors}", got.len());
        }
        assert_eq!(
            self.apps.each_ref().map(Backend::accepted),
            [1, 1],
            "one connection to each app"
        );
        let refused = client(ingress, UNKNOWN);
        let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
        assert!(!refused.status.success(), "an unknown name is refused: {said}");
        assert!(said.contains(alert), "no word of {alert:?} in: {said}");
        assert_eq!(self.apps.each_ref().map(Backend::accepted), [1, 1], "no app hears of it");
    }

    /// Checks a client of `tests/clients`, which takes address, name and files, and prints the body.
    fn check_own(&self, command: impl Fn() -> Command, alert: &str) {
        let client = |ingress: SocketAddr, name: &str| {
            let mut command = command();
            command.arg(ingress.ip().to_string()).arg(ingress.port().to_string()).arg(name);
            run(command.arg(&self.ca).arg(&self.payload))
        };
        self.check(client, <[u8]>::to_vec, alert);
    }

    /// The request as bytes, for clients that know nothing of HTTP.
    fn request(&self) -> Vec<u8> {
        http::request("POST", "/", &fs::read(&self.payload).unwrap(), true)
    }
}

/// The body of the answer that such a client printed.
fn answer_body(printed: &[u8]) -> Vec<u8> {
    http::answer(printed).map(|answer| answer.body).unwrap_or_default()
}

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(file)
}

fn openssl(test: &str, version: &str) {
    let Some(openssl) = counterpart(test, "openssl") else { return };
    let scene = Scene::new();
    let client = |ingress: SocketAddr, name: &str| {
        let mut command = Command::new(&openssl);
        command.args(["s_client", "-quiet", "-verify_return_error", version]);
        command.args(["-connect", &ingress.to_string(), "-servername", name]);
        command.args(["-verify_hostname", name, "-CAfile"]).arg(&scene.ca);
        converse(&mut command, scene.request())
    };
    scene.check(client, answer_body, "unrecognized name");
}

#[test]
fn openssl_with_tls_1_2() {
    openssl("openssl_with_tls_1_2", "-tls1_2");
}

#[test]
fn openssl_with_tls_1_3() {
    openssl("openssl_with_tls_1_3", "-tls1_3");
}

#[test]
fn gnutls() {
    let Some(gnutls) = counterpart("gnutls", "gnutls-cli") else { return };
    let scene = Scene::new();
    let log = scene.folder.path().join("gnutls.log");
    let client = |ingress: SocketAddr, name: &str| {
        let mut command = Command::new(&gnutls);
        command.arg("--logfile").arg(&log);
        command.args(["--sni-hostname", name, "--verify-hostname", name, "--x509cafile"]);
        command.arg(&scene.ca).args(["--port", &ingress.port().to_string()]);
        let mut output = converse(command.arg(ingress.ip().to_string()), scene.request());
        // The file has what would stand between the answer's bytes, which alert came among it.
        output.stderr.extend(fs::read(&log).unwrap());
        output
    };
    scene.check(client, answer_body, "The server name sent was not recognized");
}

#[test]
fn curl() {
    let Some(curl) = counterpart("curl", "curl") else { return };
    let scene = Scene::new();
    let client = |ingress: SocketAddr, name: &str| {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--show-error", "--noproxy", "*", "--connect-to"]);
        command.arg(format!("{name}:443:{ingress}")).arg("--cacert").arg(&scene.ca);
        command.arg("--header").arg("Expect:").arg("--data-binary");
        command.arg(format!("@{}", scene.payload.display()));
        run(command.arg(format!("https://{name}/")))
    };
    scene.check(client, <[u8]>::to_vec, "unrecognized name");
}

/// A program of `tests/clients`, run by its interpreter.
fn script(interpreter: &Path, file: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(source(file));
    command
}

#[test]
fn python() {
    let Some(python) = counterpart("python", "python3") else { return };
    let scene = Scene::with_server(script(&python, "server.py"));
    scene.check_own(|| script(&python, "client.py"), "UNRECOGNIZED_NAME");
}

#[test]
fn node() {
    let Some(node) = counterpart("node", "node") else { return };
    let scene = Scene::with_server(script(&node, "server.mjs"));
    scene.check_own(|| script(&node, "client.mjs"), "unrecognized name");
}

#[test]
fn java() {
    let Some(java) = counterpart("java", "java") else { return };
    let scene = Scene::with_server(script(&java, "Server.java"));
    scene.check_own(|| script(&java, "Client.java"), "unrecognized_name");
}

/// The Go client and server, built once for all tests.
fn go_programs(go: &Path) -> (&'static Path, &'static Path) {
    static PROGRAMS: OnceLock<(TempDir, PathBuf, PathBuf)> = OnceLock::new();
    let (_, client, server) = PROGRAMS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let build = |name: &str| {
            let program = folder.path().join(name);
            let mut command = Command::new(go);
            command.args(["build", "-o"]).arg(&program).arg(source(name).join("main.go"));
            // Only Go's own library: nothing is to be downloaded.
            let built = run(command.env("GOPROXY", "off").env("GOTOOLCHAIN", "local"));
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            program
        };
        let (client, server) = (build("client"), build("server"));
        (folder, client, server)
    });
    (client, server)
}

#[test]
fn go_with_a_post_quantum_key_share() {
    let Some(go) = counterpart("go_with_a_post_quantum_key_share", "go") else { return };
    let (client, server) = go_programs(&go);
    Scene::with_server(Command::new(server))
        .check_own(|| Command::new(client), "tls: unrecognized name");
}

#[test]
fn go_without_post_quantum_key_shares() {
    let Some(go) = counterpart("go_without_post_quantum_key_shares", "go") else { return };
    let (client, server) = go_programs(&go);
    let command = || {
        let mut command = Command::new(client);
        command.env("GODEBUG", "tlsmlkem=0");
        command
    };
    Scene::with_server(Command::new(server)).check_own(command, "tls: unrecognized name");
}

#[test]
fn rustls() {
    let scene = Scene::new();
    let (ingress, tls) = (scene.gateway.ingress(), scene.authority.client());
    let sent = noise(4, PAYLOAD);
    for name in NAMES {
        let mut connection = app::connect(ingress, name, &tls).unwrap();
        assert!(connection.ask(&sent).unwrap() == app::reply(name, &sent), "{name}");
    }
    assert_eq!(app::call(ingress, UNKNOWN, &tls), Err("UnrecognisedName".to_owned()));
}
