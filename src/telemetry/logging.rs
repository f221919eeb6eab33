//! Logs go to stderr: for people on a terminal, as JSON everywhere else.
//!
//! Fields of the JSON lines that stay what they are: `timestamp` (RFC 3339, UTC), `level`, `message`, `target`, then the event's
//! own fields beside them.
//!
//! A thread of its own writes, behind a bounded queue: whoever reads stderr too slowly loses lines, which are counted, and never
//! stops a connection. A closed stderr loses them all.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::thread;

use tracing::{Dispatch, error, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for the writer: about 8 MiB at 500 bytes a line, some seconds of a busy gateway.
const QUEUE_LINES: usize = 16_384;

/// What is logged without `STRAIT_LOG` and `RUST_LOG`.
const DEFAULT_FILTER: &str = "info";

/// Logging that is set up. Dropping it writes what waits, for a second at most.
#[derive(Debug)]
#[must_use = "dropping this ends logging"]
pub struct Logging {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// For people, with colour or without.
    Human {
        /// Whether ANSI colours are used.
        colour: bool,
    },
    /// One JSON object a line.
    Json,
}

impl Logging {
    /// Starts logging to stderr, for the whole process, panics included. The first call counts.
    pub fn start() -> Self {
        let (lines, logging) = Self::over(io::stderr());
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let (filter, complaint) = filter(DEFAULT_FILTER, variable);
        let dispatch = subscriber(lines, Format::of_stderr(), filter);
        // Fails only when something has been set before, as in tests: what is there stays.
        let _ = tracing::dispatcher::set_global_default(dispatch);
        if let Some(complaint) = complaint {
            warn!("{complaint}");
        }
        panic::set_hook(Box::new(log_panic));
        logging
    }

    /// Starts logging as JSON into `out`, for a command that reads the lines itself: the environment has no say in which.
    pub fn start_into(out: impl Write + Send + 'static) -> Self {
        let (lines, logging) = Self::over(out);
        let dispatch = subscriber(lines, Format::Json, EnvFilter::new(DEFAULT_FILTER));
        let _ = tracing::dispatcher::set_global_default(dispatch);
        logging
    }

    /// Log lines lost so far because the queue was full.
    pub fn dropped_lines(&self) -> u64 {
        dropped_lines(&self.dropped)
    }

    /// The same for a closure that outlives the borrow, such as the scrape's.
    pub fn dropped_lines_counter(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let dropped = self.dropped.clone();
        move || dropped_lines(&dropped)
    }

    fn over(out: impl Write + Send + 'static) -> (NonBlocking, Self) {
        // Buffered: the writer flushes whenever its queue is empty, so a burst costs few system calls and a single line no delay.
        let (lines, writer) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUE_LINES)
            .thread_name("log")
            .finish(BufWriter::new(out));
        let dropped = lines.error_counter();
        (lines, Self { dropped, _writer: writer })
    }
}

/// Instead of std's hook: that one writes past the queue, so it would be stopped by whoever does not read stderr, and between
/// JSON lines it is none.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    error!(
        place = panic.location().map(tracing::field::display),
        thread = thread::current().name(),
        backtrace = captured.then(|| tracing::field::display(&backtrace)),
        "a fault of the gateway, please report it: {}",
        panic.payload_as_str().unwrap_or("a panic without a message")
    );
}

impl Format {
    /// Colour needs a terminal, and `NO_COLOR` (no-color.org) not to be set.
    fn of_stderr() -> Self {
        if io::stderr().is_terminal() {
            let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            Self::Human { colour: !unwanted }
        } else {
            Self::Json
        }
    }
}

fn dropped_lines(dropped: &ErrorCounter) -> u64 {
    u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX)
}

/// The filter of the first variable that is set, and what is wrong with it: a typing mistake in a variable must not keep a
/// gateway from starting.
fn filter(default: &str, variable: impl Fn(&str) -> Option<String>) -> (EnvFilter, Option<String>) {
    let set = ["STRAIT_LOG", "RUST_LOG"].iter().find_map(|name| Some((name, variable(name)?)));
    let Some((name, written)) = set else {
        return (EnvFilter::new(default), None);
    };
    match EnvFilter::builder().parse(&written) {
        Ok(filter) => (filter, None),
        Err(error) => {
            let complaint = format!(
                "{name}={written:?} is no filter ({error}); logging at {DEFAULT_FILTER}. Write a level, or levels by module: \
                 info,strait::proxy=debug"
            );
            (EnvFilter::new(DEFAULT_FILTER), Some(complaint))
        }
    }
}

