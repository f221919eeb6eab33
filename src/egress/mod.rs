//! A local address for each imported app, for callers that send no server name: who has which, kept over restarts.

pub mod ledger;
pub mod lock;
pub mod plan;
