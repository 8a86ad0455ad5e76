//! Recovering a disk and comparing what is there with what was recorded.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use retake_schemas::event::RunStatus;
use retake_schemas::manifest::{Manifest, Segment};
use retake_schemas::tables::{EventRow, MeasureRow, Row, SpanRow, TableName};
use retake_schemas::{Digest, RunId};

use super::session::{Recorded, Session, is_there};
use crate::Store;
use crate::disk::Disk;
use crate::disk::fault::{FaultDisk, Image};
use crate::recover::recover_run;

/// A run's rows, as far as they matter here.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Rows {
    /// Numbers of log lines, in the order of the rows.
    pub(super) notes: Vec<u64>,
    /// Spans by name and number.
    pub(super) spans: BTreeMap<String, Span>,
    /// Sum of stated losses.
    pub(super) stated_losses: u64,
    /// Manifest: offered, accepted, dropped.
    pub(super) accounting: (u64, u64, u64),
}

/// What a row says of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) status: String,
    pub(super) duration_ns: i64,
    pub(super) self_ns: Option<i64>,
}

/// Recovers a run on a disk; `None` when there is no such run.
///
/// # Panics
/// It cannot be recovered, or what is there cannot be read.
pub(super) fn recovered(disk: &FaultDisk, root: &Path, run_id: &RunId) -> Option<Rows> {
    let store = Store::on(Arc::new(disk.clone()), root);
    if !is_there(disk, root, run_id) {
        return None;
    }
    recover_run(&store, run_id).unwrap();
    if !is_there(disk, root, run_id) {
        return None;
    }
    let manifest = store.manifest(run_id).unwrap();
    assert_ne!(manifest.status, RunStatus::Recording, "recovery ends a run");
    Some(read(disk, &Session::folder(root, run_id), &manifest))
}

/// Reads what the manifest names, digests checked.
pub(super) fn read(disk: &FaultDisk, folder: &Path, manifest: &Manifest) -> Rows {
    let mut rows = Rows::default();
    let started = manifest.facts.started_unix_ns;
    for segment in &manifest.segments {
        let part = part(disk, folder, segment);
        rows.notes.extend(&part.notes);
        rows.stated_losses += part.stated_losses;
        for (name, start_unix_ns, span) in &part.spans {
            let lived = start_unix_ns - started;
            assert!((-SKEW_NS..HOUR_NS).contains(&lived), "{name} starts at {lived}");
            let before = rows.spans.insert(name.clone(), span.clone());
            assert_eq!(before, None, "{name} stands twice");
        }
    }
    let accounting = &manifest.accounting;
    rows.accounting = (accounting.offered, accounting.accepted, accounting.dropped_total());
    assert_eq!(accounting.offered, accounting.accepted + accounting.dropped_total());
    rows
}

/// What one segment adds to the rows.
#[derive(Debug, Default)]
struct Part {
    notes: Vec<u64>,
    spans: Vec<(String, i64, Span)>,
    stated_losses: u64,
}

/// Reads a segment; one that was read before is only compared with its digest.
fn part(disk: &FaultDisk, folder: &Path, segment: &Segment) -> Rc<Part> {
    let bytes = disk.read(&folder.join(&segment.file)).unwrap();
    assert_eq!(Digest::of(&bytes), segment.blake3, "{}", segment.file);
    PARTS.with_borrow_mut(|parts| {
        Rc::clone(parts.entry((segment.table, segment.blake3)).or_insert_with(|| {
            let mut part = Part::default();
            match segment.table {
                TableName::Events => part.notes = rows_of(bytes).iter().map(number).collect(),
                TableName::Spans => part.spans = rows_of(bytes).into_iter().map(span).collect(),
                _ => part.stated_losses = rows_of(bytes).iter().map(stated_loss).sum(),
            }
            Rc::new(part)
        }))
    })
}

fn number(row: &EventRow) -> u64 {
    row.message.as_ref().unwrap().parse().unwrap()
}

fn span(row: SpanRow) -> (String, i64, Span) {
    let name = format!("{}{}", row.name, row.attributes.unwrap_or_default());
    let SpanRow { status, duration_ns, self_ns, start_unix_ns, .. } = row;
    (name, start_unix_ns, Span { status, duration_ns, self_ns })
}

