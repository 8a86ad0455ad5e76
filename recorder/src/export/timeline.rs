//! A run as tracks with slices, which both [Perfetto](super::perfetto) and
//! [Trace Event JSON](super::chrome) draw; what differs between them is the pen.
//!
//! A process stands for a service, a lane in it for traces that do not touch, and a row of a lane
//! for spans that nest. A parent in another row is joined to its child by a flow. A token or a log
//! line stands in its span's row where the span is innermost, else on a track beside the rows:
//! inside a row it would look like a part of another span.

use std::collections::{BTreeMap, HashMap};
use std::io;

use retake_schemas::tables::{
    CellRef, DocumentRow, EventRow, MeasureRow, SpanRow, TableName, TokenRow,
};

use super::args::{self, Arg, attribute_args, cell, extend, word};
use super::layout::{self, Node, Step};
use super::source::{Catalog, Gatherer, Item, Source, TraceRows};
use super::texts::Texts;
use super::{ExportError, ExportSummary, Outline};
use crate::reader::run_row;

/// What a format makes of tracks. Times are ns since the file's beginning.
pub(super) trait Pen {
    /// States a process, before its first track.
    fn process(&mut self, process: &Process<'_>) -> io::Result<()>;
    /// States a track, before anything is drawn on it.
    fn track(&mut self, track: &Track<'_>) -> io::Result<()>;
    /// Begins a slice inside those that have begun on the track and not ended.
    fn begin(&mut self, track: TrackId, slice: &Slice<'_>) -> io::Result<()>;
    /// Ends the innermost slice of the track.
    fn end(&mut self, track: TrackId, at_ns: u64) -> io::Result<()>;
    /// Marks a moment.
    fn instant(&mut self, track: TrackId, mark: &Mark<'_>) -> io::Result<()>;
    /// Draws a value of a counter's track.
    fn sample(&mut self, track: TrackId, at_ns: u64, value: f64) -> io::Result<()>;
    /// Writes what makes the file whole.
    fn finish(self) -> io::Result<()>;
}

/// Number of a track in the file, from 0.
pub(super) type TrackId = u32;

/// A service.
#[derive(Debug)]
pub(super) struct Process<'a> {
    /// Its number in the file, from 0; 0 is the run's own.
    pub(super) number: u32,
    pub(super) pid: i32,
    pub(super) name: &'a str,
    pub(super) labels: &'a [String],
}

/// A row, or a counter.
#[derive(Debug)]
pub(super) struct Track<'a> {
    pub(super) id: TrackId,
    pub(super) process: u32,
    pub(super) parent: Option<TrackId>,
    pub(super) name: &'a str,
    /// Place among its siblings.
    pub(super) rank: i32,
    /// Of a counter: the unit.
    pub(super) unit: Option<&'a str>,
}

/// A span to draw.
#[derive(Debug)]
pub(super) struct Slice<'a> {
    pub(super) name: &'a str,
    pub(super) kind: &'a str,
    pub(super) has_failed: bool,
    pub(super) start_ns: u64,
    pub(super) duration_ns: u64,
    pub(super) args: &'a [Arg<'a>],
    /// Flows to children on other tracks.
    pub(super) flows_out: &'a [u64],
    /// The flow from a parent on another track.
    pub(super) flow_in: Option<u64>,
}

/// A moment to draw.
#[derive(Debug)]
pub(super) struct Mark<'a> {
    pub(super) name: &'a str,
    pub(super) category: &'a str,
    pub(super) at_ns: u64,
    pub(super) args: &'a [Arg<'a>],
}

/// Draws the whole run.
pub(super) fn write<P: Pen>(
    source: &Source<'_>,
    catalog: Catalog,
    outline: &Outline<'_>,
    texts: Option<Texts>,
    (pen, on_rows): (P, &mut dyn FnMut(u64)),
) -> Result<ExportSummary, ExportError> {
    let mut timeline = Timeline {
        pen,
        outline,
        texts,
        processes: Vec::new(),
        tracks: HashMap::new(),
        // Flow ids of two runs must not meet when their files are laid together.
        flows: outline.seed(),
        summary: ExportSummary::default(),
    };
    let own = outline.run.manifest().facts.service.clone();
    timeline.process(&own)?;
    Gatherer::new(source, catalog, on_rows).run(&mut |catalog, item| match item {
        Item::Trace(trace_id, rows) => {
            let lane = catalog.trace(trace_id).map_or(0, |facts| facts.lane);
            timeline.trace(lane, &rows)
        }
        Item::Event(event) => timeline.loose(&[], &[event]),
    })?;
    let mut measures = source.batches(TableName::Measures, &[]);
    while let Some(rows) = measures.next_rows::<MeasureRow>()? {
        on_rows(rows.len() as u64);
        for row in rows {
            timeline.sample(&row)?;
        }
    }
    timeline.pen.finish().map_err(ExportError::Write)?;
    Ok(timeline.summary)
}

