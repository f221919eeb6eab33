//! How the commands end, and that they use colour on a terminal only.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::common::gateway::{BASE, Gateway, STRAIT, filled};
use super::common::process::{Process, certificates, run, strait};
use super::common::{counterpart, http, wait_for};

const GOOD: &str = "cluster: west\nroutes:\n  - { name: one.example, endpoints: [\"192.0.2.1:1\"], allow: [{ network: 192.0.2.0/24 }] }\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("good.yaml"), GOOD).unwrap();
    fs::write(folder.path().join("bad.yaml"), "cluster: west\nlimit: 1\n").unwrap();
    folder
}

#[test]
fn commands_end_with_the_codes_that_their_help_documents() {
    let folder = folder();
    let explain = |name, from| ["explain", name, "--config", "good.yaml", "--from", from];
    let cases: [(&[&str], i32); 19] = [
        (&["--help"], 0),
        (&["--version"], 0),
        (&[], 2),
        (&["walk"], 2),
        (&["run", "--config", "bad.yaml"], 1),
        (&["run", "--config", "missing.yaml"], 1),
        (&["run", "here"], 2),
        (&["check", "good.yaml"], 0),
        (&["check", "bad.yaml"], 1),
        (&["check", "missing.yaml"], 1),
        (&["check"], 2),
        (&explain("one.example", "192.0.2.7"), 0),
        (&["explain", "one.example", "--config", "good.yaml"], 0),
        (&explain("one.example", "198.51.100.1"), 1),
        (&explain("two.example", "192.0.2.7"), 1),
        (&explain("one.example", "somewhere"), 2),
        (&["status", "--admin", "unix:nobody.sock"], 1),
        (&["status", "--admin", "ftp://localhost"], 2),
        (&["demo", "--calls", "0"], 2),
    ];
    for (arguments, code) in cases {
        let output = strait(arguments, folder.path());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
}

/// README's west with certificates as README makes them, and the mode of its key.
fn with_key_mode(mode: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let west = include_str!("../../config/two-clusters/west.yaml");
    fs::write(folder.path().join("west.yaml"), west).unwrap();
    certificates(folder.path(), &["west"]);
    let key = folder.path().join("tls/west/tls.key");
    fs::set_permissions(key, Permissions::from_mode(mode)).unwrap();
    folder
}

#[test]
fn a_key_that_others_can_read_is_refused_unless_it_is_meant() {
    let folder = with_key_mode(0o644);
    for arguments in [["check", "west.yaml"].as_slice(), &["run", "--config", "west.yaml"]] {
        let output = strait(arguments, folder.path());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("tls.key") && told.contains("chmod 0600"), "{told}");
    }
    let west = fs::read_to_string(folder.path().join("west.yaml")).unwrap();
    let meant = west.replace("link: {", "link: { allowReadableKey: true,");
    fs::write(folder.path().join("west.yaml"), meant).unwrap();
    let checked = strait(&["check", "west.yaml"], folder.path());
    assert_eq!((checked.status.code(), &*checked.stderr), (Some(0), &b""[..]), "{checked:?}");
}

#[test]
fn a_key_in_a_kubernetes_volume_is_worth_a_warning() {
    let folder = with_key_mode(0o644);
    let tls = folder.path().join("tls/west");
    fs::create_dir(tls.join("..2026")).unwrap();
    symlink("..2026", tls.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        fs::rename(tls.join(file), tls.join("..2026").join(file)).unwrap();
        symlink(Path::new("..data").join(file), tls.join(file)).unwrap();
    }
    let checked = strait(&["check", "west.yaml"], folder.path());
    let told = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{told}");
    assert!(told.contains("warning") && told.contains("defaultMode: 0400"), "{told}");
}