fn stated_loss(row: &MeasureRow) -> u64 {
    assert_eq!(row.name, "retake.dropped", "nothing else is measured here");
    row.value as u64
}

fn rows_of<R: Row>(bytes: Vec<u8>) -> Vec<R> {
    let bytes = bytes::Bytes::from(bytes);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    reader.flat_map(|batch| R::from_batch(&batch.unwrap()).unwrap()).collect()
}

thread_local! {
    /// Segments read before.
    static PARTS: RefCell<HashMap<(TableName, Digest), Rc<Part>>> = RefCell::default();
}

/// Checks rows against what was recorded: everything below `acknowledged` is there once and in
/// order, and nothing is there that was not recorded. `Err` says what is wrong.
pub(super) fn compare(rows: &Rows, recorded: &[Recorded], acknowledged: u64) -> Result<(), String> {
    let promised = &recorded[..usize::try_from(acknowledged).unwrap().min(recorded.len())];
    let notes = |events: &[Recorded]| -> Vec<u64> {
        let number = |event: &Recorded| match event {
            Recorded::Note(number) => Some(*number),
            _ => None,
        };
        events.iter().filter_map(number).collect()
    };
    let promised_notes = notes(promised);
    if !rows.notes.starts_with(&promised_notes) {
        return Err(format!("notes {promised_notes:?} were promised, {:?} are there", rows.notes));
    }
    if !rows.notes.is_sorted_by(|a, b| a < b) {
        return Err(format!("notes are not in order: {:?}", rows.notes));
    }
    let all_notes: BTreeSet<u64> = notes(recorded).into_iter().collect();
    if let Some(stranger) = rows.notes.iter().find(|number| !all_notes.contains(number)) {
        return Err(format!("note {stranger} was never recorded"));
    }
    let mut names = BTreeSet::new();
    for (seq, event) in recorded.iter().enumerate() {
        let is_promised = seq < promised.len();
        let (name, is_end) = match event {
            Recorded::Open(number) => (format!("span {number}"), false),
            Recorded::Close(number) => (format!("span {number}"), true),
            Recorded::Quick(number) => {
                let name = format!("quick{{\"number\":{number}}}");
                let is_second = names.contains(&name);
                (name, is_second)
            }
            Recorded::Run | Recorded::Note(_) => continue,
        };
        let status = rows.spans.get(&name).map(|span| span.status.as_str());
        if is_promised && (status.is_none() || is_end && status != Some("ok")) {
            return Err(format!("{event:?} was promised; its span is {status:?}"));
        }
        names.insert(name);
    }
    match rows.spans.keys().find(|name| !names.contains(*name)) {
        Some(stranger) => Err(format!("span {stranger} was never recorded")),
        None => Ok(()),
    }
}

/// Recovers images, each different one once.
pub(super) struct Recoveries {
    root: PathBuf,
    run_id: RunId,
    known: HashMap<[u8; 32], Option<Rows>>,
    /// Images asked for.
    pub(super) images: usize,
}

impl Recoveries {
    pub(super) fn new(root: &Path, run_id: &RunId) -> Self {
        let (root, run_id) = (root.to_owned(), run_id.clone());
        Self { root, run_id, known: HashMap::new(), images: 0 }
    }

    /// Checks what recovery makes of an image.
    pub(super) fn check(
        &mut self,
        image: Image,
        recorded: &[Recorded],
        acknowledged: u64,
    ) -> Result<(), String> {
        self.images += 1;
        let rows = self
            .known
            .entry(image.digest())
            .or_insert_with(|| recovered(&FaultDisk::new(image), &self.root, &self.run_id));
        match rows {
            Some(rows) => compare(rows, recorded, acknowledged),
            None if acknowledged == 0 => Ok(()),
            None => Err(format!("{acknowledged} events were promised, the run is not there")),
        }
    }

    /// Images that differed.
    pub(super) fn distinct(&self) -> usize {
        self.known.len()
    }
}

/// Wall time is read before the clock is.
const SKEW_NS: i64 = 50_000_000;
const HOUR_NS: i64 = 3_600_000_000_000;
