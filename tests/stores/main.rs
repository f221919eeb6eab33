//! Stores of allowed apps, against the real servers: what is told, how soon, what two writers do to each other, and what becomes of
//! a store that goes away, answers slowly, never, or with garbage.

#[path = "../common/mod.rs"]
mod common;

mod file;
mod follower;
mod hostile;
mod postgresql;
mod program;
mod redis;
mod servers;
mod writers;

/// How soon a change is to be told: the issue's second, and what a machine with twenty other things to do adds.
const SOON: std::time::Duration = std::time::Duration::from_secs(5);

/// Ten thousand keys as a store is filled with them: `strait/apps/n/app-0`, …
const MANY: usize = 10_000;

/// A document of a usual size.
fn document(number: usize) -> String {
    let allowed: Vec<_> = (0..4)
        .map(|other| format!(r#"{{"app":"shop/app-{other}","clusters":["east","west"]}}"#))
        .collect();
    format!(r#"{{"app":"n/app-{number}","allowed":[{}]}}"#, allowed.join(","))
}
