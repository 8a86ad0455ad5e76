//! OTLP's messages out of protobuf. Field numbers: opentelemetry-proto 1.10, `trace/v1`, `logs/v1`,
//! `metrics/v1`, `common/v1`; the services' request messages share those of `TracesData` and its
//! siblings. Unknown fields are skipped, as the format wants it.

use std::borrow::Cow;

use super::DecodeError;
use super::model::{
    AnyValue, Budget, Group, Id, KeyValues, Link, LogRecord, Metric, Point, Scope, Scoped, Span,
    SpanEvent, Text, is_vector,
};
use super::wire::{Field, Fields};

/// A message that can be read.
pub(super) trait Message<'a>: Sized + Default {
    /// Takes one field; fields that are not known change nothing.
    fn field(&mut self, number: u32, field: Field<'a>, budget: &Budget) -> Result<(), DecodeError>;

    /// Reads a whole message.
    fn read(bytes: &'a [u8], budget: &Budget) -> Result<Self, DecodeError> {
        let mut message = Self::default();
        let mut fields = Fields::new(bytes);
        while let Some((number, field)) = fields.next()? {
            message.field(number, field, budget)?;
        }
        Ok(message)
    }
}

/// Reads a request of any of the three services: the groups of its first field.
pub(super) fn request<'a, T: Message<'a>>(
    body: &'a [u8],
    budget: &Budget,
) -> Result<Vec<Group<'a, T>>, DecodeError> {
    let mut groups = Vec::new();
    let mut fields = Fields::new(body);
    while let Some((number, field)) = fields.next()? {
        if number == 1 {
            push(&mut groups, field, budget)?;
        }
    }
    Ok(groups)
}

fn push<'a, T: Message<'a>>(
    list: &mut Vec<T>,
    field: Field<'a>,
    budget: &Budget,
) -> Result<(), DecodeError> {
    budget.charge::<T>()?;
    list.push(T::read(field.bytes()?, budget)?);
    Ok(())
}

impl<'a, T: Message<'a>> Message<'a> for Group<'a, T> {
    fn field(&mut self, number: u32, field: Field<'a>, budget: &Budget) -> Result<(), DecodeError> {
        match number {
            1 => {
                let mut fields = Fields::new(field.bytes()?);
                while let Some((number, field)) = fields.next()? {
                    if number == 1 {
                        push_attribute(&mut self.resource, field, budget)?;
                    }
                }
                Ok(())
            }
            2 => push(&mut self.scopes, field, budget),
            _ => Ok(()),
        }
    }
}

