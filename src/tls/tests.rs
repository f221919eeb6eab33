//! Files that are there, are not, change and go bad.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::UnixTime;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::*;

/// Far beyond what a loaded machine needs; a test that fails takes so long, one that passes does not.
const BOUND: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_hours(1);
const DAY: time::Duration = time::Duration::DAY;

/// A folder as `link.directory`, and the authority of what is in it.
struct Folder {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Folder {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let anchor = params.self_signed(&key).unwrap().pem();
        let folder = tempfile::tempdir().unwrap();
        let made = Self { folder, issuer: Issuer::new(params, key) };
        made.write(ANCHORS, &anchor);
        made.issue(30);
        made
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// By renaming, as everything that writes certificates does.
    fn write(&self, file: &str, text: &str) {
        let beside = self.path(".new");
        fs::write(&beside, text).unwrap();
        fs::set_permissions(&beside, Permissions::from_mode(0o600)).unwrap();
        fs::rename(beside, self.path(file)).unwrap();
    }

    /// Another certificate and key, good for so many days.
    fn issue(&self, days: i64) {
        let mut params = CertificateParams::default();
        params.not_after = OffsetDateTime::now_utc() + DAY * i32::try_from(days).unwrap();
        let key = KeyPair::generate().unwrap();
        self.write(KEY, &key.serialize_pem());
        self.write(CHAIN, &params.signed_by(&key, &self.issuer).unwrap().pem());
    }

