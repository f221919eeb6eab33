//! An app behind the gateway, and the way to call it.
//!
//! An app answers a request's body with its own name, a line feed and the body with every bit turned over: who gets that back
//! has reached this app, and its bytes have arrived whole in both directions.

use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::authority::Authority;
use super::http;

/// A TLS server in this process. Stops accepting when dropped.
pub(crate) struct App {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

/// The answer of the app `app` to `body`.
pub(crate) fn reply(app: &str, body: &[u8]) -> Vec<u8> {
    let mut reply = format!("{app}\n").into_bytes();
    reply.extend(body.iter().map(|byte| !byte));
    reply
}

impl App {
    /// Starts an app on a free port, with a certificate for some names.
    pub(crate) fn start(authority: &Authority, app: &str, hosts: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), authority, app, hosts)
    }

    /// Starts an app at an address.
    pub(crate) fn start_at(
        at: SocketAddr,
        authority: &Authority,
        app: &str,
        hosts: &[&str],
    ) -> Self {
        let tls = authority.issue(hosts).server();
        let app: Arc<str> = app.into();
        Self::serve(at, move |stream| {
            let tls = ServerConnection::new(Arc::clone(&tls)).map_err(io::Error::other)?;
            serve(&app, StreamOwned::new(tls, stream))
        })
    }

    /// A server of another kind: `each` has a thread per connection.
    pub(crate) fn serve(
        at: SocketAddr,
        each: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let (accepted, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let app = Self { address: listener.local_addr().unwrap(), accepted, stopped };
        let (accepted, stopped) = (Arc::clone(&app.accepted), Arc::clone(&app.stopped));
        let each = Arc::new(each);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                accepted.fetch_add(1, Ordering::AcqRel);
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let each = Arc::clone(&each);
                // What goes wrong in a connection, its client sees.
                thread::spawn(move || each(stream));
            }
        });
        app
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the accepting thread, which then lets go of the port.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(app: &str, mut stream: StreamOwned<ServerConnection, TcpStream>) -> io::Result<()> {
    loop {
        let asked = http::asked(&mut BufReader::new(&mut stream))?;
        let Some((body, last)) = asked else { return Ok(()) };
        let reply = reply(app, &body);
        let connection = if last { "close" } else { "keep-alive" };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            reply.len()
        )?;
        stream.write_all(&reply)?;
        stream.flush()?;
        if last {
            return finish(stream);
        }
    }
}

/// Closes without losing what is still on its way: says so in TLS, then in TCP, then waits for the other side.
fn finish(mut stream: StreamOwned<ServerConnection, TcpStream>) -> io::Result<()> {
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(Shutdown::Write)?;
    io::copy(&mut stream.sock, &mut io::sink()).map(drop)
}

/// A client's connection through the gateway.
pub(crate) struct Connection(StreamOwned<ClientConnection, TcpStream>);

/// Opens a connection to the app called `name` and finishes the handshake.
pub(crate) fn connect(
    gateway: SocketAddr,
    name: &str,
    tls: &Arc<ClientConfig>,
) -> io::Result<Connection> {
    let stream = TcpStream::connect_timeout(&gateway, Duration::from_secs(10))?;
    handshake(stream, name, tls)
}

/// The same over a connection that has been opened, and perhaps used, before.
pub(crate) fn handshake(
    mut stream: TcpStream,
    name: &str,
    tls: &Arc<ClientConfig>,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    Ok(Connection(StreamOwned::new(tls, stream)))
}

impl Connection {
    /// Asks something and gives back the answer's body; the connection stays open.
    pub(crate) fn ask(&mut self, body: &[u8]) -> io::Result<Vec<u8>> {
        http::exchange(&mut self.0, "POST", "/", body, false).map(|answer| answer.body)
    }

    /// The app that answers.
    pub(crate) fn who(&mut self) -> io::Result<String> {
        let answer = self.ask(b"")?;
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }

    /// Waits until the other side ends the connection.
    pub(crate) fn ended(mut self) -> io::Result<()> {
        match self.0.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(io::Error::other("more came instead of the end")),
            // The other side may well not take the time to say goodbye in TLS.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// One question on a connection of its own: which app answers, or which alert comes.
pub(crate) fn call(
    gateway: SocketAddr,
    name: &str,
    tls: &Arc<ClientConfig>,
) -> Result<String, String> {
    told(connect(gateway, name, tls))
}

/// The same, from an address of this machine's loopback network.
pub(crate) fn call_from(
    source: IpAddr,
    gateway: SocketAddr,
    name: &str,
    tls: &Arc<ClientConfig>,
) -> Result<String, String> {
    told(dial_from(source, gateway).and_then(|stream| handshake(stream, name, tls)))
}

/// Connects from an address of this machine's loopback network.
pub(crate) fn dial_from(source: IpAddr, gateway: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&gateway.into())?;
    Ok(socket.into())
}

fn told(connection: io::Result<Connection>) -> Result<String, String> {
    connection.and_then(|mut connection| connection.who()).map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => format!("{alert:?}"),
            Some(_) | None => error.to_string(),
        }
    })
}
