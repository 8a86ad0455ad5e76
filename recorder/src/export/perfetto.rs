//! Perfetto's native format: track events as protobuf.
//!
//! * **Clock.** Timestamps are nanoseconds since the file's beginning on a clock of this file's
//!   sequence (id 64), which the first packet's snapshot ties to wall time; wall time is stated to
//!   be the trace's primary clock. Perfetto's default, the boot-time clock, would be a lie: a run
//!   knows wall time only, and may hold spans of several machines. Laid beside a system trace, which
//!   ties boot time to wall time, the spans stand where they belong.
//! * **Size.** Names, categories, names of annotations, and texts that repeat are interned: stated
//!   once and then called by number. When the table is full it is cleared and begun anew.
//! * **Order.** Packets come trace by trace, not in order of time; trace processor sorts the file.
//!   On one track events with equal times stand in the order in which they nest.

use std::collections::HashMap;
use std::io::{self, Write};

use retake_schemas::tables::CellRef;
use serde_json::Value;

use super::args::{Arg, ArgValue};
use super::timeline::{self, Mark, Process, Slice, Track, TrackId};
use super::wire::Message;
use super::{ExportError, Outline};

/// Writes packets.
pub(super) struct Pen<'a, W> {
    out: &'a mut W,
    /// Which writer's packets these are; numbers of interned names belong to it.
    sequence: u64,
    /// Track ids are above it.
    uuids: u64,
    interned: Interned,
    /// Interned data that the next packet states.
    fresh: Message,
    packet: Message,
    framed: Message,
}

impl<'a, W: Write> Pen<'a, W> {
    pub(super) fn new(out: &'a mut W, outline: &Outline<'_>) -> Result<Self, ExportError> {
        let seed = outline.seed();
        let mut pen = Self {
            out,
            // Not 0, and few bytes: it stands in every packet.
            sequence: seed >> 44 | 1,
            // 36 bits that differ from run to run, and 20 to count tracks before they carry on.
            uuids: seed >> 28 << 20,
            interned: Interned::default(),
            fresh: Message::default(),
            packet: Message::default(),
            framed: Message::default(),
        };
        pen.head(outline).map_err(ExportError::Write)?;
        Ok(pen)
    }

    fn head(&mut self, outline: &Outline<'_>) -> io::Result<()> {
        let base = u64::try_from(outline.base_unix_ns).unwrap_or(0);
        self.packet.message(packet::CLOCK_SNAPSHOT, |snapshot| {
            for (clock, timestamp) in [(FILE_CLOCK, 0), (CLOCK_REALTIME, base)] {
                snapshot.message(clock_snapshot::CLOCKS, |reading| {
                    reading.uint(clock_snapshot::CLOCK_ID, clock);
                    reading.uint(clock_snapshot::TIMESTAMP, timestamp);
                });
            }
            snapshot.uint(clock_snapshot::PRIMARY_TRACE_CLOCK, CLOCK_REALTIME);
        });
        self.packet.bool(packet::FIRST_PACKET_ON_SEQUENCE, true);
        self.defaults();
        self.send(STATE_CLEARED)?;
        self.packet.message(packet::TRACE_ATTRIBUTES, |attributes| {
            for (name, value) in timeline::facts(outline) {
                attributes.message(trace_attributes::ATTRIBUTE, |attribute| {
                    attribute.text(trace_attributes::KEY, name);
                    attribute.text(trace_attributes::STRING_VALUE, &value);
                });
            }
        });
        self.send(NEEDS_STATE)
    }

    /// What holds for every packet until the state is cleared again.
    fn defaults(&mut self) {
        self.packet.message(packet::TRACE_PACKET_DEFAULTS, |defaults| {
            defaults.uint(packet::TIMESTAMP_CLOCK_ID, FILE_CLOCK);
        });
    }

    /// Writes the packet at hand and begins a new one.
    fn send(&mut self, flags: u64) -> io::Result<()> {
        self.packet.uint(packet::TRUSTED_PACKET_SEQUENCE_ID, self.sequence);
        self.packet.uint(packet::SEQUENCE_FLAGS, flags);
        if !self.fresh.bytes().is_empty() {
            self.packet.raw(packet::INTERNED_DATA, self.fresh.bytes());
            self.fresh.clear();
        }
        self.framed.raw(TRACE_PACKET, self.packet.bytes());
        self.out.write_all(self.framed.bytes())?;
        self.framed.clear();
        self.packet.clear();
        Ok(())
    }

