//! Socket options: what listeners and connections are set to before any byte goes through them. Names nothing else.

pub mod owner;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that the kernel keeps for us until we accept them. Linux caps it at `net.core.somaxconn`, 4,096 by default
/// since 5.4: asking for more changes nothing on most machines.
const BACKLOG: i32 = 4096;

/// A silent far end is probed after this. Cloud load balancers and firewalls forget a silent flow after 350 s (AWS) or 240 s
/// (Azure); Dapr's own pings come every 10 s, so that the probes cost only idle plain connections anything.
const KEEPALIVE_TIME: Duration = Duration::from_mins(1);
/// Between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Probes without an answer until the connection is given up: a dead peer is found within 90 s.
const KEEPALIVE_PROBES: u32 = 3;

/// Binds a listening socket that others of this process may share the address with, one for each core: the kernel spreads
/// connections over them. `[::]` takes IPv4 too.
///
/// Accepted sockets inherit what is set here (no delay, keepalive), which saves five system calls for each.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, true)?;
    socket.set_tcp_nodelay(true)?;
    keep_alive(&socket)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds a socket for datagrams, non-blocking. `[::]` takes IPv4 too.
pub fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Has a listening socket take no new connections, while handshakes that have begun can end: their SYN is dropped, so that its
/// sender tries again in a second (RFC 6298 §2.1), when the socket is closed or another process accepts from it.
///
/// Closing it at once would reset whoever has been answered and is not in the queue yet, for a round trip's time. Of all the sockets of an
/// address none is left that the kernel could move these to (`net.ipv4.tcp_migrate_req`, off by default, does that within a group).
/// `listen(2)` with a backlog of 0 still takes one connection, and `shutdown(2)` resets the queue.
pub fn take_no_more(listener: &impl AsFd) -> io::Result<()> {
    // Offset 13 of the TCP header, with which a segment begins here, has the flags (RFC 9293 §3.1).
    let [flags, syn_and_ack, syn] = [13, 0x12, 0x02];
    let instruction = |code, if_true, if_false, operand| {
        socket2::SockFilter::new(code, if_true, if_false, operand)
    };
    // Opcodes of the classic BPF (linux/bpf_common.h): LD|B|ABS, ALU|AND|K, JMP|JEQ|K, RET|K.
    SockRef::from(listener).attach_filter(&[
        instruction(0x30, 0, 0, flags),
        instruction(0x54, 0, 0, syn_and_ack),
        instruction(0x15, 0, 1, syn),
        instruction(0x06, 0, 0, 0),
        instruction(0x06, 0, 0, u32::MAX),
    ])
}

/// Takes back [`take_no_more`].
pub fn take_more(listener: &impl AsFd) -> io::Result<()> {
    SockRef::from(listener).detach_filter()
}

/// Takes a listening socket that another process has made: sets what [`listen`] would have set.
pub fn adopt(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    keep_alive(listener)
}

/// Fails when a socket listens at the address already. `SO_REUSEPORT` would let two gateways of one user share it silently,
/// each with half of the connections.
pub fn ensure_free(address: SocketAddr) -> io::Result<()> {
    // Binding is enough: with SO_REUSEADDR it fails beside a socket that listens, and only beside one.
    bound(address, false).map(drop)
}

/// A connect.
#[derive(Debug)]
pub enum Connect {
    /// Its outcome is known once the socket is writable.
    Begun(TcpStream),
    /// It is connected, and so many octets of what was to go first have been sent.
    Done(TcpStream, usize),
}

