//! Every hello of the corpus through the parser: whole, byte by byte and cut at random, with the same verdict each time.

#[path = "common/verdict.rs"]
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;
use serde::Deserialize;
use strait::model::name::NamePattern;
use strait::proxy::hello::Progress;

use verdict::verdict;

/// RFC 7568 §3 asks for `protocol_version` where SSL 3.0 is offered; the corpus does not know this.
const RFC_7568: (&str, u8) = ("cv-0300-sni", 70);

#[derive(Deserialize)]
struct Manifest {
    routes: serde_json::Map<String, serde_json::Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    expect: Vec<String>,
    alerts: Vec<u8>,
    after: String,
    plan: serde_json::Value,
    file: PathBuf,
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hellos")
}

fn manifest() -> Manifest {
    serde_json::from_slice(&fs::read(corpus().join("manifest.json")).unwrap()).unwrap()
}

impl Manifest {
    /// Where a name goes: exact routes first, then the wildcard.
    fn route(&self, name: &str) -> Option<&str> {
        let covers = |written: &&String| NamePattern::parse(written).unwrap().covers(name);
        let route = self.routes.get_key_value(name).map(|(route, _)| route);
        let route = route.or_else(|| self.routes.keys().find(covers))?;
        self.routes[route].as_str()
    }

    /// The outcome in the manifest's words, and the alert that a refusal carries.
    fn outcome(&self, case: &Case, progress: &Progress) -> (String, Option<u8>) {
        match progress {
            // The last byte comes after the deadline, which is the connection's to keep.
            Progress::Hello(_) if case.expect == ["stall"] && case.plan["delay_ms"] != 0 => {
                ("stall".into(), None)
            }
            Progress::Hello(hello) => match self.route(hello.name.as_str()) {
                Some(route) => (format!("route:{route}"), None),
                None => ("reject".into(), None),
            },
            Progress::Wrong(error) => ("reject".into(), error.alert().map(|alert| alert as u8)),
            // Leaving is the connection's to notice.
            Progress::NeedMore if case.after != "hold" => ("reject".into(), None),
            Progress::NeedMore => ("stall".into(), None),
        }
    }
}

/// What a verdict does, without the name of the protocol that is not TLS: that is told by what has come so far.
fn effect(progress: &Progress) -> String {
    match progress {
        Progress::Wrong(error) => match error.alert() {
            Some(_) => format!("{error:?}"),
            None => format!("{:?}", error.ending()),
        },
        Progress::NeedMore | Progress::Hello(_) => format!("{progress:?}"),
    }
}

#[test]
fn every_hello_gets_the_verdict_that_it_must_get() {
    let manifest = manifest();
    assert_eq!(manifest.cases.len(), 281);
    for case in &manifest.cases {
        let bytes = fs::read(corpus().join(&case.file)).unwrap();
        let (outcome, alert) = manifest.outcome(case, &verdict(&bytes, []));
        assert!(case.expect.contains(&outcome), "{}: {outcome}", case.name);
        if let Some(alert) = alert.filter(|&alert| (&*case.name, alert) != RFC_7568) {
            assert!(case.alerts.contains(&alert), "{}: alert {alert}", case.name);
        }
    }
}

#[test]
fn cuts_change_no_verdict() {
    let mut random = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    for case in &manifest().cases {
        let bytes = fs::read(corpus().join(&case.file)).unwrap();
        // Nothing is read behind a verdict, and the longest hello is 16 KiB.
        let bytes = &bytes[..bytes.len().min(20_000)];
        let whole = effect(&verdict(bytes, []));
        assert_eq!(effect(&verdict(bytes, 0..bytes.len())), whole, "{} byte by byte", case.name);
        for _ in 0..20 {
            let mut cuts: Vec<_> = (0..5).map(|_| random.random_range(0..=bytes.len())).collect();
            cuts.sort_unstable();
            assert_eq!(effect(&verdict(bytes, cuts.clone())), whole, "{} at {cuts:?}", case.name);
        }
    }
}
