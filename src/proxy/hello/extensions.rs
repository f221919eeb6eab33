//! What only some hellos are asked for, so apart from the machine that reads all of them: protocols (ALPN, RFC 7301 §3.1) and early
//! data.

use std::borrow::Cow;

use super::{MESSAGE_HEADER, RANDOM, RECORD_HEADER};

/// `application_layer_protocol_negotiation` (RFC 7301 §6).
const ALPN: u16 = 16;
/// `early_data` (RFC 8446 §4.2.10).
const EARLY_DATA: u16 = 42;

/// Whether a hello offers exactly this one protocol. `received` begins with a hello that
/// [`HelloParser`](super::HelloParser) has found to be whole.
pub fn offers_only(received: &[u8], protocol: &[u8]) -> bool {
    let (message, _) = message(received);
    extension(&message, ALPN).is_some_and(|list| is_only(list, protocol))
}

/// Whether nothing follows a hello, nor will before the endpoint has answered: no early data. `received` begins with a hello that
/// [`HelloParser`](super::HelloParser) has found to be whole.
pub fn is_hello_alone(received: &[u8]) -> bool {
    let (message, rest) = message(received);
    rest.is_empty()
        && length_of(&message) == Some(message.len())
        && extension(&message, EARLY_DATA).is_none()
}

/// The hello without the headers of its records, and what follows the last of them.
fn message(received: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let mut whole = Cow::Borrowed(&[][..]);
    let mut rest = received;
    while let Some((&[_, _, _, high, low], behind)) = rest.split_first_chunk::<RECORD_HEADER>() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
        let (record, after) = behind.split_at_checked(length).unwrap_or_default();
        if whole.is_empty() {
            whole = Cow::Borrowed(record);
        } else {
            whole.to_mut().extend_from_slice(record);
        }
        rest = after;
        if length_of(&whole).is_some_and(|length| whole.len() >= length) {
            break;
        }
    }
    (whole, rest)
}

/// Octets of the message with its header, once that is there.
fn length_of(message: &[u8]) -> Option<usize> {
    let &[_, high, middle, low] = message.first_chunk::<MESSAGE_HEADER>()?;
    let body = u32::from_be_bytes([0, high, middle, low]);
    Some(MESSAGE_HEADER + usize::try_from(body).ok()?)
}

/// The body of an extension (RFC 8446 §4.1.2, §4.2).
fn extension(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let message = message.get(..length_of(message)?)?;
    // Version and random.
    let rest = message.get(MESSAGE_HEADER + 2 + RANDOM..)?;
    let (_session, rest) = short(rest)?;
    let (_ciphers, rest) = long(rest)?;
    let (_compression, rest) = short(rest)?;
    let (mut extensions, _) = long(rest)?;
    loop {
        let (&[high, low], rest) = extensions.split_first_chunk()?;
        let (body, rest) = long(rest)?;
        if u16::from_be_bytes([high, low]) == wanted {
            return Some(body);
        }
        extensions = rest;
    }
}

fn is_only(body: &[u8], protocol: &[u8]) -> bool {
    let only = long(body).and_then(|(list, behind)| {
        let (first, others) = short(list)?;
        (behind.is_empty() && others.is_empty()).then_some(first)
    });
    only == Some(protocol)
}

/// A vector with a length of one octet, and what follows it.
fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A vector with a length of two octets, and what follows it.
fn long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use std::sync::Arc;

    /// What a rustls client says first.
    fn hello(protocols: &[&str], fragment: Option<usize>) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.max_fragment_size = fragment;
        let name = ServerName::try_from("a.example").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut written = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut written).unwrap();
        }
        written
    }

    #[test]
    fn only_the_one_protocol_alone_is_it() {
        for (protocols, only) in [
            (&["strait/1"][..], true),
            (&["strait/1", "h2"], false),
            (&["h2", "strait/1"], false),
            (&["strait/10"], false),
            (&["strait/"], false),
            (&["h2"], false),
            (&[], false),
        ] {
            for fragment in [None, Some(64)] {
                let mut bytes = hello(protocols, fragment);
                assert!(is_hello_alone(&bytes));
                assert_eq!(offers_only(&bytes, b"strait/1"), only, "{protocols:?} {fragment:?}");
                bytes.extend(b"\x14\x03\x03\0\x01\x01");
                assert_eq!(offers_only(&bytes, b"strait/1"), only, "with more behind it");
                assert!(!is_hello_alone(&bytes));
                for end in 0..bytes.len() - 7 {
                    assert!(!offers_only(&bytes[..end], b"strait/1"), "not whole: {end}");
                }
            }
        }
    }

    #[test]
    fn a_hello_that_announces_early_data_is_not_alone() {
        let mut bytes = hello(&[], None);
        let length =
            |bytes: &[u8], at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        // Records, message and extensions, each with its length, grow by an empty extension.
        let session = RECORD_HEADER + MESSAGE_HEADER + 2 + RANDOM;
        let ciphers = session + 1 + usize::from(bytes[session]);
        let compression = ciphers + 2 + length(&bytes, ciphers);
        let extensions = compression + 1 + usize::from(bytes[compression]);
        for at in [3, RECORD_HEADER + 2, extensions] {
            let longer = u16::try_from(length(&bytes, at) + 4).unwrap();
            bytes[at..at + 2].copy_from_slice(&longer.to_be_bytes());
        }
        assert!(!is_hello_alone(&bytes), "not whole");
        bytes.extend([0, 42, 0, 0]);
        assert!(!is_hello_alone(&bytes));
        bytes[extensions + 2..].rotate_right(4);
        assert!(!is_hello_alone(&bytes));
        bytes[extensions + 3] = 43;
        assert!(is_hello_alone(&bytes));
    }
}
