//! What a command proves to the admin API, and how it knows the gateway: tokens, certificates, TLS.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::ClientError;

/// The first token of a file. It may be the one that the gateway has, with its names and comments.
pub(super) fn token(file: &Path) -> Result<String, ClientError> {
    let text = fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
    let mut lines = text.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let line = line.ok_or_else(|| unreadable(file, &"there is no token in it"))?;
    let token = line.split_once(':').map_or(line, |(_, token)| token.trim());
    // What is not visible ASCII would be no header.
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(token.to_owned())
    } else {
        Err(unreadable(file, &"what it holds is no token"))
    }
}

/// Trusts the authorities of a file alone, and shows a certificate if there is one.
pub(super) fn config(
    anchors: &Path,
    own: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, ClientError> {
    let mut roots = RootCertStore::empty();
    for anchor in certificates(anchors)? {
        roots.add(anchor).map_err(|error| unreadable(anchors, &error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]);
    let builder =
        builder.map_err(|error| unreadable(anchors, &error))?.with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let found =
                PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
            let config = builder.with_client_auth_cert(certificates(chain)?, found);
            config.map_err(|error| unreadable(chain, &error))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let found =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| unreadable(file, &error))?;
    if found.is_empty() {
        Err(unreadable(file, &"there is no certificate in it"))
    } else {
        Ok(found)
    }
}

/// Speaks TLS with `host:port`.
pub(super) async fn connect(
    stream: TcpStream,
    place: &str,
    config: Option<&Arc<ClientConfig>>,
) -> io::Result<TlsStream<TcpStream>> {
    let config = config.ok_or_else(|| {
        io::Error::other("say with --ca-file which authority has issued the gateway's certificate")
    })?;
    let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

fn unreadable(file: &Path, error: &dyn fmt::Display) -> ClientError {
    ClientError::Unprovable(format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_first_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        for (text, expected) in [
            ("abc\n", Ok("abc")),
            ("# ours\n\n deploy: abc \nother\n", Ok("abc")),
            ("# only this", Err("no token in it")),
            ("a b", Err("is no token")),
        ] {
            fs::write(&file, text).unwrap();
            match (token(&file), expected) {
                (Ok(token), Ok(expected)) => assert_eq!(token, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (found, expected) => panic!("{text}: {found:?} and not {expected:?}"),
            }
        }
        assert!(config(&file, None).is_err(), "no certificate");
    }
}