#[test]
fn check_tells_of_names_that_collide_together_with_all_else() {
    let folder = folder();
    let text = "\
cluster: west
colour: blue
names: [\"{app}.{namespace}.mesh.example\"]
routes:
  - { name: one.example, endpoints: [\"192.0.2.1:1\"] }
  - { name: one.example, endpoints: [\"192.0.2.2:1\"], allow: [{ cluster: east }] }
  - { name: \"*.mesh.example\", endpoints: [\"192.0.2.2:1\"] }
";
    fs::write(folder.path().join("all.yaml"), text).unwrap();
    let output = strait(&["check", "all.yaml"], folder.path());
    let said = String::from_utf8_lossy(&output.stderr);
    let places: Vec<_> = said.lines().filter_map(|line| line.split_once(": error: ")).collect();
    let expected = [
        ("all.yaml:2:1", "no key `colour`"),
        ("all.yaml:6:13", "written twice"),
        ("all.yaml:6:73", "a link leads to apps and services that are exported"),
        ("all.yaml:7:13", "the wildcard covers names"),
    ];
    assert_eq!(places.len(), expected.len(), "{said}");
    for ((place, message), (at, text)) in places.into_iter().zip(expected) {
        assert!(place == at && message.contains(text), "{text}: {said}");
    }
    assert_eq!(said.matches("help: ").count(), expected.len(), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

/// Runs a command on a terminal of its own. `None`: there is no program for that here.
fn on_a_terminal(folder: &Path, arguments: &str) -> Option<Output> {
    let script = counterpart("colour on a terminal", "script")?;
    let command = format!("{STRAIT} {arguments}");
    Some(run(Command::new(script)
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .current_dir(folder)))
}

fn has_colour(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\x1b[")
}

#[test]
fn colour_is_for_terminals_only() {
    let gateway = Gateway::start("");
    fs::write(gateway.folder().join("bad.yaml"), "cluster: west\nlimit: 1\n").unwrap();
    let status = format!("status --admin {}", gateway.admin());
    let explain = format!("explain one.example --admin {}", gateway.admin());
    for (arguments, code) in [
        ("check bad.yaml", 1),
        (&*status, 0),
        (&*explain, 1),
        ("run --config bad.yaml", 1),
        ("check --help", 0),
    ] {
        let words: Vec<_> = arguments.split(' ').collect();
        let piped = strait(&words, gateway.folder());
        assert_eq!(piped.status.code(), Some(code), "{arguments}");
        assert!(!has_colour(&piped.stdout) && !has_colour(&piped.stderr), "{arguments}: {piped:?}");
        let Some(shown) = on_a_terminal(gateway.folder(), arguments) else { return };
        assert_eq!(shown.status.code(), Some(code), "{arguments}: {shown:?}");
        assert!(has_colour(&shown.stdout), "{arguments}: {shown:?}");
    }
}

#[test]
fn the_log_is_for_people_on_a_terminal_and_json_elsewhere() {
    let elsewhere = Gateway::start("");
    assert!(!elsewhere.log().is_empty(), "every line is read as JSON");
    let Some(script) = counterpart("the log on a terminal", "script") else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("strait.yaml"), filled(BASE, folder.path())).unwrap();
    let command = format!("{STRAIT} run --config strait.yaml");
    let script = Command::new(script)
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .current_dir(folder.path())
        .spawn()
        .unwrap();
    let mut script = Process(script);
    let pid = wait_for("the gateway", || {
        let stream =
            std::os::unix::net::UnixStream::connect(folder.path().join("admin.sock")).ok()?;
        let status = http::exchange(stream, "GET", "/status", b"", true).ok()?;
        let status: serde_json::Value = serde_json::from_slice(&status.body).ok()?;
        Pid::from_raw(i32::try_from(status["pid"].as_i64()?).ok()?)
    });
    kill_process(pid, Signal::TERM).unwrap();
    let mut shown = Vec::new();
    std::io::Read::read_to_end(&mut script.0.stdout.take().unwrap(), &mut shown).unwrap();
    let text = String::from_utf8_lossy(&shown);
    assert!(text.contains("configuration in force") && has_colour(&shown), "{text}");
    assert!(text.lines().all(|line| !line.starts_with('{')), "{text}");
}
