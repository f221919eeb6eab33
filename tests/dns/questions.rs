//! Questions to a name server, and what it says.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query};
use hickory_resolver::proto::rr::{Name, RecordType};

use super::common::PATIENCE;
use super::common::gateway::Gateway;

/// Its code and the data of its answers.
pub(crate) type Said = (String, Vec<String>);

static ID: AtomicU16 = AtomicU16::new(1);

/// What an answer with these data is.
pub(crate) fn some(data: &[&str]) -> Said {
    said("No Error", data)
}

pub(crate) fn said(code: &str, data: &[&str]) -> Said {
    (code.to_owned(), data.iter().map(ToString::to_string).collect())
}

/// Where the gateway's name server listens.
pub(crate) fn listens(gateway: &Gateway) -> SocketAddr {
    let status = gateway.status();
    let listeners = status["listeners"].as_array().unwrap();
    let dns = listeners.iter().find(|listener| listener["kind"] == "dns").unwrap();
    dns["bound"].as_str().unwrap().parse().unwrap()
}

/// A question on the wire.
pub(crate) fn question(name: &str, kind: &str) -> Vec<u8> {
    let id = ID.fetch_add(1, Ordering::Relaxed);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    let kind: RecordType = kind.parse().unwrap();
    message.add_query(Query::query(name, kind));
    message.to_vec().unwrap()
}

/// Asks over UDP, again when nothing comes for a second: what a resolver does.
pub(crate) fn ask(server: SocketAddr, name: &str, kind: &str) -> Said {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let request = question(name, kind);
    let mut buffer = [0; 2048];
    for _ in 0..PATIENCE.as_secs() {
        socket.send_to(&request, server).unwrap();
        if let Ok((length, source)) = socket.recv_from(&mut buffer) {
            assert_eq!(source, server);
            return read(&request, &buffer[..length]);
        }
    }
    panic!("{server} does not answer");
}

/// Asks over TCP.
pub(crate) fn ask_tcp(server: SocketAddr, name: &str, kind: &str) -> Said {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(&mut stream, &question(name, kind)).unwrap()
}

/// One question of a stream.
pub(crate) fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<Said> {
    let mut framed = u16::try_from(request.len()).unwrap().to_be_bytes().to_vec();
    framed.extend(request);
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(read(request, &answer))
}

fn read(request: &[u8], answer: &[u8]) -> Said {
    assert_eq!(request[..2], answer[..2], "the id");
    let message = Message::from_vec(answer).unwrap();
    let data = message.answers.iter().map(|record| record.data.to_string()).collect();
    (message.metadata.response_code.to_string(), data)
}
