//! Hand-over of listening sockets from a running gateway to the one that replaces it. Names nothing else.
//!
//! Both processes hold the same sockets for a while, so that none is bound anew: closing a socket of a `SO_REUSEPORT` group would
//! reset the connections in its queue. The new one asks, gets every socket, becomes ready, says so; only then the old one stops
//! accepting. One that goes away before that leaves the old one as it was.
//!
//! The protocol is one line a message, at most `LONGEST_LINE` octets, question and answer in turn, so that descriptors never
//! come with another message than theirs:
//!
//! ```text
//! new: strait-handover 1          old: sockets <pid>            (or: refused <reason>)
//! new: next                       old: <kind> <address>  with descriptors, at most 64; an address may come again
//! new: next                       old: end
//! new: ready <pid>                old: bye                      (it accepts nothing any more)
//! ```
//!
//! Who may ask is a matter of the file's mode (0600), and both sides ask the kernel for the other's user (`SO_PEERCRED`).

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg,
};
use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

/// Raised whenever a message changes its meaning; the two versions of an upgrade may differ.
const VERSION: u32 = 1;
/// An address is an IP address with a port, or a path, of at most 108 octets (`sockaddr_un`).
const LONGEST_LINE: usize = 256;
/// Descriptors in a message; the kernel takes 253 (`SCM_MAX_FD`).
const MOST_AT_ONCE: usize = 64;
/// Messages with sockets: enough for 256 listeners on as many cores.
const MOST_MESSAGES: usize = 1024;
/// An answer of a process that lives takes less.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// From the sockets to `ready`: reading a large configuration and waiting for its sources takes a while.
const READY_TIME: Duration = Duration::from_mins(2);
/// Those who ask come one at a time.
const BACKLOG: i32 = 4;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ingress listener's, one a core.
    Ingress,
    /// The admin API's.
    Admin,
    /// That of scrapes and probes.
    Metrics,
    /// The name server's: UDP, then TCP.
    Dns,
}

/// Sockets of one listener.
#[derive(Debug)]
pub struct Passed {
    /// What they are for.
    pub kind: Kind,
    /// The address as the configuration writes it.
    pub address: String,
    /// The sockets, listening.
    pub sockets: Vec<OwnedFd>,
}

/// The gateway that is to be replaced: it has passed its sockets and waits.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    /// Its process.
    pub pid: u32,
}

/// What the gateway that is to be replaced does.
pub trait Outgoing: Send + Sync + 'static {
    /// Copies of all its listening sockets.
    fn sockets(&self) -> io::Result<Vec<Passed>>;
    /// The process `pid` accepts from now on: stops accepting.
    fn relieved(&self, pid: u32);
    /// The successor has been told so: may end.
    fn dismissed(&self);
}

/// Where a successor may ask. Dropping it ends that; the file is removed, unless a successor has put its own there.
#[derive(Debug)]
pub struct Offer {
    listener: Arc<UnixListener>,
    path: PathBuf,
    inode: u64,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Ingress, Self::Admin, Self::Metrics, Self::Dns];

    fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
            Self::Dns => "dns",
        }
    }
}

impl Predecessor {
    /// Asks the gateway that offers its sockets at `path` for them; `None` when nobody does. Blocks for a few seconds at most.
    pub fn ask(path: &Path) -> io::Result<Option<(Self, Vec<Passed>)>> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if is_nobody(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        ensure_same_user(&stream)?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        stream.set_write_timeout(Some(ANSWER_TIME))?;
        let (answer, _) = exchange(&stream, &format!("strait-handover {VERSION}"))?;
        let pid = answer.strip_prefix("sockets ").and_then(|pid| pid.parse().ok());
        let pid = pid.ok_or_else(|| unexpected(&answer))?;
        let mut passed: Vec<Passed> = Vec::new();
        for _ in 0..MOST_MESSAGES {
            let (answer, sockets) = exchange(&stream, "next")?;
            if answer == "end" {
                return Ok(Some((Self { stream, pid }, passed)));
            }
            let (kind, address) = listener(&answer).ok_or_else(|| unexpected(&answer))?;
            match passed.iter_mut().find(|known| known.kind == kind && known.address == address) {
                Some(known) => known.sockets.extend(sockets),
                None => passed.push(Passed { kind, address: address.to_owned(), sockets }),
            }
        }
        Err(io::Error::other("the running gateway passes more sockets than any has"))
    }

