//! The `strait` command.

use std::process::ExitCode;

use strait::cli::{self, work::Real};

fn main() -> ExitCode {
    cli::main(&Real)
}
