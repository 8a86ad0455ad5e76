//! Values of fields out of serde's reader, leniently, and inside the budget.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::DecodeError;
use super::super::model::{AnyValue, Budget, Id, KeyValues, Text};

/// What is passed down: how much may be made, and why it went wrong if it was not JSON's fault.
pub(in super::super) struct Context<'b> {
    pub(super) budget: &'b Budget,
    pub(super) refused: RefCell<Option<DecodeError>>,
}

impl Context<'_> {
    fn charge<T, E: Error>(&self) -> Result<(), E> {
        self.budget.charge::<T>().map_err(|refused| self.refuse(refused))
    }

    pub(super) fn refuse<E: Error>(&self, refused: DecodeError) -> E {
        let message = refused.to_string();
        *self.refused.borrow_mut() = Some(refused);
        E::custom(message)
    }
}

/// A JSON object that is a message.
pub(in super::super) trait Object<'a>: Sized + Default {
    /// Takes a field, or says that it does not know it.
    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        value: &mut Source<'_, '_, 'a, A>,
    ) -> Result<bool, A::Error>;
}

/// Where the value of a field comes from.
pub(in super::super) struct Source<'m, 'c, 'a, A> {
    map: &'m mut A,
    pub(super) context: &'c Context<'c>,
    marker: PhantomData<&'a ()>,
}

impl<'a, A: MapAccess<'a>> Source<'_, '_, 'a, A> {
    pub(super) fn object<T: Object<'a>>(&mut self) -> Result<T, A::Error> {
        self.map.next_value_seed(ObjectSeed::new(self.context))
    }

    pub(super) fn list<T: Object<'a>>(&mut self) -> Result<Vec<T>, A::Error> {
        self.map.next_value_seed(ListSeed { context: self.context, marker: PhantomData })
    }

    pub(super) fn attributes(&mut self) -> Result<KeyValues<'a>, A::Error> {
        Ok(self
            .list::<super::KeyValue<'a>>()?
            .into_iter()
            .map(|entry| (entry.key, entry.value))
            .collect())
    }

    pub(super) fn value(&mut self) -> Result<AnyValue<'a>, A::Error> {
        let context = self.context;
        context.budget.deeper().map_err(|refused| context.refuse(refused))?;
        let value = self.object::<super::Wrapped<'a>>()?;
        context.budget.shallower();
        Ok(value.0)
    }

    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>, A::Error> {
        self.map.next_value_seed(ScalarSeed)
    }

    pub(super) fn text(&mut self) -> Result<Text<'a>, A::Error> {
        Ok(match self.scalar()? {
            Scalar::Text(text) => text,
            Scalar::Null => Text::default(),
            other => return Err(other.mistyped("a text")),
        })
    }

    pub(super) fn id<const N: usize>(&mut self) -> Result<Id<N>, A::Error> {
        Ok(id(&self.text()?))
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, A::Error> {
        match self.scalar()? {
            Scalar::Null => Ok(0),
            Scalar::Unsigned(value) => Ok(value),
            Scalar::Float(value) if value.fract() == 0.0 && (0.0..1.9e19).contains(&value) => {
                Ok(value as u64)
            }
            Scalar::Text(text) => text.trim().parse().map_err(|_| {
                A::Error::custom(format_args!("{text:?} is not a whole number without a sign"))
            }),
            other => Err(other.mistyped("a whole number without a sign")),
        }
    }

    pub(super) fn signed(&mut self) -> Result<i64, A::Error> {
        match self.scalar()? {
            Scalar::Null => Ok(0),
            Scalar::Signed(value) => Ok(value),
            Scalar::Unsigned(value) => i64::try_from(value)
                .map_err(|_| A::Error::custom(format_args!("{value} has more than 64 bits"))),
            Scalar::Float(value) if value.fract() == 0.0 && value.abs() < 9.3e18 => {
                Ok(value as i64)
            }
            Scalar::Text(text) => text
                .trim()
                .parse()
                .map_err(|_| A::Error::custom(format_args!("{text:?} is not a whole number"))),
            other => Err(other.mistyped("a whole number")),
        }
    }

    pub(super) fn double(&mut self) -> Result<f64, A::Error> {
        match self.scalar()? {
            Scalar::Null => Ok(0.0),
            Scalar::Signed(value) => Ok(value as f64),
            Scalar::Unsigned(value) => Ok(value as f64),
            Scalar::Float(value) => Ok(value),
            // proto3's "NaN", "Infinity" and "-Infinity" are what Rust parses, too.
            Scalar::Text(text) => text
                .trim()
                .parse()
                .map_err(|_| A::Error::custom(format_args!("{text:?} is not a number"))),
            other => Err(other.mistyped("a number")),
        }
    }

    /// A number of an enum, or the name that stands for it.
    pub(super) fn enumerated(&mut self, names: &[&str]) -> Result<i32, A::Error> {
        match self.scalar()? {
            Scalar::Null => Ok(0),
            Scalar::Unsigned(value) => Ok(i32::try_from(value).unwrap_or_default()),
            Scalar::Signed(value) => Ok(i32::try_from(value).unwrap_or_default()),
            Scalar::Text(text) => {
                Ok(text.parse().ok().or_else(|| position(names, &text)).unwrap_or_default())
            }
            other => Err(other.mistyped("a number or a name")),
        }
    }
}

