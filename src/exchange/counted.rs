//! Words that are counted before they are read: an app takes two octets on the way and many times that in memory, so that a message
//! within [`MAX_MESSAGE`](super::MAX_MESSAGE) could take more than a hundred megabytes.

use std::iter;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use super::proto::{DiscoverRequest, DiscoverResponse};
use super::{MOST_APPS, MOST_NAMES};

/// Apps and names together, as many as a state that is believed can have.
const MOST: usize = MOST_APPS * (1 + MOST_NAMES);

/// Numbers of the fields in `exchange.proto` that lead to what is repeated.
const STATE: u32 = 1;
const APPS: u32 = 2;
const NAMES: u32 = 2;

type Generated = ProstCodec<DiscoverRequest, DiscoverResponse>;

/// Speaks as the generated code does, and refuses a word of too much before it makes room for it.
#[derive(Debug, Clone, Copy)]
pub struct Counted;

impl Codec for Counted {
    type Encode = DiscoverRequest;
    type Decode = DiscoverResponse;
    type Encoder = <Generated as Codec>::Encoder;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        Generated::default().encoder()
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Decoder for Counted {
    type Item = DiscoverResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DiscoverResponse>, Status> {
        let word = from.copy_to_bytes(from.remaining());
        let items = items(&word);
        if items > MOST {
            let why = format!("it names {items} apps and names of apps, more than {MOST}");
            return Err(Status::out_of_range(why));
        }
        DiscoverResponse::decode(word)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// How many apps and names a word has, as far as it can be read: who reads it stops at the same place.
fn items(word: &[u8]) -> usize {
    let apps = values(word, STATE).flat_map(|state| values(state, APPS));
    apps.map(|app| 1 + values(app, NAMES).count()).sum()
}

/// The values of a field that have a length.
fn values(mut message: &[u8], field: u32) -> impl Iterator<Item = &[u8]> {
    iter::from_fn(move || {
        while message.has_remaining() {
            let (tag, kind) = decode_key(&mut message).ok()?;
            if (tag, kind) != (field, WireType::LengthDelimited) {
                skip_field(kind, tag, &mut message, DecodeContext::default()).ok()?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
            let (value, rest) = message.split_at_checked(length)?;
            message = rest;
            return Some(value);
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::super::proto::discover_response::Word;
    use super::super::proto::{App, State};
    use super::*;
    use proptest::prelude::*;

    fn word(apps: Vec<App>) -> Vec<u8> {
        let state = State { cluster: "east".to_owned(), apps };
        DiscoverResponse { word: Some(Word::State(state)) }.encode_to_vec()
    }

    #[test]
    fn an_empty_app_counts_as_any_other() {
        assert_eq!(items(&word(vec![App::default(); 1000])), 1000);
        // A state that comes in two parts is one (proto3: the later one is merged into the former).
        let parts = [word(vec![App::default(); 3]), word(vec![App::default(); 4])].concat();
        assert_eq!(items(&parts), 7);
        assert_eq!(items(&[]), 0);
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_is_read(names in prop::collection::vec(0..20_usize, 0..50)) {
            let app = |&names: &usize| App {
                app: "shop/orders".to_owned(),
                names: vec!["a.example".to_owned(); names],
                healthy_endpoints: 3,
            };
            let counted = items(&word(names.iter().map(app).collect()));
            prop_assert_eq!(counted, names.len() + names.iter().sum::<usize>());
        }

        #[test]
        fn octets_of_any_kind_are_counted_to_an_end(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let counted = items(&octets);
            prop_assert!(counted <= octets.len());
            if let Ok(DiscoverResponse { word: Some(Word::State(state)) }) = DiscoverResponse::decode(&*octets) {
                let read = state.apps.iter().map(|app| 1 + app.names.len()).sum::<usize>();
                prop_assert!(counted >= read);
            }
        }
    }
}
