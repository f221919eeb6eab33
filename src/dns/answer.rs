//! One DNS message in, one out: what a name server says that has authority over a zone and over the names of apps, and asks nobody
//! else. Pure: bytes and a [`Book`] in, bytes out.
//!
//! RFC 1035 §4.1 (messages), RFC 2308 (a name that does not exist, and one without such data), RFC 8020 (what is above a name that
//! exists does exist), RFC 6891 (EDNS), RFC 8482 (ANY), RFC 9619 (one question).

use std::iter::successors;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, NS, SOA, SRV};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Seconds an answer may be kept, "no" as well as "yes": a failed cluster is left at the caller's next question.
pub const TTL: u32 = 5;
/// Where a service record may be asked for besides the app's own name (RFC 2782).
const SERVICE: &str = "_dapr._tcp.";
/// The name server's own label in the zone.
const SERVER: &str = "ns";
/// Below it every announced address has a name, for service records to point at (they must: RFC 2782, "Target").
const ADDRESSES: &str = "addr";
/// What a question without EDNS can take over UDP (RFC 1035 §4.2.1), and the most that is sent to anybody: what is not cut into
/// fragments on any usual path (DNS Flag Day 2020).
const UDP: RangeInclusive<u16> = 512..=1232;

/// Every code that is ever sent, with its metric label (RFC 6895 §2.3).
const CODES: [(ResponseCode, &str); 6] = [
    (ResponseCode::NoError, "noerror"),
    (ResponseCode::NXDomain, "nxdomain"),
    (ResponseCode::Refused, "refused"),
    (ResponseCode::FormErr, "formerr"),
    (ResponseCode::NotImp, "notimp"),
    (ResponseCode::BADVERS, "badvers"),
];

/// What the answers come from. Names are in lower case, without the final dot.
pub trait Book {
    /// The zone's name.
    fn zone(&self) -> &str;
    /// The addresses of the gateway itself.
    fn gateway(&self) -> &[IpAddr];
    /// What there is of a name.
    fn find(&self, name: &str) -> Found;
    /// Whether some answer can hold an address.
    fn is_announced(&self, address: IpAddr) -> bool;
    /// Grows with every change (RFC 1982).
    fn serial(&self) -> u32;
}

/// What there is of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An app is called by it.
    App(Reach),
    /// Only names below it are something.
    Above,
    /// Nothing.
    Nothing,
}

/// Where an app is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// For callers who bring the port themselves.
    pub addresses: Vec<IpAddr>,
    /// For callers who ask for the port too.
    pub ports: Vec<(IpAddr, u16)>,
}

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram: the answer has to fit into another.
    Udp,
    /// A stream.
    Tcp,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// On the wire.
    pub bytes: Vec<u8>,
    /// For the count.
    pub code: ResponseCode,
}

impl Transport {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl Answer {
    /// The metric label of its code.
    pub fn label(&self) -> &'static str {
        let known = CODES.iter().find(|(code, _)| *code == self.code);
        known.map_or("other", |(_, label)| label)
    }
}

/// What a message of a client gets; nothing where it is an answer itself or too short to have come from a resolver.
pub fn answer(request: &[u8], over: Transport, book: &impl Book) -> Option<Answer> {
    let (id, is_question, op_code, questions) = head(request)?;
    if !is_question {
        return None;
    }
    let plain = |code| encode(failure(id, op_code, code), over, None);
    if op_code != OpCode::Query {
        return plain(ResponseCode::NotImp);
    }
    // Asked of the bytes: the decoder would make room for as many questions as the message claims to have.
    if questions != 1 {
        return plain(ResponseCode::FormErr);
    }
    let Ok(request) = Message::from_vec(request) else {
        return plain(ResponseCode::FormErr);
    };
    encode(respond(&request, book), over, request.edns.as_ref())
}

