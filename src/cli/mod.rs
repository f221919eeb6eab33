//! The commands. The only module that prints.

pub mod allowed;
pub mod certs;
pub mod check;
pub mod client;
pub mod demo;
pub mod explain;
mod https;
pub mod output;
mod run;
pub mod status;
pub mod store;
mod table;
pub mod work;

use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::problem::Problem;
use crate::model::client::Asker;
use crate::routing::explain::Explanation;

use allowed::{AllowArguments, AllowedArguments, RevokeArguments};
use certs::CertsArguments;
use check::{CheckArguments, Checked};
use client::{Admin, AdminUrl, ClientError};
use explain::ExplainArguments;
use output::{BAD, Out, PLAIN, styled};
use status::StatusArguments;
use store::StoreArguments;

/// A cross-cluster gateway for Dapr: routes TLS connections by server name, bytes untouched
#[derive(Debug, Parser)]
#[command(
    name = "strait",
    version,
    disable_help_subcommand = true,
    after_help = "\
Example, with nothing else installed:
  strait demo

Exit codes of every command: 0 done, 1 not, 2 the command line is wrong."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway
    Run(RunArguments),
    /// Check a configuration: every mistake at once, with its place and how to mend it
    Check(CheckArguments),
    /// Tell what the gateway would do with a connection for a name, step by step
    Explain(ExplainArguments),
    /// Tell how a running gateway is
    Status(StatusArguments),
    /// Let an app call an app of other clusters
    Allow(AllowArguments),
    /// Let an app call an app of other clusters no more
    Revoke(RevokeArguments),
    /// Tell which apps of other clusters each app may call
    Allowed(AllowedArguments),
    /// Make certificates to try links with
    Certs(CertsArguments),
    /// Prepare the store of allowed apps that a configuration names
    Store(StoreArguments),
    /// Four clusters in one process: watch calls cross, be refused and fail over
    Demo(DemoArguments),
}

/// Where the configuration is.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  strait run --config config/strait.yaml
  strait run --config config/strait.yaml --handover /run/strait/handover.sock

Reads the configuration again when it changes and on SIGHUP. SIGTERM and SIGINT end it in good order, a second one at once.
With --handover the same command upgrades: a running gateway passes its listeners on and ends once its connections have.
STRAIT_LOG sets what is logged: info, debug, info,strait::proxy=debug.

Exit codes:
  0  it has ended in good order
  1  it could not start: no valid configuration, or an address that cannot be had
  2  the command line is wrong")]
pub struct RunArguments {
    /// A file, or a directory of them
    #[arg(long, value_name = "PATH", default_value = "config/strait.yaml")]
    pub config: PathBuf,

    /// Takes over the listeners of the gateway that runs with the same socket, and lets a later one take over these
    #[arg(long, value_name = "SOCKET")]
    pub handover: Option<PathBuf>,
}

/// How long the demo goes on.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  strait demo
  strait demo --calls 200

Exit codes:
  0  everything was as it should be
  1  something was not, or the demo could not start
  2  the command line is wrong")]
pub struct DemoArguments {
    /// End once the story is told and at least so many calls are made; without it, Ctrl-C ends the demo
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub calls: Option<u32>,
}

/// Which gateway is asked.
#[derive(Debug, Clone, clap::Args)]
struct AdminArgument {
    // No doc comment: rustdoc would take the URLs for links that it should make.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:9901",
        help = "Where the gateway's admin API listens: http://HOST:PORT, https://HOST:PORT or unix:/PATH"
    )]
    admin: AdminUrl,

    /// A file with a bearer token, where the gateway asks for one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// A file with the authority of the gateway's certificate, for https
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// A file with a certificate to show, where the gateway asks for one
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,

    /// The private key of that certificate
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

impl AdminArgument {
    /// Reads what there is to prove.
    fn admin(&self) -> Result<Admin, ClientError> {
        let token = self.token_file.as_deref().map(https::token).transpose()?;
        let tls = match (&self.admin, &self.ca_file) {
            (AdminUrl::Tls(_), Some(anchors)) => {
                let own = self.cert_file.as_deref().zip(self.key_file.as_deref());
                Some(https::config(anchors, own)?)
            }
            (AdminUrl::Tls(_) | AdminUrl::Tcp(_) | AdminUrl::Unix(_), _) => None,
        };
        Ok(Admin { url: self.admin.clone(), token, tls })
    }
}

