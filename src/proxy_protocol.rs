//! The PROXY protocol (`HAProxy`'s `proxy-protocol.txt`, revision of 2.x), by which a load balancer says on whose behalf it
//! connects: versions 1 (§2.1, text) and 2 (§2.2, binary) in, version 2 out.
//!
//! Reading is pure and three-valued and refuses at the first byte that no header can have. What is read here decides what
//! a policy lets in, so nothing is guessed: one space means one space, every length must agree, a checksum that is there
//! must hold. Whether a peer is to be believed at all is its caller's question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Most bytes of a header of version 1, with its end of line (§2.1).
const MAX_V1: usize = 107;
/// Most bytes of a header of version 2. The format allows 64 KiB; 4 KiB have room for a client certificate's TLVs, and
/// a pending connection holds no more than that beside its hello.
pub const MAX_V2: usize = 4096;
/// Most bytes of a unique id (§2.2.5).
pub const MAX_UNIQUE_ID: usize = 128;
/// Most bytes of an authority that is sent; a server name has at most 253.
const MAX_AUTHORITY: usize = 255;

const SIGNATURE_V1: &[u8] = b"PROXY ";
/// Begins with bytes that are neither TLS nor a line of text (§2.2).
const SIGNATURE_V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes in front of the addresses: signature, version and command, family, length (§2.2).
pub const PREFIX_V2: usize = 16;
/// Version 2 in the upper half of byte 13, command `PROXY` in the lower.
const V2_PROXY: u8 = 0x21;
/// The same for `LOCAL`: the sender speaks for itself, as in a health check.
const V2_LOCAL: u8 = 0x20;

/// Types of the TLVs that mean something here (§2.2).
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
/// The connection's id along its way.
pub const UNIQUE_ID: u8 = 0x05;

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The beginning of a header.
    NeedMore,
    /// A whole header in the first `length` bytes.
    Header {
        /// What it says.
        header: Header<'a>,
        /// Its bytes; what follows is the connection's own.
        length: usize,
    },
    /// No header, whatever may come.
    Wrong(ProxyError),
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header<'a> {
    /// On whose behalf the sender connects. None where it speaks for itself or cannot say (`LOCAL`, `UNKNOWN`, not TCP over
    /// IP): then the connection's own addresses hold (§2.2).
    pub addresses: Option<Addresses>,
    /// The host name that the client asked for (`PP2_TYPE_AUTHORITY`).
    pub authority: Option<&'a str>,
    /// The connection's id along its way (`PP2_TYPE_UNIQUE_ID`).
    pub unique_id: Option<&'a [u8]>,
}

/// The ends of the connection that the sender accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// Why bytes are no acceptable header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Neither version's signature.
    #[error(
        "the connection does not begin with a PROXY header, which this listener demands of this peer"
    )]
    NoHeader,
    /// No end of line within `MAX_V1` bytes, or a line feed alone.
    #[error("the PROXY v1 line does not end in CRLF within 107 bytes")]
    NoEndOfLine,
    /// The line's words are not protocol, two addresses of its family and two ports.
    #[error("the PROXY v1 line is not `TCP4|TCP6 source destination port port` or `UNKNOWN`")]
    Line,
    /// Byte 13 of a v2 header is neither version 2's `LOCAL` nor its `PROXY`.
    #[error("the PROXY v2 header has version and command 0x{0:02x}; 0x20 and 0x21 are known")]
    Command(u8),
    /// Byte 14 of a v2 header names no family or transport (§2.2: connections with unexpected values must be dropped).
    #[error("the PROXY v2 header has the unknown address family and transport 0x{0:02x}")]
    Family(u8),
    /// A v2 header longer than `MAX_V2`.
    #[error("the PROXY v2 header has {0} bytes; 4096 are accepted")]
    TooLong(usize),
    /// A v2 header too short for its addresses.
    #[error("the PROXY v2 header is too short for its addresses")]
    NoAddresses,
    /// A TLV that ends behind the header, is there twice, or has no value of its type.
    #[error("the PROXY v2 header has a malformed TLV of type 0x{0:02x}")]
    Tlv(u8),
    /// The checksum does not hold (§2.2.3).
    #[error("the PROXY v2 header's checksum is wrong")]
    Checksum,
}

