//! Redis and `PostgreSQL` as processes of a test's own, on a free port.

use std::fmt::Write;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use strait::config::{self, PostgresqlStore, RedisStore, StoreServer};
use strait::discovery::dns;
use strait::permissions::store::{Store, open};
use tempfile::TempDir;

use crate::common::process::{Process, run};
use crate::common::{counterpart, skipped, wait_for, wait_until};

/// How many ports are tried: between asking for a free one and using it another may take it.
const PORTS: usize = 5;

/// A server on this machine.
pub(crate) fn server(port: u16) -> StoreServer {
    let host = "127.0.0.1".to_owned();
    StoreServer { host, port, user: None, password_file: None, ca_file: None }
}

/// Opens a store.
pub(crate) fn store(store: &config::Store) -> Arc<dyn Store> {
    open(store, &dns::Settings::default())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A Redis server.
pub(crate) struct Redis {
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Process>,
    pub(crate) port: u16,
}

impl Redis {
    /// Starts one. `None`: there is none on this machine, and the test has said so.
    pub(crate) fn start(test: &str, arguments: &[&str]) -> Option<Self> {
        Self::start_with(test, |_, _| arguments.iter().map(|&one| one.to_owned()).collect())
    }

    /// Starts one with arguments that name its folder or port.
    pub(crate) fn start_with(
        test: &str,
        arguments: impl Fn(&Path, u16) -> Vec<String>,
    ) -> Option<Self> {
        counterpart(test, "redis-server")?;
        counterpart(test, "redis-cli")?;
        for _ in 0..PORTS {
            let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
            let arguments = arguments(folder.path(), port);
            let mut redis = Self { folder, arguments, process: None, port };
            if redis.launch() {
                return Some(redis);
            }
        }
        panic!("no port for redis-server");
    }

    /// Starts the process. False: it has ended by itself.
    pub(crate) fn launch(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(["--save", "", "--bind", "127.0.0.1", "--unixsocket", "redis.sock"]);
        if !self.arguments.iter().any(|argument| argument == "--port") {
            command.args(["--port", &self.port.to_string()]);
        }
        command.args(&self.arguments).current_dir(&self.folder);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process(command.spawn().unwrap());
        let is_up = wait_for("redis answers", || {
            if process.0.try_wait().unwrap().is_some() {
                return Some(false);
            }
            (self.try_cli(&["PING"]).stdout == b"PONG\n").then_some(true)
        });
        self.process = is_up.then_some(process);
        is_up
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A command of the operator's, by the socket.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = self.try_cli(arguments);
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        assert!(
            output.status.success() && !text.starts_with("ERR"),
            "{arguments:?}: {text} {output:?}"
        );
        text
    }

    fn try_cli(&self, arguments: &[&str]) -> Output {
        let mut cli = Command::new("redis-cli");
        run(cli.arg("-s").arg(self.folder.path().join("redis.sock")).args(arguments))
    }

    /// Sets many keys at once.
    pub(crate) fn fill(&self, values: impl Iterator<Item = (String, String)>) {
        let mut commands = String::new();
        for (key, value) in values {
            write!(commands, "SET {key} '{value}'\r\n").unwrap();
        }
        let file = self.folder.path().join("fill");
        fs::write(&file, commands).unwrap();
        let mut cli = Command::new("redis-cli");
        cli.arg("-s").arg(self.folder.path().join("redis.sock")).arg("--pipe");
        let output = cli.stdin(fs::File::open(file).unwrap()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// How often a command was called.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.cli(&["INFO", "commandstats"]);
        let line =
            stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
    }

    /// Its database 3 as a store.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        store(&config::Store::Redis(RedisStore { server: server(self.port), database: 3 }))
    }
}

/// A `PostgreSQL` server that trusts whom its `pg_hba.conf` says.
pub(crate) struct Postgresql {
    folder: TempDir,
    process: Process,
    pub(crate) port: u16,
}

/// Who runs the server: it refuses to be root.
const USER: &str = "postgres";

impl Postgresql {
    /// Starts one that lets in everybody of this machine. `None`: there is none, and the test has said so.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::start_with(test, "host all all 127.0.0.1/32 trust", |_| String::new())
    }

    /// Starts one with lines of `pg_hba.conf` and settings, which may name its folder.
    pub(crate) fn start_with(
        test: &str,
        hba: &str,
        settings: impl Fn(&Path) -> String,
    ) -> Option<Self> {
        let programs = programs(test)?;
        let folder = tempfile::Builder::new().prefix("strait-pg").tempdir_in("/tmp").unwrap();
        let owner = owner(test)?;
        let settings = settings(folder.path());
        for entry in fs::read_dir(&folder).unwrap() {
            give(&entry.unwrap().path(), owner);
        }
        give(folder.path(), owner);
        let data = folder.path().join("data");
        let mut initdb = as_owner(&programs.join("initdb"), owner);
        initdb.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]);
        let made = run(&mut initdb);
        assert!(made.status.success(), "{made:?}");
        let hba = format!("local all all trust\n{hba}\n");
        fs::write(data.join("pg_hba.conf"), hba).unwrap();
        for _ in 0..PORTS {
            let port = free_port();
            let configuration = format!(
                "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n\
                 fsync = off\nmax_connections = 40\n{settings}\n",
                folder.path().display()
            );
            fs::write(data.join("postgresql.conf"), configuration).unwrap();
            let mut command = as_owner(&programs.join("postgres"), owner);
            command
                .arg("-D")
                .arg(&data)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut process = Process(command.spawn().unwrap());
            let is_up = wait_for("postgres answers", || match process.0.try_wait().unwrap() {
                Some(_) => Some(false),
                None => {
                    psql(&folder, port, "postgres", "SELECT 1").status.success().then_some(true)
                }
            });
            if is_up {
                let postgresql = Self { folder, process, port };
                postgresql.sql_in("postgres", "CREATE ROLE strait LOGIN");
                postgresql.sql_in("postgres", "CREATE DATABASE apps OWNER strait");
                return Some(postgresql);
            }
        }
        panic!("no port for postgres");
    }

    /// Statements of the operator's, by the socket, in the database of the apps.
    pub(crate) fn sql(&self, statements: &str) -> String {
        self.sql_in("apps", statements)
    }

    fn sql_in(&self, database: &str, statements: &str) -> String {
        let output = psql(&self.folder, self.port, database, statements);
        assert!(output.status.success(), "{statements}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Where it is.
    pub(crate) fn settings(&self) -> PostgresqlStore {
        let server = StoreServer { user: Some("strait".to_owned()), ..server(self.port) };
        let name = || "strait_apps".to_owned();
        PostgresqlStore { server, database: "apps".to_owned(), table: name(), channel: name() }
    }

    /// Its table as a store.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        store(&config::Store::Postgresql(self.settings()))
    }
}

