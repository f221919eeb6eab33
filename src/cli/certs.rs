//! `strait certs`: certificates to try links with, in the files that a gateway reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::output::{GOOD, HELP, Out, PLAIN, harmless, styled};
use super::table::Table;
use super::{Failed, Outcome};

/// A trial ends sooner. Long enough that nobody finds it expired the week after.
const LIFE: Duration = Duration::days(90);
/// The authority outlives what it signs, for clusters that are added later.
const AUTHORITY_LIFE: Duration = Duration::days(365);
/// Valid already a while ago: clocks of two clusters differ.
const SKEW: Duration = Duration::hours(1);

/// What to make, and where.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  strait certs tls --trust-domain example.org west east

Makes tls/west and tls/east with tls.crt, tls.key and ca.crt each: the folders to name as link.directory. The trial authority stays \
in tls, so that the same command adds another cluster later. Nothing is ever overwritten.

Exit codes:
  0  everything is made
  1  something is there already, or cannot be written
  2  the command line is wrong")]
pub struct CertsArguments {
    /// Where the folders are made
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    // No doc comment: rustdoc would take the name for a link that it should make.
    #[arg(
        long,
        value_name = "T",
        value_parser = trust_domain,
        help = "What the certificates' names begin with: spiffe://T/cluster/CLUSTER"
    )]
    trust_domain: String,
    /// Names of clusters, as `cluster:` in their configurations
    #[arg(value_name = "CLUSTER", required = true, value_parser = cluster)]
    clusters: Vec<String>,
}

/// Why nothing could be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertsError {
    #[error("{} is there already, and nothing is overwritten; remove it or take another folder", .0.display())]
    Exists(PathBuf),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} and ca.key belong together: one of them is missing", .0.display())]
    HalfAuthority(PathBuf),
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

impl From<CertsError> for Failed {
    fn from(error: CertsError) -> Self {
        Self::Gateway(error.to_string())
    }
}

/// Makes everything or, where something is in the way, nothing.
pub(super) fn certs(arguments: &CertsArguments, out: &mut Out) -> Result<Outcome, Failed> {
    let CertsArguments { directory, trust_domain, clusters } = arguments;
    let made = make(directory, trust_domain, clusters, OffsetDateTime::now_utc())?;
    let mut table = Table::new(["CLUSTER", "FOLDER", "CERTIFICATE OF"]);
    for Made { cluster, folder, uri } in &made {
        let folder = harmless(&folder.display().to_string());
        table.row([cluster.as_str().into(), folder.into(), uri.as_str().into()]);
    }
    table.print(&mut out.out)?;
    tell(out, directory, trust_domain)?;
    Ok(Outcome::Done)
}

fn tell(out: &mut Out, directory: &Path, trust_domain: &str) -> io::Result<()> {
    let out = &mut out.out;
    writeln!(
        out,
        "{}",
        styled(GOOD, "Copy each folder to its cluster's gateway, and write there:")
    )?;
    writeln!(out, "  link: {{ directory: FOLDER, trustDomain: {trust_domain} }}")?;
    writeln!(out)?;
    let key = harmless(&directory.join("ca.key").display().to_string());
    let life = LIFE.whole_days();
    writeln!(
        out,
        "{}",
        styled(
            HELP,
            &format!("For trials: good for {life} days, and whoever has {key} can be any cluster.")
        )
    )?;
    let real = "For real, let cert-manager, SPIRE or an authority of your own issue them: one URI name and no other,\n\
        spiffe://TRUST-DOMAIN/cluster/CLUSTER, for server and client authentication both.";
    real.lines().try_for_each(|line| writeln!(out, "{}", styled(PLAIN, line)))
}

/// What was made for one cluster.
#[derive(Debug)]
pub(super) struct Made {
    cluster: String,
    folder: PathBuf,
    uri: String,
}

/// For each cluster a folder under `directory`, as its gateway's `link.directory`.
pub(super) fn make(
    directory: &Path,
    trust_domain: &str,
    clusters: &[String],
    now: OffsetDateTime,
) -> Result<Vec<Made>, CertsError> {
    let folders = clusters.iter().map(|cluster| (cluster, directory.join(cluster)));
    if let Some((_, there)) = folders.clone().find(|(_, folder)| folder.exists()) {
        return Err(CertsError::Exists(there));
    }
    fs::create_dir_all(directory).map_err(|source| at(directory, source))?;
    let authority = Authority::there(directory)?;
    let authority = match authority {
        Some(authority) => authority,
        None => Authority::make(directory, trust_domain, now)?,
    };
    let made = folders.map(|(cluster, folder)| {
        let uri = format!("spiffe://{trust_domain}/cluster/{cluster}");
        authority.issue(&folder, cluster, &uri, now)?;
        Ok(Made { cluster: cluster.clone(), folder, uri })
    });
    made.collect()
}

