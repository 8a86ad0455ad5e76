//! Power cuts after every disk operation of a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use retake_schemas::RunId;
use retake_schemas::settings::SyncPolicy;

use super::check::Recoveries;
use super::session::{LANES_FILE, Recorded, Session, settings};
use super::{in_thread, place_in_use, seeded};
use crate::disk::fault::{FaultDisk, History, Image, Moment};

/// A run and everything its disk was asked to do.
struct Tape {
    history: History,
    run_id: RunId,
    recorded: Vec<Recorded>,
    root: PathBuf,
}

/// Scenario: a run that flushes after every batch, with seals, open spans carried over them, and
/// explicit flushes; the power is cut after every disk operation.
/// Guarantees: J2, J5 - of everything that a cut may leave, recovery makes a run that has each
/// acknowledged event once and in order, and none that was not recorded.
#[test]
fn acknowledged_events_survive_power_cuts_with_a_flush_per_batch() {
    let (mut rng, _) = seeded(1);
    let tape = in_thread(|| record(SyncPolicy::Batch, BATCH_STEPS));
    cut_after_every_operation(&tape, 100, &mut rng);
}

/// Scenario: the same with a flush now and then, so that much is pending when the power is cut.
/// Guarantees: J2, J5 - as above.
#[test]
fn acknowledged_events_survive_power_cuts_with_a_flush_per_interval() {
    let (mut rng, _) = seeded(2);
    let tape = in_thread(|| record(SyncPolicy::Interval, INTERVAL_STEPS));
    cut_after_every_operation(&tape, 25, &mut rng);
}

fn record(sync: SyncPolicy, steps: u64) -> Tape {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let disk = FaultDisk::new(Image::empty()).with_shadow();
    let mut session = Session::start(&disk, &root, settings(sync)).unwrap();
    for step in 0..steps {
        session.note(if step % 7 == 3 { 6000 } else { 10 });
        match step % 5 {
            1 => session.open(),
            4 => session.close(),
            _ => session.quick(),
        }
        match step % 29 {
            13 => drop(session.writer.flush().unwrap()),
            22 => {
                session.let_seal_be_due();
                session.tick();
            }
            n if n % 6 == 5 => session.tick_late(),
            _ => session.tick(),
        }
    }
    let (run_id, recorded) = (session.run_id.clone(), session.recorded.clone());
    let summary = session.finish();
    assert_eq!((summary.unsealed, summary.dropped), (None, 0));
    Tape { history: disk.history(), run_id, recorded, root }
}

/// `subsets`: random choices of what survives, after each operation.
fn cut_after_every_operation(tape: &Tape, subsets: usize, rng: &mut StdRng) {
    let mut recoveries = Recoveries::new(&tape.root, &tape.run_id);
    let mut acknowledged = 0;
    let mut earlier: Option<Arc<Vec<u8>>> = None;
    for moment in tape.history.moments() {
        assert!(moment.standing.acknowledged >= acknowledged, "a promise is not taken back");
        acknowledged = moment.standing.acknowledged;
        let recorded = &tape.recorded[..moment.standing.recorded as usize];
        let mut images = moment.images(subsets, rng);
        images.extend(with_lanes(&moment, earlier.as_deref(), tape, rng));
        for image in images {
            let checked = recoveries.check(image, recorded, acknowledged);
            checked.unwrap_or_else(|reason| panic!("after operation {}: {reason}", moment.ops));
        }
        if moment.ops % 16 == 0 {
            earlier = moment.standing.lanes.clone();
        }
    }
    let operations = tape.history.len();
    println!(
        "{operations} operations, {} crash images, {} of them different",
        recoveries.images,
        recoveries.distinct()
    );
    assert!(acknowledged > tape.recorded.len() as u64 / 2, "little was promised");
    assert!(operations >= 300 && recoveries.images >= subsets * 300, "too few");
}

/// What a power cut may leave of the mapped lanes, which nobody flushes: what they held now or
/// earlier, pages of both, zeros, or anything at all.
fn with_lanes(
    moment: &Moment,
    earlier: Option<&Vec<u8>>,
    tape: &Tape,
    rng: &mut StdRng,
) -> Vec<Image> {
    let Some(lanes) = moment.standing.lanes.as_deref() else { return Vec::new() };
    let none = vec![0; lanes.len()];
    let earlier = earlier.unwrap_or(&none);
    let mixed = |parts: [&Vec<u8>; 2], unit: usize, rng: &mut StdRng| -> Vec<u8> {
        let units = lanes.len().div_ceil(unit);
        let part = |at: usize| (at * unit)..((at + 1) * unit).min(lanes.len());
        (0..units).flat_map(|at| parts[rng.random_range(0..2)][part(at)].to_vec()).collect()
    };
    let mut noisy = lanes.clone();
    for _ in 0..20 {
        let at = place_in_use(lanes, rng);
        noisy[at] = rng.random();
    }
    let left = [
        lanes.clone(),
        earlier.clone(),
        mixed([lanes, earlier], 4096, rng),
        mixed([lanes, &none], 512, rng),
        noisy,
        lanes[..place_in_use(lanes, rng)].to_vec(),
    ];
    let journal = Session::folder(&tape.root, &tape.run_id).join("journal");
    let put =
        |image: Image, lanes: &Vec<u8>| image.with_file(Path::new(&journal), LANES_FILE, lanes);
    let nothing = left.iter().filter_map(|lanes| put(moment.nothing_kept(), lanes));
    let everything = put(moment.everything_kept(), lanes);
    nothing.chain(everything).collect()
}

/// Steps that make some 300 disk operations.
const BATCH_STEPS: u64 = 106;
const INTERVAL_STEPS: u64 = 150;
