//! Reads Perfetto files and protobuf, from the specifications and not from the writer.

use std::collections::{BTreeMap, HashMap};

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    pub(super) fn uint(self) -> u64 {
        match self {
            Self::Varint(value) | Self::Fixed64(value) => value,
            Self::Bytes(_) => panic!("a number was expected"),
        }
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => panic!("bytes were expected"),
        }
    }

    pub(super) fn text(self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("strings are UTF-8")
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().expect("a varint is cut");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a varint is too long")
}

/// The fields of a message, in order.
pub(super) fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Field::Varint(varint(&mut bytes)),
            1 => {
                let (value, rest) = bytes.split_first_chunk::<8>().expect("a fixed64 is cut");
                bytes = rest;
                Field::Fixed64(u64::from_le_bytes(*value))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (value, rest) = bytes.split_at_checked(length).expect("a message is cut");
                bytes = rest;
                Field::Bytes(value)
            }
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

pub(super) fn all<'a>(fields: &[(u64, Field<'a>)], number: u64) -> Vec<Field<'a>> {
    fields.iter().filter(|(n, _)| *n == number).map(|(_, value)| *value).collect()
}

pub(super) fn one<'a>(fields: &[(u64, Field<'a>)], number: u64) -> Option<Field<'a>> {
    let found = all(fields, number);
    assert!(found.len() <= 1, "field {number} stands twice");
    found.first().copied()
}

/// A track as its descriptor says.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Track {
    pub(super) name: String,
    pub(super) parent: Option<u64>,
    pub(super) process: Option<(u64, String)>,
    pub(super) unit: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Begin,
    End,
    Instant,
    Counter,
}

/// A track event with everything looked up.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// On the clock of the snapshot's other reading: wall time.
    pub(super) unix_ns: u64,
    pub(super) track: u64,
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) categories: Vec<String>,
    pub(super) args: BTreeMap<String, String>,
    pub(super) flows: Vec<u64>,
    pub(super) ends_flows: Vec<u64>,
    pub(super) value: Option<f64>,
}

/// A Perfetto file.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) tracks: BTreeMap<u64, Track>,
    pub(super) events: Vec<Event>,
    pub(super) facts: BTreeMap<String, String>,
    /// How often the incremental state was cleared.
    pub(super) clears: usize,
}

#[derive(Default)]
struct State {
    clock: Option<u64>,
    /// What each clock shows at the snapshot.
    readings: HashMap<u64, u64>,
    primary: u64,
    interned: HashMap<(u64, u64), String>,
}

pub(super) fn perfetto(bytes: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut state = State::default();
    let mut sequence = None;
    for (number, packet) in fields(bytes) {
        assert_eq!(number, 1, "a trace has packets only");
        let packet = fields(packet.bytes());
        let id = one(&packet, 10).expect("trusted_packet_sequence_id").uint();
        assert!(id != 0 && *sequence.get_or_insert(id) == id);
        let flags = one(&packet, 13).expect("sequence_flags").uint();
        if flags & 1 != 0 {
            trace.clears += 1;
            state.interned.clear();
            state.clock = None;
        } else {
            assert_eq!(flags, 2);
            assert!(trace.clears > 0, "the first packet clears the state");
        }
        if let Some(defaults) = one(&packet, 59) {
            state.clock = one(&fields(defaults.bytes()), 58).map(Field::uint);
        }
        if let Some(interned) = one(&packet, 12) {
            intern(&mut state, interned.bytes());
        }
        if let Some(snapshot) = one(&packet, 6) {
            let snapshot = fields(snapshot.bytes());
            for clock in all(&snapshot, 1) {
                let clock = fields(clock.bytes());
                let (id, reads) = (one(&clock, 1).unwrap().uint(), one(&clock, 2).unwrap().uint());
                state.readings.insert(id, reads);
            }
            state.primary = one(&snapshot, 2).unwrap().uint();
            assert_eq!(state.primary, 1, "BUILTIN_CLOCK_REALTIME");
        }
        if let Some(attributes) = one(&packet, 126) {
            for attribute in all(&fields(attributes.bytes()), 1) {
                let attribute = fields(attribute.bytes());
                let (key, value) = (one(&attribute, 1).unwrap(), one(&attribute, 3).unwrap());
                trace.facts.insert(key.text(), value.text());
            }
        }
        if let Some(descriptor) = one(&packet, 60) {
            let (uuid, track) = track(descriptor.bytes());
            let parent = track.parent;
            assert!(parent.is_none_or(|parent| trace.tracks.contains_key(&parent)));
            assert_eq!(trace.tracks.insert(uuid, track), None, "a track is stated twice");
        }
        if let Some(event) = one(&packet, 11) {
            let time = one(&packet, 8).expect("timestamp").uint();
            let clock = one(&packet, 58).map(Field::uint).or(state.clock).unwrap();
            let unix_ns = time - state.readings[&clock] + state.readings[&state.primary];
            let event = event_of(&state, unix_ns, event.bytes());
            assert!(trace.tracks.contains_key(&event.track), "a track is not stated");
            trace.events.push(event);
        }
    }
    trace
}

