//! From the tree to the written types: a serde deserializer that notes each mistake with its place and goes on.
//!
//! serde stops at the first error. Here every setting is a [`Spot`], and a spot never fails: what cannot be read leaves it
//! empty and is noted. So one pass finds all mistakes, and what misses a value only because that value was wrong stays silent.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use super::problem::{Problems, Wrong};
use super::spot::{SPOT, Spot};
use super::suggest::{closest, one_of, unknown_key};
use super::tree::{Entry, NodeId, Tree, Value};

/// Reads a whole tree.
pub(super) fn decode<T: DeserializeOwned>(
    tree: &Tree,
    root: NodeId,
    problems: &mut Problems,
) -> Option<T> {
    let notes = RefCell::new(std::mem::take(problems));
    let decoded = Spot::<T>::deserialize(At { tree, notes: &notes, node: root });
    *problems = notes.into_inner();
    decoded.ok()?.value
}

/// Why a node is not what was asked for.
#[derive(Debug)]
struct Failure(Wrong);

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.message)
    }
}

impl std::error::Error for Failure {}

impl serde::de::Error for Failure {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self(Wrong::new(message.to_string(), "see config/strait.yaml for the form"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let fix = match closest(variant, expected) {
            Some(close) => format!("did you mean `{close}`? {}", one_of(expected)),
            None => one_of(expected),
        };
        Self(Wrong::new(format!("`{variant}` is not a value of this setting"), fix))
    }
}

/// A node to be read.
#[derive(Clone, Copy)]
struct At<'a> {
    tree: &'a Tree,
    notes: &'a RefCell<Problems>,
    node: NodeId,
}

impl<'a> At<'a> {
    fn child(self, node: NodeId) -> Self {
        Self { node, ..self }
    }

    fn value(self) -> &'a Value {
        self.tree.value(self.node)
    }

    fn expected(self, what: &str, fix: &str) -> Failure {
        let found = match self.value() {
            Value::Null => "nothing",
            Value::Scalar(_) => "a plain value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        };
        Failure(Wrong::new(format!("{what} is expected here, not {found}"), fix))
    }

    fn note(self, failure: Failure) {
        self.notes.borrow_mut().error(|| self.tree.problem(self.node, failure.0));
    }

    fn map(self) -> Result<&'a [Entry], Failure> {
        match self.value() {
            Value::Map(entries) => Ok(entries),
            Value::Null => Ok(&[]),
            Value::Scalar(_) | Value::List(_) => {
                Err(self.expected("a map", "write `key: value` lines, or `{ key: value }`"))
            }
        }
    }

    fn check_keys(self, entries: &[Entry], known: &'static [&'static str]) {
        for entry in entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            self.notes.borrow_mut().error(|| {
                let above = self.tree.path(self.node);
                let dot = if above.is_empty() { "" } else { "." };
                let key = format!("{above}{dot}{}", entry.key);
                self.tree.problem_at(entry.key_place, unknown_key(&entry.key, known)).with_key(key)
            });
        }
    }
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value() {
            Value::Scalar(text) => visitor.visit_str(text),
            Value::Null | Value::List(_) | Value::Map(_) => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value() {
            Value::Scalar(text) => visitor.visit_str(text),
            Value::Null | Value::List(_) | Value::Map(_) => Err(self.expected(
                "a plain value",
                "write one value; a value that begins with { or [ needs quotes",
            )),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value() {
            Value::Null => visitor.visit_none(),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if name == SPOT {
            visitor.visit_seq(SpotParts { at: self, given: 0 })
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value() {
            Value::List(items) => visitor.visit_seq(Items { at: self, items: items.iter() }),
            Value::Null | Value::Scalar(_) | Value::Map(_) => {
                Err(self.expected("a list", "write `[value, …]`, or a line `- value` for each"))
            }
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let entries = self.map()?;
        visitor.visit_map(Entries { at: self, left: entries.iter(), known: None, value: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let entries = self.map()?;
        self.check_keys(entries, fields);
        visitor.visit_map(Entries {
            at: self,
            left: entries.iter(),
            known: Some(fields),
            value: None,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.value() {
            Value::Scalar(text) => visitor.visit_enum(Word(text)),
            Value::Null | Value::List(_) | Value::Map(_) => {
                Err(self.expected("a word", &one_of(variants)))
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value() {
            Value::Scalar(text) if &**text == "true" => visitor.visit_bool(true),
            Value::Scalar(text) if &**text == "false" => visitor.visit_bool(false),
            Value::Null | Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
                let fix = "write true or false, in small letters and without quotes";
                Err(Failure(Wrong::new("true or false is expected here", fix)))
            }
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        tuple tuple_struct identifier ignored_any
    }
}

/// The two parts of a spot: its node, then its value, which is left out when it cannot be read.
struct SpotParts<'a> {
    at: At<'a>,
    given: usize,
}

impl<'de> SeqAccess<'de> for SpotParts<'_> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Failure> {
        self.given += 1;
        if self.given == 1 {
            let node = serde::de::value::U32Deserializer::new(self.at.node.0);
            return seed.deserialize(node).map(Some);
        }
        match seed.deserialize(self.at) {
            Ok(value) => Ok(Some(value)),
            Err(failure) => {
                self.at.note(failure);
                Ok(None)
            }
        }
    }
}

struct Items<'a> {
    at: At<'a>,
    items: std::slice::Iter<'a, NodeId>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Failure> {
        self.items.next().map(|&item| seed.deserialize(self.at.child(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'a> {
    at: At<'a>,
    left: std::slice::Iter<'a, Entry>,
    /// Only these keys are handed on; the others have been noted.
    known: Option<&'static [&'static str]>,
    value: Option<NodeId>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Failure> {
        let known = self.known;
        let Some(entry) =
            self.left.find(|entry| known.is_none_or(|known| known.contains(&&*entry.key)))
        else {
            return Ok(None);
        };
        self.value = Some(entry.value);
        seed.deserialize(StrDeserializer::new(&entry.key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        // serde asks for a value only after its key.
        seed.deserialize(self.at.child(self.value.take().unwrap_or(NodeId(u32::MAX))))
    }
}

/// A variant without content, written as its name.
struct Word<'a>(&'a str);

impl<'de> EnumAccess<'de> for Word<'_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Failure> {
        Ok((seed.deserialize(StrDeserializer::<Failure>::new(self.0))?, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _seed: S) -> Result<S::Value, Failure> {
        Err(only_words())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Failure> {
        Err(only_words())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Failure> {
        Err(only_words())
    }
}

fn only_words() -> Failure {
    serde::de::Error::custom("a word is expected here")
}