    /// Writes a track event; what it calls by number is stated with it.
    fn event(&mut self, at_ns: u64, event: &Message) -> io::Result<()> {
        self.packet.uint(packet::TIMESTAMP, at_ns);
        self.packet.raw(packet::TRACK_EVENT, event.bytes());
        self.send(NEEDS_STATE)?;
        if self.interned.bytes > INTERNED_BYTES_MAX {
            self.interned = Interned::default();
            self.defaults();
            self.send(STATE_CLEARED)?;
        }
        Ok(())
    }

    fn started(&self, track: TrackId, kind: u64) -> Message {
        let mut event = Message::default();
        event.uint(track_event::TYPE, kind);
        event.uint(track_event::TRACK_UUID, self.uuid(track));
        event
    }

    fn uuid(&self, track: TrackId) -> u64 {
        self.uuids + FIRST_TRACK + u64::from(track)
    }

    fn process_uuid(&self, process: u32) -> u64 {
        // Down from the first track's, so that neither has to know how many there are of the other.
        self.uuids + FIRST_TRACK - 1 - u64::from(process).min(FIRST_TRACK - 2)
    }

    fn named(&mut self, event: &mut Message, name: &str, categories: &[&str]) {
        for category in categories {
            let iid = self.interned.categories.number(category, &mut self.interned.bytes);
            let iid = state(&mut self.fresh, interned_data::EVENT_CATEGORIES, iid, category);
            event.uint(track_event::CATEGORY_IIDS, iid);
        }
        let iid = self.interned.names.number(name, &mut self.interned.bytes);
        let iid = state(&mut self.fresh, interned_data::EVENT_NAMES, iid, name);
        event.uint(track_event::NAME_IID, iid);
    }

    fn annotated(&mut self, event: &mut Message, args: &[Arg<'_>]) {
        let Self { interned, fresh, .. } = self;
        for arg in args {
            let iid = interned.annotations.number(&arg.name, &mut interned.bytes);
            let iid = state(fresh, interned_data::DEBUG_ANNOTATION_NAMES, iid, &arg.name);
            let word = match &arg.value {
                ArgValue::Word(text) => {
                    let iid = interned.values.number(text, &mut interned.bytes);
                    let field = interned_data::DEBUG_ANNOTATION_STRING_VALUES;
                    Some(state(fresh, field, iid, text))
                }
                _ => None,
            };
            event.message(track_event::DEBUG_ANNOTATIONS, |annotation| {
                annotation.uint(annotation::NAME_IID, iid);
                match (&arg.value, word) {
                    (_, Some(word)) => annotation.uint(annotation::STRING_VALUE_IID, word),
                    (ArgValue::Word(text), None) => annotation.text(annotation::STRING_VALUE, text),
                    (ArgValue::Cell(value), None) => cell(annotation, *value),
                    (ArgValue::Json(value), None) => json(annotation, value),
                }
            });
        }
    }
}

impl<W: Write> timeline::Pen for Pen<'_, W> {
    fn process(&mut self, process: &Process<'_>) -> io::Result<()> {
        let uuid = self.process_uuid(process.number);
        self.packet.message(packet::TRACK_DESCRIPTOR, |descriptor| {
            descriptor.uint(track_descriptor::UUID, uuid);
            descriptor.message(track_descriptor::PROCESS, |described| {
                described.int(process_descriptor::PID, i64::from(process.pid));
                described.text(process_descriptor::PROCESS_NAME, process.name);
                for label in process.labels {
                    described.text(process_descriptor::PROCESS_LABELS, label);
                }
            });
            descriptor.uint(track_descriptor::CHILD_ORDERING, ORDERED_BY_RANK);
        });
        self.send(NEEDS_STATE)
    }

    fn track(&mut self, track: &Track<'_>) -> io::Result<()> {
        let uuid = self.uuid(track.id);
        let parent =
            track.parent.map_or_else(|| self.process_uuid(track.process), |t| self.uuid(t));
        self.packet.message(packet::TRACK_DESCRIPTOR, |descriptor| {
            descriptor.uint(track_descriptor::UUID, uuid);
            descriptor.uint(track_descriptor::PARENT_UUID, parent);
            descriptor.text(track_descriptor::NAME, track.name);
            descriptor.int(track_descriptor::SIBLING_ORDER_RANK, i64::from(track.rank));
            match track.unit {
                Some(unit) => descriptor.message(track_descriptor::COUNTER, |counter| {
                    counter.text(UNIT_NAME, unit);
                }),
                None => descriptor.uint(track_descriptor::CHILD_ORDERING, ORDERED_BY_RANK),
            }
        });
        self.send(NEEDS_STATE)
    }

