//! A name server for the apps of other clusters: what their names stand for here, over UDP and TCP (RFC 1035, RFC 7766).
//!
//! It has authority, asks nobody and enforces nothing: behind a resolver every question comes from the resolver. hickory reads and writes
//! the messages; its server is not used, because it makes a task of every datagram, as many as come, and has no limit on streams.

pub mod answer;
mod book;
mod listener;
mod server;
pub mod strangers;

pub use listener::{Copies, Listener};
pub use server::{Desk, Server};
