//! Any bytes as a configuration file: a configuration, or errors that can be shown.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Err(problems) = strait::config::parse_text(Path::new("fuzz.yaml"), text) {
        assert!(!problems.is_empty());
        problems.iter().for_each(|problem| drop(problem.to_string()));
    }
});
