//! What the service manager is told: systemd, or whatever else listens at `NOTIFY_SOCKET` (`sd_notify(3)`). Without it, nothing.

use std::io;

use sd_notify::NotifyState;
use tracing::warn;

/// It serves.
pub(super) fn ready(names: usize) {
    let status = format!("serving {names} names");
    tell(Ok([NotifyState::Ready, NotifyState::Status(&status)]));
}

/// It reads its configuration again; [`ready`] ends that. With the time, as `Type=notify-reload` wants it.
pub(super) fn reloading() {
    tell(NotifyState::monotonic_usec_now().map(|now| [NotifyState::Reloading, now]));
}

/// It ends.
pub(super) fn stopping(connections: usize) {
    let status = format!("stopping: {connections} connections are open");
    tell(Ok([NotifyState::Stopping, NotifyState::Status(&status)]));
}

/// Another process is the service from now on. Told by this one, which is still allowed to speak for it.
pub(super) fn main_process(pid: u32) {
    tell(Ok([NotifyState::MainPid(pid), NotifyState::Status("another process serves")]));
}

fn tell(states: io::Result<[NotifyState<'_>; 2]>) {
    if let Err(error) = states.and_then(|states| sd_notify::notify(&states)) {
        warn!(%error, "the service manager could not be told");
    }
}