/// Looks at the bytes received so far, all of them from the first.
pub fn parse(received: &[u8]) -> Parsed<'_> {
    let parsed = match received {
        [] => Ok(None),
        [b'P', ..] => parse_v1(received),
        [..] => parse_v2(received),
    };
    match parsed {
        Ok(Some((header, length))) => Parsed::Header { header, length },
        Ok(None) => Parsed::NeedMore,
        Err(error) => Parsed::Wrong(error),
    }
}

/// A header of version 2 (`PROXY`, TCP) with the authority and the unique id as TLVs; of each only as many bytes as
/// receivers take (255, [`MAX_UNIQUE_ID`]).
pub fn encode(
    source: SocketAddr,
    destination: SocketAddr,
    authority: &str,
    unique_id: &[u8],
) -> Vec<u8> {
    let authority = authority.as_bytes();
    let authority = authority.get(..MAX_AUTHORITY).unwrap_or(authority);
    let unique_id = unique_id.get(..MAX_UNIQUE_ID).unwrap_or(unique_id);
    encode_with(source, destination, &[(AUTHORITY, authority), (UNIQUE_ID, unique_id)])
}

/// A header of version 2 (`PROXY`, TCP) with any TLVs, in this order. They are its caller's to bound: all of them together must
/// leave it within [`MAX_V2`].
pub fn encode_with(source: SocketAddr, destination: SocketAddr, tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    let family = encode_addresses(&mut body, source, destination);
    for (kind, value) in tlvs {
        encode_tlv(&mut body, *kind, value);
    }
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    [&SIGNATURE_V2[..], &[V2_PROXY, family], &length.to_be_bytes(), &body].concat()
}

/// The TLVs of a header of version 2 that [`parse`] has accepted: `whole` are its bytes, no more. None of what is no such header.
pub fn tlvs(whole: &[u8]) -> Tlvs<'_> {
    let room = whole.get(13).and_then(|family| address_room(*family));
    let rest = room.and_then(|room| whole.get(PREFIX_V2 + room..));
    Tlvs { rest: rest.unwrap_or_default() }
}

/// Type and value of each TLV. Ends with the first one that does not hold what it says.
#[derive(Debug, Clone)]
pub struct Tlvs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, high, low], behind) = self.rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = behind.split_at_checked(length)?;
        self.rest = rest;
        Some((kind, value))
    }
}

type Read<'a> = Result<Option<(Header<'a>, usize)>, ProxyError>;

fn parse_v1(received: &[u8]) -> Read<'_> {
    begins(received, SIGNATURE_V1)?;
    let within = received.get(..MAX_V1).unwrap_or(received);
    let Some(end) = within.iter().position(|&octet| octet == b'\n') else {
        judge_v1_start(within)?;
        return if within.len() == MAX_V1 { Err(ProxyError::NoEndOfLine) } else { Ok(None) };
    };
    let line = within
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .ok_or(ProxyError::NoEndOfLine)?;
    let words = line.strip_prefix(SIGNATURE_V1).ok_or(ProxyError::NoHeader)?;
    let addresses = match words {
        // What stands behind the word is to be ignored (§2.1).
        b"UNKNOWN" | [b'U', b'N', b'K', b'N', b'O', b'W', b'N', b' ', ..] => None,
        _ => Some(v1_addresses(words).ok_or(ProxyError::Line)?),
    };
    Ok(Some((Header { addresses, ..Header::default() }, end + 1)))
}

/// Refuses a line that is not complete as soon as no end could make it one.
fn judge_v1_start(line: &[u8]) -> Result<(), ProxyError> {
    let Some(words) = line.strip_prefix(SIGNATURE_V1) else { return Ok(()) };
    let known = |word: &&[u8]| words.iter().zip(*word).all(|(octet, expected)| octet == expected);
    let Some(word) = [&b"TCP4 "[..], b"TCP6 ", b"UNKNOWN"].into_iter().find(known) else {
        return Err(ProxyError::Line);
    };
    let plain = |octet: &u8| octet.is_ascii_hexdigit() || matches!(octet, b'.' | b':' | b' ');
    let addresses = words.get(word.len()..).unwrap_or_default();
    let addresses = addresses.strip_suffix(b"\r").unwrap_or(addresses);
    if word.starts_with(b"TCP") && !addresses.iter().all(plain) {
        Err(ProxyError::Line)
    } else {
        Ok(())
    }
}