    fn begin(&mut self, track: TrackId, slice: &Slice<'_>) -> io::Result<()> {
        let mut event = self.started(track, SLICE_BEGIN);
        let categories = [slice.kind, "error"];
        let shown = if slice.has_failed { &categories[..] } else { &categories[..1] };
        self.named(&mut event, slice.name, shown);
        self.annotated(&mut event, slice.args);
        for flow in slice.flows_out {
            event.fixed64(track_event::FLOW_IDS, *flow);
        }
        if let Some(flow) = slice.flow_in {
            event.fixed64(track_event::TERMINATING_FLOW_IDS, flow);
        }
        self.event(slice.start_ns, &event)
    }

    fn end(&mut self, track: TrackId, at_ns: u64) -> io::Result<()> {
        let event = self.started(track, SLICE_END);
        self.event(at_ns, &event)
    }

    fn instant(&mut self, track: TrackId, mark: &Mark<'_>) -> io::Result<()> {
        let mut event = self.started(track, INSTANT);
        self.named(&mut event, mark.name, &[mark.category]);
        self.annotated(&mut event, mark.args);
        self.event(mark.at_ns, &event)
    }

    fn sample(&mut self, track: TrackId, at_ns: u64, value: f64) -> io::Result<()> {
        let mut event = self.started(track, COUNTER);
        event.double(track_event::DOUBLE_COUNTER_VALUE, value);
        self.event(at_ns, &event)
    }

    /// Nothing closes a trace: it is its packets.
    fn finish(self) -> io::Result<()> {
        Ok(())
    }
}

fn cell(annotation: &mut Message, value: CellRef<'_>) {
    match value {
        CellRef::Bool(value) => annotation.bool(annotation::BOOL_VALUE, value),
        CellRef::Int(value) => annotation.int(annotation::INT_VALUE, value),
        CellRef::Float(value) => annotation.double(annotation::DOUBLE_VALUE, value),
        CellRef::Text(text) => annotation.text(annotation::STRING_VALUE, text),
    }
}

fn json(annotation: &mut Message, value: &Value) {
    match value {
        Value::Null => annotation.text(annotation::STRING_VALUE, "null"),
        Value::Bool(value) => annotation.bool(annotation::BOOL_VALUE, *value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => annotation.int(annotation::INT_VALUE, value),
            (None, Some(value)) => annotation.double(annotation::DOUBLE_VALUE, value),
            (None, None) => annotation.text(annotation::STRING_VALUE, &number.to_string()),
        },
        Value::String(text) => annotation.text(annotation::STRING_VALUE, text),
        Value::Array(values) => {
            for value in values {
                annotation.message(annotation::ARRAY_VALUES, |inner| json(inner, value));
            }
        }
        Value::Object(object) => {
            for (name, value) in object {
                annotation.message(annotation::DICT_ENTRIES, |inner| {
                    inner.text(annotation::NAME, name);
                    json(inner, value);
                });
            }
        }
    }
}

/// What was stated since the state was last cleared.
#[derive(Debug, Default)]
struct Interned {
    names: Table,
    categories: Table,
    annotations: Table,
    values: Table,
    /// Bytes of texts held in all four.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Table {
    numbers: HashMap<String, u64>,
}

/// A text's number, and whether it must be stated first.
enum Iid {
    Known(u64),
    New(u64),
}

impl Table {
    fn number(&mut self, text: &str, bytes: &mut usize) -> Iid {
        if let Some(iid) = self.numbers.get(text) {
            return Iid::Known(*iid);
        }
        // 0 means none.
        let iid = self.numbers.len() as u64 + 1;
        *bytes += text.len() + ENTRY_BYTES;
        self.numbers.insert(text.to_owned(), iid);
        Iid::New(iid)
    }
}

/// States a number that is new. All four kinds of entries have the same two fields.
fn state(fresh: &mut Message, field: u32, iid: Iid, text: &str) -> u64 {
    match iid {
        Iid::Known(iid) => iid,
        Iid::New(iid) => {
            fresh.message(field, |entry| {
                entry.uint(1, iid);
                entry.text(2, text);
            });
            iid
        }
    }
}

