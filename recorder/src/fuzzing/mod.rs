//! What takes bytes that retake did not write, as functions of bytes: for the targets in `fuzz/`.
//!
//! Decoders are private and stay so; this is the one door to them, behind a feature that no
//! program needs. Each function asserts what must hold for any bytes besides not panicking, so a
//! broken promise is found like a crash. What was found once is replayed by the tests at the end,
//! on any toolchain.

mod events;
mod input;
mod journal;
mod run;
mod seeds;
mod spans;

use std::sync::LazyLock;

use retake_schemas::event::{EventBody, Level, SpanOpened, SpanUpdated};
use retake_schemas::mapping::BUILT_IN;
use retake_schemas::tables::{
    DocumentRow, EventRow, MeasureRow, PayloadRow, Row, SpanRow, TokenRow,
};
use retake_schemas::{EventSeq, RunId, SpanId, SpanKey, TraceId};

use crate::clock::{Anchor, Timeline};
use crate::fold::{Carried, Fold, FoldedRows, OpenSpans};
use crate::journal::{
    DeadJournal, Frame, JournalHeader, LanePositions, decode_body, encode_body, write_frame,
};
pub use crate::otlp::fuzzing::{json as otlp_json, protobuf as otlp_protobuf};
use input::Input;
pub use journal::damaged_journal;
pub use run::run_folder;
pub use seeds::seeds;
pub use spans::{events, records};

/// Frames of a durable journal or a carry file, and the header of the former.
pub fn frame(bytes: &[u8]) {
    let _ = JournalHeader::decode(bytes);
    let mut offset = 0;
    while let Ok(Some(frame)) = Frame::decode(bytes, offset) {
        let mut again = Vec::new();
        write_frame(&mut again, frame.seq, frame.time_unix_ns, frame.payload);
        let end = frame.next_offset(offset);
        assert!(end > offset && again.len() == end - offset, "a frame has the length it states");
        offset = end;
    }
}

/// A mapped file of lanes. Every second input gets a header that passes.
pub fn ring_file(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let is_fixed = input.flag();
    let mut file = input.rest().to_vec();
    if is_fixed {
        fix_header(&mut file);
    }
    let mut journal = DeadJournal::default();
    journal.add_ring_file("ring-0000.lanes", &file);
    fold_journal(journal);
}

/// A durable journal. Every second input gets a header and frames that pass.
pub fn durable_file(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let is_fixed = input.flag();
    let mut file = input.rest().to_vec();
    if is_fixed {
        fix_header(&mut file);
        fix_frames(&mut file, 64);
    }
    let mut journal = DeadJournal::default();
    journal.add_durable_file("durable-000000.journal", &file);
    fold_journal(journal);
}

/// The frames of a carry file, with checksums that pass.
pub fn carry_file(bytes: &[u8]) {
    let mut file = bytes.to_vec();
    fix_frames(&mut file, 0);
    let (mut items, mut offset) = (Vec::<Carried>::new(), 0);
    while let Ok(Some(frame)) = Frame::decode(&file, offset) {
        offset = frame.next_offset(offset);
        items.extend(rmp_serde::from_slice::<Carried>(frame.payload));
    }
    let mut fold = new_fold();
    fold.take_over(items);
    let carried = fold.carried();
    let mut again = new_fold();
    again.take_over(through_bytes(&carried));
    assert_eq!(again.open_count(), fold.open_count(), "what is open is carried");
    check_rows(&fold.take(OpenSpans::Finish));
    check_rows(&again.take(OpenSpans::Finish));
}

/// An event in its general form.
pub fn body(bytes: &[u8]) {
    let Ok(body) = decode_body(bytes) else { return };
    let mut again = Vec::new();
    encode_body(&body, &mut again).expect("what was decoded can be encoded");
    let decoded = decode_body(&again).expect("what was encoded can be decoded");
    // Floats that are not numbers are equal to nothing, so the texts are compared.
    assert_eq!(format!("{body:?}"), format!("{decoded:?}"));
    let mut fold = new_fold();
    fold.apply_body(i64::MAX, &body);
    fold.apply_body(i64::MIN, &decoded);
    check_counts(&fold);
    check_rows(&fold.take(OpenSpans::Finish));
}

/// Arbitrary attributes through the built-in mapping, as a row and as columns.
pub fn attributes(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let names = &*ATTRIBUTE_NAMES;
    let mut attributes = Vec::new();
    while !input.is_empty() {
        let key = match input.flag() {
            true => names.get(input.place(names.len())).cloned().unwrap_or_default(),
            false => input.text(),
        };
        attributes.push((key.into(), input.value(0)));
    }
    let mut row = SpanRow::default();
    BUILT_IN.apply(&attributes, &mut row);
    let mut fold = new_fold();
    let span = SpanKey { trace_id: TraceId::from_bytes([1; 16]), span_id: SpanId::from_u64(1) };
    let updated = EventBody::SpanUpdated(SpanUpdated { span, attributes });
    fold.apply_body(0, &EventBody::SpanOpened(Box::new(opened(span))));
    fold.apply_body(0, &updated);
    let rows = fold.take(OpenSpans::Finish);
    check_rows(&rows);
    let folded = back::<SpanRow>(&rows).pop().expect("one span");
    assert_eq!(folded.attributes, row.attributes);
    assert_eq!(folded.model_request, row.model_request);
}