fn v1_addresses(words: &[u8]) -> Option<Addresses> {
    let mut words = std::str::from_utf8(words).ok()?.split(' ');
    let protocol = words.next()?;
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    let (source, destination) = match protocol {
        "TCP4" => both::<Ipv4Addr>(source, destination)?,
        "TCP6" => both::<Ipv6Addr>(source, destination)?,
        _ => return None,
    };
    Some(Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn both<Address: FromStr + Into<IpAddr>>(one: &str, other: &str) -> Option<(IpAddr, IpAddr)> {
    let read = |written: &str| Address::from_str(written).ok().map(Into::into);
    Some((read(one)?, read(other)?))
}

/// Decimal digits without a sign or a leading zero (§2.1).
fn port(written: &str) -> Option<u16> {
    let plain = written.bytes().all(|octet| octet.is_ascii_digit());
    let padded = written.len() > 1 && written.starts_with('0');
    if plain && !padded { written.parse().ok() } else { None }
}

fn parse_v2(received: &[u8]) -> Read<'_> {
    begins(received, &SIGNATURE_V2)?;
    let fixed = received.get(SIGNATURE_V2.len()..).unwrap_or_default();
    if let Some(&command) = fixed.first().filter(|&&octet| octet != V2_PROXY && octet != V2_LOCAL) {
        return Err(ProxyError::Command(command));
    }
    // The upper half is a family up to AF_UNIX, the lower a transport up to DGRAM.
    if let Some(&family) = fixed.get(1).filter(|&&octet| octet >> 4 > 3 || octet & 0x0f > 2) {
        return Err(ProxyError::Family(family));
    }
    let Some(&[command, family, high, low]) = fixed.first_chunk() else { return Ok(None) };
    let length = PREFIX_V2 + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 {
        return Err(ProxyError::TooLong(length));
    }
    let Some(whole) = received.get(..length) else { return Ok(None) };
    let header = if command == V2_LOCAL { Header::default() } else { v2_header(whole, family)? };
    Ok(Some((header, length)))
}

fn v2_header(whole: &[u8], family: u8) -> Result<Header<'_>, ProxyError> {
    let body = whole.get(PREFIX_V2..).unwrap_or_default();
    // How long addresses are that nobody knows is not known either, so nothing behind them can be read.
    let Some(room) = address_room(family) else { return Ok(Header::default()) };
    let (addresses, tlvs) = body.split_at_checked(room).ok_or(ProxyError::NoAddresses)?;
    let mut header = Header { addresses: v2_addresses(family, addresses), ..Header::default() };
    read_tlvs(whole, tlvs, &mut header)?;
    Ok(header)
}

/// Bytes of both addresses and ports of a family (§2.2).
fn address_room(family: u8) -> Option<usize> {
    match family >> 4 {
        1 => Some(12),
        2 => Some(36),
        3 => Some(216),
        _ => None,
    }
}

/// The addresses of TCP over IP; all else falls back to the connection's own (§2.2, end).
fn v2_addresses(family: u8, body: &[u8]) -> Option<Addresses> {
    let (ips, ports) = body.split_at_checked(body.len().checked_sub(4)?)?;
    let &[source_high, source_low, high, low] = ports.first_chunk()?;
    let (source, destination) = ips.split_at_checked(ips.len() / 2)?;
    let address = |octets: &[u8]| match family {
        0x11 => octets.try_into().ok().map(|octets: [u8; 4]| IpAddr::from(octets)),
        0x21 => octets.try_into().ok().map(|octets: [u8; 16]| IpAddr::from(octets)),
        _ => None,
    };
    Some(Addresses {
        source: SocketAddr::new(address(source)?, u16::from_be_bytes([source_high, source_low])),
        destination: SocketAddr::new(address(destination)?, u16::from_be_bytes([high, low])),
    })
}

fn read_tlvs<'a>(
    whole: &[u8],
    mut rest: &'a [u8],
    header: &mut Header<'a>,
) -> Result<(), ProxyError> {
    let mut checked = false;
    while let Some(&kind) = rest.first() {
        let wrong = ProxyError::Tlv(kind);
        let (&[_, high, low], behind) = rest.split_first_chunk().ok_or(wrong)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, after) = behind.split_at_checked(length).ok_or(wrong)?;
        let again = match kind {
            AUTHORITY => {
                header.authority.replace(std::str::from_utf8(value).map_err(|_| wrong)?).is_some()
            }
            UNIQUE_ID if value.len() > MAX_UNIQUE_ID => true,
            UNIQUE_ID => header.unique_id.replace(value).is_some(),
            CRC32C => {
                check_sum(whole, whole.len() - behind.len(), value, wrong)?;
                std::mem::replace(&mut checked, true)
            }
            _ => false,
        };
        if again {
            return Err(wrong);
        }
        rest = after;
    }
    Ok(())
}