/// An answer without anything in it that says "ask over TCP": nobody can forge an address there.
pub fn truncated(request: &[u8]) -> Option<Answer> {
    let (id, is_question, op_code, questions) = head(request)?;
    if !is_question || questions != 1 {
        return None;
    }
    let request = Message::from_vec(request).ok()?;
    let mut message = failure(id, op_code, ResponseCode::NoError);
    message.metadata.truncation = true;
    message.queries = request.queries;
    encode(message, Transport::Udp, None)
}

/// Id, whether it is a question, what is asked for, how many questions (RFC 1035 §4.1.1).
fn head(request: &[u8]) -> Option<(u16, bool, OpCode, u16)> {
    let &[id0, id1, flags, _, count0, count1, _, _, _, _, _, _] = request.first_chunk::<12>()?;
    let op_code = OpCode::from_u8(flags >> 3 & 0xf);
    let questions = u16::from_be_bytes([count0, count1]);
    Some((u16::from_be_bytes([id0, id1]), flags & 0x80 == 0, op_code, questions))
}

fn failure(id: u16, op_code: OpCode, code: ResponseCode) -> Message {
    let mut message = Message::new(id, MessageType::Response, op_code);
    message.metadata.response_code = code;
    message
}

fn respond(request: &Message, book: &impl Book) -> Message {
    let mut message = failure(request.metadata.id, OpCode::Query, ResponseCode::NoError);
    message.metadata.recursion_desired = request.metadata.recursion_desired;
    message.metadata.checking_disabled = request.metadata.checking_disabled;
    message.queries.clone_from(&request.queries);
    message.metadata.response_code = match (&*request.queries, &request.edns) {
        (_, Some(edns)) if edns.version() > 0 => ResponseCode::BADVERS,
        ([query], _) => fill(&mut message, query, book),
        _ => ResponseCode::FormErr,
    };
    message
}

/// Puts in what there is to say to a question.
fn fill(message: &mut Message, query: &Query, book: &impl Book) -> ResponseCode {
    let transfer = matches!(query.query_type, RecordType::AXFR | RecordType::IXFR);
    if transfer || query.query_class != DNSClass::IN {
        return ResponseCode::Refused;
    }
    // A name that is not fully qualified cannot come over the wire: hickory's is, from here on.
    let asked = query.name().to_lowercase().to_ascii();
    let asked = asked.strip_suffix('.').unwrap_or(&asked);
    let Some(apex) = authority(asked, book) else {
        return ResponseCode::Refused;
    };
    message.metadata.authoritative = true;
    let place = Place::of(asked, book);
    message.answers = place.records(query, book);
    if message.answers.is_empty() {
        message.authorities.extend(start_of_authority(apex, book));
    }
    let services = message.answers.iter().filter_map(|record| {
        let RData::SRV(service) = &record.data else { return None };
        Some(&service.target)
    });
    message.additionals = services.filter_map(target).collect();
    if place == Place::Nothing { ResponseCode::NXDomain } else { ResponseCode::NoError }
}

/// The name at whose head this server's authority begins: the zone's, or outside it that of an app, which is a zone by itself.
/// What stands beside such an app is somebody else's.
fn authority<'a>(asked: &'a str, book: &'a impl Book) -> Option<&'a str> {
    if is_within(asked, book.zone()) {
        return Some(book.zone());
    }
    let mut suffixes = successors(Some(asked), |name| Some(name.split_once('.')?.1));
    suffixes.find(|name| matches!(book.find(name), Found::App(_)))
}

fn is_within(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

/// What a name is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    App(Reach),
    /// [`SERVICE`] of an app.
    Service(Reach),
    Apex,
    Host(Vec<IpAddr>),
    /// It exists and holds nothing.
    Empty,
    Nothing,
}

