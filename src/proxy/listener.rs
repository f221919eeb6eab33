//! Listeners: one socket a core, each with a loop that accepts.

use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{io, mem};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use rustix::io::Errno;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::policy::Networks;
use crate::reactor::{Listener, Socket, spawn};
use crate::socket;

use super::connection::{Accepted, serve};
use super::core::Core;
use super::egress::{LABEL, Tenure};
use super::places::Places;

/// Shortest wait after an accept that failed for want of something, and longest: descriptors come back when connections end, and
/// trying at once again would only heat the core.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// For handshakes that had begun when accepting was to end, and which end within a round trip. Nothing begins meanwhile.
const LAST_HANDSHAKES: Duration = Duration::from_millis(90);
/// One line so often says enough: accepts fail by the thousand.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// A listener as its connections see it.
#[derive(Debug)]
pub(super) struct Listening {
    /// The metric label: the address as configured.
    pub(super) label: Arc<str>,
    trusted: ArcSwap<Networks>,
    /// `limits.perListener`
    pub(super) open: Places,
    /// The app that it is for, where its address and no name decides.
    pub(super) tenure: Option<Arc<Tenure>>,
    /// Another process made its sockets, and may keep them.
    pub(super) inherited: bool,
    /// Ends its accept loops.
    pub(super) stop: CancellationToken,
}

impl Listening {
    pub(super) fn new(address: SocketAddr, proxy_from: &[IpNet], stop: CancellationToken) -> Self {
        let (open, trusted) = (Places::default(), ArcSwap::from_pointee(networks(proxy_from)));
        let label = address.to_string().into();
        Self { label, trusted, open, tenure: None, inherited: false, stop }
    }

    /// A listener of an egress address.
    pub(super) fn of_egress(tenure: Arc<Tenure>, stop: CancellationToken) -> Self {
        let (open, trusted) = (Places::default(), ArcSwap::default());
        Self { label: LABEL.into(), trusted, open, tenure: Some(tenure), inherited: false, stop }
    }

    /// What ends a connection that came by it, before its time.
    pub(super) fn cut<'a>(&'a self, core: &'a Core) -> &'a CancellationToken {
        self.tenure.as_ref().map_or(&core.cut, |tenure| &tenure.stop)
    }

    /// Whether its connections are to end because its address is to be another app's.
    pub(super) fn is_revoked(&self) -> bool {
        self.tenure.as_ref().is_some_and(|tenure| tenure.is_revoked())
    }

    /// From now on these networks send a PROXY header.
    pub(super) fn trust(&self, proxy_from: &[IpNet]) {
        self.trusted.store(Arc::new(networks(proxy_from)));
    }

    /// Whether a peer must send a PROXY header.
    pub(super) fn expects_header(&self, peer: SocketAddr) -> bool {
        self.trusted.load().contain(peer.ip().to_canonical())
    }
}

fn networks(proxy_from: &[IpNet]) -> Networks {
    Networks::of(proxy_from.iter().copied())
}

/// Accepts on one core's socket until the listener is stopped, and then whom the kernel has answered already: closing the socket
/// would reset them.
pub(super) async fn accept(core: Arc<Core>, listening: Arc<Listening>, listener: TcpListener) {
    // None: it was stopped before. What is queued is served in any case.
    let _ = listening.stop.run_until_cancelled(core.shared.opened.cancelled()).await;
    let listener = match Listener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            // Closed with this, so that the kernel gives its share to the other cores.
            tracing::error!(listener = &*listening.label, %error, "one core cannot accept connections");
            return;
        }
    };
    accept_until(&core, &listening, &listener, listening.stop.cancelled()).await;
    // Whoever shares the socket goes on with it.
    if !core.shared.given.load(Ordering::Acquire) && socket::take_no_more(&listener).is_ok() {
        accept_until(&core, &listening, &listener, sleep(LAST_HANDSHAKES)).await;
    }
    let inherited = listening.inherited;
    if let Ok(listener) = listener.into_std() {
        if inherited {
            // The service manager may keep it for the next start. Fails if there is no filter.
            let _ = socket::take_more(&listener);
        }
        accept_queued(&core, &listening, &listener);
    }
}

