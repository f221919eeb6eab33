//! A gateway with a million routes from a file: its memory, its start, a change of the file, and what connections notice of it.
//!
//! `cargo bench --bench million_routes`. A process of its own is measured, from outside. Every call goes by a route of the file to
//! one of 256 addresses, and its reply must come from the one that the route names, with the hello unchanged: anything else
//! ends the bench. `STRAIT=file` measures another binary, such as the image's. Without `--bench`, as `cargo test --benches` runs it, all of it is done once with two thousand routes.

#[path = "../tests/common/hello.rs"]
mod hello;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hello::hello;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Failure>;

/// Threads that make them: so many may be late together before others are.
const CALLERS: u32 = 8;
/// A step that takes so long has failed.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between looks whether a change is in force.
const LOOK: Duration = Duration::from_millis(2);
/// How long connections are watched before each change, to compare.
const QUIET: Duration = Duration::from_millis(500);
/// What a call by the new route of a change asks for.
const FRESH: &str = "fresh";

/// How much is done.
#[derive(Clone, Copy)]
struct Extent {
    routes: usize,
    /// Connections that begin in a second, at fixed times.
    rate: u32,
    starts: usize,
    swaps: usize,
}

const WHOLE: Extent = Extent { routes: 1_000_000, rate: 1000, starts: 5, swaps: 8 };
const SMOKE: Extent = Extent { routes: 2000, rate: 100, starts: 1, swaps: 1 };

/// What the names and endpoints of a file look like.
#[derive(Clone, Copy)]
enum Form {
    /// 33 octets, 256 lists of endpoints.
    Short,
    /// 48 octets, 256 lists of endpoints.
    Long,
    /// 33 octets, each with an endpoint of its own.
    Distinct,
}

impl Form {
    fn name(self, number: usize) -> String {
        let tenant = number % 1000;
        match self {
            Self::Short | Self::Distinct => {
                format!("host{number:07}.tenant{tenant:03}.example.net")
            }
            Self::Long => format!("checkout-{number:07}-dapr.team-{tenant:03}.svc.cluster.local"),
        }
    }

    /// The address that a call by the route with this number must come from.
    fn address(self, number: usize) -> Ipv4Addr {
        let (first, number) = match self {
            Self::Short | Self::Long => (Ipv4Addr::new(127, 0, 2, 0), number % 256),
            Self::Distinct => (Ipv4Addr::new(127, 16, 0, 0), number),
        };
        Ipv4Addr::from(u32::from(first) + u32::try_from(number).unwrap_or_default())
    }

    fn write(self, to: &Path, extent: Extent, port: u16, fresh: usize) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(to)?);
        writeln!(file, "{FRESH}{fresh}.example {}:{port}", self.address(fresh))?;
        for number in 0..extent.routes {
            writeln!(file, "{} {}:{port}", self.name(number), self.address(number))?;
        }
        file.flush()
    }
}

/// Answers each hello with the address that was dialled and the hello itself.
fn backend() -> Outcome<u16> {
    let listener = Arc::new(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?);
    let port = listener.local_addr()?.port();
    for _ in 0..4 {
        let listener = Arc::clone(&listener);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // What is cut here fails at the caller.
                let _ = answer(stream);
            }
        });
    }
    Ok(port)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reply = match stream.local_addr()? {
        SocketAddr::V4(address) => address.ip().octets().to_vec(),
        SocketAddr::V6(_) => Vec::new(),
    };
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let start = reply.len() + head.len();
    reply.extend(head);
    reply.resize(start + usize::from(u16::from_be_bytes([head[3], head[4]])), 0);
    stream.read_exact(&mut reply[start..])?;
    stream.write_all(&reply)
}

/// A running gateway; killed when dropped.
struct Gateway {
    process: Child,
    port: u16,
}

