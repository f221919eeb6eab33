//! What the commands do, done: gateways are started, configurations read.

use std::path::Path;

use tokio::runtime::Builder;

use crate::app::{self, Offline, StartError, offline_with_egress};
use crate::config::Problem;
use crate::model::client::Asker;
use crate::routing::explain::{Explanation, explain};
use crate::telemetry::logging::Logging;

use super::check::Checked;
use super::output::Out;
use super::{DemoArguments, Failed, Outcome, RunArguments, Work, demo, run, store};

/// The real thing, as `main` hands it in.
#[derive(Debug, Clone, Copy)]
pub struct Real;

impl Work for Real {
    fn run(&self, arguments: &RunArguments) -> Result<Outcome, Failed> {
        let logging = Logging::start();
        // The control side needs one thread: the data threads have runtimes of their own.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let ran = runtime.block_on(run::run(arguments.clone(), logging.dropped_lines_counter()));
        // A build of a large table that is still under way is not waited for.
        runtime.shutdown_background();
        drop(logging);
        ran.map(|()| Outcome::Done).map_err(Failed::from)
    }

    fn demo(&self, arguments: &DemoArguments, out: &mut Out) -> Result<Outcome, Failed> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(demo::run(arguments, out))
    }

    fn check(&self, path: &Path) -> Checked {
        match app::check(path) {
            Ok(Offline { loaded, table }) => {
                Checked { problems: loaded.warnings, names: table.len() }
            }
            Err(problems) => Checked { problems, names: 0 },
        }
    }

    fn store_init(&self, path: &Path) -> Result<String, Failed> {
        let loaded = crate::config::load(path).map_err(Failed::Invalid)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(store::init(&loaded.config))
    }

    fn explain(&self, path: &Path, name: &str, asker: &Asker) -> Result<Explanation, Vec<Problem>> {
        offline_with_egress(path).map(|offline| explain(&offline.table, name, asker, false))
    }
}

impl From<StartError> for Failed {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(problems) => Self::Invalid(problems),
            StartError::System(error) => {
                Self::Gateway(format!("the gateway cannot start: {error}"))
            }
        }
    }
}
