//! Listening sockets that another process has made, until listeners have taken theirs.

use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::socket;

/// Sockets, each with the address that it is for, as the configuration writes it.
#[derive(Debug, Default)]
pub(super) struct Inherited(Mutex<Vec<(SocketAddr, TcpListener)>>);

impl Inherited {
    pub(super) fn add(&self, sockets: Vec<(SocketAddr, TcpListener)>) {
        self.sockets().extend(sockets);
    }

    /// Takes the sockets of one listener, however many there are: what waits in the queue of one that is not accepted from would
    /// wait forever.
    pub(super) fn take(&self, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
        let mut sockets = self.sockets();
        let Some((_, first)) = sockets.iter().find(|(of, _)| *of == address) else {
            return Ok(Vec::new());
        };
        // Two listeners may be written alike where the port is any free one.
        let bound = first.local_addr()?;
        let is_of_it = |(of, socket): &mut (SocketAddr, TcpListener)| {
            *of == address && socket.local_addr().is_ok_and(|at| at == bound)
        };
        let adopt = |(_, socket)| socket::adopt(&socket).map(|()| socket);
        sockets.extract_if(.., is_of_it).map(adopt).collect()
    }

    /// Closes what nobody has taken; its addresses.
    pub(super) fn forget(&self) -> Vec<SocketAddr> {
        let rest = mem::take(&mut *self.sockets());
        let mut addresses: Vec<_> = rest.into_iter().map(|(address, _)| address).collect();
        addresses.dedup();
        addresses
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<(SocketAddr, TcpListener)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_gets_its_own_sockets_and_all_of_them() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (one, other) = (socket::listen(any).unwrap(), socket::listen(any).unwrap());
        let bound = [&one, &other].map(|socket| socket.local_addr().unwrap());
        let beside = socket::listen(bound[0]).unwrap();
        let inherited = Inherited::default();
        inherited.add(vec![(any, one), (any, other), (any, beside)]);
        assert!(inherited.take(bound[0]).unwrap().is_empty(), "written otherwise");
        let taken = inherited.take(any).unwrap();
        assert_eq!(taken.len(), 2);
        assert!(taken.iter().all(|socket| socket.local_addr().unwrap() == bound[0]));
        assert_eq!(inherited.take(any).unwrap()[0].local_addr().unwrap(), bound[1]);
        assert!(inherited.forget().is_empty());
    }
}
