//! Stopping: what to stop first, and how to wait for the rest. Names nothing else.
//!
//! Two steps. First nothing new is accepted and what lives may finish; then what still lives is closed. Who waits how long
//! between them is the caller's matter.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::{TaskTrackerToken, TrackedFuture};

/// The two steps and what they wait for. Clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    accepting: CancellationToken,
    serving: CancellationToken,
    acceptors: TaskTracker,
    connections: TaskTracker,
}

impl Shutdown {
    /// Nothing is stopped.
    pub fn new() -> Self {
        Self::default()
    }

    /// First step: nothing new comes in.
    pub fn stop_accepting(&self) {
        self.accepting.cancel();
        self.acceptors.close();
        self.connections.close();
    }

    /// Second step: what still lives is closed. Includes the first.
    pub fn cut(&self) {
        self.stop_accepting();
        self.serving.cancel();
    }

    /// Cancelled at the first step. A child: cancelling it stops only its holder.
    pub fn accepting(&self) -> CancellationToken {
        self.accepting.child_token()
    }

    /// Cancelled at the second step. A child, so that a core's many waiters queue at a lock of their own.
    pub fn serving(&self) -> CancellationToken {
        self.serving.child_token()
    }

    /// An accept loop: it may bring connections until it has ended.
    pub fn acceptor<F: Future>(&self, accept: F) -> TrackedFuture<F> {
        self.acceptors.track_future(accept)
    }

    /// A connection: open until this is dropped.
    pub fn connection(&self) -> TaskTrackerToken {
        self.connections.token()
    }

    /// Connections that have not ended.
    pub fn open_connections(&self) -> usize {
        self.connections.len()
    }

    /// Waits for the first step, and then for the last connection's end.
    pub async fn drained(&self) {
        // In this order: an acceptor that ends brings what its queue held.
        self.acceptors.wait().await;
        self.connections.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Poll;

    fn is_ready(future: std::pin::Pin<&mut impl Future>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        matches!(future.poll(&mut context), Poll::Ready(_))
    }

    #[test]
    fn drained_waits_for_acceptors_and_connections() {
        let shutdown = Shutdown::new();
        let mut drained = pin!(shutdown.drained());
        let acceptor = shutdown.acceptor(std::future::pending::<()>());
        assert!(!is_ready(drained.as_mut()), "nobody has stopped anything");
        shutdown.stop_accepting();
        assert!(!is_ready(drained.as_mut()), "an acceptor lives");
        let connection = shutdown.connection();
        drop(acceptor);
        assert_eq!(shutdown.open_connections(), 1);
        assert!(!is_ready(drained.as_mut()), "a connection lives");
        drop(connection);
        assert!(is_ready(drained.as_mut()));
    }

    #[test]
    fn the_first_step_leaves_connections_alone() {
        let shutdown = Shutdown::new();
        let (accepting, serving) = (shutdown.accepting(), shutdown.serving());
        shutdown.stop_accepting();
        assert!(accepting.is_cancelled() && !serving.is_cancelled());
        shutdown.cut();
        assert!(serving.is_cancelled());
    }
}
