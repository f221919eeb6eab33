//! A limit of memory as containers have it: a control group of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A group whose processes may use so much memory together, the kernel's for them included. Removed when dropped, which its
/// processes must not outlive.
pub(crate) struct Cgroup {
    folder: PathBuf,
    peak: &'static str,
}

impl Cgroup {
    /// Makes one. `None`: this machine does not let the test, or has no such groups.
    pub(crate) fn with_memory(bytes: u64) -> Option<Self> {
        // Version 1 has a hierarchy for each resource, version 2 one for all (cgroups(7)).
        let one = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes");
        let two = ("/sys/fs/cgroup", "memory.max", "memory.peak");
        [one, two].into_iter().find_map(|(root, limit, peak)| Self::at(root, limit, peak, bytes))
    }

    fn at(root: &str, limit: &str, peak: &'static str, bytes: u64) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(root).join(format!("strait-{}-{number}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let made = Self { folder, peak };
        // Without the resource's controller there is no such file.
        let limited = made.folder.join(limit);
        (limited.exists() && fs::write(limited, bytes.to_string()).is_ok()).then_some(made)
    }

    /// The shell's command by which a process enters.
    pub(crate) fn enter(&self) -> String {
        format!("echo $$ >{}/cgroup.procs", self.folder.display())
    }

    /// The most that was used, in bytes.
    pub(crate) fn most_used(&self) -> u64 {
        fs::read_to_string(self.folder.join(self.peak)).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