impl Gateway {
    /// Starts it, and says how long it took from exec to the end of the first call.
    fn start(folder: &Path, form: Form) -> Outcome<(Self, Duration)> {
        // Free a moment ago: whoever takes it now makes the bench fail.
        let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port();
        let config = format!(
            "cluster: bench\nlisteners:\n  ingress: [{{ address: \"0.0.0.0:{port}\" }}]\n  admin: {{ address: \"unix:{}/admin\" }}\n\
             log: {{ connections: none }}\nroutesFiles: [names.map]\n",
            folder.display()
        );
        fs::write(folder.join("strait.yaml"), config)?;
        let begun = Instant::now();
        let program = std::env::var_os("STRAIT").unwrap_or(env!("CARGO_BIN_EXE_strait").into());
        let process = Command::new(program)
            .args(["run", "--config"])
            .arg(folder.join("strait.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log"))?)
            .spawn()?;
        let gateway = Self { process, port };
        let first = (form.name(0), form.address(0));
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if begun.elapsed() > PATIENCE {
                return Err(format!("no start: {}", fs::read_to_string(folder.join("log"))?).into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        gateway.call(&first.0, first.1, 0)?;
        Ok((gateway, begun.elapsed()))
    }

    /// A call by a route, whose reply must be right. `turn` spreads calls over addresses, so that ports do not run out.
    fn call(&self, name: &str, from: Ipv4Addr, turn: usize) -> Outcome<()> {
        let to = Ipv4Addr::new(127, 0, 3, u8::try_from(turn % 250 + 1).unwrap_or(1));
        let mut stream = TcpStream::connect((to, self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let hello = hello(name.as_bytes());
        stream.write_all(&hello)?;
        let mut reply = vec![0; from.octets().len() + hello.len()];
        stream.read_exact(&mut reply)?;
        let wanted = [&from.octets()[..], &hello].concat();
        if reply == wanted { Ok(()) } else { Err(format!("{name}: a wrong reply").into()) }
    }

    /// Resident memory and the most that there ever was, in MB.
    fn memory(&self) -> Outcome<(f64, f64)> {
        let of = |file: &str, key: &str| -> Outcome<f64> {
            let text = fs::read_to_string(format!("/proc/{}/{file}", self.process.id()))?;
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).map(str::trim);
            Ok(kib.ok_or("no such figure")?.parse::<f64>()? * 1024.0 / 1e6)
        };
        Ok((of("smaps_rollup", "Rss:")?, of("status", "VmHWM:")?))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Calls at fixed times until told to stop. Each is counted from the time at which it should have begun.
fn callers(
    gateway: &Gateway,
    form: Form,
    extent: Extent,
    done: &AtomicBool,
    times: &Mutex<Vec<(Instant, Duration)>>,
) -> Outcome<()> {
    let begun = Instant::now();
    let caller = |number: u32| -> Outcome<()> {
        for turn in (number..).step_by(CALLERS as usize) {
            let due = begun + Duration::from_secs(1) * turn / extent.rate;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if done.load(Ordering::Acquire) {
                break;
            }
            // A prime apart: no two calls soon after each other go by neighbouring lines.
            let (turn, route) = (turn as usize, turn as usize * 617_411 % extent.routes);
            gateway.call(&form.name(route), form.address(route), turn)?;
            times.lock().map_err(|_| "a caller panicked")?.push((due, due.elapsed()));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let callers: Vec<_> =
            (0..CALLERS).map(|number| scope.spawn(move || caller(number))).collect();
        callers.into_iter().try_for_each(|caller| caller.join().map_err(|_| "a caller panicked")?)
    })
}

/// Puts a file with one new name in place, and waits for the first call by it.
fn swap(gateway: &Gateway, folder: &Path, form: Form, fresh: usize) -> Outcome<Duration> {
    let begun = Instant::now();
    fs::rename(folder.join("next.map"), folder.join("names.map"))?;
    let name = format!("{FRESH}{fresh}.example");
    while gateway.call(&name, form.address(fresh), fresh).is_err() {
        if begun.elapsed() > PATIENCE {
            return Err("the change did not come into force".into());
        }
        thread::sleep(LOOK);
    }
    Ok(begun.elapsed())
}

/// What was measured under changes of the file.
#[derive(Default)]
struct Swaps {
    took: Vec<Duration>,
    quiet: Vec<Duration>,
    rebuilding: Vec<Duration>,
}

fn swaps(
    gateway: &Gateway,
    folder: &Path,
    form: Form,
    extent: Extent,
    port: u16,
) -> Outcome<Swaps> {
    let (done, times) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let mut swaps = Swaps::default();
    let mut spans = Vec::new();
    thread::scope(|scope| {
        let calling = scope.spawn(|| callers(gateway, form, extent, &done, &times));
        let changing = (1..=extent.swaps).try_for_each(|fresh| -> Outcome<()> {
            form.write(&folder.join("next.map"), extent, port, fresh)?;
            // The watch on the folder has seen the writing: let that pass.
            thread::sleep(QUIET);
            let before = Instant::now();
            // As many looks as while it changes: they are calls too.
            while before.elapsed() < QUIET {
                gateway.call(
                    &format!("{FRESH}{}.example", fresh - 1),
                    form.address(fresh - 1),
                    fresh,
                )?;
                thread::sleep(LOOK);
            }
            let change = Instant::now();
            let took = swap(gateway, folder, form, fresh)?;
            spans.push((before, change, change + took));
            swaps.took.push(took);
            Ok(())
        });
        done.store(true, Ordering::Release);
        calling.join().map_err(|_| "the callers panicked")??;
        changing
    })?;
    for (due, took) in times.into_inner()? {
        for (before, change, end) in &spans {
            if (*before..*change).contains(&due) {
                swaps.quiet.push(took);
            } else if (*change..*end).contains(&due) {
                swaps.rebuilding.push(took);
            }
        }
    }
    Ok(swaps)
}

/// The value below which a share of the values lies, in milliseconds.
fn quantile(values: &mut [Duration], share: f64) -> f64 {
    values.sort_unstable();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = (values.len().saturating_sub(1) as f64 * share).round() as usize;
    values.get(index).map_or(f64::NAN, |value| value.as_secs_f64() * 1e3)
}

/// A line of the report: what, the figure, what must be and what should be.
fn row(report: &mut String, what: &str, figure: &str, bounds: &str) {
    let _ = writeln!(report, "{what:52} {figure:>16}   {bounds}");
}

fn measure(extent: Extent) -> Outcome<String> {
    let folder = tempfile::tempdir()?;
    let (port, mut report) = (backend()?, String::new());
    for (form, what, bounds) in [
        (Form::Short, "names of 33 octets", "must 80, goal 55"),
        (Form::Long, "names of 48 octets", "must 80, goal 55"),
        (Form::Distinct, "an endpoint for each name", "-"),
    ] {
        let names = folder.path().join("names.map");
        form.write(&names, extent, port, 0)?;
        let mut starts = Vec::new();
        let mut last = None;
        for _ in 0..extent.starts {
            drop(last.take());
            let (gateway, took) = Gateway::start(folder.path(), form)?;
            starts.push(took);
            last = Some(gateway);
        }
        let Some(gateway) = last else { return Err("no start".into()) };
        let (now, most) = gateway.memory()?;
        row(
            &mut report,
            &format!("{what}: memory, MB (most ever)"),
            &format!("{now:.1} ({most:.1})"),
            bounds,
        );
        let start = quantile(&mut starts, 0.5);
        row(
            &mut report,
            "  start, exec to first served, ms",
            &format!("{start:.0}"),
            "must 600, goal 350",
        );
        let mut measured = swaps(&gateway, folder.path(), form, extent, port)?;
        let took = quantile(&mut measured.took, 0.5);
        let (quiet, rebuilding) =
            (quantile(&mut measured.quiet, 0.99), quantile(&mut measured.rebuilding, 0.99));
        row(
            &mut report,
            "  swap under load, rename to first call, ms",
            &format!("{took:.0}"),
            "must 500, goal 250",
        );
        row(
            &mut report,
            &format!("  p99 of {} calls meanwhile, ms", measured.rebuilding.len()),
            &format!("{rebuilding:.2}"),
            &format!("{:.2} × quiet {quiet:.2}: must 4, goal 1.3", rebuilding / quiet),
        );
        let (now, most) = gateway.memory()?;
        row(
            &mut report,
            "  memory after the swaps, MB (most ever)",
            &format!("{now:.1} ({most:.1})"),
            bounds,
        );
    }
    Ok(report)
}

#[allow(clippy::print_stdout, reason = "the report is what this is for")]
fn main() -> Outcome<()> {
    let whole = std::env::args().any(|argument| argument == "--bench");
    let extent = if whole { WHOLE } else { SMOKE };
    println!("{} routes, {} connections a second", extent.routes, extent.rate);
    print!("{}", measure(extent)?);
    Ok(())
}