async fn accept_until(
    core: &Arc<Core>,
    listening: &Arc<Listening>,
    listener: &Listener,
    end: impl Future<Output = ()>,
) {
    let mut end = pin!(end);
    let mut trouble = Trouble::default();
    loop {
        // In this order: looking for the stop takes a lock, and while connections come Tokio's budget has it looked for all the same.
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = &mut end => return,
        };
        let pause = match accepted {
            Ok((socket, peer)) => {
                let scarce = core.shared.admission.descriptors.are_scarce(&socket);
                begin(core, listening, socket, peer);
                if !scarce {
                    trouble.over();
                    continue;
                }
                trouble.pause(&listening.label, &Errno::MFILE.into())
            }
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                core.shared.admission.descriptors.refresh();
                trouble.pause(&listening.label, &error)
            }
        };
        let _deafened = listener.deafened();
        tokio::select! {
            () = &mut end => return,
            () = sleep(pause) => {}
        }
    }
}

fn accept_queued(core: &Arc<Core>, listening: &Arc<Listening>, listener: &TcpListener) {
    while let Ok((stream, peer)) = listener.accept() {
        let socket = stream.set_nonblocking(true).and_then(|()| Socket::from_std(stream));
        if let Ok(socket) = socket {
            begin(core, listening, socket, peer);
        }
    }
}

fn begin(core: &Arc<Core>, listening: &Arc<Listening>, socket: Socket, peer: SocketAddr) {
    let settings = core.shared.live.settings();
    let open = core.shared.shutdown.connection();
    let accepted = Accepted { socket, peer, at: Instant::now(), settings, open };
    spawn(Box::pin(serve(Arc::clone(core), Arc::clone(listening), accepted)));
}

/// Errors that Linux reports from the connection that would have been accepted: the next one is another matter.
fn is_of_one_connection(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        code,
        Some(Errno::CONNABORTED | Errno::CONNRESET | Errno::PROTO | Errno::PERM | Errno::INTR)
    )
}

/// Accepts that fail one after the other.
#[derive(Debug, Default)]
struct Trouble {
    pause: Duration,
    complained: Option<Instant>,
    untold: u64,
}

impl Trouble {
    fn over(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// How long to wait before the next accept.
    fn pause(&mut self, listener: &str, error: &io::Error) -> Duration {
        self.untold += 1;
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
            self.complained = Some(Instant::now());
            let failures = mem::take(&mut self.untold);
            tracing::error!(
                listener,
                %error,
                failures,
                "cannot accept connections; callers wait or are refused. If descriptors ran out, raise the process's limit \
                 (ulimit -n, LimitNOFILE=) or lower limits.connections"
            );
        }
        self.pause = (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_over() {
        let mut trouble = Trouble::default();
        let error = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        assert!(!is_of_one_connection(&error));
        let pauses: Vec<_> = (0..8).map(|_| trouble.pause("[::]:8443", &error)).collect();
        assert_eq!(pauses[..3], [10, 20, 40].map(Duration::from_millis));
        assert_eq!(pauses[7], LONGEST_PAUSE);
        trouble.over();
        assert_eq!(trouble.pause("[::]:8443", &error), SHORTEST_PAUSE);
    }

    #[test]
    fn trouble_is_told_once_in_a_while() {
        let mut trouble = Trouble::default();
        let error = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        for _ in 0..5 {
            trouble.pause("[::]:8443", &error);
        }
        assert_eq!(trouble.untold, 4);
    }

    #[test]
    fn a_mapped_peer_is_the_ipv4_peer() {
        let address = "[::]:8444".parse().unwrap();
        let trusted = ["10.0.9.0/24".parse().unwrap()];
        let listening = Listening::new(address, &trusted, CancellationToken::new());
        assert!(listening.expects_header("[::ffff:10.0.9.1]:7".parse().unwrap()));
        listening.trust(&[]);
        assert!(!listening.expects_header("10.0.9.1:7".parse().unwrap()));
    }
}
