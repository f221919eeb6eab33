//! Any bytes as a routes file. What is accepted has as many names as lines, each with endpoints and a place.
#![no_main]

use std::path::Path;

use strait::model::name::NamePattern;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    match strait::config::parse_routes_text(Path::new("fuzz.map"), text) {
        Ok(file) => {
            let lists: Vec<_> = file.lists().collect();
            assert_eq!(file.names().iter().count(), file.routes);
            for (at, name) in file.names().iter() {
                assert!(NamePattern::parse(&name.written()).is_ok());
                assert!(!lists[name.value as usize].is_empty());
                assert!(file.origin(at).line as usize <= text.split(|&byte| byte == b'\n').count());
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(|problem| drop(problem.to_string()));
        }
    }
});
