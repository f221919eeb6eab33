//! Many sockets in one thread: epoll, level-triggered, as plain as it can be.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

pub(super) use rustix::event::epoll::EventFlags;

pub(super) struct Poller {
    set: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { set, events: Vec::with_capacity(256) })
    }

    pub(super) fn add(&self, socket: impl AsFd, key: usize, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.set, socket, epoll::EventData::new_u64(key as u64), flags)?)
    }

    pub(super) fn change(
        &self,
        socket: impl AsFd,
        key: usize,
        flags: EventFlags,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.set, socket, epoll::EventData::new_u64(key as u64), flags)?)
    }

    /// The keys of what is ready, perhaps none; after this time at the latest.
    pub(super) fn wait(
        &mut self,
        at_most: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = usize> + use<>> {
        let at_most = at_most.map(|at_most| Timespec::try_from(at_most).unwrap());
        self.events.clear();
        match epoll::wait(&self.set, spare_capacity(&mut self.events), at_most.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let key = |event: &epoll::Event| usize::try_from(event.data.u64()).unwrap();
        let keys: Vec<_> = self.events.iter().map(key).collect();
        Ok(keys.into_iter())
    }
}
