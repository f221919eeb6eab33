//! The only way to the terminal: colour where a person reads, none where a program does.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// A headline, and names of columns.
pub(super) const TITLE: Style = Style::new().bold();
/// What is as it should be.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What an operator should know.
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// What is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What an operator can do.
pub(super) const HELP: Style = AnsiColor::Cyan.on_default();
/// What matters less.
pub(super) const FAINT: Style = Style::new().dimmed();
/// Everything else.
pub(super) const PLAIN: Style = Style::new();

/// Standard output and standard error.
pub struct Out {
    /// What was asked for.
    pub(super) out: Stream,
    /// What went wrong, and what is to be known besides.
    pub(super) err: Stream,
}

/// One of the two. A reader that has gone, as `head` does, ends the output without an error.
pub(super) struct Stream {
    to: AutoStream<Box<dyn Write>>,
    gone: bool,
}

impl Out {
    /// The process's own, with colour where each of them is a terminal and nothing speaks against it (`NO_COLOR`).
    pub fn standard() -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let choices = (AutoStream::choice(&out), AutoStream::choice(&err));
        Self {
            out: Stream::new(Box::new(out), choices.0),
            err: Stream::new(Box::new(err), choices.1),
        }
    }
}

impl Stream {
    fn new(to: Box<dyn Write>, choice: ColorChoice) -> Self {
        Self { to: AutoStream::new(to, choice), gone: false }
    }

    fn unless_gone<T: Default>(&mut self, result: io::Result<T>) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(T::default())
            }
            other => other,
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.gone {
            let written = self.to.write(bytes);
            let written = self.unless_gone(written)?;
            if !self.gone {
                return Ok(written);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let flushed = self.to.flush();
        self.unless_gone(flushed)
    }
}

impl std::fmt::Debug for Out {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Out").finish_non_exhaustive()
    }
}

/// Text in a style. What steers a terminal is taken out: some of it comes from other machines.
pub(super) fn styled(style: Style, text: &str) -> String {
    let text = harmless(text);
    if style == PLAIN { text } else { format!("{style}{text}{style:#}") }
}

/// Without control characters.
pub(super) fn harmless(text: &str) -> String {
    let replace =
        |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    text.chars().map(replace).collect()
}

/// `1 error`, `2 errors`
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is printed on standard output and on standard error.
    pub(crate) fn printed<T>(
        terminal: bool,
        print: impl FnOnce(&mut Out) -> T,
    ) -> (T, String, String) {
        let choice = if terminal { ColorChoice::AlwaysAnsi } else { ColorChoice::Never };
        let (out, err) = (Memory::default(), Memory::default());
        let stream = |memory: &Memory| Stream::new(Box::new(memory.clone()), choice);
        let result = print(&mut Out { out: stream(&out), err: stream(&err) });
        let text = |memory: Memory| String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        (result, text(out), text(err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        let mut stream = Stream::new(Box::new(Gone), ColorChoice::Never);
        writeln!(stream, "a\nb").unwrap();
        stream.flush().unwrap();
    }

    #[test]
    fn nothing_from_elsewhere_steers_the_terminal() {
        assert_eq!(styled(PLAIN, "a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        let (.., printed) = testing::printed(true, |out| write!(out.err, "{}", styled(BAD, "no")));
        assert_eq!(printed, format!("{BAD}no{BAD:#}"));
    }
}
