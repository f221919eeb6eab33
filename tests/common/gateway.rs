//! The gateway as its users run it: a process, a configuration file, signals, an admin socket.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Answer};
use super::{PATIENCE, wait_for, wait_until};

/// The program under test.
pub(crate) const STRAIT: &str = env!("CARGO_BIN_EXE_strait");

/// A configuration with one ingress listener, without routes.
pub(crate) const BASE: &str = "\
cluster: west
listeners:
  ingress: [{ address: \"127.0.0.1:0\" }]
  admin: { address: \"unix:{folder}/admin.sock\" }
";

/// A running gateway. Killed when dropped.
pub(crate) struct Gateway {
    folder: Arc<TempDir>,
    config: PathBuf,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Starts with [`BASE`] and what is to be added to it, and waits until it is ready.
    pub(crate) fn start(more: &str) -> Self {
        Self::with_config(&format!("{BASE}{more}"))
    }

    /// Starts with a whole configuration, in which `{folder}` stands for the gateway's own folder.
    pub(crate) fn with_config(text: &str) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), "strait.yaml", |folder| {
            fs::write(folder.join("strait.yaml"), filled(text, folder)).unwrap();
        })
    }

    /// Starts in a folder that `prepare` fills; `config` is relative to it.
    pub(crate) fn in_folder(folder: TempDir, config: &str, prepare: impl FnOnce(&Path)) -> Self {
        prepare(folder.path());
        Self::spawn(folder, config, |_| {})
    }

    /// Starts with [`BASE`] and more, under a limit of the shell's: `-n 256` for so many descriptors, `-d` for KiB of memory.
    pub(crate) fn under(ulimit: &str, more: &str) -> Self {
        Self::after(&format!("ulimit {ulimit}"), more)
    }

    /// Starts with [`BASE`] and more, in a shell that runs a command of its own first.
    pub(crate) fn after(first: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = filled(&format!("{BASE}{more}"), folder.path());
        fs::write(folder.path().join("strait.yaml"), text).unwrap();
        let config = folder.path().join("strait.yaml");
        Self::spawn(folder, "strait.yaml", |command| {
            *command = Command::new("sh");
            command.args(["-c", &format!("{first} && exec \"$0\" \"$@\""), STRAIT]);
            command.args(["run", "--config"]).arg(config);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        })
    }

    /// Starts in a folder that is filled, with changes to the command. Its log is only known while stderr is piped.
    pub(crate) fn spawn(folder: TempDir, config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let config = folder.path().join(config);
        let mut command = Command::new(STRAIT);
        command.args(["run", "--config"]).arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        change(&mut command);
        let mut gateway = Self::started(Arc::new(folder), config, &mut command);
        gateway.wait_until_ready();
        gateway
    }

    /// Starts the program by a command of the caller's, and does not wait for it.
    pub(crate) fn launch(folder: Arc<TempDir>, config: PathBuf, command: &mut Command) -> Self {
        Self::started(folder, config, command.stdout(Stdio::null()).stderr(Stdio::piped()))
    }

    fn started(folder: Arc<TempDir>, config: PathBuf, command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let (lines, into) = (BufReader::new(stderr).lines(), Arc::clone(&log));
            thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    into.lock().unwrap().push(line);
                }
            });
        }
        Self { folder, config, child, log }
    }

    /// Another process in the same folder, which is not waited for.
    pub(crate) fn beside(&self, mut command: Command) -> Self {
        Self::launch(Arc::clone(&self.folder), self.config.clone(), &mut command)
    }

    /// Waits for a line of its log that has some words.
    pub(crate) fn wait_for_words(&self, words: &str) {
        wait_until(words, || self.lines().iter().any(|line| line.contains(words)));
    }

    /// Waits until its admin API says that it is ready.
    pub(crate) fn wait_until_ready(&mut self) {
        wait_for("the gateway is ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                let lines = self.lines();
                panic!("the gateway ended with {status}: {lines:#?}");
            }
            self.get("/readyz").ok().filter(|answer| answer.status == 200)
        });
    }

    /// CPU time that it has used so far, in seconds.
    pub(crate) fn cpu_time(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The second field, in parentheses, may hold anything; utime and stime are the 14th and 15th (proc(5)), in ticks of 10 ms.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>();
        ticks / 100.0
    }

    /// Memory that it holds, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it ever held, in bytes.
    pub(crate) fn most_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    /// Its folder, with the configuration in it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration file or folder.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Asks the admin API.
    pub(crate) fn get(&self, path: &str) -> io::Result<Answer> {
        let stream = UnixStream::connect(self.folder().join("admin.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        http::exchange(stream, "GET", path, b"", true)
    }

    /// The admin API's address, as `--admin` takes it.
    pub(crate) fn admin(&self) -> String {
        format!("unix:{}/admin.sock", self.folder().display())
    }

    /// What `/status` says.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&self.get("/status").unwrap().body).unwrap()
    }

    /// Where the first ingress listener listens.
    pub(crate) fn ingress(&self) -> SocketAddr {
        self.bound("127.0.0.1:0").expect("an ingress listener at 127.0.0.1:0")
    }

    /// Where the ingress listener that was written so listens.
    pub(crate) fn bound(&self, written: &str) -> Option<SocketAddr> {
        let status = self.status();
        let listeners = status["listeners"].as_array()?;
        let is_it =
            |listener: &&Value| listener["kind"] == "ingress" && listener["address"] == written;
        listeners.iter().find(is_it)?["bound"].as_str()?.parse().ok()
    }

    /// The egress address of an app, once it listens there.
    pub(crate) fn egress(&self, app: &str) -> Option<SocketAddr> {
        let status = self.status();
        let found = status["egress"].as_array()?.iter().find(|one| one["app"] == app)?;
        found["address"].as_str()?.parse().ok().filter(|_| found["trouble"].is_null())
    }

    /// Writes the configuration anew: [`BASE`] and what is to be added.
    pub(crate) fn rewrite(&self, more: &str) {
        self.rewrite_all(&format!("{BASE}{more}"));
    }

    /// Writes the whole configuration anew, by a rename as editors and config management do it.
    pub(crate) fn rewrite_all(&self, text: &str) {
        let beside = self.folder().join(".strait.yaml.new");
        fs::write(&beside, filled(text, self.folder())).unwrap();
        fs::rename(beside, &self.config).unwrap();
    }

    /// The sum of a counter's or gauge's values over all labels that are not given. Labels are written `key="value"`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let text = self.get("/metrics").unwrap().text();
        let matching = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        matching.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// What it has logged.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// What it has logged, each line read as the JSON that it must be.
    pub(crate) fn log(&self) -> Vec<Value> {
        let read = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))
        };
        self.lines().iter().map(read).collect()
    }

    /// The records of connections among the log.
    pub(crate) fn records(&self) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["ending"].is_string()).collect()
    }

    /// Waits for a record that has this ending and gives it back.
    pub(crate) fn record(&self, ending: &str) -> Value {
        wait_for(&format!("a record with ending {ending}"), || {
            self.records().into_iter().find(|record| record["ending"] == ending)
        })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end of the process.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        wait_until("the gateway ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.lines();
            let last = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
            let _ = io::Write::write_all(
                &mut io::stderr(),
                format!("the gateway's last words:\n{}\n", last.join("\n")).as_bytes(),
            );
        }
    }
}

/// A configuration's text for a folder.
pub(crate) fn filled(text: &str, folder: &Path) -> String {
    text.replace("{folder}", &folder.display().to_string())
}
