//! The words of the domain: names, apps, clients, what a source said, why a connection ended. Names nothing else.

pub mod allowed;
pub mod app;
pub mod arena;
pub mod client;
pub mod cluster;
pub mod egress;
pub mod ending;
pub mod folding;
pub mod name;
pub mod offer;
pub mod operator;
pub mod routes_file;
pub mod snapshot;
