//! The bytes of the message, without the records that carried them: by leaps over what is there whole, else part by part.
//! Both ways make the same judgements in the same order.

use super::error::HelloError;
use super::judge::{EXTENSION_HEADER, KIND, SERVER_NAME, Step};
use super::{HelloParser, MESSAGE_HEADER, RANDOM};

impl HelloParser {
    /// Takes bytes of the message: by leaps where many parts are there at once, else step by step.
    #[inline]
    pub(super) fn feed(&mut self, mut piece: &[u8]) -> Result<(), HelloError> {
        if self.step == Step::MessageType {
            piece = self.leap_to_extensions(piece)?;
        }
        loop {
            if self.step == Step::ExtensionType && self.wanted == KIND {
                piece = self.leap_extensions(piece)?;
                if self.step == Step::Done {
                    return Ok(());
                }
            }
            let there = self.wanted.min(piece.len());
            let Some((part, rest)) = piece.split_at_checked(there) else { return Ok(()) };
            self.wanted -= there;
            self.message_left -= there;
            self.take(part)?;
            if self.wanted > 0 {
                return Ok(());
            }
            self.enter_next()?;
            piece = rest;
        }
    }

    /// Reads up to the extensions as far as whole parts are there.
    fn leap_to_extensions<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], HelloError> {
        let Some((header, body)) = piece.split_first_chunk() else { return Ok(piece) };
        let Some((&[major, minor], body)) = body.split_first_chunk() else { return Ok(piece) };
        let Some((random, body)) = body.split_first_chunk() else { return Ok(piece) };
        let Some((&[session_id], piece)) = body.split_first_chunk() else { return Ok(piece) };
        let [kind, length @ ..]: [u8; MESSAGE_HEADER] = *header;
        self.begin_message(usize::from(kind))?;
        self.begin_body(big_endian(length))?;
        self.judge_major(usize::from(major))?;
        self.judge_minor(usize::from(minor))?;
        self.random = *random;
        self.message_left -= 2 + RANDOM + 1;
        self.begin_session_id(usize::from(session_id))?;
        let Some((length, piece)) = self.leap::<2>(piece) else { return Ok(piece) };
        self.begin_ciphers(length)?;
        let Some((length, piece)) = self.leap::<1>(piece) else { return Ok(piece) };
        self.begin_compression(length)?;
        let Some((length, piece)) = self.leap::<2>(piece) else { return Ok(piece) };
        self.begin_extensions(length)?;
        Ok(piece)
    }

    /// Steps over the part that is awaited and reads the number behind it, if both are there and within the message.
    #[inline]
    fn leap<'a, const WIDTH: usize>(&mut self, piece: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let (number, rest) = piece.get(self.wanted..)?.split_first_chunk::<WIDTH>()?;
        self.message_left = self.message_left.checked_sub(self.wanted + WIDTH)?;
        Some((big_endian(*number), rest))
    }

    /// Reads extensions that are whole. What it leaves begins with an extension that is not, or the message is done.
    #[inline]
    fn leap_extensions<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], HelloError> {
        let (mut left, mut ahead) = (self.message_left, piece);
        let behind = loop {
            let Some(([kind @ .., high, low], rest)) =
                ahead.split_first_chunk::<EXTENSION_HEADER>()
            else {
                break ahead;
            };
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some((body, after)) = rest.split_at_checked(length) else { break ahead };
            // What stands behind the message is not looked at, and what does not fit in is judged part by part.
            let Some(without) = left.checked_sub(EXTENSION_HEADER + length) else { break ahead };
            if *kind == [0, 0] {
                self.judge_extension_type(SERVER_NAME)?;
                self.message_left = left - EXTENSION_HEADER;
                self.begin_name_extension(length)?;
                self.read_name_extension(body)?;
            }
            (left, ahead) = (without, after);
        };
        self.message_left = left;
        self.await_extension()?;
        Ok(behind)
    }

    /// Reads the whole body of a server name extension.
    fn read_name_extension(&mut self, body: &[u8]) -> Result<(), HelloError> {
        let Some((&[list_high, list_low, kind, high, low], name)) = body.split_first_chunk() else {
            return Err(HelloError::EmptyName);
        };
        self.begin_name_list(big_endian([list_high, list_low]))?;
        self.judge_name_type(usize::from(kind))?;
        self.begin_name(big_endian([high, low]))?;
        self.name.push(name).map_err(HelloError::Name)?;
        self.end_name()
    }

    /// Keeps what is needed of the bytes of one step.
    #[inline]
    fn take(&mut self, part: &[u8]) -> Result<(), HelloError> {
        match self.step {
            Step::SessionId | Step::Ciphers | Step::Compression | Step::Extension | Step::Done => {}
            Step::Name => self.name.push(part).map_err(HelloError::Name)?,
            Step::Random => {
                let at = RANDOM - self.wanted - part.len();
                if let Some(room) = self.random.get_mut(at..at + part.len()) {
                    room.copy_from_slice(part);
                }
            }
            Step::MessageType
            | Step::MessageLength
            | Step::Major
            | Step::Minor
            | Step::SessionIdLength
            | Step::CiphersLength
            | Step::CompressionLength
            | Step::ExtensionsLength
            | Step::ExtensionType
            | Step::ExtensionLength
            | Step::NameExtensionLength
            | Step::NameListLength
            | Step::NameType
            | Step::NameLength => {
                let join = |so_far, &octet| (so_far << 8) | usize::from(octet);
                self.number = part.iter().fold(self.number, join);
            }
        }
        Ok(())
    }
}

#[inline]
fn big_endian<const WIDTH: usize>(octets: [u8; WIDTH]) -> usize {
    octets.iter().fold(0, |so_far, &octet| (so_far << 8) | usize::from(octet))
}
