//! Where the admin API listens: a TCP address, or a Unix socket that only its owner and group may use.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::socket;

/// Owner and group: who may use the socket is then a matter of the process's group, without root.
const SOCKET_MODE: u32 = 0o660;
/// Connections that wait to be accepted; probes come one at a time.
const BACKLOG: i32 = 128;

/// A bound listener. A socket file is removed when this is dropped.
#[derive(Debug)]
pub struct AdminListener(pub(super) Bound);

#[derive(Debug)]
pub(super) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Removes the file when it is dropped, if it is still the one that was bound.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
    /// Another process listens on it from now on.
    given: Arc<AtomicBool>,
}

/// A copy of a listener's socket, for another process.
#[derive(Debug)]
pub struct Copy {
    socket: OwnedFd,
    given: Arc<AtomicBool>,
}

impl AdminListener {
    /// Listens on an address; port 0 takes a free one. An address that overlaps with one of those that are `leaving`, such as all
    /// addresses instead of one, is bound beside it; beside a stranger's it is not.
    pub fn tcp(address: SocketAddr, leaving: &[SocketAddr]) -> io::Result<Self> {
        if leaving.iter().all(|old| old.port() != address.port()) {
            socket::ensure_free(address)?;
        }
        Ok(Self(Bound::Tcp(socket::listen(address)?)))
    }

    /// Listens on a socket file. One that a dead process has left is replaced, one that somebody listens on is not.
    pub fn unix(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Before it has a name, so that nobody else can connect meanwhile (Linux gives the file the socket's own mode) ...
        fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE))?;
        socket.bind(&SockAddr::unix(path)?)?;
        // ... and after, because the umask has taken bits away, and for other systems.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self(Bound::Unix(UnixListener::from(socket), SocketFile::at(path)?)))
    }

    /// Takes over the socket of another process that listens on an address.
    pub fn inherited_tcp(socket: OwnedFd) -> io::Result<Self> {
        let listener = TcpListener::from(socket);
        socket::adopt(&listener)?;
        Ok(Self(Bound::Tcp(listener)))
    }

    /// Takes over the socket of another process that listens on a file, and the file.
    pub fn inherited_unix(socket: OwnedFd, path: &Path) -> io::Result<Self> {
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self(Bound::Unix(listener, SocketFile::at(path)?)))
    }

    /// A copy for another process. As long as it lives, the socket listens.
    pub fn copy(&self) -> io::Result<Copy> {
        match &self.0 {
            Bound::Tcp(listener) => {
                Ok(Copy { socket: listener.try_clone()?.into(), given: Arc::default() })
            }
            Bound::Unix(listener, file) => {
                Ok(Copy { socket: listener.try_clone()?.into(), given: Arc::clone(&file.given) })
            }
        }
    }

    /// The TCP address as bound.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            Bound::Unix(..) => None,
        }
    }

    /// Whether only this machine can reach it by an IP address.
    pub(super) fn is_loopback(&self) -> bool {
        self.address().is_some_and(|address| address.ip().to_canonical().is_loopback())
    }

    /// Whether only this machine can reach it at all.
    pub(super) fn is_near(&self) -> bool {
        match &self.0 {
            Bound::Tcp(_) => self.is_loopback(),
            Bound::Unix(..) => true,
        }
    }
}

impl Copy {
    /// A descriptor to be passed on.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// The other process serves now: the socket file, if there is one, is its.
    pub fn given(&self) {
        self.given.store(true, Ordering::Release);
    }
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let inode = fs::symlink_metadata(path)?.ino();
        Ok(Self { path: path.to_owned(), inode, given: Arc::default() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.given.load(Ordering::Acquire) {
            return;
        }
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            // Nothing can be done about a file that stays: the next start finds it stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        let message = format!("{} is there and is no socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            let message = format!("another process listens on {}", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        let listener = AdminListener::unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_in_use_and_another_file_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let _first = AdminListener::unix(&path).unwrap();
        let error = AdminListener::unix(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("another process listens"), "{error}");
        let file = folder.path().join("notes.txt");
        fs::write(&file, "keep me").unwrap();
        assert!(AdminListener::unix(&file).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read(&file).unwrap(), b"keep me");
    }

    #[test]
    fn the_socket_of_a_successor_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = AdminListener::unix(&path).unwrap();
        fs::rename(&path, folder.path().join("moved.sock")).unwrap();
        let _second = AdminListener::unix(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }
}