impl<'a, T: Message<'a>> Message<'a> for Scoped<'a, T> {
    fn field(&mut self, number: u32, field: Field<'a>, budget: &Budget) -> Result<(), DecodeError> {
        match number {
            1 => self.scope = Scope::read(field.bytes()?, budget)?,
            2 => push(&mut self.items, field, budget)?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Scope<'a> {
    fn field(&mut self, number: u32, field: Field<'a>, _: &Budget) -> Result<(), DecodeError> {
        match number {
            1 => self.name = text(field)?,
            2 => self.version = text(field)?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Span<'a> {
    fn field(&mut self, number: u32, field: Field<'a>, budget: &Budget) -> Result<(), DecodeError> {
        match number {
            1 => self.trace_id = id(field)?,
            2 => self.span_id = id(field)?,
            4 => self.parent_span_id = id(field)?,
            5 => self.name = text(field)?,
            6 => self.kind = number_32(field)?,
            7 => self.start_unix_ns = field.fixed64()?,
            8 => self.end_unix_ns = field.fixed64()?,
            9 => push_attribute(&mut self.attributes, field, budget)?,
            11 => push(&mut self.events, field, budget)?,
            13 => push(&mut self.links, field, budget)?,
            15 => {
                let mut fields = Fields::new(field.bytes()?);
                while let Some((number, field)) = fields.next()? {
                    match number {
                        2 => self.status_message = text(field)?,
                        3 => self.status_code = number_32(field)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for SpanEvent<'a> {
    fn field(&mut self, number: u32, field: Field<'a>, budget: &Budget) -> Result<(), DecodeError> {
        match number {
            1 => self.time_unix_ns = field.fixed64()?,
            2 => self.name = text(field)?,
            3 => push_attribute(&mut self.attributes, field, budget)?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Link {
    fn field(&mut self, number: u32, field: Field<'a>, _: &Budget) -> Result<(), DecodeError> {
        match number {
            1 => self.trace_id = id(field)?,
            2 => self.span_id = id(field)?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for LogRecord<'a> {
    fn field(&mut self, number: u32, field: Field<'a>, budget: &Budget) -> Result<(), DecodeError> {
        match number {
            1 => self.time_unix_ns = field.fixed64()?,
            2 => self.severity = number_32(field)?,
            5 => self.body = value(field.bytes()?, budget)?,
            6 => push_attribute(&mut self.attributes, field, budget)?,
            9 => self.trace_id = id(field)?,
            10 => self.span_id = id(field)?,
            11 => self.observed_unix_ns = field.fixed64()?,
            12 => self.event_name = text(field)?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Metric<'a> {
    fn field(&mut self, number: u32, field: Field<'a>, budget: &Budget) -> Result<(), DecodeError> {
        let kind = match number {
            1 => {
                self.name = text(field)?;
                return Ok(());
            }
            3 => {
                self.unit = text(field)?;
                return Ok(());
            }
            5 => PointKind::Gauge,
            7 => PointKind::Sum,
            9 => PointKind::Histogram,
            10 => PointKind::ExponentialHistogram,
            11 => PointKind::Summary,
            _ => return Ok(()),
        };
        let mut fields = Fields::new(field.bytes()?);
        while let Some((number, field)) = fields.next()? {
            if number == 1 {
                budget.charge::<Point<'_>>()?;
                self.points.push(point(field.bytes()?, kind, budget)?);
            } else if number == 2 && kind.is_aggregate() {
                self.temporality = number_32(field)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PointKind {
    Gauge,
    Sum,
    Histogram,
    ExponentialHistogram,
    Summary,
}

impl PointKind {
    /// Whether its points are aggregates over time, with a temporality in field 2.
    fn is_aggregate(self) -> bool {
        matches!(self, Self::Sum | Self::Histogram | Self::ExponentialHistogram)
    }
}

fn point<'a>(bytes: &'a [u8], kind: PointKind, budget: &Budget) -> Result<Point<'a>, DecodeError> {
    use PointKind::{ExponentialHistogram, Gauge, Histogram, Sum, Summary};
    let mut point = Point::default();
    let mut fields = Fields::new(bytes);
    while let Some((number, field)) = fields.next()? {
        match (kind, number) {
            (_, 2) => point.start_unix_ns = field.fixed64()?,
            (_, 3) => point.time_unix_ns = field.fixed64()?,
            (Gauge | Sum | Summary, 7) | (Histogram, 9) | (ExponentialHistogram, 1) => {
                push_attribute(&mut point.attributes, field, budget)?;
            }
            (Gauge | Sum, 4) => point.value = Some(field.double()?),
            (Gauge | Sum, 6) => point.value = Some(field.fixed64()? as i64 as f64),
            (Histogram | ExponentialHistogram | Summary, 4) => point.count = Some(field.fixed64()?),
            (Histogram | ExponentialHistogram | Summary, 5) => point.sum = Some(field.double()?),
            _ => {}
        }
    }
    Ok(point)
}

fn push_attribute<'a>(
    attributes: &mut KeyValues<'a>,
    field: Field<'a>,
    budget: &Budget,
) -> Result<(), DecodeError> {
    budget.charge::<(Text<'a>, AnyValue<'a>)>()?;
    let mut key = Text::default();
    let mut bytes: &[u8] = &[];
    let mut fields = Fields::new(field.bytes()?);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => key = text(field)?,
            2 => bytes = field.bytes()?,
            _ => {}
        }
    }
    let value = match dimensions(&key, bytes)? {
        Some(dimensions) => AnyValue::Vector(dimensions),
        None => value(bytes, budget)?,
    };
    attributes.push((key, value));
    Ok(())
}

/// How many numbers an embedding has, without making them.
fn dimensions(key: &str, bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let mut count = 0;
    if !is_vector(key) {
        return Ok(None);
    }
    let mut fields = Fields::new(bytes);
    while let Some((number, field)) = fields.next()? {
        if number != 5 {
            return Ok(None);
        }
        let mut items = Fields::new(field.bytes()?);
        while let Some((number, _)) = items.next()? {
            count += usize::from(number == 1);
        }
    }
    Ok(Some(count))
}

fn value<'a>(bytes: &'a [u8], budget: &Budget) -> Result<AnyValue<'a>, DecodeError> {
    budget.nested(|| {
        let mut value = AnyValue::Empty;
        let mut fields = Fields::new(bytes);
        while let Some((number, field)) = fields.next()? {
            value = match number {
                1 => AnyValue::Text(text(field)?),
                2 => AnyValue::Bool(field.varint()? != 0),
                3 => AnyValue::Int(field.varint()? as i64),
                4 => AnyValue::Double(field.double()?),
                5 => list(field.bytes()?, budget)?,
                6 => map(field.bytes()?, budget)?,
                7 => AnyValue::Bytes(Cow::Borrowed(field.bytes()?)),
                _ => continue,
            };
        }
        Ok(value)
    })
}

fn list<'a>(bytes: &'a [u8], budget: &Budget) -> Result<AnyValue<'a>, DecodeError> {
    let mut items = Vec::new();
    let mut fields = Fields::new(bytes);
    while let Some((number, field)) = fields.next()? {
        if number == 1 {
            budget.charge::<AnyValue<'_>>()?;
            items.push(value(field.bytes()?, budget)?);
        }
    }
    Ok(AnyValue::List(items))
}

fn map<'a>(bytes: &'a [u8], budget: &Budget) -> Result<AnyValue<'a>, DecodeError> {
    let mut entries = Vec::new();
    let mut fields = Fields::new(bytes);
    while let Some((number, field)) = fields.next()? {
        if number == 1 {
            push_attribute(&mut entries, field, budget)?;
        }
    }
    Ok(AnyValue::Map(entries))
}

/// Text, with U+FFFD for what is not UTF-8: a name is worth more than the rule that it broke.
fn text(field: Field<'_>) -> Result<Text<'_>, DecodeError> {
    Ok(String::from_utf8_lossy(field.bytes()?))
}

/// An id; `None` where it has another length than it should or is all zeros.
fn id<const N: usize>(field: Field<'_>) -> Result<Id<N>, DecodeError> {
    let id: Option<[u8; N]> = field.bytes()?.try_into().ok();
    Ok(id.filter(|id| id.iter().any(|byte| *byte != 0)))
}

fn number_32(field: Field<'_>) -> Result<i32, DecodeError> {
    Ok(i32::try_from(field.varint()? as i64).unwrap_or_default())
}
