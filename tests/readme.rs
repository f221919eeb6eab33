//! What README shows is done here: its configurations are checked and its commands run, in its order and in one folder.
//!
//! `yaml` blocks that begin with a comment holding a file name are configurations of ours, `sh` blocks are commands, a `text`
//! block is what the command before it prints; `console` blocks need a cluster or a container engine and are not run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const README: &str = include_str!("../README.md");

/// README's configuration with listeners that are free on every machine.
const MOVED: &str = "moved.yaml";

/// Long enough for a busy machine; the wait ends as soon as the gateway answers.
const START: Duration = Duration::from_mins(1);

#[test]
fn configurations_hold() {
    let folder = Folder::new();
    let files = folder.write_configurations();
    assert!(!files.is_empty(), "README shows no configuration");
    for file in files {
        succeeded(&folder.strait(&["check", &file]));
    }
}

#[test]
fn commands_do_what_they_say() {
    let mut folder = Folder::new();
    folder.write_configurations();
    folder.write_moved();
    let steps = steps(README);
    assert_eq!(steps.first(), Some(&Step::Command("cargo run --release -- demo".to_owned())));
    let mut printed = String::new();
    for step in steps {
        match step {
            Step::Command(command) => printed = folder.run(&command),
            Step::Prints(text) => assert_eq!(printed, text),
        }
    }
    assert!(folder.gateway.is_some(), "README does not show how to run a gateway");
}

/// A reader's working folder.
struct Folder {
    folder: tempfile::TempDir,
    gateway: Option<Gateway>,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), gateway: None }
    }

    fn write_configurations(&self) -> Vec<String> {
        let files = configurations(README);
        for (name, text) in &files {
            fs::write(self.path(name), text).expect("a file can be written");
        }
        files.into_iter().map(|(name, _)| name).collect()
    }

    /// The configuration to run: README's ports may be taken on this machine, its names have no address here.
    fn write_moved(&self) {
        let mut text =
            fs::read_to_string(self.path("strait.yaml")).expect("README shows strait.yaml");
        let admin = format!("listeners:\n  admin: {{ address: \"{}\" }}\n", self.admin());
        for (from, to) in [
            ("[::]:8443", "127.0.0.1:0"),
            ("checkout-dapr.shop.svc.cluster.local", "192.0.2.7"),
            ("listeners:\n", &admin),
        ] {
            assert!(text.contains(from), "{from:?} is not in README's strait.yaml");
            text = text.replace(from, to);
        }
        fs::write(self.path(MOVED), text).expect("a file can be written");
    }

    /// What the command prints.
    fn run(&mut self, command: &str) -> String {
        let words: Vec<_> = command
            .strip_prefix("cargo run --release -- ")
            .or_else(|| command.strip_prefix("strait "))
            .unwrap_or_else(|| panic!("not a command of ours: {command}"))
            .split_whitespace()
            .collect();
        let admin = self.admin();
        match words[..] {
            ["run", "--config", "strait.yaml"] => {
                self.gateway = Some(self.start(&[]));
                String::new()
            }
            ["run", "--config", "strait.yaml", "--handover", socket] => {
                self.upgrade(socket);
                String::new()
            }
            ["demo"] => succeeded(&self.strait(&["demo", "--calls", "3"])),
            ["status" | "explain", ..] if !words.contains(&"--config") => {
                succeeded(&self.strait(&[&words[..], &["--admin", &admin]].concat()))
            }
            _ => succeeded(&self.strait(&words)),
        }
    }

    /// Starts a gateway and waits until it answers.
    fn start(&self, more: &[&str]) -> Gateway {
        let log = self.path("log");
        let mut command = self.command(&[&["run", "--config", MOVED], more].concat());
        command.stderr(File::create(&log).expect("a file can be written"));
        let gateway = Gateway(command.stdout(Stdio::null()).spawn().expect("strait starts"));
        let end = Instant::now() + START;
        while !self.strait(&["status", "--admin", &self.admin()]).status.success() {
            assert!(Instant::now() < end, "no answer: {:?}", fs::read_to_string(&log));
            thread::sleep(Duration::from_millis(50));
        }
        gateway
    }

    /// Runs the command twice: the second process takes over from the first.
    fn upgrade(&mut self, socket: &str) {
        self.gateway = None;
        let mut old = self.start(&["--handover", socket]);
        let end = Instant::now() + START;
        while !self.path(socket).exists() {
            assert!(Instant::now() < end, "nobody can take over");
            thread::sleep(Duration::from_millis(50));
        }
        self.gateway = Some(self.start(&["--handover", socket]));
        assert!(old.0.wait().expect("the old gateway ends").success());
    }

    fn strait(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("strait runs")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
        command.args(words).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn admin(&self) -> String {
        format!("unix:{}", self.path("admin.sock").display())
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }
}

struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        self.0.kill().expect("the gateway still runs");
        self.0.wait().expect("the gateway ends");
    }
}

/// What a command printed that succeeded.
fn succeeded(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// Something that README tells a reader to do, or to expect.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Command(String),
    Prints(String),
}

/// Commands of Strait in their order, and what they print. `cargo test` is what runs this.
fn steps(markdown: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for (language, text) in blocks(markdown) {
        match language.as_str() {
            "sh" => {
                let commands = text.lines().filter(|line| *line != "cargo test");
                steps.extend(commands.map(|line| Step::Command(line.to_owned())));
            }
            "text" => steps.push(Step::Prints(text)),
            _ => {}
        }
    }
    steps
}

/// Name and text of each configuration.
fn configurations(markdown: &str) -> Vec<(String, String)> {
    let yaml = blocks(markdown).into_iter().filter(|(language, _)| language == "yaml");
    let named = yaml.filter_map(|(_, text)| {
        let name = text.lines().next()?.strip_prefix("# ")?.to_owned();
        Some((name, text))
    });
    named.collect()
}

/// Language and text of each fenced block.
fn blocks(markdown: &str) -> Vec<(String, String)> {
    let fenced = markdown.split("```").skip(1).step_by(2);
    let blocks = fenced.filter_map(|block| block.split_once('\n'));
    blocks.map(|(language, text)| (language.trim().to_owned(), text.to_owned())).collect()
}

#[test]
fn blocks_are_found() {
    let markdown = "a `b`\n```sh\nstrait check x\ncargo test\n```\n```text\nfine\n```\n```yaml\n# x.yaml\na: 1\n```\n```\npicture\n```\n";
    let expected = [Step::Command("strait check x".to_owned()), Step::Prints("fine\n".to_owned())];
    assert_eq!(steps(markdown), expected);
    assert_eq!(configurations(markdown), [("x.yaml".to_owned(), "# x.yaml\na: 1\n".to_owned())]);
}
