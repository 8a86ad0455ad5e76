//! Trace Event JSON, one object that is valid however long it gets: events are written as they
//! come, commas before each but the first, and the array is closed at the end.
//!
//! Slices are complete events (`X`), which unlike pairs of begin and end cannot be paired wrongly;
//! rows do not overlap (see [`layout`](super::layout)), so readers nest them rightly. A row is a
//! thread to the format: its id is the track's number and its name says what it is. Times are
//! microseconds with three decimals, made from whole nanoseconds, since the file's beginning: of
//! wall time a double would lose the last digits.

use std::io::{self, Write};

use retake_schemas::tables::CellRef;
use serde_json::{Map, Value, json};

use super::args::{Arg, ArgValue};
use super::timeline::{self, Mark, Process, Slice, Track, TrackId};
use super::{ExportError, Outline};

/// Writes events.
pub(super) struct Pen<'a, W> {
    out: &'a mut W,
    line: Vec<u8>,
    has_events: bool,
    /// Process ids by number.
    pids: Vec<i32>,
    tracks: Vec<Drawn>,
}

/// A track that was stated.
#[derive(Debug)]
struct Drawn {
    pid: i32,
    name: String,
    sort_index: i64,
}

impl<'a, W: Write> Pen<'a, W> {
    pub(super) fn new(out: &'a mut W, outline: &Outline<'_>) -> Result<Self, ExportError> {
        let facts = timeline::facts(outline).into_iter();
        let facts: Map<_, _> = facts.map(|(name, value)| (name.to_owned(), value.into())).collect();
        let head = format!(
            "{{\"displayTimeUnit\":\"ns\",\"otherData\":{},\"traceEvents\":[",
            Value::Object(facts)
        );
        out.write_all(head.as_bytes()).map_err(ExportError::Write)?;
        Ok(Self { out, line: Vec::new(), has_events: false, pids: Vec::new(), tracks: Vec::new() })
    }

    fn pid(&self, process: u32) -> i32 {
        self.pids.get(process as usize).copied().unwrap_or_default()
    }

    fn event(
        &mut self,
        fields: &[(&str, Value)],
        times_ns: &[(&str, u64)],
        args: Option<Map<String, Value>>,
    ) -> io::Result<()> {
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(if self.has_events { b",\n{" } else { b"\n{" });
        self.has_events = true;
        for (name, value) in fields {
            write!(line, "{}:{value},", Value::from(*name))?;
        }
        for (name, time_ns) in times_ns {
            write!(line, "{}:{}.{:03},", Value::from(*name), time_ns / 1000, time_ns % 1000)?;
        }
        match args {
            Some(args) => write!(line, "\"args\":{}}}", Value::Object(args))?,
            None => {
                // Every event has a field, so a comma stands at the end.
                line.pop();
                line.push(b'}');
            }
        }
        self.out.write_all(line)
    }

    fn metadata(&mut self, what: &str, pid: i32, tid: Option<u64>, arg: Value) -> io::Result<()> {
        let mut head = vec![("ph", json!("M")), ("name", json!(what)), ("pid", json!(pid))];
        head.extend(tid.map(|tid| ("tid", json!(tid))));
        let name = if what.ends_with("sort_index") { "sort_index" } else { "name" };
        let name = if what == "process_labels" { "labels" } else { name };
        self.event(&head, &[], Some(Map::from_iter([(name.to_owned(), arg)])))
    }

    /// Where events of a track stand.
    fn place(&self, track: TrackId) -> [(&'static str, Value); 2] {
        let pid = self.tracks.get(track as usize).map_or(0, |track| track.pid);
        [("pid", json!(pid)), ("tid", json!(tid(track)))]
    }
}

impl<W: Write> timeline::Pen for Pen<'_, W> {
    fn process(&mut self, process: &Process<'_>) -> io::Result<()> {
        self.pids.push(process.pid);
        self.metadata("process_name", process.pid, None, process.name.into())?;
        self.metadata("process_sort_index", process.pid, None, process.number.into())?;
        if !process.labels.is_empty() {
            let labels = process.labels.join(", ");
            self.metadata("process_labels", process.pid, None, labels.into())?;
        }
        Ok(())
    }

