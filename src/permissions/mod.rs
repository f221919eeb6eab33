//! Allowed apps: which apps of other clusters each app may call, kept in a configuration store.
//!
//! [`mod@format`] is a document as text; [`store`] is where documents are kept; [`follow`] keeps those in force that a store has;
//! [`service`] is what can be done with them, and [`api`] offers that over HTTP.

pub mod api;
pub mod follow;
pub mod format;
mod in_force;
pub mod service;
pub mod store;

pub use in_force::InForce;