impl Place {
    fn of(asked: &str, book: &impl Book) -> Self {
        let found = book.find(asked);
        if let Found::App(reach) = found {
            return Self::App(reach);
        }
        let protocol = SERVICE.split_once('.').map_or("", |(_, protocol)| protocol);
        let app = |prefix| asked.strip_prefix(prefix).map(|app| book.find(app));
        if let Some(Found::App(reach)) = app(SERVICE) {
            return Self::Service(reach);
        }
        match app(protocol) {
            Some(Found::App(_)) => Self::Empty,
            _ if is_within(asked, book.zone()) => Self::in_zone(asked, &found, book),
            _ => Self::Nothing,
        }
    }

    fn in_zone(asked: &str, found: &Found, book: &impl Book) -> Self {
        let front = asked.strip_suffix(book.zone()).and_then(|front| front.strip_suffix('.'));
        let Some(front) = front else {
            return Self::Apex;
        };
        let host = |written| parse_address(written).filter(|&address| book.is_announced(address));
        match front.rsplit_once('.') {
            None if front == SERVER => Self::Host(book.gateway().to_vec()),
            None if front == ADDRESSES => Self::Empty,
            Some((written, ADDRESSES)) => {
                host(written).map_or(Self::Nothing, |address| Self::Host(vec![address]))
            }
            _ if *found == Found::Above => Self::Empty,
            _ => Self::Nothing,
        }
    }

    fn records(&self, query: &Query, book: &impl Book) -> Vec<Record> {
        let record = |data| Record::from_rdata(query.name().clone(), TTL, data);
        let kind = query.query_type();
        match self {
            Self::App(reach) if kind == RecordType::SRV => {
                services(reach, book).map(record).collect()
            }
            Self::Service(reach) if matches!(kind, RecordType::SRV | RecordType::ANY) => {
                services(reach, book).map(record).collect()
            }
            Self::App(Reach { addresses, .. }) | Self::Host(addresses) => {
                addresses.iter().filter_map(|&address| of_kind(address, kind)).map(record).collect()
            }
            Self::Apex if kind == RecordType::NS => name(&format!("{SERVER}.{}", book.zone()))
                .map(NS)
                .map(RData::NS)
                .map(record)
                .into_iter()
                .collect(),
            Self::Apex if matches!(kind, RecordType::SOA | RecordType::ANY) => {
                start_of_authority(book.zone(), book).into_iter().collect()
            }
            Self::Service(_) | Self::Apex | Self::Empty | Self::Nothing => vec![],
        }
    }
}

/// An address as what is asked for; ANY gets a part of what there is (RFC 8482 §4.1).
fn of_kind(address: IpAddr, kind: RecordType) -> Option<RData> {
    match (address, kind) {
        (IpAddr::V4(address), RecordType::A | RecordType::ANY) => Some(RData::A(A(address))),
        (IpAddr::V6(address), RecordType::AAAA | RecordType::ANY) => {
            Some(RData::AAAA(AAAA(address)))
        }
        _ => None,
    }
}

/// All with the same priority and weight: which of them is healthy has been decided already.
fn services<'a>(reach: &'a Reach, book: &'a impl Book) -> impl Iterator<Item = RData> + 'a {
    reach.ports.iter().filter_map(|&(address, port)| {
        let target = name(&format!("{}.{ADDRESSES}.{}", write_address(address), book.zone()))?;
        Some(RData::SRV(SRV::new(0, 0, port, target)))
    })
}

/// The address of a service record's target, which saves a question.
fn target(target: &Name) -> Option<Record> {
    let label = target.iter().next()?;
    let data = match parse_address(std::str::from_utf8(label).ok()?)? {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Some(Record::from_rdata(target.clone(), TTL, data))
}

/// Its minimum is how long "no" may be kept (RFC 2308 §4). Nobody transfers the zone, so the other times say nothing.
fn start_of_authority(apex: &str, book: &impl Book) -> Option<Record> {
    let (server, owner) = (
        name(&format!("{SERVER}.{}", book.zone()))?,
        name(&format!("hostmaster.{}", book.zone()))?,
    );
    let seconds = i32::try_from(TTL).ok()?;
    let data = SOA::new(server, owner, book.serial(), seconds, seconds, seconds, TTL);
    Some(Record::from_rdata(name(apex)?, TTL, RData::SOA(data)))
}

fn name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// An address as one label: its octets in hexadecimal.
fn write_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08x}", u32::from(address)),
        IpAddr::V6(address) => format!("{:032x}", u128::from(address)),
    }
}

