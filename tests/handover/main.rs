//! One gateway process takes over from another, and what the service manager hears of it.

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod service;
mod sockets;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::gateway::{Gateway, STRAIT, filled};

/// The command with which every gateway of these tests runs in a folder: the same for the first and for its successors.
fn command(folder: &Path) -> Command {
    with_handover(Command::new(STRAIT), folder)
}

/// The same behind another program, which runs it.
fn with_handover(mut command: Command, folder: &Path) -> Command {
    command.arg("run").arg("--config").arg(folder.join("strait.yaml"));
    command.arg("--handover").arg(folder.join("handover.sock")).stdin(Stdio::null());
    command
}

/// Starts the first gateway and waits until it can be taken over.
fn first(text: &str) -> Gateway {
    first_by(text, command)
}

fn first_by(text: &str, command: impl FnOnce(&Path) -> Command) -> Gateway {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let config = folder.path().join("strait.yaml");
    fs::write(&config, filled(text, folder.path())).unwrap();
    let mut command = command(folder.path());
    let mut gateway = Gateway::launch(folder, config, &mut command);
    gateway.wait_until_ready();
    gateway.wait_for_words("a successor may ask");
    gateway
}

/// Starts a gateway that takes over, and waits until it has.
fn take_over(old: &Gateway, command: Command) -> Gateway {
    let new = old.beside(command);
    new.wait_for_words("the other gateway accepts nothing any more");
    new.wait_for_words("a successor may ask");
    new
}