struct Timeline<'a, P> {
    pen: P,
    outline: &'a Outline<'a>,
    texts: Option<Texts>,
    /// Services by their processes' numbers.
    processes: Vec<String>,
    tracks: HashMap<Place, TrackId>,
    flows: u64,
    summary: ExportSummary,
}

/// What has a track of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    /// A row of a lane; row 0 is the lane itself.
    Row { process: u32, lane: u32, row: u32 },
    /// Beside the rows of a lane.
    Marks { process: u32, lane: u32 },
    /// What belongs to no span.
    Loose,
    /// One series of samples.
    Series(String),
}

/// A trace with all that is decided before it is drawn.
struct Drawing<'a> {
    lane: u32,
    rows: &'a TraceRows,
    /// On the file's clock, with parents across services.
    nodes: Vec<Node>,
    flows_out: Vec<Vec<u64>>,
    flow_in: Vec<Option<u64>>,
    documents: HashMap<usize, Vec<&'a DocumentRow>>,
    marks: HashMap<usize, Vec<Moment<'a>>>,
}

/// A token or a log line of a span.
#[derive(Debug, Clone, Copy)]
struct Moment<'a> {
    at_ns: u64,
    span: usize,
    what: What<'a>,
}

#[derive(Debug, Clone, Copy)]
enum What<'a> {
    Token(&'a TokenRow),
    Event(&'a EventRow),
}

impl<P: Pen> Timeline<'_, P> {
    fn trace(&mut self, lane: u32, rows: &TraceRows) -> Result<(), ExportError> {
        if rows.spans.is_empty() {
            return self.loose(&rows.tokens, &rows.events);
        }
        let by_id = by_id(&rows.spans);
        let nodes = self.nodes(&rows.spans, &by_id);
        let mut layouts = Vec::new();
        let mut place_of = vec![(0, 0); nodes.len()];
        for (service, members) in
            by_service(&rows.spans, &self.outline.run.manifest().facts.service)
        {
            let process = self.process(service)?;
            for (row, steps) in place_members(&nodes, &members).into_iter().enumerate() {
                for step in &steps {
                    if let Step::Begin(at) = step
                        && let Some(place) = place_of.get_mut(*at)
                    {
                        *place = (process, row);
                    }
                }
                layouts.push((process, row, steps));
            }
        }
        let (flows_out, flow_in) = self.flows(&nodes, &place_of);
        let mut drawing = Drawing {
            lane,
            rows,
            nodes,
            flows_out,
            flow_in,
            documents: HashMap::new(),
            marks: HashMap::new(),
        };
        for document in &rows.documents {
            if let Some(span) = by_id.get(document.span_id.as_str()) {
                drawing.documents.entry(*span).or_default().push(document);
            }
        }
        self.sort_in(&by_id, &mut drawing)?;
        for (process, row, steps) in layouts {
            self.row(process, row, &steps, &drawing)?;
        }
        self.summary.traces += 1;
        Ok(())
    }

    fn nodes(&self, spans: &[SpanRow], by_id: &HashMap<&str, usize>) -> Vec<Node> {
        let node = |(at, span): (usize, &SpanRow)| {
            let end = span.start_unix_ns.saturating_add(span.duration_ns.max(0));
            let start = self.outline.since_base_ns(span.start_unix_ns);
            let parent = span.parent_span_id.as_deref().and_then(|id| by_id.get(id).copied());
            Node {
                start,
                end: self.outline.since_base_ns(end).max(start),
                parent: parent.filter(|parent| *parent != at),
            }
        };
        spans.iter().enumerate().map(node).collect()
    }

    /// Joins each child that begins after its parent to it, where they are on different tracks.
    fn flows(
        &mut self,
        nodes: &[Node],
        place_of: &[(u32, usize)],
    ) -> (Vec<Vec<u64>>, Vec<Option<u64>>) {
        let mut out = vec![Vec::new(); nodes.len()];
        let mut into = vec![None; nodes.len()];
        for (at, node) in nodes.iter().enumerate() {
            let Some(parent) = node.parent else { continue };
            let is_apart = place_of.get(parent) != place_of.get(at);
            // A flow goes forward in time or not at all.
            let is_forward = nodes.get(parent).is_some_and(|parent| parent.start <= node.start);
            if let (true, true, Some(out), Some(into)) =
                (is_apart, is_forward, out.get_mut(parent), into.get_mut(at))
            {
                self.flows = self.flows.wrapping_add(1);
                out.push(self.flows);
                *into = Some(self.flows);
            }
        }
        (out, into)
    }

    /// Gives each span its moments; draws those of spans that the run does not have.
    fn sort_in<'t>(
        &mut self,
        by_id: &HashMap<&str, usize>,
        drawing: &mut Drawing<'t>,
    ) -> Result<(), ExportError> {
        let rows = drawing.rows;
        let tokens = rows
            .tokens
            .iter()
            .map(|row| (Some(row.span_id.as_str()), row.time_unix_ns, What::Token(row)));
        let events = rows
            .events
            .iter()
            .map(|row| (row.span_id.as_deref(), row.time_unix_ns, What::Event(row)));
        for (span_id, time_unix_ns, what) in tokens.chain(events) {
            let at_ns = self.outline.since_base_ns(time_unix_ns);
            match span_id.and_then(|id| by_id.get(id)) {
                Some(span) => {
                    let moment = Moment { at_ns, span: *span, what };
                    drawing.marks.entry(*span).or_default().push(moment);
                }
                None => self.moment(Place::Loose, at_ns, what)?,
            }
        }
        Ok(())
    }

    /// Draws a row with the moments of its spans.
    fn row(
        &mut self,
        process: u32,
        row: usize,
        steps: &[Step],
        drawing: &Drawing<'_>,
    ) -> Result<(), ExportError> {
        let lane = drawing.lane;
        let row = u32::try_from(row).unwrap_or(u32::MAX);
        let place = Place::Row { process, lane, row };
        let track = self.track(&place)?;
        let mut moments = moments(steps, drawing).into_iter().peekable();
        let mut open: Vec<usize> = Vec::new();
        for step in steps {
            let (Step::Begin(at) | Step::End(at)) = *step;
            let Some(node) = drawing.nodes.get(at) else { continue };
            let time = if matches!(step, Step::Begin(_)) { node.start } else { node.end };
            while let Some(moment) = moments.peek() {
                let is_innermost = open.last() == Some(&moment.span);
                let place = match is_innermost {
                    true if moment.at_ns <= time => place.clone(),
                    false if moment.at_ns < time => Place::Marks { process, lane },
                    _ => break,
                };
                let (at_ns, what) = (moment.at_ns, moment.what);
                self.moment(place, at_ns, what)?;
                moments.next();
            }
            match step {
                Step::Begin(_) => {
                    self.slice(track, at, drawing)?;
                    open.push(at);
                }
                Step::End(_) => {
                    self.pen.end(track, time).map_err(ExportError::Write)?;
                    open.pop();
                }
            }
        }
        for moment in moments {
            self.moment(Place::Marks { process, lane }, moment.at_ns, moment.what)?;
        }
        Ok(())
    }

    fn slice(
        &mut self,
        track: TrackId,
        at: usize,
        drawing: &Drawing<'_>,
    ) -> Result<(), ExportError> {
        let (Some(span), Some(node)) = (drawing.rows.spans.get(at), drawing.nodes.get(at)) else {
            return Ok(());
        };
        let documents = drawing.documents.get(&at).map(Vec::as_slice).unwrap_or_default();
        let args = args::of_span(span, documents, self.texts.as_mut())?;
        let slice = Slice {
            name: &span.name,
            kind: &span.kind,
            has_failed: span.status == "error",
            start_ns: node.start,
            duration_ns: node.end.saturating_sub(node.start),
            args: &args,
            flows_out: drawing.flows_out.get(at).map(Vec::as_slice).unwrap_or_default(),
            flow_in: drawing.flow_in.get(at).copied().flatten(),
        };
        self.summary.spans += 1;
        self.pen.begin(track, &slice).map_err(ExportError::Write)
    }

    /// Draws what belongs to no span of the run.
    fn loose(&mut self, tokens: &[TokenRow], events: &[EventRow]) -> Result<(), ExportError> {
        for token in tokens {
            let at_ns = self.outline.since_base_ns(token.time_unix_ns);
            self.moment(Place::Loose, at_ns, What::Token(token))?;
        }
        for event in events {
            let at_ns = self.outline.since_base_ns(event.time_unix_ns);
            self.moment(Place::Loose, at_ns, What::Event(event))?;
        }
        Ok(())
    }

    fn moment(&mut self, place: Place, at_ns: u64, what: What<'_>) -> Result<(), ExportError> {
        let track = self.track(&place)?;
        let is_apart = !matches!(place, Place::Row { .. });
        let span_id = match what {
            What::Token(row) => Some(row.span_id.as_str()),
            What::Event(row) => row.span_id.as_deref(),
        };
        // Apart from its span it has to say whose it is.
        let mut args: Vec<Arg<'_>> = span_id
            .filter(|_| is_apart)
            .map(|id| cell("span_id", CellRef::Text(id)))
            .into_iter()
            .collect();
        let (name, category) = match what {
            What::Token(row) => {
                args.push(cell("index", CellRef::Int(row.token_index)));
                args.push(cell("count", CellRef::Int(row.token_count)));
                ("token", "token")
            }
            What::Event(row) => {
                args.push(word("level", &row.level));
                args.push(word("target", &row.target));
                args.extend(
                    row.message.as_deref().map(|text| cell("message", CellRef::Text(text))),
                );
                let attributes = attribute_args(row.attributes.as_deref(), self.texts.as_mut())?;
                extend(&mut args, attributes);
                let is_error = row.level == "error" || row.name == "exception";
                (row.name.as_str(), if is_error { "error" } else { "event" })
            }
        };
        self.summary.instants += 1;
        let mark = Mark { name, category, at_ns, args: &args };
        self.pen.instant(track, &mark).map_err(ExportError::Write)
    }

    fn sample(&mut self, row: &MeasureRow) -> Result<(), ExportError> {
        if !row.value.is_finite() {
            self.summary.left_out += 1;
            return Ok(());
        }
        let series = match &row.attributes {
            Some(attributes) => format!("{} {attributes}", row.name),
            None => row.name.clone(),
        };
        let place = Place::Series(series);
        let track = match self.tracks.get(&place) {
            Some(track) => *track,
            None => self.new_track(&place, Some(&row.unit))?,
        };
        self.summary.samples += 1;
        let at_ns = self.outline.since_base_ns(row.time_unix_ns);
        self.pen.sample(track, at_ns, row.value).map_err(ExportError::Write)
    }

    /// The number of a service's process, which is stated when it is met first.
    fn process(&mut self, service: &str) -> Result<u32, ExportError> {
        let known = self.processes.iter().position(|name| name == service);
        let number = known.unwrap_or(self.processes.len());
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if known.is_none() {
            let run = self.outline.run.manifest();
            let own = i32::try_from(run.facts.host.pid).ok().filter(|pid| *pid > 0);
            let made_up = FOREIGN_PID.saturating_add(i32::try_from(number).unwrap_or(0));
            let labels = [format!("run {}", run.run_id), format!("run name {}", run.facts.name)];
            let name = if service.is_empty() { "(no service)" } else { service };
            let process = Process {
                number,
                pid: own.filter(|_| number == 0).unwrap_or(made_up),
                name,
                labels: if number == 0 { &labels } else { &[] },
            };
            self.processes.push(service.to_owned());
            self.pen.process(&process).map_err(ExportError::Write)?;
        }
        Ok(number)
    }

    fn track(&mut self, place: &Place) -> Result<TrackId, ExportError> {
        match self.tracks.get(place) {
            Some(track) => Ok(*track),
            None => self.new_track(place, None),
        }
    }

    fn new_track(&mut self, place: &Place, unit: Option<&str>) -> Result<TrackId, ExportError> {
        let rank = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let (process, lane, name, rank) = match place {
            Place::Row { process, lane, row: 0 } => {
                (*process, None, format!("lane {}", lane + 1), rank(*lane))
            }
            Place::Row { process, lane, row } => {
                (*process, Some(*lane), format!("lane {} row {}", lane + 1, row + 1), rank(*row))
            }
            Place::Marks { process, lane } => {
                (*process, Some(*lane), format!("lane {} events", lane + 1), i32::MAX)
            }
            Place::Loose => (0, None, "events outside spans".to_owned(), i32::MAX),
            Place::Series(name) => (0, None, name.clone(), i32::MAX - 1),
        };
        let parent = match lane {
            Some(lane) => Some(self.track(&Place::Row { process, lane, row: 0 })?),
            None => None,
        };
        let id = u32::try_from(self.tracks.len()).unwrap_or(u32::MAX);
        let track = Track { id, process, parent, name: &name, rank, unit };
        self.pen.track(&track).map_err(ExportError::Write)?;
        self.tracks.insert(place.clone(), id);
        Ok(id)
    }
}