/// What the commands do besides telling of it. Handed in, so that a test of a command starts no gateway.
pub trait Work {
    /// Runs a gateway until it is told to stop.
    fn run(&self, arguments: &RunArguments) -> Result<Outcome, Failed>;
    /// Runs the demo.
    fn demo(&self, arguments: &DemoArguments, out: &mut Out) -> Result<Outcome, Failed>;
    /// Loads a configuration and builds its table, for the problems alone.
    fn check(&self, path: &Path) -> Checked;
    /// Makes what a store needs before documents can be kept there. What it has done, for people.
    fn store_init(&self, path: &Path) -> Result<String, Failed>;
    /// Explains a name from a configuration alone.
    fn explain(&self, path: &Path, name: &str, asker: &Asker) -> Result<Explanation, Vec<Problem>>;
}

/// How a command ended: its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 0
    Done,
    /// 1: invalid, not ready, refused.
    Refused,
}

/// Why a command could not do what it was asked for. Exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The gateway did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What there is to tell cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// The configuration is invalid.
    #[error("there is no valid configuration to start with")]
    Invalid(Vec<Problem>),
    /// The gateway or the demo could not start, or ended with an error.
    #[error("{0}")]
    Gateway(String),
}

/// Reads the command line and does what it says.
pub fn main(work: &impl Work) -> ExitCode {
    // Ends the process itself: with 0 for --help and --version, with 2 for what it does not understand.
    let arguments = Arguments::parse();
    let mut out = Out::standard();
    exit_code(execute(&arguments, work, &mut out), &mut out)
}

fn execute(arguments: &Arguments, work: &impl Work, out: &mut Out) -> Result<Outcome, Failed> {
    match &arguments.command {
        Command::Run(arguments) => work.run(arguments),
        Command::Demo(arguments) => work.demo(arguments, out),
        Command::Check(arguments) => check::check(arguments, work, out),
        Command::Explain(arguments) => block_on(explain::explain(arguments, work, out)),
        Command::Store(arguments) => store::store(arguments, work, out),
        Command::Certs(arguments) => certs::certs(arguments, out),
        Command::Status(arguments) => block_on(status::status(arguments, out)),
        Command::Allow(arguments) => block_on(allowed::allow(arguments, out)),
        Command::Revoke(arguments) => block_on(allowed::revoke(arguments, out)),
        Command::Allowed(arguments) => block_on(allowed::allowed(arguments, out)),
    }
}

fn exit_code(result: Result<Outcome, Failed>, out: &mut Out) -> ExitCode {
    let flushed = out.out.flush().map_err(Failed::Output);
    match result.and_then(|outcome| flushed.map(|()| outcome)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::FAILURE,
        Err(failed) => {
            // There is nowhere to tell that standard error cannot be written.
            let _ = tell(&failed, out);
            ExitCode::FAILURE
        }
    }
}

fn tell(failed: &Failed, out: &mut Out) -> io::Result<()> {
    match failed {
        Failed::Invalid(problems) => check::problems(problems, &mut out.err)?,
        Failed::Client(_) | Failed::Output(_) | Failed::Gateway(_) => {}
    }
    writeln!(out.err, "{} {}", styled(BAD, "error:"), styled(PLAIN, &failed.to_string()))?;
    out.err.flush()
}

/// One question needs no more than this thread.
fn block_on<T>(answer: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(answer)
}

#[cfg(test)]
mod testing {
    use super::*;

    /// Does nothing, and says what it was told to say.
    #[derive(Default)]
    pub(super) struct Fake {
        pub(super) checked: Checked,
        pub(super) explanation: Option<Explanation>,
    }

    impl Work for Fake {
        fn run(&self, arguments: &RunArguments) -> Result<Outcome, Failed> {
            Err(Failed::Gateway(format!("ran with {}", arguments.config.display())))
        }

        fn demo(&self, arguments: &DemoArguments, out: &mut Out) -> Result<Outcome, Failed> {
            writeln!(out.out, "demo of {:?} calls", arguments.calls)?;
            Ok(Outcome::Done)
        }

        fn check(&self, _: &Path) -> Checked {
            self.checked.clone()
        }

        fn store_init(&self, path: &Path) -> Result<String, Failed> {
            Ok(format!("made what {} needs", path.display()))
        }

        fn explain(&self, _: &Path, _: &str, _: &Asker) -> Result<Explanation, Vec<Problem>> {
            self.explanation.clone().ok_or_else(|| self.checked.problems.clone())
        }
    }
}

#[cfg(test)]
mod tests;
