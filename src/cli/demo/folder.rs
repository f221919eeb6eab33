//! The demo's folder: readable while it runs, gone afterwards unless something went wrong.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::DemoError;

/// Most folders side by side. Whoever has as many should look why they stay.
const MOST: u32 = 1000;

/// A folder of this process that is removed when the value is dropped.
pub(super) struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    /// Makes the folder, under the first name that is free: a demo that was killed may have left one behind.
    pub(super) fn new() -> Result<Self, DemoError> {
        let mut number = 1;
        loop {
            let path = std::env::temp_dir().join(format!("strait-demo-{number}"));
            // Not `create_dir_all`: a folder that somebody else put there is not ours to write into or to remove.
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path, kept: false }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < MOST => {
                    number += 1;
                }
                Err(source) => return Err(DemoError::File { path, source }),
            }
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it behind, for whoever wants to know what went wrong.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed lies in the system's temporary folder, which the system clears.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