fn parse_address(label: &str) -> Option<IpAddr> {
    if !label.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match label.len() {
        8 => Some(Ipv4Addr::from(u32::from_str_radix(label, 16).ok()?).into()),
        32 => Some(Ipv6Addr::from(u128::from_str_radix(label, 16).ok()?).into()),
        _ => None,
    }
}

/// Cut to its question where the asker could not take it (RFC 2181 §9), who then comes back over TCP.
fn encode(mut message: Message, over: Transport, edns: Option<&Edns>) -> Option<Answer> {
    let code = message.metadata.response_code;
    if edns.is_some() {
        let mut own = Edns::new();
        own.set_max_payload(*UDP.end()).set_version(0);
        message.edns = Some(own);
    }
    let mut bytes = message.to_vec().ok()?;
    let most = edns.map_or(*UDP.start(), |edns| edns.max_payload().clamp(*UDP.start(), *UDP.end()));
    if over == Transport::Udp && bytes.len() > usize::from(most) {
        (message.answers, message.authorities, message.additionals) = (vec![], vec![], vec![]);
        message.metadata.truncation = true;
        bytes = message.to_vec().ok()?;
    }
    Some(Answer { bytes, code })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Fixed {
        large: u32,
    }

    impl Book for Fixed {
        fn zone(&self) -> &'static str {
            "mesh.example"
        }

        fn gateway(&self) -> &[IpAddr] {
            const GATEWAY: [IpAddr; 2] =
                [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            &GATEWAY
        }

        fn find(&self, name: &str) -> Found {
            let reach = |count: u32| Reach {
                addresses: (1..=count).map(|n| Ipv4Addr::from(n).into()).collect(),
                ports: vec![([10, 0, 0, 5].into(), 20_001)],
            };
            match name {
                "orders.shop.mesh.example" | "orders-dapr.shop.svc.cluster.local" => {
                    Found::App(reach(1))
                }
                "large.shop.mesh.example" => Found::App(reach(self.large)),
                "none.shop.mesh.example" => Found::App(Reach::default()),
                "shop.mesh.example" | "shop.svc.cluster.local" => Found::Above,
                _ => Found::Nothing,
            }
        }

        fn is_announced(&self, address: IpAddr) -> bool {
            address == IpAddr::from([10, 0, 0, 5])
        }

        fn serial(&self) -> u32 {
            7
        }
    }

    fn question(written: &str, kind: RecordType) -> Message {
        let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name(written).unwrap(), kind));
        message
    }

    fn ask_over(message: &Message, over: Transport) -> Message {
        let answer = answer(&message.to_vec().unwrap(), over, &Fixed { large: 100 }).unwrap();
        let decoded = Message::from_vec(&answer.bytes).unwrap();
        // BADVERS and BADSIG are one number (RFC 6895 §2.3).
        assert_eq!(u16::from(decoded.metadata.response_code), u16::from(answer.code));
        assert_eq!(decoded.metadata.id, 4711);
        assert!(!decoded.metadata.recursion_available);
        decoded
    }

    fn ask(written: &str, kind: RecordType) -> Message {
        ask_over(&question(written, kind), Transport::Udp)
    }

    /// Code, answers, names of the authority section.
    fn told(written: &str, kind: RecordType) -> (ResponseCode, Vec<String>, Vec<String>) {
        let message = ask(written, kind);
        assert_eq!(
            message.metadata.authoritative,
            message.metadata.response_code != ResponseCode::Refused
        );
        let data = message.answers.iter().map(|record| record.data.to_string()).collect();
        let apexes = message.authorities.iter().map(|record| record.name.to_string()).collect();
        (message.metadata.response_code, data, apexes)
    }

    fn some(answers: &[&str]) -> (ResponseCode, Vec<String>, Vec<String>) {
        (ResponseCode::NoError, answers.iter().map(ToString::to_string).collect(), vec![])
    }

    fn nothing(code: ResponseCode, apex: &str) -> (ResponseCode, Vec<String>, Vec<String>) {
        (code, vec![], vec![apex.to_owned()])
    }

    const NODATA: ResponseCode = ResponseCode::NoError;
    const NXDOMAIN: ResponseCode = ResponseCode::NXDomain;

    #[test]
    fn apps_are_answered_in_the_zone_and_outside() {
        for app in ["orders.shop.mesh.example", "orders-dapr.shop.svc.cluster.local"] {
            let service = format!("_dapr._tcp.{app}");
            let srv = "0 0 20001 0a000005.addr.mesh.example.";
            assert_eq!(told(app, RecordType::A), some(&["0.0.0.1"]));
            assert_eq!(told(app, RecordType::ANY), some(&["0.0.0.1"]));
            assert_eq!(told(app, RecordType::SRV), some(&[srv]));
            assert_eq!(told(&service, RecordType::SRV), some(&[srv]));
        }
        let message = ask("OrDers.Shop.mesh.example", RecordType::SRV);
        assert_eq!(message.queries[0].name().to_string(), "OrDers.Shop.mesh.example.");
        assert_eq!(message.answers[0].name.to_string(), "OrDers.Shop.mesh.example.");
        assert_eq!(message.additionals[0].data.to_string(), "10.0.0.5");
    }

    #[test]
    fn what_exists_without_such_data_is_told_from_what_does_not_exist() {
        let zone = "mesh.example.";
        for (written, kind) in [
            ("orders.shop.mesh.example", RecordType::AAAA),
            ("orders.shop.mesh.example", RecordType::TXT),
            ("none.shop.mesh.example", RecordType::A),
            ("_tcp.orders.shop.mesh.example", RecordType::SRV),
            ("shop.mesh.example", RecordType::A),
            ("addr.mesh.example", RecordType::A),
            ("mesh.example", RecordType::A),
        ] {
            assert_eq!(told(written, kind), nothing(NODATA, zone), "{written} {kind}");
        }
        for written in [
            "other.shop.mesh.example",
            "x.orders.shop.mesh.example",
            "_dapr._tcp.other.shop.mesh.example",
            "0a000006.addr.mesh.example",
            "xa000005.addr.mesh.example",
            "a.0a000005.addr.mesh.example",
        ] {
            assert_eq!(told(written, RecordType::A), nothing(NXDOMAIN, zone), "{written}");
        }
    }

    #[test]
    fn an_app_outside_the_zone_is_a_zone_by_itself_and_its_neighbours_are_not_ours() {
        let app = "orders-dapr.shop.svc.cluster.local";
        let apex = format!("{app}.");
        assert_eq!(told(app, RecordType::AAAA), nothing(NODATA, &apex));
        assert_eq!(told(&format!("_tcp.{app}"), RecordType::A), nothing(NODATA, &apex));
        assert_eq!(told(&format!("x.{app}"), RecordType::A), nothing(NXDOMAIN, &apex));
        for other in ["shop.svc.cluster.local", "cart-dapr.shop.svc.cluster.local", "example", "."]
        {
            assert_eq!(
                told(other, RecordType::A),
                (ResponseCode::Refused, vec![], vec![]),
                "{other}"
            );
        }
        let transfer = told("mesh.example", RecordType::AXFR);
        assert_eq!(transfer, (ResponseCode::Refused, vec![], vec![]));
    }

    #[test]
    fn the_zone_says_who_serves_it() {
        assert_eq!(told("mesh.example", RecordType::NS), some(&["ns.mesh.example."]));
        assert_eq!(told("ns.mesh.example", RecordType::A), some(&["10.0.0.5"]));
        assert_eq!(told("ns.mesh.example", RecordType::AAAA), some(&["::1"]));
        assert_eq!(told("0A000005.addr.mesh.example", RecordType::A), some(&["10.0.0.5"]));
        let soa = "ns.mesh.example. hostmaster.mesh.example. 7 5 5 5 5";
        assert_eq!(told("mesh.example", RecordType::SOA), some(&[soa]));
    }

    #[test]
    fn what_does_not_fit_is_asked_again_over_tcp() {
        let mut plain = question("large.shop.mesh.example", RecordType::A);
        let cut = ask_over(&plain, Transport::Udp);
        assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_none());
        assert_eq!(ask_over(&plain, Transport::Tcp).answers.len(), 100);
        for (offered, most) in [(100, 512), (1000, 1000), (65_000, 1232)] {
            let mut edns = Edns::new();
            edns.set_max_payload(offered);
            plain.edns = Some(edns);
            let bytes = plain.to_vec().unwrap();
            // A record takes 16 octets, question and OPT 64.
            for large in 1..100 {
                let answer = answer(&bytes, Transport::Udp, &Fixed { large }).unwrap();
                let message = Message::from_vec(&answer.bytes).unwrap();
                assert!(answer.bytes.len() <= most, "{} of {most}", answer.bytes.len());
                assert_eq!(
                    message.metadata.truncation,
                    large as usize * 16 + 52 > most,
                    "{large} {most}"
                );
                assert_eq!(message.edns.unwrap().max_payload(), 1232);
            }
        }
    }

    #[test]
    fn what_is_no_plain_question_is_told_so() {
        let code = |message: &Message| ask_over(message, Transport::Udp).metadata.response_code;
        let app = || question("orders.shop.mesh.example", RecordType::A);
        let mut update = app();
        update.metadata.op_code = OpCode::Update;
        assert_eq!(code(&update), ResponseCode::NotImp);
        let mut two = app();
        two.add_query(Query::query(Name::root(), RecordType::A));
        assert_eq!(code(&two), ResponseCode::FormErr);
        let mut chaos = app();
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(code(&chaos), ResponseCode::Refused);
        let mut future = app();
        future.edns = Some(Edns::new());
        future.edns.as_mut().unwrap().set_version(1);
        assert_eq!(u16::from(code(&future)), u16::from(ResponseCode::BADVERS));
        let mut claims = app().to_vec().unwrap();
        claims[4..6].copy_from_slice(&[0xff, 0xff]);
        let refused = answer(&claims, Transport::Udp, &Fixed { large: 1 }).unwrap();
        assert_eq!((refused.code, refused.bytes.len()), (ResponseCode::FormErr, 12));
    }

    #[test]
    fn an_answer_is_never_answered() {
        let mut message = question("orders.shop.mesh.example", RecordType::A);
        message.metadata.message_type = MessageType::Response;
        let bytes = message.to_vec().unwrap();
        assert_eq!(answer(&bytes, Transport::Udp, &Fixed { large: 1 }), None);
        assert_eq!(truncated(&bytes), None);
    }

    #[test]
    fn a_truncated_answer_is_no_longer_than_its_question() {
        let asked = question("orders.shop.mesh.example", RecordType::A).to_vec().unwrap();
        let answer = truncated(&asked).unwrap();
        assert!(answer.bytes.len() <= asked.len());
        assert!(Message::from_vec(&answer.bytes).unwrap().metadata.truncation);
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer_or_none(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0..60usize) {
            let good = question("orders.shop.mesh.example", RecordType::A).to_vec().unwrap();
            let book = Fixed { large: 100 };
            let mut changed = good.clone();
            changed.splice(at.min(good.len()).., bytes.iter().copied());
            bytes.truncate(512);
            for request in [&bytes, &changed] {
                if let Some(answer) = answer(request, Transport::Udp, &book) {
                    prop_assert!(answer.bytes.len() <= 1232);
                }
                truncated(request);
            }
        }
    }
}
