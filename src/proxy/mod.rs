//! The data path.

pub mod hello;
pub mod proxy_protocol;
