//! The corpus of hellos in `tests/hellos`, played against the binary: each case ends as its manifest says, at once where it is a
//! refusal. The same play as `tests/hellos/run_hellos.py`, several cases at a time.

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use serde::Deserialize;
use socket2::SockRef;

use common::gateway::Gateway;
use common::{noise, wait_until};

/// `limits.helloTimeout` of the gateways.
const DEADLINE: Duration = Duration::from_secs(3);
/// A refusal has to come within this time after the last byte sent.
const PROMPT: Duration = Duration::from_secs(1);
/// How long after the deadline a connection may still be open.
const GRACE: Duration = Duration::from_millis(1500);
/// A case that ended within this time did not end by the deadline.
const BEFORE: Duration = Duration::from_millis(2700);
/// What is judged wrong only shortly before the deadline may as well be refused then.
const LATE: Duration = Duration::from_secs(2);
/// Gateways at work, each with endpoints of its own, so that what arrives there belongs to one case. Most cases wait for time to
/// pass, not for a processor.
const GATEWAYS: usize = 8;
/// Cases in the corpus. A smaller number means that cases were lost, not that all is well.
const CASES: usize = 281;

#[derive(Deserialize)]
struct Manifest {
    routes: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Clone, Deserialize)]
struct Case {
    name: String,
    expect: Vec<String>,
    plan: Plan,
    after: After,
    file: PathBuf,
}

/// In which pieces the client sends.
#[derive(Clone, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
enum Plan {
    Whole,
    Chunks { size: usize, delay_ms: u64 },
    Cuts { at: Vec<usize>, delay_ms: u64 },
}

/// What the client does once everything is sent.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum After {
    Hold,
    Fin,
    Rst,
}

/// How a case ended, in the manifest's words, and how long after its last byte.
struct Outcome {
    what: String,
    seconds: f64,
    note: String,
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hellos")
}