/// Positions of spans by id. Of two spans with one id the first is meant.
fn by_id(spans: &[SpanRow]) -> HashMap<&str, usize> {
    let mut by_id = HashMap::with_capacity(spans.len());
    for (at, span) in spans.iter().enumerate() {
        by_id.entry(span.span_id.as_str()).or_insert(at);
    }
    by_id
}

/// Positions of spans by service, in order of the names.
fn by_service<'a>(spans: &'a [SpanRow], own: &'a str) -> BTreeMap<&'a str, Vec<usize>> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, span) in spans.iter().enumerate() {
        groups.entry(span.service.as_deref().unwrap_or(own)).or_default().push(at);
    }
    groups
}

/// Places some of the nodes by themselves: a parent among the others is none here.
fn place_members(nodes: &[Node], members: &[usize]) -> Vec<Vec<Step>> {
    let inside: HashMap<usize, usize> =
        members.iter().enumerate().map(|(inside, at)| (*at, inside)).collect();
    let own = |at: &usize| {
        let node = nodes.get(*at)?;
        Some(Node { parent: node.parent.and_then(|p| inside.get(&p).copied()), ..*node })
    };
    let placed = layout::place(&members.iter().filter_map(own).collect::<Vec<_>>());
    let outside = |at: usize| members.get(at).copied().unwrap_or(at);
    let rename = |step: Step| match step {
        Step::Begin(at) => Step::Begin(outside(at)),
        Step::End(at) => Step::End(outside(at)),
    };
    placed.into_iter().map(|steps| steps.into_iter().map(rename).collect()).collect()
}

