//! A connection that one side breaks is broken on the other, whatever it was doing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use socket2::SockRef;

use super::{Path, WAYS, endpoint, noise};

/// Closes with RST.
fn reset(stream: TcpStream) -> io::Result<()> {
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// Reads until the connection breaks, and fails when it ends instead.
fn until_broken(mut stream: &TcpStream) -> io::Result<()> {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return Err(io::Error::other("it ended as if all were well")),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Writes until the connection breaks.
fn pour(mut stream: &TcpStream) -> io::Result<()> {
    let bytes = noise(1, 1 << 16);
    loop {
        match stream.write(&bytes) {
            Ok(_) => {}
            Err(error)
                if [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Says a word, which shows that the connection stands.
fn greet(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(b"!")
}

fn greeted(mut stream: &TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])
}

#[test]
fn a_clients_reset_reaches_the_endpoint() {
    let (tell, told) = std::sync::mpsc::sync_channel(2);
    let also = tell.clone();
    let silent = endpoint(move |stream| {
        greet(&stream)?;
        tell.send(until_broken(&stream)).map_err(io::Error::other)
    });
    let pouring = endpoint(move |stream| also.send(pour(&stream)).map_err(io::Error::other));
    for (by, app) in WAYS.into_iter().flat_map(|by| [(by, &silent), (by, &pouring)]) {
        let path = Path::new(by, app);
        let stream = path.open().unwrap();
        greeted(&stream).unwrap();
        reset(stream).unwrap();
        told.recv_timeout(super::PATIENCE).expect("the endpoint notices").unwrap();
        path.near.record("reset_by_client");
    }
}

#[test]
fn an_endpoints_reset_reaches_the_client() {
    let endpoint = endpoint(|stream| {
        greet(&stream)?;
        // A word of the client, so that the reset does not come before it is ready.
        greeted(&stream)?;
        reset(stream)
    });
    let actions: [fn(&TcpStream) -> io::Result<()>; 2] = [until_broken, pour];
    for (by, action) in WAYS.into_iter().flat_map(|by| actions.map(|action| (by, action))) {
        let path = Path::new(by, &endpoint);
        let stream = path.open().unwrap();
        greeted(&stream).unwrap();
        greet(&stream).unwrap();
        action(&stream).unwrap();
        path.near.record("reset_by_endpoint");
    }
}
