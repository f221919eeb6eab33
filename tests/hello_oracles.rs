//! The hello parser against others that read hellos: rustls' `Acceptor`, which judges as an endpoint does, and tls-parser,
//! which takes a hello apart and judges little. Hellos are real ones, made by rustls, and such with bytes changed.
//!
//! Known differences, all of them the gateway's: what [`stricter`] lists.

#[path = "common/verdict.rs"]
mod verdict;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use strait::model::name::CanonicalName;
use strait::proxy::hello::{HelloError, Progress};
use tls_parser::{TlsExtension, TlsMessage, TlsMessageHandshake};

/// What a rustls client sends first.
fn real_hello(name: &str, alpn: Vec<Vec<u8>>, fragment: Option<usize>, tls12: bool) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions =
        if tls12 { vec![&rustls::version::TLS12] } else { rustls::ALL_VERSIONS.to_vec() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn;
    config.max_fragment_size = fragment;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// The verdict on bytes that come in these pieces.
fn verdict(bytes: &[u8], cuts: &[Index]) -> Progress {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    verdict::verdict(bytes, cuts)
}

/// The name that rustls would serve, if it takes the hello.
fn acceptors_name(mut bytes: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return accepted.client_hello().server_name().map(str::to_owned);
        }
    }
    None
}

/// The message within the records, for an oracle that does not put them together.
fn message(mut bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk() {
        let Some((payload, rest)) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))
        else {
            break;
        };
        message.extend(payload);
        bytes = rest;
    }
    message
}

/// Every server name that tls-parser finds, with its type; none if it cannot read the hello to its end.
fn parsers_names(bytes: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let message = message(bytes);
    let (_, message) = tls_parser::parse_tls_message_handshake(&message).ok()?;
    let TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)) = message else {
        return None;
    };
    let (rest, extensions) = tls_parser::parse_tls_client_hello_extensions(hello.ext?).ok()?;
    let names = extensions.iter().filter_map(|extension| {
        let TlsExtension::SNI(names) = extension else { return None };
        Some(names.iter().map(|(kind, name)| (kind.0, name.to_vec())))
    });
    rest.is_empty().then(|| names.flatten().collect())
}

/// What the gateway refuses though rustls takes it.
fn stricter(error: HelloError) -> bool {
    match error {
        // rustls does not judge versions that it does not choose from, nor records that carry nothing.
        HelloError::RecordVersion(_)
        | HelloError::Version(_)
        | HelloError::Ssl3
        | HelloError::EmptyRecord
        // rustls takes the host name beside names of other types; which one an endpoint takes is not known here.
        | HelloError::SeveralNames => true,
        HelloError::NotTls(_)
        | HelloError::OtherRecord(_)
        | HelloError::LongRecord(_)
        | HelloError::OverLimit(_)
        | HelloError::OtherMessage(_)
        | HelloError::Length(_)
        | HelloError::NoName
        | HelloError::EmptyName
        | HelloError::SecondExtension
        | HelloError::NameType(_)
        | HelloError::Name(_) => false,
    }
}

fn hellos() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = prop::collection::vec("[a-zA-Z_][a-zA-Z0-9_]{0,30}", 1..6)
        .prop_map(|labels| labels.join("."));
    let alpn = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4);
    (name, alpn, prop::option::of(32usize..600), any::<bool>()).prop_map(
        |(name, alpn, fragment, tls12)| (name.clone(), real_hello(&name, alpn, fragment, tls12)),
    )
}

/// Where bytes are changed: half of them in the beginning, where the lengths stand, or around the name.
fn changes() -> impl Strategy<Value = Vec<(Index, Option<bool>, u8)>> {
    prop::collection::vec(
        (any::<Index>(), any::<Option<bool>>(), prop_oneof![any::<u8>(), 0u8..4]),
        1..4,
    )
}

fn change(bytes: &mut [u8], name: &str, changes: Vec<(Index, Option<bool>, u8)>) {
    let name_at = bytes
        .windows(name.len())
        .position(|part| part.eq_ignore_ascii_case(name.as_bytes()))
        .unwrap_or(0);
    for (at, place, octet) in changes {
        let at = match place {
            None => at.index(bytes.len()),
            Some(false) => at.index(100),
            Some(true) => {
                (name_at + at.index(name.len() + 18)).saturating_sub(9).min(bytes.len() - 1)
            }
        };
        bytes[at] = octet;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn real_hellos_are_taken_for_their_name((name, bytes) in hellos(), cuts in prop::collection::vec(any::<Index>(), 0..6)) {
        let Progress::Hello(hello) = verdict(&bytes, &cuts) else { panic!("{:?}", verdict(&bytes, &cuts)) };
        prop_assert_eq!(hello.name.as_str(), name.to_ascii_lowercase());
        prop_assert_eq!(acceptors_name(&bytes).map(|name| name.to_ascii_lowercase()), Some(name.to_ascii_lowercase()));
        prop_assert_eq!(&hello.random[..], &message(&bytes)[6..38]);
    }

    #[test]
    fn changed_hellos_are_judged_as_others_judge_them((name, mut bytes) in hellos(), changes in changes(), cuts in prop::collection::vec(any::<Index>(), 0..6)) {
        change(&mut bytes, &name, changes);
        let whole = verdict(&bytes, &[]);
        let same = |progress: &Progress| match progress {
            // Which protocol it is that is not TLS is told by what has come so far.
            Progress::Wrong(HelloError::NotTls(_)) => "not TLS".to_owned(),
            Progress::NeedMore | Progress::Hello(_) | Progress::Wrong(_) => format!("{progress:?}"),
        };
        prop_assert_eq!(same(&verdict(&bytes, &cuts)), same(&whole));
        let theirs = acceptors_name(&bytes).and_then(|name| CanonicalName::parse(name.as_bytes()).ok());
        match (whole, theirs) {
            (Progress::Hello(hello), theirs) => {
                // Neither can judge where it refuses for what the gateway leaves to the endpoint.
                prop_assert!(theirs.is_none_or(|theirs| theirs == hello.name));
                if let Some(names) = parsers_names(&bytes) {
                    prop_assert_eq!(names.len(), 1);
                    prop_assert_eq!(names[0].0, 0);
                    prop_assert_eq!(CanonicalName::parse(&names[0].1), Ok(hello.name));
                }
            }
            (Progress::NeedMore, theirs) => prop_assert_eq!(theirs, None),
            (Progress::Wrong(error), Some(theirs)) => prop_assert!(stricter(error), "{} for {:?}", error, theirs),
            (Progress::Wrong(_), None) => {}
        }
    }

    #[test]
    fn any_bytes_get_the_same_answer_however_they_come(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..4], 0..200),
        record in any::<bool>(),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let start: &[u8] = if record { &[22, 3, 1, 0, 120, 1, 0, 0, 116, 3, 3] } else { &[] };
        let bytes = [start, &bytes].concat();
        let effect = |progress| match progress {
            Progress::Wrong(error) => format!("{:?} {:?}", error.ending(), error.alert()),
            Progress::NeedMore | Progress::Hello(_) => format!("{progress:?}"),
        };
        prop_assert_eq!(effect(verdict(&bytes, &cuts)), effect(verdict(&bytes, &[])));
    }
}
