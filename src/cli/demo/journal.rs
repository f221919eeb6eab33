//! What the gateways log: kept in a file for the reader, and read for what they say about a connection.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Records that are kept to be found. A chapter makes a few and asks for them at once; calls that flow have one connection each.
const KEPT: usize = 256;

/// The file grows no further: a demo that is left alone for days should not fill a disk.
const LONGEST_FILE: usize = 16 * 1024 * 1024;

/// A record is written when its connection has ended, by another thread.
const PATIENCE: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(5);

/// The log of all gateways. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Journal(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    file: Option<File>,
    written: usize,
    begun: Vec<u8>,
    records: VecDeque<Record>,
}

/// What a gateway says about a connection that has ended: fields of its log line.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    /// The same in the logs of both gateways of a link.
    pub(super) id: String,
    /// Where the connection comes from.
    client: String,
    /// The cluster that it comes from by a link.
    pub(super) cluster: Option<String>,
    /// The app that calls, as far as it is known.
    pub(super) caller: Option<String>,
    /// Why it ended.
    pub(super) ending: String,
    /// In words.
    pub(super) reason: Option<String>,
}

impl Journal {
    /// Keeps every line from now on in a file.
    pub(super) fn keep_in(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        self.with(|lines| lines.file = Some(file));
        Ok(())
    }

    /// The newest such record of the gateway that a caller has connected to itself.
    pub(super) async fn near(
        &self,
        source: Ipv4Addr,
        is: impl Fn(&Record) -> bool,
    ) -> Option<Record> {
        let source = format!("{source}:");
        let from = |it: &Record| it.cluster.is_none() && it.client.starts_with(&source);
        self.find(|record| from(record) && is(record)).await
    }

    /// The record of the same connection at the gateway behind the link.
    pub(super) async fn far(&self, near: &Record) -> Option<Record> {
        self.find(|record| record.cluster.is_some() && record.id == near.id).await
    }

    async fn find(&self, is: impl Fn(&Record) -> bool) -> Option<Record> {
        let began = Instant::now();
        loop {
            let found = self.with(|lines| lines.records.iter().rev().find(|it| is(it)).cloned());
            if found.is_some() || began.elapsed() > PATIENCE {
                return found;
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn with<T>(&self, then: impl FnOnce(&mut Lines) -> T) -> T {
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(file) = self.file.as_mut().filter(|_| self.written < LONGEST_FILE) {
            file.write_all(bytes)?;
            self.written += bytes.len();
        }
        self.begun.extend_from_slice(bytes);
        while let Some(end) = self.begun.iter().position(|&byte| byte == b'\n') {
            let rest = self.begun.split_off(end + 1);
            let line = std::mem::replace(&mut self.begun, rest);
            // Lines about other things lack these fields.
            if let Ok(record) = serde_json::from_slice(&line) {
                self.records.push_back(record);
            }
        }
        let surplus = self.records.len().saturating_sub(KEPT);
        self.records.drain(..surplus);
        Ok(())
    }
}

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|lines| lines.take(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, more: &str) -> String {
        format!("{{\"level\":\"INFO\",\"id\":\"{id}\",\"client\":\"127.1.0.10:77\"{more}}}\n")
    }

    #[tokio::test]
    async fn both_ends_of_a_link_are_found_by_the_id_in_whatever_pieces_they_come() {
        let mut journal = Journal::default();
        let text = [
            "{\"level\":\"INFO\",\"message\":\"ready\"}\n".to_owned(),
            line("a", ",\"ending\":\"denied\",\"reason\":\"no rule\",\"cluster\":\"west\""),
            line("a", ",\"ending\":\"refused_by_far\",\"reason\":\"east: no rule\""),
            line("b", ",\"ending\":\"completed\""),
        ];
        for piece in text.concat().as_bytes().chunks(7) {
            journal.write_all(piece).unwrap();
        }
        let source = Ipv4Addr::new(127, 1, 0, 10);
        let near = journal.near(source, |it| it.ending == "refused_by_far").await.unwrap();
        assert_eq!((&*near.id, near.reason.as_deref()), ("a", Some("east: no rule")));
        assert_eq!(journal.far(&near).await.unwrap().ending, "denied");
    }

    #[test]
    fn neither_memory_nor_file_grows_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, path) = (Journal::default(), folder.path().join("log"));
        journal.keep_in(&path).unwrap();
        for _ in 0..2 * KEPT {
            journal.write_all(line("a", ",\"ending\":\"completed\"").as_bytes()).unwrap();
        }
        journal.with(|lines| lines.written = LONGEST_FILE);
        let written = std::fs::metadata(&path).unwrap().len();
        journal.write_all(b"more\n").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), written);
        assert_eq!(journal.with(|lines| (lines.records.len(), lines.begun.len())), (KEPT, 0));
    }
}
