//! The hand-over from the journal to segments, cut short at each of its steps.

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use retake_schemas::settings::SyncPolicy;

use super::check::{Rows, Span, recovered};
use super::session::{LANES_FILE, Recorded, Session, event_time_ns, settings};
use super::{in_thread, seeded};
use crate::disk::fault::{FaultDisk, Image, Moment};

/// Scenario: a random run with several seals; the process dies, or the power is cut, between any
/// two disk operations of one of them.
/// Guarantees: J4, J1, J2 - each event is read exactly once, and spans have the times, the own
/// times and the ends that a model of the run gives them.
#[test]
fn every_event_is_read_once_wherever_a_seal_is_cut_short() {
    let (_, seed) = seeded(5);
    let (mut cuts, mut steps) = (0, 0);
    for round in 0..ROUNDS {
        let seed = seed * 1_000_003 + round;
        let (here, most) = in_thread(|| cut_one_seal(&mut StdRng::seed_from_u64(seed), seed));
        cuts += here;
        steps = steps.max(most);
    }
    println!("{cuts} cuts in {ROUNDS} runs, up to {steps} steps in a seal");
    assert!(cuts >= ROUNDS as usize * 2 * 9 && steps >= 9, "{cuts} cuts, {steps} steps");
}

/// Gives how many states were compared, and how many steps the seal had.
fn cut_one_seal(rng: &mut StdRng, seed: u64) -> (usize, usize) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let disk = FaultDisk::new(Image::empty()).with_shadow();
    let mut session = Session::start(&disk, &root, settings(SyncPolicy::Batch)).unwrap();
    let mut seals = Vec::new();
    for _ in 0..rng.random_range(2..5) {
        for _ in 0..rng.random_range(1..25) {
            match rng.random_range(0..8) {
                0..3 => session.open(),
                3..6 => session.close(),
                _ => session.note(rng.random_range(0..40)),
            }
            if rng.random_range(0..3) == 0 {
                session.tick();
            }
        }
        session.note(1);
        let first = disk.history().len();
        // With something recorded, and perhaps flushed, while the seal is under way.
        session.let_seal_be_due();
        session.tick();
        session.note(1);
        session.tick();
        seals.push(first..disk.history().len());
    }
    let (run_id, recorded) = (session.run_id.clone(), session.recorded.clone());
    let cut = seals[rng.random_range(0..seals.len())].clone();
    let moments: Vec<Moment> =
        disk.history().moments().filter(|moment| cut.contains(&moment.ops)).collect();
    let journal = Session::folder(&root, &run_id).join("journal");
    for moment in &moments {
        let standing = &moment.standing;
        let lanes = standing.lanes.as_deref().unwrap();
        // A killed process leaves what it wrote, flushed or not, and its lanes.
        let killed = moment.everything_kept();
        let killed = killed.with_file(Path::new(&journal), LANES_FILE, lanes).unwrap();
        let recorded_then = &recorded[..standing.recorded as usize];
        let promised = &recorded[..standing.acknowledged as usize];
        for (image, expected) in [(killed, recorded_then), (moment.nothing_kept(), promised)] {
            let rows = recovered(&FaultDisk::new(image), &root, &run_id).unwrap();
            // More than was promised may survive a power cut; the model follows what did.
            let there = recorded_then.len().min(usize::try_from(rows.accounting.1).unwrap());
            assert!(there >= expected.len(), "seed {seed}, operation {}", moment.ops);
            let model = model(&recorded[..there]);
            assert_eq!(rows.notes, model.notes, "seed {seed}, operation {}", moment.ops);
            assert_eq!(rows.spans, model.spans, "seed {seed}, operation {}", moment.ops);
        }
    }
    (moments.len() * 2, moments.len())
}

/// The rows of a run whose spans are nested, computed from its events alone.
fn model(recorded: &[Recorded]) -> Rows {
    let mut rows = Rows::default();
    // Number, start, and time of children, of the spans that are open.
    let mut open: Vec<(u64, i64, i64)> = Vec::new();
    let ended = |rows: &mut BTreeMap<String, Span>, open: &mut Vec<_>, at: i64, status: &str| {
        let Some((number, start, children_ns)) = open.pop() else { return };
        let duration_ns = at - start;
        let status = status.to_owned();
        let span = Span { status, duration_ns, self_ns: Some(duration_ns - children_ns) };
        rows.insert(format!("span {number}"), span);
        if let Some((_, _, children_ns)) = open.last_mut() {
            *children_ns += duration_ns;
        }
    };
    let mut last = 0;
    for (place, event) in recorded.iter().enumerate() {
        let now = event_time_ns(place);
        last = now;
        match event {
            Recorded::Note(number) => rows.notes.push(*number),
            Recorded::Open(number) => open.push((*number, now, 0)),
            Recorded::Close(_) => ended(&mut rows.spans, &mut open, now, "ok"),
            Recorded::Run | Recorded::Quick(_) => {}
        }
    }
    while !open.is_empty() {
        ended(&mut rows.spans, &mut open, last, "unfinished");
    }
    rows
}

/// Runs, each with another seed.
const ROUNDS: u64 = 100;