#[test]
fn every_hello_ends_as_its_manifest_says() {
    let manifest: Manifest =
        serde_json::from_slice(&fs::read(corpus().join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest.cases.len(), CASES);
    let mut cases = manifest.cases.clone();
    // Those that take until the deadline first, or the last of them would make everybody wait.
    cases.sort_by_key(|case| !case.expect.contains(&"stall".to_owned()));
    let queue = Mutex::new(VecDeque::from(cases));
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..GATEWAYS {
            scope.spawn(|| {
                let stage = Stage::new(&manifest.routes);
                while let Some(case) = { queue.lock().unwrap().pop_front() } {
                    let outcome = stage.play(&case);
                    if !passes(&case, &outcome) {
                        let record = stage.gateway.lines().pop().unwrap_or_default();
                        wrong.lock().unwrap().push(describe(&case, &outcome, &record));
                    }
                }
                assert!(stage.gateway.get("/healthz").is_ok_and(|answer| answer.status == 200));
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {CASES} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn passes(case: &Case, outcome: &Outcome) -> bool {
    // What is judged wrong before the deadline may be refused before it.
    let early = outcome.what == "reject"
        && case.expect == ["stall"]
        && outcome.seconds > LATE.as_secs_f64();
    early || case.expect.contains(&outcome.what)
}

fn describe(case: &Case, outcome: &Outcome, record: &str) -> String {
    let Outcome { what, seconds, note } = outcome;
    format!(
        "{}: wanted {}, got {what} after {seconds:.2} s {note}\n  {record}",
        case.name,
        case.expect.join("|")
    )
}

/// A gateway with its endpoints.
struct Stage {
    gateway: Gateway,
    ingress: SocketAddr,
    arrivals: Arc<Mutex<Vec<Arc<Arrival>>>>,
}

/// A connection at an endpoint.
struct Arrival {
    endpoint: String,
    stream: TcpStream,
    bytes: Mutex<Vec<u8>>,
    ended: AtomicBool,
}

impl Arrival {
    fn has(&self, bytes: &[u8]) -> bool {
        self.bytes.lock().unwrap().len() >= bytes.len()
    }

    fn collect(&self) {
        let mut buffer = vec![0; 65536];
        while let Ok(length @ 1..) = (&self.stream).read(&mut buffer) {
            self.bytes.lock().unwrap().extend_from_slice(&buffer[..length]);
        }
        self.ended.store(true, Ordering::Release);
    }
}

impl Stage {
    fn new(routes: &BTreeMap<String, String>) -> Self {
        let arrivals = Arc::default();
        let mut endpoints = BTreeMap::new();
        for endpoint in routes.values() {
            endpoints.entry(endpoint).or_insert_with(|| listen(endpoint, Arc::clone(&arrivals)));
        }
        let routes: Vec<String> = routes
            .iter()
            .map(|(name, at)| {
                format!("  - {{ name: \"{name}\", endpoints: [\"{}\"] }}", endpoints[at])
            })
            .collect();
        let routes = routes.join("\n");
        let timeout = DEADLINE.as_secs();
        let gateway =
            Gateway::start(&format!("limits: {{ helloTimeout: {timeout}s }}\nroutes:\n{routes}\n"));
        let ingress = gateway.ingress();
        Self { gateway, ingress, arrivals }
    }

    fn play(&self, case: &Case) -> Outcome {
        for old in self.arrivals.lock().unwrap().drain(..) {
            let _ = old.stream.shutdown(Shutdown::Both);
        }
        // Many cases share a hello, and one that the gateway still dials for would count as a loop.
        wait_until("the case before is over", || self.gateway.status()["connections"]["open"] == 0);
        let bytes = fs::read(corpus().join(&case.file)).unwrap();
        let mut client = Client::connect(self.ingress);
        let sent_whole = client.send(&pieces(&case.plan, &bytes));
        let sent = Instant::now();
        if client.closed.is_none() {
            match case.after {
                After::Hold => {}
                After::Fin => drop(client.stream.shutdown(Shutdown::Write)),
                After::Rst => return self.reset(client),
            }
        }
        let limit = sent.max(client.since + DEADLINE) + GRACE;
        loop {
            if let Some(arrival) = self.whole_arrival(&bytes).filter(|_| sent_whole) {
                return self.reply(&mut client, case, &arrival, &bytes, sent);
            }
            if client.closed.is_some() || Instant::now() > limit {
                return self.refusal(&client, sent);
            }
            client.pump(Duration::from_millis(20));
        }
    }

    fn whole_arrival(&self, bytes: &[u8]) -> Option<Arc<Arrival>> {
        let arrivals = self.arrivals.lock().unwrap();
        let mut whole = arrivals.iter().filter(|arrival| !bytes.is_empty() && arrival.has(bytes));
        whole.next().map(Arc::clone)
    }

    /// Endpoints that got bytes.
    fn touched(&self) -> Vec<Arc<Arrival>> {
        let arrivals = self.arrivals.lock().unwrap();
        arrivals.iter().filter(|arrival| arrival.has(&[0])).map(Arc::clone).collect()
    }

    /// The client resets; no endpoint may have heard of it, then or a little later.
    fn reset(&self, client: Client) -> Outcome {
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        thread::sleep(Duration::from_millis(400));
        let what = if self.touched().is_empty() { "reject" } else { "corrupt" };
        Outcome { what: what.to_owned(), seconds: 0.4, note: String::new() }
    }

    /// The hello has arrived: answers it, and sees whether all bytes and ends came through.
    fn reply(
        &self,
        client: &mut Client,
        case: &Case,
        arrival: &Arrival,
        bytes: &[u8],
        sent: Instant,
    ) -> Outcome {
        let seconds = sent.elapsed().as_secs_f64();
        let fin = case.after == After::Fin;
        let carried = Instant::now() + DEADLINE;
        while fin && !arrival.ended.load(Ordering::Acquire) && Instant::now() < carried {
            thread::sleep(Duration::from_millis(5));
        }
        let reply = noise(bytes.len() as u64, 64);
        let mut stream = &arrival.stream;
        let replied = stream.write_all(&reply).and_then(|()| stream.shutdown(Shutdown::Write));
        let limit = Instant::now() + DEADLINE;
        while client.closed.is_none() && Instant::now() < limit {
            client.pump(Duration::from_millis(10));
        }
        let wrong = if *arrival.bytes.lock().unwrap() != bytes {
            "other bytes at the endpoint"
        } else if self.touched().len() > 1 {
            "several endpoints touched"
        } else if replied.is_err() || client.got != reply {
            "the reply was lost"
        } else if fin && !arrival.ended.load(Ordering::Acquire) {
            "the client's end was not carried"
        } else {
            let what = format!("route:{}", arrival.endpoint);
            return Outcome { what, seconds, note: String::new() };
        };
        Outcome { what: "corrupt".to_owned(), seconds, note: wrong.to_owned() }
    }

    /// The hello has not arrived.
    fn refusal(&self, client: &Client, sent: Instant) -> Outcome {
        // For an endpoint that is dialled all the same.
        thread::sleep(Duration::from_millis(60));
        let ended = client.closed.unwrap_or_else(Instant::now);
        let after = ended.saturating_duration_since(sent);
        let soon =
            after <= PROMPT && (ended < client.since + BEFORE || sent < client.since + BEFORE);
        let what = match (self.touched().is_empty(), client.closed) {
            (false, _) => "corrupt",
            (true, None) => "hang",
            (true, Some(_)) if soon => "reject",
            (true, Some(_)) => "stall",
        };
        let note =
            format!("({:.2?} after the connect; got {:?})", ended - client.since, client.got);
        Outcome { what: what.to_owned(), seconds: after.as_secs_f64(), note }
    }
}

fn listen(endpoint: &str, arrivals: Arc<Mutex<Vec<Arc<Arrival>>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, endpoint) = (listener.local_addr().unwrap(), endpoint.to_owned());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (endpoint, bytes, ended) =
                (endpoint.clone(), Mutex::default(), AtomicBool::new(false));
            let arrival = Arc::new(Arrival { endpoint, stream, bytes, ended });
            arrivals.lock().unwrap().push(Arc::clone(&arrival));
            thread::spawn(move || arrival.collect());
        }
    });
    address
}

/// The pieces of a plan and the pause after each.
fn pieces<'a>(plan: &Plan, bytes: &'a [u8]) -> Vec<(&'a [u8], Duration)> {
    let (pieces, pause): (Vec<&[u8]>, u64) = match plan {
        Plan::Whole => (vec![bytes], 0),
        Plan::Chunks { size, delay_ms } => (bytes.chunks(*size).collect(), *delay_ms),
        Plan::Cuts { at, delay_ms } => {
            let ends = at.iter().copied().chain([bytes.len()]);
            let starts = [0].into_iter().chain(at.iter().copied());
            (starts.zip(ends).map(|(start, end)| &bytes[start..end]).collect(), *delay_ms)
        }
    };
    pieces.into_iter().map(|piece| (piece, Duration::from_millis(pause))).collect()
}