fn subscriber(
    out: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
    format: Format,
    filter: EnvFilter,
) -> Dispatch {
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(out);
    match format {
        Format::Human { colour } => {
            builder.with_ansi(colour).with_target(false).compact().finish().into()
        }
        // Flat, because the fields are what an operator queries; without spans, which would repeat them.
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};
    use tracing::dispatcher::with_default;
    use tracing::{debug, info};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Says when a write begins and blocks until the other end of the second channel is gone.
    struct Blocked(Sender<()>, Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(());
            let _ = self.1.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, event: impl FnOnce()) -> String {
        let memory = Memory::default();
        let (lines, logging) = Logging::over(memory.clone());
        with_default(&subscriber(lines, format, EnvFilter::new("info")), event);
        drop(logging);
        memory.text()
    }

    #[test]
    fn json_lines_have_the_fields_that_are_promised() {
        let text = logged(Format::Json, || {
            info!(route = "shop/checkout", bytes_up = 7, "connection");
            debug!("below the level");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["bytes_up", "level", "message", "route", "target", "timestamp"]);
        assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"connection".into()));
        assert_eq!(line["bytes_up"], 7);
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn colour_is_only_where_it_is_asked_for() {
        let plain = logged(Format::Human { colour: false }, || info!(route = "a", "hello"));
        assert!(plain.contains("hello") && plain.contains("route=\"a\""), "{plain}");
        assert!(!plain.contains('\x1b'), "{plain:?}");
        let coloured = logged(Format::Human { colour: true }, || info!("hello"));
        assert!(coloured.contains('\x1b'), "{coloured:?}");
    }

    #[test]
    fn a_panic_is_a_line_like_any_other() {
        let before = panic::take_hook();
        panic::set_hook(Box::new(log_panic));
        let text = logged(Format::Json, || {
            let _ = panic::catch_unwind(|| panic!("at \"one\"\nplace"));
        });
        panic::set_hook(before);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert!(line["message"].as_str().unwrap().ends_with("at \"one\"\nplace"), "{line}");
        assert!(line["place"].as_str().unwrap().contains("logging.rs"), "{line}");
    }

    #[test]
    fn what_a_client_sent_cannot_write_lines_or_colours() {
        for format in [Format::Json, Format::Human { colour: false }] {
            let text = logged(format, || info!(name = "a\nb\x1b[31m", "connection"));
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(!text.contains('\x1b'), "{text:?}");
        }
    }

    #[test]
    fn a_blocked_reader_loses_lines_and_stops_nobody() {
        let (begun, begins) = channel();
        let (release, released) = channel::<()>();
        let (mut lines, logging) = Logging::over(Blocked(begun, released));
        // Over the buffer, so that the writer thread is known to hang in a write.
        lines.write_all(&vec![b'x'; 64 * 1024]).unwrap();
        begins.recv().unwrap();
        for _ in 0..QUEUE_LINES + 5 {
            lines.write_all(b"line\n").unwrap();
        }
        assert_eq!(logging.dropped_lines(), 5);
        assert_eq!(logging.dropped_lines_counter()(), 5);
        drop(release);
    }

    #[test]
    fn a_closed_stderr_loses_lines_and_nothing_else() {
        struct Closed(Sender<()>);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                let _ = self.0.send(());
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (attempt, attempts) = channel();
        let (mut lines, logging) = Logging::over(Closed(attempt));
        // The writer lives on after a failed write: it tries the next line too.
        for _ in 0..2 {
            lines.write_all(b"line\n").unwrap();
            attempts.recv().unwrap();
        }
        drop(logging);
    }

    #[test]
    fn a_wrong_filter_is_told_and_logging_goes_on() {
        let environment = |name: &str| (name == "RUST_LOG").then(|| "strait=loud".to_owned());
        let (used, complaint) = filter(DEFAULT_FILTER, environment);
        assert_eq!(used.to_string(), DEFAULT_FILTER);
        assert!(complaint.unwrap().starts_with("RUST_LOG=\"strait=loud\" is no filter"));
        let (used, complaint) = filter(DEFAULT_FILTER, |name| {
            Some(if name == "STRAIT_LOG" { "warn" } else { "x=" }.to_owned())
        });
        assert_eq!((used.to_string().as_str(), complaint), ("warn", None));
    }
}