fn intern(state: &mut State, bytes: &[u8]) {
    for (kind, entry) in fields(bytes) {
        let entry = fields(entry.bytes());
        let (iid, text) = (one(&entry, 1).unwrap().uint(), one(&entry, 2).unwrap().text());
        assert_ne!(iid, 0);
        assert_eq!(state.interned.insert((kind, iid), text), None, "a number is given twice");
    }
}

fn track(bytes: &[u8]) -> (u64, Track) {
    let descriptor = fields(bytes);
    let process = one(&descriptor, 3).map(|process| {
        let process = fields(process.bytes());
        (one(&process, 1).unwrap().uint(), one(&process, 6).unwrap().text())
    });
    let counter = one(&descriptor, 8).map(|counter| fields(counter.bytes()));
    let track = Track {
        name: one(&descriptor, 2).map(Field::text).unwrap_or_default(),
        parent: one(&descriptor, 5).map(Field::uint),
        process,
        unit: counter.map(|counter| one(&counter, 6).unwrap().text()),
    };
    (one(&descriptor, 1).unwrap().uint(), track)
}

fn event_of(state: &State, unix_ns: u64, bytes: &[u8]) -> Event {
    let event = fields(bytes);
    let interned = |kind: u64, iid: Field<'_>| {
        state.interned.get(&(kind, iid.uint())).expect("an interned text is stated").clone()
    };
    let mut args = BTreeMap::new();
    for annotation in all(&event, 4) {
        let annotation = fields(annotation.bytes());
        let name = interned(3, one(&annotation, 1).unwrap());
        let value = match one(&annotation, 17) {
            Some(iid) => interned(29, iid),
            None => value_of(&annotation),
        };
        assert_eq!(args.insert(name, value), None, "an annotation stands twice");
    }
    let kind = match one(&event, 9).unwrap().uint() {
        1 => Kind::Begin,
        2 => Kind::End,
        3 => Kind::Instant,
        4 => Kind::Counter,
        other => panic!("type {other}"),
    };
    Event {
        unix_ns,
        track: one(&event, 11).unwrap().uint(),
        kind,
        name: one(&event, 10).map(|iid| interned(2, iid)).unwrap_or_default(),
        categories: all(&event, 3).into_iter().map(|iid| interned(1, iid)).collect(),
        args,
        flows: all(&event, 47).into_iter().map(Field::uint).collect(),
        ends_flows: all(&event, 48).into_iter().map(Field::uint).collect(),
        value: one(&event, 44).map(|value| f64::from_bits(value.uint())),
    }
}

fn value_of(annotation: &[(u64, Field<'_>)]) -> String {
    let value = annotation.iter().find(|(number, _)| ![1, 10].contains(number));
    match value {
        Some((2, value)) => (value.uint() == 1).to_string(),
        Some((4, value)) => (value.uint() as i64).to_string(),
        Some((5, value)) => f64::from_bits(value.uint()).to_string(),
        Some((6, value)) => value.text(),
        Some((11, _)) => {
            let entries = all(annotation, 11).into_iter().map(|entry| {
                let entry = fields(entry.bytes());
                format!("{}: {}", one(&entry, 10).unwrap().text(), value_of(&entry))
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Some((12, _)) => {
            let values = all(annotation, 12);
            let values = values.into_iter().map(|value| value_of(&fields(value.bytes())));
            format!("[{}]", values.collect::<Vec<_>>().join(", "))
        }
        // A list without elements.
        None => String::new(),
        Some(other) => panic!("{other:?}"),
    }
}

/// A slice as a viewer builds it from begin and end.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) event: Event,
    pub(super) end_unix_ns: u64,
    /// Span id of the slice it is drawn in.
    pub(super) inside: Option<String>,
}

/// Builds slices the way trace processor does: events of a track in order of time, in the order
/// of the file where times are equal. Every end must match a begin.
pub(super) fn slices(trace: &Trace) -> Vec<Seen> {
    let mut by_track: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
    for event in &trace.events {
        by_track.entry(event.track).or_default().push(event);
    }
    let mut slices = Vec::new();
    for mut events in by_track.into_values() {
        events.sort_by_key(|event| event.unix_ns);
        let mut open: Vec<usize> = Vec::new();
        for event in events {
            match event.kind {
                Kind::Begin => {
                    let inside = open.last().map(|at: &usize| span_id(&slices, *at));
                    open.push(slices.len());
                    slices.push(Seen { event: event.clone(), end_unix_ns: 0, inside });
                }
                Kind::End => {
                    let at = open.pop().expect("an end without a begin");
                    slices[at].end_unix_ns = event.unix_ns;
                }
                Kind::Instant | Kind::Counter => {}
            }
        }
        assert!(open.is_empty(), "a begin without an end");
    }
    slices
}

fn span_id(slices: &[Seen], at: usize) -> String {
    slices[at].event.args["span_id"].clone()
}