/// Begins to connect, non-blocking and without delay; [`keep_alive`] is for who keeps the connection. `first` is sent if it is
/// connected at once.
pub fn connect(address: SocketAddr, first: &[u8]) -> io::Result<Connect> {
    // Said when it is made: setting it afterwards takes two system calls more.
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // RPCs are small and come one by one: waiting to fill a segment only adds delay.
    socket.set_tcp_nodelay(true)?;
    speak_first(&socket)?;
    match socket.connect(&address.into()) {
        Err(error) if !in_progress(&error) => Err(error),
        // Linux calls it in progress also when the other end is on this machine and has answered within the call. To try costs
        // less than to wait for an event that has come already.
        Ok(()) | Err(_) if first.is_empty() => match socket.peer_addr() {
            Ok(_) => Ok(Connect::Done(socket.into(), 0)),
            Err(_) => Ok(Connect::Begun(socket.into())),
        },
        Ok(()) | Err(_) => match socket.send(first) {
            Ok(sent) => Ok(Connect::Done(socket.into(), sent)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(Connect::Begun(socket.into()))
            }
            Err(error) => Err(error),
        },
    }
}

/// Lets the first bytes carry the acknowledgement that ends the handshake. A hello waits to be sent, so that a packet of its own
/// would only cost both ends; when nothing is sent, it goes after a delayed acknowledgement's 40 ms.
#[cfg(target_os = "linux")]
fn speak_first(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_quickack(false)
}

#[cfg(not(target_os = "linux"))]
fn speak_first(_: &Socket) -> io::Result<()> {
    Ok(())
}

/// Has a silent far end probed. It counts from the last sign of it, not from this call.
pub fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// Whether a connect failed for want of something on this side, which says nothing about the other: descriptors, memory, source
/// ports (`EADDRNOTAVAIL`; also a host without an address of the family says that).
pub fn is_own_shortage(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        code,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL)
    )
}

/// Whether an address belongs to this host: only then can a socket be bound to it. Reading the interfaces' addresses would
/// miss the rest of 127.0.0.0/8 and routes of type local.
pub fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Makes closing the socket send a RST instead of a FIN, and forget what is not sent yet.
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Said outright: net.ipv6.bindv6only may be set.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn in_progress(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    code == Some(Errno::INPROGRESS) || error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn two_sockets_share_a_port_and_a_stranger_is_noticed() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        assert!(listen(address).is_ok());
        assert_eq!(ensure_free(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(ensure_free(address).is_ok());
    }

    #[test]
    fn a_socket_that_takes_no_more_takes_more_when_told_so() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(100));
        connect().unwrap();
        take_no_more(&listener).unwrap();
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::TimedOut);
        take_more(&listener).unwrap();
        // As long as any machine needs: a SYN that was dropped is sent again.
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn an_unspecified_ipv6_address_takes_ipv4_too() {
        let Ok(listener) = listen("[::]:0".parse().unwrap()) else {
            return; // A machine without IPv6.
        };
        let port = listener.local_addr().unwrap().port();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
    }

    #[test]
    fn want_of_descriptors_says_nothing_about_the_other_side() {
        assert!(is_own_shortage(&io::Error::from_raw_os_error(Errno::MFILE.raw_os_error())));
        assert!(!is_own_shortage(&io::Error::from_raw_os_error(Errno::CONNREFUSED.raw_os_error())));
    }

    #[test]
    fn dialled_sockets_have_the_options_too() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (Connect::Begun(dialled) | Connect::Done(dialled, _)) =
            connect(listener.local_addr().unwrap(), b"").unwrap();
        keep_alive(&dialled).unwrap();
        assert!(dialled.nodelay().unwrap());
        let dialled = SockRef::from(&dialled);
        assert!(dialled.keepalive().unwrap());
        assert_eq!(dialled.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
    }

    #[test]
    fn what_goes_first_is_sent_with_the_connect_where_that_is_done_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let Connect::Done(_dialled, sent) =
            connect(listener.local_addr().unwrap(), b"hello").unwrap()
        else {
            return; // A system whose loopback answers later.
        };
        let mut came = vec![0; sent];
        listener.accept().unwrap().0.read_exact(&mut came).unwrap();
        assert_eq!(came, b"hello"[..sent]);
        drop(listener);
    }

    #[test]
    fn a_close_can_be_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        reset_on_close(&accepted).unwrap();
        drop(accepted);
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn loopback_is_local_and_documentation_is_not() {
        assert!(is_local([127, 0, 0, 1].into()));
        assert!(is_local([127, 1, 2, 3].into()));
        assert!(!is_local([192, 0, 2, 1].into()));
    }
}