    /// Tells it that this process accepts now. Once this is done it accepts nothing any more.
    pub fn relieve(self) -> io::Result<()> {
        let (answer, _) = exchange(&self.stream, &format!("ready {}", process::id()))?;
        if answer == "bye" { Ok(()) } else { Err(unexpected(&answer)) }
    }
}

impl Offer {
    /// Lets successors ask at `path` from now on. A file that is there is replaced: whoever it belongs to has been relieved, or is dead.
    pub fn new(path: &Path, outgoing: impl Outgoing) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket()) {
            let message = format!("{} is there and is no socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        // Bound beside it and renamed: at no moment is there nobody to ask, nor somebody who does not answer.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", process::id()));
        let beside = PathBuf::from(beside);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        socket.bind(&SockAddr::unix(&beside)?)?;
        socket.listen(BACKLOG)?;
        fs::rename(&beside, path)?;
        let inode = fs::symlink_metadata(path)?.ino();
        let listener = Arc::new(UnixListener::from(socket));
        let accepting = Arc::clone(&listener);
        // A thread of its own: all of it blocks, and none of it is anybody else's matter until a successor is ready.
        thread::Builder::new().name("handover".to_owned()).spawn(move || {
            serve(&accepting, &outgoing);
        })?;
        Ok(Self { listener, path: path.to_owned(), inode })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        // Ends the thread's accept. Fails only if that has ended.
        let _ = rustix::net::shutdown(&*self.listener, Shutdown::Both);
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            // A file that stays refuses, which the next start takes for nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Answers one successor after the other, until one is ready or the listener is shut down.
fn serve(listener: &UnixListener, outgoing: &impl Outgoing) {
    while let Ok((stream, _)) = listener.accept() {
        match hand_over(&stream, outgoing) {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "a hand-over was given up: going on as before"),
        }
    }
}

fn hand_over(stream: &UnixStream, outgoing: &impl Outgoing) -> io::Result<()> {
    ensure_same_user(stream)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    let (asked, _) = receive(stream)?;
    if asked != format!("strait-handover {VERSION}") {
        send(stream, &format!("refused: this gateway speaks version {VERSION}"), &[])?;
        return Err(unexpected(&asked));
    }
    send(stream, &format!("sockets {}", process::id()), &[])?;
    for Passed { kind, address, sockets } in outgoing.sockets()? {
        for some in sockets.chunks(MOST_AT_ONCE) {
            expect(stream, "next")?;
            let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            send(stream, &format!("{} {address}", kind.word()), &some)?;
        }
    }
    expect(stream, "next")?;
    send(stream, "end", &[])?;
    stream.set_read_timeout(Some(READY_TIME))?;
    let (ready, _) = receive(stream)?;
    let pid = ready.strip_prefix("ready ").and_then(|pid| pid.parse().ok());
    outgoing.relieved(pid.ok_or_else(|| unexpected(&ready))?);
    // The successor accepts in any case, whether it hears this or not.
    let _ = send(stream, "bye", &[]);
    // Only now: without a connection the process ends at once, and this thread with it.
    outgoing.dismissed();
    Ok(())
}

fn exchange(stream: &UnixStream, line: &str) -> io::Result<(String, Vec<OwnedFd>)> {
    send(stream, line, &[])?;
    receive(stream)
}

fn expect(stream: &UnixStream, line: &str) -> io::Result<()> {
    let (came, _) = receive(stream)?;
    if came == line { Ok(()) } else { Err(unexpected(&came)) }
}

