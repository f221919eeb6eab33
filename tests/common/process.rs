//! Other programs: started with bytes to send, ended in any case.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use super::{counterpart, skipped, wait_for};

/// A child process that does not outlive the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program that gets `input` and whose input stays open until it has ended by itself: to some TLS clients the end of
/// their input means that they should leave, whatever has not been answered yet.
pub(crate) fn converse(command: &mut Command, input: Vec<u8>) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Process(command.spawn().unwrap());
    let mut stdin = child.0.stdin.take().unwrap();
    let writing = thread::spawn(move || {
        // A client that was refused does not read its input.
        let _ = stdin.write_all(&input);
        stdin
    });
    let reading = (read_all(child.0.stdout.take()), read_all(child.0.stderr.take()));
    let status = wait_for("the client ends", || child.0.try_wait().unwrap());
    drop(writing.join());
    Output { status, stdout: reading.0.join().unwrap(), stderr: reading.1.join().unwrap() }
}

/// Runs a program without input to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// Runs the program under test.
pub(crate) fn strait(arguments: &[&str], folder: &Path) -> Output {
    run(Command::new(super::gateway::STRAIT).args(arguments).current_dir(folder))
}

fn read_all(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Makes `tls/CLUSTER` in a folder for each cluster, for `link.directory`, as README has it.
pub(crate) fn certificates(folder: &Path, clusters: &[&str]) {
    let arguments = [&["certs", "tls", "--trust-domain", "example.org"], clusters].concat();
    let made = strait(&arguments, folder);
    assert!(made.status.success(), "{made:?}");
}

/// A Go program of a folder below `tests`, built. `None`: there is no Go, or its modules cannot be had, and the test has said so.
pub(crate) fn go_program(test: &str, source: &str, into: &Path) -> Option<PathBuf> {
    let go = counterpart(test, "go")?;
    let program = into.join("program");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source);
    let mut build = Command::new(go);
    build.args(["build", "-mod=readonly", "-o"]).arg(&program).arg(".").current_dir(source);
    let outcome = run(build.env("GOTOOLCHAIN", "local"));
    if !outcome.status.success() {
        skipped(test, &String::from_utf8_lossy(&outcome.stderr));
        return None;
    }
    Some(program)
}
