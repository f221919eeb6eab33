//! Strait: a cross-cluster gateway for Dapr. `ARCHITECTURE.md` has the map.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod admin;
pub mod app;
pub mod background;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod discovery;
pub mod dns;
pub mod egress;
pub mod exchange;
pub mod handover;
pub mod health;
pub mod model;
pub mod permissions;
pub mod policy;
pub mod problem;
pub mod proxy;
pub mod proxy_protocol;
pub mod reactor;
pub mod routing;
pub mod shutdown;
pub mod socket;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod watch;
