//! Callers that open one connection after the other, and what they saw.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::common::app;
use super::common::wait_until;
use super::{ORDERS, World};

/// At a time.
const CALLERS: usize = 4;
/// Between two calls of a caller: the gateways are to be loaded, not the machine.
const PAUSE: Duration = Duration::from_millis(5);

/// A call on a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    /// Who answered, or what the caller heard instead.
    pub(crate) answer: Result<String, String>,
}

/// Callers at work.
pub(crate) struct Callers {
    calls: Arc<Mutex<Vec<Call>>>,
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<()>>,
}

impl Callers {
    pub(crate) fn start(world: &World) -> Self {
        let (calls, stop) = (Arc::default(), Arc::default());
        let mut callers = Self { calls, stop, running: Vec::new() };
        // By name and by the app's own address, in turn.
        let ways: [SocketAddr; 2] = [world.west.ingress(), world.egress];
        for gateway in ways.into_iter().cycle().take(CALLERS) {
            let (calls, stop) = (Arc::clone(&callers.calls), Arc::clone(&callers.stop));
            let tls = Arc::clone(&world.tls);
            callers.running.push(thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let began = Instant::now();
                    let answer = app::call(gateway, ORDERS, &tls);
                    calls.lock().unwrap().push(Call { began, took: began.elapsed(), answer });
                    thread::sleep(PAUSE);
                }
            }));
        }
        callers
    }

    /// Waits for so many calls that this cluster answered and that began after a moment.
    pub(crate) fn wait_for(&self, cluster: &str, since: Instant, calls: usize) {
        wait_until(&format!("{cluster} answers"), || {
            let all = self.calls.lock().unwrap();
            let of = |call: &&Call| call.began >= since && call.answer.as_deref() == Ok(cluster);
            all.iter().filter(of).count() >= calls
        });
    }

    /// Ends them; what they saw.
    pub(crate) fn stop(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Release);
        self.running.into_iter().for_each(|caller| caller.join().unwrap());
        Arc::try_unwrap(self.calls).unwrap().into_inner().unwrap()
    }
}
