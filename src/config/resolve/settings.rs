//! Limits, log and metrics.

use std::time::Duration;

use crate::config::file::{self, Connections, File, Setting};
use crate::config::problem::Wrong;
use crate::config::units;
use crate::config::{ConnectionLog, Limits, Settings};

use super::Resolver;
use super::allowed::on_revoke;

/// Dapr's sidecars ping every 10 s, so a shorter limit would close connections that live.
const MIN_IDLE: Duration = Duration::from_secs(15);
/// Below this a sidecar's hello (1,514 bytes with a post-quantum key share) hardly fits.
const MIN_HELLO: usize = 2048;
/// A handshake message's length has 24 bits (RFC 8446 §4).
const MAX_HELLO: usize = 16 << 20;

impl Resolver<'_> {
    pub(super) fn settings(&mut self, file: &File) -> Settings {
        let default = Settings::default();
        let limits = file.limits.as_ref().and_then(|spot| spot.value.as_ref());
        let log =
            file.log.as_ref().and_then(|spot| spot.value.as_ref()?.connections.as_ref()?.value);
        let routes = file.metrics.as_ref().and_then(|spot| spot.value.as_ref()?.routes.clone());
        Settings {
            limits: limits.map_or(default.limits, |limits| self.limits(limits)),
            log: log.map_or(default.log, connection_log),
            metrics_routes: self.parse(&routes, units::number).unwrap_or(default.metrics_routes),
            dns: self.zone(file.listeners.as_ref()),
            on_revoke: on_revoke(&file.allowed_apps),
        }
    }

    fn limits(&mut self, limits: &file::Limits) -> Limits {
        let default = Limits::default();
        let mut positive = |setting: &Setting<String>, default| {
            self.parse(setting, positive_duration).unwrap_or(default)
        };
        let hello_timeout = positive(&limits.hello_timeout, default.hello_timeout);
        let connect_timeout = positive(&limits.connect_timeout, default.connect_timeout);
        let connect_total = positive(&limits.connect_total, default.connect_total);
        let mut any = |setting: &Setting<String>, default| {
            self.parse(setting, units::duration).unwrap_or(default)
        };
        let first_byte_timeout = any(&limits.first_byte_timeout, default.first_byte_timeout);
        let drain_delay = any(&limits.drain_delay, default.drain_delay);
        let drain_timeout = any(&limits.drain_timeout, default.drain_timeout);
        let mut number = |setting: &Setting<String>, default| {
            self.parse(setting, units::number).unwrap_or(default)
        };
        let connections = number(&limits.connections, default.connections);
        let per_listener = number(&limits.per_listener, default.per_listener);
        let per_source = number(&limits.per_source, default.per_source);
        let pending = number(&limits.pending, default.pending);
        let pending_per_source = number(&limits.pending_per_source, default.pending_per_source);
        let hello_rate = number(&limits.hello_rate, default.hello_rate);
        let hello_burst = number(&limits.hello_burst, default.hello_burst);
        Limits {
            hello_timeout,
            hello_bytes: self
                .parse(&limits.hello_bytes, hello_bytes)
                .unwrap_or(default.hello_bytes),
            connect_timeout,
            connect_total,
            first_byte_timeout,
            idle_timeout: self.parse(&limits.idle_timeout, idle).unwrap_or(default.idle_timeout),
            drain_delay,
            drain_timeout,
            max_age: self.parse(&limits.max_age, max_age).unwrap_or(default.max_age),
            connections,
            per_listener,
            per_source,
            pending,
            pending_per_source,
            hello_rate,
            hello_burst,
            source_ipv4_prefix: self
                .parse(&limits.source_ipv4_prefix, ipv4_prefix)
                .unwrap_or(default.source_ipv4_prefix),
            source_ipv6_prefix: self
                .parse(&limits.source_ipv6_prefix, ipv6_prefix)
                .unwrap_or(default.source_ipv6_prefix),
        }
    }
}

pub(super) fn positive_duration(written: &str) -> Result<Duration, Wrong> {
    match units::duration(written)? {
        Duration::ZERO => Err(Wrong::new(
            "zero would let nothing pass",
            "write a duration above zero, such as 1s",
        )),
        duration => Ok(duration),
    }
}

fn idle(written: &str) -> Result<Duration, Wrong> {
    let duration = units::duration(written)?;
    if duration < MIN_IDLE {
        let message =
            "shorter than 15s: sidecars ping every 10 s, so connections in use would be closed";
        return Err(Wrong::new(message, "write 15s or more; the default is 1h"));
    }
    Ok(duration)
}

/// The engine looks at ages once a second.
fn max_age(written: &str) -> Result<Duration, Wrong> {
    let duration = units::duration(written)?;
    if !duration.is_zero() && duration < Duration::from_secs(1) {
        let fix = "write 1s or more, an hour for example, or 0 for no limit";
        return Err(Wrong::new(format!("{written} is too short for an age"), fix));
    }
    Ok(duration)
}

fn hello_bytes(written: &str) -> Result<usize, Wrong> {
    let bytes = units::size(written)?;
    if (MIN_HELLO..=MAX_HELLO).contains(&bytes) {
        return Ok(bytes);
    }
    let fix = "write 2KiB to 16MiB: a sidecar's hello has 1,514 bytes, and no hello can have more than 16MiB";
    Err(Wrong::new(format!("{written} is no sensible limit for a hello"), fix))
}

fn ipv4_prefix(written: &str) -> Result<u8, Wrong> {
    prefix(written, 32)
}

fn ipv6_prefix(written: &str) -> Result<u8, Wrong> {
    prefix(written, 128)
}

fn prefix(written: &str, longest: u8) -> Result<u8, Wrong> {
    let bits = u8::try_from(units::number(written)?).ok();
    bits.filter(|bits| (1..=longest).contains(bits)).ok_or_else(|| {
        let fix = format!("write 1 to {longest}: the bits of an address that sources share");
        Wrong::new(format!("{written} is no length of a prefix"), fix)
    })
}

fn connection_log(written: Connections) -> ConnectionLog {
    match written {
        Connections::All => ConnectionLog::All,
        Connections::Refusals => ConnectionLog::Refusals,
        Connections::None => ConnectionLog::None,
    }
}
