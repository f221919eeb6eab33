//! A DNS server for tests: answers over UDP and TCP what the test says, also wrongly or not at all.
#![allow(dead_code, reason = "shared by several test programs, each of which uses a part")]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

/// What the server does when asked for a name. One that was never set does not exist.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// These addresses, of which the asker gets the family that it wants. None at all is NODATA.
    Addresses(Vec<IpAddr>),
    /// The same, but over UDP only a truncated answer.
    OnlyOverTcp(Vec<IpAddr>),
    /// An alias, which the asker must follow.
    Alias(&'static str),
    /// A code without records: SERVFAIL, REFUSED, NXDOMAIN.
    Code(ResponseCode),
    /// Nothing.
    Silence,
    /// Bytes that are no DNS message, behind the right id.
    Garbage,
    /// An address, in an answer to another question than the asker's: its id is not the one that was sent.
    OtherId(IpAddr),
}

/// A running server; stops when dropped.
pub(crate) struct DnsServer {
    /// Where it listens, on UDP and TCP.
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

#[derive(Default)]
struct Zone {
    replies: HashMap<String, Reply>,
    asked: HashMap<String, usize>,
    ttl: u32,
}

impl DnsServer {
    /// Starts with an empty zone; all answers have a TTL of one second.
    pub(crate) async fn start() -> Self {
        let (udp, tcp) = bind().await;
        let address = udp.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone { ttl: 1, ..Zone::default() }));
        let tasks = [
            tokio::spawn(serve_udp(udp, Arc::clone(&zone))),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&zone))),
        ];
        Self { address, zone, _tasks: tasks.map(AbortOnDropHandle::new) }
    }

    /// From now on, what the server does when asked for a name (without the final dot).
    pub(crate) fn set(&self, name: &str, reply: Reply) {
        self.zone.lock().unwrap().replies.insert(name.to_owned(), reply);
    }

    /// From now on, for how many seconds answers may be relied on.
    pub(crate) fn rely_on(&self, seconds: u32) {
        self.zone.lock().unwrap().ttl = seconds;
    }

    /// [`Reply::Addresses`], as text.
    pub(crate) fn addresses(&self, name: &str, list: &[&str]) {
        let list = list.iter().map(|address| address.parse().unwrap()).collect();
        self.set(name, Reply::Addresses(list));
    }

    /// How often a name was asked for, each family by itself.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.zone.lock().unwrap().asked.get(name).copied().unwrap_or_default()
    }
}

/// The same port for both protocols: the system chooses one for UDP, TCP's may be taken.
async fn bind() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if let Some(answer) = respond(&buffer[..length], false, &zone) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_stream(stream, Arc::clone(&zone)));
    }
}

async fn serve_stream(mut stream: TcpStream, zone: Arc<Mutex<Zone>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; length.into()];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let Some(answer) = respond(&query, true, &zone) else { continue };
        let length = u16::try_from(answer.len()).unwrap();
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

fn respond(bytes: &[u8], tcp: bool, zone: &Mutex<Zone>) -> Option<Vec<u8>> {
    let asked = Message::from_vec(bytes).ok()?;
    let query = asked.queries.first()?.clone();
    let name = query.name().to_ascii().to_ascii_lowercase().trim_end_matches('.').to_owned();
    let mut zone = zone.lock().unwrap();
    *zone.asked.entry(name.clone()).or_default() += 1;
    let mut answer = Message::response(asked.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match zone.replies.get(&name).cloned().unwrap_or(Reply::Code(ResponseCode::NXDomain)) {
        Reply::Silence => return None,
        Reply::Garbage => return Some([&bytes[..2], &[0xff; 30]].concat()),
        Reply::OtherId(address) => {
            answer.metadata.id = !asked.metadata.id;
            fill(&mut answer, &query, vec![address], zone.ttl);
        }
        Reply::OnlyOverTcp(_) if !tcp => answer.metadata.truncation = true,
        Reply::Addresses(list) | Reply::OnlyOverTcp(list) => {
            fill(&mut answer, &query, list, zone.ttl);
        }
        Reply::Alias(to) => {
            let to = RData::CNAME(CNAME(Name::from_ascii(format!("{to}.")).unwrap()));
            answer.add_answer(Record::from_rdata(query.name().clone(), zone.ttl, to));
        }
        Reply::Code(code) => {
            answer.metadata.response_code = code;
            if code == ResponseCode::NXDomain {
                answer.add_authority(soa(zone.ttl));
            }
        }
    }
    Some(answer.to_vec().unwrap())
}

fn fill(answer: &mut Message, query: &Query, list: Vec<IpAddr>, ttl: u32) {
    let records: Vec<Record> = list
        .into_iter()
        .filter_map(|address| match (address, query.query_type()) {
            (IpAddr::V4(v4), RecordType::A) => Some(RData::A(A(v4))),
            (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(AAAA(v6))),
            _ => None,
        })
        .map(|data| Record::from_rdata(query.name().clone(), ttl, data))
        .collect();
    if records.is_empty() {
        answer.add_authority(soa(ttl));
    }
    answer.add_answers(records);
}

fn soa(ttl: u32) -> Record {
    let name = |written| Name::from_ascii(written).unwrap();
    let soa = SOA::new(name("ns.example."), name("root.example."), 1, 60, 60, 60, ttl);
    Record::from_rdata(name("example."), ttl, RData::SOA(soa))
}