    fn track(&mut self, track: &Track<'_>) -> io::Result<()> {
        let pid = self.pid(track.process);
        let rank = i64::from(track.rank);
        // A lane's rows come after it and before the next lane.
        let sort_index = match track.parent.and_then(|parent| self.tracks.get(parent as usize)) {
            Some(parent) => parent.sort_index + 1 + rank.min(LANE_ROWS - 2),
            None => rank * LANE_ROWS,
        };
        self.tracks.push(Drawn { pid, name: track.name.to_owned(), sort_index });
        if track.unit.is_some() {
            // A counter is known by its name.
            return Ok(());
        }
        self.metadata("thread_name", pid, Some(tid(track.id)), track.name.into())?;
        self.metadata("thread_sort_index", pid, Some(tid(track.id)), sort_index.into())
    }

    fn begin(&mut self, track: TrackId, slice: &Slice<'_>) -> io::Result<()> {
        let place = self.place(track);
        let category = if slice.has_failed { ",error" } else { "" };
        let category = Value::from(format!("{}{category}", slice.kind));
        let name = Value::from(slice.name);
        let mut head = vec![("ph", json!("X")), ("name", name), ("cat", category)];
        head.extend(place.clone());
        if slice.has_failed {
            head.push(("cname", json!("terrible")));
        }
        let times = [("ts", slice.start_ns), ("dur", slice.duration_ns)];
        self.event(&head, &times, Some(arguments(slice.args)))?;
        let ends = slice.flows_out.iter().map(|flow| ("s", *flow));
        for (phase, flow) in ends.chain(slice.flow_in.map(|flow| ("f", flow))) {
            let mut head =
                vec![("ph", json!(phase)), ("name", json!("child")), ("cat", json!("flow"))];
            head.extend(place.clone());
            head.push(("id", json!(format!("0x{flow:x}"))));
            // To the slice that begins here, not to the next one.
            head.push(("bp", json!("e")));
            self.event(&head, &[("ts", slice.start_ns)], None)?;
        }
        Ok(())
    }

    /// A complete event said when it ends.
    fn end(&mut self, _track: TrackId, _at_ns: u64) -> io::Result<()> {
        Ok(())
    }

    fn instant(&mut self, track: TrackId, mark: &Mark<'_>) -> io::Result<()> {
        let mut head = vec![("ph", json!("i")), ("name", json!(mark.name))];
        head.push(("cat", json!(mark.category)));
        head.extend(self.place(track));
        head.push(("s", json!("t")));
        self.event(&head, &[("ts", mark.at_ns)], Some(arguments(mark.args)))
    }

    fn sample(&mut self, track: TrackId, at_ns: u64, value: f64) -> io::Result<()> {
        let Some(Drawn { pid, name, .. }) = self.tracks.get(track as usize) else { return Ok(()) };
        let head = [("ph", json!("C")), ("name", json!(name)), ("pid", json!(pid))];
        let args = Map::from_iter([("value".to_owned(), json!(value))]);
        self.event(&head, &[("ts", at_ns)], Some(args))
    }

    fn finish(self) -> io::Result<()> {
        self.out.write_all(b"\n]}\n")
    }
}

/// Threads are counted from 1: some readers take 0 for none.
fn tid(track: TrackId) -> u64 {
    u64::from(track) + 1
}

fn arguments(args: &[Arg<'_>]) -> Map<String, Value> {
    let value = |value: &ArgValue<'_>| match value {
        ArgValue::Cell(CellRef::Bool(value)) => json!(value),
        ArgValue::Cell(CellRef::Int(value)) => json!(value),
        ArgValue::Cell(CellRef::Float(value)) => json!(value),
        ArgValue::Cell(CellRef::Text(text)) | ArgValue::Word(text) => json!(text),
        ArgValue::Json(value) => value.clone(),
    };
    args.iter().map(|arg| (arg.name.clone().into_owned(), value(&arg.value))).collect()
}

/// Places in the order of tracks that a lane's rows have; more rows share the last one.
const LANE_ROWS: i64 = 1 << 12;
