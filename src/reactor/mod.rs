//! Data sockets: the one type through which connections' bytes go. Names nothing else of the crate.
//!
//! What is above sees readiness, reads and writes, never what waits for readiness. That is an epoll set of the core's own
//! where the thread runs a [`Reactor`], and Tokio's elsewhere: on other systems than Linux, and wherever a socket is made without
//! a core. The same holds for the tasks that use them. No socket option is set here: `socket` does that, through [`AsFd`].

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::runtime::Handle;

mod drive;
mod driver;
mod own;
mod set;
mod tasks;

pub use drive::{Reactor, Turn};
pub use driver::Driver;
use own::Source;
pub use own::Watched;
use set::Ready;
pub use set::Token;
use tasks::Mail;
pub use tasks::Task;

/// A TCP socket on a core's runtime.
#[derive(Debug)]
pub struct Socket(Form<Source<TcpStream>, tokio::net::TcpStream>);

/// A listening socket on a core's runtime.
#[derive(Debug)]
pub struct Listener(Form<Source<TcpListener>, tokio::net::TcpListener>);

/// A listener that is told of nothing.
#[derive(Debug)]
pub struct Deafened<'a>(&'a Listener);

/// What waits for readiness.
#[derive(Debug)]
enum Form<O, T> {
    /// The core's own set.
    Own(O),
    /// The portable form.
    Tokio(T),
}

/// Brings tasks to a core from any thread.
#[derive(Debug)]
pub struct Spawner(Form<Arc<Mail>, Handle>);

/// Runs a task on this thread's core.
pub fn spawn(task: Task) {
    if let Err(task) = tasks::spawn(task) {
        tokio::spawn(task);
    }
}

impl Spawner {
    fn own(mail: Arc<Mail>) -> Self {
        Self(Form::Own(mail))
    }

    /// Of a core whose thread runs a Tokio runtime.
    pub fn portable(runtime: Handle) -> Self {
        Self(Form::Tokio(runtime))
    }

    /// Runs a task on the core; drops it when that has ended.
    pub fn spawn(&self, task: Task) {
        match &self.0 {
            Form::Own(mail) => mail.spawn(task),
            Form::Tokio(runtime) => drop(runtime.spawn(task)),
        }
    }
}

impl Listener {
    /// Takes over a non-blocking listening socket, for this thread.
    pub fn from_std(listener: TcpListener) -> io::Result<Self> {
        Ok(Self(if set::is_entered() {
            Form::Own(Source::listening(listener)?)
        } else {
            Form::Tokio(tokio::net::TcpListener::from_std(listener)?)
        }))
    }

    /// The next connection with its far end. Nothing is lost when the wait is given up.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match &self.0 {
            Form::Own(listener) => {
                let accepted = |context: &mut Context<'_>| {
                    listener.poll_io(context, Ready::READ, Source::try_accept)
                };
                let (stream, peer) = poll_fn(accepted).await?;
                Ok((Socket(Form::Own(stream)), peer))
            }
            Form::Tokio(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket(Form::Tokio(stream)), peer))
            }
        }
    }

    /// While this is held nothing is told of connections that wait: for who cannot accept them now.
    pub fn deafened(&self) -> Deafened<'_> {
        if let Form::Own(listener) = &self.0 {
            listener.hears(false);
        }
        Deafened(self)
    }

    /// The socket without its registration.
    pub fn into_std(self) -> io::Result<TcpListener> {
        match self.0 {
            Form::Own(listener) => listener.into_inner(),
            Form::Tokio(listener) => listener.into_std(),
        }
    }
}

impl Drop for Deafened<'_> {
    fn drop(&mut self) {
        if let Form::Own(listener) = &self.0.0 {
            listener.hears(true);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Form::Own(listener) => listener.as_fd(),
            Form::Tokio(listener) => listener.as_fd(),
        }
    }
}

impl Socket {
    /// Takes over a non-blocking connected socket. A write never waits at first.
    pub fn from_std(stream: TcpStream) -> io::Result<Self> {
        Ok(Self(if set::is_entered() {
            Form::Own(Source::new(stream, Ready::WRITE)?)
        } else {
            Form::Tokio(tokio::net::TcpStream::from_std(stream)?)
        }))
    }

    /// Takes over a non-blocking socket whose connect is in progress and waits for its outcome.
    pub async fn connecting(stream: TcpStream) -> io::Result<Self> {
        if set::is_entered() {
            let socket = Source::new(stream, Ready::NONE)?.connected().await?;
            return Ok(Self(Form::Own(socket)));
        }
        let stream = tokio::net::TcpStream::from_std(stream)?;
        stream.writable().await?;
        stream.take_error()?.map_or(Ok(Self(Form::Tokio(stream))), Err)
    }

    /// Both for who takes turns on them, or both as they were where a set of the core's own does not wait for them.
    pub fn watched(one: Self, other: Self) -> Result<(Watched, Watched), (Self, Self)> {
        match (one.0, other.0) {
            (Form::Own(one), Form::Own(other)) => Ok((Watched(one), Watched(other))),
            (one, other) => Err((Self(one), Self(other))),
        }
    }

