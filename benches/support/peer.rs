//! Another gateway beside the one that is measured.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Its process; ended when dropped, with its children.
pub(crate) struct Peer(Child);

impl Peer {
    /// What it says goes into `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().map(Self)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    #[allow(dead_code, reason = "not every bench asks")]
    pub(crate) fn has_ended(&mut self) -> io::Result<bool> {
        self.0.try_wait().map(|status| status.is_some())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Not SIGKILL, which its children would not notice.
        let _ = kill_process(self.pid(), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Free a moment ago: such a gateway cannot be told to take any port and say which.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
