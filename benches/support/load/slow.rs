//! Clients that let their hello drip: an octet every 100 ms.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::backend::tried;
use super::{Way, hello};

const PACE: Duration = Duration::from_millis(100);

/// They drip until this is dropped or stopped.
pub(crate) struct Drippers {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

struct Dripper {
    stream: TcpStream,
    hello: Vec<u8>,
    sent: usize,
}

impl Drippers {
    pub(crate) fn start(way: Way<'_>, count: usize) -> io::Result<Self> {
        let mut drippers = Vec::new();
        for number in 0..count {
            let stream = TcpStream::connect(way.address(number))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            drippers.push(Dripper { stream, hello: hello::next(number), sent: 0 });
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stopped);
        let drip = move || {
            while !until.load(Ordering::Acquire) {
                let began = Instant::now();
                drippers.iter_mut().try_for_each(Dripper::drip)?;
                thread::sleep(PACE.saturating_sub(began.elapsed()));
            }
            Ok(())
        };
        Ok(Self { stopped, thread: Some(thread::spawn(drip)) })
    }

    /// Fails when one of them was sent away before it could finish.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        self.stopped.store(true, Ordering::Release);
        let thread = self.thread.take().map(JoinHandle::join);
        thread.and_then(Result::ok).unwrap_or_else(|| Err(io::Error::other("the drippers died")))
    }
}

impl Drop for Drippers {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
    }
}

impl Dripper {
    fn drip(&mut self) -> io::Result<()> {
        // At this pace no hello is whole before some minutes: a gateway that answers has given up.
        if tried(self.stream.read(&mut [0]))?.is_some() {
            return Err(io::Error::other("a slow client was answered before its hello was whole"));
        }
        let next = self.hello.get(self.sent..=self.sent).unwrap_or_default();
        self.sent += tried(self.stream.write(next))?.unwrap_or_default();
        Ok(())
    }
}
