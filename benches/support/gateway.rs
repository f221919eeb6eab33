//! The real gateway in a process of its own, in front of backends of this process.
#![allow(dead_code, reason = "every bench takes what it needs")]

use std::net::SocketAddr;

use crate::common::gateway::Gateway;
use crate::load::backend::Backends;
use crate::load::{self, Way};

/// A gateway and what is behind it.
pub(crate) struct Bench {
    pub(crate) gateway: Gateway,
    pub(crate) backends: Backends,
    ingress: SocketAddr,
}

impl Bench {
    pub(crate) fn start() -> Self {
        load::process::raise_descriptor_limit();
        let backends = Backends::start().expect("the backends start");
        let gateway = Gateway::start(&load::strait_config(&backends));
        let ingress = gateway.ingress();
        let bench = Self { gateway, backends, ingress };
        bench.through().prove().expect("the gateway stands between");
        bench
    }

    pub(crate) fn through(&self) -> Way<'_> {
        Way { backends: &self.backends, gateway: Some(self.ingress) }
    }

    /// Without the gateway: what it is compared with.
    pub(crate) fn direct(&self) -> Way<'_> {
        Way { backends: &self.backends, gateway: None }
    }
}

/// Whether something is to be measured: `cargo bench` says so, `cargo test` does not.
pub(crate) fn measures() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