fn send(stream: &UnixStream, line: &str, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let line = format!("{line}\n");
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("more descriptors than a message takes"));
    }
    let sent =
        sendmsg(stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// One message. The other side waits for the answer, so that nothing follows it.
fn receive(stream: &UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut line = [0; LONGEST_LINE];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let into = &mut [IoSliceMut::new(&mut line)];
    let received = recvmsg(stream, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    let line = line.get(..received.bytes).unwrap_or_default();
    if line.is_empty() {
        let message = "the other gateway has closed the connection";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    let line = str::from_utf8(line).ok().and_then(|line| line.strip_suffix('\n'));
    Ok((line.ok_or_else(|| io::Error::other("not a line of the hand-over"))?.to_owned(), sockets))
}

fn listener(line: &str) -> Option<(Kind, &str)> {
    let (word, address) = line.split_once(' ')?;
    Kind::ALL.into_iter().find(|kind| kind.word() == word).map(|kind| (kind, address))
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn ensure_same_user(stream: &UnixStream) -> io::Result<()> {
    let user = socket_peercred(stream)?.uid;
    if user == geteuid() {
        return Ok(());
    }
    let message = format!("the other gateway runs as user {}, this one does not", user.as_raw());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

fn unexpected(line: &str) -> io::Error {
    io::Error::other(format!("the other gateway said {:?}", line.escape_debug().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    struct Old(TcpListener, SyncSender<u32>);

    impl Outgoing for Old {
        fn sockets(&self) -> io::Result<Vec<Passed>> {
            let copies = (0..100).map(|_| self.0.try_clone().map(OwnedFd::from));
            let sockets = copies.collect::<io::Result<_>>()?;
            Ok(vec![Passed { kind: Kind::Ingress, address: "[::]:8443".to_owned(), sockets }])
        }

        fn relieved(&self, pid: u32) {
            self.1.send(pid).unwrap();
        }

        fn dismissed(&self) {}
    }

    fn old(path: &Path) -> (Offer, Receiver<u32>) {
        let (relieved, news) = sync_channel(1);
        (Offer::new(path, Old(TcpListener::bind("127.0.0.1:0").unwrap(), relieved)).unwrap(), news)
    }

    #[test]
    fn sockets_are_passed_and_the_old_one_is_relieved_when_the_new_one_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        assert!(Predecessor::ask(&path).unwrap().is_none());
        let (offer, news) = old(&path);
        let (predecessor, passed) = Predecessor::ask(&path).unwrap().unwrap();
        assert_eq!(predecessor.pid, process::id());
        assert_eq!((passed.len(), passed[0].sockets.len()), (1, 100), "in two messages");
        assert_eq!((passed[0].kind, &*passed[0].address), (Kind::Ingress, "[::]:8443"));
        let listener = TcpListener::from(passed[0].sockets[0].try_clone().unwrap());
        drop(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        listener.accept().unwrap();
        assert!(news.try_recv().is_err());
        predecessor.relieve().unwrap();
        assert_eq!(news.recv().unwrap(), process::id());
        let (_next, _) = old(&path);
        drop(offer);
        assert!(path.exists(), "the successor's");
    }

    #[test]
    fn a_successor_that_goes_away_leaves_the_old_one_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let (offer, news) = old(&path);
        drop(Predecessor::ask(&path).unwrap().unwrap());
        assert!(news.try_recv().is_err());
        // It can be asked again, by one of the next version too.
        let stream = UnixStream::connect(&path).unwrap();
        let (answer, _) = exchange(&stream, "strait-handover 2").unwrap();
        assert!(answer.contains("speaks version 1"), "{answer}");
        Predecessor::ask(&path).unwrap().unwrap().0.relieve().unwrap();
        assert_eq!(news.recv().unwrap(), process::id());
        drop(offer);
        assert!(!path.exists());
        assert!(Predecessor::ask(&path).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (near, far) = UnixStream::pair().unwrap();
        io::Write::write_all(&mut &far, &[b'a'; 2 * LONGEST_LINE]).unwrap();
        assert!(receive(&near).is_err());
        drop(far);
        assert_eq!(listener("udp 127.0.0.1:1"), None);
        assert_eq!(listener("admin unix:/run/a b.sock"), Some((Kind::Admin, "unix:/run/a b.sock")));
    }
}