    fn list(&self, days: i32) -> String {
        let now = OffsetDateTime::now_utc();
        let list = CertificateRevocationListParams {
            this_update: now - DAY,
            next_update: now + DAY * days,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    fn files(&self) -> Files {
        let directory = self.folder.path().to_owned();
        Files { directory, has_anchors: true, allow_readable_key: false, bundles: BTreeSet::new() }
    }

    fn load(&self) -> Result<Renewed, Vec<FileError>> {
        self.files().load(&anybody)
    }

    fn material(&self) -> Material {
        self.load().unwrap().material
    }

    fn renewed(&self, last: &Material) -> (Material, Vec<String>) {
        let Renewed { material, problems } = self.files().renew(last, &anybody);
        (material, problems.iter().map(ToString::to_string).collect())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for a `Judge`")]
fn anybody(_: &[CertificateDer<'static>]) -> Result<(), (String, String)> {
    Ok(())
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let folder = Folder::new();
    fs::remove_file(folder.path(KEY)).unwrap();
    folder.write(ANCHORS, "no certificate");
    folder.write(REVOKED, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    let mut files = folder.files();
    files.bundles.insert(folder.path("east.crt"));
    let errors = files.load(&anybody).unwrap_err();
    let told: Vec<_> = errors.iter().map(|error| error.path.file_name().unwrap()).collect();
    assert_eq!(told, ["tls.key", "ca.crt", "east.crt", "crl.pem"]);
    assert!(errors.iter().all(|error| !error.message.is_empty() && !error.fix.is_empty()));
}

#[test]
fn certificate_and_key_belong_together() {
    let folder = Folder::new();
    folder.write(KEY, &KeyPair::generate().unwrap().serialize_pem());
    let errors = folder.load().unwrap_err();
    assert!(errors[0].message.contains("not the key of"), "{errors:?}");
    let refuse: &Judge = &|_| Err(("of somebody else".into(), "ask for another".into()));
    let folder = Folder::new();
    let errors = folder.files().load(refuse).unwrap_err();
    assert_eq!((&*errors[0].message, &*errors[0].fix), ("of somebody else", "ask for another"));
}

#[test]
fn a_key_that_others_can_read_is_refused_unless_it_is_meant() {
    let folder = Folder::new();
    let mode = |mode| fs::set_permissions(folder.path(KEY), Permissions::from_mode(mode)).unwrap();
    for open in [0o604, 0o644] {
        mode(open);
        let errors = folder.load().unwrap_err();
        assert!(errors[0].message.contains("can read the private key"), "{errors:?}");
        let files = Files { allow_readable_key: true, ..folder.files() };
        assert!(files.load(&anybody).unwrap().problems.is_empty());
    }
    mode(0o600);
    folder.load().unwrap();
}

#[test]
fn in_a_kubernetes_volume_an_open_key_is_a_warning() {
    let folder = Folder::new();
    fs::create_dir(folder.path("..2026")).unwrap();
    symlink("..2026", folder.path("..data")).unwrap();
    for file in [CHAIN, KEY, ANCHORS] {
        fs::rename(folder.path(file), folder.path("..2026").join(file)).unwrap();
        symlink(Path::new("..data").join(file), folder.path(file)).unwrap();
    }
    fs::set_permissions(folder.path("..2026/tls.key"), Permissions::from_mode(0o644)).unwrap();
    let problems = folder.load().unwrap().problems;
    assert_eq!(problems.len(), 1);
    assert!(problems[0].fix.contains("defaultMode"), "{problems:?}");
}

#[test]
fn what_goes_bad_leaves_the_last_good_one_and_the_rest_goes_on() {
    let folder = Folder::new();
    folder.write(REVOKED, &folder.list(1));
    let first = folder.material();
    // Half of a rotation: a new key, and the old certificate.
    folder.write(KEY, &KeyPair::generate().unwrap().serialize_pem());
    let two = [folder.list(1), folder.list(2)].concat();
    folder.write(REVOKED, &two);
    let (second, problems) = folder.renewed(&first);
    assert!(Arc::ptr_eq(&first.identity, &second.identity));
    assert_eq!(second.revoked.len(), 2);
    assert!(problems[0].contains("tls.key: it is not the key of"), "{problems:?}");
    // The other half, and a list that is garbled, then gone.
    folder.issue(30);
    folder.write(REVOKED, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    let (third, problems) = folder.renewed(&second);
    assert!(!Arc::ptr_eq(&first.identity, &third.identity));
    assert_eq!((third.revoked.len(), problems.len()), (2, 1));
    fs::remove_file(folder.path(REVOKED)).unwrap();
    let (fourth, problems) = folder.renewed(&third);
    assert_eq!(fourth.revoked.len(), 2);
    assert!(problems[0].contains("stays revoked"), "{problems:?}");
    folder.write(ANCHORS, "");
    let (fifth, problems) = folder.renewed(&fourth);
    assert!(Arc::ptr_eq(&fourth.anchors, &fifth.anchors));
    assert!(problems.iter().any(|problem| problem.contains("ca.crt: it holds no certificate")));
}

#[tokio::test]
async fn a_change_is_seen_each_time_and_no_change_is_none() {
    let folder = Folder::new();
    let first = folder.material();
    let mut follower = Follower::new(folder.files(), Arc::new(anybody), first, NEVER);
    let mut next = async || timeout(BOUND, follower.changed()).await.expect("a change is seen");
    // What changed between the first reading and the watch would be seen by a look at once.
    let mut last = next().await.material;
    for _ in 0..3 {
        folder.issue(30);
        // Certificate and key come one after the other: a look in between keeps the last good pair.
        let mut renewed = next().await;
        while Arc::ptr_eq(&renewed.material.identity, &last.identity)
            || !renewed.problems.is_empty()
        {
            renewed = next().await;
        }
        last = renewed.material;
    }
}

#[tokio::test]
async fn a_secret_is_followed_through_its_swaps() {
    let folder = Folder::new();
    let volume = tempfile::tempdir().unwrap();
    let swap = |name: &str| {
        let version = volume.path().join(format!("..{name}"));
        fs::create_dir(&version).unwrap();
        for file in [CHAIN, KEY, ANCHORS] {
            fs::copy(folder.path(file), version.join(file)).unwrap();
        }
        symlink(format!("..{name}"), volume.path().join("..data_tmp")).unwrap();
        fs::rename(volume.path().join("..data_tmp"), volume.path().join("..data")).unwrap();
    };
    swap("one");
    for file in [CHAIN, KEY, ANCHORS] {
        symlink(Path::new("..data").join(file), volume.path().join(file)).unwrap();
    }
    let files = Files { directory: volume.path().to_owned(), ..folder.files() };
    let first = files.load(&anybody).unwrap().material;
    let mut follower = Follower::new(files, Arc::new(anybody), first, NEVER);
    let mut last = timeout(BOUND, follower.changed()).await.unwrap().material;
    for version in ["two", "three", "four"] {
        folder.issue(30);
        swap(version);
        let renewed = timeout(BOUND, follower.changed()).await.expect("the swap is seen");
        assert_eq!(renewed.problems, []);
        assert!(!Arc::ptr_eq(&renewed.material.identity, &last.identity));
        last = renewed.material;
    }
}

#[test]
fn what_runs_out_is_known_two_weeks_before() {
    let folder = Folder::new();
    folder.issue(13);
    folder.write(REVOKED, &[folder.list(20), folder.list(15)].concat());
    let material = folder.material();
    let found = expiries(&folder.files(), &material);
    let roles: Vec<_> = found.iter().map(|expiry| expiry.role).collect();
    assert_eq!(roles, ["certificate", "crl"]);
    let now = UnixTime::now();
    let near: Vec<_> = found.iter().map(|expiry| expiry.is_near(now)).collect();
    assert_eq!(near, [true, false]);
    assert!(found.iter().all(|expiry| !expiry.is_past(now)));
    let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 14 * 24 * 3600));
    assert!(found[0].is_past(later) && !found[1].is_past(later));
}