/// The sum over the whole header, where it stands itself as zeros (§2.2.3).
fn check_sum(whole: &[u8], at: usize, value: &[u8], wrong: ProxyError) -> Result<(), ProxyError> {
    let value: [u8; 4] = value.try_into().map_err(|_| wrong)?;
    let octets = whole.iter().enumerate();
    let blanked =
        octets.map(|(index, &octet)| if (at..at + 4).contains(&index) { 0 } else { octet });
    if crc32c(blanked) == u32::from_be_bytes(value) { Ok(()) } else { Err(ProxyError::Checksum) }
}

/// CRC-32C (RFC 3720 §B.4), bit by bit: 4 KiB at most, and few senders put one in.
fn crc32c(octets: impl Iterator<Item = u8>) -> u32 {
    /// The polynomial 0x1edc6f41, lowest bit first.
    const REVERSED: u32 = 0x82f6_3b78;
    let shift = |sum: u32, _| (sum >> 1) ^ if sum & 1 == 1 { REVERSED } else { 0 };
    !octets.fold(!0, |sum, octet| (0..8).fold(sum ^ u32::from(octet), shift))
}

/// Whether there is nothing yet that the signature does not have.
fn begins(received: &[u8], signature: &[u8]) -> Result<(), ProxyError> {
    if received.iter().zip(signature).all(|(octet, expected)| octet == expected) {
        Ok(())
    } else {
        Err(ProxyError::NoHeader)
    }
}