impl Drop for Postgresql {
    fn drop(&mut self) {
        // Its children go with it on SIGQUIT; SIGKILL would leave them.
        let id = rustix::process::Pid::from_child(&self.process.0);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::QUIT);
        wait_until("postgres ends", || self.process.0.try_wait().unwrap().is_some());
    }
}

fn psql(folder: &TempDir, port: u16, database: &str, statements: &str) -> Output {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]);
    run(psql.arg("-h").arg(folder.path()).args(["-p", &port.to_string(), "-c", statements]))
}

/// Where the server's programs are: Debian keeps them out of the path.
fn programs(test: &str) -> Option<PathBuf> {
    counterpart(test, "psql")?;
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let folders = versions.map(|version| version.unwrap().path().join("bin"));
    let mut folders: Vec<_> = folders.filter(|bin| bin.join("initdb").is_file()).collect();
    folders.sort();
    let found = folders.pop();
    if found.is_none() {
        skipped(test, "/usr/lib/postgresql/*/bin/initdb is missing");
    }
    found
}

/// Whom a server's folder belongs to and its processes run as.
#[derive(Clone, Copy)]
enum Owner {
    /// Who runs the test, where that is not root.
    Tester,
    Other {
        user: u32,
        group: u32,
    },
}

/// The owner to be. `None`: root runs the test and there is no other user, and the test has said so.
fn owner(test: &str) -> Option<Owner> {
    if !rustix::process::getuid().is_root() {
        return Some(Owner::Tester);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with(&format!("{USER}:")));
    let Some(line) = line else {
        skipped(test, &format!("there is no user {USER}"));
        return None;
    };
    let mut numbers = line.split(':').skip(2).map(|number| number.parse().unwrap());
    Some(Owner::Other { user: numbers.next().unwrap(), group: numbers.next().unwrap() })
}

fn give(path: &Path, owner: Owner) {
    if let Owner::Other { user, group } = owner {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

fn as_owner(program: &Path, owner: Owner) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Owner::Other { user, group } = owner {
        command.uid(user).gid(group);
    }
    command
}
