//! Long work beside the connections: on a thread of its own, which gives way to the threads that serve them.

use std::panic::resume_unwind;
use std::thread;

use tokio::task::{JoinError, spawn_blocking};

/// How far the thread gives way: beside one that is always busy it has a quarter of a core (`sched(7)`: a tenth less for each
/// step). At 10 it has a tenth, and on a machine without rest a change of a million routes took 3 to 12 seconds.
const NICE: i32 = 5;

/// Whether anybody is served meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Nobody is: the sooner the better.
    Start,
    /// What is served goes first.
    Change,
}

/// Does some work; an error is its panic.
pub async fn run<T: Send + 'static>(
    urgency: Urgency,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match urgency {
        Urgency::Start => spawn_blocking(work).await,
        Urgency::Change => spawn_blocking(|| giving_way(work)).await,
    }
}

/// The pool's thread only waits: it will do other work later, and what gave way once may never take its place back
/// (`setpriority(2)`: that needs a privilege).
fn giving_way<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new().name("background".to_owned()).spawn(|| {
        // Without it the work is done all the same.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::setpriority_process(None, NICE);
        work()
    });
    match thread.map(thread::JoinHandle::join) {
        Ok(done) => done.unwrap_or_else(|panic| resume_unwind(panic)),
        // No thread to have: as if the work had failed.
        Err(error) => resume_unwind(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;

    #[tokio::test]
    async fn a_change_gives_way_and_leaves_every_other_thread_alone() {
        let now = || getpriority_process(None).unwrap();
        let before = now();
        assert_eq!(run(Urgency::Start, now).await.unwrap(), before);
        let during = run(Urgency::Change, now).await.unwrap();
        assert_eq!(during, if cfg!(target_os = "linux") { NICE.max(before) } else { before });
        assert_eq!(spawn_blocking(now).await.unwrap(), before);
        assert_eq!(now(), before);
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        for urgency in [Urgency::Start, Urgency::Change] {
            let work = run(urgency, || panic!("the test asked for it"));
            assert!(work.await.unwrap_err().is_panic());
        }
    }
}