    /// Waits until a read would not block, or the other side is done.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.0 {
            Form::Own(socket) => poll_fn(|context| socket.poll_ready(context, Ready::READ)).await,
            Form::Tokio(socket) => socket.readable().await,
        }
    }

    /// Whether the connection is broken as far as an event has told: reset, or given up by keepalive. A FIN does not break it.
    ///
    /// Costs no system call. For a socket that nobody reads now: whoever reads gets the error.
    pub fn is_broken(&self) -> bool {
        match &self.0 {
            Form::Own(socket) => socket.is_broken(),
            Form::Tokio(socket) => socket.try_io(Interest::ERROR, || Ok(())).is_ok(),
        }
    }

    /// Reads what is there; `WouldBlock` when nothing is, 0 at the end.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Form::Own(socket) => socket.try_read(into),
            Form::Tokio(socket) => socket.try_read(into),
        }
    }

    /// Writes what fits; `WouldBlock` when nothing does.
    pub fn try_write(&self, from: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Form::Own(socket) => socket.try_write(from),
            Form::Tokio(socket) => socket.try_write(from),
        }
    }

    /// The other side's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Form::Own(socket) => socket.io().peer_addr(),
            Form::Tokio(socket) => socket.peer_addr(),
        }
    }

    /// This side's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Form::Own(socket) => socket.io().local_addr(),
            Form::Tokio(socket) => socket.local_addr(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Form::Own(socket) => socket.as_fd(),
            Form::Tokio(socket) => socket.as_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Form::Own(socket) => {
                let unfilled = into.initialize_unfilled();
                let read = |socket: &Source<TcpStream>| socket.try_read(unfilled);
                socket.poll_io(context, Ready::READ, read).map_ok(|read| into.advance(read))
            }
            Form::Tokio(socket) => Pin::new(socket).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Form::Own(socket) => {
                socket.poll_io(context, Ready::WRITE, |socket| socket.try_write(from))
            }
            Form::Tokio(socket) => Pin::new(socket).poll_write(context, from),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Form::Own(socket) => {
                socket.poll_io(context, Ready::WRITE, |socket| socket.try_write_vectored(from))
            }
            Form::Tokio(socket) => Pin::new(socket).poll_write_vectored(context, from),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            // Nothing is held back: what is written is the kernel's.
            Form::Own(_) => Poll::Ready(Ok(())),
            Form::Tokio(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Form::Own(socket) => Poll::Ready(socket.io().shutdown(std::net::Shutdown::Write)),
            Form::Tokio(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn pair() -> (Socket, tokio::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::from_std(listener).unwrap();
        let far = tokio::net::TcpStream::connect(address).await.unwrap();
        (listener.accept().await.unwrap().0, far)
    }

    /// Runs a test on each of the two forms.
    fn on_both_forms<T: Future<Output = ()>>(test: impl Fn() -> T) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
        drive::tests::on_a_core(|_| Turn::Done, test());
    }

    #[test]
    fn a_reset_breaks_a_socket_that_nobody_reads() {
        on_both_forms(reset_is_noticed);
    }

    #[test]
    fn all_that_wait_are_accepted_and_none_while_the_listener_is_deafened() {
        on_both_forms(accepts);
    }

    async fn accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let own = set::is_entered();
        let listener = Listener::from_std(listener).unwrap();
        let deafened = listener.deafened();
        let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        let told = timeout(Duration::from_millis(20), listener.accept()).await;
        // Tokio's form does not spin beside what waits, and hears.
        assert!(told.is_err() || !own);
        drop(deafened);
        let left = clients.len() - usize::from(told.is_ok());
        for _ in 0..left {
            timeout(Duration::from_mins(1), listener.accept()).await.unwrap().unwrap();
        }
    }

    #[test]
    fn a_refused_connect_is_an_error() {
        on_both_forms(refused_is_an_error);
    }

    #[test]
    fn a_connect_that_succeeds_leads_to_bytes() {
        on_both_forms(connects);
    }

    async fn connects() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let begun = begin(listener.local_addr().unwrap());
        let mut socket = Socket::connecting(begun).await.unwrap();
        let (mut far, _) = listener.accept().unwrap();
        io::Write::write_all(&mut far, b"hello").unwrap();
        let mut came = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut socket, &mut came).await.unwrap();
        assert_eq!(&came, b"hello");
        assert_eq!(socket.try_read(&mut came).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    async fn reset_is_noticed() {
        let (socket, far) = pair().await;
        drop(far);
        socket.readable().await.unwrap();
        assert!(!socket.is_broken());

        let (socket, far) = pair().await;
        far.try_write(b"unread").unwrap();
        far.set_zero_linger().unwrap();
        drop(far);
        let noticed = async {
            while !socket.is_broken() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), noticed).await.expect("the reset is noticed");
    }

    fn begin(address: SocketAddr) -> TcpStream {
        let begun =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        begun.set_nonblocking(true).unwrap();
        begun.connect(&address.into()).unwrap_err();
        begun.into()
    }

    async fn refused_is_an_error() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Socket::connecting(begin(free)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