/// The moments of a row's spans in order of time.
fn moments<'a>(steps: &[Step], drawing: &Drawing<'a>) -> Vec<Moment<'a>> {
    let begun = steps.iter().filter_map(|step| match step {
        Step::Begin(at) => drawing.marks.get(at),
        Step::End(_) => None,
    });
    let mut moments: Vec<_> = begun.flatten().copied().collect();
    moments.sort_by_key(|moment| moment.at_ns);
    moments
}

/// Facts of the run for a file's head.
pub(super) fn facts(outline: &Outline<'_>) -> Vec<(&'static str, String)> {
    let row = run_row(outline.run.manifest());
    let mut facts = vec![
        ("retake.run_id", row.run_id),
        ("retake.run", row.name),
        ("service.name", row.service),
        ("retake.run.status", row.status),
        ("retake.run.started_unix_ns", row.started_unix_ns.to_string()),
        ("retake.base_unix_ns", outline.base_unix_ns.to_string()),
        ("host.name", row.host),
        ("os.description", row.os),
        ("host.cpu.model.name", row.cpu),
        ("retake.recorder_version", row.recorder_version),
    ];
    facts.extend(row.service_version.map(|version| ("service.version", version)));
    facts.extend(row.git_sha.map(|sha| ("vcs.ref.head.revision", sha)));
    facts.extend(row.git_branch.map(|branch| ("vcs.ref.head.name", branch)));
    facts
}

/// Process ids of services whose own is not known start here: Linux gives none above 2^22.
const FOREIGN_PID: i32 = 10_000_000;
