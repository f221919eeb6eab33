//! What a process and its children have used, as Linux tells.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};

/// A process and all below it.
#[derive(Debug, Clone)]
pub(crate) struct Processes(Vec<u32>);

impl Processes {
    pub(crate) fn of(process: Pid) -> io::Result<Self> {
        let process = u32::try_from(process.as_raw_nonzero().get()).map_err(io::Error::other)?;
        let parents = parents()?;
        let mut all = vec![process];
        let mut next = 0;
        while let Some(parent) = all.get(next).copied() {
            let children = parents.iter().filter(|(_, of)| *of == parent);
            all.extend(children.map(|(child, _)| *child));
            next += 1;
        }
        Ok(Self(all))
    }

    /// The time that their threads have spent on a processor, to the nanosecond (the first number of `schedstat`).
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let mut nanos = 0;
        for process in &self.0 {
            for thread in fs::read_dir(format!("/proc/{process}/task"))? {
                let text = fs::read_to_string(thread?.path().join("schedstat"))?;
                nanos += number(text.split_whitespace().next())?;
            }
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Octets of memory that are theirs alone and not backed by a file: what user space has written to.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let mut octets = 0;
        for process in &self.0 {
            let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
            octets += 1024 * number(line.and_then(|line| line.split_whitespace().next()))?;
        }
        Ok(octets)
    }
}

/// All processes, each with its parent.
fn parents() -> io::Result<Vec<(u32, u32)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(process) = entry?.file_name().to_string_lossy().parse() else { continue };
        // Gone in the meantime.
        let Ok(text) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        // Behind the program's name, which may hold anything: the state and the parent.
        let parent = text.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        all.extend(parent.and_then(|parent| parent.parse().ok()).map(|parent| (process, parent)));
    }
    Ok(all)
}

fn number(text: Option<&str>) -> io::Result<u64> {
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| io::Error::other("not what /proc looks like on Linux"))
}

/// Lets this process and what it starts have as many descriptors as the system allows; how many.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
