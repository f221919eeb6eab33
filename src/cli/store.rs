//! `strait store init`: makes table and trigger where documents of allowed apps are to be kept in `PostgreSQL`.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;

use crate::config::{Config, Store};
use crate::discovery::dns;
use crate::permissions::store::{Initialized, StoreError, initialize};

use super::output::{GOOD, Out, harmless, styled};
use super::{Failed, Outcome, Work};

/// What to do with the store.
#[derive(Debug, Clone, clap::Args)]
pub struct StoreArguments {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Clone, Subcommand)]
#[expect(clippy::doc_markdown, reason = "shown as help, with the name as people write it")]
enum StoreCommand {
    /// Make the table and its trigger in PostgreSQL; what is there already stays
    #[command(after_help = "\
Example:
  strait store init --config config/strait.yaml

Connects as the user of allowedApps.store.postgresql.url, who may create tables in its database and functions; run with the
configuration of such a user, or have a gateway's user own the schema. May be repeated: rows are never touched.

Exit codes:
  0  table and trigger are there
  1  they are not: the server cannot be reached or does not allow it
  2  the command line is wrong")]
    Init {
        /// A file, or a directory of them
        #[arg(long, value_name = "PATH", default_value = "config/strait.yaml")]
        config: PathBuf,
    },
}

/// Does it and tells.
pub(super) fn store(
    arguments: &StoreArguments,
    work: &impl Work,
    out: &mut Out,
) -> Result<Outcome, Failed> {
    let StoreCommand::Init { config } = &arguments.command;
    let done = work.store_init(config)?;
    writeln!(out.out, "{} {}", styled(GOOD, "done:"), harmless(&done))?;
    Ok(Outcome::Done)
}

/// Makes what the store of a configuration needs, and says what that was.
pub(super) async fn init(config: &Config) -> Result<String, Failed> {
    let names = dns::Settings {
        servers: config.resolver.servers.clone(),
        allow_local: config.resolver.allow_local_addresses,
    };
    match &config.store {
        None => Err(Failed::Gateway("the configuration has no allowedApps.store".to_owned())),
        Some(Store::File { directory }) => Ok(format!(
            "nothing to make: the folder {} comes with its first document",
            directory.display()
        )),
        Some(Store::Redis(_)) => Ok("nothing to make: Redis needs no table".to_owned()),
        Some(Store::Postgresql(table)) => {
            let made = Box::pin(initialize(table, &names)).await;
            let made = made.map_err(|error: StoreError| {
                Failed::Gateway(format!("{} at {}: {error}", table.table, table.server))
            })?;
            Ok(match made {
                Initialized::Made => format!("made the table {} and its trigger", table.table),
                Initialized::WasThere => {
                    format!("the table {} was there; its trigger is made anew", table.table)
                }
            })
        }
    }
}
