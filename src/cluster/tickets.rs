//! Session tickets of the far side.
//!
//! Tickets, not a store of sessions: a store holds a peer's chain for each link of the last hour and has to be bounded, and what
//! it drops for room costs whoever comes back a full handshake; a ticket costs the far side nothing until it comes.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::GetRandomFailed;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;
use rustls::{Error, TicketRotator};

/// How long a ticket is good, in seconds.
const LIFE: u32 = 3600;
/// How long a key encrypts, in seconds; it decrypts for as long again.
const KEY_LIFE: u32 = LIFE / 2;
/// The seconds since 1970 in front of what is encrypted.
const STAMP: usize = 8;

/// Tickets that are good for an hour. The keys are replaced as rustls does it, but that happens only when one is used, so on an
/// idle gateway a ticket would be good for longer: the time inside says when it was made.
pub(super) struct Tickets(TicketRotator);

impl Tickets {
    pub(super) fn new() -> Result<Self, Error> {
        TicketRotator::new(KEY_LIFE, || Ok(Box::new(Key::new()?))).map(Self)
    }

    fn encrypt_at(&self, plain: &[u8], now: UnixTime) -> Option<Vec<u8>> {
        self.0.encrypt(&[&now.as_secs().to_be_bytes()[..], plain].concat())
    }

    fn decrypt_at(&self, ticket: &[u8], now: UnixTime) -> Option<Vec<u8>> {
        let mut plain = self.0.decrypt(ticket)?;
        let made = u64::from_be_bytes(*plain.first_chunk::<STAMP>()?);
        // A clock that was set back makes tickets of the future: they are not to be measured, so not to be used.
        let age = now.as_secs().checked_sub(made)?;
        plain.drain(..STAMP);
        (age <= u64::from(LIFE)).then_some(plain)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFE
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(plain, UnixTime::now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(ticket, UnixTime::now())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tickets").finish_non_exhaustive()
    }
}

/// A key of rustls' own construction (RFC 5077 §4), which it gives out as shared only.
#[derive(Debug)]
struct Key(Arc<dyn ProducesTickets>);

impl Key {
    fn new() -> Result<Self, GetRandomFailed> {
        Ticketer::new().map(Self).map_err(|_| GetRandomFailed)
    }
}

impl ProducesTickets for Key {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        KEY_LIFE
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_ticket_is_good_for_an_hour_and_for_its_maker_only() {
        let (tickets, others) = (Tickets::new().unwrap(), Tickets::new().unwrap());
        let ticket = tickets.encrypt_at(b"session", at(10_000)).unwrap();
        let read = |now| tickets.decrypt_at(&ticket, at(now));
        assert_eq!(read(10_000).as_deref(), Some(&b"session"[..]));
        assert_eq!(read(13_600).as_deref(), Some(&b"session"[..]));
        assert_eq!(read(13_601), None, "an hour is over");
        assert_eq!(read(9_999), None, "the clock was set back");
        assert_eq!(others.decrypt_at(&ticket, at(10_000)), None);
        assert_eq!(tickets.decrypt_at(&ticket[1..], at(10_000)), None);
        assert_eq!(tickets.lifetime(), 3600);
    }
}
