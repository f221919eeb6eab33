//! Where questions come in: one address, UDP and TCP.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use crate::socket;

/// Port 0 takes one that is free for UDP; TCP's of the same number may be taken.
const ATTEMPTS: usize = 16;

/// Bound sockets of one address.
#[derive(Debug)]
pub struct Listener {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    address: SocketAddr,
}

/// Copies of the two sockets, for another process.
#[derive(Debug)]
pub struct Copies {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listener {
    /// Binds both; port 0 takes a free one.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match Self::bind_once(address) {
                Err(error) if attempts > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                outcome => return outcome,
            }
        }
    }

    fn bind_once(address: SocketAddr) -> io::Result<Self> {
        let udp = socket::datagrams(address)?;
        let address = udp.local_addr()?;
        socket::ensure_free(address)?;
        Ok(Self { tcp: socket::listen(address)?, udp, address })
    }

    /// Takes over the sockets of another process, UDP's first.
    pub fn inherited(sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let Ok([udp, tcp]) = <[OwnedFd; 2]>::try_from(sockets) else {
            return Err(io::Error::other("a name server has two sockets"));
        };
        let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
        udp.set_nonblocking(true)?;
        socket::adopt(&tcp)?;
        Ok(Self { address: udp.local_addr()?, udp, tcp })
    }

    /// The address as bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Copies for another process. As long as they live, questions are taken in.
    pub fn copies(&self) -> io::Result<Copies> {
        Ok(Copies { udp: self.udp.try_clone()?, tcp: self.tcp.try_clone()? })
    }
}

impl Copies {
    /// Descriptors to be passed on, as [`Listener::inherited`] takes them.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(vec![self.udp.try_clone()?.into(), self.tcp.try_clone()?.into()])
    }
}
