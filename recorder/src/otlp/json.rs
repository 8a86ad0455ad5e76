//! OTLP/JSON: the same messages in proto3's JSON.
//!
//! What is taken, beyond what exporters of OpenTelemetry write: both names of a field
//! (`traceId`, `trace_id`), 64-bit numbers as text or as numbers, hex ids in either case, enums by
//! number or by name, `null` for a field that is not there. Unknown fields are skipped, as the
//! specification wants it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::DecodeError;
use super::model::{
    AnyValue, Budget, Group, Id, KeyValues, Link, LogRecord, Metric, Point, Scope, Scoped, Span,
    SpanEvent, Text, is_vector,
};

/// Reads a request of any of the three services.
pub(super) fn request<'a, T: Object<'a> + Grouped>(
    body: &'a [u8],
    budget: &Budget,
) -> Result<Vec<Group<'a, T>>, DecodeError> {
    let context = Context { budget, refused: RefCell::new(None) };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let request = ObjectSeed::<Request<'a, T>>::new(&context)
        .deserialize(&mut reader)
        .and_then(|request| reader.end().map(|()| request));
    match (request, context.refused.into_inner()) {
        (_, Some(refused)) => Err(refused),
        (Ok(request), None) => Ok(request.groups),
        (Err(error), None) => Err(DecodeError::Malformed(error.to_string().into())),
    }
}

/// What is passed down: how much may be made, and why it went wrong if it was not JSON's fault.
struct Context<'b> {
    budget: &'b Budget,
    refused: RefCell<Option<DecodeError>>,
}

impl Context<'_> {
    fn charge<T, E: Error>(&self) -> Result<(), E> {
        self.budget.charge::<T>().map_err(|refused| self.refuse(refused))
    }

    fn refuse<E: Error>(&self, refused: DecodeError) -> E {
        let message = refused.to_string();
        *self.refused.borrow_mut() = Some(refused);
        E::custom(message)
    }
}

/// A JSON object that is a message.
pub(super) trait Object<'a>: Sized + Default {
    /// Takes a field, or says that it does not know it.
    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        value: &mut Source<'_, '_, 'a, A>,
    ) -> Result<bool, A::Error>;
}

/// Where the value of a field comes from.
pub(super) struct Source<'m, 'c, 'a, A> {
    map: &'m mut A,
    context: &'c Context<'c>,
    marker: PhantomData<&'a ()>,
}