/// Signs the gateways' certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// That of an earlier run.
    fn there(directory: &Path) -> Result<Option<Self>, CertsError> {
        let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        match (read(&certificate)?, read(&key)?) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let key = KeyPair::from_pem(&key)?;
                let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
                Ok(Some(Self { issuer, certificate }))
            }
            (Some(_), None) | (None, Some(_)) => Err(CertsError::HalfAuthority(certificate)),
        }
    }

    fn make(directory: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<Self, CertsError> {
        let mut params =
            params(&format!("Strait trial authority of {trust_domain}"), now, AUTHORITY_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        write(&directory.join("ca.key"), &key.serialize_pem(), 0o600)?;
        write(&directory.join("ca.crt"), &certificate, 0o644)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    fn issue(
        &self,
        folder: &Path,
        cluster: &str,
        uri: &str,
        now: OffsetDateTime,
    ) -> Result<(), CertsError> {
        let mut params = params(&format!("Strait gateway of {cluster}"), now, LIFE);
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        fs::create_dir(folder).map_err(|source| at(folder, source))?;
        write(&folder.join("tls.key"), &key.serialize_pem(), 0o600)?;
        write(&folder.join("tls.crt"), &certificate, 0o644)?;
        write(&folder.join("ca.crt"), &self.certificate, 0o644)
    }
}

fn params(name: &str, now: OffsetDateTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - SKEW;
    params.not_after = now + life;
    params
}

fn read(path: &Path) -> Result<Option<String>, CertsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(at(path, source)),
    }
}

/// Never over a file that is there, and with its mode from the first moment.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file: File| file.write_all(text.as_bytes()));
    written.map_err(|source| at(path, source))
}

fn at(path: &Path, source: io::Error) -> CertsError {
    if source.kind() == ErrorKind::AlreadyExists {
        CertsError::Exists(path.to_owned())
    } else {
        CertsError::File { path: path.to_owned(), source }
    }
}

fn trust_domain(written: &str) -> Result<String, String> {
    let plain = |octet: u8| {
        octet.is_ascii_lowercase() || octet.is_ascii_digit() || matches!(octet, b'.' | b'-' | b'_')
    };
    if (1..=255).contains(&written.len()) && written.bytes().all(plain) {
        Ok(written.to_owned())
    } else {
        Err("a trust domain has small letters, digits, dots, hyphens and underscores: example.org"
            .to_owned())
    }
}

fn cluster(written: &str) -> Result<String, String> {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    if (1..=63).contains(&written.len()) && written.bytes().all(plain) {
        Ok(written.to_owned())
    } else {
        Err("a cluster's name has up to 63 letters, digits and hyphens".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::testing::printed;
    use super::*;
    use crate::cluster::identity::ClusterId;
    use crate::cluster::{Links, Peer, judge_own};
    use crate::tls::Files;
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    fn arguments(directory: &Path, clusters: &[&str]) -> CertsArguments {
        CertsArguments {
            directory: directory.to_owned(),
            trust_domain: "example.org".into(),
            clusters: clusters.iter().map(|&cluster| cluster.to_owned()).collect(),
        }
    }

    fn id(cluster: &str) -> ClusterId {
        ClusterId::parse(&format!("spiffe://example.org/cluster/{cluster}")).unwrap()
    }

    #[test]
    fn what_it_makes_is_what_a_gateway_takes() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("tls");
        let arguments = arguments(&directory, &["west", "east"]);
        let (outcome, out, _) = printed(false, |out| certs(&arguments, out).unwrap());
        assert_eq!(outcome, Outcome::Done);
        for words in ["spiffe://example.org/cluster/east", "trustDomain: example.org", "For trials"]
        {
            assert!(out.contains(words), "{out}");
        }
        for cluster in ["west", "east"] {
            let files = Files {
                directory: directory.join(cluster),
                has_anchors: true,
                allow_readable_key: false,
                bundles: BTreeSet::new(),
            };
            let own = id(cluster);
            let loaded = files.load(&move |chain| judge_own(&own, chain)).unwrap();
            assert_eq!(loaded.problems, []);
            let anchors = Arc::clone(&loaded.material.anchors);
            let peer = Peer { id: id("north"), anchors };
            Links::new(&id(cluster), &loaded.material.identity, vec![peer], &[]).unwrap();
        }
        for key in ["ca.key", "west/tls.key"] {
            let mode = fs::metadata(directory.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_another_cluster_can_be_added() {
        let folder = tempfile::tempdir().unwrap();
        let make = |clusters| printed(false, |out| certs(&arguments(folder.path(), clusters), out));
        make(&["west"]).0.unwrap();
        let authority = fs::read(folder.path().join("ca.crt")).unwrap();
        let error = make(&["east", "west"]).0.unwrap_err().to_string();
        assert!(error.contains("/west is there already"), "{error}");
        assert!(!folder.path().join("east").exists(), "all or nothing");
        make(&["east"]).0.unwrap();
        assert_eq!(fs::read(folder.path().join("east/ca.crt")).unwrap(), authority);
        fs::remove_file(folder.path().join("ca.key")).unwrap();
        let error = make(&["north"]).0.unwrap_err().to_string();
        assert!(error.contains("belong together"), "{error}");
    }

    #[test]
    fn names_are_those_of_configurations() {
        for (name, good) in
            [("west", true), ("eu-1", true), ("", false), ("a/b", false), ("..", false)]
        {
            assert_eq!(cluster(name).is_ok(), good, "{name}");
        }
        for (name, good) in
            [("example.org", true), ("Example.org", false), ("a/b", false), ("", false)]
        {
            assert_eq!(trust_domain(name).is_ok(), good, "{name}");
        }
    }
}
