//! Any bytes as a routes file. What is accepted can be read line by line without another look at it.
#![no_main]

use std::path::Path;

use strait::model::name::NamePattern;
use strait::model::snapshot::EndpointAt;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    match strait::config::parse_routes_text(Path::new("fuzz.map"), text) {
        Ok(file) => {
            assert_eq!(file.lines().count(), file.routes);
            for line in file.lines() {
                assert!(NamePattern::parse(line.name).is_ok());
                assert!(
                    line.endpoints
                        .split_ascii_whitespace()
                        .all(|endpoint| EndpointAt::parse(endpoint).is_ok())
                );
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(|problem| drop(problem.to_string()));
        }
    }
});