/// IPv4 where both ends are, mapped or not; else IPv6 with a mapped IPv4 address where one is.
fn encode_addresses(body: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) -> u8 {
    let family = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            body.extend([source, destination].iter().flat_map(Ipv4Addr::octets));
            0x11
        }
        (source, destination) => {
            body.extend([source, destination].map(as_v6).iter().flat_map(Ipv6Addr::octets));
            0x21
        }
    };
    body.extend([source, destination].iter().flat_map(|address| address.port().to_be_bytes()));
    family
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn encode_tlv(body: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    body.push(kind);
    body.extend(length.to_be_bytes());
    body.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(written: &str) -> SocketAddr {
        written.parse().unwrap()
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap();
        [&SIGNATURE_V2[..], &[command, family], &length.to_be_bytes(), body].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        encode_tlv(&mut body, kind, value);
        body
    }

    fn wrong(bytes: &[u8]) -> ProxyError {
        match parse(bytes) {
            Parsed::Wrong(error) => error,
            Parsed::NeedMore | Parsed::Header { .. } => panic!("not refused: {bytes:?}"),
        }
    }

    #[test]
    fn a_line_names_both_ends() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 8443\r\n\x16\x03";
        let addresses = Addresses {
            source: address("192.0.2.1:1000"),
            destination: address("198.51.100.2:8443"),
        };
        let header = Header { addresses: Some(addresses), ..Header::default() };
        assert_eq!(parse(line), Parsed::Header { header, length: 45 });
        for end in 0..45 {
            assert_eq!(parse(&line[..end]), Parsed::NeedMore, "{end}");
        }
    }

    #[test]
    fn who_cannot_say_speaks_for_itself() {
        let unix = v2(V2_PROXY, 0x31, &[7; 216]);
        let datagrams = v2(V2_PROXY, 0x12, &[7; 12]);
        for bytes in [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY UNKNOWN ffff:f...f:ffff whatever\r\n",
            &v2(V2_LOCAL, 0, &[]),
            &v2(V2_LOCAL, 0x11, &[1, 2, 3]),
            &v2(V2_PROXY, 0, &[1, 2, 3]),
            &unix,
            &datagrams,
        ] {
            assert_eq!(
                parse(bytes),
                Parsed::Header { header: Header::default(), length: bytes.len() }
            );
        }
    }

    #[test]
    fn a_line_is_taken_literally() {
        for line in [
            "PROXY TCP4 192.0.2.1  198.51.100.2 1000 8443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1000 8443 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1000\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 1000 8443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 01000 8443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1000 8443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1000 65536\r\n",
            "PROXY TCP4 ::1 ::1 1000 8443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1000 8443\r\n",
            "PROXY TCP6 ::1%1 ::1 1000 8443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1000 8443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(wrong(line.as_bytes()), ProxyError::Line, "{line:?}");
        }
        assert_eq!(
            wrong(b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 8443\n"),
            ProxyError::NoEndOfLine
        );
        assert_eq!(wrong(&[b"PROXY UNKNOWN", &[b' '; 94][..]].concat()), ProxyError::NoEndOfLine);
        assert_eq!(parse(&[b"PROXY UNKNOWN", &[b' '; 93][..]].concat()), Parsed::NeedMore);
    }

    #[test]
    fn the_first_impossible_byte_decides() {
        for (bytes, error) in [
            (&b"\x16"[..], ProxyError::NoHeader),
            (b"PRI", ProxyError::NoHeader),
            (b"\r\n\r\n\r", ProxyError::NoHeader),
            (b"PROXY T4", ProxyError::Line),
            (b"PROXY TCP4 1/", ProxyError::Line),
            (b"\r\n\r\n\0\r\nQUIT\n\x11", ProxyError::Command(0x11)),
            (b"\r\n\r\n\0\r\nQUIT\n\x22", ProxyError::Command(0x22)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x41", ProxyError::Family(0x41)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x13", ProxyError::Family(0x13)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xf1", ProxyError::TooLong(4097)),
        ] {
            assert_eq!(wrong(bytes), error, "{bytes:?}");
            assert_eq!(parse(&bytes[..bytes.len() - 1]), Parsed::NeedMore, "{bytes:?}");
        }
    }

    #[test]
    fn tlvs_are_walked_to_the_end() {
        let addresses = [1; 12];
        let body =
            |tlvs: &[Vec<u8>]| v2(V2_PROXY, 0x11, &[&addresses[..], &tlvs.concat()].concat());
        let whole =
            body(&[tlv(0x04, b"padding"), tlv(AUTHORITY, b"a.example"), tlv(UNIQUE_ID, &[9; 128])]);
        let Parsed::Header { header, .. } = parse(&whole) else { panic!("refused") };
        let walked = [(0x04, &b"padding"[..]), (AUTHORITY, b"a.example"), (UNIQUE_ID, &[9; 128])];
        assert_eq!(super::tlvs(&whole).collect::<Vec<_>>(), walked);
        assert_eq!(header.authority, Some("a.example"));
        assert_eq!(header.unique_id, Some(&[9; 128][..]));
        for (tlvs, kind) in [
            (vec![tlv(UNIQUE_ID, &[9; 129])], UNIQUE_ID),
            (vec![tlv(AUTHORITY, b"a"), tlv(AUTHORITY, b"a")], AUTHORITY),
            (vec![tlv(AUTHORITY, b"\xff")], AUTHORITY),
            (vec![tlv(CRC32C, b"abc")], CRC32C),
            (vec![vec![0x04]], 0x04),
            (vec![vec![0x04, 0, 1]], 0x04),
        ] {
            assert_eq!(wrong(&body(&tlvs)), ProxyError::Tlv(kind));
        }
        assert_eq!(wrong(&v2(V2_PROXY, 0x11, &[1; 11])), ProxyError::NoAddresses);
    }

    #[test]
    fn a_checksum_must_hold() {
        // RFC 3720 §B.4.
        assert_eq!(crc32c(std::iter::repeat_n(0, 32)), 0x8a91_36aa);
        let mut whole = v2(
            V2_PROXY,
            0x11,
            &[&[1; 12][..], &tlv(CRC32C, &[0; 4]), &tlv(0x04, b"behind")].concat(),
        );
        let sum = crc32c(whole.iter().copied());
        whole[PREFIX_V2 + 12 + 3..][..4].copy_from_slice(&sum.to_be_bytes());
        assert!(matches!(parse(&whole), Parsed::Header { .. }));
        *whole.last_mut().unwrap() ^= 1;
        assert_eq!(wrong(&whole), ProxyError::Checksum);
    }

    #[test]
    fn mixed_families_are_sent_as_ipv6() {
        let bytes = encode(address("192.0.2.1:1"), address("[2001:db8::1]:2"), "a.example", b"id");
        let Parsed::Header { header, .. } = parse(&bytes) else { panic!("refused") };
        assert_eq!(header.addresses.unwrap().source, address("[::ffff:192.0.2.1]:1"));
        let bytes =
            encode(address("[::ffff:192.0.2.1]:1"), address("192.0.2.2:2"), "a.example", b"id");
        let Parsed::Header { header, .. } = parse(&bytes) else { panic!("refused") };
        assert_eq!(header.addresses.unwrap().source, address("192.0.2.1:1"));
    }

    /// Two addresses of one family.
    fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = any::<[(u32, u16); 2]>().prop_map(|ends| {
            ends.map(|(ip, port)| SocketAddr::new(Ipv4Addr::from(ip).into(), port))
        });
        // Mapped addresses are sent as IPv4.
        let v6 = any::<[(u64, u64, u16); 2]>().prop_map(|ends| {
            ends.map(|(high, low, port)| {
                let ip = (u128::from(high | 1 << 63) << 64) | u128::from(low);
                SocketAddr::new(Ipv6Addr::from(ip).into(), port)
            })
        });
        prop_oneof![v4, v6].prop_map(|[source, destination]| (source, destination))
    }

    proptest! {
        #[test]
        fn ppp_reads_what_is_sent((source, destination) in ends(), authority in "[a-z.]{1,253}", id in prop::collection::vec(any::<u8>(), 0..=128)) {
            let bytes = encode(source, destination, &authority, &id);
            let read = ppp::v2::Header::try_from(&bytes[..]).unwrap();
            let expected = ppp::v2::Addresses::from((source, destination));
            prop_assert_eq!(read.addresses, expected);
            let tlvs: Vec<_> = read.tlvs().map(|tlv| tlv.unwrap()).map(|tlv| (tlv.kind, tlv.value.to_vec())).collect();
            prop_assert_eq!(tlvs, [(AUTHORITY, authority.as_bytes().to_vec()), (UNIQUE_ID, id.clone())]);
            let header = Header { addresses: Some(Addresses { source, destination }), authority: Some(&authority), unique_id: Some(&id) };
            prop_assert_eq!(parse(&bytes), Parsed::Header { header, length: bytes.len() });
        }

        #[test]
        fn what_ppp_writes_is_read((source, destination) in ends(), id in prop::collection::vec(any::<u8>(), 0..=128)) {
            let bytes = ppp::v2::Builder::with_addresses(V2_PROXY, ppp::v2::Protocol::Stream, (source, destination))
                .write_tlv(UNIQUE_ID, &id).unwrap().build().unwrap();
            let header = Header { addresses: Some(Addresses { source, destination }), authority: None, unique_id: Some(&id) };
            prop_assert_eq!(parse(&bytes), Parsed::Header { header, length: bytes.len() });
            let line = ppp::v1::Addresses::from((source, destination)).to_string();
            let header = Header { addresses: Some(Addresses { source, destination }), ..Header::default() };
            prop_assert_eq!(parse(line.as_bytes()), Parsed::Header { header, length: line.len() });
        }

        #[test]
        fn what_is_accepted_ppp_accepts(
            (source, destination) in ends(),
            second in any::<bool>(),
            spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = if second {
                encode(source, destination, "a.example", b"id")
            } else {
                ppp::v1::Addresses::from((source, destination)).to_string().into_bytes()
            };
            for (at, octet) in spoils {
                let at = at.index(bytes.len());
                bytes[at] = octet;
            }
            let whole = parse(&bytes);
            if let Parsed::Header { header: Header { addresses: Some(_), .. }, length } = whole {
                let header = &bytes[..length];
                prop_assert!(ppp::v2::Header::try_from(header).is_ok() || ppp::v1::Header::try_from(header).is_ok());
            }
            // A beginning is never refused where the whole is not, and never read as another header.
            let beginning = parse(&bytes[..cut.index(bytes.len() + 1)]);
            match (&beginning, &whole) {
                // Which error is told may depend on how much is there; that there is one may not.
                (Parsed::NeedMore, _) | (Parsed::Wrong(_), Parsed::Wrong(_)) => {}
                (Parsed::Header { .. } | Parsed::Wrong(_), _) => prop_assert_eq!(&beginning, &whole),
            }
        }

        #[test]
        fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0..3usize) {
            let start = [&b""[..], SIGNATURE_V1, &SIGNATURE_V2][start];
            let bytes = [start, &bytes].concat();
            if let Parsed::Header { length, .. } = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
