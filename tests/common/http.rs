//! As much HTTP/1.1 as the tests speak: a request with a body, an answer with a length.

use std::io::{self, BufRead, BufReader, Read, Write};

/// An answer's status and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The bytes of a request. `last` asks the server to close after it.
pub(crate) fn request(method: &str, path: &str, body: &[u8], last: bool) -> Vec<u8> {
    let connection = if last { "close" } else { "keep-alive" };
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Reads one answer.
pub(crate) fn answer(from: impl Read) -> io::Result<Answer> {
    let mut from = BufReader::new(from);
    let (first, length, _) = head(&mut from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = first.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Answer { status: status.ok_or(io::ErrorKind::InvalidData)?, body })
}

/// One request and its answer.
pub(crate) fn exchange(
    mut over: impl Read + Write,
    method: &str,
    path: &str,
    body: &[u8],
    last: bool,
) -> io::Result<Answer> {
    over.write_all(&request(method, path, body, last))?;
    over.flush()?;
    answer(over)
}

/// Reads one request: its body and whether it is the last one. `None` at the end of the stream.
pub(crate) fn asked(from: &mut impl BufRead) -> io::Result<Option<(Vec<u8>, bool)>> {
    let Some((_, length, last)) = head(from)? else { return Ok(None) };
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some((body, last)))
}

/// The first line, `Content-Length`, and whether `Connection` is `close`.
fn head(from: &mut impl BufRead) -> io::Result<Option<(String, usize, bool)>> {
    let mut first = String::new();
    if from.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let (mut length, mut last) = (0, false);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some((first, length, last)));
        }
        match line.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(("connection", value)) => last = value == "close",
            Some(_) | None => {}
        }
    }
}
