//! Who owns a connection that comes from this machine, as the kernel tells it: the user of the process that dialled.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// The user id of the socket at the other end of a connection of this machine; `None` if there is none, or not any more.
///
/// Asked for by both ends, of the kernel's socket diagnosis (`sock_diag(7)`): one look-up in a hash, and no privilege is needed.
/// `/proc/net/tcp` tells the same for the price of reading all connections.
#[cfg(target_os = "linux")]
pub fn user_of(peer: SocketAddr, local: SocketAddr) -> io::Result<Option<u32>> {
    use rustix::io::Errno;
    use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
    use rustix::net::{recv, sendto, socket_with};

    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(SOCK_DIAG),
    )?;
    let question = question(peer, local);
    sendto(&socket, &question, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = [0; ANSWER];
    // The kernel answers within the call that asks.
    let answer = match recv(&socket, &mut buffer, RecvFlags::empty()) {
        Ok((read, _)) => buffer.get(..read).unwrap_or_default(),
        Err(Errno::WOULDBLOCK) => &[],
        Err(error) => return Err(error.into()),
    };
    read_answer(answer)
}

/// The user id of the socket at the other end: unknown on this system.
#[cfg(not(target_os = "linux"))]
pub fn user_of(_: SocketAddr, _: SocketAddr) -> io::Result<Option<u32>> {
    Err(io::ErrorKind::Unsupported.into())
}

// linux/sock_diag.h, linux/inet_diag.h, linux/netlink.h, linux/socket.h, linux/in.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// `INET_DIAG_NOCOOKIE`, twice: whichever socket has these ends.
const ANY_COOKIE: [u8; 8] = [0xff; 8];
const ENOENT: i32 = 2;

/// `nlmsghdr` and `inet_diag_req_v2`.
const QUESTION: usize = 16 + 56;
/// Where `idiag_uid` stands: behind `nlmsghdr`, four octets, `inet_diag_sockid`, `idiag_expires`, and two queues' lengths.
const UID_AT: usize = 16 + 4 + 48 + 4 + 4 + 4;
/// Enough for `nlmsghdr` and `inet_diag_msg`; attributes, which nobody asked for, may be cut off.
const ANSWER: usize = 512;

/// Asks for the socket whose own end is `peer`.
fn question(peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    // A caller with a mapped address is found as IPv4 in either spelling, and an IPv4 socket only so.
    let (source, destination) = (peer.ip().to_canonical(), local.ip().to_canonical());
    let family = if source.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut message = Vec::with_capacity(QUESTION);
    message.extend(u32::try_from(QUESTION).unwrap_or_default().to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port: there is one question, and the kernel knows where it came from.
    message.extend([0; 8]);
    // No attributes; sockets in every state.
    message.extend([family, IPPROTO_TCP, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(peer.port().to_be_bytes());
    message.extend(local.port().to_be_bytes());
    message.extend(sixteen(source));
    message.extend(sixteen(destination));
    // Any interface.
    message.extend([0; 4]);
    message.extend(ANY_COOKIE);
    message
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The user id in an answer.
fn read_answer(answer: &[u8]) -> io::Result<Option<u32>> {
    let four = |at: usize| answer.get(at..at + 4).and_then(|four| four.try_into().ok());
    let kind = answer.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes);
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "no answer of sock_diag");
    match kind {
        Some(SOCK_DIAG_BY_FAMILY) => {
            four(UID_AT).map(|uid| Some(u32::from_ne_bytes(uid))).ok_or_else(strange)
        }
        Some(NLMSG_ERROR) => match four(16).map(i32::from_ne_bytes) {
            Some(code) if code == -ENOENT => Ok(None),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(strange()),
        },
        Some(_) | None => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, length: usize) -> Vec<u8> {
        let mut answer = vec![0; length];
        answer[4..6].copy_from_slice(&kind.to_ne_bytes());
        answer
    }

    #[test]
    fn a_question_names_both_ends_from_the_other_side() {
        let asked = question(
            "[::ffff:127.0.0.1]:40000".parse().unwrap(),
            "127.0.0.1:20001".parse().unwrap(),
        );
        assert_eq!(asked.len(), QUESTION);
        assert_eq!(asked[..4], 72_u32.to_ne_bytes());
        assert_eq!(asked[16..18], [AF_INET, IPPROTO_TCP]);
        assert_eq!(asked[24..28], [0x9c, 0x40, 0x4e, 0x21]);
        assert_eq!(asked[28..32], [127, 0, 0, 1]);
        assert_eq!(asked[44..48], [127, 0, 0, 1]);
        assert_eq!(asked[64..], ANY_COOKIE);
        let asked = question("[::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
        assert_eq!((asked[16], asked[43]), (AF_INET6, 1));
    }

    #[test]
    fn an_answer_is_a_user_or_nobody_or_an_error() {
        let mut found = answer(SOCK_DIAG_BY_FAMILY, 88);
        found[80..84].copy_from_slice(&1234_u32.to_ne_bytes());
        assert_eq!(read_answer(&found).unwrap(), Some(1234));
        let mut none = answer(NLMSG_ERROR, 36);
        none[16..20].copy_from_slice(&(-ENOENT).to_ne_bytes());
        assert_eq!(read_answer(&none).unwrap(), None);
        none[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(read_answer(&none).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        for short in [&[][..], &found[..83], &answer(3, 88), &none[..18]] {
            assert_eq!(read_answer(short).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_knows_who_dialled() {
        use std::net::{TcpListener, TcpStream};

        let own = rustix::process::getuid().as_raw();
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue; // A machine without IPv6.
            };
            let port = listener.local_addr().unwrap().port();
            let host = if address == "[::1]:0" { "::1" } else { "127.0.0.1" };
            let client = TcpStream::connect((host, port)).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            let local = accepted.local_addr().unwrap();
            assert_eq!(user_of(peer, local).unwrap(), Some(own), "{address}");
            let nobody = SocketAddr::new(peer.ip(), 1);
            assert_eq!(user_of(nobody, local).unwrap(), None, "{address}");
            drop(client);
        }
    }
}