/// Field numbers of `perfetto/trace/trace_packet.proto`.
mod packet {
    pub(super) const CLOCK_SNAPSHOT: u32 = 6;
    pub(super) const TIMESTAMP: u32 = 8;
    pub(super) const TRUSTED_PACKET_SEQUENCE_ID: u32 = 10;
    pub(super) const TRACK_EVENT: u32 = 11;
    pub(super) const INTERNED_DATA: u32 = 12;
    pub(super) const SEQUENCE_FLAGS: u32 = 13;
    pub(super) const TIMESTAMP_CLOCK_ID: u32 = 58;
    pub(super) const TRACE_PACKET_DEFAULTS: u32 = 59;
    pub(super) const TRACK_DESCRIPTOR: u32 = 60;
    pub(super) const FIRST_PACKET_ON_SEQUENCE: u32 = 87;
    pub(super) const TRACE_ATTRIBUTES: u32 = 126;
}

mod clock_snapshot {
    pub(super) const CLOCKS: u32 = 1;
    pub(super) const PRIMARY_TRACE_CLOCK: u32 = 2;
    /// Of a clock's reading.
    pub(super) const CLOCK_ID: u32 = 1;
    /// Of a clock's reading.
    pub(super) const TIMESTAMP: u32 = 2;
}

mod trace_attributes {
    pub(super) const ATTRIBUTE: u32 = 1;
    pub(super) const KEY: u32 = 1;
    pub(super) const STRING_VALUE: u32 = 3;
}

mod track_descriptor {
    pub(super) const UUID: u32 = 1;
    pub(super) const NAME: u32 = 2;
    pub(super) const PROCESS: u32 = 3;
    pub(super) const PARENT_UUID: u32 = 5;
    pub(super) const COUNTER: u32 = 8;
    pub(super) const CHILD_ORDERING: u32 = 11;
    pub(super) const SIBLING_ORDER_RANK: u32 = 12;
}

mod process_descriptor {
    pub(super) const PID: u32 = 1;
    pub(super) const PROCESS_NAME: u32 = 6;
    pub(super) const PROCESS_LABELS: u32 = 8;
}

mod track_event {
    pub(super) const CATEGORY_IIDS: u32 = 3;
    pub(super) const DEBUG_ANNOTATIONS: u32 = 4;
    pub(super) const TYPE: u32 = 9;
    pub(super) const NAME_IID: u32 = 10;
    pub(super) const TRACK_UUID: u32 = 11;
    pub(super) const DOUBLE_COUNTER_VALUE: u32 = 44;
    pub(super) const FLOW_IDS: u32 = 47;
    pub(super) const TERMINATING_FLOW_IDS: u32 = 48;
}

mod annotation {
    pub(super) const NAME_IID: u32 = 1;
    pub(super) const BOOL_VALUE: u32 = 2;
    pub(super) const INT_VALUE: u32 = 4;
    pub(super) const DOUBLE_VALUE: u32 = 5;
    pub(super) const STRING_VALUE: u32 = 6;
    pub(super) const NAME: u32 = 10;
    pub(super) const DICT_ENTRIES: u32 = 11;
    pub(super) const ARRAY_VALUES: u32 = 12;
    pub(super) const STRING_VALUE_IID: u32 = 17;
}

mod interned_data {
    pub(super) const EVENT_CATEGORIES: u32 = 1;
    pub(super) const EVENT_NAMES: u32 = 2;
    pub(super) const DEBUG_ANNOTATION_NAMES: u32 = 3;
    pub(super) const DEBUG_ANNOTATION_STRING_VALUES: u32 = 29;
}

/// `Trace.packet`.
const TRACE_PACKET: u32 = 1;
/// `CounterDescriptor.unit_name`.
const UNIT_NAME: u32 = 6;

/// `TrackEvent.Type`.
const SLICE_BEGIN: u64 = 1;
const SLICE_END: u64 = 2;
const INSTANT: u64 = 3;
const COUNTER: u64 = 4;

/// `TracePacket.SequenceFlags`.
const STATE_CLEARED: u64 = 1;
const NEEDS_STATE: u64 = 2;

/// `TrackDescriptor.ChildTracksOrdering`: by `sibling_order_rank`.
const ORDERED_BY_RANK: u64 = 3;

/// `BuiltinClock`.
const CLOCK_REALTIME: u64 = 1;
/// The first id of clocks that belong to a sequence.
const FILE_CLOCK: u64 = 64;

/// Below it a file has room for processes' own tracks; it is above 0, which is the trace's.
const FIRST_TRACK: u64 = 1 << 10;

/// What interned texts may take in memory, here and in a reader. A run has some hundred names; one
/// that puts ids into names fills it every 50,000 spans or so, and costs nothing but the repetition.
const INTERNED_BYTES_MAX: usize = 8 << 20;
/// What an entry takes beside its text.
const ENTRY_BYTES: usize = 64;