impl<'a, A: MapAccess<'a>> Source<'_, '_, 'a, A> {
    fn object<T: Object<'a>>(&mut self) -> Result<T, A::Error> {
        self.map.next_value_seed(ObjectSeed::new(self.context))
    }

    fn list<T: Object<'a>>(&mut self) -> Result<Vec<T>, A::Error> {
        self.map.next_value_seed(ListSeed { context: self.context, marker: PhantomData })
    }

    fn attributes(&mut self) -> Result<KeyValues<'a>, A::Error> {
        Ok(self.list::<KeyValue<'a>>()?.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    fn value(&mut self) -> Result<AnyValue<'a>, A::Error> {
        let context = self.context;
        context.budget.deeper().map_err(|refused| context.refuse(refused))?;
        let value = self.object::<Wrapped<'a>>()?;
        context.budget.shallower();
        Ok(value.0)
    }

    fn scalar(&mut self) -> Result<Scalar<'a>, A::Error> {
        self.map.next_value_seed(ScalarSeed)
    }

    fn text(&mut self) -> Result<Text<'a>, A::Error> {
        Ok(match self.scalar()? {
            Scalar::Text(text) => text,
            Scalar::Null => Text::default(),
            other => return Err(other.mistyped("a text")),
        })
    }

    fn id<const N: usize>(&mut self) -> Result<Id<N>, A::Error> {
        Ok(id(&self.text()?))
    }

    fn unsigned(&mut self) -> Result<u64, A::Error> {
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

    fn signed(&mut self) -> Result<i64, A::Error> {
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

    fn double(&mut self) -> Result<f64, A::Error> {
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
    fn enumerated(&mut self, names: &[&str]) -> Result<i32, A::Error> {
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

struct ObjectSeed<'c, T> {
    context: &'c Context<'c>,
    marker: PhantomData<T>,
}

impl<'c, T> ObjectSeed<'c, T> {
    fn new(context: &'c Context<'c>) -> Self {
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

enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Text<'a>),
}

impl Scalar<'_> {
    fn mistyped<E: Error>(&self, wanted: &str) -> E {
        let found = match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Unsigned(_) | Self::Signed(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
        };
        E::custom(format_args!("{found} stands where {wanted} is expected"))
    }
}

struct ScalarSeed;

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

/// Declares which fields of a JSON object a message takes.
macro_rules! object {
    ($name:ty { $($key:literal $(| $old:literal)? => |$this:ident, $source:ident| $take:expr),* $(,)? }) => {
        impl<'a> Object<'a> for $name {
            fn field<A: MapAccess<'a>>(
                &mut self,
                name: &str,
                value: &mut Source<'_, '_, 'a, A>,
            ) -> Result<bool, A::Error> {
                match name {
                    $($key $(| $old)? => { let ($this, $source) = (&mut *self, &mut *value); $take })*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}

/// The outermost object: its one list has another name in each of the services.
struct Request<'a, T> {
    groups: Vec<Group<'a, T>>,
}

impl<T> Default for Request<'_, T> {
    fn default() -> Self {
        Self { groups: Vec::new() }
    }
}

/// What the lists around a kind of item are called.
pub(super) trait Grouped {
    const RESOURCES: [&'static str; 2];
    const SCOPES: [&'static str; 2];
    const ITEMS: [&'static str; 2];
}

impl Grouped for Span<'_> {
    const RESOURCES: [&'static str; 2] = ["resourceSpans", "resource_spans"];
    const SCOPES: [&'static str; 2] = ["scopeSpans", "scope_spans"];
    const ITEMS: [&'static str; 2] = ["spans", "spans"];
}

impl Grouped for LogRecord<'_> {
    const RESOURCES: [&'static str; 2] = ["resourceLogs", "resource_logs"];
    const SCOPES: [&'static str; 2] = ["scopeLogs", "scope_logs"];
    const ITEMS: [&'static str; 2] = ["logRecords", "log_records"];
}

impl Grouped for Metric<'_> {
    const RESOURCES: [&'static str; 2] = ["resourceMetrics", "resource_metrics"];
    const SCOPES: [&'static str; 2] = ["scopeMetrics", "scope_metrics"];
    const ITEMS: [&'static str; 2] = ["metrics", "metrics"];
}

impl<'a, T: Object<'a> + Grouped> Object<'a> for Request<'a, T> {
    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        value: &mut Source<'_, '_, 'a, A>,
    ) -> Result<bool, A::Error> {
        let is_known = T::RESOURCES.contains(&name);
        if is_known {
            self.groups.extend(value.list()?);
        }
        Ok(is_known)
    }
}

impl<'a, T: Object<'a> + Grouped> Object<'a> for Group<'a, T> {
    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        value: &mut Source<'_, '_, 'a, A>,
    ) -> Result<bool, A::Error> {
        match name {
            "resource" => self.resource = value.object::<Resource<'a>>()?.attributes,
            _ if T::SCOPES.contains(&name) => self.scopes.extend(value.list()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'a, T: Object<'a> + Grouped> Object<'a> for Scoped<'a, T> {
    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        value: &mut Source<'_, '_, 'a, A>,
    ) -> Result<bool, A::Error> {
        match name {
            "scope" => self.scope = value.object()?,
            _ if T::ITEMS.contains(&name) => self.items.extend(value.list()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[derive(Default)]
struct Resource<'a> {
    attributes: KeyValues<'a>,
}

#[derive(Default)]
struct KeyValue<'a> {
    key: Text<'a>,
    value: AnyValue<'a>,
}

/// The object around a value.
#[derive(Default)]
struct Wrapped<'a>(AnyValue<'a>);

/// An embedding's numbers, counted.
#[derive(Default)]
struct Numbers(usize);

#[derive(Default)]
struct Counted;

#[derive(Default)]
struct ValueList<'a>(Vec<AnyValue<'a>>);

#[derive(Default)]
struct MapEntries<'a>(KeyValues<'a>);

#[derive(Default)]
struct Status<'a> {
    code: i32,
    message: Text<'a>,
}

object!(Resource<'a> {
    "attributes" => |this, source| this.attributes.extend(source.attributes()?),
});

object!(Scope<'a> {
    "name" => |this, source| this.name = source.text()?,
    "version" => |this, source| this.version = source.text()?,
});

object!(Span<'a> {
    "traceId" | "trace_id" => |this, source| this.trace_id = source.id()?,
    "spanId" | "span_id" => |this, source| this.span_id = source.id()?,
    "parentSpanId" | "parent_span_id" => |this, source| this.parent_span_id = source.id()?,
    "name" => |this, source| this.name = source.text()?,
    "kind" => |this, source| this.kind = source.enumerated(&SPAN_KINDS)?,
    "startTimeUnixNano" | "start_time_unix_nano" => |this, source| this.start_unix_ns = source.unsigned()?,
    "endTimeUnixNano" | "end_time_unix_nano" => |this, source| this.end_unix_ns = source.unsigned()?,
    "attributes" => |this, source| this.attributes.extend(source.attributes()?),
    "events" => |this, source| this.events.extend(source.list()?),
    "links" => |this, source| this.links.extend(source.list()?),
    "status" => |this, source| {
        let status: Status<'a> = source.object()?;
        (this.status_code, this.status_message) = (status.code, status.message);
    },
});

object!(Status<'a> {
    "code" => |this, source| this.code = source.enumerated(&STATUS_CODES)?,
    "message" => |this, source| this.message = source.text()?,
});

object!(SpanEvent<'a> {
    "timeUnixNano" | "time_unix_nano" => |this, source| this.time_unix_ns = source.unsigned()?,
    "name" => |this, source| this.name = source.text()?,
    "attributes" => |this, source| this.attributes.extend(source.attributes()?),
});

object!(Link {
    "traceId" | "trace_id" => |this, source| this.trace_id = source.id()?,
    "spanId" | "span_id" => |this, source| this.span_id = source.id()?,
});

object!(LogRecord<'a> {
    "timeUnixNano" | "time_unix_nano" => |this, source| this.time_unix_ns = source.unsigned()?,
    "observedTimeUnixNano" | "observed_time_unix_nano" => |this, source| this.observed_unix_ns = source.unsigned()?,
    "severityNumber" | "severity_number" => |this, source| this.severity = source.enumerated(&[])?,
    "eventName" | "event_name" => |this, source| this.event_name = source.text()?,
    "body" => |this, source| this.body = source.value()?,
    "attributes" => |this, source| this.attributes.extend(source.attributes()?),
    "traceId" | "trace_id" => |this, source| this.trace_id = source.id()?,
    "spanId" | "span_id" => |this, source| this.span_id = source.id()?,
});

object!(Metric<'a> {
    "name" => |this, source| this.name = source.text()?,
    "unit" => |this, source| this.unit = source.text()?,
    "gauge" | "sum" => |this, source| this.points.extend(source.object::<Points<'a>>()?.points),
    "histogram" | "summary" => |this, source| this.points.extend(source.object::<Points<'a>>()?.points),
    "exponentialHistogram" | "exponential_histogram" => |this, source| this.points.extend(source.object::<Points<'a>>()?.points),
});

#[derive(Default)]
struct Points<'a> {
    points: Vec<Point<'a>>,
}

object!(Points<'a> {
    "dataPoints" | "data_points" => |this, source| this.points.extend(source.list()?),
});

object!(Point<'a> {
    "timeUnixNano" | "time_unix_nano" => |this, source| this.time_unix_ns = source.unsigned()?,
    "attributes" => |this, source| this.attributes.extend(source.attributes()?),
    "asDouble" | "as_double" => |this, source| this.value = Some(source.double()?),
    "asInt" | "as_int" => |this, source| this.value = Some(source.signed()? as f64),
    "count" => |this, source| this.count = Some(source.unsigned()?),
    "sum" => |this, source| this.sum = Some(source.double()?),
});

impl<'a> Object<'a> for KeyValue<'a> {
    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        source: &mut Source<'_, '_, 'a, A>,
    ) -> Result<bool, A::Error> {
        match name {
            "key" => self.key = source.text()?,
            "value" if is_vector(&self.key) => {
                self.value = AnyValue::Vector(source.object::<Numbers>()?.0);
            }
            "value" => self.value = source.value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'a> Object<'a> for Wrapped<'a> {
    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        source: &mut Source<'_, '_, 'a, A>,
    ) -> Result<bool, A::Error> {
        self.0 = match name {
            "stringValue" | "string_value" => AnyValue::Text(source.text()?),
            "boolValue" | "bool_value" => match source.scalar()? {
                Scalar::Bool(value) => AnyValue::Bool(value),
                Scalar::Null => AnyValue::Empty,
                other => return Err(other.mistyped("a truth value")),
            },
            "intValue" | "int_value" => AnyValue::Int(source.signed()?),
            "doubleValue" | "double_value" => AnyValue::Double(source.double()?),
            "arrayValue" | "array_value" => AnyValue::List(source.object::<ValueList<'a>>()?.0),
            "kvlistValue" | "kvlist_value" => AnyValue::Map(source.object::<MapEntries<'a>>()?.0),
            "bytesValue" | "bytes_value" => AnyValue::Text(source.text()?),
            _ => return Ok(false),
        };
        Ok(true)
    }
}

impl<'a> Object<'a> for ValueList<'a> {
    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        source: &mut Source<'_, '_, 'a, A>,
    ) -> Result<bool, A::Error> {
        if name != "values" {
            return Ok(false);
        }
        let context = source.context;
        context.budget.deeper().map_err(|refused| context.refuse(refused))?;
        self.0.extend(source.list::<Wrapped<'a>>()?.into_iter().map(|wrapped| wrapped.0));
        context.budget.shallower();
        Ok(true)
    }
}

object!(MapEntries<'a> {
    "values" => |this, source| this.0.extend(source.attributes()?),
});

impl<'a> Object<'a> for Numbers {
    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        source: &mut Source<'_, '_, 'a, A>,
    ) -> Result<bool, A::Error> {
        match name {
            "arrayValue" | "array_value" => self.0 = source.object::<Numbers>()?.0,
            // A list of empty values: nothing is made of the numbers.
            "values" => self.0 = source.list::<Counted>()?.len(),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'a> Object<'a> for Counted {
    fn field<A: MapAccess<'a>>(
        &mut self,
        _: &str,
        _: &mut Source<'_, '_, 'a, A>,
    ) -> Result<bool, A::Error> {
        Ok(false)
    }
}

/// `opentelemetry.proto.trace.v1.Span.SpanKind`, by number.
const SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
/// `opentelemetry.proto.trace.v1.Status.StatusCode`, by number.
const STATUS_CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