/// The client of one case.
struct Client {
    stream: TcpStream,
    since: Instant,
    got: Vec<u8>,
    closed: Option<Instant>,
}

impl Client {
    fn connect(gateway: SocketAddr) -> Self {
        let stream = TcpStream::connect(gateway).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, since: Instant::now(), got: Vec::new(), closed: None }
    }

    /// Sends until everything is sent, which is what it gives back, or the other side ends the connection.
    fn send(&mut self, pieces: &[(&[u8], Duration)]) -> bool {
        for (at, (piece, pause)) in pieces.iter().enumerate() {
            if self.stream.write_all(piece).is_err() {
                self.closed.get_or_insert_with(Instant::now);
                return false;
            }
            let until = Instant::now() + *pause;
            while at + 1 < pieces.len() && self.closed.is_none() && Instant::now() < until {
                self.pump(until.saturating_duration_since(Instant::now()));
            }
            if self.closed.is_some() {
                return at + 1 == pieces.len();
            }
        }
        true
    }

    /// Reads what comes within some time.
    fn pump(&mut self, within: Duration) {
        // Not a read timeout, which the kernel rounds up to its tick: a plan's pause of a millisecond would become ten.
        let within = within.try_into().unwrap();
        let mut ready = [PollFd::new(&self.stream, PollFlags::IN)];
        if poll(&mut ready, Some(&within)).unwrap() == 0 {
            return;
        }
        let mut buffer = vec![0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(length @ 1..) => self.got.extend_from_slice(&buffer[..length]),
            Ok(0) | Err(_) => self.closed = Some(Instant::now()),
        }
    }
}
