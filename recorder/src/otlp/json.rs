//! OTLP/JSON: the same messages in proto3's JSON.
//!
//! What is taken, beyond what exporters of OpenTelemetry write: both names of a field
//! (`traceId`, `trace_id`), 64-bit numbers as text or as numbers, hex ids in either case, enums by
//! number or by name, `null` for a field that is not there. Unknown fields are skipped, as the
//! specification wants it.

mod read;

use std::cell::RefCell;

use serde::de::{DeserializeSeed, MapAccess};

use super::DecodeError;
use super::model::{
    AnyValue, Budget, Group, KeyValues, Link, LogRecord, Metric, Point, Scope, Scoped, Span,
    SpanEvent, Text, is_vector,
};
pub(super) use read::Object;
use read::{Context, ObjectSeed, Scalar, Source};

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
    "gauge" | "sum" => |this, source| this.take(source.object()?),
    "histogram" | "summary" => |this, source| this.take(source.object()?),
    "exponentialHistogram" | "exponential_histogram" => |this, source| this.take(source.object()?),
});

#[derive(Default)]
struct Points<'a> {
    points: Vec<Point<'a>>,
    temporality: i32,
}

impl<'a> Metric<'a> {
    fn take(&mut self, of_a_kind: Points<'a>) {
        self.points.extend(of_a_kind.points);
        self.temporality = of_a_kind.temporality;
    }
}

object!(Points<'a> {
    "dataPoints" | "data_points" => |this, source| this.points.extend(source.list()?),
    "aggregationTemporality" | "aggregation_temporality" => |this, source| this.temporality = source.enumerated(&TEMPORALITIES)?,
});

object!(Point<'a> {
    "startTimeUnixNano" | "start_time_unix_nano" => |this, source| this.start_unix_ns = source.unsigned()?,
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
const TEMPORALITIES: [&str; 3] = [
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
];
const STATUS_CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
