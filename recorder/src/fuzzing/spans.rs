//! Random sequences of events and records through the fold, with seals in between, and what must
//! hold at every step.

use retake_schemas::event::Level;

use super::events::body;
use super::input::Input;
use super::{check_counts, check_rows, new_fold, through_bytes};
use crate::fold::{Fold, OpenSpans};
use crate::journal::record::{self, Kind, Record};
use crate::journal::{CallsiteDef, RecordPlace, encode_body};

/// Events in their general form.
pub fn events(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut steps = Steps::new();
    while !input.is_empty() {
        if input.below(16) == 0 {
            steps.seal();
        } else {
            let time = super::START_UNIX_NS.wrapping_add(input.signed());
            steps.fold.apply_body(time, &body(&mut input));
        }
        check_counts(&steps.fold);
    }
    steps.end();
}

/// Records of lanes, also such as no lane has.
pub fn records(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut steps = Steps::new();
    while !input.is_empty() {
        if input.below(24) == 0 {
            steps.seal();
            continue;
        }
        let (kind, rest) = record(&mut input);
        let record = Record {
            kind,
            flags: u32::from(input.below(8)),
            ticks: steps.tick(&mut input),
            rest: &rest,
        };
        let lane = u32::from(input.below(3));
        let place = RecordPlace { lane, seq: steps.records, opens: steps.opens };
        steps.records += 1;
        steps.opens += u64::from(kind == Kind::Open);
        let before = steps.fold.next_seq().0;
        steps.fold.record(place, &record, None);
        let counted = steps.fold.next_seq().0 - before;
        assert_eq!(counted, u64::from(kind.is_event()), "an event is counted once");
        check_counts(&steps.fold);
    }
    steps.end();
}

/// A fold, and what its rows must add up to.
struct Steps {
    fold: Fold,
    rows: u64,
    opens: u64,
    records: u64,
    ticks: u64,
    seals_left: u8,
}

impl Steps {
    fn new() -> Self {
        Self { fold: new_fold(), rows: 0, opens: 0, records: 0, ticks: 0, seals_left: SEALS_MAX }
    }

    fn tick(&mut self, input: &mut Input<'_>) -> u64 {
        let apart = input.number();
        // Mostly forwards; a damaged clock may give anything.
        self.ticks = if input.below(32) == 0 { apart } else { self.ticks.wrapping_add(apart) };
        self.ticks
    }

    /// Takes the rows as a seal does, and goes on from what is carried.
    fn seal(&mut self) {
        if self.seals_left == 0 {
            return;
        }
        self.seals_left -= 1;
        let open = self.fold.open_count();
        let rows = self.fold.take(OpenSpans::Carry);
        self.rows += rows.span_count() as u64;
        check_rows(&rows);
        let carried = through_bytes(&self.fold.carried());
        let counts = self.fold.span_counts();
        let sealed = retake_schemas::manifest::Accounting {
            spans_opened: counts.opened,
            spans_closed: counts.closed,
            spans_dropped: counts.dropped,
            ..Default::default()
        };
        let mut next = Fold::new(
            &"20260101t000000-abcd".parse().expect("a run id"),
            "svc",
            self.fold.next_seq(),
            crate::clock::Timeline::new(crate::clock::Anchor { ticks: 0, unix_ns: 0 }, 1.0),
        );
        next.resume(&sealed, self.fold.last_unix_ns().unwrap_or(i64::MIN));
        next.take_over(carried);
        assert_eq!(next.open_count(), open, "open spans are carried");
        self.fold = next;
    }

    fn end(mut self) {
        let open = self.fold.open_count() as u64;
        let closed = self.fold.span_counts().closed;
        let rows = self.fold.take(OpenSpans::Finish);
        self.rows += rows.span_count() as u64;
        assert_eq!(self.rows, closed + open, "every span becomes one row");
        check_rows(&rows);
        assert_eq!(self.fold.open_count(), 0);
    }
}

/// A kind and the words after the ticks.
fn record(input: &mut Input<'_>) -> (Kind, Vec<u64>) {
    let local = u64::from(input.below(8));
    match input.below(12) {
        0..3 => {
            let parent = u64::from(input.below(9));
            (Kind::Open, fields(input, vec![local, parent]))
        }
        3..5 => (Kind::Close, vec![local]),
        5 => (Kind::Event, fields(input, vec![local])),
        6 => (Kind::Update, updates(input, local)),
        7 => (Kind::Enter, vec![local]),
        8 => (if input.flag() { Kind::Exit } else { Kind::Left }, vec![local]),
        9 => (Kind::Token, vec![local, input.number()]),
        10 => {
            let mut bytes = Vec::new();
            encode_body(&body(input), &mut bytes).expect("an event can be encoded");
            payload(
                Kind::Body,
                super::START_UNIX_NS.wrapping_add(input.signed()).cast_unsigned(),
                &bytes,
            )
        }
        _ => bookkeeping(input),
    }
}

fn bookkeeping(input: &mut Input<'_>) -> (Kind, Vec<u64>) {
    match input.below(4) {
        0 => payload(Kind::Thread, 0, input.text().as_bytes()),
        1 => {
            (Kind::Anchor, vec![super::START_UNIX_NS.wrapping_add(input.signed()).cast_unsigned()])
        }
        _ => {
            let target = match input.below(6) {
                0 => retake_schemas::convention::TARGET_TOKEN.to_owned(),
                1 => retake_schemas::convention::TARGET_USAGE.to_owned(),
                2 => retake_schemas::convention::TARGET_DOCUMENT.to_owned(),
                3 => retake_schemas::convention::TARGET_MEASURE.to_owned(),
                _ => input.text(),
            };
            let definition = CallsiteDef {
                name: input.text(),
                target,
                level: Level::Info,
                file: None,
                line: None,
                fields: (0..input.below(12)).map(|_| input.key()).collect(),
            };
            let bytes = rmp_serde::to_vec_named(&definition).expect("a definition");
            payload(Kind::Callsite, u64::from(input.below(4)), &bytes)
        }
    }
}

fn payload(kind: Kind, number: u64, bytes: &[u8]) -> (Kind, Vec<u64>) {
    (kind, record::with_payload(kind, 0, number, bytes).split_off(2))
}

/// Adds a callsite with types of fields, and values that may or may not fit them.
fn fields(input: &mut Input<'_>, mut words: Vec<u64>) -> Vec<u64> {
    let callsite = u64::from(input.below(5));
    let types = (0..4).fold(0, |types, _| types << 8 | u64::from(input.below(8)));
    words.push(callsite | types << 32);
    values(input, &mut words);
    words
}

fn updates(input: &mut Input<'_>, local: u64) -> Vec<u64> {
    let mut words = vec![local];
    for _ in 0..input.below(4) {
        words.push(record::field::inline(usize::from(input.below(12)), input.below(8)));
        values(input, &mut words);
    }
    words
}

fn values(input: &mut Input<'_>, words: &mut Vec<u64>) {
    for _ in 0..input.below(4) {
        if input.flag() {
            let text = input.text();
            let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
            bytes.extend_from_slice(text.as_bytes());
            bytes.resize(record::field::str_words(text.len()) * 8, 0);
            words.extend(record::words_of(&bytes));
        } else {
            words.push(input.number());
        }
    }
}

/// A seal costs more than thousands of events; more of them would only slow the search.
const SEALS_MAX: u8 = 3;