fn position(names: &[&str], name: &str) -> Option<i32> {
    i32::try_from(names.iter().position(|known| *known == name)?).ok()
}

/// Hex of any case, of the right length and not all zeros; OTLP/JSON has no other form.
fn id<const N: usize>(text: &str) -> Id<N> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut id = [0_u8; N];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            *byte = *byte << 4 | u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
        }
    }
    Some(id).filter(|id| id.iter().any(|byte| *byte != 0))
}

pub(super) struct ObjectSeed<'c, T> {
    context: &'c Context<'c>,
    marker: PhantomData<T>,
}

impl<'c, T> ObjectSeed<'c, T> {
    pub(super) fn new(context: &'c Context<'c>) -> Self {
        Self { context, marker: PhantomData }
    }
}

impl<'a, T: Object<'a>> DeserializeSeed<'a> for ObjectSeed<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a, T: Object<'a>> Visitor<'a> for ObjectSeed<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<T, A::Error> {
        let mut object = T::default();
        while let Some(Name(name)) = map.next_key_seed(NameSeed)? {
            let mut source = Source { map: &mut map, context: self.context, marker: PhantomData };
            if !object.field(&name, &mut source)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

struct ListSeed<'c, T> {
    context: &'c Context<'c>,
    marker: PhantomData<T>,
}

impl<'a, T: Object<'a>> DeserializeSeed<'a> for ListSeed<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a, T: Object<'a>> Visitor<'a> for ListSeed<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(ObjectSeed::new(self.context))? {
            self.context.charge::<T, A::Error>()?;
            list.push(item);
        }
        Ok(list)
    }
}

struct Name<'a>(Cow<'a, str>);
struct NameSeed;

impl<'a> DeserializeSeed<'a> for NameSeed {
    type Value = Name<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Name<'a>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for NameSeed {
    type Value = Name<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'a str) -> Result<Name<'a>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name<'a>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Text<'a>),
}

impl Scalar<'_> {
    pub(super) fn mistyped<E: Error>(&self, wanted: &str) -> E {
        let found = match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Unsigned(_) | Self::Signed(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
        };
        E::custom(format_args!("{found} stands where {wanted} is expected"))
    }
}

pub(super) struct ScalarSeed;

impl<'a> DeserializeSeed<'a> for ScalarSeed {
    type Value = Scalar<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Scalar<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for ScalarSeed {
    type Value = Scalar<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text or a truth value")
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Float(value))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }
}