fn opened(span: SpanKey) -> SpanOpened {
    SpanOpened {
        span,
        parent: None,
        name: "n".to_owned(),
        target: String::new(),
        level: Level::Info,
        source_file: None,
        source_line: None,
        thread: None,
        attributes: Vec::new(),
    }
}

/// Names that have an entry, in order: what a number picks must be the same in every process.
static ATTRIBUTE_NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut names: Vec<String> = BUILT_IN.names().map(str::to_owned).collect();
    names.sort_unstable();
    names
});

/// A manifest's file. Every second input becomes the inner text under a digest that passes.
pub fn manifest(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let is_fixed = input.flag();
    let text = input.rest();
    let path = std::path::Path::new("manifest.json");
    let parsed = if is_fixed {
        let digest = retake_schemas::Digest::of(text).to_string();
        let file = [br#"{"blake3":""#, digest.as_bytes(), br#"","manifest":"#, text, b"}"];
        crate::store::parse_manifest(path, &file.concat())
    } else {
        crate::store::parse_manifest(path, text)
    };
    let Ok(manifest) = parsed else { return };
    let _ = crate::reader::run_row(&manifest);
    let _ = manifest.accounting.dropped_total();
    for segment in &manifest.segments {
        assert!(!segment.file.contains('/'), "a manifest names files of its folder only");
    }
}

fn fold_journal(mut journal: DeadJournal) {
    let mut fold = new_fold();
    let sealed = LanePositions::from([(0, 1)]);
    journal.replay(&sealed, u64::MAX, |place, record| fold.record(place, record, None));
    check_counts(&fold);
    check_rows(&fold.take(OpenSpans::Finish));
}

fn new_fold() -> Fold {
    let run_id: RunId = "20260101t000000-abcd".parse().expect("a run id");
    let start = Anchor { ticks: 0, unix_ns: START_UNIX_NS };
    Fold::new(&run_id, "svc", EventSeq(0), Timeline::new(start, 1.0))
}

/// What is carried, written and read.
fn through_bytes(carried: &[Carried]) -> Vec<Carried> {
    let through = |item: &Carried| {
        let bytes = rmp_serde::to_vec_named(item).expect("what is carried can be encoded");
        rmp_serde::from_slice(&bytes).expect("what was encoded can be decoded")
    };
    carried.iter().map(through).collect()
}

/// Opened = closed + open + dropped.
fn check_counts(fold: &Fold) {
    let counts = fold.span_counts();
    let known = u128::from(counts.closed) + fold.open_count() as u128 + u128::from(counts.dropped);
    assert!(
        u128::from(counts.opened) == known || counts.opened == u64::MAX,
        "{counts:?}, {} open",
        fold.open_count()
    );
}

/// Rows become batches, batches rows again, and no row is impossible.
fn check_rows(rows: &FoldedRows) {
    let spans: Vec<SpanRow> = if rows.span_count() > 0 { back(rows) } else { Vec::new() };
    assert_eq!(spans.len(), rows.span_count());
    for row in &spans {
        assert!(row.duration_ns >= 0, "{row:?}");
        assert!(row.self_ns.is_none_or(|own| (0..=row.duration_ns).contains(&own)), "{row:?}");
    }
    check_table::<TokenRow>(rows, rows.tokens.len());
    check_table::<EventRow>(rows, rows.events.len());
    check_table::<DocumentRow>(rows, rows.documents.len());
    check_table::<PayloadRow>(rows, rows.payloads.len());
    check_table::<MeasureRow>(rows, rows.measures.len());
}

fn check_table<R: Row>(rows: &FoldedRows, count: usize) {
    // An empty batch costs as much as a full one, and most are empty.
    if count > 0 {
        assert_eq!(back::<R>(rows).len(), count);
    }
}

fn back<R: Row>(rows: &FoldedRows) -> Vec<R> {
    R::from_batch(&rows.batch(R::TABLE)).expect("our own batch")
}

fn fix_header(file: &mut [u8]) {
    let Some((covered, rest)) = file.split_at_mut_checked(60) else { return };
    if let Some(place) = rest.first_chunk_mut::<4>() {
        *place = crc32c::crc32c(covered).to_le_bytes();
    }
}

/// Gives frames checksums that pass, and lengths that end inside the file.
fn fix_frames(file: &mut [u8], from: usize) {
    let mut at = from;
    while let Some(rest) = file.get_mut(at..).filter(|rest| rest.len() > 24) {
        let stated = rest.first_chunk().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
        let length = if (24..=rest.len()).contains(&stated) { stated } else { rest.len() };
        let Some(frame) = rest.get_mut(..length) else { return };
        let Some((header, payload)) = frame.split_first_chunk_mut::<24>() else { return };
        let crc = crc32c::crc32c_append(crc32c::crc32c(payload), &header[8..]);
        header[..4].copy_from_slice(&(length as u32).to_le_bytes());
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        at += length.next_multiple_of(8);
    }
}

/// When the clock of all these runs started, ns since the Unix epoch.
const START_UNIX_NS: i64 = 1_700_000_000_000_000_000;

#[cfg(test)]
mod tests;
